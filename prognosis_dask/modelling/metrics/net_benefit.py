"""Net benefit of treating those whose predicted risk reaches a threshold: decision curves.

And the rows of calibration and net benefit, alike for survival and for classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from prognosis_dask.arrays import FloatArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Survival
from prognosis_dask.modelling.metrics.calibration import Calibration
from prognosis_dask.modelling.metrics.intervals import in_parts, interval, mean_held
from prognosis_dask.modelling.metrics.kaplan_meier import survival_of
from prognosis_dask.modelling.metrics.measured import Sheet, extended
from prognosis_dask.modelling.table_spec import Row


def net_benefit_survival(
    endpoint: Survival, risk: FloatArray, horizon: float, thresholds: FloatArray, bootstrap_weights: FloatArray
) -> FloatArray:
    """Net benefit for the event up to a horizon (Vickers et al., BMC Med Inform Decis Mak 8:53, 2008).

    With the share treated ``s`` and Kaplan-Meier's risk among the treated ``r``: ``s r - s (1 - r) t / (1 - t)`` at
    threshold ``t``. Treating nobody has 0; treating everybody is ``risk`` all ones. Where events compete, the risk is
    the cumulative incidence.

    Parameters
    ----------
    risk
        The predicted probability of the event up to the horizon, shape (cases,).
    horizon
        In days.
    thresholds
        Shape (thresholds,), within 0..1, 1 excluded.
    bootstrap_weights
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
    order = endpoint.by_time()
    endpoint, risk, bootstrap_weights = endpoint.rows(order), risk[order], bootstrap_weights[:, order]
    until = int(np.searchsorted(endpoint.observed_days, horizon, side="right"))
    total = bootstrap_weights.sum(axis=1, keepdims=True)
    is_treated = risk[:, None] >= thresholds
    treated_by = is_treated.sum(axis=0)  # as many: the same ones
    of_treated = bootstrap_weights @ is_treated.astype(np.float64)
    share = np.divide(of_treated, total, out=np.zeros_like(of_treated), where=total > 0)
    dead = np.zeros_like(share)
    for rows in in_parts(len(bootstrap_weights), until):
        weight = bootstrap_weights[rows, :until]
        for column, threshold in enumerate(thresholds):
            if column and treated_by[column] == treated_by[column - 1]:
                dead[rows, column] = dead[rows, column - 1]
                continue
            treated = np.flatnonzero(risk[:until] >= threshold)
            own, weights = weight.take(treated, axis=1), of_treated[rows, column]
            dead[rows, column] = 1 - survival_of(endpoint.rows(treated), own, weights)
    return np.where(share > 0, share * (dead - (1 - dead) * thresholds / (1 - thresholds)), 0.0)


def net_benefit_class(
    positive: FloatArray, probability: FloatArray, thresholds: FloatArray, bootstrap_weights: FloatArray
) -> FloatArray:
    """Net benefit for a class (Vickers & Elkin, Med Decis Making 26, 2006): true less weighted false positives.

    Parameters
    ----------
    positive
        1 where the case is of the class, else 0; shape (cases,).
    probability
        Predicted, shape (cases,).
    thresholds, bootstrap_weights
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
    total = np.maximum(bootstrap_weights.sum(axis=1, keepdims=True), 1e-300)
    return np.asarray(bootstrap_weights @ (treated * gain) / total)


def _expect_thresholds(thresholds: FloatArray) -> None:
    if not ((thresholds >= 0) & (thresholds < 1)).all():
        raise StatisticsError(
            f"net benefit: thresholds from {thresholds.min():g} to {thresholds.max():g}; they lie within 0 and below 1"
        )


#: What :func:`add_calibration` adds to the measures.
CALIBRATION = ("calibration_slope", "observed_expected", "ici", "e50", "e90")
#: Thresholds of the decision curve.
THRESHOLDS = np.arange(2, 99, 2) / 100
#: Fewest cases in a group of the calibration plot, and most groups.
_IN_GROUP, _GROUPS = 20, 10
#: Points of the smooth calibration curve.
_POINTS = 25


def calibration_groups(cases: int) -> int:
    """Into how many groups of rising prediction the cases are put."""
    return min(_GROUPS, max(1, cases // _IN_GROUP))


def calibration_points(predicted: FloatArray) -> FloatArray:
    """Where the smooth curve is drawn: predictions from the 2nd to the 98th percentile."""
    return np.asarray(np.unique(np.percentile(predicted, np.linspace(2, 98, _POINTS))))


def add_calibration(sheet: Sheet, horizon: float | None, found: Sequence[Calibration], of: str = "") -> None:
    """Add the figures of calibration, averaged over the repeats.

    Parameters
    ----------
    of
        The class, where there are several; it becomes part of the measure's name.
    """
    values = ("slope", "observed_expected", "ici", "e50", "e90")
    for measure, name in zip(CALIBRATION, values, strict=True):
        mean = mean_held(np.array([getattr(one, name) for one in found]))
        unknown = "the predictions do not differ, or order the outcomes perfectly"
        sheet.add(f"{measure}_{of}" if of else measure, horizon, mean, "" if np.isfinite(mean[0]) else unknown)


def extended_calibration(found: Sequence[Calibration]) -> list[Calibration]:
    """:func:`prognosis_dask.modelling.metrics.measured.extended` of every figure."""
    names = [field.name for field in fields(Calibration)]
    parts = zip(*(extended([getattr(one, name) for one in found]) for name in names), strict=True)
    return [Calibration(*part) for part in parts]


def calibration_rows(
    key: Row, points: FloatArray, found: Sequence[Calibration], groups: Sequence[tuple[FloatArray, FloatArray]]
) -> list[Row]:
    """The rows of ``calibration``: kind "group" (of rising prediction) and "smooth".

    Parameters
    ----------
    key
        What each row begins with.
    points, found
        Predictions, and the smooth curves at them, one for each repeat.
    groups
        Of each repeat the groups' mean prediction, shape (groups,), and observed share, shape (groups, draws).
    """
    predicted = np.mean([predicted for predicted, _ in groups], axis=0)
    observed = mean_held(np.array([seen for _, seen in groups]))
    smooth = mean_held(np.array([one.smooth for one in found])).T
    return [
        {**key, "kind": kind, "predicted": float(at), "observed": float(values[0]), "lower": lower, "upper": upper}
        for kind, ats, curves in (("group", predicted, observed), ("smooth", points, smooth))
        for at, values in zip(ats, curves, strict=True)
        for lower, upper in (interval(values[1:]),)
    ]


def benefit_rows(key: Row, model: FloatArray, everybody: FloatArray) -> list[Row]:
    """The rows of ``net_benefit``, the decision curve.

    Parameters
    ----------
    key
        What each row begins with.
    model
        Shape (draws, thresholds), the first draw being the cases as they are.
    everybody
        The same for treating everybody, of the first draw only.
    """
    rows: list[Row] = []
    for threshold, values, treat_all in zip(THRESHOLDS.tolist(), model.T, everybody[0].tolist(), strict=True):
        lower, upper = interval(values[1:])
        of_model = {"net_benefit": float(values[0]), "lower": lower, "upper": upper}
        rows.append({**key, "threshold": threshold, **of_model, "treat_all": treat_all})
    return rows
