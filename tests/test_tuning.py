"""A penalty is chosen by what it does to probabilities, so that a single column is not shrunk to nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter

from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Survival
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.fitted import fit_procedure
from prognosis_dask.modelling.procedure import Procedure
from prognosis_dask.modelling.saved import describe, load_frozen, save_frozen
from prognosis_dask.modelling.spec import ValidationRule
from prognosis_dask.modelling.tuning import Values, choose_values, judge
from prognosis_dask.modelling.validation.evaluate import evaluate
from prognosis_dask.modelling.validation.nested import validate
from prognosis_dask.modelling.validation.splitting import split_patients
from tests.synthetic_tables import survival_table

PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)


def volumes(seed: int, n: int = 250, log_hazard_ratio: float = 0.7) -> FeatureTable:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    death, lost = 700 * rng.exponential(size=n) * np.exp(-log_hazard_ratio * x), rng.uniform(200, 2500, n)
    ids = tuple(f"P{i}" for i in range(n))
    endpoint = Survival(np.minimum(death, lost).round() + 1, death <= lost)
    return FeatureTable(x[:, None], ("volume",), ("volume",), ("",), ids, ids, endpoint)


def slow_likelihood(time: np.ndarray, event: np.ndarray, score: np.ndarray) -> float:
    """The log partial likelihood with Efron's ties, event by event as the formula has it."""
    total = 0.0
    for t in np.unique(time[event]):
        dead, at_risk = np.flatnonzero(event & (time == t)), time >= t
        tied = np.exp(score[dead]).sum()
        for number in range(len(dead)):
            total -= np.log(np.exp(score[at_risk]).sum() - number / len(dead) * tied)
        total += score[dead].sum()
    return total


def test_the_judgement_is_the_cross_validated_partial_likelihood() -> None:
    table = survival_table(3, n=90, p=6, signal=0.8)
    table = replace(table, endpoint=Survival(np.ceil(table.time_days / 60) * 60, table.event))  # with ties
    procedure = Procedure(selector="", penalty=(0.01, 0.1, 1.0), bound=False)  # as lifelines predicts
    found = judge(procedure, [Values(0, penalty, 0.0) for penalty in procedure.penalty], table, [0])
    number = split_patients(table, procedure.inner_folds, [0])
    for penalty, value in zip(procedure.penalty, found, strict=True):
        slow = []
        for fold in range(procedure.inner_folds):
            train = number != fold
            frame = pd.DataFrame(table.X[train]).assign(time=table.time_days[train], event=table.event[train])
            theirs = CoxPHFitter(penalizer=penalty).fit(frame, "time", "event")
            score = table.X @ theirs.params_.to_numpy()
            slow.append(
                slow_likelihood(table.time_days, table.event, score)
                - slow_likelihood(table.time_days[train], table.event[train], score[train])
            )
        assert value == pytest.approx(np.mean(slow), abs=1e-4)


@pytest.mark.parametrize("criterion", ["likelihood", "brier"])
def test_a_single_informative_column_is_not_shrunk_away_and_its_probabilities_are_right(criterion: str) -> None:
    slopes = []
    for seed in range(6):
        table = volumes(seed)
        procedure = Procedure(selector="", penalty=PENALTIES, tune_by=criterion)
        fitted = fit_procedure(procedure, table, 0)
        (row,) = fitted.coefficients()
        frame = pd.DataFrame({"x": table.X[:, 0], "time": table.time_days, "event": table.event})
        free = CoxPHFitter().fit(frame, "time", "event").summary.loc["x"]
        scale = table.X.std(ddof=1)
        assert free["coef lower 95%"] * scale < row["coef"] < free["coef upper 95%"] * scale
        assert fitted.tuned["penalty"] <= 0.1
        results = validate(table, {"volume": procedure}, ValidationRule(repeats=1), horizons_days=(365.0, 730.0))
        measures = evaluate(table, results, (730.0,))["measures"]
        slopes.append(next(r["value"] for r in measures if r["measure"] == "calibration_slope"))
    assert np.mean(slopes) == pytest.approx(1.0, abs=0.1)


def test_a_column_that_says_nothing_is_not_made_to_say_something_by_any_criterion() -> None:
    for seed in range(4):
        fitted = fit_procedure(Procedure(selector="", penalty=PENALTIES), volumes(seed, log_hazard_ratio=0.0), 0)
        assert abs(float(fitted.coefficients()[0]["coef"])) < 0.3


def test_many_weak_columns_get_a_penalty_that_calibrates() -> None:
    slopes = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        table = survival_table(seed, n=200, p=60)
        risk = table.X[:, :10].sum(axis=1) * 0.25
        death, lost = 500 * rng.exponential(size=200) * np.exp(-risk) + 1, rng.uniform(200, 2500, 200)
        table = replace(table, endpoint=Survival(np.minimum(death, lost), death <= lost))
        results = validate(
            table, {"all": Procedure(selector="")}, ValidationRule(repeats=1), horizons_days=(365.0, 730.0)
        )
        measures = evaluate(table, results, (730.0,))["measures"]
        slopes.append(next(r["value"] for r in measures if r["measure"] == "calibration_slope"))
    assert np.mean(slopes) == pytest.approx(1.0, abs=0.2)


def test_of_equal_penalties_the_weakest_is_taken() -> None:
    table = volumes(0)
    assert choose_values(Procedure(selector="", tune_by="concordance"), table, [0]).penalty == 0.01


def test_what_tuning_goes_by_is_a_setting_and_another_word_is_refused() -> None:
    with pytest.raises(StatisticsError, match="tune_by is 'auc', expected one of 'likelihood', 'brier', 'concordance'"):
        Procedure(tune_by="auc")
    table = survival_table(0, n=100, p=30, signal=0.7)
    grid = [Values(0, penalty, 0.0) for penalty in PENALTIES]
    found = [judge(Procedure(selector="", tune_by=name), grid, table, [0]) for name in ("likelihood", "concordance")]
    assert not np.allclose(*found)


def test_a_model_of_before_there_was_a_choice_still_loads(tmp_path: Path) -> None:
    table = volumes(0)
    save_frozen(describe(fit_procedure(Procedure(selector=""), table, 0), table, [], (365.0,)), tmp_path)
    path = tmp_path / "model.json"
    content = json.loads(path.read_text())
    del content["model"]["procedure"]["tune_by"]
    path.write_text(json.dumps(content))
    assert load_frozen(tmp_path).fitted.procedure.tune_by == "concordance"
