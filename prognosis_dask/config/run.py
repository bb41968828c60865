"""The section `[run]` of a job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from prognosis_dask.config.fields import Above, AtLeast, Location, Unit


@dataclass(frozen=True)
class RunSection:
    """How the job is run; no value depends on it."""

    out: Annotated[
        str, Location(), "The run's folder or address (`s3://`); empty: `runs/NAME` here. `--out` goes first."
    ] = ""
    cache: Annotated[
        str, Location(), "Folder on each worker in which objects that are read are kept; empty: nowhere. `--cache`."
    ] = ""
    cache_gb: Annotated[float, Above(0), Unit("GB"), "What it may hold; the oldest are removed. `--cache-size`."] = 50.0
    cases_per_task: Annotated[int, AtLeast(0), "Cases per task; 0: as many as make a task worth its overhead."] = 0
    retries: Annotated[int, AtLeast(0), "Repeats of a task after an error of the infrastructure."] = 2
    case_limit_s: Annotated[
        float, AtLeast(0), Unit("s"), "Time that a stage may take for a case before it is stopped; 0: no limit."
    ] = 1800.0
    workers_wait_s: Annotated[
        float, AtLeast(0), Unit("s"), "Time to wait for a worker while the cluster has none; 0: no limit."
    ] = 300.0
