"""Real heads with a brain mask from elsewhere, and how far a mask of ours is from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from prognosis_dask.arrays import BoolArray, FloatArray
from prognosis_dask.brain.orient import axial
from prognosis_dask.brain.register import points_of, rigid
from prognosis_dask.imaging.geometry import image_like

#: Of a glioma patient: HD-BET's masks. Of a patient with multiple sclerosis, defaced: deepbet's own mask of the T1.
WITH_MASK = {
    "FG6692_T1": "FG6692_hdbet_T1",
    "FG6692_T1c": "FG6692_hdbet_T1c",
    "FG6692_FLAIR": "FG6692_hdbet_FLAIR",
    "FG6692_T2": "FG6692_hdbet_T2",
    "p04_1_T1W": "p04_1_deepbet_T1W",
}
#: Files of T2 and FLAIR of each head. Both are there without skull, or T2 has a mask of the brain.
OF_TUMOUR = {
    "DU7294": ("DU7294_T2_hdbetstripped", "DU7294_FLAIR_hdbetstripped"),
    "FG6692": ("FG6692_T2", "FG6692_FLAIR"),
    "LGG203": ("smooth_LGG-203_T2",),
}


def read_head(data: Path, name: str) -> sitk.Image:
    """A head of ``heads/``, or of ``brain/``, as float32."""
    folders = [data / folder / f"{name}.nii.gz" for folder in ("heads", "brain")]
    return sitk.Cast(sitk.ReadImage(str(next(path for path in folders if path.is_file()))), sitk.sitkFloat32)


def read_mask(data: Path, name: str, grid: sitk.Image) -> sitk.Image:
    """The mask of a head, 0 and 1, on the grid that it is compared on."""
    mask = sitk.Cast(sitk.ReadImage(str(data / "heads" / f"{WITH_MASK[name]}.nii.gz")) > 0, sitk.sitkUInt8)
    return sitk.Resample(mask, grid, sitk.Transform(), sitk.sitkNearestNeighbor, 0.0)


def prepared(data: Path, head: str) -> tuple[dict[str, sitk.Image], sitk.Image]:
    """The sequences on T2's grid, and the brain's mask."""
    names = OF_TUMOUR[head]
    first = axial(read_head(data, names[0]))
    stripped = "stripped" in names[0] or len(names) == 1
    brain = sitk.Cast(first > 0, sitk.sitkUInt8) if stripped else read_mask(data, names[0], first)
    images = {"T2": first}
    for name in names[1:]:
        other = axial(read_head(data, name))
        images["FLAIR"] = sitk.Resample(other, first, rigid(first, other)[0], sitk.sitkLinear, 0.0)
    if min(first.GetSpacing()) < 0.6:
        images = {name: sitk.BinShrink(image, [2, 2, 1]) for name, image in images.items()}
        brain = sitk.Cast(sitk.BinShrink(sitk.Cast(brain, sitk.sitkFloat32), [2, 2, 1]) > 0.5, sitk.sitkUInt8)
    return images, brain


def overlap(one: sitk.Image, other: sitk.Image) -> float:
    """Dice."""
    a, b = (sitk.GetArrayViewFromImage(mask) > 0 for mask in (one, other))
    return float(2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b)))


def lost_ml(found: sitk.Image, truth: sitk.Image) -> float:
    """What lies more than 2 mm inside the truth and is not found, ml."""
    depth = sitk.SignedMaurerDistanceMap(truth, insideIsPositive=True, squaredDistance=False, useImageSpacing=True)
    lost = (sitk.GetArrayViewFromImage(depth) > 2.0) & (sitk.GetArrayViewFromImage(found) == 0)
    return float(np.count_nonzero(lost) * np.prod(truth.GetSpacing()) / 1000)


def apart_mm(found: sitk.Image, truth: sitk.Image) -> float:
    """95th percentile of the distances between both surfaces, mm."""
    values = []
    for one, other in ((found, truth), (truth, found)):
        away = sitk.SignedMaurerDistanceMap(other, squaredDistance=False, useImageSpacing=True)
        surface = sitk.GetArrayViewFromImage(sitk.LabelContour(one, fullyConnected=False)) > 0
        values.append(np.abs(sitk.GetArrayViewFromImage(away)[surface]))
    return float(np.quantile(np.concatenate(values), 0.95))


def grown(mask: sitk.Image, by_mm: float) -> sitk.Image:
    """The mask with its surface moved outwards; inwards if negative."""
    away = sitk.SignedMaurerDistanceMap(mask, insideIsPositive=False, squaredDistance=False, useImageSpacing=True)
    return sitk.Cast(away < by_mm if by_mm > 0 else away <= by_mm, sitk.sitkUInt8)


def shifted(mask: sitk.Image, x_mm: float, y_mm: float) -> sitk.Image:
    """The mask moved to the patient's left and back."""
    return sitk.Resample(mask, mask, sitk.TranslationTransform(3, (-x_mm, -y_mm, 0.0)), sitk.sitkNearestNeighbor, 0.0)


#: Parts of the brain in the template's space (left, posterior, superior; mm).
LOBES: dict[str, Callable[[FloatArray], BoolArray]] = {
    "frontal": lambda at: (at[:, 1] < -25) & (at[:, 0] > 0),
    "temporal": lambda at: (at[:, 0] > 22) & (at[:, 2] < -2) & (at[:, 1] < 40),
    "occipital": lambda at: (at[:, 1] > 60) & (at[:, 0] > 0),
}
#: Eyeballs and what lies behind them there: centre and radius, mm.
_ORBITS = ((34, -62, -38, 14), (-34, -62, -38, 14), (27, -40, -34, 11), (-27, -40, -34, 11))


def without(mask: sitk.Image, lobe: str, from_template: sitk.AffineTransform) -> sitk.Image:
    """The mask without one of :data:`LOBES`."""
    values = sitk.GetArrayFromImage(mask)
    index = np.argwhere(values > 0)
    values[tuple(index[LOBES[lobe](_in_template(mask, from_template))].T)] = 0
    return image_like(values, mask)


def with_eyes(mask: sitk.Image, from_template: sitk.AffineTransform) -> sitk.Image:
    """The mask with both orbits."""
    whole = image_like(np.ones(mask.GetSize()[::-1], np.uint8), mask)
    values, at = sitk.GetArrayFromImage(mask), _in_template(whole, from_template)
    for *centre, radius in _ORBITS:
        values.ravel()[np.linalg.norm(at - centre, axis=1) < radius] = 1
    return image_like(values, mask)


def _in_template(mask: sitk.Image, from_template: sitk.AffineTransform) -> FloatArray:
    inverse = from_template.GetInverse()
    matrix = np.reshape(inverse.GetMatrix(), (3, 3))
    points: FloatArray = points_of(mask) @ matrix.T + np.asarray(inverse.TransformPoint((0.0, 0.0, 0.0)))
    return points
