"""Cox's partial likelihood, Efron's treatment of ties, and its maximum.

One evaluation is a few matrix products, which makes refitting in every fold cheap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from prognosis_dask.arrays import BoolArray, FloatArray, IntArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Endpoint, Survival, risk_sets
from prognosis_dask.modelling.estimators.determined import expect_determined

#: Newton's decrement at which the fit ends; one more step would change the log-likelihood by less than this.
_SETTLED = 1e-10
#: Log hazards further apart than this leave the range of exponentials.
_WIDEST = 600.0


def score_likelihood(endpoint: Survival) -> Callable[[FloatArray], float]:
    """From scores (log hazards) of the cases, shape (cases,), to their log partial likelihood; Efron's ties.

    Zero where no case has the event; minus infinity where the scores lie too far apart to be computed with.
    """
    if not endpoint.event.any():
        return lambda score: 0.0
    order = np.argsort(endpoint.time_days, kind="stable")
    likelihood = likelihood_of(np.zeros((len(order), 0)), endpoint)
    return lambda score: likelihood.of_score(score[order])


def likelihood_of(Z: FloatArray, endpoint: Endpoint, penalizer: float = 0.0) -> PartialLikelihood:
    """The partial likelihood of cases in any order; its rows are theirs, stably sorted by time."""
    assert isinstance(endpoint, Survival)
    order = np.argsort(endpoint.time_days, kind="stable")
    ordered = endpoint.rows(order)
    return PartialLikelihood(Z[order], ordered.time_days, ordered.event, penalizer, ordered.entry_days)


class _Hazards(NamedTuple):
    """Of some coefficients: the log partial likelihood, relative hazards, and their sums over the events' risk sets."""

    likelihood: float
    hazard: FloatArray
    total: FloatArray


