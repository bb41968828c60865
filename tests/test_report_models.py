"""The report of models: honest figures beside in-sample ones, for survival and for classes, from tables alone."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter
from lifelines.datasets import load_rossi

from prognosis_dask.modelling.data.columns import Encoding
from prognosis_dask.modelling.folder import ModelFolder, read_models
from prognosis_dask.modelling.saved import load_frozen
from prognosis_dask.report.content import Heading, Picture, Table, Text
from prognosis_dask.report.page import checklists, write_report
from prognosis_dask.report.read import RunFolder
from prognosis_dask.report.sections import nomogram
from prognosis_dask.report.sections.characteristics import table_one
from prognosis_dask.report.sections.comparison import differences, in_sample_curve, verdict
from prognosis_dask.report.sections.final_model import (
    events_per_variable,
    few_events,
    final_model,
    notes,
    of_final_model,
)
from prognosis_dask.report.sections.nomogram import chart
from prognosis_dask.report.sections.radiomics_checklists import CLEAR_ITEMS, METRICS_ITEMS, WEIGHTS, clear_answers
from prognosis_dask.report.sections.tripod import ITEMS, answers
from prognosis_dask.report.sections.validation import measure_notes, measures, of_held_out, validation
from prognosis_dask.report.words import named
from tests.report_models import FEATURES, HORIZONS, PROCEDURES, make_class_models, make_models
from tests.test_report import Page


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_models(tmp_path_factory.mktemp("fit") / "models")


@pytest.fixture(scope="module")
def models(folder: Path) -> ModelFolder:
    found = read_models(folder)
    assert found is not None
    return found


def test_models_alone_have_a_report_without_images(folder: Path) -> None:
    text = write_report(folder.parent).read_text(encoding="utf-8")
    page = Page(text)
    assert "no images were read here" in page.text
    assert not any(alt.startswith("Image slices") for alt in page.images())
    for heading in ("Regions of interest", "What could not be used"):
        assert heading not in page.text
    for heading in ("Case flow", "Calibration", "Nomogram", "TRIPOD+AI"):
        assert heading in page.text
    shutil.copytree(folder, folder.parent / "other")
    assert len(Page(write_report(folder.parent / "other").read_text()).images()) == len(page.images())


def test_a_note_on_a_case_does_not_name_it(models: ModelFolder) -> None:
    one = str(models.tables["predictions"]["case_id"].iloc[0])
    told = replace(models, summary={**models.summary, "notes": [f"1 held-out case lay far out: {one} (bounded.csv)."]})
    (said,) = [text for text in notes(told) if "lay far out" in text]
    assert said == f"1 held-out case lay far out: {named(one)} (bounded.csv)."


def test_classes_have_their_own_figures(tmp_path: Path) -> None:
    page = Page(write_report(make_class_models(tmp_path / "models")).read_text(encoding="utf-8"))
    for start in ("Flow", "AUC of each", "ROC curves", "Confusion matrix", "Calibration"):
        assert sum(alt.startswith(start) for alt in page.images()) == 1
    assert "Kaplan-Meier" not in page.text
    assert "hazard" not in page.text.lower()


def test_nomogram_gives_the_survival_that_lifelines_predicts() -> None:
    rossi = load_rossi()
    cox = CoxPHFitter().fit(rossi, "week", "arrest")
    names = list(cox.params_.index)
    horizon = 40.0
    terms = tuple(
        nomogram.Term(name, float(cox.params_[name]), nomogram.rounded(rossi[name].min(), rossi[name].max()))
        for name in names
    )
    constant = -float((cox.params_ * rossi[names].mean()).sum())
    baseline = float(cox.baseline_survival_.loc[horizon].iloc[0])
    scales = nomogram.Nomogram(terms, constant, ())
    survival = nomogram.cox_outcome("40 weeks", baseline, scales.zero, scales.most)
    drawn = replace(scales, outcomes=(survival,))
    assert max(drawn.points(term, term.ticks).max() for term in terms) == pytest.approx(100)
    assert all(drawn.points(term, term.ticks).min() == pytest.approx(0) for term in terms)
    total = sum(drawn.points(term, rossi[term.name].to_numpy(dtype=float)) for term in terms)
    # off the survival's scale: more points, less survival
    outcome = drawn.outcomes[0]
    at = drawn.total(outcome.at)
    found = np.exp(-np.exp(np.interp(total, at, np.log(-np.log(outcome.levels)))))
    expected = cox.predict_survival_function(rossi, times=[horizon]).iloc[0].to_numpy()
    inside = (expected < outcome.levels.max()) & (expected > outcome.levels.min())
    assert inside.mean() > 0.9
    np.testing.assert_allclose(found[inside], expected[inside], atol=1e-10)


def test_frozen_model_and_its_nomogram_predict_the_same(folder: Path) -> None:
    frozen = load_frozen(folder)
    found = chart(frozen)
    assert isinstance(found, nomogram.Nomogram)
    X = np.random.default_rng(1).normal(size=(50, len(FEATURES)))
    prepared = frozen.fitted.preparation.apply(X, ())
    prediction = frozen.fitted.model.predict(prepared[:, frozen.fitted.columns])
    column = {
        f"{name} ({unit})" if unit else name: x
        for name, unit, x in zip(FEATURES, frozen.fitted.units, X.T, strict=True)
    }
    total = sum(found.points(term, column[term.name]) for term in found.terms)
    np.testing.assert_allclose(total * found.per_point + found.zero, prediction.risk_score, atol=1e-12)
    assert [outcome.name for outcome in found.outcomes] == ["Survival at 1 year", "Survival at 2 years"]
    assert prediction.survival is not None
    for outcome, survival in zip(found.outcomes, prediction.survival(np.array(HORIZONS)).T, strict=True):
        logs = np.interp(total, found.total(outcome.at), np.log(-np.log(outcome.levels)))
        held = (survival > outcome.levels.min()) & (survival < outcome.levels.max())
        assert held.mean() > 0.8
        np.testing.assert_allclose(np.exp(-np.exp(logs))[held], survival[held], atol=1e-10)


def test_probability_on_the_nomogram_is_the_logistic_function() -> None:
    outcome = nomogram.logistic_outcome("grade 3", -2.0, 4.0)
    np.testing.assert_allclose(1 / (1 + np.exp(-outcome.at)), outcome.levels, rtol=1e-12)
    assert (np.diff(outcome.at) > 0).all()


def test_models_that_are_no_sum_have_no_nomogram(folder: Path) -> None:
    frozen = load_frozen(folder)
    trees = replace(frozen.fitted.model, coefficient=np.zeros(len(FEATURES)))
    assert chart(replace(frozen, fitted=replace(frozen.fitted, model=trees))) == (
        "no coefficient of the final model differs from 0."
    )


def test_an_ordered_category_is_read_by_its_levels_and_not_by_their_numbers(folder: Path) -> None:
    frozen = load_frozen(folder)
    stages = Encoding("stage", "stage", levels=("I", "II", "IIIa", "IIIb"), ordered=True)
    found = chart(replace(frozen, encodings=(stages,)))
    assert isinstance(found, nomogram.Nomogram)
    term = next(term for term in found.terms if term.name == "stage")
    assert (term.labels, term.ticks.tolist()) == (["I", "II", "IIIa", "IIIb"], [0, 1, 2, 3])
    assert "IIIa" in nomogram.draw(found)


def test_many_features_share_one_axis_and_add_up() -> None:
    terms = [nomogram.Term(f"f{i}", 1.0 / (i + 1), np.array([0.0, 1.0])) for i in range(40)]
    shown = nomogram.with_the_rest(terms, 1.3)
    assert [term.name for term in shown] == [f"f{i}" for i in range(10)] + ["30 others together"]
    assert shown[-1].coefficient == 1.0
    assert nomogram.with_the_rest(terms[:11], 1.3) == tuple(terms[:11])


def test_checklist_has_the_52_items_of_tripod_ai_in_order() -> None:
    numbers = [number for items in ITEMS.values() for number, _ in items]
    parts = {3: 3, 5: 2, 6: 3, 8: 3, 9: 3, 12: 7, 18: 6, 20: 3, 23: 2, 27: 3}
    expected = []
    for item in range(1, 28):
        expected += [f"{item}{letter}" for letter in "abcdefg"[: parts[item]]] if item in parts else [str(item)]
    assert numbers == expected
    assert len(numbers) == 52


def test_checklist_says_what_only_the_authors_can(models: ModelFolder, tmp_path: Path) -> None:
    run = RunFolder(tmp_path, {}, model=models)
    known = answers(run, models)
    (_, intro, table) = checklists(run).blocks[:3]
    assert isinstance(intro, Text)
    assert isinstance(table, Table)
    rows = {row[0]: row[2] for group in table.groups for row in group.rows}
    for item in ("1", "3a", "8b", "14", "17", "18a", "18b", "19", "25"):
        assert rows[item] == "To be completed by the authors."
    assert rows["12a"].startswith("Nested cross-validation, 4 repeats of 5 folds")
    assert "time-not-positive (2)" in rows["11"]
    assert rows["10"].startswith("In part: 160 patients")
    trees = replace(models, tables={name: rows for name, rows in models.tables.items() if name != "coefficients"})
    for these, shown in ((models, True), (trees, False)):
        of_these = clear_answers(replace(run, model=these), answers(run, these))
        assert ("43" in of_these, "coefficients" in of_these["46"].text) == (shown, shown)
        assert ("coefficients: see Final model" in answers(run, these)["22"].text) == shown
    whole = sum(answer.whole for answer in known.values())
    assert f"the run answers {whole} and {len(known) - whole} in part; the other {52 - len(known)}" in intro.text


def test_clear_has_58_items_and_metrics_30_with_the_weights_of_the_paper() -> None:
    """The 23 weights of the paper's Table 1 (doi 10.1186/s13244-023-01572-w) that its page shows first."""
    for listed, items in ((CLEAR_ITEMS, 58), (METRICS_ITEMS, 30)):
        assert [number for own in listed.values() for number, _ in own] == [str(i + 1) for i in range(items)]
    paper = [0.0368, 0.0735, 0.0919, 0.0438, 0.0292, 0.0438, 0.0292, 0.0337, 0.0225, 0.0112, 0.0622, 0.0311, 0.0415,
             0.0200, 0.0200, 0.0300, 0.0200, 0.0599, 0.0300, 0.0352, 0.0234, 0.0176, 0.0117]  # fmt: skip
    assert list(WEIGHTS.values())[:23] == pytest.approx(paper, abs=0.0006)
    assert sum(WEIGHTS.values()) == pytest.approx(1, abs=0.003)


