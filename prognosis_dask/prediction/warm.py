"""Loads on a worker what the steps of a scan need, so that the first scan does not wait for it."""

from __future__ import annotations

from functools import partial

from prognosis_dask.cohort.case import Case
from prognosis_dask.config.job import Job
from prognosis_dask.features.guard import Stopwatch, guarded
from prognosis_dask.features.loaded import load_stages
from prognosis_dask.storage.task_result import TaskResult


def warm_up(cases: tuple[Case, ...], digests: tuple[str, ...], context: Job) -> list[TaskResult]:
    """Import what the stages of a job import, load the template and the network."""
    return [guarded("warm", case, digest, partial(_warm, context)) for case, digest in zip(cases, digests, strict=True)]


def _warm(job: Job, watch: Stopwatch) -> dict[str, object]:
    import prognosis_dask.prediction.resolve
    import prognosis_dask.prediction.slices  # noqa: F401

    with watch.step("load"):
        loaded = load_stages(job, "")
        for work in loaded.works.values():
            work.warm(loaded.context)
    return {}
