"""A small run that tells how it goes, for the tests of whoever watches: real tasks on real workers, no images."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distributed import Client

from prognosis_dask.cohort.case import Case
from prognosis_dask.errors import Code, Problem
from prognosis_dask.execution.monitor import RunMonitor, journal_in
from prognosis_dask.execution.plan import CohortPlan, PlannedStage
from prognosis_dask.execution.progress import RunProgress
from prognosis_dask.execution.runner import run_plan
from prognosis_dask.storage.ledger import TaskResult

#: What must turn up nowhere but in the run's own tables.
PATIENT = "DOE^JANE"
NEEDS = {"roi": (), "deep": ("roi",)}


@dataclass(frozen=True)
class Course:
    """The seconds that a case takes in each stage; the cases from number ``free`` on wait while ``held`` exists."""

    seconds: float
    held: Path
    free: int

    def work(self, cases: Sequence[Case]) -> None:
        deadline = time.monotonic() + 200
        while self.held.exists() and time.monotonic() < deadline and any(self._number(c) >= self.free for c in cases):
            time.sleep(0.02)
        time.sleep(self.seconds)

    def _number(self, case: Case) -> int:
        return int(case.patient_id.removeprefix(f"{PATIENT}-"))


def make_cases(count: int) -> list[Case]:
    return [Case(f"{PATIENT}-{n}_CT", f"{PATIENT}-{n}", "CT", "GTV", f"/data/{PATIENT}/i", "m") for n in range(count)]


def roi(cases: tuple[Case, ...], digests: tuple[str, ...], course: Course) -> list[TaskResult]:
    """Every tenth case fails, with a reason that names the patient."""
    course.work(cases)
    seconds = course.seconds
    steps = {"read": seconds, "rasterise": seconds / 2, "total": 2 * seconds}
    problem = Problem(Code.SLICE_GAP, f"a gap in /data/{PATIENT}")
    return [
        TaskResult(case.case_id, "roi", digest, problem if case.case_id.endswith("5_CT") else None, steps)
        for case, digest in zip(cases, digests, strict=True)
    ]


def deep(cases: tuple[Case, ...], digests: tuple[str, ...], course: Course) -> list[TaskResult]:
    time.sleep(course.seconds)
    return [
        TaskResult(case.case_id, "deep", digest, None, {"network": course.seconds, "total": course.seconds})
        for case, digest in zip(cases, digests, strict=True)
    ]


def held_by(folder: Path) -> Path:
    """The file that holds a run in this folder up in its middle."""
    return folder / "held"


def watched_run(client: Client, count: int, seconds: float, folder: Path, job: str = "watched") -> RunProgress:
    """Run the cases through both stages and tell of it; the counts at the end.

    The second half of the cases waits while the file of :func:`held_by` exists.
    """
    cases, course = make_cases(count), Course(seconds, held_by(folder), count // 2)
    digests = {case.case_id: "d" for case in cases}
    stages = [PlannedStage("roi", roi, digests), PlannedStage("deep", deep, digests, ("roi",), batch_size=2)]
    known: dict[str, dict[str, TaskResult]] = {stage: {} for stage in NEEDS}
    progress = RunProgress(cases, NEEDS, known)
    plan = CohortPlan(cases, stages, course, known)
    with journal_in(folder), RunMonitor(client, job) as monitor:
        monitor.begin(progress)
        run_plan(client, plan, lambda outcomes: None, monitor.count, retries=1)
    return progress


if __name__ == "__main__":
    with Client(sys.argv[1]) as only:
        watched_run(only, int(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4]), job="in a process of its own")
