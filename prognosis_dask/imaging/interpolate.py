"""Interpolate a lesion's shape between the slices on which it is outlined.

Each outline becomes a level function of its slice, which is interpolated along the slices and cut at zero: shape-based
interpolation (Raya SP, Udupa JK. Shape-based interpolation of multidimensional objects. IEEE Trans Med Imaging
1990;9:32). The level is not the distance d from the outline itself, but d (2 r - d), r the largest distance in the
slice: for round sections that is the squared radius less the squared distance from the centre, of which a ball's and
an ellipsoid's change along the slices is a parabola. Three outlines give an ellipsoid back; distances would give a
double cone of half its volume. Along the slices the interpolation is cubic and without overshoot (Fritsch FN, Carlson
RE. Monotone piecewise cubic interpolation. SIAM J Numer Anal 1980;17:238).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import distance_transform_edt

from prognosis_dask.arrays import BoolArray, FloatArray, IntArray
from prognosis_dask.imaging.geometry import image_like

#: Up to this many outlined slices count as a sample of the lesion's slices, even if some are neighbours.
_SPARSE = 3


def between_slices(mask: sitk.Image) -> tuple[sitk.Image, tuple[int, ...]]:
    """Fill the slices between outlined ones if only some slices are outlined.

    Only some are where no two outlined slices are neighbours, or there are three or fewer of them: otherwise a gap is
    taken as intended, as between two foci. Where all is well with the axial slices, those along rows and columns are
    looked at (no two neighbours): the tumour may have been outlined on sagittal or coronal slices.

    Parameters
    ----------
    mask
        0 and 1.

    Returns
    -------
    tuple
        The mask (uint8, the same grid), and the indices of the interpolated slices, empty if none was missing.
        Slices that were outlined stay as they are; beyond the first and the last nothing is added.
    """
    array = sitk.GetArrayFromImage(mask) > 0
    made: tuple[int, ...] = ()
    for axis in range(3):
        planes = np.moveaxis(array, axis, 0)  # a view: what is filled in it is filled in the mask
        outlined = outlined_planes(array, axis)
        gaps = np.setdiff1d(np.arange(outlined[0], outlined[-1] + 1), outlined) if len(outlined) else outlined
        if len(gaps) and (apart(outlined) or (axis == 0 and len(outlined) <= _SPARSE)):
            row_mm, column_mm = np.delete(mask.GetSpacing()[::-1], axis)
            planes[gaps] = level_between(planes[outlined], outlined, gaps, (column_mm, row_mm))
            made = tuple(int(gap) for gap in gaps if planes[gap].any())
        if made:
            break
    return image_like(array.astype(np.uint8), mask), made


def outlined_planes(mask: BoolArray, axis: int) -> IntArray:
    """The planes across an axis that hold a voxel."""
    others = tuple(other for other in range(mask.ndim) if other != axis)
    return np.flatnonzero(mask.any(axis=others))


def apart(outlined: IntArray) -> bool:
    """Whether no two of several planes are neighbours."""
    return len(outlined) > 1 and bool(np.diff(outlined).min() > 1)


def level_between(slices: BoolArray, positions: IntArray, wanted: IntArray, spacing_mm: Sequence[float]) -> BoolArray:
    """The shape on the slices ``wanted``, between outlined ``slices`` (slice, row, column) at the ``positions``.

    ``spacing_mm`` is (x, y). The two outlined slices on either side of a gap are enough: the interpolation looks no
    further.
    """
    levels = _levels(slices, spacing_mm[1], spacing_mm[0])
    shape: BoolArray = _between(positions, levels, wanted) > 0
    return shape


def finer_planes(mask: BoolArray, spacing_mm: tuple[float, float, float]) -> tuple[BoolArray, float]:
    """The lesion on planes that lie about as close as rows and columns, rounded off beyond its ends.

    Beyond the first and the last outlined slice the parabola through the three next to the end goes on, for half a
    slice at most; where there are only one or two slices, nothing is added.

    Parameters
    ----------
    mask
        (slice, row, column); not empty.
    spacing_mm
        (x, y, z).

    Returns
    -------
    tuple
        (plane, row, column), from half a slice before the first outlined slice to half a slice after the last one, and
        the planes' distance in mm. A mask whose slices lie as close as its rows comes back cut to its slices.
    """
    outlined = np.flatnonzero(mask.any(axis=(1, 2)))
    first, last = outlined[0], outlined[-1]
    column_mm, row_mm, slice_mm = spacing_mm
    parts = round(slice_mm / min(row_mm, column_mm))
    if parts < 2:
        return mask[first : last + 1], slice_mm
    parts += 1 - parts % 2  # odd, so that the middle part is the slice itself
    level = _levels(mask[outlined], row_mm, column_mm)
    position = np.arange(-(parts // 2), (last - first) * parts + parts // 2 + 1) / parts
    inside = (position >= 0) & (position <= last - first)
    planes = np.zeros((len(position), *mask.shape[1:]), dtype=bool)
    planes[inside] = _between(outlined - first, level, position[inside]) > 0 if len(outlined) > 1 else level > 0
    if len(outlined) > 2:
        for beyond in np.flatnonzero(~inside):
            end, near = (level[0], slice(0, 3)) if position[beyond] < 0 else (level[-1], slice(-3, None))
            weights = _parabola(outlined[near] - first, position[beyond])
            planes[beyond] = (np.tensordot(weights, level[near], axes=1) > 0) & (end > 0)
    # two foci at different heights stay apart: a plane that is nearest to an empty slice is empty
    nearest = np.clip(np.rint(position).astype(int) + first, 0, len(mask) - 1)
    planes[~mask[nearest].any(axis=(1, 2))] = False
    return planes, slice_mm / parts


def _between(positions: IntArray, levels: FloatArray, wanted: FloatArray | IntArray) -> FloatArray:
    """The levels at the positions ``wanted``, cubic and without overshoot along the slices."""
    from scipy.interpolate import PchipInterpolator

    return np.asarray(PchipInterpolator(positions, levels)(wanted))


def _levels(slices: BoolArray, row_mm: float, column_mm: float) -> FloatArray:
    """The level function of each slice, mm squared: positive inside its outline. No slice is empty."""
    return np.stack([_level(plane, row_mm, column_mm) for plane in slices])


def _level(plane: BoolArray, row_mm: float, column_mm: float) -> FloatArray:
    """The outline runs half a voxel outside the centres of the outermost voxels inside."""
    wide = np.pad(plane, 1)
    half = min(row_mm, column_mm) / 2
    inside = distance_transform_edt(wide, (row_mm, column_mm))[1:-1, 1:-1] - half
    outside = distance_transform_edt(~wide, (row_mm, column_mm))[1:-1, 1:-1] - half
    distance = np.where(plane, inside, -outside)
    return np.asarray(distance * (2 * distance.max() - distance))


def _parabola(at: IntArray, position: float) -> FloatArray:
    """Lagrange's weights of three values for the parabola through them."""
    weights = [
        np.prod([(position - other) / (here - other) for other in at if other != here], dtype=np.float64) for here in at
    ]
    return np.array(weights)
