"""A phantom as a DICOM CT series, in folders named as the NBIA Data Retriever names them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import UID, CTImageStorage

from prognosis_dask.synthetic.dicom import (
    CREATED_TIME,
    MANUFACTURER,
    patient_and_study,
    series_folder,
    synthetic_uid,
    write_instance,
)
from prognosis_dask.synthetic.patient import Patient
from prognosis_dask.synthetic.phantom import SLICE_STEP_MM, Phantom

RESCALE_INTERCEPT = -1024
STUDY = "Made chest"


def write_ct(root: Path, patient: Patient, phantom: Phantom) -> list[tuple[Path, Dataset]]:
    """Write one file per slice. Returns (file, dataset) from foot to head; instance 1 is the slice at the head."""
    series_uid = synthetic_uid(patient, "ct")
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


def _ct_slice(
    patient: Patient, phantom: Phantom, series_uid: UID, index: int, number: int, plane: npt.NDArray[np.int16]
) -> Dataset:
    ds = patient_and_study(patient, STUDY)
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = synthetic_uid(patient, "ct", number)
    ds.Modality = "CT"
    ds.SeriesInstanceUID = series_uid
    ds.SeriesNumber = 2
    ds.SeriesDescription = "Chest"
    ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = ds.StudyDate
    ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = CREATED_TIME
    ds.Manufacturer = MANUFACTURER
    ds.BodyPartExamined = "CHEST"
    ds.PatientPosition = "HFS"
    ds.FrameOfReferenceUID = synthetic_uid(patient, "frame of reference")
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
