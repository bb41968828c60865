"""Find a candidate for the tumour if there is no mask: bright on FLAIR or T2, on one side or thick.

The mirror image of the brain shows what is normal there: ventricles, cortex and bright tracts lie on both sides, a
glioma mostly on one. One that has crossed the midline is thicker than any normal fluid. A mixture model decides which
brightness is abnormal, and the region grows from there. On T2 alone fluid is as bright as a tumour; there the bulk that
is left without narrow structures is compared with its mirror image. A candidate is not an outlined mask: it has a
confidence, and results based on it must be labelled automatic.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import binary_fill_holes, binary_opening, distance_transform_edt, gaussian_filter, label, sum_labels

from prognosis_dask.arrays import BoolArray, Float32Array
from prognosis_dask.errors import CaseError, Code
from prognosis_dask.imaging.geometry import image_like

#: Sequences that show gliomas bright, the better one first.
SEQUENCES: Final = ("FLAIR", "T2")
#: Smoothing of the images before they are compared, mm.
_SIGMA_MM: Final = 2.0
#: Voxels within this distance (mm) of the brain's surface are not part of a candidate's core: partial volume with fluid
#: and bone.
_RIM_MM: Final = 5.0
#: Probability at which a candidate starts, and down to which it grows.
_CORE, _GROWN = 0.8, 0.5
#: A candidate is larger than this, ml.
_LEAST_ML: Final = 0.5
#: The mirror image is compared within this distance, mm: no brain is exactly symmetric.
_TOLERANCE_MM: Final = 4.0
#: Half the width from which a region counts as thick, the grid of the search, mm, and its least brightness, in spreads
#: above the brain's median.
_THICK_MM: Final = 10.0
_THICK_GRID_MM: Final = 3.0
_BRIGHT: Final = 2.5
#: FLAIR values below this, in spreads from the brain's median, are fluid.
_FLUID: Final = -1.5
#: Smoothing of the images for the border, mm; its largest distance from the region found, and its least value above the
#: median.
_SHARP_MM: Final = 0.8
_REACH_MM: Final = 10.0
_LEAST_HALF: Final = 1.0
#: On T2 alone: half the width of the structures that are removed, the grid, and the distance within which the mirror
#: image is compared, mm; brightness that counts at most, and least excess, in spreads.
_BULK_MM: Final = 8.0
_BULK_GRID_MM: Final = 2.5
_BULK_TOLERANCE_MM: Final = 5.0
_BULK_TOP, _BULK_EXCESS = 2.5, 0.5
#: Dice reached on real tumours, by the sequences used: a candidate's confidence is at most this (docs/brain.md).
_REACHED: Final[Mapping[tuple[str, ...], float]] = {("FLAIR", "T2"): 0.85, ("FLAIR",): 0.85, ("T2",): 0.75}
#: Radius of the opening that cuts thin bridges, mm.
_OPEN_MM: Final = 2.0
#: Rounds of expectation maximisation.
_ROUNDS: Final = 30
#: Grid of the search for the mid-sagittal plane, mm.
_COARSE_MM: Final = 6.0


@dataclass(frozen=True)
class FoundTumour:
    """A tumour that was found automatically.

    Attributes
    ----------
    mask
        uint8, 0 and 1, on the grid of the images.
    confidence
        The overlap (Dice) with an outline by hand that was reached on real tumours on these sequences, times one minus
        the ratio of the second-best region's weight to this one's; the weight is the summed excess brightness of a
        region's voxels. So never 1, and not a probability.
    sequences
        The sequences on which it was found.
    """

    mask: sitk.Image
    confidence: float
    sequences: tuple[str, ...]


def automatic_candidate(images: Mapping[str, sitk.Image], brain_mask: sitk.Image) -> FoundTumour:
    """Search for a region that is brighter on FLAIR and T2 than its mirror image, or thick and bright.

    Parameters
    ----------
    images
        By sequence, on one grid, bias-corrected, of any scale. FLAIR or T2 or both are used.
    brain_mask
        0 and 1, the same grid.

    Raises
    ------
    CaseError
        ``NO_CANDIDATE`` if both sequences are missing or no region is found; ``MASK_EMPTY`` if there is no brain,
        ``IMAGE_INVALID`` if all of it has one value.
    """
    used = tuple(name for name in SEQUENCES if name in images)
    if not used:
        raise CaseError(
            Code.NO_CANDIDATE, f"a tumour is searched for on {' or '.join(SEQUENCES)}; there are {sorted(images)}"
        )
    brain = sitk.GetArrayFromImage(brain_mask) > 0
    if not brain.any():
        raise CaseError(Code.MASK_EMPTY, "there is no brain in which to search for a tumour: its mask is empty")
    spacing = brain_mask.GetSpacing()[::-1]
    smooth = {name: _standardised(images[name], brain, spacing, _SIGMA_MM) for name in used}
    mirror = _mirror(image_like(smooth[used[0]], brain_mask), brain_mask)
    try:
        region, alone = _by_brightness(images, smooth, mirror, brain_mask)
    except CaseError:
        if used != ("T2",):
            raise
        region, alone = _by_bulk(smooth["T2"], mirror, brain_mask)
    else:
        if used == ("T2",):
            with suppress(CaseError):
                other, other_alone = _by_bulk(smooth["T2"], mirror, brain_mask)
                if np.count_nonzero(other) > np.count_nonzero(region):
                    region, alone = other, other_alone
    return FoundTumour(image_like(region.astype(np.uint8), brain_mask), _REACHED[used] * alone, used)


def _by_brightness(
    images: Mapping[str, sitk.Image], smooth: Mapping[str, Float32Array], mirror: sitk.Transform, brain_mask: sitk.Image
) -> tuple[BoolArray, float]:
    """The region whose brightness is unusual, and how far it stands alone, 0 to 1."""
    brain, spacing = sitk.GetArrayFromImage(brain_mask) > 0, brain_mask.GetSpacing()[::-1]
    excess = _excess(smooth, mirror, brain, brain_mask)
    probability = _unusual(excess, brain)
    rim = distance_transform_edt(np.pad(brain, 1), spacing)[1:-1, 1:-1, 1:-1] < _RIM_MM
    region, alone = _grow(probability, excess, rim, spacing)
    sharp = {name: _standardised(images[name], brain, spacing, _SHARP_MM) for name in smooth}
    return _to_half(region & ~rim & (probability > _CORE), region, sharp, brain, spacing), alone


def _by_bulk(values: Float32Array, mirror: sitk.Transform, brain_mask: sitk.Image) -> tuple[BoolArray, float]:
    """The largest bright bulk that its mirror image lacks, and how far it stands alone, 0 to 1."""
    brain = sitk.GetArrayFromImage(brain_mask) > 0
    values = np.where(brain, np.minimum(values, _BULK_TOP), -1).astype(np.float32)
    opened = _opened(image_like(values, brain_mask), _BULK_MM, _BULK_GRID_MM)
    other = sitk.Resample(opened, brain_mask, mirror, sitk.sitkLinear, -1.0)
    radius = [max(1, round(_BULK_TOLERANCE_MM / step)) for step in brain_mask.GetSpacing()]
    usual = np.maximum(sitk.GetArrayFromImage(sitk.GrayscaleDilate(other, radius, sitk.sitkBall)), 0)
    excess = np.minimum(sitk.GetArrayFromImage(opened), values) - usual
    return _largest(brain & (excess > _BULK_EXCESS), np.maximum(excess, 0), brain_mask.GetSpacing())


def _largest(
    inside: BoolArray, weight: Float32Array, spacing_mm: tuple[float, ...], core: BoolArray | None = None
) -> tuple[BoolArray, float]:
    """The connected region with the greatest weight, and one minus the ratio of the second's to it."""
    regions, number = label(inside)
    every = np.arange(1, number + 1)
    cores = sum_labels(inside if core is None else core, regions, every) * float(np.prod(spacing_mm)) / 1000
    sums = np.where(cores > _LEAST_ML, sum_labels(weight, regions, every), 0)
    if not number or not sums.max() > 0:
        raise CaseError(Code.NO_CANDIDATE, f"no region of {_LEAST_ML} ml stands out in the brain")
    ranked = np.sort(sums)[::-1]
    return regions == every[sums.argmax()], float(1 - (ranked[1] / ranked[0] if number > 1 else 0.0))