def test_a_table_without_image_features_has_neither_clear_nor_metrics(models: ModelFolder, tmp_path: Path) -> None:
    def titles(family: str) -> list[str]:
        assert models.frozen is not None
        told = replace(models.frozen, encodings=(Encoding("a", family),))
        blocks = checklists(RunFolder(tmp_path, {}, model=replace(models, frozen=told))).blocks
        return [block.text for block in blocks if isinstance(block, Heading)]

    assert titles("clinical") == ["TRIPOD+AI"]
    assert titles("radiomics CT") == ["TRIPOD+AI", "CLEAR", "METRICS"]


@pytest.mark.parametrize(("events", "warns"), [(49, True), (50, False)])
def test_few_events_per_variable_are_warned_of(models: ModelFolder, events: int, warns: bool) -> None:
    found = ModelFolder({**models.summary, "n_events": events}, tables=models.tables)
    assert bool(few_events(found)) == warns  # of five features, ten events each


def test_events_per_variable_are_those_of_the_training_folds(models: ModelFolder, folder: Path) -> None:
    table = events_per_variable(models)
    assert table is not None
    folds = pd.read_csv(folder / "folds.csv")
    for name, cases, events, _, ratio, few in table.groups[0].rows:
        own = folds[folds["procedure"] == name]
        per = own["events_train"] / own["n_features"]
        assert (float(cases), float(events)) == (own["n_train"].median(), round(own["events_train"].median()))
        assert float(ratio.split(" ")[0]) == pytest.approx(per.median(), abs=0.051)
        assert few == f"{100 * (per < 10).mean():.0f} %"


