"""Images as IBSI defines them: prepared (resampled, rounded, resegmented, discretised), and filters' response maps.

Filters are those of the second part of the standard (arXiv:2006.05470): mean, Laplacian of Gaussian, Laws, Gabor,
separable and Simoncelli's wavelets. Images go on beyond their border as in a mirror, for Simoncelli's wavelet
periodically. Where slices are kept (``by_slice``) filters act within them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import permutations, product
from typing import TypeVar

import numpy as np
import pywt
import SimpleITK as sitk
from scipy import fft, ndimage

from prognosis_dask.arrays import AnyArray, BoolArray, FloatArray, IntArray
from prognosis_dask.config.radiomics import IbsiSection
from prognosis_dask.errors import CaseError, Code, JobError
from prognosis_dask.imaging.roi import Roi, bounding_box

#: Radius in mm of the sphere of 1 cm3 over which intensity peaks are averaged.
PEAK_MM = 10 * (3 / (4 * math.pi)) ** (1 / 3)
#: Voxels that an interpolator reads around a position; the spline's tail is below 1e-12 there.
_REACH = {"linear": 1, "spline": 22}
_ORDER = {"linear": 1, "spline": 3}
#: A voxel of the resampled mask is inside from this share of its volume on.
_INSIDE = 0.5
#: Shares and sizes are compared with this tolerance, since positions are rounded.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Prepared:
    """Arrays, (z, y, x), of the resampled grid around the region of interest.

    Attributes
    ----------
    image
        Intensities, also around the region.
    morphological
        The region before resegmentation, of which shape is measured.
    intensity
        The region after it, of which all else is measured.
    spacing
        (z, y, x), in mm.
    """

    image: FloatArray
    morphological: BoolArray
    intensity: BoolArray
    spacing: tuple[float, float, float]

    @property
    def values(self) -> FloatArray:
        """The region's intensities, shape (voxels,)."""
        values: FloatArray = self.image[self.intensity]
        return values


@dataclass(frozen=True)
class _Axis:
    """Positions of the new grid on the old one along one axis; both grids have the same centre."""

    size: int
    old_mm: float
    new_mm: float

    @property
    def count(self) -> int:
        return math.ceil(self.size * self.old_mm / self.new_mm - _ROUNDING)

    @property
    def step(self) -> float:
        return self.new_mm / self.old_mm

    def position(self, number: int) -> float:
        """Of a new voxel, in old voxels."""
        return 0.5 * (self.size - 1) + (number - 0.5 * (self.count - 1)) * self.step

    def span(self, first: int, stop: int, around_mm: float) -> tuple[int, int]:
        """The new voxels that touch old ones from ``first`` to ``stop``, and those around."""
        more = math.ceil(around_mm / self.new_mm)
        low = math.floor((first - 1 - self.position(0)) / self.step) - more
        high = math.ceil((stop - self.position(0)) / self.step) + 1 + more
        return max(0, low), min(self.count, high)


