"""From held-out predictions to tables: folds brought together as stated, and every gap with its reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import isnan
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sksurv.metrics as witness
from lifelines import KaplanMeierFitter
from lifelines.statistics import logrank_test
from lifelines.utils import concordance_index
from sklearn.metrics import balanced_accuracy_score, brier_score_loss, confusion_matrix, roc_auc_score

from prognosis_dask.arrays import FloatArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Classes, Endpoint, Survival
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.metrics.measured import Measured, MeasuredCases
from prognosis_dask.modelling.validation.evaluate import evaluate, measure_all, time_grid
from prognosis_dask.modelling.validation.nested import FoldResult
from tests.synthetic_tables import events_first

HORIZONS = (200.0, 400.0)
FOLDS, REPEATS = 4, 3


def table_of(endpoint: Endpoint, columns: FloatArray, cases_each: int = 1) -> FeatureTable:
    n = len(endpoint)
    families = ("deep", "deep", "volume", "stage")[: columns.shape[1]]
    cases = tuple(f"c{i}" for i in range(n))
    patients = tuple(f"P{i // cases_each}" for i in range(n))
    names = tuple(f"f{i}" for i in range(columns.shape[1]))
    return FeatureTable(columns, names, families, ("",) * len(names), cases, patients, endpoint)


def survival_table(n: int = 120, seed: int = 0) -> FeatureTable:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4))
    died, lost = 300 * rng.exponential(size=n) * np.exp(-X[:, 0] - 0.5 * X[:, 2]) + 1, rng.uniform(100, 1500, n)
    return table_of(Survival(np.ceil(np.minimum(died, lost)), died <= lost), X)


def predicted(table: FeatureTable, name: str, score: FloatArray, horizons: Sequence[float]) -> list[FoldResult]:
    """Folds of a model that happens to be the same in all: hazard exp(score)."""
    results = []
    for repeat in range(REPEATS):
        number = np.random.default_rng(repeat).permutation(len(score)) % FOLDS
        for fold in range(FOLDS):
            train, test = np.flatnonzero(number != fold), np.flatnonzero(number == fold)
            survival = np.exp(-np.array(horizons) / 300 * np.exp(score[test])[:, None])
            tuned, cutoff = {"n_features": 1.0, "penalty": 0.1, "mixing": 0.0}, float(np.median(score[train]))
            features = ("f0",) if repeat else ("f0", "f1")
            results.append(
                FoldResult(
                    name,
                    repeat,
                    fold,
                    train,
                    test,
                    score[test],
                    cutoff,
                    tuple(horizons),
                    survival,
                    None,
                    features,
                    tuned,
                )
            )
    return results


def classified(table: FeatureTable, name: str, probability: FloatArray) -> list[FoldResult]:
    risk = probability[:, 1]
    return [
        replace(one, risk_score=None, survival=None, probability=probability[one.test], horizons_days=())
        for one in predicted(table, name, risk, ())
    ]


def pick(rows: Sequence[dict[str, Any]], **wanted: object) -> dict[str, Any]:
    found = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    assert len(found) == 1, (wanted, len(found))
    return found[0]


@pytest.fixture(scope="module")
def table() -> FeatureTable:
    return survival_table()


@pytest.fixture(scope="module")
def results(table: FeatureTable) -> list[FoldResult]:
    grid = time_grid(table.survival, HORIZONS)
    return predicted(table, "deep", table.X[:, 0], grid) + predicted(table, "noise", table.X[:, 1], grid)


@pytest.fixture(scope="module")
def tables(table: FeatureTable, results: list[FoldResult]) -> dict[str, list[dict[str, Any]]]:
    everyone = np.arange(len(table.case_ids))
    grid = results[0].horizons_days
    survival = np.exp(-np.array(grid) / 300 * np.exp(table.X[:, [0]]))
    flattering = replace(results[0], train=everyone, test=everyone, risk_score=table.X[:, 0], survival=survival)
    return evaluate(table, results, HORIZONS, in_sample=[flattering])


def test_the_integrated_brier_score_and_the_groups_follow_from_the_tables_alone(
    tables: dict[str, list[dict[str, Any]]], table: FeatureTable
) -> None:
    """By scikit-survival, from what is written."""
    grid, ends = pd.DataFrame(tables["survival_grid"]), events_first(table.event, table.time_days)
    own = grid[(grid["procedure"] == "deep") & (grid["repeat"] == 0)].set_index("case_id").loc[list(table.case_ids)]
    names = [name for name in own.columns if name.startswith("survival_")]
    days = np.array([float(name.removeprefix("survival_")) for name in names])
    scores = [
        witness.integrated_brier_score(ends, ends, part[names].to_numpy(), days)
        for _, part in grid[grid["procedure"] == "deep"].set_index("case_id").groupby("repeat")
        for part in [part.loc[list(table.case_ids)]]
    ]
    assert pick(tables["measures"], procedure="deep", measure="ibs", in_sample=0)["value"] == pytest.approx(
        np.mean(scores), rel=1e-9
    )
    keys = ["procedure", "repeat", "fold"]
    cutoff = pd.DataFrame(tables["folds"])[[*keys, "cutoff"]]
    said = pd.DataFrame(tables["predictions"]).merge(cutoff, on=keys)
    assert (np.where(said["risk_score"] > said["cutoff"], "high", "low") == said["group"]).all()


def test_every_table_has_one_set_of_columns_and_both_procedures(tables: dict[str, list[dict[str, Any]]]) -> None:
    expected = {
        "folds": "procedure repeat fold n_train events_train n_test events_test n_features penalty mixing"
        " cutoff c_index uno_c",
        "predictions": "procedure repeat fold case_id patient_id risk_score group survival_200 survival_400",
        "selection": "procedure feature share",
        "bounded": "",
        "follow_up": "horizon_days events censored beyond survival lower upper",
        "influence": "procedure measure horizon_days patient_id value without",
        "measures": "procedure measure horizon_days value lower upper in_sample note",
        "differences": "a b measure difference lower upper p p_holm p_corrected p_wilcoxon lower_drawn upper_drawn "
        "note",
        "auc_t": "procedure time_days auc lower upper",
        "calibration": "procedure horizon_days kind predicted observed lower upper",
        "net_benefit": "procedure horizon_days threshold net_benefit lower upper treat_all",
        "kaplan_meier": "procedure group time_days survival lower upper at_risk",
        "added": "base added test statistic df p z delta_c lower upper note",
    }
    grid = [f"survival_{days:g}" for days in time_grid(survival_table().survival, HORIZONS)]
    expected["survival_grid"] = " ".join(["procedure repeat fold case_id", *grid])
    assert set(tables) == set(expected)
    assert tables["bounded"] == []  # no case lies so far out
    for name, rows in tables.items():
        assert {" ".join(row) for row in rows} == ({expected[name]} if rows else set()), name
        if rows and "procedure" in rows[0]:
            assert {row["procedure"] for row in rows} == {"deep", "noise"}


def test_concordance_is_the_mean_of_the_held_out_folds(
    table: FeatureTable, results: list[FoldResult], tables: dict[str, list[dict[str, Any]]]
) -> None:
    harrell, uno = [], []
    outcome = events_first(table.event, table.time_days)
    for one in results[: FOLDS * REPEATS]:
        assert one.risk_score is not None
        harrell.append(concordance_index(table.time_days[one.test], -one.risk_score, table.event[one.test]))
        uno.append(witness.concordance_index_ipcw(outcome, outcome[one.test], one.risk_score, HORIZONS[-1])[0])
    of_deep = {"procedure": "deep", "in_sample": 0}
    row = pick(tables["measures"], measure="harrell_c", **of_deep)
    assert row["value"] == pytest.approx(np.mean(harrell), abs=1e-12)
    assert row["lower"] < row["value"] < row["upper"]
    assert pick(tables["measures"], measure="uno_c", **of_deep)["value"] == pytest.approx(np.mean(uno), abs=1e-10)
    folds = [row["c_index"] for row in tables["folds"] if row["procedure"] == "deep"]
    np.testing.assert_allclose(folds, harrell, atol=1e-12)


def test_brier_scores_are_those_of_all_held_out_cases(
    table: FeatureTable, results: list[FoldResult], tables: dict[str, list[dict[str, Any]]]
) -> None:
    outcome = events_first(table.event, table.time_days)
    grid = np.array([days for days in results[0].horizons_days if days < table.time_days.max()])
    survival = np.exp(-grid / 300 * np.exp(table.X[:, [0]]))
    of_deep = {"procedure": "deep", "in_sample": 0}
    ibs = pick(tables["measures"], measure="ibs", **of_deep)["value"]
    assert ibs == pytest.approx(witness.integrated_brier_score(outcome, outcome, survival, grid), abs=1e-10)
    for days in HORIZONS:
        at = survival[:, grid == days]
        expected = witness.brier_score(outcome, outcome, at, [days])[1][0]
        found = pick(tables["measures"], measure="brier", horizon_days=days, **of_deep)["value"]
        assert found == pytest.approx(expected, abs=1e-10)
        same = np.full_like(at, KaplanMeierFitter().fit(table.time_days, table.event).predict(days))
        reference = witness.brier_score(outcome, outcome, same, [days])[1][0]
        scaled = pick(tables["measures"], measure="brier_scaled", horizon_days=days, **of_deep)["value"]
        assert scaled == pytest.approx(1 - expected / reference, abs=1e-10)


def test_in_sample_figures_stand_beside_the_honest_ones_and_are_marked(
    table: FeatureTable, tables: dict[str, list[dict[str, Any]]]
) -> None:
    row = pick(tables["measures"], procedure="deep", measure="harrell_c", in_sample=1)
    assert row["value"] == pytest.approx(concordance_index(table.time_days, -table.X[:, 0], table.event), abs=1e-12)


def test_risk_groups_are_those_that_most_repeats_chose(
    table: FeatureTable, results: list[FoldResult], tables: dict[str, list[dict[str, Any]]]
) -> None:
    votes = np.zeros(len(table.case_ids))
    for one in results[: FOLDS * REPEATS]:
        assert one.risk_score is not None
        votes[one.test] += one.risk_score > one.cutoff
    high = votes > REPEATS / 2
    rows = pd.DataFrame(tables["kaplan_meier"]).query("procedure == 'deep' and group == 'high'")
    expected = KaplanMeierFitter().fit(table.time_days[high], table.event[high])
    np.testing.assert_allclose(rows["survival"], expected.survival_function_.iloc[:, 0], atol=1e-12)
    assert rows["at_risk"].iloc[0] == high.sum()
    time, event = table.time_days, table.event
    p = logrank_test(time[high], time[~high], event[high], event[~high]).p_value
    assert pick(tables["measures"], procedure="deep", measure="log_rank_p", in_sample=0)["value"] == pytest.approx(p)
    assert pick(tables["measures"], procedure="deep", measure="hazard_ratio_high_low", in_sample=0)["lower"] > 1
    groups = pd.DataFrame(tables["predictions"]).query("procedure == 'deep'").groupby("case_id")["group"]
    share = groups.apply(lambda of_case: (of_case == "high").mean())
    assert ((share[list(table.case_ids)] > 0.5) == high).all()


def test_a_real_difference_is_found_and_goes_from_a_to_b(tables: dict[str, list[dict[str, Any]]]) -> None:
    row = pick(tables["differences"], a="deep", b="noise", measure="harrell_c")
    c = [pick(tables["measures"], procedure=name, measure="harrell_c", in_sample=0) for name in ("deep", "noise")]
    assert row["difference"] == pytest.approx(c[0]["value"] - c[1]["value"], abs=1e-12)
    assert row["p_corrected"] < 0.05
    assert 0 < row["lower"] < row["difference"] < row["upper"]
    assert 0 < row["lower_drawn"] < row["difference"] < row["upper_drawn"]
    assert pick(tables["differences"], a="deep", b="noise", measure="ibs")["difference"] < 0


def test_volume_adds_to_the_features_and_noise_adds_nothing(tables: dict[str, list[dict[str, Any]]]) -> None:
    volume = pick(tables["added"], base="deep", added="volume")
    assert volume["p"] < 1e-3
    assert volume["df"] == 1
    assert volume["lower"] < volume["delta_c"] < volume["upper"]
    assert volume["delta_c"] > 0
    assert pick(tables["added"], base="volume + stage", added="noise")["p"] > 0.01
    assert {"volume", "stage", "volume + stage"} <= {row["base"] for row in tables["added"]}


def test_a_procedure_of_volume_alone_is_not_asked_what_it_adds_to_volume(table: FeatureTable) -> None:
    results = predicted(table, "size", table.X[:, 2], HORIZONS)
    rows = evaluate(table, [replace(one, features=("f2",)) for one in results], HORIZONS)["added"]
    assert [(row["base"], row["added"]) for row in rows] == [("volume", "stage"), ("stage", "volume")]


def test_selection_is_the_share_of_folds(tables: dict[str, list[dict[str, Any]]]) -> None:
    assert pick(tables["selection"], procedure="deep", feature="f0")["share"] == 1.0
    assert pick(tables["selection"], procedure="deep", feature="f1")["share"] == pytest.approx(1 / REPEATS)


def test_calibration_and_decision_curves_follow_their_definition(
    table: FeatureTable, tables: dict[str, list[dict[str, Any]]]
) -> None:
    curves = pd.DataFrame(tables["calibration"]).query("procedure == 'deep' and horizon_days == 200")
    groups = curves[curves["kind"] == "group"]
    risk = 1 - np.exp(-200 / 300 * np.exp(table.X[:, 0]))
    order = np.array_split(np.argsort(risk), len(groups))
    np.testing.assert_allclose(groups["predicted"], [risk[at].mean() for at in order])
    fits = [KaplanMeierFitter().fit(table.time_days[at], table.event[at]) for at in order]
    np.testing.assert_allclose(groups["observed"], [1 - fit.predict(200) for fit in fits])
    benefit = pd.DataFrame(tables["net_benefit"]).query("procedure == 'deep' and horizon_days == 200")
    dead = 1 - KaplanMeierFitter().fit(table.time_days, table.event).predict(200)
    t = benefit["threshold"]
    np.testing.assert_allclose(benefit["treat_all"], dead - (1 - dead) * t / (1 - t))
    assert (benefit["net_benefit"].iloc[10:40] > benefit["treat_all"].iloc[10:40] - 0.03).all()


def test_tables_are_the_same_from_any_map(
    table: FeatureTable, results: list[FoldResult], tables: dict[str, list[dict[str, Any]]]
) -> None:
    with ThreadPoolExecutor(2) as pool:
        again = evaluate(table, results, HORIZONS, map=pool.map)
    for name in ("auc_t", "differences", "kaplan_meier", "added", "net_benefit"):
        pd.testing.assert_frame_equal(pd.DataFrame(again[name]), pd.DataFrame(tables[name]), check_exact=True)


def test_measures_of_one_procedure_are_several_tasks_so_that_no_core_waits(
    table: FeatureTable, results: list[FoldResult]
) -> None:
    """The C-index, net benefit and calibration, which take the longest, are tasks of their own."""
    cases = MeasuredCases(table.endpoint, table.patient_ids, HORIZONS, draws=5)
    of_tasks: list[Measured] = []

    def noted(function: Callable[..., Measured], items: Sequence[Any]) -> list[Measured]:
        of_tasks.extend(function(item) for item in items)
        return of_tasks

    measure_all(cases, [results[: FOLDS * REPEATS]], noted)
    alone = [set(part.fold_values) for part in of_tasks if "harrell_c" in part.fold_values]
    assert alone == [{"harrell_c", "uno_c"}]
    for name in ("net_benefit", "calibration"):
        of_horizon = [part.tables[name] for part in of_tasks if name in part.tables]
        assert [{row["horizon_days"] for row in rows} for rows in of_horizon] == [{days} for days in HORIZONS]
        assert not any({"net_benefit", "calibration"} <= set(part.tables) for part in of_tasks)


def test_a_horizon_beyond_follow_up_is_blank_and_says_why(table: FeatureTable) -> None:
    late = float(table.time_days.max()) + 1
    rows = evaluate(table, predicted(table, "deep", table.X[:, 0], (200.0, late)), (200.0, late))
    for measure in ("auc_t", "brier", "brier_scaled", "calibration_slope", "ici"):
        row = pick(rows["measures"], measure=measure, horizon_days=late)
        assert isnan(row["value"])
        assert f"follow-up ends at {late - 1:g} days; choose an earlier horizon" in row["note"]
        assert pick(rows["measures"], measure=measure, horizon_days=200.0)["note"] == ""
    assert {row["horizon_days"] for row in rows["net_benefit"]} == {200.0}


def test_a_fold_without_events_is_left_out_of_the_mean_and_counted(table: FeatureTable) -> None:
    results = predicted(table, "deep", table.X[:, 0], HORIZONS)
    event = table.event.copy()
    event[results[0].test] = False
    silent = replace(table, endpoint=Survival(table.time_days, event))
    rows = evaluate(silent, results, HORIZONS)
    row = pick(rows["measures"], measure="harrell_c")
    assert row["note"] == "1 of 12 held-out folds lack a comparable pair and are left out"
    assert 0.5 < row["value"] < 1
    assert isnan(pick(rows["folds"], repeat=0, fold=0)["c_index"])


def test_without_any_event_every_figure_of_discrimination_is_blank_with_a_reason(table: FeatureTable) -> None:
    silent = replace(table, endpoint=Survival(table.time_days, np.zeros(len(table.time_days), dtype=bool)))
    a, b = (predicted(silent, name, table.X[:, i], HORIZONS) for i, name in enumerate(("deep", "noise")))
    rows = evaluate(silent, a + b, HORIZONS)
    for measure in ("harrell_c", "uno_c", "mean_auc", "log_rank_p"):
        row = pick(rows["measures"], procedure="deep", measure=measure)
        assert isnan(row["value"])
        assert row["note"]
    assert all(isnan(row["p_corrected"]) and row["note"] for row in rows["differences"] if row["measure"] != "ibs")
    assert all(isnan(row["p"]) and "none has the event" in row["note"] for row in rows["added"])


def test_equal_predictions_for_all_give_half_and_no_slope(table: FeatureTable) -> None:
    rows = evaluate(table, predicted(table, "null", np.zeros(len(table.case_ids)), HORIZONS), HORIZONS)
    assert pick(rows["measures"], measure="harrell_c")["value"] == 0.5
    slope = pick(rows["measures"], measure="calibration_slope", horizon_days=200.0)
    assert isnan(slope["value"])
    assert "do not differ" in slope["note"]
    assert pick(rows["measures"], measure="ici", horizon_days=200.0)["value"] >= 0
    assert "all 120 cases are in one group" in pick(rows["measures"], measure="log_rank_p")["note"]


def test_a_horizon_that_was_not_predicted_is_refused(table: FeatureTable) -> None:
    with pytest.raises(StatisticsError, match="deep: survival is predicted at 200, 400 days, and not at 300"):
        evaluate(table, predicted(table, "deep", table.X[:, 0], HORIZONS), (300.0,))
    with pytest.raises(StatisticsError, match="horizons 0, 200: expected days above 0"):
        evaluate(table, predicted(table, "deep", table.X[:, 0], HORIZONS), (0.0, 200.0))
    with pytest.raises(StatisticsError, match="no predictions to evaluate"):
        evaluate(table, [], HORIZONS)
    with pytest.raises(StatisticsError, match="there is no predicted survival"):
        evaluate(table, [replace(one, survival=None) for one in predicted(table, "deep", table.X[:, 0], HORIZONS)])


@pytest.mark.parametrize("classes", [2, 3])
def test_classes_are_measured_like_scikit_learn_does_on_the_held_out_cases(classes: int) -> None:
    rng = np.random.default_rng(100)
    n, names = 120, ("grade 2", "grade 3", "grade 4")[:classes]
    label = rng.permutation(np.arange(n) % classes)
    score = np.exp(rng.normal(size=(n, classes)) + np.eye(classes)[label])
    probability = score / score.sum(axis=1, keepdims=True)
    table = table_of(Classes(label, names), rng.normal(size=(n, 2)))
    noise = np.full((n, classes), 1 / classes) + 0.01 * rng.normal(size=(n, 1)) * np.array([1, -1, 0][:classes])
    results = classified(table, "mlp", probability)
    tables = evaluate(table, results + classified(table, "noise", noise))
    assert set(tables) == {
        *("folds", "predictions", "selection", "bounded", "measures", "differences", "confusion", "roc"),
        *("calibration", "net_benefit", "influence"),
    }
    rows = tables["measures"]
    scores = probability[:, 1] if classes == 2 else probability
    auc = [roc_auc_score(label[one.test], scores[one.test], multi_class="ovr") for one in results]
    assert pick(rows, procedure="mlp", measure="auc")["value"] == pytest.approx(np.mean(auc), abs=1e-12)
    accuracy = balanced_accuracy_score(label, probability.argmax(axis=1))
    found = pick(rows, procedure="mlp", measure="balanced_accuracy")
    assert found["value"] == pytest.approx(accuracy, abs=1e-12)
    assert found["lower"] < accuracy < found["upper"]
    brier = [brier_score_loss(label == k, probability[:, k]) for k in range(classes)]
    expected = brier[1] if classes == 2 else sum(brier)
    assert pick(rows, procedure="mlp", measure="brier")["value"] == pytest.approx(expected, abs=1e-12)
    cells = [row["cases"] for row in tables["confusion"] if row["procedure"] == "mlp"]
    np.testing.assert_allclose(
        np.reshape(cells, (classes, classes)), confusion_matrix(label, probability.argmax(axis=1))
    )
    assert pick(tables["differences"], measure="auc")["p_corrected"] < 0.05
    suffix = "" if classes == 2 else "_grade 3"
    assert pick(rows, procedure="mlp", measure=f"calibration_slope{suffix}")["value"] > 0
    assert f"probability_{names[-1]}" in tables["predictions"][0]


def test_the_mean_roc_curve_has_the_mean_auc() -> None:
    rng = np.random.default_rng(100)
    label = rng.permutation(np.arange(400) % 2)
    positive = 1 / (1 + np.exp(-(label - 0.5) - rng.normal(size=400)))
    table = table_of(Classes(label, ("low", "high")), rng.normal(size=(400, 2)))
    tables = evaluate(table, classified(table, "mlp", np.column_stack([1 - positive, positive])))
    curve = pd.DataFrame(tables["roc"])
    area = np.trapezoid if hasattr(np, "trapezoid") else np.trapz
    expected = pick(tables["measures"], measure="auc")["value"]
    assert area(curve["true_positive_rate"], curve["false_positive_rate"]) == pytest.approx(expected, abs=0.01)
    assert (curve["lower"] <= curve["true_positive_rate"]).all()


def test_a_class_that_is_absent_from_a_fold_leaves_that_fold_out() -> None:
    rng = np.random.default_rng(1)
    label = np.zeros(40, dtype=int)
    label[:3] = 1
    table = table_of(Classes(label, ("common", "rare")), rng.normal(size=(40, 2)))
    results = classified(table, "mlp", np.column_stack([1 - 0.5 * rng.random(40), 0.5 * rng.random(40)]))
    results = [
        replace(one, probability=one.probability / one.probability.sum(axis=1, keepdims=True)) for one in results
    ]  # type: ignore[union-attr, operator]
    tables = evaluate(table, results)
    without = sum(not label[one.test].any() for one in results)
    assert without
    row = pick(tables["measures"], measure="auc")
    assert row["note"] == f"{without} of 12 held-out folds lack a case of every class and are left out"
    assert np.isfinite(row["value"])
    nobody = replace(table, endpoint=Classes(np.zeros(40, dtype=int), ("common", "rare")))
    tables = evaluate(nobody, results)
    for measure in ("auc", "balanced_accuracy", "recall_rare"):
        assert isnan(pick(tables["measures"], measure=measure)["value"])
        assert pick(tables["measures"], measure=measure)["note"]


@pytest.mark.parametrize("seed", range(6))
def test_a_tiny_cohort_gives_figures_or_reasons_and_never_a_bare_error(seed: int) -> None:
    """Ties, few or no events, missing and constant stages, useless and wild predictions, patients with many cases."""
    rng = np.random.default_rng(seed)
    n, horizons = int(rng.integers(8, 30)), (0.5, 3.0, 20.0)
    event = rng.random(n) < rng.choice([0, 0.1, 0.5, 1.0])
    columns = rng.normal(size=(n, 4))
    columns[:, 2] = rng.choice([1.0, columns[0, 2]])
    columns[rng.random(n) < 0.4, 3] = np.nan
    table = table_of(Survival(np.ceil(rng.exponential(5, size=n)), event), columns, cases_each=int(rng.integers(1, 4)))
    scores = [rng.normal(size=n) * rng.choice([0, 1e-9, 1, 6]), -table.time_days]
    grid = time_grid(table.survival, horizons)
    results = [one for name, score in zip("ab", scores, strict=True) for one in predicted(table, name, score, grid)]
    tables = evaluate(table, results, horizons, in_sample=results[:1])
    for name, rows in tables.items():
        assert len({tuple(row) for row in rows}) <= 1, name
    assert {row["horizon_days"] for row in tables["measures"]} >= set(horizons)
    for row in tables["measures"]:
        assert np.isfinite(row["value"]) or row["note"], row
    for row in [*tables["added"], *tables["differences"]]:
        value = row["p"] if "p" in row else row["p_corrected"]
        assert np.isfinite(value) or row["note"], row


def test_another_cohort_is_one_fold_whose_differences_rest_on_the_drawn_patients(table: FeatureTable) -> None:
    nobody, everyone = np.arange(0), np.arange(len(table.case_ids))
    results = []
    for name, score in (("deep", table.X[:, 0]), ("noise", table.X[:, 1])):
        survival = np.exp(-np.array(HORIZONS) / 300 * np.exp(score)[:, None])
        results.append(FoldResult(name, 0, 0, nobody, everyone, score, 0.0, HORIZONS, survival, None, ("f0",), {}))
    tables = evaluate(table, results, HORIZONS)
    row = pick(tables["measures"], procedure="deep", measure="harrell_c")
    assert row["value"] == pytest.approx(concordance_index(table.time_days, -table.X[:, 0], table.event), abs=1e-12)
    difference = pick(tables["differences"], measure="harrell_c")
    assert difference["lower_drawn"] > 0
    assert isnan(difference["p_corrected"])
    assert "1 folds have a value; two or more are needed" in difference["note"]


def test_figures_that_are_the_same_in_all_draws_have_no_interval() -> None:
    endpoint = Survival(np.arange(100.0, 900, 100), np.ones(8, dtype=bool))
    score = -np.arange(8.0)
    table = table_of(endpoint, score[:, None])
    results = [replace(one, cutoff=-3.5) for one in predicted(table, "deep", score, time_grid(endpoint, (450.0,)))]
    measures = evaluate(table, results, (450.0,))["measures"]
    row = pick(measures, procedure="deep", measure="auc_t", in_sample=0)
    assert row["value"] == 1
    assert np.isnan([row["lower"], row["upper"]]).all()
    assert row["note"].endswith("no interval: it is the same in all draws of the patients")
