"""``run.json``: what ran, with which versions, on which cluster, and how long each part took."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from distributed import Client

from prognosis_dask.config.job import Job, digest
from prognosis_dask.config.reading import build
from prognosis_dask.errors import PrognosisError, StoreError
from prognosis_dask.execution.versions import package_versions
from prognosis_dask.features.loaded import LoadedStages
from prognosis_dask.features.registry import DEEP
from prognosis_dask.publish import cannot_write, expect_no_loss, replacing


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
