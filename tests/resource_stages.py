"""Stages for tests of where and when tasks run: each leaves a line per case with its process and its times."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from prognosis_dask.cohort.case import Case
from prognosis_dask.storage.ledger import TaskResult


@dataclass(frozen=True)
class Pace:
    """Where the lines go, the seconds that a case takes in each stage, and whom :func:`hold` holds.

    ``held``: the worker on which cases wait to be prepared until they are let go; ``*``: on every worker. The first
    ``free`` cases never wait.
    """

    folder: str
    prepare_s: float = 0.1
    network_s: float = 0.1
    held: str = ""
    free: int = 0


@dataclass(frozen=True)
class Visit:
    case_id: str
    worker: str
    began: float
    ended: float


def prepare(cases: tuple[Case, ...], digests: tuple[str, ...], pace: Pace) -> list[TaskResult]:
    hold(cases, pace)
    return [_work("prepare", case, digest, pace, pace.prepare_s) for case, digest in zip(cases, digests, strict=True)]


def hold(cases: tuple[Case, ...], pace: Pace) -> None:
    """Wait for what the test waits for, however slow the machine; go on at last, so that the test can say what failed.

    Cases are numbered at the end of their name.
    """
    here = pace.held and pace.held in ("*", os.environ.get("TEST_WORKER", ""))
    if here and all(int(case.case_id.split("-")[-1]) >= pace.free for case in cases):
        deadline = time.monotonic() + 100
        while not (Path(pace.folder) / "let go").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        let_go(Path(pace.folder))


def let_go(folder: Path) -> None:
    (folder / "let go").touch()


def network(cases: tuple[Case, ...], digests: tuple[str, ...], pace: Pace) -> list[TaskResult]:
    return [_work("network", case, digest, pace, pace.network_s) for case, digest in zip(cases, digests, strict=True)]


def _work(stage: str, case: Case, digest: str, pace: Pace, seconds: float) -> TaskResult:
    began = time.monotonic()
    time.sleep(seconds)
    worker = os.environ.get("TEST_WORKER", "")
    with (Path(pace.folder) / stage).open("a") as stream:
        stream.write(f"{case.case_id} {worker} {began} {time.monotonic()}\n")
    return TaskResult(case.case_id, stage, digest)


def visits(folder: Path, stage: str) -> list[Visit]:
    lines = (folder / stage).read_text().splitlines() if (folder / stage).exists() else []
    return [Visit(a, b, float(c), float(d)) for a, b, c, d in (line.split() for line in lines)]
