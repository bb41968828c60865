"""Inside the training cases: preparing, ranking, and the choice of the values that a procedure leaves open."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from prognosis_dask.arrays import FloatArray, IntArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Classes, Endpoint, Survival
from prognosis_dask.modelling.data.table import FeatureTable, of_families
from prognosis_dask.modelling.estimators import LEARNERS, Learner, Model, learner_for
from prognosis_dask.modelling.estimators.determined import named
from prognosis_dask.modelling.estimators.partial_likelihood import score_likelihood
from prognosis_dask.modelling.imputing import impute
from prognosis_dask.modelling.metrics.brier import brier_score, fit_censoring, integrated
from prognosis_dask.modelling.metrics.concordance import concordance
from prognosis_dask.modelling.preparing import Preparation, expect_finite, fit_preparation
from prognosis_dask.modelling.procedure import Procedure
from prognosis_dask.modelling.selectors import selector_for
from prognosis_dask.modelling.validation.splitting import split_patients

#: A case that a model held impossible costs no more than this.
_LEAST_PROBABILITY = 1e-6
#: The score where no inner fold has a comparable pair: below any other, above what cannot be fitted.
_UNKNOWN = -1e300
#: Shares of the events up to which the Brier score is integrated.
_BRIER_GRID = np.linspace(0.05, 0.95, 20)

#: From a model, the inner training cases and the held-out ones to how good it is; higher is better.
Criterion: TypeAlias = Callable[[Model, FloatArray, FloatArray], float]


@dataclass(frozen=True)
class Values:
    """One choice of what a procedure leaves open."""

    n_features: int
    penalty: float
    l1_ratio: float
    depth: int = 0
    rounds: int = 0

    def of(self, name: str) -> float:
        """The value of a procedure's field."""
        return float(getattr(self, {"mixing": "l1_ratio"}.get(name, name)))

    @property
    def shape(self) -> tuple[int, int]:
        """Of trees: their depth, and the rounds of boosting."""
        return self.depth, self.rounds


@dataclass(frozen=True, eq=False)
class Arranged:
    """Training cases, ready for any number of features.

    Attributes
    ----------
    preparation
        How their columns were prepared.
    Z
        The prepared columns.
    forced, ranked
        Positions in ``Z`` of the columns that always enter, and of those that were ranked, best first.
    drawn
        With multiple imputation: the prepared columns of each completed table; else empty.
    """

    preparation: Preparation
    Z: FloatArray
    forced: IntArray
    ranked: IntArray
    drawn: tuple[FloatArray, ...] = ()

    def columns(self, n_features: int) -> IntArray:
        """The columns of a model with so many selected features."""
        return np.concatenate([self.forced, self.ranked[:n_features]])


def arrange(procedure: Procedure, table: FeatureTable, seed: list[int]) -> Arranged:
    """Prepare and rank the columns, once for all values that are tried.

    Raises
    ------
    StatisticsError
        When the cases cannot carry it.
    """
    free = ~of_families(table.families, procedure.forced)
    imputation, drawn = impute(table.X, procedure.imputations, seed) if _imputes(procedure, table) else (None, [])
    preparation = fit_preparation(table, free, procedure, imputation)
    if not len(preparation.kept):
        raise StatisticsError(f"none of {table.X.shape[1]} features varies among {len(table.case_ids)} training cases")
    Z = preparation.apply(table.X, table.site)
    candidates = np.flatnonzero(free[preparation.kept])
    ranked = candidates
    if procedure.selector and len(candidates):
        selector = selector_for(procedure.selector, table.endpoint)
        ranked = candidates[selector.rank(Z[:, candidates], table.endpoint, procedure.label_days, seed)]
    prepared = tuple(preparation.apply(X, table.site) for X in drawn)
    return Arranged(preparation, Z, np.flatnonzero(~free[preparation.kept]), ranked, prepared)


def _imputes(procedure: Procedure, table: FeatureTable) -> bool:
    expect_finite(table)
    return procedure.imputations > 0 and bool(np.isnan(table.X).any())


