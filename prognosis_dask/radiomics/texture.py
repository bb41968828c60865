"""pyradiomics' texture matrices, counted as by its C code, and features, added in the order in which NumPy adds them.

:func:`texture_features` gives None for what is left to pyradiomics' own classes: repeated distances, weighted
directions, co-occurrence in a single direction, directions without pairs or runs, and everything without compiled
loops.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from prognosis_dask.arrays import AnyArray, BoolArray, FloatArray, IntArray
from prognosis_dask.errors import CaseError, Code, warn
from prognosis_dask.radiomics.kernels import call, chunk

#: Warn of fewer grey levels than this in an ROI: texture describes relations between levels, and a handful of them has
#: almost none. (pyradiomics recommends 16 to 128.)
FEWEST = 8
#: Refuse more than this: co-occurrence needs a matrix of levels by levels for each of 13 directions, 0.4 GB at 2,000
#: levels, several of them at once, and takes minutes.
MOST = 2000
#: First-order features only need the bins themselves.
MOST_FIRST_ORDER = 10_000_000


def expect_not_too_many(values: AnyArray, settings: Mapping[str, Any], image_type: str, *, texture: bool) -> None:
    """Refuse an ROI with so many grey levels that its matrices would exhaust memory, before they are allocated.

    Parameters
    ----------
    values
        Of the ROI's voxels, shape (voxels,).
    settings
        ``binCount`` or ``binWidth``, as pyradiomics has them.
    image_type
        Name of the image in the message.
    texture
        Whether matrices are computed from the levels.

    Raises
    ------
    CaseError
        ``RADIOMICS_FAILED``, with suitable bins.
    """
    low, high = float(values.min()), float(values.max())
    if settings.get("binCount") is not None:
        levels, key, value, advice = settings["binCount"], "binCount", settings["binCount"], "64, say"
    else:
        value = settings.get("binWidth", 25)
        levels, key = (high - low) / value, "binWidth"
        advice = f"{float(f'{(high - low) / 64:.1g}'):g} makes some 64 levels of it"
    most = MOST if texture else MOST_FIRST_ORDER
    if levels > most:
        raise CaseError(
            Code.RADIOMICS_FAILED,
            f"{key} {value:g} makes {levels:,.0f} grey levels of the {image_type} image's ROI, whose values go from "
            f"{low:g} to {high:g}; at most {most:,} are computed: set another {key}, {advice}",
        )


def warn_of_few(levels: Mapping[str, int], settings: Mapping[str, Any], modality: str) -> None:
    """Warn of an ROI that has fewer than :data:`FEWEST` grey levels in an image.

    Parameters
    ----------
    levels
        The number of levels in the ROI, by image type.
    settings
        The settings that the levels were binned with.
    modality
        The image's.
    """
    few = {name: number for name, number in levels.items() if number < FEWEST}
    if not few:
        return
    named = ", ".join(f"{number} in {name}" for name, number in list(few.items())[:3])
    more = f" and {len(few) - 3} more images" if len(few) > 3 else ""
    by_width = settings.get("binCount") is None
    bins = f"binWidth {settings.get('binWidth', 25):g}" if by_width else f"binCount {settings['binCount']}"
    warn(
        Code.FEW_GREY_LEVELS,
        f"fewer than {FEWEST} grey levels in the ROI ({named}{more}) with {bins}: its texture says little or nothing; "
        f"give {modality or 'the image'} a smaller binWidth in a parameter file of its own "
        "([radiomics.params], --params)",
    )


_Int32Array = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Region:
    """A mask cut to its box, (z, y, x), with data shared by all its images."""

    mask: BoolArray
    #: (x, y, z), in mm.
    spacing: tuple[float, float, float]
    #: The largest neighbour distance, in voxels.
    reach: int = 1

    def GetSpacing(self) -> tuple[float, float, float]:  # noqa: N802
        """As for an image: all that pyradiomics' feature classes use."""
        return self.spacing

    @cached_property
    def padded_shape(self) -> tuple[int, ...]:
        """Shape of the box padded for every neighbour."""
        return tuple(side + 2 * self.reach for side in self.mask.shape)

    @cached_property
    def pieces(self) -> _Int32Array:
        """Where the mask's voxels lie side by side in the padded box: (first, number)."""
        padded = np.zeros(self.padded_shape, bool)
        padded[tuple(slice(self.reach, self.reach + side) for side in self.mask.shape)] = self.mask
        pieces = np.empty((np.count_nonzero(self.mask), 2), np.int32)
        return pieces[: call("pieces_of", padded, padded.size, pieces)]

    def angles(self, distances: tuple[int, ...], flat: int | None) -> _Int32Array:
        """The neighbours, shape (n, 3), in pyradiomics' order: the first half is the other half mirrored.

        ``flat`` is the axis without neighbours.
        """
        farthest = max(distances)
        found = _angles(tuple(min(side - 1, farthest) for side in self.mask.shape), distances, flat)
        if not len(found):
            raise RuntimeError("Error getting angle count.")
        return found

    def offsets(self, angles: _Int32Array) -> IntArray:
        """The neighbours as flat steps in the padded box."""
        _, height, width = self.padded_shape
        steps: IntArray = angles.astype(np.int64) @ np.array([height * width, width, 1])
        return steps


