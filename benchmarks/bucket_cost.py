"""What it costs that images and results lie in buckets: seconds and bytes per patient, against folders.

    python -m benchmarks.bucket_cost [--patients 12] [--latency 0.03] [--rounds 3] [FOLDER]

LUNG1-002 (DICOM to radiomics, no network) is entered so many times, as that many patients, on two workers: from a
folder into a folder, and from a bucket into a bucket of a local S3 server that waits LATENCY seconds before each
answer; in turn, ROUNDS times. FOLDER holds the real data (default: PROGNOSIS_TEST_DATA, else ../shared/data beside the
checkout).

Printed are medians per patient: seconds of a run without its model, processor time of the workers and their children,
of the driver with its scheduler, and of the server (:mod:`benchmarks.bucket_server`), which computes on the same
machine, the ratios of all of these, and bytes, of which *needed* are the slices that the region and its margin span,
and the file of contours. Ratios of processor time hold on a machine that others use too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
from distributed import Client

from prognosis_dask.cohort.case import Case, read_cases, write_cases
from prognosis_dask.cohort.index import index_cohort
from prognosis_dask.cohort.series import read_listing
from prognosis_dask.config.job import CohortSection, ImageSection, load_job
from prognosis_dask.execution.cluster import LocalSpec, connect
from prognosis_dask.imaging.load import load_roi
from prognosis_dask.workflows.run import run
from tests.object_server import ObjectServer

ROOT = Path(__file__).resolve().parents[1]
WORKERS = 2


@dataclass(frozen=True)
class Cost:
    """Of one run, per patient."""

    seconds: float
    cpu_seconds: float
    driver_seconds: float
    server_seconds: float

    @property
    def processor(self) -> float:
        """Processor time of all of them."""
        return self.cpu_seconds + self.driver_seconds + self.server_seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=12)
    parser.add_argument("--latency", type=float, default=0.03)
    parser.add_argument("--rounds", type=int, default=3)
    default = os.environ.get("PROGNOSIS_TEST_DATA", ROOT.parent / "shared" / "data")
    parser.add_argument("folder", nargs="?", type=Path, default=default)
    options = parser.parse_args()
    data = options.folder / "lung1_002"
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        os.environ["PROGNOSIS_CACHE"] = str(work / "cache")
        print(f"{options.patients} patients, {WORKERS} workers, {1000 * options.latency:g} ms before each answer")
        with _server(options.latency, {"images": data, "results": ""}):
            _compare(work, {"folder": str(data), "bucket": "s3://images"}, options)
        with ObjectServer.start() as server, server.environment():
            server.make_bucket("images")
            server.fill("images", "", data)
            _, case = _table("s3://images", work / "traffic", 1)
            _, of_files = _table(str(data), work / "files", 1)
            server.traffic.clear()
            load_roi(case, ImageSection())
            got, needed = server.traffic.bytes, _needed(of_files)
            print(f"images, a patient: {got / 1e6:.3f} MB fetched in {server.traffic.requests} requests, ", end="")
            print(f"{needed / 1e6:.3f} MB needed: {got / needed:.3f}")


def _compare(work: Path, sources: dict[str, str], options: argparse.Namespace) -> None:
    found: dict[str, list[Cost]] = {kind: [] for kind in sources}
    tables = {kind: _table(source, work / kind, options.patients)[0] for kind, source in sources.items()}
    with _workers() as client:
        for number in range(options.rounds + 1):
            for kind, table in tables.items():
                out = str(work / f"run-{number}") if kind == "folder" else f"s3://results/run-{number}"
                cost = _run(client, table, out, options.patients)
                if number:  # in the first, the workers load their libraries
                    found[kind].append(cost)
    pairs = list(zip(found["folder"], found["bucket"], strict=True))
    for kind, costs in found.items():
        keys = ("seconds", "cpu_seconds", "driver_seconds", "server_seconds")
        seconds, cpu, driver, server = (statistics.median(getattr(cost, key) for cost in costs) for key in keys)
        print(f"{kind}: {seconds:.2f} s a patient, processor time: ", end="")
        print(f"workers {cpu:.3f} s, driver {driver:.3f} s, server {server:.3f} s")
    ratios = {
        "seconds": [b.seconds / f.seconds for f, b in pairs],
        "processor time without the server": [(b.processor - b.server_seconds) / f.processor for f, b in pairs],
        "processor time with it": [b.processor / f.processor for f, b in pairs],
    }
    for what, found_ratios in ratios.items():
        median, least, most = statistics.median(found_ratios), min(found_ratios), max(found_ratios)
        print(f"ratio of {what}: {median:.2f} ({least:.2f} to {most:.2f})")


@contextmanager
def _server(latency: float, filled: dict[str, Path | str]) -> Iterator[None]:
    """The server as a process of its own."""
    command = [sys.executable, "-m", "benchmarks.bucket_server", "--latency", str(latency)]
    for bucket, folder in filled.items():
        command += ["--fill", f"{bucket}={folder}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as started:
        try:
            assert started.stdout is not None
            name, _, address = started.stdout.readline().strip().partition("=")
            keys = {"AWS_ACCESS_KEY_ID": "a-test", "AWS_SECRET_ACCESS_KEY": "its-secret", "AWS_REGION": "us-east-1"}
            os.environ.update({name: address, **keys, "AWS_EC2_METADATA_DISABLED": "true"})
            yield
        finally:
            started.terminate()


@contextmanager
def _workers() -> Iterator[Client]:
    with connect(LocalSpec(workers=WORKERS, dashboard="127.0.0.1:0")) as client:
        yield client


def _table(source: str, folder: Path, patients: int) -> tuple[Path, Case]:
    """A table with the one case so many times, and the case."""
    index_cohort([source], folder, CohortSection(collection="lung1"))
    (case,) = read_cases(folder / "cases.csv")
    copies = [replace(case, case_id=f"{case.case_id}-{n}", patient_id=f"P{n}") for n in range(patients)]
    write_cases(folder / "copies.csv", copies)
    return folder / "copies.csv", case


def _needed(case: Case) -> int:
    """Bytes of the slices that are read of a case, and of its contours."""
    settings = ImageSection()
    roi = load_roi(case, settings)
    first = roi.start[2]
    slices = read_listing(case.image).slices[first : first + roi.image.GetSize()[2]]
    return sum(one.bytes for one in slices) + Path(case.mask).stat().st_size


def _run(client: Client, table: Path, out: str, patients: int) -> Cost:
    overrides = [f"cohort.cases={table}", "deep.enabled=false", "model.enabled=false", "run.cases_per_task=1"]
    job = load_job(ROOT / "jobs" / "lung1.toml", [*overrides, "cohort.sources=[]"])
    cpu, server, begun = _cpu(), _cpu("bucket_server"), time.monotonic()
    driver = time.process_time()
    result = run(job, client=client, out=out, say=str)
    seconds, used, driver = time.monotonic() - begun, _cpu() - cpu, time.process_time() - driver
    served = _cpu("bucket_server") - server
    assert all(stage["failed"] == 0 for stage in result.stages.values()), json.dumps(result.stages)
    return Cost(seconds / patients, used / patients, driver / patients, served / patients)


def _cpu(*names: str) -> float:
    """Processor time of the processes below this one with such a word in their command; else workers and children."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            line = " ".join(process.cmdline())
            if any(name in line for name in names or ("spawn_main", "execution.child")):
                total += sum(process.cpu_times()[:2])
    return total


if __name__ == "__main__":
    main()
