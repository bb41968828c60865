"""The clinical table: one row per patient, joined to the cases by patient ID."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from prognosis_dask.cohort.collections import COLLECTIONS, Collection
from prognosis_dask.cohort.endpoints import (
    DAYS,
    LONGEST_DAYS,
    are_calendar_years,
    as_option,
    event_codes,
    likely_endpoints,
    plain_code,
    unit_of,
)
from prognosis_dask.config.job import CohortSection
from prognosis_dask.errors import Code, JobError, Problem, TableError, count
from prognosis_dask.tables.file import Cells, read_cells
from prognosis_dask.tables.headings import key as key
from prognosis_dask.tables.headings import may_identify
from prognosis_dask.tables.values import known_cells, means_missing

#: What word processors and spreadsheets make of a hyphen.
_DASH = re.compile("[\u2010-\u2015\u2212]")
#: The zeros in front of a number; not of decimals.
_ZEROS = re.compile(r"(?<![\d.])0+(?=\d)")
#: What R writes for a hyphen in a name is a point.
_SEPARATORS = re.compile(r"[-_./]+")
_WHOLE_AS_FLOAT = re.compile(r"(\d+)\.0+")
#: A long number as Excel shortens it.
_SHORTENED = re.compile(r"\d(\.\d+)?E\+\d+")


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
    """The rows by :func:`patient_key`.

    ``has_endpoint``: it has columns for time and event. ``notes``: decisions taken when it was read.
    """

    rows: Mapping[str, ClinicalRow]
    has_endpoint: bool
    problems: Sequence[Problem] = ()
    notes: Sequence[str] = ()


def clinical_table(rules: CohortSection, collection: Collection) -> ClinicalTable | None:
    """The clinical table of a cohort's rules; None where they name none.

    Raises
    ------
    JobError
        As :func:`read_clinical`.
    """
    return read_clinical(Path(rules.clinical), collection, rules.sheet) if rules.clinical else None


def read_clinical(path: Path, collection: Collection, sheet: str = "") -> ClinicalTable:
    """Read a clinical table: CSV or XLSX, see :func:`prognosis_dask.tables.file.read_cells`.

    Words in a column of text are kept, ``NA`` too, since their meaning depends on the column; in columns of numbers
    they become empty.

    Raises
    ------
    JobError
        When the file is missing or unreadable, or has no column with the patients' IDs.
    """
    cells = _read(path, sheet)
    names = cells.header
    expect_columns(names, collection, str(path))
    id_column = find_column(names, collection.id_columns)
    if id_column is None:
        expected = ", ".join(collection.id_columns)
        likely = next((name for name in names if may_identify(name)), "COLUMN")
        raise JobError(
            f"{path}: no column with the patients' IDs; it has {_listed(names)}, expected one of {expected}; "
            f"name the column that holds them: {as_option('cohort.id_column', likely)}"
        )
    columns = find_endpoint(names, collection)
    rows, emptied = _rows(cells, {id_column, *columns})
    codes = learn_codes([row[columns[1]] for row in rows] if columns[1] else [], columns[1], collection)
    found: dict[str, ClinicalRow] = {}
    problems = []
    for row in rows:
        if means_missing(row[id_column]):
            continue
        _expect_whole_id(path, row[id_column])
        read = _clinical_row(row, id_column, columns, collection, codes)
        key = patient_key(read.patient_id)
        if key in found:
            read, differing = _merged(found[key], read)
            problems += [_disagreement(path, read.patient_id, name, values) for name, values in differing.items()]
        found[key] = read
    has_endpoint = None not in columns
    if not has_endpoint and collection.time_columns:
        reason = (
            f"{path.name} has no columns for time and event ({_expected(collection)}); it has {', '.join(names)}. "
            f"{_options(cells, columns)}"
        )
        problems.append(Problem(Code.NO_ENDPOINT, reason, where=str(path)))
    notes = [*cells.notes, *_count_emptied(emptied), *_unit_notes(columns[0], collection), *filter(None, [codes.fault])]
    return ClinicalTable(found, has_endpoint, problems, notes)


def expect_columns(names: Sequence[str], collection: Collection, where: str) -> None:
    """Refuse columns that the job names and the table has not.

    Raises
    ------
    JobError
        Naming the nearest one.
    """
    for setting, column in collection.given_columns.items():
        if find_column(names, (column,)) is None:
            near = get_close_matches(column, names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; it has {_listed(names)}"
            raise JobError(f"{setting} is {column!r}, and {where} has no such column{hint}")


def _options(cells: Cells, found: tuple[str | None, str | None]) -> str:
    """The options that name time and event: of the columns that look like them, else with a place for the name."""
    pairs = endpoint_options(cells)
    pairs = [pair for pair in pairs if all(known in (None, own) for known, own in zip(found, pair, strict=True))]
    pairs = pairs or [(found[0] or "COLUMN", found[1] or "COLUMN")]
    lines = [f"{as_option('cohort.time_column', t)} {as_option('cohort.event_column', e)}" for t, e in pairs[:4]]
    return f"Name them: {' or '.join(lines)}"


def endpoint_options(cells: Cells) -> list[tuple[str, str]]:
    """The pairs of columns that may be time and event: those of a known collection, else by heading and content."""
    for preset in COLLECTIONS.values():
        time, event = find_endpoint(cells.header, preset)
        if time and event:
            return [(time, event)]
    columns = dict(zip(cells.header, cells.columns, strict=True))
    return likely_endpoints(columns, lambda name: _is_time(columns[name]), lambda name: _is_event(columns[name]))


def _is_time(cells: Sequence[str]) -> bool:
    numbers = [_number(text) for text in known_cells(cells).texts if text]
    known = {number for number in numbers if number is not None}
    if None in numbers or are_calendar_years(known):
        return False
    return len(known) > min(4, len(numbers) - 1) and max(known, default=0) > 0


def _is_event(cells: Sequence[str]) -> bool:
    return 1 <= len({plain_code(text) for text in known_cells(cells).texts if text}) <= 4


@dataclass(frozen=True)
class Codes:
    """What an event column's values mean, by :func:`prognosis_dask.cohort.endpoints.plain_code`; or why not."""

    codes: Mapping[str, int] = field(default_factory=dict)
    fault: str = ""