class PartialLikelihood:
    """Efron's log partial likelihood with ridge penalty ``rows * penalizer / 2 * |b|²``; rows are sorted by time.

    For the l-th of the m events of one time (l = 0..m-1), the risk set's sum counts the m tied events with weight
    1 - l/m (Efron, JASA 72, 1977). With times of entry, risk sets hold the cases that entered before.
    """

    def __init__(
        self, Z: FloatArray, time: FloatArray, event: BoolArray, penalizer: float, entry: FloatArray | None = None
    ) -> None:
        self.Z, self.deaths, self.penalty = Z, np.flatnonzero(event), penalizer * len(Z)
        death_times = time[self.deaths]
        self.start = np.searchsorted(time, death_times)
        _, first, self.group, size = np.unique(death_times, return_index=True, return_inverse=True, return_counts=True)
        self.share = (np.arange(len(self.deaths)) - first[self.group]) / size[self.group]
        # the events beyond the first of a time: only there do ties change a sum
        self.late, several = np.flatnonzero(self.share), np.flatnonzero(size > 1)
        self.late_group = np.searchsorted(several, self.group[self.late])
        self.tied = self.deaths[size[self.group] > 1]
        self.first = np.cumsum(size[several]) - size[several]
        self.sets = None if entry is None else risk_sets(entry, time, death_times)

    def value(self, coefficient: FloatArray) -> float:
        """The penalised log partial likelihood; minus infinity where it cannot be computed."""
        return self.penalised(self.of_score(self.Z @ coefficient), coefficient)

    def penalised(self, likelihood: float, coefficient: FloatArray) -> float:
        """A log partial likelihood less the penalty."""
        return likelihood - 0.5 * self.penalty * float(coefficient @ coefficient)

    def of_score(self, score: FloatArray) -> float:
        """The log partial likelihood of log hazards, shape (rows,); minus infinity where it cannot be computed."""
        if not np.ptp(score) <= _WIDEST:
            return -np.inf
        score = score - score.max()
        return self._of_sums(score, self._risk_sum(np.exp(score)))

    def _of_sums(self, score: FloatArray, total: FloatArray) -> float:
        return float(score[self.deaths].sum() - np.log(total).sum())

    def at(self, coefficient: FloatArray) -> _Hazards:
        """What value, gradient and information are made of."""
        score = self.Z @ coefficient
        held = bool(np.ptp(score) <= _WIDEST)
        score -= score.max()
        hazard = np.exp(score)
        total = self._risk_sum(hazard)
        return _Hazards(self._of_sums(score, total) if held else -np.inf, hazard, total)

    def derivatives(self, coefficient: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Gradient, and information (the negative Hessian)."""
        return self.derivatives_at(self.at(coefficient), coefficient)

    def derivatives_at(self, at: _Hazards, coefficient: FloatArray) -> tuple[FloatArray, FloatArray]:
        """:meth:`derivatives`, where the hazards are those of the coefficients."""
        expected = self.expected(at)
        return self.gradient(expected, coefficient), self.information(at, expected, self.Z)

    def expected(self, at: _Hazards) -> FloatArray:
        """How many events are expected of each row, shape (rows,)."""
        return at.hazard * self._entered(at.total)

    def gradient(self, expected: FloatArray, coefficient: FloatArray) -> FloatArray:
        """Gradient of all columns, where the expected events are those of the coefficients."""
        left = -expected
        left[self.deaths] += 1.0
        return np.asarray(self.Z.T @ left - self.penalty * coefficient)

    def information(self, at: _Hazards, expected: FloatArray, Z: FloatArray) -> FloatArray:
        """Of some columns, shape (columns, columns): nothing is held that is features x features for all of them."""
        average = self._risk_sum(at.hazard[:, None] * Z) / at.total[:, None]
        information: FloatArray = Z.T @ (expected[:, None] * Z) - average.T @ average
        information.flat[:: len(information) + 1] += self.penalty
        return information

    def _entered(self, total: FloatArray) -> FloatArray:
        """How often each row enters the sums: at all events up to its time, an event less its share among its ties."""
        entered = self._at_risk_at(1.0 / total)
        entered[self.deaths] -= np.bincount(self.group, self.share / total)[self.group]
        return np.asarray(entered)

    def _at_risk_at(self, values: FloatArray) -> FloatArray:
        """Sum of the events' ``values`` over those that each row was at risk at, shape (rows, ...)."""
        if self.sets is not None:
            return self.sets.of_cases(values)
        if values.ndim == 1:
            return np.asarray(np.cumsum(np.bincount(self.start, values, minlength=len(self.Z))))
        sums = np.zeros((len(self.Z), *values.shape[1:]))
        np.add.at(sums, self.start, values)
        return np.asarray(np.cumsum(sums, axis=0))

    def residuals(self, coefficient: FloatArray) -> FloatArray:
        """What each row adds to the gradient without its penalty, shape (rows, columns).

        An event adds its distance from the mean of its time's risk sets; every row loses what was expected of it at
        each event that it was at risk for (as ``residuals(coxph, type = "score")`` of R's survival, Efron's ties).
        """
        at = self.at(coefficient)
        average = self._risk_sum(at.hazard[:, None] * self.Z) / at.total[:, None]
        rate = 1.0 / at.total
        meant = self._at_risk_at(rate[:, None] * average)
        size = np.bincount(self.group)
        shares = np.zeros((len(size), self.Z.shape[1]))
        np.add.at(shares, self.group, (self.share * rate)[:, None] * average)
        meant[self.deaths] -= shares[self.group]
        found = -at.hazard[:, None] * (self._entered(at.total)[:, None] * self.Z - meant)
        means = np.zeros_like(shares)
        np.add.at(means, self.group, average)
        found[self.deaths] += self.Z[self.deaths] - (means / size[:, None])[self.group]
        return np.asarray(found)

    def score(self, columns: IntArray) -> tuple[FloatArray, FloatArray]:
        """Of each column alone, at a coefficient of zero: the derivative and the information."""
        Z = self.Z[:, columns]
        total = self._risk_sum(np.ones(len(Z)))[:, None]
        average = self._risk_sum(Z) / total
        information = (self._risk_sum(Z**2) / total - average**2).sum(axis=0)
        return Z[self.deaths].sum(axis=0) - average.sum(axis=0), information

    def _risk_sum(self, values: FloatArray) -> FloatArray:
        """Sum of ``values`` over the risk set of each event."""
        if self.sets is not None:
            at_risk = self.sets.at_events(values)
        else:
            at_risk = np.asarray(np.cumsum(values[::-1], axis=0)[len(values) - 1 - self.start])
        if len(self.late):
            tied = np.add.reduceat(values[self.tied], self.first, axis=0)[self.late_group]
            at_risk[self.late] -= (self.share[self.late] * tied.T).T
        return at_risk


def maximise(likelihood: PartialLikelihood, start: FloatArray | None = None) -> tuple[FloatArray, FloatArray]:
    """Newton's method with halved steps; the function is concave, so it cannot end anywhere else.

    Returns
    -------
    coefficient, information
        Where the maximum is, and the negative Hessian there.

    Raises
    ------
    StatisticsError
        When there is no maximum; an UndeterminedError where it is known why.
    """
    coefficient = np.zeros(likelihood.Z.shape[1]) if start is None else start
    at = likelihood.at(coefficient)
    value = likelihood.penalised(at.likelihood, coefficient)
    for _ in range(50):
        gradient, information = likelihood.derivatives_at(at, coefficient)
        try:
            step = np.linalg.solve(information, gradient)
        except np.linalg.LinAlgError:
            break
        length, begun, reached = 1.0, coefficient, value
        while True:
            coefficient = begun + length * step
            at = likelihood.at(coefficient)
            value = likelihood.penalised(at.likelihood, coefficient)
            if not value < reached or length <= 1e-6:
                break
            length /= 2
        if value == -np.inf:
            break
        if float(gradient @ step) < _SETTLED:
            return coefficient, information
    expect_determined(information, likelihood.Z, coefficient)
    raise StatisticsError(
        f"Cox model of {len(coefficient)} features on {len(likelihood.deaths)} events did not converge in 50 steps; "
        "raise the penalty"
    )
