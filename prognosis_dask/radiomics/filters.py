"""pyradiomics' image types within a mask's box: the voxels of the filtered whole image, to the last bit.

A filter of :data:`_FILTERS` is computed only within its reach of the box, any other on the whole image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pywt
import SimpleITK as sitk
from radiomics import imageoperations

from prognosis_dask.arrays import AnyArray, IntArray
from prognosis_dask.radiomics.laplacian import laplacian_of_gaussian
from prognosis_dask.radiomics.lbp import planar_patterns, spatial_patterns

#: (z, y, x).
Box = tuple[slice, ...]
_Named = Iterator[tuple[AnyArray, str]]


def filtered(image: sitk.Image, mask: sitk.Image, box: Box, kind: str, settings: dict[str, Any]) -> _Named:
    """The images of an image type within ``box``, and their names in columns."""
    if kind in _FILTERS:
        yield from _FILTERS[kind](image, box, settings)
        return
    if kind == "LBP3D":
        array = sitk.GetArrayFromImage(image)
        labelled = sitk.GetArrayViewFromImage(mask) == 1
        yield from ((whole[box], name) for whole, name in spatial_patterns(array, labelled, settings))
        return
    for whole, name, _ in getattr(imageoperations, f"get{kind}Image")(image, mask, **settings):
        yield sitk.GetArrayViewFromImage(whole)[box], name


def _original(image: sitk.Image, box: Box, settings: dict[str, Any]) -> _Named:
    yield sitk.GetArrayViewFromImage(image)[box], "original"


def _laplacian(image: sitk.Image, box: Box, settings: dict[str, Any]) -> _Named:
    """One image for each sigma that is not wider than the image."""
    size, spacing = np.array(image.GetSize()), np.array(image.GetSpacing())
    for sigma in settings.get("sigma", ()) if size.min() >= 4 else ():
        if sigma > 0 and np.all(size >= np.ceil(sigma / spacing) + 1):
            name = f"log-sigma-{str(sigma).replace('.', '-')}-mm-3D"
            yield laplacian_of_gaussian(image, float(sigma), box), name


def _wavelet(image: sitk.Image, box: Box, settings: dict[str, Any]) -> _Named:
    """The transform treats the image as periodic, after repeating the first voxel of an odd side at its end."""
    wavelet = pywt.Wavelet(settings.get("wavelet", "coif1"))
    start, levels = settings.get("start_level", 0), settings.get("level", 1)
    axes = [2, 1, 0]
    if settings.get("force2D", False):
        axes.remove(settings.get("force2Ddimension", 0))
    data, inner = _window(sitk.GetArrayViewFromImage(image), box, axes, wavelet.dec_len * (start + levels))
    for number in range(start + levels):
        bands = pywt.swtn(data, wavelet, level=1, start_level=0, axes=tuple(axes))[0]
        data = bands.pop("a" * len(axes))
        prefix = "wavelet" if number <= start else f"wavelet{number - start + 1}"
        for name, band in bands.items() if number >= start else ():
            yield band[inner], f"{prefix}-{name.replace('a', 'L').replace('d', 'H')}"
    yield data[inner], f"{'wavelet' if levels == 1 else f'wavelet{levels}'}-{'L' * len(axes)}"


def _window(array: AnyArray, box: Box, axes: list[int], reach: int) -> tuple[AnyArray, Box]:
    """The part of the periodic image that reaches the box, and the box in it.

    Along each axis an even number of voxels. Near a border both ends of the image are kept, and only the middle may be
    omitted: PyWavelets sums in another order beyond the end.
    """
    places, inner = [], []
    for axis, side in enumerate(box):
        period = array.shape[axis] + array.shape[axis] % 2
        kept = np.arange(side.start, side.stop) if axis not in axes else _within_reach(side, period, reach)
        places.append(kept % array.shape[axis])
        first = int(np.searchsorted(kept, side.start))
        inner.append(slice(first, first + side.stop - side.start))
    window: AnyArray = array[np.ix_(*places)]
    return window, tuple(inner)


def _within_reach(side: slice, period: int, reach: int) -> IntArray:
    kept = np.zeros(period, bool)
    kept[max(0, side.start - reach) : side.stop + reach] = True
    if side.start < reach or side.stop + reach > period:
        kept[:reach] = kept[-reach:] = True
    if np.count_nonzero(kept) % 2:
        kept[kept.argmin()] = True
    return np.flatnonzero(kept)


def _gradient(image: sitk.Image, box: Box, settings: dict[str, Any]) -> _Named:
    size = image.GetSize()[::-1]
    first = [max(0, side.start - 1) for side in box]
    stop = [min(length, side.stop + 1) for side, length in zip(box, size, strict=True)]
    part = sitk.RegionOfInterest(image, [b - a for a, b in zip(first, stop, strict=True)][::-1], first[::-1])
    inner = tuple(slice(side.start - a, side.stop - a) for side, a in zip(box, first, strict=True))
    for gradient, name, _ in imageoperations.getGradientImage(part, None, **settings):
        yield sitk.GetArrayViewFromImage(gradient)[inner], name


def _planar_patterns(image: sitk.Image, box: Box, settings: dict[str, Any]) -> _Named:
    yield planar_patterns(sitk.GetArrayViewFromImage(image), box, settings), "lbp-2D"


def _pointwise(name: str, of: Callable[[AnyArray, Any], AnyArray]) -> Callable[..., _Named]:
    """A filter of single voxels, and the largest absolute value of the whole image."""

    def images(image: sitk.Image, box: Box, settings: dict[str, Any]) -> _Named:
        array = sitk.GetArrayViewFromImage(image)
        largest = np.maximum(np.abs(np.float64(array.min())), np.abs(np.float64(array.max())))
        yield of(array[box].astype("float64"), largest), name

    return images


def _square(values: AnyArray, largest: Any) -> AnyArray:
    coefficient = 1 / np.sqrt(largest)
    return np.asarray((coefficient * values) ** 2)


def _square_root(values: AnyArray, largest: Any) -> AnyArray:
    values[values > 0] = np.sqrt(values[values > 0] * largest)
    values[values < 0] = -np.sqrt(-values[values < 0] * largest)
    return values


def _logarithm(values: AnyArray, largest: Any) -> AnyArray:
    values[values > 0] = np.log(values[values > 0] + 1)
    values[values < 0] = -np.log(-(values[values < 0] - 1))
    return np.asarray(values * (largest / np.log(np.full(1, largest) + 1)[0]))


def _exponential(values: AnyArray, largest: Any) -> AnyArray:
    return np.asarray(np.exp(np.log(largest) / largest * values))


_FILTERS: dict[str, Callable[..., _Named]] = {
    "Original": _original,
    "LoG": _laplacian,
    "Wavelet": _wavelet,
    "Gradient": _gradient,
    "LBP2D": _planar_patterns,
    "Square": _pointwise("square", _square),
    "SquareRoot": _pointwise("squareroot", _square_root),
    "Logarithm": _pointwise("logarithm", _logarithm),
    "Exponential": _pointwise("exponential", _exponential),
}
