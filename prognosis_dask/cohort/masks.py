"""What an RTSTRUCT or a SEG says about itself: its structures, and the images that it refers to."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from prognosis_dask.cohort.files import FileStamp
from prognosis_dask.cohort.headers import MaskHeader, Point, Structure, patient_id
from prognosis_dask.cohort.structure_set import StructureSet, is_closed, roi_name, structure_set
from prognosis_dask.errors import Code, Problem

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

#: A contour encloses an area from three points on.
_LEAST_NUMBERS = 9
#: Frames that name no segment of their own: all of a label map's, and where one segment is named for all frames.
_ANY = -1
_LABEL_MAP_CLASS = "1.2.840.10008.5.1.4.1.1.66.7"


def mask_header(dataset: Dataset, file: FileStamp) -> MaskHeader:
    """The header of an RTSTRUCT or SEG dataset that was read without its pixels."""
    if not dataset.get("SOPInstanceUID"):
        raise ValueError("the header lacks SOPInstanceUID")
    structures = dataset.get("Modality") == "RTSTRUCT" or "StructureSetROISequence" in dataset
    return _rtstruct(dataset, file) if structures else _segmentation(dataset, file)


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
    images: set[str] = set()
    told = held.fault(number)
    fault = Problem(Code.ROI_AMBIGUOUS, told) if told else None
    for contour in (c for item in held.contours.get(number, ()) for c in _items(item, "ContourSequence")):
        try:
            point = _first_point(contour) if is_closed(contour) else None
        except (TypeError, ValueError) as error:
            fault = fault or Problem(Code.MASK_UNREADABLE, f"a contour's ContourData cannot be read: {error}")
            continue
        if point is not None:
            points.append(point)
            images.update(_referenced(_items(contour, "ContourImageSequence")))
    return Structure(number, (name,), tuple(points), frozenset(images), empty=not (points or fault), fault=fault)


def _first_point(contour: Dataset) -> Point | None:
    """The first point of a contour with an area. Only three numbers are parsed: there can be a million."""
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
    """Whether a segmentation's pixels are segment numbers: it says so, or its class does where it says nothing."""
    kind = str(dataset.get("SegmentationType") or "")
    return kind == "LABELMAP" or (not kind and str(dataset.get("SOPClassUID", "")) == _LABEL_MAP_CLASS)


def _segments(dataset: Dataset) -> tuple[Structure, ...]:
    label_map = is_label_map(dataset)
    points: dict[int, list[Point]] = defaultdict(list)
    sources: dict[int, set[str]] = defaultdict(set)
    for frame in _items(dataset, "PerFrameFunctionalGroupsSequence"):
        number = _ANY if label_map else _segment_number(frame)
        sources[number].update(_sources(frame))
        for plane in _items(frame, "PlanePositionSequence"):
            x, y, z = (float(value) for value in plane.ImagePositionPatient)
            points[number].append((x, y, z))
    structures = []
    for segment in _items(dataset, "SegmentSequence"):
        number = int(segment.SegmentNumber)
        if label_map and number == 0:  # the background of a label map is no structure
            continue
        key = number if number in sources else _ANY
        names, seen = _segment_names(segment), frozenset(sources.get(key, ()))
        structures.append(Structure(number, names, tuple(points.get(key, ())), seen, empty=key not in sources))
    numbers = Counter(structure.number for structure in structures)
    structures = [
        replace(structure, fault=_twice(structure.number, numbers[structure.number])) for structure in structures
    ]
    labels = [structure.names[0] for structure in structures]
    # a label that several segments share tells nothing: call them by their descriptions
    return tuple(replace(s, names=s.names[::-1]) if labels.count(s.names[0]) > 1 else s for s in structures)


def _twice(number: int, times: int) -> Problem | None:
    if times < 2:
        return None
    reason = f"{times} segments have the number {number}, so that their frames cannot be told apart"
    return Problem(Code.ROI_AMBIGUOUS, reason)


def _segment_names(segment: Dataset) -> tuple[str, ...]:
    """SegmentLabel and SegmentDescription.

    TCIA's segmentations name the anatomy in the label ("Neoplasm, Primary") and the ROI in the description ("GTV-1").
    """
    names = (str(segment.get(key, "") or "").strip() for key in ("SegmentLabel", "SegmentDescription"))
    return tuple(dict.fromkeys(name for name in names if name)) or (str(segment.SegmentNumber),)


def _segment_number(frame: Dataset) -> int:
    for item in _items(frame, "SegmentIdentificationSequence"):
        return int(item.ReferencedSegmentNumber)
    return _ANY


def _sources(group: Dataset) -> Iterable[str]:
    for derivation in _items(group, "DerivationImageSequence"):
        yield from _referenced(_items(derivation, "SourceImageSequence"))


def _referenced(items: Iterable[Dataset]) -> Iterable[str]:
    """The UIDs of the instances that are named; where single frames are, the UID, ``#`` and the frame's number."""
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
    """The items of a sequence; none when it is absent or empty."""
    return dataset.get(name) or ()
