"""Intervals that count the training: the whole validation again on random halves of the patients.

A cross-validated figure varies since other patients might have been tested, since other patients might have trained
the models, and since the folds might have been dealt otherwise. An interval that draws the tested patients and keeps
the models counts the first alone, and covers too rarely (``python -m benchmarks.coverage``). The figures of random
halves differ for all three reasons, and by as much as the figure of all patients would: half of the patients have twice
the variance, of which two halves of the same patients share half (the delete-half jackknife; Shao & Wu, Annals of
Statistics 17, 1176, 1989). What the dealing of folds adds is measured within each half, by dealing twice, and taken
out. Of more than 2,000 patients smaller parts will do, and cost less: of k parts a figure has k times the variance of
all patients, and 1 / k of it is shared.

That halves of the same patients share half of their variance holds for sums over patients. What selection and fitting
make of noise differs altogether from half to half: a test of it by that rule calls hardly anything different. Tests
therefore compare the two halves of one split, which have no patient in common, so that nothing has to be known of what
they share: half of what they differ by, squared, is the variance of a figure of half of the patients, and of twice as
many it is half as much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil, exp, isfinite, log, nan, sqrt
from typing import TypeAlias

import numpy as np

from prognosis_dask.arrays import FloatArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Survival
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.metrics.intervals import Z95
from prognosis_dask.modelling.metrics.measured import MeasuredCases, repeats
from prognosis_dask.modelling.procedure import Procedure
from prognosis_dask.modelling.spec import ValidationRule
from prognosis_dask.modelling.table_spec import Row, Tables
from prognosis_dask.modelling.validation.added import added_rows
from prognosis_dask.modelling.validation.differences import adjust
from prognosis_dask.modelling.validation.evaluate import measure_all
from prognosis_dask.modelling.validation.nested import validate
from prognosis_dask.modelling.validation.splitting import split_patients

#: What the bounds are, in words.
INTERVAL = "95 % delete-half jackknife of the whole validation, training included"
#: Of the test of a held-out score that is scaled by how much it scatters between halves.
ONE_SIDED = "one-sided, by halves"
#: Parts are halves, but no larger than this many patients.
_LARGEST = 1000
#: How often each half's patients are dealt into folds.
DEALINGS = 2
#: Fewer halves with a figure than this share give no interval.
_FEWEST = 0.5
#: Sets the halves' random numbers apart from those of the validation itself.
_STREAM = 7321
#: Measures between 0 and 1, whose bounds are taken on the logit, and those above 0, on the logarithm.
_SHARES = ("harrell_c", "uno_c", "auc", "mean_auc", "accuracy", "balanced_accuracy", "recall")
_RATIOS = ("hazard_ratio", "observed_expected")
_POSITIVE = ("brier", "ibs", "log_loss", "ici", "e50", "e90")

#: Procedure, measure and horizon (NaN: none).
Key: TypeAlias = tuple[str, str, float | None]


@dataclass(frozen=True, eq=False)
class Halves:
    """Every measure of every procedure on random halves: by :data:`Key`, shape (halves, :data:`DEALINGS`).

    ``parts``: how many parts as large there are, 2 for halves; as many in turn are those of one split.
    """

    values: Mapping[Key, FloatArray]
    parts: int = 2

    def deviation(self, key: Key, repeats: int) -> tuple[float, int]:
        """Standard deviation of a figure of all patients, and its degrees of freedom.

        ``repeats``: how often the folds were dealt for the figure itself. NaN where too few halves have the figure.
        """
        held = self._held(key, None, together=1)
        if held is None:
            return nan, 0
        held = held[:, 0]
        dealt = float(held.var(axis=1, ddof=1).mean())
        between = float(held.mean(axis=1).var(ddof=1)) - dealt / DEALINGS
        variance = max(between, 0.0) / (self.parts - 1) + dealt * 2 / self.parts / repeats
        return sqrt(variance), len(held) - 1

    def apart(self, key: Key, repeats: int, other: Key) -> tuple[float, int]:
        """Standard deviation of a difference of two figures of all patients, and its degrees of freedom.

        From parts of the same split, which have no patient in common. Each split has a degree of freedom (of k parts
        k - 1). What dealing a part's folds twice adds is left in the variance, though a figure that is dealt more often
        has less of it: where few columns of many are selected, parts vary too little for a figure of all patients, and
        without that reserve twice as many equal procedures are called different as should be. Folds dealt once add
        the rest. NaN where too few splits have the figures.
        """
        held = self._held(key, other, together=self.parts)
        if held is None:
            return nan, 0
        dealt = float(held.var(axis=2, ddof=1).mean()) / self.parts
        raw = float(held.mean(axis=2).var(axis=1, ddof=1).mean()) / self.parts
        more = max(1 / repeats - 1 / DEALINGS, 0.0)
        return sqrt(raw + dealt * more), len(held) * (held.shape[1] - 1)

    def scatter(self, key: Key) -> tuple[float, int]:
        """Standard deviation between parts of the same split, and its degrees of freedom; NaN where too few have it.

        Of a statistic that scatters as much with few patients as with many.
        """
        held = self._held(key, None, together=self.parts)
        if held is None:
            return nan, 0
        return sqrt(float(held.mean(axis=2).var(axis=1, ddof=1).mean())), len(held) * (held.shape[1] - 1)

    def _held(self, key: Key, other: Key | None, together: int) -> FloatArray | None:
        """Of a figure (or one less an ``other``) so many halves at a time, all of which have it; None: too few do.

        Shape (times, ``together``, :data:`DEALINGS`).
        """
        if key not in self.values or (other is not None and other not in self.values):
            return None
        values = self.values[key] - (0.0 if other is None else self.values[other])
        together = min(together, len(values))  # of very many parts some of a split will do
        times = values[: len(values) // together * together].reshape(-1, together, DEALINGS)
        held = times[np.isfinite(times).all(axis=(1, 2))]
        enough = len(held) * max(1, together - 1) >= 3 and len(held) >= _FEWEST * len(times)
        return held if enough else None


@dataclass(frozen=True, eq=False)
class HalfTasks:
    """The validation on halves as tasks of any ``map``, one per half and procedure: ``run`` of each of ``items``."""

    run: Callable[[tuple[int, str]], dict[tuple[Key, int], float]]
    items: Sequence[tuple[int, str]]
    draws: int
    parts: int

    def gathered(self, found: Iterable[Mapping[tuple[Key, int], float]]) -> Halves:
        """What the tasks found, in the order of the items."""
        values: dict[Key, FloatArray] = {}
        for (draw, _), figures in zip(self.items, found, strict=True):
            for (key, dealing), value in figures.items():
                values.setdefault(key, np.full((self.draws, DEALINGS), nan))[draw, dealing] = value
        return Halves(values, self.parts)


@dataclass(frozen=True, eq=False)
class _Validation:
    """What is repeated on each half; ``times``: all that survival is predicted at, in days."""

    table: FeatureTable
    procedures: Mapping[str, Procedure]
    rule: ValidationRule
    horizons: tuple[float, ...]
    times: tuple[float, ...]
    parts: int


def half_tasks(
    table: FeatureTable,
    procedures: Mapping[str, Procedure],
    rule: ValidationRule,
    horizons: Sequence[float],
    times: Sequence[float],
) -> HalfTasks:
    """Every procedure validated on ``rule.halves`` random halves of the patients.

    Halves are drawn within the endpoint's strata, two of a split after one another, and shared by the procedures. A
    half that cannot carry a procedure has no figures.

    Parameters
    ----------
    table, procedures, rule
        As validated.
    horizons, times
        In days: those reported, and all that survival is predicted at.
    """
    parts = max(2, ceil(len(set(table.patient_ids)) / _LARGEST))
    whole = _Validation(table, dict(procedures), rule, tuple(horizons), tuple(times), parts)
    items = [(draw, name) for draw in range(rule.halves) for name in procedures]
    return HalfTasks(partial(_run, whole), items, rule.halves, parts)


def _run(whole: _Validation, task: tuple[int, str]) -> dict[tuple[Key, int], float]:
    (draw, name), seed = task, whole.rule.seed
    in_half = split_patients(whole.table, whole.parts, [seed, _STREAM, draw // whole.parts]) == draw % whole.parts
    half = whole.table.rows(np.flatnonzero(in_half))
    cases = MeasuredCases(half.endpoint, half.patient_ids, whole.horizons, seed, draws=0)
    procedure = {name: whole.procedures[name]}
    dealt_twice = replace(whole.rule, repeats=DEALINGS, seed=seed + draw)
    found: dict[tuple[Key, int], float] = {}
    try:
        results = validate(half, procedure, dealt_twice, horizons_days=whole.times)
        for dealing, dealt in enumerate(repeats(results)):
            (measured,) = measure_all(cases, [dealt])
            for row in measured.tables["measures"]:
                found[_key(row), dealing] = row["value"]
        if isinstance(half.endpoint, Survival):
            for row in added_rows(half, {name: results}, seed, draws=0):
                for dealing in range(DEALINGS) if row["added"] == name else ():
                    found[_added_key(row), dealing] = row["z"]
    except StatisticsError:
        return {}
    return found


def _key(row: Row) -> Key:
    return row["procedure"], row["measure"], row["horizon_days"]


def _added_key(row: Row) -> Key:
    return row["added"], f"z beside {row['base']}", None


def widen(tables: Tables, halves: Halves, repeats: int) -> Tables:
    """The tables whose held-out measures and differences have intervals and tests that count the training.

    What the bounds were stands in ``lower_drawn`` and ``upper_drawn``: patients drawn, models kept. A measure without
    figures of halves has no other bounds.
    """
    measures = [row if row["in_sample"] else _measured(row, halves, repeats) for row in tables["measures"]]
    horizons = {_key(row)[:2]: row["horizon_days"] for row in reversed(measures)}
    differences = [_differing(row, halves, repeats, horizons) for row in tables.get("differences", [])]
    adjust(differences)
    widened: Tables = {**tables, "measures": measures, "differences": differences}
    if "added" in tables:
        widened["added"] = [_adding(row, halves) for row in tables["added"]]
    return widened


def _measured(row: Row, halves: Halves, repeats: int) -> Row:
    deviation, df = halves.deviation(_key(row), repeats)
    drawn = {"lower_drawn": row["lower"], "upper_drawn": row["upper"]}
    if not isfinite(deviation) or row["measure"] == "log_rank_p":  # a p-value is no estimate
        return row | drawn
    deviation = max(deviation, (row["upper"] - row["lower"]) / (2 * Z95)) if isfinite(row["lower"]) else deviation
    lower, upper = bounds(row["measure"], row["value"], _quantile(df) * deviation)
    return row | {"lower": lower, "upper": upper} | drawn


def bounds(measure: str, value: float, reach: float) -> tuple[float, float]:
    """The value less and plus its reach, on a scale that keeps the bounds where the measure can be.

    >>> [round(bound, 3) for bound in bounds("harrell_c", 0.9, 0.15)]
    [0.63, 0.979]
    """
    if _of(measure, _SHARES) and 0 < value < 1:
        middle, wide = log(value / (1 - value)), reach / (value * (1 - value))
        return tuple(1 / (1 + exp(-at)) for at in (middle - wide, middle + wide))  # type: ignore[return-value]
    if _of(measure, _RATIOS) and value > 0:
        return value * exp(-reach / value), value * exp(reach / value)
    least, most = (
        (0.0, 1.0) if _of(measure, _SHARES) else (0.0, np.inf) if _of(measure, _POSITIVE) else (-np.inf, np.inf)
    )
    return max(least, value - reach), min(most, value + reach)


def _of(measure: str, kind: Iterable[str]) -> bool:
    return measure != "brier_scaled" and any(measure == name or measure.startswith(f"{name}_") for name in kind)


def _quantile(df: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(df, 0.975))


def _differing(row: Row, halves: Halves, repeats: int, horizons: Mapping[tuple[str, str], float | None]) -> Row:
    from scipy.special import stdtr

    one, other = ((name, row["measure"], horizons.get((name, row["measure"]))) for name in (row["a"], row["b"]))
    deviation, df = halves.apart(one, repeats, other)
    if not isfinite(deviation):
        return row
    value, reach = row["difference"], _quantile(df) * deviation
    p = 1.0 if value == 0 else float(2 * stdtr(df, -abs(value) / deviation)) if deviation else 0.0
    return row | {"lower": value - reach, "upper": value + reach, "p": p}


def _adding(row: Row, halves: Halves) -> Row:
    """What a held-out score adds: its z by how much z scatters, and one-sided, since harm is no value."""
    from scipy.special import stdtr

    deviation, df = halves.scatter(_added_key(row))
    if not deviation > 0 or not isfinite(row["z"]):
        return row
    z = row["z"] / deviation
    return row | {"test": f"{row['test']}, {ONE_SIDED}", "statistic": z**2, "p": float(stdtr(df, -z))}
