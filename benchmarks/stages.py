"""Seconds and peak memory per stage and patient of a whole run, and the driver's share.

    python -m benchmarks.stages demo
    python -m benchmarks.stages lung1_002 [FOLDER]
    python -m benchmarks.stages patient [FOLDER]
    python -m benchmarks.stages processor [FOLDER]

FOLDER holds the real data (default: PROGNOSIS_TEST_DATA, else ../shared/data beside the checkout). LUNG1-002 is entered
COPIES times, as that many cases; seconds are medians, so that what a worker loads at its first case does not count. The
run is made in a temporary folder with one worker per core, and its ledger is read. ``patient`` prints the processor
seconds (user and system, of all processes) that one more LUNG1-002 costs a run from DICOM to the dataset, without
network and model, with the study's 107 features and with 1,037: of a run of 16 minus one of 4, by twelve. ``processor``
prints those of each stage on LUNG1-002, in one process and one thread, with each engine that is installed: the least of
six rounds, so that a machine that others use as well counts little. What a run needs besides is not in them. Below
them, what cutting a cube for each published network takes once the region has been read, storing it, and reading it
again, and the MB that it takes: the least of three.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.radiomics import FILTERS, ORIGINAL, params_of
from prognosis_dask.cohort.case import Case, read_cases, write_cases
from prognosis_dask.cohort.index import index_cohort
from prognosis_dask.config.job import CohortSection, Job, load_job
from prognosis_dask.execution.record import LoadedStages, load_stages
from prognosis_dask.features.roi import read_case
from prognosis_dask.imaging.cube import CubeRule, cut_cube
from prognosis_dask.networks.catalogue import CUBE_NETWORKS
from prognosis_dask.radiomics.parameter_file import column_names
from prognosis_dask.storage.ledger import Ledger, TaskResult
from prognosis_dask.storage.volumes import CubeStore
from prognosis_dask.workflows.run import run

ROOT = Path(__file__).resolve().parents[1]
COPIES = 12
#: Cases of the shorter run that a patient's cost is measured against.
FEW = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", choices=["demo", "lung1_002", "patient", "processor"])
    default = os.environ.get("PROGNOSIS_TEST_DATA", ROOT.parent / "shared" / "data")
    parser.add_argument("folder", nargs="?", type=Path, default=default)
    options = parser.parse_args()
    if options.cohort in ("patient", "processor"):
        (print_patient if options.cohort == "patient" else print_processor)(options.folder)
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


def print_patient(data: Path) -> None:
    """The published figure beside it: 80 core seconds of qradiomics on LUNG1, 1,130 features."""
    with tempfile.TemporaryDirectory() as folder:
        for types in (ORIGINAL, FILTERS):
            params = params_of(types, study=True)
            file = Path(folder, "params.yaml")
            file.write_text(json.dumps(params.content))  # JSON is YAML
            few, many = (_processor_seconds(data, Path(folder), file, copies) for copies in (FEW, FEW + COPIES))
            print(f"{len(column_names(params))} features: {(many - few) / COPIES:.2f} processor seconds a patient")


def print_processor(data: Path) -> None:
    """Each stage of one patient, and of the stages that a run with each engine has."""
    engines = {"torch": ("float32", "bfloat16"), "mxnet": ("float32",)}
    with tempfile.TemporaryDirectory() as folder:
        job = _lung1_002(data, Path(folder), 1)
        (case,) = read_cases(job.cohort.cases)
        least: dict[str, float] = {}
        for library, precisions in engines.items():
            for precision in precisions if importlib.util.find_spec(library) else ():
                engine = "torch" if library == "torch" else "gluon"
                wanted = replace(job, deep=replace(job.deep, engine=engine, precision=precision))
                loaded = load_stages(wanted, f"{folder}/run")
                least |= _least(loaded, case, f"deep ({engine}, {precision})", least)
        for name, network in CUBE_NETWORKS.items():
            cut, stored, read, size = _cube(loaded, case, network.cube)
            print(f"cube of {name:<16} cut {cut:.3f}, stored {stored:.3f}, read {read:.3f} processor s; {size:.1f} MB")
    for name, seconds in least.items():
        print(f"{name:<24} {seconds:.3f} processor seconds")
    for name in (name for name in least if name.startswith("deep")):
        whole = least["roi"] + least["radiomics"] + least[name]
        print(f"roi, radiomics, {name}: {whole:.2f}; on two cores {whole / 2:.2f} s a patient at best")


def _least(loaded: LoadedStages, case: Case, network: str, known: Mapping[str, float]) -> dict[str, float]:
    """Of each stage the least of six rounds, after one that loads what it needs."""
    loaded.prepare([case])
    found = dict(known)
    for number in range(7):
        for stage, work in loaded.works.items():
            begun = time.process_time()
            (result,) = work.run((case,), ("",), loaded.context)
            seconds = time.process_time() - begun
            assert result.problem is None, result.problem
            name = network if stage == "deep" else stage
            if number:
                found[name] = min(found.get(name, seconds), seconds)
    return found


def _cube(loaded: LoadedStages, case: Case, rule: CubeRule) -> tuple[float, float, float, float]:
    store = CubeStore(loaded.context.rois)
    roi = store.read_roi(case.case_id)
    read_full = partial(read_case, case, loaded.context, full=True, seconds={})
    steps: list[Callable[[], object]] = [
        lambda: cut_cube(roi, rule, read_full),
        lambda: store.write_cube(case.case_id, "benchmark", cube, {}),
        lambda: store.read_cube(case.case_id, "benchmark"),
    ]
    cube = cut_cube(roi, rule, read_full).values
    seconds = []
    for step in steps:
        found = []
        for _ in range(3):
            begun = time.process_time()
            step()
            found.append(time.process_time() - begun)
        seconds.append(min(found))
    files = Path(loaded.context.rois, "cubes", "benchmark").rglob("*")
    return seconds[0], seconds[1], seconds[2], sum(file.stat().st_size for file in files) / 1e6


def _processor_seconds(data: Path, folder: Path, params: Path, copies: int) -> float:
    job = _lung1_002(data, folder, copies)
    run_folder = folder / f"{params.stat().st_size}-{copies}"
    command = [sys.executable, "-m", "prognosis_dask", "run", str(ROOT / "jobs" / "lung1.toml"), "-o", str(run_folder)]
    for value in (f"cohort.cases={job.cohort.cases}", f"radiomics.params={params}", "deep.enabled=false"):
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