def choose_values(procedure: Procedure, table: FeatureTable, seed: list[int]) -> Values:
    """The values that do best in inner cross-validation of the training cases; of equals the simplest.

    Columns are prepared and ranked anew in every inner training fold. What is best is said in :func:`judge`. Simplest:
    fewest features, then the weakest penalty, the first mixing, the shallowest trees, the fewest rounds. Values with
    which some inner training fold has no model are not chosen.

    Raises
    ------
    StatisticsError
        When the cases cannot carry it.
    """
    grid = _grid(procedure, int((~of_families(table.families, procedure.forced)).sum()))
    if len(grid) == 1:
        return grid[0]
    mean = judge(procedure, grid, table, seed)
    best = int(mean.argmax())
    if mean[best] == -np.inf:
        listed = " and ".join(", ".join(("n_features", *LEARNERS[procedure.learner].takes)).rsplit(", ", 1))
        raise StatisticsError(
            f"learner {procedure.learner!r}: none of {len(grid)} choices of {listed} could be "
            "fitted in every inner fold; add stronger penalties, or smaller numbers of features"
        )
    return grid[best]


def judge(procedure: Procedure, grid: Sequence[Values], table: FeatureTable, seed: list[int]) -> FloatArray:
    """How well each choice does, shape (choices,): the mean over the inner folds; higher is better.

    Survival, by ``procedure.tune_by``:

    * ``likelihood``: the cross-validated log partial likelihood (Verweij & van Houwelingen, Stat Med 12, 2305, 1993):
      that of all cases less that of the inner training cases, both by the model of the latter. So a held-out case is
      judged against all that were at risk with it, even where an inner fold has few events. Trees remember their
      training cases, which would favour the deepest: theirs is the partial likelihood of the held-out cases alone.
    * ``brier``: less the integrated Brier score (Graf 1999) of the held-out cases over the times of the events.
    * ``concordance``: Harrell's C of the held-out cases.

    Classes: the mean logarithm of the probability of the true class.
    """
    number = split_patients(table, procedure.inner_folds, seed)
    scores = np.array(
        [
            _scores(procedure, grid, table.rows(number != fold), table.rows(number == fold), [*seed, fold])
            for fold in range(procedure.inner_folds)
        ]
    )
    held = ~np.isnan(scores)
    mean = np.full(len(grid), _UNKNOWN)
    np.divide(np.where(held, scores, 0.0).sum(axis=0), held.sum(axis=0), out=mean, where=held.any(axis=0))
    return mean


def _grid(procedure: Procedure, most: int) -> list[Values]:
    """The choices, simplest first; there are ``most`` features to select from."""
    counts = sorted({min(count, most) for count in procedure.n_features}) if procedure.selector else [0]
    learner = LEARNERS[procedure.learner]
    penalties = sorted(set(procedure.penalty)) if "penalty" in learner.takes else [0.0]
    mixing = procedure.mixing if "mixing" in learner.takes else (0.0,)
    depths = sorted(set(procedure.depth or learner.depths)) if "depth" in learner.takes else [0]
    rounds = sorted(set(procedure.rounds or learner.rounds)) if "rounds" in learner.takes else [0]
    return [Values(*choice) for choice in product(counts, penalties, mixing, depths, rounds)]


def _scores(
    procedure: Procedure, grid: Sequence[Values], train: FeatureTable, test: FeatureTable, seed: list[int]
) -> list[float]:
    """Of each choice: how well the inner training cases predict the held-out ones; higher is better."""
    arranged = arrange(procedure, train, seed)
    Z = arranged.preparation.apply(test.X, test.site)
    learner = learner_for(procedure.learner, train.endpoint)
    criterion = _criterion(procedure, learner, train.endpoint, test.endpoint)
    found: dict[Values, float] = {}
    failed: StatisticsError | None = None
    for count in dict.fromkeys(values.n_features for values in grid):
        columns = arranged.columns(count if procedure.selector else len(arranged.ranked))
        known, held_out = arranged.Z[:, columns], Z[:, columns]
        for l1_ratio in dict.fromkeys(values.l1_ratio for values in grid):
            tried = [values for values in grid if values.n_features == count and values.l1_ratio == l1_ratio]
            penalties = list(dict.fromkeys(values.penalty for values in tried))
            shapes = list(dict.fromkeys(values.shape for values in tried))
            models = _fit(learner, known, train.endpoint, penalties, l1_ratio, shapes, seed)
            for values, model in zip(tried, models, strict=True):
                if isinstance(model, StatisticsError):
                    found[values] = -np.inf
                    failed = named(model, [train.features[i] for i in arranged.preparation.kept[columns]])
                else:
                    found[values] = criterion(model, known, held_out)
    if failed is not None and max(found.values()) == -np.inf:
        raise failed
    return [found[values] for values in grid]


