"""Image and masks as IBSI's workflow prepares them: resampled, rounded, resegmented, discretised."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from prognosis_dask.arrays import AnyArray, BoolArray, FloatArray, IntArray
from prognosis_dask.config.radiomics import IbsiSection
from prognosis_dask.errors import CaseError, Code
from prognosis_dask.imaging.roi import Roi, bounding_box

#: Radius in mm of the sphere of 1 cm3 over which intensity peaks are averaged.
PEAK_MM = 10 * (3 / (4 * math.pi)) ** (1 / 3)
#: Voxels that an interpolator reads around a position; the spline's tail is below 1e-12 there.
_REACH = {"linear": 1, "spline": 22}
_ORDER = {"linear": 1, "spline": 3}
#: A voxel of the resampled mask is inside from this share of its volume on.
_INSIDE = 0.5
#: Shares and sizes are compared with this tolerance, since positions are rounded.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Prepared:
    """Arrays, (z, y, x), of the resampled grid around the region of interest.

    Attributes
    ----------
    image
        Intensities, also around the region.
    morphological
        The region before resegmentation, of which shape is measured.
    intensity
        The region after it, of which all else is measured.
    spacing
        (z, y, x), in mm.
    """

    image: FloatArray
    morphological: BoolArray
    intensity: BoolArray
    spacing: tuple[float, float, float]

    @property
    def values(self) -> FloatArray:
        """The region's intensities, shape (voxels,)."""
        values: FloatArray = self.image[self.intensity]
        return values


@dataclass(frozen=True)
class _Axis:
    """Positions of the new grid on the old one along one axis; both grids have the same centre."""

    size: int
    old_mm: float
    new_mm: float

    @property
    def count(self) -> int:
        return math.ceil(self.size * self.old_mm / self.new_mm - _ROUNDING)

    @property
    def step(self) -> float:
        return self.new_mm / self.old_mm

    def position(self, number: int) -> float:
        """Of a new voxel, in old voxels."""
        return 0.5 * (self.size - 1) + (number - 0.5 * (self.count - 1)) * self.step

    def span(self, first: int, stop: int, around_mm: float) -> tuple[int, int]:
        """The new voxels that touch old ones from ``first`` to ``stop``, and those around."""
        more = math.ceil(around_mm / self.new_mm)
        low = math.floor((first - 1 - self.position(0)) / self.step) - more
        high = math.ceil((stop - self.position(0)) / self.step) + 1 + more
        return max(0, low), min(self.count, high)


def prepare(roi: Roi, settings: IbsiSection, *, whole: bool, around_mm: float = 0.0) -> Prepared | None:
    """Resample a case on IBSI's grid and apply its masks; None where the crop lacks voxels that this reads.

    What is read does not depend on the crop's margin, so the values do not either.

    Parameters
    ----------
    whole
        Whether intensities are whole numbers (HU), to which resampled ones are rounded.
    around_mm
        How far beyond the region and the sphere of intensity peaks the image is needed.

    Raises
    ------
    CaseError
        ``RADIOMICS_FAILED`` where resampling or resegmentation leaves no voxel.
    """
    box = bounding_box(sitk.GetArrayViewFromImage(roi.mask))
    spacing = _new_spacing(roi, settings)
    axes = [
        _Axis(n, old, new) for n, old, new in zip(roi.full.size[::-1], roi.full.spacing[::-1], spacing, strict=True)
    ]
    start = roi.start[::-1]
    spans = [
        axis.span(first + at, stop + at, PEAK_MM + around_mm)
        for axis, (first, stop), at in zip(axes, box, start, strict=True)
    ]
    reach = _REACH[settings.interpolator] if settings.spacing_mm else 0
    region = [
        (
            max(0, math.floor(axis.position(first)) - reach),
            min(axis.size, math.ceil(axis.position(stop - 1)) + reach + 1),
        )
        for axis, (first, stop) in zip(axes, spans, strict=True)
    ]
    image, mask = sitk.GetArrayViewFromImage(roi.image), sitk.GetArrayViewFromImage(roi.mask)
    held = all(low >= at and high <= at + n for (low, high), at, n in zip(region, start, mask.shape, strict=True))
    if not held:
        return None
    part = tuple(slice(low - at, high - at) for (low, high), at in zip(region, start, strict=True))
    values, inside = image[part].astype(np.float64), mask[part].astype(np.float64)
    if settings.spacing_mm:
        offsets = [axis.position(span[0]) - low for axis, span, (low, _) in zip(axes, spans, region, strict=True)]
        grid = [axis.step for axis in axes], offsets, tuple(stop - first for first, stop in spans)
        values = _at(values, *grid, _ORDER[settings.interpolator])
        inside = _at(inside, *grid, 1)
    if whole:
        values = np.rint(values)
    morphological = inside >= _INSIDE - _ROUNDING
    intensity = _resegmented(values, morphological, settings)
    return Prepared(values, morphological, intensity, spacing)


def _new_spacing(roi: Roi, settings: IbsiSection) -> tuple[float, float, float]:
    x, y, z = roi.full.spacing
    new = settings.spacing_mm
    if not new:
        return z, y, x
    return (z if settings.by_slice else new), new, new


def _at(array: AnyArray, steps: list[float], offsets: list[float], shape: tuple[int, ...], order: int) -> FloatArray:
    resampled: FloatArray = ndimage.affine_transform(
        array, np.array(steps), offsets, shape, np.float64, order, mode="nearest"
    )
    return resampled


def _resegmented(values: FloatArray, mask: BoolArray, settings: IbsiSection) -> BoolArray:
    """The voxels within the range, and of these the ones within so many standard deviations of their mean."""
    if not mask.any():
        raise CaseError(Code.RADIOMICS_FAILED, "no voxel of the mask is left at this spacing_mm; make it smaller")
    kept = mask.copy()
    if settings.intensity_range:
        low, high = settings.intensity_range
        kept &= (values >= low) & (values <= high)
    if settings.outlier_sigma and kept.any():
        mean, away = values[kept].mean(), settings.outlier_sigma * values[kept].std()
        kept &= (values >= mean - away) & (values <= mean + away)
    if not kept.any():
        inside = values[mask]
        raise CaseError(
            Code.RADIOMICS_FAILED,
            f"no voxel is left within ibsi.intensity_range: the region goes from {inside.min():g} to {inside.max():g}",
        )
    return kept


def discretised(values: FloatArray, width: float, count: int, low: float | None) -> IntArray:
    """Grey levels, from 1: bins of ``width`` from ``low`` (else from the smallest value), or ``count`` bins.

    >>> discretised(np.array([0.0, 24.9, 25.0, 100.0]), 25, 0, 0.0).tolist()
    [1, 1, 2, 5]
    >>> discretised(np.array([0.0, 24.9, 25.0, 100.0]), 0, 4, None).tolist()
    [1, 1, 2, 4]
    """
    least, most = values.min(), values.max()
    if width:
        number = np.floor((values - (least if low is None else low)) / width)
    elif least == most:
        number = np.zeros(values.shape)
    else:
        number = np.minimum(np.floor(count * (values - least) / (most - least)), count - 1)
    levels: IntArray = number.astype(np.int64) + 1
    return levels
