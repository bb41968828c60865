"""pyradiomics' texture features by compiled sums: its formulas, added in the order in which NumPy adds them.

:func:`texture_features` gives None for what is left to pyradiomics' own classes: repeated distances, weighted
directions, co-occurrence in a single direction, directions without pairs or runs, and everything without compiled
loops.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from prognosis_dask.arrays import FloatArray, IntArray
from prognosis_dask.radiomics.kernels import call, chunk
from prognosis_dask.radiomics.matrices import Binned

_EPS = float(np.spacing(1))

#: The sums of ``size_sums`` in ``formulas.c``, in its order, by class.
_SIZE_FEATURES = {
    "glrlm": (
        *("ShortRunEmphasis", "LongRunEmphasis", "LowGrayLevelRunEmphasis", "HighGrayLevelRunEmphasis"),
        *("ShortRunLowGrayLevelEmphasis", "ShortRunHighGrayLevelEmphasis"),
        *("LongRunLowGrayLevelEmphasis", "LongRunHighGrayLevelEmphasis"),
        *("GrayLevelNonUniformity", "RunLengthNonUniformity", "RunPercentage"),
        *("GrayLevelVariance", "RunVariance", "RunEntropy"),
    ),
    "glszm": (
        *("SmallAreaEmphasis", "LargeAreaEmphasis", "LowGrayLevelZoneEmphasis", "HighGrayLevelZoneEmphasis"),
        *("SmallAreaLowGrayLevelEmphasis", "SmallAreaHighGrayLevelEmphasis"),
        *("LargeAreaLowGrayLevelEmphasis", "LargeAreaHighGrayLevelEmphasis"),
        *("GrayLevelNonUniformity", "SizeZoneNonUniformity", "ZonePercentage"),
        *("GrayLevelVariance", "ZoneVariance", "ZoneEntropy"),
    ),
    "gldm": (
        *("SmallDependenceEmphasis", "LargeDependenceEmphasis", "LowGrayLevelEmphasis", "HighGrayLevelEmphasis"),
        *("SmallDependenceLowGrayLevelEmphasis", "SmallDependenceHighGrayLevelEmphasis"),
        *("LargeDependenceLowGrayLevelEmphasis", "LargeDependenceHighGrayLevelEmphasis"),
        *("GrayLevelNonUniformity", "DependenceNonUniformity", ""),
        *("GrayLevelVariance", "DependenceVariance", "DependenceEntropy"),
    ),
}
#: The sums of ``co_occurrence_sums`` in ``formulas.c``, in its order; those without a name are parts of others.
_GLCM_FEATURES = (
    *(
        "Autocorrelation",
        "ClusterProminence",
        "ClusterShade",
        "ClusterTendency",
        "Contrast",
        "SumSquares",
        "",
        "Correlation",
    ),
    *("JointEnergy", "JointEntropy", "Imc1", "Imc2", "MaximumProbability", "", ""),
    *("DifferenceAverage", "DifferenceEntropy", "DifferenceVariance", "Idm", "Idmn", "Id", "Idn", "InverseVariance"),
    *("SumAverage", "SumEntropy"),
)
_SUMS = {name: number for number, name in enumerate(_GLCM_FEATURES) if name}
_VARIANCE_J, _HX, _HY = 6, 13, 14


def texture_features(kind: str, binned: Binned, settings: dict[str, Any]) -> dict[str, float] | None:
    """The features of a class that are not deprecated, by pyradiomics' names."""
    if chunk() is None:
        return None
    return _CLASSES[kind](binned, settings)


def _plain(settings: dict[str, Any]) -> tuple[int, ...]:
    """The distances; none if they are to be left to pyradiomics."""
    named = tuple(int(distance) for distance in settings.get("distances", [1]))
    return named if named and len(set(named)) == len(named) and min(named) > 0 else ()


def _flat(settings: dict[str, Any]) -> int | None:
    return settings.get("force2Ddimension", 0) if settings.get("force2D", False) else None


def _across(absent: int) -> int:
    """Whether a matrix lies column by column after ``numpy.delete`` of so many columns; not after that of one."""
    return _lies_across(min(absent, 2))


@cache
def _lies_across(absent: int) -> int:
    matrix = np.delete(np.zeros((1, 3, 5)), (np.arange(absent),), 2)
    return int(matrix.strides[2] > matrix.strides[1])


def _logs(values: FloatArray) -> FloatArray:
    shifted: FloatArray = values + _EPS
    return np.log2(shifted, out=shifted)


def _mean(values: FloatArray) -> FloatArray:
    """``numpy.nanmean`` over the directions, the last axis."""
    total = np.add.reduce(values, axis=-1)
    means: FloatArray = total / values.shape[-1]
    missing = total != total
    if missing.any():
        for number in np.flatnonzero(missing):
            means[number] = np.nanmean(values[number])
    return means


def _co_occurrence(binned: Binned, settings: dict[str, Any]) -> dict[str, float] | None:
    distances = _plain(settings)
    if not distances or settings.get("weightingNorm") is not None:
        return None
    counts, totals = binned.co_occurrences(distances, _flat(settings))
    n, _, ways = counts.shape
    if ways < 2 or not totals.all():
        return None
    highest, levels = binned.highest, binned.present
    p, product = np.empty((2, n, n, ways))
    marginals, means = np.zeros((2 * n + 3 * highest - 1, ways)), np.zeros((2, ways))
    symmetrical, across = int(settings.get("symmetricalGLCM", True)), _across(highest - n)
    call(
        *("co_occurrence_parts", counts, totals, levels, n, ways, highest, symmetrical, across),
        *(p, product, marginals, means),
    )
    logs, of_product, of_marginals = (_logs(one) for one in (p, product, marginals))
    together = np.arange(2, 2 * highest + 1, dtype=np.float64)[:, None] - means[0] - means[1]
    sums = np.zeros((len(_GLCM_FEATURES), ways))
    call(
        *("co_occurrence_sums", p, logs, product, of_product, marginals, of_marginals, means),
        *(together**3, together**4, levels, n, ways, highest, across, sums),
    )
    deviations = sums[5] ** 0.5 * sums[_VARIANCE_J] ** 0.5
    correlation = sums[_SUMS["Correlation"]]
    correlation /= deviations + _EPS
    correlation[deviations == 0] = 1
    _finish_entropies(sums)
    found = {name: value for name, value in zip(_GLCM_FEATURES, _mean(sums), strict=True) if name}
    return {
        **found,
        "JointAverage": np.add.reduce(means[0]) / ways,
        "MCC": _maximal_correlation(p, marginals) if n > 1 else 1.0,
    }


