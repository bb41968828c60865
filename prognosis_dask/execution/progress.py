"""How far a run is: the one count of its cases and patients, with rates and time left, which every view shows.

The driver counts what the ledger has taken (:class:`RunProgress`); other processes read the ledger
(:func:`read_progress`). Terminal, journal, dashboard, gauges and ``prognosis status`` only show what is counted here.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from prognosis_dask.cohort.case import Case, short_hash
from prognosis_dask.storage.ledger import Ledger, StageCounts, TaskResult

#: The phases of a run as the driver names them, and how they are shown.
PHASES = {
    "starting": "starting",
    "cohort": "indexing the cohort",
    "stages": "computing",
    "features": "collecting the features",
    "model": "fitting and validating the model",
}
#: Failures that are listed one by one; the others are only counted.
LATEST = 20
#: The patients' name among the counts of a history; no stage has it.
PATIENTS = "(patients)"

#: Points of a history: at least this many seconds apart, at most this many; the latest are kept when older ones go.
RESOLUTION = 1.0
MAX_POINTS = 600
FRESH_POINTS = 120
#: Seconds over which a rate is taken: the shortest of these in which enough has finished.
WINDOWS = (60.0, 600.0, float("inf"))
ENOUGH = 10
#: No rate is given over fewer seconds than this.
SHORTEST = 5.0
#: Bars of the plot over time, and the fewest seconds of one.
BINS = 60
SHORTEST_BIN = 10.0


class History:
    """Cumulative counts over time, by name; thinned as it grows, so that its size does not depend on the run's."""

    def __init__(self) -> None:
        self._points: list[tuple[float, dict[str, int]]] = []

    def add(self, at: float, counts: dict[str, int]) -> None:
        """Add a point; it replaces the last one where that is too close to the one before it."""
        points = self._points
        if len(points) > 1 and at - points[-2][0] < RESOLUTION:
            points.pop()
        points.append((at, counts))
        if len(points) > MAX_POINTS:
            self._points = points[:-FRESH_POINTS:2] + points[-FRESH_POINTS:]

    @property
    def last(self) -> float | None:
        """When the last point was added."""
        return self._points[-1][0] if self._points else None

    def rate(self, name: str, now: float) -> float | None:
        """Finished per second of late; None while too little has finished to tell.

        Counted from the first point at which something had finished, since a stage may begin late.
        """
        points = [(at, counts[name]) for at, counts in self._points if counts.get(name)]
        if not points:
            return None
        times = [at for at, _ in points]
        for window in WINDOWS:
            at, count = points[min(bisect_left(times, now - window), len(points) - 1)]
            finished = points[-1][1] - count
            if finished >= ENOUGH or window == WINDOWS[-1]:
                break
        return finished / (now - at) if finished and now - at >= SHORTEST else None

    def per_minute(self, name: str, now: float) -> tuple[list[float], list[float]]:
        """Finished per minute until now: the edges of the bars, in seconds, and one value less."""
        points = [(at, counts.get(name, 0)) for at, counts in self._points]
        if not points:
            return [], []
        begin, end = points[0][0], now
        points.append((now, points[-1][1]))
        width = max(SHORTEST_BIN, (end - begin) / BINS)
        edges = [begin]
        while edges[-1] + width <= end + 1e-9:
            edges.append(edges[-1] + width)
        counts = [_at(points, edge) for edge in edges]
        return edges, [60.0 * (after - before) / width for before, after in pairwise(counts)]


def _at(points: list[tuple[float, int]], at: float) -> float:
    """The count at a time, on the straight line between two points."""
    after = min(bisect_left(points, (at, 0)), len(points) - 1)
    (t1, c1), (t0, c0) = points[after], points[max(0, after - 1)]
    return c1 if t1 <= t0 else c0 + (c1 - c0) * min(1.0, max(0.0, (at - t0) / (t1 - t0)))


@dataclass
class StageProgress:
    """One stage: cases that wait or run, that are done, that failed, that an earlier run had finished.

    ``seconds`` are the workers', by step.
    """

    waiting: int = 0
    done: int = 0
    failed: int = 0
    reused: int = 0
    seconds: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        """Cases that the stage has to run in this run; falls where an earlier stage fails."""
        return self.waiting + self.done + self.failed

    def counts(self) -> dict[str, float]:
        """What the run's record keeps."""
        seconds = float(self.seconds["total"])
        return {"done": self.done, "failed": self.failed, "reused": self.reused, "seconds": seconds}


class Progress:
    """Per stage, in order, how many cases wait, are done or failed; how fast it goes and how long it will take."""

    def __init__(
        self, stages: Mapping[str, StageProgress], needs: Mapping[str, Collection[str]], history: History
    ) -> None:
        """``needs``: per stage, all the stages that a case has to come through before it."""
        self.stages = dict(stages)
        self.needs = needs
        self.history = history

    def rate(self, name: str, now: float) -> float | None:
        """Cases of a stage (or :data:`PATIENTS`) per second; ``now`` by the history's clock."""
        return self.history.rate(name, now)

    def seconds_left(self, stage: str, now: float) -> float | None:
        """Until the stage is through at the present rates, which it is not before those that it needs."""
        left = [self._alone(name, now) for name in (*self.needs[stage], stage)]
        known = [seconds for seconds in left if seconds is not None]
        return max(known) if len(known) == len(left) else None

    def _alone(self, stage: str, now: float) -> float | None:
        waiting, rate = self.stages[stage].waiting, self.rate(stage, now)
        return waiting / rate if rate else None if waiting else 0.0


