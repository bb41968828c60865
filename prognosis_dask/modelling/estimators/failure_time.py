"""Accelerated failure time: Weibull's, log-logistic and log-normal models.

``log t = intercept + Z @ coefficient + w / shape``, where the distribution of ``w`` names the model (Kalbfleisch &
Prentice, The Statistical Analysis of Failure Time Data, 2002, chapter 3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
from scipy.special import expit, log_ndtr, ndtr

from prognosis_dask.arrays import BoolArray, FloatArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Endpoint, Survival
from prognosis_dask.modelling.estimators.determined import expect_determined, needs_check
from prognosis_dask.modelling.estimators.prediction import Prediction
from prognosis_dask.modelling.estimators.scores import linear_score

_MOST_STEPS = 100
#: Newton's decrement at which the fit ends; one more step would change the log likelihood by less than this.
_SETTLED = 1e-10
_WIDEST = 500.0
#: A log shape beyond this is running away to infinity: hazards that rise with the 150th power of time are none.
_STEEPEST = 5.0


@dataclass(frozen=True)
class Residual:
    """The distribution of ``w``.

    Attributes
    ----------
    name
        Of the model, in words.
    likelihood
        Of ``w`` and which are events: the log density of events and the log survival of the others, up to constants.
    slopes
        Of the same: its derivative by ``w``, and the negative of the second one.
    survival
        The probability of a value beyond ``w``.
    """

    name: str
    likelihood: Callable[[FloatArray, BoolArray], FloatArray]
    slopes: Callable[[FloatArray, BoolArray], tuple[FloatArray, FloatArray]]
    survival: Callable[[FloatArray], FloatArray]


def _extreme_slopes(w: FloatArray, event: BoolArray) -> tuple[FloatArray, FloatArray]:
    grown = np.exp(w)
    return event - grown, grown


def _logistic_slopes(w: FloatArray, event: BoolArray) -> tuple[FloatArray, FloatArray]:
    p = expit(w)
    return event - (1 + event) * p, (1 + event) * p * (1 - p)


def _normal_slopes(w: FloatArray, event: BoolArray) -> tuple[FloatArray, FloatArray]:
    hazard = np.exp(-(w**2) / 2 - log_ndtr(-w)) / np.sqrt(2 * np.pi)
    return np.where(event, -w, -hazard), np.where(event, 1.0, hazard * (hazard - w))


EXTREME = Residual(
    "Weibull",
    lambda w, event: event * w - np.exp(w),
    _extreme_slopes,
    lambda w: np.exp(-np.exp(np.clip(w, -_WIDEST, _WIDEST))),
)
LOGISTIC = Residual(
    "Log-logistic",
    lambda w, event: event * w - (1 + event) * np.logaddexp(0.0, w),
    _logistic_slopes,
    lambda w: expit(-w),
)
NORMAL = Residual(
    "Log-normal",
    lambda w, event: np.where(event, -(w**2) / 2, log_ndtr(-w)),
    _normal_slopes,
    lambda w: ndtr(-w),
)


@dataclass(frozen=True, eq=False)
class FailureTime:
    """Survival is the probability of a residual beyond ``shape * (log t - intercept - Z @ coefficient)``.

    Attributes
    ----------
    intercept
        Of a case whose features are at their means: Weibull's log scale, else the log of the median time, in days.
    shape
        One over the spread of the log times.
    coefficient
        Log time ratio per standard deviation, shape (features,).
    """

    intercept: float
    shape: float
    coefficient: FloatArray
    residual: ClassVar[Residual]

    def predict(self, Z: FloatArray) -> Prediction:
        """Risk score and survival of cases, from prepared features.

        The risk score is ``-shape * Z @ coefficient``: to the mean case Weibull's log hazard ratio, the log-logistic
        model's log odds ratio of the event, the log-normal model's difference in probits.
        """
        log_scale = self.intercept + linear_score(Z, self.coefficient)
        return Prediction(self.shape * (self.intercept - log_scale), partial(self._survival, log_scale))

    def _survival(self, log_scale: FloatArray, times_days: FloatArray) -> FloatArray:
        w = self.shape * (np.log(np.maximum(times_days, 1e-300)) - log_scale[:, None])
        return np.asarray(self.residual.survival(w))


class WeibullAFT(FailureTime):
    """Survival is ``exp(-(t / scale) ** shape)``: hazards are proportional as well, and rise if ``shape > 1``."""

    residual = EXTREME


class LogLogisticAFT(FailureTime):
    """Survival is ``1 / (1 + (t / median) ** shape)``: the odds of the event are proportional."""

    residual = LOGISTIC


class LogNormalAFT(FailureTime):
    """The logarithm of the time is normal, with standard deviation ``1 / shape``."""

    residual = NORMAL


def fit_failure_time(
    kind: type[FailureTime],
    Z: FloatArray,
    endpoint: Endpoint,
    penalties: Sequence[float],
    l1_ratio: float,
    seed: list[int],
) -> list[FailureTime]:
    """Fit one model per penalty, by Newton's method on intercept, coefficients and log shape.

    Maximises the log likelihood less ``cases * penalty / 2 * |b|²``, the scale of lifelines' ``WeibullAFTFitter``. Of a
    case that entered late it is that of its time given that it lived to its entry.

    Raises
    ------
    StatisticsError
        When there is no event, or no maximum, or an absolute penalty is asked for.
    """
    assert isinstance(endpoint, Survival)
    if l1_ratio:
        raise StatisticsError(
            f"mixing is {l1_ratio:g}: an accelerated failure time model has a squared penalty only, so leave it 0"
        )
    if not endpoint.event.any():
        raise StatisticsError(f"all {len(endpoint)} training cases are censored: without events nothing can be learnt")
    models: dict[float, FailureTime] = {}
    followed = _Followed(_design(Z), np.log(endpoint.time_days), endpoint.event)
    late = _entered_late(followed.design, endpoint)
    start = np.zeros(Z.shape[1] + 2)
    start[0] = followed.log_time.mean()
    for penalty in sorted(set(penalties), reverse=True):
        likelihood = _Likelihood(kind.residual, followed, late, _prices(len(start), penalty * len(Z)))
        start = _maximise(likelihood, start)
        if needs_check(penalty * len(Z)):
            expect_determined(_of_coefficients(likelihood.derivatives(start)[1]), Z, start[1:-1])
        models[penalty] = kind(float(start[0]), float(np.exp(start[-1])), start[1:-1])
    return [models[penalty] for penalty in penalties]


@dataclass(frozen=True)
class _Followed:
    """Cases up to a time; ``event``: which had it then."""

    design: FloatArray
    log_time: FloatArray
    event: BoolArray

    def residuals(self, theta: FloatArray) -> FloatArray:
        """The cases' ``w``."""
        return np.asarray(np.exp(theta[-1]) * (self.log_time - self.design @ theta[:-1]))


