"""The linear support vector machine's dual, solved exactly from a warm start.

Recursive elimination solves hundreds of machines that differ by one feature. An active-set method that starts from the
last solution needs a handful of small linear systems for each, and works in double precision; LIBSVM starts anew every
time, stops at a tolerance of 1e-3 and keeps the kernel in single precision.
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
