"""Brier score of predicted survival, at a time and integrated, with inverse probability of censoring weights (IPCW).

The weights let those who were followed stand for those who were lost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prognosis_dask.arrays import BoolArray, FloatArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Survival
from prognosis_dask.modelling.metrics.kaplan_meier import uncensored


def brier_score(endpoint: Survival, survival: FloatArray, horizon: float, censoring: Censoring) -> float:
    """Mean squared error of the predicted survival at a horizon (Graf et al., Stat Med 18, 1999); 0 is best.

    A case with a competing event never has the event; ``survival`` is then freedom from the event (Schoop et al., Biom
    J 53, 2011).

    Parameters
    ----------
    survival
        Predicted probability to live beyond the horizon, shape (cases,).
    horizon
        In days.
    censoring
        That of the cohort.

    Raises
    ------
    StatisticsError
        When nobody is followed beyond the horizon.
    """
    censoring.expect_within(horizon, "Brier score")
    return float(squared_errors(endpoint, survival, horizon, censoring).mean())


def squared_errors(endpoint: Survival, survival: FloatArray, horizon: float, censoring: Censoring) -> FloatArray:
    """What each case adds to the Brier score, shape (cases,); 0 for those censored up to the horizon."""
    time = endpoint.observed_days
    beyond, seen = time > horizon, censoring.seen(time)
    at_horizon = np.full(len(time), censoring.uncensored(np.array([horizon]))[0])
    dead = inverse(seen, endpoint.event & ~beyond)
    free = inverse(at_horizon, beyond)
    if endpoint.competing is not None:
        free += inverse(seen, endpoint.competing & ~beyond)
    return np.asarray(survival**2 * dead + (1 - survival) ** 2 * free)


def integrated(times_days: FloatArray, scores: FloatArray) -> FloatArray:
    """Mean over time by the trapezium rule: the integrated Brier score from scores at ascending times.

    Parameters
    ----------
    times_days
        Shape (times,), two or more.
    scores
        Shape (times,) or (times, anything): the cases' errors, or the draws' scores.

    Raises
    ------
    StatisticsError
        When there are fewer than two times.

    >>> float(integrated(np.array([0.0, 1.0, 3.0]), np.array([0.0, 0.2, 0.2])))
    0.16666666666666666
    """
    if len(times_days) < 2:
        raise StatisticsError(f"integrated Brier score: {len(times_days)} times; two or more are needed")
    width = np.diff(times_days)
    return np.asarray(np.tensordot(width, (scores[1:] + scores[:-1]) / 2, axes=1) / width.sum())


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

    def seen(self, time_days: FloatArray) -> FloatArray:
        """Probability that an event at any times is seen: to be uncensored until just before; NaN as above.

        Of a tie the event comes first. So the weighted events up to a time sum up to Kaplan-Meier's risk.
        """
        steps = self.probability[np.maximum(np.searchsorted(self.times_days, time_days) - 1, 0)]
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


def fit_censoring(endpoint: Survival) -> Censoring:
    """Estimate how a cohort is censored, by Kaplan-Meier with the roles changed.

    Censoring is taken to be independent of the outcome and of the features. It says nothing about any model, so it may
    be estimated on all cases of the cohort that is measured on, held-out ones too. A competing event is no censoring.

    Raises
    ------
    StatisticsError
        When there is no case.
    """
    times, probability = uncensored(endpoint.observed_days, endpoint.any_event)
    return Censoring(times, probability, float(times[-1]))


def inverse(probability: FloatArray, where: BoolArray) -> FloatArray:
    """One over the probability for the cases that count, 0 for the others and where it is 0 or unknown."""
    held = where & (probability > 0)
    return np.divide(1.0, probability, out=np.zeros(len(probability)), where=held)
