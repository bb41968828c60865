"""Competing risks: cumulative incidence, Fine and Gray's model, and an endpoint that all models can take.

A case's cause is 1 where its follow-up ended with the event, 2 where an event came first after which the event cannot
be seen, and 0 where it was censored. Kaplan-Meier's estimate with competing events as censored says how often the event
would be seen if nothing competed, which nobody observes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prognosis_dask.arrays import BoolArray, FloatArray, IntArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import RiskSets, Survival, patient_sums, risk_sets, several_cases
from prognosis_dask.modelling.metrics.brier import Censoring, fit_censoring, inverse
from prognosis_dask.modelling.metrics.intervals import Z95
from prognosis_dask.modelling.metrics.kaplan_meier import KaplanMeier, LogRank, kaplan_meier, uncensored
from prognosis_dask.modelling.table_spec import Row

CENSORED, EVENT, COMPETING = 0, 1, 2
_STEPS, _SETTLED = 50, 1e-10


def subdistribution(time_days: FloatArray, cause: IntArray, seed: int = 0) -> Survival:
    """The endpoint whose survival is freedom from the event when others compete (Fine & Gray, JASA 94, 1999).

    A case with a competing event stays at risk, for it never has the event, until it would have been censored. That
    time is drawn once from how the others were censored from its own on (Ruan & Gray, Stat Med 27, 2008), at most the
    longest follow-up. Kaplan-Meier's estimate of the endpoint then estimates one less the cumulative incidence, and
    Cox's model is Fine and Gray's: what takes no weights by time is fitted on it (trees, accelerated failure time,
    support vector machines). All else weights the observed times in its place (:func:`partial_risk_sets`).

    Parameters
    ----------
    time_days, cause
        Shape (cases,).
    seed
        Of the draws.
    """
    competing = cause == COMPETING
    times, probability = uncensored(time_days, cause != CENSORED)
    # of a tie the event comes first, as in fine_gray's weights
    at = np.maximum(np.searchsorted(times, time_days[competing], side="left") - 1, 0)
    level = np.random.default_rng(seed).random(len(at)) * probability[at]
    drawn = np.searchsorted(-probability, -level, side="left")  # the first time at which so few are left
    longest = float(time_days.max(initial=0.0))
    until = np.where(drawn < len(times), times[np.minimum(drawn, len(times) - 1)], longest)
    time, known = time_days.copy(), np.full(len(time_days), np.nan)
    known[competing] = time_days[competing]
    time[competing] = np.maximum(until, time_days[competing])
    return Survival(time, cause == EVENT, known)


def causes(endpoint: Survival) -> tuple[FloatArray, IntArray]:
    """Observed times and causes of an endpoint, whether or not anything competes."""
    cause = endpoint.event.astype(np.int64)
    if endpoint.competing is not None:
        cause[endpoint.competing] = COMPETING
    return endpoint.observed_days, cause


def partial_risk_sets(endpoint: Survival, at: FloatArray, censoring: Censoring | None = None) -> RiskSets | None:
    """Who is at risk at each of some ascending times; None where each case is from 0 on until its time.

    Where events compete, a case is in whole until its time. After a competing event it stays in part, weighted by the
    chance not to be censored yet (Fine & Gray 1999).

    Parameters
    ----------
    censoring
        That of the cohort, where events compete; None: of these cases.
    """
    time, competing = endpoint.observed_days, endpoint.competing
    if competing is None:
        return None if endpoint.entry_days is None else risk_sets(endpoint.entry_days, time, at)
    from scipy.sparse import csr_array, diags_array, hstack, vstack

    seen = (censoring or fit_censoring(endpoint)).seen
    whole = risk_sets(np.full(len(time), -np.inf), time, at)
    part = risk_sets(time, np.where(competing, np.inf, time), at)
    gone = part.cases @ diags_array(inverse(seen(time), competing))
    still = diags_array(seen(at)) @ part.events
    return RiskSets(csr_array(vstack([whole.cases, gone])), csr_array(hstack([whole.events, still])))


def risk_sums(endpoint: Survival, values: FloatArray, at: FloatArray) -> FloatArray:
    """Of the cases' values, shape (cases, ...): their sum over who is at risk at each of some ascending times."""
    sets = partial_risk_sets(endpoint, at)
    if sets is not None:
        return sets.at_events(values)
    order = endpoint.by_time()
    return np.asarray(np.cumsum(values[order][::-1], axis=0)[::-1][np.searchsorted(endpoint.observed_days[order], at)])


