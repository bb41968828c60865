"""Texture as IBSI defines it: one list of neighbouring voxels, from which every matrix is counted.

A matrix is held as the elements that are not zero, ``(i, j, n)``: grey level, grey level or size, count. Sections of
the IBSI reference manual (arXiv:1612.07003v11) stand at the functions.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage, sparse

from prognosis_dask.arrays import BoolArray, IntArray
from prognosis_dask.radiomics.ibsi.texture_features import (
    Elements,
    co_occurrence,
    neighbourhood_difference,
    sizes,
)

_Features = dict[str, float]


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
    found = _directed("cm", levels, _co_occurring(levels), co_occurrence)
    found |= _directed("rlm", levels, _runs(levels), lambda elements: sizes(elements, "run"))
    zone = _zones(levels)
    first = np.unique(zone, return_index=True)[1]
    level, where = levels.level[first], levels.slice[first]
    distance = ndimage.minimum(_distances(levels, morphological), zone, np.arange(len(first))).astype(np.int64)
    found |= _whole("szm", levels, (level, np.bincount(zone), where), lambda elements: sizes(elements, "zone"))
    found |= _whole("dzm", levels, (level, distance, where), lambda elements: sizes(elements, "distance"))
    found |= _neighbourhoods(levels)
    alike = (levels.level, _like_neighbours(levels) + 1, levels.slice)
    return found | _whole("ngl", levels, alike, lambda elements: sizes(elements, "dependence"))


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
        return _named("ngt", "3D", neighbourhood_difference(level, apart))
    slices = [neighbourhood_difference(level[where == z], apart[where == z]) for z in np.unique(where)]
    merged = neighbourhood_difference(level, apart)
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
