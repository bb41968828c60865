"""The header of one DICOM file, from a stream that is read only as far as needed.

Of an enhanced multi-frame image it is one header a frame. A frame's attributes are in functional groups, its own and
those shared by all frames (DICOM PS3.3 C.7.6.16). Taken out of them and put beside what the file says of all, they read
like the header of an image with one frame.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, BinaryIO, Protocol

from prognosis_dask.cohort.headers import (
    ACQUISITION,
    IMAGE_MODALITIES,
    MARKS,
    PERSON,
    FileStamp,
    Header,
    ImageHeader,
    OtherFile,
    patient_id,
)
from prognosis_dask.cohort.masks import mask_header
from prognosis_dask.cohort.pet import pet_header
from prognosis_dask.cohort.sequence_names import says_no_agent
from prognosis_dask.errors import Code, Problem

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
_SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_DICOMDIR = "1.2.840.10008.1.3.10"
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7."  # and its multi-frame kinds
#: What is told by its name among the files that are not used, by its ending or how it begins.
_OTHER_IMAGES = (".mgz", ".mgh", ".mnc")
_KINDS = {
    b"PK\x03\x04": "zip files, to be unpacked",
    b"\x1f\x8b": "gzip files, to be unpacked",
    b"BZh": "bzip2 files, to be unpacked",
    b"\xfd7zXZ": "xz files, to be unpacked",
    b"7z\xbc\xaf": "7z files, to be unpacked",
    b"Rar!": "rar files, to be unpacked",
    b"\x28\xb5\x2f\xfd": "zstd files, to be unpacked",
    b"\x5c\x01\x00\x00": "Analyze or NIfTI headers of .img files, to be written as .nii",
}
_LAST_TAG = 0x00283000  # ModalityLUTSequence; nothing after it is needed, and private groups can be long
#: JPEG baseline and extended, and near-lossless JPEG-LS.
_LOSSY = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81")
#: JPEG 2000 and its high-throughput kind, with or without loss.
_MAYBE_LOSSY = ("1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.93", "1.2.840.10008.1.2.4.203")
_TAGS = [
    *MARKS.values(),
    *ACQUISITION.values(),
    0x00080016,  # SOPClassUID
    0x00080018,  # SOPInstanceUID
    0x00080060,  # Modality
    0x0008103E,  # SeriesDescription
    0x00100010,  # PatientName
    0x00100020,  # PatientID
    0x00100030,  # PatientBirthDate
    0x00100040,  # PatientSex
    0x00180012,  # ContrastBolusAgentSequence
    0x00181042,  # ContrastBolusStartTime
    0x0020000D,  # StudyInstanceUID
    0x0020000E,  # SeriesInstanceUID
    0x00200032,  # ImagePositionPatient
    0x00200037,  # ImageOrientationPatient
    0x00200052,  # FrameOfReferenceUID
    0x00280002,  # SamplesPerPixel
    0x00280004,  # PhotometricInterpretation
    0x00280008,  # NumberOfFrames
    0x00280010,  # Rows
    0x00280011,  # Columns
    0x00280030,  # PixelSpacing
    0x00281052,  # RescaleIntercept
    0x00281053,  # RescaleSlope
    0x00281054,  # RescaleType
    0x00282110,  # LossyImageCompression
    0x00283000,  # ModalityLUTSequence
]


class OpenFile(Protocol):
    """A file that is being read, on disk or in a bucket."""

    @property
    def path(self) -> str:
        """Its path or address."""
        ...

    @property
    def stream(self) -> BinaryIO:
        """Its bytes."""
        ...

    def stamp(self, *, mask: bool = False) -> FileStamp:
        """Its identity; of a mask with a checksum, where no store vouches for it."""
        ...

    def expect_all(self) -> None:
        """Its content will be needed to its end."""
        ...


def dicom_header(file: OpenFile) -> Header | list[ImageHeader]:
    """The header of a file, or those of its frames; :class:`OtherFile` where it is not DICOM.

    Raises
    ------
    Exception
        Whatever pydicom raises on a damaged file.
    """
    from pydicom.filereader import dcmread, read_partial

    path, stream = file.path, file.stream
    head = stream.read(262)
    bare = _is_bare_dataset(head)
    if not is_dicom(head):
        if path.lower().endswith(".dcm"):
            return Problem(Code.UNREADABLE_FILE, f"named .dcm, but not DICOM ({len(head)} bytes read)", where=path)
        return OtherFile(path, _kind(path, head))

    def to_pixels() -> Dataset:
        stream.seek(0)
        dataset: Dataset = dcmread(stream, stop_before_pixels=True, force=bare)
        return dataset

    stream.seek(0)
    header = read_partial(stream, lambda tag, vr, length: tag > _LAST_TAG, force=bare, specific_tags=_TAGS)
    sop_class = str(header.get("SOPClassUID", ""))
    if sop_class == _RTSTRUCT or sop_class in _SEGMENTATIONS:
        if sop_class == _RTSTRUCT:
            file.expect_all()
        return mask_header(to_pixels(), file.stamp(mask=True))
    if not sop_class:
        return _without_class(header, path, bare)
    modality = str(header.get("Modality", ""))
    if modality not in IMAGE_MODALITIES or f"{sop_class}.".startswith(_SECONDARY_CAPTURE):
        return OtherFile(path, modality or "no modality")
    if sop_class in ENHANCED:
        return _frame_headers(to_pixels(), file.stamp())
    if modality == "PT":  # SUVs depend on elements further on, some in private groups
        return _image_header(to_pixels(), file.stamp())
    return _image_header(header, file.stamp())


def _kind(path: str, head: bytes) -> str:
    if path.lower().endswith(_OTHER_IMAGES):
        return "images of FreeSurfer or MINC, to be written as .nii.gz"
    if head[257:262] == b"ustar":
        return "tar files, to be unpacked"
    return next((kind for start, kind in _KINDS.items() if head.startswith(start)), "")


def _frame_headers(dataset: Dataset, file: FileStamp) -> list[ImageHeader]:
    found = [
        replace(_image_header(frame, file), frame=number) for number, frame in enumerate(frames_of(dataset), start=1)
    ]
    if not found:
        raise ValueError("an enhanced image without functional groups: the positions of its frames are unknown")
    said = int(dataset.get("NumberOfFrames") or 1)
    if said != len(found):
        raise ValueError(
            f"NumberOfFrames is {said}, and {len(found)} frames have a position: which is which is unknown"
        )
    return found


def _without_class(header: Dataset, path: str, bare: bool) -> Header:
    meta = getattr(header, "file_meta", None)
    if meta is not None and meta.get("MediaStorageSOPClassUID") == _DICOMDIR:
        return OtherFile(path, "DICOMDIR")
    if bare:  # another kind of file that starts with the same four bytes
        return OtherFile(path)
    return Problem(Code.UNREADABLE_FILE, "the header ends before SOPClassUID; copy the file again", where=path)


def is_dicom(head: bytes) -> bool:
    """Whether a file begins as DICOM, by its first 132 bytes: with the preamble, or without it as old exports do."""
    return head[128:132] == b"DICM" or _is_bare_dataset(head)


def _is_bare_dataset(head: bytes) -> bool:
    """Whether a file starts with DICOM elements but without the preamble."""
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
        acquisition=sys.intern("\t".join(_acquired(header, name) for name in ACQUISITION)),
        person=sys.intern("\t".join(_mark(header, tag).strip() for tag in PERSON)),
        **_values(header),  # type: ignore[arg-type]
        **_geometry(header),  # type: ignore[arg-type]
    )


def _acquired(header: Dataset, name: str) -> str:
    if name == "contrast_agent":
        return _contrast_agent(header)
    said = _mark(header, ACQUISITION[name]).strip()
    if name == "scanning_sequence" and not said:  # enhanced MR says it in other words
        pulse = {"SPIN": "SE", "GRADIENT": "GR", "BOTH": "SE\\GR"}.get(str(header.get("EchoPulseSequence", "")), "")
        return "EP" if header.get("EchoPlanarPulseSequence") == "YES" else pulse
    if name == "image_type" and header.get("ComplexImageComponent") == "PHASE":
        return f"{said}\\PHASE"
    return said


def _contrast_agent(header: Dataset) -> str:
    """The agent that a header names; with ``before`` or ``after`` in front where it says that too."""
    coded = header.get("ContrastBolusAgentSequence") or ()
    name = _mark(header, ACQUISITION["contrast_agent"]).strip() or str(coded[0].get("CodeMeaning", "") if coded else "")
    if says_no_agent(name):
        return ""
    phase, given = header.get("ContrastBolusAgentPhase", ""), header.get("ContrastBolusAgentAdministered", "")
    began, taken = (_mark(header, tag)[:6] for tag in (0x00181042, MARKS["AcquisitionTime"]))
    if given == "NO" or phase == "PRE_CONTRAST" or (began and taken and taken < began):
        return f"before {name}"
    return f"after {name}" if given == "YES" or (began and taken) else name


def _values(header: Dataset) -> dict[str, object]:
    """What the rescaled values are: PET in its Units, CT in Hounsfield units unless it says otherwise."""
    unscaled = header.get("RescaleSlope") is None  # empty counts as absent
    tables = (header.get("ModalityLUTSequence") or []) if unscaled else []  # the pixels go through it then
    if header.Modality == "PT":
        pet, intercept = pet_header(header), header.get("RescaleIntercept") or 0
        said = f"no RescaleSlope: the stored values are taken as {pet.units}" if unscaled else ""
        said = said or (f"RescaleIntercept is {intercept}, and DICOM has 0 for PET" if intercept != 0 else "")
        found: dict[str, object] = {"units": pet.units, "pet": pet}
    elif header.Modality == "CT":
        source, name = (tables[0], "ModalityLUTType") if tables else (header, "RescaleType")
        kind = str(source.get(name, "") or "").strip().upper()
        found, said = {"units": "HU" if kind == "" else kind}, _doubt_of_ct(header, kind, name, bool(tables))
    else:
        found, said = {}, ""
    return found | {"note": "; ".join(filter(None, (said, *_doubts_of_pixels(header))))}


def _doubt_of_ct(header: Dataset, kind: str, name: str, tabled: bool) -> str:
    """Why the values may not be Hounsfield units; empty where nothing speaks against it."""
    if kind not in ("", "HU"):
        claim = "it is not stated that these CT values are" if kind == "US" else "these CT values are not"
        return f"{name} is {kind}: {claim} Hounsfield units (HU)"
    if tabled:
        return ""
    if header.get("RescaleSlope") is None:
        return "no RescaleSlope: the stored values are taken as Hounsfield units"
    return "no RescaleIntercept: taken as 0" if header.get("RescaleIntercept") is None else ""


def _doubts_of_pixels(header: Dataset) -> Iterator[str]:
    """What makes other programs read other values, or the values others than the scanner's."""
    if str(header.get("PhotometricInterpretation", "") or "").strip() == "MONOCHROME1":
        yield "PhotometricInterpretation is MONOCHROME1: the values are used as they are, but ITK inverts them"
    lossy = str(header.get("LossyImageCompression", "") or "").strip()
    syntax = getattr(header, "file_meta", {}).get("TransferSyntaxUID")
    if lossy == "01" or syntax in _LOSSY:
        yield "the images were compressed with loss: their values are not exactly those that the scanner made"
    elif syntax in _MAYBE_LOSSY and lossy != "00":
        yield "the images may have been compressed with loss: their transfer syntax allows it, and no header denies it"


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
    if str(header.get("PhotometricInterpretation", "") or "").startswith("PALETTE"):
        return {"fault": "its pixels are numbers of colours (PhotometricInterpretation PALETTE COLOR), not values"}
    if frames > 1 or not header.get("ImagePositionPatient"):  # empty counts as absent
        if frames > 1:
            return {"fault": f"multi-frame image ({frames} frames in one file); convert it to one file per slice"}
        return {"fault": "no ImagePositionPatient: its position in the patient is unknown"}
    position = tuple(float(value) for value in header.ImagePositionPatient)
    orientation = tuple(float(value) for value in header.get("ImageOrientationPatient") or ())
    spacing = tuple(float(value) for value in header.get("PixelSpacing") or ())
    size = (int(header.get("Rows", 0) or 0), int(header.get("Columns", 0) or 0))
    whole = (len(position), len(orientation), len(spacing)) == (3, 6, 2)
    if not whole or not all(map(math.isfinite, (*position, *orientation, *spacing))) or min(*spacing, *size) <= 0:
        return {"fault": f"unusable geometry: position {position}, orientation {orientation}, {spacing} mm, {size} px"}
    if _is_skewed(orientation, max(size)):
        return {"fault": f"ImageOrientationPatient {orientation} is no right angle between a row and a column"}
    return {"position": position, "orientation": orientation, "pixel_spacing": spacing, "size": size}


