"""Intensities: correct the bias field, and make values comparable (z-scores, Nyul's landmarks, smoothing)."""

from __future__ import annotations

import math

import numpy as np
import SimpleITK as sitk

from prognosis_dask.arrays import BoolArray, Float32Array, FloatArray
from prognosis_dask.brain.template import Contrast, contrast, icbm152
from prognosis_dask.errors import CaseError, Code
from prognosis_dask.imaging.geometry import image_like
from prognosis_dask.imaging.roi import bounding_box

#: The field is fitted to voxels averaged to about this width, mm; thick slices are kept.
_WIDTH_MM = 4.0
#: The field's mesh spans the mask and this margin, mm, whatever else the image shows; beyond, its edge is continued.
_MARGIN_MM = 16.0
#: Iterations per level; the second level's mesh is twice as fine. Finer meshes fit anatomy as shading.
_ITERATIONS = (25, 25)
_CONVERGED = 1e-4
#: The template's share of white matter above which a voxel counts as white matter.
_WHITE = 0.8

#: Percentiles inside the brain that Nyul's method maps onto the standard's.
_LANDMARKS = (1.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 99.0)
#: Full width at half maximum of a Gaussian, in standard deviations.
_FWHM = 2.0 * math.sqrt(2.0 * math.log(2.0))


def correct_bias(image: sitk.Image, mask: sitk.Image) -> tuple[sitk.Image, sitk.Image]:
    """N4: the image divided by its field, and the field (float32, mean 1 inside the mask).

    Tustison NJ et al., N4ITK: improved N3 bias correction. IEEE Trans Med Imaging 2010;29:1310.

    Parameters
    ----------
    image
        float32, not negative.
    mask
        uint8, the voxels to which the field is fitted. The more uniform their tissue, the less anatomy enters the
        field: best :func:`white_matter`.
    """
    part, beside = around(mask, _MARGIN_MM)
    near, held = image[part], mask[part]
    factors = [max(1, round(_WIDTH_MM / spacing)) for spacing in image.GetSpacing()]
    small = sitk.BinShrink(near, factors)
    inside = sitk.GetArrayFromImage(sitk.BinShrink(sitk.Cast(held, sitk.sitkFloat32), factors)) > 0.5
    # zeros have no logarithm and no weight; of neighbours, whose field is the same, one in two is enough
    inside &= (sitk.GetArrayViewFromImage(small) > 0) & (np.indices(inside.shape).sum(axis=0) % 2 == 0)
    method = sitk.N4BiasFieldCorrectionImageFilter()
    method.SetMaximumNumberOfIterations(_ITERATIONS)
    method.SetConvergenceThreshold(_CONVERGED)
    method.Execute(small, image_like(inside.astype(np.uint8), small))
    log = np.pad(sitk.GetArrayFromImage(method.GetLogBiasFieldAsImage(near)), beside, mode="edge")
    where = sitk.GetArrayViewFromImage(mask) > 0
    field = image_like(np.exp(log - log[where].mean()).astype(np.float32), image)
    return sitk.Cast(image / field, sitk.sitkFloat32), field


def around(mask: sitk.Image, margin_mm: float) -> tuple[tuple[slice, ...], list[tuple[int, int]]]:
    """The box of a mask with a margin, as slices of an image, and what is before and behind it in an array's axes."""
    part, beside = [], []
    spans = bounding_box(sitk.GetArrayViewFromImage(mask) > 0)
    for (first, stop), size, spacing in zip(spans, mask.GetSize()[::-1], mask.GetSpacing()[::-1], strict=True):
        margin = math.ceil(margin_mm / spacing)
        low, high = max(0, first - margin), min(size, stop + margin)
        part.append(slice(low, high))
        beside.append((low, size - high))
    return tuple(part[::-1]), beside


def white_matter(image: sitk.Image, brain: sitk.Image, from_template: sitk.Transform) -> sitk.Image:
    """The template's white matter in an image of the patient: mask (uint8), inside the brain.

    The darkest and the brightest eighth of the voxels are excluded: lesions, or sulci by misregistration.
    """
    white = sitk.Resample(icbm152().white, image, from_template.GetInverse(), sitk.sitkLinear, 0.0)
    inside = (sitk.GetArrayViewFromImage(white) > _WHITE) & (sitk.GetArrayViewFromImage(brain) > 0)
    values = sitk.GetArrayViewFromImage(image)
    if inside.any():
        low, high = np.quantile(values[inside], (0.125, 0.875))
        inside &= (values >= low) & (values <= high)
    return image_like(inside.astype(np.uint8), image)


def zscore(image: sitk.Image, brain: sitk.Image) -> sitk.Image:
    """Mean 0 and standard deviation 1 inside the brain, zero outside; float32.

    Raises
    ------
    CaseError
        ``IMAGE_EMPTY`` when the brain has one value only.
    """
    values, inside = _parts(image, brain)
    spread = float(values[inside].std())
    if not spread > 0:
        raise CaseError(Code.IMAGE_EMPTY, f"every voxel of the brain holds {values[inside][:1].tolist()}")
    return _inside((values - values[inside].mean()) / spread, inside, image)


def nyul(image: sitk.Image, brain: sitk.Image, kind: Contrast) -> sitk.Image:
    """Percentiles inside the brain mapped piecewise linearly onto the template's (as 0 to 100), zero outside; float32.

    Nyul LG, Udupa JK, On standardizing the MR image intensity scale. Magn Reson Med 1999;42:1072. There the standard is
    learnt from a cohort; using the template instead keeps training and test patients separate.
    """
    values, inside = _parts(image, brain)
    template, mask = _parts(contrast(kind), icbm152().brain)
    seen = np.percentile(values[inside], _LANDMARKS)
    standard = 100.0 * np.percentile(template[mask], _LANDMARKS)
    keep = np.flatnonzero(np.concatenate([[True], np.diff(seen) > 0]))
    if len(keep) < 2:
        raise CaseError(Code.IMAGE_EMPTY, f"the brain's percentiles are {np.unique(seen).tolist()}: it has no contrast")
    return _inside(_mapped(values, seen[keep], standard[keep]), inside, image)


def smooth(image: sitk.Image, fwhm_mm: float) -> sitk.Image:
    """Gaussian smoothing by its full width at half maximum, mm in every direction."""
    return sitk.SmoothingRecursiveGaussian(image, fwhm_mm / _FWHM)


def within(image: sitk.Image, brain: sitk.Image) -> sitk.Image:
    """The image inside the brain, zero outside; float32."""
    values, inside = _parts(image, brain)
    return _inside(values, inside, image)


def _mapped(values: Float32Array, seen: FloatArray, standard: FloatArray) -> FloatArray:
    """Linear between the landmarks, and extrapolated beyond the outer ones."""
    mapped: FloatArray = np.interp(values, seen, standard)
    for end, neighbour in ((0, 1), (-1, -2)):
        slope = (standard[end] - standard[neighbour]) / (seen[end] - seen[neighbour])
        beyond = values < seen[0] if end == 0 else values > seen[-1]
        mapped[beyond] = standard[end] + slope * (values[beyond] - seen[end])
    return mapped


def _parts(image: sitk.Image, brain: sitk.Image) -> tuple[Float32Array, BoolArray]:
    return sitk.GetArrayFromImage(image).astype(np.float32), sitk.GetArrayViewFromImage(brain) > 0


def _inside(values: Float32Array | FloatArray, inside: BoolArray, grid: sitk.Image) -> sitk.Image:
    return image_like(np.where(inside, values, 0).astype(np.float32), grid)
