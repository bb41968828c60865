"""From the feature dataset to the tables of ``models/``."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prognosis_dask.errors import StatisticsError
from prognosis_dask.job import ModelSection
from prognosis_dask.statistics.cox import CoxModel, cox_curve
from prognosis_dask.statistics.endpoint import IntArray
from prognosis_dask.statistics.selection import survival_label
from prognosis_dask.statistics.table import FeatureTable, table_from_dataset
from prognosis_dask.statistics.validation import (
    GRID,
    INNER_FOLDS,
    INTERVAL,
    Map,
    Validation,
    cross_validate,
    fit_selected,
)
from prognosis_dask.store.publish import publish_folder, staging

if TYPE_CHECKING:
    import xarray as xr

#: Fewest patients with the event, and fewest in each class of the label, whatever the number of folds.
_FEWEST_EVENTS, _FEWEST_IN_CLASS = 10, 6


def fit_models(dataset: xr.Dataset, section: ModelSection, folder: Path, map: Map = map) -> dict[str, Any]:
    """Fit and validate the survival model, and write its folder (replaced as a whole).

    ================  ==================================================================================
    ranking.csv       rank, feature: all cases, SVM-RFE, best first
    curve.csv         k, c_index_in_sample: the Cox model on the first k features, all cases
    validation.csv    repeat, fold, k, n_test, events_test, c_index: held-out folds
    coefficients.csv  feature, coef, se, hazard_ratio, lower_95, upper_95, p: the final model, all cases
    risk.csv          case_id, patient_id, time_days, event, risk_score, group: held-out, see below
    model.json        the final model: features, mean, scale, coefficient, cutoff
    summary.json      counts, figures and notes; what this function returns
    ================  ==================================================================================

    ``risk_score`` in risk.csv is the log hazard from models fitted without the patient, less the training cases'
    median, averaged over the repeats; ``group`` is ``high`` above zero. Where the cases cannot carry a model only
    summary.json is written, and ``not_fitted`` in it says why.

    Parameters
    ----------
    dataset
        See :func:`prognosis_dask.statistics.table.table_from_dataset`.
    section
        The job's ``[model]``.
    folder
        The models' folder.
    map
        Runs the folds; called like the built-in one.
    """
    summary: dict[str, Any] = {"features": section.features}
    with staging(folder) as work:
        staged = work / folder.name
        staged.mkdir()
        try:
            table, left_out = table_from_dataset(dataset, section.features)
            summary |= _counts(table) | {"left_out": left_out}
            _expect_enough(table, section)
            summary |= _fit_and_write(table, section, staged, map)
        except StatisticsError as error:
            for file in staged.iterdir():
                file.unlink()
            summary["not_fitted"] = str(error)
        text = json.dumps(summary, indent=2, allow_nan=False)
        (staged / "summary.json").write_text(text + "\n", encoding="utf-8")
        publish_folder(staged, folder)
    return summary


def _fit_and_write(table: FeatureTable, section: ModelSection, folder: Path, map: Map) -> dict[str, Any]:
    ranking, model = fit_selected(table, section, [section.seed])
    ks = range(1, min(section.max_features, len(ranking)) + 1)
    curve = cox_curve(table.X[:, ranking], table.time_days, table.event, ks, penalizer=section.penalizer)
    validation = cross_validate(table, section, map)
    k = len(model.features)
    high = validation.risk > 0

    _write(folder / "ranking.csv", ({"rank": i, "feature": table.features[c]} for i, c in enumerate(ranking, 1)))
    _write(folder / "curve.csv", ({"k": k, "c_index_in_sample": c} for k, c in zip(ks, curve, strict=True)))
    _write(folder / "validation.csv", _fold_rows(validation))
    _write(folder / "coefficients.csv", model.table())
    _write(folder / "risk.csv", _risk_rows(table, validation))
    (folder / "model.json").write_text(json.dumps(_plain(table, ranking, model), indent=2) + "\n", encoding="utf-8")
    return {
        "k_final": k,
        "c_index_in_sample": curve[k - 1],
        "c_index_cv": _number(validation.c_index),
        "c_index_cv_lower": _number(validation.lower),
        "c_index_cv_upper": _number(validation.upper),
        "interval": INTERVAL,
        "logrank_p": _logrank_p(table, high),
        "notes": _notes(table, section, validation, k),
    }


def _counts(table: FeatureTable) -> dict[str, int]:
    patients = set(table.patient_ids)
    with_event = {patient for patient, event in zip(table.patient_ids, table.event, strict=True) if event}
    return {"n_cases": len(table.case_ids), "n_patients": len(patients), "n_events": len(with_event)}


def _expect_enough(table: FeatureTable, section: ModelSection) -> None:
    """Every training fold, and every inner one, must have events and both classes of the label."""
    alive, known = survival_label(table.time_days, table.event, section.label_days)
    patients = np.array(table.patient_ids)
    events = max(_FEWEST_EVENTS, 2 * section.folds)
    in_class = max(_FEWEST_IN_CLASS, section.folds)
    for what, rows, fewest in (
        ("with the event", table.event, events),
        (f"not alive after {section.label_days:g} days", known & ~alive, in_class),
        (f"known alive after {section.label_days:g} days", alive, in_class),
    ):
        found = len(set(patients[rows]))
        if found < fewest:
            raise StatisticsError(
                f"{found} of {len(set(patients))} patients {what}; "
                f"{section.folds}-fold validation of a model needs {fewest} of them"
            )


def _plain(table: FeatureTable, ranking: IntArray, model: CoxModel) -> dict[str, Any]:
    risk = model.risk_score(table.X[:, ranking[: len(model.features)]])
    return {
        "risk_score": "sum over features of coefficient * (value - mean) / scale; higher is worse",
        "cutoff": float(np.median(risk)),
        "features": list(model.features),
        "mean": model.mean.tolist(),
        "scale": model.scale.tolist(),
        "coefficient": model.coefficient.tolist(),
    }


def _fold_rows(validation: Validation) -> Iterable[dict[str, object]]:
    for fold in validation.folds:
        yield {
            "repeat": fold.repeat,
            "fold": fold.fold,
            "k": fold.k,
            "n_test": len(fold.rows),
            "events_test": fold.events_test,
            "c_index": fold.c_index,
        }


def _risk_rows(table: FeatureTable, validation: Validation) -> Iterable[dict[str, object]]:
    for i, case_id in enumerate(table.case_ids):
        yield {
            "case_id": case_id,
            "patient_id": table.patient_ids[i],
            "time_days": float(table.time_days[i]),
            "event": int(table.event[i]),
            "risk_score": float(validation.risk[i]),
            "group": "high" if validation.risk[i] > 0 else "low",
        }


def _logrank_p(table: FeatureTable, high: np.ndarray[Any, np.dtype[np.bool_]]) -> float | None:
    """Log-rank test between the risk groups; None where all cases are in one."""
    from lifelines.statistics import logrank_test

    if high.all() or not high.any():
        return None
    time, event = table.time_days, table.event
    return _number(float(logrank_test(time[high], time[~high], event[high], event[~high]).p_value))


def _notes(table: FeatureTable, section: ModelSection, validation: Validation, k: int) -> list[str]:
    tried = ", ".join(str(k) for k in (*(k for k in GRID if k < section.max_features), section.max_features))
    notes = [
        f"The number of features was chosen among {tried}, as far as there are, by {INNER_FOLDS}-fold "
        "cross-validation within the cases that the model was fitted on; the features were ranked anew in each fold.",
        "The interval is that of the mean held-out C-index when patients are drawn anew: it shows the uncertainty of "
        "so many test patients, not that of the training.",
        "In-sample figures are those of the cases that the model was selected and fitted on: they flatter.",
    ]
    known = survival_label(table.time_days, table.event, section.label_days)[1]
    if not known.all():
        notes.append(
            f"{int((~known).sum())} cases were censored before {section.label_days:g} days: they took no part in the "
            "selection, and did in the Cox model."
        )
    if k > table.event.sum():
        notes.append(f"The final model has more features ({k}) than events; only the penalty holds it.")
    if len(set(table.patient_ids)) < len(table.case_ids):
        notes.append(
            "Some patients have several cases. All cases of a patient are in one fold and are drawn together for the "
            "interval; standard errors and p-values count them as independent and are too small."
        )
    empty = sum(math.isnan(fold.c_index) for fold in validation.folds)
    if empty:
        notes.append(f"{empty} held-out folds have no comparable pair and no C-index.")
    return notes


def _write(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    rows = list(rows)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
