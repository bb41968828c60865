"""A frozen model on another cohort: what must agree, what is only warned of, what it predicts, how well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prognosis_dask.arrays import BoolArray, FloatArray, IntArray
from prognosis_dask.cohort.endpoints import DAYS
from prognosis_dask.errors import StatisticsError, count
from prognosis_dask.modelling.data.endpoint import Classes, Survival
from prognosis_dask.modelling.data.families import kind_of
from prognosis_dask.modelling.data.feature_origin import digests, other_origin, source_label
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.estimators.prediction import Prediction
from prognosis_dask.modelling.saved import QUANTILES, Frozen, patient_digests, row_digests
from prognosis_dask.modelling.table_spec import Row
from prognosis_dask.modelling.validation.nested import FoldResult

#: A feature of which more than this share of cases lies outside the training range is named in a warning.
_SHARE_OUTSIDE = 0.05
#: So many continuous features with a training case's values make a case that one.
_TELLING = 2
#: IDs are proof where at least so many are training patients' and so large a share of these has their features.
_FEWEST_NAMED, _SHARE_EQUAL = 10, 0.9
#: Medians of follow-up this many times apart are warned of.
_OTHER_ORDER = 5.0


def expect_agreement(
    frozen: Frozen, table: FeatureTable, *, where: str = "the table", model: str = "the model"
) -> list[str]:
    """Refuse a table whose features are not the model's; what it does not say is warned of.

    Compared are the features' names and units, and what they depend on: radiomics parameters, network, weights.

    Parameters
    ----------
    where, model
        What the message calls the table and the model.

    Returns
    -------
    list of str
        Warnings.

    Raises
    ------
    StatisticsError
        When features are missing, units or parameters differ; names them with both values.
    """
    position = {name: i for i, name in enumerate(table.features)}
    fitted = frozen.fitted
    absent = [name for name in fitted.features if name not in position]
    if absent:
        raise StatisticsError(
            f"{where} lacks {len(absent)} of the model's {count(len(fitted.features), 'feature')}: "
            f"{', '.join(absent[:5])}{', ...' if len(absent) > 5 else ''}"
        )
    units = zip(fitted.features, fitted.units, strict=True)
    differing = [(name, unit) for name, unit in units if unit and table.units[position[name]] not in ("", unit)]
    if differing:
        name, unit = differing[0]
        raise StatisticsError(
            f"{count(len(differing), 'feature')} in another unit than the model's: {name} is in "
            f"{table.units[position[name]]!r}, expected {unit!r}"
        )
    expected = model_source(frozen, table)
    for what, value in expected.items():
        seen = table.source.get(what)
        if seen is not None and seen != value:
            raise StatisticsError(other_origin(what, table.source, frozen.fitted.source, where, model))
    unsaid = [source_label(what) for what in expected if what not in table.source]
    if unsaid:
        return [f"The table does not say with which {', '.join(unsaid)} its features were made; the model's are known."]
    return []


def model_source(frozen: Frozen, table: FeatureTable) -> Mapping[str, str]:
    """What the model's own features depend on: the part of the source of the families that it has."""
    needed = set(frozen.fitted.features)
    kinds = {kind_of(family) for name, family in zip(table.features, table.families, strict=True) if name in needed}
    return {what: v for what, v in digests(frozen.fitted.source).items() if what.partition(".")[0] in kinds}


@dataclass(frozen=True)
class Overlap:
    """How many cases the model was fitted on, by what is known of them.

    Attributes
    ----------
    by_values
        Cases with the value of one training case in every feature, at least two of them continuous.
    by_id
        Others with the ID of a training patient and all its features, where that holds for nearly all with such IDs.
    same_id
        Others with the ID of a training patient and other features.
    """

    by_values: int
    by_id: int
    same_id: int

    @property
    def in_training(self) -> int:
        """Cases that the model was fitted on."""
        return self.by_values + self.by_id

    @property
    def ground(self) -> str:
        """By what they are known."""
        grounds = ("their continuous features", self.by_values), ("their patients' IDs and all features", self.by_id)
        return " and ".join(what for what, cases in grounds if cases)

    def notes(self, cases: int) -> list[str]:
        """What is to be said of it, of so many cases."""
        notes = []
        if self.in_training:
            notes.append(
                f"The model was fitted on {self.in_training} of these {count(cases, 'case')}: known by {self.ground}."
            )
        if self.same_id:
            notes.append(
                f"{count(self.same_id, 'case')} of {cases} with the ID of a training patient and other features: if "
                "these are the same patients, this is no external validation."
            )
        return notes