def _standardised(image: sitk.Image, brain: BoolArray, spacing_mm: tuple[float, ...], sigma_mm: float) -> Float32Array:
    """Smoothed within the brain; standardised by its median and spread (1.48 times the median absolute deviation)."""
    values = sitk.GetArrayFromImage(sitk.Cast(image, sitk.sitkFloat32))
    inside = values[brain]
    middle = float(np.median(inside))
    spread = 1.4826 * float(np.median(np.abs(inside - middle)))
    if not spread > 0:
        raise CaseError(Code.IMAGE_INVALID, f"more than half of the brain's voxels hold the same value {middle}")
    sigma = [sigma_mm / step for step in spacing_mm]
    share = gaussian_filter(brain.astype(np.float32), sigma)
    blurred = gaussian_filter(np.where(brain, (values - middle) / spread, 0).astype(np.float32), sigma)
    return np.where(brain, blurred / np.maximum(share, 1e-3), 0).astype(np.float32)


def _mirror(image: sitk.Image, brain: sitk.Image) -> sitk.Transform:
    """The transform from a point of the brain to its mirror image, mm.

    A reflection through the brain's centre, and the rigid motion from the reflected brain to the brain.
    """
    x, y, z = _centre(brain)
    reflection = sitk.AffineTransform(3)
    reflection.SetMatrix((-1, 0, 0, 0, 1, 0, 0, 0, 1))
    reflection.SetCenter((x, y, z))
    factors = [max(1, round(_COARSE_MM / step)) for step in image.GetSpacing()]
    fixed = sitk.BinShrink(image, factors)
    moving = sitk.Resample(fixed, fixed, reflection, sitk.sitkLinear, 0.0)
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)  # the order of the sum, and so the result, depends on the number of threads
    method.SetMetricAsCorrelation()
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, 100)
    method.SetOptimizerScalesFromPhysicalShift()
    start = sitk.Euler3DTransform()
    start.SetCenter((x, y, z))
    method.SetInitialTransform(start, inPlace=False)
    motion = method.Execute(fixed, moving)
    return sitk.CompositeTransform([reflection, motion])


