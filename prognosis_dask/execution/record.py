"""What a run computes, and its record: the stages of its job with their digests; ``run.json``.

A digest holds the stage's version, the case's own digest with the way in which its files are read or the digests of the
stages that its results are made of, the settings that its results depend on, and what else they depend on: equal
digests, equal results. ``run.json`` says what ran, with which versions, on which cluster, and how long each part took.
"""

from __future__ import annotations

import json
import platform
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from distributed import Client

from prognosis_dask.cohort.case import Case
from prognosis_dask.config.job import Job, digest
from prognosis_dask.config.reading import build
from prognosis_dask.errors import PrognosisError, StoreError
from prognosis_dask.execution.versions import package_versions
from prognosis_dask.features.registry import DEEP, stages_of
from prognosis_dask.features.stage import Columns, Stage, StageContext, Work, chosen_settings
from prognosis_dask.imaging.load import READING
from prognosis_dask.publish import cannot_write, expect_no_loss, replacing
from prognosis_dask.radiomics.parameter_file import job_params, read_params


@dataclass(frozen=True)
class LoadedStages:
    """The stages that a job has switched on, each after those that it needs, by name."""

    context: StageContext
    works: Mapping[str, Work]

    def digests(self, cases: Sequence[Case]) -> dict[str, dict[str, str]]:
        """By stage and ``case_id`` the digest of everything that the stage's result depends on."""
        found = _Digests(self)
        return {name: {case.case_id: found.of(name, case) for case in cases} for name in self.works}

    def settings(self) -> dict[str, str]:
        """What a feature means, whatever the cohort: tables whose features are to be compared must agree in it."""
        return {key: value for work in self.works.values() for key, value in work.meaning(self.context).items()}

    def columns(self, cases: Sequence[Case]) -> dict[str, Columns]:
        """By stage the features that the cases have."""
        modalities = {case.modality for case in cases}
        return {name: w.columns(self.context, modalities) for name, w in self.works.items() if w.stage.family}

    def provenance(self) -> dict[str, dict[str, str]]:
        """By stage what a run's record says of it besides the job."""
        found = {name: work.provenance(self.context) for name, work in self.works.items()}
        return {name: provenance for name, provenance in found.items() if provenance}

    def prepare(self, cases: Sequence[Case]) -> None:
        """Make what the tasks write to."""
        for work in self.works.values():
            work.prepare(self.context, cases)


def load_stages(job: Job, folder: str) -> LoadedStages:
    """The stages of a job in a run's folder, with all settled that the job leaves open.

    Raises
    ------
    JobError, MissingExtraError
        When the parameters of pyradiomics, the network or a program are not there.
    """
    works = {stage.name: stage.load() for stage in stages_of(job)}
    for work in works.values():
        job = work.settled(job)
    maps = read_params(job.maps.params, "maps.params") if job.maps.enabled else None
    return LoadedStages(StageContext(folder, job, job_params(job.radiomics.params), maps, uuid.uuid4().hex), works)


class _Digests:
    """What the digests of a stage's cases share is put together once for each modality."""

    def __init__(self, stages: LoadedStages) -> None:
        self._context, self._works = stages.context, stages.works
        self._shared: dict[tuple[str, str, frozenset[str]], list[object]] = {}

    def of(self, name: str, case: Case, ignored: frozenset[str] = frozenset()) -> str:
        """The digest of a case; on the settings that are ``ignored`` nothing of what follows depends."""
        work, stage = self._works[name], self._works[name].stage
        if not work.concerns(case):
            return digest(stage.version, case.digest)
        below = ignored.union(stage.ignores(self._context.job))
        concerned = [one for one in stage.sources if one in self._works and self._works[one].concerns(case)]
        sources = [self.of(source, case, below) for source in concerned]
        return digest(stage.version, *(sources or (READING, case.digest)), *self._parts(stage, case.modality, ignored))

    def _parts(self, stage: Stage, modality: str, ignored: frozenset[str]) -> list[object]:
        key = stage.name, modality, ignored
        if key not in self._shared:
            settings = [name for name in stage.settings if name not in ignored]
            inputs = self._works[stage.name].inputs(self._context, modality)
            self._shared[key] = [*chosen_settings(self._context.job, settings), *inputs]
        return self._shared[key]


