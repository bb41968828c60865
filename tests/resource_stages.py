"""Stages for tests of where and when tasks run: each leaves a line per case with its process and its times."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from prognosis_dask.cohort.case import Case
from prognosis_dask.store.outcome import Outcome


@dataclass(frozen=True)
class Pace:
    """Where the lines go, and the seconds that a case takes in each stage."""

    folder: str
    prepare_s: float = 0.1
    network_s: float = 0.1


@dataclass(frozen=True)
class Visit:
    case_id: str
    worker: str
    began: float
    ended: float


def prepare(cases: tuple[Case, ...], digests: tuple[str, ...], pace: Pace) -> list[Outcome]:
    return [_work("prepare", case, digest, pace, pace.prepare_s) for case, digest in zip(cases, digests, strict=True)]


def network(cases: tuple[Case, ...], digests: tuple[str, ...], pace: Pace) -> list[Outcome]:
    return [_work("network", case, digest, pace, pace.network_s) for case, digest in zip(cases, digests, strict=True)]


def _work(stage: str, case: Case, digest: str, pace: Pace, seconds: float) -> Outcome:
    began = time.monotonic()
    time.sleep(seconds)
    worker = os.environ.get("TEST_WORKER", "")
    with (Path(pace.folder) / stage).open("a") as stream:
        stream.write(f"{case.case_id} {worker} {began} {time.monotonic()}\n")
    return Outcome(case.case_id, stage, digest)


def visits(folder: Path, stage: str) -> list[Visit]:
    lines = (folder / stage).read_text().splitlines() if (folder / stage).exists() else []
    return [Visit(a, b, float(c), float(d)) for a, b, c, d in (line.split() for line in lines)]
