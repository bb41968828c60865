"""pyradiomics' extractor, made once for each set of parameters, for images that are prepared."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

import SimpleITK as sitk
from radiomics.featureextractor import RadiomicsFeatureExtractor

from prognosis_dask.radiomics.params import RadiomicsParams, quiet


class PreparedExtractor(RadiomicsFeatureExtractor):  # type: ignore[misc]
    """Takes image and mask normalised, resampled and cropped, as :mod:`prognosis_dask.radiomics.crop` makes them."""

    @staticmethod
    def loadImage(image: sitk.Image, mask: sitk.Image, *_: Any, **__: Any) -> tuple[sitk.Image, sitk.Image]:  # noqa: N802
        """What ``execute()`` calls first, without its steps."""
        return image, sitk.Cast(mask, sitk.sitkUInt32)


@lru_cache(maxsize=8)
def extractor_for(params: RadiomicsParams) -> PreparedExtractor:
    """The extractor of the parameters. Kept, as validating them takes as long as a small case; not to be altered."""
    logging.getLogger("radiomics").setLevel(logging.CRITICAL + 1)
    with quiet():
        extractor = PreparedExtractor(params.content)
    extractor.settings.update(additionalInfo=False, label=1)
    return extractor
