"""Net benefit of treating those whose predicted risk reaches a threshold: decision curves."""

from __future__ import annotations

import numpy as np

from prognosis_dask.arrays import BoolArray, FloatArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.metrics.intervals import in_parts
from prognosis_dask.modelling.metrics.kaplan_meier import survival_of


def net_benefit_survival(
    time: FloatArray,
    event: BoolArray,
    risk: FloatArray,
    horizon: float,
    thresholds: FloatArray,
    drawn: FloatArray,
) -> FloatArray:
    """Net benefit for the event up to a horizon (Vickers et al., BMC Med Inform Decis Mak 8:53, 2008).

    With the share treated ``s`` and Kaplan-Meier's risk among the treated ``r``: ``s r - s (1 - r) t / (1 - t)`` at
    threshold ``t``. Treating nobody has 0; treating everybody is ``risk`` all ones.

    Parameters
    ----------
    time, event, risk
        Shape (cases,); the predicted probability of the event up to the horizon.
    horizon
        In days.
    thresholds
        Shape (thresholds,), within 0..1, 1 excluded.
    drawn
        Weight of each case, shape (draws, cases).

    Returns
    -------
    FloatArray
        Shape (draws, thresholds).

    Raises
    ------
    StatisticsError
        When a threshold is not within 0..1.
    """
    _expect_thresholds(thresholds)
    order = np.argsort(time, kind="stable")
    time, event, risk = time[order], event[order], risk[order]
    until = int(np.searchsorted(time, horizon, side="right"))
    drawn = drawn[:, order]
    total = drawn.sum(axis=1, keepdims=True)
    is_treated = risk[:, None] >= thresholds
    treated_by = is_treated.sum(axis=0)  # as many: the same ones
    of_treated = drawn @ is_treated.astype(np.float64)
    share = np.divide(of_treated, total, out=np.zeros_like(of_treated), where=total > 0)
    dead = np.zeros_like(share)
    for rows in in_parts(len(drawn), until):
        weight = drawn[rows, :until]
        for column, threshold in enumerate(thresholds):
            if column and treated_by[column] == treated_by[column - 1]:
                dead[rows, column] = dead[rows, column - 1]
                continue
            treated = np.flatnonzero(risk[:until] >= threshold)
            own, weights = weight.take(treated, axis=1), of_treated[rows, column]
            dead[rows, column] = 1 - survival_of(time[treated], event[treated], own, weights)
    return np.where(share > 0, share * (dead - (1 - dead) * thresholds / (1 - thresholds)), 0.0)


def net_benefit_class(
    positive: FloatArray, probability: FloatArray, thresholds: FloatArray, drawn: FloatArray
) -> FloatArray:
    """Net benefit for a class (Vickers & Elkin, Med Decis Making 26, 2006): true less weighted false positives.

    Parameters
    ----------
    positive
        1 where the case is of the class, else 0; shape (cases,).
    probability
        Predicted, shape (cases,).
    thresholds, drawn
        As for :func:`net_benefit_survival`.

    Returns
    -------
    FloatArray
        Shape (draws, thresholds).

    Raises
    ------
    StatisticsError
        When a threshold is not within 0..1.
    """
    _expect_thresholds(thresholds)
    treated = (probability[:, None] >= thresholds).astype(np.float64)
    gain = positive[:, None] - (1 - positive[:, None]) * thresholds / (1 - thresholds)
    total = np.maximum(drawn.sum(axis=1, keepdims=True), 1e-300)
    return np.asarray(drawn @ (treated * gain) / total)


def _expect_thresholds(thresholds: FloatArray) -> None:
    if not ((thresholds >= 0) & (thresholds < 1)).all():
        raise StatisticsError(
            f"net benefit: thresholds from {thresholds.min():g} to {thresholds.max():g}; they lie within 0 and below 1"
        )
