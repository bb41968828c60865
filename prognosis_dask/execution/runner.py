"""The runner: a bounded window of tasks on the cluster, task results as values, retries for the infrastructure only.

The plan says which task is ready; the runner keeps about two tasks in flight per worker thread, or per GPU, so that no
worker waits, no kind of task starves another, and the scheduler's memory does not grow with the cohort. Dask itself
would not hold back: tasks that ask for a resource all go to the workers at once. What a task returns are results. What
it raises is the infrastructure's fault (a full disk, a lost connection) and is retried; so is the death of a worker,
but then the cases run one by one, so that the guilty one is found and the others go on.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from distributed import CancelledError, Client, Future, KilledWorker
from distributed.protocol import pickle

from prognosis_dask.cohort.case import Case
from prognosis_dask.errors import ClusterError, Code, Problem, PrognosisError, system_reason
from prognosis_dask.execution.monitor import journal
from prognosis_dask.execution.task import Following, StageFunction, run_task
from prognosis_dask.storage.ledger import TaskResult

#: Tasks in flight per worker thread, or per GPU: one runs, one waits beside it.
TASKS_PER_THREAD = 2
#: Seconds that a finished task's result may take to arrive; it is small, so longer means that its worker is gone.
RESULT_TIMEOUT = 30.0
#: Seconds of silence after which the runner looks whether the cluster is still there.
CHECK_EVERY = 2.0
#: Seconds before the first retry after an error of the infrastructure; each further one waits four times as long.
RETRY_AFTER = 1.0
#: Seconds between two looks at how many workers there are.
LOOK_EVERY = 2.0
#: What a task asks of a worker's CPU where the worker's threads hold it back anyhow: Dask counts a resource as taken
#: until the task is done, also while it is only being written, so that the next one would wait for it.
SHARE = 1 / 64


@dataclass(frozen=True)
class Task:
    """Some cases for one stage. ``function(cases, context)`` runs on a worker and returns a result per case.

    ``resource`` is what the worker has to offer, ``CPU`` or ``GPU``; empty: any worker will do. ``not_before`` is the
    moment on the monotonic clock until which it has to wait. ``begin`` begins to read a case of it ahead, where its
    data lie in a bucket.
    """

    stage: str
    cases: tuple[Case, ...]
    digests: tuple[str, ...]
    function: StageFunction
    context: Any
    resource: str = ""
    attempt: int = 0
    alone: bool = False
    not_before: float = 0.0
    begin: Callable[[Case, str, Any], None] | None = None

    def key(self) -> str:
        """A new name for the dashboard: the stage and the first case's short hash, no patient's name.

        Never the same twice, since Dask answers a known name with the result, or the error, that it remembers.
        """
        return f"{self.stage}-{self.cases[0].short_hash}-{uuid.uuid4().hex[:8]}"

    def split(self) -> list[Task]:
        """The same work, one case a task, each to be run alone."""
        return [
            replace(self, cases=(case,), digests=(digest,), alone=True)
            for case, digest in zip(self.cases, self.digests, strict=True)
        ]


class Plan(Protocol):
    """What the runner asks: which task is next, and what follows from a result."""

    def take(self, full: Collection[str] = ()) -> Task | None:
        """The next task that is ready and asks for none of the ``full`` resources, or None when there is none now."""

    def accept(self, results: Sequence[TaskResult]) -> Mapping[str, tuple[str, ...]]:
        """Take note of finished work, which may make other tasks ready. Called after it has been recorded.

        Returns, for each case whose stored data proved damaged, the stages that made them, which it passes once more.
        """

    def unfinished(self) -> int:
        """How many results of cases are still to come."""


def run_plan(
    client: Client,
    plan: Plan,
    record: Callable[[Sequence[TaskResult]], None],
    count: Callable[[Sequence[TaskResult], Mapping[str, tuple[str, ...]]], None] = lambda results, again: None,
    *,
    retries: int,
    case_limit_s: float = 0.0,
    workers_wait_s: float = 300.0,
) -> None:
    """Run the plan until nothing is left. ``record`` and ``count`` are called in this thread.

    Parameters
    ----------
    client, plan, record
        Where the tasks run, which they are, and what keeps their results.
    count
        Takes the results that are recorded, and what the plan's ``accept`` says of them.
    retries
        How often a task is tried again after an error of the infrastructure.
    case_limit_s
        Seconds that a case may take before it is stopped; 0 sets no limit.
    workers_wait_s
        Seconds to wait for a worker when the cluster has none; 0: for ever.

    Raises
    ------
    ClusterError
        When a task's infrastructure error outlives its retries, or the cluster is gone.
    PrognosisError
        When a task finds a mistake of the user's that concerns every case (the weights' file, an extra).
    """
    window = _Window(client)
    queues = _Queues(plan)
    lanes = _Lanes(queues)
    health = ClusterHealth(client, workers_wait_s)
    packed = _Packed()
    running: dict[Future, _Sent] = {}
    finished: SimpleQueue[Future] = SimpleQueue()
    try:
        while True:
            # the window: Dask sends every task that asks for a resource to the workers at once, and its scheduler would
            # hold the whole cohort
            while sent := lanes.take(running.values(), window):
                future = _submit(client, sent, packed, window, case_limit_s)
                running[future] = sent
                future.add_done_callback(finished.put)
            if not running:
                if not queues.again:
                    _expect_all(plan)
                    return
                time.sleep(0.1)  # all that is left waits for its retry
                continue
            for future in _next_batch(finished, health):
                task = running.pop(future).task
                if future.cancelled():
                    health.check()
                results = _settle(future, task, retries, queues)
                if results:
                    # recorded before the plan goes on: a driver killed here repeats the task, and skips none
                    record(results)
                    count(results, plan.accept(results))
                future.release()
    except BaseException:
        for future in running:
            future.release()  # this cancels it, and does not wait for a scheduler that may be gone
        raise


def _submit(client: Client, sent: _Sent, packed: _Packed, window: _Window, case_limit_s: float) -> Future:
    task = sent.task
    return client.submit(
        run_task,
        task.stage,
        packed(task.function, task.context),
        task.cases,
        task.digests,
        case_limit_s,
        packed.following(sent.follower),
        key=task.key(),
        pure=False,
        resources=window.ask(task.resource),
        workers=sent.worker or None,
        allow_other_workers=bool(sent.worker),
    )


def _expect_all(plan: Plan) -> None:
    """A run must not end successfully with results missing; nobody would notice."""
    if left := plan.unfinished():
        raise ClusterError(
            f"the run has no more tasks, but {left} results of cases are missing: a fault of this program, please "
            "report it. Finished work is kept; run the same command again, and it computes what is missing"
        )


def _next_batch(finished: SimpleQueue[Future], health: ClusterHealth) -> list[Future]:
    """All futures that have finished; none after a while of silence, in which the cluster was looked after."""
    try:
        batch = [finished.get(timeout=CHECK_EVERY)]
    except Empty:
        health.check()
        return []
    health.seen_at_work()
    while not finished.empty():
        batch.append(finished.get())
    return batch


class _Packed:
    """Functions and contexts as bytes, each pickled once. Only a worker's child opens them."""

    def __init__(self) -> None:
        self._bytes: dict[tuple[Callable[..., Any], int], bytes] = {}

    def __call__(self, function: Callable[..., Any], context: object) -> bytes:
        key = function, id(context)
        if key not in self._bytes:
            self._bytes[key] = pickle.dumps((function, context))
        return self._bytes[key]

    def following(self, task: Task | None) -> Following | None:
        """What the task before this one is told of it."""
        if task is None or task.begin is None:
            return None
        return self(task.begin, task.context), task.cases[0], task.digests[0]


