"""A lesion's mask in DICOM: an RTSTRUCT with the organs around it, or a SEG labelled as in NSCLC-Radiomics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from contourpy import LineType, contour_generator
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import RTStructureSetStorage

from prognosis_dask.arrays import BoolArray, Float32Array, FloatArray
from prognosis_dask.synthetic.dicom import (
    CREATED_TIME,
    MANUFACTURER,
    Person,
    patient_and_study,
    series_folder,
    synthetic_uid,
    write_instance,
)


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
