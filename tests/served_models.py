"""Small frozen models for the server: fitted on synthetic tables whose columns are the features that a job computes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType

import numpy as np

from prognosis_dask.brain.size import SIZE_FEATURES
from prognosis_dask.config.job import BrainSection, CohortSection, DeepSection, Job
from prognosis_dask.modelling.data.columns import Encoding
from prognosis_dask.modelling.data.endpoint import Classes, Endpoint, Survival
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.fitted import fit_procedure
from prognosis_dask.modelling.procedure import Procedure
from prognosis_dask.modelling.saved import describe, save_frozen
from prognosis_dask.radiomics.parameter_file import unit

#: Features of a large lung tumour on CT, about which the synthetic patients vary.
LUNG_FEATURES = {
    "original_shape_Sphericity": 0.7,
    "original_shape_Maximum3DDiameter": 125.0,
    "original_firstorder_Mean": -50.0,
    "original_firstorder_Entropy": 4.0,
    "original_glcm_Correlation": 0.85,
    "original_ngtdm_Busyness": 3.4,
}


#: Clinical columns: what one unit of age, and each histology but the first, add to the risk.
AGE_RISK = 0.06
HISTOLOGY_RISK = {"adenocarcinoma": 0.0, "large cell": 0.8, "squamous": -0.6}


def make_survival_run(
    folder: Path,
    *,
    job: str = "lung demo",
    patients: int = 120,
    clinical: bool = False,
    source: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """A run's folder with a Cox model on radiomic features, scattered around those of a lung tumour.

    ``clinical``: age and histology are in the model too. ``source``: what the features depend on.
    """
    rng = np.random.default_rng(3)
    centre = np.array(list(LUNG_FEATURES.values()))
    noise = rng.normal(size=(patients, len(LUNG_FEATURES)))
    X = centre * (1 + 0.3 * noise)
    risk = noise @ np.array([-0.5, 0.6, 0.0, 0.3, 0.0, 0.0])
    encodings = [Encoding(name, "radiomics", unit=unit(name)) for name in LUNG_FEATURES]
    if clinical:
        age, histology = rng.integers(45, 85, patients), rng.integers(0, len(HISTOLOGY_RISK), patients)
        X = np.column_stack([X, age, histology == 1, histology == 2])
        risk = risk + AGE_RISK * (age - 65) + np.array(list(HISTOLOGY_RISK.values()))[histology]
        encodings += [Encoding("age", "clinical"), Encoding("histology", "clinical", levels=tuple(HISTOLOGY_RISK))]
    death, lost = 700 * rng.exponential(size=patients) * np.exp(-risk), rng.uniform(300, 2500, patients)
    endpoint = Survival(np.minimum(death, lost).round() + 1, death <= lost)
    procedure = Procedure(selector="", n_features=(X.shape[1],), penalty=(0.1,))
    settings = Job(job, cohort=CohortSection(modalities=("CT",)), deep=DeepSection(enabled=False))
    return _write(folder, settings, procedure, X, encodings, endpoint, source)


def make_grade_run(folder: Path, *, job: str = "grade demo", patients: int = 80) -> Path:
    """A run's folder with a logistic model of two grades on the tumour's size."""
    rng = np.random.default_rng(4)
    names = tuple(name for name in SIZE_FEATURES if name.startswith("size_"))
    centre = np.array([40.0, 50.0, 40.0, 2000.0, 60.0])
    noise = rng.normal(size=(patients, len(names)))
    X = centre * np.exp(0.5 * noise)
    label = (noise[:, 0] + 0.5 * rng.normal(size=patients) > 0).astype(int)
    encodings = [Encoding(name, "size", unit=SIZE_FEATURES[name]) for name in names]
    procedure = Procedure(selector="", learner="logistic", n_features=(len(names),), penalty=(0.1,))
    settings = Job(
        job,
        cohort=CohortSection(modalities=("MR",), sequences=True),
        deep=DeepSection(enabled=False),
        brain=BrainSection(enabled=True),
    )
    return _write(folder, settings, procedure, X, encodings, Classes(label, ("grade II", "grade III")))


def _write(
    folder: Path,
    job: Job,
    procedure: Procedure,
    X: np.ndarray,
    encodings: list[Encoding],
    endpoint: Endpoint,
    source: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    ids = tuple(f"P-{i:03d}" for i in range(len(X)))
    names = tuple(name for encoding in encodings for name in encoding.features)
    families = tuple(encoding.family for encoding in encodings for _ in encoding.features)
    units = tuple(unit for encoding in encodings for unit in encoding.units)
    table = FeatureTable(X, names, families, units, ids, ids, endpoint, source=dict(source))
    horizons = (365.0, 730.0) if isinstance(endpoint, Survival) else ()
    models = folder / "models"
    models.mkdir(parents=True)
    save_frozen(describe(fit_procedure(procedure, table, 0), table, encodings, horizons), models)
    record = {"name": job.name, "title": f"{job.name.capitalize()}: synthetic patients", "job": asdict(job)}
    (folder / "run.json").write_text(json.dumps(record))
    return folder
