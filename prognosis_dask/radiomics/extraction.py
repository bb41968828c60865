"""Compute the features of a case from its crop if that determines every value, else from the full image.

The crop gives the voxels that ``execute()`` would have before its filters, to the last bit. Where it may not, the full
image is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from radiomics import imageoperations
from radiomics.featureextractor import RadiomicsFeatureExtractor
from scipy import ndimage

from prognosis_dask.arrays import FloatArray, IntArray
from prognosis_dask.errors import CaseError, Code
from prognosis_dask.imaging.geometry import image_like, one_thread
from prognosis_dask.imaging.roi import Roi
from prognosis_dask.radiomics.filters import box_of, planar_reach
from prognosis_dask.radiomics.parameter_file import column_names, named
from prognosis_dask.radiomics.params import RadiomicsParams, quiet, resamples

#: The pole of the cubic B-spline's prefilter: a voxel's influence on others falls by this factor per voxel.
POLE = 2 - math.sqrt(3)
#: Voxels to keep around the needed ones under the B-spline; see :func:`_bound`.
SPLINE_REACH = 22
#: Reach in voxels of any other interpolator (windowed sinc: 4; Gaussian: 4).
REACH = 5
#: Reach of the filters in voxels; a filter that is not listed reaches everywhere.
FILTER_REACH = {"Original": 0, "Gradient": 1}
#: Voxels of an image from which cutting a region out takes less time than looking through the image does.
LARGE = 1 << 23
#: Largest effect on a value, relative to the image's largest one, of rounding a voxel's position (1e-12 voxels).
ROUNDING = 1e-11

#: First voxel and one past the last, (x, y, z), as indices of the full image.
_Box = tuple[IntArray, IntArray]
_Images = tuple[sitk.Image, sitk.Image]


def extract(
    roi: Roi,
    params: RadiomicsParams,
    full: Callable[[], Roi] | None = None,
    *,
    levels: dict[str, int] | None = None,
) -> dict[str, float]:
    """Compute the features of ``roi``, equal to the last bit to ``execute()`` on the full image and mask.

    Further parameter files share what they have in common: the full image, the prepared image, its filtered images and
    the mask's mesh.

    ``full`` loads the same case uncropped. It is called only if the crop does not contain, or cannot prove, what the
    features depend on; it may be omitted if ``roi`` is uncropped.
    ``levels`` receives the number of grey levels of the ROI in each image from which texture was computed.

    Returns
    -------
    dict
        Exactly :func:`column_names`, in that order. A value is NaN or infinite if pyradiomics returns that, and NaN
        if it returns nothing: an image too small for a filter, a mask of several planes under ``shape2D``.

    Raises
    ------
    CaseError
        ``RADIOMICS_FAILED`` with pyradiomics' reason, such as a mask of too few voxels or dimensions, or because the
        bins make too many grey levels (:data:`prognosis_dask.radiomics.texture.MOST`).
    """
    once, known = full and cache(full), dict[Any, Any]() if params.more else None
    found: dict[str, float] = {}
    for part, one in params.parts:
        counted: dict[str, int] | None = None if levels is None else {}
        try:
            values = _extract(roi, one, once, counted, known)
        except CaseError as error:
            raise CaseError(
                error.problem.code, f"{part}: {error.problem.reason}" if part else error.problem.reason
            ) from error
        prefix = named(part, "")
        # pyradiomics' maximal correlation coefficient is complex where LAPACK's eigenvalues are: its real part counts
        found |= {f"{prefix}{name}": float(np.real(values.get(name, math.nan))) for name in column_names(one)}
        if levels is not None:
            levels |= {named(part, name): count for name, count in (counted or {}).items()}
    return found


def _extract(
    roi: Roi,
    params: RadiomicsParams,
    full: Callable[[], Roi] | None,
    levels: dict[str, int] | None,
    known: dict[Any, Any] | None,
) -> dict[str, Any]:
    from prognosis_dask.radiomics.extractor import extractor_for, outline

    extractor = copy(extractor_for(params))
    extractor.known = known
    if known is None:
        images = _determined(roi, extractor, full)
    else:
        key = outline(extractor.settings), *((name, outline(own)) for name, own in extractor.enabledImagetypes.items())
        images = known.setdefault(key, known.get(key) or _determined(roi, extractor, full))
    if levels is not None:
        extractor.settings = extractor.settings | {"levels": levels}
    with pyradiomics_problems():
        values: dict[str, Any] = extractor.execute(*images)
    return values


def _determined(roi: Roi, extractor: RadiomicsFeatureExtractor, full: Callable[[], Roi] | None) -> _Images:
    """The prepared images, of the full image where the crop does not suffice."""
    with pyradiomics_problems():
        images = prepare(roi, extractor)
    if images is not None:
        return images
    if full is None:
        raise CaseError(
            Code.RADIOMICS_FAILED,
            f"a crop of {roi.image.GetSize()} voxels, out of {roi.full.size}, does not determine every value; "
            "extract from the full image",
        )
    roi = full()
    with pyradiomics_problems():
        images = prepare(roi, extractor)
    assert images is not None, "the full image determines every value"
    return images


@contextmanager
def pyradiomics_problems() -> Iterator[None]:
    """Silence pyradiomics' warnings, and turn its exceptions into the case's problem."""
    try:
        with quiet():
            yield
    except (ValueError, RuntimeError, AssertionError) as error:
        reason = " ".join(" ".join(map(str, error.args)).split())
        raise CaseError(Code.RADIOMICS_FAILED, f"pyradiomics: {reason}") from error


def prepare(roi: Roi, extractor: RadiomicsFeatureExtractor) -> _Images | None:
    """Image and mask as in ``execute()`` before its filters: within the reach of the filters around the mask, or more.

    None if that needs the full image; never for an uncropped ``roi``.
    """
    settings = extractor.settings
    if settings["normalize"]:
        if not _is_full(roi):
            return None
        with one_thread():  # the mean of several threads' sums depends on which of them ends first
            roi = replace(roi, image=imageoperations.normalizeImage(roi.image, **settings))
    box = _mask_box(roi)
    if resamples(settings) and not np.allclose(roi.full.spacing, _new_spacing(settings, roi, box)):
        return _resampled(roi, box, extractor)
    if resamples(settings) or settings["preCrop"]:
        return _cut_both(roi, _grown(box, settings["padDistance"], roi))
    reach = _reach(extractor, box, roi)
    if reach is None:
        return (roi.image, roi.mask) if _is_full(roi) else None
    region = _grown(box, reach, roi)
    if "LBP2D" not in extractor.enabledImagetypes and np.prod(roi.image.GetSize()) < LARGE:
        return (roi.image, roi.mask) if _holds(roi, region) else None
    images = _cut_both(roi, region)
    if images is None or "LBP2D" not in extractor.enabledImagetypes:
        return images
    # the last bit of a place between two pixels depends on its row and column in the full image
    return _at_full_index(images[0], region, region, roi), _at_full_index(images[1], region, region, roi)


def _reach(extractor: RadiomicsFeatureExtractor, box: _Box, roi: Roi) -> int | None:
    """Reach of the filters from the mask in voxels; None if unlimited."""
    import pywt

    reaches = dict(FILTER_REACH)
    if "LBP2D" in extractor.enabledImagetypes:
        reaches["LBP2D"] = planar_reach(extractor.settings | extractor.enabledImagetypes["LBP2D"])
    if "Wavelet" in extractor.enabledImagetypes:
        settings = extractor.settings | extractor.enabledImagetypes["Wavelet"]
        levels = settings.get("start_level", 0) + settings.get("level", 1)
        reach = pywt.Wavelet(settings.get("wavelet", "coif1")).dec_len * levels
        if np.all(box[0] >= reach) and np.all(
            box[1] + reach <= roi.full.size
        ):  # away from borders: it treats the image as periodic
            reaches["Wavelet"] = reach
    if not extractor.enabledImagetypes.keys() <= reaches.keys():
        return None
    return max(reaches[name] for name in extractor.enabledImagetypes)


def _new_spacing(settings: dict[str, Any], roi: Roi, box: _Box) -> FloatArray:
    """Spacing of ``resampleImage``: as requested; the image's own if 0 is requested or the mask has one plane."""
    old, new = np.array(roi.full.spacing), np.array(settings["resampledPixelSpacing"])
    return np.where((new == 0) | (box[1] - box[0] == 1), old, new)


