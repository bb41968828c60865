"""What ``execute()`` makes of the full images before its filters, made from a crop: the same voxels, to the last bit.

* The **resampled grid** starts at the corner of the full image. Cropping first would move it, and change features by up
  to half. So the mask is put back at its full index before ``resampleImage`` lays the grid by it.
* **B-spline, whole numbers.** ITK cuts the spline's values to whole numbers. A crop's spline differs from the full
  image's by less than a known bound; where no voxel that matters lies that close to a whole number, both cut alike.
  Where one does (air at a constant -1024 comes out as -1023.9999 or -1024.0001), the crop cannot tell.
* **B-spline, real numbers** are not cut: the crop cannot tell.
* **Other interpolators** have no such tails; they are given the same voxels at the same index.
* **No resampling:** the crop holds whatever the filters can reach from the mask.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from radiomics import imageoperations
from radiomics.featureextractor import RadiomicsFeatureExtractor

from prognosis_dask.imaging.roi import Roi
from prognosis_dask.radiomics.params import resamples

#: The pole of the cubic B-spline's prefilter: a voxel's influence on others falls by this factor per voxel.
POLE = 2 - math.sqrt(3)
#: Voxels to keep around what matters under the B-spline: the influence of those beyond is below 3 * POLE**22 = 8e-13.
SPLINE_REACH = 22
#: Voxels that any other interpolator reaches (windowed sinc: 4; Gaussian: 4).
REACH = 5
#: Bound on what rounding does to the spline's values, as part of the image's range.
ROUNDING = 1e-12

_Box = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
_Images = tuple[sitk.Image, sitk.Image]


def prepare(roi: Roi, extractor: RadiomicsFeatureExtractor) -> _Images | None:
    """Image and mask as ``execute()`` has them before its filters, or enough of both around the mask.

    None where the crop does not hold or cannot prove them.
    """
    settings = extractor.settings
    box = _mask_box(roi)
    if resamples(settings) and not np.allclose(roi.full.spacing, _new_spacing(settings, roi, box)):
        return _resampled(roi, box, extractor)
    if resamples(settings) or settings["preCrop"]:
        return _cut_both(roi, _grown(box, settings["padDistance"], roi))
    if "Wavelet" not in extractor.enabledImagetypes:
        return _cut_both(roi, _grown(box, 1, roi))  # the gradient's reach
    reach = _wavelet_reach(settings | extractor.enabledImagetypes["Wavelet"])
    if np.any(box[0] < reach) or np.any(box[1] + reach > roi.full.size):
        return None  # the transform takes the full image as periodic
    return _cut_both(roi, _grown(box, reach, roi))


def _wavelet_reach(settings: dict[str, Any]) -> int:
    import pywt

    levels = settings.get("start_level", 0) + settings.get("level", 1)
    return int(pywt.Wavelet(settings.get("wavelet", "coif1")).dec_len * levels)


def _new_spacing(settings: dict[str, Any], roi: Roi, box: _Box) -> npt.NDArray[np.float64]:
    """``resampleImage``'s spacing: the asked one; the image's own where 0 is asked or the mask has one plane."""
    old, new = np.array(roi.full.spacing), np.array(settings["resampledPixelSpacing"])
    return np.where((new == 0) | (box[1] - box[0] == 1), old, new)


def _resampled(roi: Roi, box: _Box, extractor: RadiomicsFeatureExtractor) -> _Images | None:
    settings = extractor.settings
    ratio = _new_spacing(settings, roi, box) / roi.full.spacing
    # beyond the padding the grid shifts by half a new voxel and rounds outwards by less than one
    grid = _grown(box, np.ceil((settings["padDistance"] + 1.5) * ratio).astype(int) + 1, roi)
    only_mask = set(extractor.enabledImagetypes) == {"Original"}
    needed = box if only_mask else grid
    mask = _at_full_index(_cut(roi.mask, box, roi), box, grid, roi)
    if settings["interpolator"] in ("sitkBSpline", sitk.sitkBSpline):
        return _splined(roi, mask, needed, settings, only_mask=only_mask)
    region = _grown(needed, REACH, roi)
    if not _holds(roi, region):
        return None
    image = _at_full_index(_cut(roi.image, region, roi), region, grid, roi)
    images: _Images = imageoperations.resampleImage(image, mask, **settings)
    return images


def _splined(roi: Roi, mask: sitk.Image, needed: _Box, settings: dict[str, Any], *, only_mask: bool) -> _Images | None:
    """Resample by the B-spline; only the voxels in ``needed`` are right, and of those only the mask's if so said."""
    if not _holds(roi, needed) or "float" in roi.image.GetPixelIDTypeAsString():
        return None
    region = _grown(needed, SPLINE_REACH, roi)
    start, size = np.array(roi.start), np.array(roi.image.GetSize())
    region = np.maximum(region[0], start), np.minimum(region[1], start + size)
    image = _cut(roi.image, region, roi)
    coefficients = sitk.BSplineDecomposition(sitk.Cast(image, sitk.sitkFloat64), 3)
    values, mask = imageoperations.resampleImage(
        coefficients, mask, **settings | {"interpolator": sitk.sitkBSplineResamplerOrder3}
    )
    array = sitk.GetArrayViewFromImage(values)
    matter = array[sitk.GetArrayViewFromImage(mask) == 1] if only_mask else array
    if _too_close(matter, _bound(image, needed, region, roi)) or _ends_on_border(values, roi):
        return None
    return sitk.Clamp(values, image.GetPixelID()), mask


