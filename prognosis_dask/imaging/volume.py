"""An image file (NIfTI, NRRD, MHA ...): its grid, and the slices that are asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from prognosis_dask.errors import CaseError, Code
from prognosis_dask.imaging.roi import Grid


def volume_grid(path: Path) -> Grid:
    """The grid of an image file, from its header.

    Raises
    ------
    CaseError
        ``UNREADABLE_FILE``, or ``IMAGE_INVALID`` when it is not a three-dimensional image of single numbers.
    """
    reader = _reader(path)
    dimensions, components = reader.GetDimension(), reader.GetNumberOfComponents()
    complex_valued = "complex" in sitk.GetPixelIDValueAsString(reader.GetPixelID())
    if dimensions != 3 or components != 1 or complex_valued:
        raise CaseError(
            Code.IMAGE_INVALID,
            f"the image has {dimensions} dimensions {reader.GetSize()} and {components} values a voxel"
            f"{' (complex)' if complex_valued else ''}, expected 3 and 1 real one; split a time series into "
            f"one file each",
            where=str(path),
        )
    return Grid(reader.GetSize(), reader.GetSpacing(), reader.GetOrigin(), reader.GetDirection())


def read_volume(path: Path, first: int, stop: int) -> sitk.Image:
    """The slices ``first`` to ``stop`` - 1 of an image file, in its own pixel type.

    Raises
    ------
    CaseError
        ``PIXELS_UNREADABLE`` when the file is cut short or damaged.
    """
    reader = _reader(path)
    columns, rows, _ = reader.GetSize()
    reader.SetExtractIndex([0, 0, first])
    reader.SetExtractSize([columns, rows, stop - first])
    try:
        return reader.Execute()
    except RuntimeError as error:
        raise CaseError(
            Code.PIXELS_UNREADABLE, f"cannot read the image: {_last_line(error)}", where=str(path)
        ) from error


def check_finite_file(path: Path) -> None:
    """Refuse a NIfTI file with NaN or infinite values, which ITK reads as zeros without a word.

    Raises
    ------
    CaseError
        ``IMAGE_INVALID``, with their number.
    """
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        return
    import nibabel

    file = nibabel.Nifti1Image.from_filename(path)
    if file.get_data_dtype().kind != "f":  # type: ignore[no-untyped-call]
        return
    values = np.asanyarray(file.dataobj)
    bad = int(np.count_nonzero(~np.isfinite(values)))
    if bad:
        raise CaseError(
            Code.IMAGE_INVALID,
            f"voxels that are not finite: {bad} of {values.size}; replace them before indexing",
            where=str(path),
        )


def _reader(path: Path) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise CaseError(
            Code.UNREADABLE_FILE, f"not an image file that can be read: {_last_line(error)}", where=str(path)
        ) from error
    return reader


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]
