"""From held-out predictions to the tables that are reported: measures with intervals, differences, curves.

How figures of many folds become one, per measure:

* **Concordance and AUC** (Harrell, Uno, AUC(t), AUC of classes) are taken within each held-out fold and averaged over
  folds and repeats. Scores of models fitted on different training cases need not share a scale, so pairs across folds
  say nothing about any of these models.
* **Brier scores and log loss** are sums over cases of predicted probabilities, which do share a scale: each case's
  error is averaged over the repeats, then over the cases.
* **Calibration, net benefit, confusion** need more cases than a fold has: they are taken on all held-out predictions of
  one repeat (one model per case), then averaged over the repeats. Averaging the predictions instead would measure an
  ensemble that nobody fitted.
* **Risk groups** for Kaplan-Meier's curves: a case belongs to the group that most repeats put it in, each by the
  cut-off of its own training cases.

Censoring weights are those of all cases: how follow-up ends is a property of the cohort, not of a model. Intervals draw
patients and keep the fitted models and these weights (:mod:`modelling.metrics.intervals`); every procedure
meets the same draws. A figure that the data do not hold is NaN, and the row's ``note`` says why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from prognosis_dask.arrays import Map
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Classes, Endpoint, Survival
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.estimators.scores import one_thread
from prognosis_dask.modelling.metrics.classes import CLASS_TABLES, class_parts
from prognosis_dask.modelling.metrics.competing import follow_up_rows, incidence_rows
from prognosis_dask.modelling.metrics.measured import Measured, MeasuredCases, joined, survival_at
from prognosis_dask.modelling.metrics.survival_tables import SURVIVAL_TABLES, survival_parts
from prognosis_dask.modelling.table_spec import Row, Tables
from prognosis_dask.modelling.validation.added import added_rows
from prognosis_dask.modelling.validation.differences import difference_rows
from prognosis_dask.modelling.validation.influence import influence_rows
from prognosis_dask.modelling.validation.nested import FoldResult

#: Times between the first and the last events at which AUC(t) is drawn and the Brier score integrated.
_GRID = 20
#: Most figures in ``survival_grid``, 20 MB or so.
_GRID_CELLS = 1_000_000


def time_grid(endpoint: Survival, horizons: Sequence[float] = ()) -> tuple[float, ...]:
    """The times to predict survival at, so that AUC(t) and the integrated Brier score can be taken.

    Quantiles of the events' times from the 5th to the 95th, and the horizons.
    """
    if not endpoint.event.any():
        return tuple(sorted(horizons))
    times = np.quantile(endpoint.time_days[endpoint.event], np.linspace(0.05, 0.95, _GRID))
    return tuple(np.unique(np.concatenate([np.round(times), horizons])).tolist())


def evaluate(
    table: FeatureTable,
    results: Sequence[FoldResult],
    horizons: Sequence[float] = (),
    *,
    in_sample: Sequence[FoldResult] = (),
    seed: int = 0,
    map: Map = map,
) -> Tables:
    """The rows of every table that held-out predictions give.

    Parameters
    ----------
    table
        The cases that ``results`` counts.
    results
        Of :func:`modelling.validation.nested.validate`; or of another cohort's model, one per procedure with all
        rows in ``test``. For survival they hold predictions at the horizons, better at :func:`time_grid`.
    horizons
        Times in days to report; none for classes.
    in_sample
        Predictions of models for the cases that they were fitted on: their measures are added with ``in_sample`` 1.
    seed
        Draws the patients.
    map
        Runs the parts of the procedures' measures; called like the built-in one.

    Returns
    -------
    dict
        Survival: ``folds, predictions, selection, bounded, influence, measures, differences, auc_t, calibration,
        net_benefit, kaplan_meier, follow_up, added``. Classes: ``confusion, roc`` in place of ``auc_t, kaplan_meier,
        follow_up, added``.
        Each a list of rows; :mod:`modelling.schema` names their columns.

    Raises
    ------
    StatisticsError
        When there is no result, results lack the predictions that are asked for, or a horizon is not positive.
    """
    if not results:
        raise StatisticsError("there are no predictions to evaluate")
    if not all(horizon > 0 for horizon in horizons):
        raise StatisticsError(f"horizons {', '.join(f'{days:g}' for days in horizons)}: expected days above 0")
    names = list(dict.fromkeys(result.procedure for result in results))
    groups = [[result for result in results if result.procedure == name] for name in names]
    cases = MeasuredCases(table.endpoint, table.patient_ids, tuple(horizons), seed)
    found = measure_all(cases, [*groups, *([result] for result in in_sample)], map)
    measured, flattering = found[: len(groups)], found[len(groups) :]
    tables: Tables = {
        "folds": fold_rows(table.endpoint, results, measured),
        "predictions": prediction_rows(table, results, horizons),
        "selection": selection_rows(results),
        "bounded": bounded_rows(table, results),
    }
    for part in measured:
        for name, rows in part.tables.items():
            tables.setdefault(name, []).extend(rows)
    for part in flattering:
        tables["measures"] += [row | {"in_sample": 1} for row in part.tables["measures"]]
    tables["differences"] = difference_rows(dict(zip(names, measured, strict=True)), groups[0])
    by_name = dict(zip(names, groups, strict=True))
    if isinstance(table.endpoint, Survival):
        tables["follow_up"] = follow_up_rows(table.survival, table.patient_ids, horizons)
        if incidence := incidence_rows(table.survival):
            tables["incidence"] = incidence
        tables["added"] = added_rows(table, by_name, seed)
    if grid := grid_rows(table, results):
        tables["survival_grid"] = grid
    tables["influence"] = influence_rows(table, by_name, horizons)
    return tables


def measure_all(cases: MeasuredCases, groups: Sequence[Sequence[FoldResult]], map: Map = map) -> list[Measured]:
    """All measures of each procedure's held-out predictions; one task per procedure and part of the measures.

    Raises
    ------
    StatisticsError
        When the results lack what the endpoint's measures need.
    """
    parts = len(_parts(cases, groups[0]))
    tasks = [(group, part) for group in range(len(groups)) for part in range(parts)]
    found = list(map(partial(_measure_part, cases, groups), tasks))
    tables = CLASS_TABLES if isinstance(cases.endpoint, Classes) else SURVIVAL_TABLES
    return [joined(tables, found[start : start + parts]) for start in range(0, len(found), parts)]


def _parts(cases: MeasuredCases, results: Sequence[FoldResult]) -> Sequence[Callable[[], Measured]]:
    parts = class_parts if isinstance(cases.endpoint, Classes) else survival_parts
    return parts(cases, results)


def _measure_part(cases: MeasuredCases, groups: Sequence[Sequence[FoldResult]], task: tuple[int, int]) -> Measured:
    group, part = task
    with one_thread():  # a worker has one, this process as many as there are cores
        return _parts(cases, groups[group])[part]()


def fold_rows(endpoint: Endpoint, results: Sequence[FoldResult], measured: Iterable[Measured]) -> list[Row]:
    """One row per held-out fold: its size, what was tuned, and its discrimination."""
    values = {key: value for part in measured for key, value in part.by_fold.items()}
    trees = [key for key in ("depth", "rounds") if any(key in result.tuned for result in results)]
    return [
        {
            **result.columns,
            "n_train": len(result.train),
            **_counts(endpoint, result.train, "train"),
            "n_test": len(result.test),
            **_counts(endpoint, result.test, "test"),
            "n_features": len(result.features),
            "penalty": result.tuned.get("penalty", float("nan")),
            "mixing": result.tuned.get("mixing", float("nan")),
            **{key: result.tuned.get(key, float("nan")) for key in trees},
            **({"cutoff": result.cutoff} if isinstance(endpoint, Survival) else {}),
            **values[result.key],
        }
        for result in results
    ]


def _counts(endpoint: Endpoint, rows: Any, which: str) -> dict[str, int]:
    if isinstance(endpoint, Survival):
        return {f"events_{which}": int(endpoint.event[rows].sum())}
    counts = np.bincount(endpoint.label[rows], minlength=len(endpoint.names))
    return {f"{which}_{name}": int(count) for name, count in zip(endpoint.names, counts, strict=True)}


def prediction_rows(table: FeatureTable, results: Sequence[FoldResult], horizons: Sequence[float] = ()) -> list[Row]:
    """One row per held-out prediction: risk score, group, survival at the horizons; or the classes' probabilities."""
    rows: list[Row] = []
    for result in results:
        columns = _prediction_columns(table.endpoint, result, horizons)
        for i, at in enumerate(result.test):
            rows.append(
                {
                    **result.columns,
                    "case_id": table.case_ids[at],
                    "patient_id": table.patient_ids[at],
                    **{name: values[i] for name, values in columns.items()},
                }
            )
    return rows


