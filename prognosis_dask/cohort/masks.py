"""The contents of an RTSTRUCT or a SEG: its structures, and the images that they reference.

Items are read one by one, so that a defective one does not cost the others.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from prognosis_dask.cohort.headers import FileStamp, MaskHeader, Point, Structure, patient_id
from prognosis_dask.errors import Code, Problem

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


#: Without underscores: DICOM's CLOSED_PLANAR and CLOSEDPLANAR_XOR, which some writers spell alike.
_CLOSED = ("CLOSEDPLANAR", "CLOSEDPLANARXOR")

#: A contour needs three points to enclose an area.
_LEAST_NUMBERS = 9
#: Key of frames without a segment number: of label maps, and of files that name one segment for all frames.
_ANY = -1
_LABEL_MAP_CLASS = "1.2.840.10008.5.1.4.1.1.66.7"


@dataclass(frozen=True)
class StructureSet:
    """The items of a structure set by ROI number, and faults of items.

    Attributes
    ----------
    rois
        Items of StructureSetROISequence: names.
    contours
        Items of ROIContourSequence.
    faults
        A sentence for each kind of item that belongs to no ROI.
    """

    rois: dict[int, list[Dataset]]
    contours: dict[int, list[Dataset]]
    faults: tuple[str, ...]

    def fault(self, number: int) -> str:
        """Why the ROI ``number`` is ambiguous; empty if it is one ROI with one item of contours."""
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
    """The items of a sequence by number, and how many lack one."""
    found: dict[int, list[Dataset]] = defaultdict(list)
    without = 0
    items: Iterable[Dataset] = dataset.get(sequence) or ()
    for item in items:
        try:
            found[int(item[keyword].value)].append(item)
        except (KeyError, TypeError, ValueError, OverflowError):  # absent, empty or not a number
            without += 1
    return dict(found), without


def roi_name(roi: Dataset, number: int) -> str:
    """ROIName, or the number if the name is empty, as DICOM allows, or unreadable."""
    try:
        name = _as_meant(str(roi.get("ROIName", "") or "")).strip()
    except Exception:  # an unknown character set may raise anything
        name = ""
    return name or f"ROI {number}"


def _as_meant(name: str) -> str:
    """A name in UTF-8 that was read as Latin-1, which is what no SpecificCharacterSet, or a wrong one, says."""
    try:
        return name.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return name


def is_closed(contour: Dataset) -> bool:
    """Whether a contour is closed according to its type; an absent or empty type counts as closed."""
    kind = str(contour.get("ContourGeometricType") or _CLOSED[0])
    return kind.replace("_", "").strip().upper() in _CLOSED


def mask_header(dataset: Dataset, file: FileStamp) -> MaskHeader:
    """The header of an RTSTRUCT or SEG dataset that was read without its pixels."""
    if not dataset.get("SOPInstanceUID"):
        raise ValueError("the header lacks SOPInstanceUID")
    structures = dataset.get("Modality") == "RTSTRUCT" or "StructureSetROISequence" in dataset
    header = _rtstruct(dataset, file) if structures else _segmentation(dataset, file)
    return replace(header, is_rejected=str(dataset.get("ApprovalStatus") or "").strip().upper() == "REJECTED")


def _rtstruct(dataset: Dataset, file: FileStamp) -> MaskHeader:
    declared: set[str] = set()
    series: list[str] = []
    images: set[str] = set()
    for reference in _items(dataset, "ReferencedFrameOfReferenceSequence"):
        declared.add(_uid(reference, "FrameOfReferenceUID"))
        for study in _items(reference, "RTReferencedStudySequence"):
            for item in _items(study, "RTReferencedSeriesSequence"):
                series.append(_uid(item, "SeriesInstanceUID"))
                images.update(_referenced(_items(item, "ContourImageSequence")))
    held = structure_set(dataset)
    frames = {*declared, _uid(dataset, "FrameOfReferenceUID")}
    structures = []
    for number, rois in held.rois.items():
        for roi in rois:
            own = _uid(roi, "ReferencedFrameOfReferenceUID")
            frames.add(own)
            structures.append(replace(_roi(roi_name(roi, number), number, held), frame_uid=own))
    return MaskHeader(
        file=file,
        kind="RTSTRUCT",
        sop_uid=str(dataset.SOPInstanceUID),
        patient_id=patient_id(dataset),
        frame_of_reference_uids=frozenset(frames - {""}),
        series_uids=tuple(dict.fromkeys(uid for uid in series if uid)),
        sop_uids=frozenset(images),
        structures=tuple(structures),
        faults=held.faults,
        declared_frames=frozenset(declared - {""}),
    )


def _roi(name: str, number: int, held: StructureSet) -> Structure:
    points: list[Point] = []
    drawn_on: list[str] = []
    sources: set[str] = set()
    ambiguity = held.fault(number)
    fault = Problem(Code.ROI_AMBIGUOUS, ambiguity) if ambiguity else None
    for contour in (c for item in held.contours.get(number, ()) for c in _items(item, "ContourSequence")):
        try:
            point = _first_point(contour) if is_closed(contour) else None
        except (TypeError, ValueError) as error:
            fault = fault or Problem(Code.MASK_UNREADABLE, f"a contour's ContourData cannot be read: {error}")
            continue
        if point is not None:
            points.append(point)
            images = list(_referenced(_items(contour, "ContourImageSequence")))
            sources.update(images)
            drawn_on.append(images[0] if len(images) == 1 else "")
    return Structure(
        number,
        (name,),
        tuple(points),
        frozenset(sources),
        tuple(drawn_on),
        empty=not (points or fault),
        fault=fault,
    )


def _first_point(contour: Dataset) -> Point | None:
    """The first point of a contour with an area. Only three numbers are parsed: there may be a million."""
    element = contour.get_item("ContourData")
    value = None if element is None else element.value
    if value is None:
        return None
    if isinstance(value, bytes):
        if value.count(b"\\") + 1 < _LEAST_NUMBERS:
            return None
        numbers = [float(text) for text in value.split(b"\\", 3)[:3]]
    else:
        if len(value) < _LEAST_NUMBERS:
            return None
        numbers = [float(number) for number in value[:3]]
    return numbers[0], numbers[1], numbers[2]


def _segmentation(dataset: Dataset, file: FileStamp) -> MaskHeader:
    series = list(_items(dataset, "ReferencedSeriesSequence"))
    images = set(_referenced(_items(dataset, "SourceImageSequence")))
    for item in series:
        images.update(_referenced(_items(item, "ReferencedInstanceSequence")))
    for group in _items(dataset, "SharedFunctionalGroupsSequence"):
        images.update(_sources(group))
    return MaskHeader(
        file=file,
        kind="SEG",
        sop_uid=str(dataset.SOPInstanceUID),
        patient_id=patient_id(dataset),
        frame_of_reference_uids=frozenset({_uid(dataset, "FrameOfReferenceUID")} - {""}),
        series_uids=tuple(dict.fromkeys(uid for item in series if (uid := _uid(item, "SeriesInstanceUID")))),
        sop_uids=frozenset(images),
        structures=_segments(dataset),
    )


def is_label_map(dataset: Dataset) -> bool:
    """Whether pixels are segment numbers, by SegmentationType or, if that is absent, by the SOP class."""
    kind = str(dataset.get("SegmentationType") or "")
    return kind == "LABELMAP" or (not kind and str(dataset.get("SOPClassUID", "")) == _LABEL_MAP_CLASS)


def _segments(dataset: Dataset) -> tuple[Structure, ...]:
    label_map = is_label_map(dataset)
    points: dict[int, list[Point]] = defaultdict(list)
    sources: dict[int, set[str]] = defaultdict(set)
    drawn_on: dict[int, list[str]] = defaultdict(list)
    for frame in _items(dataset, "PerFrameFunctionalGroupsSequence"):
        number = _ANY if label_map else _segment_number(frame)
        images = list(_sources(frame))
        sources[number].update(images)
        for plane in _items(frame, "PlanePositionSequence"):
            x, y, z = (float(value) for value in plane.ImagePositionPatient)
            points[number].append((x, y, z))
            drawn_on[number].append(images[0] if len(images) == 1 else "")
    structures = []
    for segment in _items(dataset, "SegmentSequence"):
        number = int(segment.SegmentNumber)
        if label_map and number == 0:  # the background of a label map is not a structure
            continue
        key = number if number in sources else _ANY
        names, seen = _segment_names(segment), frozenset(sources.get(key, ()))
        places, named = tuple(points.get(key, ())), tuple(drawn_on.get(key, ()))
        structures.append(Structure(number, names, places, seen, named, empty=key not in sources))
    numbers = Counter(structure.number for structure in structures)
    structures = [
        replace(structure, fault=_twice(structure.number, numbers[structure.number])) for structure in structures
    ]
    labels = [structure.names[0] for structure in structures]
    # a label that several segments share does not identify them: use their descriptions
    return tuple(replace(s, names=s.names[::-1]) if labels.count(s.names[0]) > 1 else s for s in structures)


def _twice(number: int, times: int) -> Problem | None:
    if times < 2:
        return None
    reason = f"{times} segments have the number {number}, so that their frames cannot be told apart"
    return Problem(Code.ROI_AMBIGUOUS, reason)


def _segment_names(segment: Dataset) -> tuple[str, ...]:
    """SegmentLabel and SegmentDescription; without either, what the segment is by its code.

    TCIA's segmentations name the anatomy in the label ("Neoplasm, Primary") and the ROI in the description ("GTV-1").
    """
    names = [_as_meant(str(segment.get(key, "") or "")).strip() for key in ("SegmentLabel", "SegmentDescription")]
    if not any(names):
        coded = _items(segment, "SegmentedPropertyTypeCodeSequence")
        names = [str(item.get("CodeMeaning", "") or "").strip() for item in coded]
    return tuple(dict.fromkeys(name for name in names if name)) or (str(segment.SegmentNumber),)


def _segment_number(frame: Dataset) -> int:
    for item in _items(frame, "SegmentIdentificationSequence"):
        return int(item.ReferencedSegmentNumber)
    return _ANY


def _sources(group: Dataset) -> Iterable[str]:
    for derivation in _items(group, "DerivationImageSequence"):
        yield from _referenced(_items(derivation, "SourceImageSequence"))


def _referenced(items: Iterable[Dataset]) -> Iterable[str]:
    """The UIDs of the referenced instances; for single frames the UID, ``#`` and the frame number."""
    for item in items:
        uid = _uid(item, "ReferencedSOPInstanceUID")
        frames = item.get("ReferencedFrameNumber")
        if uid and frames:
            yield from (f"{uid}#{frame}" for frame in (frames if isinstance(frames, Sequence) else [frames]))
        elif uid:
            yield uid


def _uid(item: Dataset, name: str) -> str:
    return str(item.get(name, "") or "")


def _items(dataset: Dataset, name: str) -> Iterable[Dataset]:
    """The items of a sequence; none if it is absent or empty."""
    return dataset.get(name) or ()
