"""The voxel lattice of an image, and how far it is from right-angled."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from prognosis_dask.arrays import FloatArray
from prognosis_dask.errors import CaseError, Code, warn

#: Largest shift, in voxels, when a grid is made right-angled: nearest-neighbour resampling would not move
#: any voxel. TotalSegmentator's public cases are sheared by 0.01 degrees, which is a fifth of this over 400 mm.
SHEAR_VOXELS = 0.25
#: Voxel centres closer than this, in voxels, are the same: nearest-neighbour resampling would move nothing.
SAME_VOXEL = 0.1
#: Tolerance for right angles: direction cosines are written with about six digits.
COSINE_DIGITS = 1e-5


@dataclass(frozen=True)
class Grid:
    """Geometry of a full image. Sizes and spacings in (x, y, z) order, mm, direction cosines row-major.

    ``other``: where other programs place the same voxels, if the file's header says two things.
    """

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    direction: tuple[float, ...]
    other: Grid | None = field(default=None, compare=False, repr=False)


def steps_of(grid: Grid) -> FloatArray:
    """The vectors (mm) from one voxel to the next: column i belongs to index axis i, in (x, y, z) order."""
    steps: FloatArray = np.asarray(grid.direction).reshape(3, 3) * np.asarray(grid.spacing)
    return steps


def to_index(grid: Grid, points: FloatArray) -> FloatArray:
    """Continuous (x, y, z) indices of ``points``, (n, 3) in mm; integers are voxel centres."""
    offsets = np.asarray(points, dtype=np.float64) - np.asarray(grid.origin)
    index: FloatArray = np.linalg.solve(steps_of(grid), offsets.T).T
    return index


def corners_in(own: Grid, grid: Grid) -> FloatArray:
    """The corners of ``own``, (8, 3), as continuous (x, y, z) indices of ``grid``."""
    ends = np.array(list(itertools.product(*((0, size - 1) for size in own.size))))
    return to_index(grid, ends @ steps_of(own).T + np.asarray(own.origin))


@dataclass(frozen=True)
class Lattice:
    """The placement of a block of voxels in a grid.

    Attributes
    ----------
    drift
        Largest distance, in voxels of the grid, of a voxel centre of the block from one of the grid; beyond
        :data:`SAME_VOXEL` it is another lattice.
    axes
        (3, 3): a 1 or -1 in each row and column: which axis of the block is which of the grid, and its direction.
    low, size
        (x, y, z) index of the block's first voxel in the grid's order, and its extent there.
    """

    drift: float
    axes: FloatArray
    low: NDArray[np.int_]
    size: NDArray[np.int_]


def lattice(size: tuple[int, ...], first_mm: FloatArray, steps: FloatArray, grid: Grid) -> Lattice:
    """Place a block of ``size`` (x, y, z) voxels, whose first centre is at ``first_mm``, in a grid.

    ``steps``: (3, 3), mm; columns are the vectors from one column, row and slice of the block to the next.
    """
    start = to_index(grid, first_mm[None])[0]
    axes = np.linalg.solve(steps_of(grid), steps)
    whole = _signed_permutation(axes)
    last = np.array(size) - 1
    corners = np.array(list(itertools.product(*((0, n) for n in last))))
    drift = float(np.abs(start + corners @ axes.T - np.rint(start) - corners @ whole.T).max())
    ends = np.stack([np.rint(start), np.rint(start) + whole @ last]).astype(int)
    return Lattice(drift, whole, ends.min(axis=0), np.ptp(ends, axis=0) + 1)


def fits(own: Grid, image: Grid) -> str:
    """``same`` or ``part``: whether a label map's grid is an image's in any axis order, or on its lattice; or empty.

    >>> image = Grid((4, 4, 4), (1.0, 1.0, 2.0), (0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    >>> fits(Grid((4, 4, 4), (1.0, 1.0, 2.0), (3.0, 0.0, 0.0), (-1, 0, 0, 0, 1, 0, 0, 0, 1)), image)
    'same'
    """
    try:
        placed = lattice(own.size, np.asarray(own.origin), steps_of(own), image)
    except np.linalg.LinAlgError:
        return ""
    size = np.asarray(image.size)
    if placed.drift > SAME_VOXEL or (placed.low >= size).any() or (placed.low + placed.size <= 0).any():
        return ""
    return "same" if (placed.low == 0).all() and (placed.size == size).all() else "part"


def one_reading(own: Grid, image: Grid) -> tuple[Grid, Grid]:
    """A label map's grid and an image's by the same statement of their headers, if these say two things.

    Where it matters, the reading counts by which both have the same voxels, with a warning.

    Raises
    ------
    CaseError
        ``MASK_OTHER_GRID`` if both readings or none do.
    """
    readings = [(own, image), (own.other or own, image.other or image)]
    first, second = (corners_in(*reading) for reading in readings)
    moved = float(np.abs(first - second).max())
    if moved <= SAME_VOXEL:
        return own, image
    whose = " and ".join(name for name, one in (("image", image), ("mask", own)) if one.other is not None)
    seen = (
        f"the header of the {whose} says two places (qform, sform), by which the mask lies in the image {moved:.1f} "
        f"voxels apart; programs read one or the other"
    )
    same = [reading for reading in readings if fits(*reading) == "same"]
    if len(same) != 1:
        raise CaseError(Code.MASK_OTHER_GRID, f"{seen}; write one of them into both")
    warn(Code.MASK_OTHER_GRID, f"{seen}; the one was taken by which image and mask have the same voxels")
    return same[0]


def _signed_permutation(axes: FloatArray) -> FloatArray:
    """The nearest matrix with a single 1 or -1 in each row and column (the identity if there is none)."""
    nearest: FloatArray = np.zeros((3, 3))
    rows = np.abs(axes).argmax(axis=0)
    if sorted(rows) != [0, 1, 2]:
        return np.eye(3)
    for column, row in enumerate(rows):
        nearest[row, column] = np.sign(axes[row, column])
    return nearest


def is_right_angled(grid: Grid) -> bool:
    """Whether the axes are orthogonal, within the precision of written cosines."""
    axes = np.asarray(grid.direction).reshape(3, 3)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() <= COSINE_DIGITS)


def right_angled(grid: Grid) -> Grid:
    """The nearest right-angled grid with the same spacing and centre.

    Raises
    ------
    CaseError
        ``GANTRY_TILT``, with the angle, if it moves a voxel by more than :data:`SHEAR_VOXELS`.
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
