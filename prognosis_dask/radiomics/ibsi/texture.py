"""Texture as IBSI defines it: one list of neighbouring voxels, from which every matrix is counted, and its features.

A matrix is held as the elements that are not zero, ``(i, j, n)``: grey level, grey level or size, count. Sections of
the IBSI reference manual (arXiv:1612.07003v11) stand at the functions.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from scipy import ndimage, sparse

from prognosis_dask.arrays import AnyArray, BoolArray, FloatArray, IntArray

_Features = dict[str, float]

#: NGTDM's coarseness where no voxel differs from its neighbours.
_COARSEST = 1e6
#: By kind the names of features: small and large sizes (with low and high levels), non-uniformity, variance, entropy.
_NAMES = {
    "run": ("sre", "lre", "lgre", "hgre", "srlge", "srhge", "lrlge", "lrhge", "rlnu", "r_perc", "rl_var", "rl_entr"),
    "zone": ("sze", "lze", "lgze", "hgze", "szlge", "szhge", "lzlge", "lzhge", "zsnu", "z_perc", "zs_var", "zs_entr"),
    "distance": (
        "sde",
        "lde",
        "lgze",
        "hgze",
        "sdlge",
        "sdhge",
        "ldlge",
        "ldhge",
        "zdnu",
        "z_perc",
        "zd_var",
        "zd_entr",
    ),
    "dependence": (
        *("lde", "hde", "lgce", "hgce", "ldlge", "ldhge", "hdlge", "hdhge", "dcnu", "dc_perc", "dc_var", "dc_entr"),
    ),
}


@dataclass(frozen=True, eq=False)
class Levels:
    """Grey levels, from 1, of the voxels of ``mask``, (z, y, x); neighbours in space, or ``flat``, within slices."""

    mask: BoolArray
    level: IntArray
    flat: bool

    @cached_property
    def highest(self) -> int:
        """The number of grey levels."""
        return int(self.level.max())

    @cached_property
    def _padded(self) -> BoolArray:
        return np.pad(self.mask, 1)

    @cached_property
    def place(self) -> IntArray:
        """The voxels as flat indices of the padded mask."""
        return np.flatnonzero(self._padded)

    @cached_property
    def number(self) -> IntArray:
        """The voxels' numbers at their places in the padded mask; elsewhere -1."""
        number = np.full(self._padded.size, -1)
        number[self.place] = np.arange(len(self.place))
        return number

    @cached_property
    def slice(self) -> IntArray:
        """Each voxel's slice."""
        return np.nonzero(self.mask)[0]

    @cached_property
    def steps(self) -> IntArray:
        """The directions, each one way, as flat steps in the padded mask."""
        _, height, width = self._padded.shape
        ways = [way for way in itertools.product((0, 1, -1), repeat=3) if way > (0, 0, 0)]
        ways = [way for way in ways if not (self.flat and way[0])]
        steps: IntArray = np.array(ways) @ np.array([height * width, width, 1])
        return steps

    @cached_property
    def pairs(self) -> list[tuple[IntArray, IntArray]]:
        """By direction the numbers of neighbouring voxels."""
        found = []
        for step in self.steps:
            other = self.number[self.place + step]
            one = np.flatnonzero(other >= 0)
            found.append((one, other[one]))
        return found


def texture(levels: Levels, morphological: BoolArray) -> _Features:
    """All texture features.

    Parameters
    ----------
    morphological
        The mask before resegmentation, to whose border grey level distance zones are measured; of the levels' shape.
    """
    found = _directed("cm", levels, _co_occurring(levels), _co_occurrence)
    found |= _directed("rlm", levels, _runs(levels), lambda elements: _sizes(elements, "run"))
    zone = _zones(levels)
    first = np.unique(zone, return_index=True)[1]
    level, where = levels.level[first], levels.slice[first]
    distance = ndimage.minimum(_distances(levels, morphological), zone, np.arange(len(first))).astype(np.int64)
    found |= _whole("szm", levels, (level, np.bincount(zone), where), lambda elements: _sizes(elements, "zone"))
    found |= _whole("dzm", levels, (level, distance, where), lambda elements: _sizes(elements, "distance"))
    found |= _neighbourhoods(levels)
    alike = (levels.level, _like_neighbours(levels) + 1, levels.slice)
    return found | _whole("ngl", levels, alike, lambda elements: _sizes(elements, "dependence"))


