"""How much of a feature is volume or stage: Pearson's correlation with what is known without it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from prognosis_dask.statistics.endpoint import FloatArray
from prognosis_dask.statistics.patients import patient_sums

_Z95 = 1.959963984540054
#: Correlations this close to one are one, up to rounding.
_PERFECT = 1.0 - 1e-12
#: A spread below this share of the values' magnitude is rounding.
_ROUNDING = 1e-12


def correlations(
    X: FloatArray, features: Sequence[str], others: Mapping[str, FloatArray], patient_ids: Sequence[str]
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
    patient_ids
        Whose case it is.

    Returns
    -------
    list of dict
        ``feature, with, n, pearson, lower, upper, p``: the interval is Fisher's, of 95 %; p is that of Student's t for
        no correlation, two-sided, not adjusted for the number of features. Where patients have several cases, both
        take the variance over patients. NaN where one of the two is constant or fewer than four patients have both.
    """
    patients = np.asarray(patient_ids)
    rows: list[dict[str, str | float]] = []
    for name, other in others.items():
        for column, feature in zip(X.T, features, strict=True):
            both = np.isfinite(column) & np.isfinite(other)
            rows.append({"feature": feature, "with": name, **_pearson(column[both], other[both], patients[both])})
    return rows


def _pearson(x: FloatArray, y: FloatArray, patients: NDArray[np.str_]) -> dict[str, float]:
    n, independent = len(x), len(np.unique(patients))
    if independent < 4 or _constant(x) or _constant(y):
        return {"n": n, "pearson": math.nan, "lower": math.nan, "upper": math.nan, "p": math.nan}
    from scipy.special import stdtr

    x, y = x - x.mean(), y - y.mean()
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    r = float(np.clip(x @ y, -1.0, 1.0))
    if abs(r) >= _PERFECT:
        return {"n": n, "pearson": r, "lower": r, "upper": r, "p": 0.0}
    if independent == n:
        t, half = abs(r) * math.sqrt((n - 2) / (1.0 - r**2)), _Z95 / math.sqrt(n - 3)
    else:
        error = _fisher_error(x, y, r, patients)
        t, half = abs(math.atanh(r)) / error, _Z95 * error
    return {
        "n": n,
        "pearson": r,
        "lower": math.tanh(math.atanh(r) - half),
        "upper": math.tanh(math.atanh(r) + half),
        "p": 2.0 * float(stdtr(independent - 2, -t)),
    }


def _fisher_error(x: FloatArray, y: FloatArray, r: float, patients: NDArray[np.str_]) -> float:
    """Standard error of Fisher's z over patients, of columns of mean 0 and length 1.

    From the influence of each case on the correlation (Devlin, Gnanadesikan & Kettenring, Biometrika 62, 1975), added
    up within patients; widened like Fisher's own, which divides by n - 3.
    """
    influence = x * y - r / 2 * (x**2 + y**2)
    sums = patient_sums(influence[:, None], patients.tolist())
    return math.sqrt(float((sums**2).sum()) * len(sums) / (len(sums) - 3)) / (1.0 - r**2)


def _constant(values: FloatArray) -> bool:
    return bool(np.ptp(values) <= _ROUNDING * np.abs(values).max())
