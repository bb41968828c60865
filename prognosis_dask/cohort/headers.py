"""From a file to its header, as plain data: what the crawl learns by opening a file once."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prognosis_dask.errors import Code, Problem

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Point = tuple[float, float, float]

#: Modalities that a case can stand on.
IMAGE_MODALITIES = ("CT", "MR", "PT")
#: File endings of images that carry their own geometry.
VOLUME_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")

_RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
_SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_LAST_TAG = 0x00280030  # PixelSpacing; nothing behind it is needed, and private groups there can be long
_TAGS = [
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
    0x00280008,  # NumberOfFrames
    0x00280010,  # Rows
    0x00280011,  # Columns
    0x00280030,  # PixelSpacing
]


@dataclass(frozen=True)
class FileStamp:
    """Identity of a file on disk; ``sha256`` is taken of masks only, images are too large."""

    path: str
    bytes: int
    modified_ns: int
    sha256: str = ""


@dataclass(frozen=True)
class ImageHeader:
    """One instance of an image series, in DICOM's words. ``fault`` says why it cannot be used; empty: it can."""

    file: FileStamp
    sop_uid: str
    series_uid: str
    study_uid: str
    patient_id: str
    modality: str
    frame_of_reference_uid: str
    description: str
    position: Point = (0.0, 0.0, 0.0)
    orientation: tuple[float, ...] = ()
    pixel_spacing: tuple[float, float] = (0.0, 0.0)
    size: tuple[int, int] = (0, 0)
    fault: str = ""


@dataclass(frozen=True)
class Structure:
    """One ROI of an RTSTRUCT, or one segment of a SEG.

    Attributes
    ----------
    number
        ROINumber or SegmentNumber.
    names
        Any of them may be meant by a rule: ROIName, or SegmentDescription and SegmentLabel.
    points
        One point (mm, patient coordinates) in each of its planes; empty when it has no contour or no frame.
    sop_uids
        Image instances that it refers to.
    empty
        It is named, but has no contour with an area, or no frame.
    """

    number: int
    names: tuple[str, ...]
    points: tuple[Point, ...] = ()
    sop_uids: frozenset[str] = frozenset()
    empty: bool = False


@dataclass(frozen=True)
class MaskHeader:
    """One RTSTRUCT or SEG file: what it holds, and every reference to images that it makes."""

    file: FileStamp
    kind: str
    sop_uid: str
    patient_id: str
    frame_of_reference_uids: frozenset[str]
    series_uids: tuple[str, ...]
    sop_uids: frozenset[str]
    structures: tuple[Structure, ...]


@dataclass(frozen=True)
class VolumeFile:
    """An image file that carries its own geometry; whether it is a mask, its name must tell."""

    file: FileStamp


@dataclass(frozen=True)
class OtherFile:
    """A file that cases have no use for: ``kind`` is its DICOM modality, or ``""`` when it is not DICOM."""

    path: str
    kind: str = ""


Header = ImageHeader | MaskHeader | VolumeFile | OtherFile | Problem


def read_headers(paths: Sequence[str]) -> list[Header]:
    """Read the headers of some files. A file that cannot be read comes back as a :class:`Problem`.

    This is the unit of work that the index hands out: plain data in, plain data out.
    """
    with warnings.catch_warnings():
        # pydicom warns about values that break the standard; those that matter here become problems instead
        warnings.simplefilter("ignore")
        return [_read(path) for path in paths]


def stamp(path: str, *, checksum: bool = False) -> FileStamp:
    """Size and modification time of a file, and its SHA-256 when asked. Raises OSError when it cannot be read.

    A detached header (``.mhd``, ``.nhdr``) is stamped together with the data files of the same stem.
    """
    file = Path(path)
    parts = [file]
    if file.suffix.lower() in (".mhd", ".nhdr"):
        parts += sorted(p for p in file.parent.glob(f"{file.stem}.*") if p != file and ".raw" in p.name.lower())
    states = [part.stat() for part in parts]
    sha256 = hashlib.sha256()
    for part in parts if checksum else ():
        with part.open("rb") as stream:
            while block := stream.read(1 << 20):
                sha256.update(block)
    return FileStamp(
        path,
        sum(state.st_size for state in states),
        max(state.st_mtime_ns for state in states),
        sha256.hexdigest() if checksum else "",
    )


