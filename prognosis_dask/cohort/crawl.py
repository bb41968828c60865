"""Walk the sources and read the header of every file: each is opened once, and read only as far as needed."""

from __future__ import annotations

import os
import stat
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from prognosis_dask.cohort.headers import (
    ACQUISITION,
    IMAGE_MODALITIES,
    MARKS,
    FileStamp,
    Header,
    ImageHeader,
    OtherFile,
    VolumeFile,
    patient_id,
    stamp,
)
from prognosis_dask.cohort.masks import mask_header
from prognosis_dask.cohort.multiframe import ENHANCED, frames_of
from prognosis_dask.cohort.names import is_mask_name
from prognosis_dask.cohort.pet import pet_header
from prognosis_dask.errors import CaseError, Code, JobError, Problem
from prognosis_dask.maps import Map
from prognosis_dask.volumes.files import VOLUME_SUFFIXES, volume_voxels
from prognosis_dask.volumes.labels import labels_in
from prognosis_dask.volumes.segments import named_labels

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


_RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
_SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_DICOMDIR = "1.2.840.10008.1.3.10"
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7."  # and its multi-frame kinds
_LAST_TAG = 0x00281054  # RescaleType; nothing after it is needed, and private groups can be long
_TAGS = [
    *MARKS.values(),
    *ACQUISITION.values(),
    0x00080016,  # SOPClassUID
    0x00080018,  # SOPInstanceUID
    0x00080060,  # Modality
    0x0008103E,  # SeriesDescription
    0x00100020,  # PatientID
    0x0020000D,  # StudyInstanceUID
    0x0020000E,  # SeriesInstanceUID
    0x00200032,  # ImagePositionPatient
    0x00200037,  # ImageOrientationPatient
    0x00200052,  # FrameOfReferenceUID
    0x00280002,  # SamplesPerPixel
    0x00280008,  # NumberOfFrames
    0x00280010,  # Rows
    0x00280011,  # Columns
    0x00280030,  # PixelSpacing
    0x00281053,  # RescaleSlope
    0x00281054,  # RescaleType
]

#: Paths in one unit of work: about a tenth of a second of reading.
BATCH = 200


def read_headers(paths: Sequence[str]) -> list[Header]:
    """Read the headers of some files. A file that cannot be read comes back as a :class:`Problem`.

    This is the unit of work that the index hands out: plain data in, plain data out.
    """
    with warnings.catch_warnings():
        # pydicom warns about values that break the standard; those that matter here become problems instead
        warnings.simplefilter("ignore")
        return [header for path in paths for header in _read(path)]


def _read(path: str) -> Sequence[Header]:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - paths travel as text
            return [OtherFile(path, "not a regular file")]  # reading a pipe would block for ever
        if path.lower().endswith(VOLUME_SUFFIXES):
            return [_volume(path)]
        found = _read_dicom(path)
        return found if isinstance(found, list) else [found]
    except Exception as error:  # pydicom may raise anything on a damaged file, which must not stop the index
        return [Problem(Code.UNREADABLE_FILE, f"{type(error).__name__}: {error}", where=path)]


def _volume(path: str) -> Header:
    if not is_mask_name(path):
        return VolumeFile(stamp(path), is_mask=False)
    file = stamp(path, checksum=True)
    try:
        segments, table = named_labels(Path(path))
    except CaseError as error:
        return error.problem.of(where=path)
    if not segments:
        return VolumeFile(file, is_mask=True)
    try:
        present = labels_in(volume_voxels(Path(path)))
    except CaseError:  # the fault is reported when the case is read
        return VolumeFile(file, is_mask=True)
    return VolumeFile(file, True, segments, present, stamp(table, checksum=True) if table else None)


