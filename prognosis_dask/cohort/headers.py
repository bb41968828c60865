"""Header data and the identity of files, as plain objects that travel between processes."""

from __future__ import annotations

import errno
import hashlib
import stat
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from prognosis_dask.errors import Problem
from prognosis_dask.objects.address import vouched
from prognosis_dask.volumes.files import text_header
from prognosis_dask.volumes.labels import Segment

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


Point = tuple[float, float, float]

#: Modalities of images that can be cases.
IMAGE_MODALITIES = ("CT", "MR", "PT")


#: Elements that may distinguish images at one position of a series, with their tags; the likelier first.
MARKS = {
    "AcquisitionNumber": 0x00200012,
    "StackID": 0x00209056,
    "TemporalPositionIdentifier": 0x00200100,
    "TemporalPositionIndex": 0x00209128,
    "EchoNumbers": 0x00180086,
    "EchoTime": 0x00180081,
    "EffectiveEchoTime": 0x00189082,
    "TriggerTime": 0x00181060,
    "NominalCardiacTriggerDelayTime": 0x00209153,
    "InversionTime": 0x00180082,
    "FlipAngle": 0x00181314,
    "DiffusionBValue": 0x00189087,
    "ImageType": 0x00080008,
    "ComplexImageComponent": 0x00089208,
    "ConvolutionKernel": 0x00181210,
    "KVP": 0x00180060,
    "SliceThickness": 0x00180050,
    "SeriesTime": 0x00080031,
    "AcquisitionDateTime": 0x0008002A,
    "AcquisitionTime": 0x00080032,
    "ContentTime": 0x00080033,
}


#: What an image was acquired with, with the elements' tags; ``cases.csv`` has a column of each that any header says.
ACQUISITION = {
    "scanner_maker": 0x00080070,  # Manufacturer
    "scanner": 0x00081090,  # ManufacturerModelName
    "kvp": 0x00180060,
    "kernel": 0x00181210,
    "slice_thickness_mm": 0x00180050,
    "field_strength_t": 0x00180087,
    "repetition_time_ms": 0x00180080,
    "echo_time_ms": 0x00180081,
    "inversion_time_ms": 0x00180082,
    "scanning_sequence": 0x00180020,
    "image_type": 0x00080008,
    "contrast_agent": 0x00180010,  # ContrastBolusAgent; "before" or "after" it, where the header says that
}


#: Whose image it is, besides PatientID.
PERSON = (0x00100010, 0x00100030, 0x00100040)  # PatientName, PatientBirthDate, PatientSex


