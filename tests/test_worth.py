"""What a model is worth stands beside every prediction, in the same words in tables, pages and files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from prognosis_dask.modelling.data.columns import Encoding
from prognosis_dask.modelling.fitted import fit_procedure
from prognosis_dask.modelling.procedure import Procedure
from prognosis_dask.modelling.saved import Frozen, describe, load_frozen, save_frozen
from prognosis_dask.modelling.worth import UNTRAINED, worth_of
from prognosis_dask.prediction.model import load_model
from prognosis_dask.workflows import models as modelling
from tests.served_models import make_grade_run, make_survival_run
from tests.synthetic_tables import survival_table


def a_model(folder: Path, n: int = 80, **summary: object) -> Frozen:
    table = survival_table(0, n=n, p=3, signal=1.0)
    fitted = fit_procedure(Procedure(selector="", penalty=(0.1,)), table, 0)
    encodings = [Encoding(name, "deep") for name in table.features]
    folder.mkdir(parents=True, exist_ok=True)
    save_frozen(describe(fitted, table, encodings, (365.0,)), folder)
    frozen = load_frozen(folder)
    if summary:
        (folder / "summary.json").write_text(json.dumps({**frozen.counts, **summary}))
    return frozen


def figures(value: float, lower: float, upper: float) -> dict[str, float]:
    return {"c_index_cv": value, "c_index_cv_lower": lower, "c_index_cv_upper": upper}


def test_a_sound_model_is_told_with_its_held_out_figure_and_no_warning(tmp_path: Path) -> None:
    frozen = a_model(tmp_path, **figures(0.713, 0.64, 0.78))
    worth = worth_of(frozen, tmp_path)
    assert worth.warnings == ()
    assert worth.facts["C-index on held-out cases"] == "0.71 (95 % interval 0.64 to 0.78)"
    assert worth.sentence.startswith("The model: learnt from 80 cases of 80 patients, ")
    assert worth.columns == {
        "model_cases": 80,
        "model_patients": 80,
        "model_events": frozen.counts["n_events"],
        "held_out_measure": "c_index",
        "held_out": 0.713,
        "held_out_lower": 0.64,
        "held_out_upper": 0.78,
        "model_warnings": "",
    }


@pytest.mark.parametrize(
    ("summary", "said"),
    [
        (figures(0.58, 0.45, 0.70), r"may do no better than guessing: C-index 0\.58, 95 % interval 0\.45 to 0\.70"),
        (figures(0.28, 0.05, 0.55), r"did no better than guessing \(C-index 0\.28; guessing gives 0\.50\)"),
        ({}, r"is not known: no results of a validation"),
        (figures(0.7, 0.6, 0.8) | {"n_cases": 81}, r"is not known: no results of a validation"),  # of another fit
        ({"c_index_cv": 0.7}, r"How certain the model's C-index 0\.70 .* is not known"),
    ],
)
def test_what_speaks_against_a_model_is_a_warning(summary: dict[str, float], said: str, tmp_path: Path) -> None:
    (warning,) = worth_of(a_model(tmp_path, **summary), tmp_path).warnings
    assert re.search(said, warning)


def test_few_patients_and_untrained_weights_are_warned_of(tmp_path: Path) -> None:
    models = tmp_path / "models"
    frozen = a_model(models, n=30, **figures(0.8, 0.7, 0.9))
    (tmp_path / "run.json").write_text(json.dumps({"job": {"deep": {"weights": "untrained:1"}}}))
    assert worth_of(frozen, tmp_path).warnings == (UNTRAINED, "The model learnt from 30 patients only.")
    elsewhere = tmp_path / "elsewhere"
    frozen = a_model(elsewhere, **figures(0.8, 0.7, 0.9), notes=[UNTRAINED])
    assert worth_of(frozen, elsewhere).warnings == (UNTRAINED,)


def test_every_row_of_a_table_of_predictions_says_what_the_model_is_worth(tmp_path: Path) -> None:
    a_model(tmp_path / "models", n=30, **figures(0.58, 0.45, 0.70))
    table = survival_table(1, n=5, p=3)
    rows = pd.DataFrame(table.X, columns=list(table.features)).assign(PatientID=table.patient_ids)
    rows.to_csv(tmp_path / "new.csv", index=False)
    said: list[str] = []
    modelling.predict(tmp_path, tmp_path / "new.csv", tmp_path / "told.csv", say=said.append)
    found = pd.read_csv(tmp_path / "told.csv")
    assert (found["held_out"] == 0.58).all()
    assert (found["model_cases"] == 30).all()
    for words in ("may do no better than guessing", "learnt from 30 patients only"):
        assert found["model_warnings"].str.contains(words).all()
        assert any(words in line for line in said)


@pytest.mark.parametrize("make", [make_survival_run, make_grade_run])
def test_a_served_model_says_it_too(make, tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    model = load_model(run)
    assert any("is not known" in warning for warning in model.worth.warnings)
    short = "auc" if model.frozen.classes else "c_index"
    summary = {**model.frozen.counts, f"{short}_cv": 0.52, f"{short}_cv_lower": 0.4, f"{short}_cv_upper": 0.64}
    (run / "models" / "summary.json").write_text(json.dumps(summary))
    model = load_model(run)
    assert any("may do no better than guessing" in warning for warning in model.worth.warnings)
    assert model.facts.items() >= worth_of(model.frozen, run).facts.items()
    assert np.isclose(float(model.worth.figures["held_out"] or 0), 0.52)