#: Largest shift of a pixel, in pixels, when directions of rows and columns are made right-angled, as every reader does,
#: beyond what the rounding of the written cosines explains; and how far their length may be from 1.
SKEWED_PIXELS = 0.5
_LENGTH = 0.01


def _is_skewed(orientation: tuple[float, ...], pixels: int) -> bool:
    row, column = orientation[:3], orientation[3:]
    lengths = (math.hypot(*row), math.hypot(*column))
    along = sum(a * b for a, b in zip(row, column, strict=True))
    rounded = _rounding(orientation) * sum(map(abs, orientation))
    right = abs(along) <= SKEWED_PIXELS / pixels + rounded and max(abs(length - 1) for length in lengths) <= _LENGTH
    return not right  # also of what is not finite


def _rounding(values: tuple[float, ...]) -> float:
    """Half of the last decimal that the values were written with."""
    decimals = max(-int(Decimal(repr(value)).as_tuple().exponent) for value in values)
    return 0.5 * 10.0**-decimals


#: Enhanced CT, MR and PET, and legacy converted ones.
ENHANCED = (
    "1.2.840.10008.5.1.4.1.1.2.1",
    "1.2.840.10008.5.1.4.1.1.2.2",
    "1.2.840.10008.5.1.4.1.1.4.1",
    "1.2.840.10008.5.1.4.1.1.4.4",
    "1.2.840.10008.5.1.4.1.1.130",
    "1.2.840.10008.5.1.4.1.1.128.1",
)
_SHARED, _OWN = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
#: What enhanced images call otherwise than others do.
_CALLED = {
    "FrameAcquisitionNumber": "AcquisitionNumber",
    "FrameType": "ImageType",
    "FrameAcquisitionDateTime": "AcquisitionDateTime",
    "EffectiveEchoTime": "EchoTime",
    "InversionTimes": "InversionTime",
}


