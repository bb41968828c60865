"""The random survival forest beside scikit-survival's and a slow one, and what tuning does with trees."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.tree import DecisionTreeRegressor
from sksurv.datasets import load_veterans_lung_cancer, load_whas500
from sksurv.ensemble import RandomSurvivalForest
from sksurv.util import Surv

from prognosis_dask.modelling.data.endpoint import Survival
from prognosis_dask.modelling.estimators import trees as module
from prognosis_dask.modelling.estimators.trees import LEAF, fit_survival_forest
from prognosis_dask.modelling.fitted import fit_procedure
from prognosis_dask.modelling.metrics.concordance import concordance
from prognosis_dask.modelling.procedure import Procedure
from tests.synthetic_tables import as_table, standardised, survival_table


def slow_hazards(leaf: np.ndarray, drawn: np.ndarray, endpoint: Survival, times: np.ndarray) -> dict[int, np.ndarray]:
    """Nelson and Aalen's cumulative hazard of each leaf at the times, as the formula has it."""
    found = {}
    for node in np.unique(leaf):
        hazard, inside = [0.0], drawn * (leaf == node)
        for t in times:
            dead = inside[endpoint.event & (endpoint.time_days == t)].sum()
            hazard.append(hazard[-1] + (dead / inside[endpoint.time_days >= t].sum() if dead else 0.0))
        found[int(node)] = np.array(hazard[1:])
    return found


def test_the_leaves_hold_nelson_and_aalens_estimate_of_their_drawn_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TREES", 4)
    table = survival_table(0, n=150, p=6, signal=1.0)
    Z, new = standardised(table.X), standardised(survival_table(1, n=30, p=6).X)
    endpoint = Survival(np.ceil(table.time_days / 50) * 50, table.event)  # with ties
    (model,) = fit_survival_forest(Z, endpoint, [0.0], 0.0, [5], [(100, 0)])
    times, rng, total = np.unique(endpoint.time_days[endpoint.event]), np.random.default_rng([5]), 0.0
    score = np.array(
        [
            float(e) - sum((endpoint.event & (endpoint.time_days == u)).sum() / (endpoint.time_days >= u).sum()
                           for u in times[times <= t])
            for t, e in zip(endpoint.time_days, endpoint.event, strict=True)
        ]
    )  # fmt: skip
    for _ in range(4):
        drawn = np.bincount(rng.integers(150, size=150), minlength=150).astype(float)
        tree = DecisionTreeRegressor(min_samples_leaf=LEAF, max_features=3, random_state=int(rng.integers(2**31)))
        tree.fit(Z.astype(np.float32), score, sample_weight=drawn)
        hazards = slow_hazards(tree.apply(Z.astype(np.float32)), drawn, endpoint, times)
        total += np.array([hazards[int(node)] for node in tree.apply(new.astype(np.float32))]) / 4
    found = model.predict(new)
    assert found.survival is not None
    np.testing.assert_allclose(found.survival(times), np.exp(-total), rtol=1e-12)
    np.testing.assert_allclose(found.risk_score, np.log(total.sum(axis=1)), rtol=1e-12)
    assert (found.survival(times[:1] - 1e-9) == 1.0).all()


def test_a_forest_is_the_same_alone_and_among_other_depths() -> None:
    table = survival_table(0, n=120, p=6, signal=1.0)
    several = fit_survival_forest(table.X, table.endpoint, [0.0], 0.0, [1], [(1, 0), (3, 0)])
    (alone,) = fit_survival_forest(table.X, table.endpoint, [0.0], 0.0, [1], [(3, 0)])
    for name in ("feature", "threshold", "first", "when", "step"):
        np.testing.assert_array_equal(getattr(several[1], name), getattr(alone, name))
    assert (np.diff(several[0].roots) <= 3).all()  # a root and two leaves


@pytest.mark.parametrize("name", ["veterans", "whas500"])
def test_held_out_it_orders_patients_as_well_as_scikit_survivals_forest(name: str) -> None:
    frame, outcome = {"veterans": load_veterans_lung_cancer, "whas500": load_whas500}[name]()
    event, time = (outcome[field] for field in outcome.dtype.names)
    X = pd.get_dummies(frame, drop_first=True).to_numpy(float)
    endpoint, fold = Survival(time.astype(float), event), np.random.default_rng(0).permutation(len(X)) % 3
    found = []
    for k in range(3):
        train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        theirs = RandomSurvivalForest(100, min_samples_leaf=LEAF, random_state=0, low_memory=True)
        theirs.fit(X[train], Surv.from_arrays(event[train], endpoint.time_days[train]))
        (ours,) = fit_survival_forest(X[train], endpoint.rows(train), [0.0], 0.0, [0], [(100, 0)])
        found.append(
            [
                concordance(endpoint.rows(test), risk).c_index
                for risk in (ours.predict(X[test]).risk_score, theirs.predict(X[test]))
                if risk is not None
            ]
        )
    ours_c, theirs_c = np.mean(found, axis=0)
    assert ours_c > 0.62
    assert ours_c > theirs_c - 0.02


def test_depth_and_rounds_are_chosen_by_cases_that_were_held_out() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 2))
    crossed = as_table(X, Survival(500 * rng.exponential(size=300) * np.exp(2.0 * np.sign(X[:, 0] * X[:, 1])) + 1,
                                   np.ones(300, dtype=bool)))  # fmt: skip
    nothing = survival_table(3, n=200, p=5)
    boosted = Procedure(selector="", learner="xgboost", penalty=(1.0,), depth=(1, 3), rounds=(5, 300))
    found = fit_procedure(boosted, crossed, 0).tuned
    assert (found["depth"], found["rounds"]) == (3, 300)  # neither column says anything by itself
    assert fit_procedure(boosted, nothing, 0).tuned["rounds"] == 5
    trees = Procedure(selector="", learner="survival-forest", depth=(1, 6))
    assert fit_procedure(trees, crossed, 0).tuned == {"n_features": 2, "depth": 6}
    assert fit_procedure(trees, nothing, 0).tuned["depth"] == 1
