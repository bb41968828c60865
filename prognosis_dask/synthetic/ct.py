"""A phantom as a DICOM CT series, in folders named as the NBIA Data Retriever names them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid

from prognosis_dask.synthetic.patient import Patient
from prognosis_dask.synthetic.phantom import SLICE_STEP_MM, Phantom

MANUFACTURER = "prognosis_dask"
RESCALE_INTERCEPT = -1024
CREATED_TIME = "120000"


def made_uid(patient: Patient, *what: object) -> UID:
    """A unique identifier under pydicom's root that depends on the seed, the patient and ``what`` alone."""
    return generate_uid(entropy_srcs=[str(patient.seed), patient.patient_id, *map(str, what)])


def series_folder(root: Path, patient: Patient, number: int, description: str, series_uid: str) -> Path:
    """Make the folder ``root/PatientID/date-study/number-description-end of the UID`` and return it."""
    study = f"{patient.scan_date:%m-%d-%Y}-StudyID-{made_uid(patient, 'study')[-5:]}"
    folder = root / patient.patient_id / study / f"{number}.000000-{description}-{series_uid[-5:]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def patient_and_study(patient: Patient) -> Dataset:
    """What every instance of the patient says: the Patient, General Study and Patient Study modules."""
    ds = Dataset()
    ds.PatientID = patient.patient_id
    ds.PatientName = f"{patient.patient_id}^"  # the caret says that one component is meant
    ds.PatientBirthDate = ""
    ds.PatientSex = patient.gender[0].upper()
    ds.PatientAge = f"{patient.age:03d}Y"
    ds.PatientIdentityRemoved = "YES"
    ds.DeidentificationMethod = "made, no person behind it"
    ds.StudyInstanceUID = made_uid(patient, "study")
    ds.StudyID = made_uid(patient, "study")[-5:]
    ds.StudyDate = f"{patient.scan_date:%Y%m%d}"
    ds.StudyTime = CREATED_TIME
    ds.StudyDescription = "Made chest"
    ds.AccessionNumber = ds.ReferringPhysicianName = ""
    return ds


def write_ct(root: Path, patient: Patient, phantom: Phantom) -> list[tuple[Path, Dataset]]:
    """Write one file per slice. Returns (file, dataset) from foot to head; instance 1 is the slice at the head."""
    series_uid = made_uid(patient, "ct")
    folder = series_folder(root, patient, 2, "Chest", series_uid)
    slices = len(phantom.image_hu)
    written = []
    for index, plane in enumerate(phantom.image_hu):
        number = slices - index
        ds = _ct_slice(patient, phantom, series_uid, index, number, plane)
        path = folder / f"1-{number:02d}.dcm"
        write_instance(path, ds)
        written.append((path, ds))
    return written


def write_instance(path: Path, ds: Dataset) -> None:
    """Write a dataset as a DICOM file (explicit little endian) with its file meta information."""
    if not hasattr(ds, "file_meta"):
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    dcmwrite(path, ds, enforce_file_format=True)


def _ct_slice(
    patient: Patient, phantom: Phantom, series_uid: UID, index: int, number: int, plane: npt.NDArray[np.int16]
) -> Dataset:
    ds = patient_and_study(patient)
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = made_uid(patient, "ct", number)
    ds.Modality = "CT"
    ds.SeriesInstanceUID = series_uid
    ds.SeriesNumber = 2
    ds.SeriesDescription = "Chest"
    ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = ds.StudyDate
    ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = CREATED_TIME
    ds.Manufacturer = MANUFACTURER
    ds.BodyPartExamined = "CHEST"
    ds.PatientPosition = "HFS"
    ds.FrameOfReferenceUID = made_uid(patient, "frame of reference")
    ds.PositionReferenceIndicator = ""
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.AcquisitionNumber = 1
    ds.InstanceNumber = number
    ds.KVP = 120
    x, y, _ = phantom.origin_mm
    ds.ImagePositionPatient = [round(x, 3), round(y, 3), phantom.z_mm(index)]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing = [phantom.spacing_mm, phantom.spacing_mm]
    ds.SliceThickness = SLICE_STEP_MM
    ds.SliceLocation = phantom.z_mm(index)
    _set_pixels(ds, plane)
    return ds


def _set_pixels(ds: Dataset, plane: npt.NDArray[np.int16]) -> None:
    """Twelve unsigned bits with the usual intercept."""
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = plane.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.PixelRepresentation = 0
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = RESCALE_INTERCEPT, 1, "HU"
    ds.WindowCenter, ds.WindowWidth = 40, 400
    ds.PixelData = (plane - RESCALE_INTERCEPT).astype("<u2").tobytes()
