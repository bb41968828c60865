"""Registration by mutual information: the template to a head or a brain, and one sequence of a patient to another."""

from __future__ import annotations

import math
from contextlib import suppress
from functools import lru_cache

import numpy as np
import SimpleITK as sitk

from prognosis_dask.brain.head import Head, coarse, distance_outside, points_of, starts
from prognosis_dask.brain.template import Contrast, contrast, dilated, icbm152
from prognosis_dask.errors import CaseError, Code
from prognosis_dask.imaging.geometry import image_like

#: Bins of each image's histogram; seed of the sampled voxels.
MUTUAL_INFORMATION_BINS = 32
_SEED = 20
#: Intensities are clamped at this multiple of the brain's 99th percentile: fat and vessels carry no information on the
#: brain.
_CLAMP = 1.15
#: Radius around the brain's estimated centre for the percentile, mm.
_CORE_MM = 50.0
_KEPT_STARTS = 4
#: Initial scales of a similarity: the template's brain is larger than most. Within its skull a brain may be hidden from
#: one of them by the scalp: the better fit counts.
_USUAL_SCALES, _HEAD_SCALES = (0.94,), (0.94, 1.0)
#: The synthetic skull and scalp: distances from the brain, mm, and the height in the template above which they exist.
_SKULL_MM, _SCALP_MM, _SKULL_BASE_MM = 7.0, 13.0, 0.0
#: Brightness of the scalp, relative to the brightest part of the brain.
_SCALP_VALUE = 1.1
#: Width of the zero background around a stripped brain that registration uses, mm.
_RIM_MM = 4
#: Template, the mask of its voxels that count, and image, on voxels of one width.
_Compared = tuple[sitk.Image, sitk.Image, sitk.Image]


def rigid(fixed: sitk.Image, moving: sitk.Image) -> tuple[sitk.Euler3DTransform, float]:
    """The head's movement between two sequences: from points of ``fixed`` to points of ``moving``, mm.

    Starts from the headers, which are right except for the patient's movement. Also the metric: mutual information,
    higher is better.
    """
    turn = sitk.Euler3DTransform()
    middle = [(size - 1) / 2 for size in fixed.GetSize()]
    turn.SetCenter(fixed.TransformContinuousIndexToPhysicalPoint(middle))
    metric = 0.0
    # some ten thousand voxels each: all of them take three times as long and end within 0.3 mm of the same
    for width, step, share in ((4.0, 2.0, 0.25), (2.0, 0.5, 0.1)):
        method = _method(None)
        method.SetMetricSamplingStrategy(method.RANDOM)
        method.SetMetricSamplingPercentage(share, _SEED)
        method.SetOptimizerAsRegularStepGradientDescent(step, 0.01, 60, relaxationFactor=0.6)
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetInitialTransform(turn, inPlace=True)
        _execute(method, coarse(fixed, width), coarse(moving, width), Code.SEQUENCES_APART)
        metric = -float(method.GetMetricValue())
    return turn, metric


def align_head(image: sitk.Image, head: Head, kind: Contrast) -> sitk.AffineTransform:
    """A similarity from the template's points to those of a head with its skull, at 4 mm.

    Rigid from the best of many starts, then with a scale. The template gets a dark skull and a bright scalp: without
    them the brain may be fitted to the scalp.
    """
    pair = (*_with_scalp(kind), _clamped(image, head))
    return _similarity(pair, pair, starts(head), _HEAD_SCALES)


def align_brain(image: sitk.Image, head: Head, kind: Contrast) -> sitk.AffineTransform:
    """An affine transform from the template's points to those of a brain without its skull, at 2 mm.

    Its start is found at 8 mm, its scale at 4 mm.
    """
    template, rim = contrast(kind), with_rim()
    first, second = ((coarse(template, width), shrunk(rim, int(width)), coarse(image, width)) for width in (8.0, 4.0))
    return _affine(template, rim, image, _similarity(first, second, starts(head, scalp_mm=0.0), _USUAL_SCALES))


@lru_cache(maxsize=1)
def with_rim() -> sitk.Image:
    """The template's brain with as much of what is around it as is compared where there is no skull (uint8)."""
    brain = icbm152().brain
    return image_like(dilated(sitk.GetArrayViewFromImage(brain) > 0, (_RIM_MM,) * 3).astype(np.uint8), brain)


def align_inside(image: sitk.Image, start: sitk.AffineTransform, kind: Contrast) -> sitk.AffineTransform:
    """An affine transform from the template's points to those of an image of little more than a brain, at 2 mm.

    Only the inside of the template's brain is compared, so the border of the image has no influence.
    """
    return _affine(contrast(kind), icbm152().brain, image, start)


def _affine(
    template: sitk.Image, inside: sitk.Image, image: sitk.Image, start: sitk.AffineTransform
) -> sitk.AffineTransform:
    found = sitk.AffineTransform(start)
    method = _method(shrunk(inside, 2))
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(0.2, _SEED)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 0.02, 80, relaxationFactor=0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(found, inPlace=True)
    _execute(method, coarse(template, 2.0), coarse(image, 2.0), Code.BRAIN_NOT_FOUND)
    return found


