"""Procedures compared on the same patients: by nested folds, by the bootstrap, against permuted endpoints.

Of redrawn data, bootstrapped patients or endpoints dealt out anew, the whole procedure is fitted again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from prognosis_dask.arrays import BoolArray, FloatArray, IntArray, Map
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Classes, Survival
from prognosis_dask.modelling.data.reading import ReadTable
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.estimators import learner_for
from prognosis_dask.modelling.estimators.prediction import Prediction
from prognosis_dask.modelling.fitted import Fitted, fit_procedure
from prognosis_dask.modelling.metrics import intervals
from prognosis_dask.modelling.metrics.classes import bootstrap_class_auc
from prognosis_dask.modelling.metrics.concordance import bootstrap_concordance
from prognosis_dask.modelling.preparing import expect_repeated_scans
from prognosis_dask.modelling.procedure import Procedure, visible
from prognosis_dask.modelling.selectors import selector_for
from prognosis_dask.modelling.spec import ModelSpec, default_horizons, default_procedures
from prognosis_dask.modelling.table_spec import Tables
from prognosis_dask.modelling.validation.evaluate import evaluate, time_grid
from prognosis_dask.modelling.validation.halves import half_tasks, widen
from prognosis_dask.modelling.validation.nested import Extend, FoldResult, beside, validate
from prognosis_dask.modelling.validation.splitting import draw_patients, expect_folds_can_learn, split_patients


def compare(
    read: ReadTable,
    spec: ModelSpec,
    map: Map = map,
    *,
    extend: Extend | None = None,
    whole: FeatureTable | None = None,
) -> tuple[Tables, dict[str, Fitted]]:
    """Validate the procedures on the same folds, and fit each on all cases for the in-sample figures.

    ``whole`` is what ``extend`` makes of the table when it learns from all cases.

    Returns
    -------
    tables
        See :func:`prognosis_dask.modelling.validation.evaluate.evaluate`.
    fitted
        Each procedure on all cases.

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
        When a procedure's families, selector or learner are not for this table, or it has too few events or repeated
        patients for the folds.
    """
    for name, procedure in procedures_of(read, spec).items():
        try:
            seen = visible(procedure, read.table)
            learner_for(procedure.learner, read.table.endpoint)
            if procedure.selector:
                selector_for(procedure.selector, read.table.endpoint)
            if procedure.harmonise == "longitudinal-combat":
                expect_repeated_scans(seen, spec.validation.folds)
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


#: The share of patients that a bootstrap sample holds, in the long run: 1 - 1/e.
_SHARE_DRAWN = 0.632
#: So many samples in a row that cannot carry a procedure are no bad luck.
_MOST_REDRAWN = 20
#: A prediction worth nothing: its C-index or area under the curve.
_NO_INFORMATION = 0.5


@dataclass(frozen=True, eq=False)
class BootstrapResult:
    """A procedure's discrimination (Harrell's C; classes: area under the ROC curve), by the bootstrap.

    Attributes
    ----------
    procedure
        Its name.
    apparent
        Of the model of all cases, on these same cases.
    optimism_corrected
        Apparent less the mean amount by which models of bootstrap samples do better on their own sample than on all
        cases (Harrell, Lee & Mark, Statistics in Medicine 15, 361, 1996).
    out_of_bag
        Mean over the samples, on the patients that were not drawn; it errs to the low side.
    point632_plus
        Between apparent and out of bag, the nearer to the latter the more the procedure overfits (Efron & Tibshirani,
        JASA 92, 548, 1997).
    below, above
        From either corrected figure to the bounds of its 95 % interval: that of the C of every case's mean prediction
        by the models of samples without it, patients drawn, and moved to the figure. Noma et al. (Statistics in
        Medicine 40, 5691, 2021) move the apparent figure's interval, which has no width where a model overfits.
    samples
        Shape (draws, 3): of each sample's model on its own sample, on all cases, and out of bag.
    redrawn
        How many samples could not be learnt from (no event, one class alone) and were drawn again.
    """

    procedure: str
    apparent: float
    optimism_corrected: float
    out_of_bag: float
    point632_plus: float
    below: float
    above: float
    samples: FloatArray
    redrawn: int


@dataclass(frozen=True, eq=False)
class _Sample:
    """A sample's model: on its own sample, on all cases, out of bag; and what it predicts for all cases."""

    figures: tuple[float, float, float]
    predicted: FloatArray
    left_out: BoolArray
    redrawn: int


def bootstrap(
    table: FeatureTable, procedures: Mapping[str, Procedure], draws: int = 200, seed: int = 0, map: Map = map
) -> list[BootstrapResult]:
    """Fit every procedure, tuning and selection with it, on ``draws`` samples of the patients; one task per sample.

    Patients are drawn with replacement, all cases of one together; all procedures share the samples. In the inner folds
    of a sample the copies of a patient stay together. A sample that cannot carry the procedure (few events, none of
    which was drawn, say) is drawn again, and counted.

    Raises
    ------
    StatisticsError
        When there are too few patients with the event, the cases cannot carry a procedure, or one sample after the
        other cannot.
    """
    if draws < 1:
        raise StatisticsError(f"{draws} bootstrap samples: expected one or more")
    expect_folds_can_learn(table, 2)
    tasks = [(name, draw) for name in procedures for draw in range(-1, draws)]
    found = list(map(partial(_run_sample, table, dict(procedures), seed), tasks))
    parts = [found[start : start + draws + 1] for start in range(0, len(found), draws + 1)]
    return [_summary(table, name, part[0], part[1:], seed) for name, part in zip(procedures, parts, strict=True)]


