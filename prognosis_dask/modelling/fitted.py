"""A procedure fitted on a table.

Everything that learns from the cases (imputation, scaling, harmonisation, pruning, selection, tuning, the model) is
part of the procedure: :func:`fit_procedure` sees the rows it is given and no others, so what is held out cannot leak.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, TypeVar, get_args, get_type_hints

import numpy as np

from prognosis_dask.arrays import AnyArray, FloatArray, IntArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Classes
from prognosis_dask.modelling.data.feature_origin import digests, other_origin
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.estimators import LEARNERS, Model, learner_for
from prognosis_dask.modelling.estimators.cox import coefficient_rows
from prognosis_dask.modelling.estimators.determined import naming
from prognosis_dask.modelling.estimators.failure_time import LogLogisticAFT, LogNormalAFT
from prognosis_dask.modelling.estimators.prediction import Prediction
from prognosis_dask.modelling.estimators.scores import one_thread
from prognosis_dask.modelling.preparing import Preparation, expect_finite
from prognosis_dask.modelling.procedure import Procedure, visible
from prognosis_dask.modelling.table_spec import Row
from prognosis_dask.modelling.tuning import arrange, choose_values

Kind = TypeVar("Kind")


@dataclass(frozen=True, eq=False)
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
    classes
        The classes' names; () for survival.
    preparation
        How columns are prepared.
    columns
        Positions in the prepared columns of those in the model.
    chosen
        Their features' names; ``forced`` ones first, then the best of the ranking.
    tuned
        The values of ``n_features`` and of what the learner takes that the training cases chose.
    model
        The fitted model.
    cutoff
        The training cases' median risk score: above it is the high-risk group. None where there is no risk score.
    """

    procedure: Procedure
    features: tuple[str, ...]
    units: tuple[str, ...]
    source: Mapping[str, str]
    classes: tuple[str, ...]
    preparation: Preparation
    columns: IntArray
    chosen: tuple[str, ...]
    tuned: Mapping[str, float]
    model: Model
    cutoff: float | None

    @property
    def completes(self) -> str:
        """What missing values are taken as, in words."""
        if self.preparation.imputation is None:
            return "taken as the training cases' median"
        return "estimated from the other features (the training cases' median where none of these lacked it)"

    def predict(self, table: FeatureTable) -> Prediction:
        """Predict a table that has the same features, in any order; it may have more.

        Raises
        ------
        StatisticsError
            When a feature is missing, has another unit, or the features come from other parameters or weights.
        """
        with one_thread():
            return self.model.predict(self.prepared(table)[:, self.columns])

    def prepared(self, table: FeatureTable) -> FloatArray:
        """All prepared columns of a table, shape (cases, kept columns): complete, harmonised, standardised."""
        at = self._positions(table)
        expect_finite(table)
        return self.preparation.apply(table.X[:, at], table.site)

    def bounded(self, table: FeatureTable) -> IntArray:
        """How many of the model's features of each case lie so far out that they are bounded, shape (cases,)."""
        found = self.preparation.bounded(table.X[:, self._positions(table)], table.site)
        return np.asarray(found[:, self.columns].sum(axis=1), dtype=np.int64)

    def coefficients(self) -> list[Row]:
        """One row per feature of a linear model, per standard deviation; none for a model that is not linear.

        The rows of ``coefficients``, with NaN for what an absolute penalty, or more features than cases, leave
        undefined. Of two classes, ``hazard_ratio`` is the odds ratio; of Weibull's model,
        that of its proportional hazards. Log-logistic and log-normal models have no hazard ratios, and no rows.
        """
        coefficient = getattr(self.model, "coefficient", None)
        if coefficient is None or len(self.classes) > 2 or isinstance(self.model, LogLogisticAFT | LogNormalAFT):
            return []
        if self.classes:
            coefficient = coefficient[1]
        coefficient = coefficient * -getattr(self.model, "shape", -1.0)
        error = getattr(self.model, "standard_error", np.full(len(coefficient), np.nan))
        weight = self.preparation.weight[self.columns]
        return coefficient_rows(self.chosen, coefficient * weight, error * weight)

    def to_plain(self) -> tuple[dict[str, Any], dict[str, AnyArray]]:
        """What JSON holds, and the arrays by name."""
        return _take_apart(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any], arrays: Mapping[str, AnyArray]) -> Fitted:
        """The inverse of :meth:`to_plain`."""
        # models of before there was a choice were tuned by their concordance, and bounded nothing
        before = {"tune_by": "concordance", "bound": False, "bound_margin": 1.0}
        plain = {**plain, "procedure": {**before, **plain["procedure"]}}
        kinds = {"model": LEARNERS[plain["procedure"]["learner"]].model}
        return _put_together(cls, plain, arrays, kinds=kinds)

    def _positions(self, table: FeatureTable) -> IntArray:
        position = {name: i for i, name in enumerate(table.features)}
        missing = [name for name in self.features if name not in position]
        if missing:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise StatisticsError(f"the table lacks features of the model: {', '.join(missing[:5])}{more}")
        at = np.array([position[name] for name in self.features], dtype=np.int64)
        for name, unit, column in zip(self.features, self.units, at, strict=True):
            if table.units[column] != unit:
                raise StatisticsError(
                    f"feature {name} is in {table.units[column] or 'no unit'}, the model's in {unit or 'no unit'}"
                )
        for key, value in digests(self.source).items():
            if table.source.get(key, value) != value:
                raise StatisticsError(other_origin(key, table.source, self.source))
        return at


