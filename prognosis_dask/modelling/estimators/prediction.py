"""What a model says of cases, and the baseline hazard of a relative risk model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from prognosis_dask.arrays import FloatArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Classes, Survival
from prognosis_dask.modelling.estimators.scores import row_sums
from prognosis_dask.modelling.metrics.competing import partial_risk_sets, risk_sums


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says of cases.

    Attributes
    ----------
    risk_score
        Survival: shape (cases,), higher is worse. Two classes: the positive one's log odds. Else None.
    survival
        Survival: times in days, shape (t,), to the probability of surviving them, shape (cases, t). Else None.
    probability
        Classes: shape (cases, classes); at the training cases' prevalence. Else None.
    """

    risk_score: FloatArray | None = None
    survival: Callable[[FloatArray], FloatArray] | None = None
    probability: FloatArray | None = None


def prevalence(endpoint: Classes) -> FloatArray:
    """The share of each class.

    Raises
    ------
    StatisticsError
        When a class has no case.
    """
    counts = np.bincount(endpoint.label, minlength=len(endpoint.names))
    absent = [name for name, count in zip(endpoint.names, counts, strict=True) if not count]
    if absent:
        raise StatisticsError(f"none of {len(endpoint)} training cases is of class {', '.join(absent)}")
    return np.asarray(counts / counts.sum())


def balanced_weights(endpoint: Classes) -> FloatArray:
    """A weight per case with which all classes count the same; their mean is one."""
    share = prevalence(endpoint)
    return np.asarray(1.0 / (len(share) * share[endpoint.label]))


def class_prediction(balanced: FloatArray, share: FloatArray) -> Prediction:
    """From log probabilities learnt with balanced classes to those at the training cases' prevalence.

    Bayes' rule: odds are multiplied by the classes' shares (King & Zeng, Political Analysis 9, 2001). So probabilities
    stay calibrated where the classes were balanced for learning.

    Parameters
    ----------
    balanced
        Log probabilities up to a constant per case, shape (cases, classes).
    share
        The classes' prevalence, shape (classes,).
    """
    score = balanced + np.log(share)
    score = score - score.max(axis=1, keepdims=True)
    relative = np.exp(score)
    probability = relative / row_sums(relative)[:, None]
    return Prediction(score[:, 1] - score[:, 0] if len(share) == 2 else None, None, probability)


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
    order = endpoint.by_time()
    ordered = endpoint.rows(order)
    # a common factor is taken out of the exponentials and put back, against overflow
    shift = float(risk_score.max()) if len(risk_score) else 0.0
    hazard = np.exp(risk_score[order] - shift)
    times, events = np.unique(ordered.observed_days[ordered.event], return_counts=True)
    steps = events / risk_sums(ordered, hazard, times) * np.exp(-min(max(shift, -_WIDEST), _WIDEST))
    return Baseline(times, np.cumsum(steps))


def martingale_residuals(endpoint: Survival) -> FloatArray:
    """Event less the Nelson-Aalen cumulative hazard while the case was at risk; shape (cases,)."""
    nelson_aalen = breslow(endpoint, np.zeros(len(endpoint)))
    if endpoint.competing is not None:
        sets = partial_risk_sets(endpoint, nelson_aalen.times_days)
        assert sets is not None
        return np.asarray(endpoint.event - sets.of_cases(np.diff(nelson_aalen.cumulative, prepend=0.0)))
    hazard = np.append(0.0, nelson_aalen.cumulative)

    def until(days: FloatArray) -> FloatArray:
        return hazard[np.searchsorted(nelson_aalen.times_days, days, side="right")]

    before = 0.0 if endpoint.entry_days is None else until(endpoint.entry_days)
    return np.asarray(endpoint.event - (until(endpoint.time_days) - before))
