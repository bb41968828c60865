"""The voxel lattice of an image, and how far it is from right-angled."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prognosis_dask.errors import CaseError, Code

#: Furthest, in voxels, that making a grid right-angled may move a voxel of it: nearest-neighbour resampling would move
#: none. TotalSegmentator's public cases are sheared by 0.01 degrees, which is a fifth of this over 400 mm.
SHEAR_VOXELS = 0.25
#: Direction cosines are written with six digits or so: grids nearer to right-angled than this are right-angled.
COSINE_DIGITS = 1e-5


@dataclass(frozen=True)
class Grid:
    """Geometry of a full image. Sizes and spacings in (x, y, z) order, mm, direction cosines row-major."""

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    direction: tuple[float, ...]


def steps_of(grid: Grid) -> NDArray[np.float64]:
    """The vectors, in mm, from one voxel to the next: column i belongs to index axis i, in (x, y, z) order."""
    steps: NDArray[np.float64] = np.asarray(grid.direction).reshape(3, 3) * np.asarray(grid.spacing)
    return steps


def is_right_angled(grid: Grid) -> bool:
    """Whether the axes stand at right angles, as far as written cosines can tell."""
    axes = np.asarray(grid.direction).reshape(3, 3)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() <= COSINE_DIGITS)


def right_angled(grid: Grid) -> Grid:
    """The nearest right-angled grid with the same spacing and centre.

    Raises
    ------
    CaseError
        ``GANTRY_TILT``, with the angle, when it moves a voxel by more than :data:`SHEAR_VOXELS`.
    """
    axes = np.asarray(grid.direction).reshape(3, 3)
    left, _, right = np.linalg.svd(axes)
    straight = left @ right
    steps, spacing = steps_of(grid), np.asarray(grid.spacing)
    half = (np.asarray(grid.size) - 1) / 2.0
    corners = np.array(list(itertools.product((-1, 1), repeat=3))) * half
    moved_mm = corners @ (straight * spacing - steps).T
    moved = float(np.abs(moved_mm @ straight / spacing).max())
    if moved > SHEAR_VOXELS:
        cosines = axes.T @ axes
        angle = float(np.degrees(np.arcsin(np.abs(cosines - np.diag(np.diag(cosines))).max().clip(0, 1))))
        raise CaseError(
            Code.GANTRY_TILT,
            f"the axes are {angle:.2f} degrees off a right angle, which moves a voxel by {moved:.2f} voxels (tolerance "
            f"{SHEAR_VOXELS}): resample the image onto a right-angled grid first",
        )
    origin = np.asarray(grid.origin) + steps @ half - (straight * spacing) @ half
    x, y, z = origin.tolist()
    return Grid(grid.size, grid.spacing, (x, y, z), tuple(straight.ravel().tolist()))