@pytest.mark.parametrize(
    ("last", "said"),
    [
        (0.71, "more than any random draw; selection on the same cases does this even on pure noise"),
        (0.665, "within their range, so chance can give as much at that size"),
        (0.66, "no more than chance gives at that size"),
    ],
)
def test_in_sample_figures_are_judged_by_random_features(models: ModelFolder, last: float, said: str) -> None:
    curve = models.tables["curve"].copy()
    curve.loc[curve.index[-1], "c_index_in_sample"] = last
    assert said in verdict(ModelFolder(models.summary, models.procedures, tables={**models.tables, "curve": curve}))


def test_selected_features_are_judged_where_random_ones_are_others(models: ModelFolder) -> None:
    curve = models.tables["curve"].assign(of=110)
    said = verdict(replace(models, tables={**models.tables, "curve": curve}))
    assert f"In-sample, {curve[curve['k'] <= 55]['k'].max():.0f} features drawn at random" in said
    assert curve["k"].max() == 100


def test_the_in_sample_curve_stands_beside_the_held_out_figure_of_the_same_procedure(models: ModelFolder) -> None:
    drawn = {}
    for ranking in ("clinical + images", "radiomics"):
        found = in_sample_curve(replace(models, summary={**models.summary, "curve": ranking}))
        assert found is not None
        honest = models.measure("harrell_c")
        drawn[ranking] = f"{honest[honest['procedure'] == ranking]['value'].iloc[0]:.2f} ("
        assert f"held-out {drawn[ranking]}" in found.alt
        assert f"held-out folds of “{ranking}”" in found.caption
    assert len(set(drawn.values())) == 2
    said = verdict(replace(models, summary={**models.summary, "curve": "radiomics"}))
    assert f"On held-out cases “radiomics” has {drawn['radiomics']}" in said


