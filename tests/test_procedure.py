"""A procedure learns from the rows it is given and from nothing else, and says so where they do not carry it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Classes, Survival
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.estimators import LEARNERS
from prognosis_dask.modelling.estimators.cox import coefficient_rows
from prognosis_dask.modelling.fitted import Fitted, fit_procedure
from prognosis_dask.modelling.metrics.concordance import concordance
from prognosis_dask.modelling.preparing import fit_preparation
from prognosis_dask.modelling.procedure import Procedure
from prognosis_dask.modelling.tuning import choose_values
from tests.synthetic_tables import as_table, class_table, cox_of, standardised, survival_table

ALL = Procedure(selector="", penalty=(0.1,))


def of_families(table: FeatureTable, **families: slice) -> FeatureTable:
    names = np.array(table.families, dtype=object)
    for name, columns in families.items():
        names[columns] = name
    return replace(table, families=tuple(names))


def risk(fitted: Fitted, table: FeatureTable) -> np.ndarray:
    found = fitted.predict(table).risk_score
    assert found is not None
    return found


def test_a_plain_ridge_procedure_is_the_cox_model_of_all_columns() -> None:
    table = survival_table(0, p=5, signal=1.0)
    fitted = fit_procedure(ALL, table, 0)
    model = cox_of(table.X, table.time_days, table.event, penalty=0.1)
    score = standardised(table.X) @ model.coefficient
    np.testing.assert_allclose(risk(fitted, table), score, atol=1e-9)
    assert fitted.cutoff == pytest.approx(np.median(score))
    expected = coefficient_rows(table.features, model.coefficient, model.standard_error)
    for ours, theirs in zip(fitted.coefficients(), expected, strict=True):
        assert ours == pytest.approx(theirs)


def test_a_prediction_depends_on_the_case_alone() -> None:
    table = survival_table(0, signal=1.0)
    train, test = table.rows(np.arange(60)), table.rows(np.arange(60, 80))
    fitted = fit_procedure(Procedure(n_features=(2, 5)), train, 0)
    X = test.X.copy()
    X[1:] = 1e3 * X[1:] + 7
    other = replace(test, X=X, endpoint=Survival(np.ones(20), ~test.event))
    assert risk(fitted, other)[0] == risk(fitted, test)[0] == risk(fitted, test.rows(np.array([0])))[0]
    assert (risk(fitted, other)[1:] != risk(fitted, test)[1:]).all()


def test_columns_are_found_by_name_and_others_are_refused() -> None:
    table = replace(survival_table(0, p=8), units=("mm",) * 8, source={"weights": "abc"})
    fitted = fit_procedure(ALL, table, 0)
    turned = table.columns(np.arange(8)[::-1])
    np.testing.assert_array_equal(risk(fitted, turned), risk(fitted, table))
    with pytest.raises(StatisticsError, match=r"lacks features of the model: f0, f7$"):
        fitted.predict(table.columns(np.arange(1, 7)))
    with pytest.raises(StatisticsError, match="feature f0 is in cm, the model's in mm"):
        fitted.predict(replace(table, units=("cm",) * 8))
    with pytest.raises(StatisticsError, match=r"other weights \(xyz\) than those of the model \(abc\)"):
        fitted.predict(replace(table, source={"weights": "xyz"}))


def test_families_say_what_is_seen_and_forced_ones_pass_selection() -> None:
    table = of_families(survival_table(0, p=20, signal=1.0), clinical=slice(18, 20), radiomics=slice(10, 18))
    fitted = fit_procedure(Procedure(families=("deep",), forced=("clinical",), n_features=(3,)), table, 0)
    assert fitted.features == (*(f"f{i}" for i in range(10)), "f18", "f19")
    assert fitted.chosen[:2] == ("f18", "f19")
    assert len(fitted.chosen) == 5
    assert fitted.tuned["n_features"] == 3
    with pytest.raises(StatisticsError, match="of family shape; the table has: deep, radiomics, clinical"):
        fit_procedure(Procedure(families=("shape",)), table, 0)
    with pytest.raises(StatisticsError, match="no feature is of family size"):
        fit_procedure(Procedure(forced=("size",)), table, 0)


def test_the_reproducibility_filter_leaves_only_its_features_to_choose_from() -> None:
    table = survival_table(0, signal=2.0)
    fitted = fit_procedure(Procedure(reproducible=("f3", "f4", "f9", "not here"), n_features=(10,)), table, 0)
    assert set(fitted.chosen) == {"f3", "f4", "f9"}


def test_missing_values_become_the_training_median_and_empty_columns_go() -> None:
    table = survival_table(0, p=4, signal=1.0)
    X = table.X.copy()
    X[::3, 1], X[:, 2] = np.nan, np.nan
    table = replace(table, X=X)
    fitted = fit_procedure(ALL, table, 0)
    assert fitted.chosen == ("f0", "f1", "f3")
    filled = X.copy()
    filled[::3, 1], filled[:, 2] = np.nanmedian(X[:, 1]), 5.0
    np.testing.assert_array_equal(risk(fitted, table), risk(fitted, replace(table, X=filled)))


def test_infinite_values_are_named() -> None:
    table = survival_table(0, p=4)
    X = table.X.copy()
    X[7, 2] = np.inf
    with pytest.raises(StatisticsError, match="1 values are infinite, the first of feature f2 in case P007_7"):
        fit_procedure(ALL, replace(table, X=X), 0)
    with pytest.raises(StatisticsError, match="infinite"):
        fit_procedure(ALL, table, 0).predict(replace(table, X=X))


def test_pruning_drops_flat_and_redundant_columns_first_ones_stay() -> None:
    table = survival_table(0, p=6)
    X = table.X.copy()
    X[:, 2] = np.exp(X[:, 0]) + 1e-3 * X[:, 2]  # a monotone function of the first
    X[:, 3], X[0, 3] = 0.0, 1.0  # all but one alike
    X[:, 4] = 7.0
    free = np.ones(6, dtype=bool)
    pruned = Procedure(variance=0.02, correlation=0.9)
    kept = fit_preparation(replace(table, X=X), free, pruned).kept
    assert kept.tolist() == [0, 1, 5]
    assert abs(spearmanr(X[:, 0], X[:, 2])[0]) > 0.9
    free[[2, 3]] = False  # forced columns are not pruned
    assert fit_preparation(replace(table, X=X), free, pruned).kept.tolist() == [0, 1, 2, 3, 5]


def test_harmonisation_is_learnt_on_the_training_cases_and_needs_known_sites() -> None:
    table = survival_table(0, n=120, p=1, signal=1.5)
    site = tuple("AB"[i % 2] for i in range(120))
    shifted = table.X + 5.0 * (np.arange(120) % 2)[:, None]
    harmonised = replace(ALL, harmonise="combat")
    train, test = np.arange(90), np.arange(90, 120)

    def held_out_c(procedure: Procedure) -> float:
        held = replace(table, X=shifted, site=site)
        found = risk(fit_procedure(procedure, held.rows(train), 0), held.rows(test))
        return concordance(table.survival.rows(test), found).c_index

    assert held_out_c(harmonised) > held_out_c(ALL) + 0.05
    assert held_out_c(replace(harmonised, reference_site="B")) > held_out_c(ALL) + 0.05
    with pytest.raises(StatisticsError, match="does not say which site"):
        fit_procedure(harmonised, table, 0)
    fitted = fit_procedure(harmonised, replace(table, site=site), 0)
    with pytest.raises(StatisticsError, match="'C'"):
        fitted.predict(replace(table, site=("C",) * 120))


def test_tuning_takes_few_features_where_one_carries_the_signal_and_the_simplest_of_equals() -> None:
    table = survival_table(0, n=120, p=40, signal=1.5)
    values = choose_values(Procedure(penalty=(0.01, 1.0)), table, [0])
    assert values.n_features <= 5
    twins = replace(table, X=np.tile(table.X[:, :1], (1, 40)))  # any number of them ranks the cases the same
    free = Procedure(n_features=(2, 4), penalty=(0.01, 1.0), tune_by="concordance")
    values = choose_values(free, twins, [0])
    assert (values.n_features, values.penalty) == (2, 0.01)


def test_nothing_is_tuned_where_there_is_one_of_each() -> None:
    table = survival_table(0).rows(np.arange(20))
    values = choose_values(Procedure(n_features=(3,), penalty=(0.5,), inner_folds=50), table, [0])
    assert (values.n_features, values.penalty, values.l1_ratio) == (3, 0.5, 0.0)


@pytest.mark.parametrize("learner", sorted(LEARNERS))
def test_a_fitted_procedure_survives_being_written(learner: str) -> None:
    procedure = Procedure(learner=learner, n_features=(2, 4), penalty=(0.1,))
    if "rounds" in LEARNERS[learner].takes:
        procedure = replace(procedure, depth=(2,), rounds=(20,))
    tables = [survival_table(0, signal=1.0), class_table(0, signal=1.0), class_table(0, signal=1.0, classes=3)]
    for table in tables:
        if not isinstance(table.endpoint, LEARNERS[learner].endpoints):
            continue
        fitted = fit_procedure(procedure, table, 0)
        plain, arrays = fitted.to_plain()
        assert all(array.dtype.kind in "fiub" for array in arrays.values())
        loaded = Fitted.from_plain(json.loads(json.dumps(plain, allow_nan=False)), arrays)
        assert loaded.procedure == procedure
        assert (loaded.chosen, loaded.tuned, loaded.cutoff) == (fitted.chosen, fitted.tuned, fitted.cutoff)
        ours, theirs = fitted.predict(table), loaded.predict(table)
        if isinstance(table.endpoint, Classes):
            np.testing.assert_array_equal(ours.probability, theirs.probability)
        else:
            assert ours.survival is not None
            assert theirs.survival is not None
            np.testing.assert_array_equal(ours.risk_score, theirs.risk_score)
            np.testing.assert_array_equal(ours.survival(np.array([100.0])), theirs.survival(np.array([100.0])))


@pytest.mark.parametrize("how", ["combat", "longitudinal-combat"])
def test_a_harmonised_procedure_survives_being_written(how: str) -> None:
    patients = tuple(f"P{i // 2}" for i in range(80))
    table = replace(survival_table(0), site=tuple("AB"[i % 2] for i in range(80)), patient_ids=patients)
    fitted = fit_procedure(Procedure(**{**vars(ALL), "harmonise": how}), table, 0)
    plain, arrays = fitted.to_plain()
    loaded = Fitted.from_plain(json.loads(json.dumps(plain)), arrays)
    np.testing.assert_array_equal(risk(loaded, table), risk(fitted, table))


def test_the_same_seed_fits_the_same_and_a_procedure_is_plain_data() -> None:
    table = survival_table(0, signal=1.0)
    procedure = Procedure(
        selector="cox-elastic-net", learner="xgboost", n_features=(1, 3), penalty=(1.0,), depth=(2,), rounds=(50,)
    )
    assert fit_procedure(procedure, table, 3).chosen == fit_procedure(procedure, table, 3).chosen
    np.testing.assert_array_equal(
        risk(fit_procedure(procedure, table, 3), table), risk(fit_procedure(procedure, table, [3]), table)
    )
    assert json.loads(json.dumps(asdict(procedure)))["n_features"] == [1, 3]


HARD = {
    "separable": as_table(-np.arange(1.0, 41)[:, None], Survival(20 * np.arange(1.0, 41), np.ones(40, dtype=bool))),
    "ties": replace(survival_table(0), endpoint=Survival(np.repeat([100.0, 500.0], 40), np.arange(80) % 3 > 0)),
    "constant": replace(survival_table(0), X=np.hstack([survival_table(0).X[:, :29], np.full((80, 1), 3.0)])),
    "duplicated": replace(survival_table(0), X=np.tile(survival_table(0).X[:, :1], (1, 30))),
    "more features than events": survival_table(0, n=60, p=200),
    "two values": replace(survival_table(0), X=np.round(np.clip(survival_table(0).X, 0, 1))),
}


@pytest.mark.parametrize("name", sorted(HARD))
@pytest.mark.parametrize(
    "learner", ["cox", "weibull-aft", "loglogistic-aft", "lognormal-aft", "xgboost", "survival-forest"]
)
def test_hard_data_give_numbers(name: str, learner: str) -> None:
    procedure = Procedure(
        learner=learner, n_features=(2, 50), penalty=(0.1,), mixing=(0.0, 0.5)[: 1 + (learner == "cox")]
    )
    found = fit_procedure(procedure, HARD[name], 0).predict(HARD[name])
    assert found.risk_score is not None
    assert found.survival is not None
    assert np.isfinite(found.risk_score).all()
    assert np.isfinite(found.survival(np.array([50.0, 5000.0]))).all()
    if name == "separable":
        endpoint = HARD[name].survival
        assert concordance(endpoint, found.risk_score).c_index > 0.95


def test_data_that_carry_nothing_are_refused_with_the_reason() -> None:
    table = survival_table(0)
    with pytest.raises(StatisticsError, match="all 80 training cases are censored"):
        fit_procedure(ALL, replace(table, endpoint=Survival(table.time_days, np.zeros(80, dtype=bool))), 0)
    with pytest.raises(StatisticsError, match="none of 30 features varies among 80 training cases"):
        fit_procedure(ALL, replace(table, X=np.zeros((80, 30))), 0)
    with pytest.raises(StatisticsError, match="2 patients cannot be dealt into 3 folds"):
        fit_procedure(replace(ALL, penalty=(0.1, 1.0)), table.rows(np.arange(2)), 0)


def test_values_that_cannot_be_fitted_are_not_chosen_and_alone_are_refused() -> None:
    table = survival_table(0, n=60, p=200)
    weibull = Procedure(learner="weibull-aft", n_features=(2, 50), penalty=(0.1,))
    assert fit_procedure(weibull, table, 0).tuned["n_features"] == 2
    with pytest.raises(StatisticsError, match=r"Weibull model of 50 features on .* events has no maximum"):
        fit_procedure(replace(weibull, n_features=(50,)), table, 0)
    with pytest.raises(StatisticsError, match=r"Weibull model of 5. features on .* events has no maximum"):
        fit_procedure(replace(weibull, n_features=(50, 51)), table, 0)


@pytest.mark.parametrize("time", [0.0, -3.0, float("nan"), float("inf")])
def test_times_that_are_no_positive_numbers_are_refused(time: float) -> None:
    with pytest.raises(StatisticsError, match=r"1 of 3 times are not positive numbers \(row 1: "):
        Survival(np.array([5.0, time, 7.0]), np.array([True, True, False]))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"selector": "lasso"}, "selector is 'lasso', expected one of '', 'svm-rfe'"),
        ({"learner": "forest"}, "learner is 'forest', expected one of 'cox'"),
        ({"harmonise": "zscore"}, "harmonise is 'zscore'"),
        ({"depth": (2,)}, "depth has no effect on learner 'cox': leave it out, or take xgboost, survival-forest"),
        ({"learner": "survival-forest", "rounds": (9,)}, "rounds has no effect on learner 'survival-forest'"),
        ({"reference_site": "B"}, "reference_site is 'B' without harmonisation"),
        ({"reference_site": "B", "harmonise": "longitudinal-combat"}, "only harmonise = 'combat' has one"),
        ({"n_features": ()}, r"n_features is \(\), expected one value or more"),
        ({"n_features": (0,)}, "n_features is 0, expected one or more"),
        ({"penalty": (-1.0,)}, "penalty is -1.0, expected zero or more"),
        ({"mixing": (1.5,)}, "mixing is 1.5, expected zero or more and at most one"),
        ({"correlation": 0.0}, "correlation is"),
        ({"inner_folds": 1}, "inner_folds is 1, expected two or more"),
    ],
)
def test_a_procedure_that_cannot_be_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(StatisticsError, match=message):
        Procedure(**wrong)  # type: ignore[arg-type]


def test_a_table_whose_parts_do_not_fit_is_refused() -> None:
    table = survival_table(0, p=3)
    with pytest.raises(StatisticsError, match="80 cases and 3 features has 2 families"):
        replace(table, families=("deep", "deep"))
    with pytest.raises(StatisticsError, match="features appear more than once: f0"):
        replace(table, features=("f0", "f0", "f1"))
    with pytest.raises(StatisticsError, match="labels run from 0 to 2"):
        Classes(np.array([0, 2]), ("II", "III"))
    with pytest.raises(StatisticsError, match="only class is II"):
        Classes(np.array([0, 0]), ("II",))
    with pytest.raises(StatisticsError, match="this needs times and events"):
        _ = class_table(0).time_days


def test_balanced_families_weigh_the_same_whatever_their_number_of_columns() -> None:
    table = of_families(survival_table(0, n=120, p=40, signal=1.0), volume=slice(0, 1))
    free = np.ones(40, dtype=bool)
    Z = fit_preparation(table, free, Procedure(balance_families=True)).apply(table.X, ())
    np.testing.assert_allclose([Z[:, :1].var(axis=0, ddof=1).sum(), Z[:, 1:].var(axis=0, ddof=1).sum()], 1.0)
    shares = []
    for balance in (False, True):
        fitted = fit_procedure(replace(ALL, penalty=(10.0,), balance_families=balance), table, 0)
        size = [abs(float(row["coef"])) for row in fitted.coefficients()]
        shares.append(size[0] / sum(size))
    assert shares[1] > 2 * shares[0]
    plain = fit_procedure(replace(ALL, penalty=(0.0,), families=("volume",)), table, 0)
    balanced = fit_procedure(replace(ALL, penalty=(0.0,), families=("volume",), balance_families=True), table, 0)
    assert balanced.coefficients()[0] == pytest.approx(plain.coefficients()[0])
