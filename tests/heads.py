"""Real heads with a brain mask from elsewhere, and how far a mask of ours is from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

#: Of a glioma patient: HD-BET's masks. Of a patient with multiple sclerosis, defaced: deepbet's own mask of the T1.
WITH_MASK = {
    "FG6692_T1": "FG6692_hdbet_T1",
    "FG6692_T1c": "FG6692_hdbet_T1c",
    "FG6692_FLAIR": "FG6692_hdbet_FLAIR",
    "FG6692_T2": "FG6692_hdbet_T2",
    "p04_1_T1W": "p04_1_deepbet_T1W",
}


def read_head(data: Path, name: str) -> sitk.Image:
    """A head of ``heads/``, or of ``brain/``, as float32."""
    folders = [data / folder / f"{name}.nii.gz" for folder in ("heads", "brain")]
    return sitk.Cast(sitk.ReadImage(str(next(path for path in folders if path.is_file()))), sitk.sitkFloat32)


def read_mask(data: Path, name: str, grid: sitk.Image) -> sitk.Image:
    """The mask of a head, 0 and 1, on the grid that it is compared on."""
    mask = sitk.Cast(sitk.ReadImage(str(data / "heads" / f"{WITH_MASK[name]}.nii.gz")) > 0, sitk.sitkUInt8)
    return sitk.Resample(mask, grid, sitk.Transform(), sitk.sitkNearestNeighbor, 0.0)


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
