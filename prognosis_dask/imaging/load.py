"""One case in memory: image and mask on one grid."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from prognosis_dask.cohort.case import Case
from prognosis_dask.cohort.listing import read_listing
from prognosis_dask.errors import CaseError, Code
from prognosis_dask.imaging.crop import bounding_box, span_with_margin
from prognosis_dask.imaging.geometry import image_on
from prognosis_dask.imaging.masks import read_mask
from prognosis_dask.imaging.roi import Grid, Roi
from prognosis_dask.imaging.series import read_slices, series_grid
from prognosis_dask.imaging.volume import check_finite_file, read_volume, volume_grid
from prognosis_dask.job import ImageSection

_LISTING = ".series.json"


def load_case(case: Case, settings: ImageSection | None = None) -> tuple[sitk.Image, sitk.Image]:
    """Image and mask (0 and 1) of a case on one grid: the slices that the ROI spans and the margin around it.

    Raises
    ------
    CaseError
        As :func:`load_roi`.
    """
    roi = load_roi(case, settings or ImageSection())
    return roi.image, roi.mask


def load_roi(case: Case, settings: ImageSection, *, full: bool = False, seconds: dict[str, float] | None = None) -> Roi:
    """Read a case's image and mask onto the image's grid.

    The slices have their full extent, so that frames can be cut from them
    (:func:`prognosis_dask.imaging.frames.make_frames`); :func:`prognosis_dask.imaging.crop.crop_roi` then cuts rows and
    columns too.

    Parameters
    ----------
    case
        Whose ``image`` is an image file or the listing of a DICOM series, and whose ``mask`` is an RTSTRUCT, a SEG or
        a label map.
    settings
        Margin, tolerance of gaps between slices, and whether a mask on another grid may be resampled.
    full
        Read every slice; else those that the mask spans, ``settings.margin_mm`` and
        :data:`~prognosis_dask.imaging.crop.SPLINE_TAIL_VOXELS` on either side.
    seconds
        Gains the seconds spent in ``read`` (headers and pixels) and ``rasterise`` (mask).

    Raises
    ------
    CaseError
        With the code of what is wrong with the image or the mask.
    """
    if not case.mask:
        raise CaseError(Code.MASK_EMPTY, "the case has no mask; only the brain stage does without one")
    spent = {} if seconds is None else seconds
    with _clock(spent, "read"):
        grid, read = _open(case.image, settings)
    with _clock(spent, "rasterise"):
        mask = read_mask(Path(case.mask), case.labels, grid, resample=settings.resample_mask)
        first, stop = span_with_margin(bounding_box(mask)[0], grid.spacing[2], settings.margin_mm, grid.size[2])
        if full:
            first, stop = 0, grid.size[2]
        mask_image = image_on(mask[first:stop].astype(np.uint8), grid, (0, 0, first))
    with _clock(spent, "read"):
        image = read(first, stop)
        image.CopyInformation(mask_image)
        _check_finite(image, case.image)
    return Roi(image, mask_image, grid, (0, 0, first))


def load_image(path: str, settings: ImageSection) -> sitk.Image:
    """All slices of an image file or of a listed DICOM series.

    Raises
    ------
    CaseError
        With the code of what is wrong with it.
    """
    grid, read = _open(path, settings)
    image = read(0, grid.size[2])
    _check_finite(image, path)
    check_finite_file(Path(path))
    return image


def _open(path: str, settings: ImageSection) -> tuple[Grid, Callable[[int, int], sitk.Image]]:
    """The grid of the full image, and a function that reads its slices from the first to one before the last."""
    if not path.endswith(_LISTING):
        return volume_grid(Path(path)), partial(read_volume, Path(path))
    listing = read_listing(path)
    grid = series_grid(listing, settings.gap_tolerance)
    return grid, lambda first, stop: image_on(read_slices(listing, first, stop), grid, (0, 0, first))


def _check_finite(image: sitk.Image, where: str) -> None:
    values = sitk.GetArrayViewFromImage(image)
    if np.issubdtype(values.dtype, np.floating):
        bad = int(np.count_nonzero(~np.isfinite(values)))
        if bad:
            raise CaseError(
                Code.IMAGE_INVALID,
                f"voxels around the ROI that are not finite: {bad} of {values.size}; replace them before indexing",
                where=where,
            )


@contextmanager
def _clock(seconds: dict[str, float], step: str) -> Iterator[None]:
    begun = time.perf_counter()
    try:
        yield
    finally:
        seconds[step] = seconds.get(step, 0.0) + time.perf_counter() - begun