@pytest.mark.parametrize(("upper", "kind"), [(0.655, "warning"), (0.8, "note")])
def test_a_model_whose_predictions_hardly_differ_is_warned_of(
    models: ModelFolder, folder: Path, upper: float, kind: str
) -> None:
    spread = [{"horizon_days": 365.0, "lower": 0.635, "upper": upper}]
    said = of_final_model(replace(models, summary={**models.summary, "spread": spread}))
    assert (said.role, f"a survival of 0.635 to {upper:.3f} at 1 year" in said.text) == (kind, True)
    own = pd.read_csv(folder / "predictions.csv").query("procedure == @models.primary")["survival_365"]
    lower, upper = np.percentile(1 - own, [5, 95])
    assert of_held_out(models) == f" Nine in ten predictions lie from {lower:.2f} to {upper:.2f} at 1 year."


def test_where_nothing_is_selected_no_stability_is_drawn(models: ModelFolder) -> None:
    always = models.tables["selection"].assign(share=1.0)
    for selector, drawn in (("", False), ("mrmr", True)):  # one that always chooses the same, does choose
        procedures = {models.primary: {"selector": selector}}
        own = replace(models, procedures=procedures, tables={**models.tables, "selection": always})
        blocks = final_model(own).blocks
        assert any(isinstance(block, Picture) and block.name == "selection_stability" for block in blocks) == drawn
        assert any(isinstance(block, Text) and "does not select features" in block.text for block in blocks) == (
            not drawn
        )


def test_table_one_keeps_levels_under_their_variable(models: ModelFolder) -> None:
    table = table_one(models)
    assert table is not None
    assert [(group.title, len(group.rows)) for group in table.groups] == [("", 2), ("sex", 2), ("stage; missing 1", 2)]
    assert [cell.replace("\N{NO-BREAK SPACE}", " ") for cell in table.groups[0].rows[1]] == [
        "age, median (quartiles); missing 3", "66 (60 to 72)", "65 (59 to 71)", "67 (61 to 73)", "0.21",
    ]  # fmt: skip


def test_performance_and_differences_are_tabled_as_written(models: ModelFolder, folder: Path) -> None:
    overall, at_times = measures(models)
    written = pd.read_csv(folder / "measures.csv")
    honest, flattering = (
        written[(written["measure"] == "harrell_c") & (written["in_sample"] == which)].set_index("procedure")
        for which in (0, 1)
    )
    assert overall.head[:3] == ["Procedure", "Harrell’s C", "Harrell’s C, in-sample (optimistic)"]
    for row in overall.groups[0].rows:
        own = honest.loc[row[0]]
        assert row[1].replace("\N{NO-BREAK SPACE}", " ") == f"{own.value:.2f} ({own.lower:.2f} to {own.upper:.2f})"
        assert row[2] == f"{flattering.loc[row[0], 'value']:.2f}"
    assert [(group.title, len(group.rows)) for group in at_times.groups] == [("At 1 year", 3), ("At 2 years", 3)]
    found = differences(models)
    assert found is not None
    expected = pd.read_csv(folder / "differences.csv")
    assert [row[0] for row in found.groups[0].rows] == [f"{r.a} less {r.b}" for r in expected.itertuples()]
    assert [row[1] for row in found.groups[0].rows] == [f"{d:.3f}".replace("-", "−") for d in expected["difference"]]


def test_calibration_of_three_classes_is_tabled_for_each(models: ModelFolder) -> None:
    found = [
        {"procedure": "images", "measure": f"{name}_{grade}", "value": float(i), "lower": 0.0, "upper": 9.0}
        for i, grade in enumerate(("2", "3", "4"))
        for name in ("calibration_slope", "ici")
    ]
    rows = pd.DataFrame(found).assign(horizon_days=np.nan, in_sample=0)
    summary = {"procedure": "images", "classes": {"2": 5, "3": 5, "4": 5}}
    (table,) = measures(ModelFolder(summary, tables={"measures": rows}))
    assert table.head == ["Procedure", "Calibration slope", "ICI"]
    assert [group.title for group in table.groups] == ["Class 2", "Class 3", "Class 4"]
    assert [group.rows[0][1][:4] for group in table.groups] == ["0.00", "1.00", "2.00"]


