"""A made run's folder: as a run leaves it, small, with one failure of each kind. Not a test."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from prognosis_dask.cohort.case import Case, make_case_id, write_cases, write_problems
from prognosis_dask.config.job import Job, ModelSection
from prognosis_dask.errors import Code, Problem
from prognosis_dask.features.dataset import build_features, write_features
from prognosis_dask.features.stage import Columns
from prognosis_dask.imaging.roi import Roi, grid_of
from prognosis_dask.storage.ledger import Ledger, TaskResult
from prognosis_dask.storage.rois import RoiStore
from tests.report_models import make_models

RADIOMIC = [
    f"original_{kind}_Feature{i}" for kind in ("shape", "firstorder", "glcm", "glrlm", "ngtdm") for i in range(4)
]
DEEP = [f"deep_{i:03d}" for i in range(8)]
TRAINED = "file:/weights/i3d.params"
UNTRAINED = "untrained:0"
MODEL = ModelSection(features="both", label_days=500, max_features=10, folds=2, repeats=1, halves=0)


def make_run(
    folder: Path, *, n: int = 30, weights: str = TRAINED, patient: str = "P-{:03d}", side: int = 48, seed: int = 0
) -> Path:
    """Write a run of ``n`` cases: the last one's mask is empty, the one before has no endpoint."""
    rng = np.random.default_rng(seed)
    cases = [_case(i, n, patient.format(i), rng) for i in range(n)]
    write_cases(folder / "cases.csv", cases)
    write_problems(
        folder / "problems.csv", [Problem(Code.PATIENT_WITHOUT_MASK, "no RTSTRUCT or SEG", patient_id="Q-9")]
    )
    failed = {cases[-1].case_id} if n > 2 else set()
    done = [case for case in cases if case.case_id not in failed]
    risk = np.array([-np.log((case.time_days or 600) / 600) for case in done]) + rng.normal(size=len(done))
    volumes = _write_rois(folder, done, risk, side, rng)
    values = _feature_values(cases, {c.case_id: r for c, r in zip(done, risk, strict=True)}, rng)
    outcomes = _outcomes(cases, failed, volumes, values)
    with Ledger.create(folder / "ledger.sqlite") as ledger:
        ledger.record(outcomes)
    if cases:
        by_stage = {s: {o.case_id: o for o in outcomes if o.stage == s} for s in ("roi", "radiomics", "deep")}
        radiomic = dict.fromkeys(RADIOMIC, "1")
        dataset = build_features(
            cases, {"radiomics": Columns(radiomic), "deep": Columns(dict.fromkeys(DEEP, "1"))}, by_stage
        )
        write_features(dataset, folder)
        _write_models(folder / "models", [c.case_id for c in done if c.time_days is not None])
    (folder / "run.json").write_text(json.dumps(_info(n, len(failed), weights)), encoding="utf-8")
    return folder


def _write_models(folder: Path, case_ids: list[str]) -> None:
    if len(case_ids) >= 20:
        make_models(folder, n=len(case_ids), case_ids=case_ids)
        return
    folder.mkdir()
    (folder / "summary.json").write_text(json.dumps({"not_fitted": f"{len(case_ids)} cases, at least 20 are needed"}))


def _case(i: int, n: int, patient_id: str, rng: np.random.Generator) -> Case:
    lost = n > 2 and i == n - 2
    time, censor = rng.exponential(900), rng.uniform(200, 2200)
    return Case(
        case_id=make_case_id(patient_id, "CT", "GTV-1"),
        patient_id=patient_id,
        modality="CT",
        roi="GTV-1",
        image=f"{i}.nrrd",
        mask=f"{i}-mask.nrrd",
        time_days=None if lost else round(min(time, censor), 1),
        event=None if lost else int(time <= censor),
        covariates={
            "age": f"{rng.normal(66, 9):.1f}",
            "sex": str(rng.choice(["female", "male"])),
            "stage": "" if i == 0 else str(rng.choice(["I", "II", "IIIa", "IIIb"])),
        },
    )