def _read_dicom(path: str) -> Header | list[ImageHeader]:
    from pydicom.filereader import dcmread, read_partial

    with open(path, "rb") as stream:  # noqa: PTH123 - paths travel as text
        head = stream.read(136)
        bare = _is_bare_dataset(head)
        if head[128:132] != b"DICM" and not bare:
            if path.lower().endswith(".dcm"):
                return Problem(Code.UNREADABLE_FILE, f"named .dcm, but not DICOM ({len(head)} bytes read)", where=path)
            return OtherFile(path)
        stream.seek(0)
        header = read_partial(stream, lambda tag, vr, length: tag > _LAST_TAG, force=bare, specific_tags=_TAGS)
        state = os.fstat(stream.fileno())
    sop_class = str(header.get("SOPClassUID", ""))
    if sop_class == _RTSTRUCT or sop_class in _SEGMENTATIONS:
        return mask_header(dcmread(path, stop_before_pixels=True, force=bare), stamp(path, checksum=True))
    if not sop_class:
        return _without_class(header, path, bare)
    modality = str(header.get("Modality", ""))
    if modality not in IMAGE_MODALITIES or f"{sop_class}.".startswith(_SECONDARY_CAPTURE):
        return OtherFile(path, modality or "no modality")
    stamped = FileStamp(path, state.st_size, state.st_mtime_ns)
    if sop_class in ENHANCED:
        return _frame_headers(dcmread(path, stop_before_pixels=True, force=bare), stamped)
    if modality == "PT":  # SUVs depend on elements further on, some in private groups
        header = dcmread(path, stop_before_pixels=True, force=bare)
    return _image_header(header, stamped)


def _frame_headers(dataset: Dataset, file: FileStamp) -> list[ImageHeader]:
    found = [
        replace(_image_header(frame, file), frame=number) for number, frame in enumerate(frames_of(dataset), start=1)
    ]
    if not found:
        raise ValueError("an enhanced image without functional groups: the positions of its frames are unknown")
    return found


def _without_class(header: Dataset, path: str, bare: bool) -> Header:
    meta = getattr(header, "file_meta", None)
    if meta is not None and meta.get("MediaStorageSOPClassUID") == _DICOMDIR:
        return OtherFile(path, "DICOMDIR")
    if bare:  # another kind of file that starts with the same four bytes
        return OtherFile(path)
    return Problem(Code.UNREADABLE_FILE, "the header ends before SOPClassUID; copy the file again", where=path)


def _is_bare_dataset(head: bytes) -> bool:
    """Whether a file starts with DICOM elements but without the preamble, as old exports do."""
    return head[:2] in (b"\x08\x00", b"\x02\x00") and head[3:4] == b"\x00" and head[2:4] < b"\x20\x00"


def _image_header(header: Dataset, file: FileStamp) -> ImageHeader:
    missing = [name for name in ("SOPInstanceUID", "SeriesInstanceUID") if not header.get(name)]
    if missing:
        raise ValueError(f"the header lacks {' and '.join(missing)}")
    return ImageHeader(
        file=file,
        sop_uid=str(header.SOPInstanceUID),
        series_uid=str(header.SeriesInstanceUID),
        study_uid=str(header.get("StudyInstanceUID", "")),
        patient_id=patient_id(header),
        modality=str(header.Modality),
        frame_of_reference_uid=str(header.get("FrameOfReferenceUID", "") or ""),
        description=str(header.get("SeriesDescription", "") or ""),
        marks="\t".join(_mark(header, tag) for tag in MARKS.values()),
        acquisition=sys.intern("\t".join(_mark(header, tag).strip() for tag in ACQUISITION.values())),
        **_units(header),  # type: ignore[arg-type]
        **_geometry(header),  # type: ignore[arg-type]
    )


def _units(header: Dataset) -> dict[str, object]:
    """What the rescaled values are: PET in its Units, CT in Hounsfield units unless it says otherwise."""
    if header.Modality == "PT":
        pet = pet_header(header)
        return {"units": pet.units, "pet": pet}
    if header.Modality != "CT":
        return {}
    kind = str(header.get("RescaleType", "") or "").strip().upper()
    if kind not in ("", "HU"):
        claim = "it is not stated that these CT values are" if kind == "US" else "these CT values are not"
        return {"units": kind, "note": f"RescaleType is {kind}: {claim} Hounsfield units (HU)"}
    if "RescaleSlope" not in header:
        return {"units": "HU", "note": "no RescaleSlope: the stored values are taken as Hounsfield units"}
    return {"units": "HU"}


def _mark(header: Dataset, tag: int) -> str:
    """A value as text, several joined; empty if it cannot be read, since the image still can."""
    try:
        value = header[tag].value if tag in header else None
    except (ValueError, TypeError, OverflowError):
        return ""
    several = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return "\\".join("" if one is None else str(one).replace("\t", " ") for one in several)


