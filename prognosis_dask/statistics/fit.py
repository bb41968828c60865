"""From tables to the folder ``models/``: procedures compared on the same folds, the final one fitted and frozen."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prognosis_dask.errors import StatisticsError
from prognosis_dask.job import ModelSection
from prognosis_dask.statistics.bootstrap import bootstrap
from prognosis_dask.statistics.columns import Encoding
from prognosis_dask.statistics.defaults import default_horizons, default_procedures, job_spec
from prognosis_dask.statistics.endpoint import Classes, Survival
from prognosis_dask.statistics.evaluate import Tables, evaluate, time_grid
from prognosis_dask.statistics.final_tables import coefficient_tables, correlation_rows, curve_rows
from prognosis_dask.statistics.frozen import count_cases, describe, freeze
from prognosis_dask.statistics.intervals import INTERVAL
from prognosis_dask.statistics.learners import learner_for
from prognosis_dask.statistics.nested import Extend, FoldResult, Map, validate
from prognosis_dask.statistics.permutation import permutation_test
from prognosis_dask.statistics.procedure import Fitted, Procedure, fit_procedure, visible
from prognosis_dask.statistics.reading import ReadTable, read_tables
from prognosis_dask.statistics.sources import Source, dataset_source
from prognosis_dask.statistics.spec import ModelSpec
from prognosis_dask.statistics.splitting import expect_folds_can_learn
from prognosis_dask.statistics.table import FeatureTable
from prognosis_dask.statistics.table1 import table1_rows
from prognosis_dask.store.publish import publish_folder, staging

if TYPE_CHECKING:
    import xarray as xr

#: Fewer events per feature of the final model are noted.
_EVENTS_PER_VARIABLE = 10


def fit_models(
    read: ReadTable, spec: ModelSpec, folder: Path, map: Map = map, *, extend: Extend | None = None
) -> dict[str, Any]:
    """Compare procedures by nested cross-validation, fit and freeze the final one, and write its folder.

    The folder is replaced as a whole, and only when everything is there.
    :mod:`prognosis_dask.statistics.evaluate` says how the tables of held-out predictions are made (folds, predictions,
    measures, differences, selection, calibration, net_benefit, and auc_t, kaplan_meier, added, or confusion, roc). In
    addition:

    =======================  =====================================================================================
    model.json, arrays.npz   the frozen final model, see :mod:`prognosis_dask.statistics.frozen`
    procedures.json          what was compared
    coefficients.csv         of the final model where it is linear; ph.csv: its proportional hazards
    curve.csv                in-sample curve of the final procedure's ranking, beside that of random features
    correlation.csv          of the final model's features with volume and stage
    table1.csv               the cases
    summary.json             counts, headline figures and notes; what this function returns
    =======================  =====================================================================================

    Parameters
    ----------
    read
        See :func:`prognosis_dask.statistics.reading.read_tables`.
    spec
        What is compared and how.
    folder
        The models' folder.
    map
        Runs folds, procedures and draws; called like the built-in one.
    extend
        See :func:`prognosis_dask.statistics.nested.validate`; for the final model it learns from all cases.

    Raises
    ------
    StatisticsError
        When the cases cannot carry a procedure; the folder is as it was.
    """
    with staging(folder) as work:
        staged = work / folder.name
        staged.mkdir()
        whole = read.table if extend is None else _extended(read.table, extend, map)
        summary = describe_table(read) | _fit_and_write(read, whole, spec, staged, map, extend)
        write_json(staged / "summary.json", summary)
        publish_folder(staged, folder)
    return summary


def fit_dataset(dataset: xr.Dataset, section: ModelSection, folder: Path, map: Map = map) -> dict[str, Any]:
    """What a run ends in: :func:`fit_source` of its feature dataset, as the job's ``[model]`` says."""
    volumes = np.asarray(dataset["volume_ml"].values, dtype=float) if "volume_ml" in dataset else np.zeros(0)
    has_volume = bool(np.isfinite(volumes).any()) and np.nanmin(volumes) < np.nanmax(volumes)
    return fit_source(dataset_source(dataset, "the run"), job_spec(section, has_volume=has_volume), folder, map)


