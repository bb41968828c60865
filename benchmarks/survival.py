"""What the statistics take and what they find, on the reference study's LUNG1 tables and on synthetic ones.

    python -m benchmarks.survival [FOLDER] [--parts selection nested made large] [--repeats 20] [--procedures NAME...]
        [--without-witnesses]

FOLDER holds ``lung1_tables``; without it PROGNOSIS_TEST_DATA, else ../shared/data. Parts:

* ``selection``: SVM-RFE and the in-sample Cox curve, and (slow) scikit-learn's RFE and lifelines' CoxPHFitter beside;
* ``nested``: 5-fold nested cross-validation of image features, volume, stage, clinical columns and all of them, and
  which differences between them are real;
* ``made``: the same machinery where the truth is known: a planted signal, and none, over 20 seeds;
* ``large``: a procedure fitted on 3,000 patients x 1,200 features, with its memory.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from prognosis_dask.arrays import Map
from prognosis_dask.modelling.data.endpoint import Survival
from prognosis_dask.modelling.data.reading import find_tables, read_tables
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.estimators.cox import cox_curve
from prognosis_dask.modelling.fitted import fit_procedure
from prognosis_dask.modelling.metrics.concordance import concordance
from prognosis_dask.modelling.procedure import Procedure
from prognosis_dask.modelling.selectors.svm_rfe import rank_features, survival_label
from prognosis_dask.modelling.spec import ValidationRule, load_spec
from prognosis_dask.modelling.validation.comparing import compare
from prognosis_dask.modelling.validation.nested import validate
from tests.lung1_tables import read_deep, read_selected

Result = TypeVar("Result")
KS = (1, 10, 50, 100)
PARTS = ("selection", "nested", "made", "large")
SPEC = Path(__file__).resolve().parents[1] / "jobs" / "models" / "lung1_tables.toml"
HORIZON_DAYS = 730.0
CLINICAL = ("clinical", "stage", "volume")
#: Ridge on all columns of a set, families weighing the same; beside it SVM-RFE, the study's, and boosted trees. These
#: procedures, their penalties and that families are balanced were settled on two to six repeats of these same
#: patients, out of some thirty variants, which flatters the best of them a little.
PROCEDURES: Mapping[str, Procedure] = {
    "volume": Procedure(families=("volume",), selector="", penalty=(0.01,)),
    "stage + volume": Procedure(families=("stage", "volume"), selector=""),
    "clinical, stage, volume": Procedure(families=CLINICAL, selector=""),
    "deep, SVM-RFE": Procedure(families=("deep",)),
    "deep": Procedure(families=("deep",), selector=""),
    "radiomics": Procedure(families=("radiomics",), selector=""),
    "deep + radiomics": Procedure(families=("deep", "radiomics"), selector="", balance_families=True),
    "everything": Procedure(selector="", balance_families=True),
    "everything, trees": Procedure(families=(*CLINICAL, "radiomics"), selector="", learner="xgboost", penalty=(10.0,)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("folder", nargs="?", type=Path, default=Path(os.environ.get("PROGNOSIS_TEST_DATA", beside)))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--procedures", nargs="+", choices=PROCEDURES, default=tuple(PROCEDURES), help="of nested")
    parser.add_argument("--without-witnesses", action="store_true")
    arguments = parser.parse_args()
    folder = arguments.folder / "lung1_tables"
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        if "selection" in arguments.parts:
            selection(folder, not arguments.without_witnesses)
        if "nested" in arguments.parts:
            nested(folder, arguments.repeats, arguments.procedures, pool.map)
        if "made" in arguments.parts:
            made(pool.map)
        if "large" in arguments.parts:
            large()


def selection(folder: Path, witnesses: bool) -> None:
    deep, selected = read_deep(folder), read_selected(folder)
    alive, known = survival_label(deep.survival)
    X, label = deep.X[known], alive[known]
    ranking, seconds = timed(lambda: rank_features(X, label))
    rows = [[f"SVM-RFE {X.shape[0]} x {X.shape[1]}, one at a time", f"{seconds:.1f} s", ""]]
    for name, table in (("the study's selection", selected), ("ours", deep.columns(ranking))):
        curve, seconds = timed(lambda table=table: in_sample(table))  # type: ignore[misc]
        figures = ", ".join(f"{curve[k - 1]:.4f} (k={k})" for k in KS)
        rows.append([f"Cox curve k = 1..100, {name}", f"{seconds:.1f} s", f"in-sample C {figures}"])
    if witnesses:
        theirs, seconds = timed(lambda: sklearn_ranking(X, label))
        same = f"{np.mean(theirs == ranking):.1%} of places the same"
        rows.append(["scikit-learn's RFE(SVC) of the same", f"{seconds:.1f} s", same])
        _, seconds = timed(lambda: lifelines_curve(selected))
        rows.append(["lifelines' Cox curve", f"{seconds:.1f} s", ""])
    show(["step", "time", "figures"], rows)


def nested(folder: Path, repeats: int, names: Sequence[str], map: Map) -> None:
    spec = load_spec(SPEC)
    read = read_tables(find_tables([folder], spec), spec)
    table, procedures = read.table, {name: PROCEDURES[name] for name in names}
    rule = replace(spec.validation, repeats=repeats, horizons_days=(HORIZON_DAYS,))
    spec = replace(spec, procedure=procedures, final="", validation=rule)
    deaths = f"{len(table.case_ids)} patients, {int(table.event.sum())} deaths"
    print(f"LUNG1: {deaths}; 5 folds x {repeats} repeats, {rule.halves} halves for the intervals\n", flush=True)
    (tables, _), seconds = timed(lambda: compare(read, spec, map))
    for in_sample, what in ((0, "held out"), (1, "in sample")):
        measures = {(r["procedure"], r["measure"]): r for r in tables["measures"] if r["in_sample"] == in_sample}
        shown = ("harrell_c", "uno_c", "ibs", "calibration_slope")
        show(
            [f"{what}", *shown],
            [[name, *(_with_interval(measures[name, measure]) for measure in shown)] for name in names],
        )
    print(f"{seconds:.0f} s. Differences of Harrell's C, from the halves; p by Holm for all pairs:\n")
    show(
        ["", "difference", "p", "p, all pairs", "p (Wilcoxon)"],
        [
            [
                f"{row['a']} - {row['b']}",
                f"{row['difference']:+.3f} ({row['lower']:+.3f} to {row['upper']:+.3f})",
                *(f"{row[name]:.2g}" for name in ("p", "p_holm", "p_wilcoxon")),
            ]
            for row in tables["differences"]
            if row["measure"] == "harrell_c"
        ],
    )
    print("What held-out scores add:\n")
    show(
        ["base", "added", "test", "p", "change of C"],
        [
            [r["base"], r["added"], r["test"], f"{r['p']:.2g}", f"{r['delta_c']:+.3f}"]
            for r in tables["added"]
            if "volume" in (r["base"], r["added"])
        ],
    )


def _with_interval(row: Mapping[str, Any]) -> str:
    return f"{row['value']:.3f} ({row['lower']:.3f} to {row['upper']:.3f})"


def made(map: Map) -> None:
    """200 patients, 100 features; the log hazard is a sum of three of them, or of none."""
    rows = []
    for signal in (0.0, 0.7):
        found, possible = [], []
        for seed in range(20):
            table = made_table(seed, 200, 100, signal)
            results = validate(table, {"it": Procedure()}, ValidationRule(repeats=1, seed=seed), map=map)
            found.append(np.mean([c_index(table.rows(r.test), r.risk_score) for r in results]))
            possible.append(c_index(table, table.X[:, :3].sum(axis=1)))
        spread = 1.96 * np.std(found, ddof=1) / np.sqrt(len(found))
        truth = f"{np.mean(possible):.3f}" if signal else "0.5"
        rows.append([f"{signal:g}", f"{np.mean(found):.3f} (+- {spread:.3f})", truth])
    show(["log hazard per SD", "held-out C, mean of 20 seeds", "C of the truth"], rows)


def large() -> None:
    table = made_table(0, 3000, 1200, 0.3)
    rows = []
    for name, procedure in {
        "SVM-RFE, tuned": Procedure(),
        "univariate Cox, tuned": Procedure(selector="cox-univariate"),
        "ridge of all features, tuned": Procedure(selector=""),
    }.items():
        _, seconds = timed(lambda procedure=procedure: fit_procedure(procedure, table, 0))  # type: ignore[misc]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        rows.append([name, f"{seconds:.0f} s", f"{peak:.1f} GiB"])
    show(["3,000 patients x 1,200 features", "time", "peak memory so far"], rows)


def made_table(seed: int, cases: int, features: int, signal: float) -> FeatureTable:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(cases, features))
    died = 500 * rng.exponential(size=cases) * np.exp(-signal * X[:, :3].sum(axis=1)) + 1
    left = rng.exponential(1500, size=cases) + 1
    ids = tuple(f"P{i:04d}" for i in range(cases))
    names = tuple(f"f{i}" for i in range(features))
    endpoint = Survival(np.minimum(died, left), died <= left)
    return FeatureTable(X, names, ("deep",) * features, ("",) * features, ids, ids, endpoint)


def c_index(table: FeatureTable, risk: np.ndarray) -> float:
    return concordance(table.survival, risk).c_index


def in_sample(table: FeatureTable) -> list[float]:
    return cox_curve(table.X, table.survival, range(1, 101))


def timed(run: Callable[[], Result]) -> tuple[Result, float]:
    start = time.perf_counter()
    return run(), time.perf_counter() - start


def show(header: list[str], rows: list[list[Any]]) -> None:
    for row in (header, ["---"] * len(header), *rows):
        print(f"| {' | '.join(row)} |")
    print(flush=True)


def sklearn_ranking(X: np.ndarray, label: np.ndarray) -> np.ndarray:
    from sklearn.feature_selection import RFE
    from sklearn.preprocessing import minmax_scale
    from sklearn.svm import SVC

    rfe = RFE(SVC(kernel="linear", tol=1e-6), step=1, n_features_to_select=1).fit(minmax_scale(X), label)
    return np.argsort(rfe.ranking_)


def lifelines_curve(table: FeatureTable) -> list[float]:
    import pandas as pd
    from lifelines import CoxPHFitter

    frame = pd.DataFrame(table.X, columns=list(table.features)).assign(time=table.time_days, event=table.event)
    fits = (frame[[*table.features[:k], "time", "event"]] for k in range(1, 101))
    return [CoxPHFitter(penalizer=0.01).fit(fit, "time", "event").concordance_index_ for fit in fits]


if __name__ == "__main__":
    main()
