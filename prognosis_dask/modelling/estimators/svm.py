"""The linear support vector machine's dual, solved exactly from a warm start.

Recursive elimination solves hundreds of machines that differ by one feature. An active-set method that starts from the
last solution needs a handful of small linear systems for each, and works in double precision; LIBSVM starts anew every
time, stops at a tolerance of 1e-3 and keeps the kernel in single precision.

It moves one case at a time on or off its bound: thousands of steps for thousands of cases. For so many all move
together: the hinge's corner is rounded over a width, the smooth machine is solved by Newton's method in its few
weights (Chapelle, Neural Computation 19, 1155, 2007), and the width falls until the cases on the margin are few.
"""

from __future__ import annotations

import numpy as np

from prognosis_dask.arrays import BoolArray, FloatArray, IntArray
from prognosis_dask.errors import StatisticsError

#: Largest violation of optimality, in units of the margin (LIBSVM's default is 1e-3).
TOLERANCE = 1e-8


class Gram:
    """``K = X X'`` as a matrix, for more features than cases, or for a kernel."""

    def __init__(self, gram: FloatArray) -> None:
        self.gram = gram
        self.trace = float(np.trace(gram))

    def times(self, dual: FloatArray) -> FloatArray:
        """``K @ dual``."""
        return np.asarray(self.gram @ dual)

    def block(self, at: IntArray) -> FloatArray:
        """Rows and columns of some cases."""
        return np.asarray(self.gram[np.ix_(at, at)])

    def moved(self, at: IntArray, step: FloatArray) -> FloatArray:
        """``K @ dual`` of a dual that is zero but for some cases."""
        return np.asarray(self.gram[:, at] @ step)


class RowProducts:
    """The same from ``X`` itself, for more cases than features: nothing is held that is cases x cases."""

    def __init__(self, X: FloatArray) -> None:
        self.X = X
        self.trace = float((X**2).sum())

    def times(self, dual: FloatArray) -> FloatArray:
        """``K @ dual``."""
        return np.asarray(self.X @ (self.X.T @ dual))

    def block(self, at: IntArray) -> FloatArray:
        """Rows and columns of some cases."""
        return np.asarray(self.X[at] @ self.X[at].T)

    def moved(self, at: IntArray, step: FloatArray) -> FloatArray:
        """``K @ dual`` of a dual that is zero but for some cases."""
        return np.asarray(self.X @ (self.X[at].T @ step))


def solve_dual(gram: Gram | RowProducts, sign: FloatArray, C: float, start: FloatArray) -> FloatArray:
    """Dual coefficients of the soft-margin support vector machine.

    Minimises ``b'Kb / 2 - sum(sign * b)`` over ``sum(b) = 0``, with b between 0 and C where sign is +1, and between -C
    and 0 where it is -1; the separating direction is then ``X'b``.

    A primal active-set method for convex quadratic programmes (Nocedal & Wright, Numerical Optimization, 2nd ed.,
    section 16.5): Newton's step on the free coefficients, cut where one reaches a bound; when those are settled, the
    one that violates optimality most becomes free.

    Parameters
    ----------
    gram
        ``K = X X'`` of n cases.
    sign
        The classes, +1 and -1, shape (n,).
    C
        The price of a violated margin.
    start
        Feasible coefficients: zeros, or the solution for another ``gram``.

    Returns
    -------
    ndarray
        Coefficients, shape (n,); where the optimum is not unique in them, it is in ``X'b``.

    Raises
    ------
    StatisticsError
        When the method does not settle.
    """
    n = len(sign)
    lower = np.where(sign > 0, 0.0, -C)
    upper = lower + C
    dual = start.copy()
    free = (dual > lower) & (dual < upper)
    # keeps the systems regular; the gradient is exact, so it slows the last digits and does not shift the solution
    ridge = 1e-10 * gram.trace / n or 1e-10
    gradient = sign - gram.times(dual)
    fresh = True
    for _ in range(1000 + 100 * n):
        rising = np.where(dual < upper, gradient, -np.inf)
        falling = np.where(dual > lower, gradient, np.inf)
        up, down = int(rising.argmax()), int(falling.argmin())
        if rising[up] - falling[down] <= TOLERANCE:
            if fresh:
                return dual
            gradient, fresh = sign - gram.times(dual), True  # without the updates' rounding
            continue
        if not free.any():
            free[[up, down]] = True
        elif np.ptp(gradient[free]) <= TOLERANCE / 4:
            # one at a time: of two, each may push the other back against its bound, for ever
            settled = gradient[free].mean()
            free[up if rising[up] - settled > settled - falling[down] else down] = True
        at = np.flatnonzero(free)
        step = _step(gram.block(at), gradient[at], ridge)
        step *= _cut(dual, step, lower, upper, at, free)
        gradient -= gram.moved(at, step)
        fresh = False
    raise StatisticsError(f"the support vector machine did not settle on {n} rows with C = {C}; check the features")


def _step(gram: FloatArray, gradient: FloatArray, ridge: float) -> FloatArray:
    """Newton's step that keeps the sum of the coefficients."""
    m = len(gradient)
    system = np.ones((m + 1, m + 1))
    system[:m, :m] = gram
    system.flat[: m * (m + 2) : m + 2] += ridge
    system[m, m] = 0.0
    return np.asarray(np.linalg.solve(system, np.append(gradient, 0.0))[:m])


def _cut(
    dual: FloatArray, step: FloatArray, lower: FloatArray, upper: FloatArray, at: IntArray, free: BoolArray
) -> float:
    """Move ``dual[at]`` along ``step`` up to the first bound; what reaches it is no longer free. The length moved."""
    bound = np.where(step > 0, upper[at], lower[at])
    room = np.full(len(at), np.inf)
    np.divide(bound - dual[at], step, out=room, where=step != 0)
    first = int(room.argmin())
    length = min(1.0, float(room[first]))
    dual[at] = np.clip(dual[at] + length * step, lower[at], upper[at])
    if length < 1.0:
        dual[at[first]] = bound[first]
        free[at[first]] = False
    return length


