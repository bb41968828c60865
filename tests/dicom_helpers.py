"""Small DICOM series and structure sets, and listings of folders made the slow and obvious way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, RTStructureSetStorage, generate_uid

from prognosis_dask.cohort.case import Case
from prognosis_dask.cohort.series import SeriesListing, SliceFile, write_listing
from prognosis_dask.errors import CaseError, Code


def list_series(folder: Path) -> SeriesListing:
    """The listing of all image instances in a folder."""
    headers = {path: pydicom.dcmread(path, stop_before_pixels=True, force=True) for path in sorted(folder.iterdir())}
    headers = {path: header for path, header in headers.items() if "ImagePositionPatient" in header}
    first = next(iter(headers.values()))
    cosines = np.array(first.ImageOrientationPatient, dtype=float)
    normal = np.cross(cosines[:3], cosines[3:])
    in_order = sorted(headers.items(), key=lambda item: float(normal @ np.array(item[1].ImagePositionPatient, float)))
    return SeriesListing(
        series_uid=str(first.SeriesInstanceUID),
        study_uid=str(first.StudyInstanceUID),
        patient_id=str(first.PatientID),
        modality=str(first.Modality),
        frame_of_reference_uid=str(first.get("FrameOfReferenceUID", "")),
        description="",
        root=str(folder),
        slices=tuple(_slice(path, header) for path, header in in_order),
    )


def _slice(path: Path, header: pydicom.Dataset) -> SliceFile:
    x, y, z = map(float, header.ImagePositionPatient)
    between_rows, between_columns = map(float, header.PixelSpacing)
    return SliceFile(
        file=path.name,
        sop_uid=str(header.SOPInstanceUID),
        position=(x, y, z),
        orientation=tuple(map(float, header.ImageOrientationPatient)),
        pixel_spacing=(between_rows, between_columns),
        size=(int(header.Rows), int(header.Columns)),
        bytes=path.stat().st_size,
        modified_ns=path.stat().st_mtime_ns,
        suv_factor=1.0 if header.get("Units") == "GML" else None,
    )


def case_of(image: Path, mask: Path, labels: tuple[int, ...], work: Path, modality: str = "CT") -> Case:
    """A case of an image file, or of a folder of slices whose listing is written to ``work``."""
    listed = write_listing(work, list_series(image)) if image.is_dir() else image
    return Case("case", "patient", modality, "roi", str(listed), str(mask), labels)


def write_series(
    folder: Path,
    stored: np.ndarray,
    *,
    spacing: tuple[float, float, float] = (1.0, 1.0, 2.0),
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
    orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
    modality: str = "CT",
    bits: int = 16,
    rescale: list[tuple[float, float]] | tuple[float, float] | None = None,
) -> Path:
    """Write ``stored`` (slice, row, column) as a series of one file a slice; ``spacing`` is (x, y, z) in mm."""
    folder.mkdir(parents=True)
    cosines = np.array(orientation, dtype=float)
    normal = np.cross(cosines[:3], cosines[3:])
    series_uid, study_uid, frame_uid = (generate_uid(entropy_srcs=[str(folder), part]) for part in "abc")
    for number, plane in enumerate(stored):
        slice_ = Dataset()
        slice_.SOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
        slice_.SOPInstanceUID = generate_uid(entropy_srcs=[str(folder), str(number)])
        slice_.SeriesInstanceUID, slice_.StudyInstanceUID, slice_.FrameOfReferenceUID = series_uid, study_uid, frame_uid
        slice_.PatientID, slice_.Modality, slice_.InstanceNumber = "P", modality, number + 1
        slice_.PatientName, slice_.PatientBirthDate, slice_.PatientSex = "P", "", ""
        for keyword in ("StudyDate", "StudyTime", "AccessionNumber", "StudyID", "ReferringPhysicianName"):
            setattr(slice_, keyword, "")
        slice_.Manufacturer = "M"
        slice_.ImagePositionPatient = [f"{v:.6f}" for v in np.array(origin) + number * spacing[2] * normal]
        slice_.ImageOrientationPatient = [f"{v:.12f}" for v in cosines]
        slice_.SliceThickness = spacing[2]
        slice_.PixelSpacing = [spacing[1], spacing[0]]
        slice_.Rows, slice_.Columns = plane.shape
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit = 8 * stored.itemsize, bits, bits - 1
        slice_.PixelRepresentation = int(np.issubdtype(stored.dtype, np.signedinteger))
        if rescale is not None:
            slope, intercept = rescale[number] if isinstance(rescale, list) else rescale
            slice_.RescaleSlope, slice_.RescaleIntercept = slope, intercept
        slice_.PixelData = plane.tobytes()
        slice_.file_meta = FileMetaDataset()
        slice_.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        slice_["PixelData"].VR = "OW"
        slice_.save_as(folder / f"{number:03}.dcm", enforce_file_format=True)
    return folder


def write_rtstruct(path: Path, contours: list[np.ndarray], *, kind: str = "CLOSED_PLANAR", name: str = "GTV-1") -> Path:
    """Write an RTSTRUCT whose ROI 1 has the contours, (n, 3) in mm each, and whose ROI 2 has none."""
    structures = Dataset()
    structures.SOPClassUID, structures.SOPInstanceUID = RTStructureSetStorage, generate_uid()
    structures.Modality, structures.PatientID = "RTSTRUCT", "P"
    structures.StructureSetROISequence = []
    for number, label in enumerate((name, "empty"), start=1):
        roi = Dataset()
        roi.ROINumber, roi.ROIName = number, label
        structures.StructureSetROISequence.append(roi)
    lines = Dataset()
    lines.ReferencedROINumber, lines.ContourSequence = 1, []
    for points in contours:
        contour = Dataset()
        contour.ContourGeometricType, contour.NumberOfContourPoints = kind, len(points)
        contour.ContourData = [f"{value:.4f}" for value in np.asarray(points).ravel()]
        lines.ContourSequence.append(contour)
    structures.ROIContourSequence = [lines]
    structures.file_meta = FileMetaDataset()
    structures.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    structures.save_as(path, enforce_file_format=True)
    return path


def refer_to(path: Path, folder: Path) -> None:
    """Let a structure set name the series in a folder, and nothing more."""
    first = pydicom.dcmread(next(folder.iterdir()))
    dataset = pydicom.dcmread(path)
    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = first.SeriesInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID = first.FrameOfReferenceUID
    frame.RTReferencedStudySequence = [study]
    dataset.ReferencedFrameOfReferenceSequence = [frame]
    dataset.save_as(path)


def write_seg(
    path: Path, source: Path, masks: np.ndarray | highdicom.Volume, segments: list[int], kind: str = "BINARY"
) -> Path:
    """Write a SEG of the series in ``source`` with highdicom; masks as its ``Segmentation`` takes them."""
    images = [pydicom.dcmread(source / slice_.file) for slice_ in list_series(source).slices]
    for image in images:
        image.PatientName = "P^"  # highdicom warns of names without a caret
    descriptions = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=f"segment {number}",
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.NeoplasmPrimary,
            algorithm_type="MANUAL",
        )
        for number in segments
    ]
    highdicom.seg.Segmentation(
        source_images=images,
        pixel_array=masks,
        segmentation_type=kind,
        segment_descriptions=descriptions,
        series_instance_uid=generate_uid(),
        series_number=9,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="M",
        manufacturer_model_name="M",
        software_versions="1",
        device_serial_number="1",
    ).save_as(path)
    return path


def problem_of(action: Callable[[], object]) -> Code:
    """The code of the problem that an action must raise."""
    with pytest.raises(CaseError) as caught:
        action()
    assert len(caught.value.problem.reason) > 20, "a reason says what was seen and expected"
    return caught.value.problem.code
