"""How often intervals hold the truth, and how often tests find what is not there, on simulated cohorts.

    python -m benchmarks.coverage --repeats 200 --processes 2

Each cohort has two procedures on exchangeable features and a volume. The truth of a figure is the C-index of the model
that was fitted on the whole cohort, on patients of the same kind. Intervals should hold it in 95 %, tests of two
exchangeable procedures, and of what features without any effect add to the volume, should call 5 % significant.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from prognosis_dask.arrays import FloatArray
from prognosis_dask.modelling.data.endpoint import Survival
from prognosis_dask.modelling.data.reading import ReadTable
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.estimators.scores import one_thread
from prognosis_dask.modelling.metrics.concordance import concordance
from prognosis_dask.modelling.procedure import Procedure
from prognosis_dask.modelling.spec import ModelSpec, ValidationRule
from prognosis_dask.modelling.validation.comparing import compare

PATIENTS, NEW_PATIENTS = 150, 3000
FOLDS, REPEATS, HALVES = 5, 10, 20


@dataclass(frozen=True)
class Scenario:
    """``effects`` of the first features of either procedure, of ``features`` each; ``select``: how many are chosen."""

    features: int
    effects: tuple[float, ...]
    select: int = 0
    censoring: float = 2.0
    correlation: float = 0.0


SCENARIOS = {
    "ridge": Scenario(10, (0.16,) * 10),
    "ridge, no effect": Scenario(10, ()),
    "5 selected of 50": Scenario(50, (0.4, 0.3, 0.25), select=5),
    "5 selected of 50, no effect": Scenario(50, (), select=5),
    "about 50 events": Scenario(10, (0.16,) * 10, censoring=0.5),
    "correlated, 5 selected of 50": Scenario(50, (0.3,) * 3, select=5, correlation=0.5),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", default="", help="one scenario's name")
    arguments = parser.parse_args()
    print(f"{arguments.repeats} cohorts of {PATIENTS} patients, {FOLDS} folds x {REPEATS}, {HALVES} halves\n")
    names = ("C, models kept", "C, halves", "differ, corrected t", "differ, models kept", "differ, halves")
    print(f"| scenario | true C | {' | '.join((*names, 'adds, plain', 'adds, halves'))} | s |")
    print("|---" * 10 + "|")
    for name, scenario in SCENARIOS.items():
        if arguments.only not in ("", name):
            continue
        begun = time.perf_counter()
        with ProcessPoolExecutor(arguments.processes) as pool:
            found = list(pool.map(partial(one_cohort, scenario), range(arguments.repeats)))
        cells = [_share(found, key) for key in ("kept", "halves", "t", "differ_kept", "differ", "plain", "adds")]
        truth = np.mean([one["truth"] for one in found])
        seconds = time.perf_counter() - begun
        print(f"| {name} | {truth:.3f} | {' | '.join(cells)} | {seconds:.0f} |", flush=True)


def _share(found: list[Mapping[str, float]], key: str) -> str:
    values = np.array([one[key] for one in found])
    return "" if np.isnan(values).all() else f"{np.nanmean(values):.3f}"


def one_cohort(scenario: Scenario, seed: int) -> dict[str, float]:
    """Whether each interval held the truth, and each test called something significant."""
    with one_thread():
        table = simulated(scenario, PATIENTS, np.random.default_rng([1, seed]))
        spec = ModelSpec(
            procedure={"volume": _procedure("volume", 0), **{of: _procedure(of, scenario.select) for of in _FAMILIES}},
            validation=ValidationRule(folds=FOLDS, repeats=REPEATS, halves=HALVES, seed=seed, horizons_days=(365.0,)),
        )
        tables, fitted = compare(ReadTable(table, (), {}, (), has_endpoint=True), spec)
        new = simulated(scenario, NEW_PATIENTS, np.random.default_rng([2, seed]))
        risk = fitted["radiomics"].predict(new).risk_score
    assert risk is not None
    truth = concordance(new.time_days, new.event, risk).c_index
    measure = next(
        row
        for row in tables["measures"]
        if (row["procedure"], row["measure"], row["in_sample"]) == ("radiomics", "harrell_c", 0)
    )
    pair = next(
        row for row in tables["differences"] if {row["a"], row["b"]} == set(_FAMILIES) and row["measure"] == "harrell_c"
    )
    nothing = float("nan")
    found = {
        "truth": truth,
        "kept": measure["lower_drawn"] <= truth <= measure["upper_drawn"],
        "halves": measure["lower"] <= truth <= measure["upper"],
        "t": pair["p_corrected"] < 0.05,
        "differ_kept": not pair["lower_drawn"] <= 0 <= pair["upper_drawn"],
        "differ": pair["p"] < 0.05,
        "plain": nothing,
        "adds": nothing,
    }
    if not scenario.effects:
        row = next(r for r in tables["added"] if (r["base"], r["added"]) == ("volume", "radiomics"))
        found |= {"plain": abs(row["z"]) > 1.96, "adds": row["p"] < 0.05}
    return {key: float(value) for key, value in found.items()}


_FAMILIES = ("radiomics", "deep")


def _procedure(family: str, select: int) -> Procedure:
    selector = "cox-univariate" if select else ""
    return Procedure((family,), selector=selector, n_features=(select or 1,), penalty=(0.1,))


def simulated(scenario: Scenario, n: int, rng: np.random.Generator) -> FeatureTable:
    """Exponential times; the volume's log hazard ratio is 0.5, the two families have the same effects."""
    p = scenario.features
    common = rng.normal(size=(n, 1))
    images = np.sqrt(1 - scenario.correlation) * rng.normal(size=(n, 2 * p)) + np.sqrt(scenario.correlation) * common
    volume = rng.normal(size=n)
    effect = np.zeros(p)
    effect[: len(scenario.effects)] = scenario.effects
    hazard: FloatArray = images @ np.concatenate([effect, effect]) + 0.5 * volume
    days = 365 * rng.exponential(size=n) * np.exp(-hazard)
    censored = 365 * scenario.censoring * rng.exponential(size=n)
    names = tuple(f"r{i}" for i in range(p)), tuple(f"d{i}" for i in range(p))
    ids = tuple(f"P{i}" for i in range(n))
    return FeatureTable(
        np.column_stack([images, volume]),
        (*names[0], *names[1], "volume_ml"),
        ("radiomics",) * p + ("deep",) * p + ("volume",),
        ("",) * (2 * p + 1),
        ids,
        ids,
        Survival(np.minimum(days, censored) + 1e-3, days <= censored),
    )


if __name__ == "__main__":
    main()
