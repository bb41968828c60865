"""What the measures of one procedure are gathered in, and how figures of folds and repeats become one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from prognosis_dask.arrays import FloatArray, IntArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Endpoint
from prognosis_dask.modelling.metrics.intervals import DRAWS, draw_patients, interval, mean_held
from prognosis_dask.modelling.table_spec import Row
from prognosis_dask.modelling.validation.nested import FoldResult

#: Draws of what needs a regression, or a curve, in each of them.
CURVE_DRAWS = 200
#: So many held-out predictions, of all repeats together, are measured in every draw of such a curve.
_DRAWN_CASES = 20_000


@dataclass(frozen=True, eq=False)
class MeasuredCases:
    """The cases that predictions are measured on, and where.

    Attributes
    ----------
    endpoint, patient_ids
        Of all cases.
    horizons
        In days; none for classes.
    seed
        Draws the patients.
    draws
        Of the patients, for the intervals; 0: none.
    """

    endpoint: Endpoint
    patient_ids: Sequence[str]
    horizons: tuple[float, ...] = ()
    seed: int = 0
    draws: int = DRAWS

    @cached_property
    def bootstrap_weights(self) -> FloatArray:
        """All cases once, then how often each is in every draw; shape (1 + draws, cases).

        Drawn once for all tasks of a worker: they share this object.
        """
        bootstrap_weights = draw_patients(self.patient_ids, np.random.default_rng(self.seed), self.draws)
        return np.concatenate([np.ones((1, bootstrap_weights.shape[1])), bootstrap_weights])


@dataclass(frozen=True, eq=False)
class ProcedureResults:
    """A procedure's folds beside the cases that they are measured on."""

    cases: MeasuredCases
    results: Sequence[FoldResult]

    @property
    def name(self) -> str:
        """The procedure's."""
        return self.results[0].procedure

    @property
    def bootstrap_weights(self) -> FloatArray:
        """See :attr:`MeasuredCases.bootstrap_weights`."""
        return self.cases.bootstrap_weights


@dataclass(frozen=True, eq=False)
class Measured:
    """The measures of one procedure, or a part of them.

    Attributes
    ----------
    tables
        Rows by table.
    by_fold
        What stands in a held-out fold's row, by procedure, repeat and fold.
    fold_values
        By measure, shape (folds, 1 + draws): each fold's value as it is and in every draw of the patients.
    """

    tables: dict[str, list[Row]]
    by_fold: dict[tuple[str, int, int], dict[str, float]] = field(default_factory=dict)
    fold_values: dict[str, FloatArray] = field(default_factory=dict)


def joined(tables: Iterable[str], parts: Iterable[Measured]) -> Measured:
    """The parts' measures, in their order; ``tables`` are there even where no part has a row of them."""
    whole = Measured({name: [] for name in tables})
    for part in parts:
        for name, rows in part.tables.items():
            whole.tables[name] += rows
        whole.by_fold.update(part.by_fold)
        whole.fold_values.update(part.fold_values)
    return whole


@dataclass(frozen=True, eq=False)
class Sheet:
    """The rows of ``measures`` of one procedure, as they come."""

    procedure: str
    rows: list[Row] = field(default_factory=list)

    def add(self, measure: str, horizon: float | None, values: FloatArray, note: str = "") -> None:
        """Add a measure: its value, and its values in the draws, in one array; the note says why it is NaN."""
        value = float(values[0])
        note = note or ("" if np.isfinite(value) else "the cases hold no finite value")
        lower, upper = interval(values[1:]) if np.isfinite(value) else (float("nan"), float("nan"))
        if np.isfinite(value) and np.isnan(lower):
            note = note or "no interval: too few draws of the patients have a value"
        if lower == upper and len(values) > 1:  # as of a C of 1 on few cases, of which draws cannot say how sure it is
            lower = upper = np.nan
            note = "; ".join(filter(None, (note, "no interval: it is the same in all draws of the patients")))
        self.rows.append(
            {
                "procedure": self.procedure,
                "measure": measure,
                "horizon_days": horizon,
                "value": value,
                "lower": lower,
                "upper": upper,
                "in_sample": 0,
                "note": note,
            }
        )

    def add_unknown(self, measures: Iterable[str], horizon: float | None, reason: object) -> None:
        """Add measures that the data do not hold, and why."""
        for measure in measures:
            self.add(measure, horizon, np.array([np.nan]), str(reason))


