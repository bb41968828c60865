"""The region of interest in memory: image and mask on one grid, their place in the full series, and the crop."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from prognosis_dask.arrays import NumberArray
from prognosis_dask.volumes.grid import Grid

__all__ = ["Grid", "Roi", "grid_of"]

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
