"""The template as the registration needs it: with the contrast of a sequence, and its mask."""

from __future__ import annotations

from typing import Literal

import SimpleITK as sitk

from prognosis_dask.icbm152 import Template, icbm152

__all__ = ["Contrast", "Template", "contrast", "icbm152"]

#: Whether fluid is the darkest or the brightest tissue.
Contrast = Literal["t1", "t2"]

#: What grey matter, white matter and fluid give in the T2-like contrast, and its smoothing.
_T2_GREY, _T2_WHITE, _T2_FLUID, _T2_SIGMA_MM = 0.5, 0.35, 1.0, 0.7


def contrast(kind: Contrast) -> sitk.Image:
    """The template brain, float32, zero outside it; ``t2`` is put together from its tissues.

    nilearn carries the T1-weighted average only. Mutual information needs no more of a T2-like template than one
    level per tissue, smoothed as the average is.
    """
    template = icbm152()
    inside = sitk.Cast(template.brain, sitk.sitkFloat32)
    if kind == "t1":
        return template.t1 * inside
    fluid = sitk.Clamp(1.0 - template.grey - template.white, lowerBound=0.0)
    mixed = (_T2_GREY * template.grey + _T2_WHITE * template.white + _T2_FLUID * fluid) * inside
    return sitk.DiscreteGaussian(mixed, _T2_SIGMA_MM**2)
