"""Agreement of repeated measurements: published examples, and witnesses that take the long way."""

from __future__ import annotations

import numpy as np
import pytest

from prognosis_dask.modelling.validation.reproducibility import concordance_correlation, intraclass_correlation

#: Table 2 of Shrout & Fleiss 1979: four judges rate six targets.
JUDGES = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]],
    dtype=float,
)
#: Two methods' readings, from Zou, Statistical Methods in Medical Research 22, 630 (2013): the example of
#: R's SimplyAgree.
FIRST = np.array(
    [7.83, 7.42, 7.89, 7.12, 6.16, 7.26, 6.71, 4.75, 5.24, 4.86, 4.78, 6.05, 5.42, 4.21, 3.61, 3.72, 3.87, 3.92]
)
SECOND = np.array(
    [6.57, 5.62, 6.9, 6.57, 4.06, 4.29, 4.26, 4.71, 5.5, 5.08, 5.02, 6.01, 5.67, 4.14, 4.2, 4.61, 4.68, 5.04]
)


def test_intraclass_correlations_and_intervals_are_the_published_ones() -> None:
    found = intraclass_correlation(JUDGES)
    # Shrout & Fleiss, table 4, and to three digits R's psych::ICC, which uses their data as its example
    assert [round(estimate.value, 2) for estimate in found] == [0.17, 0.29, 0.71]
    assert [round(estimate.lower, 3) for estimate in found] == [-0.133, 0.019, 0.342]
    assert [round(estimate.upper, 2) for estimate in found] == [0.72, 0.76, 0.95]


def test_the_concordance_correlation_and_its_interval_are_those_of_another_program() -> None:
    # printed by SimplyAgree's agree_test, in its vignette
    assert [round(number, 4) for number in concordance_correlation(FIRST, SECOND)] == [0.4791, 0.1276, 0.7237]


def moments_of(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.array([first.mean(), second.mean(), first.var(), second.var(), np.cov(first, second, ddof=0)[0, 1]])


def coefficient(moments: np.ndarray) -> float:
    m1, m2, s11, s22, s12 = moments
    return float(2 * s12 / (s11 + s22 + (m1 - m2) ** 2))


def delta_method_interval(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """By the moments' covariance under a bivariate normal distribution and numeric derivatives; n - 2 as Lin has it."""
    at = moments_of(first, second)
    _, _, s11, s22, s12 = at
    covariance = np.zeros((5, 5))
    covariance[:2, :2] = [[s11, s12], [s12, s22]]
    covariance[2:, 2:] = [
        [2 * s11**2, 2 * s12**2, 2 * s11 * s12],
        [2 * s12**2, 2 * s22**2, 2 * s22 * s12],
        [2 * s11 * s12, 2 * s22 * s12, s11 * s22 + s12**2],
    ]
    step = 1e-5 * np.maximum(np.abs(at), 1.0)
    slope = np.array(
        [(np.arctanh(coefficient(at + d)) - np.arctanh(coefficient(at - d))) / (2 * d.sum()) for d in np.diag(step)]
    )
    half = 1.959964 * np.sqrt(slope @ covariance @ slope / (len(first) - 2))
    z = np.arctanh(coefficient(at))
    return float(np.tanh(z - half)), float(np.tanh(z + half))


@pytest.mark.parametrize("noise", [0.1, 0.7, 4.0])
@pytest.mark.parametrize("shift", [0.0, 1.5])
@pytest.mark.parametrize("factor", [1.0, 0.4, -0.8])
def test_the_concordance_correlations_interval_is_that_of_the_delta_method(
    noise: float, shift: float, factor: float
) -> None:
    rng = np.random.default_rng(3)
    truth = rng.normal(size=40)
    first, second = truth + noise * rng.normal(size=40), factor * truth + shift + noise * rng.normal(size=40)
    value, *interval = concordance_correlation(first, second)
    assert value == pytest.approx(coefficient(moments_of(first, second)), abs=1e-12)
    assert interval == pytest.approx(delta_method_interval(first, second), abs=1e-6)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    held = np.zeros(4)
    tries = 600
    for _ in range(tries):
        values = rng.normal(size=(31, 1)) + rng.normal(scale=0.5, size=(31, 2))  # all coefficients are 0.8
        found = [concordance_correlation(*values.T), *intraclass_correlation(values)]
        held += [estimate.lower <= 0.8 <= estimate.upper for estimate in found]
    assert ((held / tries > 0.92) & (held / tries < 0.98)).all(), held / tries


def test_a_systematic_difference_counts_as_disagreement_but_not_against_consistency() -> None:
    rng = np.random.default_rng(1)
    test = rng.normal(size=31)
    retest = test + 2.0
    found = intraclass_correlation(np.column_stack([test, retest]))
    assert found.icc_3_1.value == pytest.approx(1.0)
    assert found.icc_2_1.value < 0.6
    assert concordance_correlation(test, retest).value < 0.6
    # two runs: ICC(2,1) and the concordance correlation differ by their denominators only
    noisy = np.column_stack([test, test + rng.normal(scale=0.3, size=31)])
    agreement = concordance_correlation(*noisy.T).value
    assert intraclass_correlation(noisy).icc_2_1.value == pytest.approx(agreement, abs=0.01)


def test_equal_measurements_agree_and_constant_ones_determine_nothing() -> None:
    values = np.arange(1.0, 8.0)
    for found in (concordance_correlation(values, values), *intraclass_correlation(np.column_stack([values] * 3))):
        assert tuple(found) == (1.0, 1.0, 1.0)
    rounding = values * (1 + 1e-15)
    assert intraclass_correlation(np.column_stack([values, rounding])).icc_2_1.value == pytest.approx(1.0)
    assert concordance_correlation(values, -values + 8).value == pytest.approx(-1.0)
    same = np.full(7, 0.1)
    for found in (concordance_correlation(same, same), *intraclass_correlation(np.column_stack([same, same]))):
        assert np.isnan(found).all()


def test_one_constant_measurement_has_no_agreement_with_a_varying_one() -> None:
    values = np.arange(1.0, 8.0)
    assert concordance_correlation(values, np.full(7, 4.0)).value == 0.0
    assert intraclass_correlation(np.column_stack([values, np.full(7, 4.0)])).icc_2_1.value == pytest.approx(0.0)


def test_odd_measurements_give_numbers_or_nothing_and_no_warning() -> None:
    rng = np.random.default_rng(0)
    for turn in range(600):
        values = np.round(rng.normal(size=(rng.integers(1, 8), rng.integers(2, 4)))) * 10.0 ** rng.integers(-9, 10)
        values = values + (1e6 if turn % 3 == 0 else 0.0)
        for found in (concordance_correlation(values[:, 0], values[:, 1]), *intraclass_correlation(values)):
            assert np.isnan(found.lower) or found.lower - 1e-9 <= found.value <= found.upper + 1e-9
            assert np.isnan(found.value) or found.value <= 1.0 + 1e-9
