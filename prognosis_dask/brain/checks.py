"""What a sequence must be before it is worth a registration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import SimpleITK as sitk

from prognosis_dask.errors import CaseError, Code

#: Voxels that MR of a head has, mm, and the least part of a head that tells where it is, mm.
LEAST_MM, MOST_MM, LEAST_EXTENT_MM = 0.2, 10.0, 50.0


def check_sequence(name: str, image: sitk.Image) -> None:
    """Refuse what cannot be MR of a head, with the reason.

    Raises
    ------
    CaseError
        ``IMAGE_INVALID`` when it is not three-dimensional, of several values a voxel, or holds NaN or infinite
        values; ``VOXEL_SIZE`` when voxels or the whole image are no head's; ``IMAGE_EMPTY`` when all values are equal.
    """
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1 or image.GetDepth() < 2:
        raise CaseError(
            Code.IMAGE_INVALID,
            f"{name} has the size {image.GetSize()} and {image.GetNumberOfComponentsPerPixel()} values a voxel, "
            "expected three dimensions, two slices or more and one value; split a time series into one file each",
        )
    spacing = np.asarray(image.GetSpacing())
    extent = spacing * image.GetSize()
    if spacing.min() < LEAST_MM or spacing.max() > MOST_MM or extent.min() < LEAST_EXTENT_MM:
        raise CaseError(
            Code.VOXEL_SIZE,
            f"{name} has voxels of {np.round(spacing, 3).tolist()} mm over {np.round(extent, 1).tolist()} mm, expected "
            f"{LEAST_MM} to {MOST_MM} mm and at least {LEAST_EXTENT_MM:g} mm of the head; correct the file's spacing",
        )
    values = sitk.GetArrayViewFromImage(image)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        bad = int(np.count_nonzero(~np.isfinite(values)))
        raise CaseError(
            Code.IMAGE_INVALID,
            f"voxels of {name} that are not finite: {bad} of {values.size}; replace them before indexing",
        )
    if values.min() == values.max():
        raise CaseError(
            Code.IMAGE_EMPTY, f"every voxel of {name} holds {values.min()}; export the series again, or exclude it"
        )


@contextmanager
def one_thread() -> Iterator[None]:
    """Let SimpleITK use one thread: the workers are the parallelism, and sums keep their order."""
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
