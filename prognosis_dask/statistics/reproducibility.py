"""Which features come out alike: the agreement of two measurements of the same patients, feature by feature."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prognosis_dask.errors import StatisticsError
from prognosis_dask.statistics.agreement import Estimate, concordance_correlation, intraclass_correlation
from prognosis_dask.statistics.endpoint import FloatArray, IntArray
from prognosis_dask.statistics.intervals import interval
from prognosis_dask.statistics.pairing import FEWEST_PAIRS, Pairs, region_of

#: Concordance from which a feature is called reproducible, unless one says otherwise.
THRESHOLD = 0.85
#: How often the patients are drawn for the bounds of pooled coefficients.
_DRAWS = 200
_COEFFICIENTS = ("ccc", "icc_1_1", "icc_2_1", "icc_3_1")

#: One row of a table that is written as CSV.
Row = dict[str, Any]


def agreement_rows(pairs: Pairs, *, pooled: bool = False) -> list[Row]:
    """One row per region and feature: ``feature, family, roi, n``, then each coefficient with its bounds.

    ``n`` counts the pairs in which both have a value; a coefficient that they do not determine (a constant feature,
    fewer than three pairs) is NaN. ``pooled``: all regions in one coefficient by a mixed model, in which each region
    has a mean of its own (a fixed effect), the patients' values vary around it (a random effect), and measurements
    around these; its bounds draw patients, since the regions of a patient are not independent. Without that model the
    differences between regions would pass for differences between patients.
    """
    regions = {"all": list(range(len(pairs.first.case_ids)))} if pooled else pairs.regions()
    rows = []
    for roi, at in regions.items():
        first, second = pairs.first.rows(at), pairs.second.rows(at)
        region = np.unique([region_of(name) for name in first.rois], return_inverse=True)[1]
        for i, (name, family) in enumerate(zip(first.features, first.families, strict=True)):
            both = np.column_stack([first.X[:, i], second.X[:, i]])
            held = np.isfinite(both).all(axis=1)
            if pooled:
                found = _mixed(both[held], region[held], np.array(first.patient_ids)[held])
            else:
                found = _coefficients(both[held])
            row: Row = {"feature": name, "family": family, "roi": roi, "n": int(held.sum())}
            for coefficient, estimate in zip(_COEFFICIENTS, found, strict=True):
                row |= {coefficient: estimate.value}
                row |= {f"{coefficient}_lower": estimate.lower, f"{coefficient}_upper": estimate.upper}
            rows.append(row)
    return rows


def _coefficients(both: FloatArray) -> list[Estimate]:
    return [concordance_correlation(both[:, 0], both[:, 1]), *intraclass_correlation(both)]


def _mixed(both: FloatArray, region: IntArray, patients: NDArray[np.str_]) -> list[Estimate]:
    """The coefficients of what is left when each region's mean is taken off, with bounds that draw patients."""
    if len(both) < FEWEST_PAIRS:
        return _coefficients(both)
    found = _coefficients(_centred(both, region))
    rng = np.random.default_rng(0)
    rows_of = [np.flatnonzero(patients == name) for name in np.unique(patients)]
    draws = []
    for _ in range(_DRAWS):
        drawn = np.concatenate([rows_of[k] for k in rng.integers(len(rows_of), size=len(rows_of))])
        draws.append([one.value for one in _coefficients(_centred(both[drawn], region[drawn]))])
    values = np.array(draws)
    bounds = [interval(values[:, k]) if np.isfinite(one.value) else (nan, nan) for k, one in enumerate(found)]
    return [Estimate(one.value, *of) for one, of in zip(found, bounds, strict=True)]


def _centred(both: FloatArray, region: IntArray) -> FloatArray:
    total = np.bincount(region, weights=both.mean(axis=1))
    mean = total / np.maximum(np.bincount(region), 1)
    return np.asarray(both - mean[region][:, None])


def family_rows(rows: Sequence[Row], threshold: float = THRESHOLD) -> list[Row]:
    """One row per family and region: features, quartiles and mean of their concordance, how many reach the threshold.

    ``share`` is that of the determined features, those whose concordance is a number.
    """
    found = []
    for family, roi in dict.fromkeys((row["family"], row["roi"]) for row in rows):
        values = np.array([row["ccc"] for row in rows if (row["family"], row["roi"]) == (family, roi)])
        held = values[np.isfinite(values)]
        quartiles = np.percentile(held, [25, 50, 75]) if len(held) else np.full(3, np.nan)
        reached = int((held >= threshold).sum())
        found.append(
            {
                "family": family,
                "roi": roi,
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
    """The features whose concordance correlation reaches the threshold in every region."""
    reached: dict[str, bool] = {}
    for row in rows:
        reached[row["feature"]] = reached.get(row["feature"], True) and bool(row["ccc"] >= threshold)
    return tuple(name for name, all_do in reached.items() if all_do)


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