@dataclass
class _Queues:
    """What is to run: tasks to try again, then the plan's, and the suspects of a worker's death last, one by one.

    When a worker dies, Dask blames every task that was assigned to it. A suspect is therefore cleared, or convicted,
    with nothing else on the cluster.
    """

    plan: Plan
    again: list[Task] = field(default_factory=list)
    suspects: list[Task] = field(default_factory=list)
    trial: bool = False

    def take(self, *, idle: bool, full: Collection[str]) -> Task | None:
        """The next task with room for it; a suspect only when the cluster is idle, and then nothing beside it."""
        if self.trial and not idle:
            return None
        self.trial = False
        now = time.monotonic()
        task = next((task for task in self.again if task.not_before <= now and task.resource not in full), None)
        if task:
            self.again.remove(task)
        else:
            task = self.plan.take(full)
        if task is None and idle and self.suspects:
            self.trial = True
            task = self.suspects.pop()
        return task


@dataclass(frozen=True)
class _Sent:
    """A task on its way: the worker that it is meant for, where it is for a certain one, and what follows it there."""

    task: Task
    worker: str = ""
    follower: Task | None = None


class _Lanes:
    """Which task goes to which worker, where cases are read from buckets, so that each can be told which comes next.

    What follows is taken from the queues together with the task before it. A worker that ends, or has no room when all
    else is on its way, leaves it to another one.
    """

    def __init__(self, queues: _Queues) -> None:
        self._queues = queues
        self._following: dict[str, Task] = {}

    def take(self, running: Collection[_Sent], window: _Window) -> _Sent | None:
        """The next task with room for it."""
        full = window.full(sent.task for sent in running)
        workers = window.of_one_thread()
        if self._following and "" in full:
            return None
        in_flight = Counter(sent.worker for sent in running)
        worker = min(workers, key=lambda address: in_flight[address], default="")
        task = self._left(worker, workers) or self._queues.take(idle=not running and not self._following, full=full)
        if task is None and self._following:
            task = self._following.popitem()[1]
        if task is None or task.begin is None or task.alone or not worker:
            return _Sent(task) if task else None
        follower = self._queues.take(idle=False, full=full)
        if follower is not None:
            self._following[worker] = follower
        return _Sent(task, worker, follower)

    def _left(self, worker: str, workers: Collection[str]) -> Task | None:
        """What was to follow on this worker, which has nothing waiting then; else on one that is gone."""
        gone = next((one for one in self._following if one not in workers), "")
        return self._following.pop(worker, None) or self._following.pop(gone, None)


