"""The work on one case, timed, with every fault as part of its result; and reading ahead for the next cases.

What was read ahead, in a thread of the process, is for the next task or for nobody: a case that went elsewhere, and
comes again, is read again.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from prognosis_dask.cohort.case import Case
from prognosis_dask.errors import CaseError, Code, Problem, PrognosisError, collected_warnings, warn
from prognosis_dask.storage.ledger import TaskResult, Values


def guarded(stage: str, case: Case, digest: str, work: Callable[[Stopwatch], Values]) -> TaskResult:
    """The result of the work on one case, whatever becomes of it; only the infrastructure's errors pass."""
    watch = Stopwatch()
    problem: Problem | None = None
    values: Values = {}
    _reset_peak_memory()
    read = _read_mb()
    with watch.step("total"), collected_warnings() as warnings:
        try:
            values = work(watch)
        except CaseError as error:
            problem = error.problem
        except (OSError, MemoryError, PrognosisError):
            raise
        except Exception as error:  # a bug here or in a library must not end the run for the other cases
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}:{place.lineno}"
            problem = Problem(Code.UNEXPECTED, f"{type(error).__name__}: {error}", where=where)
    if problem:
        problem = problem.of(patient_id=case.patient_id, case_id=case.case_id)
    said = tuple(warning.of(patient_id=case.patient_id, case_id=case.case_id) for warning in warnings)
    values |= {"peak_memory_mb": peak_memory_mb(), "read_mb": _read_mb() - read}
    return TaskResult(case.case_id, stage, digest, problem, watch.seconds, values, said)


@dataclass(frozen=True)
class Stopwatch:
    """Seconds per named step of one case."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Add the time spent inside to the step."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def _reset_peak_memory() -> None:
    """Let Linux count the process's peak memory anew (proc(5), clear_refs: 5)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb() -> float:
    """The process's peak resident memory since the reset, in MB; NaN where the system does not tell."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1000.0
    return math.nan


def _read_mb() -> float:
    """What the process has read from files so far, in MB, cached or not; NaN where the system does not tell."""
    with suppress(OSError):
        return int(Path("/proc/self/io").read_text().split()[1]) / 1e6
    return math.nan


_reader: list[ThreadPoolExecutor] = []
_begun: dict[Wanted, Future[_Read]] = {}


class Wanted(NamedTuple):
    """What is read for one case by one stage of one run, for one start of its driver."""

    started: str
    folder: str
    stage: str
    case_id: str
    digest: str


class _Read(NamedTuple):
    """What came of it, with what was said on the way."""

    value: Any
    error: Exception | None
    said: list[Problem]


def begin_ahead(wanted: Wanted, read: Callable[[], object]) -> None:
    """Have something read meanwhile."""
    if not _reader:
        _reader.append(ThreadPoolExecutor(1, thread_name_prefix="ahead"))
    if wanted not in _begun:
        _begun[wanted] = _reader[0].submit(_whole, read)


def keep_ahead(wanted: Collection[Wanted]) -> None:
    """Forget what is none of these."""
    for one in set(_begun).difference(wanted):
        _begun.pop(one).cancel()


def is_read_ahead(stage: str, case_id: str) -> bool:
    """Whether it has been read ahead for a case of this task, or is being read."""
    return any((wanted.stage, wanted.case_id) == (stage, case_id) for wanted in _begun)


def take_ahead(stage: str, case_id: str) -> Any:
    """What was read, once it is there; warnings and errors as if it had been read just now."""
    (wanted,) = (wanted for wanted in _begun if (wanted.stage, wanted.case_id) == (stage, case_id))
    value, error, said = _begun.pop(wanted).result()
    for warning in said:
        warn(warning.code, warning.reason, where=warning.where)
    if error is not None:
        raise error
    return value


def _whole(read: Callable[[], object]) -> _Read:
    with collected_warnings() as said:
        try:
            return _Read(read(), None, said)
        except Exception as error:  # it is the case's, whose turn has not come
            return _Read(None, error, said)
