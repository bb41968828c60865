"""A bootstrap sample that cannot be learnt from is drawn again and counted; it does not end the validation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Survival
from prognosis_dask.modelling.procedure import Procedure
from prognosis_dask.modelling.validation.comparing import bootstrap, permutation_test, share_as_good
from tests.synthetic_tables import class_table, survival_table

RIDGE = Procedure(selector="", penalty=(0.1,))


def test_samples_without_an_event_are_drawn_again_and_counted() -> None:
    table = survival_table(0, n=40, p=3)
    rare = replace(table, endpoint=Survival(table.time_days, np.arange(40) < 2))
    (found,) = bootstrap(rare, {"it": RIDGE}, draws=60)
    assert 3 <= found.redrawn <= 20  # one in seven samples lacks both patients with the event
    assert np.isfinite(found.optimism_corrected)
    assert len(found.samples) == 60
    (again,) = bootstrap(rare, {"it": RIDGE}, draws=60)
    np.testing.assert_array_equal(found.samples, again.samples)


def test_samples_without_a_class_are_drawn_again() -> None:
    table = class_table(0, n=30, classes=2)
    label = (np.arange(30) < 2).astype(int)
    rare = replace(table, endpoint=replace(table.endpoint, label=label))
    (found,) = bootstrap(rare, {"it": replace(RIDGE, learner="logistic")}, draws=40)
    assert found.redrawn > 0


def test_enough_events_need_no_second_draw() -> None:
    (found,) = bootstrap(survival_table(0, n=60, p=3), {"it": RIDGE}, draws=10)
    assert found.redrawn == 0


def test_what_no_sample_can_carry_is_said() -> None:
    with pytest.raises(StatisticsError, match=r"20 bootstrap samples, one after the other, cannot carry"):
        bootstrap(survival_table(0, n=24, p=16), {"it": replace(RIDGE, penalty=(0.0,))}, draws=3)


def test_a_figure_that_is_not_there_is_not_significant() -> None:
    assert np.isnan(share_as_good(float("nan"), np.array([0.4, 0.6])))
    assert share_as_good(0.5, np.array([np.nan] * 99)) == 1.0


def test_a_permutation_that_cannot_be_learnt_from_does_not_end_the_test() -> None:
    table = survival_table(0, n=40, p=3)
    rare = replace(table, endpoint=Survival(table.time_days, np.arange(40) % 8 == 0))
    found = permutation_test(rare, Procedure(selector="", inner_folds=4), permutations=8, folds=3)
    held = found.permuted[np.isfinite(found.permuted)]
    assert found.p == (1 + (held >= found.observed).sum()) / (1 + len(held))
