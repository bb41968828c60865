"""How often intervals hold the truth, and how often tests find what is not there, on simulated cohorts.

    python -m benchmarks.coverage --folder FOLDER --repeats 200

Each cohort has two procedures on exchangeable features and a volume. The truth of a figure is the C-index of the model
that was fitted on the whole cohort, on patients of the same kind. Intervals should hold it in 95 %, tests of two
exchangeable procedures, and of what features without any effect add to the volume, should call 5 % significant.

A cohort is drawn from its number. What is finished is kept in the folder, and another start goes on from there;
figures of other versions of the statistics are refused.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import prognosis_dask.modelling
from prognosis_dask.arrays import FloatArray
from prognosis_dask.modelling.data.endpoint import Survival
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.estimators.scores import one_thread
from prognosis_dask.modelling.fitted import fit_procedure
from prognosis_dask.modelling.metrics.concordance import concordance
from prognosis_dask.modelling.metrics.measured import MeasuredCases
from prognosis_dask.modelling.procedure import Procedure
from prognosis_dask.modelling.spec import ValidationRule
from prognosis_dask.modelling.table_spec import Tables
from prognosis_dask.modelling.validation.added import added_rows
from prognosis_dask.modelling.validation.differences import difference_rows
from prognosis_dask.modelling.validation.evaluate import measure_all
from prognosis_dask.modelling.validation.halves import half_tasks, widen
from prognosis_dask.modelling.validation.nested import validate

PATIENTS, NEW_PATIENTS = 150, 3000
FOLDS, REPEATS, HALVES = 5, 10, 20
_FAMILIES = ("radiomics", "deep")


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
#: What is printed of each scenario's cohorts: the column's heading by the figure's name.
COLUMNS = {
    "truth": "true C",
    "kept": "C held: models kept",
    "halves": "C held: halves",
    "t": "called different: corrected t",
    "differ_kept": "models kept",
    "differ": "halves",
    "plain": "adds: plain",
    "adds": "adds: halves",
    "seconds": "s of processor time",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=200, help="cohorts of each scenario")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--folder", type=Path, required=True, help="where finished cohorts are kept")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no cohort after so many")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    kept = Kept(arguments.folder / "cohorts.jsonl", statistics_digest())
    found = dict(kept.read())
    wanted = [(name, seed) for seed in range(arguments.repeats) for name in SCENARIOS]
    end = time.monotonic() + 60 * arguments.minutes
    todo = [task for task in wanted if task not in found]
    with suppress(KeyboardInterrupt), ProcessPoolExecutor(arguments.processes) as pool:
        for start in range(0, len(todo), arguments.processes):
            if time.monotonic() > end:
                break
            tasks = todo[start : start + arguments.processes]
            for task, figures in zip(tasks, pool.map(one_cohort, *zip(*tasks, strict=True)), strict=True):
                kept.add(task, figures)
                found[task] = figures
    print(f"Cohorts of {PATIENTS} patients, {FOLDS} folds x {REPEATS}, {HALVES} halves\n\n{as_table(found)}")


class Kept:
    """Finished cohorts, a line each, with the digest of the statistics that they are of."""

    def __init__(self, path: Path, digest: str) -> None:
        self.path, self.digest = path, digest

    def read(self) -> Iterator[tuple[tuple[str, int], dict[str, float]]]:
        """What is there; a line that was cut off is left out."""
        for line in self.path.read_text().splitlines() if self.path.exists() else ():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if row["statistics"] != self.digest:
                sys.exit(
                    f"{self.path} holds figures of other statistics ({row['statistics']}; these are {self.digest}): "
                    "name another folder"
                )
            yield (row["scenario"], row["cohort"]), row["figures"]

    def add(self, task: tuple[str, int], figures: Mapping[str, float]) -> None:
        """Write a cohort's figures; NaN as JSON of Python's has it."""
        row = {"statistics": self.digest, "scenario": task[0], "cohort": task[1], "figures": dict(figures)}
        with self.path.open("a") as file:
            file.write("\n" + json.dumps(row))  # apart from a line that was cut off


def statistics_digest() -> str:
    """Of the sources of the statistics and of this file."""
    folder = Path(prognosis_dask.modelling.__file__).parent
    whole = hashlib.sha256()
    for path in (*sorted(folder.rglob("*.py")), Path(__file__)):
        whole.update(path.read_bytes())
    return whole.hexdigest()[:16]


def as_table(found: Mapping[tuple[str, int], Mapping[str, float]]) -> str:
    """A row for each scenario that has a cohort: how many, and the means of their figures."""
    lines = [f"| scenario | cohorts | {' | '.join(COLUMNS.values())} |", "|---" * (len(COLUMNS) + 2) + "|"]
    for name in SCENARIOS:
        cohorts = [figures for (scenario, _), figures in found.items() if scenario == name]
        if cohorts:
            values = ([figures.get(key, np.nan) for figures in cohorts] for key in COLUMNS)
            cells = ["" if np.isnan(column).all() else f"{np.nanmean(column):.3f}" for column in values]
            lines.append(f"| {name} | {len(cohorts)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def one_cohort(name: str, seed: int) -> dict[str, float]:
    """Whether each interval held the truth, and each test called something significant."""
    begun, scenario = time.process_time(), SCENARIOS[name]
    with one_thread():
        table = simulated(scenario, PATIENTS, np.random.default_rng([1, seed]))
        tables = validated(table, scenario, seed)
        new = simulated(scenario, NEW_PATIENTS, np.random.default_rng([2, seed]))
        risk = fit_procedure(_procedure("radiomics", scenario.select), table, [seed]).predict(new).risk_score
    assert risk is not None
    truth = concordance(new.survival, risk).c_index
    measure = next(
        row for row in tables["measures"] if (row["procedure"], row["measure"]) == ("radiomics", "harrell_c")
    )
    pair = next(row for row in tables["differences"] if row["measure"] == "harrell_c")
    added = next(row for row in tables["added"] if row["base"] == "volume")
    found = {
        "truth": truth,
        "kept": measure["lower_drawn"] <= truth <= measure["upper_drawn"],
        "halves": measure["lower"] <= truth <= measure["upper"],
        "t": pair["p_corrected"] < 0.05,
        "differ_kept": not pair["lower_drawn"] <= 0 <= pair["upper_drawn"],
        "differ": pair["p"] < 0.05,
    }
    if not scenario.effects:
        found |= {"plain": abs(added["z"]) > 1.96, "adds": added["p"] < 0.05}
    return {key: float(value) for key, value in found.items()} | {"seconds": time.process_time() - begun}


def validated(table: FeatureTable, scenario: Scenario, seed: int) -> Tables:
    """The tables of both procedures that a fit reports, of the C-index alone."""
    procedures = {family: _procedure(family, scenario.select) for family in _FAMILIES}
    rule = ValidationRule(folds=FOLDS, repeats=REPEATS, halves=HALVES, seed=seed)
    results = validate(table, procedures, rule)
    by_name = {name: [result for result in results if result.procedure == name] for name in procedures}
    cases = MeasuredCases(table.endpoint, table.patient_ids, (), seed)
    measured = dict(zip(by_name, measure_all(cases, list(by_name.values())), strict=True))
    tables: Tables = {
        "measures": [row for part in measured.values() for row in part.tables["measures"]],
        "differences": difference_rows(measured, by_name["deep"]),
        "added": added_rows(table, {"radiomics": by_name["radiomics"]}, seed),
    }
    tasks = half_tasks(table, procedures, rule, (), ())
    return widen(tables, tasks.gathered(map(tasks.run, tasks.items)), REPEATS)


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
