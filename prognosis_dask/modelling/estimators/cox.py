"""Cox's proportional hazards with ridge, lasso or elastic-net penalty, and its in-sample curve.

The estimates of a squared penalty are those of lifelines' ``CoxPHFitter(penalizer=...)``: the same scale of penalty,
treatment of ties and standard errors. lifelines smooths an absolute penalty; here its zeros are exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from math import erfc, exp, sqrt

import numpy as np

from prognosis_dask.arrays import FloatArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Endpoint, Survival
from prognosis_dask.modelling.estimators.determined import UndeterminedError, expect_determined, needs_check
from prognosis_dask.modelling.estimators.partial_likelihood import (
    PartialLikelihood,
    likelihood_of,
    maximise,
    maximise_elastic_net,
)
from prognosis_dask.modelling.estimators.prediction import Baseline, Prediction, breslow
from prognosis_dask.modelling.estimators.scores import linear_score
from prognosis_dask.modelling.metrics.concordance import concordance
from prognosis_dask.modelling.metrics.intervals import Z95
from prognosis_dask.modelling.table_spec import Row

#: Log hazards beyond this leave the range of exponentials.
_WIDEST = 600.0


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
    Z: FloatArray, endpoint: Endpoint, penalties: Sequence[float], l1_ratio: float, seed: list[int]
) -> list[ProportionalHazards]:
    """Fit one model per penalty, the strongest first and each from the one before.

    Maximises the log partial likelihood (Efron's ties) less
    ``cases * penalty * ((1 - l1_ratio) / 2 * |b|² + l1_ratio * sum |b|)``: the scale of lifelines' ``CoxPHFitter``.

    Raises
    ------
    StatisticsError
        When there is no event, or, almost without penalty, no maximum: an UndeterminedError with the columns.
    """
    assert isinstance(endpoint, Survival)
    if not endpoint.event.any():
        raise StatisticsError(f"all {len(endpoint)} training cases are censored: without events nothing can be learnt")
    order = endpoint.by_time()
    sorted_rows, turn = Z[order], None
    if l1_ratio == 0 and Z.shape[1] > len(Z):
        # a ridge solution lies in the span of the cases: as many directions as cases are enough
        left, size, turn = np.linalg.svd(sorted_rows, full_matrices=False)
        sorted_rows = left * size
    likelihood = likelihood_of(sorted_rows, endpoint.rows(order))
    models: dict[float, ProportionalHazards] = {}
    start = np.zeros(sorted_rows.shape[1])
    for penalty in sorted(set(penalties), reverse=True):
        likelihood.penalty = penalty * (1 - l1_ratio) * len(Z)
        if l1_ratio > 0 and penalty > 0:
            start = maximise_elastic_net(likelihood, penalty * l1_ratio, start)
            error = np.full(len(start), np.nan)
            if needs_check(penalty * len(Z)):
                expect_determined(likelihood.derivatives(start)[1], sorted_rows, start)
        else:
            start, information = _maximised(likelihood, start, turn)
            error = _standard_errors(information, turn)
        coefficient = start if turn is None else turn.T @ start
        models[penalty] = ProportionalHazards(coefficient, error, breslow(endpoint, linear_score(Z, coefficient)))
    return [models[penalty] for penalty in penalties]


def average_hazards(models: Sequence[ProportionalHazards]) -> ProportionalHazards:
    """The model with the mean risk score of models of completed tables, errors by Rubin's rules; hazards averaged.

    The variance is the mean of the models' own plus ``1 + 1 / m`` times that between them (Rubin, Multiple Imputation
    for Nonresponse in Surveys, 1987).
    """
    coefficients = np.array([model.coefficient for model in models])
    within = np.mean([model.standard_error**2 for model in models], axis=0)
    error = np.sqrt(within + (1 + 1 / len(models)) * coefficients.var(axis=0, ddof=1))
    cumulative = np.mean([model.baseline.cumulative for model in models], axis=0)
    return ProportionalHazards(coefficients.mean(axis=0), error, Baseline(models[0].baseline.times_days, cumulative))


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


def cox_curve(X: FloatArray, endpoint: Survival, ks: Iterable[int], penalty: float = 0.01) -> list[float]:
    """In-sample concordance of the model on the first k columns, for each k: what the reference study reports.

    In-sample figures flatter: they rise with k even on noise. See :mod:`prognosis_dask.modelling.validation.nested`.

    Parameters
    ----------
    X
        Features that vary, best first, shape (cases, features); unscaled.
    penalty
        The squared one, per case.

    Raises
    ------
    StatisticsError
        As :func:`fit_proportional_hazards`.
    """
    Z = (X - X.mean(axis=0)) / X.std(axis=0, ddof=1)
    curve = []
    for k in ks:
        (model,) = fit_proportional_hazards(Z[:, :k], endpoint, [penalty], 0.0, [])
        curve.append(concordance(endpoint, linear_score(Z[:, :k], model.coefficient)).c_index)
    return curve


def coefficient_rows(features: Sequence[str], coefficient: FloatArray, standard_error: FloatArray) -> list[Row]:
    """The rows of ``coefficients``, by Wald's normal approximation."""
    return [
        {
            "feature": name,
            "coef": coef,
            "se": se,
            "hazard_ratio": exp(min(coef, _WIDEST)),
            "lower_95": exp(min(coef - Z95 * se, _WIDEST)),
            "upper_95": exp(min(coef + Z95 * se, _WIDEST)),  # finite where the data say nothing
            "p": erfc(abs(coef) / se / sqrt(2.0)) if se > 0 else float("nan"),
        }
        for name, coef, se in zip(features, coefficient.tolist(), standard_error.tolist(), strict=True)
    ]
