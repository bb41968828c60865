"""A whole modelling procedure as plain data, and what fitting it on a table gives.

Everything that learns from the cases (imputation, scaling, harmonisation, pruning, selection, tuning, the model) is
part of the procedure: :func:`fit_procedure` sees the rows it is given and no others, so what is held out cannot leak.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from prognosis_dask.statistics.endpoint import FloatArray
from prognosis_dask.statistics.table import FeatureTable


@dataclass(frozen=True)
class Procedure:
    """What is done with a table of training cases; numbers, names and tuples only.

    Missing values become the training cases' median, and columns are standardised, always.

    Attributes
    ----------
    families
        The families of features that it may see; () for all.
    forced
        Families that enter the model as they are, past pruning and selection (clinical covariates, say).
    variance
        Columns whose variance, scaled to 0..1, is below it are dropped. Constant ones always are.
    correlation
        Of two columns whose absolute Spearman correlation is above it, the later one is dropped; 1 keeps all.
    harmonise
        "" or "combat": ComBat by the table's sites, learnt on the training cases.
    selector
        A name in :data:`prognosis_dask.statistics.selectors.SELECTORS`; "" keeps all columns.
    learner
        A name in :data:`prognosis_dask.statistics.learners.LEARNERS`.
    n_features, penalty, mixing
        The values that are tried by inner cross-validation: how many selected features enter the model, how strongly
        it is penalised, and which share of the penalty is absolute (lasso) instead of squared (ridge). One of each: no
        tuning.
    inner_folds
        Folds within the training cases that tuning uses.
    label_days
        Selectors of classes take "alive after so many days" as the label where the endpoint is survival.
    reproducible
        The features that selector "reproducibility" keeps.
    """

    families: tuple[str, ...] = ()
    forced: tuple[str, ...] = ()
    variance: float = 0.0
    correlation: float = 1.0
    harmonise: str = ""
    selector: str = "svm-rfe"
    learner: str = "cox"
    n_features: tuple[int, ...] = (1, 2, 5, 10, 20, 50, 100)
    penalty: tuple[float, ...] = (0.01, 0.1, 1.0)
    mixing: tuple[float, ...] = (0.0,)
    inner_folds: int = 3
    label_days: float = 365.0
    reproducible: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prediction:
    """What a fitted procedure says of cases.

    Attributes
    ----------
    risk_score
        Survival: shape (cases,), higher is worse. Two classes: the positive one's log odds. Else None.
    survival
        Survival: times in days, shape (t,), to the probability of surviving them, shape (cases, t). Else None.
    probability
        Classes: shape (cases, classes). Else None.
    """

    risk_score: FloatArray | None = None
    survival: Callable[[FloatArray], FloatArray] | None = None
    probability: FloatArray | None = None


@dataclass(frozen=True)
class Fitted:
    """A procedure fitted on a table: plain data.

    Attributes
    ----------
    procedure
        What was fitted.
    features, units
        The columns that a table must have, all that the procedure saw, and their units.
    source
        The training table's digests.
    chosen
        The features in the model.
    tuned
        The values of ``n_features``, ``penalty`` and ``mixing`` that the training cases chose.
    cutoff
        The training cases' median risk score: above it is the high-risk group.
    """

    procedure: Procedure
    features: tuple[str, ...]
    units: tuple[str, ...]
    source: Mapping[str, str]
    chosen: tuple[str, ...]
    tuned: Mapping[str, float]
    cutoff: float

    def predict(self, table: FeatureTable) -> Prediction:
        """Predict a table that has the same features, in any order; it may have more."""
        raise NotImplementedError

    def to_plain(self) -> tuple[dict[str, Any], dict[str, FloatArray]]:
        """What JSON holds, and the arrays."""
        raise NotImplementedError

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any], arrays: Mapping[str, FloatArray]) -> Fitted:
        """The inverse of :meth:`to_plain`."""
        raise NotImplementedError


def fit_procedure(procedure: Procedure, table: FeatureTable, seed: int | list[int]) -> Fitted:
    """Fit on the table's rows, and on nothing else.

    Raises
    ------
    StatisticsError
        When the cases cannot carry it.
    """
    raise NotImplementedError