def learn_codes(cells: Iterable[str], heading: str | None, collection: Collection) -> Codes:
    """The meaning of the values of an event column."""
    if heading is None:
        return Codes()
    known, given = collection.event_codes, collection.given_codes
    try:
        return Codes(event_codes(heading, cells, known, given, "cohort.event_codes"))
    except ValueError as error:
        return Codes(fault=str(error))


def endpoint(
    row: Mapping[str, str], columns: tuple[str | None, str | None], collection: Collection, codes: Codes
) -> tuple[float | None, int | None, str]:
    """Time in days, event, and the fault with the values seen when the row has no usable endpoint.

    Faults are a follow-up of zero or less or longer than a lifetime, and an event without a code.
    """
    time_column, event_column = columns
    if time_column is None or event_column is None:
        return None, None, ""
    time_text, event_text = row[time_column], row[event_column]
    faults = []
    time = _number(time_text)
    if time is None or time <= 0:
        faults.append(f"{time_column} is {time_text or 'empty'!r}, expected {collection.time_unit} above zero")
    elif time * DAYS[collection.time_unit] > LONGEST_DAYS:
        faults.append(
            f"{time_column} is {time_text!r} {collection.time_unit}, longer than a lifetime: "
            "is it in another unit, or a date?"
        )
    event = codes.codes.get(plain_code(event_text))
    if event is None:
        expected = ", ".join(collection.given_codes or collection.event_codes)
        faults.append(codes.fault or f"{event_column} is {event_text or 'empty'!r}, expected one of {expected}")
    if faults or time is None:
        return None, None, "; ".join(faults)
    return time * DAYS[collection.time_unit], event, ""


