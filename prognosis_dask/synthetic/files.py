"""The files of synthetic patients: DICOM, what all have in common and masks; all of a glioma patient, and its truth."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, cast

import numpy as np
import SimpleITK as sitk
from contourpy import LineType, contour_generator
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.sr.codedict import codes
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage, RTStructureSetStorage, generate_uid

from prognosis_dask.arrays import BoolArray, Float32Array, FloatArray, NumberArray
from prognosis_dask.imaging.geometry import image_like
from prognosis_dask.synthetic.brain import SyntheticScan, make_scan
from prognosis_dask.synthetic.patient import BRAIN_LESION, SEQUENCES, BrainPatient

MANUFACTURER = "prognosis_dask"
CREATED_TIME = "120000"


class Person(Protocol):
    """The data of a patient that headers need."""

    @property
    def patient_id(self) -> str:
        """PatientID."""

    @property
    def seed(self) -> int:
        """The cohort's seed, part of every identifier."""

    @property
    def age(self) -> int:
        """Years."""

    @property
    def gender(self) -> str:
        """``female`` or ``male``."""

    @property
    def scan_date(self) -> datetime.date:
        """The date of the scan."""


def synthetic_uid(patient: Person, *what: object) -> UID:
    """A unique identifier under pydicom's root that depends only on the seed, the patient and ``what``."""
    return generate_uid(entropy_srcs=[str(patient.seed), patient.patient_id, *map(str, what)])


def series_folder(root: Path, patient: Person, number: int, description: str, series_uid: str) -> Path:
    """Make the folder ``root/PatientID/date-study/number-description-end of the UID`` and return it."""
    study = f"{patient.scan_date:%m-%d-%Y}-StudyID-{synthetic_uid(patient, 'study')[-5:]}"
    folder = root / patient.patient_id / study / f"{number}.000000-{description}-{series_uid[-5:]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def patient_and_study(patient: Person, description: str) -> Dataset:
    """The Patient, General Study and Patient Study modules, shared by all instances of the patient."""
    ds = Dataset()
    ds.PatientID = patient.patient_id
    ds.PatientName = f"{patient.patient_id}^"  # the caret marks a single name component
    ds.PatientBirthDate = ""
    ds.PatientSex = patient.gender[0].upper()
    ds.PatientAge = f"{patient.age:03d}Y"
    ds.PatientIdentityRemoved = "YES"
    ds.DeidentificationMethod = "made, no person behind it"
    ds.StudyInstanceUID = synthetic_uid(patient, "study")
    ds.StudyID = synthetic_uid(patient, "study")[-5:]
    ds.StudyDate = f"{patient.scan_date:%Y%m%d}"
    ds.StudyTime = CREATED_TIME
    ds.StudyDescription = description
    ds.AccessionNumber = ds.ReferringPhysicianName = ""
    return ds


def image_header(patient: Person, study: str, modality: str, series_uid: str, number: int) -> Dataset:
    """The modules that a slice of any modality has, without its place and pixels; ``number``: of the instance."""
    ds = patient_and_study(patient, study)
    ds.Modality = modality
    ds.SeriesInstanceUID = series_uid
    ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = ds.StudyDate
    ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = CREATED_TIME
    ds.Manufacturer = MANUFACTURER
    ds.PatientPosition = "HFS"
    ds.FrameOfReferenceUID = synthetic_uid(patient, "frame of reference")
    ds.PositionReferenceIndicator = ""
    ds.AcquisitionNumber = 1
    ds.InstanceNumber = number
    return ds


def set_pixels(ds: Dataset, plane: NumberArray) -> None:
    """A slice of grey levels in twelve unsigned bits, (row, column)."""
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = plane.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.PixelRepresentation = 0
    ds.PixelData = plane.astype("<u2").tobytes()


def write_instance(path: Path, ds: Dataset) -> None:
    """Write a dataset as a DICOM file (explicit little endian) with its file meta information."""
    if not hasattr(ds, "file_meta"):
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    dcmwrite(path, ds, enforce_file_format=True)


@dataclass(frozen=True)
class DrawnStructure:
    """One ROI: name, RT ROI Interpreted Type, and closed polygons (point, (x, y) in mm), each with its slice."""

    name: str
    kind: str
    polygons: Sequence[tuple[int, FloatArray]]


def write_rtstruct(
    root: Path, patient: Person, structures: Sequence[DrawnStructure], images: Sequence[Dataset]
) -> Path:
    """Write the structure set that goes with axial ``images`` (datasets from foot to head)."""
    ds = _header(patient, images)
    ds.StructureSetROISequence = [_roi(number, s.name, images[0]) for number, s in enumerate(structures, 1)]
    ds.ROIContourSequence = [_contours(number, s, images) for number, s in enumerate(structures, 1)]
    ds.RTROIObservationsSequence = [_observation(number, s.kind) for number, s in enumerate(structures, 1)]
    path = series_folder(root, patient, 3, "RTSTRUCT", ds.SeriesInstanceUID) / "1-1.dcm"
    write_instance(path, ds)
    return path


