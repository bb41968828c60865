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
    order = np.argsort(score, kind="stable")
    _, first = np.unique(score[order], return_index=True)
    cases = np.add.reduceat(case_weight[:, order], first, axis=1)
    controls = np.add.reduceat(control_weight[:, order], first, axis=1)
    below = np.cumsum(controls, axis=1) - 0.5 * controls
    pairs = cases.sum(axis=1) * controls.sum(axis=1)
    won = np.einsum("dn,dn->d", cases, below)
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
