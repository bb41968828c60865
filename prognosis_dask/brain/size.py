"""Measure the size and place of a tumour, as features of a table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Final

import numpy as np
import SimpleITK as sitk
from contourpy import LineType, contour_generator
from scipy.ndimage import find_objects, label
from scipy.spatial import ConvexHull
from scipy.spatial.distance import cdist, pdist

from prognosis_dask.arrays import BoolArray, FloatArray
from prognosis_dask.errors import CaseError, Code
from prognosis_dask.imaging.gaps import finer_planes

#: Points along an edge of a cell for integrating its volume.
_SAMPLES: Final = 24

#: Name and unit of each feature.
SIZE_FEATURES: Final = MappingProxyType(
    {
        "size_volume": "mL",
        "size_axial_diameter": "mm",
        "size_perpendicular": "mm",
        "size_product": "mm2",
        "size_diameter_3d": "mm",
        "place_template_side": "mm",
        "place_template_y": "mm",
        "place_template_z": "mm",
    }
)


@dataclass(frozen=True)
class TumourSize:
    """Size and place of a tumour.

    Attributes
    ----------
    volume_ml
        Enclosed by the 0.5 isosurface of the mask, linearly interpolated between voxel centres.
    axial_diameter_mm, perpendicular_mm
        The longest diameter in a slice, and the longest one at a right angle to it in the same slice, of the slice
        where their product is largest: the bidimensional measurement of the RANO criteria (Wen PY et al., J Clin Oncol
        2010;28:1963). Both from outline to outline, half a voxel outside the outermost voxels' centres; where the
        tumour is hollow or bent they may cross other tissue. Of several foci, which are measured each by itself, the
        largest; foci touch nowhere, not even at a corner.
    slice_index
        That slice of the mask.
    diameter_3d_mm
        The longest distance between two points of the surface, that of all foci together. Between thick slices, and
        half a slice beyond the first and the last one, the surface is interpolated by shape.
    centre_mm
        Centre of mass, (x, y, z), DICOM's patient coordinates.
    template_mm
        The same place in the template, where the way there is known.
    """

    volume_ml: float
    axial_diameter_mm: float
    perpendicular_mm: float
    slice_index: int
    diameter_3d_mm: float
    centre_mm: tuple[float, float, float]
    template_mm: tuple[float, float, float] | None

    @property
    def product_mm2(self) -> float:
        """Product of the two axial diameters, as compared by RANO's response categories."""
        return self.axial_diameter_mm * self.perpendicular_mm


def tumour_size(mask: sitk.Image, to_template: sitk.Transform | None = None) -> TumourSize:
    """Measure a tumour's mask. Slices are those of the image, usually axial.

    Parameters
    ----------
    mask
        0 and 1.
    to_template
        From a point of the patient, mm, to the template.

    Raises
    ------
    CaseError
        ``MASK_EMPTY``.
    """
    array = sitk.GetArrayFromImage(mask) > 0
    if not array.any():
        raise CaseError(Code.MASK_EMPTY, "there is no tumour to measure: the mask is empty")
    spacing = mask.GetSpacing()
    foci, _ = label(array, np.ones((3, 3, 3)))
    boxes = find_objects(foci)
    measured = [_bidimensional(foci[box] == number, spacing) for number, box in enumerate(boxes, 1)]
    largest = max(range(len(boxes)), key=lambda at: measured[at][0] * measured[at][1])
    length, across, index = measured[largest]
    centre = np.argwhere(array).mean(axis=0)[::-1]
    x, y, z = mask.TransformContinuousIndexToPhysicalPoint(centre.tolist())
    place = to_template.TransformPoint((x, y, z)) if to_template is not None else None
    return TumourSize(
        volume_ml=_cells_volume(array) * float(np.prod(spacing)) / 1000,
        axial_diameter_mm=length,
        perpendicular_mm=across,
        slice_index=index + boxes[largest][0].start,
        diameter_3d_mm=_diameter(array, spacing),
        centre_mm=(x, y, z),
        template_mm=place,
    )


def _cells_volume(mask: BoolArray) -> float:
    """Volume inside the 0.5 isosurface, in voxels: the sum over cells between eight voxel centres."""
    wide = np.pad(mask, 1).astype(np.uint8)
    corners = np.zeros(np.array(wide.shape) - 1, dtype=np.uint8)
    for bit in range(8):
        part = tuple(slice(bit >> axis & 1, size - 1 + (bit >> axis & 1)) for axis, size in enumerate(wide.shape))
        corners |= wide[part] << np.uint8(bit)
    return float(np.bincount(corners.ravel(), minlength=256) @ _cell_volumes())


