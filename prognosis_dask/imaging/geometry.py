"""Convert between voxel indices and millimetres, and from one voxel lattice to another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import SimpleITK as sitk

from prognosis_dask.arrays import BoolArray, FloatArray, NumberArray
from prognosis_dask.errors import CaseError, Code, count
from prognosis_dask.volumes.grid import SAME_VOXEL, Grid, lattice, steps_of, to_index

#: Shift (voxels) of a resampled mask, so that centres half-way between two of its voxels all choose the same side.
HALF_WAY = 1e-3


def place(
    voxels: BoolArray, first_mm: FloatArray, steps: FloatArray, grid: Grid
) -> tuple[BoolArray, tuple[slice, ...]]:
    """Reorder a block of voxels on the grid's lattice, in any axis order, to the grid's order.

    Parameters
    ----------
    voxels
        (slice, row, column), any size: smaller than the grid, or reaching beyond it.
    first_mm
        Where the centre of ``voxels[0, 0, 0]`` lies.
    steps
        (3, 3), mm: columns are the vectors from one column, row and slice of the block to the next.

    Returns
    -------
    tuple
        The part of the block inside the grid, and the slices of a (slice, row, column) array that it covers.

    Raises
    ------
    CaseError
        ``MASK_OTHER_GRID`` when the block's voxel centres are not the grid's, ``MASK_OUTSIDE`` when set voxels lie
        outside the grid.
    """
    own = lattice(voxels.shape[::-1], first_mm, steps, grid)
    if own.drift > SAME_VOXEL:
        raise CaseError(Code.MASK_OTHER_GRID, _other_grid(grid, first_mm, steps, own.drift))
    whole, low = own.axes, own.low
    source = np.abs(whole).argmax(axis=1)
    block = voxels.transpose(2, 1, 0).transpose(source)
    block = np.flip(block, axis=[i for i in range(3) if whole[i, source[i]] < 0])
    clipped_low = np.clip(low, 0, grid.size)
    clipped_high = np.clip(low + block.shape, 0, grid.size)
    inside = block[tuple(slice(a - s, b - s) for a, b, s in zip(clipped_low, clipped_high, low, strict=True))]
    outside = int(np.count_nonzero(block)) - int(np.count_nonzero(inside))
    if outside:
        raise CaseError(
            Code.MASK_OUTSIDE,
            f"outside the image: {count(outside, 'voxel')} of the mask; the image has {grid.size} (x, y, z)",
        )
    where = tuple(slice(int(a), int(b)) for a, b in zip(clipped_low, clipped_high, strict=True))
    return inside.transpose(2, 1, 0), where[::-1]


def _other_grid(grid: Grid, first_mm: FloatArray, steps: FloatArray, drift: float) -> str:
    spacing = np.round(np.linalg.norm(steps, axis=0), 4).tolist()
    return (
        f"the mask's voxels lie up to {drift:.2f} voxels from the image's (tolerance {SAME_VOXEL}): mask spacing "
        f"{spacing} from {np.round(first_mm, 3).tolist()} mm, image spacing {np.round(grid.spacing, 4).tolist()} from "
        f"{np.round(grid.origin, 3).tolist()} mm; image.resample_mask = true resamples it (nearest neighbour)"
    )


def resample_nearest(mask: sitk.Image, grid: Grid) -> BoolArray:
    """A mask (0 and 1) on another grid, nearest neighbour; (slice, row, column).

    Raises
    ------
    CaseError
        ``MASK_OUTSIDE`` when set voxels lie outside the grid.
    """
    set_voxels = np.argwhere(sitk.GetArrayViewFromImage(mask))[:, ::-1]
    steps = np.asarray(mask.GetDirection()).reshape(3, 3) * np.asarray(mask.GetSpacing())
    index = to_index(grid, set_voxels @ steps.T + np.asarray(mask.GetOrigin()))
    outside = int(((index < -0.5 - SAME_VOXEL) | (index > np.array(grid.size) - 0.5 + SAME_VOXEL)).any(axis=1).sum())
    if outside:
        raise CaseError(
            Code.MASK_OUTSIDE,
            f"outside the image: {outside} of the mask's {count(len(index), 'voxel')}; the image has {grid.size}",
        )
    # half-way between two voxels the last bit would decide for each pixel: always choose the next one
    nudge = sitk.TranslationTransform(3, (steps @ np.full(3, HALF_WAY)).tolist())
    resampled = sitk.Resample(
        mask, grid.size, nudge, sitk.sitkNearestNeighbor, grid.origin, grid.spacing, grid.direction, 0
    )
    values: BoolArray = sitk.GetArrayViewFromImage(resampled) != 0
    return values


def image_on(array: NumberArray, grid: Grid, start: tuple[int, int, int] = (0, 0, 0)) -> sitk.Image:
    """An image from (slice, row, column) values whose first voxel is the grid's voxel ``start`` (x, y, z)."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(grid.spacing)
    image.SetDirection(grid.direction)
    image.SetOrigin((np.asarray(grid.origin) + steps_of(grid) @ np.asarray(start, dtype=float)).tolist())
    return image


def image_like(array: NumberArray, image: sitk.Image) -> sitk.Image:
    """An image from (slice, row, column) values on the grid of another image."""
    made = sitk.GetImageFromArray(array)
    made.CopyInformation(image)
    return made


@contextmanager
def one_thread() -> Iterator[None]:
    """Make SimpleITK use one thread: workers provide the parallelism, and the order of sums is fixed."""
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
