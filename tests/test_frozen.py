"""A model is frozen as plain data, predicts the same when loaded, and refuses data that it was not fitted for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lifelines import KaplanMeierFitter

from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.columns import Encoding
from prognosis_dask.modelling.data.endpoint import Classes, Survival
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.fitted import fit_procedure
from prognosis_dask.modelling.metrics.competing import subdistribution
from prognosis_dask.modelling.procedure import Procedure
from prognosis_dask.modelling.saved import QUANTILES, Frozen, describe, load_frozen, row_digests, save_frozen
from prognosis_dask.modelling.validation.external import (
    endpoint_warnings,
    expect_agreement,
    external_result,
    prediction_rows,
    range_warnings,
    training_overlap,
)
from tests.synthetic_tables import survival_table

SOURCE = {"radiomics.parameters": "0123", "deep.network": "i3d"}


def made(n: int = 80, seed: int = 0, *, classes: int = 0, source: Mapping[str, str] = SOURCE) -> FeatureTable:
    rng = np.random.default_rng(seed)
    X = rng.normal(5.0, 2.0, size=(n, 6))
    ids = tuple(f"P{i}" for i in range(n))
    score = (X[:, 1] - 5) / 2
    if classes:
        cuts = np.quantile(score, np.linspace(0, 1, classes + 1)[1:-1])
        endpoint: Survival | Classes = Classes(np.searchsorted(cuts, score), tuple("abc"[:classes]))
    else:
        death, lost = 500 * rng.exponential(size=n) * np.exp(-score) + 1, rng.uniform(100, 2000, n)
        endpoint = Survival(np.minimum(death, lost), death <= lost)
    names = tuple(f"f{i}" for i in range(6))
    return FeatureTable(X, names, ("radiomics",) * 6, ("mm",) * 6, ids, ids, endpoint, source=dict(source))


def encodings(table: FeatureTable) -> list[Encoding]:
    return [Encoding(name, "radiomics", unit) for name, unit in zip(table.features, table.units, strict=True)]


def frozen(table: FeatureTable, learner: str = "cox") -> Frozen:
    procedure = Procedure(learner=learner, n_features=(2,), penalty=(0.1,))
    horizons = (365.0, 730.0) if isinstance(table.endpoint, Survival) else ()
    return describe(fit_procedure(procedure, table, 0), table, encodings(table), horizons)


@pytest.mark.parametrize(
    ("learner", "classes"),
    [
        ("cox", 0),
        ("weibull-aft", 0),
        ("lognormal-aft", 0),
        ("xgboost", 0),
        ("survival-forest", 0),
        ("logistic", 2),
        ("logistic", 3),
        ("mlp", 2),
    ],
)
def test_a_loaded_model_predicts_what_the_fitted_one_does(learner: str, classes: int, tmp_path: Path) -> None:
    model, other = frozen(made(classes=classes), learner), made(30, 1, classes=classes)
    save_frozen(model, tmp_path)
    again = load_frozen(tmp_path)
    assert prediction_rows(model, other, model.fitted.predict(other)) == prediction_rows(
        again, other, again.fitted.predict(other)
    )
    assert {path.name for path in tmp_path.iterdir()} == {"model.json", "arrays.npz"}
    (tmp_path / "again").mkdir()
    save_frozen(again, tmp_path / "again")
    for name in ("model.json", "arrays.npz"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_predictions_follow_from_the_plain_numbers_in_the_file(tmp_path: Path) -> None:
    table, other = made(), made(30, 1)
    save_frozen(frozen(table), tmp_path)
    model = json.loads((tmp_path / "model.json").read_text())
    rows = pd.DataFrame(prediction_rows(load_frozen(tmp_path), other, load_frozen(tmp_path).fitted.predict(other)))
    X = other.X[:, [other.features.index(name) for name in model["features"]]]
    risk = (X - model["mean"]) / model["scale"] @ np.array(model["coefficient"])
    np.testing.assert_allclose(rows["risk_score"], risk)
    np.testing.assert_allclose(rows["survival_365"], model["baseline_survival"]["365"] ** np.exp(risk))
    train = table.X[:, [table.features.index(name) for name in model["features"]]]
    cutoff = np.median((train - model["mean"]) / model["scale"] @ np.array(model["coefficient"]))
    assert (rows["group"] == np.where(risk > cutoff, "high", "low")).all()
    outside = np.less(X, train.min(axis=0)) | np.greater(X, train.max(axis=0))
    np.testing.assert_array_equal(rows["outside_training"], outside.sum(axis=1))


def test_what_is_kept_of_the_training_cases_is_their_distribution(tmp_path: Path) -> None:
    table = made()
    model = frozen(table)
    np.testing.assert_allclose(model.quantiles, np.quantile(table.X, QUANTILES, axis=0))
    risk = model.fitted.predict(table).risk_score
    assert risk is not None
    np.testing.assert_allclose(model.risk_quantiles, np.quantile(risk, QUANTILES))
    for group, rows in (("low", risk <= np.median(risk)), ("high", risk > np.median(risk))):
        theirs = KaplanMeierFitter().fit(table.time_days[rows], table.event[rows])
        times, survival = model.survival_by_group[group]
        np.testing.assert_allclose(survival, theirs.survival_function_at_times(times))
    assert dict(model.counts) == {"n_cases": 80, "n_patients": 80, "n_events": int(table.event.sum())}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.columns(np.arange(4)), r"the table lacks 2 of the model's 6 features: f4, f5"),
        (lambda t: replace(t, units=("cm",) * 6), r"6 features in another unit .*: f0 is in 'cm', expected 'mm'"),
        (
            lambda t: replace(t, source={"radiomics.parameters": "9999"}),
            r"the table were made with other radiomics parameters \(9999\) than those of the model \(0123\); make both",
        ),
    ],
)
def test_a_table_of_other_features_units_or_parameters_is_refused_naming_which(change, message: str) -> None:
    table = made()
    with pytest.raises(StatisticsError, match=message):
        expect_agreement(frozen(table), change(made(20, 2)))


def test_what_the_models_families_do_not_depend_on_may_differ_and_silence_is_told() -> None:
    model = frozen(made())
    assert expect_agreement(model, made(20, 2, source=SOURCE | {"deep.network": "another"})) == []
    (warning,) = expect_agreement(model, made(20, 2, source={}))
    assert "does not say with which radiomics parameters" in warning


def test_features_beyond_the_training_range_and_missing_ones_are_warned_of() -> None:
    model, other = frozen(made()), made(40, 2)
    name = model.fitted.chosen[0]
    column = other.features.index(name)
    assert not any(name in warning for warning in range_warnings(model, replace(other, X=np.full_like(other.X, 5.0))))
    other.X[:, column] *= 1000  # the unit of another program
    other.X[:4, 1 - column if column < 2 else 1] = np.nan
    warnings = range_warnings(model, other)
    assert any(f"{name} (100%)" in warning and "extrapolates" in warning for warning in warnings)
    rows = prediction_rows(model, other, model.fitted.predict(other))
    assert min(int(row["outside_training"]) for row in rows) >= 1


def test_a_feature_in_another_unit_is_told_though_a_few_training_cases_are_as_far_out() -> None:
    """CRP in mg/dl where the model learnt from mg/l, and one training case with 0.01."""
    table, other = survival_table(0, n=80, p=4), survival_table(1, n=40, p=4)
    for one in (table, other):
        one.X[:, 0] = np.exp(2 + one.X[:, 0])
    table.X[0, 0], table.X[1, 0] = 0.01, 900.0
    model = describe(fit_procedure(Procedure(selector="", penalty=(0.1,)), table, 0), table, (), (365.0,))
    assert not range_warnings(model, other)
    other.X[:, 0] /= 10
    name, middle, usual = table.features[0], np.median(other.X[:, 0]), np.median(table.X[:, 0])
    (warning,) = range_warnings(model, other)
    assert f"1 of the model's 4 features: {name} (median {middle:.4g}, not {usual:.4g}). In another unit?" in warning


def test_cases_that_the_model_was_fitted_on_are_known_by_their_features_and_others_are_not(tmp_path: Path) -> None:
    table, other = survival_table(0, n=40, p=6), survival_table(1, n=30, p=6)
    table.X[3, 2] = np.nan
    fitted = fit_procedure(Procedure(selector="", penalty=(0.1,)), table, 0)
    save_frozen(describe(fitted, table, (), (365.0,)), tmp_path)
    frozen = load_frozen(tmp_path)
    renamed = replace(table.rows(np.arange(0, 40, 4)), case_ids=tuple("abcdefghij"), patient_ids=tuple("abcdefghij"))
    assert training_overlap(frozen, table).by_values == 40
    assert training_overlap(frozen, renamed).by_values == 10
    assert training_overlap(frozen, other).in_training == 0
    moved = training_overlap(frozen, replace(table, X=table.X + 1e-3))
    assert (moved.in_training, moved.same_id) == (0, 40)
    assert "40 cases of 40 with the ID of a training patient and other features" in " ".join(moved.notes(40))


def test_equal_categories_and_equal_ids_alone_prove_no_case(tmp_path: Path) -> None:
    """Of LUNG1's kind: stage, sex and one continuous column; half of the patients are disjoint from the others."""
    rng = np.random.default_rng(5)
    whole = survival_table(5, n=300, p=4)
    whole.X[:, 1:] = rng.integers(0, 3, (300, 3))
    first, second = whole.rows(np.arange(150)), whole.rows(np.arange(150, 300))
    fitted = fit_procedure(Procedure(selector="", penalty=(0.1,)), first.columns(np.arange(1, 4)), 0)
    save_frozen(describe(fitted, first.columns(np.arange(1, 4)), (), (365.0,)), tmp_path)
    frozen = load_frozen(tmp_path)
    assert np.isin(row_digests(fitted, second), frozen.rows).sum() > 100
    disjoint = training_overlap(frozen, second)
    assert (disjoint.in_training, disjoint.same_id, disjoint.notes(150)) == (0, 0, [])
    numbered = replace(second, patient_ids=first.patient_ids)
    assert training_overlap(frozen, numbered).in_training == 0
    assert training_overlap(frozen, numbered).same_id == 150
    again = training_overlap(frozen, first)
    assert (again.by_values, again.by_id) == (0, 150)
    assert again.notes(150) == [
        "The model was fitted on 150 of these 150 cases: known by their patients' IDs and all features."
    ]