def grid_rows(table: FeatureTable, results: Sequence[FoldResult]) -> list[Row]:
    """One row per held-out prediction: survival at every time that AUC(t) and the integrated Brier score are taken at.

    None where that would be more than :data:`_GRID_CELLS` figures.
    """
    times = results[0].horizons_days
    if len(times) * sum(len(result.test) for result in results) > _GRID_CELLS:
        return []
    rows: list[Row] = []
    for result in results:
        if result.survival is None:
            continue
        names = [f"survival_{days:g}" for days in result.horizons_days]
        for at, values in zip(result.test.tolist(), result.survival.tolist(), strict=True):
            rows.append({**result.columns, "case_id": table.case_ids[at], **dict(zip(names, values, strict=True))})
    return rows


def _prediction_columns(endpoint: Endpoint, result: FoldResult, horizons: Sequence[float]) -> Mapping[str, list[Any]]:
    if isinstance(endpoint, Classes):
        assert result.probability is not None
        named = zip(endpoint.names, result.probability.T.tolist(), strict=True)
        return {f"probability_{name}": column for name, column in named}
    assert result.risk_score is not None
    columns: dict[str, list[Any]] = {
        "risk_score": result.risk_score.tolist(),
        "group": ["high" if score > result.cutoff else "low" for score in result.risk_score],
    }
    for horizon in horizons:
        columns[f"survival_{horizon:g}"] = survival_at(result, horizon).tolist()
    return columns


