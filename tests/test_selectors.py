"""Selectors against other programs and slow, obvious versions, and what they find."""

from __future__ import annotations

import numpy as np
import pytest
from lifelines.statistics import logrank_test
from scipy.stats import false_discovery_control
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC
from sksurv.linear_model import CoxnetSurvivalAnalysis
from sksurv.util import Surv

from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Classes, Survival
from prognosis_dask.modelling.estimators.prediction import martingale_residuals
from prognosis_dask.modelling.estimators.svm import Gram, solve_dual, solve_many_cases
from prognosis_dask.modelling.selectors import (
    FALL,
    L1_RATIO,
    PAIRS,
    SELECTORS,
    STEPS,
    cox_entries,
    false_discovery,
    logistic_entries,
    rank_mrmr,
    rank_score_test,
    score_test,
    selection_share,
    selector_for,
)
from prognosis_dask.modelling.selectors.svm_rfe import rank_features, rank_features_rbf
from tests.synthetic_tables import class_table, survival_table


def standardised(X: np.ndarray) -> np.ndarray:
    return (X - X.mean(axis=0)) / X.std(axis=0, ddof=1)


@pytest.mark.parametrize("name", sorted(SELECTORS))
def test_every_selector_puts_the_planted_features_first(name: str) -> None:
    kinds = SELECTORS[name].endpoints
    for table, planted in (
        (survival_table(3, n=120, p=15, signal=1.5), 1),
        (class_table(3, n=120, p=15, signal=2.0), 2),
        (class_table(3, n=120, p=15, signal=2.5, classes=3), 3),
    ):
        if not isinstance(table.endpoint, kinds):
            continue
        Z = standardised(table.X)
        ranking = selector_for(name, table.endpoint).rank(Z, table.endpoint, 365.0, [0])
        assert len(set(ranking)) == len(ranking) <= 15
        # minimum redundancy may prefer an unrelated feature from the second on
        certain = 1 if name == "mrmr" else max(1, planted - 1)
        assert set(ranking[:certain]) <= set(range(planted))
        assert (selector_for(name, table.endpoint).rank(Z, table.endpoint, 365.0, [0]) == ranking).all()


def test_the_score_test_of_two_groups_is_the_log_rank_test() -> None:
    table = survival_table(0)
    groups = (table.X > 0).astype(float)
    for column, p in enumerate(score_test(standardised(groups), table.survival)[:10]):
        high = groups[:, column] == 1
        time, event = table.time_days, table.event
        theirs = logrank_test(time[high], time[~high], event[high], event[~high]).p_value
        assert p == pytest.approx(theirs, rel=1e-8)


def test_false_discoveries_are_controlled_as_in_scipy_and_in_fact() -> None:
    p = np.random.default_rng(0).random(50) ** 2
    np.testing.assert_allclose(false_discovery(p), false_discovery_control(p))
    kept = [
        len(rank_score_test(survival_table(seed).X, survival_table(seed).endpoint, 365.0, [0])) for seed in range(20)
    ]
    assert np.mean(kept) < 1.2  # without a signal hardly ever more than the one that is always kept


def test_entries_into_the_elastic_net_path_are_those_of_scikit_survival() -> None:
    table = survival_table(1, n=100, p=20, signal=1.0)
    Z = standardised(table.X)
    y = Surv.from_arrays(table.event, table.time_days)
    first = CoxnetSurvivalAnalysis(l1_ratio=L1_RATIO, n_alphas=2).fit(Z, y).alphas_[0]
    prices = first * np.geomspace(1.0, FALL, STEPS)[1:]
    path = CoxnetSurvivalAnalysis(l1_ratio=L1_RATIO, alphas=prices, tol=1e-10, max_iter=10**6).fit(Z, y).coef_ != 0
    entry = np.where(path.any(axis=1), path.argmax(axis=1), STEPS)
    ours = cox_entries(Z, table.survival, 20)
    assert sorted(ours) == np.flatnonzero(entry < STEPS).tolist()
    assert (np.diff(entry[ours]) >= 0).all()


