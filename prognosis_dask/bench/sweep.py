"""The runs of a benchmark: one cohort, several clusters on this machine.

Each run has a fresh cluster and a fresh folder. Its workers first do a few cases that are not counted, so that what is
loaded once per process (SimpleITK, the network) is not charged to a cohort that is smaller than real ones.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import psutil
from distributed import Client

from prognosis_dask.cohort.case import Case, write_cases
from prognosis_dask.config.folders import expect_writable
from prognosis_dask.config.job import Job, load_job
from prognosis_dask.errors import JobError, count
from prognosis_dask.execution.cluster import LocalSpec, connect
from prognosis_dask.storage.ledger import Ledger, TaskResult
from prognosis_dask.workflows.run import cohort_of, run_features

#: Cases that each worker does before the clock starts.
WARM_UP = 3

Say = Callable[[str], None]


@dataclass(frozen=True)
class MeasuredRun:
    """One run.

    Attributes
    ----------
    workers, cases_per_task, cases, failed
        What was run; ``cases_per_task`` of zero: chosen by the runner.
    seconds
        From the first task to the written feature dataset.
    steps
        Median seconds of a case by ``stage.step``; ``stage.total`` among them.
    busy_seconds
        What the workers spent in the stages, all together.
    driver_seconds
        CPU time of driver and scheduler, which are one process.
    read_mb
        What the workers read from files.
    peak_mb, worker_mb
        The largest process of a worker that held a case, and the largest of the worker processes around them.
    """

    workers: int
    cases_per_task: int
    cases: int
    failed: int
    seconds: float
    steps: dict[str, float]
    busy_seconds: float
    driver_seconds: float
    read_mb: float
    peak_mb: float
    worker_mb: float

    @property
    def per_minute(self) -> float:
        """Cases per minute."""
        return 60.0 * self.cases / self.seconds

    @property
    def driver_share(self) -> float:
        """The driver's part of all the work."""
        return self.driver_seconds / (self.driver_seconds + self.busy_seconds)


def bench_job(source: Path, out: Path, overrides: Sequence[str] = ()) -> Job:
    """The job to measure: a job file, or the default job on a folder of images, which is written to ``out``.

    The default job's weights are untrained: weights not change the speed, and these need no download.

    Raises
    ------
    JobError, StoreError
        When there is no such file or folder, an override is wrong, or ``out`` cannot be written.
    """
    if not source.is_dir():
        return load_job(source, overrides)
    expect_writable(out)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "job.toml"
    sources = json.dumps([str(source.absolute())])
    path.write_text(f'name = "bench"\ncohort.sources = {sources}\ndeep.weights = "untrained:1"\n', encoding="utf-8")
    return load_job(path, overrides)


def virtual_cohort(cases: Sequence[Case], number: int) -> list[Case]:
    """``number`` cases over the files of ``cases``, as different patients: nothing is kept from one to the next.

    >>> one = Case("A_CT_GTV", "A", "CT", "GTV", "a.series.json", "a.dcm")
    >>> [case.case_id for case in virtual_cohort([one], 2)]
    ['A_CT_GTV~0', 'A_CT_GTV~1']
    """
    return [
        replace(case, case_id=f"{case.case_id}~{n}", patient_id=f"{case.patient_id}~{n}")
        for n, case in enumerate(islice(cycle(cases), number))
    ]


