"""Where features come from: a CSV or XLSX table of somebody's, or a run's feature dataset; columns, not yet numbers."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prognosis_dask.arrays import BoolArray
from prognosis_dask.cohort.clinical import find_column, key, patient_key
from prognosis_dask.cohort.collections import COLLECTIONS
from prognosis_dask.errors import StatisticsError
from prognosis_dask.features.registry import COVARIATE, families_in
from prognosis_dask.modelling.data.columns import SourceColumn, number
from prognosis_dask.modelling.spec import TableFile
from prognosis_dask.tables.file import Cells, read_cells
from prognosis_dask.tables.headings import is_unnamed, may_identify, no_property
from prognosis_dask.tables.values import means_missing

if TYPE_CHECKING:
    import xarray as xr

_ID_SPELLINGS = tuple(
    dict.fromkeys(
        [
            *(name for preset in COLLECTIONS.values() for name in preset.id_columns),
            "patient",
            "patients",
            "subject",
            "case",
        ]
    )
)
_SUMMARY = re.compile(
    r"((grand |sub)?totals?|sum|overall|all|mean|average|median|std|s\.?d\.?|min(imum)?|max(imum)?|(gesamt)?summe|"
    r"(gesamt)?ergebnis|gesamt|mittelwert|moyenne|somme)\s*([:=(\[±|/].*)?|n\s*=.*",
    re.IGNORECASE,
)
#: What patients are called where nothing names them, with the number of their row.
ROW = "row "
#: Columns of features.csv, and of pyradiomics' own table, that describe the case.
_NO_FEATURES = re.compile(
    r"roi|modality|problem|voxels|n_slices|lesion_cut|image|image_units|mask|mask_source|label|diagnostics_.*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Source:
    """A table as it was read.

    Attributes
    ----------
    where
        What it is called in messages.
    patients
        The rows' patient IDs.
    cases
        The rows' own IDs; () where each patient has one row.
    columns
        All others, by name.
    features
        Names of those that may be features.
    family
        The family of columns that nothing else tells apart.
    families
        The families of columns that are known.
    origin
        What the features depend on: ``family.what`` to a digest, a name or a version.
    failed
        By family the rows whose features are not all finite, since the stage that makes them failed.
    without_id
        Rows that name no patient, and were left out.
    measured
        By column the modality and region that it was measured on.
    absent
        By family the rows of patients that have no case of its modality and region.
    left_out
        Rows that were left out, by reason.
    notes
        What was decided when it was read.
    rows_said
        What was decided on what a row is.
    """

    where: str
    patients: tuple[str, ...]
    cases: tuple[str, ...]
    columns: Mapping[str, SourceColumn]
    features: tuple[str, ...]
    family: str = ""
    families: Mapping[str, str] = field(default_factory=dict)
    origin: Mapping[str, str] = field(default_factory=dict)
    failed: Mapping[str, BoolArray] = field(default_factory=dict)
    without_id: int = 0
    measured: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    absent: Mapping[str, BoolArray] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    rows_said: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def find(self, name: str) -> SourceColumn | None:
        """The column of that name, spelt exactly or with the same letters and digits."""
        if name in self.columns:
            return self.columns[name]
        alike = [column for column in self.columns.values() if key(column.name) == key(name)]
        return alike[0] if len(alike) == 1 and key(name) else None


def read_file(path: Path, rule: TableFile, *, alone: bool = False, cells: Cells | None = None) -> Source:
    """Read a CSV or XLSX file, see :func:`prognosis_dask.tables.file.read_cells`, or ``cells`` that are read already.

    Covariates of a run's ``features.csv`` have their own names, as :func:`dataset_source` gives them. Where no heading
    is a usual spelling of a patient's ID, the only one that looks like an ID counts; where there is none and the table
    is ``alone``, joined to no other, each row is a patient of its own. Both are said.

    Raises
    ------
    StatisticsError
        When the file is missing or unreadable, has no column of patients' IDs, or a row for a patient twice without a
        column of cases' IDs.
    """
    cells = _cells(path, rule) if cells is None else cells
    own = [name.removeprefix(COVARIATE) for name in cells.header]
    often = Counter(own)
    header = [name if often[short] > 1 else short for name, short in zip(cells.header, own, strict=True)]
    named_rows = is_unnamed(header[0]) and _are_names(cells.columns[0])
    id_column, said = _id_column(path, header, cells.columns, rule, alone=alone, named_rows=named_rows)
    at = header.index(id_column) if id_column else -1
    ids = cells.columns[at] if id_column else [f"{ROW}{number}" for number in range(1, cells.n_rows + 1)]
    kept = [i for i, text in enumerate(ids) if not means_missing(text)]
    if not kept:
        raise StatisticsError(f"{path}: no row has an ID in column {id_column!r}")
    _refuse_summaries(path, ids if id_column else ())
    patients = _spelt_once(_formatted(ids[i], rule, path) for i in kept)
    numbers, whole = [i + 1 for i in kept], len(kept) == len(ids)
    columns = {
        name: SourceColumn(
            name, cells.columns[j] if whole else [cells.columns[j][i] for i in kept], str(path), rows=numbers
        )
        for j, name in enumerate(header)
        if j != at
    }
    case_column = rule.case_id or next((name for name in columns if key(name) == "caseid"), "")
    if case_column and case_column not in columns:
        raise StatisticsError(f"{path}: no column {case_column!r} of cases' IDs; it has {_some(columns)}")
    cases = tuple(columns.pop(case_column).texts()) if case_column else ()
    _expect_once(path, cases or patients, id_column, "case" if cases else "patient")
    features = _chosen(path, [name for name in columns if not _NO_FEATURES.fullmatch(name)], columns, rule)
    without = len(ids) - len(kept)
    notes = tuple(f"{path.name}: {note}" for note in (*cells.notes, *said, *_nearly_equal(patients)))
    return Source(str(path), patients, cases, columns, features, rule.family, without_id=without, notes=notes)


def _refuse_summaries(path: Path, ids: Sequence[str]) -> None:
    """Refuse a row of sums or means below the patients, which would be one of them."""
    for row, text in enumerate(ids, 1):
        if _SUMMARY.fullmatch(text.strip()):
            raise StatisticsError(
                f"{path}: data row {row} has {text!r} for a patient: a row that sums up others is none; delete it"
            )


def _spelt_once(patients: Iterable[str]) -> tuple[str, ...]:
    """IDs that are the same patient's, spelt as the first of them: folds go by the spelling."""
    first: dict[str, str] = {}
    return tuple(first.setdefault(patient_key(patient), patient) for patient in patients)


