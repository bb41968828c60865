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
from prognosis_dask.modelling.data.endpoint import RiskSets, Survival, risk_sets
from prognosis_dask.modelling.metrics.brier import Censoring, inverse
from prognosis_dask.modelling.metrics.intervals import Z95
from prognosis_dask.modelling.metrics.kaplan_meier import kaplan_meier, uncensored
from prognosis_dask.modelling.table_spec import Row

CENSORED, EVENT, COMPETING = 0, 1, 2
_STEPS, _SETTLED = 50, 1e-10


def subdistribution(time_days: FloatArray, cause: IntArray, seed: int = 0) -> Survival:
    """The endpoint whose survival is freedom from the event when others compete (Fine & Gray, JASA 94, 1999).

    A case with a competing event stays at risk, for it never has the event, until it would have been censored. That
    time is drawn once from how the others were censored from its own on (Ruan & Gray, Stat Med 27, 2008), at most the
    longest follow-up. Kaplan-Meier's estimate of the endpoint then estimates one less the cumulative incidence, and
    Cox's model is Fine and Gray's: what takes no weights by time is fitted on it. Measures of predictions weight the
    observed times in its place (:class:`CompetingEvents`).

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


@dataclass(frozen=True, eq=False)
class CompetingEvents:
    """Who stays at risk after a competing event, weighted by the chance not to be censored yet (Fine & Gray 1999).

    Attributes
    ----------
    cases
        Whether a case had a competing event at its time, shape (cases,).
    censoring
        That of the cohort.
    """

    cases: BoolArray
    censoring: Censoring

    def rows(self, chosen: IntArray) -> CompetingEvents:
        """Of the chosen cases."""
        return CompetingEvents(self.cases[chosen], self.censoring)

    def risk_sets(self, time: FloatArray, at: FloatArray) -> RiskSets:
        """Who is at risk at each of some ascending times, in whole until the own time, in part from it on."""
        from scipy.sparse import csr_array, diags_array, hstack, vstack

        whole = risk_sets(np.full(len(time), -np.inf), time, at)
        part = risk_sets(time, np.where(self.cases, np.inf, time), at)
        gone = part.cases @ diags_array(inverse(self.censoring.seen(time), self.cases))
        still = diags_array(self.censoring.seen(at)) @ part.events
        return RiskSets(csr_array(vstack([whole.cases, gone])), csr_array(hstack([whole.events, still])))


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


def aalen_johansen(time_days: FloatArray, cause: IntArray, of: int = EVENT) -> Incidence:
    """Cumulative incidence of a cause (Aalen & Johansen, Scand J Statist 5, 1978).

    The variance is that of the delta method (Marubini & Valsecchi 1995, equation 10.12).

    Raises
    ------
    StatisticsError
        When there is no case.
    """
    if not len(time_days):
        raise StatisticsError("a cumulative incidence needs at least one case; there is none")
    times, at = np.unique(time_days, return_inverse=True)
    own, all_causes = (np.bincount(at[which], minlength=len(times)) for which in (cause == of, cause != CENSORED))
    at_risk = np.bincount(at, minlength=len(times))[::-1].cumsum()[::-1]
    after = np.cumprod(1 - all_causes / at_risk)
    before = np.append(1.0, after[:-1])
    found = np.cumsum(before * own / at_risk)
    error = np.sqrt(np.maximum(_variance(found, before, own, all_causes, at_risk), 0.0))
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


def fine_gray(X: FloatArray, time_days: FloatArray, cause: IntArray, penalty: float = 0.0) -> FloatArray:
    """Log subdistribution hazard ratios (Fine & Gray, JASA 94, 1999), ties as Breslow has them, shape (columns,).

    Cases with a competing event stay at risk with the weight of those who are not yet censored.

    Parameters
    ----------
    X
        Shape (cases, columns).
    time_days, cause
        Shape (cases,).
    penalty
        Squared, per case, as Cox's model has it.

    Raises
    ------
    StatisticsError
        When there is no event, or no maximum.
    """
    times, died = np.unique(time_days[cause == EVENT], return_counts=True)
    if not len(times):
        raise StatisticsError(f"Fine and Gray's model of {len(X)} cases: none has the event")
    steps, probability = uncensored(time_days, cause != CENSORED)

    def before(at: FloatArray) -> FloatArray:
        return np.asarray(probability[np.searchsorted(steps, at, side="left") - 1])

    weight = (time_days[:, None] >= times).astype(float)
    gone = (cause == COMPETING)[:, None] & (time_days[:, None] < times)
    weight[gone] = (before(times) / before(time_days)[:, None])[gone]
    seen = X[cause == EVENT].sum(axis=0)
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
    for days in horizons:
        until = time <= days
        if competes:
            incidence = aalen_johansen(time, cause)
            at = int(np.searchsorted(incidence.time_days, days, side="right")) - 1
            survival = [1 - float(values[at]) for values in (incidence.incidence, incidence.upper, incidence.lower)]
        else:
            curve = kaplan_meier(time, endpoint.event, patient_ids, endpoint.entry_days)
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
    time, cause = causes(endpoint)
    rows: list[Row] = []
    for name, of in (("event", EVENT), ("competing", COMPETING)):
        found = aalen_johansen(time, cause, of)
        columns = (found.time_days, found.incidence, found.lower, found.upper)
        for values in zip(*(column.tolist() for column in columns), strict=True):
            rows.append({"cause": name, **dict(zip(("time_days", "incidence", "lower", "upper"), values, strict=True))})
    return rows
