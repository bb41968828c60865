"""A run's folder, or one of models, read once into a frozen object; what is missing there is None or empty here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from prognosis_dask.cohort.case import Case, read_cases, read_problems
from prognosis_dask.errors import Problem, StoreError
from prognosis_dask.features.dataset import read_features
from prognosis_dask.features.registry import DEEP, DEEP_2, came_through, stages_in
from prognosis_dask.modelling.folder import ModelFolder, read_json, read_models
from prognosis_dask.objects.address import join
from prognosis_dask.storage.ledger import Ledger, TaskResult
from prognosis_dask.storage.place import kept_in
from prognosis_dask.storage.rois import RoiStore


@dataclass(frozen=True)
class RunFolder:
    """What a run left behind.

    Attributes
    ----------
    path
        The folder.
    info
        ``run.json``; empty where the folder holds models alone.
    cases, problems
        The two tables of the cohort.
    results
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
    results: Mapping[str, Mapping[str, TaskResult]] = field(default_factory=dict)
    features: xr.Dataset | None = None
    rois: RoiStore | None = None
    model: ModelFolder | None = None

    @cached_property
    def failed(self) -> dict[str, list[TaskResult]]:
        """The failed results of each case that has any, in the order of the stages."""
        found: dict[str, list[TaskResult]] = {}
        for results in self.results.values():
            for case_id, result in results.items():
                if result.problem is not None:
                    found.setdefault(case_id, []).append(result)
        return found

    @property
    def name(self) -> str:
        """The run's name, else its folder's (of a folder ``models``, the one that it is in)."""
        path = self.path.resolve()
        return str(self.info.get("name") or (path.parent.name if path.name == "models" else path.name))

    @cached_property
    def job(self) -> Mapping[str, Any]:
        """The job as ``run.json`` holds it."""
        job: Mapping[str, Any] = self.info.get("job") or {}
        return job

    def values(self, family: str) -> pd.DataFrame | None:
        """The features of a family, a row per case and a column per feature; None where there are none."""
        if self.features is None or family not in self.features:
            return None
        found = self.features[family]
        columns = found.coords[found.dims[1]].to_numpy().astype(str)
        return pd.DataFrame(found.to_numpy(), index=found["case"].to_numpy().astype(str), columns=columns)

    @property
    def arrays(self) -> str:
        """The folder or address that holds the images of its cases."""
        return kept_in(self.path)

    @property
    def untrained(self) -> bool:
        """Whether the deep features come from weights that nobody trained."""
        used = []
        for stage in (DEEP, DEEP_2):
            used.append(self.info.get(stage.name) or {})  # missing until the run is through
            if stage.is_on(self.job):
                used.append(self.job.get(stage.name) or {})
        return any(str(deep.get("weights", "")).startswith("untrained") for deep in used)


def read_run(path: Path) -> RunFolder:
    """Read a run's folder, or one of models alone: ``path`` itself, or ``models`` in it.

    Raises
    ------
    StoreError
        When there is neither, or a file cannot be read.
    """
    info = read_json(path / "run.json")
    if info is None:
        models = read_models(path / "models") or read_models(path)
        if models is None:
            raise StoreError(
                f"{path} holds no run.json and no models/summary.json, so there is nothing to report; "
                "`prognosis run` makes the one, `prognosis fit` the other"
            )
        return RunFolder(path=path, info={}, model=models)
    cases = tuple(read_cases(path / "cases.csv")) if (path / "cases.csv").is_file() else ()
    return RunFolder(
        path=path,
        info=info,
        cases=cases,
        problems=tuple(read_problems(path / "problems.csv")) if (path / "problems.csv").is_file() else (),
        results=_results(path / "ledger.sqlite", info, cases),
        features=read_features(path) if (path / "features.zarr").is_dir() else None,
        rois=_rois(path),
        model=read_models(path / "models"),
    )


def _rois(path: Path) -> RoiStore | None:
    try:
        return RoiStore.open(join(kept_in(path), "rois.zarr"))
    except StoreError:
        if (path / "rois.zarr").is_dir():
            raise
        return None


def _results(path: Path, info: Mapping[str, Any], cases: Sequence[Case]) -> dict[str, dict[str, TaskResult]]:
    """The results of this run's stages for this cohort's cases; an earlier job's may lie in the same ledger."""
    if not path.is_file():
        return {}
    stages, here = stages_in(info), {case.case_id for case in cases}
    with Ledger.read(path) as ledger:
        held = {stage.name: ledger.results(stage.name) for stage in stages}
    of_cases = {name: {k: result for k, result in rows.items() if k in here} for name, rows in held.items()}
    return came_through(stages, of_cases)


def records(table: pd.DataFrame) -> list[Any]:
    """Each row of a table, with the columns as its attributes."""
    return list(table.itertuples(index=False))