@lru_cache(maxsize=64)
def _angles(reach: tuple[int, ...], distances: tuple[int, ...], flat: int | None) -> _Int32Array:
    """The neighbours at these distances, within reach along each axis."""
    steps = (range(0, -1, -1) if axis == flat else range(side, -side - 1, -1) for axis, side in enumerate(reach))
    return np.array(
        [angle for angle in itertools.product(*steps) if max(map(abs, angle)) in distances], np.int32
    ).reshape(-1, 3)


class Binned:
    """The grey levels, from 1, of a region's voxels; matrices have rows for those that are there only."""

    def __init__(self, region: Region, levels: IntArray) -> None:
        self.region, self.levels = region, np.ascontiguousarray(levels, np.int64)
        counts = np.bincount(levels)
        #: The levels that are there, and how many voxels have each.
        self.present: IntArray = np.flatnonzero(counts)
        self.counts: IntArray = counts[self.present]
        self.highest = int(self.present[-1])
        self._dependences: dict[tuple[Any, ...], tuple[FloatArray, FloatArray]] = {}

    def in_box(self) -> IntArray:
        """The levels in the region's box; 0 outside the mask."""
        matrix = np.zeros(self.region.mask.shape, np.int64)
        matrix[self.region.mask] = self.levels
        return matrix

    @cached_property
    def ranks(self) -> npt.NDArray[np.uint16]:
        """Places of the voxels' levels among those that are there, from 1, in the padded box; 0 outside the mask."""
        rank = np.zeros(self.highest + 1, np.uint16)
        rank[self.present] = np.arange(1, len(self.present) + 1)
        padded = np.zeros(self.region.padded_shape, np.uint16)
        call("put_ranks", self.levels, rank, self.region.pieces, len(self.region.pieces), padded)
        return padded

    def co_occurrences(self, distances: tuple[int, ...], flat: int | None) -> tuple[FloatArray, FloatArray]:
        """Neighbouring pairs, (levels, levels, ways), and how many each way has."""
        region, n = self.region, len(self.present)
        angles = region.angles(distances, flat)
        ways = len(angles) // 2
        pairs, totals = np.empty((n, n, ways)), np.empty(ways)
        offsets = region.offsets(angles[:ways])
        call("co_occurrences", self.ranks, region.pieces, len(region.pieces), offsets, ways, n, pairs, totals)
        return pairs, totals

    def dependences(self, distances: tuple[int, ...], flat: int | None, alpha: int) -> tuple[FloatArray, FloatArray]:
        """Voxels by level and number of like neighbours; voxels, and the sum of differences from the mean, by level."""
        key = distances, flat, alpha
        if key not in self._dependences:
            region, n = self.region, len(self.present)
            offsets = region.offsets(region.angles(distances, flat))
            like, apart = np.zeros((n, 2 * len(offsets) + 1)), np.zeros((n, 2))
            level = np.concatenate(([0], self.present))
            call(
                *("dependences", self.ranks, self.ranks.size, region.pieces, len(region.pieces), offsets, len(offsets)),
                *(level, self.highest, alpha, like, apart),
            )
            self._dependences[key] = like, apart
        return self._dependences[key]

    def runs(self, flat: int | None) -> FloatArray:
        """Runs by level, length and direction; none in a direction where no line has two voxels of the mask."""
        region, n, lengths = self.region, len(self.present), max(self.region.mask.shape)
        angles = region.angles((1,), flat)
        angles = angles[: len(angles) // 2]
        runs, neighboured = np.empty((n, lengths, len(angles))), np.zeros(len(angles), np.uint8)
        call(
            *("run_matrix", self.ranks, self.ranks.size, region.pieces, len(region.pieces), region.offsets(angles)),
            *(len(angles), n, lengths, runs, neighboured),
        )
        for number in np.flatnonzero(neighboured == 0):
            if not _shares_a_line(region.mask, angles[number]):
                runs[..., number] = 0
        return runs

    def zones(self, flat: int | None) -> tuple[FloatArray, IntArray]:
        """Zones by level and size, of sizes that are there, and those sizes."""
        region, n, count = self.region, len(self.present), len(self.levels)
        angles = region.angles((1,), flat)
        offsets = region.offsets(angles[: len(angles) // 2])
        found = np.empty((count, 2), np.int64)
        number = call(
            *("zones_of", self.ranks, self.ranks.size, region.pieces, len(region.pieces), count),
            *(offsets, len(offsets), found),
        )
        rank, size = found[:number].T
        sizes = np.flatnonzero(np.bincount(size))
        column = np.zeros(sizes[-1] + 1, np.int64)
        column[sizes] = np.arange(len(sizes))
        counts = np.bincount((rank - 1) * len(sizes) + column[size], minlength=n * len(sizes))
        return counts.astype(np.float64).reshape(n, len(sizes)), sizes


def _shares_a_line(mask: BoolArray, angle: _Int32Array) -> bool:
    """Whether two voxels of the mask lie on one line along ``angle``."""
    places = np.argwhere(mask)
    axis = int(np.flatnonzero(angle)[0])
    lines = places - places[:, axis : axis + 1] * angle * angle[axis]
    return len(np.unique(lines, axis=0)) < len(places)


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
