"""pyradiomics' first-order features of finite values, with each intermediate result computed once.

The formulas and their order of additions are those of ``radiomics.firstorder`` and of the functions of NumPy that it
calls, without their search for missing values.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from prognosis_dask.arrays import AnyArray, FloatArray, IntArray

_PERCENTILES = (10, 25, 75, 90)
_EPS = np.spacing(1)


def first_order_features(
    values: AnyArray, counts: IntArray, spacing: tuple[float, ...], shift: float
) -> dict[str, float] | None:
    """The features that are not deprecated, by pyradiomics' names; None where a value is not finite.

    Parameters
    ----------
    values
        Of the region's voxels, in order, in the image's own type.
    counts
        How many voxels have each grey level that is there.
    spacing
        In mm.
    shift
        ``voxelArrayShift``.
    """
    floats = values.astype(np.float64)
    size, total = len(floats), np.add.reduce(floats)
    if not np.isfinite(total):  # NaN and infinity show in the sum
        return None
    low, high = float(floats.min()), float(floats.max())
    mean = total / size
    deviations = floats - mean
    spread: Any = np.sqrt(np.add.reduce(deviations * deviations) / size)
    m2, m3, m4 = (np.add.reduce(power) / size for power in _powers(values, deviations, mean, low, high))
    shifted = floats + shift if shift else floats
    energy = np.add.reduce(shifted * shifted)
    share = counts.astype(np.float64) / float(np.add.reduce(counts))
    (p10, p25, p75, p90), median = _quantiles(values, floats, low, high)
    m2 = m2 if m2 != 0 else 1.0
    return {
        "10Percentile": p10,
        "90Percentile": p90,
        "Energy": energy,
        "Entropy": -1.0 * np.add.reduce(share * np.log2(share + _EPS)),
        "InterquartileRange": p75 - p25,
        "Kurtosis": m4 / (m2 * m2),
        "Maximum": high,
        "Mean": mean,
        "MeanAbsoluteDeviation": np.add.reduce(np.absolute(deviations)) / size,
        "Median": median,
        "Minimum": low,
        "Range": high - low,
        "RobustMeanAbsoluteDeviation": _robust_deviation(floats, p10, p90),
        "RootMeanSquared": np.sqrt(energy / float(size)),
        "Skewness": m3 / np.power(m2, 1.5),
        "TotalEnergy": energy * np.multiply.reduce(spacing),
        "Uniformity": np.add.reduce(share * share),
        "Variance": spread * spread,
    }


def _short(values: AnyArray, low: float, high: float) -> bool:
    """Whether they are integers in a range that is shorter than they are many."""
    return values.dtype.kind in "iu" and high - low < len(values)


def _powers(values: AnyArray, deviations: FloatArray, mean: Any, low: float, high: float) -> list[FloatArray]:
    """The second, third and fourth powers of the deviations; integers in a short range are raised once per value.

    Uses ``power``, which may round a square differently from a product.
    """
    if not _short(values, low, high):
        return [np.power(deviations, order) for order in (2, 3, 4)]
    each = np.arange(int(low), int(high) + 1, dtype=np.float64) - mean
    place = values.astype(np.int64) - int(low)
    return [np.power(each, order)[place] for order in (2, 3, 4)]


def _quantiles(values: AnyArray, floats: FloatArray, low: float, high: float) -> tuple[list[float], float]:
    """The percentiles and the median, as NumPy interpolates them between the values at two ranks."""
    size = len(values)
    places = [(size - 1) * (percentile / 100) for percentile in _PERCENTILES]
    below = [int(place) for place in places]
    ranks = [*below, *(min(rank + 1, size - 1) for rank in below), (size - 1) // 2, size // 2]
    if _short(values, low, high):
        reached = np.cumsum(np.bincount(values.astype(np.int64) - int(low)))
        at = (np.searchsorted(reached, ranks, side="right") + low).tolist()
    else:
        at = np.partition(floats, sorted(set(ranks)))[ranks].tolist()
    found = [_between(at[n], at[n + 4], place - below[n]) for n, place in enumerate(places)]
    return found, at[8] if size % 2 else (at[8] + at[9]) / 2


def _between(one: float, other: float, part: float) -> float:
    step = other - one
    return other - step * (1 - part) if part >= 0.5 else one + step * part


def _robust_deviation(floats: FloatArray, low: float, high: float) -> Any:
    inside = ~((floats - low < 0) | (floats - high > 0))
    count = np.count_nonzero(inside)
    # outside values count as zero in their place, as in NumPy
    mean = np.add.reduce(np.where(inside, floats, 0)) / count
    return np.add.reduce(np.where(inside, np.absolute(floats - mean), 0)) / count