def fit_procedure(procedure: Procedure, table: FeatureTable, seed: int | list[int]) -> Fitted:
    """Fit on the table's rows, and on nothing else.

    The result depends on the rows, the procedure and the seed; linear algebra runs on one thread, so that it does not
    depend on the machine's.

    Raises
    ------
    StatisticsError
        When the cases cannot carry it.
    """
    seed = [seed] if isinstance(seed, int) else seed
    table = visible(procedure, table)
    learner = learner_for(procedure.learner, table.endpoint)
    with one_thread():
        values = choose_values(procedure, table, seed)
        arranged = arrange(procedure, table, seed)
        columns = arranged.columns(values.n_features if procedure.selector else len(arranged.ranked))
        names = np.array(table.features)[arranged.preparation.kept[columns]]
        Z = arranged.Z[:, columns]
        with naming(names.tolist()):
            fits = [
                learner.models(each, table.endpoint, [values.penalty], values.l1_ratio, [values.shape], seed)[0]
                for each in ([drawn[:, columns] for drawn in arranged.drawn] or [Z])
            ]
        model = fits[0] if len(fits) == 1 else learner.averaged(fits)
        risk = model.predict(Z).risk_score
    return Fitted(
        procedure,
        table.features,
        table.units,
        dict(table.source),
        table.endpoint.names if isinstance(table.endpoint, Classes) else (),
        arranged.preparation,
        columns,
        tuple(names.tolist()),
        {"n_features": len(columns) - len(arranged.forced), **{name: values.of(name) for name in learner.takes}},
        model,
        None if risk is None else float(np.median(risk)),
    )


def _take_apart(value: Any, prefix: str = "") -> tuple[dict[str, Any], dict[str, AnyArray]]:
    """Take a dataclass apart: its arrays by dotted name, and the rest as JSON can hold it."""
    plain: dict[str, Any] = {}
    arrays: dict[str, AnyArray] = {}
    for field in fields(value):
        part = getattr(value, field.name)
        if isinstance(part, np.ndarray):
            arrays[prefix + field.name] = part
        elif is_dataclass(part):
            plain[field.name], below = _take_apart(part, f"{prefix}{field.name}.")
            arrays |= below
        else:
            plain[field.name] = dict(part) if isinstance(part, Mapping) else part
    return plain, arrays


def _put_together(
    kind: type[Kind],
    plain: Mapping[str, Any],
    arrays: Mapping[str, AnyArray],
    prefix: str = "",
    kinds: Mapping[str, type] | None = None,
) -> Kind:
    """Put a dataclass together again; ``kinds`` names the dataclass of fields whose annotation does not."""
    hints = get_type_hints(kind)
    parts: dict[str, Any] = {}
    for field in fields(kind):  # type: ignore[arg-type]
        name = field.name
        inner = (kinds or {}).get(name) or next(
            (t for t in (hints[name], *get_args(hints[name])) if is_dataclass(t)), None
        )
        if prefix + name in arrays:
            parts[name] = arrays[prefix + name]
        elif inner is not None and plain.get(name) is not None:
            parts[name] = _put_together(inner, plain[name], arrays, f"{prefix}{name}.")  # type: ignore[arg-type]
        elif name not in plain and field.default is not MISSING:
            parts[name] = field.default  # of a file that was written before there was such a field
        else:
            parts[name] = tuple(plain[name]) if isinstance(plain[name], list) else plain[name]
    return kind(**parts)
