"""SVM-RFE against scikit-learn's, and the dual solver against its own optimality."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.feature_selection import RFE
from sklearn.preprocessing import minmax_scale
from sklearn.svm import SVC

from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.estimators.svm import Gram, solve_dual
from prognosis_dask.modelling.selectors.svm_rfe import rank_features, survival_label
from tests.lung1_tables import read_deep


@pytest.fixture(scope="module")
def lung1(shared_data: Path) -> FeatureTable:
    return read_deep(shared_data / "lung1_tables")


def sklearn_ranking(X: np.ndarray, label: np.ndarray, C: float = 1.0) -> np.ndarray:
    machine = SVC(kernel="linear", C=C, tol=1e-6)
    return np.argsort(RFE(machine, step=1, n_features_to_select=1).fit(minmax_scale(X), label).ranking_)


def duality_gap(scaled: np.ndarray, sign: np.ndarray, C: float, dual: np.ndarray) -> float:
    """Primal less dual objective of the soft-margin machine, with the best intercept: zero at the optimum only."""
    weight = scaled.T @ dual
    dual_objective = sign @ dual - 0.5 * weight @ weight
    margins = scaled @ weight
    hinge = [np.maximum(0, 1 - sign * (margins + b)).sum() for b in sign - margins]  # piecewise linear in b
    return float(0.5 * weight @ weight + C * min(hinge) - dual_objective)


@pytest.mark.parametrize("shape", [(40, 8), (60, 30), (40, 90)])
@pytest.mark.parametrize("seed", [0, 1])
def test_ranking_is_that_of_scikit_learns_rfe(shape: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=shape) * rng.uniform(0.1, 100, shape[1]) + rng.normal(size=shape[1])
    label = minmax_scale(X)[:, :3].sum(axis=1) + 0.2 * rng.normal(size=shape[0]) > 1.5
    assert rank_features(X, label, C=10.0).tolist() == sklearn_ranking(X, label, C=10.0).tolist()


def test_ranking_is_that_of_scikit_learns_rfe_on_breast_cancer() -> None:
    X, label = load_breast_cancer(return_X_y=True)
    assert rank_features(X, label == 1).tolist() == sklearn_ranking(X, label == 1).tolist()


def test_ranking_is_that_of_scikit_learns_rfe_on_lung1_patients(lung1: FeatureTable) -> None:
    table = lung1.rows(np.arange(60))
    alive, known = survival_label(table.survival)
    assert known.all()
    ours, theirs = rank_features(table.X, alive), sklearn_ranking(table.X, alive)
    assert (ours == theirs).mean() > 0.99


@pytest.mark.slow
def test_ranking_of_all_lung1_is_that_of_scikit_learns_rfe(lung1: FeatureTable) -> None:
    # LIBSVM keeps the kernel in single precision: eliminations that are close calls come out in another order
    alive, known = survival_label(lung1.survival)
    X, label = lung1.X[known], alive[known]
    ours, theirs = rank_features(X, label), sklearn_ranking(X, label)
    assert (ours == theirs).mean() > 0.95
    assert set(ours[:100]) == set(theirs[:100])


@pytest.mark.parametrize("C", [0.01, 1.0, 1000.0])
@pytest.mark.parametrize("shape", [(50, 3), (50, 200), (120, 20), (12, 1)])
def test_dual_is_optimal(shape: tuple[int, int], C: float) -> None:
    rng = np.random.default_rng(shape[1])
    X = minmax_scale(rng.normal(size=shape))
    X[1] = X[0]  # equal rows, of both classes
    X[2] = X[3]
    sign = np.where(np.arange(shape[0]) % 3 > 0, 1.0, -1.0)
    dual = solve_dual(Gram(X @ X.T), sign, C, np.zeros(shape[0]))
    assert abs(dual.sum()) < 1e-9 * C * shape[0]
    assert ((dual * sign >= 0) & (dual * sign <= C)).all()
    assert duality_gap(X, sign, C, dual) < 1e-6 * C * shape[0]
    without = X[:, :-1]
    warm = solve_dual(Gram(without @ without.T), sign, C, dual)
    assert duality_gap(without, sign, C, warm) < 1e-6 * C * shape[0]


def test_constant_columns_rank_last_and_duplicates_keep_their_order() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 6))
    label = X[:, 1] + 0.5 * rng.normal(size=50) > 0
    X[:, 0], X[:, 3], X[:, 5] = 7.0, 0.0, X[:, 1]
    ranking = rank_features(X, label).tolist()
    assert ranking[-2:] == [0, 3]
    assert ranking.index(1) < ranking.index(5)


def test_ranking_does_not_depend_on_scale() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 20))
    label = X[:, 0] + rng.normal(size=60) > 0
    assert rank_features(X, label).tolist() == rank_features(1e6 * X - 3e5, label).tolist()


def test_without_a_separating_direction_class_means_decide() -> None:
    # half of the larger class lies on either side: the best machine has weight zero on both columns
    label = np.arange(40) < 10
    X = np.column_stack([np.tile([0.0, 1.0], 20), np.where(label, 0.5, np.tile([0.0, 1.0, 0.5, 0.6], 10))])
    ranking = rank_features(X, label, C=0.001)
    between = np.abs(minmax_scale(X)[label].mean(axis=0) - minmax_scale(X)[~label].mean(axis=0))
    assert ranking.tolist() == np.argsort(-between).tolist()


def test_one_class_cannot_be_ranked() -> None:
    with pytest.raises(StatisticsError, match=r"all 5 cases .* are of one class.* label_days"):
        rank_features(np.eye(5), np.ones(5, dtype=bool))
