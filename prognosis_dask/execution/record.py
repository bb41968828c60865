"""``run.json``: what ran, with which versions, on which cluster, and how long each part took."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from distributed import Client

from prognosis_dask.config.folders import cannot_write, expect_no_loss
from prognosis_dask.config.job import Job
from prognosis_dask.errors import StoreError
from prognosis_dask.execution.versions import package_versions
from prognosis_dask.publish import replacing


@dataclass
class RunRecord:
    """The content of ``run.json``, filled in as the run goes on."""

    job: Job
    versions: Mapping[str, str]
    cluster: Mapping[str, Any]
    started: str
    finished: str | None = None
    seconds: float | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    stages: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    deep: Mapping[str, str] | None = None
    driver_cpu_seconds: float | None = None
    _clock: float = field(default_factory=time.monotonic, repr=False)

    @classmethod
    def begin(cls, job: Job, client: Client) -> RunRecord:
        """The record of a run that starts now on the client's cluster."""
        return cls(
            job=job,
            versions={"python": platform.python_version(), **package_versions()},
            cluster=_cluster(client),
            started=_now(),
        )

    def finish(self) -> None:
        """Take the time."""
        self.finished = _now()
        self.seconds = round(time.monotonic() - self._clock, 3)

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
            **{key: value for key, value in vars(self).items() if key not in ("job", "_clock")},
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
            "deep": dict(self.deep) if self.deep else None,
        }


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
