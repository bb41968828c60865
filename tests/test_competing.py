"""Competing events are no censoring: incidence and models agree with R's survival, and a report says what is what."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lifelines import KaplanMeierFitter

from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Survival
from prognosis_dask.modelling.data.reading import find_tables, read_tables
from prognosis_dask.modelling.estimators.partial_likelihood import likelihood_of, maximise, score_likelihood
from prognosis_dask.modelling.metrics.brier import fit_censoring
from prognosis_dask.modelling.metrics.calibration import net_benefit_survival, survival_calibration
from prognosis_dask.modelling.metrics.competing import (
    aalen_johansen,
    causes,
    fine_gray,
    follow_up_rows,
    freedom,
    gray_test,
    subdistribution,
)
from prognosis_dask.modelling.metrics.concordance import competing_uno, uno_c
from prognosis_dask.modelling.metrics.cox_tests import clustered_cox, ph_test
from prognosis_dask.modelling.metrics.intervals import draw_patients
from prognosis_dask.modelling.metrics.kaplan_meier import bootstrap_survival, kaplan_meier, log_rank, median_follow_up
from prognosis_dask.modelling.metrics.regression import bootstrap_cox
from prognosis_dask.modelling.metrics.survival_tables import bootstrap_auc_t
from prognosis_dask.modelling.spec import load_spec
from prognosis_dask.modelling.validation.evaluate import evaluate, time_grid
from prognosis_dask.workflows.models import fit
from tests.test_evaluate import HORIZONS, predicted, table_of

#: What competing.R beside them wrote.
FOLDER = Path(__file__).parent / "r_survival"
#: Tables of evaluate beside the measures.
_OF_RISK = ("auc_t", "calibration", "net_benefit", "kaplan_meier", "added", "influence", "follow_up")
CODES = 'endpoint.event_codes={ "0" = 0, "1" = 1, "2" = 2 }'


@pytest.fixture(scope="module")
def cohort() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = pd.read_csv(FOLDER / "competing.csv")
    return table[["x1", "x2"]].to_numpy(float), table["time"].to_numpy(float), table["cause"].to_numpy()


@pytest.fixture(scope="module")
def theirs() -> dict[str, np.ndarray]:
    values = pd.read_csv(FOLDER / "competing_values.csv")
    return {str(what): group["value"].to_numpy() for what, group in values.groupby("what", sort=False)}


def test_fine_and_grays_model_is_theirs(cohort, theirs) -> None:
    np.testing.assert_allclose(fine_gray(cohort[0], subdistribution(*cohort[1:])), theirs["fine_gray"], rtol=1e-7)
    with pytest.raises(StatisticsError, match="none has the event"):
        fine_gray(cohort[0], Survival(cohort[1], np.zeros(300, dtype=bool)))


@pytest.mark.parametrize(("of", "name"), [(1, "event"), (2, "competing")])
def test_the_cumulative_incidence_and_its_error_are_theirs(of: int, name: str, cohort, theirs) -> None:
    found = aalen_johansen(subdistribution(*cohort[1:]), of)
    at = np.searchsorted(found.time_days, [10, 20, 40, 60], side="right") - 1
    np.testing.assert_allclose(found.incidence[at], theirs[f"incidence_{name}"], rtol=1e-10)
    np.testing.assert_allclose(found.error[at], theirs[f"error_{name}"], rtol=1e-7)
    assert ((found.lower <= found.incidence) & (found.incidence <= found.upper) & (found.upper <= 1)).all()


def test_coxs_likelihood_with_competing_events_is_that_of_fine_and_grays_weights(cohort, theirs) -> None:
    X, time, cause = cohort
    end = subdistribution(time, cause, seed=5)
    likelihood = likelihood_of(X, end)
    coefficient, information = maximise(likelihood)
    np.testing.assert_allclose(coefficient, theirs["fine_gray_efron"], rtol=1e-7)
    values = [score_likelihood(end)(X @ at) for at in (np.zeros(2), coefficient)]
    np.testing.assert_allclose(values, theirs["likelihood_efron"], rtol=1e-12)
    inverse = np.linalg.inv(information)
    dfbeta = (likelihood.residuals(coefficient) @ inverse)[np.argsort(end.by_time())]
    np.testing.assert_allclose(dfbeta.T.ravel(), theirs["dfbeta_efron"], atol=1e-9)
    rows = ph_test(X, end, coefficient, inverse, ["x1", "x2"])
    np.testing.assert_allclose([row["statistic"] for row in rows], theirs["ph_statistic"], rtol=1e-7)
    patients = [str(row % 150) for row in range(300)]
    _, covariance = clustered_cox(X, end, patients)
    np.testing.assert_allclose(np.sqrt(np.diag(covariance)), theirs["error_over_patients"], rtol=1e-8)


def test_risk_groups_are_compared_by_grays_test_and_fine_and_grays_hazard_ratio(cohort, theirs) -> None:
    X, time, cause = cohort
    end, high = subdistribution(time, cause), X[:, 0] + 0.5 * X[:, 1] > 0
    found = gray_test(end, high)
    np.testing.assert_allclose([found.statistic, found.p], theirs["gray"], rtol=1e-10)
    log_ratio = bootstrap_cox(high[:, None].astype(float), end, np.ones((1, 300)))
    np.testing.assert_allclose(np.exp(log_ratio[0]), theirs["hazard_ratio"], rtol=1e-8)
    with pytest.raises(StatisticsError, match="one group"):
        gray_test(end, high | True)


def test_without_competing_events_grays_test_is_near_the_log_rank_test_and_the_curve_kaplan_meiers(cohort) -> None:
    X, time, cause = cohort
    high, none = X[:, 0] > 0, np.where(cause == 2, 0, cause)
    uncompeted = Survival(time, none == 1)
    assert gray_test(uncompeted, high).statistic == pytest.approx(log_rank(uncompeted, high).statistic, rel=0.02)
    curve, plain = freedom(subdistribution(time, none)), kaplan_meier(uncompeted)
    np.testing.assert_allclose(curve.survival, plain.survival, rtol=1e-12)
    np.testing.assert_array_equal(curve.at_risk, plain.at_risk)


def test_an_incidences_error_over_patients_is_what_weighing_each_of_them_more_changes(cohort) -> None:
    _, time, cause = cohort
    patients = np.array([str(row % 150) for row in range(300)])
    found = aalen_johansen(subdistribution(time, cause), patient_ids=patients.tolist())
    weight = np.vstack([np.ones(300), 1 + 1e-5 * (patients == np.unique(patients)[:, None])])
    for days in (10.0, 20.0, 40.0, 60.0):
        survival = bootstrap_survival(subdistribution(time, cause), days, weight)
        error = np.sqrt((((survival[1:] - survival[0]) / 1e-5) ** 2).sum())
        at = np.searchsorted(found.time_days, days, side="right") - 1
        assert found.error[at] == pytest.approx(error, rel=1e-4)


def test_the_endpoint_of_all_measures_estimates_incidence_and_fine_and_grays_model(cohort, theirs) -> None:
    X, time, cause = cohort
    models, incidences = [], []
    for seed in range(40):
        endpoint = subdistribution(time, cause, seed)
        models.append(bootstrap_cox(X, Survival(endpoint.time_days, endpoint.event), np.ones((1, 300)))[0])
        incidences.append(1 - kaplan_meier(endpoint).at(np.array([10.0, 20, 40, 60])))
    np.testing.assert_allclose(np.mean(models, axis=0), theirs["fine_gray"], atol=0.01)
    np.testing.assert_allclose(np.mean(incidences, axis=0), theirs["incidence_event"], atol=0.003)
    assert np.std(models, axis=0).max() < 0.02  # one draw is a small part of the standard error, 0.09
    observed_time, observed = causes(endpoint)
    np.testing.assert_array_equal(observed_time, time)
    np.testing.assert_array_equal(observed, cause)
    assert (endpoint.time_days[cause == 2] >= time[cause == 2]).all()


def test_the_endpoint_estimates_the_incidence_where_events_and_censoring_share_their_times_too(cohort) -> None:
    _, time, cause = cohort
    coarse = np.ceil(time / 15)
    drawn = [subdistribution(coarse, cause, seed) for seed in range(200)]
    found = aalen_johansen(drawn[0])
    mean = np.mean([1 - kaplan_meier(one).at(found.time_days) for one in drawn], axis=0)
    np.testing.assert_allclose(mean, found.incidence, atol=0.002)


@pytest.mark.parametrize("cases_each", [1, 2])
def test_no_figure_of_predictions_depends_on_the_draw_of_censoring_times(cases_each: int, cohort) -> None:
    X, time, cause = cohort
    seen = []
    for seed in range(2):
        columns = np.column_stack([X, X.sum(axis=1).round()])  # the third is a volume
        table = table_of(subdistribution(10 * time, cause, seed), columns, cases_each)
        found = evaluate(table, predicted(table, "deep", X[:, 0], time_grid(table.survival, HORIZONS)), HORIZONS)
        figures = pd.DataFrame(found["measures"])
        assert not figures.loc[figures["measure"].isin(["uno_c", "log_rank_p"]), "value"].isna().any()
        seen.append([figures, *(pd.DataFrame(found[name]) for name in _OF_RISK)])
    for one, other in zip(*seen, strict=True):
        pd.testing.assert_frame_equal(one, other)


def test_unos_c_weights_each_pair_by_how_often_both_of_it_are_seen(cohort) -> None:
    X, time, cause = cohort[0][:120, 0].round(1), cohort[1][:120], cohort[2][:120]
    event, competing, end = cause == 1, cause == 2, subdistribution(time, cause)
    seen = fit_censoring(end).seen(time)
    drawn = draw_patients([str(i) for i in range(120)], np.random.default_rng(0), 3)
    for weight, value in zip(drawn, competing_uno(end, X, seen, time < 40, drawn), strict=True):
        agreed = comparable = 0.0
        for i in np.flatnonzero(event & (time < 40)):
            for j in range(120):
                later = time[j] > time[i] or (time[j] == time[i] and cause[j] == 0)
                if later or competing[j]:
                    pair = weight[i] * weight[j] / seen[i] / (seen[i] if later else seen[j])
                    comparable += pair
                    agreed += pair * ((X[j] < X[i]) + 0.5 * (X[j] == X[i]))
        assert value == pytest.approx(agreed / comparable, rel=1e-12)
    assert uno_c(end, X, seen, 40.0) == competing_uno(end, X, seen, time < 40, np.ones((1, 120)))[0]
    plain = fit_censoring(Survival(time, event)).seen(time)
    expected = uno_c(Survival(time, event), X, plain, 40.0)
    none = Survival(time, event, competing_days=np.full(120, np.nan))
    found = competing_uno(none, X, plain, time < 40, np.ones((1, 120)))[0]
    assert found == pytest.approx(expected, rel=1e-12)


def test_a_draw_of_the_patients_is_worth_the_repeated_cases_where_events_compete(cohort) -> None:
    X, time, cause = cohort
    whole, risk = subdistribution(time, cause), 1 - np.exp(-0.3 * np.exp(X[:, 0]))
    censoring = fit_censoring(whole)
    drawn = draw_patients([str(i) for i in range(300)], np.random.default_rng(1), 3)

    def figures(rows: np.ndarray, weight: np.ndarray) -> np.ndarray:
        end = whole.rows(rows)
        calibration = survival_calibration(end, risk[rows], 20.0, weight, np.array([0.3]), censoring)
        return np.column_stack(
            [
                bootstrap_auc_t(end, risk[rows], 20.0, censoring, weight),
                bootstrap_survival(end, 20.0, weight),
                net_benefit_survival(end, risk[rows], 20.0, np.array([0.3]), weight),
                calibration.slope,
                calibration.observed_expected,
            ]
        )

    values = figures(np.arange(300), drawn)
    for value, times in zip(values, drawn, strict=True):
        rows = np.repeat(np.arange(300), times.astype(int))
        np.testing.assert_allclose(figures(rows, np.ones((1, len(rows))))[0], value, atol=1e-7)


def test_follow_up_is_that_of_lifelines_and_with_competing_events_that_of_the_incidence(cohort, theirs) -> None:
    _, time, cause = cohort
    plain = Survival(time, cause == 1)
    fitted = KaplanMeierFitter().fit(time, plain.event)
    (row,) = follow_up_rows(plain, (), (20.0,))
    assert row["survival"] == pytest.approx(float(fitted.predict(20.0)))
    assert (row["events"], row["beyond"]) == (int((plain.event & (time <= 20)).sum()), int((time > 20).sum()))
    median = KaplanMeierFitter().fit(time, ~plain.event).median_survival_time_
    assert median_follow_up(plain) == pytest.approx(median)
    (row,) = follow_up_rows(subdistribution(time, cause), (), (20.0,))
    assert row["survival"] == pytest.approx(1 - theirs["incidence_event"][1])
    assert row["competing"] == int(((cause == 2) & (time <= 20)).sum())
    assert row["events"] + row["competing"] + row["censored"] + row["beyond"] == 300


def test_a_table_with_a_third_code_is_asked_about_and_the_line_to_paste_works(tmp_path: Path) -> None:
    path = _table(tmp_path)
    with pytest.raises(StatisticsError, match="2 may be an event that competes with 1") as refused:
        read_tables(find_tables([path], load_spec(None)), load_spec(None))
    setting = str(refused.value).split("--set '")[1].split("'")[0]
    spec = load_spec(None, [setting])
    read = read_tables(find_tables([path], spec), spec)
    assert isinstance(read.table.endpoint, Survival)
    assert int(np.isfinite(read.table.endpoint.competing_days).sum()) == 99
    assert "99 rows of event have a competing event" in " ".join(read.notes)


def test_a_fit_with_competing_events_has_incidences_and_the_models_beside_each_other(tmp_path: Path) -> None:
    clinical = ("column.x1.family=clinical", "column.x2.family=clinical")
    few = (CODES, *clinical, "validation.repeats=1", "validation.folds=3", "validation.halves=0")
    fit(_table(tmp_path), out=tmp_path / "out", overrides=few, say=lambda _: None)
    models = pd.read_csv(tmp_path / "out" / "models" / "competing.csv").set_index("feature")
    assert models.loc["x1", "subdistribution"] > 1.5
    assert models.loc["x2", "of_competing"] > 1.3 > 1.1 > models.loc["x2", "cause_specific"]
    assert set(pd.read_csv(tmp_path / "out" / "models" / "incidence.csv")["cause"]) == {"event", "competing"}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Cumulative incidence of the event and of competing events" in page
    assert "Free of it (%)" in page


def _table(folder: Path) -> Path:
    table = pd.read_csv(FOLDER / "competing.csv").rename(columns={"time": "time_days", "cause": "event"})
    table["time_days"] *= 10
    table.to_csv(folder / "t.csv", index=False)
    return folder / "t.csv"
