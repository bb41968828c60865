"""Concordance of a risk with the order of events: Harrell's C and Uno's, with the pairs that they rest on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prognosis_dask.arrays import AnyArray, BoolArray, FloatArray, IntArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Survival

#: Cases whose pairs are held in memory at a time.
_BLOCK = 256
#: Rows in a block whose pairs are compared one distance after the other.
_SMALL = 32
#: Weights add up to less: sums of as many whole numbers, doubled, are exact in single precision.
_EXACT = 2.0**22


@dataclass(frozen=True)
class Concordance:
    """How often the higher risk met the earlier event.

    Attributes
    ----------
    comparable
        Pairs in which one is known to have had the event before the other.
    concordant, tied
        Of these, the pairs whose risks are in that order, and those whose risks are equal (they count half).
    """

    comparable: int
    concordant: int
    tied: int

    @property
    def c_index(self) -> float:
        """0.5 for a useless risk, 1 for a perfect one; NaN where no pair is comparable."""
        return (self.concordant + 0.5 * self.tied) / self.comparable if self.comparable else float("nan")


def concordance(endpoint: Survival, risk: FloatArray) -> Concordance:
    """Harrell's C (JAMA 247, 1982) of a risk, shape (cases,): higher is worse, 1 is best.

    Two events at the same time are not comparable; one censored at the time of an event outlived it (as in lifelines),
    and so did a case with a competing event. An event is compared with those that entered before it.
    """
    time, event = endpoint.outlived_days, endpoint.event
    if endpoint.entry_days is not None:
        return _of_entered(time, event, risk, endpoint.entry_days)
    order = np.lexsort((risk, ~event, time))  # of equal times events come first, by rising risk
    time, event, risk = time[order], event[order], risk[order]
    _, rank = np.unique(risk, return_inverse=True)
    rows = np.flatnonzero(event)
    comparable = int((len(time) - _whom_next(time, event)).sum())
    concordant, tied = _pairs_after(rank.astype(np.int64), event)
    if tied:
        place = np.searchsorted(time, time[rows])
        _, alike = np.unique(place * len(time) + rank[rows], return_counts=True)
        tied -= int((alike * (alike - 1) // 2).sum())  # two events at one time
    return Concordance(comparable, concordant, tied)


def _of_entered(time: FloatArray, event: BoolArray, risk: FloatArray, entry: FloatArray) -> Concordance:
    comparable = concordant = tied = 0
    rows = np.flatnonzero(event)
    for start in range(0, len(rows), _BLOCK):
        at = rows[start : start + _BLOCK, None]
        outlived = ((time > time[at]) | ((time == time[at]) & ~event)) & (entry < time[at])
        comparable += int(outlived.sum())
        concordant += int((outlived & (risk < risk[at])).sum())
        tied += int((outlived & (risk == risk[at])).sum())
    return Concordance(comparable, concordant, tied)


def _whom_next(time: FloatArray, event: BoolArray) -> IntArray:
    """Of each event, in rows by time and events before censored ones: the first row that it is known to precede."""
    at = time[event]
    later = np.searchsorted(at, at, side="right") + np.searchsorted(time[~event], at, side="left")
    return np.asarray(later, dtype=np.int64)


def _pairs_after(rank: IntArray, counts: BoolArray) -> tuple[int, int]:
    """Pairs of a row that counts and one after it whose rank is lower, and whose rank is the same.

    Within small blocks row by row; then by halves of ever larger blocks, as a merge sort meets each pair once.
    """
    lower = equal = 0
    place, span, half = np.arange(len(rank)), int(rank.max(initial=0)) + 1, _SMALL
    for apart in range(1, min(_SMALL, len(rank))):
        pair = counts[:-apart] & (place[:-apart] % _SMALL < _SMALL - apart)
        lower += int(np.count_nonzero(pair & (rank[apart:] < rank[:-apart])))
        equal += int(np.count_nonzero(pair & (rank[apart:] == rank[:-apart])))
    while half < len(rank):
        key, left = place // (2 * half) * span + rank, place // half % 2 == 0
        after = np.sort(key[~left])
        before = np.sort(key[left & counts])
        below = np.searchsorted(after, before, side="left")
        lower += int((below - np.searchsorted(after, before - before % span, side="left")).sum())
        if span < len(rank):
            equal += int((np.searchsorted(after, before, side="right") - below).sum())
        half *= 2
    return lower, equal


def uno_c(endpoint: Survival, risk: FloatArray, uncensored: FloatArray, tau: float = np.inf) -> float:
    """Uno's C (Stat Med 30, 2011): each pair counts by the inverse square of the chance to have been seen.

    So the value does not depend on how the cases were censored, as Harrell's does.

    Parameters
    ----------
    risk
        Shape (cases,).
    uncensored
        Probability of being uncensored at each case's time, shape (cases,): see
        :func:`prognosis_dask.modelling.metrics.brier.Censoring`.
    tau
        Events from this time on do not count: beyond it hardly anybody is followed.

    Raises
    ------
    StatisticsError
        When no pair is comparable.
    """
    before_tau, once = endpoint.observed_days < tau, np.ones((1, len(risk)))
    if endpoint.competing is not None:
        value = float(competing_uno(endpoint, risk, uncensored, before_tau, once)[0])
    else:
        weight = uno_weight(endpoint.event, uncensored, before_tau)
        value = float(bootstrap_concordance(endpoint, risk, once, weight)[0])
    if np.isnan(value):
        events = int(endpoint.event.sum())
        raise StatisticsError(f"Uno's C: no pair among {len(risk)} cases with {events} events is comparable")
    return value


def uno_weight(event: BoolArray, uncensored: FloatArray, before_tau: BoolArray) -> FloatArray:
    """What the pairs of each earlier case count in Uno's C; 0 for the cases that are nobody's predecessor."""
    counts = event & before_tau & (uncensored > 0)
    return np.divide(1.0, uncensored**2, out=np.zeros(len(event)), where=counts)


def competing_uno(
    endpoint: Survival,
    risk: FloatArray,
    uncensored: FloatArray,
    before_tau: BoolArray,
    bootstrap_weights: FloatArray,
) -> FloatArray:
    """Uno's C where events compete, for many weightings of the cases (Wolbers et al., Biostatistics 15, 2014).

    A case with a competing event outlives every event; an event after it was seen as often as both were.

    Parameters
    ----------
    endpoint
        Where events compete.
    risk
        Shape (cases,).
    uncensored, before_tau
        As for :func:`uno_weight`.
    bootstrap_weights
        How often each case counts, shape (draws, cases).

    Returns
    -------
    FloatArray
        Shape (draws,); NaN where no pair is comparable.
    """
    time, event, competing = endpoint.observed_days, endpoint.event, endpoint.competing
    assert competing is not None
    rows = np.flatnonzero(event & before_tau & (uncensored > 0))
    agreed, comparable = np.zeros((2, len(bootstrap_weights)))
    for start in range(0, len(rows), _BLOCK):
        at = rows[start : start + _BLOCK, None]
        later = (time > time[at]) | ((time == time[at]) & ~event)
        seen = uncensored[at] * np.where(later, uncensored[at], uncensored)
        pairs = np.divide(1.0, seen, out=np.zeros(later.shape), where=later | competing)
        order = 0.5 * (np.less(risk, risk[at]) + np.less_equal(risk, risk[at]).astype(np.float64))
        earlier = bootstrap_weights[:, at[:, 0]]
        agreed += np.einsum("dn,dn->d", earlier, bootstrap_weights @ (pairs * order).T)
        comparable += np.einsum("dn,dn->d", earlier, bootstrap_weights @ pairs.T)
    return np.divide(agreed, comparable, out=np.full(len(agreed), np.nan), where=comparable > 0)


def bootstrap_concordance(
    endpoint: Survival, risk: FloatArray, bootstrap_weights: FloatArray, weight: FloatArray | None = None
) -> FloatArray:
    """Harrell's C, or Uno's, for many weightings of the cases: one of :func:`bootstrap_concordances`."""
    return bootstrap_concordances(endpoint, risk, bootstrap_weights, (weight,))[0]


def bootstrap_concordances(
    endpoint: Survival, risk: FloatArray, bootstrap_weights: FloatArray, weights: Sequence[FloatArray | None]
) -> list[FloatArray]:
    """Harrell's C and Uno's for many weightings of the cases; both rest on the same sums over pairs.

    Parameters
    ----------
    risk
        Shape (cases,).
    bootstrap_weights
        How often each case counts, shape (draws, cases).
    weights
        For each figure what the pairs of each earlier case count, shape (cases,): :func:`uno_weight`; None for
        Harrell's C.

    Returns
    -------
    list of FloatArray
        For each figure shape (draws,); NaN where no pair is comparable.
    """
    # whom a case with the event precedes, is what comes after its ties
    order = np.lexsort((~endpoint.event, endpoint.outlived_days))
    endpoint, risk, bootstrap_weights = endpoint.rows(order), risk[order], bootstrap_weights[:, order]
    time, event, entry = endpoint.outlived_days, endpoint.event, endpoint.entry_days
    counts = [np.ones(len(time)) if weight is None else weight[order] for weight in weights]
    rows = np.flatnonzero(event)
    first = _whom_next(time, event)
    whole = (
        bool((bootstrap_weights == np.rint(bootstrap_weights)).all())
        and float(bootstrap_weights.sum(axis=1).max(initial=0.0)) < _EXACT
    )
    held: AnyArray = (
        bootstrap_weights.astype(np.float32) if whole else bootstrap_weights
    )  # sums of whole numbers and halves are exact in either
    later = np.concatenate(
        [np.cumsum(bootstrap_weights[:, ::-1], axis=1)[:, ::-1], np.zeros((len(bootstrap_weights), 1))], axis=1
    )
    agreed, comparable = np.zeros((2, len(counts), len(bootstrap_weights)))
    for start in range(0, len(rows), _BLOCK):
        at, after = rows[start : start + _BLOCK], first[start : start + _BLOCK]
        since = int(after[0])
        higher = np.less(risk[since:], risk[at, None]).astype(np.int8) + np.less_equal(risk[since:], risk[at, None])
        higher[np.arange(since, len(time)) < after[:, None]] = 0
        outlived = later[:, after]
        if entry is not None:
            late = (entry[since:] >= time[at, None]) & (np.arange(since, len(time)) >= after[:, None])
            higher[late] = 0
            outlived = outlived - bootstrap_weights[:, since:] @ late.T
        won = 0.5 * np.asarray(held[:, since:] @ higher.T.astype(held.dtype), dtype=np.float64)
        for i, count in enumerate(counts):
            earlier = bootstrap_weights[:, at] * count[at]
            agreed[i] += np.einsum("dn,dn->d", earlier, won)
            comparable[i] += np.einsum("dn,dn->d", earlier, outlived)
    nothing = np.full(len(bootstrap_weights), np.nan)
    return [np.divide(a, c, out=nothing.copy(), where=c > 0) for a, c in zip(agreed, comparable, strict=True)]
