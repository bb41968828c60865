"""How far a run is: counted by the driver from what the ledger has taken, told to whoever watches."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prognosis_dask.cohort.case import Case, short_hash
from prognosis_dask.errors import Code
from prognosis_dask.storage.outcome import Outcome

#: Failures that are told one by one; the others are counted.
LATEST = 20


@dataclass
class StageTally:
    """One stage: cases to run in this run, of these done and failed, and the workers' seconds by step."""

    total: int
    reused: int
    done: int = 0
    failed: int = 0
    seconds: Counter[str] = field(default_factory=Counter)

    def counts(self) -> dict[str, Any]:
        """As plain numbers."""
        return {**vars(self), "seconds": dict(self.seconds)}


class Tally:
    """Per stage and per patient what is done; the driver's alone, and of a size that does not grow with time.

    A patient is finished when no stage of any of its cases is left to run.
    """

    def __init__(
        self, cases: Sequence[Case], stages: Sequence[str], known: Mapping[str, Mapping[str, Outcome]], gates: int = 1
    ) -> None:
        """``stages`` in order; ``known`` holds the final outcomes of earlier runs.

        A case that fails in one of the first ``gates`` stages goes no further. The last of them is run once more where
        a later one finds its data damaged.
        """
        self._gates = tuple(stages[:gates])
        self._after = {gate: tuple(stages[place + 1 :]) for place, gate in enumerate(self._gates)}
        self._patient = {case.case_id: case.patient_id for case in cases}
        self._known = {stage: frozenset(known[stage]) for stage in stages}
        self._repaired: set[str] = set()
        self._left = Counter({case.patient_id: 0 for case in cases})
        self.stages = {stage: StageTally(0, len(known[stage])) for stage in stages}
        for case in cases:
            for stage in self._reached(case.case_id, stages, known):
                if case.case_id not in self._known[stage]:
                    self.stages[stage].total += 1
                    self._left[case.patient_id] += 1
        self.patients = len(self._left)
        self.patients_reused = self.patients_done = sum(not left for left in self._left.values())
        self.failures: deque[tuple[float, str, str, str]] = deque(maxlen=LATEST)

    def _reached(
        self, case_id: str, stages: Sequence[str], known: Mapping[str, Mapping[str, Outcome]]
    ) -> Sequence[str]:
        """The stages up to the first gate that is known to have stopped the case."""
        for place, gate in enumerate(self._gates):
            earlier = known[gate].get(case_id)
            if earlier and earlier.problem:
                return stages[: place + 1]
        return stages

    def count(self, outcomes: Sequence[Outcome]) -> None:
        """Count outcomes that the ledger has taken."""
        for outcome in outcomes:
            self._count(outcome)

    def _count(self, outcome: Outcome) -> None:
        tally = self.stages[outcome.stage]
        tally.seconds.update(outcome.seconds)
        problem = outcome.problem
        if problem:
            self.failures.append((time.time(), outcome.stage, short_hash(outcome.case_id), problem.code.value))
            if problem.code is Code.STORE_DAMAGED and outcome.case_id not in self._repaired:
                # the stage that made them is run once more, and then this one
                self._repaired.add(outcome.case_id)
                self.stages[self._gates[-1]].total += 1
                self._left[self._patient[outcome.case_id]] += 1
                return
            tally.failed += 1
            self._give_up(outcome.case_id, self._after.get(outcome.stage, ()))
        else:
            tally.done += 1
        self._finish(outcome.case_id)

    def _give_up(self, case_id: str, stages: Sequence[str]) -> None:
        for stage in stages:
            if case_id not in self._known[stage]:
                self.stages[stage].total -= 1
                self._finish(case_id)

    def _finish(self, case_id: str) -> None:
        patient = self._patient[case_id]
        self._left[patient] -= 1
        self.patients_done += self._left[patient] == 0

    def snapshot(self) -> dict[str, Any]:
        """Everything as plain numbers and texts, without a patient's name: what travels to the scheduler."""
        return {
            "patients": {"total": self.patients, "done": self.patients_done, "reused": self.patients_reused},
            "stages": {name: stage.counts() for name, stage in self.stages.items()},
            "failures": [list(failure) for failure in self.failures],
        }


def duration(seconds: float) -> str:
    """A time span as one would say it.

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
