"""Several cases of a patient: their tests and intervals are those over patients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter
from scipy import stats

from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Survival
from prognosis_dask.modelling.final_tables import correlations, over_patients
from prognosis_dask.modelling.fitted import fit_procedure
from prognosis_dask.modelling.metrics.cox_tests import (
    clustered_cox,
    clustered_log_rank,
    clustered_ph_test,
    clustered_wald,
    likelihood_ratio,
    ph_test,
    score_residuals,
)
from prognosis_dask.modelling.metrics.kaplan_meier import kaplan_meier, log_rank
from prognosis_dask.modelling.procedure import Procedure
from prognosis_dask.modelling.spec import ValidationRule
from prognosis_dask.modelling.validation.added import added_rows
from prognosis_dask.modelling.validation.nested import validate
from tests.synthetic_tables import cox_of, standardised, survival_table


def _lesions(seed: int, patients: int = 60, series: int = 3) -> pd.DataFrame:
    """Lesions with times of their own that go together within a patient; no two times are the same."""
    rng = np.random.default_rng(seed)
    frailty = np.repeat(rng.normal(size=patients), series)
    x, z = (np.repeat(rng.normal(size=patients), series) + 0.3 * rng.normal(size=patients * series) for _ in "xz")
    time = rng.exponential(size=len(x)) * np.exp(-0.5 * x - frailty) + 0.01
    patient = np.repeat([f"P{i:03d}" for i in range(patients)], series)
    return pd.DataFrame({"x": x, "z": z, "time": time, "event": rng.random(len(x)) < 0.7, "patient": patient})


def test_coefficients_and_their_variance_over_patients_are_those_of_lifelines() -> None:
    made = _lesions(0)
    expected = CoxPHFitter().fit(made, "time", "event", cluster_col="patient", robust=True)
    end, patients = Survival(made["time"].to_numpy(), made["event"].to_numpy()), made["patient"].tolist()
    found, covariance = clustered_cox(made[["x", "z"]].to_numpy(), end, patients)
    np.testing.assert_allclose(found, expected.params_, rtol=1e-5)
    np.testing.assert_allclose(np.sqrt(np.diag(covariance)), expected.standard_errors_, rtol=1e-5)
    wald = clustered_wald(made[["x"]].to_numpy(), made[["z"]].to_numpy(), end, patients)
    assert wald.p == pytest.approx(expected.summary.loc["z", "p"], rel=1e-4)


def test_score_residuals_are_those_of_their_definition() -> None:
    rng = np.random.default_rng(1)
    X, time, event = rng.normal(size=(25, 2)), rng.integers(1, 9, 25).astype(float), rng.random(25) < 0.6
    coefficient = np.array([0.4, -0.2])
    hazard = np.exp(X @ coefficient)
    expected = np.zeros_like(X)
    for j in np.flatnonzero(event):  # each event by itself: what it adds to itself and takes from all at risk
        at_risk = time >= time[j]
        mean = (hazard[at_risk, None] * X[at_risk]).sum(axis=0) / hazard[at_risk].sum()
        expected[j] += X[j] - mean
        expected[at_risk] -= (hazard[at_risk] / hazard[at_risk].sum())[:, None] * (X[at_risk] - mean)
    np.testing.assert_allclose(score_residuals(X, Survival(time, event), coefficient)[0], expected, atol=1e-12)


def test_cases_that_are_there_twice_change_nothing() -> None:
    made = _lesions(2, patients=50, series=1)
    time, event, high = made["time"].to_numpy(), made["event"].to_numpy(), made["x"].to_numpy() > 0
    patients = made["patient"].tolist()
    end, patients_thrice = Survival(time, event), np.repeat(patients, 3).tolist()
    thrice = end.rows(np.repeat(np.arange(len(end)), 3))

    once = clustered_log_rank(end, high, patients)
    assert clustered_log_rank(thrice, np.repeat(high, 3), patients_thrice).p == pytest.approx(once.p, rel=1e-9)
    assert once.p == pytest.approx(log_rank(end, high).p, abs=0.03)

    curve, again = kaplan_meier(end), kaplan_meier(thrice, patients_thrice)
    for name in ("survival", "lower", "upper"):
        np.testing.assert_allclose(getattr(again, name), getattr(curve, name), rtol=1e-9)
    assert (again.at_risk == 3 * curve.at_risk).all()


def test_without_the_clusters_a_grouping_of_no_consequence_is_called_different_far_too_often() -> None:
    plain, clustered = [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        time, event = np.repeat(rng.exponential(size=40), 4), np.repeat(rng.random(40) < 0.7, 4)
        high, patients = np.repeat(rng.random(40) < 0.5, 4), np.repeat(np.arange(40), 4).astype(str).tolist()
        plain.append(log_rank(Survival(time, event), high).p < 0.05)
        clustered.append(clustered_log_rank(Survival(time, event), high, patients).p < 0.05)
    assert np.mean(plain) > 0.2
    # one in twenty, as far as 200 draws can tell
    assert stats.binomtest(int(np.sum(clustered)), 200, 0.05).pvalue > 0.01


def test_the_band_over_patients_holds_what_new_patients_give() -> None:
    def at_one(seed: int) -> tuple[float, float, float]:
        made = _lesions(seed, patients=40, series=4)
        curve = kaplan_meier(Survival(made["time"].to_numpy(), np.ones(160, dtype=bool)), made["patient"].tolist())
        at = int(np.searchsorted(curve.time_days, 0.7, side="right")) - 1
        return float(curve.lower[at]), float(curve.survival[at]), float(curve.upper[at])

    found = np.array([at_one(seed) for seed in range(150)])
    truth = found[:, 1].mean()
    covered = (found[:, 0] <= truth) & (truth <= found[:, 2])
    assert 0.89 < covered.mean() < 0.99


def test_proportional_hazards_of_lesions_that_go_together_are_doubted_as_seldom_as_it_says() -> None:
    """Times of a patient's four lesions depend on each other, but each has proportional hazards."""
    doubted = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        shared = np.repeat(rng.normal(size=60), 4)
        X = np.repeat(rng.normal(size=(60, 1)), 4, axis=0) + 0.2 * rng.normal(size=(240, 1))
        uniform = stats.norm.cdf(np.sqrt(0.8) * shared + np.sqrt(0.2) * rng.normal(size=240))
        time, event = np.round(-np.log(uniform) * np.exp(-0.5 * X[:, 0]), 3) + 0.001, rng.random(240) < 0.8
        model = cox_of(X, time, event, penalty=0.0)
        fitted = (standardised(X), Survival(time, event), model.coefficient, model.standard_error[:, None] ** 2)
        by_case = float(ph_test(*fitted, ["x"])[0]["p"])
        patients = np.repeat(np.arange(60), 4).astype(str).tolist()
        doubted.append([by_case < 0.05, stats.chi2.sf(clustered_ph_test(*fitted, patients)[0], 1) < 0.05])
    by_cases, by_patients = np.sum(doubted, axis=0)
    assert by_cases > 30
    assert stats.binomtest(int(by_patients), 200, 0.05).pvalue > 0.01


