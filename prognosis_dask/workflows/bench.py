"""``prognosis bench``: one cohort from its DICOM files to its features, by workers and by cases per task.

Each run has a fresh cluster and a fresh folder. Its workers first do a few cases that are not counted, so that what is
loaded once per process (SimpleITK, the network) is not charged to a cohort that is smaller than real ones.
"""

from __future__ import annotations

import csv
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
from prognosis_dask.config.job import Job, load_job
from prognosis_dask.errors import JobError, count
from prognosis_dask.execution.cluster import LocalSpec, connect
from prognosis_dask.publish import expect_writable
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


def write_tables(runs: Sequence[MeasuredRun], index_seconds: float, out: Path) -> str:
    """Write ``bench.csv`` and ``bench.svg`` to ``out``; the text holds the same as Markdown tables."""
    efficiencies = [efficiency(run, runs) for run in runs]
    _write_csv(runs, efficiencies, out / "bench.csv")
    _plot(runs, out / "bench.svg")
    lines = [
        "| workers | cases per task | cases | failed | s | s per case | per minute | per minute and core "
        "| strong | weak | MB read per case | peak MB | driver |",
        "|" + "---|" * 13,
    ]
    for run, (strong, weak) in zip(runs, efficiencies, strict=True):
        lines.append(
            f"| {run.workers} | {run.cases_per_task or 'chosen'} | {run.cases} | {run.failed} | {run.seconds:.1f} "
            f"| {run.seconds / run.cases:.2f} | {run.per_minute:.1f} | {run.per_minute / run.workers:.1f} "
            f"| {_share(strong)} | {_share(weak)} | {run.read_mb / run.cases:.1f} "
            f"| {run.peak_mb:.0f} + {run.worker_mb:.0f} | {run.driver_share:.1%} |"
        )
    steps = list(dict.fromkeys(step for run in runs for step in run.steps))
    lines += ["", f"| s per case, median | {' | '.join(steps)} |", "|" + "---|" * (len(steps) + 1)]
    for run in runs:
        cells = " | ".join(f"{run.steps[step]:.3f}" if step in run.steps else "" for step in steps)
        lines.append(
            f"| {count(run.workers, 'worker')}, {run.cases_per_task or 'chosen'} per task, {count(run.cases, 'case')} "
            f"| {cells} |"
        )
    lines += [
        "",
        "strong, weak: efficiency with as many cases in all, or per worker, as the run with the fewest workers.",
        "peak MB: the process that holds the case + the worker beside it. driver: its part of all CPU time in the run.",
        f"Reading the folders (once, not in the table): {index_seconds:.2f} s per case.",
        f"{out / 'bench.csv'}",
        f"{out / 'bench.svg'}",
    ]
    return "\n".join(lines)


def efficiency(run: MeasuredRun, runs: Sequence[MeasuredRun]) -> tuple[float | None, float | None]:
    """Strong and weak efficiency against the run with the fewest workers; None where there is none to compare with."""
    alike = [other for other in runs if other.cases_per_task == run.cases_per_task]
    fewest = min(other.workers for other in alike)
    strong = weak = None
    for other in alike:
        if other.workers == fewest < run.workers:
            gain = (run.per_minute / run.workers) / (other.per_minute / other.workers)
            if other.cases == run.cases:
                strong = gain
            # the last case may be one worker's alone
            if abs(other.cases * run.workers - run.cases * other.workers) < run.workers:
                weak = gain
    return strong, weak


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _write_csv(
    runs: Sequence[MeasuredRun], efficiencies: Sequence[tuple[float | None, float | None]], path: Path
) -> None:
    plain = [name for name in vars(runs[0]) if name != "steps"]
    steps = list(dict.fromkeys(step for run in runs for step in run.steps))
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        derived = ["cases_per_minute", "cases_per_minute_and_core", "efficiency_strong", "efficiency_weak"]
        writer.writerow([*plain, *derived, "driver_share", *(f"{step}_s" for step in steps)])
        for run, pair in zip(runs, efficiencies, strict=True):
            fixed = [getattr(run, name) for name in plain]
            rates = [run.per_minute, run.per_minute / run.workers, *pair, run.driver_share]
            writer.writerow([*fixed, *rates, *(run.steps.get(step) for step in steps)])


def _plot(runs: Sequence[MeasuredRun], path: Path) -> None:
    """Cases per minute over the workers, one line per cases per task, for the runs of the whole cohort."""
    from matplotlib.figure import Figure

    whole = [run for run in runs if run.cases == max(run.cases for run in runs)]
    figure = Figure(figsize=(6.0, 3.6), layout="constrained")
    axes = figure.subplots()
    for size in dict.fromkeys(run.cases_per_task for run in whole):
        line = [run for run in whole if run.cases_per_task == size]
        axes.plot(
            [run.workers for run in line],
            [run.per_minute for run in line],
            marker="o",
            label=f"{size or 'chosen'} cases per task",
        )
    first = min(whole, key=lambda run: (run.workers, -run.per_minute))
    workers = sorted({run.workers for run in whole})
    ideal = [first.per_minute * count / first.workers for count in workers]
    axes.plot(workers, ideal, color="#767676", linestyle=":", label="as many times as fast as workers")
    axes.set(xlabel="workers, one core each", ylabel="cases per minute", xticks=workers, ylim=(0, None))
    axes.legend(frameon=False)
    figure.savefig(path)
