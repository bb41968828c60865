"""The feature columns of a parameter file: names, order and units."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from copy import copy
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from prognosis_dask.arrays import ByteArray
from prognosis_dask.errors import JobError
from prognosis_dask.radiomics.params import RadiomicsParams, quiet

if TYPE_CHECKING:
    from radiomics.featureextractor import RadiomicsFeatureExtractor

#: Units by part of a shape feature's name; the first match counts.
_SHAPE_UNITS = {
    "Ratio": "mm^-1",
    "Volume": "mm^3",
    "Surface": "mm^2",
    "Diameter": "mm",
    "AxisLength": "mm",
    "Perimeter": "mm",
}
#: First-order features whose unit differs from the image's.
_FIRST_ORDER_UNITS = {
    "Energy": "u^2",
    "TotalEnergy": "u^2 mm^3",
    "Variance": "u^2",
    "Entropy": "1",
    "Uniformity": "1",
    "Kurtosis": "1",
    "Skewness": "1",
}


#: Fewest and most voxels along a side of the test image; the mask has four.
_SIDES = (8, 40)
#: The part of a column's name that names the filter: ``log-sigma-3-0-mm-3D``, ``wavelet2-LLH``, ``lbp-2D``.
_FILTER = re.compile("lbp-[23]D|[a-z]+")


@lru_cache(maxsize=8)
def column_names(params: RadiomicsParams) -> tuple[str, ...]:
    """The features under pyradiomics' own names and in its order, fixed by the parameters alone.

    Those of each further parameter file follow, with its name before them.

    They are those of ``execute()`` on a small synthetic image on which every filter works. It has few grey levels
    whatever the bins, and its spacing follows the widest filter, so that neither a small bin nor a large sigma makes it
    large.

    Raises
    ------
    JobError
        When pyradiomics cannot compute with the parameters, or an image type, class or feature that they name yields no
        column.
    """
    if params.more:
        return tuple(named(part, name) for part, one in params.parts for name in column_names(one))
    import SimpleITK as sitk

    extractor, widest = _tried(params)
    side = min(max(_SIDES[0], math.ceil(widest) + 2), _SIDES[1])
    values = np.random.default_rng(0).integers(0, 500, (side, side, side)).astype(np.int16)
    image, mask = sitk.GetImageFromArray(values), sitk.GetImageFromArray(_mask(extractor, side))
    for made in (image, mask):
        made.SetSpacing([max(1.0, widest / (side - 2))] * 3)
    try:
        with quiet():
            names = tuple(extractor.execute(image, mask))
    except Exception as error:  # NumPy, PyWavelets, ITK and pyradiomics raise many kinds for an invalid value
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise JobError(f"pyradiomics cannot compute with these parameters: {reason}") from error
    _expect_columns(params, extractor, names)
    return names


def named(part: str, name: str) -> str:
    """The name of a feature, or image, of a further parameter file.

    >>> named("", "original_glcm_Contrast"), named("fine", "original_glcm_Contrast")
    ('original_glcm_Contrast', 'fine.original_glcm_Contrast')
    """
    return f"{part}.{name}" if part else name


def _tried(params: RadiomicsParams) -> tuple[RadiomicsFeatureExtractor, float]:
    """An extractor with the parameters' columns on any image, and the sigma of its widest filter in mm."""
    from prognosis_dask.radiomics.extractor import extractor_for

    extractor = copy(extractor_for(params))
    log = extractor.settings | extractor.enabledImagetypes.get("LoG", {})
    few = {"binCount": 8, "distances": [1]}
    extractor.enabledImagetypes = {name: own | few for name, own in extractor.enabledImagetypes.items()}
    extractor.settings = extractor.settings | {
        "minimumROISize": None,
        "minimumROIDimensions": 1,
        "resegmentRange": None,
    }
    return extractor, max(log.get("sigma", ()), default=0.0)


def _mask(extractor: RadiomicsFeatureExtractor, side: int) -> ByteArray:
    mask = np.zeros((side, side, side), np.uint8)
    mask[2:6, 2:6, 2:6] = 1
    if extractor.settings["force2D"] and "shape2D" in extractor.enabledFeatures:
        plane = np.arange(side) == 3  # shape2D needs a mask in one plane
        mask *= np.expand_dims(plane, [axis for axis in range(3) if axis != extractor.settings["force2Ddimension"]])
    return mask


def _expect_columns(params: RadiomicsParams, extractor: RadiomicsFeatureExtractor, names: Sequence[str]) -> None:
    """Refuse entries of the file that yield no feature, which pyradiomics only logs."""
    parts = [name.split("_", 2) for name in names]
    for kind, wanted in params.content.get("featureClass", {}).items():
        given = {feature for _, found, feature in parts if found == kind}
        absent = [feature for feature in wanted or () if feature not in given]
        if absent:
            why = "".join(f"; {reason}" for feature in absent if (reason := _why_deprecated(kind, feature)))
            raise JobError(f"featureClass.{kind} names {', '.join(absent)}, which gives no feature; take it out{why}")
        if not given:
            raise JobError(f"featureClass.{kind} gives no feature: {_why_no_class(kind, extractor)}")
    filters = {_FILTER.match(filtered)[0].replace("-", "").lower() for filtered, _, _ in parts}  # type: ignore[index]
    for image_type in extractor.enabledImagetypes:
        if image_type.lower() not in filters:
            raise JobError(f"imageType.{image_type} gives no feature: {_why_no_image(image_type, extractor)}")


def _why_deprecated(kind: str, feature: str) -> str:
    """What pyradiomics says of a feature that it no longer computes: as a rule, which other one has its value."""
    from radiomics import getFeatureClasses

    base = getFeatureClasses()[kind]
    try:
        getattr(base, f"get{feature}FeatureValue")(object.__new__(base))
    except DeprecationWarning as warning:
        return str(warning).partition(", see ")[0]
    except Exception:  # it computes, but nothing is there to compute from
        pass
    return ""


def _why_no_image(image_type: str, extractor: RadiomicsFeatureExtractor) -> str:
    if not [kind for kind in extractor.enabledFeatures if not kind.startswith("shape")]:
        return "the only requested class is shape, which has no image type but Original"
    if image_type == "LoG":
        return "it has no sigma; give its widths in mm, as LoG: {sigma: [1.0, 3.0]}"
    return "pyradiomics leaves it out with these settings"


def _why_no_class(kind: str, extractor: RadiomicsFeatureExtractor) -> str:
    if kind == "shape2D" and not extractor.settings["force2D"]:
        return "it needs setting.force2D: true"
    return "pyradiomics leaves it out with these settings"


def unit(column: str) -> str:
    """The unit of a column: ``1`` for a pure number, ``u`` for the image's own unit (HU in a CT).

    >>> unit("original_shape_MeshVolume"), unit("original_firstorder_Energy"), unit("wavelet-LLH_glcm_Contrast")
    ('mm^3', 'u^2', '1')
    """
    _, kind, feature = column.split("_", 2)
    if kind.startswith("shape"):
        return next((symbol for part, symbol in _SHAPE_UNITS.items() if part in feature), "1")
    return _FIRST_ORDER_UNITS.get(feature, "u") if kind == "firstorder" else "1"
