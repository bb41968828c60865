"""Draw synthetic patients: of the chest, the bad cases among them, and with a glioma.

Of the chest, the survival time follows a Weibull proportional hazards model whose log hazard is a weighted sum of the
lesion's size, its heterogeneity and the patient's age, all as standard normal scores (Bender et al., Generating
survival times to simulate Cox proportional hazards models, Stat Med 2005;24:1713, equation 6). Bad cases are whole
patients whose files are then damaged in one known way each.

The effects of a glioma's grade and 1p/19q status follow descriptions of lower-grade gliomas: grade III takes up
contrast agent and is uneven; tumours with 1p/19q co-deletion have blurred borders, those without are dark in the middle
on FLAIR while bright on T2 (the mismatch sign; Patel SH et al., Clin Cancer Res 2017;23:6078).
"""

from __future__ import annotations

import datetime
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from prognosis_dask.errors import Code

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

SIZE_WEIGHT: Final = 1.3
TEXTURE_WEIGHT: Final = 0.9
AGE_WEIGHT: Final = 0.2
WEIBULL_SHAPE: Final = 1.3
WEIBULL_SCALE_DAYS: Final = 750.0
END_OF_STUDY_DAYS: Final = 2100.0
MEAN_DROPOUT_DAYS: Final = 4000.0

#: The lesion's name, as in NSCLC-Radiomics.
CHEST_LESION: Final = "GTV-1"
#: The columns of ``clinical.csv``.
CHEST_COLUMNS: Final = ("PatientID", "age", "gender", "stage", "time_days", "event")


@dataclass(frozen=True)
class Patient:
    """The truth of one synthetic patient.

    ``size_score`` and ``texture_score`` are standard normal, cut at two standard deviations; ``radius_mm`` and
    ``texture_hu`` are their values in the image. ``mask_format`` says how the lesion's mask is stored, ``cavity``
    whether the lesion has an air-filled hole, which the mask leaves out.
    """

    patient_id: str
    seed: int
    age: int
    gender: str
    stage: str
    size_score: float
    texture_score: float
    time_days: int
    event: int
    scan_date: datetime.date
    mask_format: Literal["RTSTRUCT", "SEG"]
    cavity: bool

    @property
    def radius_mm(self) -> float:
        """Mean radius of the lesion: 10 to 28 mm, 17 mm in the middle."""
        return 17.0 * math.exp(0.25 * self.size_score)

    @property
    def texture_hu(self) -> float:
        """Standard deviation of the lesion's texture: 6 to 66 HU, 20 HU in the middle."""
        return 20.0 * math.exp(0.6 * self.texture_score)

    @property
    def clinical_row(self) -> tuple[object, ...]:
        """The cells of ``clinical.csv``, in the order of :data:`CHEST_COLUMNS`."""
        return (self.patient_id, self.age, self.gender, self.stage, self.time_days, self.event)


def generator(seed: int, patient_id: str, purpose: str) -> np.random.Generator:
    """A stream of random numbers that depends on nothing but its arguments.

    >>> a, b = (generator(0, "MADE-0001", "phantom").random() for _ in range(2))
    >>> a == b
    True
    """
    return np.random.default_rng(np.random.SeedSequence([seed, *f"{patient_id}/{purpose}".encode()]))


def draw_patient(
    patient_id: str, seed: int, signal: float, mask_format: Literal["RTSTRUCT", "SEG"], cavity: bool
) -> Patient:
    """Draw the patient. ``signal`` scales the log hazard: 0 makes the outcome independent of the images."""
    rng = generator(seed, patient_id, "patient")
    size, texture = np.clip(rng.standard_normal(2), -2.0, 2.0)
    age_score = float(np.clip(rng.standard_normal(), -2.0, 2.0))
    stage_score = 0.5 * size + rng.standard_normal()
    log_hazard = signal * (SIZE_WEIGHT * size + TEXTURE_WEIGHT * texture + AGE_WEIGHT * age_score)
    time_days, event = _survival(rng, log_hazard)
    return Patient(
        patient_id=patient_id,
        seed=seed,
        age=round(67 + 9 * age_score),
        gender=str(rng.choice(["female", "male"])),
        stage=("I", "II", "IIIa", "IIIb")[int(np.searchsorted([-0.8, 0.0, 0.8], stage_score))],
        size_score=float(size),
        texture_score=float(texture),
        time_days=time_days,
        event=event,
        scan_date=datetime.date(2010, 1, 1) + datetime.timedelta(days=int(rng.integers(1000))),
        mask_format=mask_format,
        cavity=cavity,
    )


