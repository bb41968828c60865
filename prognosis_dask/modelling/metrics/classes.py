"""Discrimination and accuracy of predicted classes; the area under the ROC curve for many weightings of the cases."""

from __future__ import annotations

import numpy as np

from prognosis_dask.arrays import FloatArray, IntArray
from prognosis_dask.errors import StatisticsError

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
    value = float(class_auc_drawn(label, probability, np.ones((1, len(label))))[0])
    if np.isnan(value):
        counts = np.bincount(label, minlength=probability.shape[1]).tolist()
        raise StatisticsError(f"AUC: cases per class are {counts}; every class has to occur")
    return value


def class_auc_drawn(label: IntArray, probability: FloatArray, drawn: FloatArray) -> FloatArray:
    """:func:`class_auc` for many weightings of the cases, shape (draws, cases); NaN where a class does not occur."""
    classes = (1,) if probability.shape[1] == 2 else range(probability.shape[1])
    one_by_one = [auc_drawn(probability[:, k], drawn * (label == k), drawn * (label != k)) for k in classes]
    return np.asarray(np.mean(one_by_one, axis=0))


def confusion_drawn(label: IntArray, predicted: IntArray, classes: int, drawn: FloatArray) -> FloatArray:
    """Cases by true class (row) and predicted class (column), shape (draws, classes, classes)."""
    cells = np.zeros((len(label), classes * classes))
    cells[np.arange(len(label)), label * classes + predicted] = 1.0
    return (drawn @ cells).reshape(-1, classes, classes)


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


def auc_drawn(score: FloatArray, case_weight: FloatArray, control_weight: FloatArray) -> FloatArray:
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
    """:func:`auc_drawn` of cases and controls that are given apart."""
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
        Shape (cases,); the weights as for :func:`auc_drawn`, neither all zero.
    """
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    found, wrong = np.cumsum(case_weight[order])[last], np.cumsum(control_weight[order])[last]
    return np.append(0.0, wrong / wrong[-1]), np.append(0.0, found / found[-1])
