"""Seconds and figures of selection, Cox curve and cross-validation on the reference study's LUNG1 tables.

    python -m benchmarks.survival [FOLDER] [--without-witnesses]

FOLDER holds ``lung1_tables``; without it PROGNOSIS_TEST_DATA, else ../shared/data. The witnesses are scikit-learn's RFE
and lifelines' CoxPHFitter on the same data: slow, and timed to compare.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from benchmarks.lung1_tables import joined, read_deep, read_radiomics, read_selected
from prognosis_dask.job import ModelSection
from prognosis_dask.statistics.concordance import concordance
from prognosis_dask.statistics.cox import cox_curve
from prognosis_dask.statistics.selection import rank_features, survival_label
from prognosis_dask.statistics.table import FeatureTable
from prognosis_dask.statistics.validation import cross_validate

Result = TypeVar("Result")
KS = (1, 10, 50, 100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("folder", nargs="?", type=Path, default=Path(os.environ.get("PROGNOSIS_TEST_DATA", beside)))
    parser.add_argument("--without-witnesses", action="store_true")
    arguments = parser.parse_args()
    folder = arguments.folder / "lung1_tables"
    deep, radiomics, selected = read_deep(folder), read_radiomics(folder), read_selected(folder)

    alive, known = survival_label(deep.time_days, deep.event)
    X, label = deep.X[known], alive[known]
    ranking = timed(f"SVM-RFE {X.shape[0]} x {X.shape[1]}", lambda: rank_features(X, label))
    show_curve("the study's selection", selected)
    show_curve("our selection (the same cases)", replace(deep, X=deep.X[:, ranking]))
    if not arguments.without_witnesses:
        theirs = timed("  scikit-learn's RFE(SVC) of the same", lambda: sklearn_ranking(X, label))
        print(f"  same place in both: {np.mean(theirs == ranking):.1%}")
        timed("  lifelines' Cox curve k = 1..100", lambda: lifelines_curve(selected))

    section = ModelSection()
    for name, table in (("deep", deep), ("radiomics", radiomics), ("both", joined(radiomics, deep))):
        found = timed(
            f"{section.folds}-fold x {section.repeats} cross-validation, {name} {table.X.shape}",
            lambda table=table: cross_validate(table, section),  # type: ignore[misc]
        )
        print(f"  C {found.c_index:.4f} ({found.lower:.4f} to {found.upper:.4f}), k {[fold.k for fold in found.folds]}")
    volume = radiomics.X[:, radiomics.features.index("original_shape_MeshVolume")]
    apparent = concordance(radiomics.time_days, radiomics.event, volume).c_index
    print(f"volume alone, no model: C {apparent:.4f}")


def show_curve(name: str, table: FeatureTable) -> None:
    curve = timed(
        f"Cox curve k = 1..100, {name}", lambda: cox_curve(table.X, table.time_days, table.event, range(1, 101))
    )
    print("  in-sample C " + ", ".join(f"{curve[k - 1]:.7f} (k={k})" for k in KS))


def timed(name: str, run: Callable[[], Result]) -> Result:
    start = time.perf_counter()
    result = run()
    print(f"{name}: {time.perf_counter() - start:.2f} s", flush=True)
    return result


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
