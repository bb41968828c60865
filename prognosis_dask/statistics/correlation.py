"""How much of a feature is volume or stage: Pearson's correlation with what is known without it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from prognosis_dask.statistics.endpoint import FloatArray

_Z95 = 1.959963984540054
#: Correlations this close to one are one, up to rounding.
_PERFECT = 1.0 - 1e-12
#: A spread below this share of the values' magnitude is rounding.
_ROUNDING = 1e-12


def correlations(
    X: FloatArray, features: Sequence[str], others: Mapping[str, FloatArray]
) -> list[dict[str, str | float]]:
    """Correlate every feature with every one of some other variables.

    Parameters
    ----------
    X
        Shape (cases, features); NaN where a value is missing: such pairs are left out.
    features
        The columns' names.
    others
        Name to values, shape (cases,).

    Returns
    -------
    list of dict
        ``feature, with, n, pearson, lower, upper, p``: the interval is Fisher's, of 95 %; p is that of Student's t for
        no correlation, two-sided, not adjusted for the number of features. NaN where one of the two is constant or
        fewer than four cases have both.
    """
    rows: list[dict[str, str | float]] = []
    for name, other in others.items():
        for column, feature in zip(X.T, features, strict=True):
            both = np.isfinite(column) & np.isfinite(other)
            rows.append({"feature": feature, "with": name, **_pearson(column[both], other[both])})
    return rows


def _pearson(x: FloatArray, y: FloatArray) -> dict[str, float]:
    n = len(x)
    if n < 4 or _constant(x) or _constant(y):
        return {"n": n, "pearson": math.nan, "lower": math.nan, "upper": math.nan, "p": math.nan}
    from scipy.special import stdtr

    x, y = x - x.mean(), y - y.mean()
    r = float(np.clip((x / np.linalg.norm(x)) @ (y / np.linalg.norm(y)), -1.0, 1.0))
    if abs(r) >= _PERFECT:
        return {"n": n, "pearson": r, "lower": r, "upper": r, "p": 0.0}
    t = abs(r) * math.sqrt((n - 2) / (1.0 - r**2))
    half = _Z95 / math.sqrt(n - 3)
    return {
        "n": n,
        "pearson": r,
        "lower": math.tanh(math.atanh(r) - half),
        "upper": math.tanh(math.atanh(r) + half),
        "p": 2.0 * float(stdtr(n - 2, -t)),
    }


def _constant(values: FloatArray) -> bool:
    return bool(np.ptp(values) <= _ROUNDING * np.abs(values).max())
