"""A run's folder, read once into one frozen object; what is missing there is None or empty here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from prognosis_dask.cohort.case import Case, read_cases
from prognosis_dask.cohort.problems import read_problems
from prognosis_dask.errors import Problem, StoreError
from prognosis_dask.store.features import read_features
from prognosis_dask.store.ledger import Ledger
from prognosis_dask.store.outcome import Outcome
from prognosis_dask.store.rois import RoiStore

#: The stages in the order in which a case passes them.
STAGES = ("roi", "radiomics", "deep")


@dataclass(frozen=True)
class Model:
    """The tables of ``models/``; a table that was not written is None."""

    summary: Mapping[str, Any]
    ranking: pd.DataFrame | None = None
    curve: pd.DataFrame | None = None
    validation: pd.DataFrame | None = None
    coefficients: pd.DataFrame | None = None
    risk: pd.DataFrame | None = None


@dataclass(frozen=True)
class RunFolder:
    """What a run left behind.

    Attributes
    ----------
    path
        The folder.
    info
        ``run.json``.
    cases, problems
        The two tables of the cohort.
    outcomes
        Per stage and case, from the ledger.
    features
        The labelled dataset.
    rois
        The store of the images, opened for reading.
    model
        The tables of the survival model.
    """

    path: Path
    info: Mapping[str, Any]
    cases: tuple[Case, ...] = ()
    problems: tuple[Problem, ...] = ()
    outcomes: Mapping[str, Mapping[str, Outcome]] = field(default_factory=dict)
    features: xr.Dataset | None = None
    rois: RoiStore | None = None
    model: Model | None = None

    @cached_property
    def failed(self) -> dict[str, list[Outcome]]:
        """The failed outcomes of each case that has any, in the order of the stages."""
        found: dict[str, list[Outcome]] = {}
        for stage in STAGES:
            for case_id, outcome in self.outcomes.get(stage, {}).items():
                if outcome.problem is not None:
                    found.setdefault(case_id, []).append(outcome)
        return found

    @property
    def name(self) -> str:
        """The run's name, else its folder's."""
        return str(self.info.get("name") or self.path.name)

    @cached_property
    def job(self) -> Mapping[str, Any]:
        """The job as ``run.json`` holds it."""
        job: Mapping[str, Any] = self.info.get("job") or {}
        return job

    def values(self, stage: str) -> pd.DataFrame | None:
        """The features of ``radiomics`` or ``deep``, a row per case and a column per feature; None where none are."""
        if self.features is None or stage not in self.features:
            return None
        found = self.features[stage]
        columns = found.coords[found.dims[1]].to_numpy().astype(str)
        return pd.DataFrame(found.to_numpy(), index=found["case"].to_numpy().astype(str), columns=columns)

    @property
    def untrained(self) -> bool:
        """Whether the deep features come from weights that nobody trained."""
        used = [self.info.get("deep") or {}]  # missing until the run is through
        if "deep" in enabled_stages(self.info):
            used.append(self.job.get("deep") or {})
        return any(str(deep.get("weights", "")).startswith("untrained") for deep in used)


def read_run(path: Path) -> RunFolder:
    """Read a run's folder.

    Raises
    ------
    StoreError
        When there is no ``run.json``, or a file cannot be read.
    """
    info = _json(path / "run.json")
    if info is None:
        raise StoreError(f"{path} holds no run.json, so it is no run's folder; `prognosis run` makes one")
    cases = tuple(read_cases(path / "cases.csv")) if (path / "cases.csv").is_file() else ()
    return RunFolder(
        path=path,
        info=info,
        cases=cases,
        problems=tuple(read_problems(path / "problems.csv")) if (path / "problems.csv").is_file() else (),
        outcomes=_outcomes(path / "ledger.sqlite", enabled_stages(info), cases),
        features=read_features(path) if (path / "features.zarr").is_dir() else None,
        rois=RoiStore.open(path / "rois.zarr") if (path / "rois.zarr").is_dir() else None,
        model=_model(path / "models"),
    )


def enabled_stages(info: Mapping[str, Any]) -> list[str]:
    """The stages of the job that ``run.json`` holds."""
    job = info.get("job") or {}
    return [stage for stage in STAGES if (job.get(stage) or {}).get("enabled", True)]


def _outcomes(path: Path, stages: Sequence[str], cases: Sequence[Case]) -> dict[str, dict[str, Outcome]]:
    """The outcomes of this job's stages for this cohort's cases; an earlier job's may lie in the same ledger."""
    if not path.is_file():
        return {}
    with Ledger.read(path) as ledger:
        outcomes = {stage: ledger.outcomes(stage) for stage in stages}
    known = {case.case_id for case in cases}
    passed = {case_id for case_id, outcome in outcomes["roi"].items() if case_id in known and outcome.problem is None}
    return {
        stage: {case_id: o for case_id, o in found.items() if case_id in (known if stage == "roi" else passed)}
        for stage, found in outcomes.items()
    }


def _model(folder: Path) -> Model | None:
    summary = _json(folder / "summary.json")
    if summary is None:
        return None
    names = ("ranking", "curve", "validation", "coefficients", "risk")
    return Model(summary, **{name: _table(folder / f"{name}.csv") for name in names})


def _table(path: Path) -> pd.DataFrame | None:
    if not path.is_file():
        return None
    text = {"case_id": str, "patient_id": str, "group": str, "feature": str}
    try:
        table = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""])
    except (ValueError, pd.errors.ParserError) as error:
        raise StoreError(f"cannot read {path} ({error}); run the job again") from error
    return table if len(table) else None


def _json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StoreError(f"{path} is not JSON ({error}); run the job again") from error
    if not isinstance(data, dict):
        raise StoreError(f"{path} holds {type(data).__name__}, expected an object; run the job again")
    return data
