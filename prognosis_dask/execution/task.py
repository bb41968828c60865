"""What every task does on its worker, around the stage's own function.

The stage runs in a child process of the worker (:mod:`execution.child`), one per worker thread, kept from
task to task. A case that hangs, crashes the interpreter or takes all memory ends its child, which is replaced in a
second or two, and nothing else: neither the worker nor the tasks and results that it holds. Nothing less can stop
native code; and while the child computes, the worker always answers the scheduler.

A task whose data go to a bucket leaves its child, and its worker's thread, to the next one as soon as it is computed;
it is done when all of its objects are there.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from typing import Any

import psutil
from distributed import get_worker, secede
from distributed.metrics import context_meter

from prognosis_dask.cohort.case import Case
from prognosis_dask.errors import Code, Problem
from prognosis_dask.execution.child import COMPUTED, NUMBER_BYTES, STARTED, UNWRITTEN
from prognosis_dask.storage.ledger import TaskResult

StageFunction = Callable[[tuple[Case, ...], tuple[str, ...], Any], list[TaskResult]]
#: The case that its worker will get next, to be read ahead: a pickled pair of what begins that and its context, the
#: case, its digest.
Following = tuple[bytes, Case, str]

#: A case whose child dies under it is tried so often, since a signal from outside says nothing about the case.
CRASHES = 3
#: Seconds in which a child must have loaded the task's code; from a slow network disk that takes a while.
START_SECONDS = 300.0
#: The part of the worker's memory that worker and child may take together; Dask's own limit for a worker.
MEMORY_FRACTION = 0.95
#: Seconds between two looks at the child's memory and time.
LOOK_EVERY = 0.1

#: One case at a time: the workers are the parallelism. SimpleITK reads the last one only.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1",
}

#: What glibc's allocator comes to by itself at most: up to a size, it keeps what is freed. Dask has its workers give it
#: back, and each array of a statistic, each slice and each answer of a store would then be put into pages that are got
#: from the system anew: as long again as the statistic, and most of what reading costs. Only of the first of its heaps
#: is it kept, so all threads share that one: in heaps of its own, the thread that reads ahead got twice as many pages.
#: For the workers that start here, and for all children: a cluster that is joined has workers with Dask's setting.
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
    "MALLOC_ARENA_MAX": "1",
}

#: The children that no task has, the last one used at the end. A child is killed with the thread that started it
#: (prctl(2)), and those of tasks come and go: this one stays.
_idle: list[_Child] = []
_starter = ThreadPoolExecutor(1, thread_name_prefix="children")
_numbers = count()
#: ``left``: the task of this thread was left by its worker's pool, while it writes.
_thread = threading.local()
#: Short hashes of cases that nobody waits for any more; on each worker.
_stopped: set[str] = set()


def stop_case(short_hash: str) -> None:
    """End the work on a case, and refuse what may still come of it: to be called on every worker."""
    _stopped.add(short_hash)


def run_task(
    stage: str,
    work: bytes,
    cases: tuple[Case, ...],
    digests: tuple[str, ...],
    case_limit_s: float,
    following: Following | None = None,
    *,
    alone: bool = False,
) -> list[TaskResult]:
    """Run a stage on its cases; a result per case, also for those that hang, crash or take all memory.

    When a batch comes to such an end, its cases run again one by one, so that the guilty one is found.

    Parameters
    ----------
    stage
        As in the ledger.
    work
        The pickled pair of stage function and context. It is opened in the child only: its imports are heavy.
    cases, digests
        As the stage function takes them.
    case_limit_s
        Seconds that a case may take, and a batch as many times that; 0 sets no limit.
    following
        The first case of the task that is likely to come next to this thread, to be read while this one is computed.
    alone
        In a child of its own, which is ended afterwards, and waiting for all that is written.

    Raises
    ------
    Exception
        What the stage function raised: of the infrastructure, or a user's mistake.
    """
    begun = time.monotonic()
    limit_s = case_limit_s * len(cases) or float("inf")
    # a case that hangs, crashes or takes all memory gets a result: an exception would be retried as the cluster's
    # fault
    for _ in range(CRASHES):
        try:
            _expect_wanted(cases)
            return metered(_run(work, cases, digests, limit_s, following, alone=alone))
        except _UnwrittenError:  # once more, waiting: the error itself is then raised, or becomes its case's
            return run_task(stage, work, cases, digests, case_limit_s, alone=True)
        except _ChildLostError as lost:
            code, reason, shared = lost.code, lost.reason, lost.shared
        if (following or shared) and code in (Code.WORKER_LOST, Code.MEMORY_LIMIT):
            # what was read ahead, or still written for another case, may be to blame
            return run_task(stage, work, cases, digests, case_limit_s, alone=shared)
        if len(cases) > 1:  # nothing shows which of them is to blame
            each = zip(cases, digests, strict=True)
            return [result for c, d in each for result in run_task(stage, work, (c,), (d,), case_limit_s)]
        if code is not Code.WORKER_LOST:
            break
    else:
        reason = f"{reason}, {CRASHES} times"
    (case,), (digest,) = cases, digests
    problem = Problem(code, reason, patient_id=case.patient_id, case_id=case.case_id)
    return [TaskResult(case.case_id, stage, digest, problem, {"total": time.monotonic() - begun})]


def _expect_wanted(cases: tuple[Case, ...]) -> None:
    if any(case.short_hash in _stopped for case in cases):
        raise _ChildLostError(Code.STOPPED, "stopped on request")


class _ChildLostError(Exception):
    """The child ended, or was ended, in the middle of a task; ``shared``: one that still wrote for another."""

    def __init__(self, code: Code, reason: str, *, shared: bool = False) -> None:
        super().__init__(code, reason)
        self.code, self.reason, self.shared = code, reason, shared


class _UnwrittenError(Exception):
    """Not all that the task had computed was written."""


def _run(
    work: bytes,
    cases: tuple[Case, ...],
    digests: tuple[str, ...],
    limit_s: float,
    following: Following | None,
    *,
    alone: bool,
) -> list[TaskResult]:
    alone = alone or hasattr(_thread, "left")  # the next task has what this one left
    child, number = _new_child() if alone else _child(), next(_numbers)
    shared = child.is_writing()
    task = number, work, cases, digests, following, not alone and _is_on_worker()
    try:
        answer = child.run(number, pickle.dumps(task), cases, limit_s)
    except _ChildLostError as lost:
        raise _ChildLostError(lost.code, lost.reason, shared=shared) from lost
    if answer != COMPUTED:
        child.forget(number)
    if alone:
        child.end()
    else:
        _idle.append(child)
    if answer == COMPUTED:
        _thread.left = True
        secede()
        try:
            answer = child.written(number, cases)
        finally:
            child.forget(number)
    results, failure = pickle.loads(answer)
    if isinstance(failure, MemoryError):
        reason = f"the work on it was refused memory by the system ({failure})"
        raise _ChildLostError(Code.MEMORY_LIMIT, reason, shared=shared)
    if failure is not None:
        raise failure
    return results  # type: ignore[no-any-return]


def _is_on_worker() -> bool:
    """Whether this is a thread of a worker, which a task may leave to the next one."""
    try:
        get_worker()
    except ValueError:  # called directly, on no worker
        return False
    return True


def _child() -> _Child:
    """A child that no other task has, a new one when there is none that lives."""
    while _idle:
        with suppress(IndexError):  # another thread was quicker
            child = _idle.pop()
            if child.alive():
                return child
    return _new_child()


def _new_child() -> _Child:
    return _starter.submit(_Child).result()


class _Child:
    """A child process and the socket to it. It ends with its worker."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "prognosis_dask.execution.child", str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                env={
                    **ONE_THREAD,
                    **os.environ,
                    **KEEP_MEMORY,
                    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                },
                stdin=subprocess.DEVNULL,
            )
        self._connection = Connection(ours.detach())
        self._said: dict[int, SimpleQueue[bytes]] = {}
        threading.Thread(target=self._listen, daemon=True, name="child").start()

    def _listen(self) -> None:
        """Give each task what the child says of it; nothing is what it says when it is gone."""
        with suppress(OSError, EOFError):
            while True:
                said = self._connection.recv_bytes()
                with suppress(KeyError):  # of a task that was stopped
                    self._said[int.from_bytes(said[:NUMBER_BYTES], "big")].put(said[NUMBER_BYTES:])
        for waiting in list(self._said.values()):
            waiting.put(b"")

    def alive(self) -> bool:
        return self._process.poll() is None

    def is_writing(self) -> bool:
        """Whether it still writes what tasks of before have computed."""
        return bool(self._said)

    def run(self, number: int, task: bytes, cases: tuple[Case, ...], limit_s: float) -> bytes:
        """See :func:`run_task`; raises _ChildLostError when the child ended or had to be ended."""
        said: SimpleQueue[bytes] = SimpleQueue()
        self._said[number] = said
        try:
            self._connection.send_bytes(task)
            answer = self._answer(said, cases, START_SECONDS, Code.WORKER_LOST)
            if answer == STARTED:  # only now does the time count against the case: loading the code may be slow
                answer = self._answer(said, cases, limit_s, Code.TIME_LIMIT)
        except (OSError, EOFError) as error:
            with suppress(subprocess.TimeoutExpired):  # the socket closes a moment before the process has ended
                self._process.wait(1.0)
            raise _ChildLostError(Code.WORKER_LOST, self.end()) from error
        except BaseException:
            self.end()
            raise
        return answer

    def written(self, number: int, cases: tuple[Case, ...]) -> bytes:
        """The answer once all is written, while the child may compute for another task, which ends it if need be."""
        said = self._said[number]
        while True:
            _expect_wanted(cases)
            with suppress(Empty):
                answer = said.get(timeout=LOOK_EVERY)
                break
        if answer in (b"", UNWRITTEN):
            raise _UnwrittenError
        return answer

    def forget(self, number: int) -> None:
        """The task has all that the child had to say of it, or does not want it any more."""
        del self._said[number]

    def _answer(self, said: SimpleQueue[bytes], cases: tuple[Case, ...], limit_s: float, code: Code) -> bytes:
        """What the child says within the limit, while it keeps to its memory."""
        deadline, most = time.monotonic() + limit_s, _memory_limit()
        while True:
            with suppress(Empty):
                answer = said.get(timeout=LOOK_EVERY)
                if not answer:
                    raise EOFError
                return answer
            _expect_wanted(cases)
            if time.monotonic() > deadline:
                what = "the work on it" if code is Code.TIME_LIMIT else "loading the program"
                raise _ChildLostError(code, f"{what} was stopped after {limit_s:g} s")
            if self._memory() > most:
                raise _ChildLostError(
                    Code.MEMORY_LIMIT, f"the work on it took more than the worker's {most / 1e9:.1f} GB of memory"
                )

    def _memory(self) -> int:
        """Resident bytes of the child and its worker."""
        with suppress(psutil.NoSuchProcess):
            return sum(psutil.Process(pid).memory_info().rss for pid in (self._process.pid, os.getpid()))
        return 0

    def end(self) -> str:
        """Make sure that the child is gone, with the programs that it started; how it went."""
        started: list[psutil.Process] = []
        with suppress(psutil.Error):
            started = psutil.Process(self._process.pid).children(recursive=True)
        self._process.kill()
        status = self._process.wait()
        for program in started:
            with suppress(psutil.Error):
                program.kill()
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with exit status {status}"
        return f"the process that worked on it {how}"


def _memory_limit() -> float:
    """Bytes that this thread's child may take together with its worker."""
    try:
        worker = get_worker()
    except ValueError:  # called directly, on no worker
        return float("inf")
    limit = worker.memory_manager.memory_limit
    return MEMORY_FRACTION * limit / worker.state.nthreads if limit else float("inf")


# The steps' seconds in Dask's own account of its tasks: spans, and the dashboard's Fine Performance Metrics.


def metered(results: list[TaskResult]) -> list[TaskResult]:
    """Book the results' seconds by step under the task that runs now; called on a worker, else without effect."""
    for result in results:
        for step, seconds in result.seconds.items():
            if step != "total":
                context_meter.digest_metric(step, seconds, "seconds")
    return results
