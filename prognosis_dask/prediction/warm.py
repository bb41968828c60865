"""Loads on a worker what the steps of a scan need, so that the first scan does not wait for it."""

from __future__ import annotations

from functools import partial

from prognosis_dask.cohort.case import Case
from prognosis_dask.config.job import Job
from prognosis_dask.features.stages import Stopwatch, guarded
from prognosis_dask.storage.outcome import Outcome


def warm_up(cases: tuple[Case, ...], digests: tuple[str, ...], context: Job) -> list[Outcome]:
    """Import what the stages of a job import, load the template and the network."""
    return [guarded("warm", case, digest, partial(_warm, context)) for case, digest in zip(cases, digests, strict=True)]


def _warm(job: Job, watch: Stopwatch) -> dict[str, object]:
    import pydicom  # noqa: F401

    import prognosis_dask.prediction.resolve
    import prognosis_dask.prediction.slices  # noqa: F401
    from prognosis_dask.radiomics import column_names, job_params

    with watch.step("load"):
        if job.radiomics.enabled:
            for _, params in job_params(job.radiomics.params).by_modality:
                column_names(params)
        if job.brain.enabled:
            from prognosis_dask.brain.template import icbm152

            icbm152()
        if job.deep.enabled:
            from prognosis_dask.features.stages import load_engine_once

            load_engine_once(job.deep)
    return {}
