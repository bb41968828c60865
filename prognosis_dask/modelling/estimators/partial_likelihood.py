"""Cox's partial likelihood, Efron's treatment of ties, and its maximum, also under an elastic-net penalty.

One evaluation is a few matrix products, which makes refitting in every fold cheap. The reference for the elastic net is
Simon, Friedman, Hastie & Tibshirani, Journal of Statistical Software 39(5), 2011. Its steps are proximal Newton's (Lee,
Sun & Saunders, SIAM Journal on Optimization 24, 2014): the likelihood's full curvature instead of its diagonal, so that
a handful of steps reaches the optimum to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from prognosis_dask.arrays import BoolArray, FloatArray, IntArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Endpoint, RiskSets, Survival
from prognosis_dask.modelling.estimators.determined import expect_determined
from prognosis_dask.modelling.metrics.brier import Censoring
from prognosis_dask.modelling.metrics.competing import partial_risk_sets

#: Newton's decrement at which the fit ends; one more step would change the log-likelihood by less than this.
_SETTLED = 1e-10
#: Log hazards further apart than this leave the range of exponentials.
_WIDEST = 600.0


def score_likelihood(endpoint: Survival, censoring: Censoring | None = None) -> Callable[[FloatArray], float]:
    """From scores (log hazards) of the cases, shape (cases,), to their log partial likelihood; Efron's ties.

    Zero where no case has the event; minus infinity where the scores lie too far apart to be computed with.
    ``censoring`` as for :func:`likelihood_of`.
    """
    if not endpoint.event.any():
        return lambda score: 0.0
    order = endpoint.by_time()
    likelihood = likelihood_of(np.zeros((len(order), 0)), endpoint, censoring=censoring)
    return lambda score: likelihood.of_score(score[order])


def likelihood_of(
    Z: FloatArray, endpoint: Endpoint, penalizer: float = 0.0, censoring: Censoring | None = None
) -> PartialLikelihood:
    """The partial likelihood of cases in any order; its rows are theirs, stably sorted by time.

    Where events compete it is Fine and Gray's, by weights: of the cases' own censoring, or of ``censoring``.
    """
    assert isinstance(endpoint, Survival)
    order = endpoint.by_time()
    ordered = endpoint.rows(order)
    time, event = ordered.observed_days, ordered.event
    sets = partial_risk_sets(ordered, time[event], censoring)
    return PartialLikelihood(Z[order], time, event, penalizer, sets)


class _Hazards(NamedTuple):
    """Of some coefficients: the log partial likelihood, relative hazards, and their sums over the events' risk sets."""

    likelihood: float
    hazard: FloatArray
    total: FloatArray