def _centre(brain: sitk.Image) -> tuple[float, float, float]:
    index = np.argwhere(sitk.GetArrayViewFromImage(brain)).mean(axis=0)[::-1]
    x, y, z = brain.TransformContinuousIndexToPhysicalPoint(index.tolist())
    return x, y, z


def _excess(
    smooth: Mapping[str, Float32Array], mirror: sitk.Transform, brain: BoolArray, grid: sitk.Image
) -> Float32Array:
    """Excess brightness of a voxel over the neighbourhood of its mirror image, and over most of the brain.

    Regions on both sides, such as a tumour across the midline, count if thick and bright. Fluid is bright on T2; with
    FLAIR, voxels as dark as fluid there do not count.
    """
    radius = [max(1, round(_TOLERANCE_MM / step)) for step in grid.GetSpacing()]
    excess = np.full(brain.shape, -np.inf, np.float32)
    for name, values in smooth.items():
        other = sitk.Resample(image_like(values, grid), grid, mirror, sitk.sitkLinear, 0.0)
        other = sitk.GrayscaleDilate(other, radius, sitk.sitkBall)
        more = np.minimum(values - sitk.GetArrayFromImage(other), values)
        thick = _thick(values, grid)
        more = np.where(thick > _BRIGHT, np.maximum(more, thick), more)
        if name == "T2" and "FLAIR" in smooth:
            more = np.where(smooth["FLAIR"] > _FLUID, more, -np.inf)
        excess = np.maximum(excess, more)
    return np.where(brain, np.maximum(excess, -10), 0).astype(np.float32)