def prepare(roi: Roi, settings: IbsiSection, *, whole: bool, around_mm: float = 0.0) -> Prepared | None:
    """Resample a case on IBSI's grid and apply its masks; None where the crop lacks voxels that this reads.

    What is read does not depend on the crop's margin, so the values do not either.

    Parameters
    ----------
    whole
        Whether intensities are whole numbers (HU), to which resampled ones are rounded.
    around_mm
        How far beyond the region and the sphere of intensity peaks the image is needed.

    Raises
    ------
    CaseError
        ``RADIOMICS_FAILED`` where resampling or resegmentation leaves no voxel.
    """
    box = bounding_box(sitk.GetArrayViewFromImage(roi.mask))
    spacing = _new_spacing(roi, settings)
    axes = [
        _Axis(n, old, new) for n, old, new in zip(roi.full.size[::-1], roi.full.spacing[::-1], spacing, strict=True)
    ]
    start = roi.start[::-1]
    spans = [
        axis.span(first + at, stop + at, PEAK_MM + around_mm)
        for axis, (first, stop), at in zip(axes, box, start, strict=True)
    ]
    reach = _REACH[settings.interpolator] if settings.spacing_mm else 0
    region = [
        (
            max(0, math.floor(axis.position(first)) - reach),
            min(axis.size, math.ceil(axis.position(stop - 1)) + reach + 1),
        )
        for axis, (first, stop) in zip(axes, spans, strict=True)
    ]
    image, mask = sitk.GetArrayViewFromImage(roi.image), sitk.GetArrayViewFromImage(roi.mask)
    held = all(low >= at and high <= at + n for (low, high), at, n in zip(region, start, mask.shape, strict=True))
    if not held:
        return None
    part = tuple(slice(low - at, high - at) for (low, high), at in zip(region, start, strict=True))
    values, inside = image[part].astype(np.float64), mask[part].astype(np.float64)
    if settings.spacing_mm:
        offsets = [axis.position(span[0]) - low for axis, span, (low, _) in zip(axes, spans, region, strict=True)]
        grid = [axis.step for axis in axes], offsets, tuple(stop - first for first, stop in spans)
        values = _at(values, *grid, _ORDER[settings.interpolator])
        inside = _at(inside, *grid, 1)
    if whole:
        values = np.rint(values)
    morphological = inside >= _INSIDE - _ROUNDING
    intensity = _resegmented(values, morphological, settings)
    return Prepared(values, morphological, intensity, spacing)


def _new_spacing(roi: Roi, settings: IbsiSection) -> tuple[float, float, float]:
    x, y, z = roi.full.spacing
    new = settings.spacing_mm
    if not new:
        return z, y, x
    return (z if settings.by_slice else new), new, new


def _at(array: AnyArray, steps: list[float], offsets: list[float], shape: tuple[int, ...], order: int) -> FloatArray:
    resampled: FloatArray = ndimage.affine_transform(
        array, np.array(steps), offsets, shape, np.float64, order, mode="nearest"
    )
    return resampled


def _resegmented(values: FloatArray, mask: BoolArray, settings: IbsiSection) -> BoolArray:
    """The voxels within the range, and of these the ones within so many standard deviations of their mean."""
    if not mask.any():
        raise CaseError(Code.RADIOMICS_FAILED, "no voxel of the mask is left at this spacing_mm; make it smaller")
    kept = mask.copy()
    if settings.intensity_range:
        low, high = settings.intensity_range
        kept &= (values >= low) & (values <= high)
    if settings.outlier_sigma and kept.any():
        mean, away = values[kept].mean(), settings.outlier_sigma * values[kept].std()
        kept &= (values >= mean - away) & (values <= mean + away)
    if not kept.any():
        inside = values[mask]
        raise CaseError(
            Code.RADIOMICS_FAILED,
            f"no voxel is left within ibsi.intensity_range: the region goes from {inside.min():g} to {inside.max():g}",
        )
    return kept


def discretised(values: FloatArray, width: float, count: int, low: float | None) -> IntArray:
    """Grey levels, from 1: bins of ``width`` from ``low`` (else from the smallest value), or ``count`` bins.

    >>> discretised(np.array([0.0, 24.9, 25.0, 100.0]), 25, 0, 0.0).tolist()
    [1, 1, 2, 5]
    >>> discretised(np.array([0.0, 24.9, 25.0, 100.0]), 0, 4, None).tolist()
    [1, 1, 2, 4]
    """
    least, most = values.min(), values.max()
    if width:
        number = np.floor((values - (least if low is None else low)) / width)
    elif least == most:
        number = np.zeros(values.shape)
    else:
        number = np.minimum(np.floor(count * (values - least) / (most - least)), count - 1)
    levels: IntArray = number.astype(np.int64) + 1
    return levels


