"""Seconds and peak memory per stage and patient of a whole run, and the driver's share.

    python -m benchmarks.stages demo
    python -m benchmarks.stages lung1_002 [FOLDER]
    python -m benchmarks.stages patient [FOLDER] [--network]

FOLDER holds the real data (default: PROGNOSIS_TEST_DATA, else ../shared/data beside the checkout). LUNG1-002 is entered
COPIES times, as that many cases; seconds are medians, so that what a worker loads at its first case does not count. The
run is made in a temporary folder with one worker per core, and its ledger is read. ``patient`` prints the processor
seconds (user and system, of all processes) that one more LUNG1-002 costs a run from DICOM to the dataset, without
network and model, with the study's 107 features and with 1,037: of a run of 16 minus one of 4, by twelve. With
``--network`` the study's features and its network (drawn weights, the engine that is installed), and the seconds of the
stages on a worker.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.radiomics import FILTERS, ORIGINAL, params_of
from prognosis_dask.cohort.case import read_cases, write_cases
from prognosis_dask.cohort.index import index_cohort
from prognosis_dask.config.job import CohortSection, Job, load_job
from prognosis_dask.radiomics import column_names
from prognosis_dask.storage.ledger import Ledger
from prognosis_dask.storage.task_result import TaskResult
from prognosis_dask.workflows.run import run

ROOT = Path(__file__).resolve().parents[1]
COPIES = 12
#: Cases of the shorter run that a patient's cost is measured against.
FEW = 4
NETWORK = "deep.weights=untrained:1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", choices=["demo", "lung1_002", "patient"])
    default = os.environ.get("PROGNOSIS_TEST_DATA", ROOT.parent / "shared" / "data")
    parser.add_argument("folder", nargs="?", type=Path, default=default)
    parser.add_argument("--network", action="store_true", help="of a patient: with the video network")
    options = parser.parse_args()
    if options.cohort == "patient":
        print_patient(options.folder, network=options.network)
        return
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


def print_patient(data: Path, *, network: bool) -> None:
    """The published figure beside it: 80 core seconds of qradiomics on LUNG1, 1,130 features."""
    with tempfile.TemporaryDirectory() as folder:
        for types in (ORIGINAL,) if network else (ORIGINAL, FILTERS):
            params = params_of(types, study=True)
            file = Path(folder, "params.yaml")
            file.write_text(json.dumps(params.content))  # JSON is YAML
            few, many = (
                _processor_seconds(data, Path(folder), file, copies, network) for copies in (FEW, FEW + COPIES)
            )
            print(f"{len(column_names(params))} features: {(many - few) / COPIES:.2f} processor seconds a patient")
            for run_folder in sorted(Path(folder).glob(f"*-{FEW + COPIES}")) if network else ():
                with Ledger.read(run_folder / "ledger.sqlite") as ledger:
                    for stage in ledger.counts():
                        print(_line(stage, [row for row in ledger.results(stage).values() if row.problem is None]))


def _processor_seconds(data: Path, folder: Path, params: Path, copies: int, network: bool) -> float:
    job = _lung1_002(data, folder, copies)
    run_folder = folder / f"{params.stat().st_size}-{copies}"
    command = [sys.executable, "-m", "prognosis_dask", "run", str(ROOT / "jobs" / "lung1.toml"), "-o", str(run_folder)]
    for value in (
        f"cohort.cases={job.cohort.cases}",
        f"radiomics.params={params}",
        f"deep.enabled={network}".lower(),
        NETWORK,
    ):
        command += ["--set", value]
    before = os.times()
    subprocess.run([*command, "--set", "model.enabled=false"], check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system


def _lung1_002(data: Path, tables: Path, copies: int = COPIES) -> Job:
    index_cohort([data / "lung1_002"], tables, CohortSection(collection="lung1"))
    (case,) = read_cases(tables / "cases.csv")
    write_cases(tables / "copies.csv", [replace(case, case_id=f"{case.case_id}-{n}") for n in range(copies)])
    overrides = [f"cohort.cases={tables / 'copies.csv'}", "deep.weights=untrained:1", "deep.batch_size=1"]
    return load_job(ROOT / "jobs" / "lung1.toml", overrides)


def _line(stage: str, outcomes: Sequence[TaskResult]) -> str:
    steps = {step: statistics.median(o.seconds[step] for o in outcomes) for step in outcomes[0].seconds}
    peak = max(float(str(outcome.values["peak_memory_mb"])) for outcome in outcomes)
    parts = ", ".join(f"{step} {seconds:.3f}" for step, seconds in steps.items() if step != "total")
    return f"{stage:<10} {len(outcomes):>4} cases  median {steps['total']:.3f} s ({parts})  peak {peak:.0f} MB"


if __name__ == "__main__":
    main()
