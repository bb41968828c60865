"""The Laplacian of a Gaussian within a box: ITK's recursive filter, to the last bit, on the lines that reach the box.

``LaplacianRecursiveGaussianImageFilter`` filters nine times: for each axis the second derivative along it, then a
smoothing along each other axis, each result rounded to single precision. A recursive filter needs whole lines, but only
lines that a later step uses, and only the used part of them has to be written. The coefficients are those of ITK's
``RecursiveGaussianImageFilter`` (Farnebäck and Westin 2006, after Deriche 1993).
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import SimpleITK as sitk

from prognosis_dask.arrays import Float32Array, FloatArray
from prognosis_dask.radiomics.kernels import call, kernels

#: (z, y, x) of the first voxel and of one past the last.
_Box = tuple[slice, ...]

_W = (0.6681, 2.0787)
_L = (-1.3932, -1.3732)
#: A1, B1, A2, B2 of a Gaussian and of its second derivative.
_GAUSSIAN = (1.3530, 1.8151, -0.3531, 0.0902)
_SECOND = (-1.3563, 5.2318, 0.3446, -2.2355)


def laplacian_of_gaussian(image: sitk.Image, sigma: float, box: _Box) -> Float32Array:
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


def _in_box(voxels: Float32Array, spacing: tuple[float, ...], sigma: float, box: _Box) -> Float32Array:
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
    if call(f"recursive_{kind}", voxels, outer, length, inner, kept.start, kept.stop, coefficients, filtered):
        raise MemoryError(f"not enough memory to filter lines of {length} voxels")
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
