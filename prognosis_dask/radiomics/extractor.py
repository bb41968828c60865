"""pyradiomics' extractor for prepared images, created once for each set of parameters."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import SimpleITK as sitk
from radiomics import imageoperations
from radiomics.featureextractor import RadiomicsFeatureExtractor

from prognosis_dask.arrays import AnyArray, BoolArray
from prognosis_dask.radiomics.filters import Box, filtered
from prognosis_dask.radiomics.lean import features
from prognosis_dask.radiomics.matrices import Region
from prognosis_dask.radiomics.params import RadiomicsParams, quiet
from prognosis_dask.radiomics.shape import shape_features

#: Settings that only features depend on.
_OF_FEATURES = frozenset(
    ("binWidth", "binCount", "distances", "symmetricalGLCM", "weightingNorm", "gldm_a", "voxelArrayShift", "levels")
)


class PreparedExtractor(RadiomicsFeatureExtractor):  # type: ignore[misc]
    """Takes image and mask prepared by :mod:`radiomics.extraction`, and computes shared results once.

    ``known``, where it is not None, holds the filtered images of other parameters for the same prepared image.
    """

    known: dict[Any, Any] | None = None

    def execute(self, image: sitk.Image, mask: sitk.Image) -> dict[str, Any]:
        """The features of ``execute()`` for images that need no normalising, resampling or cropping."""
        mask = _checked(image, mask, self.settings)
        whole = sitk.GetArrayViewFromImage(mask) == 1
        box = box_of(whole)
        assert box is not None
        of_shape = of_values = whole[box]
        if self.settings.get("resegmentRange") is not None:
            of_values = self._resegmented(image, mask, box)
            inner = box_of(of_values)
            assert inner is not None
            of_values = of_values[inner]
            # pyradiomics crops the mask for shape to the box of the resegmented one, whichever of them shape uses
            of_shape = of_values if self.settings.get("resegmentShape", False) else of_shape[inner]
            box = tuple(slice(a.start + b.start, a.start + b.stop) for a, b in zip(box, inner, strict=True))
        values = shape_features(of_shape, image.GetSpacing(), self.enabledFeatures, self.settings)
        region = Region(of_values, image.GetSpacing(), self._reach())
        for array, name, settings in self._images(image, mask, box):
            values |= features(self.enabledFeatures, array[of_values], region, settings, name)
        return values

    def _reach(self) -> int:
        """The largest neighbour distance of any image type, in voxels."""
        settings = [self.settings, *(self.settings | custom for custom in self.enabledImagetypes.values())]
        return max(1, *(int(distance) for one in settings for distance in one.get("distances", [1])))

    def _resegmented(self, image: sitk.Image, mask: sitk.Image, box: Box) -> BoolArray:
        region = [side.stop - side.start for side in box][::-1], [side.start for side in box][::-1]
        image, mask = (sitk.RegionOfInterest(one, *region) for one in (image, mask))
        resegmented = imageoperations.resegmentMask(image, mask, **self.settings)
        _checked(image, resegmented, self.settings)
        return np.asarray(sitk.GetArrayFromImage(resegmented) == 1)

    def _images(self, image: sitk.Image, mask: sitk.Image, box: Box) -> Iterator[tuple[AnyArray, str, dict[str, Any]]]:
        for kind, custom in self.enabledImagetypes.items():
            settings = self.settings | custom
            for array, name in self._filtered(image, mask, box, kind, settings):
                yield array, name, settings

    def _filtered(
        self, image: sitk.Image, mask: sitk.Image, box: Box, kind: str, settings: dict[str, Any]
    ) -> Iterable[tuple[AnyArray, str]]:
        if self.known is None:
            return filtered(image, mask, box, kind, settings)
        key = id(image), str(box), kind, outline(settings)
        if key not in self.known:
            self.known[key] = list(filtered(image, mask, box, kind, settings))
        found: list[tuple[AnyArray, str]] = self.known[key]
        return found


def outline(settings: dict[str, Any]) -> str:
    """The settings that a prepared or filtered image may depend on; equal texts, equal images."""
    return json.dumps({name: value for name, value in settings.items() if name not in _OF_FEATURES}, sort_keys=True)


def _checked(image: sitk.Image, mask: sitk.Image, settings: dict[str, Any]) -> sitk.Image:
    """The mask, moved to the image's grid if requested; pyradiomics checks it."""
    if _same_grid(image, mask):
        labelled = sitk.GetArrayViewFromImage(mask) == 1
        box = box_of(labelled)
        sides = sum(side.stop - side.start > 1 for side in box or ())
        smallest = settings.get("minimumROISize")
        enough = smallest is None or np.count_nonzero(labelled) > smallest
        if sides >= max(1, settings.get("minimumROIDimensions", 2)) and enough:
            return mask
    mask = sitk.Cast(mask, sitk.sitkUInt32)
    _, moved = imageoperations.checkMask(image, mask, **settings)
    return mask if moved is None else moved


def _same_grid(image: sitk.Image, mask: sitk.Image) -> bool:
    return all(
        getattr(image, f"Get{name}")() == getattr(mask, f"Get{name}")()
        for name in ("Size", "Origin", "Spacing", "Direction")
    )


def box_of(mask: BoolArray) -> Box | None:
    """The mask's box, (z, y, x); None if it has no voxel."""
    sides = [np.flatnonzero(mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    if not sides[0].size:
        return None
    return tuple(slice(int(side[0]), int(side[-1]) + 1) for side in sides)


@lru_cache(maxsize=8)
def extractor_for(params: RadiomicsParams) -> PreparedExtractor:
    """The extractor of the parameters. Cached, since validation takes as long as a small case; must not be modified."""
    logging.getLogger("radiomics").setLevel(logging.CRITICAL + 1)
    with quiet():
        extractor = PreparedExtractor(params.content)
    extractor.settings.update(additionalInfo=False, label=1)
    return extractor
