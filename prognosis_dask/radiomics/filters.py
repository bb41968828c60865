"""pyradiomics' image types within a mask's box: the voxels of the filtered whole image, to the last bit.

A filter of :data:`_FILTERS` is computed only within its reach of the box, any other on the whole image. For the
Laplacian of a Gaussian, ITK's ``LaplacianRecursiveGaussianImageFilter`` filters nine times: for each axis the second
derivative along it, then a smoothing along each other axis, each result rounded to single precision. A recursive filter
needs whole lines, but only lines that a later step uses, and only the used part of them has to be computed. The
coefficients are those of ITK's ``RecursiveGaussianImageFilter`` (Farnebäck and Westin 2006, after Deriche 1993).

Local binary patterns are those of pyradiomics 3.0.1 with scikit-image, trimesh and old SciPy: it silently omits them
where it does not find those packages, including functions that SciPy no longer has, so their code is here. Patterns in
planes have the bits of scikit-image's ``local_binary_pattern``; in space they depend on SciPy's spherical harmonics,
whose last bits differ by its version.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pywt
import SimpleITK as sitk
from radiomics import imageoperations
from scipy import ndimage, special

from prognosis_dask.arrays import AnyArray, BoolArray, Float32Array, FloatArray, IntArray
from prognosis_dask.radiomics.kernels import call, kernels

#: Corners of an icosahedron: along each axis the shorter (1) or the longer (2) of two distances.
_CORNERS = (
    *((-1, 2, 0), (1, 2, 0), (-1, -2, 0), (1, -2, 0), (0, -1, 2), (0, 1, 2)),
    *((0, -1, -2), (0, 1, -2), (2, 0, -1), (2, 0, 1), (-2, 0, -1), (-2, 0, 1)),
)
#: Its triangles' corners, as hexadecimal digits.
_FACES = "0b5 051 017 07a 0ab 159 5b4 ba2 a76 718 394 342 326 368 389 495 24b 62a 867 981"


def planar_patterns(image: AnyArray, box: tuple[slice, ...], settings: dict[str, Any]) -> AnyArray:
    """The patterns within ``box`` of each plane across ``force2Ddimension``, in the image's own type."""
    axis = settings.get("force2Ddimension", 0)
    if settings.get("lbp2DMethod") == "var":
        raise ValueError("lbp2DMethod var differs between versions of scikit-image, expected uniform or ror")
    samples, radius = settings.get("lbp2DSamples", 8), settings.get("lbp2DRadius", 1)
    method = settings.get("lbp2DMethod", "uniform")
    sides = list(box)
    sides[0], sides[axis] = sides[axis], sides[0]
    planes = image.swapaxes(0, axis)
    patterns = [_patterns(plane, sides[1], sides[2], samples, radius, method) for plane in planes[sides[0]]]
    return np.stack(patterns).astype(image.dtype).swapaxes(0, axis)


def planar_reach(settings: dict[str, Any]) -> int:
    """The distance in pixels to the farthest one that a pixel's pattern depends on."""
    radius: float = settings.get("lbp2DRadius", 1)
    return math.ceil(radius)


def _patterns(plane: AnyArray, rows: slice, columns: slice, samples: int, radius: float, method: str) -> FloatArray:
    """scikit-image's ``local_binary_pattern`` (Ojala et al. 2002): which neighbours on a circle are not darker."""
    angles = 2 * np.pi * np.arange(samples, dtype=np.double) / samples
    radius = float(np.float32(radius))
    places = zip(np.round(-radius * np.sin(angles), 5), np.round(radius * np.cos(angles), 5), strict=True)
    y, x = np.arange(rows.start, rows.stop), np.arange(columns.start, columns.stop)
    around = np.stack([_interpolated(plane, y + down, x + right) for down, right in places], axis=-1)
    above = around - plane[rows, columns, None].astype(np.float64) >= 0
    if method in ("default", "ror"):
        codes = above @ (2 ** np.arange(samples))
        return np.asarray(_least_rotated(codes, samples) if method == "ror" else codes, np.float64)
    changes = np.count_nonzero(above[..., 1:] != above[..., :-1], axis=-1)
    codes = np.where(changes <= 2, np.count_nonzero(above, axis=-1), samples + 1).astype(np.float64)
    return codes


