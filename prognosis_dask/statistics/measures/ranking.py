"""Area under the ROC curve of weighted cases and controls, and the curve."""

from __future__ import annotations

import numpy as np

from prognosis_dask.statistics.endpoint import FloatArray


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