def _resampled(roi: Roi, box: _Box, extractor: RadiomicsFeatureExtractor) -> _Images | None:
    """Image and mask on pyradiomics' grid; only around the mask if no filter reaches further."""
    settings = extractor.settings
    ratio = _new_spacing(settings, roi, box) / roi.full.spacing
    # beyond the padding the grid shifts by half a new voxel and rounds outwards by less than one
    grid = _grown(box, np.ceil((settings["padDistance"] + 1.5) * ratio).astype(int) + 1, roi)
    only_mask = set(extractor.enabledImagetypes) == {"Original"}
    needed = box if only_mask else grid
    mask = _at_full_index(_cut(roi.mask, box, roi.start), box, grid, roi)
    if settings["interpolator"] in ("sitkBSpline", sitk.sitkBSpline):
        images = _splined(roi, mask, needed, settings, only_mask=only_mask)
    else:
        images = _interpolated(roi, mask, needed, grid, settings)
    if images is None and _is_full(roi):
        images = imageoperations.resampleImage(roi.image, roi.mask, **settings)
    return _around_mask(*images) if images and only_mask else images


def _interpolated(roi: Roi, mask: sitk.Image, needed: _Box, grid: _Box, settings: dict[str, Any]) -> _Images | None:
    region = _grown(needed, REACH, roi)
    if not _holds(roi, region):
        return None
    image = _at_full_index(_cut(roi.image, region, roi.start), region, grid, roi)
    images: _Images = imageoperations.resampleImage(image, mask, **settings)
    return images


