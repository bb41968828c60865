"""Texture matrices of binned voxels: neighbours, runs and zones as counted by pyradiomics' C code, in one pass each.

:class:`Matrices` replaces the module ``radiomics.cMatrices``, whose functions pyradiomics' feature classes call.
Without compiled loops (:mod:`prognosis_dask.radiomics.kernels`) it calls the original.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from radiomics import cMatrices

from prognosis_dask.arrays import BoolArray, FloatArray, IntArray
from prognosis_dask.radiomics.kernels import call, kernels


@dataclass(frozen=True, eq=False)
class Region:
    """A mask cut to its box, (z, y, x), with data shared by all its images."""

    mask: BoolArray
    #: (x, y, z), in mm.
    spacing: tuple[float, float, float]
    #: The largest neighbour distance, in voxels.
    reach: int = 1
    _angles: dict[tuple[Any, ...], npt.NDArray[np.int32]] = field(default_factory=dict, repr=False)

    def GetSpacing(self) -> tuple[float, float, float]:  # noqa: N802
        """As for an image: all that pyradiomics' feature classes use."""
        return self.spacing

    @cached_property
    def padded_shape(self) -> tuple[int, ...]:
        """Shape of the box padded for every neighbour."""
        return tuple(side + 2 * self.reach for side in self.mask.shape)

    @cached_property
    def voxels(self) -> IntArray:
        """The mask's voxels as flat indices of the padded box."""
        return np.flatnonzero(np.pad(self.mask, self.reach))

    def angles(self, distances: tuple[int, ...], flat: int | None) -> npt.NDArray[np.int32]:
        """The neighbours, shape (n, 3), in pyradiomics' order: the first half is the other half mirrored.

        ``flat`` is the axis without neighbours.
        """
        key = distances, flat
        if key not in self._angles:
            steps = range(max(distances), -max(distances) - 1, -1)
            self._angles[key] = np.array(
                [angle for angle in itertools.product(steps, repeat=3) if self._is_angle(angle, distances, flat)],
                np.int32,
            ).reshape(-1, 3)
        if not len(self._angles[key]):
            raise RuntimeError("Error getting angle count.")
        return self._angles[key]

    def _is_angle(self, angle: tuple[int, ...], distances: tuple[int, ...], flat: int | None) -> bool:
        inside = all(abs(step) < side for step, side in zip(angle, self.mask.shape, strict=True))
        return inside and max(map(abs, angle)) in distances and (flat is None or angle[flat] == 0)

    def offsets(self, angles: npt.NDArray[np.int32]) -> IntArray:
        """The neighbours as flat steps in the padded box."""
        _, height, width = self.padded_shape
        steps: IntArray = angles.astype(np.int64) @ np.array([height * width, width, 1])
        return steps


