"""Multiple imputation in a procedure: beside R's mice, lifelines' models of the same tables, and plain regression."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter

from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.fitted import fit_procedure
from prognosis_dask.modelling.imputing import impute
from prognosis_dask.modelling.procedure import Procedure
from prognosis_dask.modelling.saved import describe, load_frozen, save_frozen
from tests.synthetic_tables import class_table, survival_table

MICE = """
suppressMessages(library(mice)); suppressMessages(library(survival))
d <- read.csv("table.csv")
m <- mice(d, m = 60, method = "norm", maxit = 20, seed = 1, printFlag = FALSE,
          predictorMatrix = {p <- make.predictorMatrix(d); p[, c("time", "event")] <- 0; p})
s <- summary(pool(with(m, coxph(Surv(time, event) ~ f0 + f1 + f2 + f3))))
write.csv(s[, c("estimate", "std.error")], "pooled.csv", row.names = FALSE)
"""


def with_gaps(seed: int, n: int, signal: float = 1.0) -> FeatureTable:
    """Four features that share a factor; the first two lack values, more often where the third is great."""
    rng, table = np.random.default_rng(seed), survival_table(seed, n=n, p=4, signal=signal)
    X = table.X + 1.5 * table.X[:, :1]
    X[:, 2] = X[:, 0] + rng.normal(size=n)
    for column in (0, 1):
        X[rng.random(n) < 0.5 / (1 + np.exp(-X[:, 2])), column] = np.nan
    return replace(table, X=X)


def procedure(imputations: int) -> Procedure:
    return Procedure(selector="", penalty=(0.01,), imputations=imputations)


@pytest.mark.skipif(shutil.which("Rscript") is None, reason="needs R")
def test_pooled_coefficients_and_errors_are_those_of_mice(tmp_path: Path) -> None:
    table = with_gaps(1, 400)
    frame = pd.DataFrame(table.X, columns=table.features)
    frame.assign(time=table.time_days, event=table.event.astype(int)).to_csv(tmp_path / "table.csv", index=False)
    done = subprocess.run(["Rscript", "-e", MICE], cwd=tmp_path, capture_output=True, text=True, check=False)
    if "there is no package" in done.stderr:
        pytest.skip("needs R's mice")
    assert done.returncode == 0, done.stderr
    theirs = pd.read_csv(tmp_path / "pooled.csv")
    fitted = fit_procedure(replace(procedure(60), penalty=(0.0,)), table, 0)
    scale = fitted.preparation.scale[fitted.columns]
    rows = pd.DataFrame(fitted.coefficients())
    assert (rows["coef"] / scale).to_numpy() == pytest.approx(theirs["estimate"].to_numpy(), abs=0.015)
    assert (rows["se"] / scale).to_numpy() == pytest.approx(theirs["std.error"].to_numpy(), rel=0.06)


def test_the_risk_is_the_mean_of_the_risks_of_models_of_the_completed_tables() -> None:
    table = with_gaps(2, 120)
    fitted = fit_procedure(replace(procedure(3), penalty=(0.0,), bound=False), table, 5)
    _, tables = impute(table.X, 3, [5])
    mean, scale, whole = fitted.preparation.mean, fitted.preparation.scale, ~np.isnan(table.X).any(axis=1)
    risks = []
    for completed in tables:
        assert np.array_equal(completed[~np.isnan(table.X)], table.X[~np.isnan(table.X)])
        frame = pd.DataFrame((completed - mean) / scale).assign(time=table.time_days, event=table.event)
        model = CoxPHFitter().fit(frame, "time", "event", fit_options={"precision": 1e-12, "r_precision": 1e-14})
        risks.append(((table.X - mean) / scale)[whole] @ model.params_.to_numpy())
    risk = fitted.predict(table.rows(np.flatnonzero(whole))).risk_score
    assert risk == pytest.approx(np.mean(risks, axis=0), abs=1e-6)


def test_a_gap_of_a_new_case_is_what_plain_regression_expects() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 3)) @ rng.normal(size=(3, 3)) + 7.0
    whole, X[:60, 1] = X.copy(), np.nan
    imputation, _ = impute(X, 4, [0])
    A = np.column_stack([np.ones(140), X[60:, [0, 2]]])
    fit = np.linalg.lstsq(A, X[60:, 1], rcond=None)[0]
    expected = np.column_stack([np.ones(60), X[:60, [0, 2]]]) @ fit
    found = imputation.complete(X, np.zeros(3))
    assert found[:60, 1] == pytest.approx(expected, abs=1e-3)
    assert np.array_equal(found[60:], whole[60:])
    beside = np.column_stack([X, np.isnan(X[:, 1])])
    imputation, drawn = impute(beside, 4, [0])
    assert imputation.complete(beside, np.zeros(4))[:60, 1] == pytest.approx(expected, abs=1e-3)
    assert np.mean(drawn, axis=0)[:60, 1] == pytest.approx(expected, abs=4 * np.std(expected))


def test_regressions_that_drive_one_another_apart_expect_nothing_that_no_case_had() -> None:
    rng = np.random.default_rng(2)
    X = rng.normal(size=(300, 3)) @ rng.normal(size=(3, 6)) + 0.3 * rng.normal(size=(300, 6))
    X[rng.random(X.shape) < 0.7] = np.nan
    imputation, _ = impute(X, 3, [0])
    found = imputation.complete(X, np.nanmedian(X, axis=0))
    assert (found >= np.nanmin(X, axis=0)).all()
    assert (found <= np.nanmax(X, axis=0)).all()
    imputation, _ = impute(X[:, :0], 3, [0])
    assert imputation.complete(X[:, :0], np.zeros(0)).shape == (300, 0)


def test_a_frozen_model_completes_a_case_alone_as_among_others(tmp_path: Path) -> None:
    table = with_gaps(3, 100)
    fitted, again = (fit_procedure(procedure(4), table, 7) for _ in range(2))
    save_frozen(describe(fitted, table, (), (365.0,)), tmp_path)
    frozen = load_frozen(tmp_path).fitted
    risk = again.predict(table).risk_score
    assert risk is not None
    assert np.isfinite(risk).all()
    assert np.array_equal(frozen.predict(table).risk_score, risk)
    for row in range(5):
        assert frozen.predict(table.rows(np.array([row]))).risk_score == risk[row]
    assert not np.array_equal(fit_procedure(procedure(4), table, 8).predict(table).risk_score, risk)


def test_what_was_removed_at_random_is_predicted_better_than_by_the_median() -> None:
    wins = []
    for seed in range(8):
        table = with_gaps(10 + seed, 300, signal=0.7)
        train, test = table.rows(np.arange(200)), table.rows(np.arange(200, 300))
        gaps = np.isnan(test.X[:, 0])
        truth = survival_table(10 + seed, n=300, p=4, signal=0.7).X[200:, 0]
        errors = []
        for imputations in (0, 5):
            risk = fit_procedure(procedure(imputations), train, 0).predict(test).risk_score
            assert risk is not None
            errors.append(np.corrcoef(risk[gaps], truth[gaps])[0, 1])
        wins.append(errors[1] > errors[0])
    assert sum(wins) >= 7


def test_classes_are_averaged_too_and_learners_without_an_average_are_refused() -> None:
    table = class_table(0, n=80, p=4, signal=1.0)
    X = table.X.copy()
    X[::5, 0] = np.nan
    fitted = fit_procedure(replace(procedure(3), learner="logistic", penalty=(0.1,)), replace(table, X=X), 0)
    probability = fitted.predict(replace(table, X=X)).probability
    assert probability is not None
    assert np.isfinite(probability).all()
    with pytest.raises(StatisticsError, match="no average: leave it out, or take cox, logistic"):
        Procedure(selector="", learner="survival-forest", imputations=5)
