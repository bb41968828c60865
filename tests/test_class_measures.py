"""Measures of predicted classes: against scikit-learn, and slow versions of the definition."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as witness
from sklearn.linear_model import LogisticRegression

from prognosis_dask.arrays import FloatArray, IntArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.metrics.calibration import class_calibration, expect_probabilities, net_benefit_class
from prognosis_dask.modelling.metrics.classes import (
    balanced_accuracy,
    bootstrap_class_auc,
    bootstrap_confusion,
    class_auc,
    log_loss,
    recall,
    roc_curve,
    squared_error,
)
from prognosis_dask.modelling.metrics.intervals import draw_patients
from prognosis_dask.modelling.metrics.regression import bootstrap_logistic

CLASSES = [2, 3]


def predictions(classes: int, seed: int = 0, n: int = 120) -> tuple[IntArray, FloatArray]:
    """Labels, and probabilities that know something of them; rounded, so that some are equal."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, n)
    score = np.exp(rng.normal(size=(n, classes)) + 0.8 * np.eye(classes)[label])
    probability = np.round(score / score.sum(axis=1, keepdims=True), 2)
    probability[:, -1] = 1 - probability[:, :-1].sum(axis=1)
    return label, probability


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("classes", CLASSES)
def test_auc_is_that_of_scikit_learn(classes: int, seed: int) -> None:
    label, probability = predictions(classes, seed)
    expected = witness.roc_auc_score(label, probability[:, 1] if classes == 2 else probability, multi_class="ovr")
    assert class_auc(label, probability) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("classes", CLASSES)
def test_accuracies_and_the_confusion_matrix_are_those_of_scikit_learn(classes: int) -> None:
    label, probability = predictions(classes)
    predicted = probability.argmax(axis=1)
    confusion = bootstrap_confusion(label, predicted, classes, np.ones((1, len(label))))
    np.testing.assert_array_equal(confusion[0], witness.confusion_matrix(label, predicted))
    np.testing.assert_allclose(recall(confusion)[0], witness.recall_score(label, predicted, average=None))
    assert balanced_accuracy(confusion)[0] == pytest.approx(witness.balanced_accuracy_score(label, predicted))


@pytest.mark.parametrize("classes", CLASSES)
def test_brier_score_and_log_loss_are_those_of_scikit_learn(classes: int) -> None:
    label, probability = predictions(classes)
    probability = np.clip(probability, 1e-3, 1)
    probability /= probability.sum(axis=1, keepdims=True)
    assert log_loss(label, probability).mean() == pytest.approx(witness.log_loss(label, probability), abs=1e-12)
    each = [witness.brier_score_loss(label == k, probability[:, k]) for k in range(classes)]
    assert squared_error(label, probability).mean() == pytest.approx(each[1] if classes == 2 else sum(each), abs=1e-12)


def test_roc_curve_is_that_of_scikit_learn() -> None:
    label, probability = predictions(2)
    found = roc_curve(probability[:, 1], (label == 1).astype(float), (label == 0).astype(float))
    expected = witness.roc_curve(label, probability[:, 1], drop_intermediate=False)
    np.testing.assert_allclose(found, expected[:2], atol=1e-12)


def test_logistic_regression_in_a_draw_is_scikit_learns_with_these_weights() -> None:
    label, probability = predictions(2)
    X = np.column_stack([probability[:, 1], np.random.default_rng(1).normal(size=len(label)) * 30 + 100])
    drawn = draw_patients([str(i) for i in range(len(label))], np.random.default_rng(0), 3)
    for found, times in zip(bootstrap_logistic(X, label.astype(float), drawn), drawn, strict=True):
        model = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000, solver="newton-cholesky")
        model.fit(X, label, sample_weight=times)
        np.testing.assert_allclose(found, [*model.intercept_, *model.coef_[0]], rtol=1e-6)


def test_calibration_is_that_of_a_logistic_model_on_a_spline_of_the_prediction() -> None:
    label, probability = predictions(2, n=200)
    p = np.clip(probability[:, 1], 0.01, 0.99)
    found = class_calibration((label == 1).astype(float), p, np.ones((1, 200)), p)
    x = np.log(p / (1 - p))
    a, b, c = np.percentile(x, [10, 50, 90])
    cube = [np.maximum(x - knot, 0) ** 3 for knot in (a, b, c)]
    X = np.column_stack([x, cube[0] - cube[1] * (c - a) / (c - b) + cube[2] * (b - a) / (c - b)])
    model = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000, solver="newton-cholesky")
    curve = model.fit(X, label).predict_proba(X)[:, 1]
    np.testing.assert_allclose(found.smooth[0], curve, atol=1e-6)
    assert found.ici[0] == pytest.approx(np.abs(curve - p).mean(), abs=1e-6)
    assert found.slope[0] == pytest.approx(model.fit(x[:, None], label).coef_[0, 0], rel=1e-6)
    assert found.observed_expected[0] == pytest.approx(label.mean() / p.mean())


def test_net_benefit_is_that_of_its_definition() -> None:
    label, probability = predictions(2)
    thresholds = np.array([0.1, 0.4, 0.8])
    found = net_benefit_class((label == 1).astype(float), probability[:, 1], thresholds, np.ones((1, len(label))))
    for value, t in zip(found[0], thresholds, strict=True):
        treated = probability[:, 1] >= t
        right, wrong = (treated & (label == 1)).mean(), (treated & (label == 0)).mean()
        assert value == pytest.approx(right - wrong * t / (1 - t), abs=1e-12)


@pytest.mark.parametrize("classes", CLASSES)
def test_a_draw_is_worth_what_the_repeated_cases_are(classes: int) -> None:
    label, probability = predictions(classes)
    drawn = draw_patients([str(i) for i in range(len(label))], np.random.default_rng(0), 5)
    for value, times in zip(bootstrap_class_auc(label, probability, drawn), drawn, strict=True):
        at = np.repeat(np.arange(len(label)), times.astype(int))
        assert value == pytest.approx(class_auc(label[at], probability[at]), abs=1e-12)


def test_an_absent_class_is_named_by_its_count() -> None:
    label, probability = predictions(3)
    held = label != 2
    with pytest.raises(StatisticsError, match=r"cases per class are \[\d+, \d+, 0\]; every class has to occur"):
        class_auc(label[held], probability[held])
    confusion = bootstrap_confusion(label[held], probability[held].argmax(axis=1), 3, np.ones((1, held.sum())))
    assert np.isnan(balanced_accuracy(confusion)[0])
    assert np.isfinite(recall(confusion)[0]).tolist() == [True, True, False]


def test_separable_classes_have_no_calibration_slope() -> None:
    positive = np.repeat([0.0, 1.0], 20)
    found = class_calibration(positive, np.linspace(0.1, 0.9, 40), np.ones((1, 40)), np.array([0.5]))
    assert np.isnan(found.slope[0])
    assert found.observed_expected[0] == pytest.approx(1.0)


def test_what_is_no_probability_is_refused() -> None:
    with pytest.raises(StatisticsError, match=r"1 predictions are no probabilities \(the first is 1.2\)"):
        expect_probabilities(np.array([[0.3, 0.7], [0.4, 1.2]]), "mlp")
    with pytest.raises(StatisticsError, match=r"thresholds from 0\.5 to 1"):
        net_benefit_class(np.ones(2), np.ones(2), np.array([0.5, 1.0]), np.ones((1, 2)))
