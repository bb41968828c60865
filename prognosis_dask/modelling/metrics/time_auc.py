"""Time-dependent AUC: who has the event by a time against who is still without (cumulative cases, dynamic controls)."""

from __future__ import annotations

import numpy as np

from prognosis_dask.arrays import BoolArray, FloatArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.metrics.brier import Censoring, inverse
from prognosis_dask.modelling.metrics.classes import auc_between
from prognosis_dask.modelling.metrics.kaplan_meier import kaplan_meier


def auc_t(time: FloatArray, event: BoolArray, risk: FloatArray, horizon: float, censoring: Censoring) -> float:
    """AUC at a horizon, with inverse probability of censoring weights.

    Cases had the event up to the horizon, controls were followed beyond it (Uno et al., J Am Stat Assoc 102, 2007;
    Hung & Chiang, Can J Stat 38, 2010).

    Parameters
    ----------
    time, event, risk
        Shape (cases,).
    horizon
        In days.
    censoring
        That of the cohort: :func:`prognosis_dask.modelling.metrics.brier.fit_censoring`.

    Raises
    ------
    StatisticsError
        When there is no case or no control.
    """
    value = float(auc_t_drawn(time, event, risk, horizon, censoring, np.ones((1, len(time))))[0])
    if np.isnan(value):
        cases, controls = int((event & (time <= horizon)).sum()), int((time > horizon).sum())
        raise StatisticsError(f"AUC at {horizon:g} days: {cases} cases and {controls} controls; both are needed")
    return value


def auc_t_drawn(
    time: FloatArray, event: BoolArray, risk: FloatArray, horizon: float, censoring: Censoring, drawn: FloatArray
) -> FloatArray:
    """:func:`auc_t` for many weightings of the cases, shape (draws, cases); NaN without a case or a control."""
    weight = inverse(censoring.uncensored(time), event & (time <= horizon))
    cases, controls = np.flatnonzero(weight), np.flatnonzero(time > horizon)
    return auc_between(risk[cases], drawn[:, cases] * weight[cases], risk[controls], drawn[:, controls])


def mean_auc(time: FloatArray, event: BoolArray, times_days: FloatArray, auc: FloatArray) -> FloatArray:
    """Mean of AUC(t), each time counting by the drop of the survival curve up to it from the time before.

    Parameters
    ----------
    time, event
        Shape (cases,).
    times_days
        Ascending, shape (times,).
    auc
        At these times, shape (times,) or (times, draws); times without one (NaN, in the first draw) are left out.

    Raises
    ------
    StatisticsError
        When nobody has the event up to the last time.
    """
    held = np.flatnonzero(np.isfinite(auc.reshape(len(times_days), -1)[:, 0])) if len(times_days) else np.arange(0)
    drop = -np.diff(np.append(1.0, kaplan_meier(time, event).at(times_days[held])))
    if not drop.sum() > 0:
        raise StatisticsError("mean AUC: no event up to the last time that has an AUC")
    return np.asarray(np.tensordot(drop, auc[held], axes=1) / drop.sum())
