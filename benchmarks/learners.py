"""Our learners beside scikit-survival's on public tables: the same folds, C and integrated Brier score held out.

    python -m benchmarks.learners [--tables veterans whas500 gbsg2] [--repeats 4] [--folds 5] [--only NAME...]
        [--forests]

Ours are whole procedures, tuned within the training cases. scikit-survival's see the same standardised columns, and are
tuned where it says so: by scikit-learn's search in as many inner folds, by the concordance. Their tables come with
scikit-survival; without that package there is nothing to do. The standard error of a difference allows for overlapping
training cases (Nadeau & Bengio, Machine Learning 52, 239, 2003). Processor time is that of one fold, tuning included.

``--forests``: instead our forest cut at several depths beside scikit-survival's with as many features a node, and with
its own number: what the rule of splitting costs, and what the depth.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from prognosis_dask.arrays import FloatArray
from prognosis_dask.modelling.data.endpoint import Survival
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.estimators.scores import one_thread
from prognosis_dask.modelling.estimators.trees import LEAF, fit_survival_forest
from prognosis_dask.modelling.fitted import fit_procedure
from prognosis_dask.modelling.metrics.brier import brier_score, fit_censoring, integrated
from prognosis_dask.modelling.metrics.concordance import concordance
from prognosis_dask.modelling.procedure import Procedure
from prognosis_dask.modelling.validation.splitting import split_patients

OURS: Mapping[str, Procedure] = {
    "cox": Procedure(selector=""),
    "weibull-aft": Procedure(selector="", learner="weibull-aft"),
    "loglogistic-aft": Procedure(selector="", learner="loglogistic-aft"),
    "lognormal-aft": Procedure(selector="", learner="lognormal-aft"),
    "survival-forest": Procedure(selector="", learner="survival-forest"),
    "xgboost": Procedure(selector="", learner="xgboost", penalty=(1.0, 10.0)),
}
#: Times at which the Brier score is integrated, as shares of the times of events.
GRID = np.linspace(0.05, 0.9, 20)
#: At which our forest is cut; the last is that of whole trees.
DEPTHS = (2, 3, 4, 6, 8, 100)
TABLES = ("veterans", "whas500", "gbsg2")


@dataclass(frozen=True)
class Found:
    """Of one held-out fold."""

    c_index: float
    brier: float
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=())
    parser.add_argument("--forests", action="store_true")
    arguments = parser.parse_args()
    try:
        import sksurv
    except ImportError:
        print("scikit-survival is not installed: no tables and no peers")
        return
    print(f"scikit-survival {sksurv.__version__}; {arguments.folds} folds x {arguments.repeats}\n")
    learners = {**OURS, **theirs()}
    learners = {name: one for name, one in learners.items() if not arguments.only or name in arguments.only}
    for name in arguments.tables:
        table = read(name)
        if arguments.forests:
            forests(table, name, arguments.repeats, arguments.folds)
            continue
        found: dict[str, list[Found]] = {learner: [] for learner in learners}
        for repeat in range(arguments.repeats):
            number = split_patients(table, arguments.folds, [0, repeat])
            for fold in range(arguments.folds):
                train, test = (table.rows(np.flatnonzero(rows)) for rows in (number != fold, number == fold))
                for learner, one in learners.items():
                    found[learner].append(held_out(one, train, test, [0, repeat, fold]))
        show(table, name, found, arguments.folds)


def show(table: FeatureTable, name: str, found: Mapping[str, list[Found]], folds: int) -> None:
    print(f"{name}: {len(table.case_ids)} patients, {int(table.event.sum())} events, {table.X.shape[1]} columns\n")
    c = {learner: np.array([one.c_index for one in values]) for learner, values in found.items()}
    best = max((learner for learner in c if learner not in OURS), key=lambda learner: c[learner].mean(), default="")
    print(f"| learner | C | less {best or 'theirs'} (SE) | integrated Brier | s |\n|---|---|---|---|---|")
    for learner, values in found.items():
        brier, seconds = (np.mean([getattr(one, of) for one in values]) for of in ("brier", "seconds"))
        difference = ""
        if best and learner != best:
            apart = c[learner] - c[best]
            error = np.sqrt((1 / len(apart) + 1 / (folds - 1)) * apart.var(ddof=1))
            difference = f"{apart.mean():+.4f} ({error:.4f})"
        print(f"| {learner} | {c[learner].mean():.4f} | {difference} | {brier:.4f} | {seconds:.1f} |")
    print(flush=True)


def forests(table: FeatureTable, name: str, repeats: int, folds: int) -> None:
    from sksurv.ensemble import RandomSurvivalForest
    from sksurv.util import Surv

    most, found = int(np.ceil(np.sqrt(table.X.shape[1]))), dict[str, list[float]]()
    for repeat in range(repeats):
        number = split_patients(table, folds, [0, repeat])
        for fold in range(folds):
            train, test = (table.rows(np.flatnonzero(rows)) for rows in (number != fold, number == fold))
            mean, scale = train.X.mean(axis=0), train.X.std(axis=0, ddof=1)
            scale[scale == 0] = 1.0
            Z, new = (train.X - mean) / scale, (test.X - mean) / scale
            shapes = [(depth, 0) for depth in DEPTHS]
            ours = fit_survival_forest(Z, train.endpoint, [0.0], 0.0, [0, repeat, fold], shapes)
            scores = {f"depth {depth}": one.predict(new).risk_score for depth, one in zip(DEPTHS, ours, strict=True)}
            for features in (most, "sqrt"):
                peer = RandomSurvivalForest(200, min_samples_leaf=LEAF, max_features=features, random_state=fold)
                fitted = peer.fit(Z, Surv.from_arrays(train.event, train.time_days))
                scores[f"scikit-survival, {features} features a node"] = fitted.predict(new)
            for which, risk in scores.items():
                assert risk is not None
                found.setdefault(which, []).append(concordance(test.survival, risk).c_index)
    print(f"{name}: leaves of {LEAF}, {most} of {table.X.shape[1]} features a node\n\n| forest | C |\n|---|---|")
    for which, values in found.items():
        print(f"| {which} | {np.mean(values):.4f} |")
    print(flush=True)


def held_out(learner: Any, train: FeatureTable, test: FeatureTable, seed: list[int]) -> Found:
    started = time.process_time()
    times = np.unique(np.quantile(train.time_days[train.event], GRID))
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if isinstance(learner, Procedure):
            prediction = fit_procedure(learner, train, seed).predict(test)
            assert prediction.risk_score is not None
            assert prediction.survival is not None
            risk, survival = prediction.risk_score, prediction.survival(times)
        else:
            risk, survival = peer(learner, train, test, times, seed)
    seconds = time.process_time() - started
    both = zip(*((table.time_days, table.event) for table in (train, test)), strict=True)
    censoring = fit_censoring(Survival(*map(np.concatenate, both)))
    times = times[(times < test.time_days.max()) & (times < censoring.last_days)]
    errors = [brier_score(test.survival, survival[:, i], float(days), censoring) for i, days in enumerate(times)]
    return Found(concordance(test.survival, risk).c_index, float(integrated(times, np.array(errors))), seconds)


def theirs() -> dict[str, Callable[[list[int]], Any]]:
    """Scikit-survival's learners by name, from a seed."""
    from sklearn.model_selection import GridSearchCV
    from sksurv.ensemble import GradientBoostingSurvivalAnalysis, RandomSurvivalForest
    from sksurv.linear_model import CoxPHSurvivalAnalysis

    def number(seed: list[int]) -> int:
        return int(np.random.default_rng(seed).integers(2**31))

    def boosting(seed: list[int], **more: Any) -> Any:
        return GradientBoostingSurvivalAnalysis(subsample=0.8, random_state=number(seed), **more)

    def tuned_boosting(seed: list[int]) -> Any:
        grid = {"max_depth": [1, 2, 3], "n_estimators": [50, 100, 200]}
        return GridSearchCV(boosting(seed, learning_rate=0.05), grid, cv=3)

    return {
        "scikit-survival: Cox, alpha 0.1": lambda seed: CoxPHSurvivalAnalysis(alpha=0.1, ties="efron"),
        "scikit-survival: forest, leaf 5": lambda seed: RandomSurvivalForest(
            200, min_samples_leaf=5, random_state=number(seed)
        ),
        "scikit-survival: forest, leaf 15": lambda seed: RandomSurvivalForest(
            200, min_samples_leaf=15, random_state=number(seed)
        ),
        "scikit-survival: boosting": boosting,
        "scikit-survival: boosting, tuned": tuned_boosting,
    }


