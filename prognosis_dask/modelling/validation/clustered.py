"""Variances where a patient has several cases: what a patient's cases say is one observation, not several.

Ties are Breslow's here, and wherever cases are weighted: a patient's cases end at one time, and Efron's treatment
would take them for ties with each other. The estimates are those of independent cases; their variance is the sandwich
of Lin & Wei (JASA 84, 1989) with the score residuals summed within patients (Lee, Wei & Amato 1992). A case that is
there twice then changes nothing. Where events compete, the model is Fine and Gray's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prognosis_dask.arrays import BoolArray, FloatArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Survival, patient_sums, risk_sets
from prognosis_dask.modelling.metrics.brier import Censoring
from prognosis_dask.modelling.metrics.competing import partial_risk_sets
from prognosis_dask.modelling.metrics.hazards import event_ranks
from prognosis_dask.modelling.metrics.kaplan_meier import LogRank
from prognosis_dask.modelling.metrics.regression import bootstrap_cox
from prognosis_dask.modelling.validation.differences import NestedTest, expect_events, expect_more


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


def clustered_wald(base: FloatArray, added: FloatArray, endpoint: Survival, patient_ids: Sequence[str]) -> NestedTest:
    """Wald's test, with the variance over patients, of what columns add to others in a Cox model without a penalty.

    It takes the place of :func:`modelling.validation.differences.likelihood_ratio`, which has no such variance.

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


def clustered_ph_test(
    X: FloatArray, endpoint: Survival, coefficient: FloatArray, variance: FloatArray, patient_ids: Sequence[str]
) -> FloatArray:
    """:func:`prognosis_dask.modelling.metrics.hazards.ph_test` with the variance over patients of what is tested.

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
