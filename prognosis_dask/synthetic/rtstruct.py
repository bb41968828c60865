"""An RTSTRUCT of the lesion and of the organs around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
from contourpy import LineType, contour_generator
from pydicom.dataset import Dataset
from pydicom.uid import RTStructureSetStorage

from prognosis_dask.synthetic.ct import (
    CREATED_TIME,
    MANUFACTURER,
    made_uid,
    patient_and_study,
    series_folder,
    write_instance,
)
from prognosis_dask.synthetic.patient import LESION_ROI, Patient
from prognosis_dask.synthetic.phantom import CORD, LUNG_LEFT, LUNG_RIGHT, Ellipse, Floats, Phantom

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Structure:
    """One ROI: name, RT ROI Interpreted Type, and closed polygons (point, (x, y) in mm), each with its slice."""

    name: str
    kind: str
    polygons: Sequence[tuple[int, Points]]


def write_rtstruct(root: Path, patient: Patient, phantom: Phantom, ct: Sequence[Dataset]) -> Path:
    """Write the structure set that goes with the CT ``ct`` (datasets from foot to head)."""
    every = range(len(ct))
    structures = [
        Structure("Lung-Left", "ORGAN", [(i, _ring(LUNG_LEFT)) for i in every]),
        Structure("Lung-Right", "ORGAN", [(i, _ring(LUNG_RIGHT)) for i in every]),
        Structure("Spinal-Cord", "ORGAN", [(i, _ring(CORD)) for i in every]),
        Structure(LESION_ROI, "GTV", lesion_polygons(phantom)),
    ]
    ds = _header(patient, ct)
    ds.StructureSetROISequence = [_roi(number, s.name, ct[0]) for number, s in enumerate(structures, 1)]
    ds.ROIContourSequence = [_contours(number, s, phantom, ct) for number, s in enumerate(structures, 1)]
    ds.RTROIObservationsSequence = [_observation(number, s.kind) for number, s in enumerate(structures, 1)]
    path = series_folder(root, patient, 3, "RTSTRUCT", ds.SeriesInstanceUID) / "1-1.dcm"
    write_instance(path, ds)
    return path


def lesion_polygons(phantom: Phantom) -> list[tuple[int, Points]]:
    """The outlines of the lesion, slice by slice; the outline of a hole is a polygon of its own.

    Marching squares between the pixels' centres, so that a centre lies in an odd number of a slice's polygons exactly
    when its voxel is in the mask. The vertices stay a tenth of a pixel away from the centres: rounding to
    micrometres cannot move a voxel across.
    """
    level = phantom.level_mm / phantom.spacing_mm
    level = np.where(level > 0, np.clip(level, 0.1, 0.9), np.clip(level, -0.9, -0.1))
    corner = np.array(phantom.origin_mm[:2])
    return [
        (int(index), polygon * phantom.spacing_mm + corner)
        for index in np.flatnonzero(phantom.mask.any(axis=(1, 2)))
        for polygon in _outlines(level[index])
    ]


def _outlines(level: Floats) -> list[Points]:
    """The closed polygons (x, y), in pixels, at which the level is zero; the first point is not repeated."""
    lines = cast(list[Points], contour_generator(z=level, line_type=LineType.Separate).lines(0.0))
    return [line[:-1] for line in lines]


def _ring(organ: Ellipse, points: int = 24) -> Points:
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack(
        [organ.x_mm + organ.a_mm * np.cos(angle), organ.y_mm + organ.b_mm * np.sin(angle)],
        axis=1,
    )


def _header(patient: Patient, ct: Sequence[Dataset]) -> Dataset:
    ds = patient_and_study(patient)
    ds.SOPClassUID = RTStructureSetStorage
    ds.SOPInstanceUID = made_uid(patient, "rtstruct", 1)
    ds.Modality = "RTSTRUCT"
    ds.SeriesInstanceUID = made_uid(patient, "rtstruct")
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
    series.SeriesInstanceUID = ct[0].SeriesInstanceUID
    series.ContourImageSequence = [_reference(instance) for instance in ct]
    study = Dataset()
    study.ReferencedSOPClassUID = "1.2.840.10008.3.1.2.3.1"  # Detached Study Management, retired, still the usual one
    study.ReferencedSOPInstanceUID = ds.StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame = Dataset()
    frame.FrameOfReferenceUID = ds.FrameOfReferenceUID = ct[0].FrameOfReferenceUID
    frame.RTReferencedStudySequence = [study]
    ds.PositionReferenceIndicator = ""
    ds.ReferencedFrameOfReferenceSequence = [frame]
    return ds


def _reference(instance: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = instance.SOPClassUID
    item.ReferencedSOPInstanceUID = instance.SOPInstanceUID
    return item


def _roi(number: int, name: str, ct: Dataset) -> Dataset:
    item = Dataset()
    item.ROINumber = number
    item.ReferencedFrameOfReferenceUID = ct.FrameOfReferenceUID
    item.ROIName = name
    item.ROIGenerationAlgorithm = "MANUAL"
    return item


def _contours(number: int, structure: Structure, phantom: Phantom, ct: Sequence[Dataset]) -> Dataset:
    item = Dataset()
    item.ReferencedROINumber = number
    item.ROIDisplayColor = [255, 32 * number, 0]
    item.ContourSequence = [_contour(polygon, phantom.z_mm(index), ct[index]) for index, polygon in structure.polygons]
    return item


def _contour(polygon: Points, z_mm: float, instance: Dataset) -> Dataset:
    item = Dataset()
    item.ContourImageSequence = [_reference(instance)]
    item.ContourGeometricType = "CLOSED_PLANAR"
    item.NumberOfContourPoints = len(polygon)
    item.ContourData = [text for x, y in polygon for text in (f"{x:.3f}", f"{y:.3f}", f"{z_mm:.3f}")]
    return item


def _observation(number: int, kind: str) -> Dataset:
    item = Dataset()
    item.ObservationNumber = item.ReferencedROINumber = number
    item.RTROIInterpretedType = kind
    item.ROIInterpreter = ""
    return item
