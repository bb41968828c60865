"""Whether predicted probabilities are right: observed against predicted, of survival at a horizon and of classes.

The smooth curve is a regression on a restricted cubic spline of the prediction: of the complementary log-log of the
predicted risk in a Cox model for survival (Austin, Harrell & van Klaveren, Stat Med 39, 2020), of its log odds in a
logistic model for classes (Austin & Steyerberg, Stat Med 38, 2019, compare it with loess). Three knots, at the 10th,
50th and 90th percentile of the predictions; a straight line where they do not differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prognosis_dask.arrays import FloatArray, IntArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Survival
from prognosis_dask.modelling.metrics.brier import Censoring
from prognosis_dask.modelling.metrics.kaplan_meier import bootstrap_survival
from prognosis_dask.modelling.metrics.regression import (
    baseline_hazard,
    bootstrap_cox,
    bootstrap_logistic,
    restricted_spline,
)

#: Predicted probabilities are kept this far from 0 and 1, where their logarithms are infinite.
_EDGE = 1e-12


@dataclass(frozen=True)
class Calibration:
    """Calibration of predicted probabilities, for each draw.

    Attributes
    ----------
    slope
        Of the outcome on the prediction, on the model's scale: 1 is right, below 1 predictions are too extreme (as an
        overfitted model's are). Shape (draws,).
    observed_expected
        Observed over predicted number of events; shape (draws,).
    ici, e50, e90
        Mean, median and 90th percentile of the absolute distance between the smooth curve and the prediction over the
        cases; shape (draws,).
    smooth
        The curve at the points that were asked for, shape (draws, points).
    """

    slope: FloatArray
    observed_expected: FloatArray
    ici: FloatArray
    e50: FloatArray
    e90: FloatArray
    smooth: FloatArray


def survival_calibration(
    endpoint: Survival,
    risk: FloatArray,
    horizon: float,
    bootstrap_weights: FloatArray,
    points: FloatArray,
    censoring: Censoring | None = None,
) -> Calibration:
    """Calibration of the predicted risk of the event up to a horizon.

    The slope is the coefficient of the complementary log-log of the risk in a Cox model of the follow-up up to the
    horizon: for a proportional hazards model that of its linear predictor. Where events compete, the risk is the
    cumulative incidence, and the models are Fine and Gray's. Who enters late is not who was there at 0: Kaplan-Meier's
    number of events is then of others than the predictions, and ``observed_expected`` NaN.

    Parameters
    ----------
    risk
        Predicted probability of the event up to the horizon, shape (cases,).
    horizon
        In days, within follow-up.
    bootstrap_weights
        Weight of each case, shape (draws, cases).
    points
        Predicted risks to give the curve at.
    censoring
        That of the cohort, where events compete; None: of these cases.
    """
    x, at = _cloglog(risk), _cloglog(points)
    slope = survival_slope(endpoint, risk, horizon, bootstrap_weights, censoring)
    observed = (
        np.full(len(bootstrap_weights), np.nan)
        if endpoint.entry_days is not None
        else 1 - bootstrap_survival(endpoint, horizon, bootstrap_weights)
    )
    knots = _knots(x)
    if knots is None:
        curve, smooth = np.repeat(observed[:, None], len(x), 1), np.repeat(observed[:, None], len(at), 1)
    else:
        terms, terms_at = _terms(x, knots), _terms(at, knots)
        middle = terms.mean(axis=0)
        coefficient = bootstrap_cox(terms, endpoint, bootstrap_weights, censoring)
        eta = coefficient @ (terms - middle).T
        hazard = baseline_hazard(eta, endpoint, horizon, bootstrap_weights, censoring)[:, None]
        curve = 1 - np.exp(-hazard * np.exp(eta))
        smooth = 1 - np.exp(-hazard * np.exp(coefficient @ (terms_at - middle).T))
    return _summary(slope, observed, curve, risk, bootstrap_weights, smooth)


def survival_slope(
    endpoint: Survival,
    risk: FloatArray,
    horizon: float,
    bootstrap_weights: FloatArray,
    censoring: Censoring | None = None,
) -> FloatArray:
    """The slope of :func:`survival_calibration` alone, shape (draws,)."""
    x = _cloglog(risk)
    return _one(bootstrap_cox(x[:, None], endpoint, bootstrap_weights, censoring, horizon), x)


def class_calibration(
    positive: FloatArray, probability: FloatArray, bootstrap_weights: FloatArray, points: FloatArray
) -> Calibration:
    """Calibration of the predicted probability of a class.

    The slope is that of a logistic regression on the log odds of the prediction (Cox, Biometrika 45, 1958).

    Parameters
    ----------
    positive
        1 where the case is of the class, else 0; shape (cases,).
    probability
        Predicted, shape (cases,).
    bootstrap_weights
        Weight of each case, shape (draws, cases).
    points
        Predicted probabilities to give the curve at.
    """
    x, at = _logit(probability), _logit(points)
    slope = _one(bootstrap_logistic(x[:, None], positive, bootstrap_weights)[:, 1:], x)
    observed = _weighted_mean(np.broadcast_to(positive, bootstrap_weights.shape), bootstrap_weights)
    knots = _knots(x)
    if knots is None:
        curve, smooth = np.repeat(observed[:, None], len(x), 1), np.repeat(observed[:, None], len(at), 1)
    else:
        coefficient = bootstrap_logistic(_terms(x, knots), positive, bootstrap_weights)
        curve, smooth = (_expit(coefficient[:, :1] + coefficient[:, 1:] @ _terms(v, knots).T) for v in (x, at))
    return _summary(slope, observed, curve, probability, bootstrap_weights, smooth)


def rising_groups(predicted: FloatArray, groups: int) -> list[IntArray]:
    """Positions of the cases in groups of rising prediction, as even as can be."""
    return np.array_split(np.argsort(predicted, kind="stable"), groups)


def _summary(
    slope: FloatArray,
    observed: FloatArray,
    curve: FloatArray,
    predicted: FloatArray,
    bootstrap_weights: FloatArray,
    smooth: FloatArray,
) -> Calibration:
    distance = np.abs(curve - predicted)
    expected = _weighted_mean(np.broadcast_to(predicted, bootstrap_weights.shape), bootstrap_weights)
    ratio = np.divide(observed, expected, out=np.full(len(bootstrap_weights), np.nan), where=expected > 0)
    e50, e90 = _weighted_quantiles(distance, bootstrap_weights, (0.5, 0.9))
    return Calibration(slope, ratio, _weighted_mean(distance, bootstrap_weights), e50, e90, smooth)


def _weighted_mean(values: FloatArray, bootstrap_weights: FloatArray) -> FloatArray:
    total = bootstrap_weights.sum(axis=1)
    nothing = np.full(len(total), np.nan)
    return np.asarray(np.divide((values * bootstrap_weights).sum(axis=1), total, out=nothing, where=total > 0))


def _weighted_quantiles(
    values: FloatArray, bootstrap_weights: FloatArray, shares: tuple[float, ...]
) -> list[FloatArray]:
    """The least value up to which at least that share of the weight lies, in each draw."""
    order = np.argsort(values, axis=1)
    reached = np.cumsum(np.take_along_axis(bootstrap_weights, order, 1), axis=1)
    ordered = np.take_along_axis(values, order, 1)
    rows = np.arange(len(values))
    return [ordered[rows, np.argmax(reached >= share * reached[:, -1:] - 1e-9, axis=1)] for share in shares]


def _one(coefficient: FloatArray, x: FloatArray) -> FloatArray:
    """The only column; NaN where the prediction is the same for all."""
    return np.full(len(coefficient), np.nan) if np.ptp(x) < 1e-12 else coefficient[:, 0]


def _knots(x: FloatArray) -> FloatArray | None:
    """Three knots; two where they would coincide (a straight line); None where the predictions do not differ."""
    knots = np.percentile(x, [10, 50, 90])
    spread = np.ptp(x)
    if spread < 1e-12:
        return None
    return knots if (np.diff(knots) > 1e-3 * spread).all() else knots[[0, -1]]


def _terms(x: FloatArray, knots: FloatArray) -> FloatArray:
    return restricted_spline(x, knots) if len(knots) > 2 else x[:, None]


def _cloglog(risk: FloatArray) -> FloatArray:
    return np.asarray(np.log(-np.log1p(-np.clip(risk, _EDGE, 1 - _EDGE))))


def _logit(probability: FloatArray) -> FloatArray:
    kept = np.clip(probability, _EDGE, 1 - _EDGE)
    return np.asarray(np.log(kept / (1 - kept)))


def _expit(x: FloatArray) -> FloatArray:
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(-x)))


def expect_probabilities(probability: FloatArray, what: str) -> None:
    """Refuse what is no probability.

    Raises
    ------
    StatisticsError
        When a value is not within 0..1.
    """
    bad = np.flatnonzero(~((probability >= 0) & (probability <= 1)))
    if len(bad):
        raise StatisticsError(
            f"{what}: {len(bad)} predictions are no probabilities (the first is {probability.flat[bad[0]]:g})"
        )
