"""What is to be predicted: survival, or a class; and which cases are of one patient.

Where patients have several cases, these are no independent observations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from prognosis_dask.arrays import BoolArray, FloatArray, IntArray
from prognosis_dask.errors import StatisticsError

if TYPE_CHECKING:
    from scipy.sparse import csr_array


@dataclass(frozen=True, eq=False)
class Survival:
    """Follow-up and how it ended, one element per case.

    Attributes
    ----------
    time_days
        Follow-up, shape (cases,); positive.
    event
        True where it ended with the event, False where it was censored.
    competing_days
        Where events compete: the time of a case's competing event, NaN for the others; ``time_days`` is then when it
        would have been censored (:func:`prognosis_dask.modelling.metrics.competing.subdistribution`). Else None.
    entry_days
        Where follow-up began late (left truncation): from when on each case was at risk, at least 0 and before its
        time. None where all are followed from day 0 on.

    Raises
    ------
    StatisticsError
        When a time is not a positive number, or an entry is not before it.
    """

    time_days: FloatArray
    event: BoolArray
    competing_days: FloatArray | None = None
    entry_days: FloatArray | None = None

    def __post_init__(self) -> None:
        bad = np.flatnonzero(~(np.isfinite(self.time_days) & (self.time_days > 0)))
        if len(bad):
            first = self.time_days[bad[0]]
            raise StatisticsError(
                f"{len(bad)} of {len(self.time_days)} times are not positive numbers (row {bad[0]}: {first:g}): "
                "correct them or leave those cases out"
            )
        if self.entry_days is None:
            return
        bad = np.flatnonzero(~((self.entry_days >= 0) & (self.entry_days < self.time_days)))
        if len(bad):
            raise StatisticsError(
                f"{len(bad)} of {len(self.time_days)} entries are not from 0 on and before the time (row {bad[0]}: "
                f"{self.entry_days[bad[0]]:g}, time {self.time_days[bad[0]]:g}): correct them or leave those cases out"
            )

    def __len__(self) -> int:
        return len(self.time_days)

    @property
    def competing(self) -> BoolArray | None:
        """Where events compete: whether a case had a competing event. Else None."""
        return None if self.competing_days is None else np.isfinite(self.competing_days)

    @property
    def observed_days(self) -> FloatArray:
        """Follow-up until whichever event came first, or censoring."""
        if self.competing_days is None:
            return self.time_days
        return np.where(np.isfinite(self.competing_days), self.competing_days, self.time_days)

    def by_time(self) -> IntArray:
        """The cases' order by when their follow-up ended, stable."""
        return np.argsort(self.observed_days, kind="stable")

    @property
    def any_event(self) -> BoolArray:
        """Whether follow-up ended with an event, the event or a competing one."""
        return self.event if self.competing is None else self.event | self.competing

    @property
    def outlived_days(self) -> FloatArray:
        """Until when a case is known to be without the event: always, after a competing one (Wolbers et al. 2009)."""
        if self.competing_days is None:
            return self.time_days
        return np.where(np.isfinite(self.competing_days), np.inf, self.time_days)

    def rows(self, chosen: IntArray | BoolArray) -> Survival:
        """The endpoint of the chosen rows, given by position or by mask."""
        competing = None if self.competing_days is None else self.competing_days[chosen]
        entry = None if self.entry_days is None else self.entry_days[chosen]
        return Survival(self.time_days[chosen], self.event[chosen], competing, entry)

    def strata(self) -> IntArray:
        """What folds are balanced for, shape (cases,): event or not, before or after the events' median time.

        >>> Survival(np.array([5.0, 9.0, 4.0, 12.0]), np.array([True, True, False, False])).strata().tolist()
        [0, 1, 2, 3]
        """
        middle = np.median(self.observed_days[self.event] if self.event.any() else self.observed_days)
        return np.asarray(2 * ~self.event + (self.observed_days > middle), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Classes:
    """A class per case.

    Attributes
    ----------
    label
        The class's number, shape (cases,).
    names
        The classes' names by number. Of two, the second is the positive one.

    Raises
    ------
    StatisticsError
        When there are fewer than two classes, or a label is none of them.
    """

    label: IntArray
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.names) < 2:
            raise StatisticsError(f"the endpoint's only class is {', '.join(self.names) or 'none'}: two are needed")
        if len(self.label) and not ((self.label >= 0) & (self.label < len(self.names))).all():
            raise StatisticsError(f"labels run from {self.label.min()} to {self.label.max()}, and name {self.names}")

    def __len__(self) -> int:
        return len(self.label)

    def rows(self, chosen: IntArray | BoolArray) -> Classes:
        """The endpoint of the chosen rows, given by position or by mask."""
        return Classes(self.label[chosen], self.names)

    def strata(self) -> IntArray:
        """What folds are balanced for: the class."""
        return self.label


