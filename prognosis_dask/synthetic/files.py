"""Write the files of one synthetic chest patient, in folders named as the NBIA Data Retriever names them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import UID, CTImageStorage

from prognosis_dask.arrays import FloatArray
from prognosis_dask.synthetic.dicom import (
    CREATED_TIME,
    MANUFACTURER,
    patient_and_study,
    series_folder,
    synthetic_uid,
    write_instance,
)
from prognosis_dask.synthetic.faults import FAULTS, PatientFiles
from prognosis_dask.synthetic.patient import LESION_ROI, Patient
from prognosis_dask.synthetic.phantom import (
    CORD,
    LUNG_LEFT,
    LUNG_RIGHT,
    SLICE_STEP_MM,
    Ellipse,
    Phantom,
    make_phantom,
)
from prognosis_dask.synthetic.rtstruct import DrawnStructure, outlines, write_rtstruct
from prognosis_dask.synthetic.seg import write_seg

_RESCALE_INTERCEPT = -1024
_STUDY = "Made chest"


def write_patient(images: Path, patient: Patient) -> int:
    """Write one patient's series and mask, damage them for a bad case; returns the number of files."""
    phantom = make_phantom(patient)
    ct = _write_ct(images, patient, phantom)
    datasets = [ds for _, ds in ct]
    if patient.mask_format == "SEG":
        mask = write_seg(images, patient, LESION_ROI, phantom.mask, datasets)
    else:
        mask = write_rtstruct(images, patient, _structures(phantom), datasets)
    files = PatientFiles(images / patient.patient_id, tuple(path for path, _ in ct), mask)
    for fault in FAULTS:
        if fault.patient_id == patient.patient_id:
            fault.damage(files)
    return sum(path.is_file() for path in (*files.ct, files.mask))


def _structures(phantom: Phantom) -> list[DrawnStructure]:
    """The lesion and the organs around it."""
    every = range(len(phantom.image_hu))
    corner = phantom.origin_mm[:2]
    return [
        DrawnStructure("Lung-Left", "ORGAN", [(i, _ring(LUNG_LEFT)) for i in every]),
        DrawnStructure("Lung-Right", "ORGAN", [(i, _ring(LUNG_RIGHT)) for i in every]),
        DrawnStructure("Spinal-Cord", "ORGAN", [(i, _ring(CORD)) for i in every]),
        DrawnStructure(LESION_ROI, "GTV", outlines(phantom.level_mm, phantom.spacing_mm, corner)),
    ]


def _ring(organ: Ellipse, points: int = 24) -> FloatArray:
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack(
        [organ.x_mm + organ.a_mm * np.cos(angle), organ.y_mm + organ.b_mm * np.sin(angle)],
        axis=1,
    )


def _write_ct(root: Path, patient: Patient, phantom: Phantom) -> list[tuple[Path, Dataset]]:
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
    ds = patient_and_study(patient, _STUDY)
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
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = _RESCALE_INTERCEPT, 1, "HU"
    ds.WindowCenter, ds.WindowWidth = 40, 400
    ds.PixelData = (plane - _RESCALE_INTERCEPT).astype("<u2").tobytes()