def test_a_note_of_in_sample_figures_is_not_said_of_those_that_are_shown() -> None:
    figures = [{"procedure": "images", "measure": "harrell_c", "value": 0.7, "in_sample": at} for at in (0, 1)]
    rows = pd.DataFrame(figures).assign(note=["few pairs", "no interval"], horizon_days=np.nan)
    found = measure_notes(ModelFolder({"procedure": "images"}, tables={"measures": rows}))
    assert found == ["Harrell’s C of images: few pairs."]


def test_final_procedure_comes_first(models: ModelFolder) -> None:
    assert models.names == [PROCEDURES[-1], *PROCEDURES[:-1]]


def test_names_in_the_tables_are_text_and_never_markup(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "models")
    for path in copy.glob("*.csv"):
        path.write_text(path.read_text().replace(PROCEDURES[-1], "<b onclick=x>$1_{2}"))
    summary = json.loads((copy / "summary.json").read_text())
    (copy / "summary.json").write_text(json.dumps({**summary, "procedure": "<b onclick=x>$1_{2}"}))
    page = Page(write_report(copy).read_text())
    assert "b" not in {tag for tag, _ in page.tags}
    assert "“<b onclick=x>$1_{2}”" in page.text


def _other(folder: Path, target: Path, summary: dict[str, object], *names: str) -> Path:
    """A folder with some of the tables, as commands leave it that fit no model."""
    target.mkdir(parents=True)
    for name in names:
        shutil.copy(folder / f"{name}.csv", target)
    counts = {"n_cases": 160, "n_patients": 160, "n_events": 106, "left_out": {}, "notes": ["Values out of range: 3."]}
    (target / "summary.json").write_text(json.dumps({**counts, **summary}))
    return target


def test_validation_of_another_cohorts_model_says_so(folder: Path, tmp_path: Path) -> None:
    _other(folder, tmp_path / "models", {"procedure": PROCEDURES[0], "external": True}, "calibration", "folds")
    measures = pd.read_csv(folder / "measures.csv")
    own = (measures["procedure"] == PROCEDURES[0]) & (measures["in_sample"] == 0)
    measures[own].to_csv(tmp_path / "models" / "measures.csv", index=False)
    text = Page(write_report(tmp_path).read_text()).text
    assert f"External validation: fitted on another cohort, the model in {PROCEDURES[0]} predicts these cases" in text
    assert "Evaluation of a model that was fitted on another cohort." in text
    assert "Values out of range: 3." in text
    for absent in ("Nested cross-validation", "Which differences are real", "in-sample performance", "Selection"):
        assert absent not in text


def test_a_model_on_its_own_cases_is_no_external_validation(models: ModelFolder) -> None:
    own = replace(models, summary={**models.summary, "external": True, "met_before": 7})
    warnings = [block.text for block in validation(own).blocks if isinstance(block, Text) and block.role == "warning"]
    assert "fitted on 7 of these 160 cases" in warnings[0]
    assert "not an external validation" in warnings[0]


def test_comparison_without_a_final_model_claims_none(folder: Path, tmp_path: Path) -> None:
    _other(folder, tmp_path / "models", {}, "measures", "folds", "differences")
    text = Page(write_report(tmp_path).read_text()).text
    assert "3 procedures were compared on the same folds" in text
    assert "No final model was fitted here" in text
    assert "The final model is" not in text


@pytest.mark.parametrize(
    ("name", "row", "said"),
    [
        ("bootstrap", "deep,0.66,0.55,0.57,0.531,0.611,0.565,0.526,0.606,0", "0.570 (0.531 to 0.611)"),
        ("permutation", "deep,0.56,0.5,0.53,0.0099,0", "with permuted endpoints"),
    ],
)
def test_resampled_procedures_are_tabled(folder: Path, tmp_path: Path, name: str, row: str, said: str) -> None:
    columns = {
        "bootstrap": "procedure,apparent,out_of_bag,optimism_corrected,optimism_corrected_lower,"
        "optimism_corrected_upper,point632_plus,point632_plus_lower,point632_plus_upper,redrawn",
        "permutation": "procedure,observed,permuted_median,permuted_greatest,p,without_figure",
    }
    _other(folder, tmp_path / "models", {})
    (tmp_path / "models" / f"{name}.csv").write_text(f"{columns[name]}\n{row}\n")
    text = Page(write_report(tmp_path).read_text()).text.replace("\N{NO-BREAK SPACE}", " ")
    assert said in text
    assert all(f"{float(value):.3f}" in text for value in row.split(",")[1:-1])
    assert "was not written for this model" not in text
