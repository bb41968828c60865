"""The reference study's in-sample figures, and what chance gives beside them."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.preprocessing import StandardScaler, minmax_scale
from sklearn.svm import SVC

from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Classes, Survival
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.estimators.cox import cox_curve
from prognosis_dask.modelling.final_tables import correlations, in_sample_curve
from prognosis_dask.modelling.selectors.svm_rfe import rank_features_rbf, survival_label
from tests.lung1_tables import compare_curves, read_clinical, read_deep, read_radiomics, read_selected


def noise_table(cases: int = 120, features: int = 40, seed: int = 0) -> FeatureTable:
    """Features that say nothing of survival."""
    rng = np.random.default_rng(seed)
    names = tuple(f"c{i}" for i in range(cases))
    return FeatureTable(
        rng.normal(size=(cases, features)),
        tuple(f"f{i}" for i in range(features)),
        ("deep",) * features,
        ("",) * features,
        names,
        names,
        Survival(rng.exponential(500, cases) + 1, rng.random(cases) < 0.8),
    )


@pytest.fixture(scope="module")
def deep(shared_data: Path) -> FeatureTable:
    return read_deep(shared_data / "lung1_tables")


def test_the_study_s_own_selection_gives_its_figures_and_chance_gives_the_last_one_too(
    shared_data: Path, deep: FeatureTable
) -> None:
    selected = read_selected(shared_data / "lung1_tables")
    ks = (1, 10, 50, 100)
    published = in_sample_curve(selected, range(100), ks, draws=0)
    assert [round(row["c_index_in_sample"], 4) for row in published] == [0.5632, 0.5903, 0.6337, 0.6662]
    at_100 = in_sample_curve(deep, range(400), [100], draws=12)[0]
    assert at_100["random_median"] == pytest.approx(0.662, abs=0.004)
    assert at_100["random_lower"] == pytest.approx(0.654, abs=0.006)
    assert at_100["random_upper"] == pytest.approx(0.669, abs=0.006)
    assert at_100["random_upper"] > 0.66


def test_features_that_say_nothing_give_a_rising_curve_and_the_random_ones_rise_with_it() -> None:
    table = noise_table()
    curve = in_sample_curve(table, range(40), (1, 10, 40), draws=8)
    assert curve[0]["c_index_in_sample"] < 0.6
    assert curve[-1]["c_index_in_sample"] > 0.68
    assert curve[-1]["random_median"] == pytest.approx(curve[-1]["c_index_in_sample"])  # all features, in any order
    for row in curve:
        assert row["random_lower"] <= row["random_median"] <= row["random_upper"]


@pytest.mark.parametrize("classes", [2, 3])
def test_of_classes_the_curve_is_the_area_under_the_roc_curve_of_scikit_learns_model(classes: int) -> None:
    noise = noise_table(features=25)
    label = np.random.default_rng(1).integers(classes, size=120)
    table = replace(noise, endpoint=Classes(label, tuple("abc"[:classes])))
    ranking = np.argsort(-np.abs([pearsonr(column, label == 1)[0] for column in table.X.T]))
    rows = in_sample_curve(table, ranking, [1, 5, 20], draws=5, penalizer=0.01)
    for row in rows:
        Z = StandardScaler().fit_transform(table.X[:, ranking[: row["k"]]]) * np.sqrt(119 / 120)
        model = LogisticRegression(C=1 / 1.2, class_weight="balanced", tol=1e-8, max_iter=1000).fit(Z, label)
        probability = model.predict_proba(Z) * np.bincount(label)  # at the prevalence that was seen
        probability /= probability.sum(axis=1, keepdims=True)
        score = probability[:, 1] if classes == 2 else probability
        assert row["auc_in_sample"] == pytest.approx(roc_auc_score(label, score, multi_class="ovr"), abs=1e-4)
    assert rows[0]["auc_in_sample"] < rows[1]["auc_in_sample"] < rows[2]["auc_in_sample"]
    assert 0.55 < rows[2]["random_median"] < rows[2]["auc_in_sample"]  # of noise: selection beats random features too


def test_the_draws_are_those_of_features_without_replacement() -> None:
    table = noise_table(features=6)
    alone = [cox_curve(table.X[:, [i]], table.survival, [1])[0] for i in range(6)]
    curve = in_sample_curve(table, range(6), [1], draws=200)[0]
    assert curve["random_lower"] == pytest.approx(min(alone))
    assert curve["random_upper"] == pytest.approx(max(alone))


def test_the_same_seed_gives_the_same_curve_however_its_draws_are_spread() -> None:
    table = noise_table()
    here = in_sample_curve(table, range(40), range(1, 11), draws=5, seed=3)
    with ProcessPoolExecutor(2) as pool:
        spread = in_sample_curve(table, range(40), range(1, 11), draws=5, seed=3, map=pool.map)
    assert spread == here
    assert in_sample_curve(table, range(40), range(1, 11), draws=5, seed=4) != here


def test_constant_columns_are_passed_over_and_missing_values_filled() -> None:
    table = noise_table(features=8)
    X = table.X.copy()
    X[:, 3] = 7.0
    X[::9, 5] = np.nan
    X[:, 6] = np.nan
    curve = in_sample_curve(replace(table, X=X), range(8), range(1, 100), draws=3)
    assert [row["k"] for row in curve] == [1, 2, 3, 4, 5, 6]
    filled = np.where(np.isnan(X), np.nanmedian(X[:, 5]), X)[:, [0, 1, 2, 4, 5, 7]]
    assert curve[-1]["c_index_in_sample"] == cox_curve(filled, table.survival, [6])[0]


def test_where_a_plain_cox_model_has_no_maximum_the_curve_has_a_gap_and_goes_on() -> None:
    table = noise_table(cases=30, features=60)
    curve = in_sample_curve(table, range(60), (2, 50), draws=3, penalizer=0.0)
    assert np.isfinite(list(curve[0].values())).all()
    assert np.isnan([curve[1]["c_index_in_sample"], curve[1]["random_median"]]).all()
    assert compare_curves(curve, curve)["n"] == 1


def test_a_curve_that_cannot_be_drawn_says_why() -> None:
    table = noise_table()
    with pytest.raises(StatisticsError, match="none of 40 features varies"):
        in_sample_curve(replace(table, X=np.ones((120, 40))), range(40), [1])
    censored = replace(table, endpoint=Survival(table.time_days, np.zeros(120, dtype=bool)))
    with pytest.raises(StatisticsError, match="without events"):
        in_sample_curve(censored, range(40), [1])


def slow_rbf_ranking(X: np.ndarray, label: np.ndarray) -> list[int]:
    """Guyon's criterion in full: scikit-learn's machine, and the kernel anew without each feature."""
    scaled = minmax_scale(X)
    left, eliminated = list(range(X.shape[1])), []
    while left:
        gamma = 1 / (len(left) * scaled[:, left].var(axis=0).mean())
        machine = SVC(C=1.0, kernel="rbf", gamma=gamma, tol=1e-9).fit(scaled[:, left], label)
        at, signed = machine.support_, machine.dual_coef_[0]

        def objective(columns: list[int]) -> float:
            return 0.5 * float(signed @ rbf_kernel(scaled[np.ix_(at, columns)], gamma=gamma) @ signed)  # noqa: B023

        falls = [objective(left) - objective([i for i in left if i != j]) if left[1:] else 0.0 for j in left]
        eliminated.append(left.pop(int(np.argmin(falls))))
    return eliminated[::-1]


def test_elimination_with_the_radial_kernel_is_that_of_the_criterion_in_full(deep: FeatureTable) -> None:
    alive, known = survival_label(deep.survival)
    X, label = deep.X[known][:90, ::37], alive[known][:90]
    assert rank_features_rbf(X, label).tolist() == slow_rbf_ranking(X, label)


def test_the_radial_kernel_finds_two_features_that_say_something_only_together() -> None:
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (200, 12))
    assert set(rank_features_rbf(X, X[:, 4] * X[:, 9] > 0)[:2]) == {4, 9}


def test_the_signed_rank_test_finds_curves_of_random_features_different_too() -> None:
    table = noise_table(features=90)
    rng = np.random.default_rng(0)
    first, second, third = (in_sample_curve(table, rng.permutation(90), range(1, 61), draws=0) for _ in range(3))
    found = [compare_curves(a, b) for a, b in ((first, second), (first, third), (second, third))]
    assert sorted(one["p"] for one in found)[1] < 1e-3  # of features that say nothing, two pairs of three
    assert found[0] == {**compare_curves(second, first), "median_difference": found[0]["median_difference"]}
    assert compare_curves(first, first) == {"n": 60, "median_difference": 0.0, "statistic": 0.0, "p": 1.0}
    with pytest.raises(StatisticsError, match="no number of features in common"):
        compare_curves(first[:1], second[1:])


def test_correlations_are_those_of_scipy(shared_data: Path) -> None:
    folder = shared_data / "lung1_tables"
    radiomics, clinical = read_radiomics(folder), read_clinical(folder)
    rows = [clinical.case_ids.index(name) for name in radiomics.case_ids]
    stage = clinical.rows(np.array(rows)).X[:, clinical.features.index("Overall.Stage")]
    volume = radiomics.X[:, radiomics.features.index("original_shape_MeshVolume")]
    assert np.isnan(stage).any()
    others = {"volume": volume, "stage": stage}
    found = correlations(radiomics.X[:, :20], radiomics.features[:20], others, radiomics.patient_ids)
    assert len(found) == 40
    for i, row in enumerate(found):
        other = volume if i < 20 else stage
        held = np.isfinite(other)
        expected = pearsonr(radiomics.X[held, i % 20], other[held])
        interval = expected.confidence_interval()
        assert row["n"] == held.sum()
        numbers = [row[name] for name in ("pearson", "lower", "upper")]
        if abs(expected.statistic) < 1 - 1e-9:
            assert numbers == pytest.approx([expected.statistic, interval.low, interval.high], abs=1e-9)
            assert row["p"] == pytest.approx(expected.pvalue, rel=1e-6)
        else:
            assert numbers == [pytest.approx(1.0)] * 3


def test_a_correlation_with_a_constant_or_with_three_cases_is_no_number() -> None:
    X = np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0], [5.0, 5.0], [np.nan, 5.0]])
    others = {"y": np.arange(5.0), "few": np.array([1.0, 2.0, 0.0, np.nan, 1.0])}
    rows = correlations(X, ("x", "flat"), others, list("abcde"))
    assert rows[0]["pearson"] == pytest.approx(np.corrcoef([1, 2, 3, 5], [0, 1, 2, 3])[0, 1])
    for row in rows[1:]:
        assert np.isnan([row["pearson"], row["lower"], row["upper"], row["p"]]).all()
