"""What the statistics say beside R's packages, side by side; and whom a frozen model knows as its own cases.

    python -m benchmarks.agreement

The cohorts and R's scripts are those of tests/r_survival. Where Rscript is there, R computes its values anew; else they
are those that it once exported. ``greatest difference`` is over all values of a line, relative where they are above 1.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from prognosis_dask.arrays import FloatArray
from prognosis_dask.modelling.combat import fit_combat
from prognosis_dask.modelling.data.endpoint import Survival
from prognosis_dask.modelling.estimators.partial_likelihood import likelihood_of, maximise
from prognosis_dask.modelling.fitted import fit_procedure
from prognosis_dask.modelling.metrics.brier import brier_score, fit_censoring
from prognosis_dask.modelling.metrics.calibration import net_benefit_survival, survival_slope
from prognosis_dask.modelling.metrics.classes import weighted_auc
from prognosis_dask.modelling.metrics.competing import (
    aalen_johansen,
    fine_gray,
    gray_test,
    subdistribution,
)
from prognosis_dask.modelling.metrics.concordance import concordance
from prognosis_dask.modelling.metrics.cox_tests import clustered_cox, ph_test
from prognosis_dask.modelling.metrics.intervals import draw_patients, interval
from prognosis_dask.modelling.metrics.kaplan_meier import kaplan_meier
from prognosis_dask.modelling.metrics.regression import bootstrap_cox
from prognosis_dask.modelling.metrics.survival_tables import auc_t
from prognosis_dask.modelling.procedure import Procedure
from prognosis_dask.modelling.saved import describe
from prognosis_dask.modelling.validation.external import training_overlap
from tests.synthetic_tables import survival_table

SCRIPTS = Path(__file__).resolve().parents[1] / "tests" / "r_survival"
#: What is said, ours, theirs.
Line = tuple[str, FloatArray, FloatArray]


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder, by = _values(Path(scratch))
        print(f"R's values: {by}.\n\n| what | values | ours | R | greatest difference |\n|---|---|---|---|---|")
        for of in (influence, competing, entry, areas, scores, longitudinal):
            for what, ours, theirs in of(folder):
                apart = np.max(np.abs(ours - theirs) / np.maximum(1.0, np.abs(theirs)))
                shown = (", ".join(f"{value:.6g}" for value in values[:2]) for values in (ours, theirs))
                print(f"| {what} | {len(ours)} | {' | '.join(shown)} | {apart:.1g} |")
    overlap()


def _values(scratch: Path) -> tuple[Path, str]:
    """Where R's values lie, and who computed them."""
    if shutil.which("Rscript") is None:
        return SCRIPTS, "exported once, Rscript is not here"
    for script in sorted(SCRIPTS.glob("*.R")):
        shutil.copy(script, scratch)
        done = subprocess.run(["Rscript", scratch / script.name], capture_output=True, text=True, check=False)
        if done.returncode:
            return SCRIPTS, f"exported once, {script.name} does not run here"
    return scratch, "computed here"


def _read(folder: Path, cohort: str, values: str) -> tuple[pd.DataFrame, dict[str, FloatArray]]:
    found = pd.read_csv(folder / values)
    return pd.read_csv(folder / cohort), {
        str(what): group["value"].to_numpy(float) for what, group in found.groupby("what", sort=False)
    }


def influence(folder: Path) -> Iterator[Line]:
    """What each case does to the coefficients; the check of proportional hazards; errors over patients."""
    table, theirs = _read(folder, "cohort.csv", "values.csv")
    X, time = table[["x1", "x2", "x3"]].to_numpy(float), table["time"].to_numpy(float)
    end = Survival(time, table["event"].to_numpy() == 1)
    yield from _cox("", X, end, table["id"].astype(str).tolist(), theirs)


def _efron(theirs: dict[str, FloatArray]) -> dict[str, FloatArray]:
    """R's values of the weighted model under the names of a plain one's."""
    names = {"coefficient": "fine_gray_efron", "dfbeta": "dfbeta_efron", "robust_error": "error_over_patients"}
    return theirs | {name: theirs[other] for name, other in names.items()}