@dataclass(frozen=True, slots=True)
class PetHeader:
    """The elements of a PET header that SUVs depend on, in DICOM's terms; None if absent.

    Attributes
    ----------
    nuclides
        Those that its radiopharmaceutical and its code name, in words (``fluorine-18``).
    start_time, start_datetime
        Injection of the radiopharmaceutical: seconds of the day, and date and time.
    series, acquired
        When the series and this image's acquisition began; where ``has_acquisition_date`` is false, ``acquired`` has
        the series' date.
    ge_scan
        GE's private time of the scan, (0009,100d) of GEMS_PETD_01.
    suv_scale, activity_scale
        Philips' private factors of counts, (7053,1000) and (7053,1009): to SUVbw, and to Bq/mL.
    is_rescaled
        Whether it has a RescaleSlope, which DICOM demands of PET.
    """

    units: str = ""
    suv_type: str = ""
    corrected: tuple[str, ...] = ()
    decay: str = ""
    weight_kg: float | None = None
    dose_bq: float | None = None
    half_life_s: float | None = None
    nuclides: tuple[str, ...] = ()
    start_time: float | None = None
    start_datetime: datetime | None = None
    series: datetime | None = None
    acquired: datetime | None = None
    has_acquisition_date: bool = False
    ge_scan: datetime | None = None
    frame_reference_ms: float | None = None
    frame_duration_ms: float | None = None
    decay_factor: float | None = None
    suv_scale: float | None = None
    activity_scale: float | None = None
    is_rescaled: bool = True


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """One instance of an image series, or one frame of it, in DICOM's terms.

    ``fault``: why it cannot be used, or empty. ``frame`` is its number in a multi-frame file, from 1; 0: the
    file holds one. ``units`` are those of the rescaled values, ``note`` is a remark on them. ``marks`` are
    its values of :data:`MARKS`, joined by tabs; as text, for there are millions. So are those of :data:`ACQUISITION` in
    ``acquisition``, and those of :data:`PERSON` in ``person``.
    """

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
    frame: int = 0
    marks: str = ""
    units: str = ""
    note: str = ""
    pet: PetHeader | None = None
    acquisition: str = ""
    person: str = ""


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
    drawn_on
        For each of its points the image instance that its contour or frame names, where that is one; else empty.
    empty
        It is named, but has no contour with an area, or no frame.
    frame_uid
        Its own frame of reference; empty where it names none.
    fault
        Why it cannot be used although it has content, or None.
    """

    number: int
    names: tuple[str, ...]
    points: tuple[Point, ...] = ()
    sop_uids: frozenset[str] = frozenset()
    drawn_on: tuple[str, ...] = ()
    empty: bool = False
    fault: Problem | None = None
    frame_uid: str = ""


@dataclass(frozen=True)
class MaskHeader:
    """One RTSTRUCT or SEG file: what it holds, and every reference to images that it makes.

    ``faults`` are sentences on defective items, which leave the rest of the file usable. ``is_rejected``: somebody has
    reviewed it and found it unacceptable (ApprovalStatus). ``declared_frames`` are the
    frames of reference that it tells apart and lists series for; ``frame_of_reference_uids`` those that it names
    anywhere.
    """

    file: FileStamp
    kind: str
    sop_uid: str
    patient_id: str
    frame_of_reference_uids: frozenset[str]
    series_uids: tuple[str, ...]
    sop_uids: frozenset[str]
    structures: tuple[Structure, ...]
    faults: tuple[str, ...] = ()
    declared_frames: frozenset[str] = frozenset()
    is_rejected: bool = False


@dataclass(frozen=True)
class VolumeFile:
    """An image file that carries its own geometry.

    Attributes
    ----------
    is_mask
        By its name.
    segments, present
        Of a mask whose labels have names: these, and the labels that occur in it.
    names_from
        The table beside it with the names; None: its own header.
    """

    file: FileStamp
    is_mask: bool
    segments: tuple[Segment, ...] = ()
    present: tuple[int, ...] = ()
    names_from: FileStamp | None = None


@dataclass(frozen=True)
class OtherFile:
    """A file that is not used: ``kind`` is its DICOM modality, or ``""`` if it is not DICOM."""

    path: str
    kind: str = ""


Header = ImageHeader | MaskHeader | VolumeFile | OtherFile | Problem


#: How the name begins of a patient whose images have no PatientID.
UNNAMED = "unnamed-"


def patient_id(header: Dataset) -> str:
    """PatientID, or a name derived from the study if there is none, so that such patients stay separate."""
    named = str(header.get("PatientID", "") or "").strip()
    if named:
        return named
    study = str(header.get("StudyInstanceUID", "") or header.get("SeriesInstanceUID", ""))
    return f"{UNNAMED}{hashlib.sha256(study.encode()).hexdigest()[:8]}"


@dataclass(frozen=True, slots=True)
class FileStamp:
    """Identity of a file or object; ``sha256`` is computed for masks on disk only; images are too large.

    ``etag`` is what a store says of an object, whose ``modified_ns`` is 0.
    """

    path: str
    bytes: int
    modified_ns: int
    sha256: str = ""
    etag: str = ""

    @property
    def identity(self) -> str:
        """What a digest rests on: size, time and checksum of a file, or what the store vouches for."""
        if self.etag:
            return f"{self.bytes} {vouched(self.path, self.etag)}"
        return f"{self.bytes} {self.modified_ns} {self.sha256}"


def stamp(path: str, *, checksum: bool = False) -> FileStamp:
    """Size and modification time of a file, and its SHA-256 when asked. Raises OSError when it cannot be read.

    A header of NRRD or MetaImage is stamped together with the files of its voxels.
    """
    file = Path(path)
    if not stat.S_ISREG(file.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file", path)  # reading a pipe would block for ever
    parts = [file]
    if file.suffix.lower() in (".mhd", ".nhdr", ".mha", ".nrrd"):
        parts += [part for part in text_header(file).files if part.is_file()]
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