def outlines(level_mm: Float32Array, spacing_mm: float, corner_mm: tuple[float, float]) -> list[tuple[int, FloatArray]]:
    """The outlines of a lesion, slice by slice; the outline of a hole is a polygon of its own.

    Marching squares between the pixels' centres, so that a centre lies in an odd number of a slice's polygons exactly
    when its voxel is in the mask. The vertices stay a tenth of a pixel away from the centres: rounding to
    micrometres cannot move a voxel across.

    Parameters
    ----------
    level_mm
        (slice, row, column), mm: positive inside.
    spacing_mm
        Distance of rows and of columns.
    corner_mm
        (x, y) of the first pixel's centre.
    """
    level = level_mm / spacing_mm
    level = np.where(level > 0, np.clip(level, 0.1, 0.9), np.clip(level, -0.9, -0.1))
    return [
        (int(index), polygon * spacing_mm + np.array(corner_mm))
        for index in np.flatnonzero((level_mm > 0).any(axis=(1, 2)))
        for polygon in _polygons(level[index])
    ]


def _polygons(level: Float32Array) -> list[FloatArray]:
    """The closed polygons (x, y), in pixels, at which the level is zero; the first point is not repeated."""
    lines = cast(list[FloatArray], contour_generator(z=level, line_type=LineType.Separate).lines(0.0))
    return [line[:-1] for line in lines]


def _header(patient: Person, images: Sequence[Dataset]) -> Dataset:
    ds = patient_and_study(patient, images[0].StudyDescription)
    ds.SOPClassUID = RTStructureSetStorage
    ds.SOPInstanceUID = synthetic_uid(patient, "rtstruct", 1)
    ds.Modality = "RTSTRUCT"
    ds.SeriesInstanceUID = synthetic_uid(patient, "rtstruct")
    ds.SeriesNumber = 3
    ds.SeriesDescription = "RTSTRUCT"
    ds.OperatorsName = ""
    ds.Manufacturer = MANUFACTURER
    ds.InstanceNumber = 1
    ds.StructureSetLabel = "Made"
    ds.StructureSetDate = ds.StudyDate
    ds.StructureSetTime = CREATED_TIME
    ds.ApprovalStatus = "UNAPPROVED"
    series = Dataset()
    series.SeriesInstanceUID = images[0].SeriesInstanceUID
    series.ContourImageSequence = [_reference(instance) for instance in images]
    study = Dataset()
    study.ReferencedSOPClassUID = "1.2.840.10008.3.1.2.3.1"  # Detached Study Management, retired, still the usual one
    study.ReferencedSOPInstanceUID = ds.StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame = Dataset()
    frame.FrameOfReferenceUID = ds.FrameOfReferenceUID = images[0].FrameOfReferenceUID
    frame.RTReferencedStudySequence = [study]
    ds.PositionReferenceIndicator = ""
    ds.ReferencedFrameOfReferenceSequence = [frame]
    return ds