T = TypeVar("T")
_Response = Callable[[FloatArray, Sequence[float], tuple[int, ...]], FloatArray]
_Reach = Callable[[Sequence[float]], Sequence[int]]
_Made = tuple[_Response, _Reach | None]

#: Standard deviations after which a Gaussian ends: IBSI's for LoG, and where Gabor's is below 4e-6.
_LOG_ENDS, _GABOR_ENDS = 4.0, 5.0
#: Step of Gabor's directions, over half a turn: the other half has the same modulus.
_GABOR_STEP = math.pi / 8
#: Laws' kernels, each with a norm of 1.
_LAWS = {
    name: np.array(values) / math.sqrt(np.square(values).sum())
    for name, values in {
        "L5": (1.0, 4.0, 6.0, 4.0, 1.0),
        "E5": (-1.0, -2.0, 0.0, 2.0, 1.0),
        "S5": (-1.0, 0.0, 2.0, 0.0, -1.0),
        "W5": (-1.0, 2.0, 0.0, -2.0, 1.0),
        "R5": (1.0, -4.0, 6.0, -4.0, 1.0),
        "L3": (1.0, 2.0, 1.0),
        "E3": (-1.0, 0.0, 1.0),
        "S3": (-1.0, 2.0, -1.0),
    }.items()
}
_FORMS = (
    "mean:VOXELS, log:SIGMA_MM, laws:KERNELS:VOXELS, gabor:SIGMA_MM:WAVELENGTH_MM:GAMMA, simoncelli:LEVEL or "
    "WAVELET:BAND:LEVEL (laws:L5E5E5:7, db3:LLH:1)"
)


@dataclass(frozen=True)
class Filter:
    """One filter of ``ibsi.filters``.

    Attributes
    ----------
    name
        As the job has it.
    response
        From image (z, y, x), spacing (z, y, x) in mm and the axes on which it acts to its response on the same grid.
    reach
        From spacing to the voxels around a voxel that its response depends on, along each axis; None: all there are.
    """

    name: str
    response: _Response
    reach: _Reach | None


def read_filter(name: str, *, by_slice: bool) -> Filter:
    """A filter by its name in the job.

    Raises
    ------
    JobError
        When it is none; the message has the forms that there are.
    """
    kind, *parts = name.split(":")
    try:
        made = _READERS.get(kind, _read_wavelet)(kind, parts, 2 if by_slice else 3)
    except (ValueError, KeyError, IndexError) as error:
        raise JobError(f"ibsi.filters: {name!r} is no filter ({error}); expected {_FORMS}") from error
    return Filter(name, *made)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1000:
        raise ValueError(f"{text}, expected above 0 and below 1000")
    return value


