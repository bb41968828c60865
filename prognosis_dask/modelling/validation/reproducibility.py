"""Which features come out alike: the agreement of two measurements of the same patients, feature by feature.

By Lin's concordance correlation and Shrout & Fleiss's intraclass correlations.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from math import nan
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from prognosis_dask.arrays import FloatArray, IntArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.pairing import FEWEST_PAIRS, Pairs, region_of
from prognosis_dask.modelling.metrics.intervals import Z95, interval
from prognosis_dask.modelling.table_spec import Row

#: Concordance from which a feature is called reproducible, unless one says otherwise.
THRESHOLD = 0.85
#: How often the patients are drawn for the bounds of pooled coefficients.
_DRAWS = 200
#: The tail of a two-sided interval of 95 %.
_TAIL = 0.025
#: Of two patients nothing can be said: the intervals have no degrees of freedom left.
_FEWEST = 3
#: Satterthwaite's degrees of freedom below which an F distribution has no quantiles that floating point holds.
_LEAST_FREEDOM = 0.05
#: A spread below this share of the values' magnitude is rounding.
_ROUNDING = 1e-12
_COEFFICIENTS = ("ccc", "icc_1_1", "icc_2_1", "icc_3_1")


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


def reproducible_features(rows: Sequence[Row], threshold: float = THRESHOLD, by: str = "ccc") -> tuple[str, ...]:
    """The features whose concordance correlation, or coefficient ``by``, reaches the threshold in every region."""
    reached: dict[str, bool] = {}
    for row in rows:
        reached[row["feature"]] = reached.get(row["feature"], True) and bool(row[by] >= threshold)
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


class Estimate(NamedTuple):
    """A coefficient and its interval of 95 %; NaN where the measurements do not determine them."""

    value: float
    lower: float
    upper: float


UNDETERMINED = Estimate(float("nan"), float("nan"), float("nan"))


def concordance_correlation(first: FloatArray, second: FloatArray) -> Estimate:
    """Lin's concordance correlation coefficient (Biometrics 45, 255, 1989) of two measurements.

    Moments with denominator n, as Lin has them. The interval is by Fisher's transformation, with the variance as
    corrected in Biometrics 56, 324 (2000). Of identical measurements the interval is the value itself.

    Parameters
    ----------
    first, second
        Shape (patients,), finite.

    >>> value, lower, upper = concordance_correlation(np.arange(5.0), np.arange(5.0) + 1.0)
    >>> round(value, 3)
    0.8
    """
    n = len(first)
    if n < _FEWEST or _constant(first, second):
        return UNDETERMINED
    shift = float(first.mean() - second.mean())
    s11, s22 = float(first.var()), float(second.var())
    s12 = float(((first - first.mean()) * (second - second.mean())).mean())
    value = 2.0 * s12 / (s11 + s22 + shift**2)
    if abs(value) >= 1.0 - _ROUNDING:
        return Estimate(float(np.sign(value)), float(np.sign(value)), float(np.sign(value)))
    variance = _lin_variance(value, s11, s22, s12, shift) / (n - 2)
    z, half = np.arctanh(value), Z95 * np.sqrt(variance) / (1.0 - value**2)
    return Estimate(value, float(np.tanh(z - half)), float(np.tanh(z + half)))


def _lin_variance(value: float, s11: float, s22: float, s12: float, shift: float) -> float:
    """Asymptotic variance of the coefficient, times n; written so that it holds at a correlation of zero too."""
    total = s11 + s22 + shift**2
    determinant = max(s11 * s22 - s12**2, 0.0)
    # value²/r² and value/r are finite where r = 0: r = s12 / sqrt(s11 s22), value = 2 s12 / total
    ratio2 = 4.0 * s11 * s22 / total**2
    u2 = shift**2 / math.sqrt(s11 * s22) if s11 * s22 > 0 else 0.0
    return max(
        4.0 * determinant / total**2 * (1.0 - value**2)
        + 2.0 * value**2 * (1.0 - value) * math.sqrt(ratio2) * u2
        - 0.5 * value**2 * ratio2 * u2**2,
        0.0,
    )


class Intraclass(NamedTuple):
    """Shrout and Fleiss's coefficients of a single measurement.

    Attributes
    ----------
    icc_1_1
        Each patient measured by other, random raters: the order of the columns means nothing.
    icc_2_1
        The same raters, drawn from many: systematic differences between the columns count as disagreement.
    icc_3_1
        These raters only: systematic differences do not count (consistency).
    """

    icc_1_1: Estimate
    icc_2_1: Estimate
    icc_3_1: Estimate


def intraclass_correlation(values: FloatArray) -> Intraclass:
    """Intraclass correlations and their intervals (Shrout & Fleiss, Psychological Bulletin 86, 420, 1979).

    The interval of ICC(2,1) is Satterthwaite's, as there. Measurements that agree exactly have the interval 1 to 1; of
    fewer than three patients nothing is determined.

    Parameters
    ----------
    values
        Shape (patients, measurements), finite.
    """
    n, k = values.shape
    if n < _FEWEST or k < 2 or _constant(*values.T):
        return Intraclass(UNDETERMINED, UNDETERMINED, UNDETERMINED)
    grand = values.mean()
    rows, columns = values.mean(axis=1), values.mean(axis=0)
    between = k * float(((rows - grand) ** 2).sum()) / (n - 1)
    within = float(((values - rows[:, None]) ** 2).sum()) / (n * (k - 1))
    judges = n * float(((columns - grand) ** 2).sum()) / (k - 1)
    residual = values - rows[:, None] - columns + grand
    error = float((residual**2).sum()) / ((n - 1) * (k - 1))
    negligible = (_ROUNDING * np.abs(values).max()) ** 2
    return Intraclass(
        _by_ratio(between, within if within > negligible else 0.0, n - 1, n * (k - 1), k),
        _absolute(between, judges if judges > negligible else 0.0, error if error > negligible else 0.0, n, k),
        _by_ratio(between, error if error > negligible else 0.0, n - 1, (n - 1) * (k - 1), k),
    )


def _by_ratio(between: float, within: float, df_between: int, df_within: int, k: int) -> Estimate:
    """ICC(1,1) and ICC(3,1): monotone in the ratio of two mean squares, and so is their interval."""
    from scipy.special import fdtri

    if within == 0.0:
        return Estimate(1.0, 1.0, 1.0)
    ratio = between / within
    low = ratio / fdtri(df_between, df_within, 1.0 - _TAIL)
    high = ratio * fdtri(df_within, df_between, 1.0 - _TAIL)
    return Estimate(*(float((f - 1.0) / (f + k - 1.0)) for f in (ratio, low, high)))


def _absolute(between: float, judges: float, error: float, n: int, k: int) -> Estimate:
    """ICC(2,1)."""
    from scipy.special import fdtri

    value = (between - error) / (between + (k - 1) * error + k * (judges - error) / n)
    if error == 0.0:  # Satterthwaite's degrees of freedom are those of the judges alone
        if judges == 0.0:
            return Estimate(1.0, 1.0, 1.0)
        freedom = float(k - 1)
    else:
        systematic, weighted = k * value * judges / error, n * (1.0 + (k - 1) * value) - k * value
        weight = (n - 1) * systematic**2 + weighted**2
        freedom = (k - 1) * (n - 1) * (systematic + weighted) ** 2 / weight if weight > 0.0 else 0.0
    if freedom < _LEAST_FREEDOM:  # no interval: the patients' means are all but equal
        return Estimate(float(value), math.nan, math.nan)
    above, below = fdtri(n - 1, freedom, 1.0 - _TAIL), fdtri(freedom, n - 1, 1.0 - _TAIL)
    rest = k * judges + (k * n - k - n) * error
    lower = n * (between - above * error) / (above * rest + n * between)
    upper = n * (below * between - error) / (rest + n * below * between)
    return Estimate(float(value), float(lower), float(upper))


def _constant(*columns: FloatArray) -> bool:
    """Whether all values are one value, up to rounding."""
    values = np.stack(columns)
    return bool(np.ptp(values) <= _ROUNDING * np.abs(values).max())