def over_folds(values: FloatArray, what: str) -> tuple[FloatArray, str]:
    """Mean over the folds, and a note where some lack ``what`` it takes and are left out.

    Parameters
    ----------
    values
        Shape (folds, 1 + draws).
    """
    empty = int((~np.isfinite(values[:, 0])).sum())
    if empty == len(values):
        return mean_held(values), f"no held-out fold ({empty}) has {what}"
    return mean_held(values), f"{empty} of {len(values)} held-out folds lack {what} and are left out" if empty else ""


def figures_of_folds(
    results: Sequence[FoldResult], **values: FloatArray
) -> dict[tuple[str, int, int], dict[str, float]]:
    """What stands in each fold's row: of values of shape (folds, 1 + draws) those without a draw."""
    return {
        result.key: {name: float(of_folds[i, 0]) for name, of_folds in values.items()}
        for i, result in enumerate(results)
    }


def repeats(results: Sequence[FoldResult]) -> Iterator[list[FoldResult]]:
    """The folds of each repeat together."""
    for number in sorted({result.repeat for result in results}):
        yield [result for result in results if result.repeat == number]


def bootstrap_repeats(cases: int) -> int:
    """How many of the repeats are measured in every draw: all, but of large cohorts only the first ones.

    With thousands of cases the repeats hardly differ, and measuring curves of each in every draw takes many minutes;
    see :func:`extended`.

    >>> [bootstrap_repeats(cases) for cases in (300, 1000, 5000, 10_000, 100_000)]
    [66, 20, 4, 2, 1]
    """
    return max(1, _DRAWN_CASES // max(1, cases))


def extended(values: Sequence[FloatArray]) -> list[FloatArray]:
    """One array for each repeat, all with the draws: where a repeat was not drawn, the mean changes of those that were.

    So the mean over the repeats is the figure of all, with the interval of those that were drawn.

    Parameters
    ----------
    values
        Shape (1 + draws, ...), or (1, ...) where the repeat was not drawn.

    >>> [part.tolist() for part in extended([np.array([1.0, 1.5, 0.5]), np.array([2.0])])]
    [[1.0, 1.5, 0.5], [2.0, 2.5, 1.5]]
    """
    with_draws = [part for part in values if len(part) > 1]
    if not with_draws:
        return list(values)
    change = mean_held(np.array([part - part[:1] for part in with_draws]))
    return [part if len(part) > 1 else part + change for part in values]


def pooled(results: Sequence[FoldResult], values: Callable[[FoldResult], FloatArray]) -> tuple[IntArray, FloatArray]:
    """The cases of a repeat's held-out folds, and what each fold says of its own."""
    return np.concatenate([result.test for result in results]), np.concatenate([values(result) for result in results])


def case_means(results: Sequence[FoldResult], cases: int, values: Callable[[FoldResult], FloatArray]) -> FloatArray:
    """Mean over the repeats of what is said of each case, shape (cases, ...); NaN for a case that is never held out."""
    sums: FloatArray | None = None
    counts = np.zeros(cases)
    for result in results:
        said = values(result)
        sums = np.zeros((cases, *said.shape[1:])) if sums is None else sums
        np.add.at(sums, result.test, said)
        np.add.at(counts, result.test, 1)
    assert sums is not None
    with np.errstate(invalid="ignore"):
        return np.asarray((sums.T / counts).T)


def bootstrap_mean(values: FloatArray, bootstrap_weights: FloatArray) -> FloatArray:
    """Mean over the cases in each draw, shape (draws, ...); cases without a value are left out."""
    held = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    total = bootstrap_weights[:, held].sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.asarray(((bootstrap_weights[:, held] @ values[held]).T / total).T)


def held_survival(result: FoldResult) -> FloatArray:
    """Predicted survival, shape (cases, horizons).

    Raises
    ------
    StatisticsError
        When the result holds none.
    """
    if result.survival is None or result.risk_score is None:
        raise StatisticsError(f"{result.procedure}: there is no predicted survival to evaluate; the endpoint needs it")
    return result.survival


def survival_at(result: FoldResult, horizon: float) -> FloatArray:
    """Predicted survival at one horizon, shape (cases,).

    Raises
    ------
    StatisticsError
        When the result holds no prediction for it.
    """
    survival = held_survival(result)
    near = np.flatnonzero(np.isclose(result.horizons_days, horizon, rtol=0, atol=1e-6))
    if not len(near):
        known = ", ".join(f"{days:g}" for days in result.horizons_days) or "none"
        raise StatisticsError(f"{result.procedure}: survival is predicted at {known} days, and not at {horizon:g}")
    return np.asarray(survival[:, near[0]])
