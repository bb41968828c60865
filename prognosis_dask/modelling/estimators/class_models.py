"""Models of classes: logistic regression, and a perceptron with one hidden layer, the brain study's neural network."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prognosis_dask.arrays import FloatArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Classes, Endpoint
from prognosis_dask.modelling.estimators.determined import expect_determined, needs_check
from prognosis_dask.modelling.estimators.prediction import (
    Prediction,
    balanced_weights,
    class_prediction,
    prevalence,
)
from prognosis_dask.modelling.estimators.scores import linear_score


@dataclass(frozen=True, eq=False)
class Logistic:
    """Linear scores of the classes, softmax of which are the balanced probabilities.

    Attributes
    ----------
    coefficient
        Per standard deviation, shape (classes, features). Of two classes, the first is the reference (zeros).
    intercept
        Shape (classes,).
    share
        The classes' prevalence among the training cases.
    """

    coefficient: FloatArray
    intercept: FloatArray
    share: FloatArray

    def predict(self, Z: FloatArray) -> Prediction:
        """Predict cases from prepared features, shape (cases, features)."""
        return class_prediction(linear_score(Z, self.coefficient.T) + self.intercept, self.share)


def fit_logistic(
    Z: FloatArray, endpoint: Endpoint, penalties: Sequence[float], l1_ratio: float, seed: list[int]
) -> list[Logistic]:
    """Fit one model per penalty.

    Minimises the log loss, all classes weighing the same, plus
    ``cases * penalty * ((1 - l1_ratio) / 2 * |b|² + l1_ratio * sum |b|)``; the intercepts are free.

    Raises
    ------
    StatisticsError
        When a class has no case, or the penalty is not positive (separable classes have no maximum without one).
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    assert isinstance(endpoint, Classes)
    share, weights = prevalence(endpoint), balanced_weights(endpoint)
    if min(penalties) <= 0:
        raise StatisticsError(f"penalty is {min(penalties):g}: learner 'logistic' needs one above zero")
    if not Z.shape[1]:
        return [Logistic(np.zeros((len(share), 0)), np.zeros(len(share)), share) for _ in penalties]
    models: dict[float, Logistic] = {}
    settings = (
        {"solver": "lbfgs"} if l1_ratio == 0 else {"penalty": "elasticnet", "solver": "saga", "l1_ratio": l1_ratio}
    )
    machine = LogisticRegression(tol=1e-6, max_iter=5000, warm_start=True, random_state=0, **settings)
    for penalty in sorted(set(penalties), reverse=True):
        machine.C = 1.0 / (len(Z) * penalty)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # "penalty" is named otherwise from scikit-learn 1.8 on
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                machine.fit(Z, endpoint.label, sample_weight=weights)
            except ConvergenceWarning as warning:
                raise StatisticsError(
                    f"logistic model of {Z.shape[1]} features on {len(Z)} cases with penalty {penalty:g} did not "
                    "converge; raise the penalty"
                ) from warning
        if needs_check(penalty * len(Z)):
            _expect_determined(Z, machine, weights, penalty * len(Z))
        coefficient, intercept = machine.coef_.copy(), machine.intercept_.copy()
        if len(share) == 2:
            coefficient, intercept = np.vstack([0 * coefficient, coefficient]), np.append(0.0, intercept)
        models[penalty] = Logistic(coefficient, intercept, share)
    return [models[penalty] for penalty in penalties]


def average_logistic(models: Sequence[Logistic]) -> Logistic:
    """The model with the mean log odds of models of completed tables."""
    coefficient, intercept = (
        np.mean([getattr(model, name) for model in models], axis=0) for name in ("coefficient", "intercept")
    )
    return Logistic(coefficient, intercept, models[0].share)


def _expect_determined(Z: FloatArray, machine: Any, weights: FloatArray, penalty: float) -> None:
    """Refuse coefficients that the cases leave open, class by class against the rest."""
    probability = machine.predict_proba(Z)
    shares = probability.T[1:] if probability.shape[1] == 2 else probability.T
    for share, coefficient in zip(shares, machine.coef_, strict=True):
        counts = weights * share * (1 - share)
        apart = Z - counts @ Z / max(float(counts.sum()), 1e-300)  # the intercept is free to follow
        information = apart.T @ (counts[:, None] * apart)
        information.flat[:: len(information) + 1] += penalty
        expect_determined(information, Z, coefficient, separated="the columns tell the classes apart perfectly")


#: Units of the hidden layer.
HIDDEN = 16


@dataclass(frozen=True, eq=False)
class Perceptron:
    """Rectified hidden units, then linear scores of the classes.

    Attributes
    ----------
    hidden_weight, hidden_bias
        Shape (features, units) and (units,).
    weight, bias
        Shape (units, classes) and (classes,). Of two classes, the first is the reference (zeros).
    share
        The classes' prevalence among the training cases.
    """

    hidden_weight: FloatArray
    hidden_bias: FloatArray
    weight: FloatArray
    bias: FloatArray
    share: FloatArray

    def predict(self, Z: FloatArray) -> Prediction:
        """Predict cases from prepared features, shape (cases, features)."""
        hidden = np.maximum(linear_score(Z, self.hidden_weight) + self.hidden_bias, 0.0)
        return class_prediction(linear_score(hidden, self.weight) + self.bias, self.share)


def fit_perceptron(
    Z: FloatArray, endpoint: Endpoint, penalties: Sequence[float], l1_ratio: float, seed: list[int]
) -> list[Perceptron]:
    """Fit one network per penalty (squared, on the weights) by L-BFGS from seeded starts; classes weigh the same.

    Raises
    ------
    StatisticsError
        When a class has no case, there is no feature, or an absolute penalty is asked for.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    assert isinstance(endpoint, Classes)
    if l1_ratio:
        raise StatisticsError(f"mixing is {l1_ratio:g}: learner 'mlp' has a squared penalty only, so leave it 0")
    if not Z.shape[1]:
        raise StatisticsError("learner 'mlp' needs at least one feature")
    share, weights = prevalence(endpoint), balanced_weights(endpoint)
    start = int(np.random.default_rng(seed).integers(2**31))
    models = []
    for penalty in penalties:
        machine = MLPClassifier(
            (HIDDEN,), solver="lbfgs", alpha=penalty * len(Z), max_iter=200, tol=1e-5, random_state=start
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the steps are limited on purpose: early stopping
            machine.fit(Z, endpoint.label, sample_weight=weights)
        (hidden_weight, weight), (hidden_bias, bias) = machine.coefs_, machine.intercepts_
        if len(share) == 2:
            weight, bias = np.column_stack([0 * weight, weight]), np.append(0.0, bias)
        models.append(Perceptron(hidden_weight, hidden_bias, weight, bias, share))
    return models
