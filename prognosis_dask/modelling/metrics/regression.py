"""Small regressions for many weightings of the cases at once: the models that calibration is measured with.

Few columns (a score, the terms of a spline), no penalty, Newton's method in all draws together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from prognosis_dask.arrays import BoolArray, FloatArray, IntArray
from prognosis_dask.modelling.data.endpoint import RiskSets, Survival
from prognosis_dask.modelling.metrics.brier import Censoring
from prognosis_dask.modelling.metrics.competing import partial_risk_sets
from prognosis_dask.modelling.metrics.intervals import in_parts

#: Newton's step, in standard deviations of the columns, after which a draw is settled: the next would be its square.
_SETTLED = 1e-7
_STEPS = 40
#: A coefficient beyond this (per standard deviation) runs away to infinity: the draw has none.
_RUNAWAY = 30.0
#: With less information, in events, a coefficient is on its way to infinity and stands still by rounding alone.
_LEAST_INFORMATION = 1e-9
#: The longest step: further off the quadratic approximation says nothing.
_LONGEST = 2.0

_Derivatives: TypeAlias = Callable[[FloatArray], tuple[FloatArray, FloatArray]]


def bootstrap_cox(
    X: FloatArray,
    endpoint: Survival,
    bootstrap_weights: FloatArray,
    censoring: Censoring | None = None,
    horizon: float = np.inf,
) -> FloatArray:
    """Cox's model (Breslow's treatment of ties) for many weightings of the cases; Fine and Gray's where events compete.

    Parameters
    ----------
    X
        Columns, shape (cases, columns).
    bootstrap_weights
        Weight of each case, shape (draws, cases).
    censoring
        As for :func:`partial_risk_sets`.
    horizon
        Follow-up ends here at the latest, in days.

    Returns
    -------
    FloatArray
        Log hazard ratio per unit of the columns, shape (draws, columns); NaN where there is no finite maximum.
    """
    mean, scale = _standard(X)
    order = np.argsort(np.minimum(endpoint.observed_days, horizon), kind="stable")
    Z, endpoint, bootstrap_weights = ((X - mean) / scale)[order], endpoint.rows(order), bootstrap_weights[:, order]
    time = np.minimum(endpoint.observed_days, horizon)
    event = endpoint.event & (endpoint.observed_days <= horizon)
    sets = partial_risk_sets(endpoint, np.unique(time[event]), censoring)
    return _in_parts(lambda part: _cox_derivatives(Z, time, event, part, sets), bootstrap_weights, Z.shape[1]) / scale


def bootstrap_logistic(X: FloatArray, positive: FloatArray, bootstrap_weights: FloatArray) -> FloatArray:
    """Logistic regression with an intercept for many weightings of the cases.

    Parameters
    ----------
    X
        Columns, shape (cases, columns).
    positive
        1 for the positive class, 0 for the other; shape (cases,).
    bootstrap_weights
        Weight of each case, shape (draws, cases).

    Returns
    -------
    FloatArray
        Intercept and log odds ratio per unit of the columns, shape (draws, 1 + columns); NaN where there is no finite
        maximum.
    """
    mean, scale = _standard(X)
    Z = np.column_stack([np.ones(len(X)), (X - mean) / scale])
    found = _in_parts(lambda part: _logistic_derivatives(Z, positive, part), bootstrap_weights, Z.shape[1])
    slopes = found[:, 1:] / scale
    return np.column_stack([found[:, 0] - slopes @ mean, slopes])


def baseline_hazard(
    eta: FloatArray,
    endpoint: Survival,
    horizon: float,
    bootstrap_weights: FloatArray,
    censoring: Censoring | None = None,
) -> FloatArray:
    """Breslow's cumulative hazard at a time where the linear predictor is 0, for many weightings.

    Parameters
    ----------
    eta
        Linear predictor, shape (draws, cases).
    censoring
        As for :func:`partial_risk_sets`.

    Returns
    -------
    FloatArray
        Shape (draws,).
    """
    order = endpoint.by_time()
    endpoint, eta, bootstrap_weights = endpoint.rows(order), eta[:, order], bootstrap_weights[:, order]
    time, hazard = endpoint.observed_days, bootstrap_weights * np.exp(eta)
    sets = partial_risk_sets(endpoint, time, censoring)
    if sets is not None:
        at_risk = sets.at_events(hazard.T).T
    else:
        at_risk = _from(hazard, np.asarray(np.searchsorted(time, time), dtype=np.int64))
    died = bootstrap_weights * (endpoint.event & (time <= horizon))
    return np.asarray(np.divide(died, at_risk, out=np.zeros_like(died), where=died > 0).sum(axis=1))


def restricted_spline(x: FloatArray, knots: FloatArray) -> FloatArray:
    """Natural cubic spline: cubic between the knots, linear beyond the outer ones (Harrell, 2015, section 2.4.5).

    Parameters
    ----------
    x
        Any shape (cases,).
    knots
        Three or more, ascending.

    Returns
    -------
    FloatArray
        x itself and ``len(knots) - 2`` further terms, shape (cases, len(knots) - 1).
    """
    last, before = knots[-1], knots[-2]
    unit = (knots[-1] - knots[0]) ** 2

    def cubed(knot: float) -> FloatArray:
        return np.asarray(np.maximum(x - knot, 0.0) ** 3)

    terms = [
        cubed(knot) - cubed(before) * (last - knot) / (last - before) + cubed(last) * (before - knot) / (last - before)
        for knot in knots[:-2]
    ]
    return np.column_stack([x, *(term / unit for term in terms)])


def _standard(X: FloatArray) -> tuple[FloatArray, FloatArray]:
    scale = X.std(axis=0)
    return X.mean(axis=0), np.where(scale > 0, scale, 1.0)


def _in_parts(of: Callable[[FloatArray], _Derivatives], bootstrap_weights: FloatArray, columns: int) -> FloatArray:
    """Coefficients of every draw: begun at those of the mean draw, which are near, and some draws at a time."""
    mean = bootstrap_weights.mean(axis=0, keepdims=True)
    start = _newton(of(mean), np.zeros((1, columns)))
    start = np.where(np.isfinite(start), start, 0.0)
    parts = [bootstrap_weights[rows] for rows in in_parts(len(bootstrap_weights), bootstrap_weights.shape[1])]
    return np.concatenate([_newton(of(part), np.repeat(start, len(part), axis=0)) for part in parts])


def _newton(derivatives: _Derivatives, coefficient: FloatArray) -> FloatArray:
    """Coefficients of every draw, from where they begin, shape (draws, columns); NaN where it does not settle."""
    draws = len(coefficient)
    length: FloatArray = np.zeros((draws, 1))
    for _ in range(_STEPS):
        gradient, information = derivatives(coefficient)
        step = _solve(information, gradient)
        length = np.abs(step).max(axis=1, keepdims=True)
        coefficient = coefficient + step * np.minimum(1.0, _LONGEST / np.maximum(length, 1e-300))
        lost = ~np.isfinite(coefficient).all(axis=1) | (np.abs(coefficient).max(axis=1) > _RUNAWAY)
        coefficient[lost] = np.nan
        if not (length[~lost] > _SETTLED).any():
            return coefficient
    coefficient[length[:, 0] > 1e-6] = np.nan
    return coefficient


def _solve(information: FloatArray, gradient: FloatArray) -> FloatArray:
    """Newton's step of every draw; NaN where the information is singular."""
    size = np.einsum("dkk->d", information)
    sound = np.isfinite(size) & (size > _LEAST_INFORMATION)
    sound[sound] = np.linalg.cond(information[sound]) < 1e12
    step = np.full_like(gradient, np.nan)
    step[sound] = np.linalg.solve(information[sound], gradient[sound][..., None])[..., 0]
    return step


