"""A few stages of a job over its cases: what the ledger holds is left out, what comes back is recorded."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from distributed import Client

from prognosis_dask.cohort.case import Case
from prognosis_dask.config.job import Job
from prognosis_dask.execution.monitor import RunMonitor
from prognosis_dask.execution.plan import CohortPlan, Stage
from prognosis_dask.execution.progress import RunProgress
from prognosis_dask.execution.runner import run_plan
from prognosis_dask.storage.brains import lost_brains
from prognosis_dask.storage.ledger import Ledger
from prognosis_dask.storage.outcome import Outcome


def run_all(
    job: Job,
    client: Client,
    ledger: Ledger,
    monitor: RunMonitor,
    cases: Sequence[Case],
    stages: Sequence[Stage],
    context: object,
    brains: str,
) -> dict[str, dict[str, float]]:
    """Prepare the brains where there are any to prepare, then run the other stages on the cases that came through.

    ``brains`` is where they are kept. Per stage: the cases done, failed and reused, and the workers' seconds.
    """
    first, *others = stages
    two_parts = first.name == "brain"
    redo = lost_brains(ledger, brains) if two_parts else set()
    known = {stage.name: _known(ledger, stage, redo if stage is first else ()) for stage in stages}
    gates = [stage.name for stage in stages][: 2 if two_parts else 1]
    needs = {name: gates[: gates.index(name)] if name in gates else gates for name in known}
    progress = RunProgress(cases, needs, known)
    monitor.begin(progress)
    if two_parts:
        run_stages(job, client, ledger, monitor, cases, [first], context, redo)
        prepared = current(ledger, first)
        cases = [case for case in cases if case.case_id in prepared and not prepared[case.case_id].problem]
        stages = others
    run_stages(job, client, ledger, monitor, cases, stages, context)
    return progress.counts()


def run_stages(
    job: Job,
    client: Client,
    ledger: Ledger,
    monitor: RunMonitor,
    cases: Sequence[Case],
    stages: Sequence[Stage],
    context: object,
    redo: Collection[str] = (),
) -> None:
    """Run what the ledger does not hold yet, and ``redo``.

    The first stage runs for every case, the others for those that came through it.
    """
    # another job in the same folder would write other pixels under rows that this one takes for its own
    ledger.drop_outdated(stages[0].name, stages[0].digests)
    known = {stage.name: _known(ledger, stage, redo) for stage in stages}
    first, *followers = stages
    plan = CohortPlan(cases, first, followers, context, known)
    run_plan(
        client,
        plan,
        ledger.record,
        monitor.count,
        retries=job.run.retries,
        case_limit_s=job.run.case_limit_s,
        workers_wait_s=job.run.workers_wait_s,
    )


def _known(ledger: Ledger, stage: Stage, redo: Collection[str]) -> dict[str, Outcome]:
    """The stage's final outcomes of earlier runs."""
    finished = ledger.finished(stage.name, stage.digests)
    return {k: v for k, v in ledger.outcomes(stage.name).items() if k in finished and k not in redo}


def current(ledger: Ledger, stage: Stage) -> dict[str, Outcome]:
    """The stage's outcomes that belong to this job and this cohort, not to an earlier one in the same folder."""
    outcomes = ledger.outcomes(stage.name)
    return {k: v for k, v in outcomes.items() if stage.digests.get(k) == v.digest}
