"""Kaplan-Meier's estimate with interval and numbers at risk, of survival and of staying uncensored; log-rank test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prognosis_dask.arrays import BoolArray, FloatArray, IntArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Survival, patient_sums, several_cases
from prognosis_dask.modelling.metrics.intervals import Z95, in_parts


@dataclass(frozen=True)
class KaplanMeier:
    """A survival curve.

    Attributes
    ----------
    time_days
        0, then the distinct times of the cases, ascending.
    survival
        From that time on, until the next.
    lower, upper
        Pointwise 95 % interval: Greenwood's variance (or that over patients), on the scale log(-log) (Kalbfleisch &
        Prentice 1980).
    at_risk
        Cases followed up to that time or beyond, that entered before.
    entered
        Where cases enter late: how many do so at that time; these are among the times. Else None.
    """

    time_days: FloatArray
    survival: FloatArray
    lower: FloatArray
    upper: FloatArray
    at_risk: IntArray
    entered: IntArray | None = None

    def at(self, time_days: FloatArray) -> FloatArray:
        """Survival at any times; beyond the last time it is that of the last."""
        return np.asarray(self.survival[np.searchsorted(self.time_days, time_days, side="right") - 1])


def kaplan_meier(endpoint: Survival, patient_ids: Sequence[str] = ()) -> KaplanMeier:
    """Estimate survival (Kaplan & Meier, J Am Stat Assoc 53, 1958).

    Where cases enter late, the curve is of a case at 0, if who enters is no other than who was there all the time.

    Parameters
    ----------
    endpoint
        Competing events are censored at the time drawn for them.
    patient_ids
        Whose case it is. Where patients have several, the interval is that over patients: what each adds to the
        logarithm of the curve (the infinitesimal jackknife) is summed within patients; with one case each, followed
        from 0 on, its squares add up to Greenwood's variance.

    Raises
    ------
    StatisticsError
        When there is no case.
    """
    entry = endpoint.entry_days
    times, died, _, at_risk = _counts(endpoint.time_days, endpoint.event, entry)
    survival = np.cumprod(1 - np.divide(died, at_risk, out=np.zeros(len(times)), where=died > 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = np.cumsum(_fall(died, at_risk))
        if several_cases(patient_ids):
            variance = _variance_over_patients(endpoint, patient_ids)
        width = Z95 * np.sqrt(variance) / np.abs(np.log(survival))
        lower, upper = survival ** np.exp(width), survival ** np.exp(-width)
    certain = (survival == 1) | (survival == 0)
    return KaplanMeier(
        np.append(0.0, times),
        np.append(1.0, survival),
        np.append(1.0, np.where(certain, survival, lower)),
        np.append(1.0, np.where(certain, survival, upper)),
        np.append(len(endpoint) if entry is None else np.count_nonzero(entry == 0), at_risk),
        None if entry is None else np.bincount(np.searchsorted(times, entry, "right"), minlength=len(times) + 1),
    )


def _variance_over_patients(endpoint: Survival, patient_ids: Sequence[str]) -> FloatArray:
    """Of the logarithm of survival at each distinct time; called where division by zero is quiet."""
    time, event, entry = endpoint.time_days, endpoint.event, endpoint.entry_days
    times, died, _, at_risk = _counts(time, event, entry)
    fall = np.cumsum(_fall(died, at_risk))
    own = np.searchsorted(times, time)
    influence = fall[np.minimum(own[:, None], np.arange(len(times)))]
    if entry is not None:  # what fell until a case entered is not its own
        before = np.minimum(np.searchsorted(times, entry, side="right")[:, None], np.arange(1, len(times) + 1))
        influence -= np.append(0.0, fall)[before]
    seen = event[:, None] & (own[:, None] <= np.arange(len(times)))
    influence -= np.where(seen, 1 / (at_risk - died)[own][:, None], 0.0)
    return np.asarray((patient_sums(influence, patient_ids) ** 2).sum(axis=0))


def _fall(died: IntArray, at_risk: IntArray) -> FloatArray:
    return np.divide(died, at_risk * (at_risk - died), out=np.zeros(len(died)), where=died > 0)


def uncensored(time: FloatArray, event: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Probability of staying uncensored, whose inverse weights what was observed (IPCW).

    Kaplan-Meier with the roles changed. Of a tie the event comes first: who had the event was not at risk of being
    censored at that time.

    Returns
    -------
    times, probability
        Steps: the probability from each time on. Both begin with 0 days and 1.
    """
    times, died, censored, at_risk = _counts(time, event)
    left = at_risk - died
    probability = np.cumprod(1 - np.divide(censored, left, out=np.zeros(len(times)), where=left > 0))
    return np.append(0.0, times), np.append(1.0, probability)


def bootstrap_survival(endpoint: Survival, horizon: float, bootstrap_weights: FloatArray) -> FloatArray:
    """Kaplan-Meier's survival at one time for many weightings of the cases.

    Where events compete it is one less the cumulative incidence (Aalen & Johansen 1978).

    Parameters
    ----------
    bootstrap_weights
        Weight of each case, shape (draws, cases).

    Returns
    -------
    FloatArray
        Shape (draws,). Once nobody is at risk the curve stays where it is; NaN where no case has weight.
    """
    if (np.diff(endpoint.observed_days) < 0).any():
        order = endpoint.by_time()
        endpoint, bootstrap_weights = endpoint.rows(order), bootstrap_weights[:, order]
    until = np.arange(np.searchsorted(endpoint.observed_days, horizon, side="right"))
    return survival_of(endpoint.rows(until), bootstrap_weights[:, : len(until)], bootstrap_weights.sum(axis=1))


