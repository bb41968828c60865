"""Seconds and peak memory per stage and patient of a whole run, and the driver's share.

    python -m benchmarks.stages demo
    python -m benchmarks.stages lung1_002 [FOLDER]

FOLDER holds the real data (default: PROGNOSIS_TEST_DATA, else ../shared/data beside the checkout). LUNG1-002 is entered
COPIES times, as that many cases; seconds are medians, so that what a worker loads at its first case does not count. The
run is made in a temporary folder with one worker per core, and its ledger is read.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from prognosis_dask.cohort.case import read_cases, write_cases
from prognosis_dask.cohort.index import index_cohort
from prognosis_dask.config.job import CohortSection, Job, load_job
from prognosis_dask.storage.ledger import Ledger
from prognosis_dask.storage.task_result import TaskResult
from prognosis_dask.workflows.run import run

ROOT = Path(__file__).resolve().parents[1]
COPIES = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", choices=["demo", "lung1_002"])
    default = os.environ.get("PROGNOSIS_TEST_DATA", ROOT.parent / "shared" / "data")
    parser.add_argument("folder", nargs="?", type=Path, default=default)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as tables:
        job = load_job(ROOT / "jobs" / "demo.toml")
        if options.cohort == "lung1_002":
            job = _lung1_002(options.folder, Path(tables))
        result = run(job, out=folder, say=lambda line: None)
        record = json.loads((Path(folder) / "run.json").read_text())
        with Ledger.read(Path(folder) / "ledger.sqlite") as ledger:
            for stage in result.stages:
                outcomes = [row for row in ledger.results(stage).values() if row.problem is None]
                print(_line(stage, outcomes))
    busy = sum(stage["seconds"] for stage in result.stages.values())
    share = record["driver_cpu_seconds"] / (record["driver_cpu_seconds"] + busy)
    print(f"workers {busy:.1f} s in stages; driver and scheduler {record['driver_cpu_seconds']:.2f} s: {share:.1%}")
    print(f"{record['seconds']:.1f} s from the first header to the report, {record['cluster']['workers']} workers")


def _lung1_002(data: Path, tables: Path) -> Job:
    index_cohort([data / "lung1_002"], tables, CohortSection(collection="lung1"))
    (case,) = read_cases(tables / "cases.csv")
    write_cases(tables / "copies.csv", [replace(case, case_id=f"{case.case_id}-{n}") for n in range(COPIES)])
    overrides = [f"cohort.cases={tables / 'copies.csv'}", "deep.weights=untrained:1", "deep.batch_size=1"]
    return load_job(ROOT / "jobs" / "lung1.toml", overrides)


def _line(stage: str, outcomes: Sequence[TaskResult]) -> str:
    steps = {step: statistics.median(o.seconds[step] for o in outcomes) for step in outcomes[0].seconds}
    peak = max(float(str(outcome.values["peak_memory_mb"])) for outcome in outcomes)
    parts = ", ".join(f"{step} {seconds:.3f}" for step, seconds in steps.items() if step != "total")
    return f"{stage:<10} {len(outcomes):>4} cases  median {steps['total']:.3f} s ({parts})  peak {peak:.0f} MB"


if __name__ == "__main__":
    main()
