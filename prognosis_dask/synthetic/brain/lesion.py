"""The synthetic lesion: an ellipsoid with texture, whose volume and diameters are known in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation

from prognosis_dask.arrays import FloatArray

#: Signal inside per sequence, as a share of 1000, before texture, uptake and mismatch.
SIGNAL: Final = {"T1": 0.50, "T1c": 0.50, "T2": 0.85, "FLAIR": 0.92}
#: Voxels of the texture, mm, and the width of its patches.
_TEXTURE_MM: Final = 2.0
_BLOTCH_MM: Final = 3.0


@dataclass(frozen=True)
class Lesion:
    """An ellipsoid in the patient's space.

    Attributes
    ----------
    centre_mm
        (x, y, z), DICOM's patient coordinates, on the reference sequence.
    semi_axes_mm
        Three, the longest first.
    rotation
        (3, 3); column i is the direction of axis i.
    texture
        Standard normal patches on a cubic grid of 2 mm around the centre.
    """

    centre_mm: FloatArray
    semi_axes_mm: FloatArray
    rotation: FloatArray
    texture: FloatArray

    @property
    def volume_ml(self) -> float:
        """4/3 pi a b c."""
        return float(4 / 3 * np.pi * np.prod(self.semi_axes_mm) / 1000)

    @property
    def diameter_3d_mm(self) -> float:
        """Twice the longest semi-axis."""
        return float(2 * self.semi_axes_mm.max())

    @property
    def axial_diameters_mm(self) -> tuple[float, float]:
        """Long and short diameter of the axial section through the centre, the largest of all axial sections."""
        long_mm, short_mm = 2 / np.sqrt(np.sort(np.linalg.eigvalsh(self._form()[:2, :2])))
        return float(long_mm), float(short_mm)

    @property
    def reach_mm(self) -> float:
        """Radius of a sphere around the centre that contains lesion and border."""
        return float(self.semi_axes_mm.max() * 1.2 + 5)

    def level_mm(self, points: FloatArray) -> FloatArray:
        """Approximate depth of points (3, ...) inside the surface, mm; negative outside, exactly zero on it."""
        offset = points - self.centre_mm.reshape(3, *[1] * (points.ndim - 1))
        inner = np.tensordot(self.rotation.T, offset, axes=1)
        scaled = np.sqrt(sum((inner[i] / self.semi_axes_mm[i]) ** 2 for i in range(3)))
        # distance from the surface to first order: (1 - r) over the gradient of r
        slope = np.sqrt(sum((inner[i] / self.semi_axes_mm[i] ** 2) ** 2 for i in range(3))) / np.maximum(scaled, 1e-6)
        return np.asarray((1 - scaled) / np.maximum(slope, 1e-6))

    def texture_at(self, points: FloatArray) -> FloatArray:
        """Texture at points (3, ...); zero outside its grid."""
        offset = points - self.centre_mm.reshape(3, *[1] * (points.ndim - 1))
        index = offset / _TEXTURE_MM + (np.array(self.texture.shape).reshape(3, *[1] * (points.ndim - 1)) - 1) / 2
        return np.asarray(map_coordinates(self.texture, index, order=1))

    def _form(self) -> FloatArray:
        """Matrix of the quadratic form that is one on the surface."""
        return np.asarray(self.rotation @ np.diag(self.semi_axes_mm**-2.0) @ self.rotation.T)


def make_lesion(centre_mm: FloatArray, radius_mm: float, rng: np.random.Generator) -> Lesion:
    """An ellipsoid with the volume of a sphere of ``radius_mm``, randomly oriented."""
    ratios = np.exp(rng.uniform(-0.2, 0.2, 3))
    semi_axes = radius_mm * np.sort(ratios / np.prod(ratios) ** (1 / 3))[::-1]
    side = 2 * int(np.ceil((1.2 * semi_axes[0] + 6) / _TEXTURE_MM)) + 1
    blotches = gaussian_filter(rng.standard_normal((side,) * 3), _BLOTCH_MM / _TEXTURE_MM)
    return Lesion(
        centre_mm=np.asarray(centre_mm, np.float64),
        semi_axes_mm=semi_axes,
        rotation=Rotation.random(random_state=rng).as_matrix(),
        texture=blotches / blotches.std(),
    )