class Binned:
    """The grey levels, from 1, of a region's voxels."""

    def __init__(self, region: Region, levels: IntArray, alpha: int) -> None:
        self.region, self.levels, self.alpha = region, levels, alpha
        self.shape = region.mask.shape
        self.highest = int(levels.max())
        self._neighbours: dict[tuple[Any, ...], tuple[FloatArray, FloatArray, FloatArray]] = {}

    def matrix(self) -> IntArray:
        """In the box, as in pyradiomics."""
        matrix = np.zeros(self.shape, np.int64)
        matrix[self.region.mask] = self.levels
        return matrix

    def padded(self) -> npt.NDArray[np.int32]:
        """In the padded box; 0 outside the mask."""
        padded = np.zeros(self.region.padded_shape, np.int32)
        padded.ravel()[self.region.voxels] = self.levels
        return padded

    def neighbours(self, distances: tuple[int, ...], flat: int | None) -> tuple[FloatArray, FloatArray, FloatArray]:
        """GLCM, GLDM and NGTDM as in pyradiomics' C code; the single user of each array may modify it."""
        key = distances, flat
        if key not in self._neighbours:
            angles, highest = self.region.angles(distances, flat), self.highest
            glcm = np.zeros((1, highest, highest, len(angles) // 2))
            gldm = np.zeros((1, highest, 2 * len(angles) + 1))
            ngtdm = np.zeros((1, highest, 3))
            ngtdm[:, :, 2] = np.arange(1, highest + 1)
            offsets, values = self.region.offsets(angles), np.arange(highest + 1)
            call(
                *("neighbour_matrices", self.padded(), self.region.voxels, len(self.levels), offsets, len(offsets)),
                *(values, highest, self.alpha, glcm, gldm, ngtdm),
            )
            self._neighbours[key] = glcm, gldm, ngtdm
        return self._neighbours[key]

    def runs(self, lengths: int, flat: int | None) -> tuple[FloatArray, npt.NDArray[np.int32]]:
        """GLRLM and its angles; an angle is empty if no line along it has two voxels of the mask."""
        region = self.region
        angles = region.angles((1,), flat)
        angles = angles[: len(angles) // 2]
        glrlm = np.zeros((1, self.highest, lengths, len(angles)))
        neighboured = np.zeros(len(angles), np.uint8)
        call(
            *("run_matrix", self.padded(), region.voxels, len(self.levels), region.offsets(angles), len(angles)),
            *(lengths, glrlm, neighboured),
        )
        for number in np.flatnonzero(neighboured == 0):
            if not _shares_a_line(region.mask, angles[number]):
                glrlm[..., number] = 0
        return glrlm, angles

    def zones(self, flat: int | None) -> FloatArray:
        """GLSZM, up to the largest zone."""
        region = self.region
        offsets = region.offsets(region.angles((1,), flat))
        stack, found = np.empty(len(self.levels), np.int64), np.empty((len(self.levels), 2), np.int64)
        count = call("zones_of", self.padded(), region.voxels, len(self.levels), offsets, len(offsets), stack, found)
        level, size = found[:count].T
        largest = int(size.max())
        counts = np.bincount((level - 1) * largest + size - 1, minlength=self.highest * largest)
        return counts.astype(np.float64).reshape(1, self.highest, largest)


def _shares_a_line(mask: BoolArray, angle: npt.NDArray[np.int32]) -> bool:
    """Whether two voxels of the mask lie on one line along ``angle``."""
    places = np.argwhere(mask)
    axis = int(np.flatnonzero(angle)[0])
    lines = places - places[:, axis : axis + 1] * angle * angle[axis]
    return len(np.unique(lines, axis=0)) < len(places)


class Matrices:
    """``radiomics.cMatrices`` for :class:`Binned` images."""

    @staticmethod
    def calculate_glcm(image: Binned, mask: Any, distances: Any, levels: int, force2d: bool, axis: int) -> Any:
        """Neighbouring pairs of levels."""
        plain = _plain(distances)
        if plain is None:
            return cMatrices.calculate_glcm(image.matrix(), mask, distances, levels, force2d, axis)
        flat = axis if force2d else None
        angles = image.region.angles(plain, flat)
        return image.neighbours(plain, flat)[0], angles[: len(angles) // 2]

    @staticmethod
    def calculate_gldm(
        image: Binned, mask: Any, distances: Any, levels: int, alpha: int, force2d: bool, axis: int
    ) -> Any:
        """Voxels by level and number of like neighbours."""
        plain = _plain(distances)
        if plain is None:
            return cMatrices.calculate_gldm(image.matrix(), mask, distances, levels, alpha, force2d, axis)
        return image.neighbours(plain, axis if force2d else None)[1]

    @staticmethod
    def calculate_ngtdm(image: Binned, mask: Any, distances: Any, levels: int, force2d: bool, axis: int) -> Any:
        """Differences from the neighbours' mean, by level."""
        plain = _plain(distances)
        if plain is None:
            return cMatrices.calculate_ngtdm(image.matrix(), mask, distances, levels, force2d, axis)
        return image.neighbours(plain, axis if force2d else None)[2]

    @staticmethod
    def calculate_glrlm(image: Binned, mask: Any, levels: int, lengths: int, force2d: bool, axis: int) -> Any:
        """Runs by level, length and direction."""
        if kernels() is None:
            return cMatrices.calculate_glrlm(image.matrix(), mask, levels, lengths, force2d, axis)
        return image.runs(int(lengths), axis if force2d else None)

    @staticmethod
    def calculate_glszm(image: Binned, mask: Any, levels: int, voxels: int, force2d: bool, axis: int) -> Any:
        """Zones by level and size."""
        if kernels() is None:
            return cMatrices.calculate_glszm(image.matrix(), mask, levels, voxels, force2d, axis)
        return image.zones(axis if force2d else None)


def _plain(distances: Any) -> tuple[int, ...] | None:
    """The distances; None if pyradiomics has to count: without compiled loops, or for repeated distances."""
    named = tuple(int(distance) for distance in distances)
    return named if kernels() is not None and named and len(set(named)) == len(named) and min(named) > 0 else None
