"""What a sweep found: a table to read, a CSV, a plot."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from prognosis_dask.bench.sweep import MeasuredRun
from prognosis_dask.errors import count


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