def bounded_rows(table: FeatureTable, results: Sequence[FoldResult]) -> list[Row]:
    """The cases so far out of their training cases that features were bounded: in which share of the folds, how many.

    ``features`` is the mean number over the folds in which there were any.
    """
    found: dict[tuple[str, int], list[int]] = {}
    for result in results:
        if result.bounded is not None:
            for at, number in zip(result.test.tolist(), result.bounded.tolist(), strict=True):
                found.setdefault((result.procedure, at), []).append(number)
    return [
        {
            "procedure": procedure,
            "case_id": table.case_ids[at],
            "patient_id": table.patient_ids[at],
            "share": float(np.mean(np.array(numbers) > 0)),
            "features": float(np.mean([number for number in numbers if number])),
        }
        for (procedure, at), numbers in found.items()
        if any(numbers)
    ]


def selection_rows(results: Sequence[FoldResult]) -> list[Row]:
    """How stable the choice of features is: each one's share of the outer folds that chose it, most stable first."""
    folds = Counter(result.procedure for result in results)
    chosen = Counter((result.procedure, feature) for result in results for feature in set(result.features))
    order = list(folds)
    return [
        {"procedure": procedure, "feature": feature, "share": count / folds[procedure]}
        for (procedure, feature), count in sorted(
            chosen.items(), key=lambda item: (order.index(item[0][0]), -item[1], item[0][1])
        )
    ]