#: Widths over which the corner is rounded, in units of the margin: from nothing, and from the weights of a machine that
#: had one feature more.
_WARM = (0.03, 0.01, 0.003, 0.001)
_COLD = (2.0, 0.3, *_WARM)
#: The gradient per case, in units of C, at which a width is settled.
_SETTLED = 1e-9
_MOST_STEPS = 60
#: Steps of the search for the minimum along a direction, and the share of its slope that is left there.
_MOST_TRIED, _LEFT = 20, 0.2


def solve_many_cases(
    X: FloatArray, sign: FloatArray, C: float, start: FloatArray | None = None
) -> tuple[FloatArray | None, FloatArray]:
    """Where :func:`~svm.solve_dual` of ``X X'`` may start, a few steps from its solution.

    Parameters
    ----------
    X
        Features, shape (cases, features).
    sign
        The classes, +1 and -1, shape (cases,).
    C
        The price of a violated margin.
    start
        Weights and intercept of a machine that had one feature more, without that feature's; None: there is none.

    Returns
    -------
    dual
        Feasible coefficients, shape (cases,); None where they could not be balanced between the classes.
    weights
        Of the features, and the intercept: shape (features + 1,).
    """
    smoothed = _Smoothed(X, sign, C)
    weights = np.zeros(X.shape[1] + 1) if start is None else start
    near: IntArray | None = None
    for width in _COLD if start is None else _WARM:
        weights, near = smoothed.minimise(weights, width / C, near)
    return _balanced(smoothed.loads(smoothed.slack(weights), width / C), C, sign), weights


class _Smoothed:
    """``|w|² / 2`` plus, of each case, what its slack costs: C times the slack, its corner rounded.

    ``width`` is that of the dual's ridge: a case's load (its dual coefficient) is its slack over the width, at least 0
    and at most C.
    """

    def __init__(self, X: FloatArray, sign: FloatArray, C: float) -> None:
        self.V = np.column_stack([X, np.ones(len(X))]) * sign[:, None]
        self.C = C
        self.held = np.append(np.ones(X.shape[1]), 0.0)  # the intercept costs nothing
        self.lift = 1e-10 * float((self.V**2).sum()) / len(self.held)  # keeps the systems regular

    def slack(self, weights: FloatArray) -> FloatArray:
        """How far each case falls short of the margin."""
        return np.asarray(1.0 - self.V @ weights)

    def loads(self, slack: FloatArray, width: float) -> FloatArray:
        """The cases' dual coefficients, without sign."""
        return np.asarray(np.minimum(np.maximum(slack / width, 0.0), self.C))  # clip costs more for few cases

    def minimise(self, weights: FloatArray, width: float, near: IntArray | None) -> tuple[FloatArray, IntArray]:
        """The weights for a width, and the cases within it.

        ``near``: the cases within the width before, whose slack then falls in proportion: the first step.
        """
        slack = self.slack(weights)
        if near is not None:
            gradient = self.held * weights - self.loads(slack, width) @ self.V
            rows = self.V[near]
            gradient += (self.loads(slack, width)[near] - slack[near] / width) @ rows
            weights = weights + self._step(rows, width, gradient)
            slack = self.slack(weights)
        for _ in range(_MOST_STEPS):
            gradient = self.held * weights - self.loads(slack, width) @ self.V
            near = np.flatnonzero((slack > 0) & (slack < width * self.C))
            if np.abs(gradient).max() < _SETTLED * self.C * len(slack):
                break
            step = self._step(self.V[near], width, gradient)
            change = self.V @ step
            length = self._length(weights, step, slack, change, width, float(gradient @ step))
            weights, slack = weights + length * step, slack - length * change
        assert near is not None
        return weights, near

    def _step(self, rows: FloatArray, width: float, gradient: FloatArray) -> FloatArray:
        curvature = rows.T @ rows / width
        curvature.flat[:: len(curvature) + 1] += self.held + self.lift
        if not len(rows):
            curvature[-1, -1] = 1.0 / width  # nothing holds the intercept: as if one case did
        return np.asarray(-np.linalg.solve(curvature, gradient))

    def _length(
        self, weights: FloatArray, step: FloatArray, slack: FloatArray, change: FloatArray, width: float, first: float
    ) -> float:
        """The length at which the slope along the step has all but vanished; one where it is still negative there."""
        length, low, slope_low, high, slope_high = 1.0, 0.0, first, np.inf, 0.0
        for _ in range(_MOST_TRIED):
            loads = self.loads(slack - length * change, width)
            slope = float((self.held * (weights + length * step)) @ step - loads @ change)
            if slope > -_LEFT * first:
                high, slope_high = length, slope
            elif slope < (1 - _LEFT) * first and np.isfinite(high):
                low, slope_low = length, slope
            else:
                break
            length = low + (high - low) * min(0.9, max(0.1, slope_low / (slope_low - slope_high)))
        return length


def _balanced(loads: FloatArray, C: float, sign: FloatArray) -> FloatArray | None:
    """The coefficients of the loads; the classes' balance is restored by those off their bounds, within their room."""
    excess = float(sign @ loads)
    room = np.where((loads > 0) & (loads < C), np.where(sign * excess > 0, loads, C - loads), 0.0)
    if abs(excess) < room.sum():
        loads = np.clip(loads - sign * excess * room / room.sum(), 0.0, C)
    return sign * loads if abs(float(sign @ loads)) <= 1e-10 * C * len(sign) else None
