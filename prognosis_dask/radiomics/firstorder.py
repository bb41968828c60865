"""pyradiomics' first-order features of finite values by compiled sums, each intermediate result computed once.

The formulas and their order of additions are those of ``radiomics.firstorder`` and of the functions of NumPy that it
calls, without their search for missing values.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from prognosis_dask.arrays import AnyArray, FloatArray, IntArray
from prognosis_dask.radiomics.kernels import call, chunk

_PERCENTILES = (10, 25, 75, 90)
_EPS = np.spacing(1)


def places_above(values: AnyArray) -> IntArray | None:
    """How far each value lies above the least, of integers in a short range; None of all others.

    What is the same for equal values, a bin or a power, is then computed once for each value that there may be.
    """
    if values.dtype.kind not in "iu":
        return None
    low, high = int(values.min()), int(values.max())
    if high - low >= len(values):
        return None
    places: IntArray = values.astype(np.int64) - low  # in the values' own type it may overflow
    return places


def first_order_features(
    values: AnyArray, places: IntArray | None, counts: IntArray, spacing: tuple[float, ...], shift: float
) -> dict[str, float] | None:
    """The features that are not deprecated, by pyradiomics' names; None where a value is not finite.

    None as well where nothing is compiled.

    Parameters
    ----------
    values
        Of the region's voxels, in order, in the image's own type.
    places
        As :func:`places_above` gives them.
    counts
        How many voxels have each grey level that is there.
    spacing
        In mm.
    shift
        ``voxelArrayShift``.
    """
    terms = chunk()
    if terms is None:
        return None
    floats, size = np.ascontiguousarray(values, np.float64), len(values)
    low, high = float(floats.min()), float(floats.max())
    (p10, p25, p75, p90), median = _quantiles(floats, places, low)
    deviations, sums = np.empty(size), np.empty(6)
    call("first_order_sums", floats, size, float(shift), p10, p90, terms, deviations, sums)
    total, squares, absolute, energy, robust, inside = sums
    if not np.isfinite(total):  # NaN and infinity show in the sum
        return None
    mean, spread = total / size, np.sqrt(squares / size)
    m2, m3, m4 = (np.add.reduce(power) / size for power in _powers(deviations, places, mean, low, high))
    m2 = m2 if m2 != 0 else 1.0
    share = counts.astype(np.float64) / float(np.add.reduce(counts))
    return {
        "10Percentile": p10,
        "90Percentile": p90,
        "Energy": energy,
        "Entropy": -1.0 * np.add.reduce(share * np.log2(share + _EPS)),
        "InterquartileRange": p75 - p25,
        "Kurtosis": m4 / (m2 * m2),
        "Maximum": high,
        "Mean": mean,
        "MeanAbsoluteDeviation": absolute / size,
        "Median": median,
        "Minimum": low,
        "Range": high - low,
        "RobustMeanAbsoluteDeviation": robust / inside,
        "RootMeanSquared": np.sqrt(energy / float(size)),
        "Skewness": m3 / np.power(m2, 1.5),
        "TotalEnergy": energy * np.multiply.reduce(spacing),
        "Uniformity": np.add.reduce(share * share),
        "Variance": spread * spread,
    }


def _powers(
    deviations: FloatArray, places: IntArray | None, mean: Any, low: float, high: float
) -> Iterator[FloatArray]:
    """The second, third and fourth powers of the deviations.

    Uses ``power``, which may round a square differently from a product.
    """
    if places is None:
        return (np.power(deviations, order) for order in (2, 3, 4))
    each = np.arange(int(low), int(high) + 1, dtype=np.float64) - mean
    return (np.power(each, order)[places] for order in (2, 3, 4))


def _quantiles(floats: FloatArray, places: IntArray | None, low: float) -> tuple[list[float], float]:
    """The percentiles and the median, as NumPy interpolates them between the values at two ranks."""
    size = len(floats)
    at_rank = [(size - 1) * (percentile / 100) for percentile in _PERCENTILES]
    below = [int(rank) for rank in at_rank]
    ranks = [*below, *(min(rank + 1, size - 1) for rank in below), (size - 1) // 2, size // 2]
    if places is None:
        at = np.partition(floats, sorted(set(ranks)))[ranks].tolist()
    else:
        at = (np.searchsorted(np.cumsum(np.bincount(places)), ranks, side="right") + low).tolist()
    found = [_between(at[n], at[n + 4], rank - below[n]) for n, rank in enumerate(at_rank)]
    return found, at[8] if size % 2 else (at[8] + at[9]) / 2


def _between(one: float, other: float, part: float) -> float:
    step = other - one
    return other - step * (1 - part) if part >= 0.5 else one + step * part
