"""The clinical table: one row per patient, joined to the cases by patient ID."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prognosis_dask.cohort.collections import DAYS, Collection
from prognosis_dask.errors import Code, JobError, Problem

_NOT_KNOWN = {"", "na", "n/a", "nan", "none", "null", "-", ".", "?", "unknown", "not available", "missing", "#n/a"}
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+")
#: In a table whose cells are parted by commas, a comma before three digits may as well part thousands.
_THOUSANDS = re.compile(r"[-+]?\d{1,3},\d{3}")


@dataclass(frozen=True)
class ClinicalRow:
    """One patient's row: the endpoint, why there is none, and every other column as text."""

    patient_id: str
    time_days: float | None = None
    event: int | None = None
    fault: str = ""
    covariates: dict[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class ClinicalTable:
    """The rows by :func:`patient_key`. ``has_endpoint``: there are columns for it."""

    rows: Mapping[str, ClinicalRow]
    has_endpoint: bool
    problems: Sequence[Problem] = ()


def read_clinical(path: Path, collection: Collection) -> ClinicalTable:
    """Read a clinical table: CSV with commas, semicolons or tabs, or the first sheet of an XLSX file.

    Raises
    ------
    JobError
        When the file is missing or unreadable, or has no column with the patients' IDs.
    """
    rows = _read(path)
    names = list(rows[0]) if rows else []
    id_column = _find(names, collection.id_columns)
    if id_column is None:
        expected = ", ".join(collection.id_columns)
        raise JobError(
            f"{path}: no column with the patients' IDs; it has {_listed(names)}, expected one of {expected}; "
            "rename the column that holds them"
        )
    columns = _find(names, collection.time_columns), _find(names, collection.event_columns)
    found: dict[str, ClinicalRow] = {}
    for row in rows:
        if not row[id_column]:
            continue
        read = _clinical_row(row, id_column, columns, collection)
        key = patient_key(read.patient_id)
        earlier = found.get(key)
        if earlier and (earlier.time_days, earlier.event) != (read.time_days, read.event):
            fault = f"two rows disagree: {_say(earlier)} and {_say(read)}"
            read = ClinicalRow(read.patient_id, fault=fault, covariates=earlier.covariates)
        found[key] = read
    has_endpoint = None not in columns
    problems = []
    if not has_endpoint and collection.time_columns:
        reason = f"no columns for time and event ({_expected(collection)}); it has {', '.join(names)}"
        problems.append(Problem(Code.NO_ENDPOINT, reason, where=str(path)))
    return ClinicalTable(found, has_endpoint, problems)


def endpoint(
    row: Mapping[str, str], columns: tuple[str | None, str | None], collection: Collection
) -> tuple[float | None, int | None, str]:
    """Time in days, event, and the fault with the values seen when the row has no usable endpoint.

    Follow-up of zero or less, or an event that is neither 1 nor 0 in the collection's codes, is a fault.
    """
    time_column, event_column = columns
    if time_column is None or event_column is None:
        return None, None, ""
    time_text, event_text = row[time_column], row[event_column]
    faults = []
    time = _number(time_text)
    if time is None or time <= 0:
        faults.append(f"{time_column} is {time_text or 'empty'!r}, expected {collection.time_unit} above zero")
    event = collection.event_codes.get(_whole(event_text).casefold())
    if event is None:
        codes = ", ".join(collection.event_codes)
        faults.append(f"{event_column} is {event_text or 'empty'!r}, expected one of {codes}")
    if faults or time is None:
        return None, None, "; ".join(faults)
    return time * DAYS[collection.time_unit], event, ""


def patient_key(patient_id: str) -> str:
    """What patient IDs are compared by.

    >>> patient_key(" Lung1-001 ") == patient_key("LUNG1-001")
    True
    """
    return "".join(patient_id.split()).casefold()


def key(column: str) -> str:
    """What column names are compared by: their letters and digits.

    >>> key("Survival.time"), key("survival_time ")
    ('survivaltime', 'survivaltime')
    """
    return re.sub(r"[^a-z0-9]+", "", column.casefold())


def find_endpoint(names: Iterable[str], collection: Collection) -> tuple[str | None, str | None]:
    """The time and the event column among some columns' names."""
    listed = list(names)
    return _find(listed, collection.time_columns), _find(listed, collection.event_columns)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV or XLSX file as text; blank rows left out, unknown values empty, decimal points as points."""
    cells, comma = read_lines(path)
    header = [name.strip() for name in cells[0]] if cells else []
    rows = []
    for line in cells[1:]:
        values = [clean_cell(text, comma) for text in line]
        if any(values):
            padded = values + [""] * (len(header) - len(values))
            rows.append({name: value for name, value in zip(header, padded, strict=False) if name})
    return rows


def read_lines(path: Path) -> tuple[list[list[str]], bool]:
    """The cells of a CSV file or of an XLSX file's first sheet, as they stand, and whether commas part them."""
    return (_xlsx(path), False) if path.suffix.lower() in (".xlsx", ".xlsm") else _csv(path)


def clean_cell(text: str, comma_parts_cells: bool) -> str:
    """A cell without blanks around it, empty where its value is not known, with a decimal point for a comma."""
    text = text.strip()
    if text.casefold() in _NOT_KNOWN:
        return ""
    if _DECIMAL_COMMA.fullmatch(text) and not (comma_parts_cells and _THOUSANDS.fullmatch(text)):
        return text.replace(",", ".")
    return text


def _read(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise JobError(f"no clinical table at {path}")
    try:
        return read_rows(path)
    except Exception as error:  # openpyxl raises what zipfile, XML and its own parsers raise
        raise JobError(f"cannot read the clinical table {path}: {type(error).__name__}: {error}") from error


def _csv(path: Path) -> tuple[list[list[str]], bool]:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(",;\t", key=first.count)
    lines = [line for line in csv.reader(text.splitlines(), delimiter=delimiter) if any(cell.strip() for cell in line)]
    return lines, delimiter == ","


def _xlsx(path: Path) -> list[list[str]]:
    import warnings

    import openpyxl

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of styles that do not matter here
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        lines = [[_text(cell) for cell in line] for line in book.worksheets[0].iter_rows(values_only=True)]
        book.close()
    return [line for line in lines if any(line)]


def _text(cell: object) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell)


def _listed(names: Sequence[str], most: int = 20) -> str:
    """Column names as a message can hold them, also of a file that is no table at all."""
    shown = ", ".join(repr(name if len(name) <= 40 else f"{name[:40]}...") for name in names[:most])
    return (shown or "no columns") + (f" and {len(names) - most} more" if len(names) > most else "")


def _clinical_row(
    row: dict[str, str], id_column: str, columns: tuple[str | None, str | None], collection: Collection
) -> ClinicalRow:
    time, event, fault = endpoint(row, columns, collection)
    covariates = {name: value for name, value in row.items() if name not in (id_column, *columns)}
    return ClinicalRow(row[id_column], time, event, fault, covariates)


def _find(names: Sequence[str], spellings: Sequence[str]) -> str | None:
    known = {key(name): name for name in reversed(names)}
    return next((known[key(spelling)] for spelling in spellings if key(spelling) in known), None)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _whole(text: str) -> str:
    number = _number(text)
    return str(int(number)) if number is not None and number.is_integer() else text


def _say(row: ClinicalRow) -> str:
    return row.fault or f"{row.time_days} days, event {row.event}"


def _expected(collection: Collection) -> str:
    return " or ".join(collection.time_columns) + "; " + " or ".join(collection.event_columns)
