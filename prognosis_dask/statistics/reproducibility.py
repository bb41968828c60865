"""Which features come out alike: two measurements of the same patients, feature by feature."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from prognosis_dask.cohort.clinical import key, patient_key, read_rows
from prognosis_dask.errors import StatisticsError
from prognosis_dask.statistics.agreement import concordance_correlation, intraclass_correlation
from prognosis_dask.statistics.columns import family_of, number, tells_the_outcome
from prognosis_dask.statistics.endpoint import FloatArray
from prognosis_dask.store.schema import VARIABLES

#: Concordance from which a feature is called reproducible, unless one says otherwise.
THRESHOLD = 0.85
#: Fewest pairs of measurements.
FEWEST_PAIRS = 3
_PATIENT_COLUMNS = ("patientid", "patient", "subjectid", "subject", "id", "")
_CASE_COLUMNS = ("caseid", "case")
_COEFFICIENTS = ("ccc", "icc_1_1", "icc_2_1", "icc_3_1")

#: One row of a table that is written as CSV.
Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Measured:
    """Features of cases, without an endpoint.

    Attributes
    ----------
    X
        Shape (cases, features), NaN where a value is missing.
    features, families
        The columns' names, and what each is: "deep", "radiomics", "volume", ...; "other" where the name does not tell.
    case_ids, patient_ids, rois, modalities
        Whose row it is; the last two are empty texts where the source does not say.
    """

    X: FloatArray
    features: tuple[str, ...]
    families: tuple[str, ...]
    case_ids: tuple[str, ...]
    patient_ids: tuple[str, ...]
    rois: tuple[str, ...]
    modalities: tuple[str, ...]

    def rows(self, at: Sequence[int]) -> Measured:
        """The rows at these positions, in this order."""
        texts = (self.case_ids, self.patient_ids, self.rois, self.modalities)
        return Measured(self.X[list(at)], self.features, self.families, *(tuple(t[i] for i in at) for t in texts))


@dataclass(frozen=True, eq=False)
class Pairs:
    """Two measurements of the same things: row i of one belongs to row i of the other.

    ``by`` says what they were paired by, ``left_out`` names the rows of either that have no partner.
    """

    first: Measured
    second: Measured
    by: str
    left_out: tuple[str, ...]


def read_measured(path: Path | str) -> Measured:
    """Read the features of a run, or of a table.

    Parameters
    ----------
    path
        A run's folder, its ``features.zarr`` or ``features.csv``, or any CSV or XLSX table with a column of patients.

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
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise StatisticsError(f"{path} cannot be read as a table ({error}): give a CSV or XLSX file") from error
    return _from_rows(rows, str(path))


def _from_run(path: Path) -> Measured:
    from prognosis_dask.store.features import read_features

    dataset = read_features(path)
    blocks = [(np.asarray(dataset["volume_ml"].values, dtype=float)[:, None], ["volume_ml"], "volume")]
    for family, names in (("radiomics", "radiomic"), ("deep", "deep_feature")):
        if family in dataset:
            blocks.append((np.asarray(dataset[family].values, dtype=float), list(dataset[names].values), family))
    return Measured(
        np.concatenate([block for block, _, _ in blocks], axis=1),
        tuple(str(name) for _, names, _ in blocks for name in names),
        tuple(family for _, names, family in blocks for _ in names),
        *(tuple(map(str, dataset[name].values)) for name in ("case", "patient_id", "roi", "modality")),
    )


def _from_rows(rows: list[dict[str, str]], where: str) -> Measured:
    names = list(rows[0]) if rows else []
    patient = next((n for wanted in _PATIENT_COLUMNS for n in names if key(n) == wanted), None)
    if patient is None:
        raise StatisticsError(f"{where} has no column patient_id; it has {', '.join(names[:8]) or 'no rows'}")
    case = next((n for n in names if key(n) in _CASE_COLUMNS), None)
    rows = [row for row in rows if row[patient]]
    taken = {spec.name for spec in VARIABLES} - {"volume_ml"}
    columns: dict[str, FloatArray] = {}
    for name in names:
        if name in (patient, case) or name in taken or name.startswith("covariate_") or tells_the_outcome(name):
            continue
        values = np.array([number(row[name]) for row in rows])
        texts = sum(bool(row[name]) for row in rows)
        if texts and np.isfinite(values).sum() == texts:
            columns[name] = values
    patients = tuple(row[patient] for row in rows)
    return Measured(
        np.column_stack(list(columns.values())) if columns else np.zeros((len(rows), 0)),
        tuple(columns),
        tuple(family_of(name, "other") for name in columns),
        tuple(row[case] for row in rows) if case else patients,
        patients,
        tuple(row.get("roi", "") for row in rows),
        tuple(row.get("modality", "") for row in rows),
    )