def survival_of(endpoint: Survival, bootstrap_weights: FloatArray, total: FloatArray) -> FloatArray:
    """:func:`bootstrap_survival` at a horizon from the cases followed up to it, by rising time, and the weight of all.

    Parameters
    ----------
    total
        The weight of all cases, those followed beyond the horizon too, in each draw; shape (draws,).
    """
    time, event = endpoint.observed_days, endpoint.event
    deaths = np.flatnonzero(endpoint.any_event)
    died_at = time[deaths]
    tied = np.flatnonzero(np.diff(died_at, prepend=-np.inf))  # the first death of each time
    first = np.searchsorted(time, died_at[tied])

    def at_times(weights: FloatArray) -> FloatArray:
        return weights if len(tied) == len(deaths) else np.add.reduceat(weights, tied, axis=1)

    found = np.empty(len(bootstrap_weights))
    for rows in in_parts(len(bootstrap_weights), len(time)):
        weight, survival = bootstrap_weights[rows], np.ones(len(bootstrap_weights[rows]))
        if len(deaths):
            at_risk = total[rows, None] - np.cumsum(weight, axis=1).take(first, axis=1) + weight.take(first, axis=1)
            died = at_times(weight.take(deaths, axis=1))
            at_risk[died == 0] = 1.0
            left = np.maximum(1.0 - died / at_risk, 0.0)
            if endpoint.competing is None:
                survival = np.prod(left, axis=1)
            else:
                survival = 1.0 - _incidence(at_times(weight.take(deaths, axis=1) * event[deaths]), at_risk, left)
        found[rows] = np.where(total[rows] > 0, survival, np.nan)
    return found


def _incidence(own: FloatArray, at_risk: FloatArray, left: FloatArray) -> FloatArray:
    """The event's, of what has it and is at risk at each time, and of the share that no event takes there."""
    before = np.cumprod(left[:, :-1], axis=1)
    rise = own / at_risk
    return np.asarray(rise[:, 0] + (before * rise[:, 1:]).sum(axis=1))


@dataclass(frozen=True)
class LogRank:
    """Outcome of the log-rank test: chi-squared statistic, degrees of freedom, p-value."""

    statistic: float
    df: int
    p: float


def log_rank(endpoint: Survival, group: IntArray) -> LogRank:
    """Test whether the groups share one survival curve (Mantel 1966; Peto & Peto 1972).

    Parameters
    ----------
    endpoint
        Competing events are censored at the time drawn for them.
    group
        Shape (cases,); any numbers.

    Raises
    ------
    StatisticsError
        When all cases are in one group, or no event tells the groups apart.
    """
    from scipy.special import chdtrc

    time, event, entry = endpoint.time_days, endpoint.event, endpoint.entry_days
    groups, member = np.unique(group, return_inverse=True)
    if len(groups) < 2:
        raise StatisticsError(f"log-rank test: all {len(time)} cases are in one group; two or more are compared")
    times, died, _, at_risk = _counts(time, event, entry)
    at = np.searchsorted(times, time)
    belongs = member == np.arange(len(groups))[:, None]
    died_in = np.array([np.bincount(at[b & event], minlength=len(times)) for b in belongs])
    at_risk_in = np.array([_at_risk(times, time[b], None if entry is None else entry[b]) for b in belongs])
    share = np.divide(at_risk_in, at_risk, out=np.zeros(at_risk_in.shape), where=at_risk > 0)
    observed_less_expected = (died_in - died * share).sum(axis=1)
    spread = died * np.divide(at_risk - died, at_risk - 1, out=np.zeros(len(times)), where=at_risk > 1)
    variance = np.diag((spread * share).sum(axis=1)) - (spread * share) @ share.T
    df = int(np.linalg.matrix_rank(variance))
    if df == 0:
        raise StatisticsError(f"log-rank test: none of {int(event.sum())} events tells the groups apart")
    statistic = float(observed_less_expected @ np.linalg.pinv(variance, hermitian=True) @ observed_less_expected)
    return LogRank(statistic, df, float(chdtrc(df, statistic)))


def median_follow_up(endpoint: Survival) -> float:
    """Median of follow-up by the reverse Kaplan-Meier estimate, events taken as censored (Schemper & Smith 1996).

    Competing events are events here. NaN where it is not reached.
    """
    curve = kaplan_meier(Survival(endpoint.observed_days, ~endpoint.any_event, entry_days=endpoint.entry_days))
    reached = np.flatnonzero(curve.survival <= 0.5)
    return float(curve.time_days[reached[0]]) if len(reached) else float("nan")


def _counts(
    time: FloatArray, event: BoolArray, entry: FloatArray | None = None
) -> tuple[FloatArray, IntArray, IntArray, IntArray]:
    """Distinct times, those of entry after 0 among them; at each, who died, was censored, was at risk."""
    if not len(time):
        raise StatisticsError("a survival curve needs at least one case; there is none")
    times = np.unique(time if entry is None else np.concatenate([time, entry[entry > 0]]))
    at = np.searchsorted(times, time)
    died = np.bincount(at[event], minlength=len(times))
    return times, died, np.bincount(at[~event], minlength=len(times)), _at_risk(times, time, entry)


def _at_risk(times: FloatArray, time: FloatArray, entry: FloatArray | None) -> IntArray:
    """How many cases are followed up to each time or beyond, and entered before."""
    at_risk = np.bincount(np.searchsorted(times, time), minlength=len(times))[::-1].cumsum()[::-1]
    if entry is not None:
        at_risk = at_risk - (len(entry) - np.searchsorted(np.sort(entry), times, side="left"))
    return np.asarray(at_risk, dtype=np.int64)