class RunProgress(Progress):
    """The progress of the run in this process, counted case by case and patient by patient.

    A patient is finished when no stage of any of its cases is left to run.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        needs: Mapping[str, Collection[str]],
        known: Mapping[str, Mapping[str, TaskResult]],
    ) -> None:
        """``known`` holds, per stage, the final results of earlier runs by ``case_id``."""
        self._patient = {case.case_id: case.patient_id for case in cases}
        self._open: dict[str, set[str]] = {stage: set() for stage in needs}
        self._left = Counter({case.patient_id: 0 for case in cases})
        super().__init__({stage: StageProgress(reused=len(known[stage])) for stage in needs}, needs, History())
        failed = {stage: {key for key, result in known[stage].items() if result.problem} for stage in needs}
        for stage, before in needs.items():
            for case in cases:
                if case.case_id not in known[stage] and not any(case.case_id in failed[name] for name in before):
                    self._expect(stage, case.case_id)
        self.patients = len(self._left)
        self.patients_reused = self.patients_done = sum(not left for left in self._left.values())
        self.failures: deque[tuple[float, str, str, str]] = deque(maxlen=LATEST)

    def begin(self, at: float) -> None:
        """Let the history begin, ``at`` seconds after the run did."""
        self.count([], at)

    def count(
        self, results: Sequence[TaskResult], at: float, again: Mapping[str, tuple[str, ...]] | None = None
    ) -> None:
        """Count results that the ledger has taken, ``at`` seconds after the run began.

        ``again``: for each case that the plan sends back because its stored data are damaged, the stages that it
        passes once more. Such a result is listed but not counted: the case is still to come.
        """
        for result in results:
            stage, problem = self.stages[result.stage], result.problem
            stage.seconds.update(result.seconds)
            if problem:
                self.failures.append((time.time(), result.stage, short_hash(result.case_id), problem.code.value))
            if again and result.case_id in again:
                for name in again[result.case_id]:
                    self._expect(name, result.case_id)
                continue
            if problem:
                stage.failed += 1
                self._give_up(result.stage, result.case_id)
            else:
                stage.done += 1
            self._close(result.stage, result.case_id)
        finished = {name: stage.done + stage.failed for name, stage in self.stages.items()}
        self.history.add(at, {**finished, PATIENTS: self.patients_done - self.patients_reused})

    def _give_up(self, failed: str, case_id: str) -> None:
        """The stages that need the one that failed will not run for the case."""
        for stage, before in self.needs.items():
            if failed in before:
                self._close(stage, case_id)

    def _expect(self, stage: str, case_id: str) -> None:
        if case_id not in self._open[stage]:
            self._open[stage].add(case_id)
            self.stages[stage].waiting += 1
            self._left[self._patient[case_id]] += 1

    def _close(self, stage: str, case_id: str) -> None:
        if case_id in self._open[stage]:
            self._open[stage].remove(case_id)
            self.stages[stage].waiting -= 1
            patient = self._patient[case_id]
            self._left[patient] -= 1
            self.patients_done += self._left[patient] == 0

    def counts(self) -> dict[str, dict[str, float]]:
        """Per stage the cases done, failed and reused, and the workers' seconds: what the run's record keeps."""
        return {name: stage.counts() for name, stage in self.stages.items()}

    def snapshot(self, now: float) -> dict[str, Any]:
        """Everything as plain numbers and texts, without a patient's name: what travels to the scheduler.

        ``now``: seconds since the run began.
        """
        edges, values = self.history.per_minute(PATIENTS, now)
        stages = {
            name: {
                **vars(stage),
                "seconds": dict(stage.seconds),
                "total": stage.total,
                "rate": self.rate(name, now),
                "left": self.seconds_left(name, now),
            }
            for name, stage in self.stages.items()
        }
        return {
            "patients": {
                "total": self.patients,
                "done": self.patients_done,
                "reused": self.patients_reused,
                "rate": self.rate(PATIENTS, now),
                "per_minute": {"edges": edges, "values": values},
            },
            "stages": stages,
            "failures": [list(failure) for failure in self.failures],
        }


def read_progress(ledger: Ledger, cases: int, needs: Mapping[str, Collection[str]], since: float) -> Progress:
    """The progress of a run of ``cases`` cases as its ledger has it, from any process.

    ``since``: when the run began, in seconds since 1970, by which the history goes too; the rates are those of this
    run. What earlier runs finished counts as done.
    """
    counts = ledger.counts()
    stages = {}
    for stage, before in needs.items():
        held = counts.get(stage, StageCounts(0, 0))
        waiting = max(0, cases - ledger.cases_failed_in(before) - held.done - held.failed)
        stages[stage] = StageProgress(waiting, held.done, held.failed)
    history, sums = History(), Counter[str]()
    for at, stage, finished in ledger.finished_over_time(since):
        sums[stage] += finished
        history.add(at, dict(sums))
    return Progress(stages, needs, history)


def duration(seconds: float) -> str:
    """A time span in its two largest units.

    >>> [duration(s) for s in (4.2, 75, 7300, 200000)]
    ['4 s', '1 min 15 s', '2 h 1 min', '2 d 7 h']
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_rest = divmod(minutes, 60)
    days, hours_rest = divmod(hours, 24)
    if days:
        return f"{days} d {hours_rest} h"
    if hours:
        return f"{hours} h {minutes_rest} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