def pair(first: Measured, second: Measured) -> Pairs:
    """Pair the rows of two measurements: by patient, by case, or by patient and ROI, whichever pairs the most.

    A row is paired where it alone has its key, in either measurement.

    Raises
    ------
    StatisticsError
        When fewer than three rows can be paired.
    """
    keys: dict[str, Callable[[Measured, int], tuple[str, ...]]] = {
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
    alone = [name for i, name in enumerate(first.case_ids) if i not in set(at_first)]
    alone += [name for i, name in enumerate(second.case_ids) if i not in set(at_second)]
    return _same_features(first.rows(at_first), second.rows(at_second), by, alone)


def _partners(
    first: Measured, second: Measured, key_of: Callable[[Measured, int], tuple[str, ...]]
) -> list[tuple[int, int]]:
    """Positions of the rows with the same key, where that is one row on either side."""
    places: list[dict[tuple[str, ...], int]] = []
    for measured in (first, second):
        keys = [key_of(measured, i) for i in range(len(measured.case_ids))]
        counts = Counter(keys)
        places.append({name: i for i, name in enumerate(keys) if counts[name] == 1})
    return [(i, places[1][name]) for name, i in places[0].items() if name in places[1]]


def of_modality(measured: Measured, modality: str) -> Measured:
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


def pair_within(measured: Measured) -> Pairs:
    """Pair the two series of each patient in one run, test and retest for instance.

    A patient's rows are a pair where there are two; where there are more, those of one ROI are. The order in a pair is
    that of the modalities' names, then "retest" second, then the table's; ICC(1,1) does not depend on it.

    Raises
    ------
    StatisticsError
        When fewer than three patients have two series.
    """
    of_patient = Counter(map(patient_key, measured.patient_ids))
    groups: dict[tuple[str, str], list[int]] = {}
    for i, name in enumerate(map(patient_key, measured.patient_ids)):
        groups.setdefault((name, "" if of_patient[name] == 2 else measured.rois[i]), []).append(i)
    pairs = [sorted(group, key=lambda i: _place(measured, i)) for group in groups.values() if len(group) == 2]
    if len(pairs) < FEWEST_PAIRS:
        raise StatisticsError(
            f"{len(pairs)} of {len(of_patient)} patients have two series of the same region, and {FEWEST_PAIRS} are "
            "needed: give two runs or two tables, or the two modalities to compare"
        )
    alone = [measured.case_ids[i] for group in groups.values() if len(group) != 2 for i in group]
    first, second = ([group[place] for group in pairs] for place in (0, 1))
    return _same_features(measured.rows(first), measured.rows(second), "patient, two series each", alone)


def _place(measured: Measured, i: int) -> tuple[str, bool, int]:
    return measured.modalities[i], "retest" in measured.rois[i].casefold(), i


def _same_features(first: Measured, second: Measured, by: str, alone: list[str]) -> Pairs:
    at = {name: i for i, name in enumerate(second.features)}
    kept = [i for i, name in enumerate(first.features) if name in at]
    if not kept:
        raise StatisticsError(
            f"the two have no feature in common: {_some(first.features)} in the first, {_some(second.features)} in the "
            "second"
        )

    def columns(measured: Measured, chosen: list[int]) -> Measured:
        names = [(measured.features[i], measured.families[i]) for i in chosen]
        rest = (measured.case_ids, measured.patient_ids, measured.rois, measured.modalities)
        return Measured(measured.X[:, chosen], tuple(n for n, _ in names), tuple(f for _, f in names), *rest)

    return Pairs(columns(first, kept), columns(second, [at[first.features[i]] for i in kept]), by, tuple(alone))


def agreement_rows(pairs: Pairs) -> list[Row]:
    """One row per feature: ``feature, family, n``, then each coefficient with ``_lower`` and ``_upper``.

    ``n`` counts the pairs in which both have a value; a coefficient that they do not determine (a constant feature,
    fewer than three pairs) is NaN.
    """
    rows = []
    for i, (name, family) in enumerate(zip(pairs.first.features, pairs.first.families, strict=True)):
        both = np.column_stack([pairs.first.X[:, i], pairs.second.X[:, i]])
        both = both[np.isfinite(both).all(axis=1)]
        found = (concordance_correlation(both[:, 0], both[:, 1]), *intraclass_correlation(both))
        row: Row = {"feature": name, "family": family, "n": len(both)}
        for coefficient, estimate in zip(_COEFFICIENTS, found, strict=True):
            row |= {coefficient: estimate.value}
            row |= {f"{coefficient}_lower": estimate.lower, f"{coefficient}_upper": estimate.upper}
        rows.append(row)
    return rows


def family_rows(rows: Sequence[Row], threshold: float = THRESHOLD) -> list[Row]:
    """One row per family: how many features, quartiles and mean of their concordance, how many reach the threshold.

    ``share`` is that of the determined features, those whose concordance is a number.
    """
    found = []
    for family in dict.fromkeys(row["family"] for row in rows):
        values = np.array([row["ccc"] for row in rows if row["family"] == family])
        held = values[np.isfinite(values)]
        quartiles = np.percentile(held, [25, 50, 75]) if len(held) else np.full(3, np.nan)
        reached = int((held >= threshold).sum())
        found.append(
            {
                "family": family,
                "features": len(values),
                "determined": len(held),
                "mean_ccc": float(held.mean()) if len(held) else float("nan"),
                "median_ccc": float(quartiles[1]),
                "quartile_1": float(quartiles[0]),
                "quartile_3": float(quartiles[2]),
                "reproducible": reached,
                "share": reached / len(held) if len(held) else float("nan"),
                "threshold": threshold,
            }
        )
    return found


def reproducible_features(rows: Sequence[Row], threshold: float = THRESHOLD) -> tuple[str, ...]:
    """The features whose concordance correlation reaches the threshold."""
    return tuple(str(row["feature"]) for row in rows if row["ccc"] >= threshold)


def read_reproducible(path: Path | str) -> tuple[str, ...]:
    """The names in a ``reproducible.csv`` (or any CSV with a column ``feature``): what selection keeps.

    Raises
    ------
    StatisticsError
        When there is no such file, it has no such column, or lists none.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            known = "feature" in (reader.fieldnames or ())
            names = tuple(row["feature"] for row in reader) if known else ()
    except (OSError, UnicodeDecodeError) as error:
        raise StatisticsError(
            f"no list of features at {path} ({error}); `prognosis reproducibility` writes one"
        ) from error
    if not known:
        raise StatisticsError(
            f"{path} has no column 'feature': give the reproducible.csv of `prognosis reproducibility`"
        )
    if not names:
        raise StatisticsError(f"{path} lists no feature, so that none would be left: lower the threshold")
    return names


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) or "nothing"
