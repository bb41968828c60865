"""Repeated nested cross-validation of whole procedures, on shared folds, as tasks of any ``map``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from prognosis_dask.arrays import FloatArray, IntArray, Map
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.fitted import fit_procedure
from prognosis_dask.modelling.procedure import Procedure
from prognosis_dask.modelling.spec import ValidationRule
from prognosis_dask.modelling.validation.splitting import expect_folds_can_learn, split_patients

#: Adds features that are learnt on training rows (given by position) to a table; a table for each of the folds' rows.
Extend: TypeAlias = Callable[[FeatureTable, Sequence[IntArray]], Iterable[FeatureTable]]


@dataclass(frozen=True, eq=False)
class FoldResult:
    """One procedure on one held-out fold.

    Attributes
    ----------
    procedure, repeat, fold
        Which; repeats and folds are counted from 0.
    train, test
        The training and the held-out cases' positions in the table.
    risk_score
        Of the held-out cases, higher is worse; two classes: the positive one's log odds; None for more.
    cutoff
        The training cases' median risk score; NaN where there is none.
    horizons_days, survival
        Times, and the held-out cases' probability of surviving them, shape (cases, horizons); None for classes.
    probability
        Of each class, shape (cases, classes); None for survival.
    features
        Those in the model.
    bounded
        How many of the model's features of each held-out case lay so far out that they were bounded, shape (cases,);
        None where that is not known.
    tuned
        The values of ``n_features`` and of what the learner takes that the training cases chose.
    """

    procedure: str
    repeat: int
    fold: int
    train: IntArray
    test: IntArray
    risk_score: FloatArray | None
    cutoff: float
    horizons_days: tuple[float, ...]
    survival: FloatArray | None
    probability: FloatArray | None
    features: tuple[str, ...]
    tuned: Mapping[str, float]
    bounded: IntArray | None = None

    @property
    def key(self) -> tuple[str, int, int]:
        """Procedure, repeat and fold."""
        return self.procedure, self.repeat, self.fold

    @property
    def columns(self) -> dict[str, Any]:
        """What a row of the fold, or of one of its cases, begins with."""
        return dict(zip(("procedure", "repeat", "fold"), self.key, strict=True))


def validate(
    table: FeatureTable,
    procedures: Mapping[str, Procedure],
    rule: ValidationRule | None = None,
    map: Map = map,
    extend: Extend | None = None,
    horizons_days: Sequence[float] = (),
) -> list[FoldResult]:
    """Validate every procedure on the same held-out folds, ``rule.repeats`` times ``rule.folds``.

    Patients are split, not cases, each fold with its share of every stratum of the endpoint. Within a training fold a
    procedure tunes itself by its own inner folds. There is one task per repeat, fold and procedure; the results depend
    on ``rule.seed``, not on how ``map`` orders or spreads them.

    Parameters
    ----------
    table
        All cases.
    procedures
        By name.
    rule
        Folds, repeats and seed of the outer cross-validation; None: the default ones.
    map
        Runs the tasks; called like the built-in one.
    extend
        Adds features that are themselves learnt (a network's, say): called once, with the table and the training rows
        of every outer fold.
    horizons_days
        Times at which survival is predicted.

    Returns
    -------
    list
        By repeat, then fold, then procedure.

    Raises
    ------
    StatisticsError
        When there are too few patients of a kind for the folds, or a training fold cannot carry a procedure.
    """
    rule = ValidationRule() if rule is None else rule
    if rule.folds < 2 or rule.repeats < 1 or not procedures:
        raise StatisticsError(
            f"{rule.folds} folds, {rule.repeats} repeats, {len(procedures)} procedures: expected 2, 1, 1 or more"
        )
    expect_folds_can_learn(table, rule.folds)
    splits = [
        (repeat, fold, np.flatnonzero(number == fold))
        for repeat in range(rule.repeats)
        for number in [split_patients(table, rule.folds, [rule.seed, repeat])]
        for fold in range(rule.folds)
    ]
    extended: list[FeatureTable | None] = [None] * len(splits)
    if extend is not None:
        extended = list(extend(table, [_rest(table, test) for _, _, test in splits]))
    tasks = [(*split, name, own) for split, own in zip(splits, extended, strict=True) for name in procedures]
    return list(map(partial(_run_task, table, dict(procedures), rule.seed, tuple(horizons_days)), tasks))


def beside(map: Map, function: Callable[[Any], Any], items: Sequence[Any]) -> tuple[Map, list[Any]]:
    """A ``map`` whose first call also runs other tasks, so that no worker waits for the last of either.

    Returns
    -------
    map
        To be called with one sequence of items.
    found
        What the other tasks give, once it has been called.
    """
    found: list[Any] = []

    def both(own: Callable[[Any], Any], own_items: Iterable[Any]) -> list[Any]:
        first, others = list(own_items), [] if found else items
        tasks = [(True, item) for item in first] + [(False, item) for item in others]
        results = list(map(partial(_either, own, function), tasks))
        found.extend(results[len(first) :])
        return results[: len(first)]

    return both, found


def _either(own: Callable[[Any], Any], other: Callable[[Any], Any], task: tuple[bool, Any]) -> Any:
    is_own, item = task
    return own(item) if is_own else other(item)


def _rest(table: FeatureTable, test: IntArray) -> IntArray:
    return np.setdiff1d(np.arange(len(table.case_ids)), test)


def _run_task(
    table: FeatureTable,
    procedures: Mapping[str, Procedure],
    seed: int,
    horizons: tuple[float, ...],
    task: tuple[int, int, IntArray, str, FeatureTable | None],
) -> FoldResult:
    repeat, fold, test, name, extended = task
    table = table if extended is None else extended
    train = _rest(table, test)
    try:
        fitted = fit_procedure(procedures[name], table.rows(train), [seed, repeat, fold])
        prediction = fitted.predict(table.rows(test))
    except StatisticsError as error:
        raise StatisticsError(f"procedure {name!r}, repeat {repeat}, fold {fold}: {error}") from error
    return FoldResult(
        name,
        repeat,
        fold,
        train,
        test,
        prediction.risk_score,
        float("nan") if fitted.cutoff is None else fitted.cutoff,
        horizons if prediction.survival else (),
        prediction.survival(np.array(horizons)) if prediction.survival else None,
        prediction.probability,
        fitted.chosen,
        fitted.tuned,
        fitted.bounded(table.rows(test)),
    )