def test_a_model_in_days_is_not_applied_to_years_in_silence() -> None:
    table, other = made(), made(60, 3)
    assert endpoint_warnings(frozen(table), other) == []
    years = replace(other, endpoint=Survival(other.time_days / 365.25, other.event))
    (warning,) = endpoint_warnings(frozen(table), years)
    assert "--set endpoint.time_unit=years" in warning


def test_a_model_of_competing_events_and_a_table_without_them_are_not_put_together_in_silence() -> None:
    table, other = made(), made(60, 3)
    cause = np.where(table.event, 1, np.where(np.arange(80) % 2, 2, 0))
    model = frozen(replace(table, endpoint=subdistribution(table.time_days, cause)))
    assert model.counts["n_competing"] == int((cause == 2).sum())
    (warning,) = endpoint_warnings(model, other)
    assert "There are competing events among the model's training cases, and none among these cases" in warning
    competing = replace(other, endpoint=subdistribution(other.time_days, np.where(other.event, 1, 2)))
    assert "There are competing events among these cases, and none" in endpoint_warnings(frozen(table), competing)[0]


def test_a_model_of_late_entry_and_a_table_that_names_no_entry_are_not_put_together_in_silence() -> None:
    table, other = made(), made(60, 3)

    def late(cases: FeatureTable) -> FeatureTable:
        entry = np.where(np.arange(len(cases.case_ids)) % 2, 0.5 * cases.time_days, 0.0)
        return replace(cases, endpoint=replace(cases.survival, entry_days=entry))

    model = frozen(late(table))
    assert model.counts["n_entered_late"] == 40
    (warning,) = endpoint_warnings(model, other)
    assert warning.startswith("40 of the model's training cases entered late, and these cases are taken as followed")
    assert endpoint_warnings(model, late(other)) == []


