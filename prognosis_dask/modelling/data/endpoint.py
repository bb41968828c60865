"""What is to be predicted: survival, or a class; and which cases are of one patient.

Where patients have several cases, these are no independent observations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from prognosis_dask.arrays import BoolArray, FloatArray, IntArray
from prognosis_dask.errors import StatisticsError


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

    Raises
    ------
    StatisticsError
        When a time is not a positive number.
    """

    time_days: FloatArray
    event: BoolArray
    competing_days: FloatArray | None = None

    def __post_init__(self) -> None:
        bad = np.flatnonzero(~(np.isfinite(self.time_days) & (self.time_days > 0)))
        if len(bad):
            first = self.time_days[bad[0]]
            raise StatisticsError(
                f"{len(bad)} of {len(self.time_days)} times are not positive numbers (row {bad[0]}: {first:g}): "
                "mend them or leave those cases out"
            )

    def __len__(self) -> int:
        return len(self.time_days)

    def rows(self, chosen: IntArray | BoolArray) -> Survival:
        """The endpoint of the chosen rows, given by position or by mask."""
        competing = None if self.competing_days is None else self.competing_days[chosen]
        return Survival(self.time_days[chosen], self.event[chosen], competing)

    def strata(self) -> IntArray:
        """What folds are balanced for, shape (cases,): event or not, before or after the events' median time.

        >>> Survival(np.array([5.0, 9.0, 4.0, 12.0]), np.array([True, True, False, False])).strata().tolist()
        [0, 1, 2, 3]
        """
        middle = np.median(self.time_days[self.event]) if self.event.any() else np.median(self.time_days)
        return np.asarray(2 * ~self.event + (self.time_days > middle), dtype=np.int64)


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
