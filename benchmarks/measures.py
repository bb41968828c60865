"""Seconds, memory and agreement of the measures of predicted survival, beside scikit-survival's.

    python -m benchmarks.measures

On synthetic patients. The witness is timed on one set of predictions; an interval takes a thousand.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import sksurv.metrics as witness
from sksurv.util import Surv

from prognosis_dask.arrays import FloatArray
from prognosis_dask.modelling.data.endpoint import Survival
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.metrics.brier import brier_score, fit_censoring
from prognosis_dask.modelling.metrics.concordance import bootstrap_concordance, concordance, uno_c, uno_weight
from prognosis_dask.modelling.metrics.intervals import DRAWS, draw_patients
from prognosis_dask.modelling.metrics.survival_tables import auc_t
from prognosis_dask.modelling.validation.evaluate import evaluate, time_grid
from prognosis_dask.modelling.validation.nested import FoldResult

Result = TypeVar("Result")
HORIZONS = (365.0, 730.0)
FOLDS, REPEATS, PROCEDURES = 5, 20, 8


def main() -> None:
    print("| what | patients | s | peak MB |\n|---|---|---|---|")
    for n in (422, 3000):
        endpoint, risk = made(n)
        time_days, event = endpoint.time_days, endpoint.event
        drawn = draw_patients([str(i) for i in range(n)], np.random.default_rng(0))
        row("Harrell's C", n, lambda: concordance(endpoint, risk))  # noqa: B023
        row(f"and {DRAWS} draws of it", n, lambda: bootstrap_concordance(endpoint, risk, drawn))  # noqa: B023
        probability = fit_censoring(endpoint).seen(time_days)
        weight = uno_weight(event, probability, time_days < HORIZONS[-1])
        row(f"{DRAWS} draws of Uno's C", n, lambda: bootstrap_concordance(endpoint, risk, drawn, weight))  # noqa: B023
        outcome = Surv.from_arrays(event, time_days)
        row("scikit-survival: one Uno's C", n, lambda: witness.concordance_index_ipcw(outcome, outcome, risk))  # noqa: B023
    table, results = validated(422)
    folds = results[: FOLDS * REPEATS]
    row(f"interval of C of {len(folds)} held-out folds", 422, lambda: over_folds(table, folds))
    row(f"all tables of {PROCEDURES} procedures x {len(folds)} folds", 422, lambda: evaluate(table, results, HORIZONS))
    print("\n| largest difference from scikit-survival, 20 cohorts with ties | |\n|---|---|")
    for name, difference in agreement().items():
        print(f"| {name} | {difference:.1e} |")


def row(what: str, n: int, run: Callable[[], Result]) -> Result:
    start = time.perf_counter()
    result = run()
    seconds = time.perf_counter() - start
    tracemalloc.start()
    run()
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    print(f"| {what} | {n} | {seconds:.3g} | {peak:.0f} |", flush=True)
    return result


def made(n: int, seed: int = 0, step: float = 1.0) -> tuple[Survival, FloatArray]:
    """Proportional hazards, a third censored; times in whole steps."""
    rng = np.random.default_rng(seed)
    risk = rng.normal(size=n)
    died, lost = 600 * rng.exponential(size=n) * np.exp(-0.5 * risk), rng.exponential(1500, size=n)
    days = np.ceil((np.minimum(died, lost) + 1e-3) / step) * step
    return Survival(days, died <= lost), np.round(risk + rng.normal(size=n), 2)


def validated(n: int) -> tuple[FeatureTable, list[FoldResult]]:
    """Held-out predictions of procedures that see the risk through more and more noise."""
    endpoint, risk = made(n)
    names = tuple(f"P{i}" for i in range(n))
    table = FeatureTable(risk[:, None], ("risk",), ("deep",), ("",), names, names, endpoint)
    grid, results = time_grid(endpoint, HORIZONS), []
    for procedure in range(PROCEDURES):
        score = 0.5 * risk + 0.3 * procedure * np.random.default_rng(procedure).normal(size=n)
        survival = np.exp(-np.array(grid) / 600 * np.exp(score)[:, None])
        for repeat in range(REPEATS):
            number = np.random.default_rng(repeat).permutation(n) % FOLDS
            for fold in range(FOLDS):
                train, test = np.flatnonzero(number != fold), np.flatnonzero(number == fold)
                cutoff, name = float(np.median(score[train])), f"procedure {procedure}"
                kept = (score[test], cutoff, grid, survival[test], None, ("risk",), {})
                results.append(FoldResult(name, repeat, fold, train, test, *kept))
    return table, results


def over_folds(table: FeatureTable, folds: list[FoldResult]) -> FloatArray:
    drawn = draw_patients(table.patient_ids, np.random.default_rng(0))
    values = [
        bootstrap_concordance(table.survival.rows(one.test), one.risk_score, drawn[:, one.test])
        for one in folds
        if one.risk_score is not None
    ]
    return np.percentile(np.mean(values, axis=0), [2.5, 97.5])


def agreement() -> dict[str, float]:
    largest = dict.fromkeys(("Uno's C", "AUC(t)", "Brier score"), 0.0)
    for seed in range(20):
        endpoint, risk = made(200, seed, step=20.0)
        days, event = endpoint.time_days, endpoint.event
        # it weights an event by the censoring at its time too: of a tie the event comes first
        outcome, censoring = Surv.from_arrays(event, days - 1e-6 * event), fit_censoring(endpoint)
        survival = np.exp(-365 / 600 * np.exp(risk))
        pairs = {
            "Uno's C": (
                uno_c(endpoint, risk, censoring.seen(days), 730.0),
                witness.concordance_index_ipcw(outcome, outcome, risk, 730.0)[0],
            ),
            "AUC(t)": (
                auc_t(endpoint, risk, 365.0, censoring),
                witness.cumulative_dynamic_auc(outcome, outcome, risk, [365.0])[0][0],
            ),
            "Brier score": (
                brier_score(endpoint, survival, 365.0, censoring),
                witness.brier_score(outcome, outcome, survival[:, None], [365.0])[1][0],
            ),
        }
        for name, (ours, theirs) in pairs.items():
            largest[name] = max(largest[name], abs(ours - theirs))
    return largest


if __name__ == "__main__":
    main()
