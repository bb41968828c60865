"""A label map (NIfTI, NRRD, MHA ...) on the grid of the image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prognosis_dask.errors import CaseError, Code
from prognosis_dask.imaging.geometry import image_on, place, resample_nearest
from prognosis_dask.imaging.roi import Grid
from prognosis_dask.volumes.files import volume_grid, volume_voxels
from prognosis_dask.volumes.grid import steps_of
from prognosis_dask.volumes.labels import chosen_voxels
from prognosis_dask.volumes.segments import layered


def labelmap_mask(
    path: Path, labels: tuple[int, ...], grid: Grid, *, resample: bool, threshold: float = 0.0
) -> NDArray[np.bool_]:
    """The voxels that hold one of ``labels`` (none named: every non-zero voxel).

    What counts as a label, and what ``threshold`` does, says :func:`prognosis_dask.volumes.labels.chosen_voxels`. Of a
    file with overlapping layers, ``labels`` are its segments, counted from 1.

    A label map that shares the image's voxel lattice, but has another extent or axis order, is put in its place; any
    other grid is an error unless ``resample`` (nearest neighbour).

    Returns
    -------
    numpy.ndarray
        bool, (slice, row, column), of the grid's size.

    Raises
    ------
    CaseError
        ``MASK_UNREADABLE``, ``ROI_NOT_FOUND`` when a label does not occur, ``MASK_EMPTY``, ``MASK_OTHER_GRID`` or
        ``MASK_OUTSIDE``.
    """
    own, values = _read(path)
    chosen = layered(values, labels) if values.ndim == 4 else chosen_voxels(values, labels, threshold)
    try:
        block, where = place(chosen, np.asarray(own.origin), steps_of(own), grid)
    except CaseError as error:
        if not resample or error.problem.code is not Code.MASK_OTHER_GRID:
            raise
        return resample_nearest(image_on(chosen.astype(np.uint8), own), grid)
    mask: NDArray[np.bool_] = np.zeros(grid.size[::-1], dtype=bool)
    mask[where] = block
    return mask


def _read(path: Path) -> tuple[Grid, NDArray[np.generic]]:
    try:
        return volume_grid(path, layers=True), volume_voxels(path)
    except CaseError as error:
        reason = f"no label map that can be read: {error.problem.reason}"
        raise CaseError(Code.MASK_UNREADABLE, reason) from error