@lru_cache(maxsize=1)
def _cell_volumes() -> FloatArray:
    """For each of the 256 corner patterns of a cell, the share in which the trilinear mean exceeds one half."""
    at = (np.arange(_SAMPLES) + 0.5) / _SAMPLES
    ramps = np.stack([1 - at, at])
    set_bits = np.arange(256)[:, None] >> np.arange(8) & 1
    shares: FloatArray = np.zeros(256)
    weights = np.stack([np.einsum("i,j,k->ijk", *(ramps[bit >> axis & 1] for axis in range(3))) for bit in range(8)])
    for configuration, bits in enumerate(set_bits):
        value = np.tensordot(bits, weights, axes=1)
        shares[configuration] = np.mean((value > 0.5) + 0.5 * (value == 0.5))
    return shares


def _bidimensional(mask: BoolArray, spacing_mm: tuple[float, float, float]) -> tuple[float, float, int]:
    """Longest diameter, the longest at a right angle to it, and the slice where their product is largest."""
    measured = []
    for index in np.flatnonzero(mask.any(axis=(1, 2))):
        lines = _outlines(mask[index], spacing_mm[:2])
        first, second = _farthest(np.concatenate(lines))
        length = float(np.linalg.norm(second - first))
        measured.append((length, _longest_chord(lines, first, second), int(index)))
    return max(measured, key=lambda found: found[0] * found[1])


def _outlines(plane: BoolArray, spacing_mm: tuple[float, ...]) -> list[FloatArray]:
    """Closed polygons (point, (x, y) in mm) half-way between the voxels' centres inside and outside."""
    generator = contour_generator(z=np.pad(plane, 1).astype(np.float64), line_type=LineType.Separate)
    return [np.asarray(line) * np.asarray(spacing_mm) for line in generator.lines(0.5)]


def _farthest(points: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The two points farthest apart."""
    corners = points[ConvexHull(points).vertices]
    distance = cdist(corners, corners)
    first, second = np.unravel_index(distance.argmax(), distance.shape)
    return corners[first], corners[second]


def _longest_chord(lines: list[FloatArray], first: FloatArray, second: FloatArray) -> float:
    """The longest way from outline to outline at a right angle to the line from ``first`` to ``second``.

    Its length is linear between the polygons' vertices, so the longest one passes through a vertex.
    """
    along = (second - first) / np.linalg.norm(second - first)
    frame = np.stack([along, [-along[1], along[0]]], axis=1)
    turned = [line @ frame for line in lines]
    start = np.concatenate([line[:-1] for line in turned])
    stop = np.concatenate([line[1:] for line in turned])
    at = start[:, 0][:, None]
    crossed = (np.minimum(start[:, 0], stop[:, 0]) <= at) & (at <= np.maximum(start[:, 0], stop[:, 0]))
    run = np.where(stop[:, 0] == start[:, 0], 1.0, stop[:, 0] - start[:, 0])
    height = start[:, 1] + (at - start[:, 0]) / run * (stop[:, 1] - start[:, 1])
    top = np.where(crossed, height, -np.inf).max(axis=1)
    bottom = np.where(crossed, height, np.inf).min(axis=1)
    return float((top - bottom).max())


def _diameter(mask: BoolArray, spacing_mm: tuple[float, float, float]) -> float:
    """The longest distance between two points of the outline, half-way between voxels inside and outside."""
    planes, step_mm = finer_planes(mask, spacing_mm)
    wide = np.pad(planes, 1)
    points = []
    for axis in range(3):
        ahead = np.argwhere(np.diff(wide, axis=axis)).astype(np.float64)
        ahead[:, axis] += 0.5
        points.append(ahead)
    surface = np.concatenate(points) * [step_mm, spacing_mm[1], spacing_mm[0]]
    surface = surface[ConvexHull(surface).vertices]
    return float(pdist(surface).max())


def sides_reached(mask: sitk.Image) -> tuple[str, ...]:
    """The sides of the image that an axial tumour's mask (:func:`prognosis_dask.brain.orient.axial`) reaches."""
    array = sitk.GetArrayViewFromImage(mask) > 0
    names = (("lowest slice", "highest slice"), ("front", "back"), ("right side", "left side"))
    return tuple(
        name
        for axis, ends in enumerate(names)
        for name, at in zip(ends, (0, -1), strict=True)
        if array.take(at, axis).any()
    )


def size_values(size: TumourSize) -> list[float]:
    """The values of :data:`SIZE_FEATURES`, in their order.

    ``place_template_side`` is the distance from the middle: left and right say the same of a grade. The places are NaN
    if the transform to the template is unknown.
    """
    x, y, z = size.template_mm or (math.nan,) * 3
    return [
        size.volume_ml,
        size.axial_diameter_mm,
        size.perpendicular_mm,
        size.product_mm2,
        size.diameter_3d_mm,
        abs(x),
        y,
        z,
    ]
