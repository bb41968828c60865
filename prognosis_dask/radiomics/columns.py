"""The columns that a parameter file gives: their names, their order, their units."""

from __future__ import annotations

import math
from copy import copy
from functools import lru_cache

import numpy as np

from prognosis_dask.radiomics.params import RadiomicsParams, quiet

#: By part of a shape feature's name; the first that fits holds.
_SHAPE_UNITS = {
    "Ratio": "mm^-1",
    "Volume": "mm^3",
    "Surface": "mm^2",
    "Diameter": "mm",
    "AxisLength": "mm",
    "Perimeter": "mm",
}
#: First-order features that are not in the image's own unit.
_FIRST_ORDER_UNITS = {
    "Energy": "u^2",
    "TotalEnergy": "u^2 mm^3",
    "Variance": "u^2",
    "Entropy": "1",
    "Uniformity": "1",
    "Kurtosis": "1",
    "Skewness": "1",
}


@lru_cache(maxsize=8)
def column_names(params: RadiomicsParams) -> tuple[str, ...]:
    """The features under pyradiomics' own names and in its order, fixed by the parameters alone.

    They are those that ``execute()`` gives for a small made image, on which every filter works.
    """
    import SimpleITK as sitk

    from prognosis_dask.radiomics.extractor import extractor_for

    extractor = copy(extractor_for(params))
    extractor.settings = extractor.settings | {
        "minimumROISize": None,
        "minimumROIDimensions": 1,
        "resegmentRange": None,
    }
    log = extractor.settings | extractor.enabledImagetypes.get("LoG", {})
    side = max(8, math.ceil(max(log.get("sigma", ()), default=0)) + 2)  # in voxels of 1 mm
    image = np.random.default_rng(0).integers(0, 500, (side, side, side)).astype(np.int16)
    mask = np.zeros((side, side, side), np.uint8)
    mask[2:6, 2:6, 2:6] = 1
    if extractor.settings["force2D"] and "shape2D" in extractor.enabledFeatures:
        plane = np.arange(side) == 3  # shape2D wants a mask of one plane
        mask *= np.expand_dims(plane, [axis for axis in range(3) if axis != extractor.settings["force2Ddimension"]])
    with quiet():
        return tuple(extractor.execute(sitk.GetImageFromArray(image), sitk.GetImageFromArray(mask)))


def unit(column: str) -> str:
    """The unit of a column: ``1`` for a pure number, ``u`` for the image's own unit (HU in a CT).

    >>> unit("original_shape_MeshVolume"), unit("original_firstorder_Energy"), unit("wavelet-LLH_glcm_Contrast")
    ('mm^3', 'u^2', '1')
    """
    _, kind, feature = column.split("_", 2)
    if kind.startswith("shape"):
        return next((symbol for part, symbol in _SHAPE_UNITS.items() if part in feature), "1")
    return _FIRST_ORDER_UNITS.get(feature, "u") if kind == "firstorder" else "1"
