"""An RTSTRUCT's regions of interest on the grid of the image that they were drawn on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from prognosis_dask.cohort.structure_set import roi_name, structure_set
from prognosis_dask.errors import CaseError, Code
from prognosis_dask.imaging.contours import closed_contours, place_contours
from prognosis_dask.imaging.polygon import fill_even_odd
from prognosis_dask.imaging.roi import Grid


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
    if not mask.any():
        raise CaseError(
            Code.MASK_EMPTY,
            f"the {len(placed)} contours of {name} enclose no pixel centre (pixels of {grid.spacing[0]:.3f} x "
            f"{grid.spacing[1]:.3f} mm)",
        )
    return mask