def fit_source(
    source: Source, spec: ModelSpec, folder: Path, map: Map = map, *, extend: Extend | None = None
) -> dict[str, Any]:
    """:func:`fit_models` of one source.

    Where the cases cannot carry a model only summary.json is written, and ``not_fitted`` in it says why.
    """
    summary: dict[str, Any] = {}
    try:
        read = read_tables([source], spec)
        summary = describe_table(read)
        return fit_models(read, spec, folder, map, extend=extend)
    except StatisticsError as error:
        summary["not_fitted"] = str(error)
    with staging(folder) as work:
        staged = work / folder.name
        staged.mkdir()
        write_json(staged / "summary.json", summary)
        publish_folder(staged, folder)
    return summary


def compare(
    read: ReadTable,
    spec: ModelSpec,
    map: Map = map,
    *,
    extend: Extend | None = None,
    whole: FeatureTable | None = None,
    in_sample: bool = True,
) -> tuple[Tables, dict[str, Fitted]]:
    """Validate the procedures on the same folds, and fit each on all cases for what that would have said.

    ``whole`` is what ``extend`` makes of the table when it learns from all cases.

    Returns
    -------
    tables
        See :func:`prognosis_dask.statistics.evaluate.evaluate`.
    fitted
        Each procedure on all cases; empty without ``in_sample``.

    Raises
    ------
    StatisticsError
        When the cases cannot carry a procedure.
    """
    table, rule = read.table, spec.validation
    procedures = procedures_of(read, spec)
    whole = table if whole is None else whole
    for procedure in procedures.values():
        visible(procedure, whole)
    horizons = horizons_of(table, spec)
    times = time_grid(table.endpoint, horizons) if isinstance(table.endpoint, Survival) else ()
    results = validate(table, procedures, rule.folds, rule.repeats, rule.seed, map, extend, times)
    fitted: dict[str, Fitted] = {}
    if in_sample:
        models = map(partial(_fit, whole, rule.seed), procedures.values())
        fitted = dict(zip(procedures, models, strict=True))
    flattering = [in_sample_result(name, model, whole, times) for name, model in fitted.items()]
    return evaluate(table, results, horizons, in_sample=flattering, seed=rule.seed, map=map), fitted


def expect_sound(read: ReadTable, spec: ModelSpec) -> None:
    """Refuse what can be seen to fail before anything is fitted.

    Raises
    ------
    StatisticsError
        When a procedure's families, selector or learner are not for this table, or it has too few events for the folds.
    """
    for name, procedure in procedures_of(read, spec).items():
        try:
            visible(procedure, read.table)
            learner_for(procedure.learner, read.table.endpoint)
            if procedure.selector:
                selector_for(procedure.selector, read.table.endpoint)
        except StatisticsError as error:
            raise StatisticsError(f"procedure {name!r}: {error}") from error
    expect_folds_can_learn(read.table, spec.validation.folds)


def resample(read: ReadTable, spec: ModelSpec, map: Map = map) -> Tables:
    """Validate by the bootstrap or by permuted endpoints, as the specification's ``validation.method`` says.

    Returns
    -------
    dict
        ``bootstrap``: procedure, apparent, optimism_corrected, out_of_bag, point632_plus. ``permutation``: procedure,
        observed, the permuted figures' median and greatest, and p.

    Raises
    ------
    StatisticsError
        When the cases cannot carry a procedure.
    """
    rule, procedures = spec.validation, procedures_of(read, spec)
    if rule.method == "bootstrap":
        names = ("procedure", "apparent", "optimism_corrected", "out_of_bag", "point632_plus")
        found = bootstrap(read.table, procedures, rule.draws, rule.seed, map)
        return {"bootstrap": [{name: getattr(result, name) for name in names} for result in found]}
    rows = []
    for name, procedure in procedures.items():
        test = permutation_test(read.table, procedure, rule.draws, rule.folds, rule.seed, map)
        chance = {"permuted_median": float(np.median(test.permuted)), "permuted_greatest": float(test.permuted.max())}
        rows.append({"procedure": name, "observed": test.observed, **chance, "p": test.p})
    return {"permutation": rows}