def _settle(future: Future, task: Task, retries: int, queues: _Queues) -> list[TaskResult]:
    """The results that are final; what is to be tried again goes into the queues."""
    try:
        return future.result(timeout=RESULT_TIMEOUT)  # type: ignore[no-any-return]
    except PrognosisError:
        raise
    except KilledWorker as error:
        if task.alone:
            return [_lost(task, error)]
        journal("task-lost-its-worker", level=logging.WARNING, stage=task.stage, case=task.cases[0].short_hash)
        # Dask blames every task that was on the dead worker: run each case again with nothing else on the cluster
        queues.suspects.extend(task.split())
    except CancelledError:  # the connection to the scheduler was lost for a moment
        queues.again.append(task)
    except Exception as error:  # a lost connection, a full disk: of the infrastructure
        if isinstance(error, TimeoutError) and future.status != "error":  # its worker died with the result
            queues.again.append(task)
            return []
        if task.attempt >= retries:
            raise ClusterError(
                f"stage {task.stage} failed {task.attempt + 1} times for case {task.cases[0].short_hash}: "
                f"{type(error).__name__}: {error}. Finished work is kept; correct this and run the same command again"
            ) from error
        journal(
            "task-retried",
            level=logging.WARNING,
            stage=task.stage,
            case=task.cases[0].short_hash,
            attempt=task.attempt + 1,
            error=type(error).__name__,
        )
        pause = RETRY_AFTER * 4**task.attempt
        queues.again.append(replace(task, attempt=task.attempt + 1, not_before=time.monotonic() + pause))
    return []


def _lost(task: Task, error: KilledWorker) -> TaskResult:
    deaths = error.allowed_failures + 1
    reason = f"the worker died {deaths} times working on this case, and nothing else (memory? a crash?)"
    return TaskResult(task.cases[0].case_id, task.stage, task.digests[0], Problem(Code.WORKER_LOST, reason))


