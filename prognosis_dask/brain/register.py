"""Registration: find the head, put the template on it, on a brain or on its boundary, and one sequence on another."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import map_coordinates

from prognosis_dask.arrays import FloatArray
from prognosis_dask.brain.template import Contrast, contrast, dilated, icbm152
from prognosis_dask.errors import CaseError, Code
from prognosis_dask.imaging.geometry import image_like

#: Distance from the top of the head to the brain: scalp, skull and fluid, mm.
SCALP_MM = 12.0
#: Grid for finding the head, mm.
_COARSE_MM = 4.0
#: Height of the head, from its top, used to estimate the brain's height and position, mm.
_BRAIN_HEIGHT_MM = 120.0
#: A head whose top slice has this share of the area of its widest slice is cut off there.
_CUT_SHARE = 0.35

#: Number of points on the template's surface, and the seed of their choice.
_POINTS, _POINTS_SEED = 3000, 0
#: Sampling positions, mm from the surface: brain inside, skull outside, and the brightest of three in the scalp.
_BRAIN_AT_MM, _SKULL_AT_MM, _SCALP_AT_MM = -3.0, 3.0, (8.0, 11.0, 14.0)
#: Steepness of the tanh that limits the weight of a single bright vessel.
_SLOPE = 1.5
#: Scales relative to the start, and shifts along the patient's back and height (mm), tried first.
_SCALES = np.linspace(0.84, 1.06, 12)
_BACK_MM, _UP_MM = (-5.0, 0.0, 5.0), (-6.0, -3.0, 0.0, 3.0, 6.0)
#: Distance from the centre (mm) at which an entry of the matrix is expressed in millimetres, like the shifts.
_ARM_MM = 80.0
#: Cost per squared millimetre of deviation from a similarity.
_STIFFNESS = 2e-4
#: Fewest points inside the image for a fit.
_LEAST_POINTS = 500


@dataclass(frozen=True)
class Head:
    """The head as points in mm, (n, 3), on a coarse grid; and whether the image cuts off its top."""

    points: FloatArray
    cut: bool


def coarse(image: sitk.Image, width_mm: float) -> sitk.Image:
    """The image averaged to voxels of about ``width_mm``; axes that are coarser stay as they are."""
    return sitk.BinShrink(image, [max(1, round(width_mm / spacing)) for spacing in image.GetSpacing()])


def head_mask(image: sitk.Image) -> sitk.Image:
    """The largest object above Otsu's threshold (uint8, 0 and 1)."""
    bright = sitk.OtsuThreshold(image, 0, 1, 128)
    parts = sitk.RelabelComponent(sitk.ConnectedComponent(sitk.BinaryMorphologicalOpening(bright, [1, 1, 0])))
    return sitk.Cast(parts == 1, sitk.sitkUInt8)


def find_head(image: sitk.Image) -> Head:
    """The head in an image of any contrast."""
    small = coarse(sitk.Cast(image, sitk.sitkFloat32), _COARSE_MM)
    mask = head_mask(small)
    points = points_of(mask)
    z = points[:, 2]
    # by height, not by slice: the slices may run in any direction
    bins = np.histogram(z, bins=np.arange(z.min(), z.max() + 10.0, 5.0))[0]
    top = bins[np.flatnonzero(bins)[-2:]].max() if bins.any() else 0
    return Head(points, bool(top > _CUT_SHARE * bins.max()))


def points_of(mask: sitk.Image) -> FloatArray:
    """The centres of the set voxels in mm, (n, 3) in (x, y, z) order."""
    index = np.argwhere(sitk.GetArrayViewFromImage(mask))[:, ::-1]
    steps = np.asarray(mask.GetDirection()).reshape(3, 3) * np.asarray(mask.GetSpacing())
    points: FloatArray = index @ steps.T + np.asarray(mask.GetOrigin())
    return points


def distance_outside(mask: sitk.Image) -> sitk.Image:
    """The distance of each voxel from a mask, mm; negative in it."""
    return sitk.SignedMaurerDistanceMap(mask, insideIsPositive=False, squaredDistance=False, useImageSpacing=True)


def starts(head: Head, *, scalp_mm: float = SCALP_MM) -> list[sitk.Euler3DTransform]:
    """Initial rigid transforms from template to image: pitches, heights and positions along the nose's axis.

    The template's top is placed ``scalp_mm`` below the head's, its centre on the head's centre. If the image cuts off
    the head, every height that leaves half of the brain in the image is a start.
    """
    brain = points_of(sitk.BinShrink(icbm152().brain, [8, 8, 8]))
    centre = brain.mean(axis=0)
    top = float(np.quantile(head.points[:, 2], 0.999))
    upper = head.points[head.points[:, 2] > top - _BRAIN_HEIGHT_MM]
    middle = (np.quantile(upper, 0.02, axis=0) + np.quantile(upper, 0.98, axis=0)) / 2
    heights = (-15.0, 0.0, 15.0) if not head.cut else tuple(np.arange(-10.0, 71.0, 10.0))
    found = []
    for pitch, up, forth in product(
        np.radians((-30.0, -20.0, -10.0, 0.0, 10.0, 20.0, 30.0)), heights, (-12.0, 0.0, 12.0)
    ):
        turn = sitk.Euler3DTransform(centre.tolist(), float(pitch), 0.0, 0.0)
        turned = (brain - centre) @ np.asarray(turn.GetMatrix()).reshape(3, 3).T + centre
        low, high = turned.min(axis=0), turned.max(axis=0)
        shift = middle - (low + high) / 2 + (0.0, forth, 0.0)
        shift[2] = top - scalp_mm - high[2] + up
        turn.SetTranslation(shift.tolist())
        found.append(turn)
    return found


