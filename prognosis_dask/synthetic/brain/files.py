"""Write all files of one synthetic glioma patient: those of a download, and the truth separately."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage

from prognosis_dask.arrays import BoolArray
from prognosis_dask.imaging.geometry import image_like
from prognosis_dask.synthetic.brain.patient import LESION_ROI, SEQUENCES, BrainPatient
from prognosis_dask.synthetic.brain.scan import SyntheticScan, make_scan
from prognosis_dask.synthetic.dicom import (
    DrawnStructure,
    Person,
    image_header,
    outlines,
    series_folder,
    set_pixels,
    synthetic_uid,
    write_instance,
    write_rtstruct,
    write_seg,
)

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
        write_seg(images, patient, LESION_ROI, drawn, reference)
    else:
        level = np.where(drawn.any(axis=(1, 2))[:, None, None], sitk.GetArrayFromImage(scan.lesion_level), -1)
        x, y, _ = scan.lesion_level.GetOrigin()
        tumour = DrawnStructure(LESION_ROI, "GTV", outlines(level, scan.lesion_level.GetSpacing()[0], (x, y)))
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
        ds = _header(patient, sequence, series_uid, index)
        _place(ds, image, index)
        ds.WindowCenter, ds.WindowWidth = 500, 1000
        set_pixels(ds, plane)
        write_instance(folder / f"1-{index + 1:02d}.dcm", ds)
        datasets.append(ds)
    return datasets


def _header(patient: Person, sequence: str, series_uid: str, index: int) -> Dataset:
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
