"""An RTSTRUCT's regions of interest on the grid of the image that they were drawn on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from prognosis_dask.errors import CaseError, Code
from prognosis_dask.imaging.geometry import to_index
from prognosis_dask.imaging.polygon import fill_even_odd
from prognosis_dask.imaging.roi import Grid

#: How far, in slice spacings, a contour may lie from its slice: positions rounded to 0.1 mm on 1 mm slices still pass,
#: contours drawn on another series do not.
OFF_PLANE = 0.1
#: Contours are in mm with three decimals; indices are rounded far below that, so that a vertex on a pixel centre is
#: exactly there, whatever the last bit of the arithmetic.
INDEX_DECIMALS = 8
#: Tracing programs follow pixel borders: half a pixel outside the last centre, and one more half for rounding.
OUTSIDE_PIXELS = 1.0

_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_CONTOUR_DATA = Tag(0x3006, 0x0050)


def rtstruct_mask(dataset: Dataset, numbers: tuple[int, ...], grid: Grid) -> NDArray[np.bool_]:
    """Fill the contours of the ROIs ``numbers`` (all merged; none named: the file's only ROI).

    All contours of one ROI in one plane are filled together by the even-odd rule
    (:func:`prognosis_dask.imaging.polygon.fill_even_odd`), so that a contour inside another cuts a hole. A contour
    that repeats another is left out: it would cut away what it repeats. Points and open lines enclose nothing.

    Returns
    -------
    numpy.ndarray
        bool, (slice, row, column), of the grid's size.

    Raises
    ------
    CaseError
        ``ROI_NOT_FOUND``, ``ROI_AMBIGUOUS``, ``ROI_WITHOUT_CONTOUR``, ``CONTOUR_OFF_PLANE``, ``MASK_OUTSIDE``, or
        ``MASK_EMPTY`` when the contours enclose no pixel centre.
    """
    names = {int(item.ROINumber): str(item.get("ROIName", "")) for item in dataset.get("StructureSetROISequence") or ()}
    mask: NDArray[np.bool_] = np.zeros(grid.size[::-1], dtype=bool)
    for number in numbers or _only(names):
        if number not in names:
            raise CaseError(Code.ROI_NOT_FOUND, f"the structure set has no ROI {number}; it has {_listed(names)}")
        mask |= _roi_mask(dataset, number, names[number], grid)
    return mask


def _only(names: dict[int, str]) -> tuple[int, ...]:
    if len(names) != 1:
        raise CaseError(
            Code.ROI_AMBIGUOUS, f"no ROI number is given and the structure set has {len(names)}: {_listed(names)}"
        )
    return tuple(names)


def _listed(names: dict[int, str]) -> str:
    return ", ".join(f"{number} ({name})" for number, name in names.items()) or "none"


def _roi_mask(dataset: Dataset, number: int, name: str, grid: Grid) -> NDArray[np.bool_]:
    contours = _contours(dataset, number)
    if not contours:
        raise CaseError(
            Code.ROI_WITHOUT_CONTOUR, f"ROI {number} ({name}) has no closed planar contour of three points or more"
        )
    indices = [np.round(to_index(grid, points), INDEX_DECIMALS) for points in contours]
    planes = [_plane(index, points, grid, name) for index, points in zip(indices, contours, strict=True)]
    mask = fill_even_odd([index[:, :2] for index in indices], planes, grid.size[::-1])
    if not mask.any():
        raise CaseError(
            Code.MASK_EMPTY,
            f"the {len(contours)} contours of ROI {number} ({name}) enclose no pixel centre (pixels of "
            f"{grid.spacing[0]:.3f} x {grid.spacing[1]:.3f} mm)",
        )
    return mask


def _contours(dataset: Dataset, number: int) -> list[NDArray[np.float64]]:
    """Every different closed contour of one ROI, (n, 3) in mm each."""
    found: dict[bytes, NDArray[np.float64]] = {}
    for roi in dataset.get("ROIContourSequence") or ():
        if int(roi.ReferencedROINumber) != number:
            continue
        for contour in roi.get("ContourSequence") or ():
            if contour.get("ContourGeometricType", "CLOSED_PLANAR") in _CLOSED and _CONTOUR_DATA in contour:
                points = _points(contour)
                if len(points) >= 3:
                    found.setdefault(points.tobytes(), points)
    return list(found.values())


def _points(contour: Dataset) -> NDArray[np.float64]:
    """The vertices; taken from the undecoded text where there is one, ten times faster than number by number."""
    value = contour.get_item(_CONTOUR_DATA).value
    numbers = value.strip(b" \0").split(b"\\") if isinstance(value, bytes) else value
    try:
        return np.array(numbers if numbers and numbers != [b""] else [], dtype=np.float64).reshape(-1, 3)
    except ValueError as error:
        raise CaseError(
            Code.MASK_UNREADABLE, f"a contour's {len(numbers)} values are no list of x, y, z: {error}"
        ) from error


def _plane(index: NDArray[np.float64], points: NDArray[np.float64], grid: Grid, name: str) -> int:
    """The slice that a contour lies on."""
    columns, rows, slices = grid.size
    plane = int(np.rint(index[:, 2].mean()))
    off = float(np.abs(index[:, 2] - plane).max())
    middle = np.round(points.mean(axis=0), 2).tolist()
    if off > OFF_PLANE:
        raise CaseError(
            Code.CONTOUR_OFF_PLANE,
            f"a contour of {name} around {middle} mm lies {off:.2f} slice spacings from the nearest slice (tolerance "
            f"{OFF_PLANE}); it was drawn on another series, or on another plane",
        )
    low, high = index[:, :2].min(axis=0), index[:, :2].max(axis=0)
    beside = low.min() < -OUTSIDE_PIXELS or (high > np.array([columns, rows]) - 1 + OUTSIDE_PIXELS).any()
    if beside or not 0 <= plane < slices:
        raise CaseError(
            Code.MASK_OUTSIDE,
            f"a contour of {name} around {middle} mm lies outside the image: slice {plane} of {slices}, columns "
            f"{low[0]:.1f} to {high[0]:.1f} of {columns}, rows {low[1]:.1f} to {high[1]:.1f} of {rows}",
        )
    return plane
