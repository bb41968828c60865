"""Check of proportional hazards by scaled Schoenfeld residuals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prognosis_dask.errors import StatisticsError
from prognosis_dask.statistics.endpoint import BoolArray, FloatArray


def ph_test(
    X: FloatArray,
    time: FloatArray,
    event: BoolArray,
    coefficient: FloatArray,
    variance: FloatArray,
    features: Sequence[str],
) -> list[dict[str, str | float]]:
    """Test each coefficient of a Cox model for a drift over time (Grambsch & Therneau, Biometrika 81, 1994).

    Time enters as the rank among the events (Park & Hendry, Am J Polit Sci 59, 2015), ties as their mean rank. As in
    lifelines, and in R's survival before version 3, the information is taken to be the same at every event.

    Parameters
    ----------
    X
        The model's columns, shape (cases, columns), on the scale of the coefficients.
    time, event
        Shape (cases,).
    coefficient
        Log hazard ratio per unit, shape (columns,).
    variance
        Their covariance matrix, shape (columns, columns).
    features
        The columns' names.

    Returns
    -------
    list of dict
        One row per column: ``feature, statistic, p`` (chi-squared, one degree of freedom). NaN where the column has no
        variance.

    Raises
    ------
    StatisticsError
        When there are fewer than two distinct times of events.
    """
    from scipy.stats import rankdata

    if len(np.unique(time[event])) < 2:
        raise StatisticsError(f"proportional hazards: {int(event.sum())} events at fewer than two distinct times")
    ranks = rankdata(time[event])
    ranks = ranks - ranks.mean()
    scaled = event.sum() * schoenfeld(X, time, event, coefficient) @ variance
    spread = event.sum() * np.diag(variance) * (ranks**2).sum()
    statistic = np.divide((ranks @ scaled) ** 2, spread, out=np.full(len(spread), np.nan), where=spread > 0)
    return ph_rows(features, statistic)


def ph_rows(features: Sequence[str], statistic: FloatArray) -> list[dict[str, str | float]]:
    """``feature, statistic, p`` of chi-squared statistics of one degree of freedom, one per feature."""
    from scipy.special import chdtrc

    return [
        {"feature": name, "statistic": float(value), "p": float(chdtrc(1, value))}
        for name, value in zip(features, statistic, strict=True)
    ]


def schoenfeld(X: FloatArray, time: FloatArray, event: BoolArray, coefficient: FloatArray) -> FloatArray:
    """Schoenfeld's residuals of the events in the order of the rows, shape (events, columns).

    What each event's columns exceed the mean of those at risk by; ties as Efron has them.
    """
    X = X - X.mean(axis=0)
    eta = X @ coefficient
    hazard = np.exp(eta - eta.max())
    order = np.argsort(time, kind="stable")
    first = np.searchsorted(time[order], time[event])
    weighted = np.column_stack([hazard, hazard[:, None] * X])
    at_risk = np.cumsum(weighted[order][::-1], axis=0)[::-1][first]
    residuals = np.empty((len(first), X.shape[1]))
    dead = weighted[event]
    for start in np.unique(first):
        tied = np.flatnonzero(first == start)
        share = np.arange(len(tied))[:, None] / len(tied)
        sums = at_risk[tied[0]] - share * dead[tied].sum(axis=0)
        residuals[tied] = X[event][tied] - (sums[:, 1:] / sums[:, :1]).mean(axis=0)
    return residuals
