"""Cases that were followed from later than day 0 on: models, curves and figures are R's and lifelines'."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter, KaplanMeierFitter, LogLogisticAFTFitter, LogNormalAFTFitter, WeibullAFTFitter
from lifelines.datasets import load_multicenter_aids_cohort_study

from prognosis_dask.config.job import load_job
from prognosis_dask.errors import JobError, StatisticsError
from prognosis_dask.modelling.data.endpoint import Survival
from prognosis_dask.modelling.data.reading import find_tables, read_tables
from prognosis_dask.modelling.estimators import LEARNERS, learner_for
from prognosis_dask.modelling.estimators.partial_likelihood import likelihood_of
from prognosis_dask.modelling.estimators.prediction import breslow
from prognosis_dask.modelling.metrics.calibration import survival_calibration
from prognosis_dask.modelling.metrics.competing import follow_up_rows
from prognosis_dask.modelling.metrics.concordance import bootstrap_concordance, concordance
from prognosis_dask.modelling.metrics.cox_tests import clustered_cox, cox_coefficient, likelihood_ratio, ph_test
from prognosis_dask.modelling.metrics.kaplan_meier import kaplan_meier, log_rank
from prognosis_dask.modelling.spec import load_spec
from prognosis_dask.report.sections.curves import Curve
from prognosis_dask.workflows.models import fit
from prognosis_dask.workflows.run import check_inputs

#: What entry.R beside them wrote.
FOLDER = Path(__file__).parent / "r_survival"
AT = np.array([5.0, 10.0, 20.0, 40.0])


@pytest.fixture(scope="module")
def cohort() -> tuple[np.ndarray, Survival]:
    table = pd.read_csv(FOLDER / "entry.csv")
    time, entry = table["time"].to_numpy(float), table["start"].to_numpy(float)
    return table[["x1", "x2"]].to_numpy(float), Survival(time, table["event"].to_numpy() == 1, entry_days=entry)


@pytest.fixture(scope="module")
def theirs() -> dict[str, np.ndarray]:
    values = pd.read_csv(FOLDER / "entry_values.csv")
    return {str(what): group["value"].to_numpy() for what, group in values.groupby("what", sort=False)}


def test_coefficients_errors_and_tests_are_rs(cohort, theirs) -> None:
    X, end = cohort
    coefficient = cox_coefficient(X, end)
    np.testing.assert_allclose(coefficient, theirs["coefficient"], rtol=1e-7)
    likelihood = likelihood_of(X, end)
    inverse = np.linalg.inv(likelihood.derivatives(coefficient)[1])
    np.testing.assert_allclose(np.sqrt(np.diag(inverse)), theirs["error"], rtol=1e-7)
    changes = (likelihood.residuals(coefficient) @ inverse)[np.argsort(end.by_time())]
    np.testing.assert_allclose(changes.T.ravel(), theirs["dfbeta"], rtol=1e-5, atol=1e-8)
    rows = ph_test(X, end, coefficient, inverse, ("x1", "x2"))
    np.testing.assert_allclose([row["statistic"] for row in rows], theirs["ph_statistic"], rtol=1e-5)
    ratio = likelihood_ratio(X[:, :1], X[:, 1:], end)
    assert ratio.statistic == pytest.approx(theirs["likelihood_ratio"][0], rel=1e-7)
    patients = pd.read_csv(FOLDER / "entry.csv")["id"].astype(str).tolist()
    coefficient, covariance = clustered_cox(X, end, patients)
    np.testing.assert_allclose(coefficient, theirs["breslow_coefficient"], rtol=1e-7)
    np.testing.assert_allclose(np.sqrt(np.diag(covariance)), theirs["robust_error"], rtol=1e-6)
    found = breslow(end, X @ coefficient)
    np.testing.assert_allclose(-np.log(found.survival(np.zeros(1), AT)[0]), theirs["baseline"], rtol=1e-7)


def test_curve_concordance_and_log_rank_test_are_rs(cohort, theirs) -> None:
    X, end = cohort
    curve = kaplan_meier(end)
    at = np.searchsorted(curve.time_days, AT, side="right") - 1
    for ours, name in ((curve.survival, ""), (curve.lower, "_lower"), (curve.upper, "_upper")):
        np.testing.assert_allclose(ours[at], theirs[f"kaplan_meier{name}"], rtol=1e-7)
    np.testing.assert_array_equal(curve.at_risk[np.searchsorted(curve.time_days, AT)], theirs["at_risk"])
    score = X[:, 0] + 0.5 * X[:, 1]
    found = concordance(end, score)
    assert found.c_index == pytest.approx(theirs["harrell_c"][0], rel=1e-12)
    assert (found.concordant, found.comparable) == (theirs["pairs"][0], theirs["pairs"][:3].sum())
    twice = bootstrap_concordance(end, score, np.array([np.ones(len(X)), np.arange(len(X)) % 3]))
    drawn = np.repeat(np.arange(len(X)), np.arange(len(X)) % 3)
    again = concordance(end.rows(drawn), score[drawn])
    np.testing.assert_allclose(twice, [found.c_index, again.c_index], rtol=1e-12)
    untied = Survival(end.time_days + np.arange(1, len(X) + 1) / 1000, end.event, entry_days=end.entry_days)
    assert log_rank(untied, X[:, 1]).statistic == pytest.approx(theirs["log_rank"][0], rel=1e-7)


def test_on_the_multicenter_aids_cohort_they_are_those_of_lifelines() -> None:
    table = load_multicenter_aids_cohort_study()
    time, entry, event = table["T"].to_numpy(), table["W"].to_numpy(), table["D"].to_numpy() == 1
    known = time > entry
    X, end = table.loc[known, ["AIDSY"]].to_numpy(float), Survival(time[known], event[known], entry_days=entry[known])
    tight = {"precision": 1e-14, "r_precision": 1e-16}
    theirs = CoxPHFitter().fit(table[known], "T", "D", entry_col="W", fit_options=tight).params_.to_numpy()
    np.testing.assert_allclose(cox_coefficient(X, end), theirs, rtol=1e-6)
    curve = kaplan_meier(end)
    at = np.array([0.5, 1.0, 3.0, 6.0])
    fitted = KaplanMeierFitter().fit(end.time_days, end.event, entry=end.entry_days)
    np.testing.assert_allclose(curve.at(at), fitted.predict(at), rtol=1e-9)


@pytest.mark.parametrize(
    ("learner", "fitter"),
    [
        ("weibull-aft", WeibullAFTFitter),
        ("loglogistic-aft", LogLogisticAFTFitter),
        ("lognormal-aft", LogNormalAFTFitter),
    ],
)
def test_failure_times_are_those_of_lifelines(learner: str, fitter: type, cohort) -> None:
    X, end = cohort
    Z = (X - X.mean(axis=0)) / X.std(axis=0, ddof=1)
    (model,) = LEARNERS[learner].models(Z, end, [0.0], 0.0, [(0, 0)], [0])
    frame = pd.DataFrame({"a": Z[:, 0], "b": Z[:, 1], "t": end.time_days, "e": end.event, "w": end.entry_days})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lifelines', about its own use of pandas
        theirs = fitter().fit(frame, "t", "e", entry_col="w", fit_options={"ftol": 1e-13, "gtol": 1e-6}).params_
    location, spread = dict.fromkeys(name for name, _ in theirs.index)
    np.testing.assert_allclose(model.coefficient, theirs[location][["a", "b"]], atol=2e-5)
    assert model.intercept == pytest.approx(theirs[location]["Intercept"], abs=2e-5)
    log_shape = -np.log(model.shape) if learner == "lognormal-aft" else np.log(model.shape)
    assert log_shape == pytest.approx(theirs[spread]["Intercept"], abs=2e-5)


def test_who_enters_late_biases_a_model_that_does_not_know_it() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=6000)
    death = rng.exponential(np.exp(-x) * 20)
    entry = np.where(rng.random(6000) < 0.2, 0.0, rng.exponential(20, 6000) * np.exp(-x))
    seen = death > entry
    end = Survival(death[seen], np.ones(seen.sum(), dtype=bool), entry_days=entry[seen])
    X = x[seen, None]
    assert cox_coefficient(X, end)[0] == pytest.approx(1.0, abs=0.05)
    assert cox_coefficient(X, Survival(end.time_days, end.event))[0] > 1.15
    true = float(KaplanMeierFitter().fit(death).predict(10.0))
    half = rng.random(6000) < 0.5
    late = np.where(half, 0.0, rng.exponential(10, 6000))  # of all alike: a marginal curve needs that
    kept = death > late
    followed = Survival(death[kept], np.ones(kept.sum(), dtype=bool), entry_days=late[kept])
    curve = kaplan_meier(followed)
    assert curve.at(np.array([10.0]))[0] == pytest.approx(true, abs=0.015)
    drawn, points = np.ones((1, int(kept.sum()))), np.array([0.2, 0.5, 0.8])
    risk = 1 - np.exp(-10 / 20 * np.exp(x[kept]))
    told = survival_calibration(followed, risk, 10.0, drawn, points)
    assert told.slope[0] == pytest.approx(1.0, abs=0.05)
    np.testing.assert_allclose(told.smooth[0], points, atol=0.03)
    assert np.isnan(told.observed_expected[0])


def test_a_fit_says_what_holds_and_gives_nothing_else(tmp_path: Path) -> None:
    table = pd.read_csv(FOLDER / "entry.csv").drop(columns="id")
    table[["start", "time"]] *= 20
    table.rename(columns={"time": "time_days"}).to_csv(tmp_path / "t.csv", index=False)
    few = ("endpoint.entry=start", "validation.repeats=1", "validation.folds=3", "validation.halves=0")
    fit(tmp_path / "t.csv", out=tmp_path / "out", overrides=few, say=lambda _: None)
    models = tmp_path / "out" / "models"
    measures = pd.read_csv(models / "measures.csv").query("in_sample == 0")
    given = measures.dropna(subset="value")
    assert {"harrell_c", "calibration_slope", "ici", "log_rank_p", "hazard_ratio_high_low"} <= set(given["measure"])
    refused = measures[measures["value"].isna()]
    assert {"uno_c", "auc_t", "mean_auc", "brier", "ibs", "observed_expected"} == set(refused["measure"]) - {
        "brier_scaled"
    }
    assert refused["note"].str.contains("cases enter late").all()
    harrell = given.query("measure == 'harrell_c'").iloc[-1]
    assert harrell["lower"] < 0.66 < harrell["upper"]
    curve = pd.read_csv(models / "kaplan_meier.csv")
    totals = curve.groupby("procedure")[["entered", "events"]].sum().iloc[-1]
    assert totals.tolist() == [len(table), table["event"].sum()]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "enter late by start" in page
    assert "plots of calibration and Kaplan-Meier." in page
    assert "“followed beyond” counts those that had entered by then" in page
    assert "at risk are those that had entered by then" in page
    assert not (models / "net_benefit.csv").exists()


def test_who_enters_after_a_horizon_was_not_followed_beyond_it() -> None:
    end = Survival(np.array([5.0, 9.0, 9.0, 12.0]), np.array([True, False, True, True]), entry_days=np.arange(4) * 2.0)
    (row,) = follow_up_rows(end, ["a", "b", "c", "d"], [5.0])
    assert (row["events"], row["censored"], row["beyond"]) == (1, 0, 2)


def test_where_nobody_was_followed_from_the_beginning_survival_is_said_to_be_of_those_who_lived_on(tmp_path) -> None:
    table = pd.DataFrame({"x": np.sin(np.arange(40.0)), "entry": 30.0, "time": np.arange(40) + 40.0})
    table.assign(event=np.arange(40) % 2).to_csv(tmp_path / "t.csv", index=False)
    spec = load_spec(None, ["endpoint.entry=entry"])
    notes = " ".join(read_tables(find_tables([tmp_path / "t.csv"], spec), spec).notes)
    assert "None is followed before day 30: earlier deaths are not observed, and survival is that of cases" in notes


def test_events_among_few_before_others_entered_are_noted_and_still_counted(tmp_path: Path) -> None:
    time, entry = np.append(5.0, np.arange(40) + 40.0), np.append(0.0, np.full(40, 30.0))
    event = np.append(1, np.arange(40) % 2)
    pd.DataFrame({"x": np.sin(time), "entry": entry, "time": time, "event": event}).to_csv(tmp_path / "t.csv")
    spec = load_spec(None, ["endpoint.entry=entry"])
    notes = " ".join(read_tables(find_tables([tmp_path / "t.csv"], spec), spec).notes)
    assert "1 event occurred while fewer than 10 were at risk, before others entered" in notes
    curve = kaplan_meier(Survival(time, event == 1, entry_days=entry))
    steps = {"time_days": curve.time_days, "survival": curve.survival, "at_risk": curve.at_risk}
    died = np.bincount(np.searchsorted(curve.time_days, time[event == 1]), minlength=len(curve.time_days))
    drawn = Curve("low", pd.DataFrame({**steps, "entered": curve.entered, "events": died}))
    assert (drawn.cases, drawn.events, len(drawn.censored())) == (41, 21, 20)


def test_an_entry_in_another_unit_than_the_survival_time_is_refused_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text("case_id,patient_id,modality,roi,image,mask,labels\na,A,CT,G,i,m,\n")
    (tmp_path / "job.toml").write_text(
        f"cohort = {{ cases = '{tmp_path / 'cases.csv'}', time_unit = 'months' }}\ndeep = {{ enabled = false }}\n"
        "model = { features = 'radiomics', entry = 'since' }\n"
    )
    with pytest.raises(
        JobError, match="survival time is in months: name the unit in the heading, such as since_months"
    ):
        check_inputs(load_job(tmp_path / "job.toml"))
    check_inputs(load_job(tmp_path / "job.toml", ["model.entry=since_months"]))


def test_what_cannot_take_entry_says_so_in_a_line(cohort, tmp_path: Path) -> None:
    _, end = cohort
    for learner in ("xgboost", "survival-forest"):
        with pytest.raises(StatisticsError, match=f"'{learner}' does not model delayed entry; those that do: cox, "):
            learner_for(learner, end)
    table = pd.DataFrame(
        {"x": np.sin(np.arange(40.0)), "entry": 3.0, "time": np.arange(40) + 2.0, "event": np.arange(40) % 3}
    )
    table.to_csv(tmp_path / "t.csv", index=False)
    spec = load_spec(None, ["endpoint.entry=entry", 'endpoint.event_codes={ "0" = 0, "1" = 1, "2" = 2 }'])
    with pytest.raises(StatisticsError, match="entry is a time of delayed entry and event has competing events"):
        read_tables(find_tables([tmp_path / "t.csv"], spec), spec)
    plain = load_spec(None, ["endpoint.entry=entry", 'endpoint.event_codes={ "0" = 0, "1" = 1, "2" = 0 }'])
    read = read_tables(find_tables([tmp_path / "t.csv"], plain), plain)
    assert read.left_out == {"entry-not-before-time": 2}
    assert read.table.features == ("x",)
    missing = load_spec(None, ["endpoint.entry=start"])
    with pytest.raises(StatisticsError, match="no columns start"):
        read_tables(find_tables([tmp_path / "t.csv"], missing), missing)
