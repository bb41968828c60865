"""The grey levels of an image within a mask, and its texture matrices: counted as by pyradiomics' C code."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from prognosis_dask.arrays import BoolArray, FloatArray, IntArray
from prognosis_dask.radiomics.kernels import call

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