@pytest.mark.filterwarnings("ignore::FutureWarning")  # "penalty" is named otherwise from scikit-learn 1.8 on
def test_entries_into_the_logistic_path_start_where_no_coefficient_is_left() -> None:
    table = class_table(1, signal=1.0)
    assert isinstance(table.endpoint, Classes)
    Z, label = standardised(table.X), table.endpoint.label
    best = logistic_entries(Z, table.endpoint, 1)[0]
    for C in (0.02, 0.03, 0.05, 0.1):
        machine = LogisticRegression(
            penalty="elasticnet", l1_ratio=1.0, C=C, class_weight="balanced", solver="saga", max_iter=10**4
        )
        held = np.flatnonzero(machine.fit(Z, label).coef_[0])
        if len(held):
            assert best in held
            break


def test_mrmr_is_its_slow_obvious_version() -> None:
    table = survival_table(2, n=60, p=12, signal=1.0)
    X = table.X.copy()
    X[:, 5] = X[:, 0] + 0.01 * X[:, 5]  # redundant with the best
    residual = martingale_residuals(table.survival)
    relevance = [abs(np.corrcoef(x, residual)[0, 1]) for x in X.T]
    ranking = [int(np.argmax(relevance))]
    while len(ranking) < 12:
        score = {
            j: relevance[j] / np.mean([abs(np.corrcoef(X[:, j], X[:, i])[0, 1]) for i in ranking])
            for j in range(12)
            if j not in ranking
        }
        ranking.append(max(score, key=lambda j: score[j]))
    assert rank_mrmr(X, table.endpoint, 365.0, [0]).tolist() == ranking
    assert abs(ranking.index(0) - ranking.index(5)) > 1


def test_martingale_residuals_sum_to_zero_and_count_each_event() -> None:
    endpoint = Survival(np.array([1.0, 2.0, 2.0, 3.0]), np.array([True, True, False, False]))
    np.testing.assert_allclose(martingale_residuals(endpoint), [3 / 4, 1 - 1 / 4 - 1 / 3, -7 / 12, -7 / 12])


def test_stability_counts_how_many_halves_take_a_feature() -> None:
    table = survival_table(4, n=120, p=20, signal=1.5)
    share = selection_share(standardised(table.X), table.endpoint, [0])
    assert share[0] == 1.0
    assert share[1:].max() < 0.9
    assert share.sum() * 2 * PAIRS == pytest.approx(2 * 2 * PAIRS)  # two from each half: sqrt(0.2 * 20)


def test_radial_elimination_is_its_slow_obvious_version() -> None:
    rng = np.random.default_rng(0)
    X = rng.random((30, 6))
    label = (X[:, 0] - 0.5) ** 2 + 0.5 * (X[:, 1] - 0.5) ** 2 + 0.02 * rng.normal(size=30) < 0.09
    scaled = (X - X.min(axis=0)) / np.ptp(X, axis=0)
    left, eliminated = list(range(6)), []
    while left:
        gamma = 1 / scaled[:, left].var(axis=0).sum()
        machine = SVC(kernel="rbf", gamma=gamma, tol=1e-8).fit(scaled[:, left], label)
        dual, at = machine.dual_coef_[0], scaled[machine.support_]

        def energy(columns: list[int], dual: np.ndarray = dual, at: np.ndarray = at, gamma: float = gamma) -> float:
            apart = ((at[:, None, columns] - at[None, :, columns]) ** 2).sum(axis=2)
            return float(0.5 * dual @ np.exp(-gamma * apart) @ dual)

        change = [energy(left) - energy([c for c in left if c != column]) for column in left]
        eliminated.append(left.pop(int(np.argmin(change))))
    assert rank_features_rbf(X, label).tolist() == eliminated[::-1]
    assert set(rank_features_rbf(X, label)[:2]) == {0, 1}


