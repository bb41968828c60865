"""The runner: a bounded window of tasks on the cluster, outcomes as values, retries for the infrastructure only.

The plan says which task is ready; the runner keeps about two tasks in flight per worker thread, so that no worker
waits and the scheduler's memory does not grow with the cohort. What a task returns are outcomes. What it raises is
the infrastructure's fault (a full disk, a lost connection) and is retried; so is the death of a worker, but a task
of several cases is then split, so that the guilty one is found and the others go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from distributed import CancelledError, Client, Future, KilledWorker, as_completed

from prognosis_dask.cohort.case import Case
from prognosis_dask.errors import ClusterError, Code, Problem
from prognosis_dask.store.outcome import Outcome

#: Tasks in flight per worker thread: one runs, one waits beside it.
TASKS_PER_THREAD = 2
#: Seconds between two looks at how many workers there are.
LOOK_EVERY = 2.0


@dataclass(frozen=True)
class Task:
    """Some cases for one stage. ``function(cases, context)`` runs on a worker and returns an outcome per case."""

    stage: str
    cases: tuple[Case, ...]
    digests: tuple[str, ...]
    function: Callable[[tuple[Case, ...], tuple[str, ...], Any], list[Outcome]]
    context: Any
    attempt: int = 0

    @property
    def key(self) -> str:
        """The task's name on the dashboard: the stage and the first case's short hash, no patient's name."""
        return f"{self.stage}-{self.cases[0].short_hash}-{len(self.cases)}-{self.attempt}"

    def split(self) -> list[Task]:
        """The same work, one case a task."""
        return [
            replace(self, cases=(case,), digests=(digest,), attempt=self.attempt + 1)
            for case, digest in zip(self.cases, self.digests, strict=True)
        ]


class Plan(Protocol):
    """What the runner asks: which task is next, and what follows from an outcome."""

    def take(self) -> Task | None:
        """The next task that is ready, or None when none is ready now."""

    def accept(self, outcomes: Sequence[Outcome]) -> None:
        """Take note of finished work, which may make other tasks ready. Called after it has been recorded."""


def run_plan(
    client: Client,
    plan: Plan,
    record: Callable[[Sequence[Outcome]], None],
    *,
    retries: int,
) -> None:
    """Run the plan until nothing is left. ``record`` is called with finished outcomes, in this thread.

    Raises
    ------
    ClusterError
        When a task's infrastructure error outlives its retries, or every worker is gone for good.
    """
    window = _Window(client)
    waiting: list[Task] = []
    running: dict[Future, Task] = {}
    completed = as_completed()
    try:
        while True:
            while len(running) < window.size and (task := waiting.pop() if waiting else plan.take()):
                future = _submit(client, task)
                running[future] = task
                completed.add(future)
            if not running:
                return
            for future in completed.next_batch():
                task = running.pop(future)
                outcomes, again = _settle(future, task, retries)
                if outcomes:
                    record(outcomes)
                    plan.accept(outcomes)
                waiting.extend(again)
                future.release()
    except BaseException:
        client.cancel(list(running), force=True)
        raise


def _submit(client: Client, task: Task) -> Future:
    return client.submit(task.function, task.cases, task.digests, task.context, key=task.key, pure=False, retries=0)


def _settle(future: Future, task: Task, retries: int) -> tuple[list[Outcome], list[Task]]:
    """Outcomes that are final, and tasks to try again."""
    if future.status == "finished":
        return future.result(), []
    error = future.exception()
    if isinstance(error, (KilledWorker, CancelledError)):
        if len(task.cases) > 1:
            return [], task.split()
        if isinstance(error, KilledWorker):
            return [_lost(task, error)], []
    if task.attempt < retries:
        return [], [replace(task, attempt=task.attempt + 1)]
    raise ClusterError(
        f"stage {task.stage} failed {task.attempt + 1} times for case {task.cases[0].short_hash}: "
        f"{type(error).__name__}: {error}. What is finished is kept; mend this and run the same command again"
    )


def _lost(task: Task, error: KilledWorker) -> Outcome:
    reason = (
        f"the worker died each of {error.allowed_failures + 1} times that it worked on this case (memory? a crash?)"
    )
    return Outcome(task.cases[0].case_id, task.stage, task.digests[0], Problem(Code.WORKER_LOST, reason))


class _Window:
    """How many tasks may be in flight, from the workers that are there now."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._looked = -LOOK_EVERY
        self._size = 1

    @property
    def size(self) -> int:
        if time.monotonic() - self._looked > LOOK_EVERY:
            self._looked = time.monotonic()
            threads = sum(
                worker["nthreads"] for worker in self._client.scheduler_info(n_workers=-1)["workers"].values()
            )
            self._size = max(1, TASKS_PER_THREAD * threads)
        return self._size