@lru_cache(maxsize=1)
def _surface() -> tuple[FloatArray, FloatArray]:
    """Points on the template's brain surface, (n, 3) in mm, and the outward normals there."""
    soft = sitk.DiscreteGaussian(sitk.Cast(icbm152().brain, sitk.sitkFloat32), 9.0)
    values = sitk.GetArrayFromImage(soft)
    edge = np.argwhere((values > 0.4) & (values < 0.6))
    edge = edge[np.random.default_rng(_POINTS_SEED).choice(len(edge), _POINTS, replace=False)]
    slope = np.stack([axis[tuple(edge.T)] for axis in np.gradient(values)], axis=-1)
    direction = np.asarray(soft.GetDirection()).reshape(3, 3)
    normals = -slope[:, ::-1] @ direction.T
    points = edge[:, ::-1] @ (direction * np.asarray(soft.GetSpacing())).T + np.asarray(soft.GetOrigin())
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return points, normals


class _Profiles:
    """An image sampled along the normals of a transformed surface."""

    def __init__(self, image: sitk.Image, start: sitk.AffineTransform) -> None:
        small = coarse(image, 2.0)
        self._values = sitk.GetArrayFromImage(small)
        steps = np.asarray(small.GetDirection()).reshape(3, 3) * np.asarray(small.GetSpacing())
        self._to_index, self._origin = np.linalg.inv(steps).T, np.asarray(small.GetOrigin())
        self._centre = np.asarray(start.GetCenter())
        self._matrix = np.asarray(start.GetMatrix()).reshape(3, 3)
        self._shift = np.asarray(start.GetTranslation())

    def moved(self, change: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Matrix and translation of the start plus three shifts and nine matrix entries, all in mm."""
        stretch = np.eye(3) + change[3:].reshape(3, 3) / _ARM_MM
        return np.asarray(self._matrix @ stretch, np.float64), np.asarray(self._shift + change[:3], np.float64)

    def misfit(self, change: FloatArray) -> float:
        """Negative mean of both edges' contrasts, between -1 and 1."""
        points, normals = _surface()
        matrix, shift = self.moved(change)
        at = (points - self._centre) @ matrix.T + self._centre + shift
        out = normals @ np.linalg.inv(matrix)
        out /= np.linalg.norm(out, axis=1, keepdims=True)
        brain, skull = self._at(at + _BRAIN_AT_MM * out), self._at(at + _SKULL_AT_MM * out)
        scalp = np.max([self._at(at + far * out) for far in _SCALP_AT_MM], axis=0)
        seen = np.isfinite(brain) & np.isfinite(skull) & np.isfinite(scalp)
        if np.count_nonzero(seen) < _LEAST_POINTS:
            return 1.0
        brain, skull, scalp = brain[seen], skull[seen], scalp[seen]
        floor = 0.1 * np.median(brain) + 1e-6
        edges = sum(np.tanh(_SLOPE * (bright - skull) / (0.5 * (bright + skull) + floor)) for bright in (brain, scalp))
        return -0.5 * float(np.mean(edges))

    def _at(self, points: FloatArray) -> FloatArray:
        index = ((points - self._origin) @ self._to_index).T[::-1]
        values: FloatArray = map_coordinates(self._values, index, order=1, mode="constant", cval=np.nan)
        return values


def fit_boundary(image: sitk.Image, start: sitk.AffineTransform) -> tuple[sitk.AffineTransform, float]:
    """Refine a transform from template to image points; also its fit, between -1 and 1 (higher is better).

    First scales and shifts are tried, to leave the wrong edge (between scalp and air), then all twelve parameters are
    refined by Powell's method.
    """
    from scipy.optimize import minimize

    profiles = _Profiles(image, start)
    tries = [
        np.array([0.0, back, up, *(np.eye(3) * (scale - 1) * _ARM_MM).ravel()])
        for scale, back, up in product(_SCALES, _BACK_MM, _UP_MM)
    ]
    best = min(tries, key=profiles.misfit)

    def cost(change: FloatArray) -> float:
        return profiles.misfit(best + change) + _STIFFNESS * float(np.mean(change[3:] ** 2))

    found = minimize(cost, np.zeros(12), method="Powell", options={"maxiter": 6, "xtol": 0.05, "ftol": 1e-4})
    matrix, shift = profiles.moved(best + found.x)
    transform = sitk.AffineTransform(3)
    transform.SetCenter(start.GetCenter())
    transform.SetMatrix(matrix.ravel().tolist())
    transform.SetTranslation(shift.tolist())
    return transform, -profiles.misfit(best + found.x)


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
