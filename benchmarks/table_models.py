"""How long models of large tables take: wide ones ranked, long ones fitted from end to end.

    python -m benchmarks.table_models [--parts wide pieces long] [--cores 2] [--repeats 20]

* ``wide``: SVM-RFE of 60 cases x 100,000 features in one process, and its memory (reading is not counted);
* ``pieces``: of 10,000 x 20 one fold, the in-sample curve, and the measures of one round of folds, in one process;
* ``long``: ``prognosis fit`` with its defaults on 10,000 cases x 20 features as CSV: 20 x 5 folds, tuning, measures,
  final model, report, on so many workers.

Processor time stands beside the time on the clock: on a machine that others use, it is what can be compared.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from prognosis_dask.modelling.data.endpoint import Survival
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.estimators.scores import one_thread
from prognosis_dask.modelling.final_tables import curve_rows
from prognosis_dask.modelling.fitted import fit_procedure
from prognosis_dask.modelling.metrics.measured import MeasuredCases
from prognosis_dask.modelling.procedure import Procedure
from prognosis_dask.modelling.selectors.svm_rfe import rank_features
from prognosis_dask.modelling.spec import ValidationRule, default_horizons
from prognosis_dask.modelling.validation.evaluate import measure_all, time_grid
from prognosis_dask.modelling.validation.nested import validate

PARTS = ("wide", "pieces", "long")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    if "wide" in arguments.parts:
        wide(60, 100_000)
    if "pieces" in arguments.parts:
        pieces(10_000, 20)
    if "long" in arguments.parts:
        long(10_000, 20, arguments.repeats)


def wide(cases: int, features: int) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(cases, features))
    label = X[:, :3].sum(axis=1) + 2 * rng.normal(size=cases) > 0
    started, used = time.perf_counter(), time.process_time()
    with one_thread():
        rank_features(X, label)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    told("ranked", cases, features, time.perf_counter() - started, time.process_time() - used, f"{memory:.2f} GB")


def pieces(cases: int, features: int) -> None:
    frame = made(cases, features)
    endpoint = Survival(frame["time_days"].to_numpy(), frame["event"].to_numpy() == 1)
    X, ids = frame.iloc[:, 1:-2].to_numpy(), tuple(frame["PatientID"])
    names = tuple(frame.columns[1:-2])
    table = FeatureTable(X, names, ("radiomics",) * features, ("",) * features, ids, ids, endpoint)
    horizons = default_horizons(endpoint)
    ridge = {"it": Procedure(selector="", penalty=(0.01,))}
    folds = validate(table, ridge, ValidationRule(repeats=1), horizons_days=time_grid(endpoint, horizons))
    for what, work in (
        ("one fold", partial(fit_procedure, Procedure(), table.rows(np.arange(cases * 4 // 5)), 0)),
        ("in-sample curve", partial(curve_rows, Procedure(), table, 0, map)),
        ("measures of a round", partial(measure_all, MeasuredCases(endpoint, ids, horizons), [folds])),
    ):
        started, used = time.perf_counter(), time.process_time()
        with one_thread():
            work()
        told(what, cases, features, time.perf_counter() - started, time.process_time() - used, "")


def made(cases: int, features: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(cases, features))
    death = 700 * rng.exponential(size=cases) * np.exp(-0.4 * X[:, :5].sum(axis=1))
    lost = rng.uniform(100, 2500, cases)
    table = pd.DataFrame(X, columns=[f"original_firstorder_{i}" for i in range(features)])
    table.insert(0, "PatientID", [f"P{i:05d}" for i in range(cases)])
    table["time_days"], table["event"] = np.minimum(death, lost).round(1) + 1, (death <= lost).astype(int)
    return table


def long(cases: int, features: int, repeats: int) -> None:
    table = made(cases, features)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        table.to_csv(path, index=False)
        command = [sys.executable, "-m", "prognosis_dask", "fit", str(path), "-o", f"{folder}/out"]
        started = time.perf_counter()
        subprocess.run([*command, "--set", f"validation.repeats={repeats}"], check=True)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = time.perf_counter() - started
        told(f"fit, {repeats} x 5 folds", cases, features, seconds, used.ru_utime + used.ru_stime, "")


def told(what: str, cases: int, features: int, clock: float, processor: float, more: str) -> None:
    print(f"{cases:,} x {features:,} {what}: {clock:.1f} s, {processor:.1f} s of processor time {more}".rstrip())


if __name__ == "__main__":
    main()
