"""The Cox model and the concordance index against lifelines, published values and slow, obvious versions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter
from lifelines.datasets import load_rossi
from lifelines.utils import concordance_index

from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.estimators.cox import PartialLikelihood, cox_curve, fit_cox
from prognosis_dask.modelling.metrics.concordance import concordance
from tests.lung1_tables import read_selected

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
    model = fit_cox(
        rossi[features].to_numpy(float), rossi["week"].to_numpy(float), rossi["arrest"] == 1, features, penalizer=0
    )
    np.testing.assert_allclose(
        model.coefficient / model.scale, [-0.37942, -0.05744, 0.31390, -0.14980, -0.43370, -0.08487, 0.09150], atol=5e-6
    )
    np.testing.assert_allclose(
        model.standard_error / model.scale, [0.19138, 0.02200, 0.30799, 0.21222, 0.38187, 0.19576, 0.02865], atol=5e-6
    )
    p = [row["p"] for row in model.table()]
    np.testing.assert_allclose(p, [0.0474, 0.0090, 0.3081, 0.4803, 0.2561, 0.6646, 0.0014], atol=5e-5)


@pytest.mark.parametrize("penalizer", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_estimates_are_those_of_lifelines_with_ties(seed: int, penalizer: float) -> None:
    X, time, event = tied_cohort(seed)
    model = fit_cox(X, time, event, names(X), penalizer=penalizer)
    frame = pd.DataFrame(X, columns=names(X)).assign(time=time, event=event)
    theirs = CoxPHFitter(penalizer=penalizer).fit(frame, "time", "event", fit_options=TIGHT)
    np.testing.assert_allclose(model.coefficient, theirs.params_ * model.scale, atol=1e-6)
    np.testing.assert_allclose(model.standard_error, theirs.standard_errors_ * model.scale, atol=1e-6)
    np.testing.assert_allclose([row["p"] for row in model.table()], theirs.summary["p"], atol=1e-6)
    np.testing.assert_allclose(model.risk_score(X), theirs.predict_log_partial_hazard(frame), atol=1e-6)
    per_sd = theirs.confidence_intervals_.mul(model.scale, axis=0)
    np.testing.assert_allclose([row["lower_95"] for row in model.table()], np.exp(per_sd.iloc[:, 0]), rtol=1e-6)
    np.testing.assert_allclose([row["upper_95"] for row in model.table()], np.exp(per_sd.iloc[:, 1]), rtol=1e-6)


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
    curve = cox_curve(table.X, table.time_days, table.event, (1, 10, 50, 100))
    np.testing.assert_allclose(curve, [0.5632, 0.5903, 0.6337, 0.6662], atol=5e-5)
    assert curve[-1] == pytest.approx(0.6662107, abs=5e-8)


def test_curve_is_lifelines_own(shared_data: Path) -> None:
    table = read_selected(shared_data / "lung1_tables")
    frame = pd.DataFrame(table.X[:, :30], columns=table.features[:30]).assign(time=table.time_days, event=table.event)
    theirs = CoxPHFitter(penalizer=0.01).fit(frame, "time", "event").concordance_index_
    assert cox_curve(table.X, table.time_days, table.event, [30]) == pytest.approx([theirs], abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_concordance_is_lifelines_with_every_kind_of_tie(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 60))
    time, event, risk = rng.integers(1, 9, n).astype(float), rng.random(n) < 0.6, rng.integers(0, 5, n).astype(float)
    event[time.argmin()] = True
    found = concordance(time, event, risk)
    if found.comparable:
        assert found.c_index == pytest.approx(concordance_index(time, -risk, event), abs=1e-12)


def test_concordance_is_one_for_a_perfect_risk_and_nan_without_pairs() -> None:
    time, event = np.array([1.0, 2.0, 3.0]), np.array([True, True, False])
    found = concordance(time, event, np.array([3.0, 2.0, 1.0]))
    assert (found.c_index, found.comparable, found.concordant, found.tied) == (1.0, 3, 3, 0)
    assert np.isnan(concordance(time, np.zeros(3, dtype=bool), time).c_index)


def separable(n: int = 20) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    time = np.arange(1.0, n + 1)
    return -time[:, None], time, np.ones(n, dtype=bool)


def test_no_event_non_positive_time_and_constant_column_are_said() -> None:
    X, time, event = tied_cohort(0)
    with pytest.raises(StatisticsError, match="6 features on 80 cases with 0 events: without events"):
        fit_cox(X, time, np.zeros_like(event), names(X))
    with pytest.raises(StatisticsError, match="2 times are not positive"):
        fit_cox(X, np.where(np.arange(80) < 2, 0.0, time), event, names(X))
    X[:, 4] = 0.1 + 0.2
    with pytest.raises(StatisticsError, match=r"constant columns \['x4'\]"):
        fit_cox(X, time, event, names(X))


def test_without_a_penalty_no_maximum_is_said() -> None:
    X, time, event = tied_cohort(0)
    with pytest.raises(StatisticsError, match=r"collinear.*model\.penalizer"):
        fit_cox(np.column_stack([X, X[:, 0]]), time, event, [*names(X), "again"], penalizer=0)
    with pytest.raises(StatisticsError, match=r"collinear|order the events perfectly|did not converge"):
        fit_cox(np.random.default_rng(0).normal(size=(80, 100)), time, event, [str(i) for i in range(100)], penalizer=0)
    with pytest.raises(StatisticsError, match=r"order the events perfectly|did not converge"):
        fit_cox(*separable(), ["x"], penalizer=0)


def test_the_penalty_carries_duplicates_separable_data_and_more_features_than_events() -> None:
    X, time, event = tied_cohort(0)
    twice = fit_cox(np.column_stack([X, X[:, 0]]), time, event, [*names(X), "again"])
    assert twice.coefficient[0] == pytest.approx(twice.coefficient[-1])
    many = np.random.default_rng(0).normal(size=(80, 100))
    assert np.isfinite(fit_cox(many, time, event, names(many)).coefficient).all()
    X, time, event = separable()
    assert concordance(time, event, fit_cox(X, time, event, ["x"]).risk_score(X)).c_index == 1.0


def test_outliers_and_hopeless_penalties_end_in_numbers_or_a_reason() -> None:
    X, time, event = tied_cohort(0)
    X[3, 0], X[~event, 1] = 1e12, X[~event, 1] - 1e9
    assert np.isfinite(fit_cox(X, time, event, names(X), penalizer=1e-5).coefficient).all()
    with pytest.raises(StatisticsError, match=r"collinear.*raise model\.penalizer"):
        fit_cox(np.column_stack([X, X]), time, event, [*names(X), *map(str, range(6))], penalizer=1e-300)


def test_one_event_is_enough_with_a_penalty() -> None:
    X, time, _ = tied_cohort(0)
    for penalizer in (0.01, 1e-6):
        rows = fit_cox(X, time, np.arange(80) == 3, names(X), penalizer=penalizer).table()
        assert np.isfinite([[value for value in row.values() if not isinstance(value, str)] for row in rows]).all()
