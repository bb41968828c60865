"""From tables to the folder ``models/``: procedures compared on the same folds, the final one fitted and frozen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prognosis_dask.arrays import Map
from prognosis_dask.config.job import ModelSection
from prognosis_dask.errors import StatisticsError, count
from prognosis_dask.execution.versions import package_versions
from prognosis_dask.modelling.data.columns import Encoding
from prognosis_dask.modelling.data.endpoint import Classes, Survival, several_cases
from prognosis_dask.modelling.data.families import kind_of
from prognosis_dask.modelling.data.reading import ReadTable, read_tables
from prognosis_dask.modelling.data.sources import Source, dataset_source
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.data.table_one import table1_rows
from prognosis_dask.modelling.final_tables import (
    coefficient_tables,
    competing_rows,
    correlation_rows,
    curve_rows,
    over_patients,
)
from prognosis_dask.modelling.fitted import Fitted
from prognosis_dask.modelling.folder import describe_table, headline, write_json, write_summary, write_tables
from prognosis_dask.modelling.metrics import intervals
from prognosis_dask.modelling.procedure import TUNED_BY, Procedure, visible
from prognosis_dask.modelling.saved import count_cases, describe, save_frozen
from prognosis_dask.modelling.spec import ModelSpec, job_spec, label_notes
from prognosis_dask.modelling.validation import halves
from prognosis_dask.modelling.validation.comparing import (
    compare,
    counts_training,
    expect_sound,
    horizons_of,
    procedures_of,
)
from prognosis_dask.modelling.validation.influence import dfbeta_rows
from prognosis_dask.modelling.validation.nested import Extend
from prognosis_dask.modelling.validation.splitting import expect_folds_can_learn
from prognosis_dask.publish import publish_folder, staging

if TYPE_CHECKING:
    import xarray as xr

#: A final model with fewer events per feature gets a note.
_EVENTS_PER_VARIABLE = 10


def fit_models(
    read: ReadTable, spec: ModelSpec, folder: Path, map: Map = map, *, extend: Extend | None = None
) -> dict[str, Any]:
    """Compare procedures by nested cross-validation, fit and save the final one, and write its folder.

    The folder is replaced as a whole, and only when everything is there. :mod:`modelling.schema` says what its tables
    and ``summary.json`` hold, :mod:`modelling.saved` what the frozen final model does; ``procedures.json`` says what
    was compared. The in-sample curve is that of the final procedure's ranking, or of the first procedure that has one.

    Parameters
    ----------
    read
        See :func:`prognosis_dask.modelling.data.reading.read_tables`.
    spec
        What is compared and how.
    folder
        The models' folder.
    map
        Runs folds, procedures and draws; called like the built-in one.
    extend
        See :func:`prognosis_dask.modelling.validation.nested.validate`; for the final model it learns from all cases.

    Returns
    -------
    dict
        The summary.

    Raises
    ------
    StatisticsError
        When the cases cannot carry a procedure; the folder is as it was.
    """
    if extend is None:  # missing features are reported before a shortage of patients that they may have caused
        expect_sound(read, spec)
    expect_folds_can_learn(read.table, spec.validation.folds)  # before the table is extended, which may take hours
    with staging(folder) as work:
        staged = work / folder.name
        staged.mkdir()
        whole = read.table
        if extend is not None:
            (whole,) = extend(whole, [np.arange(len(whole.case_ids))])
            expect_sound(replace(read, table=whole), spec)
        summary = describe_table(read) | _fit_and_write(read, whole, spec, staged, map, extend)
        write_summary(staged, summary)
        publish_folder(staged, folder)
    return summary


def fit_dataset(dataset: xr.Dataset, section: ModelSection, folder: Path, map: Map = map) -> dict[str, Any]:
    """The models of a run: :func:`fit_source` of its feature dataset, as the job's ``[model]`` says."""
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
        write_summary(staged, summary)
        publish_folder(staged, folder)
    return summary


def _fit_and_write(
    read: ReadTable, whole: FeatureTable, spec: ModelSpec, folder: Path, map: Map, extend: Extend | None
) -> dict[str, Any]:
    procedures = procedures_of(read, spec)
    final = spec.final or list(procedures)[-1]
    tables, fitted = compare(read, spec, map, extend=extend, whole=whole)
    table = own_source(whole, procedures[final])
    trained = counts_training(spec, extend)
    validated = asdict(spec.validation) | {"horizons_days": list(horizons_of(read.table, spec))}
    validated["halves"] = spec.validation.halves if trained else 0
    summary: dict[str, Any] = {"title": spec.title} if spec.title else {}
    summary |= {"procedure": final, "validation": validated, "versions": package_versions()}
    summary |= headline(tables, final, isinstance(table.endpoint, Classes))
    summary["interval"] = halves.INTERVAL if trained else intervals.INTERVAL
    tables = {**tables, "table1": table1_rows(read.table, read.encodings)}
    if final in fitted:
        model = over_patients(replace(fitted[final], source=dict(table.source)), table)
        tables |= coefficient_tables(model, table) | {"correlation": correlation_rows(model, table)}
        tables |= {"dfbeta": dfbeta_rows(model, table), "competing": competing_rows(model, table)}
        ranking = next((name for name in (final, *procedures) if procedures[name].selector), None)
        if ranking is not None:
            tables["curve"] = curve_rows(procedures[ranking], whole, spec.validation.seed, map)
            summary["curve"] = ranking
        save_frozen(describe(model, table, read.encodings, horizons_of(table, spec)), folder)
        summary["spread"] = _spread(model, table, horizons_of(table, spec))
        summary |= {"k_final": len(model.chosen), "features": sorted(_families(model, table))}
        summary["rows_said"] = list(read.rows_said)
        summary["label"] = label_notes(read.table, procedures, spec.validation)
        summary["notes"] = [
            *read.notes,
            *summary["label"],
            *_notes(table, procedures[final], model, read.encodings, trained=trained),
            *_bounded_note(procedures[final], [r["case_id"] for r in tables["bounded"] if r["procedure"] == final]),
        ]
    write_tables(folder, tables)
    write_json(folder / "procedures.json", {name: asdict(procedure) for name, procedure in procedures.items()})
    return summary


