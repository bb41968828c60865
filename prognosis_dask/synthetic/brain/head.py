"""A head around the ICBM152 brain: the tissues in the template's space.

The template is a brain without skull. Fluid, skull, scalp, face and neck are added as shells and simple bodies,
for skull stripping to remove.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter

from prognosis_dask.arrays import ByteArray, Float32Array
from prognosis_dask.brain.template import icbm152
from prognosis_dask.imaging.geometry import image_like

#: Signal per tissue and sequence, as shares of 1000; air gives none.
SIGNAL: Final[Mapping[str, Mapping[str, float]]] = {
    "T1": {"grey": 0.58, "white": 0.80, "fluid": 0.22, "bone": 0.06, "marrow": 0.45, "fat": 0.95, "muscle": 0.45},
    "T1c": {"grey": 0.60, "white": 0.80, "fluid": 0.22, "bone": 0.06, "marrow": 0.50, "fat": 0.95, "muscle": 0.55},
    "T2": {"grey": 0.52, "white": 0.38, "fluid": 1.00, "bone": 0.06, "marrow": 0.30, "fat": 0.60, "muscle": 0.20},
    "FLAIR": {"grey": 0.58, "white": 0.46, "fluid": 0.10, "bone": 0.06, "marrow": 0.30, "fat": 0.60, "muscle": 0.25},
}
#: Distances from the brain's hull at which the next tissue starts, mm: skull, its marrow, its outer layer, scalp, air.
_BONE, _MARROW, _OUTER, _SCALP, _AIR = 2.5, 4.5, 6.5, 8.5, 14.0
#: The hull bridges gaps narrower than twice this, mm.
_HULL_MM: Final = 12.0
#: Space for the neck below the template, mm.
_BELOW_MM: Final = 36


@dataclass(frozen=True)
class SyntheticHead:
    """Tissue shares (uint8, 255 for all of a voxel; what is left is air) and the distance from the brain's surface.

    ``depth_mm`` is float32, positive inside the brain mask of the template. Arrays are (slice, row, column); ``grid``
    is an image that carries their geometry.
    """

    tissue: Mapping[str, ByteArray]
    depth_mm: sitk.Image
    grid: sitk.Image

    def contrast(self, sequence: str) -> sitk.Image:
        """The head in a sequence, float32: signal without bias field, noise or lesion."""
        image = np.zeros(self.depth_mm.GetSize()[::-1], np.float32)
        for name, share in self.tissue.items():
            image += np.float32(1000 / 255 * SIGNAL[sequence][name]) * share
        return image_like(image, self.grid)


@lru_cache(maxsize=1)
def make_head(voxel_mm: int) -> SyntheticHead:
    """The head on voxels of 1 or 2 mm, computed once per process."""
    template = icbm152()
    grey, white, brain = (
        _extended(sitk.BinShrink(sitk.Cast(image, sitk.sitkFloat32), [voxel_mm] * 3), voxel_mm)
        for image in (template.grey, template.white, template.brain)
    )
    depth = _signed_distance(brain > 0.5)
    outside = -sitk.GetArrayFromImage(_hull_depth(brain, voxel_mm))
    shares = _shares(sitk.GetArrayFromImage(grey), sitk.GetArrayFromImage(white), outside, _points(grey), voxel_mm)
    return SyntheticHead({name: np.rint(255 * share).astype(np.uint8) for name, share in shares.items()}, depth, grey)


def _shares(
    grey: Float32Array, white: Float32Array, outside: Float32Array, points: Float32Array, voxel_mm: float
) -> dict[str, Float32Array]:
    """Share of each tissue in each voxel; the sum is at most 1."""

    def between(low: float, high: float) -> Float32Array:
        rise = np.clip((outside - low) / voxel_mm + 0.5, 0, 1)
        return np.asarray(rise - np.clip((outside - high) / voxel_mm + 0.5, 0, 1), np.float32)

    x, y, z = points
    skull = between(-np.inf, _AIR)
    rest = np.clip(_face_and_neck(x, y, z) - skull, 0, 1)
    field = gaussian_filter(np.random.default_rng(152).standard_normal(x.shape, dtype=np.float32), 5 / voxel_mm)
    field /= field.std()
    eyes = np.maximum(_ball(x - 33, y + 70, z + 38, 12), _ball(x + 33, y + 70, z + 38, 12)) * rest
    sinus = _ball(x / 1.3, y + 68, z + 45, 17) * rest * (1 - eyes)
    soft = np.clip(rest - eyes - sinus, 0, 1)
    inner = between(-np.inf, _BONE)
    brain = np.clip(grey + white, 0, 1)
    return {
        "grey": grey,
        "white": np.asarray(brain - grey, np.float32),
        "fluid": np.clip(inner - brain, 0, 1) + eyes,
        "bone": between(_BONE, _MARROW) + between(_OUTER, _SCALP),
        "marrow": between(_MARROW, _OUTER),
        "fat": between(_SCALP, _AIR) + soft * (field > 0.6),
        "muscle": soft * (field <= 0.6),
    }


def _face_and_neck(x: Float32Array, y: Float32Array, z: Float32Array) -> Float32Array:
    """1 inside two bodies below the skull: an ellipsoid in front, a column behind it."""
    face = 1 - (x / 62) ** 2 - ((y + 32) / 62) ** 2 - ((z + 70) / 62) ** 2
    neck = np.minimum(1 - (x / 62) ** 2 - ((y - 25) / 62) ** 2, (-40 - z) / 10)
    return np.asarray(np.maximum(face, neck) > 0, np.float32)


def _ball(x: Float32Array, y: Float32Array, z: Float32Array, radius_mm: float) -> Float32Array:
    return np.asarray(x**2 + y**2 + z**2 < radius_mm**2, np.float32)


def _hull_depth(brain: sitk.Image, voxel_mm: int) -> sitk.Image:
    """Distance inside the brain mask after a closing by a large ball, mm."""
    pad = [int(2 * _HULL_MM / voxel_mm)] * 3
    wide = sitk.ConstantPad(brain, pad, pad)
    grown = _signed_distance(wide > 0.5) > -_HULL_MM
    return sitk.Crop(_signed_distance(grown) - _HULL_MM, pad, pad)


def _signed_distance(mask: sitk.Image) -> sitk.Image:
    """Distance from the surface, mm, positive inside.

    The filter measures from the centres of the outermost voxels inside; the surface is half a voxel farther out.
    """
    distance = sitk.SignedMaurerDistanceMap(mask, insideIsPositive=True, squaredDistance=False, useImageSpacing=True)
    return distance + mask.GetSpacing()[0] / 2


def _extended(image: sitk.Image, voxel_mm: int) -> sitk.Image:
    return sitk.ConstantPad(image, [0, 0, _BELOW_MM // voxel_mm], [0, 0, 0])


def _points(image: sitk.Image) -> Float32Array:
    """Positions of voxel centres, (3, slice, row, column), mm; the axes of the template's grid are the patient's."""
    direction = np.asarray(image.GetDirection()).reshape(3, 3).diagonal()
    axes = [
        origin + sign * step * np.arange(size)
        for origin, sign, step, size in zip(
            image.GetOrigin(), direction, image.GetSpacing(), image.GetSize(), strict=True
        )
    ]
    z, y, x = np.meshgrid(*axes[::-1], indexing="ij")
    return np.asarray(np.stack([x, y, z]), np.float32)