def procedures_of(read: ReadTable, spec: ModelSpec) -> Mapping[str, Procedure]:
    """The specification's procedures, or the default ones for such a table."""
    return spec.procedure or default_procedures(read.table)


def horizons_of(table: FeatureTable, spec: ModelSpec) -> tuple[float, ...]:
    """The times that survival is predicted at; none for classes."""
    if isinstance(table.endpoint, Classes):
        return ()
    return spec.validation.horizons_days or default_horizons(table.survival)


def describe_table(read: ReadTable) -> dict[str, Any]:
    """Counts of what was read."""
    table = read.table
    summary: dict[str, Any] = dict(count_cases(table)) | {"left_out": dict(read.left_out)}
    if isinstance(table.endpoint, Classes):
        counts = np.bincount(table.endpoint.label, minlength=len(table.endpoint.names))
        summary["classes"] = dict(zip(table.endpoint.names, counts.tolist(), strict=True))
    return summary


def write_tables(folder: Path, tables: Mapping[str, Sequence[Mapping[str, object]]]) -> None:
    """Write one CSV file per table that has rows."""
    for name, rows in tables.items():
        if rows:
            write_csv(folder / f"{name}.csv", rows)


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows with the same keys; NaN is an empty cell."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON that every reader takes: no NaN."""
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def in_sample_result(name: str, fitted: Fitted, table: FeatureTable, times: Sequence[float]) -> FoldResult:
    """A model's predictions for the very cases that it was fitted on."""
    prediction = fitted.predict(table)
    rows = np.arange(len(table.case_ids))
    survival = prediction.survival(np.array(times)) if prediction.survival else None
    return FoldResult(
        name,
        0,
        0,
        rows,
        rows,
        prediction.risk_score,
        math.nan if fitted.cutoff is None else fitted.cutoff,
        tuple(times) if survival is not None else (),
        survival,
        prediction.probability,
        fitted.chosen,
        fitted.tuned,
    )


def headline(tables: Tables, procedure: str, classes: bool) -> dict[str, Any]:
    """The figures of a procedure that stand first: C-index or AUC, held out with interval, and in sample."""
    name, short = ("auc", "auc") if classes else ("harrell_c", "c_index")
    rows = [r for r in tables["measures"] if r["procedure"] == procedure and r["measure"] == name]
    honest = next((r for r in rows if not r["in_sample"]), {})
    flattering = next((r for r in rows if r["in_sample"]), {})
    found = {
        f"{short}_cv": honest.get("value"),
        f"{short}_cv_lower": honest.get("lower"),
        f"{short}_cv_upper": honest.get("upper"),
        f"{short}_in_sample": flattering.get("value"),
    }
    if not classes:
        log_rank = [r for r in tables["measures"] if r["procedure"] == procedure and r["measure"] == "log_rank_p"]
        found["logrank_p"] = next((r["value"] for r in log_rank if not r["in_sample"]), None)
    return {key: number_or_none(value) for key, value in found.items()}