def _entered_late(design: FloatArray, endpoint: Survival) -> _Followed:
    """The cases that entered after 0, up to their entry."""
    entry = np.zeros(len(endpoint)) if endpoint.entry_days is None else endpoint.entry_days
    late = entry > 0
    return _Followed(design[late], np.log(entry[late]), np.zeros(int(late.sum()), dtype=bool))


@dataclass(frozen=True)
class _Likelihood:
    """The penalised likelihood of the parameters: intercept, coefficients, log of the shape.

    That of all cases, over that of the late ones up to their entry.
    """

    residual: Residual
    followed: _Followed
    late: _Followed
    priced: FloatArray

    def value(self, theta: FloatArray) -> float:
        """Up to terms that no parameter enters; minus infinity out of range."""
        if abs(theta[-1]) > 2 * _STEEPEST:
            return -np.inf
        w, before = self.followed.residuals(theta), self.late.residuals(theta)
        if w.max() > _WIDEST:
            return -np.inf
        event = self.followed.event
        likelihood = self.residual.likelihood(w, event).sum() + event.sum() * theta[-1]
        likelihood -= self.residual.likelihood(before, self.late.event).sum()
        return float(likelihood - 0.5 * self.priced @ theta**2)

    def derivatives(self, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Gradient, and information (the negative Hessian)."""
        gradient, information = self._derivatives_of(self.followed, theta)
        if len(self.late.event):
            before, known = self._derivatives_of(self.late, theta)
            gradient, information = gradient - before, information - known
        gradient = gradient - self.priced * theta
        information.flat[:: len(theta) + 1] += self.priced
        return gradient, information

    def _derivatives_of(self, cases: _Followed, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        shape, w, design = np.exp(theta[-1]), cases.residuals(theta), cases.design
        slope, curvature = self.residual.slopes(w, cases.event)
        gradient = np.append(-shape * (design.T @ slope), slope @ w + cases.event.sum())
        information = np.empty((len(theta), len(theta)))
        information[:-1, :-1] = shape**2 * (design.T * curvature) @ design
        information[:-1, -1] = information[-1, :-1] = shape * (design.T @ (slope - curvature * w))
        information[-1, -1] = curvature @ w**2 - slope @ w
        return gradient, information


def _maximise(likelihood: _Likelihood, start: FloatArray) -> FloatArray:
    what = (
        f"{likelihood.residual.name} model of {len(start) - 2} features on "
        f"{int(likelihood.followed.event.sum())} events"
    )
    theta = start
    value = likelihood.value(theta)
    for _ in range(_MOST_STEPS):
        gradient, information = likelihood.derivatives(theta)
        step = _step(likelihood.residual.name, information, gradient)
        length = 1.0
        while length > 1e-10 and likelihood.value(theta + length * step) < value:
            length /= 2
        theta = theta + length * step
        if abs(theta[-1]) > _STEEPEST:
            raise StatisticsError(f"{what} has no maximum: it fits the times exactly; take fewer features than events")
        value = likelihood.value(theta)
        if float(gradient @ step) < _SETTLED:
            return theta
    raise StatisticsError(f"{what} did not converge in {_MOST_STEPS} steps; raise the penalty")


def _of_coefficients(information: FloatArray) -> FloatArray:
    """The information on the coefficients where intercept and shape are free to follow them."""
    free, inner = [0, -1], slice(1, -1)
    across = information[inner, free]
    return np.asarray(information[inner, inner] - across @ np.linalg.pinv(information[np.ix_(free, free)]) @ across.T)


def _design(Z: FloatArray) -> FloatArray:
    return np.column_stack([np.ones(len(Z)), Z])


def _prices(parameters: int, penalty: float) -> FloatArray:
    """The squared penalty of each parameter: intercept and shape are free."""
    priced = np.full(parameters, penalty)
    priced[[0, -1]] = 0.0
    return priced


def _step(name: str, information: FloatArray, gradient: FloatArray) -> FloatArray:
    """Newton's step, the curvature lifted where it is not that of a maximum."""
    lift = 0.0
    for _ in range(30):
        try:
            lifted = information + lift * np.eye(len(gradient))
            np.linalg.cholesky(lifted)
            return np.asarray(np.linalg.solve(lifted, gradient))
        except np.linalg.LinAlgError:
            lift = max(10 * lift, 1e-8 * float(np.abs(np.diag(information)).max()))
    raise StatisticsError(f"{name} model: columns are collinear; drop some, or raise the penalty")