def _cox_derivatives(
    Z: FloatArray, time: FloatArray, event: BoolArray, bootstrap_weights: FloatArray, sets: RiskSets | None
) -> _Derivatives:
    """Gradient and information of Breslow's log partial likelihood; the rows are sorted by time."""
    columns = Z.shape[1]
    products = (Z[:, :, None] * Z[:, None, :]).reshape(len(Z), -1)
    at, tied = np.unique(time[event], return_index=True)
    first = np.asarray(np.searchsorted(time, at), dtype=np.int64)
    until = np.searchsorted(at, time, side="right")
    died = np.add.reduceat(bootstrap_weights[:, event], tied, axis=1)
    seen = bootstrap_weights * event

    def at_events(values: FloatArray) -> FloatArray:
        return _from(values, first) if sets is None else np.asarray(sets.at_events(values.T).T)

    def of_cases(rate: FloatArray) -> FloatArray:
        if sets is not None:
            return np.asarray(sets.of_cases(rate.T).T)
        return np.asarray(np.concatenate([np.zeros((len(rate), 1)), np.cumsum(rate, axis=1)], axis=1)[:, until])

    def derivatives(coefficient: FloatArray) -> tuple[FloatArray, FloatArray]:
        eta = coefficient @ Z.T
        hazard = bootstrap_weights * np.exp(eta - eta.max(axis=1, keepdims=True))
        at_risk = at_events(hazard)
        at_risk[~(at_risk > 0)] = np.inf  # nothing is expected of it
        expected = hazard * of_cases(died / at_risk)
        means = [at_events(hazard * column) / at_risk for column in Z.T]
        information = (expected @ products).reshape(-1, columns, columns)
        for i in range(columns):
            weighted = died * means[i]
            for j in range(i, columns):
                information[:, i, j] -= np.einsum("dm,dm->d", weighted, means[j])
                information[:, j, i] = information[:, i, j]
        return (seen - expected) @ Z, information

    return derivatives


def _from(values: FloatArray, first: IntArray) -> FloatArray:
    """Sums over the rows from each of ``first`` on."""
    return np.asarray(np.cumsum(values[:, ::-1], axis=1)[:, ::-1][:, first])


def _logistic_derivatives(Z: FloatArray, positive: FloatArray, bootstrap_weights: FloatArray) -> _Derivatives:
    columns = Z.shape[1]
    products = (Z[:, :, None] * Z[:, None, :]).reshape(len(Z), -1)

    def derivatives(coefficient: FloatArray) -> tuple[FloatArray, FloatArray]:
        with np.errstate(over="ignore"):
            probability = 1 / (1 + np.exp(-(coefficient @ Z.T)))
        information = (bootstrap_weights * probability * (1 - probability)) @ products
        return (bootstrap_weights * (positive - probability)) @ Z, information.reshape(-1, columns, columns)

    return derivatives
