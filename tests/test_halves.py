"""Intervals that count the training: what they rest on, that they cover, and that they are the same on any workers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.special import stdtrit

from prognosis_dask.modelling.data.reading import ReadTable
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.procedure import Procedure
from prognosis_dask.modelling.spec import ModelSpec, ValidationRule
from prognosis_dask.modelling.validation.comparing import compare
from prognosis_dask.modelling.validation.halves import DEALINGS, ONE_SIDED, Halves, bounds, half_tasks
from tests.synthetic_tables import class_table, survival_table

RIDGE = Procedure(("deep",), selector="", learner="cox", penalty=(0.1,))
KEY = ("a", "harrell_c", None)
NOTHING = ("b", "harrell_c", None)


def compared(table: FeatureTable, halves: int, procedures: dict[str, Procedure], map: Any = map) -> dict[str, Any]:
    rule = ValidationRule(folds=3, repeats=3, halves=halves, horizons_days=(365.0,))
    read = ReadTable(table=table, encodings=(), left_out={}, notes=(), has_endpoint=True)
    return compare(read, ModelSpec(procedure=procedures, validation=rule), map)[0]


def test_the_deviation_is_that_between_halves_less_what_the_dealing_of_folds_adds() -> None:
    rng = np.random.default_rng(0)
    between, dealt = 0.05, 0.03
    values = 0.6 + between * rng.normal(size=(4000, 1)) + dealt * rng.normal(size=(4000, DEALINGS))
    deviation, df = Halves({KEY: values}).deviation(KEY, repeats=20)
    assert deviation == pytest.approx(math.hypot(between, dealt / math.sqrt(20)), rel=0.03)
    assert df == 3999


def test_smaller_parts_of_large_cohorts_give_the_same_deviation() -> None:
    rng, p = np.random.default_rng(2), 0.3
    answers = rng.random(4000) < p
    for parts in (2, 5):
        of_parts = [[rng.permutation(answers)[: len(answers) // parts].mean()] * DEALINGS for _ in range(2000)]
        deviation, _ = Halves({KEY: np.array(of_parts)}, parts).deviation(KEY, 20)
        assert deviation == pytest.approx(math.sqrt(p * (1 - p) / len(answers)), rel=0.05)


def test_a_difference_of_what_fits_make_of_noise_is_judged_by_halves_that_share_no_patient() -> None:
    """Of a sum over pairs of patients the figure of all has a variance that is known; halves of any split thrice it."""
    rng, n = np.random.default_rng(3), 100
    apart, together = [], []
    for _ in range(400):
        product = rng.normal(size=n)
        halves = [_over_pairs(product[half]) for _ in range(20) for half in np.split(rng.permutation(n), 2)]
        of = Halves({KEY: np.repeat(np.array([halves]).T, DEALINGS, axis=1), NOTHING: np.zeros((40, DEALINGS))})
        apart.append(of.apart(KEY, 10, NOTHING)[0] ** 2)
        together.append(of.deviation(KEY, 10)[0] ** 2)
    variance = 2 * (n - 1) / n**3
    assert np.mean(apart) / variance == pytest.approx(2, rel=0.15)
    assert np.mean(together) / variance == pytest.approx(3, rel=0.15)


def _over_pairs(product: Any) -> float:
    """What each case says times what every other does: as a model of noise and its test on other noise."""
    return float((product.sum() ** 2 - (product**2).sum()) / len(product) ** 2)


def test_a_difference_of_means_has_the_deviation_of_independent_patients() -> None:
    rng, n = np.random.default_rng(4), 200
    values = rng.normal(size=n)
    means = [values[half].mean() for _ in range(400) for half in np.split(rng.permutation(n), 2)]
    of = Halves({KEY: np.repeat(np.array([means]).T, DEALINGS, axis=1), NOTHING: np.zeros((800, DEALINGS))})
    deviation, df = of.apart(KEY, 10, NOTHING)
    assert deviation == pytest.approx(values.std() / math.sqrt(n), rel=0.1)
    assert df == pytest.approx(400)


@pytest.mark.parametrize(("dealt", "repeats", "least"), [(0.0, 10, 0.04), (0.6, 10, 0.015), (0.6, 1, 0.035)])
def test_a_difference_of_equal_procedures_is_called_at_most_one_in_twenty_times(
    dealt: float, repeats: int, least: float
) -> None:
    """Figures of 10 splits, without what the dealing of folds adds, with a lot of it, and where it is dealt once."""
    rng, called, times = np.random.default_rng(8), 0, 4000
    for _ in range(times):
        halves = math.sqrt(2) * (rng.normal(size=(20, 1)) + math.sqrt(dealt) * rng.normal(size=(20, DEALINGS)))
        deviation, df = Halves({KEY: halves, NOTHING: np.zeros((20, DEALINGS))}).apart(KEY, repeats, NOTHING)
        called += abs(rng.normal() * math.sqrt(1 + dealt / repeats)) > deviation * stdtrit(df, 0.975)
    assert least < called / times < 0.06


@pytest.mark.parametrize("parts", [2, 7, 30])
def test_parts_of_one_split_give_the_deviation_of_all_patients_whatever_their_number(parts: int) -> None:
    of = Halves(
        {KEY: np.random.default_rng(6).normal(size=(20, 1)) + np.zeros(DEALINGS), NOTHING: np.zeros((20, 2))}, parts
    )
    deviation, df = of.apart(KEY, 10, NOTHING)
    assert deviation == pytest.approx(1 / math.sqrt(parts), rel=0.5)
    assert df >= 10


def test_halves_without_a_figure_are_left_out_and_too_few_give_no_interval() -> None:
    values = np.random.default_rng(1).normal(size=(20, DEALINGS))
    values[:9, 1] = np.nan
    assert Halves({KEY: values}).deviation(KEY, 3)[1] == 10
    values[:11, 1] = np.nan
    assert math.isnan(Halves({KEY: values}).deviation(KEY, 3)[0])
    assert math.isnan(Halves({}).deviation(KEY, 3)[0])


@pytest.mark.parametrize(
    ("measure", "value", "reach", "least", "most"),
    [
        ("harrell_c", 0.97, 0.3, 0, 1),
        ("auc", 1.0, 0.1, 0, 1),
        ("ibs", 0.02, 0.1, 0, 9),
        ("calibration_slope", 0.1, 1, -9, 9),
    ],
)
def test_bounds_stay_where_a_measure_can_be(
    measure: str, value: float, reach: float, least: float, most: float
) -> None:
    lower, upper = bounds(measure, value, reach)
    assert least <= lower <= value <= upper <= most


def test_measures_and_differences_have_wider_intervals_than_draws_of_the_tested_patients() -> None:
    procedures = {
        "one": RIDGE,
        "other": Procedure(("deep",), selector="cox-univariate", learner="cox", n_features=(3,)),
    }
    table = survival_table(3, n=120, p=12, signal=0.8)
    wide, narrow = (compared(table, halves, procedures) for halves in (12, 0))
    for one, other in zip(wide["measures"], narrow["measures"], strict=True):
        assert one["value"] == other["value"] or math.isnan(one["value"])
        if one["in_sample"]:
            assert "lower_drawn" not in one
        elif one["measure"] in ("harrell_c", "uno_c", "auc_t", "ibs"):
            assert (one["lower_drawn"], one["upper_drawn"]) == (other["lower"], other["upper"])
            assert one["upper"] - one["lower"] >= 0.98 * (other["upper"] - other["lower"])
        elif one["measure"] == "log_rank_p":
            assert math.isnan(one["lower"])
    difference = next(row for row in wide["differences"] if row["measure"] == "harrell_c")
    assert difference["lower"] < difference["difference"] < difference["upper"]
    assert (difference["p"] < 0.05) == (difference["lower"] > 0 or difference["upper"] < 0)


def test_what_a_held_out_score_adds_is_judged_by_how_much_it_scatters() -> None:
    table = survival_table(6, n=100, p=8, signal=0.5)
    table = replace(table, families=("volume", *table.families[1:]))
    procedures = {"it": replace(RIDGE, families=("deep",))}
    wide, narrow = (compared(table, halves, procedures)["added"] for halves in (12, 0))
    for one, other in zip(wide, narrow, strict=True):
        assert one["z"] == other["z"]
        if one["added"] == "it":
            assert one["test"] == f"likelihood ratio, {ONE_SIDED}"
            assert one["statistic"] != other["statistic"]
            assert (one["p"] < 0.5) == (one["z"] > 0)
        else:
            assert one == other


def test_classes_have_them_too() -> None:
    procedures = {"one": Procedure(("deep",), selector="", learner="logistic", penalty=(0.1,))}
    rows = compared(class_table(0, n=90, p=5, signal=1.0), 10, procedures)["measures"]
    auc = next(row for row in rows if row["measure"] == "auc")
    assert 0 < auc["lower"] < auc["lower_drawn"] < auc["value"] < auc["upper"] <= 1


def test_halves_are_the_same_in_any_order_of_the_tasks() -> None:
    def backwards(function: Any, items: Any) -> list[Any]:
        return [function(item) for item in list(items)[::-1]][::-1]

    table = survival_table(4, n=60, p=4, signal=1.0)
    tasks = half_tasks(table, {"a": RIDGE}, ValidationRule(folds=3, halves=4, seed=0), (365.0,), (365.0,))
    first, second = (tasks.gathered(one(tasks.run, tasks.items)) for one in (map, backwards))
    assert first.values.keys() == second.values.keys()
    assert all(np.array_equal(first.values[key], second.values[key], equal_nan=True) for key in first.values)


def test_a_half_that_cannot_carry_a_procedure_has_no_figures() -> None:
    table = survival_table(5, n=14, p=2)
    tasks = half_tasks(table, {"a": RIDGE}, ValidationRule(folds=7, halves=3, seed=0), (), (365.0,))
    assert tasks.gathered(map(tasks.run, tasks.items)).values == {}
