"""The linear support vector machine of many cases, by an interior-point method.

An active-set method moves one case at a time on or off its bound, thousands of steps for thousands of cases. An
interior-point method needs some twenty steps whatever their number, each of the cost of one least-squares problem.
"""

from __future__ import annotations

import numpy as np

from prognosis_dask.errors import StatisticsError
from prognosis_dask.statistics.endpoint import FloatArray

#: Mean product of a variable and its multiplier at which the method ends (the price C is one, or so).
_SETTLED = 1e-9
_MOST_STEPS = 100
#: Coefficients within this share of C of a bound belong on it.
_NEAR = 1e-5


def solve_many_cases(X: FloatArray, sign: FloatArray, C: float) -> FloatArray:
    """Dual coefficients of the soft-margin machine: :func:`prognosis_dask.statistics.svm.solve_dual` of ``X X'``.

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
        Coefficients, shape (cases,), feasible: they can be where :func:`prognosis_dask.statistics.svm.solve_dual`
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