def _thick(values: Float32Array, grid: sitk.Image) -> Float32Array:
    """Brightness after removing all structures narrower than twice ``_THICK_MM``."""
    whole: Float32Array = sitk.GetArrayFromImage(_opened(image_like(values, grid), _THICK_MM, _THICK_GRID_MM))
    return np.minimum(whole, values)


def _opened(image: sitk.Image, radius_mm: float, grid_mm: float) -> sitk.Image:
    """Grey-value opening on a coarser grid; on the image's grid."""
    small = sitk.BinShrink(image, [max(1, round(grid_mm / step)) for step in image.GetSpacing()])
    radius = [max(1, round(radius_mm / step)) for step in small.GetSpacing()]
    opened = sitk.GrayscaleMorphologicalOpening(small, radius, sitk.sitkBall)
    return sitk.Resample(opened, image, sitk.Transform(), sitk.sitkLinear, 0.0)


def _unusual(excess: Float32Array, brain: BoolArray) -> Float32Array:
    """Probability that a voxel is abnormal: a mixture of a normal distribution and a uniform one above it.

    The normal one describes most voxels, by median and spread; the share of the other is estimated by expectation
    maximisation.
    """
    values = excess[brain].astype(np.float64)
    middle = float(np.median(values))
    spread = 1.4826 * float(np.median(np.abs(values - middle)))
    usual = np.exp(-0.5 * ((values - middle) / spread) ** 2) / (spread * np.sqrt(2 * np.pi))
    top = max(float(values.max()), middle + spread)
    even = np.where(values > middle, 1 / (top - middle), 0)
    share = 0.05
    for _ in range(_ROUNDS):
        odds = share * even / (share * even + (1 - share) * usual)
        share = float(np.clip(odds.mean(), 1e-4, 0.5))
    probability = np.zeros(excess.shape, np.float32)
    probability[brain] = odds
    return probability


def _grow(
    probability: Float32Array, excess: Float32Array, rim: BoolArray, spacing_mm: tuple[float, ...]
) -> tuple[BoolArray, float]:
    """The region with the largest excess, grown from its core, and how far it stands alone."""
    weight = np.maximum(excess, 0) * probability
    return _largest(probability > _GROWN, weight, spacing_mm, (probability > _CORE) & ~rim)


def _to_half(
    core: BoolArray,
    region: BoolArray,
    sharp: Mapping[str, Float32Array],
    brain: BoolArray,
    spacing_mm: tuple[float, ...],
) -> BoolArray:
    """The region with its border at half the core's excess over the brain's median."""
    bright = np.zeros_like(region)
    for name, values in sharp.items():
        half = max(0.5 * float(np.median(values[core])), _LEAST_HALF)
        above = values > half
        if name == "T2" and "FLAIR" in sharp:
            above &= sharp["FLAIR"] > _FLUID
        bright |= above
    near = distance_transform_edt(~region, spacing_mm) < _REACH_MM
    rows = max(1, round(_OPEN_MM / spacing_mm[1]))
    disc = np.hypot(*np.ogrid[-rows : rows + 1, -rows : rows + 1]) <= rows
    opened = binary_opening(bright & near & brain, disc[None])
    parts, _ = label(opened)
    touched = np.unique(parts[core & opened])
    kept = np.isin(parts, touched[touched > 0])
    filled = np.stack([binary_fill_holes(plane) for plane in kept]) & brain
    return filled if filled.any() else region
