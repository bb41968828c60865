"""Bias field: the smooth shading that a coil leaves on an MR image."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from prognosis_dask.brain.template import icbm152

#: The field is fitted to voxels averaged to about this width, mm; slices that are thick already stay as they are.
_WIDTH_MM = 4.0
#: Iterations per level; the second level's mesh is twice as fine. Finer ones take anatomy for shading.
_ITERATIONS = (25, 25)
_CONVERGED = 1e-4
#: White matter where the template has more than this of it.
_WHITE = 0.8


def correct_bias(image: sitk.Image, mask: sitk.Image) -> tuple[sitk.Image, sitk.Image]:
    """N4: the image divided by its field, and the field (float32, mean 1 where the mask is).

    Tustison NJ et al., N4ITK: improved N3 bias correction. IEEE Trans Med Imaging 2010;29:1310.

    Parameters
    ----------
    image
        float32, not negative.
    mask
        uint8, what the field is fitted to. The more alike the tissue in it, the less anatomy gets into the field:
        best :func:`white_matter`.
    """
    factors = [max(1, round(_WIDTH_MM / spacing)) for spacing in image.GetSpacing()]
    small = sitk.BinShrink(image, factors)
    inside = sitk.Cast(sitk.BinShrink(sitk.Cast(mask, sitk.sitkFloat32), factors) > 0.5, sitk.sitkUInt8)
    # the logarithm of a zero counts for nothing
    inside = sitk.And(inside, sitk.Cast(small > 0, sitk.sitkUInt8))
    method = sitk.N4BiasFieldCorrectionImageFilter()
    method.SetMaximumNumberOfIterations(_ITERATIONS)
    method.SetConvergenceThreshold(_CONVERGED)
    method.Execute(small, inside)
    log = sitk.Cast(method.GetLogBiasFieldAsImage(image), sitk.sitkFloat32)
    where = sitk.GetArrayViewFromImage(mask) > 0
    field = sitk.Exp(log - float(np.mean(sitk.GetArrayViewFromImage(log)[where])))
    return sitk.Cast(image / field, sitk.sitkFloat32), field


def white_matter(image: sitk.Image, brain: sitk.Image, from_template: sitk.Transform) -> sitk.Image:
    """Where the template has white matter in an image of the patient: mask (uint8), inside the brain.

    A quarter of the voxels is left out, the darkest and the brightest eighth: a lesion, or a sulcus beside the place.
    """
    white = sitk.Resample(icbm152().white, image, from_template.GetInverse(), sitk.sitkLinear, 0.0)
    inside = (sitk.GetArrayViewFromImage(white) > _WHITE) & (sitk.GetArrayViewFromImage(brain) > 0)
    values = sitk.GetArrayViewFromImage(image)
    if inside.any():
        low, high = np.quantile(values[inside], (0.125, 0.875))
        inside &= (values >= low) & (values <= high)
    mask = sitk.GetImageFromArray(inside.astype(np.uint8))
    mask.CopyInformation(image)
    return mask