def _cox(
    of: str,
    X: FloatArray,
    end: Survival,
    patients: list[str],
    theirs: dict[str, FloatArray],
) -> Iterator[Line]:
    likelihood = likelihood_of(X, end)
    coefficient, information = maximise(likelihood)
    inverse = np.linalg.inv(information)
    yield f"coefficients{of} (coxph)", coefficient, theirs["coefficient"]
    back = np.argsort(end.by_time())
    dfbeta = (likelihood.residuals(coefficient) @ inverse)[back].T.ravel()
    yield f"influence of each case{of} (residuals, dfbeta)", dfbeta, theirs["dfbeta"]
    names = [str(column) for column in range(X.shape[1])]
    rows = ph_test(X, end, coefficient, inverse, names)
    yield f"proportional hazards{of} (cox.zph)", np.array([r["statistic"] for r in rows]), theirs["ph_statistic"]
    _, covariance = clustered_cox(X, end, patients)
    yield f"errors over patients{of} (cluster)", np.sqrt(np.diag(covariance)), theirs["robust_error"]


def competing(folder: Path) -> Iterator[Line]:
    table, theirs = _read(folder, "competing.csv", "competing_values.csv")
    X, time = table[["x1", "x2"]].to_numpy(float), table["time"].to_numpy(float)
    cause, at = table["cause"].to_numpy(), [10.0, 20.0, 40.0, 60.0]
    end, patients = subdistribution(time, cause), [str(row % 150) for row in range(len(time))]
    yield "Fine and Gray (finegray, coxph)", fine_gray(X, end), theirs["fine_gray"]
    yield from _cox(", competing events", X, end, patients, _efron(theirs))
    high = X[:, 0] + 0.5 * X[:, 1] > 0
    test = gray_test(end, high)
    yield "Gray's test of risk groups (cmprsk)", np.array([test.statistic, test.p]), theirs["gray"]
    ratio = np.exp(bootstrap_cox(high[:, None] * 1.0, end, np.ones((1, len(time)))))
    yield "hazard ratio of risk groups (finegray, coxph)", ratio[0], theirs["hazard_ratio"]
    for of, name in ((1, "event"), (2, "competing")):
        found = aalen_johansen(end, of)
        place = np.searchsorted(found.time_days, at, side="right") - 1
        yield f"cumulative incidence, {name} (survfit)", found.incidence[place], theirs[f"incidence_{name}"]
        yield f"its error, {name}", found.error[place], theirs[f"error_{name}"]


def entry(folder: Path) -> Iterator[Line]:
    table, theirs = _read(folder, "entry.csv", "entry_values.csv")
    X, event = table[["x1", "x2"]].to_numpy(float), table["event"].to_numpy() == 1
    end = Survival(table["time"].to_numpy(float), event, entry_days=table["start"].to_numpy(float))
    yield from _cox(", late entry", X, end, table["id"].astype(str).tolist(), theirs)
    curve = kaplan_meier(end)
    yield "Kaplan-Meier, late entry (survfit)", curve.at(np.array([5.0, 10.0, 20.0, 40.0])), theirs["kaplan_meier"]
    found = concordance(end, X[:, 0] + 0.5 * X[:, 1])
    yield "C, late entry (concordance)", np.array([found.c_index]), theirs["harrell_c"]


def areas(folder: Path) -> Iterator[Line]:
    """Our interval draws patients, DeLong's is of the normal distribution: near each other, not the same."""
    table, theirs = _read(folder, "auc.csv", "auc_values.csv")
    positive, names = table["label"].to_numpy(float), ("first", "second")
    patients = [str(row) for row in range(len(table))]
    drawn = np.vstack([np.ones(len(table)), draw_patients(patients, np.random.default_rng(0))])
    found = [weighted_auc(table[name].to_numpy(float), drawn * positive, drawn * (1 - positive)) for name in names]
    yield "AUC (pROC)", np.array([values[0] for values in found]), theirs["auc"]
    bounds = np.array([interval(values[1:]) for values in found])
    for bound, which in (("lower", 0), ("upper", 1)):
        yield f"its {bound} bound, patients drawn (DeLong)", bounds[:, which], theirs[f"delong_{bound}"]


