"""Which stages a run has, and which task comes next: a case goes to a stage once it came through what that needs."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from prognosis_dask.cohort.case import Case
from prognosis_dask.config.job import Job
from prognosis_dask.errors import Code
from prognosis_dask.execution.record import LoadedStages
from prognosis_dask.execution.runner import Task
from prognosis_dask.execution.task import StageFunction
from prognosis_dask.features.registry import stages_of
from prognosis_dask.storage.ledger import TaskResult


@dataclass(frozen=True)
class PlannedStage:
    """A stage as one run has it.

    Attributes
    ----------
    name
        As in the ledger.
    function
        From cases, their digests and the context to results; runs on a worker.
    digests
        Per ``case_id``, the digest of everything that the stage's result depends on.
    needs
        The stages of the run that a case has to come through before.
    batch_size
        The cases that a task takes; 0: as many as make a task worth its sending, by the seconds that were measured.
    group
        From the result of the first stage that is needed to what the cases of one task must share (the clip's length).
    resource
        What a worker has to offer, ``CPU`` or ``GPU``; empty: any worker will do.
    begin
        From a case, its digest and the context: begins to read what the case needs from a bucket, in a process that
        computes another one; None: nothing is.
    """

    name: str
    function: StageFunction
    digests: Mapping[str, str]
    needs: tuple[str, ...] = ()
    batch_size: int = 0
    group: Callable[[TaskResult], int] = lambda result: 0
    resource: str = ""
    begin: Callable[[Case, str, Any], None] | None = None


def wants_gpu(job: Job) -> bool:
    """Whether some part of the job runs on a GPU; then each stage asks for the sort of worker that it needs."""
    return any(stage.wants_gpu(job) for stage in stages_of(job)) or (job.grade.enabled and job.grade.device == "gpu")


def memory_of(job: Job) -> int:
    """Bytes that one task of the job may need, the most of all its stages."""
    return max(stage.memory for stage in stages_of(job))


def planned_stages(cases: Sequence[Case], loaded: LoadedStages) -> list[PlannedStage]:
    """The stages of the job, each after those that it needs, with the digests of everything that results depend on."""
    context, digests = loaded.context, loaded.digests(cases)
    gpus = wants_gpu(context.job)
    planned = []
    for name, work in loaded.works.items():
        # where there are GPUs, a case may pass from one sort of workers to the other
        ahead = not gpus and any(work.reads_ahead(case, context) for case in cases)
        planned.append(
            PlannedStage(
                name,
                work.run,
                digests[name],
                needs=tuple(need for need in work.stage.needs if need in loaded.works),
                batch_size=work.cases_per_task(context) or context.job.run.cases_per_task,
                group=partial(work.group, context),
                resource=("GPU" if work.stage.wants_gpu(context.job) else "CPU") if gpus else "",
                begin=work.begin if ahead else None,
            )
        )
    return planned


class CohortPlan:
    """The plan of a cohort: a small graph of stages, which each case passes by itself.

    Stages late in the graph are taken before early ones, so that the network is fed while images are still read. Where
    a stage has a resource of its own, what it waits for comes first. A case whose stored data prove damaged goes once
    more through the stages that made them.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        stages: Sequence[PlannedStage],
        context: object,
        known: Mapping[str, Mapping[str, TaskResult]],
    ) -> None:
        """``stages``: each after those that it needs. ``known`` holds, per stage and ``case_id``, final results."""
        self._stages = {stage.name: stage for stage in stages}
        self._cases = {
            case.case_id: replace(case, stored={stage.name: stage.digests[case.case_id] for stage in stages})
            for case in cases
        }
        self._context = context
        self._depth: dict[str, int] = {}
        for stage in stages:
            self._depth[stage.name] = max((self._depth[name] + 1 for name in stage.needs), default=0)
        self._main = stages[0].resource
        self._ready: dict[tuple[str, int], deque[str]] = defaultdict(deque)
        self._waiting: dict[str, set[str]] = {stage.name: set() for stage in stages}
        #: by stage the cases that are to come out of it in this run: waiting for others, ready, or on a worker
        self._open: dict[str, set[str]] = {stage.name: set() for stage in stages}
        self._passed: dict[str, set[str]] = {stage.name: set() for stage in stages}
        self._groups: dict[tuple[str, str], int] = {}
        self._sizes = {stage.name: TaskSize() for stage in stages}
        self._repaired: set[tuple[str, str]] = set()
        for case_id in self._cases:
            self._enter(case_id, known)

    def _enter(self, case_id: str, known: Mapping[str, Mapping[str, TaskResult]]) -> None:
        """Find out which stages the case has to pass."""
        for name, stage in self._stages.items():
            reachable = all(case_id in self._passed[need] or case_id in self._open[need] for need in stage.needs)
            result = known[name].get(case_id)
            if result is not None:
                if result.problem is None and reachable:
                    self._passed[name].add(case_id)
                    self._note_groups(result)
            elif reachable:
                self._open[name].add(case_id)
                self._waiting[name].add(case_id)
        for name in self._stages:
            self._begin(name, case_id)

    def take(self, full: Collection[str] = ()) -> Task | None:
        """See :class:`prognosis_dask.execution.runner.Plan`."""
        elsewhere = {stage.resource for stage in self._stages.values()} - {self._main, *full}
        if task := self._take(lambda stage: stage.resource in elsewhere):
            return task
        if self._main in full:
            return None
        feeding = self._before(stage for stage in self._stages.values() if stage.resource in elsewhere)
        if task := self._take(lambda stage: stage.resource == self._main and stage.name in feeding):
            return task
        return self._take(lambda stage: stage.resource == self._main)

    def _before(self, stages: Iterable[PlannedStage]) -> set[str]:
        """The stages that these need, and those that they need in turn."""
        found: set[str] = set()
        for stage in stages:
            found |= {*stage.needs, *self._before(self._stages[name] for name in stage.needs)}
        return found

    def _take(self, suits: Callable[[PlannedStage], bool]) -> Task | None:
        """A task of a stage that suits, the latest in the graph first."""
        for key in sorted(self._ready, key=lambda key: -self._depth[key[0]]):
            stage, queue = self._stages[key[0]], self._ready[key]
            complete = not any(self._open[need] for need in stage.needs)
            if suits(stage) and (complete or len(queue) >= self._size(stage)):
                task = self._task(stage, queue)
                if not queue:
                    del self._ready[key]
                return task
        return None

    def accept(self, results: Sequence[TaskResult]) -> dict[str, tuple[str, ...]]:
        """See :class:`prognosis_dask.execution.runner.Plan`."""
        self._sizes[results[0].stage].learn(results)
        again = {}
        for result in results:
            self._open[result.stage].discard(result.case_id)
            if result.problem is None:
                self._passed[result.stage].add(result.case_id)
                self._note_groups(result)
                for name in self._following(result.stage):
                    self._begin(name, result.case_id)
            elif self._is_to_repair(result):
                self._repair(result)
                again[result.case_id] = self._stages[result.stage].needs
            else:
                self._give_up(result.stage, result.case_id)
        return again

    def unfinished(self) -> int:
        """See :class:`prognosis_dask.execution.runner.Plan`."""
        return sum(map(len, self._open.values()))

    def _following(self, name: str) -> list[str]:
        return [stage.name for stage in self._stages.values() if name in stage.needs]

    def _note_groups(self, result: TaskResult) -> None:
        for name in self._following(result.stage):
            if self._stages[name].needs[0] == result.stage:
                self._groups[name, result.case_id] = self._stages[name].group(result)

    def _begin(self, name: str, case_id: str) -> None:
        """Make the case ready for the stage, if it waits for nothing else."""
        if case_id in self._waiting[name] and all(case_id in self._passed[need] for need in self._stages[name].needs):
            self._waiting[name].remove(case_id)
            self._ready[name, self._groups.get((name, case_id), 0)].append(case_id)

    def _give_up(self, name: str, case_id: str) -> None:
        """The case comes through no stage that needs this one."""
        for follower in self._following(name):
            if case_id in self._waiting[follower]:
                self._waiting[follower].remove(case_id)
                self._open[follower].remove(case_id)
                self._give_up(follower, case_id)

    def _is_to_repair(self, result: TaskResult) -> bool:
        problem, needs = result.problem, self._stages[result.stage].needs
        damaged = problem is not None and problem.code is Code.STORE_DAMAGED
        return damaged and bool(needs) and (result.stage, result.case_id) not in self._repaired

    def _repair(self, result: TaskResult) -> None:
        """Send the case once more through the stages that this one needs, and then through this one."""
        case_id = result.case_id
        self._repaired.add((result.stage, case_id))
        for name in (*self._stages[result.stage].needs, result.stage):
            self._passed[name].discard(case_id)
            if case_id not in self._open[name]:
                self._open[name].add(case_id)
                self._waiting[name].add(case_id)
                self._begin(name, case_id)

    def _size(self, stage: PlannedStage) -> int:
        return stage.batch_size or self._sizes[stage.name].cases

    def _task(self, stage: PlannedStage, queue: deque[str]) -> Task:
        case_ids = [queue.popleft() for _ in range(min(self._size(stage), len(queue)))]
        return Task(
            stage=stage.name,
            cases=tuple(self._cases[case_id] for case_id in case_ids),
            digests=tuple(stage.digests[case_id] for case_id in case_ids),
            function=stage.function,
            context=self._context,
            resource=stage.resource,
            begin=stage.begin,
        )


# How many cases one task takes: enough that sending it about costs little, not so many that a worker ends up
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
    ...     size.learn([TaskResult("case", "stage", "digest", seconds={"total": seconds})] * size.cases)
    >>> size.cases
    4
    """

    def __init__(self) -> None:
        self.cases = 1
        self._seconds: float | None = None

    def learn(self, results: Sequence[TaskResult]) -> None:
        """Take note of a finished task. Cases that failed count for nothing, since they may fail at once."""
        seconds = [result.seconds.get("total", 0.0) for result in results if result.problem is None]
        if not seconds:
            return
        mean = sum(seconds) / len(seconds)
        self._seconds = mean if self._seconds is None else self._seconds + _NEWEST * (mean - self._seconds)
        fitting = int(TASK_SECONDS / max(self._seconds, TASK_SECONDS / MOST_CASES))
        self.cases = max(1, min(fitting, 2 * len(results)))