def _co_occurring(levels: Levels) -> list[tuple[IntArray, IntArray, IntArray]]:
    """By direction the levels of neighbours, both ways, and their slice (3.6.1)."""
    found = []
    for one, other in levels.pairs:
        i, j, where = levels.level[one], levels.level[other], levels.slice[one]
        found.append((np.concatenate([i, j]), np.concatenate([j, i]), np.concatenate([where, where])))
    return found


def _runs(levels: Levels) -> list[tuple[IntArray, IntArray, IntArray]]:
    """By direction each run's level, length and slice (3.7.1)."""
    grey = np.zeros(levels.number.size, np.int64)
    grey[levels.place] = levels.level
    found = []
    for step in levels.steps:
        starts = np.flatnonzero(grey[levels.place - step] != levels.level)
        length, running, at = np.ones(len(starts), np.int64), np.arange(len(starts)), levels.place[starts]
        while running.size:
            at = at + step
            goes_on = grey[at] == levels.level[starts[running]]
            running, at = running[goes_on], at[goes_on]
            length[running] += 1
        found.append((levels.level[starts], length, levels.slice[starts]))
    return found


def _zones(levels: Levels) -> IntArray:
    """The zone of each voxel: neighbours of one level (3.8.1)."""
    one, other = (np.concatenate(side) for side in zip(*levels.pairs, strict=True))
    same = levels.level[one] == levels.level[other]
    count = len(levels.level)
    graph = sparse.coo_array((np.ones(np.count_nonzero(same), bool), (one[same], other[same])), (count, count))
    return np.asarray(sparse.csgraph.connected_components(graph, directed=False)[1], np.int64)


def _distances(levels: Levels, morphological: BoolArray) -> IntArray:
    """Steps from each voxel across faces out of the region; 1 at its border (3.9.1)."""
    padded = np.pad(morphological, 1)
    if levels.flat:
        apart = np.stack([ndimage.distance_transform_cdt(plane, "taxicab") for plane in padded])
    else:
        apart = ndimage.distance_transform_cdt(padded, "taxicab")
    return np.asarray(apart[1:-1, 1:-1, 1:-1][levels.mask], np.int64)


def _like_neighbours(levels: Levels) -> IntArray:
    """How many neighbours of each voxel have its level (3.11.1)."""
    count = np.zeros(len(levels.level), np.int64)
    for one, other in levels.pairs:
        same = levels.level[one] == levels.level[other]
        for side in (one, other):
            count += np.bincount(side[same], minlength=len(count))
    return count


def _neighbourhoods(levels: Levels) -> _Features:
    """Features of how far voxels are from the mean of their neighbours (3.10)."""
    size = len(levels.level)
    count, total = np.zeros(size), np.zeros(size)
    for one, other in levels.pairs:
        for at, beside in ((one, other), (other, one)):
            count += np.bincount(at, minlength=size)
            total += np.bincount(at, levels.level[beside], size)
    some = count > 0
    apart = np.abs(levels.level[some] - total[some] / count[some])
    level, where = levels.level[some], levels.slice[some]
    if not level.size:
        return {}
    if not levels.flat:
        return _named("ngt", "3D", _neighbourhood_difference(level, apart))
    slices = [_neighbourhood_difference(level[where == z], apart[where == z]) for z in np.unique(where)]
    merged = _neighbourhood_difference(level, apart)
    return _named("ngt", "2D", _mean(slices)) | _named("ngt", "2_5D", merged)


