"""Repeated nested cross-validation of whole procedures, on shared folds, as tasks of any ``map``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from prognosis_dask.statistics.endpoint import FloatArray, IntArray
from prognosis_dask.statistics.procedure import Procedure
from prognosis_dask.statistics.table import FeatureTable

#: Anything called like the built-in ``map``; the function and the items can be pickled.
Map: TypeAlias = Callable[..., Iterable[Any]]
#: Adds features learnt on the training rows (given by position) to a table; called once in each outer fold.
Extend: TypeAlias = Callable[[FeatureTable, IntArray], FeatureTable]


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
    tuned
        The values of ``n_features``, ``penalty`` and ``mixing`` that the training cases chose.
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


def validate(
    table: FeatureTable,
    procedures: Mapping[str, Procedure],
    folds: int = 5,
    repeats: int = 20,
    seed: int = 0,
    map: Map = map,
    extend: Extend | None = None,
    horizons_days: Sequence[float] = (),
) -> list[FoldResult]:
    """Validate every procedure on the same ``repeats`` times ``folds`` held-out folds."""
    raise NotImplementedError
