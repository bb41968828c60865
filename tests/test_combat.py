"""ComBat takes site effects out, learns from the given cases only, and says what it cannot do."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.combat import fit_combat
from prognosis_dask.modelling.data.reading import ReadTable
from prognosis_dask.modelling.fit import fit_models
from prognosis_dask.modelling.fitted import fit_procedure
from prognosis_dask.modelling.procedure import Procedure
from prognosis_dask.modelling.spec import ModelSpec, ValidationRule
from prognosis_dask.modelling.validation.comparing import expect_sound, redrawn
from tests.synthetic_tables import survival_table

#: What R's scripts beside them wrote.
R = Path(__file__).parent / "r_survival"
SITES = ["A"] * 12 + ["B"] * 9 + ["C"] * 15


def made_cases(features: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features of 36 cases with a location and a scale per site, and a covariate that matters."""
    rng = np.random.default_rng(seed)
    at = np.array([ord(name) - ord("A") for name in SITES])
    covariate = rng.normal(size=(36, 1)) + 0.3 * at[:, None]
    noise = rng.normal(size=(36, features)) * np.array([1.0, 2.0, 0.5])[at][:, None]
    level = (np.array([0.0, 3.0, -2.0])[:, None] + rng.normal(0.0, 0.5, (3, features)))[at]
    return (10 + noise + level + 2 * covariate) * rng.uniform(0.1, 1000, features), covariate


def slow_combat(X: np.ndarray, sites: list[str], covariate: np.ndarray, reference: str = "") -> np.ndarray:
    """Johnson et al. 2007, section 3.2, a number at a time: equations (3.1) to (3.3).

    With a reference, as sva's and neuroCombat's published code: its mean and variance, and its values as they were.
    """
    names = sorted(set(sites))
    cases, features = X.shape
    harmonised = np.zeros_like(X)
    design = np.array([[float(s == name) for name in names] + covariate[j].tolist() for j, s in enumerate(sites)])
    Z, alpha, sigma, keep = np.zeros_like(X), [], [], np.zeros_like(X)
    for g in range(features):
        fitted = np.linalg.solve(design.T @ design, design.T @ X[:, g])
        share = [sites.count(name) / cases for name in names]
        known = [j for j in range(cases) if sites[j] == reference] or list(range(cases))
        share = [float(name == reference) for name in names] if reference else share
        alpha.append(sum(p * b for p, b in zip(share, fitted, strict=False)))
        sigma.append(math.sqrt(sum((X[j, g] - design[j] @ fitted) ** 2 for j in known) / len(known)))
        for j in range(cases):
            keep[j, g] = covariate[j] @ fitted[len(names) :]
            Z[j, g] = (X[j, g] - alpha[g] - keep[j, g]) / sigma[g]
    for name in names:
        rows = [j for j in range(cases) if sites[j] == name]
        n = len(rows)
        gamma_hat = [sum(Z[j, g] for j in rows) / n for g in range(features)]
        delta_hat = [sum((Z[j, g] - gamma_hat[g]) ** 2 for j in rows) / (n - 1) for g in range(features)]
        gamma_bar, tau2 = moments(gamma_hat)
        V, S2 = moments(delta_hat)
        lam, theta = (V**2 + 2 * S2) / S2, (V**3 + V * S2) / S2
        for g in range(features):
            gamma, delta = gamma_hat[g], delta_hat[g]
            for _ in range(500):
                gamma = (n * tau2 * gamma_hat[g] + delta * gamma_bar) / (n * tau2 + delta)
                delta = (theta + 0.5 * sum((Z[j, g] - gamma) ** 2 for j in rows)) / (n / 2 + lam - 1)
            for j in rows:
                harmonised[j, g] = (
                    X[j, g]
                    if name == reference
                    else sigma[g] * (Z[j, g] - gamma) / math.sqrt(delta) + alpha[g] + keep[j, g]
                )
    return harmonised