class PartialLikelihood:
    """Efron's log partial likelihood with ridge penalty ``rows * penalizer / 2 * |b|²``; rows are sorted by time.

    For the l-th of the m events of one time (l = 0..m-1), the risk set's sum counts the m tied events with weight
    1 - l/m (Efron, JASA 72, 1977). ``sets`` says who is at risk at each event, where that is not everybody who is
    followed up to it: with times of entry the cases that entered before, with competing events their cases in part.
    """

    def __init__(
        self, Z: FloatArray, time: FloatArray, event: BoolArray, penalizer: float, sets: RiskSets | None = None
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
        self.sets = sets

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


#: Largest violation of optimality, of the log partial likelihood per case, at which the fit ends.
TOLERANCE = 1e-9
_MOST_STEPS = 100
#: Coordinate descent within a step ends when no coefficient's change gains more than this, or after so many sweeps: an
#: unfinished step is still a step.
_SWEPT, _MOST_SWEEPS = 1e-16, 500


def maximise_elastic_net(
    likelihood: PartialLikelihood, absolute: float, start: FloatArray, tolerance: float = TOLERANCE
) -> FloatArray:
    """Maximise ``likelihood.value(b) - rows * absolute * sum(|b|)``; the likelihood holds the squared penalty.

    Parameters
    ----------
    likelihood
        Of standardised features.
    absolute
        Price of a coefficient's size, per case.
    start
        Where to begin: zeros, or the solution for another penalty.
    tolerance
        Largest violation of optimality per case.

    Returns
    -------
    ndarray
        Coefficients, shape (features,); those that are zero are exactly so.

    Raises
    ------
    StatisticsError
        When it does not converge.
    """
    rows = len(likelihood.Z)
    price = absolute * rows
    coefficient = start
    value = likelihood.value(coefficient) - price * np.abs(coefficient).sum()
    for _ in range(_MOST_STEPS):
        at = likelihood.at(coefficient)
        expected = likelihood.expected(at)
        gradient = likelihood.gradient(expected, coefficient)
        if violation(gradient, coefficient, price) <= tolerance * rows:
            return coefficient
        # what is zero, with a gradient well within the price, takes no part: the test above brings it back
        active = np.flatnonzero((coefficient != 0) | (np.abs(gradient) > 0.9 * price))
        information = likelihood.information(at, expected, likelihood.Z[:, active])
        step = -coefficient
        step[active] += _newton_lasso(information, gradient[active], coefficient[active], price)
        promised = gradient @ step - price * (np.abs(coefficient + step).sum() - np.abs(coefficient).sum())
        length = 1.0
        while length > 1e-10:
            proposed = coefficient + length * step
            reached = likelihood.value(proposed) - price * np.abs(proposed).sum()
            if reached >= value + 1e-4 * length * promised - 1e-12 * abs(value):
                break
            length /= 2
        coefficient, value = proposed, reached
    raise StatisticsError(
        f"Cox model with an absolute penalty of {absolute:g} on {len(start)} features did not converge in "
        f"{_MOST_STEPS} steps; raise the penalty or prune correlated features"
    )


def violation(gradient: FloatArray, coefficient: FloatArray, price: float) -> float:
    """How far the conditions of optimality are missed: zero at the maximum.

    ``gradient`` is that of the smooth part; it has to equal ``price * sign(b)`` where b is not zero, and stay within
    plus and minus ``price`` where it is.
    """
    missed = np.where(
        coefficient == 0,
        np.maximum(np.abs(gradient) - price, 0.0),
        np.abs(gradient - price * np.sign(coefficient)),
    )
    return float(missed.max(initial=0.0))


def first_price(likelihood: PartialLikelihood) -> float:
    """The least absolute penalty per case that leaves every coefficient at zero."""
    nothing = np.zeros(likelihood.Z.shape[1])
    gradient = likelihood.gradient(likelihood.expected(likelihood.at(nothing)), nothing)
    return float(np.abs(gradient).max(initial=0.0)) / len(likelihood.Z)


def _newton_lasso(H: FloatArray, gradient: FloatArray, at: FloatArray, price: float) -> FloatArray:
    """Maximise the quadratic model ``g'd - d'Hd/2 - price * |at + d|``; the new coefficients.

    Cyclic coordinate descent (Friedman, Hastie & Tibshirani, JSS 33(1), 2010).
    """
    # features may outnumber cases: what the curvature leaves open is held; the solution is not moved by it, as the
    # model is only asked for a step
    H.flat[:: len(H) + 1] += 1e-7 * np.trace(H) / len(H)
    b, left = at.copy(), gradient.copy()  # left: the quadratic's gradient at b
    curvature = np.diag(H).tolist()
    for _ in range(_MOST_SWEEPS):
        largest = 0.0
        for j, h in enumerate(curvature):
            old = float(b[j])
            pull = float(left[j]) + h * old
            new = (pull - price if pull > price else pull + price if pull < -price else 0.0) / h
            if new != old:
                left -= (new - old) * H[j]
                b[j] = new
                largest = max(largest, h * (new - old) ** 2)
        if largest < _SWEPT:
            break
    return np.asarray(b)