def _geometry(header: Dataset) -> dict[str, object]:
    frames = int(header.get("NumberOfFrames", 1) or 1)
    samples = int(header.get("SamplesPerPixel", 1) or 1)
    if samples > 1:
        return {"fault": f"{samples} values per pixel (a colour image), expected one"}
    if frames > 1 or "ImagePositionPatient" not in header:
        if frames > 1:
            return {"fault": f"multi-frame image ({frames} frames in one file); convert it to one file per slice"}
        return {"fault": "no ImagePositionPatient: its position in the patient is unknown"}
    position = tuple(float(value) for value in header.ImagePositionPatient)
    orientation = tuple(float(value) for value in header.get("ImageOrientationPatient") or ())
    spacing = tuple(float(value) for value in header.get("PixelSpacing") or ())
    size = (int(header.get("Rows", 0) or 0), int(header.get("Columns", 0) or 0))
    if (len(position), len(orientation), len(spacing)) != (3, 6, 2) or min(*spacing, *size) <= 0:
        return {"fault": f"unusable geometry: position {position}, orientation {orientation}, {spacing} mm, {size} px"}
    return {"position": position, "orientation": orientation, "pixel_spacing": spacing, "size": size}


def crawl(sources: Sequence[Path], map: Map, *, leave_out: Path | None = None) -> list[Header]:
    """Read the headers of every file under the sources, in the order of their paths.

    Parameters
    ----------
    sources
        Folders, or single files.
    map
        The built-in ``map``, or one that distributes the batches over a cluster.
    leave_out
        A folder that is not entered: the index's own output.

    Raises
    ------
    JobError
        When a source does not exist.
    """
    unreadable: list[Header] = []
    paths = _named_in_utf8(sorted(_files(sources, leave_out, unreadable)), unreadable)
    hidden: list[Header] = [OtherFile(path) for path in paths if _is_hidden(path)]
    visible = [path for path in paths if not _is_hidden(path)]
    batches = [visible[start : start + BATCH] for start in range(0, len(visible), BATCH)]
    return [*unreadable, *hidden, *(header for batch in map(read_headers, batches) for header in batch)]


def _named_in_utf8(paths: list[str], unreadable: list[Header]) -> list[str]:
    """The paths that are valid UTF-8; the others (Latin-1 on an old share) are one problem per folder."""
    named: list[str] = []
    others: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        try:
            path.encode()
            named.append(path)
        except UnicodeEncodeError:
            others[os.path.dirname(path)].append(path)  # noqa: PTH120 - of millions of texts
    for group in others.values():
        more = f" (and {len(group) - 1} more in this folder)" if len(group) > 1 else ""
        reason = f"its name is not UTF-8{more}: rename it, for instance with convmv"
        shown = os.fsencode(group[0]).decode(errors="backslashreplace")
        unreadable.append(Problem(Code.UNREADABLE_FILE, reason, where=shown))
    return named


def _is_hidden(path: str) -> bool:
    return os.path.basename(path).startswith(".")  # noqa: PTH119 - of millions of texts


def _files(sources: Sequence[Path], leave_out: Path | None, unreadable: list[Header]) -> Iterator[str]:
    """Every file once, even if sources overlap or links form cycles."""
    entered: set[tuple[int, int] | None] = set()
    if leave_out is not None and leave_out.is_dir() and leave_out.absolute() not in {s.absolute() for s in sources}:
        entered.add(_identity(str(leave_out)))

    def refuse(error: OSError) -> None:
        where = os.fsencode(str(error.filename)).decode(errors="backslashreplace")
        unreadable.append(Problem(Code.UNREADABLE_FILE, f"folder: {error.strerror}", where=where))

    for source in sources:
        if source.is_file():
            yield os.path.abspath(source)  # noqa: PTH100 - keeps links, as the other paths do
            continue
        if not source.is_dir():
            raise JobError(f"no folder or file at {source}")
        for folder, below, names in os.walk(source.absolute(), followlinks=True, onerror=refuse):
            identity = _identity(folder)
            if identity is None or identity in entered:
                below.clear()
                continue
            entered.add(identity)
            yield from (os.path.join(folder, name) for name in names)  # noqa: PTH118


def _identity(folder: str) -> tuple[int, int] | None:
    """The identity of a folder, whatever path leads to it; None if it no longer exists."""
    try:
        state = os.stat(folder)  # noqa: PTH116
    except OSError:
        return None
    return state.st_dev, state.st_ino