def moments(values: list[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    return mean, sum((value - mean) ** 2 for value in values) / (len(values) - 1)


def test_the_harmonised_values_are_those_of_the_papers_formulas() -> None:
    X, covariate = made_cases()
    none = np.zeros((36, 0))
    np.testing.assert_allclose(fit_combat(X, SITES).apply(X, SITES), slow_combat(X, SITES, none), rtol=1e-9)
    ours = fit_combat(X, SITES, covariate).apply(X, SITES, covariate)
    np.testing.assert_allclose(ours, slow_combat(X, SITES, covariate), rtol=1e-9)


def test_a_reference_site_stays_as_it_is_and_the_others_are_brought_to_it() -> None:
    X, covariate = made_cases()
    ours = fit_combat(X, SITES, covariate, reference="B").apply(X, SITES, covariate)
    np.testing.assert_allclose(ours, slow_combat(X, SITES, covariate, "B"), rtol=1e-9)
    rows = np.array(SITES) == "B"
    np.testing.assert_allclose(ours[rows], X[rows], rtol=1e-12)
    assert np.abs(ours[~rows] / X[~rows] - 1).max() > 0.1
    for name, cases in (("D", "0 cases"), ("lone", "1 case")):
        with pytest.raises(StatisticsError, match=f"reference site is '{name}', with {cases} .* 'A', 'B', 'C'"):
            fit_combat(X, [*SITES[:-1], "lone"], reference=name)


def test_sites_differ_less_afterwards_and_what_a_covariate_explains_is_kept() -> None:
    X, covariate = made_cases(features=200)
    combat = fit_combat(X, SITES, covariate)
    after = combat.apply(X, SITES, covariate)
    rows = np.array(SITES)
    free = [values - (covariate - covariate.mean()) @ combat.slope for values in (X, after)]
    apart = [np.abs(v[rows == "A"].mean(axis=0) - v[rows == "B"].mean(axis=0)) / v.std(axis=0) for v in free]
    spread = [np.log(v[rows == "B"].std(axis=0) / v[rows == "C"].std(axis=0)) for v in free]
    assert np.median(apart[1]) < 0.2 * np.median(apart[0])
    assert abs(np.median(spread[1])) < 0.1 * abs(np.median(spread[0]))
    slope = np.median(combat.slope[0] / (X.std(axis=0) / 3))
    assert slope > 1.0  # two units of the covariate on features of deviation three


def test_a_feature_s_unit_does_not_matter() -> None:
    X, _ = made_cases()
    factor, offset = np.geomspace(1e-6, 1e6, X.shape[1]), 3.0
    plain = fit_combat(X, SITES).apply(X, SITES)
    other = fit_combat(X * factor + offset * factor, SITES).apply(X * factor + offset * factor, SITES)
    np.testing.assert_allclose(other / factor - offset, plain, rtol=1e-8)


def test_what_was_learned_is_applied_to_each_case_by_itself() -> None:
    X, _ = made_cases()
    train = np.arange(36) % 4 > 0
    combat = fit_combat(X[train], [s for s, kept in zip(SITES, train, strict=True) if kept])
    together = combat.apply(X, SITES)
    alone = np.vstack([combat.apply(X[i : i + 1], SITES[i : i + 1]) for i in range(36)])
    np.testing.assert_array_equal(alone, together)
    changed = np.where(train[:, None], X, 1e6)
    np.testing.assert_array_equal(combat.apply(changed, SITES)[train], together[train])


def test_one_site_alone_changes_nothing() -> None:
    X, _ = made_cases()
    np.testing.assert_allclose(fit_combat(X, ["A"] * 36).apply(X, ["A"] * 36), X, rtol=1e-12)


def test_a_site_with_one_case_has_its_location_shrunk_and_no_scale() -> None:
    X, _ = made_cases()
    sites = [*SITES[:-1], "lone"]
    combat = fit_combat(X, sites)
    lone = combat.sites.index("lone")
    assert (combat.spread[lone] == 1.0).all()
    Z = (X[-1] - combat.mean) / combat.scale
    tau2 = Z.var(ddof=1)
    np.testing.assert_allclose(combat.shift[lone], (tau2 * Z + Z.mean()) / (tau2 + 1))
    assert np.isfinite(combat.apply(X, sites)).all()


def test_constant_features_stay_constant_and_do_not_touch_the_others() -> None:
    X, _ = made_cases()
    thickness = np.array([{"A": 1.0, "B": 3.0, "C": 5.0}[name] for name in SITES])
    spoilt = np.column_stack([X, np.full(36, 7.1), thickness])
    after = fit_combat(spoilt, SITES).apply(spoilt, SITES)
    np.testing.assert_allclose(after[:, :-2], fit_combat(X, SITES).apply(X, SITES), rtol=1e-12)
    np.testing.assert_allclose(after[:, -2], 7.1)
    np.testing.assert_allclose(after[:, -1], thickness.mean())


@pytest.mark.parametrize("columns", [1, 2])
def test_one_feature_is_enough(columns: int) -> None:
    X, _ = made_cases()
    one = np.repeat(X[:, :1], columns, axis=1)  # duplicates: the prior is a point
    after = fit_combat(one, SITES).apply(one, SITES)
    rows = np.array(SITES)
    for name in "ABC":
        np.testing.assert_allclose(after[rows == name].mean(axis=0), one.mean(axis=0))
        np.testing.assert_allclose(after[rows == name].std(axis=0, ddof=1), after[rows == "A"].std(axis=0, ddof=1))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda X, sites: fit_combat(X, sites).apply(X[:1], ["Z"]), "has not seen the site 'Z'"),
        (lambda X, sites: fit_combat(X, sites).apply(X[:, :3], sites), "fitted on 8 features"),
        (lambda X, sites: fit_combat(X, ["", *sites[1:]]), "1 of 36 have none"),
        (lambda X, sites: fit_combat(X, ()), "0 sites for 36 cases"),
        (lambda X, sites: fit_combat(np.where(X[0, 0] == X, np.nan, X), sites), "1 values are not finite"),
        (lambda X, sites: fit_combat(X, sites, np.array(sites)[:, None] == ["A"]), "are collinear"),
        (lambda X, sites: fit_combat(X, sites, X[:, :1]).apply(X, sites), "36 x 1 finite values"),
    ],
)
def test_what_cannot_be_harmonised_is_said(spoil, message: str) -> None:
    X, _ = made_cases()
    with pytest.raises(StatisticsError, match=message):
        spoil(X, SITES)