def test_proportional_hazards_over_patients_of_one_case_are_those_over_cases() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2000, 2))
    time, event = rng.exponential(size=2000) ** np.exp(0.1 * X[:, 0]), rng.random(2000) < 0.7
    model = cox_of(X, time, event, penalty=0.0)
    fitted = (standardised(X), Survival(time, event), model.coefficient, np.diag(model.standard_error**2))
    found = clustered_ph_test(*fitted, list(map(str, range(2000))))
    expected = [float(row["statistic"]) for row in ph_test(*fitted, ["x", "z"])]
    assert expected[0] > 10
    np.testing.assert_allclose(found, expected, rtol=0.15)


@pytest.mark.parametrize("penalty", [0.0, 0.1])
def test_the_final_models_standard_errors_over_patients_are_those_of_lifelines(penalty: float) -> None:
    table = survival_table(5, n=60, p=4, signal=0.8, series=3)
    model = fit_procedure(Procedure(selector="", penalty=(penalty,)), table, 0)
    frame = pd.DataFrame(model.prepared(table)[:, model.columns]).add_prefix("x").assign(patient=table.patient_ids)
    assert isinstance(table.endpoint, Survival)
    frame["time"], frame["event"] = table.endpoint.time_days, table.endpoint.event
    frame["time"] += 1e-6 * np.arange(len(frame))  # lifelines' variance is one without ties
    table = replace(table, endpoint=Survival(frame["time"].to_numpy(), table.endpoint.event))
    model = fit_procedure(Procedure(selector="", penalty=(penalty,)), table, 0)
    expected = CoxPHFitter(penalizer=penalty).fit(frame, "time", "event", cluster_col="patient", robust=True)
    rows = over_patients(model, table).coefficients()
    np.testing.assert_allclose([row["coef"] for row in rows], expected.params_, rtol=1e-4)
    np.testing.assert_allclose([row["se"] for row in rows], expected.standard_errors_, rtol=1e-3)
    assert [row["se"] for row in model.coefficients()] != pytest.approx(expected.standard_errors_, rel=0.01)
    alone = replace(table, patient_ids=table.case_ids)
    assert over_patients(model, alone) is model


