"""Whether predicted probabilities are right, and what deciding by them is worth: calibration and decision curves.

Observed against predicted, of survival at a horizon and of classes.

The smooth curve is a regression on a restricted cubic spline of the prediction: of the complementary log-log of the
predicted risk in a Cox model for survival (Austin, Harrell & van Klaveren, Stat Med 39, 2020), of its log odds in a
logistic model for classes (Austin & Steyerberg, Stat Med 38, 2019, compare it with loess). Three knots, at the 10th,
50th and 90th percentile of the predictions; a straight line where they do not differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from prognosis_dask.arrays import FloatArray, IntArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Survival
from prognosis_dask.modelling.metrics.brier import Censoring
from prognosis_dask.modelling.metrics.intervals import in_parts, interval, mean_held
from prognosis_dask.modelling.metrics.kaplan_meier import bootstrap_survival, survival_of
from prognosis_dask.modelling.metrics.measured import Sheet, extended
from prognosis_dask.modelling.metrics.regression import (
    baseline_hazard,
    bootstrap_cox,
    bootstrap_logistic,
    restricted_spline,
)
from prognosis_dask.modelling.table_spec import Row

#: Predicted probabilities are kept this far from 0 and 1, where their logarithms are infinite.
_EDGE = 1e-12
#: What :func:`add_calibration` adds to the measures.
CALIBRATION = ("calibration_slope", "observed_expected", "ici", "e50", "e90")
#: Thresholds of the decision curve.
THRESHOLDS = np.arange(2, 99, 2) / 100
#: Fewest cases in a group of the calibration plot, and most groups.
_IN_GROUP, _GROUPS = 20, 10
#: Points of the smooth calibration curve.
_POINTS = 25


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


def calibration_groups(cases: int) -> int:
    """Into how many groups of rising prediction the cases are put."""
    return min(_GROUPS, max(1, cases // _IN_GROUP))


def calibration_points(predicted: FloatArray) -> FloatArray:
    """Where the smooth curve is drawn: predictions from the 2nd to the 98th percentile."""
    return np.asarray(np.unique(np.percentile(predicted, np.linspace(2, 98, _POINTS))))


def add_calibration(sheet: Sheet, horizon: float | None, found: Sequence[Calibration], of: str = "") -> None:
    """Add the figures of calibration, averaged over the repeats.

    Parameters
    ----------
    of
        The class, where there are several; it becomes part of the measure's name.
    """
    values = ("slope", "observed_expected", "ici", "e50", "e90")
    for measure, name in zip(CALIBRATION, values, strict=True):
        mean = mean_held(np.array([getattr(one, name) for one in found]))
        unknown = "the predictions do not differ, or order the outcomes perfectly"
        sheet.add(f"{measure}_{of}" if of else measure, horizon, mean, "" if np.isfinite(mean[0]) else unknown)


def extended_calibration(found: Sequence[Calibration]) -> list[Calibration]:
    """:func:`extended` of every figure."""
    names = [field.name for field in fields(Calibration)]
    parts = zip(*(extended([getattr(one, name) for one in found]) for name in names), strict=True)
    return [Calibration(*part) for part in parts]


def calibration_rows(
    key: Row, points: FloatArray, found: Sequence[Calibration], groups: Sequence[tuple[FloatArray, FloatArray]]
) -> list[Row]:
    """The rows of ``calibration``: kind "group" (of rising prediction) and "smooth".

    Parameters
    ----------
    key
        What each row begins with.
    points, found
        Predictions, and the smooth curves at them, one for each repeat.
    groups
        Of each repeat the groups' mean prediction, shape (groups,), and observed share, shape (groups, draws).
    """
    predicted = np.mean([predicted for predicted, _ in groups], axis=0)
    observed = mean_held(np.array([seen for _, seen in groups]))
    smooth = mean_held(np.array([one.smooth for one in found])).T
    return [
        {**key, "kind": kind, "predicted": float(at), "observed": float(values[0]), "lower": lower, "upper": upper}
        for kind, ats, curves in (("group", predicted, observed), ("smooth", points, smooth))
        for at, values in zip(ats, curves, strict=True)
        for lower, upper in (interval(values[1:]),)
    ]


def net_benefit_survival(
    endpoint: Survival, risk: FloatArray, horizon: float, thresholds: FloatArray, bootstrap_weights: FloatArray
) -> FloatArray:
    """Net benefit for the event up to a horizon (Vickers et al., BMC Med Inform Decis Mak 8:53, 2008).

    With the share treated ``s`` and Kaplan-Meier's risk among the treated ``r``: ``s r - s (1 - r) t / (1 - t)`` at
    threshold ``t``. Treating nobody has 0; treating everybody is ``risk`` all ones. Where events compete, the risk is
    the cumulative incidence.

    Parameters
    ----------
    risk
        The predicted probability of the event up to the horizon, shape (cases,).
    horizon
        In days.
    thresholds
        Shape (thresholds,), within 0..1, 1 excluded.
    bootstrap_weights
        Weight of each case, shape (draws, cases).

    Returns
    -------
    FloatArray
        Shape (draws, thresholds).

    Raises
    ------
    StatisticsError
        When a threshold is not within 0..1.
    """
    _expect_thresholds(thresholds)
    order = endpoint.by_time()
    endpoint, risk, bootstrap_weights = endpoint.rows(order), risk[order], bootstrap_weights[:, order]
    until = int(np.searchsorted(endpoint.observed_days, horizon, side="right"))
    total = bootstrap_weights.sum(axis=1, keepdims=True)
    is_treated = risk[:, None] >= thresholds
    treated_by = is_treated.sum(axis=0)  # as many: the same ones
    of_treated = bootstrap_weights @ is_treated.astype(np.float64)
    share = np.divide(of_treated, total, out=np.zeros_like(of_treated), where=total > 0)
    dead = np.zeros_like(share)
    for rows in in_parts(len(bootstrap_weights), until):
        weight = bootstrap_weights[rows, :until]
        for column, threshold in enumerate(thresholds):
            if column and treated_by[column] == treated_by[column - 1]:
                dead[rows, column] = dead[rows, column - 1]
                continue
            treated = np.flatnonzero(risk[:until] >= threshold)
            own, weights = weight.take(treated, axis=1), of_treated[rows, column]
            dead[rows, column] = 1 - survival_of(endpoint.rows(treated), own, weights)
    return np.where(share > 0, share * (dead - (1 - dead) * thresholds / (1 - thresholds)), 0.0)


def net_benefit_class(
    positive: FloatArray, probability: FloatArray, thresholds: FloatArray, bootstrap_weights: FloatArray
) -> FloatArray:
    """Net benefit for a class (Vickers & Elkin, Med Decis Making 26, 2006): true less weighted false positives.

    Parameters
    ----------
    positive
        1 where the case is of the class, else 0; shape (cases,).
    probability
        Predicted, shape (cases,).
    thresholds, bootstrap_weights
        As for :func:`net_benefit_survival`.

    Returns
    -------
    FloatArray
        Shape (draws, thresholds).

    Raises
    ------
    StatisticsError
        When a threshold is not within 0..1.
    """
    _expect_thresholds(thresholds)
    treated = (probability[:, None] >= thresholds).astype(np.float64)
    gain = positive[:, None] - (1 - positive[:, None]) * thresholds / (1 - thresholds)
    total = np.maximum(bootstrap_weights.sum(axis=1, keepdims=True), 1e-300)
    return np.asarray(bootstrap_weights @ (treated * gain) / total)


def _expect_thresholds(thresholds: FloatArray) -> None:
    if not ((thresholds >= 0) & (thresholds < 1)).all():
        raise StatisticsError(
            f"net benefit: thresholds from {thresholds.min():g} to {thresholds.max():g}; they lie within 0 and below 1"
        )


def benefit_rows(key: Row, model: FloatArray, everybody: FloatArray) -> list[Row]:
    """The rows of ``net_benefit``, the decision curve.

    Parameters
    ----------
    key
        What each row begins with.
    model
        Shape (draws, thresholds), the first draw being the cases as they are.
    everybody
        The same for treating everybody, of the first draw only.
    """
    rows: list[Row] = []
    for threshold, values, treat_all in zip(THRESHOLDS.tolist(), model.T, everybody[0].tolist(), strict=True):
        lower, upper = interval(values[1:])
        of_model = {"net_benefit": float(values[0]), "lower": lower, "upper": upper}
        rows.append({**key, "threshold": threshold, **of_model, "treat_all": treat_all})
    return rows