def _whole(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d?", text):
        raise ValueError(f"{text}, expected a whole number from 1 on")
    return int(text)


def _only(parts: list[str], count: int) -> list[str]:
    if len(parts) != count:
        raise ValueError(f"{len(parts)} values, expected {count}")
    return parts


def _read_mean(kind: str, parts: list[str], dimensions: int) -> _Made:
    (support,) = map(_whole, _only(parts, 1))
    if not support % 2:
        raise ValueError(f"{support} voxels have no middle, expected an odd number")

    def response(image: FloatArray, spacing: Sequence[float], axes: tuple[int, ...]) -> FloatArray:
        return _along(image, dict.fromkeys(axes, np.full(support, 1 / support)))

    return response, lambda spacing: [support // 2] * 3


def _read_log(kind: str, parts: list[str], dimensions: int) -> _Made:
    (sigma,) = map(_positive, _only(parts, 1))

    def half(mm: float) -> int:
        return math.floor(_LOG_ENDS * sigma / mm + 0.5)

    def response(image: FloatArray, spacing: Sequence[float], axes: tuple[int, ...]) -> FloatArray:
        smooth, curved = {}, {}
        for axis in axes:
            wide, at = sigma / spacing[axis], np.arange(-half(spacing[axis]), half(spacing[axis]) + 1)
            smooth[axis] = np.exp(-(at**2) / (2 * wide**2)) / (math.sqrt(2 * math.pi) * wide)
            curved[axis] = (at**2 / wide**2 - 1) / wide**2 * smooth[axis]
        return reduce(np.add, (_along(image, smooth | {axis: curved[axis]}) for axis in axes))

    return response, lambda spacing: [half(mm) for mm in spacing]


def _read_laws(kind: str, parts: list[str], dimensions: int) -> _Made:
    kernels, distance = _only(parts, 2)[0], _whole(parts[1])
    chosen = [_LAWS[kernels[at : at + 2]] for at in range(0, len(kernels), 2)]
    if len(chosen) != dimensions:
        raise ValueError(f"{len(chosen)} kernels, expected {dimensions}")
    energy = np.full(2 * distance + 1, 1 / (2 * distance + 1))

    def response(image: FloatArray, spacing: Sequence[float], axes: tuple[int, ...]) -> FloatArray:
        turns = [{axis: _reversed(*one) for axis, one in turn.items()} for turn in _turned(chosen, axes)]
        pooled = reduce(np.maximum, (_along(image, turn) for turn in turns))
        return _along(np.abs(pooled), dict.fromkeys(axes, energy))

    return response, lambda spacing: [distance + 2] * 3


def _read_gabor(kind: str, parts: list[str], dimensions: int) -> _Made:
    sigma, wavelength, gamma = map(_positive, _only(parts, 3))
    far = _GABOR_ENDS * sigma / min(1.0, gamma)

    def half(mm: float) -> int:
        return math.ceil(far / mm)

    def response(image: FloatArray, spacing: Sequence[float], axes: tuple[int, ...]) -> FloatArray:
        planes = [(1, 2)] if len(axes) == 2 else [(1, 2), (0, 2), (0, 1)]
        found = (_gabor(image, spacing, plane, sigma, wavelength, gamma, half) for plane in planes)
        return reduce(np.add, found) / len(planes)

    return response, lambda spacing: [half(mm) for mm in spacing]


def _gabor(
    image: FloatArray,
    spacing: Sequence[float],
    plane: tuple[int, int],
    sigma: float,
    wavelength: float,
    gamma: float,
    half: Callable[[float], int],
) -> FloatArray:
    """The mean over all directions of the response's modulus, within one plane."""
    sides = [half(spacing[axis]) for axis in plane]
    padded = np.pad(image, [(half(spacing[a]),) * 2 if a in plane else (0, 0) for a in range(3)], mode="symmetric")
    size = [fft.next_fast_len(padded.shape[axis]) for axis in plane]
    spectrum = fft.fft2(padded, size, axes=plane)
    y, x = (np.arange(-n, n + 1) * spacing[axis] for n, axis in zip(sides, plane, strict=True))
    total = np.zeros(image.shape)
    directions = np.arange(0, math.pi - 1e-9, _GABOR_STEP)
    for angle in directions:
        along = x[None, :] * math.cos(angle) + y[:, None] * math.sin(angle)
        across = y[:, None] * math.cos(angle) - x[None, :] * math.sin(angle)
        kernel = np.exp(-(along**2 + (gamma * across) ** 2) / (2 * sigma**2) + 2j * math.pi * along / wavelength)
        turned = fft.fft2(kernel, size)
        shape = [1, 1, 1]
        shape[plane[0]], shape[plane[1]] = size
        found = fft.ifft2(spectrum * turned.reshape(shape), axes=plane)
        kept = [slice(None)] * 3
        for axis, n in zip(plane, sides, strict=True):
            kept[axis] = slice(2 * n, 2 * n + image.shape[axis])
        total += np.abs(found[tuple(kept)])
    return total / len(directions)


def _read_wavelet(kind: str, parts: list[str], dimensions: int) -> _Made:
    band, level = _only(parts, 2)[0], _whole(parts[1])
    wavelet = pywt.Wavelet(kind)
    if not re.fullmatch("[LH]+", band) or len(band) != dimensions:
        raise ValueError(f"band {band!r}, expected {dimensions} letters L or H")
    # of odd length, so that a kernel that is turned keeps its middle
    pair = {"L": np.array([*wavelet.dec_lo, 0.0]), "H": np.array([*wavelet.dec_hi, 0.0])}

    def response(image: FloatArray, spacing: Sequence[float], axes: tuple[int, ...]) -> FloatArray:
        turns = list(_turned(band, axes))
        return reduce(np.add, (_decomposed(image, turn, level, pair) for turn in turns)) / len(turns)

    reach = sum(len(wavelet.dec_lo) * 2**at for at in range(level))
    return response, lambda spacing: [reach] * 3


def _decomposed(
    image: FloatArray, band: dict[int, tuple[str, bool]], level: int, pair: dict[str, FloatArray]
) -> FloatArray:
    """The band of an undecimated transform: low passes of all levels before, then the band's own filters."""
    for at in range(level):
        kernels = {}
        for axis, (letter, back) in band.items():
            kernel = np.zeros((len(pair["L"]) - 1) * 2**at + 1)
            kernel[:: 2**at] = pair[letter if at == level - 1 else "L"]
            kernels[axis] = _reversed(kernel, back)
        image = _along(image, kernels)
    return image


def _read_simoncelli(kind: str, parts: list[str], dimensions: int) -> _Made:
    (level,) = map(_whole, _only(parts, 1))

    def response(image: FloatArray, spacing: Sequence[float], axes: tuple[int, ...]) -> FloatArray:
        radius = np.zeros(())
        for axis in axes:
            shape = [1, 1, 1]
            shape[axis] = -1
            # from -1 to 1, both included: IBSI's reference values are of this grid
            frequency = fft.ifftshift(np.linspace(-1, 1, image.shape[axis]))
            radius = radius + np.square(frequency.reshape(shape))
        scaled = np.sqrt(radius) * 2 ** (level - 1)
        inside = (scaled > 0.25) & (scaled <= 1)
        passes = np.where(inside, np.cos(math.pi / 2 * np.log2(2 * np.where(inside, scaled, 1.0))), 0.0)
        found: FloatArray = fft.ifftn(fft.fftn(image, axes=axes) * passes, axes=axes).real
        return found

    return response, None


_READERS = {
    "mean": _read_mean,
    "log": _read_log,
    "laws": _read_laws,
    "gabor": _read_gabor,
    "simoncelli": _read_simoncelli,
}


def _reversed(kernel: FloatArray, back: bool) -> FloatArray:
    return kernel[::-1] if back else kernel


def _along(image: FloatArray, kernels: dict[int, FloatArray]) -> FloatArray:
    """Convolve along each axis in turn; beyond its border the image is mirrored."""
    for axis, kernel in kernels.items():
        image = ndimage.convolve1d(image, kernel, axis, mode="reflect")
    return image


def _turned(kernels: Sequence[T], axes: tuple[int, ...]) -> Iterator[dict[int, tuple[T, bool]]]:
    """By axis the kernel and whether it is reversed, in every position into which right angles turn the filter.

    The first kernel is that of x, as in IBSI's names.
    """
    for order, flips in _rotations(len(axes)):
        yield {axis: (kernels[at], flip) for axis, at, flip in zip(axes[::-1], order, flips, strict=True)}


def _rotations(dimensions: int) -> Iterator[tuple[tuple[int, ...], tuple[bool, ...]]]:
    """Turns by right angles: an order of the axes and which of them are reversed, without reflections."""
    for order in permutations(range(dimensions)):
        odd = sum(order[i] > order[j] for i in range(dimensions) for j in range(i + 1, dimensions)) % 2
        for flips in product((False, True), repeat=dimensions):
            if sum(flips) % 2 == odd:
                yield order, flips