def patient_key(patient_id: str) -> str:
    """The key for comparing patient IDs: case, blanks, the composition of letters and the kind of dash are ignored.

    And 12.0 is 12.

    >>> patient_key(" Lung1\u2013001 ") == patient_key("LUNG1-001"), patient_key("12.0"), patient_key("012")
    (True, '12', '012')
    """
    plain = _DASH.sub("-", "".join(unicodedata.normalize("NFC", patient_id).split()).casefold())
    whole = _WHOLE_AS_FLOAT.fullmatch(plain)
    return whole[1] if whole else plain


#: Of a message: one patient's ID in two spellings, as :func:`same_patient` writes it.
SAME_PATIENT = re.compile(r"'[^']*' is '[^']*'")


def same_patient(one: str, other: str) -> str:
    """An example of two spellings, for a message; a report that names nobody knows it by :data:`SAME_PATIENT`.

    >>> SAME_PATIENT.fullmatch(same_patient("o'neil-7", "o'neil-007")) is not None
    True
    """
    return " is ".join("'{}'".format(text.replace("'", "’")) for text in (one, other))


def match_spelt_alike(keys: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """For each unknown key: the known one that differs in leading zeros or in separators only, where it is unique.

    >>> match_spelt_alike(["1", "tcga.02.0007"], ["001", "tcga-02-0007"]), match_spelt_alike(["1"], ["01", "001"])
    ({'1': '001', 'tcga.02.0007': 'tcga-02-0007'}, {})
    """
    wanted, present = set(keys), set(known)
    found: dict[str, str] = {}
    for rule, instead in ((_ZEROS, ""), (_SEPARATORS, "-")):
        other = match_in_part(wanted - found.keys(), present - {*found.values()}, partial(rule.sub, instead))
        found |= {name: alike for name, alike in other.items() if name not in present}
    return found


def match_in_part(keys: Iterable[str], known: Iterable[str], part: Callable[[str], str | None]) -> dict[str, str]:
    """For each key the known one with the same ``part``, where no other of either has it; None: it has none."""

    def by_part(names: Iterable[str]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for name in sorted(names):
            own = part(name)
            if own is not None:
                found[own].append(name)
        return found

    wanted, present = by_part(keys), by_part(known)
    return {names[0]: present[own][0] for own, names in wanted.items() if len(names) == len(present.get(own, ())) == 1}


def find_endpoint(names: Iterable[str], collection: Collection) -> tuple[str | None, str | None]:
    """The time and the event column among some columns' names."""
    listed = list(names)
    return find_column(listed, collection.time_columns), find_column(listed, collection.event_columns)


def find_column(names: Sequence[str], spellings: Sequence[str]) -> str | None:
    """The column of the first spelling found: an exact match, else one with the same letters and digits."""
    known = {key(name): name for name in reversed(names)}
    exact = set(names)
    for spelling in spellings:
        if spelling in exact:
            return spelling
        if key(spelling) and key(spelling) in known:
            return known[key(spelling)]
    return None


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV or XLSX file as text, empty where a value is not known.

    Raises
    ------
    TableError
        When it cannot be read.
    """
    return _rows(read_cells(path), (), words=True)[0]


def _rows(
    cells: Cells, as_they_are: Iterable[str | None], *, words: bool = False
) -> tuple[list[dict[str, str]], dict[str, Mapping[str, int]]]:
    """The rows, and per column which words were taken as unknown: in columns of numbers, or in all."""
    kept = set(as_they_are)
    columns, emptied = [], {}
    for name, column in zip(cells.header, cells.columns, strict=True):
        found = known_cells(column, heading=name)
        numbers = words or all(_number(text) is not None for text in found.texts if text)
        if name not in kept and numbers and found.emptied:
            column, emptied[name] = found.texts, found.emptied
        columns.append(column)
    return replace(cells, columns=tuple(columns)).rows(), emptied


def _read(path: Path, sheet: str) -> Cells:
    if not path.is_file():
        raise JobError(f"no clinical table at {path}")
    try:
        return read_cells(path, sheet)
    except TableError as error:
        raise JobError(f"cannot read the clinical table {path}: {error.reason}") from error


def _expect_whole_id(path: Path, patient_id: str) -> None:
    if _SHORTENED.fullmatch(patient_id):
        raise JobError(
            f"{path}: the patient ID {patient_id!r} is a number that a spreadsheet program has shortened; format the "
            "column as text and save it again"
        )


def _listed(names: Sequence[str], most: int = 20) -> str:
    """Column names, short enough for a message even when the file is not a table."""
    shown = ", ".join(repr(name if len(name) <= 40 else f"{name[:40]}...") for name in names[:most])
    return (shown or "no columns") + (f" and {len(names) - most} more" if len(names) > most else "")


def _clinical_row(
    row: dict[str, str], id_column: str, columns: tuple[str | None, str | None], collection: Collection, codes: Codes
) -> ClinicalRow:
    time, event, fault = endpoint(row, columns, collection, codes)
    covariates = {name: value for name, value in row.items() if name not in (id_column, *columns)}
    return ClinicalRow(row[id_column], time, event, fault, covariates)


def _merged(earlier: ClinicalRow, later: ClinicalRow) -> tuple[ClinicalRow, dict[str, tuple[str, str]]]:
    """Two rows of a patient as one, and the columns in which they differ; those are emptied."""
    fault = earlier.fault
    if (earlier.time_days, earlier.event) != (later.time_days, later.event):
        fault = f"two rows disagree: {_say(earlier)} and {_say(later)}"
    pairs = {name: (text, later.covariates[name]) for name, text in earlier.covariates.items()}
    differing = {name: pair for name, pair in pairs.items() if all(pair) and pair[0] != pair[1]}
    covariates = {name: "" if name in differing else one or other for name, (one, other) in pairs.items()}
    time, event = (None, None) if fault else (earlier.time_days, earlier.event)
    return ClinicalRow(earlier.patient_id, time, event, fault, covariates), differing


def _disagreement(path: Path, patient_id: str, column: str, values: tuple[str, str]) -> Problem:
    reason = f"two rows of the clinical table disagree: {column} is {values[0]!r} and {values[1]!r}; it was left empty"
    return Problem(Code.CLINICAL_TABLE, reason, patient_id=patient_id, where=str(path), severity="warning")


def _count_emptied(emptied: Mapping[str, Mapping[str, int]]) -> list[str]:
    parts = [f"{name} {_quoted(words)}" for name, words in emptied.items()]
    more = f" and of {len(parts) - 8} more columns" if len(parts) > 8 else ""
    return [f"Taken as unknown among numbers: {', '.join(parts[:8])}{more}."] if parts else []


def _quoted(words: Mapping[str, int]) -> str:
    return ", ".join(f"{word!r} in {count(often, 'row')}" for word, often in words.items())


def _unit_notes(time_column: str | None, collection: Collection) -> list[str]:
    said = unit_of(time_column) if time_column else ""
    if said and said != collection.time_unit:
        return [
            f"{time_column} was taken in {collection.time_unit}, as job or preset say, and its heading says {said}."
        ]
    if time_column and collection.unit_assumed:
        return [f"{time_column} was taken in days, since nothing says its unit: cohort.time_unit names another."]
    return []


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _say(row: ClinicalRow) -> str:
    return row.fault or f"{row.time_days} days, event {row.event}"


def _expected(collection: Collection) -> str:
    return " or ".join(collection.time_columns) + "; " + " or ".join(collection.event_columns)