def _finish_entropies(sums: FloatArray) -> None:
    """Entropies have a minus before their sum; two measures of correlation come from them."""
    for name in ("JointEntropy", "DifferenceEntropy", "SumEntropy", "Imc1", "Imc2"):
        sums[_SUMS[name]] *= -1
    hxy, one, two = (sums[_SUMS[name]] for name in ("JointEntropy", "Imc1", "Imc2"))
    most = np.fmax(-sums[_HX], -sums[_HY])
    first = hxy - one
    first[most != 0] /= most[most != 0]
    first[most == 0] = 0
    second = (1 - np.e ** (-2 * (two - hxy))) ** 0.5
    second[two == hxy] = 0
    sums[_SUMS["Imc1"]], sums[_SUMS["Imc2"]] = first, second


def _maximal_correlation(p: FloatArray, marginals: FloatArray) -> float:
    n, _, ways = p.shape
    q = np.empty((ways, n, n))
    call("correlation_matrix", p, marginals[:n], marginals[n : 2 * n], n, ways, _EPS, q)
    values = np.linalg.eigvals(q)
    values.sort()
    return float(_mean(np.sqrt(values[None, :, -2]))[0].real)


def _runs(binned: Binned, settings: dict[str, Any]) -> dict[str, float] | None:
    if settings.get("weightingNorm") is not None:
        return None
    counts = binned.runs(_flat(settings))
    number = np.add.reduce(counts, (0, 1))
    if not number.all():
        return None
    return _of_sizes("glrlm", binned, *_filled(counts), number)


def _zones(binned: Binned, settings: dict[str, Any]) -> dict[str, float] | None:
    counts, sizes = binned.zones(_flat(settings))
    absent = int(sizes[-1]) - len(sizes)
    return _of_sizes("glszm", binned, counts[..., None], sizes, absent, np.add.reduce(counts, (0, 1))[None])


def _dependences(binned: Binned, settings: dict[str, Any]) -> dict[str, float] | None:
    distances = _plain(settings)
    if not distances:
        return None
    counts = binned.dependences(distances, _flat(settings), settings.get("gldm_a", 0))[0]
    return _of_sizes("gldm", binned, *_filled(counts[..., None]), np.add.reduce(counts, (0, 1))[None])


def _filled(counts: FloatArray) -> tuple[FloatArray, IntArray, int]:
    """The columns of a matrix that are not empty, their sizes from 1, and how many are empty."""
    sizes = np.flatnonzero(counts.any(axis=(0, 2)))
    return np.ascontiguousarray(counts[:, sizes]), sizes + 1, counts.shape[1] - len(sizes)


def _of_sizes(
    kind: str, binned: Binned, counts: FloatArray, sizes: IntArray, absent: int, number: FloatArray
) -> dict[str, float]:
    n, m, ways = counts.shape
    share = counts / number
    names = _SIZE_FEATURES[kind]
    sums, of_zones = np.empty((len(names), ways)), int(kind == "glszm")
    call(
        *("size_sums", counts, share, _logs(share), n, m, ways, binned.present.astype(np.float64)),
        *(sizes.astype(np.float64), number, _across(absent), of_zones, chunk() or 0, sums),
    )
    squared = sums[8:10] / number**2
    sums[:10] /= number
    sums[10] = number / sums[10]
    sums[13] = -sums[13]
    values, (of_level, of_size) = _mean(sums), _mean(squared)
    found = {name: value for name, value in zip(names, values, strict=True) if name}
    found |= {f"{names[9]}Normalized": of_size}
    return found if kind == "gldm" else found | {f"{names[8]}Normalized": of_level}


def _differences(binned: Binned, settings: dict[str, Any]) -> dict[str, float] | None:
    distances = _plain(settings)
    if not distances:
        return None
    matrix = binned.dependences(distances, _flat(settings), settings.get("gldm_a", 0))[1]
    voxels, n = np.add.reduce(matrix[:, 0]), len(matrix)
    sums, apart = np.empty(6), np.ascontiguousarray(matrix[:, 1])
    call("difference_sums", matrix[:, 0] / voxels, apart, binned.present.astype(np.float64), n, chunk() or 0, sums)
    weighted, total, contrast, busy, complexity, strength = sums
    pairs = n * (n - 1)
    contrast = contrast * total / voxels
    return {
        "Coarseness": 1 / weighted if weighted != 0 else 1e6,
        "Contrast": contrast / pairs if pairs else 0.0,
        "Busyness": weighted / busy if busy != 0 else 0.0,
        "Complexity": complexity / voxels,
        "Strength": strength / total if total != 0 else 0.0,
    }


_CLASSES: dict[str, Callable[[Binned, dict[str, Any]], dict[str, float] | None]] = {
    "glcm": _co_occurrence,
    "glrlm": _runs,
    "glszm": _zones,
    "gldm": _dependences,
    "ngtdm": _differences,
}
