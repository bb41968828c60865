"""Read any image file: its grid, and the requested slices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prognosis_dask.arrays import NumberArray
from prognosis_dask.errors import CaseError, Code
from prognosis_dask.volumes.grid import Grid, is_right_angled, right_angled
from prognosis_dask.volumes.nifti import is_nifti, nifti_grid, nifti_voxels
from prognosis_dask.volumes.streams import check_stream

if TYPE_CHECKING:
    import SimpleITK as sitk

#: File endings of images that carry their own geometry.
VOLUME_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")


def volume_grid(path: Path, *, layers: bool = False) -> Grid:
    """The grid of an image file, from its header. ``layers``: several values per voxel are allowed.

    Raises
    ------
    CaseError
        ``UNREADABLE_FILE``; ``IMAGE_INVALID`` if it is not one three-dimensional scalar image; ``GANTRY_TILT`` if its
        axes are not orthogonal.
    """
    if is_nifti(path):
        return nifti_grid(path)
    import SimpleITK as sitk

    reader = _reader(path)
    size, components = reader.GetSize(), reader.GetNumberOfComponents()
    complex_valued = "complex" in sitk.GetPixelIDValueAsString(reader.GetPixelID())
    single = all(length == 1 for length in size[3:])
    if len(size) < 3 or not single or complex_valued or (components != 1 and not layers):
        raise CaseError(
            Code.IMAGE_INVALID,
            f"the image has {len(size)} dimensions {size} and {components} values a voxel"
            f"{' (complex)' if complex_valued else ''}, expected 3 and 1 real one; split a time series into "
            f"one file each",
            where=str(path),
        )
    direction = np.asarray(reader.GetDirection()).reshape(len(size), -1)[:3, :3]
    grid = Grid(size[:3], reader.GetSpacing()[:3], reader.GetOrigin()[:3], tuple(direction.ravel().tolist()))
    if not is_right_angled(grid):
        _refuse_sheared(grid, path)
    return grid


def volume_voxels(path: Path, first: int = 0, stop: int | None = None) -> NumberArray:
    """Voxels of the slices ``first`` to ``stop`` - 1 (all), (slice, row, column), in the file's own type.

    Several values per voxel (layers) form a fourth axis.

    Raises
    ------
    CaseError
        As :func:`volume_grid`, or ``PIXELS_UNREADABLE`` when the file is cut short or damaged.
    """
    if is_nifti(path):
        return nifti_voxels(path, first, stop)
    import SimpleITK as sitk

    reader = _reader(path)
    check_stream(path)
    size = list(reader.GetSize())
    index = [0] * len(size)
    index[2], size[2] = first, (size[2] if stop is None else stop) - first
    reader.SetExtractIndex(index)
    reader.SetExtractSize([*size[:3], *(0 for _ in size[3:])])
    try:
        voxels: NumberArray = sitk.GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        raise CaseError(
            Code.PIXELS_UNREADABLE, f"cannot read the image: {_last_line(error)}", where=str(path)
        ) from error
    return voxels


def _refuse_sheared(grid: Grid, path: Path) -> None:
    # a smaller shear is kept as written: ITK and pyradiomics work with it
    try:
        right_angled(grid)
    except CaseError as error:
        raise CaseError(error.problem.code, error.problem.reason, where=str(path)) from error


def _reader(path: Path) -> sitk.ImageFileReader:
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise CaseError(
            Code.UNREADABLE_FILE, f"not a readable image file: {_last_line(error)}", where=str(path)
        ) from error
    return reader


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]
