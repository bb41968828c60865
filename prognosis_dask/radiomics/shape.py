"""pyradiomics' shape features of a mask, with the mesh of :mod:`prognosis_dask.radiomics.mesh`."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from radiomics import getFeatureClasses
from radiomics.shape import RadiomicsShape

from prognosis_dask.radiomics.mesh import mesh


class _Shape(RadiomicsShape):  # type: ignore[misc]
    """Takes an array, (z, y, x), for its mask; in pyradiomics' module, to whose logger it writes."""

    __module__ = RadiomicsShape.__module__

    def __init__(self, mask: npt.NDArray[np.bool_], spacing: tuple[float, ...]) -> None:
        self.logger = logging.getLogger(self.__module__)
        self.voxelBased = False
        self.enabledFeatures: dict[str, bool] = {}
        self.featureValues: dict[str, Any] = {}
        self.featureNames = _NAMES
        self.pixelSpacing = np.array(spacing[::-1])
        self.SurfaceArea, self.Volume, self.diameters = mesh(mask, self.pixelSpacing)
        # pyradiomics' own steps from here, which BLAS and LAPACK round by the memory's layout
        self.labelledVoxelCoordinates = np.where(np.pad(mask, 1))
        count = len(self.labelledVoxelCoordinates[0])
        places = np.array(self.labelledVoxelCoordinates, dtype="int").transpose((1, 0)) * self.pixelSpacing[None, :]
        places -= np.mean(places, axis=0)
        places /= np.sqrt(count)
        self.eigenValues = np.linalg.eigvals(np.dot(places.T.copy(), places))
        self.eigenValues[(self.eigenValues < 0) & (self.eigenValues > -1e-10)] = 0
        self.eigenValues.sort()


_NAMES = RadiomicsShape.getFeatureNames()


def shape_features(
    mask: npt.NDArray[np.bool_], spacing: tuple[float, ...], kinds: dict[str, Any], settings: dict[str, Any]
) -> dict[str, Any]:
    """The features of ``computeShape()``, of a mask cut to its box."""
    values: dict[str, Any] = {}
    for kind in ("shape", "shape2D"):
        if kind not in kinds or (kind == "shape2D" and not _is_plane(mask, settings)):
            continue
        shape = _Shape(mask, spacing) if kind == "shape" else _plane(mask, spacing, settings)
        for name in kinds[kind] or ():
            shape.enableFeatureByName(name)
        values |= {f"original_{kind}_{name}": value for name, value in shape.execute().items()}
    return values


def _is_plane(mask: npt.NDArray[np.bool_], settings: dict[str, Any]) -> bool:
    """By pyradiomics' own test, which looks at the axes from the other end."""
    return bool(settings.get("force2D", False)) and mask.shape[::-1][settings.get("force2Ddimension", 0)] > 1


def _plane(mask: npt.NDArray[np.bool_], spacing: tuple[float, ...], settings: dict[str, Any]) -> Any:
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(spacing)
    return getFeatureClasses()["shape2D"](image, image, **settings)
