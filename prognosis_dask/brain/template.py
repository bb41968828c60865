"""The template as the registration needs it: with the contrast of a sequence, and its mask."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk

from prognosis_dask.imaging.geometry import image_like

__all__ = ["Contrast", "Template", "contrast", "icbm152"]

#: Whether fluid is the darkest or the brightest tissue.
Contrast = Literal["t1", "t2"]

#: What grey matter, white matter and fluid give in the T2-like contrast, and its smoothing.
_T2_GREY, _T2_WHITE, _T2_FLUID, _T2_SIGMA_MM = 0.5, 0.35, 1.0, 0.7

#: Where grey and white matter together are more than this share of a voxel, it is brain.
_TISSUE = 0.2
#: Opening, then closing of the mask, mm; the closing takes in ventricles and sulci.
_OPEN_MM, _CLOSE_MM = 2, 6
#: Zeros around the mask while it is closed, so that the edge of the image is none of the mask's.
_PAD_VOXELS = 10
_FILES = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"


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


@dataclass(frozen=True)
class Template:
    """Images on one grid, 1 mm: T1 (float32, 0 to 1), grey and white matter (float32, 0 to 1), brain (uint8, 0 and 1).

    They are shared between callers: copy before changing one.
    """

    t1: sitk.Image
    grey: sitk.Image
    white: sitk.Image
    brain: sitk.Image


@lru_cache(maxsize=1)
def icbm152() -> Template:
    """The template, read from nilearn's package once per process.

    Raises
    ------
    FileNotFoundError
        When nilearn is not installed, or does not carry the template.
    """
    t1, grey, white = (_share(name) for name in ("t1", "gm", "wm"))
    return Template(t1, grey, white, _brain(grey + white))


def _share(name: str) -> sitk.Image:
    """An image of the package, stored as 0 to 255, as 0 to 1."""
    spec = importlib.util.find_spec("nilearn")  # found, not imported: nilearn takes seconds
    if spec is None or spec.origin is None:
        raise FileNotFoundError("nilearn, whose package carries the ICBM152 template, is not installed")
    path = Path(spec.origin).parent / "datasets" / "data" / _FILES.format(name)
    if not path.is_file():
        raise FileNotFoundError(f"nilearn's package has no {path.name} any more; the ICBM152 template is read from it")
    return sitk.Cast(sitk.ReadImage(str(path)) / 255.0, sitk.sitkFloat32)


def _brain(tissue: sitk.Image) -> sitk.Image:
    mask = sitk.ConstantPad(tissue > _TISSUE, [_PAD_VOXELS] * 3, [_PAD_VOXELS] * 3)
    mask = sitk.BinaryMorphologicalOpening(mask, [_OPEN_MM] * 3)
    mask = sitk.RelabelComponent(sitk.ConnectedComponent(mask)) == 1
    mask = sitk.BinaryMorphologicalClosing(mask, [_CLOSE_MM] * 3)
    mask = sitk.Crop(sitk.BinaryFillhole(mask), [_PAD_VOXELS] * 3, [_PAD_VOXELS] * 3)
    return image_like(sitk.GetArrayFromImage(mask).astype(np.uint8), tissue)
