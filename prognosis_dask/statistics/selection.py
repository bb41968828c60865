"""Which features carry the label: recursive feature elimination with a linear support vector machine (SVM-RFE)."""

from __future__ import annotations

import numpy as np

from prognosis_dask.errors import StatisticsError
from prognosis_dask.statistics.endpoint import BoolArray, FloatArray, IntArray
from prognosis_dask.statistics.svm import solve_dual

#: Weights closer than this count as equal: well above what the solver leaves open, far below any real weight.
_EQUAL = 1e-6


def survival_label(time: FloatArray, event: BoolArray, days: float = 365.0) -> tuple[BoolArray, BoolArray]:
    """Whether each case was alive after ``days``, and whether that is known.

    The event at or before ``days``: not alive. Longer follow-up, or censored on the very day: alive. Censored earlier:
    unknown; such rows take no part in the selection, and take part in the Cox model.

    Returns
    -------
    alive, known
        Shape (cases,) each; ``alive`` is False where it is not known.

    >>> alive, known = survival_label(np.array([100.0, 100.0, 365.0, 400.0]), np.array([True, False, False, True]))
    >>> alive.tolist(), known.tolist()
    ([False, False, True, True], [True, False, True, True])
    """
    alive = (time > days) | (~event & (time == days))
    return alive, alive | event


def rank_features(X: FloatArray, label: BoolArray, *, C: float = 1.0) -> IntArray:
    """Rank features by SVM-RFE (Guyon et al., Machine Learning 46, 2002), one elimination at a time.

    The columns are scaled to 0..1 over the given rows. A soft-margin linear support vector machine is fitted, the
    feature of smallest squared weight is eliminated, and so on until none is left. Of features with equal weights, the
    one whose class means lie closest goes first, then the later column. (A machine on few, weak features has all
    weights zero where the classes' reduced convex hulls meet: their order is then that of the class means.) A constant
    column has weight zero.

    Parameters
    ----------
    X
        Features, shape (cases, features), finite.
    label
        The two classes, shape (cases,).
    C
        The price of a violated margin.

    Returns
    -------
    ndarray
        Column numbers, best first, shape (features,).

    Raises
    ------
    StatisticsError
        When only one class is present.
    """
    if not label.any() or label.all():
        raise StatisticsError(
            f"all {len(label)} cases with a known label are {'alive' if label.any() else 'not alive'} at the label's "
            "time, and the selection needs both classes: set model.label_days nearer to the cohort's median time"
        )
    spread = np.ptp(X, axis=0)
    scaled = (X - X.min(axis=0)) / np.where(spread > 0, spread, 1.0)
    between = np.abs(scaled[label].mean(axis=0) - scaled[~label].mean(axis=0))
    sign = np.where(label, 1.0, -1.0)
    gram = scaled @ scaled.T
    dual = np.zeros(len(sign))
    left = np.arange(X.shape[1])
    eliminated: list[int] = []
    while len(left):
        dual = solve_dual(gram, sign, C, dual)
        weight = np.abs(dual @ scaled[:, left])
        equal = np.flatnonzero(weight <= weight.min() + _EQUAL)
        worst = equal[np.lexsort((-equal, between[left[equal]]))[0]]
        eliminated.append(int(left[worst]))
        gram -= np.outer(scaled[:, left[worst]], scaled[:, left[worst]])
        left = np.delete(left, worst)
    return np.array(eliminated[::-1], dtype=np.int64)
