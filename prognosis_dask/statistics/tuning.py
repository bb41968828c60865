"""Inside the training cases: preparing, ranking, and the choice of the values that a procedure leaves open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from prognosis_dask.errors import StatisticsError
from prognosis_dask.statistics.concordance import concordance
from prognosis_dask.statistics.endpoint import Classes, Endpoint, FloatArray, IntArray, Survival
from prognosis_dask.statistics.learners import Learner, learner_for
from prognosis_dask.statistics.learners.prediction import Prediction
from prognosis_dask.statistics.preparing import Preparation, fit_preparation
from prognosis_dask.statistics.selectors import selector_for
from prognosis_dask.statistics.splitting import split_patients
from prognosis_dask.statistics.table import FeatureTable

if TYPE_CHECKING:
    from prognosis_dask.statistics.procedure import Procedure

#: A case that a model held impossible costs no more than this.
_LEAST_PROBABILITY = 1e-6
#: The score where no inner fold has a comparable pair: below any other, above what cannot be fitted.
_UNKNOWN = -1e300


@dataclass(frozen=True)
class Values:
    """One choice of what a procedure leaves open."""

    n_features: int
    penalty: float
    mixing: float


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
    """

    preparation: Preparation
    Z: FloatArray
    forced: IntArray
    ranked: IntArray

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
    free = ~np.isin(table.families, procedure.forced)
    preparation = fit_preparation(
        table,
        free,
        among=procedure.reproducible,
        harmonise=procedure.harmonise,
        variance=procedure.variance,
        correlation=procedure.correlation,
        balance_families=procedure.balance_families,
    )
    if not len(preparation.kept):
        raise StatisticsError(f"none of {table.X.shape[1]} features varies among {len(table.case_ids)} training cases")
    Z = preparation.apply(table.X, table.site)
    candidates = np.flatnonzero(free[preparation.kept])
    ranked = candidates
    if procedure.selector and len(candidates):
        selector = selector_for(procedure.selector, table.endpoint)
        ranked = candidates[selector.rank(Z[:, candidates], table.endpoint, procedure.label_days, seed)]
    return Arranged(preparation, Z, np.flatnonzero(~free[preparation.kept]), ranked)


def choose_values(procedure: Procedure, table: FeatureTable, seed: list[int]) -> Values:
    """The values that do best in inner cross-validation of the training cases; of equals the simplest.

    Columns are prepared and ranked anew in every inner training fold. Survival: the mean of the inner held-out
    folds' C-indices (Harrell's); classes: of their log losses. Simplest: fewest features, then the strongest penalty,
    then the first mixing. Values with which some inner training fold has no model are not chosen.

    Raises
    ------
    StatisticsError
        When the cases cannot carry it.
    """
    grid = _grid(procedure, int((~np.isin(table.families, procedure.forced)).sum()))
    if len(grid) == 1:
        return grid[0]
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
    best = int(mean.argmax())
    if mean[best] == -np.inf:
        raise StatisticsError(
            f"learner {procedure.learner!r}: none of {len(grid)} choices of n_features, penalty and mixing could be "
            "fitted in every inner fold; add stronger penalties, or smaller numbers of features"
        )
    return grid[best]


def _grid(procedure: Procedure, most: int) -> list[Values]:
    """The choices, simplest first; there are ``most`` features to select from."""
    counts = sorted({min(count, most) for count in procedure.n_features}) if procedure.selector else [0]
    penalties = sorted(set(procedure.penalty), reverse=True)
    return [Values(k, penalty, mixing) for k in counts for penalty in penalties for mixing in procedure.mixing]


def _scores(
    procedure: Procedure, grid: list[Values], train: FeatureTable, test: FeatureTable, seed: list[int]
) -> list[float]:
    """Of each choice: how well the inner training cases predict the held-out ones; higher is better."""
    arranged = arrange(procedure, train, seed)
    Z = arranged.preparation.apply(test.X, test.site)
    learner = learner_for(procedure.learner, train.endpoint)
    found: dict[Values, float] = {}
    failed = ""
    for count in dict.fromkeys(values.n_features for values in grid):
        columns = arranged.columns(count if procedure.selector else len(arranged.ranked))
        for mixing in procedure.mixing:
            tried = [values for values in grid if values.n_features == count and values.mixing == mixing]
            penalties = [values.penalty for values in tried]
            predicted = _predict(
                learner, arranged.Z[:, columns], train.endpoint, Z[:, columns], penalties, mixing, seed
            )
            for values, prediction in zip(tried, predicted, strict=True):
                found[values] = -np.inf if isinstance(prediction, str) else _score(prediction, test.endpoint)
                failed = prediction if isinstance(prediction, str) else failed
    if failed and max(found.values()) == -np.inf:
        raise StatisticsError(failed)
    return [found[values] for values in grid]


def _predict(
    learner: Learner,
    train: FloatArray,
    endpoint: Endpoint,
    test: FloatArray,
    penalties: list[float],
    mixing: float,
    seed: list[int],
) -> list[Prediction | str]:
    """The prediction with each penalty, or why there is no such model."""
    try:
        return [model.predict(test) for model in learner.fit(train, endpoint, penalties, mixing, seed)]
    except StatisticsError as error:
        if len(penalties) == 1:
            return [str(error)]
    one_by_one = [_predict(learner, train, endpoint, test, [penalty], mixing, seed) for penalty in penalties]
    return [prediction for (prediction,) in one_by_one]


def _score(prediction: Prediction, endpoint: Endpoint) -> float:
    if isinstance(endpoint, Survival):
        assert prediction.risk_score is not None
        return concordance(endpoint.time_days, endpoint.event, prediction.risk_score).c_index
    assert isinstance(endpoint, Classes)
    assert prediction.probability is not None
    likelihood = prediction.probability[np.arange(len(endpoint)), endpoint.label]
    return float(np.log(np.maximum(likelihood, _LEAST_PROBABILITY)).mean())