def training_overlap(frozen: Frozen, table: FeatureTable) -> Overlap:
    """The cases that the model was fitted on. Equal categories are no proof, nor is an ID that two cohorts may use."""
    position = {name: i for i, name in enumerate(table.features)}
    at = [position[name] for name, telling in zip(frozen.fitted.features, frozen.telling, strict=True) if telling]
    told = np.isfinite(table.X[:, at]).sum(axis=1) >= _TELLING
    rows = row_digests(frozen.fitted, table)
    by_values = told & np.isin(rows, frozen.rows)
    known = set(zip(frozen.patients.tolist(), frozen.rows.tolist(), strict=False))
    patients = patient_digests(frozen.quantiles, table.patient_ids)
    named = np.isin(patients, frozen.patients)
    equal = np.array([pair in known for pair in zip(patients.tolist(), rows.tolist(), strict=True)], dtype=bool)
    proven = named.sum() >= _FEWEST_NAMED and equal.sum() >= _SHARE_EQUAL * named.sum()
    by_id = equal & ~by_values & bool(proven)
    return Overlap(int(by_values.sum()), int(by_id.sum()), int((named & ~by_values & ~by_id).sum()))


def endpoint_warnings(frozen: Frozen, table: FeatureTable) -> list[str]:
    """How the endpoint differs from the model's: competing events, late entry, the range of times."""
    return [*_competing_warnings(frozen, table), *_entry_warnings(frozen, table), *_follow_up_warnings(frozen, table)]


def _competing_warnings(frozen: Frozen, table: FeatureTable) -> list[str]:
    fitted = "n_competing" in frozen.counts
    here = isinstance(table.endpoint, Survival) and table.endpoint.competing_days is not None
    if frozen.classes or fitted == here:
        return []
    whose, others = ("the model's training cases", "these cases") if fitted else ("these cases", "its training cases")
    return [
        f"There are competing events among {whose}, and none among {others}: the model's survival is "
        f"{'freedom from the event while others compete' if fitted else 'that without competing events'}, and these "
        "cases do not measure that. event_codes in [endpoint] says which code is a competing event."
    ]


def _entry_warnings(frozen: Frozen, table: FeatureTable) -> list[str]:
    """A warning where the model's cases entered late and nothing says so of these: all were then at risk from day 0."""
    late = frozen.counts.get("n_entered_late", 0)
    if not late or (isinstance(table.endpoint, Survival) and table.endpoint.entry_days is not None):
        return []
    return [
        f"{late} of the model's training cases entered late, and these cases are taken as followed from day 0 on. If "
        "they entered late too, all measures are wrong: --set endpoint.entry=COLUMN names the time of entry."
    ]


def _follow_up_warnings(frozen: Frozen, table: FeatureTable) -> list[str]:
    """A warning where times are of another order than those that the model was fitted on: in another unit, it may be.

    Compared are the medians of the distinct times.
    """
    if frozen.classes or not frozen.survival_by_group:
        return []
    ours = float(np.median(np.unique(np.concatenate([curve[0] for curve in frozen.survival_by_group.values()]))))
    theirs = float(np.median(np.unique(table.survival.observed_days)))
    ratio = ours / theirs
    if 1 / _OTHER_ORDER < ratio < _OTHER_ORDER:
        return []
    unit = min(DAYS, key=lambda name: abs(np.log(DAYS[name] / ratio)))
    meant = f"Are these times in {unit} (--set endpoint.time_unit={unit})? " if unit != "days" else ""
    return [
        f"Follow-up is {theirs:.3g} days at the median, that of the model's training cases {ours:.3g} days. {meant}"
        "Predictions and measures at the horizons hold only for the model's unit of time."
    ]


def range_warnings(frozen: Frozen, table: FeatureTable) -> list[str]:
    """What of the cohort lies outside of what the model was fitted on: features, risk scores, missing values."""
    fitted = frozen.fitted
    X, outside = _model_columns(frozen, table)
    share = outside.mean(axis=0)
    warnings = []
    far = np.flatnonzero(share > _SHARE_OUTSIDE)
    if len(far):
        worst = far[np.argsort(-share[far])][:3]
        named = ", ".join(f"{fitted.chosen[i]} ({share[i]:.0%})" for i in worst)
        warnings.append(
            f"Outside their training range in more than {_SHARE_OUTSIDE:.0%} of the cases: {len(far)} of the model's "
            f"{count(len(fitted.chosen), 'feature')}, {named}{', ...' if len(far) > 3 else ''}. There the model "
            "extrapolates."
        )
    warnings += _moved_warnings(frozen, X)
    cases = np.flatnonzero(fitted.bounded(table))
    if len(cases):
        named = ", ".join(table.case_ids[i] for i in cases[:5])
        warnings.append(
            f"{count(len(cases), 'case')} lay far outside the training range; their features were capped "
            f"{fitted.procedure.bound_margin:g} SD beyond it: {named}"
            f"{', ...' if len(cases) > 5 else ''}."
        )
    empty = np.isnan(X).mean(axis=0)
    if (empty > 0).any():
        named = ", ".join(f"{fitted.chosen[i]} ({empty[i]:.0%})" for i in np.argsort(-empty)[:3] if empty[i])
        warnings.append(f"Missing values were {fitted.completes}: {named}.")
    return warnings