def _splined(roi: Roi, mask: sitk.Image, needed: _Box, settings: dict[str, Any], *, only_mask: bool) -> _Images | None:
    if "float" in roi.image.GetPixelIDTypeAsString():
        return None
    region = _overlap(_grown(needed, SPLINE_REACH, roi), _extent(roi))
    image = _cut(roi.image, region, roi.start)
    if not _is_full(roi) and _bound(image, needed, region, roi) * np.prod(needed[1] - needed[0]) > 1:
        return None  # margin too small: among so many voxels some would be that close to a whole number
    coefficients = _spline_coefficients(image, region, roi)
    if only_mask:  # the padding is not computed and becomes zero
        coefficients = _cut(coefficients, _overlap(_grown(needed, 3, roi), region), region[0])
    values, mask = imageoperations.resampleImage(
        coefficients, mask, **settings | {"interpolator": sitk.sitkBSplineResamplerOrder3}
    )
    first, last = _span(values, roi)
    if np.any(np.abs(last - roi.full.size + 0.5) < 1e-6):
        return None  # on the border of the full image: inside or outside by rounding alone
    if not only_mask:
        needed = np.floor(first).astype(int), np.minimum(np.ceil(last).astype(int) + 1, roi.full.size)
    array = sitk.GetArrayViewFromImage(values)
    matter = array[sitk.GetArrayViewFromImage(mask) == 1] if only_mask else array
    if not _truncate_alike(matter, _bound(image, needed, region, roi)):
        return None
    return sitk.Clamp(values, image.GetPixelID()), mask


def _spline_coefficients(image: sitk.Image, region: _Box, roi: Roi) -> sitk.Image:
    """Coefficients of the cubic spline through ``image``, which was cut from ``region``.

    At a border ITK truncates a sum at 1e-10, which is repeated here on the full image's border. Elsewhere
    :func:`_bound` allows for more than that and for rounding in another order.
    """
    array = sitk.GetArrayViewFromImage(image).astype(np.float64)
    at_border = (region[0] == 0) | (region[1] == roi.full.size)
    for axis, bordering in enumerate(at_border[::-1]):
        if array.shape[axis] > 1:
            along = _coefficients_to_the_border if bordering else _coefficients_within
            array = along(array, axis)
    return image_like(array, image)


def _coefficients_within(array: FloatArray, axis: int) -> FloatArray:
    return np.asarray(ndimage.spline_filter1d(array, 3, axis, output=np.float64, mode="mirror"))


def _coefficients_to_the_border(array: FloatArray, axis: int) -> FloatArray:
    """Coefficients along an axis as in ITK's ``BSplineDecompositionImageFilter``."""
    pole = math.sqrt(3) - 2
    lines = np.moveaxis(array, axis, 0) * ((1 - pole) * (1 - 1 / pole))
    reach = math.ceil(math.log(1e-10) / math.log(POLE))
    if reach < len(lines):
        lines[0] = sum(pole**n * lines[n] for n in range(reach))
    else:
        last = pole ** (len(lines) - 1)
        mirrored = sum((pole**n + last * last / pole**n) * lines[n] for n in range(1, len(lines) - 1))
        lines[0] = (lines[0] + last * lines[-1] + mirrored) / (1 - last * last)
    for n in range(1, len(lines)):
        lines[n] += pole * lines[n - 1]
    lines[-1] = pole / (pole * pole - 1) * (pole * lines[-2] + lines[-1])
    for n in range(len(lines) - 2, -1, -1):
        lines[n] = pole * (lines[n + 1] - lines[n])
    return np.moveaxis(lines, 0, axis)