def _write_rois(
    folder: Path, cases: list[Case], risk: np.ndarray, side: int, rng: np.random.Generator
) -> dict[str, tuple[float, int, bool]]:
    store = RoiStore.create(folder / "rois.zarr", [case.case_id for case in cases])
    found = {}
    for case, r in zip(cases, risk, strict=True):
        radius = float(np.clip(side / 6 * np.exp(0.35 * r), 3, side * 0.45))
        depth = int(2 * radius / 3) + 3
        z, y, x = np.mgrid[:depth, :side, :side]
        wobble = radius * (1 + 0.15 * np.sin(3 * np.arctan2(y - side / 2, x - side / 2) + r))
        mask = (((z - depth // 2) * 3) ** 2 + (y - side / 2) ** 2 + (x - side / 2) ** 2) < wobble**2
        pixels = rng.normal(-750, 60, mask.shape) + 780 * mask
        image, label = (sitk.GetImageFromArray(a) for a in (pixels.astype(np.int16), mask.astype(np.uint8)))
        for part in (image, label):
            part.SetSpacing((0.98, 0.98, 3.0))
        frames = np.zeros((depth, 128, 128), np.uint8)
        store.write(case.case_id, Roi(image, label, grid_of(image), (0, 0, 0)), frames, {})
        slices = int(mask.any(axis=(1, 2)).sum())
        found[case.case_id] = (float(mask.sum() * 0.98**2 * 3 / 1000), slices, False)
    return found


def _outcomes(
    cases: list[Case],
    failed: set[str],
    volumes: dict[str, tuple[float, int, bool]],
    values: dict[str, np.ndarray],
) -> list[TaskResult]:
    rows = []
    for case in cases:
        if case.case_id in failed:
            problem = Problem(Code.MASK_EMPTY, "0 voxels, expected at least 2")
            rows.append(TaskResult(case.case_id, "roi", "d", problem, {"total": 0.1}))
            continue
        volume, slices, cut = volumes[case.case_id]
        result = {"voxels": 9, "volume_ml": volume, "n_slices": slices, "lesion_cut": cut}
        rows.append(TaskResult(case.case_id, "roi", "d", None, {"read": 0.21, "total": 0.25}, result))
        row = values[case.case_id].tolist()
        for stage, part in (("radiomics", row[: len(RADIOMIC)]), ("deep", row[len(RADIOMIC) :])):
            rows.append(TaskResult(case.case_id, stage, "d", None, {"total": 0.5}, {"values": part}))
    return rows


def _feature_values(cases: list[Case], risk: dict[str, float], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Features that share a few factors, one of them the risk."""
    width = len(RADIOMIC) + len(DEEP)
    weights = rng.normal(size=(4, width))
    return {
        case.case_id: np.array([risk.get(case.case_id, 0.0), *rng.normal(size=3)]) @ weights
        + 0.6 * rng.normal(size=width)
        for case in cases
    }


def _info(n: int, failed: int, weights: str) -> dict[str, object]:
    job = asdict(Job(name="made", title="A synthetic cohort"))
    stages = {
        s: {"done": n - failed, "failed": failed, "reused": 0, "seconds": 12.5} for s in ("roi", "radiomics", "deep")
    }
    return {
        "job": {**job, "model": asdict(MODEL)},
        "name": "made",
        "title": "A synthetic cohort",
        "versions": {"prognosis-dask": "0.1.0", "python": "3.11", "mxnet": "1.9.1"},
        "started": "2026-01-05T10:00:00+00:00",
        "finished": "2026-01-05T10:01:00+00:00",
        "seconds": 61.0,
        "cluster": {"kind": "local", "workers": 2},
        "digests": {"roi": "0f" * 8, "radiomics": "1e" * 8, "deep": "2d" * 8},
        "stages": stages,
        "deep": {
            "engine": "gluon",
            "network": "i3d_inceptionv1_kinetics400",
            "device": "cpu",
            "precision": "float32",
            "weights": weights,
            "sha256": "ab" * 32,
        },
    }
