"""Empty slices within a structure's span: missing planes, or the space between two lesions; how they are filled.

Contours or frames on every second slice, as where a structure was drawn on thicker slices than the image has, and a
contour that was forgotten, leave holes through a lesion that no later step notices. Two lesions in one ROI leave empty
slices too. Shape distinguishes them:

* If the parts below and above the empty slices do not overlap in the plane, they are two lesions.
* Where they do, a convex body with a slab cut out is widest, on one side of the cut at least, at the cut itself: the
  side away from its equator. Two bodies each close towards the space between them. So planes are missing where a part
  ends at the gap with at least :data:`BLUNT` of its largest section, and the gap is no longer than that part, or less
  than half of all slices from the first to the last are drawn.
* Where no two drawn slices are neighbours, that is the rhythm of thicker slices, whatever the sections.

A lesion's shape is interpolated between the slices on which it is outlined: each outline becomes a level function of
its slice, which is interpolated along the slices and cut at zero: shape-based interpolation (Raya SP, Udupa JK.
Shape-based interpolation of multidimensional objects. IEEE Trans Med Imaging 1990;9:32). The level is not the distance
d from the outline itself, but d (2 r - d), r the largest distance in the slice: for round sections that is the squared
radius less the squared distance from the centre, of which a ball's and an ellipsoid's change along the slices is a
parabola. Three outlines give an ellipsoid back; distances would give a double cone of half its volume. Along the slices
the interpolation is cubic and without overshoot (Fritsch FN, Carlson RE. Monotone piecewise cubic interpolation. SIAM J
Numer Anal 1980;17:238).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage
from scipy.ndimage import distance_transform_edt

from prognosis_dask.arrays import BoolArray, FloatArray, IntArray
from prognosis_dask.errors import CaseError, Code, count, warn
from prognosis_dask.imaging.geometry import image_like
from prognosis_dask.imaging.roi import Box, bounding_box
from prognosis_dask.volumes.grid import Grid

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


#: A part whose last section is at least this share of its largest one was cut off rather than closed. Spheres on three
#: slices or more end with three quarters at most.
BLUNT = 0.8
#: Missing volume by shape, as a share of the mask's voxels, from which a gap is a problem rather than a warning.
MATERIAL = 0.01
#: More planes than this are stripes where no two are neighbours.
_STRIPES = 2


@dataclass(frozen=True)
class Gap:
    """Empty slices between two outlined ones that overlap in the plane.

    Attributes
    ----------
    first, last
        The empty slices.
    missing
        Whether planes are missing; else it may be the space between two lesions.
    fill
        Shape-based interpolation of the gap's slices, (slice, row, column).
    """

    first: int
    last: int
    missing: bool
    fill: BoolArray


def settle_gaps(mask: BoolArray, grid: Grid, *, fill: bool, keep: bool, where: str = "") -> BoolArray:
    """Return the mask to be measured; refuse or fill it if planes are missing.

    Parameters
    ----------
    mask
        (slice, row, column), with a voxel at least.
    grid
        The mask's.
    fill
        Fill missing planes by shape.
    keep
        Treat the parts as separate lesions, and leave the mask unchanged.
    where
        The mask's file, for messages.

    Raises
    ------
    CaseError
        ``MASK_GAPS`` if planes are missing and neither ``fill`` nor ``keep`` is set.
    """
    if keep:
        return mask
    box = bounding_box(mask)
    start, part = box[0][0], mask[tuple(slice(*span) for span in box)]
    _warn_of_skipped(part, start, where)
    _warn_of_stripes(part, where)
    if part.any(axis=(1, 2)).all():
        return mask
    gaps = find_gaps(part, grid.spacing[:2])
    missing, others = ([gap for gap in gaps if gap.missing is wanted] for wanted in (True, False))
    if others:
        warn(
            Code.MASK_GAPS,
            f"the mask is empty on {_slices(others, start)} between parts that lie over each other; they close "
            "towards the gap and were taken as separate lesions",
            where=where,
        )
    return _settled(mask, missing, box, fill, where) if missing else mask


def _settled(mask: BoolArray, missing: Sequence[Gap], box: Box, fill: bool, where: str) -> BoolArray:
    voxels = int(np.count_nonzero(mask))
    added = sum(int(np.count_nonzero(gap.fill)) for gap in missing)
    seen = (
        f"the mask is empty on {_slices(missing, box[0][0])} of those from {box[0][0]} to {box[0][1] - 1}, within a "
        f"structure: {added / voxels:.1%} of its {count(voxels, 'voxel')} by shape"
    )
    if fill:
        warn(Code.MASK_GAPS, f"{seen}; filled by shape", where=where)
        return _filled(mask, missing, box)
    if added < MATERIAL * voxels:
        warn(Code.MASK_GAPS, f"{seen}; left as it is", where=where)
        return mask
    raise CaseError(
        Code.MASK_GAPS,
        f"{seen}; contours are missing, or it was drawn on thicker slices. image.fill_gaps = true fills them, "
        f"image.keep_gaps = true takes the parts as separate lesions",
        where=where,
    )


def _warn_of_skipped(mask: BoolArray, start: int, where: str) -> None:
    """Warn if a part of the mask is missing on one slice on which another part is outlined.

    Its sections on the slices below and above overlap by at least half.
    """
    skipped: dict[int, int] = {}
    material = MATERIAL * np.count_nonzero(mask)
    for middle in range(1, len(mask) - 1):
        between = mask[middle - 1] & mask[middle + 1] & ~mask[middle]
        if np.count_nonzero(between) < material or not mask[middle].any():
            continue
        below, above = (_largest_held(mask[middle + side], between) for side in (-1, 1))
        voxels = int(np.count_nonzero(between & below & above))
        if voxels >= material and voxels >= max(np.count_nonzero(below), np.count_nonzero(above)) / 2:
            skipped[start + middle] = voxels
    if skipped:
        listed = ", ".join(map(str, list(skipped)[:8])) + (", ..." if len(skipped) > 8 else "")
        warn(
            Code.MASK_GAPS,
            f"a part of the mask is missing on {count(len(skipped), 'slice')} ({listed}) between slices that hold it, "
            f"{count(sum(skipped.values()), 'voxel')}: was a contour forgotten? Used as it is",
            where=where,
        )


def _warn_of_stripes(mask: BoolArray, where: str) -> None:
    """Warn of a mask that has a voxel on every other plane across rows or columns at most."""
    for axis, name in ((1, "row"), (2, "column")):
        outlined = outlined_planes(mask, axis)
        if len(outlined) > _STRIPES and apart(outlined):
            warn(
                Code.MASK_GAPS,
                f"the mask has voxels on {len(outlined)} of {mask.shape[axis]} {name}s, no two of them neighbours: was "
                "it drawn on slices of another direction, and not on all of them? Used as it is",
                where=where,
            )


def _largest_held(plane: BoolArray, between: BoolArray) -> BoolArray:
    """The connected part of a slice that contains most of the voxels ``between``."""
    parts, _ = ndimage.label(plane)
    return np.asarray(parts == np.bincount(parts[between]).argmax())


def find_gaps(mask: BoolArray, spacing_mm: Sequence[float]) -> list[Gap]:
    """The runs of empty slices whose neighbours overlap in the plane.

    Parameters
    ----------
    mask
        (slice, row, column); not empty on its first and last slice.
    spacing_mm
        (x, y).
    """
    drawn = np.flatnonzero(mask.any(axis=(1, 2)))
    parts, _ = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    steps = np.diff(drawn)
    rhythm = len(drawn) > 2 and int(steps.min()) > 1
    found = []
    for below, above in zip(drawn[:-1][steps > 1].tolist(), drawn[1:][steps > 1].tolist(), strict=True):
        over = mask[below] & mask[above]
        regular = rhythm and above - below <= np.median(steps)
        if not (over.any() or regular):
            continue
        sparse = 2 * len(drawn) < len(mask)
        cut = over.any() and any(_is_cut(parts, over, end, above - below - 1, sparse) for end in (below, above))
        near = drawn[max(0, np.searchsorted(drawn, below) - 1) : np.searchsorted(drawn, above) + 2]
        fill = level_between(mask[near], near, np.arange(below + 1, above), spacing_mm)
        found.append(Gap(below + 1, above - 1, bool(rhythm or cut), fill))
    return found


def _is_cut(parts: NDArray[np.int32], over: BoolArray, end: int, empty: int, sparse: bool) -> bool:
    """Whether the part of the mask next to the gap was cut off, that is, does not close."""
    body = np.isin(parts, np.unique(parts[end][over]))
    sections = np.count_nonzero(body, axis=(1, 2))
    long_enough = empty <= np.count_nonzero(sections) or sparse
    return bool(long_enough and sections[end] >= BLUNT * sections.max())


def _filled(mask: BoolArray, gaps: Sequence[Gap], box: Box) -> BoolArray:
    whole = mask.copy()
    (first, _), rows, columns = box
    for gap in gaps:
        whole[first + gap.first : first + gap.last + 1, slice(*rows), slice(*columns)] = gap.fill
    return whole


def _slices(gaps: Sequence[Gap], start: int) -> str:
    """The empty slices by number, at most a few.

    >>> nothing = np.zeros((1, 1, 1), dtype=bool)
    >>> _slices([Gap(1, 1, True, nothing), Gap(4, 6, True, nothing)], 10)
    '4 slices (11, 14-16)'
    """
    number = sum(gap.last - gap.first + 1 for gap in gaps)
    runs = [f"{start + g.first}" + (f"-{start + g.last}" if g.last > g.first else "") for g in gaps]
    return f"{count(number, 'slice')} ({', '.join(runs[:8])}{', ...' if len(runs) > 8 else ''})"