@pytest.fixture(scope="module")
def scans() -> tuple[np.ndarray, list[str], list[str], np.ndarray]:
    """Features, sites, patients and ages of scans, up to four a patient: what longitudinal.R wrote."""
    table = pd.read_csv(R / "longitudinal.csv")
    X = table[[f"f{i}" for i in range(1, 7)]].to_numpy(float)
    return X, table["site"].tolist(), table["patient"].tolist(), table[["age"]].to_numpy(float)


@pytest.mark.parametrize("name", ["plain", "age"])
def test_longitudinal_combat_is_that_of_the_papers_formulas_on_lme4(name: str, scans) -> None:
    X, sites, patients, age = scans
    values = pd.read_csv(R / "longitudinal_values.csv")
    theirs = {str(what): group["value"].to_numpy() for what, group in values.groupby("what", sort=False)}
    covariates = age if name == "age" else None
    combat = fit_combat(X, sites, covariates, patients=patients)
    assert combat.level is not None
    np.testing.assert_allclose(combat.scale, theirs[f"{name} sigma"], rtol=1e-7)
    np.testing.assert_allclose(combat.share, theirs[f"{name} share"], atol=1e-7)
    np.testing.assert_allclose(combat.level.T.ravel(), theirs[f"{name} level"], rtol=1e-6, atol=1e-6)
    alone = [patients.count(patient) == 1 for patient in patients]
    after = combat.apply(X, sites, covariates)[alone]
    np.testing.assert_allclose(after.ravel(), theirs[f"{name} after"], rtol=1e-7)


def test_a_site_s_patients_keep_what_sets_them_apart_where_patients_were_scanned_at_both_sites() -> None:
    rng = np.random.default_rng(0)
    patients = [f"P{i}" for i in range(80) for _ in range(2)]
    sites = ["A" if i < 20 or (i < 60 and scan == 0) else "B" for i in range(80) for scan in range(2)]
    ill = np.repeat(np.arange(80) >= 50, 2) * 2.0  # most of site B's patients
    between = np.repeat(rng.normal(size=(80, 30)), 2, axis=0)
    X = ill[:, None] + between + np.array([s == "B" for s in sites])[:, None] * 1.0 + rng.normal(0, 0.3, (160, 30))
    left = []
    for combat in (fit_combat(X, sites), fit_combat(X, sites, patients=patients)):
        after = combat.apply(X, sites).mean(axis=1)
        left.append(after[ill > 0].mean() - after[ill == 0].mean())
    assert left[0] < 1.5  # what is biology is taken for the site's
    assert left[1] == pytest.approx(2.0, abs=0.15)