def sweep(
    job: Job, out: Path, *, virtual: int = 0, workers: Sequence[int], cases_per_task: Sequence[int], say: Say = print
) -> tuple[float, list[MeasuredRun]]:
    """Run the job for every number of workers and of cases per task.

    Each number of workers gets the whole cohort (strong scaling) and its share of it (weak scaling: as many cases per
    worker as the largest number of workers has).

    Returns
    -------
    float
        Seconds per case that reading the folders took, with as many workers as the sweep's largest number.
    list of Measured
        One for each run.

    Raises
    ------
    JobError, StoreError
        When ``out`` cannot be written or holds an earlier benchmark, the job has no case, or a number of workers is
        below one.
    """
    if min(workers) < 1:
        raise JobError(f"--workers {','.join(map(str, workers))}: expected one or more")
    expect_writable(out)
    if list(out.glob("workers-*")):
        raise JobError(f"{out} holds an earlier benchmark, which would count as done; choose another --out")
    most = max(workers)
    with connect(LocalSpec(workers=most, dashboard="127.0.0.1:0")) as client:
        started = time.perf_counter()
        cases = cohort_of(job, client, out, say)
        index_seconds = (time.perf_counter() - started) / max(1, len(cases))
    if not cases:
        raise JobError(f"job {job.name!r} has no case to measure; see {out / 'problems.csv'}")
    if virtual:
        cases = virtual_cohort(cases, virtual)
    runs = []
    for used in sorted(set(workers)):
        for number in sorted({len(cases), math.ceil(len(cases) * used / most)}):
            for size in sorted(set(cases_per_task)):
                say(f"{count(used, 'worker')}, {count(number, 'case')}, {size or 'chosen'} per task")
                folder = out / f"workers-{used}-cases-{number}-per-task-{size or 'chosen'}"
                runs.append(_measure(job, cases[:number], folder, used, size))
    return index_seconds, runs


def _measure(job: Job, cases: Sequence[Case], folder: Path, workers: int, size: int) -> MeasuredRun:
    warm_up = [replace(case, case_id=f"warm-up~{case.case_id}") for case in islice(cycle(cases), WARM_UP * workers)]
    warm_up = [replace(case, case_id=f"{case.case_id}~{n}") for n, case in enumerate(warm_up)]
    with connect(LocalSpec(workers=workers, dashboard="127.0.0.1:0")) as client:
        _run(job, warm_up, folder / "warm-up", client, size)
        seconds, cpu = _run(job, cases, folder, client, size)
        worker_mb = max(client.run(_resident_mb).values())
    with Ledger.read(folder / "ledger.sqlite") as ledger:
        results = [result for stage in ledger.counts() for result in ledger.results(stage).values()]
    return MeasuredRun(
        workers=workers,
        cases_per_task=size,
        cases=len(cases),
        failed=len({result.case_id for result in results if result.problem}),
        seconds=seconds,
        steps=_steps(results),
        busy_seconds=sum(result.seconds.get("total", 0.0) for result in results),
        driver_seconds=cpu,
        read_mb=sum(_number(result, "read_mb") for result in results),
        peak_mb=max(_number(result, "peak_memory_mb") for result in results),
        worker_mb=worker_mb,
    )


def _run(job: Job, cases: Sequence[Case], folder: Path, client: Client, size: int) -> tuple[float, float]:
    """Wall seconds, and CPU seconds of this process, from the table of cases to the features."""
    folder.mkdir(parents=True, exist_ok=True)
    write_cases(folder / "table.csv", cases)
    cohort = replace(job.cohort, sources=(), cases=str(folder / "table.csv"))
    job = replace(job, cohort=cohort, synth=replace(job.synth, patients=0), run=replace(job.run, cases_per_task=size))
    started, cpu = time.perf_counter(), time.process_time()
    run_features(job, client, folder, say=lambda line: None)
    return time.perf_counter() - started, time.process_time() - cpu


def _steps(results: Sequence[TaskResult]) -> dict[str, float]:
    seconds: dict[str, list[float]] = {}
    for result in results:
        if result.problem is None:
            for step, value in result.seconds.items():
                seconds.setdefault(f"{result.stage}.{step}", []).append(value)
    return {step: statistics.median(values) for step, values in seconds.items()}


def _number(result: TaskResult, name: str) -> float:
    value: Any = result.values.get(name)
    return value if isinstance(value, int | float) and not math.isnan(value) else 0.0


def _resident_mb() -> float:
    return float(psutil.Process().memory_info().rss / 1e6)
