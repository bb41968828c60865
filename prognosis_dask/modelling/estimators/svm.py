"""The linear support vector machine's dual, solved exactly from a warm start.

Recursive elimination solves hundreds of machines that differ by one feature. An active-set method that starts from the
last solution needs a handful of small linear systems for each, and works in double precision; LIBSVM starts anew every
time, stops at a tolerance of 1e-3 and keeps the kernel in single precision.
"""

from __future__ import annotations

import numpy as np

from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import BoolArray, FloatArray, IntArray

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


class Rows:
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


def solve_dual(gram: Gram | Rows, sign: FloatArray, C: float, start: FloatArray) -> FloatArray:
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


# --- The linear support vector machine of many cases, by an interior-point method.


#: Mean product of a variable and its multiplier at which the method ends (the price C is one, or so).
_SETTLED = 1e-9
_MOST_STEPS = 100
#: Coefficients within this share of C of a bound belong on it.
_NEAR = 1e-5


def solve_many_cases(X: FloatArray, sign: FloatArray, C: float) -> FloatArray:
    """Dual coefficients of the soft-margin machine: :func:`modelling.estimators.svm.solve_dual` of ``X X'``.

    Mehrotra's predictor and corrector (SIAM Journal on Optimization 2, 575, 1992); the kernel's low rank is used as by
    Fine & Scheinberg (Journal of Machine Learning Research 2, 243, 2001), so that a step costs cases * features².

    Parameters
    ----------
    X
        Features, shape (cases, features).
    sign
        The classes, +1 and -1, shape (cases,).
    C
        The price of a violated margin.

    Returns
    -------
    ndarray
        Coefficients, shape (cases,), feasible: they can be where :func:`modelling.estimators.svm.solve_dual`
        starts.

    Raises
    ------
    StatisticsError
        When the method does not settle.
    """
    V = sign[:, None] * X
    n = len(sign)
    a = np.full(n, C / 2)  # times sign, the coefficients: 0 < a < C
    low, high = np.ones(n), np.ones(n)  # multipliers of the bounds
    level = 0.0  # multiplier of the balance between the classes
    # keeps the systems regular; what is missed is exact, so it slows the last digits and does not shift the solution
    lift = 1e-9 * float((V**2).sum()) / n
    for _ in range(_MOST_STEPS):
        dual = V @ (V.T @ a) - 1.0 + level * sign - low + high
        balance = float(sign @ a)
        gap = float(a @ low + (C - a) @ high) / (2 * n)
        if gap < _SETTLED * C and np.abs(dual).max() < 1e-7 and abs(balance) < 1e-8 * C * n:
            return sign * _on_bounds(a, C, sign)
        solve = _Solver(V, low / a + high / (C - a) + lift, sign)
        da, _, dlow, dhigh = _direction(solve, a, C, low, high, dual, balance, 0.0, 0.0)
        length = _length(a, C, low, high, da, dlow, dhigh)
        reached = (a + length * da) @ (low + length * dlow) + (C - a - length * da) @ (high + length * dhigh)
        centre = gap * (float(reached) / (2 * n * gap)) ** 3
        da, dlevel, dlow, dhigh = _direction(
            solve, a, C, low, high, dual, balance, centre - da * dlow, centre + da * dhigh
        )
        length = 0.995 * _length(a, C, low, high, da, dlow, dhigh)
        a, level = a + length * da, level + length * dlevel
        low, high = low + length * dlow, high + length * dhigh
    raise StatisticsError(f"the support vector machine did not settle on {n} rows with C = {C}; check the features")


def _on_bounds(a: FloatArray, C: float, sign: FloatArray) -> FloatArray:
    """What is next to a bound is put on it, and the classes' balance restored by the others, within their room."""
    a = np.where(a < _NEAR * C, 0.0, np.where(a > (1 - _NEAR) * C, C, a))
    excess = float(sign @ a)
    room = np.where((a > 0) & (a < C), np.where(sign * excess > 0, a, C - a), 0.0)
    if room.any():
        a = a - sign * excess * room / room.sum()
    return a


class _Solver:
    """Solves ``(V V' + diag(d)) x + sign * y = r, sign' x = t`` by Woodbury's identity."""

    def __init__(self, V: FloatArray, d: FloatArray, sign: FloatArray) -> None:
        from scipy.linalg import cho_factor

        self.V, self.d, self.sign = V, d, sign
        root = V / np.sqrt(d)[:, None]
        inner = root.T @ root
        inner.flat[:: len(inner) + 1] += 1.0
        self.factor = cho_factor(inner)
        self.of_sign = self._invert(sign)

    def __call__(self, r: FloatArray, t: float) -> tuple[FloatArray, float]:
        x = self._invert(r)
        y = float(self.sign @ x - t) / float(self.sign @ self.of_sign)
        return x - y * self.of_sign, y

    def _invert(self, r: FloatArray) -> FloatArray:
        from scipy.linalg import cho_solve

        scaled = r / self.d
        return np.asarray(scaled - (self.V @ cho_solve(self.factor, self.V.T @ scaled)) / self.d)


def _direction(
    solve: _Solver,
    a: FloatArray,
    C: float,
    low: FloatArray,
    high: FloatArray,
    dual: FloatArray,
    balance: float,
    aim_low: FloatArray | float,
    aim_high: FloatArray | float,
) -> tuple[FloatArray, float, FloatArray, FloatArray]:
    """Newton's direction towards ``a * low = aim_low`` and ``(C - a) * high = aim_high``."""
    below, above = aim_low / a - low, aim_high / (C - a) - high
    da, dlevel = solve(below - above - dual, -balance)
    return da, dlevel, below - low / a * da, above + high / (C - a) * da


def _length(
    a: FloatArray, C: float, low: FloatArray, high: FloatArray, da: FloatArray, dlow: FloatArray, dhigh: FloatArray
) -> float:
    """How far one can go, at most the whole step, before something that has to stay positive does not."""
    fastest = max(
        float((da / -a).max()), float((da / (C - a)).max()), float((dlow / -low).max()), float((dhigh / -high).max())
    )
    return min(1.0, 1.0 / fastest) if fastest > 0 else 1.0
