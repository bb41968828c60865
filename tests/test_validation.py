"""Cross-validation: patients stay together, noise gives 0.5, and a leak would show."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.lung1_tables import read_deep
from prognosis_dask.job import ModelSection
from prognosis_dask.statistics.concordance import concordance
from prognosis_dask.statistics.endpoint import Survival
from prognosis_dask.statistics.table import FeatureTable
from prognosis_dask.statistics.validation import _run_fold, choose_k, cross_validate, rank_columns, split_folds

QUICK = ModelSection(folds=4, repeats=1, max_features=10)


def cohort(seed: int, n: int = 80, p: int = 80, signal: float = 0.0, series: int = 1) -> FeatureTable:
    """Exponential times about one year; the log hazard is ``signal`` times the first feature; a third censored."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p))
    time = 500 * rng.exponential(size=n) * np.exp(-signal * X[:, 0]) + 1
    censored = rng.exponential(1500, size=n) + 1
    X = np.repeat(X, series, axis=0) + 0.1 * rng.normal(size=(n * series, p)) * (series > 1)
    patients = [f"P{i:03d}" for i in range(n) for _ in range(series)]
    return FeatureTable(
        X,
        tuple(f"f{i}" for i in range(p)),
        ("deep",) * p,
        ("",) * p,
        tuple(f"{patient}_{i}" for i, patient in enumerate(patients)),
        tuple(patients),
        Survival(np.repeat(np.minimum(time, censored), series), np.repeat(time <= censored, series)),
    )


def mean_c(tables: list[FeatureTable]) -> float:
    return float(np.mean([cross_validate(table, QUICK).c_index for table in tables]))


def test_a_patients_cases_share_a_fold_and_folds_are_even() -> None:
    table = cohort(0, n=53, series=3)
    number = split_folds(table, 5, 365.0, np.random.default_rng(1))
    for patient in set(table.patient_ids):
        assert len(set(number[np.array(table.patient_ids) == patient])) == 1
    alive = table.time_days > 365
    for rows in (np.ones_like(alive), table.event, alive, table.event & ~alive):
        per_fold = np.bincount(number[rows], minlength=5) / 3
        assert np.ptp(per_fold) <= 1


def test_folds_differ_between_repeats_and_not_between_runs() -> None:
    table = cohort(0)
    first, again, other = (
        split_folds(table, 5, 365.0, np.random.default_rng(seed)) for seed in ([0, 0], [0, 0], [0, 1])
    )
    assert (first == again).all()
    assert (first != other).any()


def test_permuted_outcomes_give_half() -> None:
    tables = []
    for seed in range(6):
        table = cohort(seed, signal=2.0)
        order = np.random.default_rng(seed).permutation(80)
        tables.append(replace(table, endpoint=table.endpoint.rows(order)))
    assert mean_c(tables) == pytest.approx(0.5, abs=0.05)


def test_selection_outside_the_folds_would_be_seen() -> None:
    tables = [cohort(seed, p=120) for seed in range(3)]
    leaked = [table.rows(np.arange(80)) for table in tables]
    for i, table in enumerate(tables):
        best = rank_columns(table, QUICK)[:10]
        leaked[i] = table.columns(best)
    assert mean_c(tables) < 0.56
    assert mean_c(leaked) > 0.62


def test_a_planted_signal_is_found() -> None:
    table = cohort(0, n=120, p=60, signal=1.5)
    found = cross_validate(table, QUICK)
    truth = concordance(table.time_days, table.event, table.X[:, 0]).c_index
    assert truth - 0.08 < found.c_index <= truth + 0.03
    assert found.lower < found.c_index < found.upper
    assert choose_k(table, QUICK, [0]) <= 5
    high = found.risk > 0
    assert np.median(table.time_days[high]) < np.median(table.time_days[~high])


def test_the_held_out_cases_change_nothing_but_their_own_risk() -> None:
    table = cohort(0, p=40)
    rows = np.arange(0, 80, 4)
    X, time, event = table.X.copy(), table.time_days.copy(), table.event.copy()
    X[rows[1:]], time[rows], event[rows] = 1e3 * X[rows[1:]] + 7, 1.0, ~event[rows]
    fold = _run_fold(table, QUICK, (0, 0, rows))
    changed = _run_fold(replace(table, X=X, endpoint=Survival(time, event)), QUICK, (0, 0, rows))
    assert changed.k == fold.k
    assert changed.risk[0] == fold.risk[0]
    assert (changed.risk[1:] != fold.risk[1:]).all()


def test_result_does_not_depend_on_how_folds_run() -> None:
    table = cohort(1, p=40, signal=1.0)
    section = replace(QUICK, repeats=2)
    alone = cross_validate(table, section)
    with ThreadPoolExecutor(4) as pool:
        beside = cross_validate(table, section, map=pool.map)
    assert (alone.risk == beside.risk).all()
    assert (alone.c_index, alone.lower, alone.upper) == (beside.c_index, beside.lower, beside.upper)
    assert cross_validate(table, replace(section, seed=1)).c_index != alone.c_index


def test_c_index_is_the_mean_of_the_folds_and_risk_the_mean_of_the_repeats() -> None:
    table = cohort(2, p=20, signal=1.0)
    found = cross_validate(table, replace(QUICK, repeats=3))
    assert found.c_index == pytest.approx(np.mean([fold.c_index for fold in found.folds]))
    of_first = [fold.risk[fold.rows == 0][0] for fold in found.folds if 0 in fold.rows]
    assert len(of_first) == 3
    assert found.risk[0] == pytest.approx(np.mean(of_first))
    for fold in found.folds:
        held = table.rows(fold.rows)
        assert fold.c_index == concordance(held.time_days, held.event, fold.risk).c_index


def test_columns_constant_in_a_training_fold_are_left_out_there() -> None:
    table = cohort(3, p=5)
    X = table.X.copy()
    X[:, 1:] = 0.0
    X[0, 1] = 1.0  # varies in one patient: constant wherever that patient is held out
    found = cross_validate(replace(table, X=X), QUICK)
    assert np.isfinite(found.risk).all()
    assert {fold.k for fold in found.folds} <= {1, 2}


def test_interval_widens_with_fewer_patients_and_not_with_more_series() -> None:
    def width(table: FeatureTable) -> float:
        found = cross_validate(table, replace(QUICK, max_features=1))
        return found.upper - found.lower

    assert width(cohort(0, n=200, p=3, signal=1.0)) < width(cohort(0, n=50, p=3, signal=1.0))
    once, thrice = cohort(0, n=60, p=3, signal=1.0), cohort(0, n=60, p=3, signal=1.0, series=3)
    assert width(thrice) == pytest.approx(width(once), rel=0.3)


@pytest.mark.slow
def test_lung1s_honest_c_index_is_far_below_the_in_sample_one(shared_data: Path) -> None:
    # penalised Cox on the same table, cross-validated with lifelines: 0.555; in-sample the study reports 0.67.
    # Single repeats scatter by 0.01 (standard deviation; up to 0.03 from the mean was seen), so the default three
    found = cross_validate(read_deep(shared_data / "lung1_tables"), ModelSection())
    assert found.c_index == pytest.approx(0.555, abs=0.02)
    assert found.lower < 0.555 < found.upper < 0.67
