"""Two measurements of the same patients: read from runs or tables, and paired row by row."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from prognosis_dask.arrays import FloatArray
from prognosis_dask.cohort.clinical import key, patient_key, read_rows
from prognosis_dask.errors import StatisticsError
from prognosis_dask.features.registry import COVARIATE, families_in, variables
from prognosis_dask.modelling.data.columns import number, tells_the_outcome
from prognosis_dask.modelling.data.families import family_of
from prognosis_dask.tables.headings import no_property

#: Fewest pairs of measurements.
FEWEST_PAIRS = 3
_PATIENT_COLUMNS = ("patientid", "patient", "subjectid", "subject", "id")
#: What tells a test's ROI from its retest's: RIDER's are called GTVp_test_man and GTVp_retest_man.
_TEST = re.compile(r"[ _-]?(re)?test")
_CASE_COLUMNS = ("caseid", "case")


@dataclass(frozen=True)
class IdColumns:
    """A table's columns that say whose row it is and when it was measured; empty: the usual spellings, no ``run``."""

    patient: str = ""
    case: str = ""
    run: str = ""
    roi: str = "roi"
    modality: str = "modality"


@dataclass(frozen=True, eq=False)
class Measurement:
    """Features of cases, without an endpoint.

    Attributes
    ----------
    X
        Shape (cases, features), NaN where a value is missing.
    features, families
        The columns' names, and what each is: "deep", "radiomics", "volume", ...; "other" where the name does not tell.
    case_ids, patient_ids, rois, modalities, runs
        Whose row it is, and of which measurement; the last three are empty texts where the source does not say.
    ignored
        Columns that are no features: they hold words, or the outcome.
    """

    X: FloatArray
    features: tuple[str, ...]
    families: tuple[str, ...]
    case_ids: tuple[str, ...]
    patient_ids: tuple[str, ...]
    rois: tuple[str, ...]
    modalities: tuple[str, ...]
    runs: tuple[str, ...]
    ignored: tuple[str, ...] = ()

    def rows(self, at: Sequence[int]) -> Measurement:
        """The rows at these positions, in this order."""
        return replace(
            self,
            X=self.X[list(at)],
            case_ids=tuple(self.case_ids[i] for i in at),
            patient_ids=tuple(self.patient_ids[i] for i in at),
            rois=tuple(self.rois[i] for i in at),
            modalities=tuple(self.modalities[i] for i in at),
            runs=tuple(self.runs[i] for i in at),
        )

    def columns(self, at: Sequence[int]) -> Measurement:
        """The columns at these positions, in this order."""
        return replace(
            self,
            X=self.X[:, list(at)],
            features=tuple(self.features[i] for i in at),
            families=tuple(self.families[i] for i in at),
        )


@dataclass(frozen=True, eq=False)
class Pairs:
    """Two measurements of the same things: row i of one belongs to row i of the other.

    Attributes
    ----------
    by
        What they were paired by.
    left_out
        Cases of either that have no partner.
    not_compared
        Columns of either that are not features of both.
    """

    first: Measurement
    second: Measurement
    by: str
    left_out: tuple[str, ...]
    not_compared: tuple[str, ...]

    def regions(self) -> dict[str, list[int]]:
        """Positions of the pairs of each region; one region without a name where the two sides name theirs apart."""
        names = [(region_of(a), region_of(b)) for a, b in zip(self.first.rois, self.second.rois, strict=True)]
        if any(a != b for a, b in names):
            return {"": list(range(len(names)))}
        found: dict[str, list[int]] = {}
        for i, (name, _) in enumerate(names):
            found.setdefault(name, []).append(i)
        return found


def region_of(roi: str) -> str:
    """The ROI's name without case and without what tells a test from its retest.

    >>> region_of("GTVp_test_man"), region_of("GTVp_retest_man")
    ('gtvp_man', 'gtvp_man')
    """
    return _TEST.sub("", roi.casefold())


def read_measurement(path: Path | str, columns: IdColumns | None = None) -> Measurement:
    """Read the features of a run, or of a table.

    Parameters
    ----------
    path
        A run's folder, its ``features.zarr`` or ``features.csv``, or any CSV or XLSX table with a column of patients.
    columns
        Of a table: which columns are no features but say whose row it is.

    Raises
    ------
    StatisticsError
        When it is neither, or has no column of patients.
    StoreError
        When the run has no features.
    """
    path = Path(path)
    if path.is_dir():
        return _from_run(path)
    if not path.is_file():
        raise StatisticsError(f"nothing at {path}: give a run's folder, or a CSV or XLSX table of features")
    try:
        rows = read_rows(path)
    except Exception as error:  # openpyxl raises what zipfile, XML and its own parsers raise
        raise StatisticsError(f"{path} cannot be read as a table ({error}): give a CSV or XLSX file") from error
    return _from_rows(rows, str(path), columns or IdColumns())


