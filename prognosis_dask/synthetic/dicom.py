"""Common parts of all synthetic DICOM files: identifiers, folders, and the patient's modules."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Protocol

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from prognosis_dask.arrays import NumberArray

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