def _bound(image: sitk.Image, needed: _Box, region: _Box, roi: Roi) -> float:
    """Largest difference between the splines of ``region`` and of the full image, within ``needed``.

    A cubic spline's prefilter has the impulse response sqrt(3) * POLE**|k| (Unser, IEEE Signal Processing Magazine
    16(6), 1999). Voxels further than n away weigh less than 3 * POLE**n together; no tail where the image ends.
    """
    tails = np.concatenate(
        [
            np.where(region[0] == 0, np.inf, needed[0] - region[0]),
            np.where(region[1] == roi.full.size, np.inf, region[1] - needed[1]),
        ]
    )
    array = sitk.GetArrayViewFromImage(image)
    return float((int(array.max()) - int(array.min())) * (ROUNDING + 3 * POLE ** tails.min()))


def _too_close(values: npt.NDArray[np.float64], bound: float) -> bool:
    """Whether cutting to whole numbers could go either way; around zero both ways give zero."""
    nearest = np.rint(values)
    return bool(np.any((np.abs(values - nearest) <= bound) & (nearest != 0)))


def _ends_on_border(values: sitk.Image, roi: Roi) -> bool:
    """Whether the last voxel lies on the very border of the full image, inside or outside by rounding alone."""
    last = values.TransformIndexToPhysicalPoint([size - 1 for size in values.GetSize()])
    index = _geometry(roi).TransformPhysicalPointToContinuousIndex(last)
    return bool(np.any(np.abs(np.array(index) - roi.full.size + 0.5) < 1e-6))


def _geometry(roi: Roi) -> sitk.Image:
    return _with_geometry(sitk.Image([1, 1, 1], sitk.sitkUInt8), roi)


def _with_geometry(image: sitk.Image, roi: Roi) -> sitk.Image:
    image.SetOrigin(roi.full.origin)
    image.SetSpacing(roi.full.spacing)
    image.SetDirection(roi.full.direction)
    return image


def _at_full_index(image: sitk.Image, box: _Box, outer: _Box, roi: Roi) -> sitk.Image:
    """Put what was cut from ``box`` back at its index, zeros around it, up to the end of ``outer``."""
    whole = sitk.Image(np.maximum(box[1], outer[1]).tolist(), image.GetPixelID())
    x, y, z = (slice(int(first), int(stop)) for first, stop in zip(*box, strict=True))
    whole[x, y, z] = image
    return _with_geometry(whole, roi)


def _mask_box(roi: Roi) -> _Box:
    """First voxel of the mask and one past its last, (x, y, z), as indices of the full image."""
    mask = sitk.GetArrayViewFromImage(roi.mask)
    sides = [np.flatnonzero(mask.any(axis=axes)) for axes in ((0, 1), (0, 2), (1, 2))]
    if not sides[0].size:
        raise ValueError("the mask has no voxel")
    return np.array([side[0] for side in sides]) + roi.start, np.array([side[-1] + 1 for side in sides]) + roi.start


def _grown(box: _Box, voxels: int | npt.NDArray[np.int64], roi: Roi) -> _Box:
    return np.maximum(box[0] - voxels, 0), np.minimum(box[1] + voxels, roi.full.size)


def _holds(roi: Roi, box: _Box) -> bool:
    start = np.array(roi.start)
    return bool(np.all(box[0] >= start) and np.all(box[1] <= start + roi.image.GetSize()))


def _cut(image: sitk.Image, box: _Box, roi: Roi) -> sitk.Image:
    return sitk.RegionOfInterest(image, (box[1] - box[0]).tolist(), (box[0] - roi.start).tolist())


def _cut_both(roi: Roi, box: _Box) -> _Images | None:
    return (_cut(roi.image, box, roi), _cut(roi.mask, box, roi)) if _holds(roi, box) else None
