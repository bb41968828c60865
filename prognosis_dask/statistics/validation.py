"""Cross-validation of the whole procedure: scaling, selection, choice of k and Cox model see training folds only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from prognosis_dask.errors import StatisticsError
from prognosis_dask.job import ModelSection
from prognosis_dask.statistics.concordance import comparable_pairs, concordance
from prognosis_dask.statistics.cox import CoxModel, fit_cox
from prognosis_dask.statistics.endpoint import FloatArray, IntArray
from prognosis_dask.statistics.selection import rank_features, survival_label
from prognosis_dask.statistics.table import FeatureTable, varying

#: Numbers of features that are tried, besides ``max_features`` itself.
GRID = (1, 2, 5, 10, 20, 50, 100)
#: Folds within the training cases that the number of features is chosen on.
INNER_FOLDS = 3
#: What the bounds of :class:`Validation` are.
INTERVAL = "95 % percentile bootstrap over patients, the fitted models kept"
_DRAWS = 1000

#: Anything called like the built-in ``map``; the function and the items can be pickled.
Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


@dataclass(frozen=True)
class Fold:
    """One held-out fold.

    Attributes
    ----------
    repeat, fold
        Which, counted from 0.
    k
        The number of features that the training cases chose.
    events_test, c_index
        Events among the held-out cases, and their concordance; NaN where no pair is comparable.
    rows
        The held-out cases' positions in the table.
    risk
        Their risk score less the training cases' median: above zero is the high-risk group.
    """

    repeat: int
    fold: int
    k: int
    events_test: int
    c_index: float
    rows: IntArray
    risk: FloatArray


@dataclass(frozen=True)
class Validation:
    """Repeated cross-validation.

    Attributes
    ----------
    folds
        Every fold of every repeat.
    risk
        Each case's held-out :attr:`Fold.risk`, averaged over the repeats.
    c_index, lower, upper
        Mean of the folds' C-index, and its interval (:data:`INTERVAL`); NaN where no fold has a comparable pair.
    """

    folds: tuple[Fold, ...]
    risk: FloatArray
    c_index: float
    lower: float
    upper: float


def cross_validate(table: FeatureTable, section: ModelSection, map: Map = map) -> Validation:
    """Validate by ``section.repeats`` times ``section.folds``-fold cross-validation, split by patient.

    The result depends on ``section.seed``, not on how ``map`` orders or spreads its calls.

    Raises
    ------
    StatisticsError
        When a training fold cannot carry the selection or the model.
    """
    tasks = []
    for repeat in range(section.repeats):
        number = split_folds(table, section.folds, section.label_days, np.random.default_rng([section.seed, repeat]))
        tasks += [(repeat, fold, np.flatnonzero(number == fold)) for fold in range(section.folds)]
    folds = tuple(map(partial(_run_fold, table, section), tasks))
    risk = np.zeros(len(table.case_ids))
    for fold in folds:
        risk[fold.rows] += fold.risk / section.repeats
    lower, upper = _interval(table, folds, np.random.default_rng([section.seed, section.repeats]))
    return Validation(folds, risk, float(_mean(np.array([[fold.c_index] for fold in folds]))[0]), lower, upper)


def split_folds(table: FeatureTable, folds: int, label_days: float, rng: np.random.Generator) -> IntArray:
    """Deal the patients into folds; the fold's number of each row.

    All cases of a patient share a fold. Shuffled patients are dealt out like cards, kind after kind: dead at the
    label's time, event later, censored later, censored earlier. So each fold has its share of events and of both
    classes of the label, to within one patient.
    """
    alive, known = survival_label(table.time_days, table.event, label_days)
    kind = np.select([known & ~alive, table.event, known], [0, 1, 2], default=3)
    patients, first, patient = np.unique(table.patient_ids, return_index=True, return_inverse=True)
    shuffled = rng.permutation(len(patients))
    dealt = shuffled[np.argsort(kind[first][shuffled], kind="stable")]
    number = np.empty(len(patients), dtype=np.int64)
    number[dealt] = np.arange(len(patients)) % folds
    return np.asarray(number[patient])


def fit_selected(table: FeatureTable, section: ModelSection, seed: list[int]) -> tuple[IntArray, CoxModel]:
    """The whole procedure on the given cases: rank the features, choose k, fit the Cox model on the first k.

    Returns
    -------
    ranking
        Columns of the table that vary, best first.
    model
        On the first k of them.

    Raises
    ------
    StatisticsError
        When the cases cannot carry the selection or the model.
    """
    ranking = rank_columns(table, section)
    chosen = ranking[: choose_k(table, section, seed)]
    return ranking, _fit(table, chosen, section)


def rank_columns(table: FeatureTable, section: ModelSection) -> IntArray:
    """Columns that vary among the cases, ranked by SVM-RFE on the label "alive after ``label_days``"."""
    columns = varying(table.X)
    if not len(columns):
        raise StatisticsError(f"none of {table.X.shape[1]} features varies among {len(table.case_ids)} cases")
    alive, known = survival_label(table.time_days, table.event, section.label_days)
    return columns[rank_features(table.X[np.ix_(known, columns)], alive[known])]


def choose_k(table: FeatureTable, section: ModelSection, seed: list[int]) -> int:
    """The number of features with the best mean C-index in :data:`INNER_FOLDS` folds of the cases; of equals the least.

    Features are ranked anew in every inner training fold.
    """
    most = min(section.max_features, len(varying(table.X)))
    ks = sorted({k for k in GRID if k < most} | {most})
    number = split_folds(table, INNER_FOLDS, section.label_days, np.random.default_rng(seed))
    scores = []
    for fold in range(INNER_FOLDS):
        train, test = table.rows(number != fold), table.rows(number == fold)
        ranking = rank_columns(train, section)
        models = [(ranking[:k], _fit(train, ranking[:k], section)) for k in ks]
        scores.append([_score(model, test, columns) for columns, model in models])
    mean = _mean(np.array(scores))
    return ks[int(np.nanargmax(mean))] if np.isfinite(mean).any() else ks[0]


def _run_fold(table: FeatureTable, section: ModelSection, task: tuple[int, int, IntArray]) -> Fold:
    repeat, number, rows = task
    train, test = table.rows(np.setdiff1d(np.arange(len(table.case_ids)), rows)), table.rows(rows)
    ranking, model = fit_selected(train, section, [section.seed, repeat, number])
    columns = ranking[: len(model.features)]
    risk = model.risk_score(test.X[:, columns]) - np.median(model.risk_score(train.X[:, columns]))
    c_index = concordance(test.time_days, test.event, risk).c_index
    return Fold(repeat, number, len(columns), int(test.event.sum()), c_index, rows, risk)


def _fit(table: FeatureTable, columns: IntArray, section: ModelSection) -> CoxModel:
    names = [table.features[i] for i in columns]
    return fit_cox(table.X[:, columns], table.time_days, table.event, names, penalizer=section.penalizer)


def _score(model: CoxModel, test: FeatureTable, columns: IntArray) -> float:
    return concordance(test.time_days, test.event, model.risk_score(test.X[:, columns])).c_index


def _interval(table: FeatureTable, folds: Iterable[Fold], rng: np.random.Generator) -> tuple[float, float]:
    patients, patient = np.unique(table.patient_ids, return_inverse=True)
    times_drawn = rng.multinomial(len(patients), np.full(len(patients), 1 / len(patients)), size=_DRAWS)[:, patient]
    indices = np.full((len(list(folds)), _DRAWS), np.nan)
    for index, fold in zip(indices, folds, strict=True):
        before = comparable_pairs(table.time_days[fold.rows], table.event[fold.rows])
        won = before * (0.5 * (fold.risk[:, None] >= fold.risk) + 0.5 * (fold.risk[:, None] > fold.risk))
        drawn = times_drawn[:, fold.rows].astype(float)
        comparable = ((drawn @ before) * drawn).sum(axis=1)
        np.divide(((drawn @ won) * drawn).sum(axis=1), comparable, out=index, where=comparable > 0)
    mean = _mean(indices)
    if not np.isfinite(mean).any():
        return float("nan"), float("nan")
    lower, upper = np.nanpercentile(mean, [2.5, 97.5])
    return float(lower), float(upper)


def _mean(scores: FloatArray) -> FloatArray:
    """Mean over the rows, without NaN; NaN where nothing is left."""
    held = np.isfinite(scores)
    mean = np.full(scores.shape[1], np.nan)
    np.divide(np.where(held, scores, 0.0).sum(axis=0), held.sum(axis=0), out=mean, where=held.any(axis=0))
    return mean
