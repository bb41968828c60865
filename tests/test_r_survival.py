"""Cox models, their checks and tests agree with R's survival where there are ties, areas under curves with pROC."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from prognosis_dask.modelling.data.endpoint import Survival
from prognosis_dask.modelling.estimators.partial_likelihood import PartialLikelihood
from prognosis_dask.modelling.metrics.brier import brier_score, fit_censoring
from prognosis_dask.modelling.metrics.calibration import net_benefit_survival, survival_calibration, survival_slope
from prognosis_dask.modelling.metrics.classes import class_auc, roc_curve, weighted_auc
from prognosis_dask.modelling.metrics.competing import fine_gray, subdistribution
from prognosis_dask.modelling.metrics.concordance import concordance, uno_c
from prognosis_dask.modelling.metrics.cox_tests import clustered_cox, cox_coefficient, likelihood_ratio, ph_test
from prognosis_dask.modelling.metrics.intervals import draw_patients, interval
from prognosis_dask.modelling.metrics.kaplan_meier import kaplan_meier, log_rank, median_follow_up
from prognosis_dask.modelling.metrics.regression import bootstrap_cox
from prognosis_dask.modelling.metrics.survival_tables import auc_t
from tests.synthetic_tables import cox_of

#: What export.R beside them wrote.
FOLDER = Path(__file__).parent / "r_survival"
NAMES = ("x1", "x2", "x3")


@pytest.fixture(scope="module")
def cohort() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    table = pd.read_csv(FOLDER / "cohort.csv")
    event = table["event"].to_numpy() == 1
    return table[list(NAMES)].to_numpy(float), table["time"].to_numpy(float), event, table["id"].to_numpy().astype(str)


@pytest.fixture(scope="module")
def theirs() -> dict[str, np.ndarray]:
    values = pd.read_csv(FOLDER / "values.csv")
    return {str(what): group["value"].to_numpy() for what, group in values.groupby("what", sort=False)}


@pytest.mark.skipif(shutil.which("Rscript") is None, reason="R is not installed")
@pytest.mark.parametrize("script", ["export.R", "competing.R", "auc.R", "entry.R", "scores.R", "longitudinal.R"])
def test_the_values_are_what_r_says_here_too(script: str, tmp_path: Path) -> None:
    shutil.copy(FOLDER / script, tmp_path)
    made = subprocess.run(["Rscript", tmp_path / script], capture_output=True, text=True, check=False)
    if "there is no package called" in made.stderr:
        pytest.skip(f"an R package is not installed: {made.stderr.strip()[:100]}")
    assert made.returncode == 0, made.stderr
    for table in tmp_path.glob("*.csv"):
        here, kept = pd.read_csv(table), pd.read_csv(FOLDER / table.name)
        if "what" in kept:
            here, kept = here[here["what"] != "version"], kept[kept["what"] != "version"]
        pd.testing.assert_frame_equal(here, kept, rtol=1e-6)


def test_coefficients_are_theirs_in_every_fit(cohort, theirs) -> None:
    X, time, event, _ = cohort
    model, scale = cox_of(X, time, event, penalty=0), X.std(axis=0, ddof=1)
    np.testing.assert_allclose(model.coefficient / scale, theirs["coefficient"], rtol=1e-6)
    np.testing.assert_allclose(model.standard_error / scale, theirs["error"], rtol=1e-5)
    np.testing.assert_allclose(cox_coefficient(X, Survival(time, event)), theirs["coefficient"], rtol=1e-8)
    drawn = bootstrap_cox(X, Survival(time, event), np.array([np.ones(len(X)), 3 * np.ones(len(X))]))
    np.testing.assert_allclose(drawn, np.tile(theirs["breslow_coefficient"], (2, 1)), rtol=1e-8)


def test_concordances_curves_and_tests_are_theirs(cohort, theirs) -> None:
    X, time, event, _ = cohort
    score = X[:, 0] + 0.5 * X[:, 2]
    assert concordance(Survival(time, event), score).c_index == pytest.approx(theirs["harrell_c"][0], rel=1e-10)
    weights = fit_censoring(Survival(time, event)).seen(time)
    assert uno_c(Survival(time, event), score, weights, 29.5) == pytest.approx(theirs["uno_c"][0], rel=1e-6)
    assert log_rank(Survival(time, event), X[:, 2]).statistic == pytest.approx(theirs["log_rank"][0], rel=1e-10)
    assert median_follow_up(Survival(time, event)) == theirs["median_follow_up"][0]
    curve = kaplan_meier(Survival(time, event))
    at = np.searchsorted(curve.time_days, [10, 20, 30], side="right") - 1
    for ours, name in ((curve.survival, ""), (curve.lower, "_lower"), (curve.upper, "_upper")):
        np.testing.assert_allclose(ours[at], theirs[f"kaplan_meier{name}"], rtol=1e-8)
    one = (X[:, 2] == 0).astype(float)  # Wilcoxon's statistic is of the first level
    assert class_auc(one.astype(int), np.column_stack([-X[:, 0], X[:, 0]])) == pytest.approx(
        theirs["auc"][0], rel=1e-12
    )


def test_what_each_case_does_to_the_coefficients_is_their_dfbeta(cohort, theirs) -> None:
    X, time, event, _ = cohort
    order = np.argsort(time, kind="stable")
    likelihood = PartialLikelihood(X[order], time[order], event[order], 0.0)
    coefficient = cox_coefficient(X, Survival(time, event))
    changes = likelihood.residuals(coefficient) @ np.linalg.inv(likelihood.derivatives(coefficient)[1])
    np.testing.assert_allclose(changes[np.argsort(order)].T.ravel(), theirs["dfbeta"], rtol=1e-5, atol=1e-8)


def test_the_check_of_proportional_hazards_is_the_exact_score_test(cohort, theirs) -> None:
    X, time, event, _ = cohort
    coefficient = cox_coefficient(X, Survival(time, event))
    variance = np.linalg.inv(_information(X, time, event, coefficient))
    rows = ph_test(X, Survival(time, event), coefficient, variance, NAMES)
    np.testing.assert_allclose([row["statistic"] for row in rows], theirs["ph_statistic"], rtol=1e-5)
    np.testing.assert_allclose([row["p"] for row in rows], theirs["ph_p"], rtol=1e-5)


def test_errors_over_patients_and_the_likelihood_ratio_are_theirs(cohort, theirs) -> None:
    X, time, event, patients = cohort
    coefficient, covariance = clustered_cox(X, Survival(time, event), patients)
    np.testing.assert_allclose(coefficient, theirs["breslow_coefficient"], rtol=1e-8)
    np.testing.assert_allclose(np.sqrt(np.diag(covariance)), theirs["robust_error"], rtol=1e-6)
    ratio = likelihood_ratio(X[:, :1], X[:, 1:], Survival(time, event))
    assert ratio.statistic == pytest.approx(theirs["likelihood_ratio"][0], rel=1e-8)


def test_areas_and_curves_are_those_of_proc_and_intervals_of_drawn_patients_those_of_delong() -> None:
    table, values = pd.read_csv(FOLDER / "auc.csv"), pd.read_csv(FOLDER / "auc_values.csv")
    theirs = {str(what): group["value"].to_numpy() for what, group in values.groupby("what", sort=False)}
    positive = table["label"].to_numpy(float)
    patients = [str(row) for row in range(len(table))]
    drawn = np.vstack([np.ones(len(table)), draw_patients(patients, np.random.default_rng(0))])
    found = {
        name: weighted_auc(table[name].to_numpy(float), drawn * positive, drawn * (1 - positive))
        for name in ("first", "second")
    }
    np.testing.assert_allclose([areas[0] for areas in found.values()], theirs["auc"], rtol=1e-12)
    for at, areas in enumerate(found.values()):
        delong = theirs["delong_lower"][at], theirs["delong_upper"][at]
        np.testing.assert_allclose(interval(areas[1:]), delong, atol=0.006)
    difference = found["first"] - found["second"]
    assert difference[1:].std(ddof=1) == pytest.approx(theirs["delong_error"][0], rel=0.1)
    wrong, right = roc_curve(table["first"].to_numpy(float), positive, 1 - positive)
    np.testing.assert_allclose(np.unique(wrong), np.unique(theirs["fpr"]), atol=1e-12)
    np.testing.assert_allclose(right, theirs["tpr"], atol=1e-12)


def test_areas_brier_scores_slopes_and_net_benefit_over_time_are_those_of_riskregression_and_survival() -> None:
    table, values = pd.read_csv(FOLDER / "scores.csv"), pd.read_csv(FOLDER / "scores_values.csv")
    theirs = {str(what): group["value"].to_numpy() for what, group in values.groupby("what", sort=False)}
    time, event, score = table["time"].to_numpy(float), table["event"].to_numpy() == 1, table["score"].to_numpy(float)
    censoring, at = fit_censoring(Survival(time, event)), np.array([5.0, 10.0, 20.0])
    assert {*time[event]} & {*time[~event]}
    risk = 1 - np.exp(-at / 25 * np.exp(0.7 * score)[:, None])
    end = Survival(time, event)
    areas = [auc_t(end, score, days, censoring) for days in at]
    np.testing.assert_allclose(areas, theirs["auc_t"], rtol=1e-10)
    errors = [brier_score(end, 1 - one, days, censoring) for one, days in zip(risk.T, at, strict=True)]
    np.testing.assert_allclose(errors, theirs["brier"], rtol=1e-10)
    once = np.ones((1, len(time)))
    np.testing.assert_allclose(survival_slope(end, risk[:, 2], 20.0, once), theirs["slope"], rtol=1e-6)
    benefit = net_benefit_survival(end, risk[:, 2], 20.0, np.array([0.2, 0.4, 0.6]), once)
    np.testing.assert_allclose(benefit[0], theirs["net_benefit"], rtol=1e-10)


def test_measures_with_competing_events_are_those_of_riskregression_and_survival() -> None:
    table, values = pd.read_csv(FOLDER / "scores.csv"), pd.read_csv(FOLDER / "scores_values.csv")
    theirs = {str(what): group["value"].to_numpy() for what, group in values.groupby("what", sort=False)}
    time, cause, score = table["time"].to_numpy(float), table["cause"].to_numpy(), table["score"].to_numpy(float)
    end, at = subdistribution(time, cause), np.array([5.0, 10.0, 20.0])
    censoring, once = fit_censoring(end), np.ones((1, len(time)))
    risk = 1 - np.exp(-at / 25 * np.exp(0.7 * score)[:, None])
    areas = [auc_t(end, score, days, censoring) for days in at]
    np.testing.assert_allclose(areas, theirs["auc_competing"], rtol=1e-10)
    errors = [brier_score(end, 1 - one, days, censoring) for one, days in zip(risk.T, at, strict=True)]
    np.testing.assert_allclose(errors, theirs["brier_competing"], rtol=1e-10)
    found = survival_calibration(end, risk[:, 2], 20.0, once, np.array([0.5]), censoring)
    np.testing.assert_allclose(found.slope, theirs["slope_competing"], rtol=1e-6)
    np.testing.assert_allclose(found.observed_expected * risk[:, 2].mean(), theirs["observed_competing"], rtol=1e-10)
    benefit = net_benefit_survival(end, risk[:, 2], 20.0, np.array([0.2, 0.4, 0.6]), once)
    np.testing.assert_allclose(benefit[0], theirs["net_benefit_competing"], rtol=1e-10)
    found_c = concordance(end, score).c_index
    np.testing.assert_allclose(found_c, theirs["harrell_c_competing"], rtol=1e-12)


def test_fine_and_grays_coefficients_are_those_of_cmprsk_where_nothing_is_tied() -> None:
    table, values = pd.read_csv(FOLDER / "scores.csv"), pd.read_csv(FOLDER / "scores_values.csv")
    end = subdistribution(table["untied"].to_numpy(float), table["cause"].to_numpy())
    found = fine_gray(table[["x1", "x2"]].to_numpy(float), end)
    np.testing.assert_allclose(found, values[values["what"] == "fine_gray"]["value"], rtol=1e-5)


def _information(X: np.ndarray, time: np.ndarray, event: np.ndarray, coefficient: np.ndarray) -> np.ndarray:
    """Minus the second derivative of the log partial likelihood with Efron's ties, event by event."""
    information = np.zeros((X.shape[1], X.shape[1]))
    hazard = np.exp(X @ coefficient)
    for t in np.unique(time[event]):
        dead, at_risk = event & (time == t), time >= t
        for number in range(int(dead.sum())):
            weight = hazard * (at_risk - number / dead.sum() * dead)
            mean = weight @ X / weight.sum()
            information += (weight[:, None] * X).T @ X / weight.sum() - np.outer(mean, mean)
    return information