def _read(path: str) -> Header:
    try:
        if path.lower().endswith(VOLUME_SUFFIXES):
            from prognosis_dask.cohort.pairs import is_mask_name

            return VolumeFile(stamp(path, checksum=is_mask_name(path)))
        return _read_dicom(path)
    except Exception as error:  # pydicom raises almost anything on a damaged file; one file never stops the index
        return Problem(Code.UNREADABLE_FILE, f"{type(error).__name__}: {error}", where=path)


def _read_dicom(path: str) -> Header:
    from pydicom.filereader import dcmread, read_partial

    with open(path, "rb") as stream:  # noqa: PTH123 - a third of the time of Path.open, millions of times
        head = stream.read(136)
        bare = _is_bare_dataset(head)
        if head[128:132] != b"DICM" and not bare:
            if path.lower().endswith(".dcm"):
                return Problem(Code.UNREADABLE_FILE, f"named .dcm, but no DICOM ({len(head)} bytes read)", where=path)
            return OtherFile(path)
        stream.seek(0)
        header = read_partial(stream, lambda tag, vr, length: tag > _LAST_TAG, force=bare, specific_tags=_TAGS)
        state = os.fstat(stream.fileno())
    sop_class = str(header.get("SOPClassUID", ""))
    if sop_class == _RTSTRUCT or sop_class in _SEGMENTATIONS:
        from prognosis_dask.cohort.masks import mask_header

        return mask_header(dcmread(path, stop_before_pixels=True, force=bare), stamp(path, checksum=True))
    modality = str(header.get("Modality", ""))
    if modality not in IMAGE_MODALITIES or sop_class.startswith(_SECONDARY_CAPTURE):
        if not sop_class and bare:
            return OtherFile(path)
        return OtherFile(path, modality or "unknown")
    return _image_header(header, FileStamp(path, state.st_size, state.st_mtime_ns))


def _is_bare_dataset(head: bytes) -> bool:
    """Whether a file starts, without DICOM's preamble, with the elements that old exports start with."""
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
        **_geometry(header),  # type: ignore[arg-type]
    )


def _geometry(header: Dataset) -> dict[str, object]:
    frames = int(header.get("NumberOfFrames", 1) or 1)
    if frames > 1 or "ImagePositionPatient" not in header:
        if frames > 1:
            return {"fault": f"multi-frame image ({frames} frames in one file); convert it to one file per slice"}
        return {"fault": "no ImagePositionPatient: its place in the patient is unknown"}
    position = tuple(float(value) for value in header.ImagePositionPatient)
    orientation = tuple(float(value) for value in header.get("ImageOrientationPatient") or ())
    spacing = tuple(float(value) for value in header.get("PixelSpacing") or ())
    size = (int(header.get("Rows", 0) or 0), int(header.get("Columns", 0) or 0))
    if (len(position), len(orientation), len(spacing)) != (3, 6, 2) or min(*spacing, *size) <= 0:
        return {"fault": f"unusable geometry: position {position}, orientation {orientation}, {spacing} mm, {size} px"}
    return {"position": position, "orientation": orientation, "pixel_spacing": spacing, "size": size}


def patient_id(header: Dataset) -> str:
    """PatientID, or a name made from the study where there is none, so that such patients stay apart."""
    named = str(header.get("PatientID", "") or "").strip()
    if named:
        return named
    study = str(header.get("StudyInstanceUID", "") or header.get("SeriesInstanceUID", ""))
    return f"unnamed-{hashlib.sha256(study.encode()).hexdigest()[:8]}"
