"""From a feature dataset or tables to the files of ``models/``, with every way in which a cohort can be too small."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from lifelines import CoxPHFitter
from lifelines.utils import concordance_index

from prognosis_dask.config.job import ModelSection
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.reading import find_tables, read_tables
from prognosis_dask.modelling.data.sources import dataset_source
from prognosis_dask.modelling.fit import fit_dataset, fit_models
from prognosis_dask.modelling.procedure import Procedure
from prognosis_dask.modelling.saved import load_frozen
from prognosis_dask.modelling.spec import EndpointRule, ModelSpec, ValidationRule, load_spec

SECTION = ModelSection(folds=3, repeats=2, halves=0, max_features=8)


def dataset(n: int = 60, p: int = 25, seed: int = 0) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    deep, radiomics = rng.normal(size=(n, p)), rng.normal(size=(n, 4))
    time = 500 * rng.exponential(size=n) * np.exp(-1.5 * deep[:, 3]) + 1
    censored = rng.exponential(2000, size=n) + 1
    ids = [f"P{i:03d}" for i in range(n)]
    return xr.Dataset(
        {
            "deep": (("case", "deep_feature"), deep),
            "radiomics": (("case", "radiomic"), radiomics),
            "time_days": ("case", np.minimum(time, censored)),
            "event": ("case", (time <= censored).astype(float)),
            "volume_ml": ("case", np.exp(rng.normal(3, 1, n))),
            "covariate_sex": ("case", np.array(["f", "m"], dtype=object)[rng.integers(0, 2, n)]),
        },
        coords={
            "case": [f"{name}_CT_GTV" for name in ids],
            "patient_id": ("case", ids),
            "deep_feature": [f"logit_{i:03d}" for i in range(p)],
            "radiomic": [f"original_glcm_{i}" for i in range(4)],
        },
        attrs={"settings": {"deep.network": "untrained", "radiomics.parameters": "0123"}},
    )


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("run") / "models"
    return folder, fit_dataset(dataset(), SECTION, folder)


def test_every_table_is_written_with_its_columns(fitted: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = fitted
    columns = {
        "folds": "procedure,repeat,fold,n_train,events_train,n_test,events_test,n_features,penalty,mixing,cutoff",
        "predictions": "procedure,repeat,fold,case_id,patient_id,risk_score,group,survival_365",
        "measures": "procedure,measure,horizon_days,value,lower,upper,in_sample",
        "differences": "a,b,measure,difference,lower,upper,p,p_holm,p_corrected,p_wilcoxon",
        "auc_t": "procedure,time_days,auc,lower,upper",
        "calibration": "procedure,horizon_days,kind,predicted,observed,lower,upper",
        "net_benefit": "procedure,horizon_days,threshold,net_benefit",
        "kaplan_meier": "procedure,group,time_days,survival,lower,upper,at_risk",
        "selection": "procedure,feature,share",
        "bounded": "procedure,case_id,patient_id,share,features",
        "survival_grid": "procedure,repeat,fold,case_id,survival_",
        "follow_up": "horizon_days,events,censored,beyond,survival,lower,upper",
        "influence": "procedure,measure,horizon_days,patient_id,value,without",
        "dfbeta": "feature,patient_id,dfbeta,dfbetas",
        "coefficients": "feature,coef,se,hazard_ratio,lower_95,upper_95,p",
        "ph": "feature,statistic,p",
        "curve": "k,c_index_in_sample,random_median,random_lower,random_upper",
        "correlation": "feature,with,n,pearson,lower,upper,p",
        "added": "base,added,test,statistic,df,p,z,delta_c,lower,upper",
        "table1": "variable,level,overall,censored,event,smd,missing",
    }
    for name, header in columns.items():
        assert (folder / f"{name}.csv").read_text().startswith(header), name
    others = {"model", "arrays", "procedures", "summary"}
    assert {path.stem for path in folder.iterdir()} == {*columns, *others}
    assert json.loads((folder / "summary.json").read_text()) == summary
    assert list(json.loads((folder / "procedures.json").read_text())) == ["volume", "deep"]
    assert list(pd.read_csv(folder / "curve.csv")["k"]) == list(range(1, 9))


def test_the_summary_agrees_with_the_tables_and_these_with_lifelines(fitted: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = fitted
    cohort = dataset().to_dataframe().reset_index().drop_duplicates("case").set_index("case")
    folds, predictions = pd.read_csv(folder / "folds.csv"), pd.read_csv(folder / "predictions.csv")
    assert (summary["n_cases"], summary["n_patients"], summary["left_out"]) == (60, 60, {})
    assert summary["n_events"] == cohort["event"].sum()
    final = predictions[predictions["procedure"] == "deep"]
    assert len(final) == 2 * 60
    time, event = cohort["time_days"], cohort["event"]
    indices = [
        concordance_index(time[rows["case_id"]], -rows["risk_score"], event[rows["case_id"]])
        for _, rows in final.groupby(["repeat", "fold"])
    ]
    np.testing.assert_allclose(folds[folds["procedure"] == "deep"]["c_index"], indices)
    assert summary["c_index_cv"] == pytest.approx(np.mean(indices))
    assert summary["c_index_cv_lower"] < summary["c_index_cv"] < summary["c_index_cv_upper"]
    assert min(summary["c_index_in_sample"], summary["c_index_cv"]) > 0.65
    assert summary["logrank_p"] < 0.05
    assert len(pd.read_csv(folder / "coefficients.csv")) == summary["k_final"]


def test_the_frozen_models_formula_is_lifelines_model_of_the_chosen_features(
    fitted: tuple[Path, dict[str, Any]],
) -> None:
    folder, _ = fitted
    model, cohort = json.loads((folder / "model.json").read_text()), dataset()
    X = cohort["deep"].sel(deep_feature=model["features"]).values
    frame = pd.DataFrame(X, columns=model["features"]).assign(time=cohort.time_days, event=cohort.event)
    theirs = CoxPHFitter(penalizer=SECTION.penalizer).fit(frame, "time", "event", fit_options={"precision": 1e-9})
    ours = np.array(model["coefficient"]) / model["scale"]
    np.testing.assert_allclose(ours, theirs.params_, rtol=1e-4)
    np.testing.assert_allclose(model["mean"], X.mean(axis=0))
    coefficients = pd.read_csv(folder / "coefficients.csv")
    assert list(coefficients["feature"]) == model["features"]
    assert coefficients.set_index("feature").loc["logit_003", "lower_95"] > 1


def test_two_at_a_time_in_another_order_write_the_same_bytes(
    fitted: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    def backwards(function: Any, items: Any) -> list[Any]:
        return [function(item) for item in reversed(list(items))][::-1]

    fit_dataset(dataset(), SECTION, tmp_path / "models", map=backwards)
    for path in fitted[0].iterdir():
        assert (tmp_path / "models" / path.name).read_bytes() == path.read_bytes(), path.name


def test_cases_without_endpoint_or_features_are_counted(tmp_path: Path) -> None:
    cohort = dataset()
    cohort["time_days"][0] = np.nan
    cohort["event"][1] = np.nan
    cohort["time_days"][2] = 0.0
    cohort["deep"][3] = np.nan
    cohort["deep"][4, 7] = np.inf
    cohort["deep"][0] = np.nan  # counts once
    cohort["radiomics"][9] = np.nan  # of no concern to a model of deep features
    summary = fit_dataset(cohort, replace(SECTION, repeats=1), tmp_path / "models")
    left_out = {"no-endpoint": 2, "time-not-positive": 1, "features-not-finite": 2}
    assert (summary["n_cases"], summary["left_out"]) == (55, left_out)


def test_both_kinds_of_features_are_joined_and_empty_columns_are_none() -> None:
    cohort = dataset()
    cohort["radiomics"][:, 2] = np.nan
    read = read_tables([dataset_source(cohort, "the run")])
    names = [
        name for name, family in zip(read.table.features, read.table.families, strict=True) if family == "radiomics"
    ]
    assert names == ["original_glcm_0", "original_glcm_1", "original_glcm_3"]
    assert read.table.families.count("deep") == 25
    assert read.table.features[-2:] == ("ln_volume_ml", "sex=m")
    assert read.table.source == cohort.attrs["settings"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda cohort: cohort.isel(case=slice(0, 1)), "patients with the event: a fold of 3 would have none"),
        (lambda cohort: cohort.isel(case=slice(0, 0)), "the run has no row"),
        (lambda cohort: cohort.assign(event=cohort["event"] * 0), "0 patients with the event"),
        (lambda cohort: cohort.assign(deep=cohort["deep"] * 0 + 2), "none of 25 features varies"),
        (lambda cohort: cohort.assign(deep=cohort["deep"] * np.nan), "no feature is of family deep; the table has:"),
        (lambda cohort: cohort.drop_vars("deep"), "no feature is of family deep; the table has:"),
    ],
)
def test_what_cannot_be_fitted_is_said_in_the_summary(change: Any, reason: str, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "predictions.csv").write_text("from an earlier run")
    summary = fit_dataset(change(dataset()), SECTION, folder)
    assert reason in summary["not_fitted"]
    assert [path.name for path in folder.iterdir()] == ["summary.json"]
    assert json.loads((folder / "summary.json").read_text()) == summary


def test_a_label_that_leaves_one_class_gives_way_to_the_median_time_of_the_events(tmp_path: Path) -> None:
    """Nobody dies within a year: the selection asks who outlived half of those who died instead, and it is said."""
    late = dataset()
    late = late.assign(time_days=late["time_days"] + 400)
    summary = fit_dataset(late, SECTION, tmp_path / "late")
    times = np.sort(late["time_days"].values[late["event"].values == 1])
    median = times[(len(times) - 1) // 2]
    (said,) = summary["label"]
    cases = late.sizes["case"]
    assert said.startswith(f"0 of {cases} patients had the event within 365 days (label_days), which leaves")
    assert f"the median time of the events, of all cases, {median:g} days, and in " in said
    assert said in summary["notes"]
    asked = fit_dataset(late, replace(SECTION, label_days=float(median)), tmp_path / "median")
    assert asked["label"] == []
    models = [load_frozen(tmp_path / name).fitted for name in ("late", "median")]
    assert models[0].chosen == models[1].chosen, "the final model is that of the median time"


def test_several_series_of_a_patient_are_noted_and_stay_together(tmp_path: Path) -> None:
    cohort = dataset(30)
    twice = xr.concat([cohort, cohort.assign_coords(case=cohort["case"].str.replace("CT", "PT"))], "case")
    summary = fit_dataset(twice, SECTION, tmp_path / "models")
    assert (summary["n_cases"], summary["n_patients"]) == (60, 30)
    assert summary["n_events"] == int(cohort["event"].sum())
    assert any("several cases" in note for note in summary["notes"])
    folds = pd.read_csv(tmp_path / "models" / "predictions.csv").groupby(["procedure", "repeat", "patient_id"])["fold"]
    assert (folds.nunique() == 1).all()


def test_competing_events_and_late_entry_of_a_run_are_modelled_as_those_of_a_table(tmp_path: Path) -> None:
    cohort = dataset(80)
    event = cohort["event"].to_numpy().copy()
    event[np.flatnonzero(event == 0)[::2]] = 2
    cases = {"time_days": cohort["time_days"].to_numpy(), "event": event, "deep": cohort["deep"][:, 3].to_numpy()}
    pd.DataFrame({"PatientID": cohort["patient_id"].to_numpy(), **cases}).to_csv(tmp_path / "t.csv", index=False)
    table_spec = load_spec(None, ['endpoint.event_codes={ "0" = 0, "1" = 1, "2" = 2 }'])
    of_table = read_tables(find_tables([tmp_path / "t.csv"], table_spec), table_spec).table.survival
    competing = cohort.assign(event=("case", event))
    of_run = read_tables([dataset_source(competing, "the run")]).table.survival
    np.testing.assert_array_equal(of_run.time_days, of_table.time_days)
    np.testing.assert_array_equal(of_run.competing_days, of_table.competing_days)
    summary = fit_dataset(competing, SECTION, tmp_path / "models")
    assert summary["n_competing"] == (event == 2).sum()
    assert (tmp_path / "models" / "incidence.csv").is_file()
    entry = np.round(0.4 * cohort["time_days"].to_numpy())
    late = cohort.assign(covariate_since=("case", entry))
    fit_dataset(late, replace(SECTION, entry="since"), tmp_path / "late")
    curve = pd.read_csv(tmp_path / "late" / "kaplan_meier.csv").query("procedure == 'deep'")
    assert curve["entered"].sum() == 80
    assert curve["at_risk"].iloc[0] < 10


def test_a_clinical_column_of_a_run_that_is_named_as_the_event_has_its_codes_read_not_believed() -> None:
    cohort = dataset(80)
    status = np.where(cohort["event"].to_numpy() == 1, 2.0, 1.0)  # as R's survival: 1 censored, 2 seen
    source = dataset_source(cohort.assign(covariate_status=("case", status)), "the run")
    named = ["endpoint.time=time_days", "endpoint.event=status"]
    with pytest.raises(StatisticsError, match=r"say which is which, endpoint\.event_codes"):
        read_tables([source], load_spec(None, named))
    read = read_tables([source], load_spec(None, [*named, 'endpoint.event_codes={ "1" = 0, "2" = 1 }']))
    np.testing.assert_array_equal(read.table.survival.event, cohort["event"].to_numpy() == 1)


def test_classes_go_through_the_same_machinery(tmp_path: Path) -> None:
    cohort = dataset(80)
    grade = np.where(cohort["deep"][:, 3] + np.random.default_rng(1).normal(0, 0.5, 80) > 0, "III", "II").astype(object)
    cohort = cohort.drop_vars(["time_days", "event"]).assign(covariate_grade=("case", grade))
    spec = ModelSpec(
        endpoint=EndpointRule(label="grade", classes=("II", "III")),
        procedure={"deep": Procedure(("deep",), learner="logistic", n_features=(2, 5), penalty=(0.1,))},
        validation=ValidationRule(folds=3, repeats=1, halves=0),
    )
    summary = fit_models(read_tables([dataset_source(cohort, "the run")], spec), spec, tmp_path / "models")
    assert summary["classes"] == {"II": int((grade == "II").sum()), "III": int((grade == "III").sum())}
    assert 0.8 < summary["auc_cv"] <= summary["auc_in_sample"]
    names = {path.name for path in (tmp_path / "models").iterdir()}
    assert {"confusion.csv", "roc.csv", "calibration.csv", "measures.csv", "model.json"} <= names
    assert not {"kaplan_meier.csv", "auc_t.csv"} & names
    assert list(pd.read_csv(tmp_path / "models" / "curve.csv")["k"]) == [1, 2, 3, 4, 5]
    assert summary["curve"] == "deep"
