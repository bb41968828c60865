"""Synthetic brains that several tests use, made once per process."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import SimpleITK as sitk

from prognosis_dask.synthetic.brain import SyntheticScan, make_scan
from prognosis_dask.synthetic.patient import draw_brain_patient


@lru_cache(maxsize=8)
def made_scan(number: int, matrix: int = 64) -> SyntheticScan:
    """Patient ``number`` of the cohort with seed 0 and full signal."""
    return make_scan(draw_brain_patient(number, 0, 1.0), matrix)


@lru_cache(maxsize=1)
def healthy_scan() -> SyntheticScan:
    """The first patient with a lesion that no voxel shows."""
    return make_scan(replace(draw_brain_patient(1, 0, 1.0), radius_mm=0.1, border_mm=0.1), 64)


def on_reference(scan: SyntheticScan, *names: str) -> dict[str, sitk.Image]:
    """Sequences without their bias field, laid onto T2 by the true motion."""
    reference = scan.sequences["T2"].image
    images = {}
    for name in names:
        sequence = scan.sequences[name]
        plain = sitk.Cast(sequence.image, sitk.sitkFloat32) / sequence.bias
        images[name] = sitk.Resample(plain, reference, sequence.to_reference.GetInverse(), sitk.sitkLinear, 0.0)
    return images


def dice(one: sitk.Image, other: sitk.Image) -> float:
    a, b = (sitk.GetArrayViewFromImage(mask) > 0 for mask in (one, other))
    return float(2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b)))


def ellipsoid(
    semi_axes: tuple[float, float, float],
    spacing: tuple[float, float, float],
    turn: tuple[float, float, float] = (0, 0, 0),
) -> sitk.Image:
    """A mask (0 and 1): voxels whose centres lie in an ellipsoid off the voxels' centres, turned by Euler angles."""
    size = [2 * int(np.ceil(max(semi_axes) * 1.1 / step)) + 3 for step in spacing]
    image = sitk.Image(size, sitk.sitkUInt8)
    image.SetSpacing(spacing)
    image.SetOrigin([-(count - 1) / 2 * step + 0.2 * step for count, step in zip(size, spacing, strict=True)])
    frame = sitk.Euler3DTransform()
    frame.SetRotation(*turn)
    index = np.stack(np.meshgrid(*[np.arange(count) for count in size], indexing="ij"))
    points = np.tensordot(np.diag(spacing), index, axes=1) + np.array(image.GetOrigin())[:, None, None, None]
    inner = np.tensordot(np.array(frame.GetMatrix()).reshape(3, 3).T, points, axes=1)
    inside = sum((inner[axis] / semi_axes[axis]) ** 2 for axis in range(3)) < 1
    mask = sitk.GetImageFromArray(inside.transpose(2, 1, 0).astype(np.uint8))
    mask.CopyInformation(image)
    return mask