def test_longitudinal_combat_takes_each_scan_by_itself_and_a_copy_for_no_second_scan(scans) -> None:
    X, sites, patients, _ = scans
    combat = fit_combat(X, sites, patients=patients)
    together = combat.apply(X, sites)
    alone = np.vstack([combat.apply(X[i : i + 1], sites[i : i + 1]) for i in range(len(X))])
    np.testing.assert_array_equal(alone, together)
    factor = np.geomspace(1e-6, 1e6, X.shape[1])
    other = fit_combat(X * factor, sites, patients=patients).apply(X * factor, sites)
    np.testing.assert_allclose(other / factor, together, rtol=1e-8)

    table = replace(survival_table(0), site=tuple("AB"[i % 2] for i in range(80)))
    longitudinal = Procedure(selector="", penalty=(0.1,), harmonise="longitudinal-combat")
    for single in (table, redrawn(table, np.arange(80) // 2)):
        with pytest.raises(StatisticsError, match="none has two scans that differ: take harmonise = 'combat'"):
            fit_procedure(longitudinal, single, 0)
    repeated = replace(table, patient_ids=tuple(f"P{i // 2}" for i in range(80)))
    fitted = fit_procedure(longitudinal, repeated, 0)
    twice = fit_procedure(longitudinal, redrawn(repeated, np.tile(np.arange(80), 2)), 0)
    ours, theirs = fitted.preparation.combat, twice.preparation.combat
    assert ours is not None
    assert theirs is not None
    np.testing.assert_allclose(ours.share, theirs.share, atol=0.02)  # the degrees of freedom alone


def test_longitudinal_combat_refuses_no_more_cases_than_sites_and_covariates() -> None:
    X = np.random.default_rng(0).normal(size=(4, 3))
    with pytest.raises(StatisticsError, match="from 4 cases, expected more than the 4 sites and covariates"):
        fit_combat(X, ["A", "B", "C", "D"], patients=["a", "a", "b", "b"])
    assert np.isfinite(fit_combat(X, ["A", "B", "C", "C"], patients=["a", "a", "b", "b"]).apply(X, [*"ABCC"])).all()


def test_longitudinal_combat_of_few_repeated_patients_is_refused_before_the_validation(tmp_path: Path) -> None:
    site = tuple("AB"[i // 2 % 2] for i in range(80))
    longitudinal = Procedure(selector="", penalty=(0.1,), harmonise="longitudinal-combat")
    for repeated, refused in ((9, True), (10, False)):
        patients = tuple(f"P{i // 2 if i < 2 * repeated else 100 + i}" for i in range(80))
        table = replace(survival_table(0), site=site, patient_ids=patients)
        read = ReadTable(table=table, encodings=(), left_out={}, notes=(), has_endpoint=True)
        spec = ModelSpec(procedure={"harmonised": longitudinal}, validation=ValidationRule(folds=5))
        if refused:
            with pytest.raises(StatisticsError, match=r"'harmonised'.* 9 patients of 71 have two scans that differ"):
                expect_sound(read, spec)
            with pytest.raises(StatisticsError, match=r"'harmonised'.* 9 patients of 71 have two scans that differ"):
                fit_models(read, spec, tmp_path / "models", extend=lambda table, folds: [table for _ in folds])
        else:
            expect_sound(read, spec)


def test_features_that_no_patient_s_scans_differ_in_are_moved_by_their_site_alone(scans) -> None:
    X, sites, patients, _ = scans
    number = np.array([float(p[1:]) for p in patients])
    after = fit_combat(np.column_stack([X, number, np.full(len(X), 3.5)]), sites, patients=patients).apply(
        np.column_stack([X, number, np.full(len(X), 3.5)]), sites
    )
    np.testing.assert_allclose(after[:, :-2], fit_combat(X, sites, patients=patients).apply(X, sites), rtol=1e-10)
    np.testing.assert_allclose(after[:, -2], number, atol=1e-5)
    np.testing.assert_allclose(after[:, -1], 3.5)
