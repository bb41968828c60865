"""The reference study's in-sample figures of LUNG1 from its own tables, each beside what random features give.

    python -m benchmarks.lung1_study [FOLDER] [--draws 12]

FOLDER holds ``lung1_tables``; without it PROGNOSIS_TEST_DATA, else ../shared/data. Everything printed is in-sample: it
says what the study's way of measuring gives, not how well anything predicts.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.final_tables import correlations, in_sample_curve
from prognosis_dask.modelling.selectors.svm_rfe import rank_features, rank_features_rbf, survival_label
from tests.lung1_tables import Curve, compare_curves, read_clinical, read_deep, read_radiomics, read_selected

KS = (1, 10, 50, 100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("folder", nargs="?", type=Path, default=Path(os.environ.get("PROGNOSIS_TEST_DATA", beside)))
    parser.add_argument("--draws", type=int, default=12, help="draws of random features")
    arguments = parser.parse_args()
    folder = arguments.folder / "lung1_tables"
    deep, radiomics = read_deep(folder), read_radiomics(folder)
    sets: dict[str, tuple[FeatureTable, Sequence[int]]] = {
        "deep, the study's selection": (read_selected(folder), range(100))
    }
    for name, table in (("deep", deep), ("radiomics", radiomics)):
        for kernel, rank in (("linear", rank_features), ("RBF", rank_features_rbf)):
            start = time.perf_counter()
            sets[f"{name}, SVM-RFE {kernel}"] = (table, ranking(table, rank))
            print(
                f"SVM-RFE {kernel}, {name} {table.X.shape}, one at a time: {time.perf_counter() - start:.1f} s",
                flush=True,
            )
    with ProcessPoolExecutor() as pool:
        curves = {
            name: in_sample_curve(table, order, range(1, 101), draws=arguments.draws, map=pool.map)
            for name, (table, order) in sets.items()
        }
    # the 100 columns of the study's selection are the best of 400: chance is to draw from all of them
    curves["deep, the study's selection"] = [
        {**own, **{key: value for key, value in drawn.items() if key.startswith("random")}}
        for own, drawn in zip(curves["deep, the study's selection"], curves["deep, SVM-RFE linear"], strict=True)
    ]
    print_curves(curves)
    print_comparisons(curves, deep)
    print_correlations(folder, sets)


def ranking(table: FeatureTable, rank: Callable[..., np.ndarray]) -> np.ndarray:
    alive, known = survival_label(table.survival)
    return rank(table.X[known], alive[known])


def print_curves(curves: dict[str, Curve]) -> None:
    print("\n| in-sample C (random features: median, range) | " + " | ".join(f"k = {k}" for k in KS) + " |")
    print("|---|" + "---|" * len(KS))
    for name, curve in curves.items():
        at = {row["k"]: row for row in curve}
        cells = (
            f"{at[k]['c_index_in_sample']:.4f} ({at[k]['random_median']:.3f}, "
            f"{at[k]['random_lower']:.3f} to {at[k]['random_upper']:.3f})"
            for k in KS
        )
        print(f"| {name} | " + " | ".join(cells) + " |")


def print_comparisons(curves: dict[str, Curve], deep: FeatureTable) -> None:
    rng = np.random.default_rng(1)
    drawn = {
        f"random deep features, draw {i}": in_sample_curve(deep, rng.permutation(400), range(1, 101), draws=0)
        for i in (1, 2, 3)
    }
    print("\n| Wilcoxon signed rank over k = 1..100, as the study | median difference in C | p |\n|---|---|---|")
    for of in (curves, drawn):
        for first, second in itertools.combinations(of, 2):
            found = compare_curves(of[first], of[second])
            print(f"| {first} less {second} | {found['median_difference']:+.4f} | {found['p']:.1g} |")


def print_correlations(folder: Path, sets: dict[str, tuple[FeatureTable, Sequence[int]]]) -> None:
    clinical, radiomics = read_clinical(folder), read_radiomics(folder)
    volume = dict(zip(radiomics.case_ids, column(radiomics, "original_shape_MeshVolume"), strict=True))
    stages = {
        name: dict(zip(clinical.case_ids, column(clinical, of), strict=True))
        for name, of in (
            ("stage", "Overall.Stage"),
            ("T", "clinical.T.Stage"),
            ("N", "Clinical.N.Stage"),
            ("M", "Clinical.M.Stage"),
        )
    }
    print(
        "\n| the first 100 features, Pearson's r with | median of its size | largest | above 0.5 |\n|---|---|---|---|"
    )
    for name, (table, order) in sets.items():
        at = list(order)[:100]
        others = {
            other: np.array([values.get(case, np.nan) for case in table.case_ids])
            for other, values in {"volume": volume, **stages}.items()
        }
        rows: list[dict[str, Any]] = correlations(
            table.X[:, at], [table.features[i] for i in at], others, table.patient_ids
        )
        for other in others:
            size = np.array([abs(row["pearson"]) for row in rows if row["with"] == other])
            print(f"| {name}: {other} | {np.median(size):.2f} | {size.max():.2f} | {(size > 0.5).sum()} |")


def column(table: FeatureTable, name: str) -> np.ndarray:
    return table.X[:, table.features.index(name)]


if __name__ == "__main__":
    main()