def number_or_none(value: object) -> float | None:
    """A finite number as it is, anything else as None."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _extended(table: FeatureTable, extend: Extend, map: Map) -> FeatureTable:
    (whole,) = map(extend, [table], [np.arange(len(table.case_ids))])
    return whole  # type: ignore[no-any-return]


def _fit_and_write(
    read: ReadTable, whole: FeatureTable, spec: ModelSpec, folder: Path, map: Map, extend: Extend | None
) -> dict[str, Any]:
    procedures = procedures_of(read, spec)
    final = spec.final or list(procedures)[-1]
    tables, fitted = compare(read, spec, map, extend=extend, whole=whole)
    table = own_source(whole, procedures[final])
    validated = asdict(spec.validation) | {"horizons_days": list(horizons_of(read.table, spec))}
    summary: dict[str, Any] = {"procedure": final, "validation": validated}
    summary |= headline(tables, final, isinstance(table.endpoint, Classes)) | {"interval": INTERVAL}
    tables = {**tables, "table1": table1_rows(read.table, read.encodings)}
    if final in fitted:
        model = replace(fitted[final], source=dict(table.source))
        tables |= _final_tables(procedures[final], model, table, spec.validation.seed, map)
        freeze(describe(model, table, read.encodings, horizons_of(table, spec)), folder)
        summary |= {"k_final": len(model.chosen), "features": sorted(_families(model, table))}
        summary["notes"] = [*read.notes, *_notes(table, procedures[final], model, read.encodings)]
    write_tables(folder, tables)
    write_json(folder / "procedures.json", {name: asdict(procedure) for name, procedure in procedures.items()})
    return summary


def _final_tables(procedure: Procedure, model: Fitted, table: FeatureTable, seed: int, map: Map) -> Tables:
    tables = coefficient_tables(model, table)
    tables["correlation"] = correlation_rows(model, table)
    if isinstance(table.endpoint, Survival) and procedure.selector:
        tables["curve"] = curve_rows(procedure, table, seed, map)
    return tables


def own_source(table: FeatureTable, procedure: Procedure) -> FeatureTable:
    """The table with the source of the families only that the procedure sees: what its model depends on."""
    families = set(visible(procedure, table).families)
    return replace(table, source={k: v for k, v in table.source.items() if k.partition(".")[0] in families})


def _fit(table: FeatureTable, seed: int, procedure: Procedure) -> Fitted:
    return fit_procedure(procedure, table, [seed])


def _families(model: Fitted, table: FeatureTable) -> set[str]:
    family = dict(zip(table.features, table.families, strict=True))
    return {family[name] for name in model.chosen}


def _notes(table: FeatureTable, procedure: Procedure, model: Fitted, encodings: Sequence[Encoding]) -> Iterable[str]:
    tuned = ", ".join(f"{key} {value:g}" for key, value in model.tuned.items())
    yield (
        f"What the final procedure leaves open was tuned by {procedure.inner_folds}-fold cross-validation within the "
        f"cases that each model was fitted on; on all cases: {tuned}."
    )
    yield (
        "The intervals are those of held-out figures when patients are drawn anew: they show the uncertainty of so "
        "many test patients, not that of the training."
    )
    yield "In-sample figures are those of the cases that the models were selected and fitted on: they flatter."
    if isinstance(table.endpoint, Survival):
        events = count_cases(table)["n_events"]
        ratio = events / len(model.chosen)
        if ratio < _EVENTS_PER_VARIABLE:
            yield (
                f"{events} events for {len(model.chosen)} features in the final model, {ratio:.1f} each; "
                f"{_EVENTS_PER_VARIABLE} are a common least, and below that the penalty carries the model."
            )
    if len(set(table.patient_ids)) < len(table.case_ids):
        yield (
            "Some patients have several cases. All cases of a patient are in one fold and are drawn together for the "
            "intervals; standard errors and p-values count them as independent and are too small."
        )
    missing = int(np.isnan(visible(procedure, table).X).any(axis=1).sum())
    if missing:
        yield f"{missing} cases lack values; the training cases' median takes their place in every fold."
    if any(encoding.levels and not encoding.ordered for encoding in encodings):
        yield "Of each column of words the first level is the reference; a level that training cases lack is left out."


def _cell(value: object) -> object:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value
