"""Write a synthetic sequence as a DICOM MR series."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage

from prognosis_dask.synthetic.dicom import (
    CREATED_TIME,
    MANUFACTURER,
    Person,
    patient_and_study,
    series_folder,
    synthetic_uid,
    write_instance,
)

STUDY: Final = "Made brain"
#: Series number, description, and repetition, echo and inversion time in ms, as of usual protocols at 1.5 T.
_PROTOCOL: Final[dict[str, tuple[int, str, float, float, float]]] = {
    "T2": (4, "AX T2 FSE", 4000, 100, 0),
    "T1": (2, "AX T1", 500, 14, 0),
    "T1c": (6, "AX T1 POST GD", 500, 14, 0),
    "FLAIR": (5, "AX T2 FLAIR", 9000, 130, 2200),
}


def write_mr(root: Path, patient: Person, sequence: str, image: sitk.Image) -> list[Dataset]:
    """Write one file per slice of an int16 image; returns the datasets from foot to head."""
    number, description, *_ = _PROTOCOL[sequence]
    series_uid = synthetic_uid(patient, "mr", sequence)
    folder = series_folder(root, patient, number, description.replace(" ", "-"), series_uid)
    pixels = sitk.GetArrayFromImage(image)
    datasets = []
    for index, plane in enumerate(pixels):
        ds = _header(patient, sequence, series_uid, index)
        _place(ds, image, index)
        ds.SamplesPerPixel = 1
        ds.PhotometricInterpretation = "MONOCHROME2"
        ds.Rows, ds.Columns = plane.shape
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
        ds.PixelRepresentation = 0
        ds.WindowCenter, ds.WindowWidth = 500, 1000
        ds.PixelData = plane.astype(np.dtype("<u2")).tobytes()
        write_instance(folder / f"1-{index + 1:02d}.dcm", ds)
        datasets.append(ds)
    return datasets


def _header(patient: Person, sequence: str, series_uid: str, index: int) -> Dataset:
    number, description, repetition_ms, echo_ms, inversion_ms = _PROTOCOL[sequence]
    ds = patient_and_study(patient, STUDY)
    ds.SOPClassUID = MRImageStorage
    ds.SOPInstanceUID = synthetic_uid(patient, "mr", sequence, index + 1)
    ds.Modality = "MR"
    ds.SeriesInstanceUID = series_uid
    ds.SeriesNumber = number
    ds.SeriesDescription = description
    ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = ds.StudyDate
    ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = CREATED_TIME
    ds.Manufacturer = MANUFACTURER
    ds.BodyPartExamined = "BRAIN"
    ds.PatientPosition = "HFS"
    ds.FrameOfReferenceUID = synthetic_uid(patient, "frame of reference")
    ds.PositionReferenceIndicator = ""
    ds.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    ds.AcquisitionNumber = 1
    ds.InstanceNumber = index + 1
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
