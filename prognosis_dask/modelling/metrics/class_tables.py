"""The tables of one procedure for classes; see :mod:`modelling.validation.evaluate` for how folds become one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prognosis_dask.arrays import FloatArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Classes
from prognosis_dask.modelling.metrics.calibration import class_calibration, expect_probabilities, rising_groups
from prognosis_dask.modelling.metrics.classes import (
    balanced_accuracy,
    class_auc_drawn,
    confusion_drawn,
    log_loss,
    recall,
    roc_curve,
    squared_error,
)
from prognosis_dask.modelling.metrics.curve_tables import (
    THRESHOLDS,
    add_calibration,
    benefit_rows,
    calibration_groups,
    calibration_points,
    calibration_rows,
)
from prognosis_dask.modelling.metrics.intervals import DRAWS, interval, mean_held
from prognosis_dask.modelling.metrics.measured import (
    CURVE_DRAWS,
    Measured,
    Sheet,
    case_means,
    drawn_mean,
    over_folds,
    pooled,
    repeats,
    weights,
)
from prognosis_dask.modelling.metrics.net_benefit import net_benefit_class
from prognosis_dask.modelling.table_spec import Row
from prognosis_dask.modelling.validation.nested import FoldResult

#: False positive rates at which the folds' ROC curves are averaged.
_RATES = np.linspace(0, 1, 101)


def measure_classes(
    endpoint: Classes, patient_ids: Sequence[str], seed: int, results: Sequence[FoldResult], draws: int = DRAWS
) -> Measured:
    """All tables of one procedure's held-out predictions.

    Parameters
    ----------
    endpoint, patient_ids
        Of all cases.
    seed
        Draws the patients.
    results
        The procedure's folds.
    draws
        Of the patients, for the intervals; 0: none.

    Raises
    ------
    StatisticsError
        When results hold no probabilities of the classes.
    """
    for result in results:
        expect_probabilities(_probability(result, endpoint), result.procedure)
    drawn = weights(patient_ids, seed, draws)
    sheet = Sheet(results[0].procedure)
    fold_values = {"auc": _auc(endpoint, drawn, results, sheet)}
    confusion = _accuracy(endpoint, drawn, results, sheet)
    fold_values["brier"] = _errors(endpoint, drawn, results, sheet)
    calibration: list[Row] = []
    benefit: list[Row] = []
    for number in _shown(endpoint):
        calibration += _calibration(endpoint, number, drawn, results, sheet)
        benefit += _net_benefit(endpoint, number, drawn, results)
    return Measured(
        {
            "measures": sheet.rows,
            "confusion": confusion,
            "roc": [row for number in _shown(endpoint) for row in _roc(endpoint, number, drawn, results)],
            "calibration": calibration,
            "net_benefit": benefit,
        },
        {
            (result.procedure, result.repeat, result.fold): {"auc": float(fold_values["auc"][i, 0])}
            for i, result in enumerate(results)
        },
        fold_values,
    )


def _shown(endpoint: Classes) -> Sequence[int]:
    """The classes that curves are drawn of: of two the positive one."""
    return (1,) if len(endpoint.names) == 2 else range(len(endpoint.names))


def _probability(result: FoldResult, endpoint: Classes) -> FloatArray:
    if result.probability is None or result.probability.shape[1] != len(endpoint.names):
        raise StatisticsError(f"{result.procedure}: there is no probability for each of {', '.join(endpoint.names)}")
    return result.probability


def _auc(endpoint: Classes, drawn: FloatArray, results: Sequence[FoldResult], sheet: Sheet) -> FloatArray:
    values = np.array(
        [
            class_auc_drawn(endpoint.label[result.test], _probability(result, endpoint), drawn[:, result.test])
            for result in results
        ]
    )
    sheet.add("auc", None, *over_folds(values, "a case of every class"))
    return values


def _accuracy(endpoint: Classes, drawn: FloatArray, results: Sequence[FoldResult], sheet: Sheet) -> list[Row]:
    """Rows of the confusion matrix, cases per repeat; accuracies are measures."""
    tables = []
    for folds in repeats(results):
        rows, predicted = pooled(folds, lambda result: _probability(result, endpoint).argmax(axis=1))
        count = len(endpoint.names)
        tables.append(confusion_drawn(endpoint.label[rows], predicted.astype(np.int64), count, drawn[:, rows]))
    found = np.array(tables)
    absent = "" if np.isfinite(balanced_accuracy(found[0])[0]) else "a class does not occur"
    sheet.add("balanced_accuracy", None, mean_held(np.array([balanced_accuracy(table) for table in found])), absent)
    right, total = np.einsum("rdkk->rd", found), found.sum(axis=(2, 3))
    share = np.divide(right, total, out=np.full(total.shape, np.nan), where=total > 0)
    sheet.add("accuracy", None, mean_held(share))
    recalls = mean_held(np.array([recall(table) for table in found]))
    for number, name in enumerate(endpoint.names):
        missing = "" if np.isfinite(recalls[0, number]) else "the class does not occur"
        sheet.add(f"recall_{name}", None, recalls[:, number], missing)
    mean = found[:, 0].mean(axis=0)
    return [
        {"procedure": sheet.procedure, "true": true, "predicted": predicted, "cases": float(mean[i, j])}
        for i, true in enumerate(endpoint.names)
        for j, predicted in enumerate(endpoint.names)
    ]


def _errors(endpoint: Classes, drawn: FloatArray, results: Sequence[FoldResult], sheet: Sheet) -> FloatArray:
    """Add Brier score and log loss; the Brier score in each fold and draw, shape (folds, 1 + draws)."""

    def errors(result: FoldResult) -> FloatArray:
        label, probability = endpoint.label[result.test], _probability(result, endpoint)
        return np.column_stack([squared_error(label, probability), log_loss(label, probability)])

    score = drawn_mean(case_means(results, len(endpoint), errors), drawn)
    sheet.add("brier", None, score[:, 0])
    sheet.add("log_loss", None, score[:, 1])
    return np.array([drawn_mean(errors(result), drawn[:, result.test])[:, 0] for result in results])


def _roc(endpoint: Classes, number: int, drawn: FloatArray, results: Sequence[FoldResult]) -> list[Row]:
    """Rows of the mean of the folds' ROC curves at each false positive rate; whose area is the mean AUC.

    The interval is that of the mean over folds in draws of the patients.
    """
    curves = []
    for result in results:
        positive = (endpoint.label[result.test] == number).astype(np.float64)
        if 0 < positive.sum() < len(positive):
            score = _probability(result, endpoint)[:, number]
            weight = drawn[: 1 + CURVE_DRAWS, result.test]
            curves.append([_at_rates(score, positive, one) for one in weight])
    if not curves:
        return []
    mean = mean_held(np.array(curves)).T
    rows: list[Row] = []
    for rate, values in zip(_RATES.tolist(), mean, strict=True):
        lower, upper = interval(values[1:])
        key: Row = {"procedure": results[0].procedure, "class": endpoint.names[number], "false_positive_rate": rate}
        rows.append({**key, "true_positive_rate": float(values[0]), "lower": lower, "upper": upper})
    return rows


def _at_rates(score: FloatArray, positive: FloatArray, weight: FloatArray) -> FloatArray:
    if not 0 < weight @ positive < weight.sum():
        return np.full(len(_RATES), np.nan)
    return np.asarray(np.interp(_RATES, *roc_curve(score, weight * positive, weight * (1 - positive))))


def _calibration(
    endpoint: Classes, number: int, drawn: FloatArray, results: Sequence[FoldResult], sheet: Sheet
) -> list[Row]:
    weight = drawn[: 1 + CURVE_DRAWS]
    points = calibration_points(np.concatenate([_probability(result, endpoint)[:, number] for result in results]))
    found, groups = [], []
    for folds in repeats(results):
        rows, probability = pooled(folds, lambda result: _probability(result, endpoint)[:, number])
        positive = (endpoint.label[rows] == number).astype(np.float64)
        found.append(class_calibration(positive, probability, weight[:, rows], points))
        members = rising_groups(probability, calibration_groups(len(rows)))
        observed = [drawn_mean(positive[at, None], weight[:, rows[at]])[:, 0] for at in members]
        groups.append((np.array([probability[at].mean() for at in members]), np.array(observed)))
    name = endpoint.names[number]
    add_calibration(sheet, None, found, of=name if len(endpoint.names) > 2 else "")
    return calibration_rows({"procedure": sheet.procedure, "class": name}, points, found, groups)


def _net_benefit(endpoint: Classes, number: int, drawn: FloatArray, results: Sequence[FoldResult]) -> list[Row]:
    weight = drawn[: 1 + CURVE_DRAWS]
    model, everybody = [], []
    for folds in repeats(results):
        rows, probability = pooled(folds, lambda result: _probability(result, endpoint)[:, number])
        positive = (endpoint.label[rows] == number).astype(np.float64)
        model.append(net_benefit_class(positive, probability, THRESHOLDS, weight[:, rows]))
        everybody.append(net_benefit_class(positive, np.ones(len(rows)), THRESHOLDS, weight[:1, rows]))
    key: Row = {"procedure": results[0].procedure, "class": endpoint.names[number]}
    return benefit_rows(key, np.mean(model, axis=0), np.mean(everybody, axis=0))
