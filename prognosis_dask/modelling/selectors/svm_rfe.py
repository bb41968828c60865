"""Which features carry the label: recursive feature elimination with a linear support vector machine (SVM-RFE)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from prognosis_dask.arrays import BoolArray, FloatArray, IntArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Classes, Endpoint, Survival
from prognosis_dask.modelling.estimators.svm import Gram, RowProducts, solve_dual, solve_many_cases

#: Weights closer than this count as equal: well above what the solver leaves open, far below any real weight.
_EQUAL = 1e-6
#: With more cases a machine is begun on a smoothed loss: of thousands, hundreds change sides with a feature. With so
#: many for each feature already from the fewer on.
_MANY_CASES, _MANY_EACH, _FEWER_CASES = 1000, 10, 300
#: Cases times features beyond which features are not eliminated one by one.
_LARGE = 250_000


def survival_label(endpoint: Survival, days: float = 365.0) -> tuple[BoolArray, BoolArray]:
    """Whether each case was alive after ``days``, and whether that is known.

    The event at or before ``days``: not alive. Longer follow-up, or censored on the very day: alive. Censored earlier:
    unknown; such rows take no part in the selection, and take part in the Cox model. So are cases that entered later:
    none of them can be dead.

    Returns
    -------
    alive, known
        Shape (cases,) each; ``alive`` is False where it is not known.

    >>> endpoint = Survival(np.array([100.0, 100.0, 365.0, 400.0]), np.array([True, False, False, True]))
    >>> alive, known = survival_label(endpoint)
    >>> alive.tolist(), known.tolist()
    ([False, False, True, True], [True, False, True, True])
    """
    time, event, entry = endpoint.time_days, endpoint.event, endpoint.entry_days
    alive = (time > days) | (~event & (time == days))
    known = alive | event
    return alive, known if entry is None else known & (entry < days)


def rank_features(X: FloatArray, label: BoolArray | IntArray, *, C: float = 1.0) -> IntArray:
    """Rank features by SVM-RFE (Guyon et al., Machine Learning 46, 2002), one elimination at a time.

    The columns are scaled to 0..1 over the given rows. A soft-margin linear support vector machine is fitted, the
    feature of smallest squared weight is eliminated, and so on until none is left. Of features with equal weights, the
    one whose class means lie closest goes first, then the later column. (A machine on few, weak features has all
    weights zero where the classes' reduced convex hulls meet: their order is then that of the class means.) A constant
    column has weight zero. With more than two classes there is a machine for each against the rest, and their squared
    weights are added. As long as cases times features exceed a quarter of a million, a tenth of the features
    goes at a time (Guyon et al. remove half).

    Parameters
    ----------
    X
        Features, shape (cases, features), finite.
    label
        The classes, shape (cases,).
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
    scaled, signs = _scaled(X), _signs(label)
    between = sum(np.abs(scaled[sign > 0].mean(axis=0) - scaled[sign < 0].mean(axis=0)) for sign in signs)
    left = np.arange(X.shape[1])
    machines = [_Machine(np.zeros(len(scaled))) for _ in signs]
    eliminated: list[int] = []
    part = np.ascontiguousarray(scaled.T)  # a feature is a row: those that are left lie together
    gram = part.T @ part if len(left) >= len(scaled) else None
    while len(left):
        kernel = RowProducts(part.T) if gram is None else Gram(gram)
        if gram is None and _many(len(scaled), len(left)):
            machines = [_begun(part, sign, C, machine) for sign, machine in zip(signs, machines, strict=True)]
        machines = [
            replace(machine, dual=solve_dual(kernel, sign, C, machine.dual))
            for sign, machine in zip(signs, machines, strict=True)
        ]
        weight = np.sqrt(sum((part @ machine.dual) ** 2 for machine in machines))
        if part.size > _LARGE:
            going = np.lexsort((-left, between[left], weight))[: len(left) // 10]
        else:
            equal = np.flatnonzero(weight <= weight.min() + _EQUAL)
            going = equal[np.lexsort((-equal, between[left[equal]]))[:1]]
        eliminated += left[going].tolist()
        left = np.delete(left, going)
        machines = [machine.without(going) for machine in machines]
        gram = gram - part[going].T @ part[going] if gram is not None and len(left) >= len(scaled) else None
        part = np.delete(part, going, axis=0)
    return np.array(eliminated[::-1], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class _Machine:
    """A machine's dual coefficients; where it was begun on a smoothed loss, weights and intercept from there."""

    dual: FloatArray
    weights: FloatArray | None = None

    def without(self, columns: IntArray) -> _Machine:
        return self if self.weights is None else replace(self, weights=np.delete(self.weights, columns))


def _many(cases: int, features: int) -> bool:
    return cases > (_FEWER_CASES if cases >= _MANY_EACH * features else _MANY_CASES)


def _begun(part: FloatArray, sign: FloatArray, C: float, machine: _Machine) -> _Machine:
    """The machine next to its solution; where that cannot be, it keeps the coefficients of one feature more."""
    dual, weights = solve_many_cases(part.T, sign, C, machine.weights)
    return _Machine(machine.dual if dual is None else dual, weights)


def rank_features_rbf(X: FloatArray, label: BoolArray | IntArray, *, C: float = 1.0, share: float = 0.0) -> IntArray:
    """Rank features by RFE with the radial kernel (Guyon et al., Machine Learning 46, 2002, section 6).

    The feature goes first whose removal from the kernel, the dual coefficients b kept, changes ``b'Kb / 2`` least. The
    columns are scaled to 0..1; the kernel is ``exp(-gamma * squared distance)`` with gamma one over the number of
    features left times their mean variance, anew for every machine.

    Parameters
    ----------
    X, label, C
        As :func:`rank_features`.
    share
        The share of the features left that goes at a time; zero: one feature.

    Returns
    -------
    ndarray
        Column numbers, best first, shape (features,).

    Raises
    ------
    StatisticsError
        When only one class is present.
    """
    scaled, signs = _scaled(X), _signs(label)
    left = np.arange(X.shape[1])
    duals = [np.zeros(len(scaled)) for _ in signs]
    eliminated: list[int] = []
    while len(left):
        squares = (scaled[:, left] ** 2).sum(axis=1)
        distance = np.maximum(squares[:, None] + squares - 2 * scaled[:, left] @ scaled[:, left].T, 0.0)
        gamma = 1.0 / max(float(scaled[:, left].var(axis=0).sum()), 1e-12)
        kernel = np.exp(-gamma * distance)
        duals = [solve_dual(Gram(kernel), sign, C, dual) for sign, dual in zip(signs, duals, strict=True)]
        change = sum(_changes(kernel, gamma, scaled[:, left], dual) for dual in duals)
        going = np.lexsort((-np.arange(len(left)), np.asarray(change)))[: max(1, int(share * len(left)))]
        eliminated += left[going].tolist()
        left = np.delete(left, going)
    return np.array(eliminated[::-1], dtype=np.int64)


def _changes(kernel: FloatArray, gamma: float, scaled: FloatArray, dual: FloatArray) -> FloatArray:
    """By how much ``b'Kb / 2`` falls when each feature leaves the kernel."""
    at = np.flatnonzero(dual)
    weighted = 0.5 * kernel[np.ix_(at, at)] * np.multiply.outer(dual[at], dual[at])
    rows = scaled[at]
    changes = np.empty(scaled.shape[1])
    for column in range(len(changes)):
        apart = np.subtract.outer(rows[:, column], rows[:, column])
        changes[column] = -(weighted * np.expm1(gamma * apart**2)).sum()
    return changes


def _scaled(X: FloatArray) -> FloatArray:
    spread = np.ptp(X, axis=0)
    return np.asarray((X - X.min(axis=0)) / np.where(spread > 0, spread, 1.0))


def _signs(label: BoolArray | IntArray) -> list[FloatArray]:
    """A vector of +1 and -1 for each machine: one for two classes, else one per class."""
    present = np.unique(label)
    if len(present) < 2:
        raise StatisticsError(
            f"all {len(label)} cases with a known label are of one class, and the selection needs two; of survival, "
            "set label_days nearer to the cohort's median time"
        )
    return [np.where(label == name, 1.0, -1.0) for name in (present[1:] if len(present) == 2 else present)]


def labelled(Z: FloatArray, endpoint: Endpoint, label_days: float) -> tuple[FloatArray, Classes]:
    """The cases whose class is known, and their classes; of survival, alive after :func:`settled_days`."""
    if isinstance(endpoint, Classes):
        return Z, endpoint
    alive, known = survival_label(endpoint, settled_days(endpoint, label_days))
    return Z[known], Classes(alive[known].astype(int), ("not alive", "alive"))


def settled_days(endpoint: Survival, label_days: float) -> float:
    """The days after which cases are alive or not: ``label_days``, or the median time of these cases' events.

    The latter where all that is known after ``label_days`` is one class: before the first event, or beyond all
    follow-up. Of an even number of events it is the earlier middle one, beyond which there is an event still.

    >>> import numpy as np
    >>> late = Survival(np.array([500.0, 700.0, 900.0, 950.0]), np.array([True, True, True, False]))
    >>> settled_days(late, 365.0), settled_days(late, 600.0)
    (700.0, 600.0)
    """
    alive, known = survival_label(endpoint, label_days)
    times = sorted(endpoint.time_days[endpoint.event].tolist())
    if len(set(alive[known].tolist())) == 2 or not times:
        return label_days
    return float(times[(len(times) - 1) // 2])


def rank_svm_rfe(Z: FloatArray, endpoint: Endpoint, label_days: float, seed: list[int]) -> IntArray:
    """See :func:`modelling.selectors.svm_rfe.rank_features`; of survival, on "alive after label_days"."""
    known, classes = labelled(Z, endpoint, label_days)
    return rank_features(known, classes.label)


def rank_svm_rfe_rbf(Z: FloatArray, endpoint: Endpoint, label_days: float, seed: list[int]) -> IntArray:
    """See :func:`prognosis_dask.modelling.selectors.svm_rfe.rank_features_rbf`, a tenth of the features at a time."""
    known, classes = labelled(Z, endpoint, label_days)
    return rank_features_rbf(known, classes.label, share=0.1)
