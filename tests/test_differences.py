"""Tests of differences between procedures: against scipy, lifelines, and worked by hand."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter
from lifelines.datasets import load_rossi
from scipy import stats

from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Survival
from prognosis_dask.modelling.metrics.cox_tests import cox_coefficient, likelihood_ratio
from prognosis_dask.modelling.validation.differences import corrected_t, holm, wilcoxon


def test_without_overlap_the_corrected_test_is_the_plain_t_test() -> None:
    differences = np.random.default_rng(0).normal(0.3, 1, 30)
    expected = stats.ttest_1samp(differences, 0)
    found = corrected_t(differences, 0.0)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found.lower, found.upper) == pytest.approx(tuple(expected.confidence_interval()), rel=1e-9)


def test_the_correction_is_that_of_nadeau_and_bengio() -> None:
    """Mean 0.02 and variance 2.5e-4 of five folds: t = 0.02 / sqrt((1/5 + 1/4) 2.5e-4) = 1.8856, 4 degrees."""
    found = corrected_t(np.array([0.0, 0.01, 0.02, 0.03, 0.04]), 0.25)
    assert found.difference == pytest.approx(0.02)
    error = sqrt(0.45 * 2.5e-4)
    assert found.p == pytest.approx(2 * stats.t.sf(1.8856180831641267, 4), rel=1e-9)
    assert found.upper == pytest.approx(0.02 + 2.7764451051977987 * error, rel=1e-9)


def test_folds_that_share_patients_fool_wilcoxon_and_the_plain_test_but_not_the_corrected_one() -> None:
    """Two predictors of equal worth, accuracy 0.7, on 200 cases: the folds' differences share the same cases."""
    false = {"plain": 0, "corrected": 0, "wilcoxon": 0}
    for seed in range(100):
        rng = np.random.default_rng(seed)
        right = (rng.random((200, 2)) < 0.7).astype(float)
        per_case = right[:, 0] - right[:, 1]
        folds = np.array([per_case[f] for _ in range(10) for f in np.array_split(rng.permutation(200), 5)]).mean(axis=1)
        false["plain"] += corrected_t(folds, 0.0).p < 0.05
        false["wilcoxon"] += wilcoxon(folds) < 0.05
        false["corrected"] += corrected_t(folds, 0.25).p < 0.05
    assert false["plain"] > 25
    assert false["wilcoxon"] > 25
    assert false["corrected"] <= 10


def test_many_pairs_of_equal_procedures_are_called_different_no_more_often_than_one_pair() -> None:
    rng = np.random.default_rng(0)
    p = rng.random((2000, 10))
    assert 0.3 < (p.min(axis=1) < 0.05).mean() < 0.5
    found = np.mean([min(holm(row)) < 0.05 for row in p.tolist()])
    assert stats.binomtest(round(2000 * found), 2000, 1 - (1 - 0.005) ** 10).pvalue > 0.01
    # step by step, as Holm says: the smallest of four times 4, then 3, 2, 1, never below the one before
    assert holm([0.005, 0.011, 0.02, 0.04]) == pytest.approx([0.02, 0.033, 0.04, 0.04])


def test_wilcoxons_test_is_exact_by_hand_and_leaves_out_what_is_missing() -> None:
    assert wilcoxon(np.array([1.0, 2.0, 3.0, 4.0, 5.0])) == pytest.approx(2 / 32)
    assert wilcoxon(np.array([1.0, np.nan, 2.0, 3.0, 4.0, 5.0])) == pytest.approx(2 / 32)
    assert wilcoxon(np.zeros(4)) == 1.0
    many = np.random.default_rng(0).normal(0.1, 1, 100)
    assert wilcoxon(many) == pytest.approx(stats.wilcoxon(many, method="approx").pvalue)


def test_likelihood_ratio_is_that_of_lifelines() -> None:
    rossi = load_rossi()
    # each time its own, since the two treat ties differently
    rossi["week"] += np.random.default_rng(0).permutation(len(rossi)) / 1e4
    base, added = ["age", "fin"], ["prio", "race", "mar"]
    time, event = rossi["week"].to_numpy(float), rossi["arrest"].to_numpy() == 1

    def fitted(columns: list[str]) -> float:
        model = CoxPHFitter().fit(rossi[[*columns, "week", "arrest"]], "week", "arrest")
        np.testing.assert_allclose(
            cox_coefficient(rossi[columns].to_numpy(float), Survival(time, event)), model.params_, atol=1e-6
        )
        return float(model.log_likelihood_)

    expected = 2 * (fitted(base + added) - fitted(base))
    found = likelihood_ratio(rossi[base].to_numpy(float), rossi[added].to_numpy(float), Survival(time, event))
    assert found.statistic == pytest.approx(expected, abs=1e-6)
    assert (found.df, found.p) == (3, pytest.approx(stats.chi2.sf(expected, 3), rel=1e-6))


def test_likelihood_ratio_against_nothing_is_that_of_the_whole_model() -> None:
    rng = np.random.default_rng(1)
    x, time = rng.normal(size=60), rng.exponential(size=60)
    table = pd.DataFrame({"x": x, "time": time, "event": 1})
    expected = CoxPHFitter().fit(table, "time", "event").log_likelihood_ratio_test()
    found = likelihood_ratio(np.empty((60, 0)), x[:, None], Survival(time, np.ones(60, dtype=bool)))
    assert (found.statistic, found.p) == pytest.approx((expected.test_statistic, expected.p_value), rel=1e-6)


def test_what_cannot_be_tested_is_refused_with_the_reason() -> None:
    rng = np.random.default_rng(2)
    x, time, event = rng.normal(size=(30, 1)), rng.exponential(size=30), np.ones(30, dtype=bool)
    with pytest.raises(StatisticsError, match="say nothing that the base does not"):
        likelihood_ratio(x, 2 * x + 1, Survival(time, event))
    with pytest.raises(StatisticsError, match="none has the event"):
        likelihood_ratio(x, x**2, Survival(time, ~event))
    with pytest.raises(StatisticsError, match="order the events perfectly"):
        likelihood_ratio(np.empty((30, 0)), -time[:, None], Survival(time, event))
    with pytest.raises(StatisticsError, match="1 folds have a value"):
        corrected_t(np.array([0.1, np.nan]), 0.25)
    with pytest.raises(StatisticsError, match="no pair has a difference"):
        wilcoxon(np.array([np.nan]))
    same = corrected_t(np.zeros(5), 0.25)
    assert (same.difference, same.p) == (0.0, 1.0)