def dataset_source(dataset: xr.Dataset, where: str) -> Source:
    """The columns of a feature dataset (see docs/features.md).

    Deep and radiomic features, the tumour's size and place, the volume, and covariates under their own names may be
    features.
    """
    columns: dict[str, SourceColumn] = {}
    families: dict[str, str] = {}
    failed: dict[str, BoolArray] = {}
    for family in families_in(dataset):
        dimension = str(dataset[family.name].dims[1])
        values = np.asarray(dataset[family.name].values, dtype=float)
        named = family.units.name if family.units else ""
        units = dataset[named].values if named in dataset.variables else [""] * values.shape[1]
        held = np.isfinite(values).any(axis=0)  # a class of features that was switched off is no column
        failed[family.name] = np.asarray(~np.isfinite(values[:, held]).all(axis=1) | ~held.any())
        for j in np.flatnonzero(held):
            name = str(dataset[dimension].values[j])
            finite = np.where(np.isfinite(values[:, j]), values[:, j], np.nan)
            columns[name] = SourceColumn(name, finite, where, unit=str(units[j]))
            families[name] = family.name
    # the volume before the clinical columns, whichever way the dataset was written: tables keep the columns' order
    clinical = [name for name in map(str, dataset.variables) if name.startswith(COVARIATE)]
    for name in ["volume_ml", *clinical] if "volume_ml" in dataset.variables else clinical:
        column = _variable(dataset, name, name.removeprefix(COVARIATE), where)
        columns.setdefault(column.name, column)
    features = tuple(columns)
    for name in ("time_days", "event", "modality", "roi"):
        if name in dataset.variables:
            columns[name] = _variable(dataset, name, name, where)
    return Source(
        where,
        tuple(map(str, dataset["patient_id"].values)),
        tuple(map(str, dataset["case"].values)),
        columns,
        features,
        "clinical",
        families,
        {str(name): str(value) for name, value in dict(dataset.attrs.get("settings") or {}).items()},
        failed,
    )


def _variable(dataset: xr.Dataset, variable: str, name: str, where: str) -> SourceColumn:
    values = dataset[variable]
    if values.dtype.kind in "fiub":
        return SourceColumn(
            name, np.asarray(values.values, dtype=float), where, unit="mL" if name == "volume_ml" else ""
        )
    return SourceColumn(name, [str(value) for value in values.values], where)


def _cells(path: Path, rule: TableFile) -> Cells:
    if not path.is_file():
        raise StatisticsError(f"no {'table' if path.suffix else 'file or folder'} at {path}")
    cells = read_cells(path, rule.sheet)
    if not cells.n_rows:
        raise StatisticsError(f"{path} has 1 rows, expected a row of headings and a row per patient")
    return cells