def _directed(
    family: str,
    levels: Levels,
    by_direction: list[tuple[IntArray, IntArray, IntArray]],
    features: Callable[[Elements], _Features],
) -> _Features:
    """Features of matrices by direction: averaged over these, and of the combined matrix."""
    i, j, where = (np.concatenate(part) for part in zip(*by_direction, strict=True))
    way = np.repeat(np.arange(len(by_direction)), [len(part[0]) for part in by_direction])
    ways, in_slice = len(by_direction), np.bincount(levels.slice)
    voxels = len(levels.level)
    space = {
        "avg": (way, np.full(ways, voxels)),
        "comb": (np.zeros_like(way), np.array([ways * voxels])),
    }
    if not levels.flat:
        groups = {f"3D_{name}": group for name, group in space.items()}
    else:
        groups = {
            "2D_avg": (where * ways + way, np.repeat(in_slice, ways)),
            "2D_comb": (where, in_slice * ways),
            **{f"2_5D_{name}": group for name, group in space.items()},
        }
    found: _Features = {}
    for name, (group, voxels_of) in groups.items():
        elements = _elements(levels.highest, i, j, group, voxels_of)
        found |= _named(family, name, _mean([features(one) for one in elements]))
    return found


def _whole(
    family: str,
    levels: Levels,
    counted: tuple[IntArray, IntArray, IntArray],
    features: Callable[[Elements], _Features],
) -> _Features:
    """Features of matrices without a direction: in slices the mean of these, and of the combined matrix."""
    i, j, where = counted
    all_in_one = np.zeros_like(where), np.array([len(levels.level)])
    groups = {"2D": (where, np.bincount(levels.slice)), "2_5D": all_in_one} if levels.flat else {"3D": all_in_one}
    found: _Features = {}
    for name, (group, voxels) in groups.items():
        elements = _elements(levels.highest, i, j, group, voxels)
        found |= _named(family, name, _mean([features(one) for one in elements]))
    return found


