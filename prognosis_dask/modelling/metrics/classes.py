"""Measures of predicted classes, and the tables of one procedure for classes, in parts.

See :mod:`modelling.validation.evaluate` for how folds become one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from prognosis_dask.arrays import FloatArray, IntArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Classes
from prognosis_dask.modelling.metrics.calibration import (
    THRESHOLDS,
    add_calibration,
    benefit_rows,
    calibration_groups,
    calibration_points,
    calibration_rows,
    class_calibration,
    expect_probabilities,
    net_benefit_class,
    rising_groups,
)
from prognosis_dask.modelling.metrics.intervals import interval, mean_held
from prognosis_dask.modelling.metrics.measured import (
    CURVE_DRAWS,
    Measured,
    MeasuredCases,
    ProcedureResults,
    Sheet,
    bootstrap_mean,
    case_means,
    figures_of_folds,
    over_folds,
    pooled,
    repeats,
)
from prognosis_dask.modelling.table_spec import Row
from prognosis_dask.modelling.validation.nested import FoldResult

#: Predicted probabilities are kept this far from 0, whose logarithm is infinite.
_EDGE = 1e-15


def class_auc(label: IntArray, probability: FloatArray) -> float:
    """Area under the ROC curve; of more than two classes the mean of each against the rest (Provost & Domingos 2000).

    Parameters
    ----------
    label
        The class's number, shape (cases,).
    probability
        Predicted, shape (cases, classes).

    Raises
    ------
    StatisticsError
        When a class does not occur.
    """
    value = float(bootstrap_class_auc(label, probability, np.ones((1, len(label))))[0])
    if np.isnan(value):
        counts = np.bincount(label, minlength=probability.shape[1]).tolist()
        raise StatisticsError(f"AUC: cases per class are {counts}; every class has to occur")
    return value


def bootstrap_class_auc(label: IntArray, probability: FloatArray, bootstrap_weights: FloatArray) -> FloatArray:
    """:func:`class_auc` for many weightings of the cases, shape (draws, cases); NaN where a class does not occur."""
    classes = (1,) if probability.shape[1] == 2 else range(probability.shape[1])
    one_by_one = [
        weighted_auc(probability[:, k], bootstrap_weights * (label == k), bootstrap_weights * (label != k))
        for k in classes
    ]
    return np.asarray(np.mean(one_by_one, axis=0))


def bootstrap_confusion(
    label: IntArray, predicted: IntArray, classes: int, bootstrap_weights: FloatArray
) -> FloatArray:
    """Cases by true class (row) and predicted class (column), shape (draws, classes, classes)."""
    cells = np.zeros((len(label), classes * classes))
    cells[np.arange(len(label)), label * classes + predicted] = 1.0
    return (bootstrap_weights @ cells).reshape(-1, classes, classes)


def recall(confusion: FloatArray) -> FloatArray:
    """Share of each class's cases that are found, shape (draws, classes); NaN for a class that does not occur."""
    total = confusion.sum(axis=2)
    return np.divide(np.einsum("dkk->dk", confusion), total, out=np.full(total.shape, np.nan), where=total > 0)


def balanced_accuracy(confusion: FloatArray) -> FloatArray:
    """Mean recall over the classes, shape (draws,); NaN where a class does not occur.

    Brodersen et al., ICPR 2010. 1 divided by the number of classes is what guessing gives.
    """
    return np.asarray(recall(confusion).mean(axis=1))


def squared_error(label: IntArray, probability: FloatArray) -> FloatArray:
    """What each case adds to the Brier score, shape (cases,).

    Of two classes the squared error of the positive one's probability (0..1), of more the sum over all (0..2; Brier,
    Mon Weather Rev 78, 1950).
    """
    error = ((np.eye(probability.shape[1])[label] - probability) ** 2).sum(axis=1)
    return np.asarray(error / 2 if probability.shape[1] == 2 else error)


def log_loss(label: IntArray, probability: FloatArray) -> FloatArray:
    """Minus the logarithm of what was predicted for the true class, shape (cases,)."""
    return np.asarray(-np.log(np.clip(probability[np.arange(len(label)), label], _EDGE, 1.0)))


def weighted_auc(score: FloatArray, case_weight: FloatArray, control_weight: FloatArray) -> FloatArray:
    """How often a case scores above a control (a tie counts half), for many weightings.

    Parameters
    ----------
    score
        Shape (cases,).
    case_weight, control_weight
        Shape (draws, cases); 0 for those that are no case, or no control.

    Returns
    -------
    FloatArray
        Shape (draws,); NaN without a case or without a control.
    """
    cases, controls = ((weight != 0).any(axis=0) for weight in (case_weight, control_weight))
    return auc_between(score[cases], case_weight[:, cases], score[controls], control_weight[:, controls])


