"""Learners against lifelines, scikit-survival and scikit-learn, and what they do with data that cannot be learnt."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter, LogLogisticAFTFitter, LogNormalAFTFitter, WeibullAFTFitter
from lifelines.datasets import load_rossi
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sksurv.linear_model import CoxnetSurvivalAnalysis
from sksurv.util import Surv

from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Classes, Survival
from prognosis_dask.modelling.estimators import LEARNERS, learner_for
from prognosis_dask.modelling.estimators.class_models import HIDDEN, fit_logistic, fit_perceptron
from prognosis_dask.modelling.estimators.cox import fit_proportional_hazards
from prognosis_dask.modelling.estimators.failure_time import FailureTime
from prognosis_dask.modelling.estimators.partial_likelihood import PartialLikelihood, first_price, maximise_elastic_net
from prognosis_dask.modelling.estimators.prediction import class_prediction
from tests.synthetic_tables import class_table, survival_table

ROSSI = ["fin", "age", "race", "wexp", "mar", "paro", "prio"]
#: lifelines' stopping rule is loose where its steps are shortened, so the last digits come slowly.
TIGHT = {"precision": 1e-14, "r_precision": 1e-16}


def standardised(X: np.ndarray) -> np.ndarray:
    return (X - X.mean(axis=0)) / X.std(axis=0, ddof=1)


@pytest.fixture(scope="module")
def rossi() -> tuple[pd.DataFrame, np.ndarray, Survival]:
    frame = load_rossi()
    return (
        frame,
        standardised(frame[ROSSI].to_numpy(float)),
        Survival(frame["week"].to_numpy(float), frame["arrest"].to_numpy() == 1),
    )


@pytest.mark.parametrize("penalty", [0.0, 0.01, 0.5])
def test_ridge_and_its_survival_are_lifelines_on_rossi(
    rossi: tuple[pd.DataFrame, np.ndarray, Survival], penalty: float
) -> None:
    frame, Z, endpoint = rossi
    (model,) = fit_proportional_hazards(Z, endpoint, [penalty], 0.0, [0])
    theirs = CoxPHFitter(penalizer=penalty).fit(frame, "week", "arrest", fit_options=TIGHT)
    scale = frame[ROSSI].std().to_numpy()
    np.testing.assert_allclose(model.coefficient, theirs.params_[ROSSI] * scale, atol=1e-6)
    np.testing.assert_allclose(model.standard_error, theirs.standard_errors_[ROSSI] * scale, atol=1e-6)
    times = np.array([1.0, 10.0, 30.0, 52.0])  # lifelines interpolates between times; the estimate is a step
    survival = model.predict(Z[:20]).survival
    assert survival is not None
    np.testing.assert_allclose(
        survival(times), theirs.predict_survival_function(frame.iloc[:20], times).to_numpy().T, atol=1e-6
    )


def test_elastic_net_is_scikit_survivals() -> None:
    # they stop a few millionths short of the optimum; without tied times Breslow's and Efron's likelihoods agree
    table = survival_table(0, n=120, p=30, signal=1.0)
    Z, penalties = standardised(table.X), [0.2, 0.1, 0.05, 0.02]
    y = Surv.from_arrays(table.event, table.time_days)
    for mixing in (0.3, 0.9, 1.0):
        theirs = CoxnetSurvivalAnalysis(l1_ratio=mixing, alphas=penalties, normalize=False, tol=1e-12, max_iter=10**6)
        theirs.fit(Z, y)
        models = fit_proportional_hazards(Z, table.endpoint, penalties, mixing, [0])
        for model, expected in zip(models, theirs.coef_.T, strict=True):
            np.testing.assert_allclose(model.coefficient, expected, atol=5e-6)
            assert ((model.coefficient == 0) == (expected == 0)).all()


def test_elastic_net_is_near_lifelines_whose_absolute_value_is_smoothed(
    rossi: tuple[pd.DataFrame, np.ndarray, Survival],
) -> None:
    frame, Z, endpoint = rossi
    (model,) = fit_proportional_hazards(Z, endpoint, [0.02], 0.5, [0])
    theirs = CoxPHFitter(penalizer=0.02, l1_ratio=0.5).fit(frame, "week", "arrest")
    np.testing.assert_allclose(model.coefficient, theirs.params_[ROSSI] * frame[ROSSI].std().to_numpy(), atol=2e-3)


def test_elastic_net_meets_its_conditions_with_ties_duplicates_and_more_features_than_cases() -> None:
    rng = np.random.default_rng(0)
    Z = standardised(rng.normal(size=(40, 100)))
    Z[:, 1] = Z[:, 0]
    time = np.sort(rng.integers(1, 9, 40)).astype(float)
    likelihood = PartialLikelihood(Z, time, rng.random(40) < 0.7, 0.0)
    price = 0.3 * first_price(likelihood)
    likelihood.penalty = 0.1 * price * 40
    found = maximise_elastic_net(likelihood, price, np.zeros(100))
    gradient = likelihood.derivatives(found)[0] / 40
    assert 0 < (found != 0).sum() < 40
    np.testing.assert_allclose(gradient[found != 0], price * np.sign(found[found != 0]), atol=1e-8)
    assert np.abs(gradient).max() <= price + 1e-8
    assert (maximise_elastic_net(likelihood, 1.01 * first_price(likelihood), np.zeros(100)) == 0).all()


def test_ridge_with_more_features_than_cases_is_the_same_in_the_span_of_the_cases() -> None:
    table = survival_table(1, n=30, p=29, signal=1.0)
    Z = standardised(table.X)
    wide = np.hstack([Z, Z[:, ::-1]])  # each feature twice: half the coefficient each, at half the price
    (once,) = fit_proportional_hazards(Z, table.endpoint, [0.1], 0.0, [0])
    (twice,) = fit_proportional_hazards(wide, table.endpoint, [0.2], 0.0, [0])
    np.testing.assert_allclose(twice.coefficient[:29], once.coefficient / 2, atol=1e-7)
    assert np.isnan(twice.standard_error).all()


AFT = {
    "weibull-aft": (WeibullAFTFitter, "lambda_", "rho_", 1),
    "loglogistic-aft": (LogLogisticAFTFitter, "alpha_", "beta_", 1),
    "lognormal-aft": (LogNormalAFTFitter, "mu_", "sigma_", -1),  # by its spread instead of one over it
}


@pytest.mark.parametrize("name", AFT)
def test_accelerated_failure_time_is_lifelines(rossi: tuple[pd.DataFrame, np.ndarray, Survival], name: str) -> None:
    frame, Z, endpoint = rossi
    fit = LEARNERS[name].fit
    # lifelines prices the standardised intercepts too: another optimum, so compare without
    model, shrunk = fit(Z, endpoint, [0.0, 0.05], 0.0, [0])
    fitter, location, shape, sign = AFT[name]
    standard = pd.DataFrame(Z, columns=ROSSI).assign(week=frame["week"], arrest=frame["arrest"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lifelines', about its own use of pandas
        theirs = fitter().fit(standard, "week", "arrest", fit_options={"ftol": 1e-13, "gtol": 1e-6})
    assert isinstance(model, FailureTime)
    assert isinstance(shrunk, FailureTime)
    np.testing.assert_allclose(model.coefficient, theirs.params_[location][ROSSI], atol=1e-5)
    assert model.intercept == pytest.approx(theirs.params_[location]["Intercept"], abs=1e-5)
    assert np.log(model.shape) == pytest.approx(sign * theirs.params_[shape]["Intercept"], abs=1e-5)
    expected = theirs.predict_survival_function(standard.iloc[:5], [10.0, 52.0]).to_numpy().T
    survival = model.predict(Z[:5]).survival
    assert survival is not None
    np.testing.assert_allclose(survival(np.array([10.0, 52.0])), expected, atol=1e-4)
    assert np.abs(shrunk.coefficient).sum() < np.abs(model.coefficient).sum()
    with pytest.raises(StatisticsError, match=r"mixing is 0\.5: an accelerated failure time model"):
        fit(Z, endpoint, [0.1], 0.5, [0])


def test_logistic_is_scikit_learns_with_balanced_classes_and_unbalanced_probabilities() -> None:
    table = class_table(0, signal=1.0)
    assert isinstance(table.endpoint, Classes)
    Z, label = standardised(table.X), table.endpoint.label
    theirs = LogisticRegression(C=1 / (0.1 * len(Z)), class_weight="balanced", tol=1e-8, max_iter=5000).fit(Z, label)
    (model,) = fit_logistic(Z, table.endpoint, [0.1], 0.0, [0])
    np.testing.assert_allclose(model.coefficient[1], theirs.coef_[0], atol=1e-4)
    share = np.bincount(label) / len(label)
    expected = theirs.predict_proba(Z) * share
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.predict(Z).probability, expected, atol=1e-4)


@pytest.mark.parametrize("classes", [2, 3])
def test_perceptron_predicts_as_scikit_learns(classes: int) -> None:
    table = class_table(0, n=60, signal=2.0, classes=classes)
    assert isinstance(table.endpoint, Classes)
    even = np.concatenate([np.flatnonzero(table.endpoint.label == k)[:8] for k in range(classes)])
    endpoint, Z = table.endpoint.rows(even), standardised(table.X[even])
    (model,) = fit_perceptron(Z, endpoint, [0.05], 0.0, [7])
    start = int(np.random.default_rng([7]).integers(2**31))
    theirs = MLPClassifier((HIDDEN,), solver="lbfgs", alpha=0.05 * len(Z), tol=1e-5, random_state=start)
    np.testing.assert_allclose(model.predict(Z).probability, theirs.fit(Z, endpoint.label).predict_proba(Z), atol=1e-6)


def test_probabilities_come_back_to_the_prevalence_by_bayes_rule() -> None:
    found = class_prediction(np.log([[0.5, 0.5], [0.2, 0.8]]), np.array([0.9, 0.1]))
    np.testing.assert_allclose(found.probability, [[0.9, 0.1], [0.18 / 0.26, 0.08 / 0.26]])
    np.testing.assert_allclose(found.risk_score, np.log([0.1 / 0.9, 0.08 / 0.18]))


@pytest.mark.parametrize("name", sorted(LEARNERS))
def test_every_learner_learns_what_is_there(name: str) -> None:
    penalties = [0.1, 0.01]
    kind = LEARNERS[name].endpoints
    for table in ([survival_table(0, signal=2.0)] if Survival in kind else []) + (
        [class_table(0, signal=2.5), class_table(0, signal=2.5, classes=3)] if Classes in kind else []
    ):
        Z = standardised(table.X)
        learner = learner_for(name, table.endpoint)
        shapes = [(2, 50), (3, 20)] if "depth" in learner.takes else [(0, 0)]
        models = learner.models(Z, table.endpoint, penalties, 0.0, shapes, [0])
        again = learner.models(Z, table.endpoint, penalties, 0.0, shapes, [0])
        assert len(models) == len(again) >= 2
        for model, same in zip(models, again, strict=True):
            found, repeated = model.predict(Z), same.predict(Z)
            if isinstance(table.endpoint, Survival):
                assert found.risk_score is not None
                assert found.survival is not None
                assert np.corrcoef(found.risk_score, Z[:, 0])[0, 1] > 0.6
                curve = found.survival(np.array([0.0, 100.0, 1000.0, 10.0**6]))
                assert (curve[:, 0] == 1).all()
                assert (np.diff(curve, axis=1) <= 0).all()
                np.testing.assert_array_equal(found.risk_score, repeated.risk_score)
            else:
                assert found.probability is not None
                np.testing.assert_allclose(found.probability.sum(axis=1), 1.0)
                assert (found.probability.argmax(axis=1) == table.endpoint.label).mean() > 0.75
                assert (found.risk_score is None) == (len(table.endpoint.names) > 2)
                np.testing.assert_array_equal(found.probability, repeated.probability)


@pytest.mark.parametrize("name", ["cox", *AFT, "xgboost", "survival-forest"])
def test_cases_that_are_all_censored_are_refused(name: str) -> None:
    endpoint = Survival(np.arange(1.0, 31), np.zeros(30, dtype=bool))
    with pytest.raises(StatisticsError, match="all 30 training cases are censored"):
        learner_for(name, endpoint).fit(np.random.default_rng(0).normal(size=(30, 3)), endpoint, [0.1], 0.0, [0])


@pytest.mark.parametrize("name", ["logistic", "mlp", "xgboost"])
def test_a_class_without_cases_is_named(name: str) -> None:
    endpoint = Classes(np.zeros(20, dtype=int), ("benign", "malignant"))
    with pytest.raises(StatisticsError, match="none of 20 training cases is of class malignant"):
        learner_for(name, endpoint).fit(np.random.default_rng(0).normal(size=(20, 3)), endpoint, [0.1], 0.0, [0])


def test_a_learner_of_another_endpoint_is_refused_with_those_that_fit() -> None:
    with pytest.raises(
        StatisticsError,
        match=r"'mlp' does not model survival; .*: cox, weibull-aft, .*, xgboost",
    ):
        learner_for("mlp", survival_table(0).endpoint)
