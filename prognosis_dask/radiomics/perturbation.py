"""A region of interest as it might have been: turned, moved, noisier, drawn anew; and negative controls.

The chain of Zwanenburg et al., Scientific Reports 9, 614 (2019), as in MIRP: rotation, translation, noise, volume,
contour.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from prognosis_dask.arrays import BoolArray, FloatArray, NumberArray
from prognosis_dask.imaging.geometry import image_like
from prognosis_dask.imaging.roi import Roi, grid_of

#: Negative controls: the region's grey values, or the voxels of the mask within its box, in random order.
CONTROLS = ("shuffled_voxels", "shuffled_mask")
#: Volume of a supervoxel in mm3 at most, the fewest that make a region, and the fewest voxels along a side.
_SUPERVOXEL, _PARTS, _FEWEST = 500.0, 50, 2
#: Weight of distance against grey values, which are scaled to 0 to 1 between the region's 1st and 99th percentile.
_COMPACT = 0.2
#: Supervoxels that lie in the mask to this share are always, or never, of the region.
_ALWAYS, _NEVER = 0.90, 0.20


@dataclass(frozen=True)
class Extent:
    """How far a region is perturbed at most; zero: not at all.

    Attributes
    ----------
    degrees
        Rotation within the slices, either way.
    voxels
        Translation along each axis, in voxels, either way.
    noise
        Standard deviation of added noise, in those of the noise that the image has.
    volume
        Share of the volume that the mask gains or loses.
    contour
        Whether the contour is drawn anew along supervoxels.
    """

    degrees: float = 10.0
    voxels: float = 0.5
    noise: float = 1.0
    volume: float = 0.2
    contour: bool = True


def perturbed(roi: Roi, extent: Extent, rng: np.random.Generator) -> Roi:
    """The region turned, moved, with noise, of another volume and another contour, each drawn within its extent.

    The crop stands for the whole image. Its pixel type is kept.

    Raises
    ------
    ValueError
        When no voxel of the mask is left.
    """
    image, mask = sitk.Cast(roi.image, sitk.sitkFloat64), roi.mask
    voxels = sitk.GetArrayViewFromImage(roi.image)
    sigma = extent.noise * noise_level(sitk.GetArrayViewFromImage(image)) if extent.noise else 0.0
    if extent.degrees or extent.voxels:
        moved = _motion(roi, extent, rng)
        image = _resampled(image, moved, sitk.sitkBSpline)
        mask = sitk.Cast(_resampled(sitk.Cast(mask, sitk.sitkFloat64), moved, sitk.sitkLinear) >= 0.5, sitk.sitkUInt8)
    array = np.clip(sitk.GetArrayViewFromImage(image), voxels.min(), voxels.max())  # a spline overshoots
    array = array + rng.normal(0.0, 1.0, voxels.shape) * sigma
    if voxels.dtype.kind in "iu":
        ends = np.iinfo(voxels.dtype)
        array = np.clip(np.rint(array), ends.min, ends.max)
    image = image_like(array.astype(voxels.dtype), roi.image)
    inside = sitk.GetArrayViewFromImage(mask) == 1
    if extent.contour and inside.any():
        inside = along_supervoxels(array, inside, roi.image.GetSpacing()[::-1], rng)
    if extent.volume and inside.any():
        count = round(np.count_nonzero(inside) * (1 + rng.uniform(-extent.volume, extent.volume)))
        inside = of_volume(inside, max(1, count), roi.image.GetSpacing()[::-1])
    if not inside.any():
        raise ValueError("no voxel of the perturbed mask is left")
    return Roi(image, image_like(inside.astype(np.uint8), roi.image), grid_of(roi.image), (0, 0, 0), roi.unit)


def control(roi: Roi, kind: str, rng: np.random.Generator) -> Roi:
    """A negative control of :data:`CONTROLS`: what features say of it, they do not know from texture, or from shape.

    Shuffled voxels are those of Welch et al., Radiotherapy and Oncology 130, 2 (2019): volume, shape and histogram
    stay, texture goes. A shuffled mask keeps the region's box and its number of voxels.
    """
    image, mask = sitk.GetArrayFromImage(roi.image), sitk.GetArrayFromImage(roi.mask)
    if kind == "shuffled_voxels":
        image[mask == 1] = rng.permutation(image[mask == 1])
    else:
        box = ndimage.find_objects(mask)[0]
        mask[box] = rng.permutation(mask[box].ravel()).reshape(mask[box].shape)
    whole = replace(roi, full=grid_of(roi.image), start=(0, 0, 0))
    return replace(whole, image=image_like(image, roi.image), mask=image_like(mask, roi.mask))


def noise_level(image: NumberArray) -> float:
    """Standard deviation of the noise of an image, (z, y, x), from its slices.

    J. Immerkær, Fast noise variance estimation, Computer Vision and Image Understanding 64, 300 (1996): the mean
    absolute difference of two Laplacians, which a plane grey value does not have.
    """
    kernel = np.outer([1.0, -2.0, 1.0], [1.0, -2.0, 1.0])
    filtered = ndimage.convolve(image.astype(np.float64), kernel[None])[:, 1:-1, 1:-1]
    return float(np.abs(filtered).mean() * math.sqrt(math.pi / 2) / 6) if filtered.size else 0.0


def of_volume(mask: BoolArray, count: int, spacing: tuple[float, ...]) -> BoolArray:
    """The mask with ``count`` voxels: those that lie deepest in it, or nearest to it, in mm."""
    depth = ndimage.distance_transform_edt(mask, spacing) - ndimage.distance_transform_edt(~mask, spacing)
    deepest = np.argsort(-depth, axis=None, kind="stable")[:count]
    changed = np.zeros(mask.shape, bool)
    changed.ravel()[deepest] = True
    return changed


def along_supervoxels(
    image: FloatArray, mask: BoolArray, spacing: tuple[float, ...], rng: np.random.Generator
) -> BoolArray:
    """The mask drawn anew: each supervoxel (SLIC) belongs to it with the probability of its share in the mask.

    From 90 % it always does, below 20 % never; the one with the largest share always.
    """
    side = min(_SUPERVOXEL, math.prod(spacing) * np.count_nonzero(mask) / _PARTS) ** (1 / 3)
    grid = [max(_FEWEST, round(side / step)) for step in spacing]
    around = zip(ndimage.find_objects(mask.astype(np.uint8))[0], grid, strict=True)
    box = tuple(slice(max(0, along.start - 2 * pad), along.stop + 2 * pad) for along, pad in around)
    low, high = np.percentile(image[mask], [1, 99])
    smooth = ndimage.gaussian_filter(image[box], [min(spacing) / step for step in spacing])
    scaled = np.clip((smooth - low) / max(high - low, 1e-12), -1.0, 2.0).astype(np.float32)
    grid = [min(step, size) for step, size in zip(grid, scaled.shape, strict=True)]
    slic = sitk.SLIC(
        sitk.GetImageFromArray(scaled), grid[::-1], spatialProximityWeight=_COMPACT, enforceConnectivity=False
    )
    segments = sitk.GetArrayFromImage(slic).astype(np.int64)
    inside = np.bincount(segments[mask[box]], minlength=segments.max() + 1)
    share = inside / np.maximum(np.bincount(segments.ravel()), 1)
    share[share >= _ALWAYS], share[share < _NEVER] = 1.0, 0.0
    share[share.argmax()] = 1.0
    drawn = np.zeros(mask.shape, bool)
    drawn[box] = (rng.random(len(share)) < share)[segments]
    return drawn


def _motion(roi: Roi, extent: Extent, rng: np.random.Generator) -> sitk.VersorRigid3DTransform:
    """A rotation within the slices around the mask's centre, then a translation."""
    direction = np.reshape(roi.image.GetDirection(), (3, 3))
    inside = np.argwhere(sitk.GetArrayViewFromImage(roi.mask) == 1)
    centre = roi.image.TransformContinuousIndexToPhysicalPoint(inside.mean(axis=0)[::-1].tolist())
    moved = sitk.VersorRigid3DTransform()
    moved.SetCenter(centre)
    moved.SetRotation(direction[:, 2].tolist(), math.radians(rng.uniform(-extent.degrees, extent.degrees)))
    shift = rng.uniform(-extent.voxels, extent.voxels, 3) * roi.image.GetSpacing()
    moved.SetTranslation((direction @ shift).tolist())
    return moved


def _resampled(image: sitk.Image, moved: sitk.Transform, interpolator: int) -> sitk.Image:
    resampler = sitk.ResampleImageFilter()
    resampler.SetReferenceImage(image)
    resampler.SetTransform(moved)
    resampler.SetInterpolator(interpolator)
    resampler.SetUseNearestNeighborExtrapolator(True)
    return resampler.Execute(image)
