"""Measures of predicted survival: against scikit-survival, lifelines, and slow versions of the definition."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import sksurv.metrics as witness
from lifelines import CoxPHFitter, KaplanMeierFitter
from lifelines.statistics import multivariate_logrank_test
from lifelines.utils import concordance_index
from sksurv.linear_model import CoxPHSurvivalAnalysis

from prognosis_dask.arrays import BoolArray, FloatArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Survival
from prognosis_dask.modelling.metrics.brier import brier_score, fit_censoring, integrated, squared_errors
from prognosis_dask.modelling.metrics.calibration import net_benefit_survival, survival_calibration
from prognosis_dask.modelling.metrics.concordance import bootstrap_concordance, concordance, uno_c, uno_weight
from prognosis_dask.modelling.metrics.cox_tests import ph_test, schoenfeld
from prognosis_dask.modelling.metrics.intervals import draw_patients, interval
from prognosis_dask.modelling.metrics.kaplan_meier import bootstrap_survival, kaplan_meier, log_rank
from prognosis_dask.modelling.metrics.regression import baseline_hazard, bootstrap_cox, restricted_spline
from prognosis_dask.modelling.metrics.survival_tables import auc_t, bootstrap_auc_t, mean_auc
from tests.synthetic_tables import events_first

SEEDS = range(4)
ONCE = np.ones((1, 150))
HORIZON = 250.0


@dataclass(frozen=True)
class Cohort:
    time: FloatArray
    event: BoolArray
    risk: FloatArray

    @property
    def endpoint(self) -> Survival:
        return Survival(self.time, self.event)

    @property
    def outcome(self) -> np.ndarray:
        return events_first(self.event, self.time)

    def survival(self, days: float) -> FloatArray:
        return np.exp(-days / 300 * np.exp(1.3 * self.risk))

    def repeated(self, times: FloatArray) -> Cohort:
        at = np.repeat(np.arange(len(self.time)), times.astype(int))
        return Cohort(self.time[at], self.event[at], self.risk[at])


def cohort(seed: int, n: int = 150, ties: bool = True) -> Cohort:
    """Proportional hazards; with ties in time, also between event and censoring, and in risk."""
    rng = np.random.default_rng(seed)
    risk = rng.normal(size=n)
    died, lost = 300 * rng.exponential(size=n) * np.exp(-risk), rng.exponential(600, size=n)
    time, event = np.minimum(died, lost) + 1e-3, died <= lost
    return Cohort(np.ceil(time / 10) * 10, event, np.round(risk, 1)) if ties else Cohort(time, event, risk)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("ties", [True, False])
def test_harrells_c_is_that_of_lifelines(seed: int, ties: bool) -> None:
    one = cohort(seed, ties=ties)
    assert concordance(one.endpoint, one.risk).c_index == pytest.approx(
        concordance_index(one.time, -one.risk, one.event), abs=1e-12
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("tau", [np.inf, HORIZON])
def test_unos_c_is_that_of_scikit_survival(seed: int, tau: float) -> None:
    one = cohort(seed)
    until = tau - 1e-5 if np.isfinite(tau) else None  # events are a little earlier
    expected = witness.concordance_index_ipcw(one.outcome, one.outcome, one.risk, until)[0]
    uncensored = fit_censoring(one.endpoint).seen(one.time)
    assert uno_c(one.endpoint, one.risk, uncensored, tau) == pytest.approx(expected, abs=1e-10)


def test_unos_c_with_the_censoring_of_another_cohort_is_that_of_scikit_survival() -> None:
    train, test = cohort(0, n=400), cohort(1)
    held = test.time < train.time.max()
    test = test.repeated(held.astype(float))
    expected = witness.concordance_index_ipcw(train.outcome, test.outcome, test.risk)[0]
    uncensored = fit_censoring(train.endpoint).seen(test.time)
    assert uno_c(test.endpoint, test.risk, uncensored) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("seed", SEEDS)
def test_time_dependent_auc_and_its_mean_are_those_of_scikit_survival(seed: int) -> None:
    one = cohort(seed)
    days = np.quantile(one.time, [0.1, 0.3, 0.5, 0.7, 0.9])
    censoring = fit_censoring(one.endpoint)
    expected, mean = witness.cumulative_dynamic_auc(one.outcome, one.outcome, one.risk, days)
    found = np.array([auc_t(one.endpoint, one.risk, day, censoring) for day in days])
    np.testing.assert_allclose(found, expected, atol=1e-10)
    assert float(mean_auc(one.endpoint, days, found)) == pytest.approx(mean, abs=1e-10)


@pytest.mark.parametrize("seed", SEEDS)
def test_brier_scores_are_those_of_scikit_survival(seed: int) -> None:
    one = cohort(seed)
    days = np.quantile(one.time, [0.1, 0.3, 0.5, 0.7, 0.9])
    censoring = fit_censoring(one.endpoint)
    survival = np.column_stack([one.survival(day) for day in days])
    expected = witness.brier_score(one.outcome, one.outcome, survival, days)[1]
    found = np.array([brier_score(one.endpoint, one.survival(day), day, censoring) for day in days])
    np.testing.assert_allclose(found, expected, atol=1e-10)
    whole = witness.integrated_brier_score(one.outcome, one.outcome, survival, days)
    assert float(integrated(days, found)) == pytest.approx(whole, abs=1e-10)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("ties", [True, False])
def test_kaplan_meier_and_its_interval_are_those_of_lifelines(seed: int, ties: bool) -> None:
    one = cohort(seed, ties=ties)
    expected = KaplanMeierFitter().fit(one.time, one.event)
    found = kaplan_meier(one.endpoint)
    np.testing.assert_allclose(found.time_days, expected.survival_function_.index)
    np.testing.assert_allclose(found.survival, expected.survival_function_.iloc[:, 0], atol=1e-12)
    np.testing.assert_allclose(np.column_stack([found.lower, found.upper]), expected.confidence_interval_, atol=1e-12)
    np.testing.assert_array_equal(found.at_risk, expected.event_table["at_risk"])
    days = np.array([0.0, 100.0, 1000.0])
    np.testing.assert_allclose(found.at(days), expected.predict(days), atol=1e-12)


@pytest.mark.parametrize("groups", [2, 3])
def test_log_rank_test_is_that_of_lifelines(groups: int) -> None:
    one = cohort(0)
    group = np.random.default_rng(1).integers(0, groups, len(one.time)) + 2 * (one.risk > 1)
    expected = multivariate_logrank_test(one.time, group, one.event)
    found = log_rank(one.endpoint, group)
    assert found.statistic == pytest.approx(expected.test_statistic, rel=1e-9)
    assert (found.p, found.df) == (pytest.approx(expected.p_value, rel=1e-9), len(set(group)) - 1)


def test_the_check_of_proportional_hazards_finds_a_coefficient_that_turns() -> None:
    one = cohort(2, ties=False)
    names = ["risk", "first harmful, then protective"]
    turns = one.event * np.where(one.time < np.median(one.time), 1.0, -1.0)
    X = np.column_stack([one.risk, np.random.default_rng(0).normal(size=len(one.risk)) + turns])
    table = pd.DataFrame(X, columns=names).assign(time=one.time, event=one.event)
    model = CoxPHFitter().fit(table, "time", "event")
    rows = ph_test(X, one.endpoint, model.params_.to_numpy(), model.variance_matrix_.to_numpy(), names)
    assert rows[1]["p"] < 0.01


def test_schoenfeld_residuals_with_ties_are_those_of_lifelines() -> None:
    one = cohort(3)
    table = pd.DataFrame({"risk": one.risk, "time": one.time, "event": one.event})
    model = CoxPHFitter().fit(table, "time", "event")
    expected = model.compute_residuals(table, "schoenfeld")["risk"].sort_index()
    found = schoenfeld(one.risk[:, None], one.endpoint, model.params_.to_numpy())[0][:, 0]
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_cox_model_in_a_draw_is_scikit_survivals_on_the_repeated_cases() -> None:
    one = cohort(0)
    X = np.column_stack([one.risk, np.random.default_rng(5).normal(size=len(one.risk))])
    drawn = draw_patients([str(i) for i in range(len(X))], np.random.default_rng(1), 3)
    found = bootstrap_cox(X, one.endpoint, drawn)
    for coefficient, times in zip(found, drawn, strict=True):
        at = np.repeat(np.arange(len(X)), times.astype(int))
        model = CoxPHSurvivalAnalysis(alpha=0, ties="breslow", tol=1e-13, n_iter=200)
        model.fit(X[at], one.outcome[at])
        np.testing.assert_allclose(coefficient, model.coef_, atol=1e-8)
        eta = (X @ coefficient)[None]
        hazard = baseline_hazard(eta, one.endpoint, HORIZON, times[None])[0]
        assert hazard == pytest.approx(model.cum_baseline_hazard_(HORIZON), abs=1e-8)


def test_restricted_spline_is_smooth_and_straight_beyond_its_knots() -> None:
    x = np.linspace(-6, 6, 2401)
    terms = restricted_spline(x, np.array([-1.0, 0.5, 2.0]))
    assert terms.shape == (2401, 2)
    np.testing.assert_allclose(terms[:, 0], x)
    bend = np.diff(terms[:, 1], 2)
    assert np.abs(bend[(x[1:-1] < -1.01) | (x[1:-1] > 2.01)]).max() < 1e-12
    assert np.abs(np.diff(bend)).max() < 1e-6
    assert np.abs(bend).max() > 1e-6


def test_calibration_is_that_of_a_cox_model_on_a_spline_of_the_prediction() -> None:
    one = cohort(1)
    risk = np.clip(1 - one.survival(HORIZON), 0.01, 0.99)
    points = np.array([0.2, 0.5, 0.8])
    found = survival_calibration(one.endpoint, risk, HORIZON, ONCE, points)

    def basis(p: FloatArray) -> FloatArray:
        x = np.log(-np.log(1 - p))
        a, b, c = np.percentile(np.log(-np.log(1 - risk)), [10, 50, 90])
        cube = [np.maximum(x - knot, 0) ** 3 for knot in (a, b, c)]
        return np.column_stack([x, cube[0] - cube[1] * (c - a) / (c - b) + cube[2] * (b - a) / (c - b)])

    model = CoxPHSurvivalAnalysis(alpha=0, ties="breslow", tol=1e-13, n_iter=200).fit(basis(risk), one.outcome)
    curve, smooth = (
        np.array([1 - step(HORIZON) for step in model.predict_survival_function(basis(p))]) for p in (risk, points)
    )
    np.testing.assert_allclose(found.smooth[0], smooth, atol=1e-7)
    distance = np.abs(curve - risk)
    assert found.ici[0] == pytest.approx(distance.mean(), abs=1e-7)
    assert found.e50[0] == pytest.approx(np.quantile(distance, 0.5, method="inverted_cdf"), abs=1e-7)
    assert found.e90[0] == pytest.approx(np.quantile(distance, 0.9, method="inverted_cdf"), abs=1e-7)
    observed = 1 - KaplanMeierFitter().fit(one.time, one.event).predict(HORIZON)
    assert found.observed_expected[0] == pytest.approx(observed / risk.mean(), abs=1e-12)


def test_calibration_slope_says_how_much_too_extreme_predictions_are() -> None:
    one = cohort(0, n=4000, ties=False)
    ones = np.ones((1, 4000))
    for exaggeration in (1.0, 1.5, 0.5):
        risk = 1 - np.exp(-HORIZON / 300 * np.exp(exaggeration * one.risk))
        found = survival_calibration(one.endpoint, risk, HORIZON, ones, np.array([0.5]))
        assert found.slope[0] == pytest.approx(1 / exaggeration, rel=0.06)
        assert (found.ici[0] < 0.02) == (exaggeration == 1.0)


def test_net_benefit_is_that_of_its_definition() -> None:
    one = cohort(2)
    risk, thresholds = 1 - one.survival(HORIZON), np.array([0.0, 0.1, 0.5, 0.9])
    found = net_benefit_survival(one.endpoint, risk, HORIZON, thresholds, ONCE)[0]
    for value, t in zip(found, thresholds, strict=True):
        treated = risk >= t
        dead = 1 - KaplanMeierFitter().fit(one.time[treated], one.event[treated]).predict(HORIZON)
        assert value == pytest.approx(treated.mean() * (dead - (1 - dead) * t / (1 - t)), abs=1e-12)
    none = net_benefit_survival(one.endpoint, 0 * risk, HORIZON, thresholds[1:], ONCE)
    np.testing.assert_array_equal(none, np.zeros((1, 3)))


def _unos(one: Cohort, drawn: FloatArray) -> FloatArray:
    weight = uno_weight(one.event, np.exp(-one.time / 600), one.time < 400)
    return bootstrap_concordance(one.endpoint, one.risk, drawn, weight)


def _auc(one: Cohort, drawn: FloatArray) -> FloatArray:
    return bootstrap_auc_t(one.endpoint, one.risk, HORIZON, fit_censoring(cohort(7).endpoint), drawn)


def _brier(one: Cohort, drawn: FloatArray) -> FloatArray:
    errors = squared_errors(one.endpoint, one.survival(HORIZON), HORIZON, fit_censoring(cohort(7).endpoint))
    return drawn @ errors / drawn.sum(axis=1)


def _slope(one: Cohort, drawn: FloatArray) -> FloatArray:
    points = np.array([0.5])
    return survival_calibration(one.endpoint, 1 - one.survival(HORIZON), HORIZON, drawn, points).slope


def _benefit(one: Cohort, drawn: FloatArray) -> FloatArray:
    risk = 1 - one.survival(HORIZON)
    return net_benefit_survival(one.endpoint, risk, HORIZON, np.array([0.4]), drawn)[:, 0]


@pytest.mark.parametrize(
    "measure",
    [
        lambda one, drawn: bootstrap_concordance(one.endpoint, one.risk, drawn),
        lambda one, drawn: bootstrap_survival(one.endpoint, HORIZON, drawn),
        _unos,
        _auc,
        _brier,
        _slope,
        _benefit,
    ],
    ids=["harrell", "kaplan-meier", "uno", "auc", "brier", "slope", "net-benefit"],
)
def test_a_draw_is_worth_what_the_repeated_cases_are(measure: Callable[[Cohort, FloatArray], FloatArray]) -> None:
    one = cohort(7)
    drawn = draw_patients([str(i) for i in range(len(one.time))], np.random.default_rng(2), 5)
    values = measure(one, drawn)
    for value, times in zip(values, drawn, strict=True):
        again = one.repeated(times)
        assert value == pytest.approx(measure(again, np.ones((1, len(again.time))))[0], abs=1e-9)


def test_all_cases_of_a_patient_are_drawn_together_so_that_copies_add_nothing() -> None:
    one = cohort(4)
    patients = [f"P{i}" for i in range(len(one.time))]
    twice = one.repeated(np.full(len(patients), 2.0))
    single = draw_patients(patients, np.random.default_rng(3), 200)
    double = draw_patients([name for name in patients for _ in range(2)], np.random.default_rng(3), 200)
    bounds = interval(bootstrap_concordance(one.endpoint, one.risk, single))
    assert interval(bootstrap_concordance(twice.endpoint, twice.risk, double)) == pytest.approx(bounds, abs=1e-12)


def test_the_interval_of_harrells_c_covers_the_truth_about_as_often_as_it_says() -> None:
    large = cohort(1000, n=8000, ties=False)
    truth = concordance(large.endpoint, large.risk).c_index
    covered = 0
    for seed in range(100):
        one = cohort(seed, n=80, ties=False)
        drawn = draw_patients([str(i) for i in range(80)], np.random.default_rng(seed), 300)
        lower, upper = interval(bootstrap_concordance(one.endpoint, one.risk, drawn))
        covered += lower <= truth <= upper
    assert 88 <= covered <= 99


def test_concordance_of_3000_patients_with_a_thousand_draws_stays_below_100_mb() -> None:
    one = cohort(0, n=3000)
    drawn = draw_patients([str(i) for i in range(3000)], np.random.default_rng(0), 1000)
    tracemalloc.start()
    found = concordance(one.endpoint, one.risk)
    alone = tracemalloc.get_traced_memory()[1]
    values = bootstrap_concordance(one.endpoint, one.risk, drawn)
    together = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert alone < 20e6
    assert together < 100e6
    assert interval(values)[0] < found.c_index < interval(values)[1]


def test_without_a_comparable_pair_there_is_no_concordance() -> None:
    time, risk = np.array([5.0, 7.0, 9.0]), np.array([3.0, 2.0, 1.0])
    nobody, last = np.zeros(3, dtype=bool), np.array([False, False, True])
    for event in (nobody, last):
        end = Survival(time, event)
        assert np.isnan(concordance(end, risk).c_index)
        assert np.isnan(bootstrap_concordance(end, risk, np.ones((2, 3)))).all()
        with pytest.raises(StatisticsError, match="no pair among 3 cases"):
            uno_c(end, risk, np.ones(3))


def test_where_all_are_censored_before_the_horizon_figures_are_refused_with_the_reason() -> None:
    end, risk = Survival(np.array([5.0, 7.0, 9.0]), np.zeros(3, dtype=bool)), np.array([0.1, 0.2, 0.3])
    censoring = fit_censoring(end)
    with pytest.raises(StatisticsError, match="follow-up ends at 9 days; choose an earlier horizon"):
        brier_score(end, risk, 9.0, censoring)
    with pytest.raises(StatisticsError, match="0 cases and 0 controls"):
        auc_t(end, risk, 20.0, censoring)
    with pytest.raises(StatisticsError, match="no event up to the last time"):
        mean_auc(end, np.array([6.0]), np.array([np.nan]))
    with pytest.raises(StatisticsError, match="fewer than two distinct times"):
        ph_test(risk[:, None], end, np.ones(1), np.eye(1), ["risk"])


def test_survival_curves_need_cases_and_groups() -> None:
    time, event = np.array([5.0, 7.0]), np.array([True, False])
    with pytest.raises(StatisticsError, match="at least one case"):
        kaplan_meier(Survival(time[:0], event[:0]))
    with pytest.raises(StatisticsError, match="all 2 cases are in one group"):
        log_rank(Survival(time, event), np.zeros(2, dtype=int))
    with pytest.raises(StatisticsError, match="none of 0 events"):
        log_rank(Survival(time, ~event & event), np.array([0, 1]))


def test_predictions_that_do_not_differ_have_no_slope_but_a_distance() -> None:
    one = cohort(0)
    found = survival_calibration(one.endpoint, np.full(150, 0.3), HORIZON, ONCE, np.array([0.3]))
    observed = 1 - KaplanMeierFitter().fit(one.time, one.event).predict(HORIZON)
    assert np.isnan(found.slope[0])
    assert found.ici[0] == pytest.approx(abs(observed - 0.3), abs=1e-12)
    assert found.smooth[0, 0] == pytest.approx(observed, abs=1e-12)


def test_a_draw_whose_risk_orders_the_events_perfectly_has_no_slope() -> None:
    time = np.arange(1.0, 21.0)
    found = bootstrap_cox(-time[:, None], Survival(time, np.ones(20, dtype=bool)), np.ones((1, 20)))
    assert np.isnan(found).all()


def test_a_draw_in_which_one_group_alone_has_the_event_has_no_hazard_ratio() -> None:
    rng = np.random.default_rng(0)
    time, event, group = np.arange(1.0, 151), np.isin(np.arange(150), (3, 50, 90)), rng.random((150, 1)) < 0.5
    drawn = draw_patients([str(row) for row in range(150)], rng, 300)
    found = bootstrap_cox(group.astype(float), Survival(time, event), drawn)[:, 0]
    both = np.array([len(set(group[event & (weight > 0), 0])) == 2 for weight in drawn])
    assert 0.1 < both.mean() < 0.9
    assert np.isnan(found[~both]).all()  # rounding ended some of them at e^37
    assert np.abs(found[both & np.isfinite(found)]).max() < 10