def _elements(highest: int, i: IntArray, j: IntArray, group: IntArray, voxels: IntArray) -> Iterator[Elements]:
    """The matrix of each group that has an element."""
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    widest = int(j.max(initial=0)) + 1
    for some in np.split(order, starts[1:]):
        if not some.size:
            continue
        code, n = np.unique(i[some] * widest + j[some], return_counts=True)
        yield Elements(code // widest, code % widest, n.astype(np.float64), highest, int(voxels[group[some[0]]]))


def _named(family: str, aggregation: str, features: _Features) -> _Features:
    return {f"{family}_{name}_{aggregation}": value for name, value in features.items()}


def _mean(features: list[_Features]) -> _Features:
    if not features:
        return {}
    rows = np.array([list(one.values()) for one in features], np.float64)
    return dict(zip(features[0], map(float, rows.mean(axis=0)), strict=True))


@dataclass(frozen=True, eq=False)
class Elements:
    """The elements of a matrix that are not zero.

    Attributes
    ----------
    i, j, n
        Row (grey level, from 1), column and count, each of shape (elements,).
    highest
        The number of grey levels.
    voxels
        Of the region or slice, once for each direction that was counted.
    """

    i: IntArray
    j: IntArray
    n: FloatArray
    highest: int
    voxels: int


def _co_occurrence(elements: Elements) -> _Features:
    """Features of a symmetric co-occurrence matrix (3.6)."""
    p = elements.n / elements.n.sum()
    i, j = elements.i.astype(np.float64), elements.j.astype(np.float64)
    grey = np.arange(1, elements.highest + 1)
    marginal = np.bincount(elements.i, p, elements.highest + 1)[1:]
    mean = float(grey @ marginal)
    variance = float((grey - mean) ** 2 @ marginal)
    apart, together = np.abs(i - j), i + j
    difference = np.bincount(np.abs(elements.i - elements.j), p)
    total = np.bincount(elements.i + elements.j, p)
    mean_difference, mean_sum = float(apart @ p), float(together @ p)
    deviation = together - 2 * mean
    entropy, entropy_1d = _entropy(p), _entropy(marginal)
    beside = float(-p @ np.log2(marginal[elements.i - 1] * marginal[elements.j - 1]))
    product = float((i * j) @ p)
    return {
        "joint_max": float(p.max()),
        "joint_avg": float(i @ p),
        "joint_var": float((i - mean) ** 2 @ p),
        "joint_entr": entropy,
        "diff_avg": mean_difference,
        "diff_var": float((apart - mean_difference) ** 2 @ p),
        "diff_entr": _entropy(difference),
        "sum_avg": mean_sum,
        "sum_var": float((together - mean_sum) ** 2 @ p),
        "sum_entr": _entropy(total),
        "energy": float(p @ p),
        "contrast": float(apart**2 @ p),
        "dissimilarity": mean_difference,
        "inv_diff": float(p @ (1 / (1 + apart))),
        "inv_diff_norm": float(p @ (1 / (1 + apart / elements.highest))),
        "inv_diff_mom": float(p @ (1 / (1 + apart**2))),
        "inv_diff_mom_norm": float(p @ (1 / (1 + (apart / elements.highest) ** 2))),
        "inv_var": float(p[apart > 0] @ (1 / apart[apart > 0] ** 2)),
        "corr": (product - mean**2) / variance if variance > 0 else 1.0,
        "auto_corr": product,
        "clust_tend": float(deviation**2 @ p),
        "clust_shade": float(deviation**3 @ p),
        "clust_prom": float(deviation**4 @ p),
        "info_corr1": (entropy - beside) / entropy_1d if entropy_1d > 0 else 0.0,
        # where levels are independent, both entropies are equal and rounding may make the difference negative
        "info_corr2": float(np.sqrt(max(0.0, 1 - np.exp(-2 * (2 * entropy_1d - entropy))))),
    }


def _sizes(elements: Elements, kind: Literal["run", "zone", "distance", "dependence"]) -> _Features:
    """Features of a matrix of grey levels and sizes (3.7 to 3.9, 3.11)."""
    n, total = elements.n, float(elements.n.sum())
    p, i2, j2 = n / total, elements.i.astype(np.float64) ** 2, elements.j.astype(np.float64) ** 2
    small, large, low, high, small_low, small_high, large_low, large_high, nu, share, var, entr = _NAMES[kind]
    by_level, by_size = np.bincount(elements.i, n), np.bincount(elements.j, n)
    mean_level, mean_size = float(elements.i @ p), float(elements.j @ p)
    found = {
        small: float(p @ (1 / j2)),
        large: float(p @ j2),
        low: float(p @ (1 / i2)),
        high: float(p @ i2),
        small_low: float(p @ (1 / (i2 * j2))),
        small_high: float(p @ (i2 / j2)),
        large_low: float(p @ (j2 / i2)),
        large_high: float(p @ (i2 * j2)),
        "glnu": float(by_level @ by_level) / total,
        "glnu_norm": float(by_level @ by_level) / total**2,
        nu: float(by_size @ by_size) / total,
        f"{nu}_norm": float(by_size @ by_size) / total**2,
        share: total / elements.voxels,
        "gl_var": float((elements.i - mean_level) ** 2 @ p),
        var: float((elements.j - mean_size) ** 2 @ p),
        entr: _entropy(p),
    }
    return found | ({"dc_energy": float(p @ p)} if kind == "dependence" else {})


def _neighbourhood_difference(level: IntArray, apart: FloatArray) -> _Features:
    """Features of voxels' levels and of how far each is from the mean of its neighbours (3.10)."""
    grey, at = np.unique(level, return_inverse=True)
    p, s = np.bincount(at) / len(level), np.bincount(at, apart)
    i, levels = grey.astype(np.float64), len(grey)
    between = i[:, None] - i
    weighted = float(p @ s)
    contrast = float(p @ between**2 @ p) / (levels * (levels - 1)) * float(s.sum()) / len(level) if levels > 1 else 0.0
    busy = float(np.abs(i[:, None] * p[:, None] - i * p).sum())
    both = p[:, None] + p
    complexity = np.abs(between) * ((p * s)[:, None] + p * s) / both
    return {
        "coarseness": min(_COARSEST, 1 / weighted) if weighted > 0 else _COARSEST,
        "contrast": contrast,
        "busyness": weighted / busy if levels > 1 and busy > 0 else 0.0,
        "complexity": float(complexity.sum()) / len(level),
        "strength": float((both * between**2).sum() / s.sum()) if s.sum() > 0 else 0.0,
    }


def _entropy(p: AnyArray) -> float:
    some = p[p > 0]
    return float(-some @ np.log2(some))