def _interpolated(plane: AnyArray, rows: FloatArray, columns: FloatArray) -> FloatArray:
    """The plane at these positions; linear between pixels, zero outside."""
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    bottom, at_right = np.ceil(rows).astype(int), np.ceil(columns).astype(int)
    y, x = (rows - top)[:, None], (columns - left)[None]
    upper = (1 - x) * _pixels(plane, top, left) + x * _pixels(plane, top, at_right)
    lower = (1 - x) * _pixels(plane, bottom, left) + x * _pixels(plane, bottom, at_right)
    moved: FloatArray = (1 - y) * upper + y * lower
    return moved


def _pixels(plane: AnyArray, rows: IntArray, columns: IntArray) -> FloatArray:
    inside = np.ix_((rows >= 0) & (rows < plane.shape[0]), (columns >= 0) & (columns < plane.shape[1]))
    pixels = np.zeros((len(rows), len(columns)))
    pixels[inside] = plane[np.ix_(rows[inside[0].ravel()], columns[inside[1].ravel()])]
    return pixels


def _least_rotated(codes: IntArray, bits: int) -> IntArray:
    least = codes.copy()
    for _ in range(bits - 1):
        codes = (codes >> 1) | ((codes & 1) << (bits - 1))
        least = np.minimum(least, codes)
    return least


def spatial_patterns(image: AnyArray, mask: BoolArray, settings: dict[str, Any]) -> list[tuple[AnyArray, str]]:
    """For each voxel of the mask the rotation-invariant patterns by level, and the kurtosis of its sphere.

    Banerjee et al. 2013: the voxels on a sphere that are not darker than its centre, in spherical harmonics.
    """
    from scipy.stats import kurtosis

    levels = settings.get("lbp3DLevels", 2)
    sphere = _icosphere(settings.get("lbp3DIcosphereSubdivision", 1), settings.get("lbp3DIcosphereRadius", 1))
    polar = np.arccos(np.true_divide(sphere[:, 2], settings.get("lbp3DIcosphereRadius", 1)))
    around = np.arctan2(sphere[:, 1], sphere[:, 0])
    # pyradiomics swaps the two angles
    orders = [(n, m) for n in range(levels) for m in range(-n, n + 1)]
    harmonics = np.column_stack([_harmonic(m, n, polar, around) for n, m in orders])
    level = np.array([n for n, _ in orders])
    places = np.where(mask)
    coordinates = np.array(places).T[None, :, :] + sphere[:, None, :]
    samples = ndimage.map_coordinates(image, coordinates.T, order=3)
    bright = np.greater_equal(samples, image[places][:, None]).astype(int)
    weights = np.multiply(bright[:, :, None], harmonics[None, :, :]).sum(axis=1)
    of_levels = np.concatenate(
        [
            np.sum(weights[:, None, level == n] * harmonics[None, :, level == n], axis=2, keepdims=True)
            for n in range(levels)
        ],
        axis=2,
    )
    norms = np.real(np.sqrt(np.sum(of_levels**2, axis=1)))
    patterns = [(_in_mask(norms[:, n], mask), f"lbp-3D-m{n + 1}") for n in range(levels)]
    return [*patterns, (_in_mask(np.real(kurtosis(samples, axis=1)), mask), "lbp-3D-k")]


def _in_mask(values: FloatArray, mask: BoolArray) -> FloatArray:
    array = np.zeros(mask.shape)
    array[mask] = values
    return array


def _harmonic(m: int, n: int, azimuth: FloatArray, polar: FloatArray) -> npt.NDArray[np.complex128]:
    if hasattr(special, "sph_harm_y"):
        return np.asarray(special.sph_harm_y(n, m, polar, azimuth))
    return np.asarray(special.sph_harm(m, n, azimuth, polar))