class _Window:
    """How many tasks may be in flight on each resource, from the workers that are there now.

    Looked at anew every few seconds: workers that join late get work, those that leave take their room with them.
    Where no worker offers ``CPU`` by name, as on clusters that others started, any thread counts as one.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._looked = -LOOK_EVERY
        self._threads = 1.0
        self._single: list[str] = []
        self._offers: Mapping[str, float] = {}
        self._threads_hold_back = False

    def full(self, running: Iterable[Task]) -> set[str]:
        """The resources that have no room for another task."""
        self._update_workers()
        in_flight = Counter(task.resource for task in running)
        return {name for name, tasks in in_flight.items() if tasks >= TASKS_PER_THREAD * self._slots(name)}

    def of_one_thread(self) -> list[str]:
        """The addresses of all workers, where each has one thread: there the next task finds what the last one read."""
        return self._single

    def ask(self, resource: str) -> dict[str, float] | None:
        """What Dask is told of the resource that a task needs."""
        if not resource or self._is_any_thread(resource):
            return None
        return {resource: SHARE if resource == "CPU" and self._threads_hold_back else 1}

    def _slots(self, resource: str) -> float:
        return self._threads if self._is_any_thread(resource) else max(1.0, self._offers.get(resource, 0.0))

    def _is_any_thread(self, resource: str) -> bool:
        return resource == "" or (resource == "CPU" and "CPU" not in self._offers)

    def _update_workers(self) -> None:
        if time.monotonic() - self._looked < LOOK_EVERY:
            return
        self._looked = time.monotonic()
        offers: Counter[str] = Counter()
        workers = self._client.scheduler_info(n_workers=-1)["workers"]
        for worker in workers.values():
            offers.update(worker["resources"])
        self._offers = offers
        of_cpu = [worker for worker in workers.values() if worker["resources"].get("CPU")]
        self._threads_hold_back = all(worker["resources"] == {"CPU": worker["nthreads"]} for worker in of_cpu)
        self._threads = max(1, sum(worker["nthreads"] for worker in workers.values()))
        self._single = list(workers) if self._threads == len(workers) else []


# Whether the cluster is still there: a scheduler that answers, workers that are connected.

#: Seconds in which a scheduler that was lost may come back; the client connects again by itself.
RECONNECT_SECONDS = 30.0
_PAUSE = 0.5


class ClusterHealth:
    """Looks at the cluster while the runner waits. Dask alone would wait for ever for a result that cannot come."""

    def __init__(self, client: Client, workers_wait_s: float) -> None:
        """``workers_wait_s``: seconds that the run waits for a worker when it has none; 0: for ever."""
        self._client = client
        self._workers_wait_s = workers_wait_s or float("inf")
        self._address = client.scheduler.address
        self._scheduler = self._identity()["id"]
        self._seen_workers = time.monotonic()

    def seen_at_work(self) -> None:
        """A task has come back, so there were workers until now: the wait for one begins anew."""
        self._seen_workers = time.monotonic()

    def check(self) -> None:
        """Return when all is well, or is well again after a moment.

        Raises
        ------
        ClusterError
            When the scheduler is gone or was started anew, or no worker came for too long.
        """
        found = self._identity()
        # a scheduler that was started again knows none of our tasks: their results can never arrive
        if found["id"] != self._scheduler:
            raise ClusterError(f"the scheduler at {self._address} was restarted{_GO_ON}")
        if found["n_workers"]:
            self._seen_workers = time.monotonic()
        elif time.monotonic() - self._seen_workers > self._workers_wait_s:
            raise ClusterError(
                f"the scheduler at {self._address} has had no worker for {self._workers_wait_s:g} s "
                f"(run.workers_wait_s){_GO_ON}"
            )

    def _identity(self) -> dict[str, Any]:
        deadline = time.monotonic() + RECONNECT_SECONDS
        while True:
            if self._client.status in ("closed", "closing"):
                raise ClusterError(f"the scheduler at {self._address} is gone{_GO_ON}")
            try:
                found: dict[str, Any] = self._client.sync(
                    self._client.scheduler.identity, n_workers=0, callback_timeout=RECONNECT_SECONDS
                )
            except (OSError, AttributeError) as error:  # AttributeError: the client is between two connections
                if time.monotonic() > deadline:
                    raise ClusterError(
                        f"the scheduler at {self._address} does not answer any more ({system_reason(error)}){_GO_ON}"
                    ) from error
                time.sleep(_PAUSE)
            else:
                if self._client.status == "running":
                    return found
                time.sleep(_PAUSE)


_GO_ON = ". Finished work is kept; start or repair it and run the same command again"