@dataclass(frozen=True)
class RunRecord:
    """The content of ``run.json``: a new record after each part of the run.

    ``digests``, ``settings`` and ``of_stages`` (what is known of a stage besides the job, under its name) are there
    once the run is planned; ``stages`` once they are through.
    """

    job: Job
    versions: Mapping[str, str]
    cluster: Mapping[str, Any]
    started: str
    clock: float
    digests: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    of_stages: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    stages: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    driver_cpu_seconds: float | None = None
    finished: str | None = None
    seconds: float | None = None

    @classmethod
    def begin(cls, job: Job, client: Client) -> RunRecord:
        """The record of a run that starts now on the client's cluster."""
        versions = {"python": platform.python_version(), **package_versions()}
        return cls(job, versions, _cluster(client), _now(), time.monotonic())

    def of_data(self, data: Mapping[str, Any]) -> RunRecord:
        """With where images and masks were published (:func:`prognosis_dask.cohort.idc.cited`)."""
        return replace(self, data=data)

    def planned(self, loaded: LoadedStages, digests: Mapping[str, Mapping[str, str]]) -> RunRecord:
        """With what the stages' values depend on; ``digests`` by stage and case."""
        of_runs = {name: digest(sorted(of_cases.values())) for name, of_cases in digests.items()}
        return replace(self, digests=of_runs, settings=loaded.settings(), of_stages=loaded.provenance())

    def computed(self, stages: Mapping[str, Mapping[str, float]], driver_cpu_seconds: float) -> RunRecord:
        """With the counts and seconds of the stages, and what the driver took for them."""
        return replace(self, stages=stages, driver_cpu_seconds=round(driver_cpu_seconds, 3))

    def ended(self) -> RunRecord:
        """With the time."""
        return replace(self, finished=_now(), seconds=round(time.monotonic() - self.clock, 3))

    def write(self, folder: Path) -> None:
        """Write ``run.json``; the old one stays until the new one is whole.

        Raises
        ------
        StoreError
            When the folder cannot be written.
        """
        content = {
            "name": self.job.name,
            "title": self.job.title,
            "versions": self.versions,
            "cluster": self.cluster,
            "started": self.started,
            "finished": self.finished,
            "seconds": self.seconds,
            "digests": self.digests,
            "settings": self.settings,
            "stages": self.stages,
            **self._of_data(),
            **self._of_stages(),
            "driver_cpu_seconds": self.driver_cpu_seconds,
            "job": asdict(self.job),
        }
        try:
            with replacing(folder / "run.json") as aside:
                aside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise cannot_write(folder, error) from error

    def provenance(self) -> dict[str, Any]:
        """What the feature dataset carries: only what its values depend on, so that equal runs give equal datasets."""
        return {
            "job": asdict(self.job),
            "versions": dict(self.versions),
            "digests": dict(self.digests),
            "settings": dict(self.settings),
            **self._of_data(),
            **self._of_stages(),
        }

    def _of_data(self) -> dict[str, Any]:
        return {"data": dict(self.data)} if self.data else {}

    def _of_stages(self) -> dict[str, Any]:
        return {DEEP.name: None} | {name: dict(known) for name, known in self.of_stages.items()}


def recorded_job(record: Mapping[str, Any], where: Path) -> Job | None:
    """The job in the content of a ``run.json``; None where it holds none.

    Raises
    ------
    JobError
        When it is no job; names ``where`` it was read.
    """
    return build(Job, dict(record["job"]), str(where)) if "job" in record else None


def earlier_job(folder: Path) -> Job | None:
    """The job of the run that a folder holds; None where there is none that can be read."""
    path = folder / "run.json"
    try:
        return recorded_job(json.loads(path.read_text(encoding="utf-8")), path)
    except (OSError, ValueError, TypeError, PrognosisError):
        return None


def check_folder(folder: Path, name: str) -> None:
    """Refuse a folder that holds the run of another job, or what is no run's, which this one would replace.

    Raises
    ------
    StoreError
        Saying what it holds.
    """
    expect_no_loss(folder)
    try:
        other = json.loads((folder / "run.json").read_text(encoding="utf-8")).get("name", name)
    except (OSError, ValueError, AttributeError):
        return
    if other != name:
        raise StoreError(
            f"{folder} holds a run of the job {other!r}, not of {name!r}; choose another folder with --out"
        )


def _cluster(client: Client) -> dict[str, Any]:
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return {
        "workers": len(workers),
        "threads": sum(worker["nthreads"] for worker in workers),
        "memory_gb": round(sum(worker["memory_limit"] or 0 for worker in workers) / 1e9, 1),
        "hosts": len({worker["host"] for worker in workers}),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