def peer(
    make: Callable[[list[int]], Any], train: FeatureTable, test: FeatureTable, times: FloatArray, seed: list[int]
) -> tuple[FloatArray, FloatArray]:
    from sksurv.util import Surv

    mean, scale = train.X.mean(axis=0), train.X.std(axis=0, ddof=1)
    scale[scale == 0] = 1.0
    Z, new = (train.X - mean) / scale, (test.X - mean) / scale
    fitted = make(seed).fit(Z, Surv.from_arrays(train.event, train.time_days))
    fitted = getattr(fitted, "best_estimator_", fitted)
    curves = fitted.predict_survival_function(new)
    return np.asarray(fitted.predict(new)), np.array([curve(np.clip(times, *curve.domain)) for curve in curves])


def read(name: str) -> FeatureTable:
    """A public table with its categories as columns of 0 and 1, grades in their order."""
    from sksurv import datasets

    load = {"gbsg2": datasets.load_gbsg2, "whas500": datasets.load_whas500}.get(
        name, datasets.load_veterans_lung_cancer
    )
    frame, outcome = load()
    event, days = (outcome[field] for field in outcome.dtype.names)
    if "tgrade" in frame:
        frame["tgrade"] = frame["tgrade"].map({"I": 0.0, "II": 1.0, "III": 2.0}).astype(float)
    X = pd.get_dummies(frame, drop_first=True)
    ids, width = tuple(str(i) for i in range(len(X))), X.shape[1]
    endpoint = Survival(np.asarray(days, dtype=float), np.asarray(event, dtype=bool))
    return FeatureTable(X.to_numpy(float), tuple(X.columns), ("clinical",) * width, ("",) * width, ids, ids, endpoint)


if __name__ == "__main__":
    main()
