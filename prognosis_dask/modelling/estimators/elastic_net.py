"""Cox's model with an elastic-net penalty: exact zeros, any number of features.

The reference is Simon, Friedman, Hastie & Tibshirani, Journal of Statistical Software 39(5), 2011. The steps here are
proximal Newton's (Lee, Sun & Saunders, SIAM Journal on Optimization 24, 2014): the likelihood's full curvature instead
of its diagonal, so that a handful of steps reaches the optimum to rounding.
"""

from __future__ import annotations

import numpy as np

from prognosis_dask.arrays import FloatArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.estimators.partial_likelihood import PartialLikelihood

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