def test_a_cohort_with_another_endpoint_is_refused() -> None:
    with pytest.raises(StatisticsError, match="endpoint is the classes a, b, and the model predicts survival"):
        external_result(frozen(made()), made(30, 1, classes=2), (365.0,), "model")
    with pytest.raises(
        StatisticsError, match="endpoint is the classes a, b, c, and the model predicts the classes a, b"
    ):
        external_result(frozen(made(classes=2), "logistic"), made(30, 1, classes=3), (), "model")


def test_a_folder_without_a_whole_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StatisticsError, match=r"holds no model.json; `prognosis fit`"):
        load_frozen(tmp_path)
    save_frozen(frozen(made()), tmp_path)
    arrays = (tmp_path / "arrays.npz").read_bytes()
    (tmp_path / "arrays.npz").write_bytes(arrays[:-10])
    with pytest.raises(StatisticsError, match=r"arrays.npz is not the file that model.json was written with"):
        load_frozen(tmp_path)
    (tmp_path / "arrays.npz").unlink()
    with pytest.raises(StatisticsError, match="cannot be read"):
        load_frozen(tmp_path)
    (tmp_path / "model.json").write_text('{"format": "another"}')
    with pytest.raises(StatisticsError, match="format is 'another', expected 'prognosis_dask model 1'"):
        load_frozen(tmp_path)
    (tmp_path / "model.json").write_text("{")
    with pytest.raises(StatisticsError, match="cannot be read"):
        load_frozen(tmp_path)
