"""Kill drivers, workers and their children at random moments of a job; is anything lost, done twice, or different?

    python -m tests.kills [--kills 100] [--patients 60] [--seed 0] [--deep] [--bucket]

Prints a table line. Exits with 1 when something was lost, computed again though it was finished, or other than in a
run that nobody disturbed, or when a process outlived its driver. With ``--bucket``, images and results lie in buckets
of a local server, and each driver begins with an empty working copy: what was not published yet is computed again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter, defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psutil

import prognosis_dask
from prognosis_dask.cohort.case import short_hash
from prognosis_dask.config.job import SynthSection
from prognosis_dask.storage.ledger import RETRIED
from prognosis_dask.storage.place import local_copy
from prognosis_dask.synthetic import make_cohort
from tests.object_server import ObjectServer

#: Whom a kill hits, and how often.
VICTIMS = {"driver": 0.25, "worker": 0.3, "child": 0.45}
#: Every so many drivers are hit while they start, rather than while cases run.
EARLY = 0.2
ORPHAN_SECONDS = 60.0


@dataclass
class Totals:
    """What was done to the job, and what came of it."""

    kills: Counter[str] = field(default_factory=Counter)
    drivers: int = 0
    gave_up: int = 0
    jobs: int = 0
    rows: int = 0
    recomputed: int = 0
    tried_again: int = 0
    lost: int = 0
    different: int = 0
    orphans: int = 0
    seconds: float = 0.0

    @property
    def sound(self) -> bool:
        return not (self.recomputed or self.lost or self.different or self.orphans)

    def line(self) -> str:
        hits = ", ".join(f"{self.kills[name]} {name}" for name in VICTIMS)
        return (
            f"| {self.kills.total()} ({hits}) | {self.jobs} | {self.drivers} | {self.gave_up} | {self.rows} | "
            f"{self.lost} | {self.tried_again} | {self.recomputed} | {self.different} | {self.orphans} | "
            f"{self.seconds:.0f} |"
        )


HEAD = (
    "| kills | jobs | driver starts | gave up | rows | lost | tried again | recomputed | different | orphans | s |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--patients", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--deep", action="store_true", help="with the network, as in the demo")
    parser.add_argument("--bucket", action="store_true", help="images and results in buckets of a local server")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        server = stack.enter_context(ObjectServer.start()) if arguments.bucket else None
        if server is not None:
            stack.enter_context(server.environment())
        totals = survive(
            Path(folder), arguments.patients, arguments.kills, arguments.seed, deep=arguments.deep, server=server
        )
    print(HEAD, totals.line(), sep="\n")
    sys.exit(0 if totals.sound else 1)


def survive(
    folder: Path, patients: int, kills: int, seed: int, *, deep: bool = False, server: ObjectServer | None = None
) -> Totals:
    """Run jobs on one synthetic cohort until so many kills have hit; each job is then left to finish, and compared.

    With a server, whose environment is entered, images and results lie in its buckets.
    """
    made = make_cohort(folder / "cohort", SynthSection(patients=patients, seed=seed, bad_cases=True))
    images = str(made.images)
    if server is not None:
        server.make_bucket("cohort")
        server.make_bucket("results")
        server.fill("cohort", "images/", made.images)
        images = "s3://cohort/images"
    job = folder / "job.toml"
    job.write_text(
        f"""
        name = "kills"
        cohort = {{ sources = ["{images}"], clinical = "{made.clinical}", roi = ["GTV-1"] }}
        deep = {{ enabled = {str(deep).lower()}, weights = "untrained:1" }}
        model = {{ features = "radiomics", repeats = 1, folds = 2, halves = 0 }}
        """
    )
    (folder / "cluster.toml").write_text('kind = "local"\nworkers = 2\ndashboard = "127.0.0.1:0"\n')
    calm = folder / "calm"
    if _start(job, calm).wait():
        raise RuntimeError("the undisturbed run failed")
    totals, rng, begun = Totals(), random.Random(seed), time.monotonic()
    while totals.kills.total() < kills:
        name = f"run-{totals.jobs}"
        out = str(folder / name) if server is None else f"s3://results/{name}"
        _harass(job, out, kills, rng, totals)
        _compare(local_copy(out), calm, totals, published=server is not None)
    totals.seconds = time.monotonic() - begun
    return totals


def _start(job: Path, out: Path | str) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "prognosis_dask",
        "run",
        job,
        "--out",
        out,
        "--cluster",
        job.parent / "cluster.toml",
    ]
    environment = {**os.environ, "PROGNOSIS_CACHE": str(job.parent / f"cache-{uuid.uuid4().hex[:8]}")}
    quiet = subprocess.DEVNULL
    return subprocess.Popen(list(map(str, command)), env=environment, stdout=quiet, stderr=quiet)


def _harass(job: Path, out: str, kills: int, rng: random.Random, totals: Totals) -> None:
    """The same command again and again, until it ends by itself."""
    totals.jobs += 1
    while True:
        driver = _start(job, out)
        totals.drivers += 1
        seen: set[psutil.Process] = set()
        if rng.random() < EARLY:
            _pause(driver, rng.uniform(0.0, 4.0), seen)
        else:
            while driver.poll() is None and not _tree(driver, seen)["child"]:
                time.sleep(0.05)
        while driver.poll() is None:
            if totals.kills.total() >= kills:
                _pause(driver, float("inf"), seen)
                break
            _pause(driver, rng.uniform(0.1, 2.0), seen)
            _kill_one(driver, rng, seen, totals)
        status = driver.wait()
        totals.orphans += _orphans(seen)
        if status == 0:
            return
        totals.gave_up += status > 0
        if totals.gave_up > kills:
            raise RuntimeError("the driver gives up again and again")


def _pause(driver: subprocess.Popen[bytes], seconds: float, seen: set[psutil.Process]) -> None:
    end = time.monotonic() + seconds
    while driver.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    _tree(driver, seen)


def _tree(driver: subprocess.Popen[bytes], seen: set[psutil.Process]) -> dict[str, list[psutil.Process]]:
    """The driver's processes by what they are."""
    found: dict[str, list[psutil.Process]] = {name: [] for name in VICTIMS}
    try:
        root = psutil.Process(driver.pid)
        found["driver"].append(root)
        for process in root.children(recursive=True):
            seen.add(process)
            command = " ".join(process.cmdline())
            if "prognosis_dask.execution.child" in command:
                found["child"].append(process)
            elif "spawn_main" in command:
                found["worker"].append(process)
    except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
        pass
    return found


