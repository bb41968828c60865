"""Find the head and the start of its registration, and refine that by the boundary of the brain.

Boundary-based registration puts the template's brain surface onto the edge between brain and skull.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import map_coordinates

from prognosis_dask.arrays import FloatArray
from prognosis_dask.brain.template import icbm152

#: Distance from the top of the head to the brain: scalp, skull and fluid, mm.
SCALP_MM = 12.0
#: Grid for finding the head, mm.
_COARSE_MM = 4.0
#: Height of the head, from its top, used to estimate the brain's height and position, mm.
_BRAIN_HEIGHT_MM = 120.0
#: A head whose top slice has this share of the area of its widest slice is cut off there.
_CUT_SHARE = 0.35

#: Number of points on the template's surface, and the seed of their choice.
_POINTS, _SEED = 3000, 0
#: Sampling positions, mm from the surface: brain inside, skull outside, and the brightest of three in the scalp.
_BRAIN_MM, _SKULL_MM, _SCALP_MM = -3.0, 3.0, (8.0, 11.0, 14.0)
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
    edge = edge[np.random.default_rng(_SEED).choice(len(edge), _POINTS, replace=False)]
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
        brain, skull = self._at(at + _BRAIN_MM * out), self._at(at + _SKULL_MM * out)
        scalp = np.max([self._at(at + far * out) for far in _SCALP_MM], axis=0)
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
