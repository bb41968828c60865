"""Synthetic cohorts with the folders, formats and faults of a TCIA download. No data of real persons.

Chest CTs with one lesion each, whose size and texture drive the survival times in ``clinical.csv``; or MR of the brain
with one glioma each, whose appearance depends on the grade. So a whole run has a signal to find.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final

from prognosis_dask.arrays import Map
from prognosis_dask.config.fields import expect_fields
from prognosis_dask.config.job import SynthSection
from prognosis_dask.errors import JobError, StoreError
from prognosis_dask.publish import cannot_write
from prognosis_dask.synthetic.patient import (
    BRAIN_COLUMNS,
    CHEST_COLUMNS,
    FAULTS,
    BrainPatient,
    Fault,
    Patient,
    draw_brain_patient,
    draw_patient,
)

COLLECTIONS: Final = {"chest": "MADE-CHEST", "brain": "MADE-BRAIN"}

#: The folder with the truth of synthetic brains.
TRUTH: Final = "truth"
PLANTED_COLUMNS: Final = ("patient_id", "code", "description")


@dataclass(frozen=True)
class SyntheticCohort:
    """The cohort that :func:`make_cohort` wrote.

    Attributes
    ----------
    images
        The folder of images and masks.
    clinical
        The clinical table: PatientID, age, gender, and for the chest stage, time_days, event, for the brain grade and
        1p/19q.
    planted
        The table of bad cases: patient_id, code (the problem that a run must report) and description.
    patients, bad_patients, files
        How many good patients, bad ones, and files of images and masks.
    """

    images: Path
    clinical: Path
    planted: Path
    patients: int
    bad_patients: int
    files: int


def make_cohort(folder: Path, settings: SynthSection, map: Map = map) -> SyntheticCohort:
    """Write a cohort of ``settings.patients`` patients into ``folder``; keep a complete one with the same settings.

    Of the chest, patients ``MADE-0001``, ... alternate between an RTSTRUCT (with several ROIs, in one patient of ten
    with a hole) and a DICOM SEG. With ``settings.bad_cases`` the patients of
    :data:`prognosis_dask.synthetic.chest.FAULTS` come in addition, one per fault. Of the brain, patients
    ``MADE-B0001``, ... take turns between NIfTI, DICOM with RTSTRUCT and DICOM with SEG, one in four has the lesion
    outlined on three slices only, none is damaged, and the folder ``truth`` beside the images holds the truth of
    each. The same settings give the same bytes; a patient's files depend on the seed and the patient alone, so ``map``
    (as the built-in, perhaps a pool's) may write them in any order.

    Raises
    ------
    JobError
        When there are to be no patients, the seed is negative, or the matrix is smaller than 32.
    StoreError
        When the folder contains anything other than a cohort with the same settings, or cannot be created.
    """
    if settings.patients < 1:
        raise JobError(f"{settings.patients} patients were requested, expected one or more")
    expect_fields(settings, JobError, prefix="synth.")
    state = folder / "synth.json"
    kept = _kept(folder, state, settings)
    if kept is not None:
        return _summary(folder, settings, kept)
    images = _summary(folder, settings, 0).images
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_state(state, settings, None)
    except OSError as error:
        raise cannot_write(folder, error, how="") from error
    for old in (images, folder / TRUTH):
        shutil.rmtree(old, ignore_errors=True)
    images.mkdir(parents=True)
    write = _write_brains if settings.study == "brain" else _write_chests
    files = write(folder, images, settings, map)
    _write_state(state, settings, files)
    return _summary(folder, settings, files)


def _write_chests(folder: Path, images: Path, settings: SynthSection, map: Map) -> int:
    from prognosis_dask.synthetic.chest import write_patient  # loads pydicom and highdicom

    patients = draw_patients(settings)
    files = sum(map(partial(write_patient, images), patients))
    absent = {fault.patient_id for fault in FAULTS if not fault.in_clinical_table}
    rows = [patient.clinical_row for patient in patients if patient.patient_id not in absent]
    _write_table(folder / "clinical.csv", CHEST_COLUMNS, rows)
    planted = [(fault.patient_id, fault.code.value, fault.description) for fault in _faults(settings)]
    _write_table(folder / "planted.csv", PLANTED_COLUMNS, planted)
    return files


def _write_brains(folder: Path, images: Path, settings: SynthSection, map: Map) -> int:
    from prognosis_dask.synthetic.files import write_brain_patient  # loads SimpleITK, pydicom and highdicom

    patients = draw_brain_patients(settings)
    files = sum(map(partial(write_brain_patient, images, folder / TRUTH, settings.matrix), patients))
    _write_table(folder / "clinical.csv", BRAIN_COLUMNS, [patient.clinical_row for patient in patients])
    _write_table(folder / "planted.csv", PLANTED_COLUMNS, [])
    return files


def draw_patients(settings: SynthSection) -> list[Patient]:
    """The patients that :func:`make_cohort` writes, the good ones first."""
    draw = partial(draw_patient, seed=settings.seed, signal=settings.signal)
    good = [
        draw(f"MADE-{n:04d}", mask_format="SEG" if n % 2 == 0 else "RTSTRUCT", cavity=n % 10 == 1)
        for n in range(1, settings.patients + 1)
    ]
    return good + [draw(fault.patient_id, mask_format="RTSTRUCT", cavity=False) for fault in _faults(settings)]


def draw_brain_patients(settings: SynthSection) -> list[BrainPatient]:
    """The patients that :func:`make_cohort` writes for the study of the brain."""
    return [draw_brain_patient(n, settings.seed, settings.signal) for n in range(1, settings.patients + 1)]


def _faults(settings: SynthSection) -> tuple[Fault, ...]:
    return FAULTS if settings.bad_cases and settings.study == "chest" else ()


def _kept(folder: Path, state: Path, settings: SynthSection) -> int | None:
    """Number of files of a complete cohort in the folder; None if there is none, or an incomplete one."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    if not state.is_file():
        raise StoreError(f"{folder} contains something other than a synthetic cohort; choose a new or an empty folder")
    found = json.loads(state.read_text(encoding="utf-8"))
    if found["settings"] != asdict(settings):
        raise StoreError(
            f"{folder} contains a cohort with {found['settings']}, requested is {asdict(settings)}; "
            "choose another folder, or delete this one"
        )
    files: int | None = found["files"]
    return files


def _write_state(state: Path, settings: SynthSection, files: int | None) -> None:
    work = state.with_suffix(".working")
    work.write_text(json.dumps({"settings": asdict(settings), "files": files}, indent=1) + "\n", encoding="utf-8")
    work.replace(state)


def _write_table(path: Path, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(rows)


def _summary(folder: Path, settings: SynthSection, files: int) -> SyntheticCohort:
    return SyntheticCohort(
        images=folder / "manifest-made" / COLLECTIONS[settings.study],
        clinical=folder / "clinical.csv",
        planted=folder / "planted.csv",
        patients=settings.patients,
        bad_patients=len(_faults(settings)),
        files=files,
    )
