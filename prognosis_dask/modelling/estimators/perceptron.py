"""A multi-layer perceptron with one hidden layer: the brain study's artificial neural network."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prognosis_dask.arrays import FloatArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Classes, Endpoint
from prognosis_dask.modelling.estimators.prediction import (
    Prediction,
    balanced_weights,
    class_prediction,
    prevalence,
)
from prognosis_dask.modelling.estimators.scores import linear_score

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