def _kill_one(driver: subprocess.Popen[bytes], rng: random.Random, seen: set[psutil.Process], totals: Totals) -> None:
    (kind,) = rng.choices(list(VICTIMS), list(VICTIMS.values()))
    there = _tree(driver, seen)[kind]
    if driver.poll() is None and there:
        try:
            rng.choice(there).kill()
        except psutil.NoSuchProcess:
            return
        totals.kills[kind] += 1
        if kind == "driver":
            driver.wait()


def _orphans(seen: set[psutil.Process]) -> int:
    """How many of the processes are still there though their driver is gone."""
    _, alive = psutil.wait_procs(seen, timeout=ORPHAN_SECONDS)
    for process in alive:
        process.kill()
    return len(alive)


def _compare(out: Path, calm: Path, totals: Totals, *, published: bool) -> None:
    ours, theirs = _rows(out), _rows(calm)
    totals.rows += len(ours)
    totals.lost += len(theirs.keys() - ours.keys())
    failed = _tried_again(out)
    for (stage, case_id), (attempts, _) in ours.items():
        if attempts > 1 and not published:
            codes = failed[stage, short_hash(case_id)]
            print(f"{stage} of {case_id} has {attempts} attempts; failed before with {codes}", file=sys.stderr)
            totals.recomputed += attempts - 1 - len(codes)
            totals.tried_again += len(codes)
    totals.lost += sum(ours[key][1] != code for key, (_, code) in theirs.items() if key in ours)
    same = prognosis_dask.read_features(out).load().identical(prognosis_dask.read_features(calm).load())
    totals.different += not same


def _tried_again(folder: Path) -> dict[tuple[str, str], list[str]]:
    """Per stage and case, the failures on record that say nothing about the case, as a death of three children."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if entry["event"] == "case-failed" and entry["code"] in RETRIED:
            found[entry["stage"], entry["case"]].append(entry["code"])
    return found


def _rows(folder: Path) -> dict[tuple[str, str], tuple[int, str | None]]:
    with sqlite3.connect(folder / "ledger.sqlite") as ledger:
        found = ledger.execute("SELECT stage, case_id, attempts, code FROM outcome").fetchall()
    return {(stage, case_id): (attempts, code) for stage, case_id, attempts, code in found}


if __name__ == "__main__":
    main()
