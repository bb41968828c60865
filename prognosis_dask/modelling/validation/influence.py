"""What single patients do to the figures that a report is read for: each left out in turn.

The held-out predictions are kept, and the figure is taken again without the patient. What leaving a patient out of the
training does to the final model's coefficients is in ``dfbeta`` (:func:`dfbeta_rows`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from prognosis_dask.arrays import BoolArray, FloatArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Classes, Survival, patient_sums
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.estimators.cox import ProportionalHazards
from prognosis_dask.modelling.estimators.partial_likelihood import likelihood_of
from prognosis_dask.modelling.final_tables import covariance
from prognosis_dask.modelling.fitted import Fitted
from prognosis_dask.modelling.metrics.brier import fit_censoring
from prognosis_dask.modelling.metrics.calibration import survival_slope
from prognosis_dask.modelling.metrics.classes import bootstrap_class_auc
from prognosis_dask.modelling.metrics.concordance import bootstrap_concordance
from prognosis_dask.modelling.metrics.cox_tests import nested_test
from prognosis_dask.modelling.metrics.intervals import mean_held
from prognosis_dask.modelling.metrics.measured import (
    bootstrap_repeats,
    case_means,
    extended,
    pooled,
    repeats,
    survival_at,
)
from prognosis_dask.modelling.table_spec import Row
from prognosis_dask.modelling.validation.added import added_pairs, centred
from prognosis_dask.modelling.validation.nested import FoldResult

#: Patients that are left out in turn: all, or so many with the most extreme held-out predictions.
PATIENTS = 100


def influence_rows(
    table: FeatureTable, results: Mapping[str, Sequence[FoldResult]], horizons: Sequence[float]
) -> list[Row]:
    """The rows of ``influence``: each procedure's headline figures without each of up to :data:`PATIENTS` patients.

    The figures are Harrell's C, the calibration slope at each horizon and the χ² of what the procedure adds to volume
    and stage; of classes the AUC. The greatest change of a figure comes first.

    Parameters
    ----------
    table
        The cases.
    results
        Folds by procedure.
    horizons
        In days; none for classes.
    """
    rows: list[Row] = []
    for name, folds in results.items():
        patients = _extreme(table, folds)
        kept = np.array(table.patient_ids) != np.array(patients)[:, None]
        for measure, horizon, values in _figures(table, name, folds, horizons, kept):
            change = values[1:] - values[0]
            for at in np.argsort(-np.abs(np.nan_to_num(change)), kind="stable").tolist():
                rows.append(
                    {
                        "procedure": name,
                        "measure": measure,
                        "horizon_days": horizon,
                        "patient_id": patients[at],
                        "value": float(values[0]),
                        "without": float(values[1 + at]),
                    }
                )
    return rows


def _extreme(table: FeatureTable, folds: Sequence[FoldResult]) -> list[str]:
    """The patients with the predictions furthest from the middle, in the table's order."""
    survival = isinstance(table.endpoint, Survival)
    said = case_means(folds, len(table.case_ids), centred if survival else _probability)
    far = np.nan_to_num(np.abs(said - np.nanmedian(said, axis=0)).max(axis=1), nan=-1.0)
    of_patient: dict[str, float] = {}
    for name, distance in zip(table.patient_ids, far.tolist(), strict=True):
        of_patient[name] = max(distance, of_patient.get(name, -1.0))
    furthest = set(sorted(of_patient, key=lambda name: -of_patient[name])[:PATIENTS])
    return [name for name in of_patient if name in furthest]


def _probability(result: FoldResult) -> FloatArray:
    assert result.probability is not None
    return result.probability


