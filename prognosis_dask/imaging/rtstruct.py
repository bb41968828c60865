"""An RTSTRUCT's regions of interest on the grid of the image that they were drawn on."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from prognosis_dask.cohort.structure_set import roi_name, structure_set
from prognosis_dask.counting import count
from prognosis_dask.errors import CaseError, Code, warn
from prognosis_dask.imaging.contours import Placed, closed_contours, place_contours
from prognosis_dask.imaging.polygon import fill_even_odd, overlapping
from prognosis_dask.imaging.roi import Grid

#: A contour that lies within another but for this share of its own pixels was meant to: a hole at the edge.
APART = 0.1


def rtstruct_mask(dataset: Dataset, numbers: tuple[int, ...], grid: Grid) -> NDArray[np.bool_]:
    """Fill the contours of the ROIs ``numbers`` (all merged; none named: the file's only ROI).

    All contours of one ROI in one plane are filled together by the even-odd rule
    (:func:`prognosis_dask.imaging.polygon.fill_even_odd`), so that a contour inside another cuts a hole. A contour
    that repeats another is left out: it would cut away what it repeats. Points and open lines enclose nothing. Which
    slice a contour lies on, :func:`prognosis_dask.imaging.contours.place_contours` says.

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
    mask: NDArray[np.bool_] = np.zeros(grid.size[::-1], dtype=bool)
    for number in numbers or _only(names):
        if number not in names:
            raise CaseError(Code.ROI_NOT_FOUND, f"the structure set has no ROI {number}; it has {_listed(names)}")
        contours = closed_contours(held, number, names[number])
        mask |= _roi_mask(contours, f"ROI {number} ({names[number]})", grid)
    return mask


def _only(names: dict[int, str]) -> tuple[int, ...]:
    if len(names) != 1:
        raise CaseError(
            Code.ROI_AMBIGUOUS, f"no ROI number is given and the structure set has {len(names)}: {_listed(names)}"
        )
    return tuple(names)


def _listed(names: dict[int, str]) -> str:
    return ", ".join(f"{number} ({name})" for number, name in names.items()) or "none"


def _roi_mask(contours: list[NDArray[np.float64]], name: str, grid: Grid) -> NDArray[np.bool_]:
    if not contours:
        raise CaseError(Code.ROI_WITHOUT_CONTOUR, f"{name} has no closed planar contour of three points or more")
    placed = place_contours(contours, grid, name)
    mask = fill_even_odd([one.outline for one in placed], [one.plane for one in placed], grid.size[::-1])
    _tell_crossings(placed, name)
    if not mask.any():
        raise CaseError(
            Code.MASK_EMPTY,
            f"the {len(placed)} contours of {name} enclose no pixel centre (pixels of {grid.spacing[0]:.3f} x "
            f"{grid.spacing[1]:.3f} mm)",
        )
    return mask


def _tell_crossings(placed: list[Placed], name: str) -> None:
    """Warn of contours that overlap and are not one within the other: what both enclose is cut out.

    The even-odd rule says so, as in most programs; some unite them instead.
    """
    cut: dict[int, int] = {}
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
            f"contours of {name} cross each other on {count(len(cut), 'slice')} ({slices}): the "
            f"{count(sum(cut.values()), 'voxel')} that two of them enclose are cut out, though some programs unite "
            f"such contours",
        )


def _alone(outline: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """One contour by itself: the (row, column) of its window's first pixel, and the window."""
    first = np.floor(outline.min(axis=0))
    columns, rows = (np.ceil(outline.max(axis=0)) - first + 1).astype(int)
    return first[::-1].astype(np.intp), fill_even_odd([outline - first], [0], (1, int(rows), int(columns)))[0]


def _crossing(
    one: tuple[NDArray[np.intp], NDArray[np.bool_]], other: tuple[NDArray[np.intp], NDArray[np.bool_]]
) -> int:
    """The pixels that both enclose; none where the smaller lies within the larger, or beside it."""
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
