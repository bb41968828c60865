"""Which features come out alike: the agreement of two measurements of the same patients, feature by feature."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prognosis_dask.errors import StatisticsError
from prognosis_dask.statistics.agreement import concordance_correlation, intraclass_correlation
from prognosis_dask.statistics.pairing import Pairs

#: Concordance from which a feature is called reproducible, unless one says otherwise.
THRESHOLD = 0.85
_COEFFICIENTS = ("ccc", "icc_1_1", "icc_2_1", "icc_3_1")

#: One row of a table that is written as CSV.
Row = dict[str, Any]


def agreement_rows(pairs: Pairs) -> list[Row]:
    """One row per feature: ``feature, family, n``, then each coefficient with ``_lower`` and ``_upper``.

    ``n`` counts the pairs in which both have a value; a coefficient that they do not determine (a constant feature,
    fewer than three pairs) is NaN. Several regions of one patient count as independent: intervals are too narrow then.
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
