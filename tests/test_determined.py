"""Coefficients that the cases leave open are refused with their columns, in every linear model, whatever the search."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Classes
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.fitted import fit_procedure
from prognosis_dask.modelling.procedure import Procedure
from prognosis_dask.modelling.spec import ValidationRule
from prognosis_dask.modelling.validation.nested import validate
from tests.synthetic_tables import class_table, survival_table


def with_columns(table: FeatureTable, **columns: np.ndarray) -> FeatureTable:
    k = len(columns)
    return replace(
        table,
        X=np.column_stack([table.X, *columns.values()]),
        features=(*table.features, *columns),
        families=(*table.families, *("deep",) * k),
        units=(*table.units, *("",) * k),
    )


def cohort(seed: int = 0, n: int = 120) -> FeatureTable:
    return survival_table(seed, n=n, p=4, signal=0.5)


def free(**more) -> Procedure:
    return Procedure(selector="", penalty=(0.0,), **more)


@pytest.mark.parametrize("learner", ["cox", "weibull-aft", "loglogistic-aft", "lognormal-aft"])
@pytest.mark.parametrize("noise", [0.0, 1e-9, 1e-6, 1e-3])
def test_without_a_penalty_collinear_columns_are_named(learner: str, noise: float) -> None:
    table = cohort()
    rng = np.random.default_rng(1)
    table = with_columns(table, twin=1e4 * (table.X[:, 2] + noise * rng.normal(size=120)) + 7)
    with pytest.raises(StatisticsError, match=r"no finite estimate, since .* collinear.*: f2, twin; leave columns out"):
        fit_procedure(free(learner=learner), table, 0)


@pytest.mark.parametrize("learner", ["cox", "weibull-aft", "loglogistic-aft", "lognormal-aft"])
def test_without_a_penalty_a_column_that_marks_those_who_live_is_named(learner: str) -> None:
    table = cohort()
    lives = (~table.event & (np.arange(120) % 2 == 0)).astype(float)  # nobody with the mark has the event
    with pytest.raises(StatisticsError, match=r"order the events perfectly: lives"):
        fit_procedure(free(learner=learner), with_columns(table, lives=lives), 0)


@pytest.mark.parametrize("learner", ["cox", "weibull-aft", "loglogistic-aft", "lognormal-aft"])
def test_an_order_that_only_two_columns_together_make_names_both(learner: str) -> None:
    table = cohort()
    rng = np.random.default_rng(2)
    first = rng.normal(size=120)
    second = np.where(table.event, first + 1.0, first - 1.0)
    with pytest.raises(StatisticsError, match=r"order the events perfectly: .*first.*second"):
        fit_procedure(free(learner=learner), with_columns(table, first=first, second=second), 0)


def test_more_columns_than_cases_have_no_estimate_without_a_penalty() -> None:
    with pytest.raises(StatisticsError, match=r"60 coefficients of 60 have no finite estimate.* and 55 more"):
        fit_procedure(free(), survival_table(0, n=40, p=60), 0)


@pytest.mark.parametrize("classes", [2, 3])
def test_classes_that_a_column_tells_apart_are_refused_almost_without_a_penalty(classes: int) -> None:
    table = class_table(0, classes=classes)
    assert isinstance(table.endpoint, Classes)
    table = with_columns(table, told=10.0 * table.endpoint.label)
    procedure = Procedure(selector="", learner="logistic", penalty=(1e-9,))
    with pytest.raises(StatisticsError, match="tell the classes apart perfectly: told;"):
        fit_procedure(procedure, table, 0)


def test_a_lasso_almost_without_a_penalty_is_no_way_round() -> None:
    table = cohort()
    lives = (~table.event & (np.arange(120) % 2 == 0)).astype(float)
    with pytest.raises(StatisticsError, match=r"1 coefficient of 5 has no finite estimate, .* perfectly: lives;"):
        fit_procedure(Procedure(selector="", penalty=(1e-12,), mixing=(0.5,)), with_columns(table, lives=lives), 0)


def test_what_the_cases_determine_is_fitted_without_a_penalty() -> None:
    rng = np.random.default_rng(0)
    table = cohort(n=400)
    rare = np.zeros(400)
    rare[rng.choice(np.flatnonzero(table.event), 3, replace=False)] = 1  # few, and their coefficient is finite
    table = with_columns(table, rare=rare, near=table.X[:, 0] + 0.1 * rng.normal(size=400))
    for learner in ("cox", "weibull-aft", "loglogistic-aft", "lognormal-aft"):
        fitted = fit_procedure(free(learner=learner), table, 0)
        assert all(abs(float(row["coef"])) < 5 for row in fitted.coefficients())


def test_tuning_passes_over_a_penalty_with_which_there_is_no_model_and_a_fold_says_whose_fault_it_is() -> None:
    table = cohort()
    lives = (~table.event & (np.arange(120) % 2 == 0)).astype(float)
    table = with_columns(table, lives=lives)
    assert fit_procedure(Procedure(selector="", penalty=(0.0, 0.1)), table, 0).tuned["penalty"] == 0.1
    with pytest.raises(StatisticsError, match=r"procedure 'it', repeat 0, fold 0: .*: lives"):
        validate(table, {"it": free()}, ValidationRule(repeats=1))
    with pytest.raises(StatisticsError, match="lives"):
        fit_procedure(Procedure(selector="", penalty=(0.0, 1e-12)), table, 0)