def frames_of(dataset: Dataset) -> Iterator[Dataset]:
    """The header of each frame of an enhanced image, in the order of its pixels."""
    common = _common(dataset)
    for own in dataset.get(_OWN) or ():
        yield _with(common, own)


def name_syntax(dataset: Dataset) -> None:
    """Give a bare dataset, without the file's meta information, the encoding in which pydicom found it."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    meta = getattr(dataset, "file_meta", None) or FileMetaDataset()
    if "TransferSyntaxUID" not in meta and dataset.original_encoding[1]:
        implicit = dataset.original_encoding[0]
        meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        dataset.file_meta = meta


def transformation_of(dataset: Dataset, number: int) -> Dataset:
    """Where the slope of a frame (its number from 1) stands: in its own group, in all frames' or outside of them."""
    for groups in (dataset[_OWN].value[number - 1], *(dataset.get(_SHARED) or ())):
        for values in groups.get("PixelValueTransformationSequence") or ():
            own: Dataset = values
            return own
    return dataset


def _common(dataset: Dataset) -> Dataset:
    from pydicom.dataset import Dataset

    common = Dataset()
    left_out = (_SHARED, _OWN, "NumberOfFrames", "PixelData")
    for element in dataset.values():
        resolved = dataset[element.tag]
        if resolved.keyword not in left_out:
            common.add(resolved)
    shared = dataset.get(_SHARED)
    return _with(common, shared[0]) if shared else common


def _with(common: Dataset, groups: Dataset) -> Dataset:
    """What is common, and what the functional groups say, which counts."""
    from pydicom.dataset import Dataset

    header = Dataset(common)
    for group in groups:
        if group.VR == "SQ" and group.value:
            for element in group.value[0]:
                header.add(element)
                if element.keyword in _CALLED:
                    setattr(header, _CALLED[element.keyword], element.value)
    return header