def _summary(table: FeatureTable, name: str, whole: _Sample, drawn: list[_Sample], seed: int) -> BootstrapResult:
    apparent, samples = whole.figures[0], np.array([sample.figures for sample in drawn])
    out = samples[np.isfinite(samples[:, 2]), 2]
    out_of_bag = float(out.mean()) if len(out) else float("nan")
    better = samples[:, 0] - samples[:, 1]
    better = better[np.isfinite(better)]  # a sample without a comparable pair has no figure
    optimism = float(better.mean()) if len(better) else float("nan")
    plus = point632_plus(apparent, out_of_bag)
    below, above = _spread(table, drawn, seed)
    redrawn = sum(sample.redrawn for sample in drawn)
    return BootstrapResult(name, apparent, apparent - optimism, out_of_bag, plus, below, above, samples, redrawn)


def _spread(table: FeatureTable, drawn: list[_Sample], seed: int) -> tuple[float, float]:
    """From the C of the mean predictions of cases that were left out to the bounds of its interval."""
    times_out = np.sum([sample.left_out for sample in drawn], axis=0)
    rows = np.flatnonzero(times_out)
    if not len(rows):
        return float("nan"), float("nan")
    total = np.sum([sample.predicted * sample.left_out[:, None] for sample in drawn], axis=0)
    mean, part = (total[rows].T / times_out[rows]).T, table.rows(rows)
    patients = intervals.draw_patients(part.patient_ids, np.random.default_rng(seed))
    figures = _figures(part, mean, np.vstack([np.ones(len(rows)), patients]))
    lower, upper = intervals.interval(figures[1:])
    return float(figures[0] - lower), float(upper - figures[0])


def point632_plus(apparent: float, out_of_bag: float) -> float:
    """Efron & Tibshirani's .632+ of a measure whose worthless value is 0.5 and whose best is 1.

    >>> point632_plus(0.8, 0.8), round(point632_plus(1.0, 0.5), 3), round(point632_plus(0.9, 0.7), 3)
    (0.8, 0.5, 0.745)
    """
    worst = max(out_of_bag, _NO_INFORMATION)
    overfitting = 0.0
    if apparent > worst and apparent > _NO_INFORMATION:
        overfitting = (apparent - worst) / (apparent - _NO_INFORMATION)
    weight = _SHARE_DRAWN / (1.0 - (1.0 - _SHARE_DRAWN) * overfitting)
    return (1.0 - weight) * apparent + weight * worst if np.isfinite(out_of_bag) else float("nan")


def discrimination(fitted: Fitted, table: FeatureTable) -> float:
    """Harrell's C of the model on the table, or, for classes, the area under the ROC curve; NaN where undefined."""
    return _figure(table, _comparable(fitted.predict(table)))


def _figure(table: FeatureTable, predicted: FloatArray) -> float:
    return float(_figures(table, predicted, np.ones((1, len(predicted))))[0])


def _figures(table: FeatureTable, predicted: FloatArray, bootstrap_weights: FloatArray) -> FloatArray:
    """Of cases that are counted as often as each row of ``bootstrap_weights`` says."""
    endpoint = table.endpoint
    if isinstance(endpoint, Survival):
        return bootstrap_concordance(endpoint, predicted[:, 0], bootstrap_weights)
    return bootstrap_class_auc(endpoint.label, predicted, bootstrap_weights)


def _run_sample(table: FeatureTable, procedures: Mapping[str, Procedure], seed: int, task: tuple[str, int]) -> _Sample:
    """Draw -1 is all cases as they are."""
    name, draw = task
    procedure, cases = procedures[name], np.arange(len(table.case_ids))
    if draw < 0:
        fitted, sample, rows, again = fit_procedure(procedure, table, [seed]), table, cases, 0
    else:
        fitted, sample, rows, again = _fit_drawn(table, procedure, [seed, draw])
    predicted = _comparable(fitted.predict(table))
    left_out = ~np.isin(cases, rows)
    rest = np.flatnonzero(left_out)
    out = _figure(table.rows(rest), predicted[rest]) if len(rest) else float("nan")
    return _Sample((_figure(sample, predicted[rows]), _figure(table, predicted), out), predicted, left_out, again)