def _moved_warnings(frozen: Frozen, X: FloatArray) -> list[str]:
    """A warning of features of which half of the cases lie beyond 95 % of the training cases: another unit, perhaps."""
    if len(X) < _FEWEST_NAMED:
        return []
    position = {name: i for i, name in enumerate(frozen.fitted.features)}
    at = [position[name] for name in frozen.fitted.chosen]
    low, usual, high = (frozen.quantiles[QUANTILES.index(q), at] for q in (0.05, 0.5, 0.95))
    middle = np.array([np.median(x[np.isfinite(x)]) if np.isfinite(x).any() else np.nan for x in X.T])
    moved = np.flatnonzero((low < high) & ((middle < low) | (middle > high)))
    if not len(moved):
        return []
    named = ", ".join(f"{frozen.fitted.chosen[i]} (median {middle[i]:.4g}, not {usual[i]:.4g})" for i in moved[:3])
    return [
        f"Half of the cases lie beyond 95 % of the training cases in {len(moved)} of the model's "
        f"{count(len(at), 'feature')}: {named}{', ...' if len(moved) > 3 else ''}. In another unit?"
    ]


def prediction_rows(frozen: Frozen, table: FeatureTable, prediction: Prediction) -> list[Row]:
    """One row per case: its score and group and its survival at the horizons, or its class with the probabilities.

    ``outside_training`` and ``missing`` count the model's features that lie outside of the training cases' range, and
    those that are missing and completed; ``bounded`` those so far out that they were bounded.
    """
    X, outside = _model_columns(frozen, table)
    columns: dict[str, Sequence[Any]] = {"case_id": table.case_ids, "patient_id": table.patient_ids}
    cutoff = frozen.fitted.cutoff
    if prediction.risk_score is not None and cutoff is not None and not frozen.classes:
        columns["risk_score"] = prediction.risk_score.tolist()
        columns["group"] = np.where(prediction.risk_score > cutoff, "high", "low").tolist()
    if prediction.survival is not None:
        survival = prediction.survival(np.array(frozen.horizons_days))
        for days, values in zip(frozen.horizons_days, survival.T, strict=True):
            columns[f"survival_{days:g}"] = values.tolist()
    if prediction.probability is not None:
        columns["class"] = [frozen.classes[i] for i in prediction.probability.argmax(axis=1)]
        for name, values in zip(frozen.classes, prediction.probability.T, strict=True):
            columns[f"probability_{name}"] = values.tolist()
    columns["outside_training"] = outside.sum(axis=1).tolist()
    columns["bounded"] = frozen.fitted.bounded(table).tolist()
    columns["missing"] = np.isnan(X).sum(axis=1).tolist()
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def external_result(frozen: Frozen, table: FeatureTable, times_days: Sequence[float], name: str) -> FoldResult:
    """The model's predictions as one held-out fold of all cases, for evaluation.

    Raises
    ------
    StatisticsError
        When the cohort's endpoint is of another kind, or has other classes.
    """
    endpoint = table.endpoint
    if frozen.classes != (endpoint.names if isinstance(endpoint, Classes) else ()):
        seen = f"the classes {', '.join(endpoint.names)}" if isinstance(endpoint, Classes) else "survival"
        expected = f"the classes {', '.join(frozen.classes)}" if frozen.classes else "survival"
        raise StatisticsError(f"the cohort's endpoint is {seen}, and the model predicts {expected}")
    prediction = frozen.fitted.predict(table)
    rows: IntArray = np.arange(len(table.case_ids))
    times = np.array(times_days, dtype=float)
    survival: FloatArray | None = prediction.survival(times) if prediction.survival is not None else None
    return FoldResult(
        procedure=name,
        repeat=0,
        fold=0,
        train=rows[:0],
        test=rows,
        risk_score=prediction.risk_score,
        cutoff=np.nan if frozen.fitted.cutoff is None else frozen.fitted.cutoff,
        horizons_days=tuple(times.tolist()) if survival is not None else (),
        survival=survival,
        probability=prediction.probability,
        features=frozen.fitted.chosen,
        tuned=frozen.fitted.tuned,
        bounded=frozen.fitted.bounded(table),
    )


def _model_columns(frozen: Frozen, table: FeatureTable) -> tuple[FloatArray, BoolArray]:
    """The features in the model, and where they lie outside of their training range."""
    position = {name: i for i, name in enumerate(table.features)}
    X = table.X[:, [position[name] for name in frozen.fitted.chosen]]
    least, greatest = frozen.limits(frozen.fitted.chosen)
    return X, np.less(X, least) | np.greater(X, greatest)
