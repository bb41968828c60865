"""Brier score of predicted survival, at a time and integrated, with inverse probability of censoring weights."""

from __future__ import annotations

import numpy as np

from prognosis_dask.errors import StatisticsError
from prognosis_dask.statistics.endpoint import BoolArray, FloatArray
from prognosis_dask.statistics.measures.censoring import Censoring, inverse


def brier_score(
    time: FloatArray, event: BoolArray, survival: FloatArray, horizon: float, censoring: Censoring
) -> float:
    """Mean squared error of the predicted survival at a horizon (Graf et al., Stat Med 18, 1999); 0 is best.

    Parameters
    ----------
    time, event
        Shape (cases,).
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
    return float(squared_errors(time, event, survival, horizon, censoring).mean())


def squared_errors(
    time: FloatArray, event: BoolArray, survival: FloatArray, horizon: float, censoring: Censoring
) -> FloatArray:
    """What each case adds to the Brier score, shape (cases,); 0 for those censored up to the horizon."""
    beyond = time > horizon
    at_horizon = np.full(len(time), censoring.uncensored(np.array([horizon]))[0])
    dead = inverse(censoring.uncensored(time), event & ~beyond)
    return np.asarray(survival**2 * dead + (1 - survival) ** 2 * inverse(at_horizon, beyond))


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