def _from_run(path: Path) -> Measurement:
    from prognosis_dask.features.dataset import read_features

    dataset = read_features(path)
    blocks = [(np.asarray(dataset["volume_ml"].values, dtype=float)[:, None], ["volume_ml"], "volume")]
    for family in families_in(dataset):
        names = list(dataset[family.names.name].values)
        blocks.append((np.asarray(dataset[family.name].values, dtype=float), names, family.name))
    return Measurement(
        np.concatenate([block for block, _, _ in blocks], axis=1),
        tuple(str(name) for _, names, _ in blocks for name in names),
        tuple(family for _, names, family in blocks for _ in names),
        case_ids=tuple(map(str, dataset["case"].values)),
        patient_ids=tuple(map(str, dataset["patient_id"].values)),
        rois=tuple(map(str, dataset["roi"].values)),
        modalities=tuple(map(str, dataset["modality"].values)),
        runs=("",) * dataset.sizes["case"],
    )


def _of_runs() -> frozenset[str]:
    """The columns of a run's features.csv that are no features."""
    return frozenset(spec.name for spec in variables()) - {"volume_ml"}


def _from_rows(rows: list[dict[str, str]], where: str, named: IdColumns) -> Measurement:
    names = list(rows[0]) if rows else []
    default = IdColumns()
    for part in ("patient", "case", "run", "roi", "modality"):
        wanted = getattr(named, part)
        if wanted != getattr(default, part) and wanted not in names:
            raise StatisticsError(f"{where} has no column {wanted!r} ({part}); it has {', '.join(names[:8])}")
    usual = (n for wanted in _PATIENT_COLUMNS for n in names if key(n) == wanted)
    patient = named.patient or next(usual, None)
    if patient is None:
        raise StatisticsError(
            f"{where} has no column patient_id; it has {', '.join(names[:8]) or 'no rows'}: name it with "
            "--columns patient=NAME"
        )
    case = named.case or next((n for n in names if key(n) in _CASE_COLUMNS), None)
    rows = [row for row in rows if row[patient]]
    columns: dict[str, FloatArray] = {}
    ignored = []
    ids = {patient, case, named.run, named.roi, named.modality, *_of_runs()}
    for name in (name for name in names if name not in ids):
        texts = [row[name] for row in rows]
        values = np.array([number(text) for text in texts])
        is_number = bool(np.isfinite(values).any()) and np.isfinite(values).sum() == sum(map(bool, texts))
        is_number = is_number and not (tells_the_outcome(name) or name.startswith(COVARIATE))
        if is_number and (family_of(name) or not no_property(name, values, (), range(len(values)))):
            columns[name] = values
        else:
            ignored.append(name)
    patients = tuple(row[patient] for row in rows)
    return Measurement(
        np.column_stack(list(columns.values())) if columns else np.zeros((len(rows), 0)),
        tuple(columns),
        tuple(family_of(name, "other") for name in columns),
        tuple(row[case] for row in rows) if case else patients,
        patients,
        rois=tuple(row.get(named.roi, "") for row in rows),
        modalities=tuple(row.get(named.modality, "") for row in rows),
        runs=tuple(row.get(named.run, "") for row in rows),
        ignored=tuple(ignored),
    )


def pair(first: Measurement, second: Measurement) -> Pairs:
    """Pair the rows of two measurements: by patient, by case, or by patient and ROI, whichever pairs the most.

    A row is paired where it alone has its key, in either measurement.

    Raises
    ------
    StatisticsError
        When fewer than three rows can be paired.
    """
    keys: dict[str, Callable[[Measurement, int], tuple[str, ...]]] = {
        "patient": lambda m, i: (patient_key(m.patient_ids[i]),),
        "case": lambda m, i: (m.case_ids[i],),
        "patient and region of interest": lambda m, i: (patient_key(m.patient_ids[i]), m.rois[i]),
    }
    found = {by: _partners(first, second, key_of) for by, key_of in keys.items()}
    by = max(found, key=lambda name: len(found[name]))  # of equals the first
    if len(found[by]) < FEWEST_PAIRS:
        raise StatisticsError(
            f"{len(first.case_ids)} and {len(second.case_ids)} rows cannot be paired: fewer than {FEWEST_PAIRS} cases "
            f"or patients are in both, or patients have several rows; patients are called {_some(first.patient_ids)} "
            f"in the first and {_some(second.patient_ids)} in the second"
        )
    at_first, at_second = ([of[place] for of in found[by]] for place in (0, 1))
    alone = [*np.delete(first.case_ids, at_first).tolist(), *np.delete(second.case_ids, at_second).tolist()]
    return _same_features(first.rows(at_first), second.rows(at_second), by, alone)


