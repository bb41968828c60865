"""Weibull's accelerated failure time model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from prognosis_dask.arrays import FloatArray
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


@dataclass(frozen=True, eq=False)
class WeibullAFT:
    """Survival is ``exp(-(t / scale) ** shape)`` with ``log scale = intercept + Z @ coefficient``.

    Attributes
    ----------
    intercept
        Log of the scale, in days, of a case whose features are at their means.
    shape
        Above one: the hazard rises.
    coefficient
        Log time ratio per standard deviation, shape (features,).
    """

    intercept: float
    shape: float
    coefficient: FloatArray

    def predict(self, Z: FloatArray) -> Prediction:
        """Risk score (the log hazard ratio to the mean case) and survival of cases, from prepared features."""
        log_scale = self.intercept + linear_score(Z, self.coefficient)
        return Prediction(self.shape * (self.intercept - log_scale), partial(self._survival, log_scale))

    def _survival(self, log_scale: FloatArray, times_days: FloatArray) -> FloatArray:
        exponent = self.shape * (np.log(np.maximum(times_days, 1e-300)) - log_scale[:, None])
        return np.asarray(np.exp(-np.exp(np.clip(exponent, -_WIDEST, _WIDEST))))


def fit_weibull(
    Z: FloatArray, endpoint: Endpoint, penalties: Sequence[float], l1_ratio: float, seed: list[int]
) -> list[WeibullAFT]:
    """Fit one model per penalty, by Newton's method on intercept, coefficients and log shape.

    Maximises the log likelihood less ``cases * penalty / 2 * |b|²``, the scale of lifelines' ``WeibullAFTFitter``.

    Raises
    ------
    StatisticsError
        When there is no event, or no maximum, or an absolute penalty is asked for.
    """
    assert isinstance(endpoint, Survival)
    if l1_ratio:
        raise StatisticsError(
            f"mixing is {l1_ratio:g}: learner 'weibull-aft' has a squared penalty only, so leave it 0"
        )
    if not endpoint.event.any():
        raise StatisticsError(f"all {len(endpoint)} training cases are censored: without events nothing can be learnt")
    models: dict[float, WeibullAFT] = {}
    log_time = np.log(endpoint.time_days)
    start = np.zeros(Z.shape[1] + 2)
    start[0] = log_time.mean()
    for penalty in sorted(set(penalties), reverse=True):
        event = endpoint.event.astype(float)
        start = _maximise(Z, log_time, event, penalty * len(Z), start)
        if needs_check(penalty * len(Z)):
            _, information = _derivatives(_design(Z), log_time, event, _prices(len(start), penalty * len(Z)), start)
            expect_determined(_of_coefficients(information), Z, start[1:-1])
        models[penalty] = WeibullAFT(float(start[0]), float(np.exp(start[-1])), start[1:-1])
    return [models[penalty] for penalty in penalties]


def _maximise(Z: FloatArray, log_time: FloatArray, event: FloatArray, penalty: float, start: FloatArray) -> FloatArray:
    design, priced = _design(Z), _prices(len(start), penalty)
    theta = start
    value = _value(design, log_time, event, priced, theta)
    for _ in range(_MOST_STEPS):
        gradient, information = _derivatives(design, log_time, event, priced, theta)
        step = _step(information, gradient)
        length = 1.0
        while length > 1e-10 and _value(design, log_time, event, priced, theta + length * step) < value:
            length /= 2
        theta = theta + length * step
        if abs(theta[-1]) > _STEEPEST:
            raise StatisticsError(
                f"Weibull model of {Z.shape[1]} features on {int(event.sum())} events has no maximum: it fits "
                "the times exactly; take fewer features than events"
            )
        value = _value(design, log_time, event, priced, theta)
        if float(gradient @ step) < _SETTLED:
            return theta
    raise StatisticsError(
        f"Weibull model of {Z.shape[1]} features on {int(event.sum())} events did not converge in {_MOST_STEPS} steps; "
        "raise the penalty"
    )


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


def _value(design: FloatArray, log_time: FloatArray, event: FloatArray, priced: FloatArray, theta: FloatArray) -> float:
    """Log likelihood, without the terms that no parameter enters, less the penalty; minus infinity out of range."""
    if abs(theta[-1]) > 2 * _STEEPEST:
        return -np.inf
    w = np.exp(theta[-1]) * (log_time - design @ theta[:-1])
    if w.max() > _WIDEST:
        return -np.inf
    return float(event @ (w + theta[-1]) - np.exp(w).sum() - 0.5 * priced @ theta**2)


def _derivatives(
    design: FloatArray, log_time: FloatArray, event: FloatArray, priced: FloatArray, theta: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Gradient, and information (the negative Hessian); the last parameter is the log of the shape."""
    shape = np.exp(theta[-1])
    w = shape * (log_time - design @ theta[:-1])
    grown = np.exp(w)
    left = event - grown
    gradient = np.append(-shape * (design.T @ left), left @ w + event.sum()) - priced * theta
    information = np.empty((len(theta), len(theta)))
    information[:-1, :-1] = shape**2 * (design.T * grown) @ design
    information[:-1, -1] = information[-1, :-1] = shape * (design.T @ (left - grown * w))
    information[-1, -1] = grown @ w**2 - left @ w
    information.flat[:: len(theta) + 1] += priced
    return gradient, information


def _step(information: FloatArray, gradient: FloatArray) -> FloatArray:
    """Newton's step, the curvature lifted where it is not that of a maximum."""
    lift = 0.0
    for _ in range(30):
        try:
            lifted = information + lift * np.eye(len(gradient))
            np.linalg.cholesky(lifted)
            return np.asarray(np.linalg.solve(lifted, gradient))
        except np.linalg.LinAlgError:
            lift = max(10 * lift, 1e-8 * float(np.abs(np.diag(information)).max()))
    raise StatisticsError("Weibull model: columns are collinear; drop some, or raise the penalty")
