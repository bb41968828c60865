"""The stages of a job over its cases: what the ledger holds is left out, what comes back is recorded."""

from __future__ import annotations

from collections.abc import Sequence

from distributed import Client

from prognosis_dask.cohort.case import Case
from prognosis_dask.execution.monitor import RunMonitor
from prognosis_dask.execution.plan import CohortPlan, PlannedStage
from prognosis_dask.execution.progress import RunProgress
from prognosis_dask.execution.runner import run_plan
from prognosis_dask.features.loaded import LoadedStages
from prognosis_dask.features.stage import all_needs
from prognosis_dask.storage.ledger import Ledger
from prognosis_dask.storage.place import Place
from prognosis_dask.storage.task_result import TaskResult


def run_stages(
    client: Client,
    ledger: Ledger,
    monitor: RunMonitor,
    cases: Sequence[Case],
    stages: Sequence[PlannedStage],
    loaded: LoadedStages,
    place: Place,
) -> dict[str, dict[str, float]]:
    """Run what the ledger does not hold yet; per stage the cases done, failed and reused, and the workers' seconds."""
    for stage in stages:
        # another job in the same folder would write other pixels under rows that this one takes for its own
        if any(stage.name in other.needs for other in stages):
            ledger.drop_outdated(stage.name, stage.digests)
    place.publish()
    known = {stage.name: _known(ledger, stage, loaded) for stage in stages}
    progress = RunProgress(cases, all_needs({stage.name: stage.needs for stage in stages}), known)
    monitor.begin(progress)
    limits = loaded.context.job.run

    def record(results: Sequence[TaskResult]) -> None:
        place.check()
        ledger.record(results)

    run_plan(
        client,
        CohortPlan(cases, stages, loaded.context, known),
        record,
        monitor.count,
        retries=limits.retries,
        case_limit_s=limits.case_limit_s,
        workers_wait_s=limits.workers_wait_s,
    )
    return progress.counts()


def _known(ledger: Ledger, stage: PlannedStage, loaded: LoadedStages) -> dict[str, TaskResult]:
    """The stage's final results of earlier runs whose data are still there."""
    finished = ledger.finished(stage.name, stage.digests)
    results = {k: v for k, v in ledger.results(stage.name).items() if k in finished}
    # a case that failed has stored nothing that could be gone
    lost = loaded.works[stage.name].lost(loaded.context, {k for k, v in results.items() if v.problem is None})
    return {k: v for k, v in results.items() if k not in lost}


def current(ledger: Ledger, stage: PlannedStage) -> dict[str, TaskResult]:
    """The stage's results that belong to this job and this cohort, not to an earlier one in the same folder."""
    results = ledger.results(stage.name)
    return {k: v for k, v in results.items() if stage.digests.get(k) == v.digest}