def _survival(rng: np.random.Generator, log_hazard: float) -> tuple[int, int]:
    """Days under observation, and whether death ended it (1) or the study or a drop-out did (0)."""
    death = WEIBULL_SCALE_DAYS * (rng.standard_exponential() * math.exp(-log_hazard)) ** (1 / WEIBULL_SHAPE)
    censoring = min(END_OF_STUDY_DAYS, MEAN_DROPOUT_DAYS * rng.standard_exponential())
    return max(1, math.ceil(min(death, censoring))), int(death <= censoring)


#: The lesion's name in RTSTRUCT and SEG.
BRAIN_LESION: Final = "Tumour"
#: The columns of ``clinical.csv``; ``1p/19q`` is 1 if both arms are deleted.
BRAIN_COLUMNS: Final = ("PatientID", "age", "gender", "grade", "1p/19q")
#: Every sequence of a patient; the lesion is outlined on the first.
SEQUENCES: Final = ("T2", "T1", "T1c", "FLAIR")
#: Slice steps that occur, mm.
SLICE_STEPS_MM: Final = (3.0, 5.0, 6.5)

MaskFormat = Literal["NIFTI", "RTSTRUCT", "SEG"]


@dataclass(frozen=True)
class BrainPatient:
    """The truth of one synthetic patient.

    Attributes
    ----------
    grade, codeleted
        WHO grade (2 or 3) and whether 1p/19q is deleted, as in the table.
    texture, enhancement
        Standard deviation of the lesion's texture and its uptake of contrast agent, both as shares of white matter's
        signal.
    mismatch, border_mm
        How much darker the lesion's middle is on FLAIR, as a share of its signal, and the width of its border.
    radius_mm
        Radius of the ball that has the lesion's volume.
    slice_step_mm
        Between the slices of T2.
    outlined_slices
        Slices on which the lesion is outlined: 0 for all, or 3 (first, middle and last).
    """

    patient_id: str
    seed: int
    age: int
    gender: str
    grade: int
    codeleted: bool
    texture: float
    enhancement: float
    mismatch: float
    border_mm: float
    radius_mm: float
    slice_step_mm: float
    scan_date: datetime.date
    mask_format: MaskFormat
    outlined_slices: int

    @property
    def clinical_row(self) -> tuple[object, ...]:
        """The cells of ``clinical.csv``, in the order of :data:`BRAIN_COLUMNS`."""
        return (self.patient_id, self.age, self.gender, self.grade, int(self.codeleted))


def draw_brain_patient(number: int, seed: int, signal: float) -> BrainPatient:
    """Draw patient ``number`` (from 1).

    Grade, status, kind of mask and slice step alternate, so that small cohorts contain all of them. ``signal`` scales
    the effects of grade and status on the lesion; 0 means none.
    """
    patient_id = f"MADE-B{number:04d}"
    rng = generator(seed, patient_id, "patient")
    # within each pair of patients chance decides who has which grade; the status is drawn independently
    grade_high = bool((number + int(generator(seed, f"pair {(number - 1) // 2}", "grade").integers(2))) % 2)
    codeleted = bool(rng.random() < 0.5)
    side, arm = signal * (1 if grade_high else -1), signal * (1 if codeleted else -1)
    return BrainPatient(
        patient_id=patient_id,
        seed=seed,
        age=int(rng.integers(25, 70)),
        gender=str(rng.choice(["female", "male"])),
        grade=3 if grade_high else 2,
        codeleted=codeleted,
        texture=0.13 * math.exp(0.75 * side + 0.3 * float(rng.standard_normal())),
        enhancement=max(0.0, 0.3 + 0.25 * side + 0.1 * float(rng.standard_normal())),
        mismatch=max(0.0, 0.25 - 0.22 * arm + 0.05 * float(rng.standard_normal())),
        border_mm=max(0.5, 3.0 + 2.0 * arm + 0.5 * float(rng.standard_normal())),
        radius_mm=float(rng.uniform(13, 24)),
        slice_step_mm=float(rng.choice(SLICE_STEPS_MM)),
        scan_date=datetime.date(2010, 1, 1) + datetime.timedelta(days=int(rng.integers(1000))),
        mask_format=("NIFTI", "RTSTRUCT", "SEG")[(number - 1) % 3],
        outlined_slices=3 if number % 4 == 0 else 0,
    )


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
    Fault("BAD-ROI-EMPTY", Code.ROI_WITHOUT_CONTOUR, f"{CHEST_LESION} has no contour", _drop_contours),
    Fault("BAD-ROI-NAME", Code.ROI_NOT_FOUND, f"no ROI is called {CHEST_LESION}", _rename_lesion),
    Fault("BAD-NO-ROW", Code.NO_CLINICAL_ROW, "the clinical table lacks the patient", _leave, in_clinical_table=False),
    Fault("BAD-NO-IMAGES", Code.NO_IMAGES, "the clinical table has a patient without images", _remove_files),
)