def _id_column(
    path: Path,
    header: Sequence[str],
    columns: Sequence[Sequence[str]],
    rule: TableFile,
    *,
    alone: bool,
    named_rows: bool,
) -> tuple[str, list[str]]:
    """The column of patients' IDs, "" where each row is a patient of its own; and what is to be said of it.

    ``named_rows``: the first column has no heading and names the rows, as pandas' index and R's row names do. Of a
    table that is ``alone``, any of several columns will do that name the same rows as one patient.
    """
    found = find_column(header, (rule.id,) if rule.id else _ID_SPELLINGS)
    if found is not None:
        return found, []
    set_it = f'--set \'table=[{{path="{path.name}", id="COLUMN"}}]\''
    alike = [] if rule.id else [name for name in header if may_identify(name)]
    patients = {_numbered([text.strip() for text in columns[header.index(name)]]) for name in alike}
    if len(alike) == 1 or (alone and len(patients) == 1):
        return alike[0], [f"{alike[0]} was taken as the patients' ID; {set_it} names another column."]
    if named_rows and not rule.id and not alike:
        return header[0], [
            f"The first column has no heading and was taken as the patients' ID; {set_it} names another."
        ]
    if alone and not rule.id and not alike:
        return "", [f"No column names the patients: each row is one, and has its number; {set_it} names a column."]
    expected = repr(rule.id) if rule.id else f"such as {', '.join(_ID_SPELLINGS[:4])}"
    raise StatisticsError(
        f"{path}: no column of patients' IDs ({expected}); it has {_some(header)}. Name it as id in the "
        f"specification's [[table]], or with {set_it}"
    )


def _numbered(texts: Sequence[str]) -> tuple[int, ...]:
    """Each row's text by the number of the row that has it first: equal for columns that tell the same rows apart."""
    first: dict[str, int] = {}
    return tuple(first.setdefault(text, row) for row, text in enumerate(texts))


def _are_names(texts: Sequence[str]) -> bool:
    """Whether each cell holds a word, and none a number or a date."""
    return all(text and math.isnan(number(text)) for text in texts) and not no_property("", None, texts, ())


def _formatted(text: str, rule: TableFile, path: Path) -> str:
    if not rule.id_format:
        return text
    numbers = re.findall(r"\d+", text)
    if not numbers:
        raise StatisticsError(f"{path}: the ID {text!r} holds no number for id_format {rule.id_format!r}")
    return rule.id_format.format(int(numbers[-1]))


def _nearly_equal(patients: Sequence[str]) -> list[str]:
    """A note where IDs of a table differ by leading zeros alone, which spreadsheets drop.

    >>> _nearly_equal(["003", "12", "3"])
    ["Patients '003' and '3' differ by leading zeros alone, and are taken for two: write them alike, if they are one."]
    """
    whole: dict[int, dict[str, None]] = {}
    for name in patients:
        if name.isascii() and name.isdigit():
            whole.setdefault(int(name), {})[name] = None
    pairs = [list(names) for names in whole.values() if len(names) > 1]
    if not pairs:
        return []
    more = f" (so in {len(pairs) - 1} more)" if len(pairs) > 1 else ""
    return [
        f"Patients {pairs[0][0]!r} and {pairs[0][1]!r} differ by leading zeros alone, and are taken for two{more}: "
        "write them alike, if they are one."
    ]


def _expect_once(path: Path, ids: Sequence[str], column: str, what: str) -> None:
    first: dict[str, int] = {}
    for row, text in enumerate(ids, 1):
        if not text:
            raise StatisticsError(f"{path}: data row {row} has no case ID; give every row one")
        earlier = first.setdefault(patient_key(text), row)
        if earlier != row:
            raise StatisticsError(
                f"{path}: {what} {text!r} stands in data rows {earlier} and {row}: one row per {what} is needed"
                + (
                    ""
                    if what == "case"
                    else f"; where patients have several cases, add a column case_id beside {column!r}; where the rows "
                    "are a patient's periods or events, keep one"
                )
            )


def _chosen(path: Path, names: Sequence[str], all_names: Iterable[str], rule: TableFile) -> tuple[str, ...]:
    taken = matching(path, all_names, rule.take, "take") if rule.take else list(names)
    dropped = set(matching(path, all_names, rule.drop, "drop"))
    return tuple(name for name in taken if name not in dropped)


def matching(where: Path | str, names: Iterable[str], patterns: Sequence[str], what: str) -> list[str]:
    """The names that are listed, or match a regular expression after ``re:``.

    Raises
    ------
    StatisticsError
        When a pattern is none, or nothing is called so.
    """
    listed = list(names)
    found: list[str] = []
    for pattern in patterns:
        try:
            expression = re.compile(pattern[3:]) if pattern.startswith("re:") else None
        except re.error as error:
            raise StatisticsError(
                f"{where}: {what} has {pattern!r}, which is no regular expression: {error}"
            ) from error
        matching = [name for name in listed if (expression.search(name) if expression else name == pattern)]
        if not matching:
            raise StatisticsError(
                f"{where}: {what} names {pattern!r}, and no column is called so; it has {_some(listed)}"
            )
        found += matching
    return list(dict.fromkeys(found))


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "")
