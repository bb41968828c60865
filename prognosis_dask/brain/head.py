"""Where the head is in an image, and where its brain might lie: what a registration starts from."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from prognosis_dask.brain.template import icbm152

#: How far under the top of the head the brain begins: scalp, skull and fluid, mm.
SCALP_MM = 12.0
#: Voxels of the head are looked for on a grid of about this width, mm.
_COARSE_MM = 4.0
#: How much of the head, from its top, the brain's height and place are taken from, mm.
_BRAIN_HEIGHT_MM = 120.0
#: A head whose last slice at the top holds this share of its widest slice is cut off there.
_CUT_SHARE = 0.35

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Head:
    """The head as points in mm, (n, 3), on a coarse grid; whether the image ends before the head does, at its top."""

    points: Points
    cut: bool


def coarse(image: sitk.Image, width_mm: float) -> sitk.Image:
    """The image averaged to voxels of about ``width_mm``; axes that are coarser stay as they are."""
    return sitk.BinShrink(image, [max(1, round(width_mm / spacing)) for spacing in image.GetSpacing()])


def head_mask(image: sitk.Image) -> sitk.Image:
    """The largest object brighter than Otsu's threshold (uint8, 0 and 1)."""
    bright = sitk.OtsuThreshold(image, 0, 1, 128)
    parts = sitk.RelabelComponent(sitk.ConnectedComponent(sitk.BinaryMorphologicalOpening(bright, [1, 1, 0])))
    return sitk.Cast(parts == 1, sitk.sitkUInt8)


def find_head(image: sitk.Image) -> Head:
    """The head in an image of any contrast."""
    small = coarse(sitk.Cast(image, sitk.sitkFloat32), _COARSE_MM)
    mask = head_mask(small)
    points = points_of(mask)
    z = points[:, 2]
    # by height, not by slice: the slices may run in any direction
    bins = np.histogram(z, bins=np.arange(z.min(), z.max() + 10.0, 5.0))[0]
    top = bins[np.flatnonzero(bins)[-2:]].max() if bins.any() else 0
    return Head(points, bool(top > _CUT_SHARE * bins.max()))


def points_of(mask: sitk.Image) -> Points:
    """The centres of the set voxels in mm, (n, 3) in (x, y, z) order."""
    index = np.argwhere(sitk.GetArrayViewFromImage(mask))[:, ::-1]
    steps = np.asarray(mask.GetDirection()).reshape(3, 3) * np.asarray(mask.GetSpacing())
    points: Points = index @ steps.T + np.asarray(mask.GetOrigin())
    return points


def starts(head: Head, *, scalp_mm: float = SCALP_MM) -> list[sitk.Euler3DTransform]:
    """Rigid transforms from template to image to begin with: pitches, heights and places along the nose's axis.

    The template's top is put ``scalp_mm`` under the head's, its middle on the head's middle. Where the image ends
    before the head does, every height that leaves half of the brain in the image is a start.
    """
    brain = points_of(sitk.BinShrink(icbm152().brain, [8, 8, 8]))
    centre = brain.mean(axis=0)
    top = float(np.quantile(head.points[:, 2], 0.999))
    upper = head.points[head.points[:, 2] > top - _BRAIN_HEIGHT_MM]
    middle = (np.quantile(upper, 0.02, axis=0) + np.quantile(upper, 0.98, axis=0)) / 2
    heights = (-15.0, 0.0, 15.0) if not head.cut else tuple(np.arange(-10.0, 71.0, 10.0))
    found = []
    for pitch, up, forth in product(
        np.radians((-30.0, -20.0, -10.0, 0.0, 10.0, 20.0, 30.0)), heights, (-12.0, 0.0, 12.0)
    ):
        turn = sitk.Euler3DTransform(centre.tolist(), float(pitch), 0.0, 0.0)
        turned = (brain - centre) @ np.asarray(turn.GetMatrix()).reshape(3, 3).T + centre
        low, high = turned.min(axis=0), turned.max(axis=0)
        shift = middle - (low + high) / 2 + (0.0, forth, 0.0)
        shift[2] = top - scalp_mm - high[2] + up
        turn.SetTranslation(shift.tolist())
        found.append(turn)
    return found
