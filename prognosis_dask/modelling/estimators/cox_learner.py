"""Cox's proportional hazards with ridge, lasso or elastic-net penalty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from prognosis_dask.arrays import FloatArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Endpoint, Survival
from prognosis_dask.modelling.estimators.baseline import Baseline, breslow
from prognosis_dask.modelling.estimators.cox import PartialLikelihood, maximise
from prognosis_dask.modelling.estimators.determined import UndeterminedError, expect_determined, needs_check
from prognosis_dask.modelling.estimators.elastic_net import maximise_elastic_net
from prognosis_dask.modelling.estimators.prediction import Prediction
from prognosis_dask.modelling.estimators.scores import linear_score


@dataclass(frozen=True, eq=False)
class ProportionalHazards:
    """A linear risk score on a baseline hazard.

    Attributes
    ----------
    coefficient
        Log hazard ratio per standard deviation, shape (features,).
    standard_error
        Of each; NaN where an absolute penalty takes part, which has no such thing.
    baseline
        Breslow's, of a case whose features are all at their means.
    """

    coefficient: FloatArray
    standard_error: FloatArray
    baseline: Baseline

    def predict(self, Z: FloatArray) -> Prediction:
        """Risk score and survival of cases, from prepared features of shape (cases, features)."""
        risk = linear_score(Z, self.coefficient)
        return Prediction(risk, partial(self.baseline.survival, risk))


def fit_proportional_hazards(
    Z: FloatArray, endpoint: Endpoint, penalties: Sequence[float], mixing: float, seed: list[int]
) -> list[ProportionalHazards]:
    """Fit one model per penalty, the strongest first and each from the one before.

    Maximises the log partial likelihood (Efron's ties) less
    ``cases * penalty * ((1 - mixing) / 2 * |b|² + mixing * sum |b|)``: the scale of lifelines' ``CoxPHFitter``.

    Raises
    ------
    StatisticsError
        When there is no event, or, almost without penalty, no maximum: an UndeterminedError with the columns.
    """
    assert isinstance(endpoint, Survival)
    if not endpoint.event.any():
        raise StatisticsError(f"all {len(endpoint)} training cases are censored: without events nothing can be learnt")
    order = np.argsort(endpoint.time_days, kind="stable")
    ordered, in_order = endpoint.rows(order), Z[order]
    sorted_rows, turn = in_order, None
    if mixing == 0 and Z.shape[1] > len(Z):
        # a ridge solution lies in the span of the cases: as many directions as cases are enough
        left, size, turn = np.linalg.svd(sorted_rows, full_matrices=False)
        sorted_rows = left * size
    likelihood = PartialLikelihood(sorted_rows, ordered.time_days, ordered.event, 0.0)
    models: dict[float, ProportionalHazards] = {}
    start = np.zeros(sorted_rows.shape[1])
    for penalty in sorted(set(penalties), reverse=True):
        likelihood.penalty = penalty * (1 - mixing) * len(Z)
        if mixing > 0 and penalty > 0:
            start = maximise_elastic_net(likelihood, penalty * mixing, start)
            error = np.full(len(start), np.nan)
            if needs_check(penalty * len(Z)):
                expect_determined(likelihood.derivatives(start)[1], sorted_rows, start)
        else:
            start, information = _maximised(likelihood, start, turn)
            error = _standard_errors(information, turn)
        coefficient = start if turn is None else turn.T @ start
        models[penalty] = ProportionalHazards(coefficient, error, breslow(ordered, linear_score(in_order, coefficient)))
    return [models[penalty] for penalty in penalties]


def _maximised(
    likelihood: PartialLikelihood, start: FloatArray, turn: FloatArray | None
) -> tuple[FloatArray, FloatArray]:
    """The maximum and the information, where the cases determine one."""
    try:
        coefficient, information = maximise(likelihood, start)
    except UndeterminedError as error:
        if turn is None:
            raise
        raise UndeterminedError(range(turn.shape[1]), turn.shape[1], error.reason) from error
    if needs_check(likelihood.penalty):
        expect_determined(information, likelihood.Z, coefficient, turn)
    return coefficient, information


def _standard_errors(information: FloatArray, turn: FloatArray | None) -> FloatArray:
    """From the penalised information; with more features than cases there are none."""
    if turn is not None:
        return np.full(turn.shape[1], np.nan)
    return np.asarray(np.sqrt(np.diag(np.linalg.inv(information))))