@lru_cache(maxsize=8)
def _icosphere(subdivisions: int, radius: float) -> FloatArray:
    """The corners of an icosahedron after ``levels`` subdivisions of its triangles into four, in trimesh's order."""
    a = 1 / np.sqrt(1 + ((1 + np.sqrt(5)) / 2) ** 2)
    b = a * (1 + np.sqrt(5)) / 2
    corners = np.array([[(-b, -a, 0, a, b)[size + 2] for size in corner] for corner in _CORNERS])
    faces = np.array([[int(digit, 16) for digit in face] for face in _FACES.split()])
    for number in range(max(1, subdivisions)):
        if number < subdivisions:
            corners, faces = _subdivided(corners, faces)
        length = np.sqrt(np.dot(corners**2, [1, 1, 1]))
        corners = corners + corners / length[:, None] * (radius - length)[:, None]
    return corners


def _subdivided(corners: FloatArray, faces: IntArray) -> tuple[FloatArray, IntArray]:
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    _, first, inverse = np.unique(edges[:, 0] + edges[:, 1] * len(corners), return_index=True, return_inverse=True)
    middle = inverse.reshape(-1, 3) + len(corners)
    a, b, c = faces.T
    ab, bc, ca = middle.T
    faces = np.column_stack([a, ab, ca, ab, b, bc, ca, bc, c, ab, bc, ca]).reshape(-1, 3)
    return np.vstack((corners, corners[edges[first]].mean(axis=1))), faces


#: (z, y, x).
Box = tuple[slice, ...]
_Named = Iterator[tuple[AnyArray, str]]

#: Of both of Deriche's series.
_W = (0.6681, 2.0787)
_L = (-1.3932, -1.3732)
#: A1, B1, A2, B2 of a Gaussian and of its second derivative.
_GAUSSIAN = (1.3530, 1.8151, -0.3531, 0.0902)
_SECOND = (-1.3563, 5.2318, 0.3446, -2.2355)


def box_of(mask: BoolArray) -> Box | None:
    """The mask's box, (z, y, x); None if it has no voxel."""
    slices = np.flatnonzero(mask.any(axis=(1, 2)))
    if not slices.size:
        return None
    plane = np.logical_or.reduce(mask[slices[0] : slices[-1] + 1], axis=0)
    sides = slices, np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
    return tuple(slice(int(side[0]), int(side[-1]) + 1) for side in sides)


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


def laplacian_of_gaussian(image: sitk.Image, sigma: float, box: Box) -> Float32Array:
    """The filtered image within ``box``, normalised across scales; ``sigma`` in mm."""
    if kernels() is not None and _same_as_itk():
        return _in_box(sitk.GetArrayViewFromImage(image), image.GetSpacing()[::-1], sigma, box)
    return _by_itk(image, sigma)[box]


def _by_itk(image: sitk.Image, sigma: float) -> Float32Array:
    log = sitk.LaplacianRecursiveGaussianImageFilter()
    log.SetNormalizeAcrossScale(True)
    log.SetSigma(sigma)
    array: Float32Array = sitk.GetArrayFromImage(log.Execute(image))
    return array


@cache
def _same_as_itk() -> bool:
    """Whether the compiled filter gives the bits of this ITK; another build may fuse a product and a sum."""
    voxels = np.random.default_rng(0).normal(0, 1000, (16, 24, 40)).astype(np.float32)
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((0.7, 0.977, 3.3))
    box = (slice(2, 9), slice(3, 20), slice(0, 40))
    return all(
        np.array_equal(_in_box(voxels, image.GetSpacing()[::-1], sigma, box), _by_itk(image, sigma)[box])
        for sigma in (0.9, 2.6)
    )


def _in_box(voxels: Float32Array, spacing: tuple[float, ...], sigma: float, box: Box) -> Float32Array:
    total = np.zeros([side.stop - side.start for side in box], np.float32)
    for axis in (2, 1, 0):  # ITK's order is x, y, z
        filtered = _along(voxels, axis, box[axis], _coefficients(sigma, spacing[axis], derivative=True))
        for other in (2, 1, 0):
            if other != axis:
                smooth = _coefficients(sigma, spacing[other], derivative=False)
                filtered = _along(filtered, other, box[other], smooth)
        total = (total + filtered.astype(np.float64) * (1.0 / (spacing[axis] * spacing[axis]))).astype(np.float32)
    return total


