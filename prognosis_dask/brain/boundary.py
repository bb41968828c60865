"""Boundary-based registration: the template's brain surface onto the edge between brain and skull.

In every sequence the skull is dark, between a brighter brain and a brighter scalp. Where the surface lies well, the
profile along its normals falls on the way out and rises again; that, averaged over the surface, is what is maximised,
whatever the contrast within the brain. After Greve DN, Fischl B, Accurate and robust brain image alignment using
boundary-based registration. NeuroImage 2009;48:63.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from scipy.optimize import minimize

from prognosis_dask.brain.head import coarse
from prognosis_dask.brain.template import icbm152

#: Points on the template's surface; a fixed draw.
_POINTS, _SEED = 3000, 0
#: Where the profile is read, mm from the surface: brain inside, skull outside, and the scalp's brightest of three.
_BRAIN_MM, _SKULL_MM, _SCALP_MM = -3.0, 3.0, (8.0, 11.0, 14.0)
#: Steepness of the tanh that keeps a single bright vessel from counting for more than an edge.
_SLOPE = 1.5
#: Scales against the start, and shifts along the patient's back and height (mm), that are looked through first.
_SCALES = np.linspace(0.84, 1.06, 12)
_BACK_MM, _UP_MM = (-5.0, 0.0, 5.0), (-6.0, -3.0, 0.0, 3.0, 6.0)
#: An entry of the matrix is counted in millimetres at this distance from the centre, as the shifts are.
_ARM_MM = 80.0
#: Cost per squared millimetre of departing from a similarity.
_STIFFNESS = 2e-4
#: With fewer points in the image than this there is no telling.
_LEAST_POINTS = 500

Floats = NDArray[np.float64]


@lru_cache(maxsize=1)
def _surface() -> tuple[Floats, Floats]:
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
    """An image, read along the normals of the surface that a transform puts into it."""

    def __init__(self, image: sitk.Image, start: sitk.AffineTransform) -> None:
        small = coarse(image, 2.0)
        self._values = sitk.GetArrayFromImage(small)
        steps = np.asarray(small.GetDirection()).reshape(3, 3) * np.asarray(small.GetSpacing())
        self._to_index, self._origin = np.linalg.inv(steps).T, np.asarray(small.GetOrigin())
        self._centre = np.asarray(start.GetCenter())
        self._matrix = np.asarray(start.GetMatrix()).reshape(3, 3)
        self._shift = np.asarray(start.GetTranslation())

    def moved(self, change: Floats) -> tuple[Floats, Floats]:
        """Matrix and translation of the start with three shifts and nine entries of the matrix added, all in mm."""
        stretch = np.eye(3) + change[3:].reshape(3, 3) / _ARM_MM
        return np.asarray(self._matrix @ stretch, np.float64), np.asarray(self._shift + change[:3], np.float64)

    def misfit(self, change: Floats) -> float:
        """Minus the mean of both edges' contrasts, between -1 and 1."""
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

    def _at(self, points: Floats) -> Floats:
        index = ((points - self._origin) @ self._to_index).T[::-1]
        values: Floats = map_coordinates(self._values, index, order=1, mode="constant", cval=np.nan)
        return values


def fit_boundary(image: sitk.Image, start: sitk.AffineTransform) -> tuple[sitk.AffineTransform, float]:
    """Improve a transform from template to image points; also how well it fits, between -1 and 1 (higher is better).

    First scales and shifts are looked through, which leaves the wrong edge (of scalp and air), then all twelve
    parameters are refined by Powell's method.
    """
    profiles = _Profiles(image, start)
    tries = [
        np.array([0.0, back, up, *(np.eye(3) * (scale - 1) * _ARM_MM).ravel()])
        for scale, back, up in product(_SCALES, _BACK_MM, _UP_MM)
    ]
    best = min(tries, key=profiles.misfit)

    def cost(change: Floats) -> float:
        return profiles.misfit(best + change) + _STIFFNESS * float(np.mean(change[3:] ** 2))

    found = minimize(cost, np.zeros(12), method="Powell", options={"maxiter": 6, "xtol": 0.05, "ftol": 1e-4})
    matrix, shift = profiles.moved(best + found.x)
    transform = sitk.AffineTransform(3)
    transform.SetCenter(start.GetCenter())
    transform.SetMatrix(matrix.ravel().tolist())
    transform.SetTranslation(shift.tolist())
    return transform, -profiles.misfit(best + found.x)
