"""Read the ROIs of an RTSTRUCT: place their contours on slices, and fill them on the grid of the image."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from prognosis_dask.arrays import BoolArray, FloatArray
from prognosis_dask.cohort.masks import StructureSet, is_closed, roi_name, structure_set
from prognosis_dask.errors import CaseError, Code, count, warn
from prognosis_dask.imaging.polygon import area, cut_by_itself, fill_even_odd, near_repeats, overlapping
from prognosis_dask.volumes.grid import Grid, to_index

#: Distance, in slice spacings, that the points of a contour may have from their common plane, and that plane from a
#: slice, without a warning: positions rounded to 0.1 mm on 1 mm slices still pass, contours of another plane do not.
OFF_PLANE = 0.1
#: Contours within this distance (mm) are at one level: positions rounded to 0.1 mm.
SAME_LEVEL_MM = 0.11
#: Contours are in mm with three decimals; indices are rounded far below that, so that a vertex on a pixel centre stays
#: exactly there despite rounding errors.
INDEX_DECIMALS = 8
#: Heights are compared in hundredths of a slice, so that contours half-way between slices all go to the same one.
HEIGHT_DECIMALS = 2
#: Tracing programs follow pixel borders: half a pixel outside the last centre, and one more half for rounding.
OUTSIDE_PIXELS = 1.0
#: Share of an ROI's outlined area that may lie outside the image; beyond it the ROI counts as outside.
MOST_OUTSIDE = 0.5
#: Two outlines within this distance (mm) of each other along their whole length are one written twice.
REPEAT_MM = 0.1
#: Two within a pixel of each other are neither certainly a repeat nor a wall that the image could resolve.
THIN_PIXELS = 1.0

#: Share of its area that a contour may enclose twice without a warning: where a line drawn by hand meets its start.
LOOP = 0.01

_CONTOUR_DATA = Tag(0x3006, 0x0050)

#: A contour inside another except for this share of its own pixels counts as inside: a hole at the edge.
APART = 0.1


@dataclass(frozen=True)
class Placed:
    """A closed contour on its nearest slice.

    ``outline`` is (n, 2), continuous (column, row) indices; ``height`` is its position along the slices, ``plane`` the
    slice, ``area`` the enclosed area in pixels.
    """

    outline: FloatArray
    height: float
    plane: int
    area: float


def closed_contours(held: StructureSet, number: int, name: str) -> list[FloatArray]:
    """The distinct closed contours of one ROI, (n, 3) in mm each.

    Raises
    ------
    CaseError
        ``ROI_AMBIGUOUS`` if several ROIs have the number, ``MASK_UNREADABLE`` if a contour is not a list of points or
        has a ContourOffsetVector.
    """
    fault = held.fault(number)
    if fault:
        raise CaseError(Code.ROI_AMBIGUOUS, f"{fault}; renumber them")
    found: dict[bytes, FloatArray] = {}
    lines = 0
    for contour in (c for item in held.contours.get(number, ()) for c in item.get("ContourSequence") or ()):
        points = _points(contour) if _CONTOUR_DATA in contour else np.empty((0, 3))
        _expect_whole(contour, points, name)
        if len(points) < 3:
            continue
        if not is_closed(contour):
            lines += 1
            continue
        _expect_in_place(contour, name)
        found.setdefault(points.tobytes(), points)
    if found and lines:
        warn(
            Code.CONTOURS_DROPPED,
            f"{lines} of the {lines + len(found)} contours of {name} are open lines, which enclose nothing",
        )
    return list(found.values())


def _points(contour: Dataset) -> FloatArray:
    """The vertices; parsed from the undecoded text if possible, ten times faster than number by number."""
    value = contour.get_item(_CONTOUR_DATA).value
    numbers = value.strip(b" \0\\").split(b"\\") if isinstance(value, bytes) else value
    try:
        points = np.array(numbers if numbers and numbers != [b""] else [], dtype=np.float64).reshape(-1, 3)
    except ValueError as error:
        raise CaseError(
            Code.MASK_UNREADABLE, f"a contour's {len(numbers)} values are not a list of x, y, z: {error}"
        ) from error
    if not np.isfinite(points).all():
        raise CaseError(Code.MASK_UNREADABLE, "a contour holds coordinates that are not finite")
    return points


def _expect_whole(contour: Dataset, points: FloatArray, name: str) -> None:
    """Refuse a truncated contour: a chord would close it. One missing point may be the closing one."""
    try:
        declared = int(contour.get("NumberOfContourPoints") or 0)
    except (TypeError, ValueError):
        return
    if declared > len(points) + 1:
        raise CaseError(
            Code.MASK_UNREADABLE,
            f"a contour of {name} holds {count(len(points), 'point')}, and NumberOfContourPoints says {declared}: it "
            "was "
            f"cut short",
        )


def _expect_in_place(contour: Dataset, name: str) -> None:
    """Refuse the retired ContourOffsetVector (3006,0045): programs disagree on how it moves a contour."""
    moved = [float(value) for value in contour.get("ContourOffsetVector") or ()]
    if any(moved):
        raise CaseError(
            Code.MASK_UNREADABLE,
            f"a contour of {name} is to be moved by the retired ContourOffsetVector, {moved} mm; expected none: move "
            f"the contours themselves",
        )


def place_contours(contours: Sequence[FloatArray], grid: Grid, name: str) -> list[Placed]:
    """Assign each contour to the nearest slice, and keep those that represent it.

    Contours more than half a slice away are outside the image and dropped. Of contours at several heights within one
    slice (1 mm planes on 3 mm slices), those nearest to the slice's plane are kept: together they would cut holes into
    each other. A repeated outline is kept once. Each of these is a warning.

    Raises
    ------
    CaseError
        ``CONTOUR_OFF_PLANE`` when a contour runs across the slices, ``MASK_OUTSIDE`` when more than
        :data:`MOST_OUTSIDE` of the outlined area lies outside the image, ``CONTOURS_AMBIGUOUS`` when two outlines are
        too near to each other to say what they mean.
    """
    placed = [_placed(points, grid, name) for points in contours]
    inside = _within_slices(placed, grid, name)
    _check_beside(inside, grid, name)
    nearest = _nearest_levels(inside, grid, name)
    kept = []
    for plane in sorted({one.plane for one in nearest}):
        kept += _different([one for one in nearest if one.plane == plane], grid, name)
    return kept


def _placed(points: FloatArray, grid: Grid, name: str) -> Placed:
    index = np.round(to_index(grid, points), INDEX_DECIMALS)
    height = float(index[:, 2].mean())
    across = float(np.abs(index[:, 2] - height).max())
    if across > OFF_PLANE:
        raise CaseError(
            Code.CONTOUR_OFF_PLANE,
            f"a contour of {name} around {_middle(points)} mm runs across the image's slices (up to {across:.2f} slice "
            f"spacings beside its own plane, tolerance {OFF_PLANE}); it was drawn on another series",
        )
    outline = _walked_once(index[:, :2], np.array(grid.spacing[:2]))
    return Placed(outline, height, int(np.floor(np.round(height, HEIGHT_DECIMALS) + 0.5)), area(outline))


def _walked_once(outline: FloatArray, spacing: FloatArray) -> FloatArray:
    """A contour that runs around the same outline several times, once: the even-odd rule would empty it."""
    starts = np.flatnonzero((np.abs(outline - outline[0]) * spacing <= REPEAT_MM).all(axis=1))
    rounds = [one for one in np.split(outline, starts[1:]) if len(one) > 2]
    if len(rounds) < 2:
        return outline
    repeats, _ = near_repeats([one * spacing for one in rounds], REPEAT_MM, REPEAT_MM)
    return rounds[0] if len(repeats) == len(rounds) - 1 else outline


def _middle(points: FloatArray) -> list[float]:
    middle: list[float] = np.round(points.mean(axis=0), 2).tolist()
    return middle


def _within_slices(placed: Sequence[Placed], grid: Grid, name: str) -> list[Placed]:
    inside = [one for one in placed if 0 <= one.plane < grid.size[2]]
    lost = 1 - sum(one.area for one in inside) / (sum(one.area for one in placed) or 1.0)
    if len(inside) == len(placed):
        return inside
    heights = sorted(one.height for one in placed)
    seen = (
        f"{len(placed) - len(inside)} of the {count(len(placed), 'contour')} of {name} lie beyond the image's "
        f"{count(grid.size[2], 'slice')}, {lost:.1%} of its outlined area (it reaches from slice {heights[0]:.1f} to "
        f"{heights[-1]:.1f})"
    )
    if not inside or lost > MOST_OUTSIDE:
        raise CaseError(Code.MASK_OUTSIDE, f"{seen}; it was drawn on another series, or slices are missing")
    warn(Code.CONTOURS_DROPPED, f"{seen}; the part in the image is used")
    return inside


def _check_beside(placed: Sequence[Placed], grid: Grid, name: str) -> None:
    """Refuse, or warn of, outlines beyond the rows or columns; filling ignores what lies outside."""
    limits = np.array(grid.size[:2]) - 1 + OUTSIDE_PIXELS
    beyond = [p for p in placed if (p.outline < -OUTSIDE_PIXELS).any() or (p.outline > limits).any()]
    if not beyond:
        return
    edge = np.array(grid.size[:2]) - 0.5
    held = sum(area(np.clip(one.outline, -0.5, edge)) for one in placed)
    lost = 1 - held / (sum(one.area for one in placed) or 1.0)
    low, high = (
        extreme(np.stack([extreme(p.outline, axis=0) for p in beyond]), axis=0) for extreme in (np.min, np.max)
    )
    seen = (
        f"{len(beyond)} of the {count(len(placed), 'contour')} of {name} reach beyond the image, {lost:.1%} of its "
        f"outlined area: columns {low[0]:.1f} to {high[0]:.1f} of {grid.size[0]}, "
        f"rows {low[1]:.1f} to {high[1]:.1f} of {grid.size[1]}"
    )
    if lost > MOST_OUTSIDE:
        raise CaseError(Code.MASK_OUTSIDE, f"{seen}; it was drawn on another series")
    warn(Code.CONTOURS_DROPPED, f"{seen}; the part in the image is used")


def _nearest_levels(placed: Sequence[Placed], grid: Grid, name: str) -> list[Placed]:
    """The contours of the level nearest to its slice, for every slice."""
    tolerance = min(SAME_LEVEL_MM / grid.spacing[2], OFF_PLANE)
    kept: list[Placed] = []
    between, furthest = 0, 0.0
    for plane in sorted({one.plane for one in placed}):
        here = [one for one in placed if one.plane == plane]
        best = min(here, key=lambda one: (round(abs(one.height - plane), HEIGHT_DECIMALS), one.height)).height
        level = [one for one in here if abs(one.height - best) <= tolerance]
        kept += level
        between += len(here) - len(level)
        furthest = max(furthest, abs(best - plane))
    if between:
        warn(
            Code.CONTOURS_DROPPED,
            f"{between} of the {count(len(placed), 'contour')} of {name} lie between the slices, which are "
            f"{grid.spacing[2]:.3f} mm apart, further from them than others: dropped",
        )
    if furthest > OFF_PLANE:
        warn(
            Code.CONTOUR_OFF_PLANE,
            f"contours of {name} lie up to {furthest:.2f} slice spacings ({furthest * grid.spacing[2]:.2f} mm) beside "
            f"the image's slices; each was put on the nearest one",
        )
    return kept


def _different(placed: list[Placed], grid: Grid, name: str) -> list[Placed]:
    """The contours of one slice without repeats, whatever their first vertex, direction, closing point or rounding."""
    spacing = np.array(grid.spacing[:2])
    outlines = [one.outline * spacing for one in placed]
    repeats, doubtful = near_repeats(outlines, REPEAT_MM, THIN_PIXELS * float(spacing.max()))
    if doubtful:
        one, apart = doubtful[0]
        raise CaseError(
            Code.CONTOURS_AMBIGUOUS,
            f"two contours of {name} on slice {placed[one].plane} run within {apart:.2f} mm of each other all along: "
            f"drawn twice, or a wall thinner than a pixel ({spacing.max():.3f} mm); leave one out",
        )
    return [one for index, one in enumerate(placed) if index not in repeats]


def rtstruct_mask(dataset: Dataset, numbers: tuple[int, ...], grid: Grid) -> BoolArray:
    """Fill the contours of the ROIs ``numbers``, merged (empty: the file's only ROI).

    All contours of one ROI in one plane are filled together by the even-odd rule
    (:func:`prognosis_dask.imaging.polygon.fill_even_odd`), so that a contour inside another cuts a hole. A repeated
    contour is dropped: it would cut away the first. Points and open lines enclose nothing. See
    :func:`prognosis_dask.imaging.rtstruct.place_contours` for the slice of a contour.

    Returns
    -------
    numpy.ndarray
        bool, (slice, row, column), of the grid's size.

    Raises
    ------
    CaseError
        ``ROI_NOT_FOUND``, ``ROI_AMBIGUOUS``, ``ROI_WITHOUT_CONTOUR``, ``MASK_UNREADABLE``, ``CONTOUR_OFF_PLANE``,
        ``CONTOURS_AMBIGUOUS``, ``MASK_OUTSIDE``, or ``MASK_EMPTY`` when the contours enclose no pixel centre.
    """
    held = structure_set(dataset)
    names = {number: roi_name(rois[0], number) for number, rois in held.rois.items()}
    masks: list[BoolArray] = []
    for number in numbers or _only(names):
        if number not in names:
            raise CaseError(Code.ROI_NOT_FOUND, f"the structure set has no ROI {number}; it has {_listed(names)}")
        contours = closed_contours(held, number, names[number])
        masks.append(_roi_mask(contours, f"ROI {number} ({names[number]})", grid))
    return reduce(np.logical_or, masks)


def _only(names: dict[int, str]) -> tuple[int, ...]:
    if len(names) != 1:
        raise CaseError(
            Code.ROI_AMBIGUOUS, f"no ROI number is given and the structure set has {len(names)}: {_listed(names)}"
        )
    return tuple(names)


def _listed(names: dict[int, str]) -> str:
    return ", ".join(f"{number} ({name})" for number, name in names.items()) or "none"


def _roi_mask(contours: list[FloatArray], name: str, grid: Grid) -> BoolArray:
    if not contours:
        raise CaseError(Code.ROI_WITHOUT_CONTOUR, f"{name} has no closed planar contour of three points or more")
    placed = place_contours(contours, grid, name)
    mask = fill_even_odd([one.outline for one in placed], [one.plane for one in placed], grid.size[::-1])
    _warn_of_crossings(placed, name)
    if not mask.any():
        raise CaseError(
            Code.MASK_EMPTY,
            f"the {len(placed)} contours of {name} enclose no pixel centre (pixels of {grid.spacing[0]:.3f} x "
            f"{grid.spacing[1]:.3f} mm)",
        )
    return mask


def _warn_of_crossings(placed: list[Placed], name: str) -> None:
    """Warn of contours that overlap without one being inside the other, or overlap themselves: that area is cut out.

    That is the even-odd rule, as in most programs; some unite them instead.
    """
    cut: dict[int, int] = {}
    for contour in placed:
        voxels = cut_by_itself(contour.outline)
        if voxels > LOOP * contour.area:
            cut[contour.plane] = cut.get(contour.plane, 0) + voxels
    for plane, group in itertools.groupby(placed, key=lambda one: one.plane):
        here = list(group)
        pairs = overlapping([one.outline for one in here])
        alone = {index: _alone(here[index].outline) for index in {index for pair in pairs for index in pair}}
        for one, other in pairs:
            voxels = _crossing(alone[one], alone[other])
            if voxels:
                cut[plane] = cut.get(plane, 0) + voxels
    if cut:
        slices = ", ".join(map(str, sorted(cut)[:8])) + (", ..." if len(cut) > 8 else "")
        warn(
            Code.CONTOURS_AMBIGUOUS,
            f"contours of {name} cross each other, or themselves, on {count(len(cut), 'slice')} ({slices}): the "
            f"{count(sum(cut.values()), 'voxel')} that they enclose twice are cut out, though some programs unite "
            f"such contours",
        )


def _alone(outline: FloatArray) -> tuple[NDArray[np.intp], BoolArray]:
    """One contour filled by itself: (row, column) of its window's first pixel, and the window."""
    first = np.floor(outline.min(axis=0))
    columns, rows = (np.ceil(outline.max(axis=0)) - first + 1).astype(int)
    return first[::-1].astype(np.intp), fill_even_odd([outline - first], [0], (1, int(rows), int(columns)))[0]


def _crossing(one: tuple[NDArray[np.intp], BoolArray], other: tuple[NDArray[np.intp], BoolArray]) -> int:
    """The pixels that both enclose; none if the smaller lies inside the larger or beside it."""
    start = np.maximum(one[0], other[0])
    stop = np.minimum(one[0] + one[1].shape, other[0] + other[1].shape)
    if (stop <= start).any():
        return 0
    parts = [
        window[start[0] - first[0] : stop[0] - first[0], start[1] - first[1] : stop[1] - first[1]]
        for first, window in (one, other)
    ]
    both = int(np.count_nonzero(parts[0] & parts[1]))
    whole = min(int(np.count_nonzero(window)) for _, window in (one, other))
    return both if whole - both > APART * whole else 0
