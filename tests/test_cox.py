"""The Cox model and the concordance index against lifelines, published values and slow, obvious versions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter, KaplanMeierFitter
from lifelines.datasets import load_rossi
from lifelines.statistics import logrank_test
from lifelines.utils import concordance_index

from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Survival
from prognosis_dask.modelling.estimators.cox import coefficient_rows, cox_curve
from prognosis_dask.modelling.estimators.partial_likelihood import PartialLikelihood
from prognosis_dask.modelling.metrics.concordance import concordance
from prognosis_dask.modelling.metrics.cox_tests import cox_coefficient
from prognosis_dask.modelling.metrics.kaplan_meier import kaplan_meier, log_rank
from tests.lung1_tables import read_selected
from tests.synthetic_tables import cox_of, standardised

#: lifelines stops at a relative change of 1e-9 unless told; its steps are shortened, so the last digits come slowly.
TIGHT = {"precision": 1e-14, "r_precision": 1e-16}


def names(X: np.ndarray) -> list[str]:
    return [f"x{i}" for i in range(X.shape[1])]


def tied_cohort(seed: int, n: int = 80, p: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p)) * rng.uniform(0.01, 50, p)
    return X, rng.integers(1, 12, n).astype(float), rng.random(n) < 0.7


def test_rossi_has_the_published_coefficients() -> None:
    # Fox & Weisberg, Cox Proportional-Hazards Regression for Survival Data in R, Efron's method
    rossi = load_rossi()
    features = ["fin", "age", "race", "wexp", "mar", "paro", "prio"]
    X = rossi[features].to_numpy(float)
    model = cox_of(X, rossi["week"].to_numpy(float), (rossi["arrest"] == 1).to_numpy(), penalty=0)
    scale = X.std(axis=0, ddof=1)
    np.testing.assert_allclose(
        model.coefficient / scale, [-0.37942, -0.05744, 0.31390, -0.14980, -0.43370, -0.08487, 0.09150], atol=5e-6
    )
    np.testing.assert_allclose(
        model.standard_error / scale, [0.19138, 0.02200, 0.30799, 0.21222, 0.38187, 0.19576, 0.02865], atol=5e-6
    )
    p = [row["p"] for row in coefficient_rows(features, model.coefficient, model.standard_error)]
    np.testing.assert_allclose(p, [0.0474, 0.0090, 0.3081, 0.4803, 0.2561, 0.6646, 0.0014], atol=5e-5)


@pytest.mark.parametrize("penalizer", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_estimates_are_those_of_lifelines_with_ties(seed: int, penalizer: float) -> None:
    X, time, event = tied_cohort(seed)
    model, scale = cox_of(X, time, event, penalizer), X.std(axis=0, ddof=1)
    rows = coefficient_rows(names(X), model.coefficient, model.standard_error)
    frame = pd.DataFrame(X, columns=names(X)).assign(time=time, event=event)
    theirs = CoxPHFitter(penalizer=penalizer).fit(frame, "time", "event", fit_options=TIGHT)
    np.testing.assert_allclose(model.coefficient, theirs.params_ * scale, atol=1e-8)
    np.testing.assert_allclose(model.standard_error, theirs.standard_errors_ * scale, atol=1e-7)
    np.testing.assert_allclose([row["p"] for row in rows], theirs.summary["p"], atol=1e-6)
    np.testing.assert_allclose(standardised(X) @ model.coefficient, theirs.predict_log_partial_hazard(frame), atol=1e-6)
    per_sd = theirs.confidence_intervals_.mul(scale, axis=0)
    np.testing.assert_allclose([row["lower_95"] for row in rows], np.exp(per_sd.iloc[:, 0]), rtol=1e-6)
    np.testing.assert_allclose([row["upper_95"] for row in rows], np.exp(per_sd.iloc[:, 1]), rtol=1e-6)


def test_likelihood_is_efrons_and_its_derivatives_are_its_own() -> None:
    X, time, event = tied_cohort(5, n=30, p=3)
    order = np.argsort(time)
    Z, time, event = X[order] / X.std(axis=0), time[order], event[order]
    beta = np.array([0.3, -0.2, 0.5])
    likelihood = PartialLikelihood(Z, time, event, 0.0)
    hazard, expected = np.exp(Z @ beta), 0.0
    for t in set(time[event]):
        dead = np.flatnonzero(event & (time == t))
        for tied in range(len(dead)):
            total = hazard[time >= t].sum() - tied / len(dead) * hazard[dead].sum()
            expected += (Z[dead[tied]] @ beta) - np.log(total)
    assert likelihood.value(beta) == pytest.approx(expected, rel=1e-12)

    penalised = PartialLikelihood(Z, time, event, 0.1)
    gradient, information = penalised.derivatives(beta)
    for i, step in enumerate(1e-5 * np.eye(3)):
        slope = (penalised.value(beta + step) - penalised.value(beta - step)) / 2e-5
        bend = (penalised.derivatives(beta + step)[0] - penalised.derivatives(beta - step)[0]) / 2e-5
        assert gradient[i] == pytest.approx(slope, abs=1e-6)
        np.testing.assert_allclose(-information[i], bend, atol=1e-6)


def test_curve_is_the_reference_studys(shared_data: Path) -> None:
    table = read_selected(shared_data / "lung1_tables")
    curve = cox_curve(table.X, table.survival, (1, 10, 50, 100))
    np.testing.assert_allclose(curve, [0.5632, 0.5903, 0.6337, 0.6662], atol=5e-5)
    assert curve[-1] == pytest.approx(0.6662107, abs=5e-8)


def test_curve_is_lifelines_own(shared_data: Path) -> None:
    table = read_selected(shared_data / "lung1_tables")
    frame = pd.DataFrame(table.X[:, :30], columns=table.features[:30]).assign(time=table.time_days, event=table.event)
    theirs = CoxPHFitter(penalizer=0.01).fit(frame, "time", "event").concordance_index_
    assert cox_curve(table.X, table.survival, [30]) == pytest.approx([theirs], abs=1e-12)


@pytest.mark.parametrize("penalizer", [0.0, 0.01])
def test_the_model_and_the_risk_groups_of_lung1_are_lifelines_own(shared_data: Path, penalizer: float) -> None:
    table = read_selected(shared_data / "lung1_tables")
    Z, time, event = standardised(table.X[:, :20]), table.time_days, table.event
    model = cox_of(table.X[:, :20], time, event, penalizer)
    frame = pd.DataFrame(Z).add_prefix("x").assign(time=time, event=event)
    theirs = CoxPHFitter(penalizer=penalizer).fit(frame, "time", "event", fit_options=TIGHT)
    np.testing.assert_allclose(model.coefficient, theirs.params_, atol=1e-8)
    np.testing.assert_allclose(model.standard_error, theirs.standard_errors_, atol=1e-8)
    score = Z @ model.coefficient
    high = score > np.median(score)
    for group in (high, ~high):
        curve = kaplan_meier(table.survival.rows(group))
        expected = KaplanMeierFitter().fit(time[group], event[group])
        np.testing.assert_allclose(curve.survival, expected.survival_function_.iloc[:, 0], atol=1e-12)
        bounds = np.column_stack([curve.lower, curve.upper])
        np.testing.assert_allclose(bounds, expected.confidence_interval_, atol=1e-12)
    test = logrank_test(time[high], time[~high], event[high], event[~high])
    assert log_rank(table.survival, high).statistic == pytest.approx(test.test_statistic, rel=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_concordance_is_lifelines_with_every_kind_of_tie(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 60))
    time, event, risk = rng.integers(1, 9, n).astype(float), rng.random(n) < 0.6, rng.integers(0, 5, n).astype(float)
    event[time.argmin()] = True
    found = concordance(Survival(time, event), risk)
    if found.comparable:
        assert found.c_index == pytest.approx(concordance_index(time, -risk, event), abs=1e-12)


def test_concordance_is_one_for_a_perfect_risk_and_nan_without_pairs() -> None:
    time, event = np.array([1.0, 2.0, 3.0]), np.array([True, True, False])
    found = concordance(Survival(time, event), np.array([3.0, 2.0, 1.0]))
    assert (found.c_index, found.comparable, found.concordant, found.tied) == (1.0, 3, 3, 0)
    assert np.isnan(concordance(Survival(time, np.zeros(3, dtype=bool)), time).c_index)


def separable(n: int = 20) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    time = np.arange(1.0, n + 1)
    return -time[:, None], time, np.ones(n, dtype=bool)


def test_no_event_non_positive_time_and_constant_column_are_said() -> None:
    X, time, event = tied_cohort(0)
    with pytest.raises(StatisticsError, match="all 80 training cases are censored: without events"):
        cox_of(X, time, np.zeros_like(event))
    with pytest.raises(StatisticsError, match="2 of 80 times are not positive"):
        Survival(np.where(np.arange(80) < 2, 0.0, time), event)
    X[:, 4] = 0.1 + 0.2
    with pytest.raises(StatisticsError, match=r"Cox model of 6 columns: \[4\] are constant"):
        cox_coefficient(X, Survival(time, event))


def test_without_a_penalty_no_maximum_is_said() -> None:
    X, time, event = tied_cohort(0)
    with pytest.raises(StatisticsError, match=r"collinear.*column 0, column 6; .*give a penalty"):
        cox_of(np.column_stack([X, X[:, 0]]), time, event, penalty=0)
    with pytest.raises(StatisticsError, match=r"coefficients of 100 have no finite estimate"):
        cox_of(np.random.default_rng(0).normal(size=(80, 100)), time, event, penalty=0)
    with pytest.raises(StatisticsError, match="order the events perfectly: column 0"):
        cox_of(*separable(), penalty=0)


def test_the_penalty_carries_duplicates_separable_data_and_more_features_than_events() -> None:
    X, time, event = tied_cohort(0)
    twice = cox_of(np.column_stack([X, X[:, 0]]), time, event)
    assert twice.coefficient[0] == pytest.approx(twice.coefficient[-1])
    many = np.random.default_rng(0).normal(size=(80, 100))
    assert np.isfinite(cox_of(many, time, event).coefficient).all()
    X, time, event = separable()
    assert cox_curve(X, Survival(time, event), [1]) == [1.0]


def test_outliers_and_hopeless_penalties_end_in_numbers_or_a_reason() -> None:
    X, time, event = tied_cohort(0)
    X[3, 0], X[~event, 1] = 1e12, X[~event, 1] - 1e9
    assert np.isfinite(cox_of(X, time, event, penalty=1e-3).coefficient).all()
    with pytest.raises(StatisticsError, match=r"collinear.*give a penalty"):
        cox_of(np.column_stack([X, X]), time, event, penalty=1e-300)


def test_one_event_is_enough_with_a_penalty() -> None:
    X, time, _ = tied_cohort(0)
    model = cox_of(X, time, np.arange(80) == 3, penalty=0.01)
    rows = coefficient_rows(names(X), model.coefficient, model.standard_error)
    assert np.isfinite([[value for value in row.values() if not isinstance(value, str)] for row in rows]).all()
