"""Net benefit of treating those whose predicted risk reaches a threshold: decision curves."""

from __future__ import annotations

import numpy as np

from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import BoolArray, FloatArray
from prognosis_dask.modelling.metrics.intervals import in_parts
from prognosis_dask.modelling.metrics.kaplan_meier import survival_drawn


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
    benefit = np.zeros((len(drawn), len(thresholds)))
    for rows in in_parts(len(drawn), len(time)):
        weight = drawn[rows][:, order]
        total = weight.sum(axis=1)
        for column, threshold in enumerate(thresholds):
            treated = np.flatnonzero(risk >= threshold)
            if not len(treated):
                continue
            own = weight[:, treated]
            share = np.divide(own.sum(axis=1), total, out=np.zeros(len(total)), where=total > 0)
            dead = 1 - survival_drawn(time[treated], event[treated], horizon, own)
            value = share * (dead - (1 - dead) * threshold / (1 - threshold))
            benefit[rows, column] = np.where(share > 0, value, 0.0)
    return benefit


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
