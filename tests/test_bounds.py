"""A case far out of the cohort gets no risk that nobody can know of, and is listed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.fitted import fit_procedure
from prognosis_dask.modelling.metrics.concordance import concordance
from prognosis_dask.modelling.preparing import Preparation
from prognosis_dask.modelling.procedure import Procedure
from prognosis_dask.modelling.saved import ARRAYS, MODEL, describe, load_frozen, out_of_range, save_frozen
from prognosis_dask.modelling.spec import ValidationRule
from prognosis_dask.modelling.validation.evaluate import evaluate
from prognosis_dask.modelling.validation.external import prediction_rows, range_warnings
from prognosis_dask.modelling.validation.nested import validate
from tests.synthetic_tables import survival_table

ALL = Procedure(selector="", penalty=(0.01,))


def risk(fitted, table) -> np.ndarray:
    found = fitted.predict(table).risk_score
    assert found is not None
    return found


def test_an_image_22_deviations_out_gets_the_risk_at_the_bound_and_others_keep_theirs() -> None:
    table = survival_table(0, n=150, p=8, signal=1.0)
    far = table.rows(np.arange(150))
    far.X[7] += 22 * table.X.std(axis=0)
    bounded, free = (fit_procedure(replace(ALL, bound=flag), table, 0) for flag in (True, False))
    others = np.arange(150) != 7
    np.testing.assert_array_equal(risk(bounded, far)[others], risk(free, far)[others])
    assert abs(risk(bounded, far)[7]) < 2 * np.abs(risk(free, table)).max() < abs(risk(free, far)[7])
    limit = table.rows(np.arange(150))
    limit.X[7] = table.X.max(axis=0) + ALL.bound_margin * table.X.std(axis=0, ddof=1)
    np.testing.assert_allclose(risk(bounded, far)[7], risk(free, limit)[7])


def test_training_cases_are_never_bounded_and_the_margin_is_a_setting() -> None:
    table = survival_table(1, n=60, p=5)
    for margin in (0.0, 1.0, 3.0):
        fitted = fit_procedure(replace(ALL, bound_margin=margin), table, 0)
        assert not fitted.bounded(table).any()
        beyond = table.rows(np.arange(60))
        beyond.X[0] = table.X.max(axis=0) + (margin + 0.01) * table.X.std(axis=0, ddof=1)
        assert fitted.bounded(beyond)[0] == 5
        beyond.X[0] = table.X.max(axis=0) + (margin - 0.01) * table.X.std(axis=0, ddof=1)
        assert fitted.bounded(beyond)[0] == 0
    with pytest.raises(StatisticsError, match="bound_margin is inf, expected zero or more"):
        Procedure(bound_margin=float("inf"))


def test_one_case_does_not_rewrite_the_held_out_figures_and_is_listed() -> None:
    table = survival_table(2, n=150, p=8, signal=1.0)
    X = table.X.copy()
    X[7] += 22 * X.std(axis=0)
    table = replace(table, X=X)
    results = validate(table, {"it": ALL}, ValidationRule(repeats=2), horizons_days=(365.0,))
    (listed,) = evaluate(table, results, (365.0,))["bounded"]
    assert (listed["case_id"], listed["share"], listed["features"]) == (table.case_ids[7], 1.0, 8.0)
    scores = np.concatenate([result.risk_score for result in results if result.risk_score is not None])
    free = validate(table, {"it": replace(ALL, bound=False)}, ValidationRule(repeats=2))
    unbounded = np.concatenate([result.risk_score for result in free if result.risk_score is not None])
    assert np.abs(scores).max() < 0.5 * np.abs(unbounded).max()
    for result in results:
        assert concordance(table.survival.rows(result.test), result.risk_score).c_index > 0.6


def test_a_frozen_model_holds_its_bounds_and_says_who_met_them(tmp_path: Path) -> None:
    table = survival_table(3, n=80, p=4, signal=1.0)
    save_frozen(describe(fit_procedure(ALL, table, 0), table, (), (365.0,)), tmp_path)
    frozen, new = load_frozen(tmp_path), survival_table(4, n=20, p=4)
    new.X[3, 1] = 1e6
    rows = pd.DataFrame(prediction_rows(frozen, new, frozen.fitted.predict(new)))
    assert rows["bounded"].iloc[3] == 1
    assert any("far outside" in warning and new.case_ids[3] in warning for warning in range_warnings(frozen, new))
    assert any("so far out" in warning for warning in out_of_range(frozen, new.rows(np.array([3]))))
    content = json.loads((tmp_path / MODEL).read_text())
    X = np.clip(new.X, content["least"], content["greatest"])
    score = (X - content["mean"]) / content["scale"] @ np.array(content["coefficient"])
    np.testing.assert_allclose(rows["risk_score"], score)


def test_a_model_that_was_frozen_before_there_were_bounds_loads_and_bounds_nothing(tmp_path: Path) -> None:
    table = survival_table(3, n=80, p=4, signal=1.0)
    fitted = fit_procedure(replace(ALL, bound=False), table, 0)
    save_frozen(describe(fitted, table, (), (365.0,)), tmp_path)
    content = json.loads((tmp_path / MODEL).read_text())
    for name in ("bound", "bound_margin", "tune_by"):
        del content["model"]["procedure"][name]
    for name in ("lower", "upper"):
        del content["model"]["preparation"][name]
    (tmp_path / MODEL).write_text(json.dumps(content))
    with np.load(tmp_path / ARRAYS) as stored:
        assert not any("lower" in name for name in stored.files)
    again = load_frozen(tmp_path)
    np.testing.assert_array_equal(risk(again.fitted, table), risk(fitted, table))
    assert not again.fitted.procedure.bound
    assert isinstance(again.fitted.preparation, Preparation)
