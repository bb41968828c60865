"""The models that a procedure can end in, by name.

A learner takes prepared features (complete, standardised; see :mod:`prognosis_dask.modelling.preparing`) and fits one
model for each penalty, so that what they share is computed once. Its models are frozen dataclasses of numbers and
arrays: they are written by :mod:`prognosis_dask.modelling.fitted`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Protocol

from prognosis_dask.arrays import FloatArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Classes, Endpoint, Survival
from prognosis_dask.modelling.estimators.class_models import (
    Logistic,
    Perceptron,
    average_logistic,
    fit_logistic,
    fit_perceptron,
)
from prognosis_dask.modelling.estimators.cox import ProportionalHazards, average_hazards, fit_proportional_hazards
from prognosis_dask.modelling.estimators.failure_time import (
    FailureTime,
    LogLogisticAFT,
    LogNormalAFT,
    WeibullAFT,
    fit_failure_time,
)
from prognosis_dask.modelling.estimators.prediction import Prediction
from prognosis_dask.modelling.estimators.trees import (
    BoostedTrees,
    SurvivalForest,
    fit_boosted_trees,
    fit_survival_forest,
)


class Model(Protocol):
    """A fitted model."""

    def predict(self, Z: FloatArray) -> Prediction:
        """Predict cases from their prepared features, shape (cases, features)."""
        ...


@dataclass(frozen=True)
class Learner:
    """How a kind of model is fitted.

    Attributes
    ----------
    fit
        Called with ``(Z, endpoint, penalties, l1_ratio, seed)``; a model for each penalty. That of trees is called with
        ``shapes`` as well, pairs of depth and rounds; for each penalty a model of each shape.
    model
        The dataclass of its models.
    endpoints
        The kinds of endpoint that it models.
    takes
        What is tuned of it: fields of a procedure.
    depths, rounds
        Those of trees that are tried where the procedure names none.
    enters_late
        Whether it takes cases that were followed from later than day 0 on.
    average
        The model whose score is the mean of several models' scores; None: there is none of that kind.
    """

    fit: Callable[..., Sequence[Model]]
    model: type
    endpoints: tuple[type, ...]
    takes: tuple[str, ...] = ("penalty", "mixing")
    depths: tuple[int, ...] = ()
    rounds: tuple[int, ...] = ()
    enters_late: bool = False
    average: Callable[..., Model] | None = None

    @property
    def remembers(self) -> bool:
        """Whether it predicts its own training cases far better than others, as trees do."""
        return "depth" in self.takes

    def averaged(self, models: Sequence[Model]) -> Model:
        """The model whose score is the mean of the models' scores."""
        assert self.average is not None  # a procedure names no imputations otherwise
        return self.average(models)

    def models(
        self,
        Z: FloatArray,
        endpoint: Endpoint,
        penalties: Sequence[float],
        l1_ratio: float,
        shapes: Sequence[tuple[int, int]],
        seed: list[int],
    ) -> list[Model]:
        """For each penalty a model of each shape; learners without trees have one shape, whatever it is."""
        if "depth" in self.takes:
            return list(self.fit(Z, endpoint, penalties, l1_ratio, seed, shapes))
        return list(self.fit(Z, endpoint, penalties, l1_ratio, seed))


def _failure_time(kind: type[FailureTime]) -> Learner:
    return Learner(partial(fit_failure_time, kind), kind, (Survival,), enters_late=True)


LEARNERS: Mapping[str, Learner] = MappingProxyType(
    {
        "cox": Learner(
            fit_proportional_hazards, ProportionalHazards, (Survival,), enters_late=True, average=average_hazards
        ),
        "weibull-aft": _failure_time(WeibullAFT),
        "loglogistic-aft": _failure_time(LogLogisticAFT),
        "lognormal-aft": _failure_time(LogNormalAFT),
        "xgboost": Learner(
            fit_boosted_trees,
            BoostedTrees,
            (Survival, Classes),
            takes=("penalty", "mixing", "depth", "rounds"),
            depths=(1, 2, 3),
            rounds=(50, 100, 200),
        ),
        "survival-forest": Learner(
            fit_survival_forest, SurvivalForest, (Survival,), takes=("depth",), depths=(2, 4, 8)
        ),
        "logistic": Learner(fit_logistic, Logistic, (Classes,), average=average_logistic),
        "mlp": Learner(fit_perceptron, Perceptron, (Classes,)),
    }
)


def learner_for(name: str, endpoint: Endpoint) -> Learner:
    """The learner of that name.

    Raises
    ------
    StatisticsError
        When there is none, or it does not model such endpoints.
    """
    fitting = [known for known, learner in LEARNERS.items() if isinstance(endpoint, learner.endpoints)]
    if name not in fitting:
        kind = "survival" if isinstance(endpoint, Survival) else "classes"
        raise StatisticsError(f"learner {name!r} does not model {kind}; those that do: {', '.join(fitting)}")
    if isinstance(endpoint, Survival) and endpoint.entry_days is not None and not LEARNERS[name].enters_late:
        able = ", ".join(known for known in fitting if LEARNERS[known].enters_late)
        raise StatisticsError(f"learner {name!r} does not model delayed entry; those that do: {able}")
    return LEARNERS[name]
