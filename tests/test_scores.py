"""A score is the same to the last bit whatever cases stand beside it, however the numbers lie in memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from prognosis_dask.modelling.combat import fit_combat
from prognosis_dask.modelling.data.endpoint import Classes
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.estimators.scores import linear_score, row_sums
from prognosis_dask.modelling.fitted import fit_procedure
from prognosis_dask.modelling.procedure import Procedure
from prognosis_dask.modelling.spec import ValidationRule
from prognosis_dask.modelling.validation.nested import validate
from tests.synthetic_tables import survival_table

LEARNERS = (
    ("cox", 0),
    ("weibull-aft", 0),
    ("loglogistic-aft", 0),
    ("lognormal-aft", 0),
    ("xgboost", 0),
    ("survival-forest", 0),
    ("logistic", 2),
    ("logistic", 9),
    ("mlp", 3),
)


def by_hand(row: list[float]) -> float:
    """The documented order, with Python's numbers: halves are added, and so on."""
    while len(row) > 1:
        half = (len(row) + 1) // 2
        row = [value + (row[half + i] if half + i < len(row) else 0.0) for i, value in enumerate(row[:half])]
    return row[0] if row else 0.0


@pytest.mark.parametrize("features", [0, 1, 2, 3, 5, 7, 8, 9, 16, 31, 100, 257, 1000])
@pytest.mark.parametrize("cases", [1, 2, 3, 4, 7, 8, 17, 60])
def test_a_score_is_the_sum_in_the_order_that_is_documented(features: int, cases: int) -> None:
    rng = np.random.default_rng([features, cases])
    Z = rng.normal(size=(cases, features)) * 10.0 ** rng.integers(-6, 6, size=features)
    coefficient = rng.normal(size=features)
    expected = [by_hand([z * c for z, c in zip(row, coefficient.tolist(), strict=True)]) for row in Z.tolist()]
    apart = np.zeros((3 * cases, 2 * features + 1))
    apart[1::3, 1::2] = Z
    for laid_out in (Z, np.asfortranarray(Z), apart[1::3, 1::2], Z[::-1].copy()[::-1]):
        assert linear_score(laid_out, coefficient).tolist() == expected
        assert [linear_score(laid_out[i : i + 1], coefficient)[0] for i in range(cases)] == expected
    assert row_sums(Z * coefficient).tolist() == expected


def of_kind(classes: int, seed: int = 0, n: int = 120) -> FeatureTable:
    table = survival_table(seed, n=n, p=23, signal=1.0)
    if not classes:
        return table
    cuts = np.quantile(table.X[:, 0], np.linspace(0, 1, classes + 1)[1:-1])
    names = tuple(f"class {i}" for i in range(classes))
    return replace(table, endpoint=Classes(np.searchsorted(cuts, table.X[:, 0]), names))


@pytest.mark.parametrize(("learner", "classes"), LEARNERS)
def test_every_learner_predicts_a_case_alike_alone_and_among_others(learner: str, classes: int) -> None:
    table = of_kind(classes)
    fitted = fit_procedure(Procedure(selector="", learner=learner, penalty=(0.1,)), table, 0)

    def told(rows: np.ndarray) -> list[np.ndarray]:
        prediction = fitted.predict(table.rows(rows))
        parts = [prediction.risk_score, prediction.probability]
        if prediction.survival is not None:
            parts.append(prediction.survival(np.array([100.0, 365.0, 730.0])))
        return [part for part in parts if part is not None]

    together = told(np.arange(120))
    rng = np.random.default_rng(1)
    for rows in (np.array([i]) for i in range(0, 120, 7)):
        for whole, part in zip(together, told(rows), strict=True):
            np.testing.assert_array_equal(part, whole[rows])
    for size in (2, 3, 5, 8, 13, 50):
        rows = rng.choice(120, size, replace=False)
        for whole, part in zip(together, told(rows), strict=True):
            np.testing.assert_array_equal(part, whole[rows])


@pytest.mark.parametrize(("learner", "classes"), LEARNERS)
def test_equal_patients_are_tied_in_every_fold(learner: str, classes: int) -> None:
    table = of_kind(classes)
    X = table.X.copy()
    X[1::2] = X[::2]  # each patient has a double with features of its own and another outcome
    patients = tuple(f"pair {i // 2}" for i in range(120))
    doubled = replace(table, X=X, patient_ids=patients)
    procedure = Procedure(selector="", learner=learner, penalty=(0.1,))
    for result in validate(doubled, {"it": procedure}, ValidationRule(folds=3, repeats=1), horizons_days=(365.0,)):
        twins = [np.flatnonzero(result.test // 2 == pair) for pair in np.unique(result.test // 2)]
        for values in (result.risk_score, result.probability, result.survival):
            if values is not None:
                assert all((values[a] == values[b]).all() for a, b in twins)


def test_harmonisation_with_covariates_does_not_depend_on_the_cases_beside() -> None:
    rng = np.random.default_rng(0)
    X, covariates, site = rng.normal(size=(60, 37)), rng.normal(size=(60, 5)), ["a", "b", "c"] * 20
    combat = fit_combat(X, site, covariates)
    whole = combat.apply(X, site, covariates)
    for i in range(60):
        np.testing.assert_array_equal(combat.apply(X[i : i + 1], site[i : i + 1], covariates[i : i + 1])[0], whole[i])