def auc_between(
    case_score: FloatArray, case_weight: FloatArray, control_score: FloatArray, control_weight: FloatArray
) -> FloatArray:
    """:func:`weighted_auc` of cases and controls that are given apart."""
    order = np.argsort(control_score, kind="stable")
    first, last = (np.searchsorted(control_score[order], case_score, side=side) for side in ("left", "right"))
    controls = np.zeros((len(control_weight), len(control_score) + 1))
    np.cumsum(control_weight[:, order], axis=1, out=controls[:, 1:])
    below = 0.5 * (controls[:, first] + controls[:, last])
    pairs = case_weight.sum(axis=1) * controls[:, -1]
    won = np.einsum("dn,dn->d", case_weight, below)
    return np.divide(won, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def roc_curve(score: FloatArray, case_weight: FloatArray, control_weight: FloatArray) -> tuple[FloatArray, FloatArray]:
    """False and true positive rate as the threshold falls, from (0, 0) to (1, 1).

    Parameters
    ----------
    score, case_weight, control_weight
        Shape (cases,); the weights as for :func:`weighted_auc`, neither all zero.
    """
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    found, wrong = np.cumsum(case_weight[order])[last], np.cumsum(control_weight[order])[last]
    return np.append(0.0, wrong / wrong[-1]), np.append(0.0, found / found[-1])


CLASS_TABLES = ("measures", "confusion", "roc", "calibration", "net_benefit")
#: False positive rates at which the folds' ROC curves are averaged.
_RATES = np.linspace(0, 1, 101)


def class_parts(cases: MeasuredCases, results: Sequence[FoldResult]) -> list[Callable[[], Measured]]:
    """What all tables of one procedure's held-out predictions are joined from, in this order.

    A part raises StatisticsError when the results hold no probabilities of the classes.
    """
    view = _View(cases, results)
    whole = [partial(part, view) for part in (_auc, _accuracy, _errors)]
    curves = (_roc, _calibration, _net_benefit)
    return [*whole, *(partial(part, view, number) for number in _shown(view.endpoint) for part in curves)]


@dataclass(frozen=True, eq=False)
class _View(ProcedureResults):
    """With what is particular to classes."""

    @property
    def endpoint(self) -> Classes:
        assert isinstance(self.cases.endpoint, Classes)
        return self.cases.endpoint

    def probability(self, result: FoldResult) -> FloatArray:
        """The held-out cases' probability of each class, shape (cases, classes)."""
        names = self.endpoint.names
        if result.probability is None or result.probability.shape[1] != len(names):
            raise StatisticsError(f"{result.procedure}: there is no probability for each of {', '.join(names)}")
        expect_probabilities(result.probability, result.procedure)
        return result.probability

    def pooled(self, folds: Sequence[FoldResult], number: int) -> tuple[IntArray, FloatArray, FloatArray]:
        """The cases of a repeat, which of them are of a class (1, else 0), and their probabilities of it."""
        rows, probability = pooled(folds, lambda result: self.probability(result)[:, number])
        return rows, (self.endpoint.label[rows] == number).astype(np.float64), probability


def _shown(endpoint: Classes) -> Sequence[int]:
    """The classes that curves are drawn of: of two the positive one."""
    return (1,) if len(endpoint.names) == 2 else range(len(endpoint.names))


def _auc(view: _View) -> Measured:
    sheet, label = Sheet(view.name), view.endpoint.label
    values = np.array(
        [
            bootstrap_class_auc(label[result.test], view.probability(result), view.bootstrap_weights[:, result.test])
            for result in view.results
        ]
    )
    sheet.add("auc", None, *over_folds(values, "a case of every class"))
    return Measured({"measures": sheet.rows}, figures_of_folds(view.results, auc=values), {"auc": values})


def _accuracy(view: _View) -> Measured:
    """Rows of the confusion matrix, cases per repeat; accuracies are measures."""
    sheet, names = Sheet(view.name), view.endpoint.names
    tables = []
    for folds in repeats(view.results):
        rows, predicted = pooled(folds, lambda result: view.probability(result).argmax(axis=1))
        label = view.endpoint.label[rows]
        tables.append(
            bootstrap_confusion(label, predicted.astype(np.int64), len(names), view.bootstrap_weights[:, rows])
        )
    found = np.array(tables)
    absent = "" if np.isfinite(balanced_accuracy(found[0])[0]) else "a class does not occur"
    sheet.add("balanced_accuracy", None, mean_held(np.array([balanced_accuracy(table) for table in found])), absent)
    right, total = np.einsum("rdkk->rd", found), found.sum(axis=(2, 3))
    share = np.divide(right, total, out=np.full(total.shape, np.nan), where=total > 0)
    sheet.add("accuracy", None, mean_held(share))
    recalls = mean_held(np.array([recall(table) for table in found]))
    for number, name in enumerate(names):
        missing = "" if np.isfinite(recalls[0, number]) else "the class does not occur"
        sheet.add(f"recall_{name}", None, recalls[:, number], missing)
    mean = found[:, 0].mean(axis=0)
    confusion: list[Row] = [
        {"procedure": view.name, "true": true, "predicted": predicted, "cases": float(mean[i, j])}
        for i, true in enumerate(names)
        for j, predicted in enumerate(names)
    ]
    return Measured({"measures": sheet.rows, "confusion": confusion})


def _errors(view: _View) -> Measured:
    """Brier score and log loss; the Brier score also in each fold."""

    def errors(result: FoldResult) -> FloatArray:
        label, probability = view.endpoint.label[result.test], view.probability(result)
        return np.column_stack([squared_error(label, probability), log_loss(label, probability)])

    sheet = Sheet(view.name)
    score = bootstrap_mean(case_means(view.results, len(view.endpoint), errors), view.bootstrap_weights)
    sheet.add("brier", None, score[:, 0])
    sheet.add("log_loss", None, score[:, 1])
    of_folds = [bootstrap_mean(errors(result), view.bootstrap_weights[:, result.test])[:, 0] for result in view.results]
    return Measured({"measures": sheet.rows}, fold_values={"brier": np.array(of_folds)})


def _roc(view: _View, number: int) -> Measured:
    """Rows of the mean of the folds' ROC curves at each false positive rate; whose area is the mean AUC.

    The interval is that of the mean over folds in draws of the patients.
    """
    curves = []
    for result in view.results:
        positive = (view.endpoint.label[result.test] == number).astype(np.float64)
        if 0 < positive.sum() < len(positive):
            score = view.probability(result)[:, number]
            weight = view.bootstrap_weights[: 1 + CURVE_DRAWS, result.test]
            curves.append([_at_rates(score, positive, one) for one in weight])
    rows: list[Row] = []
    mean = mean_held(np.array(curves)).T if curves else ()
    for rate, values in zip(_RATES.tolist(), mean, strict=bool(curves)):
        lower, upper = interval(values[1:])
        key: Row = {"procedure": view.name, "class": view.endpoint.names[number], "false_positive_rate": rate}
        rows.append({**key, "true_positive_rate": float(values[0]), "lower": lower, "upper": upper})
    return Measured({"roc": rows})


def _at_rates(score: FloatArray, positive: FloatArray, weight: FloatArray) -> FloatArray:
    if not 0 < weight @ positive < weight.sum():
        return np.full(len(_RATES), np.nan)
    return np.asarray(np.interp(_RATES, *roc_curve(score, weight * positive, weight * (1 - positive))))


def _calibration(view: _View, number: int) -> Measured:
    sheet, name = Sheet(view.name), view.endpoint.names[number]
    bootstrap_weights = view.bootstrap_weights[: 1 + CURVE_DRAWS]
    points = calibration_points(np.concatenate([view.probability(result)[:, number] for result in view.results]))
    found, groups = [], []
    for folds in repeats(view.results):
        rows, positive, probability = view.pooled(folds, number)
        found.append(class_calibration(positive, probability, bootstrap_weights[:, rows], points))
        members = rising_groups(probability, calibration_groups(len(rows)))
        observed = [bootstrap_mean(positive[at, None], bootstrap_weights[:, rows[at]])[:, 0] for at in members]
        groups.append((np.array([probability[at].mean() for at in members]), np.array(observed)))
    add_calibration(sheet, None, found, of=name if len(view.endpoint.names) > 2 else "")
    plot = calibration_rows({"procedure": view.name, "class": name}, points, found, groups)
    return Measured({"measures": sheet.rows, "calibration": plot})


def _net_benefit(view: _View, number: int) -> Measured:
    model, everybody = [], []
    for folds in repeats(view.results):
        rows, positive, probability = view.pooled(folds, number)
        model.append(
            net_benefit_class(positive, probability, THRESHOLDS, view.bootstrap_weights[: 1 + CURVE_DRAWS, rows])
        )
        everybody.append(net_benefit_class(positive, np.ones(len(rows)), THRESHOLDS, view.bootstrap_weights[:1, rows]))
    key: Row = {"procedure": view.name, "class": view.endpoint.names[number]}
    return Measured({"net_benefit": benefit_rows(key, np.mean(model, axis=0), np.mean(everybody, axis=0))})