def _along(voxels: Float32Array, axis: int, kept: slice, coefficients: FloatArray) -> Float32Array:
    """Filter along an axis and keep a part of the result."""
    voxels = np.ascontiguousarray(voxels, None if voxels.dtype in (np.int16, np.float32) else np.float64)
    shape = list(voxels.shape)
    outer, inner = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    length, shape[axis] = shape[axis], kept.stop - kept.start
    filtered = np.empty(shape, np.float32)
    kind = {"int16": "int16", "float32": "float", "float64": "double"}[voxels.dtype.name]
    call(f"recursive_{kind}", voxels, outer, length, inner, kept.start, kept.stop, coefficients, filtered)
    return filtered


@cache
def _coefficients(sigma: float, spacing: float, *, derivative: bool) -> FloatArray:
    """ITK's N0 to N3, D1 to D4, M1 to M4, BN1 to BN4 and BM1 to BM4, computed in its order."""
    scale = sigma / spacing
    cos, exp = [math.cos(w / scale) for w in _W], [math.exp(at / scale) for at in _L]
    d4 = exp[0] * exp[0] * exp[1] * exp[1]
    d3 = -2 * cos[0] * exp[0] * exp[1] * exp[1]
    d3 += -2 * cos[1] * exp[1] * exp[0] * exp[0]
    d2 = 4 * cos[1] * cos[0] * exp[0] * exp[1]
    d2 += exp[0] * exp[0] + exp[1] * exp[1]
    d1 = -2 * (exp[1] * cos[1] + exp[0] * cos[0])
    sd = 1.0 + d1 + d2 + d3 + d4
    dd = d1 + 2 * d2 + 3 * d3 + 4 * d4
    ed = d1 + 4 * d2 + 9 * d3 + 16 * d4
    n, (sn, dn, en) = _numerator(scale, _GAUSSIAN)
    if derivative:
        second, (sn2, dn2, en2) = _numerator(scale, _SECOND)
        beta = -(2 * sn2 - sd * second[0]) / (2 * sn - sd * n[0])
        n = [of_second + beta * of_zeroth for of_second, of_zeroth in zip(second, n, strict=True)]
        sn, dn, en = sn2 + beta * sn, dn2 + beta * dn, en2 + beta * en
        alpha = en * sd * sd - ed * sn * sd - 2 * dn * dd * sd + 2 * dd * dd * sn
        alpha /= sd * sd * sd
        n = [one * (sigma * sigma / alpha) for one in n]
    else:
        alpha = 2 * sn / sd - n[0]
        n = [one * (1.0 / alpha) for one in n]
    d = [d1, d2, d3, d4]
    m = [one - of_d * n[0] for one, of_d in zip(n[1:], d, strict=False)] + [-d4 * n[0]]
    sn, sm = n[0] + n[1] + n[2] + n[3], m[0] + m[1] + m[2] + m[3]
    return np.array([*n, *d, *m, *(one * sn / sd for one in d), *(one * sm / sd for one in d)])


def _numerator(scale: float, series: tuple[float, ...]) -> tuple[list[float], tuple[float, float, float]]:
    a1, b1, a2, b2 = series
    sin, cos = [math.sin(w / scale) for w in _W], [math.cos(w / scale) for w in _W]
    exp = [math.exp(at / scale) for at in _L]
    n0 = a1 + a2
    n1 = exp[1] * (b2 * sin[1] - (a2 + 2 * a1) * cos[1])
    n1 += exp[0] * (b1 * sin[0] - (a1 + 2 * a2) * cos[0])
    n2 = (a1 + a2) * cos[1] * cos[0]
    n2 -= b1 * cos[1] * sin[0] + b2 * cos[0] * sin[1]
    n2 *= 2 * exp[0] * exp[1]
    n2 += a2 * exp[0] * exp[0] + a1 * exp[1] * exp[1]
    n3 = exp[1] * exp[0] * exp[0] * (b2 * sin[1] - a2 * cos[1])
    n3 += exp[0] * exp[1] * exp[1] * (b1 * sin[0] - a1 * cos[0])
    return [n0, n1, n2, n3], (n0 + n1 + n2 + n3, n1 + 2 * n2 + 3 * n3, n1 + 4 * n2 + 9 * n3)


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