@dataclass(frozen=True)
class Incidence:
    """The cumulative incidence of one cause.

    Attributes
    ----------
    time_days
        0, then the distinct times, ascending.
    incidence, lower, upper
        From that time on, with a pointwise 95 % interval (log(-log)).
    error
        Standard error.
    """

    time_days: FloatArray
    incidence: FloatArray
    lower: FloatArray
    upper: FloatArray
    error: FloatArray


def aalen_johansen(endpoint: Survival, of: int = EVENT, patient_ids: Sequence[str] = ()) -> Incidence:
    """Cumulative incidence of a cause (Aalen & Johansen, Scand J Statist 5, 1978).

    The variance is that of the delta method (Marubini & Valsecchi 1995, equation 10.12); where patients have several
    cases, that over patients: what each adds to the curve (the infinitesimal jackknife) is summed within patients.

    Raises
    ------
    StatisticsError
        When there is no case.
    """
    time, cause = causes(endpoint)
    if not len(time):
        raise StatisticsError("a cumulative incidence needs at least one case; there is none")
    times, at = np.unique(time, return_inverse=True)
    own, all_causes = (np.bincount(at[which], minlength=len(times)) for which in (cause == of, cause != CENSORED))
    at_risk = np.bincount(at, minlength=len(times))[::-1].cumsum()[::-1]
    after = np.cumprod(1 - all_causes / at_risk)
    before = np.append(1.0, after[:-1])
    found = np.cumsum(before * own / at_risk)
    if several_cases(patient_ids):
        influence = _influence(at, cause, of, before, found, all_causes, at_risk)
        variance = (patient_sums(influence, patient_ids) ** 2).sum(axis=0)
    else:
        variance = _variance(found, before, own, all_causes, at_risk)
    error = np.sqrt(np.maximum(variance, 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        width = Z95 * error / np.abs(found * np.log(found))
        lower, upper = found ** np.exp(width), found ** np.exp(-width)
    certain = ~np.isfinite(lower) | ~np.isfinite(upper)
    return Incidence(
        np.append(0.0, times),
        np.append(0.0, found),
        np.append(0.0, np.where(certain, found, lower)),
        np.append(0.0, np.where(certain, found, upper)),
        np.append(0.0, error),
    )


def _variance(found: FloatArray, before: FloatArray, own: IntArray, every: IntArray, at_risk: IntArray) -> FloatArray:
    """Of the incidence at each distinct time: sums over the times up to it of squares of a difference, expanded."""
    left = at_risk - every
    fall = np.divide(every, at_risk * left, out=np.zeros(len(found)), where=left > 0)
    rise = before**2 * own * (at_risk - own) / at_risk**3
    both = before * own / at_risk**2
    squares = found**2 * np.cumsum(fall) - 2 * found * np.cumsum(found * fall) + np.cumsum(found**2 * fall)
    return np.asarray(squares + np.cumsum(rise) - 2 * (found * np.cumsum(both) - np.cumsum(found * both)))


def _influence(
    at: IntArray,
    cause: IntArray,
    of: int,
    before: FloatArray,
    found: FloatArray,
    every: IntArray,
    at_risk: IntArray,
) -> FloatArray:
    """What each case adds to the incidence at each distinct time, shape (cases, times): its derivative by weight.

    A case adds to the rise at its own event, less its share of each rise while it was at risk; and by what it does to
    the survival of all, to each later rise.
    """
    followed = at[:, None] >= np.arange(len(found))
    here = at[:, None] == np.arange(len(found))
    rise = np.diff(found, prepend=0.0)
    own = (here & (cause == of)[:, None]) * (before / at_risk) - followed * (rise / at_risk)
    left = at_risk - every
    some = np.divide(1.0, left, out=np.zeros(len(found)), where=left > 0)
    fall = np.cumsum((here & (cause != CENSORED)[:, None]) * some - followed * (every / at_risk * some), axis=1)
    fall = np.concatenate([np.zeros((len(at), 1)), fall[:, :-1]], axis=1)
    return np.asarray(np.cumsum(own - rise * fall, axis=1))


def freedom(endpoint: Survival, patient_ids: Sequence[str] = ()) -> KaplanMeier:
    """The curve of freedom from the event: Kaplan-Meier's; where events compete, one less Aalen and Johansen's.

    At risk is who was still followed, without an event of any kind.
    """
    if endpoint.competing is None:
        return kaplan_meier(endpoint, patient_ids)
    found = aalen_johansen(endpoint, EVENT, patient_ids)
    at_risk = len(endpoint) - np.searchsorted(np.sort(endpoint.observed_days), found.time_days, side="left")
    return KaplanMeier(found.time_days, 1 - found.incidence, 1 - found.upper, 1 - found.lower, at_risk)


def gray_test(endpoint: Survival, high: BoolArray) -> LogRank:
    """Test whether two groups share one cumulative incidence of the event (Gray, Ann Statist 16, 1988; rho = 0).

    As :func:`log_rank` with those at risk who had a competing event, each group's by its own censoring.

    Parameters
    ----------
    high
        Which group, shape (cases,).

    Raises
    ------
    StatisticsError
        When all cases are in one group, or no event tells the groups apart.
    """
    from scipy.special import chdtrc

    if high.all() or not high.any():
        raise StatisticsError(f"Gray's test: all {len(high)} cases are in one group; two are compared")
    times = np.unique(endpoint.observed_days[endpoint.any_event])
    first, other = (_Group.of(*causes(endpoint.rows(member)), times) for member in (high, ~high))
    died, whole = first.died + other.died, first.size + other.size
    still = first.size * (1 - first.incidence) + other.size * (1 - other.incidence)
    score = (first.died - died * first.size * (1 - first.incidence) / np.where(still > 0, still, 1.0)).sum()
    step = np.divide(died, whole, out=np.zeros(len(times)), where=whole > 0)
    free = 1 - np.cumsum(step)
    both = np.divide(first.size * other.size, whole, out=np.zeros(len(times)), where=whole > 0)
    drift = np.cumsum(both * step / (free + step))
    variance = sum(group.variance(both, drift, died, whole, free) for group in (first, other))
    if not variance > 0:
        raise StatisticsError(f"Gray's test: none of {int(endpoint.event.sum())} events tells the groups apart")
    statistic = float(score**2 / variance)
    return LogRank(statistic, 1, float(chdtrc(1, statistic)))


@dataclass(frozen=True)
class _Group:
    """Of one group at each time of any event: counts, and curves until just before it.

    ``size`` is who was at risk over the survival of all causes: who would be there but for competing events and the
    event, up to censoring.
    """

    at_risk: IntArray
    died: IntArray
    gone: IntArray
    before: FloatArray
    after: FloatArray
    incidence: FloatArray
    size: FloatArray

    @classmethod
    def of(cls, time_days: FloatArray, cause: IntArray, times: FloatArray) -> _Group:
        at_risk = len(time_days) - np.searchsorted(np.sort(time_days), times, side="left")
        died, gone = (
            np.bincount(np.searchsorted(times, time_days[cause == of]), minlength=len(times))
            for of in (EVENT, COMPETING)
        )
        known = np.maximum(at_risk, 1)
        after = np.cumprod(1 - (died + gone) / known)
        before = np.append(1.0, after[:-1])
        incidence = np.append(0.0, np.cumsum(before * died / known)[:-1])
        size = np.divide(at_risk, before, out=np.zeros(len(times)), where=at_risk > 0)
        return cls(at_risk, died, gone, before, after, incidence, size)

    def variance(
        self, both: FloatArray, drift: FloatArray, died: IntArray, whole: FloatArray, free: FloatArray
    ) -> float:
        """What the group's events add to the variance of the score: the sum of squares of its martingales' weights."""
        there = self.at_risk > 0
        rest = np.divide(free, self.after, out=np.zeros(len(free)), where=self.after > 0)
        final = drift[-1]
        tied = np.divide(died - 1, whole * self.before - 1, out=np.zeros(len(free)), where=(died > 1) & there)
        rise = np.divide(
            (1 - tied) * self.before * died, whole * self.at_risk, out=np.zeros(len(free)), where=there & (whole > 0)
        )
        weight = both + (1 - rest) * (final - drift)
        tied = np.divide(self.gone - 1, self.at_risk - 1, out=np.zeros(len(free)), where=self.gone > 1)
        fall = np.divide((1 - tied) * self.before**2 * self.gone, self.at_risk**2, out=np.zeros(len(free)), where=there)
        return float((weight**2 * rise).sum() + ((rest * (final - drift)) ** 2 * fall).sum())


def fine_gray(X: FloatArray, endpoint: Survival, penalty: float = 0.0) -> FloatArray:
    """Log subdistribution hazard ratios (Fine & Gray, JASA 94, 1999), ties as Breslow has them, shape (columns,).

    Cases with a competing event stay at risk with the weight of those who are not yet censored.

    Parameters
    ----------
    X
        Shape (cases, columns).
    penalty
        Squared, per case, as Cox's model has it.

    Raises
    ------
    StatisticsError
        When there is no event, or no maximum.
    """
    time, event = endpoint.observed_days, endpoint.event
    times, died = np.unique(time[event], return_counts=True)
    if not len(times):
        raise StatisticsError(f"Fine and Gray's model of {len(X)} cases: none has the event")
    steps, probability = uncensored(time, endpoint.any_event)

    def before(at: FloatArray) -> FloatArray:
        return np.asarray(probability[np.searchsorted(steps, at, side="left") - 1])

    weight = (time[:, None] >= times).astype(float)
    if endpoint.competing is not None:
        gone = endpoint.competing[:, None] & (time[:, None] < times)
        weight[gone] = (before(times) / before(time)[:, None])[gone]
    seen = X[event].sum(axis=0)
    coefficient = np.zeros(X.shape[1])
    for _ in range(_STEPS):
        hazard = np.exp(X @ coefficient)[:, None] * weight
        total = hazard.sum(axis=0)
        mean = hazard.T @ X / total[:, None]
        gradient = seen - died @ mean - penalty * len(X) * coefficient
        expected = hazard @ (died / total)
        information = X.T @ (expected[:, None] * X) - mean.T @ (died[:, None] * mean)
        information.flat[:: len(information) + 1] += penalty * len(X)
        try:
            step = np.linalg.solve(information, gradient)
        except np.linalg.LinAlgError:
            break
        coefficient = coefficient + step
        if float(gradient @ step) < _SETTLED:
            return coefficient
    raise StatisticsError(f"Fine and Gray's model of {X.shape[1]} columns did not converge; raise the penalty")


def follow_up_rows(endpoint: Survival, patient_ids: Sequence[str], horizons: Sequence[float]) -> list[Row]:
    """The rows of ``follow_up``: who had an event, was censored, was followed beyond each horizon; survival there.

    Survival is Kaplan-Meier's; where events compete, one less the event's cumulative incidence.
    """
    time, cause = causes(endpoint)
    competes = endpoint.competing_days is not None
    entry = np.zeros(len(time)) if endpoint.entry_days is None else endpoint.entry_days
    rows: list[Row] = []
    curve = freedom(endpoint, patient_ids)
    for days in horizons:
        until = time <= days
        at = int(np.searchsorted(curve.time_days, days, side="right")) - 1
        survival = [float(values[at]) for values in (curve.survival, curve.lower, curve.upper)]
        rows.append(
            {
                "horizon_days": float(days),
                "events": int((until & (cause == EVENT)).sum()),
                **({"competing": int((until & (cause == COMPETING)).sum())} if competes else {}),
                "censored": int((until & (cause == CENSORED)).sum()),
                "beyond": int((~until & (entry <= days)).sum()),
                **dict(zip(("survival", "lower", "upper"), survival, strict=True)),
            }
        )
    return rows


def incidence_rows(endpoint: Survival) -> list[Row]:
    """The rows of ``incidence``: the cumulative incidences of the event and of competing ones, if any compete."""
    if endpoint.competing_days is None:
        return []
    rows: list[Row] = []
    for name, of in (("event", EVENT), ("competing", COMPETING)):
        found = aalen_johansen(endpoint, of)
        columns = (found.time_days, found.incidence, found.lower, found.upper)
        for values in zip(*(column.tolist() for column in columns), strict=True):
            rows.append({"cause": name, **dict(zip(("time_days", "incidence", "lower", "upper"), values, strict=True))})
    return rows
