"""What an RTSTRUCT's items are: which ROI each belongs to, and which contours enclose anything.

Items are looked at one by one, so that a defective one costs itself and not the file.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")


@dataclass(frozen=True)
class StructureSet:
    """The items of a structure set by ROI number, and what is wrong with some of them.

    Attributes
    ----------
    rois
        Items of StructureSetROISequence: names.
    contours
        Items of ROIContourSequence.
    faults
        Of the items that belong to no ROI, a sentence each.
    """

    rois: dict[int, list[Dataset]]
    contours: dict[int, list[Dataset]]
    faults: tuple[str, ...]

    def fault(self, number: int) -> str:
        """Why nobody can tell what the ROI ``number`` is; empty where it is one ROI with one item of contours."""
        rois, contours = self.rois[number], self.contours.get(number, [])
        if len(rois) > 1:
            names = ", ".join(repr(roi_name(roi, number)) for roi in rois)
            return f"{len(rois)} ROIs have the number {number} ({names}), so that their contours cannot be told apart"
        if len(contours) > 1:
            return f"{len(contours)} items of contours have the number {number} ({roi_name(rois[0], number)!r})"
        return ""


def structure_set(dataset: Dataset) -> StructureSet:
    """Sort the items of an RTSTRUCT by the number of their ROI."""
    rois, nameless = _by_number(dataset, "StructureSetROISequence", "ROINumber")
    contours, stray = _by_number(dataset, "ROIContourSequence", "ReferencedROINumber")
    unknown = [number for number in contours if number not in rois]
    faults = []
    if nameless:
        faults.append(f"{nameless} of StructureSetROISequence's items without a usable ROINumber")
    if stray:
        faults.append(f"{stray} of ROIContourSequence's items without a usable ReferencedROINumber")
    if unknown:
        faults.append(f"contours of ROIs that the file does not name: {', '.join(map(str, unknown))}")
    return StructureSet(rois, contours, tuple(faults))


def _by_number(dataset: Dataset, sequence: str, keyword: str) -> tuple[dict[int, list[Dataset]], int]:
    """The items of a sequence by number, and how many have none."""
    found: dict[int, list[Dataset]] = defaultdict(list)
    without = 0
    items: Iterable[Dataset] = dataset.get(sequence) or ()
    for item in items:
        try:
            found[int(item[keyword].value)].append(item)
        except (KeyError, TypeError, ValueError, OverflowError):  # absent, empty, no number
            without += 1
    return dict(found), without


def roi_name(roi: Dataset, number: int) -> str:
    """ROIName; where it is empty, as DICOM allows, or cannot be read, the number stands for it."""
    try:
        name = str(roi.get("ROIName", "") or "").strip()
    except Exception:  # a character set that nobody knows raises what it likes
        name = ""
    return name or f"ROI {number}"


def is_closed(contour: Dataset) -> bool:
    """Whether a contour encloses an area by its type; an absent or empty type says nothing against it."""
    kind = str(contour.get("ContourGeometricType") or _CLOSED[0])
    return kind.strip().upper() in _CLOSED
