"""pyradiomics' extractor for images that are prepared, made once for each set of parameters."""

from __future__ import annotations

import logging
from functools import cache, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from radiomics import getFeatureClasses
from radiomics.base import RadiomicsFeaturesBase
from radiomics.featureextractor import RadiomicsFeatureExtractor

from prognosis_dask.radiomics.levels import expect_not_too_many
from prognosis_dask.radiomics.params import RadiomicsParams, quiet


class PreparedExtractor(RadiomicsFeatureExtractor):  # type: ignore[misc]
    """Takes image and mask as :mod:`prognosis_dask.radiomics.crop` makes them, and sorts each into bins only once."""

    @staticmethod
    def loadImage(image: sitk.Image, mask: sitk.Image, *_: Any, **__: Any) -> tuple[sitk.Image, sitk.Image]:  # noqa: N802
        """``execute()``'s first step, without normalising, resampling and cropping."""
        return image, sitk.Cast(mask, sitk.sitkUInt32)

    def computeFeatures(  # noqa: N802
        self, image: sitk.Image, mask: sitk.Image, imageTypeName: str, **settings: Any
    ) -> dict[str, Any]:
        """The features of one image, but for shape; pyradiomics bins the image anew for each class."""
        values: dict[str, Any] = {}
        settings["bins"] = {"of": imageTypeName}
        for kind, names in self.enabledFeatures.items():
            if kind.startswith("shape"):
                continue
            features = _sharing_bins(kind)(image, mask, **settings)
            for name in names or ():
                features.enableFeatureByName(name)
            values |= {f"{imageTypeName}_{kind}_{name}": value for name, value in features.execute().items()}
        texture = any(kind != "firstorder" and not kind.startswith("shape") for kind in self.enabledFeatures)
        if texture and "levels" in settings:
            settings["levels"][imageTypeName] = len(settings["bins"]["coefficients"]["grayLevels"])
        return values


@cache
def _sharing_bins(kind: str) -> type[RadiomicsFeaturesBase]:
    base = getFeatureClasses()[kind]

    def apply_binning(self: RadiomicsFeaturesBase, matrix: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        shared = self.settings["bins"]
        expect_not_too_many(matrix[self.maskArray], self.settings, shared["of"], texture=kind != "firstorder")
        if "matrix" not in shared:
            shared["matrix"] = base._applyBinning(self, matrix)
            shared["coefficients"] = dict(self.coefficients)
        self.coefficients |= shared["coefficients"]
        binned: npt.NDArray[np.int64] = shared["matrix"].copy()
        return binned

    # of pyradiomics' module, to whose logger it writes
    return type(base.__name__, (base,), {"_applyBinning": apply_binning, "__module__": base.__module__})


@lru_cache(maxsize=8)
def extractor_for(params: RadiomicsParams) -> PreparedExtractor:
    """The extractor of the parameters. Kept, as validating them takes as long as a small case; not to be altered."""
    logging.getLogger("radiomics").setLevel(logging.CRITICAL + 1)
    with quiet():
        extractor = PreparedExtractor(params.content)
    extractor.settings.update(additionalInfo=False, label=1)
    return extractor
