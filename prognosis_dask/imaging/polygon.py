"""Polygons: fill them, measure their area, and find repeats of the same contour."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from prognosis_dask.arrays import BoolArray, FloatArray


def fill_even_odd(contours: Sequence[FloatArray], planes: Sequence[int], shape: tuple[int, int, int]) -> BoolArray:
    """Fill closed polygons by the even-odd rule, all polygons of one plane together.

    A pixel is inside when its centre is. A centre on a polygon's edge belongs to the polygon on its right, or, where
    the edge is horizontal, to the one below it (half-open intervals): polygons that share an edge neither overlap nor
    leave a gap, and the two sides of a keyhole's channel cancel.

    Parameters
    ----------
    contours
        Vertices, (n, 2) each, as continuous (column, row) indices; the last is joined to the first.
    planes
        The slice of each contour.
    shape
        (slices, rows, columns) of the result. Parts of a polygon outside it are left out.

    Returns
    -------
    numpy.ndarray
        bool, (slice, row, column).
    """
    filled = np.zeros(shape, dtype=bool)
    if not contours:
        return filled
    lower, upper, _ = _edges(contours)
    plane = np.repeat(np.asarray(planes, dtype=np.intp), [len(contour) for contour in contours])
    edge, row, column = _crossings(lower, upper, shape[1:])
    if not len(edge):
        return filled

    # each crossing flips every pixel to its right; done within the bounding box only
    low = np.array([plane[edge].min(), row.min(), column.min()])
    high = np.array([plane[edge].max(), row.max(), column.max()]) + 1
    flips = np.zeros(high - low, dtype=np.uint8)
    np.add.at(flips, (plane[edge] - low[0], row - low[1], column - low[2]), 1)
    inside = (np.cumsum(flips, axis=2, dtype=np.uint8) & 1).astype(bool)
    box = tuple(slice(int(start), int(stop)) for start, stop in zip(low, high, strict=True))
    filled[box] = inside[:, :, : shape[2] - int(low[2])]
    return filled


#: Pixels of no slice: an outline that is larger around has a stray vertex far away.
_LARGEST = 1 << 26


def cut_by_itself(outline: FloatArray) -> int:
    """How many pixel centres a polygon (n, 2) surrounds twice, which the even-odd rule leaves out; mostly none.

    None of a keyhole, whose channel runs there and back: its hole is meant, whichever way it is walked around.

    >>> ring = np.array([[0.0, 0.0], [0.0, 3.0], [3.0, 3.0], [3.0, 0.0]])
    >>> cut_by_itself(ring), cut_by_itself(np.concatenate([ring, ring]))
    (0, 9)
    """
    lower, upper, forwards = _edges([outline])
    first = np.floor(outline.min(axis=0))
    columns, rows = (np.ceil(outline.max(axis=0)) - first + 1).astype(int).tolist()
    if rows * columns > _LARGEST:
        return 0
    edge, row, column = _crossings(lower - first, upper - first, (rows, columns))
    turns = np.zeros((rows, columns + 1), dtype=np.intp)
    np.add.at(turns, (row, column), np.where(forwards[edge], 1, -1))
    around = np.cumsum(turns, axis=1)
    cut = int(np.count_nonzero((around != 0) & (around % 2 == 0)))
    return 0 if cut and _has_channel(outline) else cut


def _has_channel(outline: FloatArray) -> bool:
    """Whether a polygon runs along some edge in both directions, and elsewhere in between."""
    corners: list[tuple[float, ...]] = []
    for corner in map(tuple, outline.tolist()):
        if corners and corners[-1] == corner:
            continue
        if len(corners) > 1 and corners[-2] == corner:  # there and back at once
            corners.pop()
            continue
        corners.append(corner)
    edges = set(itertools.pairwise([*corners, corners[0]]))
    return any(start != end and (end, start) in edges for start, end in edges)


def _edges(contours: Sequence[FloatArray]) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Every edge's upper-row and lower-row end, and whether the polygon runs from that to this.

    An edge is always walked towards larger rows, so that edges run along twice (keyholes) give equal crossings.
    """
    start = np.concatenate(contours)
    end = np.concatenate([np.roll(contour, -1, axis=0) for contour in contours])
    forwards: BoolArray = start[:, 1] <= end[:, 1]
    along = forwards[:, None]
    return np.where(along, start, end), np.where(along, end, start), forwards