def scores(folder: Path) -> Iterator[Line]:
    table, theirs = _read(folder, "scores.csv", "scores_values.csv")
    end = Survival(table["time"].to_numpy(float), table["event"].to_numpy() == 1)
    score = table["score"].to_numpy(float)
    censoring, at, once = fit_censoring(end), np.array([5.0, 10.0, 20.0]), np.ones((1, len(table)))
    risk = 1 - np.exp(-at / 25 * np.exp(0.7 * score)[:, None])
    areas = [auc_t(end, score, days, censoring) for days in at]
    yield "AUC(t), tied times (riskRegression)", np.array(areas), theirs["auc_t"]
    errors = [brier_score(end, 1 - one, days, censoring) for one, days in zip(risk.T, at, strict=True)]
    yield "Brier score, tied times (riskRegression)", np.array(errors), theirs["brier"]
    slope = survival_slope(end, risk[:, 2], at[2], once)
    yield "calibration slope (coxph)", slope, theirs["slope"]
    benefit = net_benefit_survival(end, risk[:, 2], at[2], np.array([0.2, 0.4, 0.6]), once)[0]
    yield "net benefit (survfit)", benefit, theirs["net_benefit"]
    yield from _competing_scores(table, risk, theirs)
    untied = subdistribution(table["untied"].to_numpy(float), table["cause"].to_numpy())
    found = fine_gray(table[["x1", "x2"]].to_numpy(float), untied)
    yield "Fine and Gray, nothing tied (cmprsk)", found, theirs["fine_gray"]


def _competing_scores(table: pd.DataFrame, risk: FloatArray, theirs: dict[str, FloatArray]) -> Iterator[Line]:
    time, cause, score = table["time"].to_numpy(float), table["cause"].to_numpy(), table["score"].to_numpy(float)
    end, at, once = subdistribution(time, cause), [5.0, 10.0, 20.0], np.ones((1, len(table)))
    censoring = fit_censoring(end)
    areas = [auc_t(end, score, days, censoring) for days in at]
    yield "AUC(t), competing events (riskRegression)", np.array(areas), theirs["auc_competing"]
    errors = [brier_score(end, 1 - one, days, censoring) for one, days in zip(risk.T, at, strict=True)]
    yield "Brier score, competing events (riskRegression)", np.array(errors), theirs["brier_competing"]
    slope = survival_slope(end, risk[:, 2], 20.0, once, censoring)
    yield "calibration slope, competing events (finegray, coxph)", slope, theirs["slope_competing"]
    benefit = net_benefit_survival(end, risk[:, 2], 20.0, np.array([0.2, 0.4, 0.6]), once)[0]
    yield "net benefit, competing events (survfit)", benefit, theirs["net_benefit_competing"]
    found = concordance(end, score)
    yield "C, competing events (concordance)", np.array([found.c_index]), theirs["harrell_c_competing"]


def longitudinal(folder: Path) -> Iterator[Line]:
    table, theirs = _read(folder, "longitudinal.csv", "longitudinal_values.csv")
    X, sites, patients = table.filter(regex="^f").to_numpy(float), table["site"].tolist(), table["patient"].tolist()
    alone = table.groupby("patient")["site"].transform("size").to_numpy() == 1
    for name, age in (("plain", None), ("age", table[["age"]].to_numpy(float))):
        combat = fit_combat(X, sites, age, patients=patients)
        assert combat.level is not None
        given = "" if age is None else ", given age"
        yield f"longitudinal ComBat, scale{given} (lme4)", combat.scale, theirs[f"{name} sigma"]
        yield f"its share between patients{given}", combat.share, theirs[f"{name} share"]
        yield f"its sites{given}", combat.level.T.ravel(), theirs[f"{name} level"]
        after = combat.apply(X, sites, age)[alone].ravel()
        yield f"scans after it{given}", after, theirs[f"{name} after"]


def overlap() -> None:
    """A model frozen on 150 cases meets these and 150 others, under their own and under each other's numbers."""
    table = survival_table(0, n=300, p=5, signal=1.0)
    first, second = table.rows(np.arange(150)), table.rows(np.arange(150, 300))
    fitted = fit_procedure(Procedure(selector="", penalty=(0.1,)), first, 0)
    frozen = describe(fitted, first, (), (365.0,))
    numbered = replace(second, patient_ids=first.patient_ids)
    cohorts = {
        "the training cases": (first, 150),
        "the same, renamed": (replace(first, patient_ids=second.patient_ids), 150),
        "30 of them among 150": (table.rows(np.arange(120, 270)), 30),
        "others": (second, 0),
        "others with the training patients' IDs": (numbered, 0),
    }
    print("\n| cohort of 150 | fitted on | known as such | same ID, other features |\n|---|---|---|---|")
    for name, (cohort, truth) in cohorts.items():
        found = training_overlap(frozen, cohort)
        print(f"| {name} | {truth} | {found.in_training} | {found.same_id} |")


if __name__ == "__main__":
    main()
