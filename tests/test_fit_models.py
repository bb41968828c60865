"""From the feature dataset to the files of ``models/``, with every way in which a cohort can be too small."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from lifelines.statistics import logrank_test

from prognosis_dask.job import ModelSection
from prognosis_dask.statistics.fit import fit_models
from prognosis_dask.statistics.table import table_from_dataset

SECTION = ModelSection(folds=3, repeats=2, max_features=8)


def dataset(n: int = 60, p: int = 25, seed: int = 0) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    deep, radiomics = rng.normal(size=(n, p)), rng.normal(size=(n, 4))
    time = 500 * rng.exponential(size=n) * np.exp(-1.5 * deep[:, 3]) + 1
    censored = rng.exponential(2000, size=n) + 1
    ids = [f"P{i:03d}" for i in range(n)]
    return xr.Dataset(
        {
            "deep": (("case", "logit"), deep),
            "radiomics": (("case", "radiomic"), radiomics),
            "time_days": ("case", np.minimum(time, censored)),
            "event": ("case", (time <= censored).astype(float)),
        },
        coords={
            "case": [f"{name}_CT_GTV" for name in ids],
            "patient_id": ("case", ids),
            "logit": [f"deep_{i:03d}" for i in range(p)],
            "radiomic": [f"original_{i}" for i in range(4)],
        },
    )


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("run") / "models"
    return folder, fit_models(dataset(), SECTION, folder)


def test_every_table_is_written_with_its_columns(fitted: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = fitted
    columns = {
        "ranking": "rank,feature",
        "curve": "k,c_index_in_sample",
        "validation": "repeat,fold,k,n_test,events_test,c_index",
        "coefficients": "feature,coef,se,hazard_ratio,lower_95,upper_95,p",
        "risk": "case_id,patient_id,time_days,event,risk_score,group",
    }
    for name, header in columns.items():
        assert (folder / f"{name}.csv").read_text().splitlines()[0] == header
    assert {path.stem for path in folder.iterdir()} == {*columns, "model", "summary"}
    assert json.loads((folder / "summary.json").read_text()) == summary
    assert list(pd.read_csv(folder / "curve.csv")["k"]) == list(range(1, 9))
    assert len(pd.read_csv(folder / "ranking.csv")) == 25


def test_summary_agrees_with_the_tables(fitted: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = fitted
    validation, risk = pd.read_csv(folder / "validation.csv"), pd.read_csv(folder / "risk.csv")
    curve = pd.read_csv(folder / "curve.csv").set_index("k")["c_index_in_sample"]
    assert (summary["n_cases"], summary["n_patients"], summary["left_out"]) == (60, 60, {})
    assert summary["n_events"] == risk["event"].sum() == validation["events_test"].sum() / 2
    assert validation["n_test"].sum() == 2 * 60
    assert summary["c_index_cv"] == pytest.approx(validation["c_index"].mean())
    assert summary["c_index_cv_lower"] < summary["c_index_cv"] < summary["c_index_cv_upper"]
    assert summary["c_index_in_sample"] == curve[summary["k_final"]]
    assert len(pd.read_csv(folder / "coefficients.csv")) == summary["k_final"]
    high = risk["group"] == "high"
    assert (high == (risk["risk_score"] > 0)).all()
    test = logrank_test(risk.time_days[high], risk.time_days[~high], risk.event[high], risk.event[~high])
    assert summary["logrank_p"] == pytest.approx(test.p_value)
    assert summary["logrank_p"] < 0.01


def test_planted_feature_ranks_high_and_worsens_the_risk(fitted: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = fitted
    ranking = pd.read_csv(folder / "ranking.csv").set_index("feature")["rank"]
    assert ranking["deep_003"] <= 2
    coefficients = pd.read_csv(folder / "coefficients.csv").set_index("feature")
    assert coefficients.loc["deep_003", "lower_95"] > 1
    assert summary["c_index_cv"] > 0.65


def test_frozen_model_gives_the_risk_from_plain_numbers(fitted: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = fitted
    model = json.loads((folder / "model.json").read_text())
    cohort = dataset()
    X = cohort["deep"].sel(logit=model["features"]).values
    risk = (X - model["mean"]) / model["scale"] @ np.array(model["coefficient"])
    assert np.median(risk) == pytest.approx(model["cutoff"])
    coefficients = pd.read_csv(folder / "coefficients.csv")
    assert list(coefficients["feature"]) == model["features"]
    np.testing.assert_allclose(coefficients["coef"], model["coefficient"])


def test_same_seed_writes_the_same_bytes(fitted: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, _ = fitted
    fit_models(dataset(), SECTION, tmp_path / "models", map=lambda run, tasks: [run(task) for task in list(tasks)])
    for path in folder.iterdir():
        assert (tmp_path / "models" / path.name).read_bytes() == path.read_bytes()


def test_cases_without_endpoint_or_features_are_counted(tmp_path: Path) -> None:
    cohort = dataset()
    cohort["time_days"][0] = np.nan
    cohort["event"][1] = np.nan
    cohort["time_days"][2] = 0.0
    cohort["deep"][3] = np.nan
    cohort["deep"][4, 7] = np.inf
    cohort["deep"][0] = np.nan  # counts once
    table, left_out = table_from_dataset(cohort, "deep")
    assert left_out == {"no-endpoint": 2, "time-not-positive": 1, "features-not-finite": 2}
    assert table.case_ids == tuple(cohort["case"].values[5:])
    assert (cohort["deep"].values[5:] == table.X).all()
    summary = fit_models(cohort, replace(SECTION, repeats=1), tmp_path / "models")
    assert (summary["n_cases"], summary["left_out"]) == (55, left_out)


def test_both_kinds_of_features_are_joined_and_empty_columns_are_none() -> None:
    cohort = dataset()
    cohort["radiomics"][:, 2] = np.nan
    table, left_out = table_from_dataset(cohort, "both")
    assert table.features[:4] == ("original_0", "original_1", "original_3", "deep_000")
    assert (table.X.shape, left_out) == ((60, 28), {})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda cohort: cohort.isel(case=slice(0, 1)), "0 of 1 patients|1 of 1 patients"),
        (lambda cohort: cohort.isel(case=slice(0, 0)), "0 of 0 patients with the event"),
        (lambda cohort: cohort.isel(case=slice(0, 3)), "of 3 patients with the event; 3-fold validation .* needs 10"),
        (lambda cohort: cohort.assign(event=cohort["event"] * 0), "0 of 60 patients with the event"),
        (lambda cohort: cohort.assign(time_days=cohort["time_days"] + 400), "0 of 60 patients not alive after 365"),
        (lambda cohort: cohort.assign(time_days=cohort["time_days"] / 1e4), "0 of 60 patients known alive after 365"),
        (lambda cohort: cohort.assign(deep=cohort["deep"] * 0 + 2), "none of 25 features varies among 60 cases"),
        (lambda cohort: cohort.assign(deep=cohort["deep"] * np.nan), "0 of 0 patients with the event"),
        (lambda cohort: cohort.drop_vars("deep"), "model.features is 'deep', but the dataset has no deep features"),
    ],
)
def test_what_cannot_be_fitted_is_said_in_the_summary(change: Any, reason: str, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "risk.csv").write_text("from an earlier run")
    summary = fit_models(change(dataset()), SECTION, folder)
    assert pd.Series(summary["not_fitted"]).str.contains(reason).all()
    assert [path.name for path in folder.iterdir()] == ["summary.json"]
    assert json.loads((folder / "summary.json").read_text()) == summary


def test_the_fewest_patients_that_pass_can_be_fitted(tmp_path: Path) -> None:
    cohort = dataset(12)
    cohort["event"][:10], cohort["event"][10:] = 1, 0
    cohort["time_days"][:] = np.r_[np.linspace(100, 300, 6), np.linspace(400, 900, 6)]
    for folds in (2, 5):
        summary = fit_models(cohort, replace(SECTION, folds=folds), tmp_path / str(folds))
        assert "not_fitted" not in summary
        assert 0 <= summary["c_index_cv"] <= 1


def test_several_series_of_a_patient_are_noted(tmp_path: Path) -> None:
    cohort = dataset(30)
    twice = xr.concat([cohort, cohort.assign_coords(case=cohort["case"].str.replace("CT", "PT"))], "case")
    summary = fit_models(twice, SECTION, tmp_path / "models")
    assert (summary["n_cases"], summary["n_patients"]) == (60, 30)
    assert summary["n_events"] == int(cohort["event"].sum())
    assert any("several cases" in note for note in summary["notes"])
