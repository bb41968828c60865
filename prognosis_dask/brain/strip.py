"""Skull stripping: register the template's brain to the patient, then refine it by the patient's intensities."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from prognosis_dask.arrays import BoolArray, Float32Array
from prognosis_dask.brain.head import find_head, fit_boundary
from prognosis_dask.brain.intensity import around, correct_bias, white_matter
from prognosis_dask.brain.register import align_brain, align_head, align_inside
from prognosis_dask.brain.template import Contrast, Radii, closed, icbm152, opened
from prognosis_dask.errors import CaseError, Code
from prognosis_dask.imaging.geometry import image_like

#: Zero padding of the template's brain before distances are computed, farther than any of them counts.
_PAD_VOXELS = 18
#: Intensities have no influence beyond these distances from the registered surface (mm; positive is inside).
_IN_MM, _OUT_MM = 5.0, -4.0
#: Histograms are taken of voxels deeper than the first value, and of the ring between the other two, mm.
_DEEP_MM, _RING_MM = 4.0, (-10.0, -2.0)
_BINS, _SMOOTH_BINS = 64, 1.5
#: Limit of the log ratio of both, and its equivalent of one millimetre of distance.
_CLIP, _PER_MM = 3.0, 1.0
_ROUNDS = 3
_OPEN_MM, _CLOSE_MM = 4.0, 6.0
#: Where fluid is dark: from the edge that the boundary converges to, below the cortex, to the brain's surface with its
#: fluid, mm (best for seven real images: 3.6 to 5).
_SURFACE_MM = 4.2
#: Region around the registered brain used for the second fit of the template, mm, and the clamp as a multiple of the
#: brain's 99th percentile.
_NEAR_MM, _CLAMP = 6.0, 1.1
#: Criteria for an image without skull: share of the image with one value, and brightness under the brain's edge.
_BACKGROUND_SHARE, _RIM_SHARE = 0.2, 0.5
#: Least coefficient of variation within a brain: a uniform object is not a brain.
_LEAST_CONTRAST = 0.05
#: Fewest voxels deep inside for a histogram.
_LEAST_VOXELS = 500


@dataclass(frozen=True)
class Stripped:
    """The brain (uint8, 0 and 1, on the image's grid) and the transform from the template.

    ``from_template`` takes template points to image points, mm. ``fit`` is the boundary's, between -1 and 1; NaN if the
    image had no skull (``stripped_before``).
    """

    brain: sitk.Image
    from_template: sitk.AffineTransform
    fit: float
    stripped_before: bool


def strip(image: sitk.Image, kind: Contrast, *, bias_field: bool = True) -> Stripped:
    """Find the brain in a float32 image of a head or of a stripped brain.

    With ``bias_field`` the field is corrected before the brain's edge is refined by intensities.
    """
    before = stripped_before(image)
    if before is not None:
        return aligned(image, before, kind, stripped_before=True)
    transform, fit = fit_boundary(image, align_head(image, find_head(image), kind))
    distance = carried_distance(transform, image)
    if kind != "t2":
        # of the edge itself: scalp at the top may draw the wider fit some millimetres upwards
        distance, transform = distance + _SURFACE_MM, widened(image, transform, kind)
    inside = sitk.Cast(distance > 0, sitk.sitkUInt8)
    if np.count_nonzero(sitk.GetArrayViewFromImage(distance) > _DEEP_MM) < _LEAST_VOXELS:
        raise CaseError(Code.BRAIN_NOT_FOUND, "the image is almost empty where the brain would be")
    white = white_matter(image, inside, transform)
    if bias_field and sitk.GetArrayViewFromImage(white).any():
        image, _ = correct_bias(image, white)
    return Stripped(refine(image, distance), transform, fit, stripped_before=False)


def widened(image: sitk.Image, from_template: sitk.AffineTransform, kind: Contrast) -> sitk.AffineTransform:
    """The template on a head with dark fluid, moved halfway to its fit to the inside of the brain if that is wider.

    On T1 and FLAIR fluid is as dark as the skull, so the boundary converges to the cortex and the template becomes too
    small (on raw heads by up to a tenth of its width). Ventricles, cortex and white matter have its right size, but
    remaining scalp pulls it outwards by nearly as much. On every head tried, the right size lay in between.
    """
    distance = carried_distance(from_template, image)
    inside = sitk.GetArrayViewFromImage(distance) > 0
    if not inside.any():
        return from_template
    top = _CLAMP * float(np.quantile(sitk.GetArrayViewFromImage(image)[inside], 0.99))
    near = sitk.Clamp(sitk.Mask(image, sitk.Cast(distance > -_NEAR_MM, sitk.sitkUInt8)), upperBound=top)
    try:
        again = align_inside(near, from_template, kind)
    except CaseError:  # driven apart
        return from_template
    return _halfway(from_template, again) if _scale(again) > _scale(from_template) else from_template


def _halfway(one: sitk.AffineTransform, other: sitk.AffineTransform) -> sitk.AffineTransform:
    """The mean of two similar transforms with the same centre."""
    mean = sitk.AffineTransform(one)
    mean.SetMatrix(((np.asarray(one.GetMatrix()) + other.GetMatrix()) / 2).tolist())
    mean.SetTranslation(((np.asarray(one.GetTranslation()) + other.GetTranslation()) / 2).tolist())
    return mean


def _scale(transform: sitk.AffineTransform) -> float:
    return float(abs(np.linalg.det(np.reshape(transform.GetMatrix(), (3, 3)))) ** (1 / 3))


def aligned(image: sitk.Image, brain: sitk.Image, kind: Contrast, *, stripped_before: bool) -> Stripped:
    """A known brain, with the template registered to it."""
    alone = sitk.Mask(image, brain)
    return Stripped(brain, align_brain(alone, find_head(alone), kind), float("nan"), stripped_before)


def carried_distance(from_template: sitk.Transform, grid: sitk.Image) -> sitk.Image:
    """Distance from the surface of the template's brain on the grid of a patient's image, mm, positive inside."""
    return sitk.Resample(
        _template_distance(), grid, from_template.GetInverse(), sitk.sitkLinear, -100.0, sitk.sitkFloat32
    )


@lru_cache(maxsize=1)
def _template_distance() -> sitk.Image:
    brain, pad = icbm152().brain, [_PAD_VOXELS] * 3
    held = sitk.LabelShapeStatisticsImageFilter()
    held.Execute(brain)
    box = held.GetBoundingBox(1)
    wide = sitk.ConstantPad(sitk.RegionOfInterest(brain, box[3:], box[:3]), pad, pad)
    return sitk.SignedMaurerDistanceMap(wide, insideIsPositive=True, squaredDistance=False, useImageSpacing=True)


def refine(image: sitk.Image, carried: sitk.Image) -> sitk.Image:
    """The brain near the registered surface by Bayes' rule with the histograms inside and around it."""
    values, start = sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(carried)
    inside = start > 0
    distance = start
    for _ in range(_ROUNDS):
        ratio = _log_ratio(values, distance)
        score = ratio + _PER_MM * distance
        inside = np.where(start > _IN_MM, True, np.where(start < _OUT_MM, False, score > 0))
        inside = _clean(inside, image)
        if not inside.any():
            break
        distance = (start + _distance(inside, image)) / 2
    return image_like(inside.astype(np.uint8), image)


def _log_ratio(values: Float32Array, distance: Float32Array) -> Float32Array:
    ring = (distance > _RING_MM[0]) & (distance < _RING_MM[1])
    deep = distance > _DEEP_MM
    top = float(np.quantile(values[deep | ring], 0.995))
    edges = np.linspace(0, top, _BINS + 1)
    level = np.clip(np.digitize(values, edges) - 1, 0, _BINS - 1)
    shares = []
    for part in (deep, ring):
        counts = gaussian_filter1d(
            np.bincount(level[part], minlength=_BINS).astype(float), _SMOOTH_BINS, mode="nearest"
        )
        shares.append((counts + 1) / (counts.sum() + _BINS))
    ratio = np.clip(np.log(shares[0] / shares[1]), -_CLIP, _CLIP)[level]
    smooth: Float32Array = gaussian_filter(ratio, (0, 1, 1)).astype(np.float32)
    return smooth


def _clean(inside: BoolArray, grid: sitk.Image) -> BoolArray:
    """Open in the plane of the slices, keep the largest part, close, fill."""
    across, along, _ = grid.GetSpacing()

    def ball(width_mm: float) -> Radii:
        return 0, max(1, round(width_mm / along)), max(1, round(width_mm / across))

    mask = image_like(opened(inside, ball(_OPEN_MM / 2)).astype(np.uint8), grid)
    largest = sitk.RelabelComponent(sitk.ConnectedComponent(mask)) == 1
    mask = image_like(closed(sitk.GetArrayViewFromImage(largest) > 0, ball(_CLOSE_MM / 2)).astype(np.uint8), grid)
    filled: BoolArray = sitk.GetArrayFromImage(sitk.BinaryFillhole(mask)) > 0
    return filled


def _distance(inside: BoolArray, grid: sitk.Image) -> Float32Array:
    mask = image_like(inside.astype(np.uint8), grid)
    values: Float32Array = sitk.GetArrayFromImage(
        sitk.SignedMaurerDistanceMap(mask, insideIsPositive=True, squaredDistance=False, useImageSpacing=True)
    )
    return values


def stripped_before(image: sitk.Image) -> sitk.Image | None:
    """The brain of an image without a head around it, else None.

    Such an image has one value around the brain, and no dark ring (the skull) under its outer edge.
    """
    values = sitk.GetArrayViewFromImage(image)
    # in order, a value of that share takes one of seven places at least
    places = np.linspace(0, values.size - 1, 7).astype(int)
    found = np.unique(np.partition(values, places, axis=None)[places])
    counts = [np.count_nonzero(values == value) for value in found]
    if max(counts) < _BACKGROUND_SHARE * values.size:
        return None
    ground = found[int(np.argmax(counts))]
    shown = values[values > ground]
    if not len(shown):
        return None
    bright = image_like((values > ground + 0.1 * (float(np.median(shown)) - ground)).astype(np.uint8), image)
    part, beside = around(bright, _CLOSE_MM)
    near = image[part]
    inside = _clean(sitk.GetArrayViewFromImage(bright[part]) > 0, near)
    values, depth = sitk.GetArrayViewFromImage(near), _distance(inside, near)
    core, rim = values[depth > 20.0], values[(depth > 3.0) & (depth < 14.0)]
    if not len(core) or not len(rim) or core.std() < _LEAST_CONTRAST * core.mean():
        return None
    dark = float(np.mean(rim < _RIM_SHARE * np.median(core)))
    return image_like(np.pad(inside.astype(np.uint8), beside), image) if dark < 0.25 else None