Endpoint: TypeAlias = Survival | Classes


@dataclass(frozen=True, eq=False)
class RiskSets:
    """Sums over who is at risk at which event, where cases enter late.

    A case is at risk at the events after its entry and up to its own time. Differences of running sums would cancel
    where hazards differ by many orders of magnitude; here a sum adds up parts of a binary tree over the events, two
    per level for a case at most.

    Attributes
    ----------
    cases
        Which parts of the tree a case covers, shape (parts, cases).
    events
        Which parts an event lies in, shape (events, parts).
    """

    cases: csr_array
    events: csr_array

    def at_events(self, values: FloatArray) -> FloatArray:
        """Of the cases' values, shape (cases, ...): their sum over each event's risk set, shape (events, ...)."""
        return np.asarray(self.events @ (self.cases @ values))

    def of_cases(self, values: FloatArray) -> FloatArray:
        """Of the events' values, shape (events, ...): their sum over the events that each case was at risk at."""
        return np.asarray(self.cases.T @ (self.events.T @ values))


def risk_sets(entry: FloatArray, time: FloatArray, at: FloatArray) -> RiskSets:
    """Who of the cases is at risk at each of some ascending times: ``entry < at <= time``.

    >>> sets = risk_sets(np.array([0.0, 2.0, 3.0]), np.array([2.0, 5.0, 9.0]), np.array([2.0, 5.0]))
    >>> sets.at_events(np.array([1.0, 10.0, 100.0])).tolist(), sets.of_cases(np.array([1.0, 10.0])).tolist()
    ([1.0, 110.0], [1.0, 10.0, 10.0])
    """
    from scipy.sparse import csr_array

    levels = max(len(at) - 1, 0).bit_length()
    leaves = 2**levels
    lower = leaves + np.searchsorted(at, entry, side="right")
    upper = leaves + np.searchsorted(at, time, side="right")
    parts, cases, case = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)], np.arange(len(time))
    for _ in range(levels + 1):
        for which, part in (
            ((lower % 2 == 1) & (lower < upper), lower),
            ((upper % 2 == 1) & (lower < upper), upper - 1),
        ):
            parts.append(part[which])
            cases.append(case[which])
        lower, upper = (lower + 1) // 2, upper // 2
    part, of = np.concatenate(parts), np.concatenate(cases)
    event = np.repeat(np.arange(len(at)), levels + 1)
    above = ((leaves + np.arange(len(at)))[:, None] >> np.arange(levels + 1)).ravel()
    return RiskSets(
        csr_array((np.ones(len(part)), (part, of)), shape=(2 * leaves, len(time))),
        csr_array((np.ones(len(above)), (event, above)), shape=(len(at), 2 * leaves)),
    )


def several_cases(patient_ids: Sequence[str]) -> bool:
    """Whether a patient has more than one case.

    >>> several_cases(["a", "b", "a"]), several_cases(["a", "b"]), several_cases([])
    (True, False, False)
    """
    return len(set(patient_ids)) < len(patient_ids)


def patient_sums(values: FloatArray, patient_ids: Sequence[str]) -> FloatArray:
    """The cases' rows, added up for each patient.

    >>> patient_sums(np.array([[1.0], [2.0], [3.0]]), ["a", "b", "a"]).tolist()
    [[4.0], [2.0]]
    """
    patients, patient = np.unique(patient_ids, return_inverse=True)
    sums = np.zeros((len(patients), values.shape[1]))
    np.add.at(sums, patient, values)
    return sums
