"""The ICBM152 template from nilearn's package, with its mask and the contrast of a sequence. Nothing is downloaded."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk

from prognosis_dask.arrays import BoolArray
from prognosis_dask.imaging.geometry import image_like
from prognosis_dask.imaging.roi import bounding_box

#: What is brighter: white matter than grey and both than fluid (t1), grey than white (flair), fluid than both (t2).
Contrast = Literal["t1", "flair", "t2"]

#: Signal of grey matter, white matter and fluid in the contrasts that are made, and their smoothing.
_SIGNALS = {"t2": (0.5, 0.35, 1.0), "flair": (0.5, 0.4, 0.05)}
_SIGMA_MM = 0.7

#: Share of grey and white matter above which a voxel is brain.
_TISSUE = 0.2
#: Opening, then closing of the mask, mm; the closing includes ventricles and sulci.
_OPEN_MM, _CLOSE_MM = 2, 6
#: Zero padding during the closing, so that the border of the image has no effect.
_PAD_VOXELS = 10
_FILES = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"


@lru_cache(maxsize=3)
def contrast(kind: Contrast) -> sitk.Image:
    """The template brain, float32, zero outside it; ``t2`` and ``flair`` are synthesised from its tissues.

    It is shared between callers, as :class:`Template` is.

    nilearn has the T1-weighted average only. For mutual information a template with one level per tissue, smoothed
    like the average, is sufficient.
    """
    template = icbm152()
    inside = sitk.Cast(template.brain, sitk.sitkFloat32)
    if kind == "t1":
        return template.t1 * inside
    fluid = sitk.Clamp(1.0 - template.grey - template.white, lowerBound=0.0)
    of_grey, of_white, of_fluid = _SIGNALS[kind]
    mixed = (of_grey * template.grey + of_white * template.white + of_fluid * fluid) * inside
    return sitk.DiscreteGaussian(mixed, _SIGMA_MM**2)


@dataclass(frozen=True)
class Template:
    """Images on one grid, 1 mm: T1 (float32, 0 to 1), grey and white matter (float32, 0 to 1), brain (uint8, 0 and 1).

    They are shared between callers: copy before modifying one.
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
        When nilearn is not installed, or lacks the template.
    """
    t1, grey, white = (_share(name) for name in ("t1", "gm", "wm"))
    return Template(t1, grey, white, _brain(grey + white))


def _share(name: str) -> sitk.Image:
    """An image of the package, scaled from 0 to 255 to 0 to 1."""
    spec = importlib.util.find_spec("nilearn")  # located without import: importing nilearn takes seconds
    if spec is None or spec.origin is None:
        raise FileNotFoundError("nilearn, whose package carries the ICBM152 template, is not installed")
    path = Path(spec.origin).parent / "datasets" / "data" / _FILES.format(name)
    if not path.is_file():
        raise FileNotFoundError(f"nilearn's package has no {path.name} any more; the ICBM152 template is read from it")
    image = sitk.ReadImage(str(path), sitk.sitkUInt8)
    return image_like((np.arange(256) / 255.0).astype(np.float32)[sitk.GetArrayViewFromImage(image)], image)


def _brain(tissue: sitk.Image) -> sitk.Image:
    whole = sitk.GetArrayViewFromImage(tissue) > _TISSUE
    # nothing outside the tissue's box changes; the border, of which nothing is kept, is for the closing
    box = tuple(slice(first, stop) for first, stop in bounding_box(whole))
    mask = np.pad(whole[box], _PAD_VOXELS)
    mask = opened(mask, (_OPEN_MM,) * 3)
    parts = sitk.RelabelComponent(sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8))))
    mask = closed(sitk.GetArrayViewFromImage(parts) == 1, (_CLOSE_MM,) * 3)
    filled = sitk.GetArrayFromImage(sitk.BinaryFillhole(sitk.GetImageFromArray(mask.astype(np.uint8))))
    kept = np.zeros(whole.shape, np.uint8)
    kept[box] = filled[(slice(_PAD_VOXELS, -_PAD_VOXELS),) * 3]
    return image_like(kept, tissue)


#: Radii of a ball in voxels, in the order of an array's axes.
Radii = tuple[int, int, int]


def opened(mask: BoolArray, radii: Radii) -> BoolArray:
    """A mask opened by ITK's ball; beyond the border it is taken to be set while eroded."""
    return dilated(~dilated(~mask, radii), radii)


def closed(mask: BoolArray, radii: Radii) -> BoolArray:
    """A mask closed by ITK's ball, with nothing set beyond the border."""
    wide = np.pad(mask, [(radius, radius) for radius in radii])
    found = ~dilated(~dilated(wide, radii), radii)
    return found[tuple(slice(radius, radius + size) for radius, size in zip(radii, mask.shape, strict=True))]


def dilated(mask: BoolArray, radii: Radii) -> BoolArray:
    """A mask dilated by ITK's ball, to the same bits in a tenth of the time.

    The ball holds the offsets up to half a voxel beyond its radii. Its lines along the last axis are rows of packed
    bits, combined eight voxels at a time.
    """
    high, deep, wide = radii
    lines = [mask]
    for reach in range(1, wide + 1):
        line = lines[-1].copy()
        line[..., reach:] |= mask[..., :-reach]
        line[..., :-reach] |= mask[..., reach:]
        lines.append(line)
    packed = [np.packbits(line, axis=-1) for line in lines]
    found = np.zeros_like(packed[0])

    def moved(by: int, size: int) -> tuple[slice, slice]:
        return slice(max(0, by), size + min(0, by)), slice(max(0, -by), size + min(0, -by))

    for up, back in product(range(-high, high + 1), range(-deep, deep + 1)):
        share = 1 - (up / (high + 0.5)) ** 2 - (back / (deep + 0.5)) ** 2
        if share >= 0:
            (to_z, from_z), (to_y, from_y) = (
                moved(by, size) for by, size in zip((up, back), found.shape, strict=False)
            )
            found[to_z, to_y] |= packed[int((wide + 0.5) * share**0.5)][from_z, from_y]
    return np.unpackbits(found, axis=-1, count=mask.shape[-1]).astype(np.bool_)
