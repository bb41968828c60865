"""Tests of Cox models: what columns add, whether two groups differ, whether hazards are proportional.

Also where a patient has several cases: what these say is one observation, not several. Ties are Breslow's there, and
wherever cases are weighted: a patient's cases end at one time, and Efron's treatment would take them for ties with each
other. The estimates are those of independent cases; their variance is the sandwich of Lin & Wei (JASA 84, 1989) with
the score residuals summed within patients (Lee, Wei & Amato 1992). A case that is there twice then changes nothing.
Where events compete, the model is Fine and Gray's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prognosis_dask.arrays import BoolArray, FloatArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Survival, patient_sums, risk_sets, several_cases
from prognosis_dask.modelling.data.table import varying
from prognosis_dask.modelling.estimators.cox import fit_proportional_hazards
from prognosis_dask.modelling.estimators.partial_likelihood import score_likelihood
from prognosis_dask.modelling.metrics.brier import Censoring
from prognosis_dask.modelling.metrics.competing import partial_risk_sets, risk_sums
from prognosis_dask.modelling.metrics.kaplan_meier import LogRank
from prognosis_dask.modelling.metrics.regression import bootstrap_cox
from prognosis_dask.modelling.table_spec import Row


@dataclass(frozen=True)
class NestedTest:
    """What columns add to a Cox model: which test, its statistic, degrees of freedom, p-value."""

    test: str
    statistic: float
    df: int
    p: float


def nested_test(base: FloatArray, added: FloatArray, end: Survival, patient_ids: Sequence[str]) -> NestedTest:
    """The test of what columns add to others: the likelihood ratio, or Wald's over patients who have several cases.

    Where events compete it is Wald's too: cases at risk in part are no likelihood that a ratio could be taken of.

    Raises
    ------
    StatisticsError
        When a model has no maximum (separable or collinear columns), or without events.
    """
    if several_cases(patient_ids) or end.competing is not None:
        return clustered_wald(base, added, end, patient_ids)
    return likelihood_ratio(base, added, end)


def likelihood_ratio(base: FloatArray, added: FloatArray, endpoint: Survival) -> NestedTest:
    """Likelihood ratio test of what columns add to others in a Cox model without a penalty.

    Parameters
    ----------
    base
        Columns of the smaller model, shape (cases, columns); there may be none.
    added
        Columns that the larger one has besides, shape (cases, columns).

    Raises
    ------
    StatisticsError
        When a model has no maximum (separable or collinear columns), or without events.
    """
    from scipy.special import chdtrc

    df, both = expect_more(base, added), np.column_stack([base, added])
    larger, smaller = (cox_likelihood(columns, endpoint) for columns in (both, base))
    statistic = max(0.0, 2 * (larger - smaller))
    return NestedTest("likelihood ratio", statistic, df, float(chdtrc(df, statistic)))


def expect_more(base: FloatArray, added: FloatArray) -> int:
    """How many dimensions the added columns have beyond the base's.

    Raises
    ------
    StatisticsError
        When there is none.
    """
    df = _rank(np.column_stack([base, added])) - _rank(base)
    if df < 1:
        raise StatisticsError("the added columns say nothing that the base does not")
    return df


def cox_likelihood(X: FloatArray, endpoint: Survival) -> float:
    """The largest log partial likelihood of a Cox model, without penalty; Efron's treatment of ties.

    Raises
    ------
    StatisticsError
        As :func:`cox_coefficient`.
    """
    return score_likelihood(endpoint)(X @ cox_coefficient(X, endpoint))


def cox_coefficient(X: FloatArray, endpoint: Survival) -> FloatArray:
    """Coefficients of a Cox model without penalty; Efron's treatment of ties.

    Parameters
    ----------
    X
        Shape (cases, columns); there may be no column.

    Raises
    ------
    StatisticsError
        When there is no event, a column is constant, or the model has no maximum.
    """
    expect_events(endpoint.event)
    if not X.shape[1]:
        return np.zeros(0)
    constant = sorted(set(range(X.shape[1])) - set(varying(X).tolist()))
    if constant:
        raise StatisticsError(f"Cox model of {X.shape[1]} columns: {constant} are constant; leave them out")
    scale = X.std(axis=0, ddof=1)
    (model,) = fit_proportional_hazards((X - X.mean(axis=0)) / scale, endpoint, [0.0], 0.0, [])
    return np.asarray(model.coefficient / scale)


def expect_events(event: BoolArray) -> None:
    """Refuse cases without an event.

    Raises
    ------
    StatisticsError
        When there is none.
    """
    if not event.any():
        raise StatisticsError(f"Cox model of {len(event)} cases: none has the event")


def _rank(X: FloatArray) -> int:
    return int(np.linalg.matrix_rank(X - X.mean(axis=0))) if X.shape[1] else 0


def clustered_wald(base: FloatArray, added: FloatArray, endpoint: Survival, patient_ids: Sequence[str]) -> NestedTest:
    """Wald's test, with the variance over patients, of what columns add to others in a Cox model without a penalty.

    It takes the place of :func:`likelihood_ratio`, which has no such variance.

    Parameters
    ----------
    base, added
        Columns of the smaller model, and those that the larger one has besides; shape (cases, columns).
    patient_ids
        Whose case it is.

    Raises
    ------
    StatisticsError
        When a model has no maximum (separable or collinear columns), without events, or with too few patients.
    """
    from scipy.special import chdtrc

    df = expect_more(base, added)
    coefficient, covariance = clustered_cox(np.column_stack([base, added]), endpoint, patient_ids)
    tested, variance = coefficient[base.shape[1] :], covariance[base.shape[1] :, base.shape[1] :]
    if np.linalg.matrix_rank(variance) < df:
        raise StatisticsError(f"Wald's test: {len(set(patient_ids))} patients are too few for {df} columns")
    statistic = float(tested @ np.linalg.solve(variance, tested))
    return NestedTest("Wald, over patients", statistic, df, float(chdtrc(df, statistic)))


def clustered_cox(X: FloatArray, endpoint: Survival, patient_ids: Sequence[str]) -> tuple[FloatArray, FloatArray]:
    """Coefficients of a Cox model without a penalty (Breslow's ties), and their covariance over patients.

    Parameters
    ----------
    X
        Shape (cases, columns).
    patient_ids
        Whose case it is.

    Raises
    ------
    StatisticsError
        When there is no event, or the model has no maximum.
    """
    expect_events(endpoint.event)
    coefficient = bootstrap_cox(X, endpoint, np.ones((1, len(endpoint))))[0]
    if np.isnan(coefficient).any():
        raise StatisticsError(f"Cox model of {X.shape[1]} columns: collinear, or they order the events perfectly")
    residuals, information = score_residuals(X, endpoint, coefficient)
    return coefficient, sandwich(residuals, np.linalg.inv(information), patient_ids)


def sandwich(residuals: FloatArray, inverse: FloatArray, patient_ids: Sequence[str]) -> FloatArray:
    """Covariance over patients of coefficients, shape (columns, columns).

    Parameters
    ----------
    residuals
        What each case adds to the score, shape (cases, columns).
    inverse
        Of the information; of the penalised one where there is a penalty, as in lifelines.
    patient_ids
        Whose case it is.
    """
    influence = patient_sums(residuals, patient_ids) @ inverse
    return np.asarray(influence.T @ influence)


def score_residuals(
    X: FloatArray,
    endpoint: Survival,
    coefficient: FloatArray,
    drift: FloatArray | None = None,
    censoring: Censoring | None = None,
) -> tuple[FloatArray, FloatArray]:
    """What each case adds to the score of Breslow's partial likelihood, and the information.

    A case adds its distance from the risk set's mean at its own event, less what was expected of it at each event that
    it was at risk for (Lin & Wei 1989, equation 2.3).

    Parameters
    ----------
    X
        Shape (cases, columns).
    coefficient
        Log hazard ratio per unit, shape (columns,).
    drift
        A function of time at the distinct times of events, in their order: the score is then that of what the
        coefficients change by per unit of it.
    censoring
        That of the cohort, where events compete; None: of these cases.

    Returns
    -------
    residuals, information
        Shapes (cases, columns), (columns, columns).
    """
    X = np.asarray(X - X.mean(axis=0))
    eta = X @ coefficient
    hazard = np.exp(eta - eta.max())
    time, event = endpoint.observed_days, endpoint.event
    at, died = np.unique(time[event], return_counts=True)
    weight = np.ones(len(at)) if drift is None else drift
    sets = partial_risk_sets(endpoint, at, censoring) or risk_sets(np.full(len(time), -1.0), time, at)
    total = sets.at_events(hazard)
    mean = sets.at_events(hazard[:, None] * X) / total[:, None]
    rises = weight * died / total
    rate, meant = sets.of_cases(rises), sets.of_cases(rises[:, None] * mean)
    residuals: FloatArray = -hazard[:, None] * (X * rate[:, None] - meant)
    own = np.searchsorted(at, time[event])
    residuals[event] += weight[own, None] * (X[event] - mean[own])
    information = np.einsum("i,ij,ik->jk", hazard * rate, X, X) - np.einsum("i,ij,ik->jk", weight * died, mean, mean)
    return residuals, np.asarray(information)


def clustered_log_rank(
    endpoint: Survival, high: BoolArray, patient_ids: Sequence[str], censoring: Censoring | None = None
) -> LogRank:
    """Log-rank test of two groups whose variance is that over patients: the robust score test of Cox's model.

    Where events compete, of Fine and Gray's, in place of Gray's test.

    Parameters
    ----------
    high
        Which group, shape (cases,).
    patient_ids
        Whose case it is.
    censoring
        That of the cohort, where events compete; None: of these cases.

    Raises
    ------
    StatisticsError
        When all cases are in one group, or no event tells the groups apart.
    """
    from scipy.special import chdtrc

    column = high[:, None].astype(np.float64)
    residuals, information = score_residuals(column, endpoint, np.zeros(1), censoring=censoring)
    variance = float((patient_sums(residuals, patient_ids) ** 2).sum())
    if information[0, 0] <= 0 or variance <= 0:
        events = int(endpoint.event.sum())
        raise StatisticsError(f"log-rank test: none of {events} events tells the two groups apart")
    statistic = float(residuals.sum()) ** 2 / variance
    return LogRank(statistic, 1, float(chdtrc(1, statistic)))


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
    event = endpoint.event
    times, place = np.unique(endpoint.observed_days[event], return_inverse=True)
    at_risk = risk_sums(endpoint, weighted, times)
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


def clustered_ph_test(
    X: FloatArray, endpoint: Survival, coefficient: FloatArray, variance: FloatArray, patient_ids: Sequence[str]
) -> FloatArray:
    """:func:`ph_test` with the variance over patients of what is tested.

    The score of a drift of the coefficients with the rank of time is that test's sum (with Breslow's ties); its
    variance is that of Lin & Wei, of the residuals less what the coefficients' own estimation takes from them.

    Parameters
    ----------
    X, coefficient, variance
        As there; ``variance`` of cases as if independent.
    patient_ids
        Whose case it is.

    Returns
    -------
    array
        Chi-squared statistics, one degree of freedom, shape (columns,); NaN where a column has no variance.
    """
    _, first = np.unique(endpoint.observed_days[endpoint.event], return_index=True)
    drift = event_ranks(endpoint)[first]
    drifting, across = score_residuals(X, endpoint, coefficient, drift)
    plain, _ = score_residuals(X, endpoint, coefficient)
    drifts = patient_sums(drifting - plain @ variance @ across, patient_ids)
    spread = (drifts**2).sum(axis=0)
    return np.divide(drifts.sum(axis=0) ** 2, spread, out=np.full(len(spread), np.nan), where=spread > 0)
