"""Inverse probability of censoring weights (IPCW): those who were seen stand for those who were lost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prognosis_dask.errors import StatisticsError
from prognosis_dask.statistics.endpoint import BoolArray, FloatArray
from prognosis_dask.statistics.kaplan_meier import uncensored


@dataclass(frozen=True)
class Censoring:
    """The censoring of a cohort.

    Attributes
    ----------
    times_days, probability
        Steps of the probability to be uncensored, from each time on.
    last_days
        The longest follow-up.
    """

    times_days: FloatArray
    probability: FloatArray
    last_days: float

    def uncensored(self, time_days: FloatArray) -> FloatArray:
        """Probability to be uncensored at any times; NaN beyond the longest follow-up."""
        steps = self.probability[np.searchsorted(self.times_days, time_days, side="right") - 1]
        return np.where(time_days > self.last_days, np.nan, steps)

    def expect_within(self, horizon_days: float, what: str) -> None:
        """Refuse a horizon that nobody was followed to.

        Raises
        ------
        StatisticsError
            When nobody is followed beyond the horizon, or the chance to be is estimated as 0.
        """
        if not 0 < horizon_days < self.last_days or not self.uncensored(np.array([horizon_days]))[0] > 0:
            raise StatisticsError(
                f"{what} at {horizon_days:g} days: follow-up ends at {self.last_days:g} days; choose an earlier horizon"
            )


def fit_censoring(time: FloatArray, event: BoolArray) -> Censoring:
    """Estimate how a cohort is censored, by Kaplan-Meier with the roles changed.

    Censoring is taken to be independent of the outcome and of the features. It says nothing about any model, so it may
    be estimated on all cases of the cohort that is measured on, held-out ones too.

    Raises
    ------
    StatisticsError
        When there is no case.
    """
    times, probability = uncensored(time, event)
    return Censoring(times, probability, float(times[-1]))


def inverse(probability: FloatArray, where: BoolArray) -> FloatArray:
    """One over the probability for the cases that count, 0 for the others and where it is 0 or unknown."""
    held = where & (probability > 0)
    return np.divide(1.0, probability, out=np.zeros(len(probability)), where=held)