def test_several_classes_are_eliminated_by_one_machine_against_the_rest_each() -> None:
    table = class_table(5, n=40, p=6, signal=1.0, classes=3)
    assert isinstance(table.endpoint, Classes)
    X, label = table.X, table.endpoint.label
    scaled = (X - X.min(axis=0)) / np.ptp(X, axis=0)
    left, eliminated = list(range(6)), []
    while left:
        machines = [SVC(kernel="linear", tol=1e-6).fit(scaled[:, left], label == k) for k in range(3)]
        weight = sum(machine.coef_[0] ** 2 for machine in machines)
        eliminated.append(left.pop(int(np.argmin(weight))))
    assert rank_features(X, label).tolist() == eliminated[::-1]


@pytest.mark.parametrize("shape", [(60, 5), (60, 90), (200, 30), (2000, 20)])
@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
def test_many_cases_have_the_same_machine_as_few(shape: tuple[int, int], C: float) -> None:
    rng = np.random.default_rng(shape[1])
    X = rng.random(shape)
    X[1] = X[0]
    sign = np.where(X[:, 0] + 0.3 * rng.normal(size=shape[0]) > 0.5, 1.0, -1.0)
    exact = solve_dual(Gram(X @ X.T), sign, C, np.zeros(shape[0]))
    found, weights = solve_many_cases(X, sign, C)
    assert found is not None
    assert abs(found.sum()) < 1e-9 * C * shape[0]
    assert ((found * sign >= 0) & (found * sign <= C)).all()
    largest = np.abs(X.T @ exact).max()  # the corner is rounded over a thousandth of the margin in the end
    np.testing.assert_allclose(X.T @ found, X.T @ exact, atol=3e-3 * largest)
    np.testing.assert_allclose(weights[:-1], X.T @ exact, atol=3e-3 * largest)
    settled = solve_dual(Gram(X @ X.T), sign, C, found)
    np.testing.assert_allclose(X.T @ settled, X.T @ exact, atol=1e-6 * largest)


@pytest.mark.parametrize("signal", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("share", [0.03, 0.5])
def test_features_of_many_cases_rank_as_those_of_few(
    signal: float, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(7)
    X = rng.normal(size=(500, 8))
    value = signal * X[:, :3].sum(axis=1) + rng.normal(size=500)
    label = value > np.quantile(value, 1 - share)
    begun = rank_features(X, label).tolist()
    monkeypatch.setattr("prognosis_dask.modelling.selectors.svm_rfe._many", lambda cases, features: False)
    assert rank_features(X, label).tolist() == begun


def test_elimination_of_many_cases_ends_with_the_same_features(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 40))
    label = X[:, :3].sum(axis=1) + 2 * rng.normal(size=300) > 0
    one_by_one = rank_features(X, label)
    monkeypatch.setattr("prognosis_dask.modelling.selectors.svm_rfe._LARGE", 300 * 10)
    ranking = rank_features(X, label)
    assert sorted(ranking) == list(range(40))
    assert (ranking[:5] == one_by_one[:5]).all()
    assert set(ranking[:3]) == {0, 1, 2}


def test_what_cannot_be_selected_is_said() -> None:
    table = survival_table(0)
    early = Survival(np.full(80, 30.0), np.ones(80, dtype=bool))
    with pytest.raises(StatisticsError, match=r"are of one class.*label_days"):
        selector_for("svm-rfe", early).rank(table.X, early, 365.0, [0])
    censored = Survival(table.time_days, np.zeros(80, dtype=bool))
    for name in ("cox-univariate", "cox-elastic-net", "stability"):
        with pytest.raises(StatisticsError, match="censored: without events nothing can be learnt"):
            selector_for(name, censored).rank(table.X, censored, 365.0, [0])
    with pytest.raises(StatisticsError, match=r"'anova' does not select for survival; .* svm-rfe"):
        selector_for("anova", table.endpoint)
