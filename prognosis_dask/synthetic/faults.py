"""The bad cases of a synthetic cohort: whole patients whose files are then damaged in one known way each."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prognosis_dask.errors import Code
from prognosis_dask.synthetic.patient import LESION_ROI

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


@dataclass(frozen=True)
class PatientFiles:
    """The files written for one patient. ``ct`` runs from foot to head; its middle slice crosses the lesion."""

    folder: Path
    ct: tuple[Path, ...]
    mask: Path


@dataclass(frozen=True)
class Fault:
    """One bad case: the patient, the problem that a run must report, a description, and the function that causes it."""

    patient_id: str
    code: Code
    description: str
    damage: Callable[[PatientFiles], None]
    in_clinical_table: bool = True


def _remove_slice(files: PatientFiles) -> None:
    files.ct[len(files.ct) // 2].unlink()


def _cut_slice(files: PatientFiles) -> None:
    path = files.ct[len(files.ct) // 2]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _move_lesion(files: PatientFiles) -> None:
    with _edited(files.mask) as ds:
        for contour in _lesion(ds).ContourSequence:
            contour.ContourData = [v + 1000 if i % 3 == 0 else v for i, v in enumerate(contour.ContourData)]


def _refer_elsewhere(files: PatientFiles) -> None:
    with _edited(files.mask) as ds:
        frame = ds.ReferencedFrameOfReferenceSequence[0]
        series = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
        ds.FrameOfReferenceUID = frame.FrameOfReferenceUID = _other(frame.FrameOfReferenceUID)
        series.SeriesInstanceUID = _other(series.SeriesInstanceUID)
        for roi in ds.StructureSetROISequence:
            roi.ReferencedFrameOfReferenceUID = frame.FrameOfReferenceUID
        contours = [contour for roi in ds.ROIContourSequence for contour in roi.ContourSequence]
        for image in [*series.ContourImageSequence, *(contour.ContourImageSequence[0] for contour in contours)]:
            image.ReferencedSOPInstanceUID = _other(image.ReferencedSOPInstanceUID)


def _drop_contours(files: PatientFiles) -> None:
    with _edited(files.mask) as ds:
        del _lesion(ds).ContourSequence


def _rename_lesion(files: PatientFiles) -> None:
    with _edited(files.mask) as ds:
        ds.StructureSetROISequence[-1].ROIName = "Tumour-2"


def _remove_files(files: PatientFiles) -> None:
    shutil.rmtree(files.folder)


def _leave(files: PatientFiles) -> None:
    pass


@contextmanager
def _edited(path: Path) -> Iterator[Dataset]:
    from pydicom import dcmread, dcmwrite

    ds = dcmread(path)
    yield ds
    dcmwrite(path, ds)


def _lesion(ds: Dataset) -> Dataset:
    """The contours of the lesion, which is the last ROI."""
    roi: Dataset = ds.ROIContourSequence[-1]
    return roi


def _other(uid: str) -> str:
    """A valid identifier that nothing else has."""
    return f"{uid[:-4]}0"


#: All planted bad cases, in addition to the requested patients.
FAULTS = (
    Fault("BAD-SLICE-GAP", Code.SLICE_GAP, "one slice inside the lesion is missing", _remove_slice),
    Fault("BAD-SLICE-CUT", Code.PIXELS_UNREADABLE, "a slice's file ends half-way", _cut_slice),
    Fault("BAD-ROI-OUTSIDE", Code.MASK_OUTSIDE, "the lesion's contours lie a metre beside the image", _move_lesion),
    Fault("BAD-FRAME", Code.MASK_WITHOUT_SERIES, "the RTSTRUCT refers to a series that is not there", _refer_elsewhere),
    Fault("BAD-ROI-EMPTY", Code.ROI_WITHOUT_CONTOUR, f"{LESION_ROI} has no contour", _drop_contours),
    Fault("BAD-ROI-NAME", Code.ROI_NOT_FOUND, f"no ROI is called {LESION_ROI}", _rename_lesion),
    Fault("BAD-NO-ROW", Code.NO_CLINICAL_ROW, "the clinical table lacks the patient", _leave, in_clinical_table=False),
    Fault("BAD-NO-IMAGES", Code.NO_IMAGES, "the clinical table has a patient without images", _remove_files),
)
