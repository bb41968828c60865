"""The order in which features enter the path of an absolute penalty: Cox's elastic net, and the logistic lasso.

Stability selection takes the features that enter again and again in halves of the cases.
"""

from __future__ import annotations

import warnings

import numpy as np

from prognosis_dask.arrays import FloatArray, IntArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Classes, Endpoint, Survival
from prognosis_dask.modelling.estimators.elastic_net import first_price, maximise_elastic_net
from prognosis_dask.modelling.estimators.partial_likelihood import likelihood_of
from prognosis_dask.modelling.estimators.prediction import balanced_weights

#: The share of the penalty that is absolute, and how far and in how many steps the penalty falls from where the first
#: feature enters. Well-nigh a lasso; the squared rest lets correlated features enter together.
L1_RATIO, FALL, STEPS = 0.9, 0.05, 25
#: Pairs of halves, the share of halves that has to take a feature, and the false selections that are expected at most.
PAIRS, THRESHOLD, FALSE_SELECTIONS = 25, 0.6, 1.0
#: The order of entry needs no more (violation of optimality, per case).
_TOLERANCE = 1e-5


def rank_elastic_net(Z: FloatArray, endpoint: Endpoint, label_days: float, seed: list[int]) -> IntArray:
    """Rank by entry into the path of Cox's elastic net; those that never enter are left out."""
    assert isinstance(endpoint, Survival)
    return cox_entries(Z, endpoint, Z.shape[1])


def cox_entries(Z: FloatArray, endpoint: Survival, enough: int) -> IntArray:
    """The features in the order in which they enter the path, until at least ``enough`` have; of one step, by size."""
    if not endpoint.event.any():
        raise StatisticsError(f"all {len(endpoint)} training cases are censored: without events nothing can be learnt")
    likelihood = likelihood_of(Z, endpoint)
    first = first_price(likelihood)
    coefficient = np.zeros(Z.shape[1])
    entered: list[int] = []
    for price in first * np.geomspace(1.0, FALL, STEPS)[1:]:
        likelihood.penalty = price * (1 - L1_RATIO) / L1_RATIO * len(Z)
        coefficient = maximise_elastic_net(likelihood, price, coefficient, _TOLERANCE)
        _enter(entered, np.abs(coefficient))
        if len(entered) >= enough:
            break
    return np.array(entered, dtype=np.int64)


def rank_lasso(Z: FloatArray, endpoint: Endpoint, label_days: float, seed: list[int]) -> IntArray:
    """Rank by entry into the path of the logistic lasso, all classes weighing the same; the rest is left out."""
    assert isinstance(endpoint, Classes)
    return logistic_entries(Z, endpoint, Z.shape[1])


def logistic_entries(Z: FloatArray, endpoint: Classes, enough: int) -> IntArray:
    """As :func:`cox_entries`, of logistic regression (multinomial for more than two classes)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    weights = balanced_weights(endpoint)
    indicator = endpoint.label[:, None] == np.arange(len(endpoint.names))
    share = weights @ indicator / len(Z)
    first = float(np.abs(Z.T @ (weights[:, None] * (indicator - share))).max()) / len(Z)
    if first == 0:
        raise StatisticsError(f"none of {Z.shape[1]} features differs between the classes {endpoint.names}")
    machine = LogisticRegression(
        penalty="elasticnet", l1_ratio=1.0, solver="saga", tol=1e-3, max_iter=1000, warm_start=True, random_state=0
    )
    entered: list[int] = []
    for price in first * np.geomspace(1.0, FALL, STEPS)[1:]:
        machine.C = 1.0 / (len(Z) * price)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # "penalty" is named otherwise from scikit-learn 1.8 on
            warnings.simplefilter("ignore", ConvergenceWarning)  # the order of entry needs no more
            machine.fit(Z, endpoint.label, sample_weight=weights)
        _enter(entered, np.abs(machine.coef_).max(axis=0))
        if len(entered) >= enough:
            break
    return np.array(entered, dtype=np.int64)


def _enter(entered: list[int], size: FloatArray) -> None:
    new = np.setdiff1d(np.flatnonzero(size), entered)
    entered.extend(new[np.argsort(-size[new], kind="stable")].tolist())


def rank_stability(Z: FloatArray, endpoint: Endpoint, label_days: float, seed: list[int]) -> IntArray:
    """Rank by the share of halves that take the feature; keep those above the threshold.

    Complementary pairs (Shah & Samworth, JRSS B 75, 55, 2013). From each half a lasso takes so many features that at
    most one false selection is expected at the threshold (Meinshausen & Bühlmann, JRSS B 72, 417, 2010, theorem 1).
    Where none is stable, the most frequent alone is kept.
    """
    share = selection_share(Z, endpoint, seed)
    kept = max(1, int((share >= THRESHOLD).sum()))
    return np.argsort(-share, kind="stable")[:kept]


def selection_share(Z: FloatArray, endpoint: Endpoint, seed: list[int]) -> FloatArray:
    """The share of halves that take each feature, shape (features,)."""
    take = max(1, round(np.sqrt((2 * THRESHOLD - 1) * Z.shape[1] * FALSE_SELECTIONS)))
    rng = np.random.default_rng(seed)
    count = np.zeros(Z.shape[1])
    for _ in range(PAIRS):
        for half in _halves(endpoint, rng):
            part = endpoint.rows(half)
            if isinstance(part, Survival):
                chosen = cox_entries(Z[half], part, take)
            else:
                chosen = logistic_entries(Z[half], part, take)
            count[chosen[:take]] += 1
    return count / (2 * PAIRS)


def _halves(endpoint: Endpoint, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Two halves, each with its share of every stratum of the endpoint."""
    shuffled = rng.permutation(len(endpoint))
    dealt = shuffled[np.argsort(endpoint.strata()[shuffled], kind="stable")]
    return np.sort(dealt[::2]), np.sort(dealt[1::2])
