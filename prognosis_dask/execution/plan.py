"""Which task comes next: from the images to radiomics and, in batches of one clip length, to the network."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from prognosis_dask.cohort.case import Case
from prognosis_dask.errors import Code
from prognosis_dask.execution.runner import Task
from prognosis_dask.execution.task import StageFunction
from prognosis_dask.storage.outcome import Outcome


@dataclass(frozen=True)
class Stage:
    """One stage of a job.

    Attributes
    ----------
    name
        As in the ledger.
    function
        From cases, their digests and the context to outcomes; runs on a worker.
    digests
        Per ``case_id``, the digest of everything that the stage's result depends on.
    batch_size
        The cases that a task takes; 0: as many as make a task worth its sending, by the seconds that were measured.
    group
        From the first stage's outcome to what the cases of one task must share (the length of the clip).
    resource
        What a worker has to offer, ``CPU`` or ``GPU``; empty: any worker will do.
    memory
        Bytes that a task may need at its peak.
    """

    name: str
    function: StageFunction
    digests: Mapping[str, str]
    batch_size: int = 0
    group: Callable[[Outcome], int] = lambda outcome: 0
    resource: str = ""
    memory: int = 0


class CohortPlan:
    """The plan of a cohort: a first stage for every case, then the others for the cases that came through it.

    Stages that follow are taken before new cases are begun, so that the network is fed while images are still read.
    Where the network has a resource of its own, new cases are begun first as long as it waits for them.
    A case whose stored data prove damaged goes through the first stage once more.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        first: Stage,
        followers: Sequence[Stage],
        context: object,
        ledger: Mapping[str, Mapping[str, Outcome]],
    ) -> None:
        """``ledger`` holds, per stage and ``case_id``, the outcomes that are final for the stage's digest."""
        self._cases = {case.case_id: case for case in cases}
        self._first = first
        self._followers = {stage.name: stage for stage in followers}
        self._context = context
        self._begin = deque(case_id for case_id in self._cases if case_id not in ledger[first.name])
        self._ready: dict[tuple[str, int], deque[str]] = defaultdict(deque)
        self._todo = {stage.name: self._cases.keys() - ledger[stage.name].keys() for stage in followers}  # nor ready
        self._sizes = {stage.name: TaskSize() for stage in (first, *followers)}
        self._open_first = len(self._begin)
        self._repaired: set[str] = set()
        for case_id in self._cases:
            if case_id in ledger[first.name]:
                self._follow(ledger[first.name][case_id])

    def take(self, full: Collection[str] = ()) -> Task | None:
        """See :class:`prognosis_dask.execution.runner.Plan`."""
        here = self._first.resource
        elsewhere = {stage.resource for stage in self._followers.values()} - {here, *full}
        if task := self._take_ready(elsewhere):
            return task
        if here in full:
            return None
        if elsewhere and self._begin:  # a GPU waits for cases
            return self._take_new()
        return self._take_ready({here}) or self._take_new()

    def _take_new(self) -> Task | None:
        return self._task(self._first, self._begin) if self._begin else None

    def _take_ready(self, resources: Collection[str]) -> Task | None:
        """A task of a stage that follows and runs on one of the resources."""
        for key, queue in self._ready.items():
            stage = self._followers[key[0]]
            enough = len(queue) >= self._size(stage) or not self._open_first
            if stage.resource in resources and enough:
                task = self._task(stage, queue)
                if not queue:
                    del self._ready[key]
                return task
        return None

    def accept(self, outcomes: Sequence[Outcome]) -> dict[str, str]:
        """See :class:`prognosis_dask.execution.runner.Plan`."""
        self._sizes[outcomes[0].stage].learn(outcomes)
        again = {}
        for outcome in outcomes:
            if outcome.stage == self._first.name:
                self._open_first -= 1
                self._follow(outcome)
            elif self._damaged(outcome):
                self._repaired.add(outcome.case_id)
                self._todo[outcome.stage].add(outcome.case_id)
                self._begin.append(outcome.case_id)
                self._open_first += 1
                again[outcome.case_id] = self._first.name
        return again

    def _damaged(self, outcome: Outcome) -> bool:
        damaged = outcome.problem is not None and outcome.problem.code is Code.STORE_DAMAGED
        return damaged and outcome.case_id not in self._repaired

    def _follow(self, outcome: Outcome) -> None:
        if outcome.problem is not None:
            return
        for name, stage in self._followers.items():
            if outcome.case_id in self._todo[name]:
                self._todo[name].remove(outcome.case_id)
                self._ready[name, stage.group(outcome)].append(outcome.case_id)

    def _size(self, stage: Stage) -> int:
        return stage.batch_size or self._sizes[stage.name].cases

    def _task(self, stage: Stage, queue: deque[str]) -> Task:
        case_ids = [queue.popleft() for _ in range(min(self._size(stage), len(queue)))]
        return Task(
            stage=stage.name,
            cases=tuple(self._cases[case_id] for case_id in case_ids),
            digests=tuple(stage.digests[case_id] for case_id in case_ids),
            function=stage.function,
            context=self._context,
            resource=stage.resource,
        )


# --- How many cases one task takes: enough that sending it about costs little, not so many that a worker ends up
# alone.


#: A task aims at this long: some 50 times what it costs the scheduler, and the longest that a worker waits at the end.
TASK_SECONDS = 0.2
#: The most cases in a task, however quick they are: what a worker's death makes suspect, each to be run alone.
MOST_CASES = 256
#: Weight of the newest task in the mean.
_NEWEST = 0.2


class TaskSize:
    """The cases per task of one stage, from the seconds that its cases took; begins with one, at most doubles a time.

    >>> size = TaskSize()
    >>> for seconds in (0.05, 0.05, 0.05):
    ...     size.learn([Outcome("case", "stage", "digest", seconds={"total": seconds})] * size.cases)
    >>> size.cases
    4
    """

    def __init__(self) -> None:
        self.cases = 1
        self._seconds: float | None = None

    def learn(self, outcomes: Sequence[Outcome]) -> None:
        """Take note of a finished task. Cases that failed count for nothing, since they may fail at once."""
        seconds = [outcome.seconds.get("total", 0.0) for outcome in outcomes if outcome.problem is None]
        if not seconds:
            return
        mean = sum(seconds) / len(seconds)
        self._seconds = mean if self._seconds is None else self._seconds + _NEWEST * (mean - self._seconds)
        fitting = int(TASK_SECONDS / max(self._seconds, TASK_SECONDS / MOST_CASES))
        self.cases = max(1, min(fitting, 2 * len(outcomes)))