def _reference(instance: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = instance.SOPClassUID
    item.ReferencedSOPInstanceUID = instance.SOPInstanceUID
    return item


def _roi(number: int, name: str, image: Dataset) -> Dataset:
    item = Dataset()
    item.ROINumber = number
    item.ReferencedFrameOfReferenceUID = image.FrameOfReferenceUID
    item.ROIName = name
    item.ROIGenerationAlgorithm = "MANUAL"
    return item


def _contours(number: int, structure: DrawnStructure, images: Sequence[Dataset]) -> Dataset:
    item = Dataset()
    item.ReferencedROINumber = number
    item.ROIDisplayColor = [255, 32 * number, 0]
    item.ContourSequence = [_contour(polygon, images[index]) for index, polygon in structure.polygons]
    return item


def _contour(polygon: FloatArray, instance: Dataset) -> Dataset:
    z_mm = float(instance.ImagePositionPatient[2])
    item = Dataset()
    item.ContourImageSequence = [_reference(instance)]
    item.ContourGeometricType = "CLOSED_PLANAR"
    item.NumberOfContourPoints = len(polygon)
    numbers = [text for x, y in polygon for text in (f"{x:.3f}", f"{y:.3f}", f"{z_mm:.3f}")]
    # as text: else each number is parsed, only to be written again
    item.add(DataElement("ContourData", "DS", numbers, already_converted=True))
    return item


def _observation(number: int, kind: str) -> Dataset:
    item = Dataset()
    item.ObservationNumber = item.ReferencedROINumber = number
    item.RTROIInterpretedType = kind
    item.ROIInterpreter = ""
    return item


def write_seg(root: Path, patient: Person, name: str, mask: BoolArray, images: Sequence[Dataset]) -> Path:
    """Write ``mask`` (slice, row, column) as the segment ``name`` of ``images`` (datasets from foot to head)."""
    segment = SegmentDescription(
        segment_number=1,
        segment_label="Neoplasm, Primary",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.NeoplasmPrimary,
        algorithm_type="MANUAL",
    )
    segment.SegmentDescription = name
    ds = Segmentation(
        source_images=list(images),
        pixel_array=mask,
        segmentation_type="BINARY",
        segment_descriptions=[segment],
        series_instance_uid=synthetic_uid(patient, "seg"),
        series_number=300,
        sop_instance_uid=synthetic_uid(patient, "seg", 1),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MANUFACTURER,
        software_versions="1",
        device_serial_number="0",
        series_description="Segmentation",
    )
    _make_repeatable(ds, patient)
    path = series_folder(root, patient, 300, "Segmentation", ds.SeriesInstanceUID) / "1-1.dcm"
    write_instance(path, ds)
    return path


def _make_repeatable(ds: Segmentation, patient: Person) -> None:
    """Replace the present time and the random identifiers that highdicom writes."""
    fixed = {
        "InstanceCreationDate": ds.StudyDate,
        "InstanceCreationTime": CREATED_TIME,
        "ContentDate": ds.StudyDate,
        "ContentTime": CREATED_TIME,
        "ContributionDateTime": ds.StudyDate + CREATED_TIME,
        "DimensionOrganizationUID": synthetic_uid(patient, "dimensions"),
    }

    def replace(_: Dataset, element: DataElement) -> None:
        if element.keyword in fixed:
            element.value = fixed[element.keyword]

    ds.walk(replace)


_STUDY: Final = "Made brain"
#: Series number, description, and repetition, echo and inversion time in ms, as of usual protocols at 1.5 T.
_PROTOCOL: Final[dict[str, tuple[int, str, float, float, float]]] = {
    "T2": (4, "AX T2 FSE", 4000, 100, 0),
    "T1": (2, "AX T1", 500, 14, 0),
    "T1c": (6, "AX T1 POST GD", 500, 14, 0),
    "FLAIR": (5, "AX T2 FLAIR", 9000, 130, 2200),
}


def write_brain_patient(images: Path, truth: Path, matrix: int, patient: BrainPatient) -> int:
    """Write a patient's sequences and mask into ``images``, the truth into ``truth``; returns the number of files.

    ``PatientID/PatientID_T1.nii.gz`` and so on with ``PatientID_Segmentation.nii.gz``, as the collection
    LGG-1p19qDeletion names them, or DICOM series with an RTSTRUCT or a SEG. The truth is described in
    docs/synthetic_cohorts.md.
    """
    scan = make_scan(patient, matrix)
    drawn = drawn_mask(scan, patient.outlined_slices)
    write = _write_nifti if patient.mask_format == "NIFTI" else _write_dicom
    files = write(images, patient, scan, drawn)
    _write_truth(truth / patient.patient_id, patient, scan)
    return files


def drawn_mask(scan: SyntheticScan, slices: int) -> BoolArray:
    """The lesion as outlined: on every slice (0), or on ``slices`` of them spread from first to last.

    Returns
    -------
    numpy.ndarray
        bool, (slice, row, column), on the reference sequence's grid.
    """
    mask: BoolArray = sitk.GetArrayFromImage(scan.lesion_mask) > 0
    if slices:
        held = np.flatnonzero(mask.any(axis=(1, 2)))
        kept = held[np.rint(np.linspace(0, len(held) - 1, slices)).astype(int)]
        mask[np.setdiff1d(held, kept)] = False
    return mask


def _write_nifti(images: Path, patient: BrainPatient, scan: SyntheticScan, drawn: BoolArray) -> int:
    folder = images / patient.patient_id
    folder.mkdir(parents=True)
    for name, sequence in scan.sequences.items():
        sitk.WriteImage(sequence.image, str(folder / f"{patient.patient_id}_{name}.nii.gz"))
    mask = image_like(drawn.astype(np.uint8), scan.lesion_mask)
    sitk.WriteImage(mask, str(folder / f"{patient.patient_id}_Segmentation.nii.gz"))
    return len(scan.sequences) + 1


def _write_dicom(images: Path, patient: BrainPatient, scan: SyntheticScan, drawn: BoolArray) -> int:
    series = {name: _write_mr(images, patient, name, sequence.image) for name, sequence in scan.sequences.items()}
    reference = series[SEQUENCES[0]]
    if patient.mask_format == "SEG":
        write_seg(images, patient, BRAIN_LESION, drawn, reference)
    else:
        level = np.where(drawn.any(axis=(1, 2))[:, None, None], sitk.GetArrayFromImage(scan.lesion_level), -1)
        x, y, _ = scan.lesion_level.GetOrigin()
        tumour = DrawnStructure(BRAIN_LESION, "GTV", outlines(level, scan.lesion_level.GetSpacing()[0], (x, y)))
        write_rtstruct(images, patient, [tumour], reference)
    return sum(len(datasets) for datasets in series.values()) + 1


def _write_mr(root: Path, patient: Person, sequence: str, image: sitk.Image) -> list[Dataset]:
    """Write one file per slice of an int16 image; returns the datasets from foot to head."""
    number, description, *_ = _PROTOCOL[sequence]
    series_uid = synthetic_uid(patient, "mr", sequence)
    folder = series_folder(root, patient, number, description.replace(" ", "-"), series_uid)
    pixels = sitk.GetArrayFromImage(image)
    datasets = []
    for index, plane in enumerate(pixels):
        ds = _mr_header(patient, sequence, series_uid, index)
        _place(ds, image, index)
        ds.WindowCenter, ds.WindowWidth = 500, 1000
        set_pixels(ds, plane)
        write_instance(folder / f"1-{index + 1:02d}.dcm", ds)
        datasets.append(ds)
    return datasets


def _mr_header(patient: Person, sequence: str, series_uid: str, index: int) -> Dataset:
    number, description, repetition_ms, echo_ms, inversion_ms = _PROTOCOL[sequence]
    ds = image_header(patient, _STUDY, "MR", series_uid, index + 1)
    ds.SOPClassUID = MRImageStorage
    ds.SOPInstanceUID = synthetic_uid(patient, "mr", sequence, index + 1)
    ds.SeriesNumber = number
    ds.SeriesDescription = description
    ds.BodyPartExamined = "BRAIN"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    ds.ScanningSequence = ["SE", "IR"] if inversion_ms else "SE"
    ds.SequenceVariant = "SK"
    ds.ScanOptions = ""
    ds.MRAcquisitionType = "2D"
    ds.RepetitionTime, ds.EchoTime, ds.EchoTrainLength = repetition_ms, echo_ms, 1
    ds.InversionTime = inversion_ms or None
    ds.MagneticFieldStrength = 1.5
    if sequence == "T1c":
        ds.ContrastBolusAgent = "made"
    return ds


def _place(ds: Dataset, image: sitk.Image, index: int) -> None:
    direction = np.asarray(image.GetDirection()).reshape(3, 3)
    column_mm, row_mm, step_mm = image.GetSpacing()
    position = image.TransformIndexToPhysicalPoint((0, 0, index))
    ds.ImagePositionPatient = [round(value, 6) for value in position]
    ds.ImageOrientationPatient = [round(float(value), 9) for value in (*direction[:, 0], *direction[:, 1])]
    ds.PixelSpacing = [row_mm, column_mm]
    ds.SliceThickness = ds.SpacingBetweenSlices = step_mm


def _write_truth(folder: Path, patient: BrainPatient, scan: SyntheticScan) -> None:
    folder.mkdir(parents=True)
    sitk.WriteImage(scan.lesion_mask, str(folder / "lesion.nii.gz"))
    for name, sequence in scan.sequences.items():
        sitk.WriteImage(sequence.brain, str(folder / f"brain_{name}.nii.gz"))
        sitk.WriteImage(_coarse(sequence.bias), str(folder / f"bias_{name}.nii.gz"))
    lesion = scan.lesion
    facts = {
        "grade": patient.grade,
        "codeleted": patient.codeleted,
        "outlined_slices": patient.outlined_slices,
        "volume_ml": lesion.volume_ml,
        "axial_diameters_mm": lesion.axial_diameters_mm,
        "diameter_3d_mm": lesion.diameter_3d_mm,
        "centre_mm": lesion.centre_mm.tolist(),
        "centre_template_mm": scan.to_template.TransformPoint(lesion.centre_mm.tolist()),
        "landmarks_mm": {
            name: {key: at.round(3).tolist() for key, at in places.items()} for name, places in scan.landmarks.items()
        },
    }
    (folder / "truth.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _coarse(field: sitk.Image) -> sitk.Image:
    """Every n-th voxel of a smooth field, so that a slice has 64 columns at most."""
    step = max(1, field.GetWidth() // 64)
    return sitk.Shrink(field, [step, step, 1])
