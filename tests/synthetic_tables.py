"""Feature tables with a known truth, for the tests of the statistics."""

from __future__ import annotations

import numpy as np

from prognosis_dask.modelling.data.endpoint import Classes, Endpoint, Survival
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.estimators.cox import ProportionalHazards, fit_proportional_hazards


def survival_table(seed: int, n: int = 80, p: int = 30, signal: float = 0.0, series: int = 1) -> FeatureTable:
    """Exponential times about one year; the log hazard is ``signal`` times the first feature; a third censored."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p))
    time = 500 * rng.exponential(size=n) * np.exp(-signal * X[:, 0]) + 1
    censored = rng.exponential(1500, size=n) + 1
    endpoint = Survival(np.repeat(np.minimum(time, censored), series), np.repeat(time <= censored, series))
    return as_table(np.repeat(X, series, axis=0), endpoint, series, noise=0.1 * rng.normal(size=(n * series, p)))


def class_table(seed: int, n: int = 90, p: int = 20, signal: float = 0.0, classes: int = 2) -> FeatureTable:
    """Classes of unequal size; class k has ``signal`` added to feature k."""
    rng = np.random.default_rng(seed)
    label = rng.choice(classes, size=n, p=np.arange(classes, 0, -1) / sum(range(classes + 1)))
    X = rng.normal(size=(n, p))
    X[np.arange(n), label] += signal
    return as_table(X, Classes(label, tuple(f"grade {k}" for k in range(classes))))


def cox_of(X: np.ndarray, time: np.ndarray, event: np.ndarray, penalty: float = 0.01) -> ProportionalHazards:
    """Cox's model of the standardised columns."""
    (model,) = fit_proportional_hazards(standardised(X), Survival(time, event), [penalty], 0.0, [])
    return model


def standardised(X: np.ndarray) -> np.ndarray:
    return (X - X.mean(axis=0)) / X.std(axis=0, ddof=1)


def as_table(X: np.ndarray, endpoint: Endpoint, series: int = 1, noise: np.ndarray | None = None) -> FeatureTable:
    patients = [f"P{i:03d}" for i in range(len(X) // series) for _ in range(series)]
    return FeatureTable(
        X + noise if series > 1 and noise is not None else X,
        tuple(f"f{i}" for i in range(X.shape[1])),
        ("deep",) * X.shape[1],
        ("",) * X.shape[1],
        tuple(f"{patient}_{i}" for i, patient in enumerate(patients)),
        tuple(patients),
        endpoint,
    )


def events_first(event: np.ndarray, time: np.ndarray) -> np.ndarray:
    """The outcome for scikit-survival, events a little earlier.

    It weights an event by the censoring until and at its time; of a tie the event comes first.
    """
    from sksurv.util import Surv

    return Surv.from_arrays(event, time - 1e-6 * event)