def _bound(image: sitk.Image, needed: _Box, region: _Box, roi: Roi) -> float:
    """Largest difference, within ``needed``, between the splines of ``region`` and of the full image.

    A voxel weighs at most 0.48 * POLE**n in a value n voxels away (the cardinal cubic spline, as in Unser, IEEE Signal
    Processing Magazine 16(6), 1999), and all beyond it 0.65 * POLE**n together. They may differ by twice the largest
    value from their mirrored replacement, on each of six sides, and interpolation along each of the two other axes adds
    a factor of at most 1.55: 18.7.
    """
    tails = np.concatenate(
        [
            np.where(region[0] == 0, np.inf, needed[0] - region[0]),
            np.where(region[1] == roi.full.size, np.inf, region[1] - needed[1]),
        ]
    )
    array = sitk.GetArrayViewFromImage(image)
    largest = max(abs(int(array.min())), abs(int(array.max())))
    return float(largest * (ROUNDING + 20 * POLE ** tails.min()))


def _truncate_alike(values: FloatArray, bound: float) -> bool:
    """Whether all values within ``bound`` of these truncate to the same integers; those around zero do."""
    nearest = np.rint(values)
    return not np.any((np.abs(values - nearest) <= bound) & (nearest != 0))


def _span(values: sitk.Image, roi: Roi) -> tuple[FloatArray, FloatArray]:
    """Positions of the first and the last voxel as (x, y, z) indices of the full image."""
    full = _with_geometry(sitk.Image([1, 1, 1], sitk.sitkUInt8), roi)
    corners = ([0, 0, 0], [size - 1 for size in values.GetSize()])
    first, last = (
        full.TransformPhysicalPointToContinuousIndex(values.TransformIndexToPhysicalPoint(c)) for c in corners
    )
    return np.array(first), np.array(last)


def _with_geometry(image: sitk.Image, roi: Roi) -> sitk.Image:
    image.SetOrigin(roi.full.origin)
    image.SetSpacing(roi.full.spacing)
    image.SetDirection(roi.full.direction)
    return image


def _at_full_index(image: sitk.Image, box: _Box, outer: _Box, roi: Roi) -> sitk.Image:
    """Place what was cut from ``box`` at its original index, padded with zeros to the end of ``outer``."""
    whole = sitk.Image(np.maximum(box[1], outer[1]).tolist(), image.GetPixelID())
    x, y, z = (slice(int(first), int(stop)) for first, stop in zip(*box, strict=True))
    whole[x, y, z] = image
    return _with_geometry(whole, roi)


def _mask_box(roi: Roi) -> _Box:
    box = _box_of(roi.mask)
    if box is None:
        raise ValueError("No labels found in this mask (i.e. nothing is segmented)!")
    return box[0] + roi.start, box[1] + roi.start


def _around_mask(image: sitk.Image, mask: sitk.Image) -> _Images:
    box = _box_of(mask)
    if box is None:
        return image, mask  # lost in resampling, which execute() reports
    region = (box[1] - box[0]).tolist(), box[0].tolist()
    return sitk.RegionOfInterest(image, *region), sitk.RegionOfInterest(mask, *region)


def _box_of(mask: sitk.Image) -> _Box | None:
    """The mask's box, as indices of its own image; None if it has no voxel."""
    box = box_of(sitk.GetArrayViewFromImage(mask) != 0)
    if box is None:
        return None
    return np.array([side.start for side in box[::-1]]), np.array([side.stop for side in box[::-1]])


def _grown(box: _Box, voxels: int | IntArray, roi: Roi) -> _Box:
    return np.maximum(box[0] - voxels, 0), np.minimum(box[1] + voxels, roi.full.size)


def _is_full(roi: Roi) -> bool:
    return tuple(roi.image.GetSize()) == tuple(roi.full.size)


def _extent(roi: Roi) -> _Box:
    start = np.array(roi.start)
    return start, start + roi.image.GetSize()


def _overlap(one: _Box, other: _Box) -> _Box:
    return np.maximum(one[0], other[0]), np.minimum(one[1], other[1])


def _holds(roi: Roi, box: _Box) -> bool:
    first, stop = _extent(roi)
    return bool(np.all(box[0] >= first) and np.all(box[1] <= stop))


def _cut(image: sitk.Image, box: _Box, start: npt.ArrayLike) -> sitk.Image:
    """Cut ``box`` out of an image whose first voxel is at ``start``."""
    return sitk.RegionOfInterest(image, (box[1] - box[0]).tolist(), (box[0] - np.asarray(start)).tolist())


def _cut_both(roi: Roi, box: _Box) -> _Images | None:
    return (_cut(roi.image, box, roi.start), _cut(roi.mask, box, roi.start)) if _holds(roi, box) else None
