"""The baseline hazard of a relative risk model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prognosis_dask.arrays import FloatArray
from prognosis_dask.modelling.data.endpoint import Survival, risk_sets

#: Log hazards beyond this are as certain as they can be, and stay within the range of exponentials.
_WIDEST = 500.0


@dataclass(frozen=True)
class Baseline:
    """A cumulative hazard that rises at the events' times.

    Attributes
    ----------
    times_days
        Distinct times of events, ascending.
    cumulative
        Cumulative hazard from each of them on, of a case with risk score zero.
    """

    times_days: FloatArray
    cumulative: FloatArray

    def survival(self, risk_score: FloatArray, times_days: FloatArray) -> FloatArray:
        """Probability of surviving each time, shape (cases, times); constant after the last event."""
        at = np.searchsorted(self.times_days, times_days, side="right")
        hazard = np.append(0.0, self.cumulative)[at]
        relative = np.exp(np.clip(risk_score, -_WIDEST, _WIDEST))
        return np.asarray(np.exp(-np.multiply.outer(relative, hazard)))


def breslow(endpoint: Survival, risk_score: FloatArray) -> Baseline:
    """Breslow's estimate (Biometrics 30, 89, 1974): at each time, events over the sum of relative risks at risk."""
    order = np.argsort(endpoint.time_days, kind="stable")
    time, event = endpoint.time_days[order], endpoint.event[order]
    # a common factor is taken out of the exponentials and put back, against overflow
    shift = float(risk_score.max()) if len(risk_score) else 0.0
    hazard = np.exp(risk_score[order] - shift)
    times, events = np.unique(time[event], return_counts=True)
    if endpoint.entry_days is not None:
        at_risk = risk_sets(endpoint.entry_days[order], time, times).at_events(hazard)
    else:
        at_risk = np.cumsum(hazard[::-1])[::-1][np.searchsorted(time, times)]
    steps = events / at_risk * np.exp(-min(max(shift, -_WIDEST), _WIDEST))
    return Baseline(times, np.cumsum(steps))