def _fit_drawn(
    table: FeatureTable, procedure: Procedure, seed: list[int]
) -> tuple[Fitted, FeatureTable, IntArray, int]:
    """The model of a sample, the sample, its rows, and how many samples before it could not be learnt from."""
    for again in range(_MOST_REDRAWN):
        rows = draw_patients(table, [*seed, again] if again else seed)
        sample = redrawn(table, rows)
        try:
            return fit_procedure(procedure, sample, seed), sample, rows, again
        except StatisticsError as error:
            failed = error
    raise StatisticsError(
        f"{_MOST_REDRAWN} bootstrap samples, one after the other, cannot carry the procedure ({failed}); take the "
        "nested validation, a simpler procedure, or a cohort with more events"
    ) from failed


def _comparable(prediction: Prediction) -> FloatArray:
    """Classes' probabilities, or the risk scores' ranks: two models' scores need not have one scale."""
    if prediction.probability is not None:
        return prediction.probability
    from scipy.stats import rankdata

    assert prediction.risk_score is not None
    return np.asarray(rankdata(prediction.risk_score), dtype=np.float64)[:, None]


def redrawn(table: FeatureTable, rows: IntArray) -> FeatureTable:
    """The table of rows that may be drawn more than once: cases are named anew, patients keep their names."""
    return replace(
        table,
        X=table.X[rows],
        case_ids=tuple(f"{table.case_ids[row]}#{i}" for i, row in enumerate(rows)),
        patient_ids=tuple(table.patient_ids[row] for row in rows),
        endpoint=table.endpoint.rows(rows),
        site=tuple(table.site[row] for row in rows) if table.site else (),
    )


@dataclass(frozen=True, eq=False)
class PermutationResult:
    """A cross-validated figure beside those of permuted endpoints.

    Attributes
    ----------
    observed
        Mean of the held-out folds' C-index, or area under the curve.
    permuted
        The same of each permutation, shape (permutations,).
    p
        One-sided: the share of permutations, the observed order counted with them, that do at least as well.
    """

    observed: float
    permuted: FloatArray
    p: float


def permutation_test(
    table: FeatureTable, procedure: Procedure, permutations: int = 200, folds: int = 5, seed: int = 0, map: Map = map
) -> PermutationResult:
    """Test the hypothesis that the features say nothing of the endpoint (Ojala & Garriga, JMLR 11, 1833, 2010).

    Endpoints are permuted over the cases of patients with as many cases, whole patients at a time; everything, from the
    preparation to the tuning, is done again. One task per permutation.

    Raises
    ------
    StatisticsError
        When there are too few patients with the event, or a training fold cannot carry the procedure.
    """
    if permutations < 1:
        raise StatisticsError(f"{permutations} permutations: expected one or more")
    expect_folds_can_learn(table, folds)
    figures: Iterable[float] = map(partial(_cross_validate, table, procedure, folds, seed), range(-1, permutations))
    observed, *permuted = figures
    return PermutationResult(observed, np.array(permuted), share_as_good(observed, np.array(permuted)))


def share_as_good(observed: float, permuted: FloatArray) -> float:
    """One-sided p; NaN where there is no observed figure. Permutations without a figure count neither way.

    >>> share_as_good(0.7, np.array([0.5, 0.8, 0.6])), share_as_good(0.7, np.array([0.5, np.nan, 0.6]))
    (0.5, 0.3333333333333333)
    >>> share_as_good(float("nan"), np.array([0.5, 0.8]))
    nan
    """
    chance = permuted[np.isfinite(permuted)]
    if not np.isfinite(observed):
        return float("nan")
    return (1 + int((chance >= observed).sum())) / (1 + len(chance))


def permuted_rows(table: FeatureTable, seed: list[int]) -> list[int]:
    """For each row, the row whose endpoint it gets: patients swap theirs with patients of as many cases."""
    rng = np.random.default_rng(seed)
    rows_of: dict[str, list[int]] = {}
    for row, patient in enumerate(table.patient_ids):
        rows_of.setdefault(patient, []).append(row)
    given = [0] * len(table.patient_ids)
    for size in sorted({len(rows) for rows in rows_of.values()}):
        groups = [rows for rows in rows_of.values() if len(rows) == size]
        for rows, other in zip(groups, rng.permutation(len(groups)), strict=True):
            for row, from_row in zip(rows, groups[other], strict=True):
                given[row] = from_row
    return given


def _cross_validate(table: FeatureTable, procedure: Procedure, folds: int, seed: int, draw: int) -> float:
    """Mean held-out figure of one round of folds; draw -1 leaves the endpoints as they are.

    NaN for a permutation whose folds cannot carry the procedure (an inner fold without an event, say).
    """
    if draw < 0:
        return _round(table, procedure, folds, seed)
    permuted = replace(table, endpoint=table.endpoint.rows(np.array(permuted_rows(table, [seed, draw]))))
    try:
        return _round(permuted, procedure, folds, seed)
    except StatisticsError:
        return float("nan")


def _round(table: FeatureTable, procedure: Procedure, folds: int, seed: int) -> float:
    number = split_patients(table, folds, [seed])
    figures = np.array(
        [
            discrimination(
                fit_procedure(procedure, table.rows(number != fold), [seed, fold]), table.rows(number == fold)
            )
            for fold in range(folds)
        ]
    )
    held = figures[np.isfinite(figures)]
    return float(held.mean()) if len(held) else float("nan")