def _crossings(
    lower: FloatArray, upper: FloatArray, shape: tuple[int, ...]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """For every row r that an edge crosses, ``low <= r < high``: the edge's number, r, and the first column beyond."""
    rows, columns = shape
    first = np.clip(np.ceil(lower[:, 1]), 0, rows).astype(np.intp)
    stop = np.clip(np.ceil(upper[:, 1]), 0, rows).astype(np.intp)
    counts = stop - first
    edge = np.repeat(np.arange(len(lower)), counts)
    before = np.cumsum(counts) - counts
    row = np.arange(len(edge)) - before[edge] + first[edge]
    a, b = lower[edge], upper[edge]
    x = a[:, 0] + (row - a[:, 1]) / (b[:, 1] - a[:, 1]) * (b[:, 0] - a[:, 0])
    return edge, row, np.clip(np.ceil(x), 0, columns).astype(np.intp)


def area(outline: FloatArray) -> float:
    """Area of a closed polygon (n, 2), by the shoelace formula.

    >>> area(np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 3.0], [0.0, 3.0]]))
    12.0
    """
    x, y = (outline - outline[0]).T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def overlapping(outlines: Sequence[FloatArray]) -> list[tuple[int, int]]:
    """The pairs of polygons (n, 2), by number, whose bounding boxes overlap."""
    low = np.array([outline.min(axis=0) for outline in outlines])
    high = np.array([outline.max(axis=0) for outline in outlines])
    meet = ((low[:, None] < high[None]) & (high[:, None] > low[None])).all(axis=2)
    return [(int(a), int(b)) for a, b in np.argwhere(np.triu(meet, 1))]


def near_repeats(outlines: Sequence[FloatArray], same: float, near: float) -> tuple[set[int], list[tuple[int, float]]]:
    """Find polygons that repeat an earlier one, whatever their first vertex, direction and rounding.

    Two polygons are the same if every vertex of each lies within ``same`` of the other's outline.

    Parameters
    ----------
    outlines
        Vertices, (n, 2) each, in mm.
    same, near
        Distances in mm.

    Returns
    -------
    tuple
        The numbers of the polygons that repeat an earlier one, and those that lie further than ``same`` but within
        ``near`` of an earlier one all along, with that distance, while either encloses a good deal more than the
        strip between them.
    """
    repeats: set[int] = set()
    doubtful: list[tuple[int, float]] = []
    boxes = np.array([[*outline.min(axis=0), *outline.max(axis=0)] for outline in outlines])
    for later in range(1, len(outlines)):
        for earlier in np.flatnonzero(np.abs(boxes[:later] - boxes[later]).max(axis=1) <= near).tolist():
            if earlier in repeats:
                continue
            apart = max(_furthest(outlines[later], outlines[earlier]), _furthest(outlines[earlier], outlines[later]))
            if apart <= same:
                repeats.add(later)
                break
            if apart <= near and float((boxes[later][2:] - boxes[later][:2]).min()) > 2 * near:
                doubtful.append((later, apart))
    return repeats, doubtful


def _furthest(points: FloatArray, outline: FloatArray) -> float:
    """The largest distance of ``points`` from the edges of a closed polygon."""
    along = np.roll(outline, -1, axis=0) - outline
    squared = np.maximum((along**2).sum(axis=1), np.finfo(np.float64).tiny)
    furthest = 0.0
    for some in np.array_split(points, len(points) // 100 + 1):
        from_start = some[:, None] - outline[None]
        share = np.clip((from_start * along).sum(axis=2) / squared, 0, 1)
        beside = from_start - share[..., None] * along
        furthest = max(furthest, float((beside**2).sum(axis=2).min(axis=1).max()))
    return math.sqrt(furthest)
