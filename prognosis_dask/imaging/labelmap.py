"""A label map (NIfTI, NRRD, MHA ...) on the grid of the image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from prognosis_dask.errors import CaseError, Code
from prognosis_dask.imaging.geometry import place, resample_nearest, steps_of
from prognosis_dask.imaging.roi import Grid, grid_of


def labelmap_mask(path: Path, labels: tuple[int, ...], grid: Grid, *, resample: bool) -> NDArray[np.bool_]:
    """The voxels that hold one of ``labels`` (none named: every non-zero voxel).

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
    image = _read(path)
    values = sitk.GetArrayViewFromImage(image)
    chosen = np.isin(values, labels) if labels else values != 0
    if not chosen.any():
        present = np.unique(values[values != 0])
        if len(present):
            raise CaseError(
                Code.ROI_NOT_FOUND, f"no voxel holds {list(labels)}; the label map has {present[:20].tolist()}"
            )
        raise CaseError(Code.MASK_EMPTY, "the label map has no voxel but zeros")
    own = grid_of(image)
    try:
        block, where = place(chosen, np.asarray(own.origin), steps_of(own), grid)
    except CaseError as error:
        if not resample or error.problem.code is not Code.MASK_OTHER_GRID:
            raise
        plain = sitk.GetImageFromArray(chosen.astype(np.uint8))
        plain.CopyInformation(image)
        return resample_nearest(plain, grid)
    mask: NDArray[np.bool_] = np.zeros(grid.size[::-1], dtype=bool)
    mask[where] = block
    return mask


def _read(path: Path) -> sitk.Image:
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        last = str(error).strip().splitlines()[-1]
        raise CaseError(Code.MASK_UNREADABLE, f"neither DICOM nor an image file that can be read: {last}") from error
    components = image.GetNumberOfComponentsPerPixel()
    if image.GetDimension() != 3 or components != 1:
        raise CaseError(
            Code.MASK_UNREADABLE,
            f"the label map has {image.GetDimension()} dimensions and {components} values a voxel, expected 3 and 1; "
            f"split overlapping segments into one file each",
        )
    return image