def test_an_interval_of_a_correlation_over_patients_holds_zero_as_often_as_it_says() -> None:
    covered: dict[str, list[bool]] = {"patients": [], "cases": []}
    for seed in range(400):
        rng = np.random.default_rng(seed)
        x, y = (np.repeat(rng.normal(size=30), 4) + 0.3 * rng.normal(size=120) for _ in "xy")
        patients = np.repeat(np.arange(30), 4).astype(str).tolist()
        for name, ids in (("patients", patients), ("cases", list(map(str, range(120))))):
            (row,) = correlations(x[:, None], ["x"], {"y": y}, ids)
            covered[name].append(float(row["lower"]) < 0 < float(row["upper"]))
    assert np.mean(covered["cases"]) < 0.8
    assert 0.91 < np.mean(covered["patients"]) < 0.98


def test_a_correlation_of_cases_that_are_there_twice_is_hardly_surer() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=80)
    y, ids = 0.6 * x + rng.normal(size=80), [f"P{i}" for i in range(80)]
    (once,) = correlations(x[:, None], ["x"], {"y": y}, ids)
    (twice,) = correlations(np.repeat(x, 2)[:, None], ["x"], {"y": np.repeat(y, 2)}, np.repeat(ids, 2).tolist())
    for name in ("pearson", "lower", "upper"):
        assert twice[name] == pytest.approx(once[name], abs=0.03)


def test_what_is_added_is_tested_over_patients_where_they_have_several_cases() -> None:
    procedure = {"all": Procedure(selector="", penalty=(1.0,))}
    for series, test in ((1, "likelihood ratio"), (2, "Wald, over patients")):
        table = survival_table(3, n=60, p=4, signal=0.8, series=series)
        table = type(table)(**{**vars(table), "families": ("deep", "deep", "deep", "volume")})
        rows = added_rows(
            table, {"all": validate(table, procedure, ValidationRule(folds=3, repeats=1), horizons_days=(365.0,))}, 0
        )
        assert {row["test"] for row in rows} == {test}
        assert all(row["p"] <= 1 and row["note"] == "" for row in rows)


def test_what_has_no_variance_over_patients_is_refused_with_the_reason() -> None:
    made = _lesions(4, patients=2, series=20)
    end, patients = Survival(made["time"].to_numpy(), made["event"].to_numpy()), made["patient"].tolist()
    with pytest.raises(StatisticsError, match="2 patients are too few for 3 columns"):
        clustered_wald(np.empty((40, 0)), np.random.default_rng(0).normal(size=(40, 3)), end, patients)
    with pytest.raises(StatisticsError, match="tells the two groups apart"):
        clustered_log_rank(end, np.ones(40, dtype=bool), patients)
    with pytest.raises(StatisticsError, match="say nothing that the base does not"):
        clustered_wald(made[["x"]].to_numpy(), made[["x"]].to_numpy(), end, patients)
    one_each = likelihood_ratio(np.empty((40, 0)), made[["x"]].to_numpy(), end)
    assert one_each.test == "likelihood ratio"