def _figures(
    table: FeatureTable, name: str, folds: Sequence[FoldResult], horizons: Sequence[float], kept: BoolArray
) -> Iterator[tuple[str, float | None, FloatArray]]:
    """Measure, horizon, and its value with all patients and without each, shape (1 + patients,)."""
    weight = np.concatenate([np.ones((1, kept.shape[1])), kept])
    if isinstance(table.endpoint, Classes):
        label = table.endpoint.label
        yield (
            "auc",
            None,
            _over_folds(folds, lambda f: bootstrap_class_auc(label[f.test], _probability(f), weight[:, f.test])),
        )
        return

    def harrell(fold: FoldResult) -> FloatArray:
        assert fold.risk_score is not None
        return bootstrap_concordance(table.survival.rows(fold.test), fold.risk_score, weight[:, fold.test])

    yield "harrell_c", None, _over_folds(folds, harrell)
    for horizon in horizons:
        if horizon < table.survival.observed_days.max():
            yield "calibration_slope", horizon, _slopes(table, folds, horizon, weight)
    for base, _, known, score in added_pairs(table, {name: folds}, both_ways=False):
        test = partial(_statistic, table, known, score)
        yield f"added_to_{base.replace(' + ', '_and_')}", None, np.array([test(rows) for rows in weight > 0])


def _over_folds(folds: Sequence[FoldResult], values: Callable[[FoldResult], FloatArray]) -> FloatArray:
    return mean_held(np.array([values(fold) for fold in folds]))


def _slopes(table: FeatureTable, folds: Sequence[FoldResult], horizon: float, weight: FloatArray) -> FloatArray:
    found, censoring = [], fit_censoring(table.survival)
    for repeat, of_repeat in enumerate(repeats(folds)):
        rows, risk = pooled(of_repeat, lambda fold: 1 - survival_at(fold, horizon))
        bootstrap_weights = weight[: len(weight) if repeat < bootstrap_repeats(len(table.case_ids)) else 1, rows]
        found.append(survival_slope(table.survival.rows(rows), risk, horizon, bootstrap_weights, censoring))
    return mean_held(np.array(extended(found)))


def _statistic(table: FeatureTable, known: FloatArray, score: FloatArray, kept: BoolArray) -> float:
    rows = kept & np.isfinite(known).all(axis=1) & np.isfinite(score).all(axis=1)
    patients, end = np.array(table.patient_ids)[rows], table.survival.rows(rows)
    try:
        return nested_test(known[rows], score[rows], end, patients).statistic
    except StatisticsError:
        return float("nan")


#: Rows of ``dfbeta``.
_MOST_DFBETA = 100


def dfbeta_rows(model: Fitted, table: FeatureTable) -> list[Row]:
    """The rows of ``dfbeta``: how fitting on a patient changes the final Cox model's coefficients, to first order.

    That is the patient's score residuals times the inverse of the penalised information, as R's ``dfbeta`` has it. None
    for other models, for an absolute penalty, and with no fewer features than events.
    """
    cox = model.model
    if not isinstance(cox, ProportionalHazards) or not isinstance(table.endpoint, Survival):
        return []
    if np.isnan(cox.standard_error).any() or len(cox.coefficient) >= table.endpoint.event.sum():
        return []
    Z, endpoint = model.prepared(table)[:, model.columns], table.endpoint
    order = endpoint.by_time()
    residuals = likelihood_of(Z, endpoint).residuals(cox.coefficient)[np.argsort(order)]
    inverse = covariance(Z, endpoint, cox, model.tuned["penalty"] * (1 - model.tuned["mixing"]))
    changes = patient_sums(residuals, table.patient_ids) @ inverse
    weight = model.preparation.weight[model.columns]
    scaled = changes / np.sqrt(np.diag(inverse))
    patients = np.unique(table.patient_ids).tolist()
    return [
        {
            "feature": model.chosen[column],
            "patient_id": patients[at],
            "dfbeta": float(changes[at, column] * weight[column]),
            "dfbetas": float(scaled[at, column]),
        }
        for at, column in (
            divmod(place, scaled.shape[1]) for place in np.argsort(-np.abs(scaled), axis=None)[:_MOST_DFBETA].tolist()
        )
    ]
