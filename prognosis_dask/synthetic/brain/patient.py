"""Draw a synthetic glioma patient: grade, 1p/19q status, the resulting lesion, and the scan parameters.

The effects of grade and status follow descriptions of lower-grade gliomas: grade III takes up contrast
agent and is uneven; tumours with 1p/19q co-deletion have blurred borders, those without are dark in the middle on FLAIR
while bright on T2 (the mismatch sign; Patel SH et al., Clin Cancer Res 2017;23:6078).
"""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass
from typing import Final, Literal

from prognosis_dask.synthetic.patient import generator

#: The lesion's name in RTSTRUCT and SEG.
LESION_ROI: Final = "Tumour"
#: The columns of ``clinical.csv``; ``1p/19q`` is 1 if both arms are deleted.
CLINICAL_COLUMNS: Final = ("PatientID", "age", "gender", "grade", "1p/19q")
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
        """The cells of ``clinical.csv``, in the order of :data:`CLINICAL_COLUMNS`."""
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
