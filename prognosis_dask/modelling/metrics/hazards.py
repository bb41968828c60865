"""Check of proportional hazards by scaled Schoenfeld residuals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prognosis_dask.arrays import FloatArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Survival
from prognosis_dask.modelling.metrics.competing import partial_risk_sets
from prognosis_dask.modelling.table_spec import Row


def ph_test(
    X: FloatArray, endpoint: Survival, coefficient: FloatArray, variance: FloatArray, features: Sequence[str]
) -> list[Row]:
    """Test each coefficient of a Cox model for a drift over time (Grambsch & Therneau, Biometrika 81, 1994).

    The exact score test of adding the column times the rank of time to the model, as R's survival has it since
    version 3: the risk set's covariance at every event is taken as it is, not as their mean. Time enters as its rank
    among all cases, ties as their mean rank (``cox.zph(transform = "rank")``); ties of events as Efron has them. Where
    events compete, the model is Fine and Gray's.

    Parameters
    ----------
    X
        The model's columns, shape (cases, columns), on the scale of the coefficients.
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
    event = endpoint.event
    if len(np.unique(endpoint.observed_days[event])) < 2:
        raise StatisticsError(f"proportional hazards: {int(event.sum())} events at fewer than two distinct times")
    ranks = event_ranks(endpoint)
    residuals, covariances = schoenfeld(X, endpoint, coefficient)
    score = ranks @ residuals
    drift = np.tensordot(ranks, covariances, axes=1)
    spread = np.tensordot(ranks**2, np.einsum("ekk->ek", covariances), axes=1)
    spread = spread - np.einsum("jk,jl,lk->k", drift, variance, drift)
    statistic = np.divide(score**2, spread, out=np.full(len(spread), np.nan), where=spread > 0)
    return ph_rows(features, statistic)


def event_ranks(endpoint: Survival) -> FloatArray:
    """The rank of each event's time among all cases, less their mean; shape (events,), in the order of the rows."""
    from scipy.stats import rankdata

    ranks = rankdata(endpoint.observed_days)[endpoint.event]
    return np.asarray(ranks - ranks.mean())


def ph_rows(features: Sequence[str], statistic: FloatArray) -> list[Row]:
    """The rows of ``ph``, of chi-squared statistics of one degree of freedom, one per feature."""
    from scipy.special import chdtrc

    return [
        {"feature": name, "statistic": float(value), "p": float(chdtrc(1, value))}
        for name, value in zip(features, statistic, strict=True)
    ]


def schoenfeld(X: FloatArray, endpoint: Survival, coefficient: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Schoenfeld's residuals of the events in the order of the rows, and the covariance of the columns at risk.

    What each event's columns exceed the mean of those at risk by; ties as Efron has them.

    Returns
    -------
    residuals, covariances
        Shapes (events, columns) and (events, columns, columns); of ties each has the mean covariance.
    """
    X = X - X.mean(axis=0)
    eta = X @ coefficient
    hazard = np.exp(eta - eta.max())
    columns = X.shape[1]
    products = (X[:, :, None] * X[:, None, :]).reshape(len(X), -1)
    weighted = hazard[:, None] * np.column_stack([np.ones(len(X)), X, products])
    time, event = endpoint.observed_days, endpoint.event
    times, place = np.unique(time[event], return_inverse=True)
    sets = partial_risk_sets(endpoint, times)
    if sets is not None:
        at_risk = sets.at_events(weighted)
    else:
        order = np.argsort(time, kind="stable")
        at_risk = np.cumsum(weighted[order][::-1], axis=0)[::-1][np.searchsorted(time[order], times)]
    residuals, covariances = np.empty((len(place), columns)), np.empty((len(place), columns, columns))
    dead = weighted[event]
    for at, sums_at in enumerate(at_risk):
        tied = np.flatnonzero(place == at)
        share = np.arange(len(tied))[:, None] / len(tied)
        sums = sums_at - share * dead[tied].sum(axis=0)
        means = sums[:, 1:] / sums[:, :1]
        middle = means[:, :columns]
        residuals[tied] = X[event][tied] - middle.mean(axis=0)
        squares = means[:, columns:].reshape(-1, columns, columns)
        covariances[tied] = (squares - middle[:, :, None] * middle[:, None, :]).mean(axis=0)
    return residuals, covariances