def _fit(
    learner: Learner,
    Z: FloatArray,
    endpoint: Endpoint,
    penalties: list[float],
    l1_ratio: float,
    shapes: list[tuple[int, int]],
    seed: list[int],
) -> list[Model | StatisticsError]:
    """The model with each penalty of each shape, or why there is none."""
    try:
        return list(learner.models(Z, endpoint, penalties, l1_ratio, shapes, seed))
    except StatisticsError as error:
        if len(penalties) == 1:
            return [error] * len(shapes)
    return [model for penalty in penalties for model in _fit(learner, Z, endpoint, [penalty], l1_ratio, shapes, seed)]


def _criterion(procedure: Procedure, learner: Learner, train: Endpoint, test: Endpoint) -> Criterion:
    if isinstance(train, Survival) and isinstance(test, Survival):
        if procedure.tune_by == "likelihood" and learner.remembers:
            return _likelihood_alone(test)
        return CRITERIA[procedure.tune_by](train, test)
    assert isinstance(test, Classes)
    return partial(_log_loss, test)


def _likelihood(train: Survival, test: Survival) -> Criterion:
    both = _together(train, test)
    censoring = fit_censoring(both)  # one for both, so that they differ by the held-out cases alone
    everybody, known_ones = score_likelihood(both, censoring), score_likelihood(train, censoring)

    def judged(model: Model, known: FloatArray, held_out: FloatArray) -> float:
        score = np.concatenate([_risk(model, known), _risk(model, held_out)])
        whole, part = everybody(score), known_ones(score[: len(train)])
        return whole - part if np.isfinite([whole, part]).all() else -np.inf

    return judged


def _together(train: Survival, test: Survival) -> Survival:
    def joined(of: FloatArray | None, others: FloatArray | None) -> FloatArray | None:
        return None if of is None or others is None else np.concatenate([of, others])

    return Survival(
        np.concatenate([train.time_days, test.time_days]),
        np.concatenate([train.event, test.event]),
        joined(train.competing_days, test.competing_days),
        joined(train.entry_days, test.entry_days),
    )


def _likelihood_alone(test: Survival) -> Criterion:
    likelihood = score_likelihood(test)

    def judged(model: Model, known: FloatArray, held_out: FloatArray) -> float:
        value = likelihood(_risk(model, held_out))
        return value if np.isfinite(value) else -np.inf

    return judged


def _brier(train: Survival, test: Survival) -> Criterion:
    if train.entry_days is not None:
        raise StatisticsError(
            "tune_by is 'brier', and cases enter late: its weights do not hold then; take 'likelihood'"
        )
    both = _together(train, test)
    censoring = fit_censoring(both)
    grid = np.unique(np.quantile(both.time_days[both.event], _BRIER_GRID))
    grid = grid[grid < censoring.last_days]

    def judged(model: Model, known: FloatArray, held_out: FloatArray) -> float:
        if len(grid) < 2:
            return float("nan")
        survival = model.predict(held_out).survival
        assert survival is not None
        said = survival(grid)
        errors = [brier_score(test, said[:, i], days, censoring) for i, days in enumerate(grid.tolist())]
        return -float(integrated(grid, np.array(errors)))

    return judged


def _concordance(train: Survival, test: Survival) -> Criterion:
    def judged(model: Model, known: FloatArray, held_out: FloatArray) -> float:
        return concordance(test, _risk(model, held_out)).c_index

    return judged


def _log_loss(test: Classes, model: Model, known: FloatArray, held_out: FloatArray) -> float:
    probability = model.predict(held_out).probability
    assert probability is not None
    likelihood = probability[np.arange(len(test)), test.label]
    return float(np.log(np.maximum(likelihood, _LEAST_PROBABILITY)).mean())


def _risk(model: Model, Z: FloatArray) -> FloatArray:
    score = model.predict(Z).risk_score
    assert score is not None
    return score


#: By name what survival is tuned by: from the inner training and held-out endpoint to the judgement of a model.
CRITERIA: Mapping[str, Callable[[Survival, Survival], Criterion]] = MappingProxyType(
    {"likelihood": _likelihood, "brier": _brier, "concordance": _concordance}
)
