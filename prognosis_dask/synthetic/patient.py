"""Draw a synthetic patient: the lesion, the survival that follows from it, and the row of the clinical table.

The survival time follows a Weibull proportional hazards model whose log hazard is a weighted sum of the lesion's
size, its heterogeneity and the patient's age, all as standard normal scores (Bender et al., Generating survival times
to simulate Cox proportional hazards models, Stat Med 2005;24:1713, equation 6).
"""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

SIZE_WEIGHT: Final = 1.3
TEXTURE_WEIGHT: Final = 0.9
AGE_WEIGHT: Final = 0.2
WEIBULL_SHAPE: Final = 1.3
WEIBULL_SCALE_DAYS: Final = 750.0
END_OF_STUDY_DAYS: Final = 2100.0
MEAN_DROPOUT_DAYS: Final = 4000.0

#: The lesion's name, as in NSCLC-Radiomics.
LESION_ROI: Final = "GTV-1"
#: The columns of ``clinical.csv``.
CLINICAL_COLUMNS: Final = ("PatientID", "age", "gender", "stage", "time_days", "event")


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
        """The cells of ``clinical.csv``, in the order of :data:`CLINICAL_COLUMNS`."""
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
