"""Stages for the runner's tests: they leave a mark on disk each time they work on a case."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from prognosis_dask.cohort.case import Case
from prognosis_dask.errors import Code, JobError, Problem
from prognosis_dask.objects.bucket import ObjectStat
from prognosis_dask.objects.bucket import begin as begin_request
from prognosis_dask.objects.files import _behind
from prognosis_dask.storage.ledger import TaskResult, Value
from tests.dask_processes import PATIENCE


@dataclass(frozen=True)
class Marks:
    """Where the marks go, and what happens to which case."""

    folder: str
    killer: str = ""
    flaky: str = ""
    mistaken: str = ""
    bad: str = ""


def visit(cases: tuple[Case, ...], digests: tuple[str, ...], marks: Marks) -> list[TaskResult]:
    return [_visit("visit", case, digest, marks) for case, digest in zip(cases, digests, strict=True)]


def follow(cases: tuple[Case, ...], digests: tuple[str, ...], marks: Marks) -> list[TaskResult]:
    return [_visit("follow", case, digest, marks) for case, digest in zip(cases, digests, strict=True)]


def visit_ahead(
    cases: tuple[Case, ...], digests: tuple[str, ...], marks: Marks, *, follows: Callable[[], None] | None = None
) -> list[TaskResult]:
    """As :func:`visit`; first what follows is begun, and the case then says whether it was begun in this process."""
    if follows is not None:
        follows()
    (case,) = cases
    (result,) = visit(cases, digests, marks)
    return [replace(result, values={"ahead": case.case_id in _begun})]


def begin(case: Case, digest: str, marks: Marks) -> None:
    """Begin to read; where it is the killer, that ends the process."""
    if case.case_id == marks.killer:
        os.kill(os.getpid(), signal.SIGKILL)
    _begun.add(case.case_id)


def run_program(cases: tuple[Case, ...], digests: tuple[str, ...], marks: Marks) -> list[TaskResult]:
    """Wait for a program that takes an hour."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"]) as program:
        (Path(marks.folder) / "pid").write_text(str(program.pid))
    return visit(cases, digests, marks)


def fill_and_free(cases: tuple[Case, ...], digests: tuple[str, ...], marks: None) -> list[TaskResult]:
    """Write to half a megabyte two hundred times, and say how many pages the system had to give for that.

    The same of three arrays of 29 MB, ten times, in another thread.
    """

    def half() -> None:
        for _ in range(200):
            bytearray(b"x") * (1 << 19)

    def arrays() -> None:
        held = [bytearray(b"x") * (29 << 20) for _ in range(2)]
        above = bytearray(b"x") * (1 << 20)
        for _ in range(10):
            held.clear()
            held += [bytearray(b"x") * (29 << 20) for _ in range(3)]
        del above

    def in_a_thread() -> None:
        thread = threading.Thread(target=arrays)
        thread.start()
        thread.join()

    values: dict[str, Value] = {"pages": _pages(half), "pages of a thread": _pages(in_a_thread)}
    return [TaskResult(cases[0].case_id, "visit", digests[0], values=values)]


def _pages(fill: Callable[[], None]) -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    fill()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def write_behind(cases: tuple[Case, ...], digests: tuple[str, ...], marks: Marks) -> list[TaskResult]:
    """The bad case is written until a third one begins, and the killer ends its process when it is first tried.

    Where it is called flaky too, it is refused memory instead.
    """
    results = visit(cases, digests, Marks(marks.folder))
    (case,), writes = cases, _behind.get()
    if case.case_id == marks.bad and writes is not None:
        writes.append(begin_request(partial(_wait_for_a_third, marks)))
    if case.case_id == marks.killer and visits(marks.folder, "visit", case.case_id) == 1:
        if case.case_id == marks.flaky:
            raise MemoryError("of this process, which still writes another case")
        os.kill(os.getpid(), signal.SIGKILL)
    return results


def _wait_for_a_third(marks: Marks) -> ObjectStat:
    deadline = time.monotonic() + PATIENCE
    while len(list(Path(marks.folder).iterdir())) < 3:
        if time.monotonic() > deadline:
            raise TimeoutError("nothing else is computed while this is written")
        time.sleep(0.05)
    return ObjectStat("key", 0)


_begun: set[str] = set()


def _visit(stage: str, case: Case, digest: str, marks: Marks) -> TaskResult:
    with (Path(marks.folder) / f"{stage}-{case.case_id}").open("a") as stream:
        stream.write("x")
    if stage == "follow" and case.case_id == marks.killer:
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)
    if case.case_id == marks.flaky and visits(marks.folder, stage, case.case_id) < 3:
        raise OSError("no space left on device")
    if case.case_id == marks.mistaken:
        raise JobError("the weights are another network's")
    problem = Problem(Code.SLICE_GAP, "3.0 mm expected, 6.0 mm seen") if case.case_id == marks.bad else None
    return TaskResult(case.case_id, stage, digest, problem, values={"length": len(case.case_id)})


def visits(folder: str | Path, stage: str, case_id: str) -> int:
    path = Path(folder) / f"{stage}-{case_id}"
    return len(path.read_text()) if path.exists() else 0