def mutual_information(image: sitk.Image, transform: sitk.Transform, kind: Contrast) -> float:
    """Mutual information of template and image within the template's brain, nats; ``transform`` maps the former."""
    method = _method(shrunk(icbm152().brain, 4))
    method.SetInitialTransform(transform)
    try:
        return -float(method.MetricEvaluate(coarse(contrast(kind), 4.0), coarse(image, 4.0)))
    except RuntimeError:  # nothing overlaps
        return 0.0


def _similarity(
    first: _Compared, second: _Compared, begin: list[sitk.Euler3DTransform], scales: tuple[float, ...]
) -> sitk.AffineTransform:
    """Rigid from the best of the starts on the first images, then with a scale on the second."""
    fixed, inside, moving = first
    method = _method(inside)
    method.SetOptimizerScalesFromPhysicalShift()

    def misfit(transform: sitk.Transform) -> float:
        method.SetInitialTransform(transform)
        try:
            return float(method.MetricEvaluate(fixed, moving))
        except RuntimeError:  # hardly any of the brain would be in the image
            return math.inf

    method.SetOptimizerAsRegularStepGradientDescent(4.0, 0.1, 40, relaxationFactor=0.6)
    found = []
    for turn in sorted(begin, key=misfit)[:_KEPT_STARTS]:
        method.SetInitialTransform(turn, inPlace=True)
        with suppress(CaseError):  # another start may succeed
            _execute(method, fixed, moving, Code.BRAIN_NOT_FOUND)
            found.append((float(method.GetMetricValue()), turn))
    if not found:
        raise CaseError(Code.BRAIN_NOT_FOUND, "the template's brain fits nowhere in the image")
    best = min(found, key=lambda pair: pair[0])[1]
    fixed, inside, moving = second
    method.SetMetricFixedMask(inside)
    method.SetOptimizerAsRegularStepGradientDescent(2.0, 0.05, 60, relaxationFactor=0.6)
    scaled = []
    for scale in scales:
        similarity = sitk.Similarity3DTransform()
        similarity.SetCenter(best.GetCenter())
        similarity.SetMatrix(best.GetMatrix())
        similarity.SetTranslation(best.GetTranslation())
        similarity.SetScale(scale)
        method.SetInitialTransform(similarity, inPlace=True)
        _execute(method, fixed, moving, Code.BRAIN_NOT_FOUND)
        scaled.append((float(method.GetMetricValue()), similarity))
    similarity = min(scaled, key=lambda pair: pair[0])[1]
    affine = sitk.AffineTransform(3)
    affine.SetCenter(similarity.GetCenter())
    affine.SetMatrix(similarity.GetMatrix())
    affine.SetTranslation(similarity.GetTranslation())
    return affine


@lru_cache(maxsize=3)
def _with_scalp(kind: Contrast) -> tuple[sitk.Image, sitk.Image]:
    """The template at 4 mm inside a synthetic skull and scalp, and the mask of its voxels."""
    brain = icbm152().brain
    outside = distance_outside(brain)
    distance = sitk.GetArrayViewFromImage(outside)
    heights = brain.GetOrigin()[2] + np.arange(brain.GetDepth())  # the template's axes are the patient's
    above = (heights > _SKULL_BASE_MM)[:, None, None]
    values = sitk.GetArrayFromImage(contrast(kind))
    values[(distance > _SKULL_MM) & (distance <= _SCALP_MM) & above] = _SCALP_VALUE
    counts = (distance <= 0) | ((distance <= _SCALP_MM) & above)
    return coarse(image_like(values, brain), 4.0), shrunk(image_like(counts.astype(np.uint8), brain), 4)


def _clamped(image: sitk.Image, head: Head) -> sitk.Image:
    """The image at 4 mm, clamped to the brightness of the brain."""
    centre = np.median([turn.TransformPoint(turn.GetCenter()) for turn in starts(head)], axis=0)
    small = coarse(image, 4.0)
    values = sitk.GetArrayViewFromImage(small).ravel()
    near = np.linalg.norm(points_of(sitk.Cast(small * 0, sitk.sitkUInt8) + 1) - centre, axis=1) < _CORE_MM
    top = float(np.quantile(values[near] if near.any() else values, 0.99))
    return sitk.Clamp(small, lowerBound=0.0, upperBound=_CLAMP * top)


def _execute(method: sitk.ImageRegistrationMethod, fixed: sitk.Image, moving: sitk.Image, code: Code) -> None:
    """Run the optimiser; ITK fails if the images drift apart until they no longer overlap."""
    try:
        method.Execute(fixed, moving)
    except RuntimeError as error:
        last = str(error).strip().splitlines()[-1]
        raise CaseError(
            code, f"the registration found no overlap, so the images do not belong together: {last}"
        ) from error


def _method(mask: sitk.Image | None) -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(MUTUAL_INFORMATION_BINS)
    if mask is not None:
        method.SetMetricFixedMask(mask)
    method.SetInterpolator(sitk.sitkLinear)
    return method


def shrunk(mask: sitk.Image, factor: int) -> sitk.Image:
    """A mask on voxels larger by an integer factor, set if more than half of them is."""
    return sitk.Cast(sitk.BinShrink(sitk.Cast(mask, sitk.sitkFloat32), [factor] * 3) > 0.5, sitk.sitkUInt8)
