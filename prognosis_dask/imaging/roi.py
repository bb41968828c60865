"""The region of interest in memory: image and mask on one grid, their place in the full series, crop and frames.

Frames are one 128 x 128 grey-level window per slice of the lesion, the input of the video networks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from prognosis_dask.arrays import ByteArray, FloatArray, NumberArray
from prognosis_dask.config.job import FramesSection
from prognosis_dask.errors import CaseError, Code, JobError
from prognosis_dask.volumes.grid import Grid

#: Voxels kept around what resampling reads: the tail of the cubic B-spline's prefilter, sqrt(3) - 2 to the power of
#: the distance, is below 1e-11 there.
SPLINE_TAIL_VOXELS = 20

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Roi:
    """Image and mask (0 and 1, uint8) on the same grid, cut out of a larger image.

    ``full`` is the geometry of the uncropped image; ``start`` the (x, y, z) index there of the first voxel here.
    pyradiomics' results depend on both, which is why they travel with every crop. ``unit`` is the image's, in UCUM
    notation; empty: unknown.
    """

    image: sitk.Image
    mask: sitk.Image
    full: Grid
    start: tuple[int, int, int]
    unit: str = ""


def grid_of(image: sitk.Image) -> Grid:
    """The geometry of a SimpleITK image."""
    return Grid(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())


def bounding_box(mask: NumberArray) -> Box:
    """(first, stop) of the voxels set along slices, rows and columns of a mask that is not empty.

    >>> bounding_box(np.eye(3)[None, 1:, :])
    ((0, 1), (0, 2), (1, 3))
    """
    axes = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        places = np.flatnonzero(mask.any(axis=others))
        axes.append((int(places[0]), int(places[-1]) + 1))
        mask = mask[(*[slice(None)] * axis, slice(*axes[-1]))]
    return axes[0], axes[1], axes[2]


def span_with_margin(span: tuple[int, int], spacing_mm: float, margin_mm: float, size: int) -> tuple[int, int]:
    """(first, stop) widened on both sides by ``margin_mm`` and the spline's tail, within 0 and ``size``.

    >>> span_with_margin((50, 60), 3.0, 20.0, 111)
    (23, 87)
    """
    pad = math.ceil(margin_mm / spacing_mm) + SPLINE_TAIL_VOXELS
    return max(0, span[0] - pad), min(size, span[1] + pad)


def crop_roi(roi: Roi, margin_mm: float) -> Roi:
    """Cut image and mask to the mask's bounding box, widened by the margin and the spline's tail on all six sides."""
    box = bounding_box(sitk.GetArrayViewFromImage(roi.mask))[::-1]
    grid: Grid = roi.full
    spans = [
        span_with_margin(span, spacing, margin_mm, size)
        for span, spacing, size in zip(box, grid.spacing, roi.mask.GetSize(), strict=True)
    ]
    start = [first for first, _ in spans]
    size = [stop - first for first, stop in spans]
    x, y, z = (old + new for old, new in zip(roi.start, start, strict=True))
    return Roi(
        image=sitk.RegionOfInterest(roi.image, size, start),
        mask=sitk.RegionOfInterest(roi.mask, size, start),
        full=grid,
        start=(x, y, z),
        unit=roi.unit,
    )


#: Rows and columns of a frame.
SIDE = 128
#: The reference study's window begins this many pixels before the lesion's first row and column.
REFERENCE_LEAD = 32
#: If a larger share of the lesion lies beyond the window's grey levels, frames show almost nothing of it.
MOST_BEYOND = 0.9
#: Default grey-level window of CT in HU: air to dense bone.
CT_WINDOW_HU = (-1000.0, 1000.0)
#: The reference study's rule for distinguishing HU from values already shifted by 1000.
REFERENCE_IS_HU_BELOW = -700


@dataclass(frozen=True)
class Frames:
    """Frames of one ROI, from the first slice of its mask to the last.

    Attributes
    ----------
    pixels
        uint8, (slice, 128, 128).
    window_start
        (row, column) of the window's first pixel in the full image; negative if the window starts outside it.
    first_slice
        Slice of the first frame in the full image.
    cut
        Whether part of the lesion lies outside the window.
    beyond
        The share of the lesion's voxels at or beyond the lowest or the highest grey level, where contrast is lost.
    grey
        Values of the lowest and the highest grey level.
    """

    pixels: ByteArray
    window_start: tuple[int, int]
    first_slice: int
    cut: bool
    beyond: float = 0.0
    grey: tuple[float, float] = (0.0, 0.0)


def make_frames(roi: Roi, settings: FramesSection, modality: str) -> Frames:
    """Cut the frames of an ROI.

    ``settings.placement``:

    ``centred``
        The window's centre is the centre of the mask's bounding box, and grey levels span ``settings.window``; where
        none is given, -1000 to 1000 HU for CT, and the ROI's 1st to 99th percentile for anything else.
    ``reference``
        The rules of Chen et al., Medical Physics 2023, for CT: 1000 is added where the first slice's minimum is below
        -700, values are clipped to 0..2000, and the window begins 32 pixels before the bounding box, but within the
        image (in 512 x 512 images from 0 to 384). The first slice is the first one loaded.

    Outside the image both have the lowest grey level.

    Parameters
    ----------
    roi
        With rows and columns of full extent, as :func:`prognosis_dask.imaging.load.load_roi` returns it: a window may
        reach beyond a crop.

    Raises
    ------
    JobError
        When the reference rules are requested for a modality other than CT.
    CaseError
        ``IMAGE_INVALID`` when the ROI's percentiles span no range of grey levels.
    """
    if roi.image.GetSize()[:2] != roi.full.size[:2]:
        raise ValueError(
            f"frames are cut before the ROI is cropped: {roi.image.GetSize()} of {roi.full.size} voxels are here"
        )
    image, mask = sitk.GetArrayViewFromImage(roi.image), sitk.GetArrayViewFromImage(roi.mask)
    slices, rows, columns = bounding_box(mask)
    if settings.placement == "reference":
        row, column = (_reference_start(*axis) for axis in ((rows, image.shape[1]), (columns, image.shape[2])))
        low, high = _reference_window(image, modality)
    else:
        row, column = ((axis[0] + axis[1] - SIDE) // 2 for axis in (rows, columns))
        low, high = _window(image, mask, settings, modality)
    values = image[mask > 0]
    inside = row <= rows[0] and rows[1] <= row + SIDE and column <= columns[0] and columns[1] <= column + SIDE
    return Frames(
        pixels=_grey(_cut(image[slices[0] : slices[1]], row, column, low), low, high),
        window_start=(row, column),
        first_slice=roi.start[2] + slices[0],
        cut=not inside,
        beyond=float(np.mean((values <= low) | (values >= high))),
        grey=(low, high),
    )


def _reference_start(span: tuple[int, int], size: int) -> int:
    return max(0, min(span[0] - REFERENCE_LEAD, size - SIDE))


def _reference_window(image: NumberArray, modality: str) -> tuple[float, float]:
    if modality != "CT":
        raise JobError(
            f'frames.placement = "reference" is defined for CT, and this case is {modality}; use "centred", or keep to '
            f'cohort.modalities = ["CT"]'
        )
    shift = 1000.0 if float(image[0].min()) < REFERENCE_IS_HU_BELOW else 0.0
    return 0.0 - shift, 2000.0 - shift


def _window(image: NumberArray, mask: ByteArray, settings: FramesSection, modality: str) -> tuple[float, float]:
    if settings.window:
        return settings.window[0], settings.window[1]
    if modality == "CT":
        return CT_WINDOW_HU
    low, high = np.percentile(image[mask > 0].astype(np.float64), (1, 99)).tolist()
    if not low < high:
        raise CaseError(
            Code.IMAGE_INVALID, f"the ROI's 1st and 99th percentile are both {low}; set frames.window, or leave it out"
        )
    return low, high


def _cut(image: NumberArray, row: int, column: int, outside: float) -> FloatArray:
    """The window of every slice; ``outside`` where it reaches beyond the image."""
    window = np.full((len(image), SIDE, SIDE), outside)
    top, left = max(0, row), max(0, column)
    part = image[:, top : row + SIDE, left : column + SIDE]
    window[:, top - row : top - row + part.shape[1], left - column : left - column + part.shape[2]] = part
    return window


def _grey(values: FloatArray, low: float, high: float) -> ByteArray:
    """Low to high as 0 to 255, truncated as the reference study's conversion to uint8 does."""
    return (np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)
