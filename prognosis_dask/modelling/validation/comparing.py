"""Procedures compared on the same patients: by nested folds, by the bootstrap, against permuted endpoints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from prognosis_dask.errors import StatisticsError
from prognosis_dask.maps import Map
from prognosis_dask.modelling.data.endpoint import Classes, Survival
from prognosis_dask.modelling.data.reading import ReadTable
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.estimators import learner_for
from prognosis_dask.modelling.fitted import Fitted, fit_procedure
from prognosis_dask.modelling.procedure import Procedure, visible
from prognosis_dask.modelling.selectors import selector_for
from prognosis_dask.modelling.spec import ModelSpec, default_horizons, default_procedures
from prognosis_dask.modelling.table_spec import Tables
from prognosis_dask.modelling.validation.evaluate import evaluate, time_grid
from prognosis_dask.modelling.validation.halves import half_tasks, widen
from prognosis_dask.modelling.validation.nested import Extend, FoldResult, beside, validate
from prognosis_dask.modelling.validation.redrawn import BootstrapResult, bootstrap, permutation_test
from prognosis_dask.modelling.validation.splitting import expect_folds_can_learn


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
        See :func:`prognosis_dask.modelling.validation.evaluate.evaluate`.
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
    results = validate(table, procedures, rule, map, extend, times)
    fitted: dict[str, Fitted] = {}
    if in_sample:
        models = map(partial(_fit, whole, rule.seed), procedures.values())
        fitted = dict(zip(procedures, models, strict=True))
    flattering = [in_sample_result(name, model, whole, times) for name, model in fitted.items()]
    if not counts_training(spec, extend):
        return evaluate(table, results, horizons, in_sample=flattering, seed=rule.seed, map=map), fitted
    tasks = half_tasks(table, procedures, rule, horizons, times)
    both, of_halves = beside(map, tasks.run, tasks.items)
    tables = evaluate(table, results, horizons, in_sample=flattering, seed=rule.seed, map=both)
    return widen(tables, tasks.gathered(of_halves), rule.repeats), fitted


def counts_training(spec: ModelSpec, extend: Extend | None) -> bool:
    """Whether intervals count the training: not where that would train a network anew for each fold of each half."""
    return spec.validation.halves > 0 and extend is None


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
        The rows of ``bootstrap`` or of ``permutation``.

    Raises
    ------
    StatisticsError
        When the cases cannot carry a procedure.
    """
    rule, procedures = spec.validation, procedures_of(read, spec)
    if rule.method == "bootstrap":
        found = bootstrap(read.table, procedures, rule.draws, rule.seed, map)
        return {"bootstrap": [_bootstrap_row(result) for result in found]}
    rows = []
    for name, procedure in procedures.items():
        test = permutation_test(read.table, procedure, rule.draws, rule.folds, rule.seed, map)
        held = test.permuted[np.isfinite(test.permuted)]
        median, greatest = (float(np.median(held)), float(held.max())) if len(held) else (math.nan, math.nan)
        chance = {"permuted_median": median, "permuted_greatest": greatest}
        without = len(test.permuted) - len(held)
        rows.append({"procedure": name, "observed": test.observed, **chance, "p": test.p, "without_figure": without})
    return {"permutation": rows}


def _bootstrap_row(result: BootstrapResult) -> dict[str, str | float]:
    row: dict[str, str | float] = {name: getattr(result, name) for name in ("procedure", "apparent", "out_of_bag")}
    for name in ("optimism_corrected", "point632_plus"):
        figure = getattr(result, name)
        lower, upper = max(0.0, figure - result.below), min(1.0, figure + result.above)  # moved intervals may pass them
        row |= {name: figure, f"{name}_lower": lower, f"{name}_upper": upper}
    return row | {"redrawn": result.redrawn}


def procedures_of(read: ReadTable, spec: ModelSpec) -> Mapping[str, Procedure]:
    """The specification's procedures, or the default ones for such a table."""
    return spec.procedure or default_procedures(read.table)


def horizons_of(table: FeatureTable, spec: ModelSpec) -> tuple[float, ...]:
    """The times that survival is predicted at; none for classes."""
    if isinstance(table.endpoint, Classes):
        return ()
    return spec.validation.horizons_days or default_horizons(table.survival)


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


def _fit(table: FeatureTable, seed: int, procedure: Procedure) -> Fitted:
    return fit_procedure(procedure, table, [seed])
