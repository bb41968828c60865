"""A small run that ends in a grade with the network's features: balls of noise for brains, one epoch of training."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import xarray as xr

from prognosis_dask.brain.size import SIZE_FEATURES, size_values, tumour_size
from prognosis_dask.cohort.case import Case
from prognosis_dask.config.job import BrainSection, DeepSection, GradeSection, Job, ModelSection
from prognosis_dask.config.radiomics import RadiomicsSection
from prognosis_dask.features.dataset import build_features, write_features
from prognosis_dask.features.stage import Columns
from prognosis_dask.storage.brains import BrainStore, StoredBrain
from prognosis_dask.storage.ledger import TaskResult
from prognosis_dask.workflows.grade import fit_grade
from tests.synthetic_brains import made_scan

JOB = Job(
    name="made",
    brain=BrainSection(enabled=True, sequences=("T2",)),
    radiomics=RadiomicsSection(enabled=False),
    deep=DeepSection(enabled=False),
    grade=GradeSection(enabled=True, epochs=1, batch_size=8, patience=0, cross_fit=0, clinical=("age",)),
    model=ModelSection(label="grade", classes=("2", "3"), max_features=5, folds=2, repeats=1, halves=0),
)


def prepared(grade: int, rng: np.random.Generator) -> StoredBrain:
    """A ball of noise with a tumour in it: larger, and less even, in grade 3."""
    z, y, x = np.mgrid[:16, :32, :32]
    brain = ((z - 8) / 8) ** 2 + ((y - 16) / 15) ** 2 + ((x - 16) / 15) ** 2 < 1
    radius = rng.uniform(2.5, 3.5) + 1.5 * (grade == 3)
    tumour = ((z - 8) / 0.6) ** 2 + (y - 12) ** 2 + (x - 20) ** 2 < radius**2
    image = rng.normal(0, 0.3, brain.shape) + 2 * tumour + tumour * rng.normal(0, 0.5 * (grade == 3), brain.shape)
    made = []
    for array in ((image * brain).astype(np.float32), brain.astype(np.uint8), tumour.astype(np.uint8)):
        one = sitk.GetImageFromArray(array)
        one.SetSpacing((5.0, 5.0, 8.0))
        made.append(one)
    return StoredBrain(*made, attributes={"reference": "T2"})


def make_prepared_cases(folder: Path) -> xr.Dataset:
    """The prepared brains of 14 patients in ``folder/brain``, and their feature dataset."""
    rng = np.random.default_rng(0)
    store = BrainStore(folder / "brain")
    store.create()
    cases, outcomes = [], {}
    for number in range(14):
        grade = 2 + number % 2
        covariates = {"grade": str(grade), "age": str(40 + number), "histology": "astrocytoma"}
        case = Case(f"case-{number}", f"P{number}", "MR", "tumour", "i", "m", covariates=covariates)
        brain = prepared(grade, rng)
        store.write(case.case_id, brain, {})
        values = size_values(replace(tumour_size(brain.tumour), template_mm=(10.0, -5.0, 20.0)))
        outcomes[case.case_id] = TaskResult(case.case_id, "brain", "d", None, {}, {"values": values})
        cases.append(case)
    return build_features(cases, {"brain": Columns(SIZE_FEATURES)}, {"brain": outcomes}, attributes={"settings": {}})


def write_run(dataset: xr.Dataset, folder: Path) -> None:
    """What the stages before the grade leave besides the brains."""
    write_features(dataset, folder)
    (folder / "run.json").write_text(json.dumps({"name": "made", "job": asdict(JOB)}))


def make_grade_network_run(folder: Path) -> Path:
    """A run's folder as the stages before leave it, with the grade fitted."""
    dataset = make_prepared_cases(folder)
    write_run(dataset, folder)
    summary = fit_grade(JOB, dataset, folder)
    assert "not_fitted" not in summary, summary
    return folder


def write_scan_files(folder: Path) -> tuple[Path, Path]:
    """A made patient's T2 and its tumour's mask, as files."""
    scan = made_scan(1)
    sitk.WriteImage(scan.sequences["T2"].image, str(folder / "new.nii.gz"))
    sitk.WriteImage(scan.lesion_mask, str(folder / "mask.nii.gz"))
    return folder / "new.nii.gz", folder / "mask.nii.gz"