def own_source(table: FeatureTable, procedure: Procedure) -> FeatureTable:
    """The table with the source of the families only that the procedure sees: what its model depends on."""
    kinds = {kind_of(family) for family in visible(procedure, table).families}
    return replace(table, source={k: v for k, v in table.source.items() if k.partition(".")[0] in kinds})


def _families(model: Fitted, table: FeatureTable) -> set[str]:
    family = dict(zip(table.features, table.families, strict=True))
    return {family[name] for name in model.chosen}


def _spread(model: Fitted, table: FeatureTable, horizons: Sequence[float]) -> list[dict[str, Any]]:
    """The 5th and 95th percentile of what the final model predicts of its own cases, by horizon or class."""
    prediction = model.predict(table)
    names: list[dict[str, Any]]
    if prediction.survival is not None:
        names, values = [{"horizon_days": days} for days in horizons], prediction.survival(np.array(horizons))
    elif prediction.probability is not None:
        shown = slice(1, None) if len(model.classes) == 2 else slice(None)
        names, values = [{"class": name} for name in model.classes[shown]], prediction.probability[:, shown]
    else:
        return []
    lower, upper = np.percentile(values, [5, 95], axis=0)
    return [
        {**name, "lower": low, "upper": high}
        for name, low, high in zip(names, lower.tolist(), upper.tolist(), strict=True)
    ]


def _bounded_note(procedure: Procedure, cases: Sequence[str]) -> list[str]:
    if not cases:
        return []
    return [
        f"{count(len(cases), 'held-out case')} lay far outside the training range; their features were capped "
        f"{procedure.bound_margin:g} SD beyond it: {', '.join(cases[:5])}"
        f"{', ...' if len(cases) > 5 else ''} (bounded.csv). Check their data."
    ]


def _notes(
    table: FeatureTable, procedure: Procedure, model: Fitted, encodings: Sequence[Encoding], *, trained: bool
) -> Iterable[str]:
    tuned = {key: value for key, value in model.tuned.items() if procedure.selector or key != "n_features"}
    described = ", ".join(f"{key} {value:g}" for key, value in tuned.items())
    strongest = len(procedure.penalty) > 1 and model.tuned.get("penalty") == max(procedure.penalty)
    by = TUNED_BY[procedure.tune_by] if isinstance(table.endpoint, Survival) else "the log loss"
    yield (
        f"The final procedure's open settings were tuned by {by} in {procedure.inner_folds}-fold cross-validation "
        f"within the cases that each model was fitted on; tuned on all cases: {described}"
        f"{', the strongest penalty tried' if strongest else ''}."
    )
    yield (
        "The intervals of measures and differences come from repeating the whole validation on random halves of the "
        "patients: they include the variation due to the training patients. Those of curves come from resampling "
        "the test patients only."
        if trained
        else "The intervals come from resampling the test patients: they reflect the size of the test set, not the "
        "variation of training."
    )
    yield (
        "In-sample figures are those of the cases that the models were selected and fitted on, so they are optimistic."
    )
    if isinstance(table.endpoint, Survival):
        events = count_cases(table)["n_events"]
        ratio = events / len(model.chosen)
        if ratio < _EVENTS_PER_VARIABLE:
            yield (
                f"{count(events, 'event')} for {count(len(model.chosen), 'feature')} in the final model, "
                f"{ratio:.1f} each; {_EVENTS_PER_VARIABLE} is a common minimum; below it the model depends mainly on "
                "the penalty."
            )
    if several_cases(table.patient_ids):
        tested = "risk groups, added value, coefficients, the check of proportional hazards and "
        yield (
            "Some patients have several cases. All cases of a patient are in one fold and are resampled together for "
            f"the intervals; variances of {tested if isinstance(table.endpoint, Survival) else ''}correlations are "
            "computed over patients."
        )
    missing = int(np.isnan(visible(procedure, table).X).any(axis=1).sum())
    if missing:
        yield f"{count(missing, 'case')} with missing values: they are replaced by the training median in each fold."
    if any(encoding.levels and not encoding.ordered for encoding in encodings):
        yield (
            "The first level of each categorical column is the reference. Levels absent from the training cases are "
            "dropped."
        )
