"""How far measurements of the same patients agree: concordance correlation and intraclass correlations."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from prognosis_dask.statistics.endpoint import FloatArray

_Z95 = 1.959963984540054
#: The tail of a two-sided interval of 95 %.
_TAIL = 0.025
#: Of two patients nothing can be said: the intervals have no degrees of freedom left.
_FEWEST = 3
#: Satterthwaite's degrees of freedom below which an F distribution has no quantiles that floating point holds.
_LEAST_FREEDOM = 0.05
#: A spread below this share of the values' magnitude is rounding.
_ROUNDING = 1e-12


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
    z, half = np.arctanh(value), _Z95 * np.sqrt(variance) / (1.0 - value**2)
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