def _partners(
    first: Measurement, second: Measurement, key_of: Callable[[Measurement, int], tuple[str, ...]]
) -> list[tuple[int, int]]:
    """Positions of the rows with the same key, where that is one row on either side."""
    places: list[dict[tuple[str, ...], int]] = []
    for measured in (first, second):
        keys = [key_of(measured, i) for i in range(len(measured.case_ids))]
        counts = Counter(keys)
        places.append({name: i for i, name in enumerate(keys) if counts[name] == 1})
    return [(i, places[1][name]) for name, i in places[0].items() if name in places[1]]


def of_modality(measured: Measurement, modality: str) -> Measurement:
    """The rows of one modality.

    Raises
    ------
    StatisticsError
        When there is none.
    """
    at = [i for i, name in enumerate(measured.modalities) if name.casefold() == modality.casefold()]
    if not at:
        known = ", ".join(sorted(set(measured.modalities) - {""})) or "none"
        raise StatisticsError(f"no case is of modality {modality}; the cases are of: {known}")
    return measured.rows(at)


def of_runs(measured: Measurement) -> tuple[Measurement, Measurement]:
    """The rows of either of the two runs that a table's run column names, in the order of their names.

    Raises
    ------
    StatisticsError
        When it names another number of runs.
    """
    names = sorted(set(measured.runs))
    if len(names) != 2:
        raise StatisticsError(
            f"the run column names {len(names)} runs ({', '.join(names[:5])}), expected two: keep the rows of two"
        )
    first, second = ([i for i, run in enumerate(measured.runs) if run == name] for name in names)
    return measured.rows(first), measured.rows(second)


def pair_within(measured: Measurement) -> Pairs:
    """Pair the two series of each patient in one run, test and retest for instance.

    Two rows of one patient are a pair where their ROIs have one name, the words test and retest aside. The order in a
    pair is that of the modalities' names, then "retest" second, then the table's; ICC(1,1) does not depend on it.

    Raises
    ------
    StatisticsError
        When fewer than three patients have two series.
    """
    groups: dict[tuple[str, str], list[int]] = {}
    for i, (patient, roi) in enumerate(zip(measured.patient_ids, measured.rois, strict=True)):
        groups.setdefault((patient_key(patient), region_of(roi)), []).append(i)
    pairs = [sorted(group, key=lambda i: _place(measured, i)) for group in groups.values() if len(group) == 2]
    if len(pairs) < FEWEST_PAIRS:
        patients = len({patient for patient, _ in groups})
        raise StatisticsError(
            f"{len(pairs)} of {patients} patients have two series of the same region, and "
            f"{FEWEST_PAIRS} are needed: give two runs or two tables, or the two modalities to compare"
        )
    alone = [measured.case_ids[i] for group in groups.values() if len(group) != 2 for i in group]
    first, second = ([group[place] for group in pairs] for place in (0, 1))
    return _same_features(measured.rows(first), measured.rows(second), "patient, two series each", alone)


def _place(measured: Measurement, i: int) -> tuple[str, bool, int]:
    return measured.modalities[i], "retest" in measured.rois[i].casefold(), i


def _same_features(first: Measurement, second: Measurement, by: str, alone: list[str]) -> Pairs:
    at = {name: i for i, name in enumerate(second.features)}
    kept = [i for i, name in enumerate(first.features) if name in at]
    if not kept:
        raise StatisticsError(
            f"the two have no feature in common: {_some(first.features)} in the first, {_some(second.features)} in the "
            "second"
        )
    shared = {first.features[i] for i in kept}
    rest = [name for m in (first, second) for name in (*m.features, *m.ignored) if name not in shared]
    right = second.columns([at[first.features[i]] for i in kept])
    return Pairs(first.columns(kept), right, by, tuple(alone), tuple(dict.fromkeys(rest)))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) or "nothing"
