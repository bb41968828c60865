"""A made folder of models: every table that a report reads, from small arrays by lifelines and scikit-learn."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from lifelines import CoxPHFitter, KaplanMeierFitter
from lifelines.utils import concordance_index
from sklearn.metrics import roc_auc_score, roc_curve

from prognosis_dask.modelling.estimators.cox import ProportionalHazards
from prognosis_dask.modelling.estimators.prediction import Baseline
from prognosis_dask.modelling.fitted import Fitted
from prognosis_dask.modelling.folder import write_tables
from prognosis_dask.modelling.preparing import Preparation
from prognosis_dask.modelling.procedure import Procedure
from prognosis_dask.modelling.saved import QUANTILES, Frozen, save_frozen

PROCEDURES = ("clinical", "radiomics", "clinical + images")
HORIZONS = (365.0, 730.0)
FEATURES = ("age", "stage", "original_shape_MeshVolume", "original_glcm_Contrast", "original_ngtdm_Busyness")


def make_models(folder: Path, *, n: int = 160, seed: int = 0, case_ids: Sequence[str] = ()) -> Path:
    """Write the tables of a survival model's folder."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    X = rng.normal(size=(n, len(FEATURES)))
    truth = X @ np.array([0.3, 0.5, 0.6, 0.1, 0.0])
    death, lost = 900 * rng.exponential(size=n) * np.exp(-truth), rng.uniform(200, 2200, n)
    time, event = np.minimum(death, lost).round() + 1, (death <= lost).astype(int)
    ids = list(case_ids) or [f"P-{i:03d}" for i in range(n)]
    risk = {name: truth + spread * rng.normal(size=n) for name, spread in zip(PROCEDURES, (2.0, 3.0, 1.2), strict=True)}
    tables = {
        "folds": _folds(risk, time, event, rng),
        "predictions": _predictions(risk, ids),
        "measures": _measures(risk, time, event),
        "differences": _differences(risk, time, event),
        "auc_t": _auc_t(risk, time, event),
        "calibration": _calibration(risk, truth, rng),
        "net_benefit": _net_benefit(risk, time, event),
        "kaplan_meier": _kaplan_meier(risk, time, event),
        "selection": _selection(rng),
        "curve": _curve(),
        "correlation": _correlation(X),
        "added": pd.DataFrame(
            [
                ("stage", "images", "likelihood ratio", 9.1, 2, 0.0106, None, 0.021, -0.004, 0.046, ""),
                ("volume", "images", "likelihood ratio", 3.0, 2, 0.22, None, 0.01, -0.02, 0.04, ""),
            ],
            columns=["base", "added", "test", "statistic", "df", "p", "z", "delta_c", "lower", "upper", "note"],
        ),
        "table1": _table1(X, event, rng),
    }
    frame = pd.DataFrame(X, columns=list(FEATURES)).assign(time=time, event=event)
    cox = CoxPHFitter(penalizer=0.01).fit(frame, "time", "event")
    tables["coefficients"] = _coefficients(cox)
    tables["ph"] = pd.DataFrame(
        {"feature": FEATURES, "statistic": [0.2, 4.4, 1.0, 0.0, 2.0], "p": [0.65, 0.036, 0.32, 0.98, 0.16]}
    )
    for name, table in tables.items():
        _write(folder, name, table)
    _write_json(folder, cox, frame, X)
    return folder


def _write(folder: Path, name: str, table: pd.DataFrame) -> None:
    write_tables(folder, {name: table.to_dict("records")})


def _folds(risk: dict[str, np.ndarray], time: np.ndarray, event: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    for repeat in range(4):
        fold_of = rng.permutation(len(time)) % 5
        for fold in range(5):
            test = fold_of == fold
            for name, score in risk.items():
                k = int(rng.choice([2, 5, 10, 20]))
                c = concordance_index(time[test], -score[test], event[test])
                counts = ((~test).sum(), event[~test].sum(), test.sum(), event[test].sum())
                rows.append((name, repeat, fold, *counts, k, 0.1, 0.5, c, c))
    columns = "procedure repeat fold n_train events_train n_test events_test n_features penalty mixing c_index uno_c"
    return pd.DataFrame(rows, columns=columns.split())


def _predictions(risk: dict[str, np.ndarray], ids: list[str]) -> pd.DataFrame:
    parts = []
    for name, score in risk.items():
        part = pd.DataFrame({"procedure": name, "repeat": 0, "fold": np.arange(len(ids)) % 5, "case_id": ids})
        part = part.assign(patient_id=ids, risk_score=score, group=np.where(score > 0, "high", "low"))
        parts.append(part.assign(survival_365=np.exp(-0.3 * np.exp(score))))
    return pd.concat(parts)


def _measures(risk: dict[str, np.ndarray], time: np.ndarray, event: np.ndarray) -> pd.DataFrame:
    rows = []
    for name, score in risk.items():
        c = concordance_index(time, -score, event)
        rows += [
            (name, "harrell_c", None, c, c - 0.05, c + 0.05, 0),
            (name, "harrell_c", None, c + 0.08, None, None, 1),
            (name, "uno_c", HORIZONS[-1], c - 0.01, c - 0.07, c + 0.05, 0),
            (name, "ibs", None, 0.19, 0.17, 0.21, 0),
            (name, "log_rank_p", None, 0.0123, None, None, 0),
            (name, "hazard_ratio_high_low", None, 1.9, 1.2, 3.0, 0),
        ]
        for days in HORIZONS:
            rows += [
                (name, "auc_t", days, c + 0.02, c - 0.06, c + 0.1, 0),
                (name, "brier", days, 0.2, 0.18, 0.22, 0),
                (name, "calibration_slope", days, 0.9, 0.6, 1.2, 0),
                (name, "ici", days, 0.04, 0.02, 0.09, 0),
            ]
    columns = ["procedure", "measure", "horizon_days", "value", "lower", "upper", "in_sample"]
    return pd.DataFrame(rows, columns=columns).assign(note="")


def _differences(risk: dict[str, np.ndarray], time: np.ndarray, event: np.ndarray) -> pd.DataFrame:
    c = {name: concordance_index(time, -score, event) for name, score in risk.items()}
    last = PROCEDURES[-1]
    rows = [
        (last, b, "harrell_c", c[last] - c[b], c[last] - c[b] - 0.05, c[last] - c[b] + 0.05, 0.04, 0.08, 0.04, 0.002)
        for b in PROCEDURES[:-1]
    ]
    columns = "a b measure difference lower upper p p_holm p_corrected p_wilcoxon"
    table = pd.DataFrame(rows, columns=columns.split())
    return table.assign(lower_drawn=table["lower"], upper_drawn=table["upper"], note="")


def _auc_t(risk: dict[str, np.ndarray], time: np.ndarray, event: np.ndarray) -> pd.DataFrame:
    rows = []
    for name, score in risk.items():
        for t in np.quantile(time[event == 1], np.linspace(0.1, 0.8, 15)):
            case, control = (time <= t) & (event == 1), time > t
            auc = roc_auc_score(case[case | control], score[case | control])
            rows.append((name, t, auc, auc - 0.07, min(1.0, auc + 0.07)))
    return pd.DataFrame(rows, columns=["procedure", "time_days", "auc", "lower", "upper"])


def _calibration(risk: dict[str, np.ndarray], truth: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    for name in risk:
        for days in HORIZONS:
            predicted = np.sort(1 - np.exp(-days / 900 * np.exp(truth)))
            for part in np.array_split(predicted, 10):
                p = part.mean()
                observed = float(np.clip(p + 0.06 * rng.normal(), 0.01, 0.99))
                rows.append((name, days, "group", p, observed, max(0.0, observed - 0.13), min(1.0, observed + 0.13)))
            for p in np.linspace(predicted[3], predicted[-3], 40):
                rows.append((name, days, "smooth", p, p**1.1, None, None))
    return pd.DataFrame(rows, columns=["procedure", "horizon_days", "kind", "predicted", "observed", "lower", "upper"])


def _net_benefit(risk: dict[str, np.ndarray], time: np.ndarray, event: np.ndarray) -> pd.DataFrame:
    rows = []
    for name, score in risk.items():
        for days in HORIZONS:
            dead = (time <= days) & (event == 1)
            predicted = 1 - np.exp(-days / 1000 * np.exp(score / 2))
            for threshold in np.linspace(0.01, 0.9, 40):
                odds = threshold / (1 - threshold)
                treated = predicted > threshold
                net = (treated & dead).mean() - (treated & ~dead).mean() * odds
                rows.append((name, days, threshold, net, None, None, dead.mean() - (~dead).mean() * odds))
    columns = ["procedure", "horizon_days", "threshold", "net_benefit", "lower", "upper", "treat_all"]
    return pd.DataFrame(rows, columns=columns)


def _kaplan_meier(risk: dict[str, np.ndarray], time: np.ndarray, event: np.ndarray) -> pd.DataFrame:
    parts = []
    for name, score in risk.items():
        for group, chosen in (("low", score <= 0), ("high", score > 0)):
            km = KaplanMeierFitter().fit(time[chosen], event[chosen])
            band = km.confidence_interval_
            parts.append(pd.DataFrame({"procedure": name, "group": group, "time_days": band.index,
                                       "survival": km.survival_function_.iloc[:, 0].to_numpy(),
                                       "lower": band.iloc[:, 0].to_numpy(), "upper": band.iloc[:, 1].to_numpy(),
                                       "at_risk": km.event_table["at_risk"].to_numpy()}))  # fmt: skip
    return pd.concat(parts)


def _selection(rng: np.random.Generator) -> pd.DataFrame:
    rows = [
        (name, feature, share)
        for name in PROCEDURES
        for feature, share in zip(FEATURES, (0.6, 1.0, 0.9, 0.4, 0.05), strict=True)
    ]
    rows += [(PROCEDURES[-1], f"deep_{i:03d}", round(rng.uniform(0.05, 0.5), 2)) for i in range(30)]
    return pd.DataFrame(rows, columns=["procedure", "feature", "share"])


def _curve() -> pd.DataFrame:
    k = np.arange(1, 101)
    curve = pd.DataFrame({"k": k, "c_index_in_sample": 0.55 + 0.11 * np.log(k) / np.log(100)})
    chance = {"random_median": 0.53 + 0.0013 * k, "random_lower": 0.50 + 0.0015 * k, "random_upper": 0.56 + 0.0011 * k}
    return curve.assign(**chance, of=250)


def _correlation(X: np.ndarray) -> pd.DataFrame:
    rows = [
        (feature, other, len(X), r, r - 0.1, min(1, r + 0.1), 0.01)
        for feature, v, s in zip(FEATURES, (0.05, 0.2, 0.97, 0.6, -0.5), (0.1, 0.95, 0.3, 0.2, -0.1), strict=True)
        for other, r in (("volume", v), ("stage", s))
    ]
    return pd.DataFrame(rows, columns=["feature", "with", "n", "pearson", "lower", "upper", "p"])


def _table1(X: np.ndarray, event: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    rows = [
        ("patients", "", str(len(event)), str(int((event == 0).sum())), str(int(event.sum())), None, 0),
        ("age", "median (quartiles)", "66 (60 to 72)", "65 (59 to 71)", "67 (61 to 73)", 0.21, 3),
        ("sex", "female", "60 (38 %)", "25 (41 %)", "35 (35 %)", 0.12, 0),
        ("sex", "male", "100 (62 %)", "36 (59 %)", "64 (65 %)", None, 0),
        ("stage", "I", "50 (31 %)", "25 (41 %)", "25 (25 %)", 0.41, 1),
        ("stage", "III", "110 (69 %)", "36 (59 %)", "74 (75 %)", None, 1),
    ]
    return pd.DataFrame(rows, columns=["variable", "level", "overall", "censored", "event", "smd", "missing"])


def _coefficients(cox: CoxPHFitter) -> pd.DataFrame:
    names = {
        "coef": "coef",
        "se(coef)": "se",
        "exp(coef)": "hazard_ratio",
        "exp(coef) lower 95%": "lower_95",
        "exp(coef) upper 95%": "upper_95",
        "p": "p",
    }
    return cox.summary[list(names)].rename(columns=names).rename_axis("feature").reset_index()


def _write_json(folder: Path, cox: CoxPHFitter, frame: pd.DataFrame, X: np.ndarray) -> None:
    n, events = len(X), int(frame["event"].sum())
    summary = {
        "n_cases": n,
        "n_patients": n,
        "n_events": events,
        "procedure": PROCEDURES[-1],
        "left_out": {"time-not-positive": 2},
        "notes": ["A note on the data."],
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    settings = {"families": ["clinical"], "selector": "svm-rfe", "learner": "cox", "penalty": [0.01, 0.1]}
    (folder / "procedures.json").write_text(json.dumps(dict.fromkeys(PROCEDURES, settings)))
    save_frozen(_frozen(cox, X, n, events), folder)


def _frozen(cox: CoxPHFitter, X: np.ndarray, n: int, events: int) -> Frozen:
    """Lifelines' model in our plain data."""
    mean, scale = X.mean(axis=0), X.std(axis=0, ddof=1)
    columns = np.arange(len(FEATURES))
    hazard = cox.baseline_cumulative_hazard_.iloc[:, 0]
    coefficient, error = (part.loc[list(FEATURES)].to_numpy() * scale for part in (cox.params_, cox.standard_errors_))
    weight = np.array([1.0, 0.5, 2.0, 1.0, 1.0])  # as where families share a penalty
    fitted = Fitted(
        Procedure(),
        FEATURES,
        ("years", "", "mm3", "", ""),
        {},
        (),
        Preparation(np.zeros(len(FEATURES)), None, np.arange(0), columns, mean, scale, weight),
        columns,
        FEATURES,
        {"n_features": len(FEATURES), "penalty": 0.01, "mixing": 0.0},
        ProportionalHazards(coefficient / weight, error / weight, Baseline(hazard.index.to_numpy(), hazard.to_numpy())),
        0.0,
    )
    quantiles = np.quantile(X, QUANTILES, axis=0)
    counts = {"n_cases": n, "n_patients": n, "n_events": events}
    none = np.zeros(0, np.uint64)
    return Frozen(
        fitted,
        (),
        (),
        HORIZONS,
        counts,
        quantiles,
        np.zeros(len(QUANTILES)),
        {},
        none,
        none,
        np.zeros(quantiles.shape[1], bool),
    )


def make_class_models(folder: Path, *, n: int = 120, seed: int = 0) -> Path:
    """Write the tables of a model of two grades."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    label = rng.integers(0, 2, n)
    rows, rocs, confusions, calibrations = [], [], [], []
    for name, spread in (("size", 1.6), ("CNN", 1.0)):
        score = label + spread * rng.normal(size=n)
        probability = 1 / (1 + np.exp(-(score - 0.5) * 1.5))
        auc = roc_auc_score(label, probability)
        rows += [
            (name, "auc", None, auc, auc - 0.07, auc + 0.07, 0),
            (name, "auc", None, min(1, auc + 0.06), None, None, 1),
            (name, "balanced_accuracy", None, auc - 0.05, auc - 0.12, auc + 0.02, 0),
            (name, "brier", None, 0.18, 0.15, 0.21, 0),
        ]
        fpr, tpr, _ = roc_curve(label, probability)
        rocs += [(name, "3", f, t, None, None) for f, t in zip(fpr, tpr, strict=True)]
        predicted = (probability > 0.5).astype(int)
        confusions += [
            (name, str(t + 2), str(p + 2), int(((label == t) & (predicted == p)).sum())) for t in (0, 1) for p in (0, 1)
        ]
        for part in np.array_split(np.argsort(probability), 8):
            calibrations.append(
                (
                    name,
                    "3",
                    "group",
                    probability[part].mean(),
                    label[part].mean(),
                    max(0, label[part].mean() - 0.2),
                    min(1, label[part].mean() + 0.2),
                )
            )
    bounds = ["lower", "upper"]
    columns = ["procedure", "measure", "horizon_days", "value", *bounds, "in_sample"]
    _write(folder, "measures", pd.DataFrame(rows, columns=columns).assign(note=""))
    columns = ["procedure", "class", "false_positive_rate", "true_positive_rate", *bounds]
    _write(folder, "roc", pd.DataFrame(rocs, columns=columns))
    _write(folder, "confusion", pd.DataFrame(confusions, columns=["procedure", "true", "predicted", "cases"]))
    columns = ["procedure", "class", "kind", "predicted", "observed", *bounds]
    _write(folder, "calibration", pd.DataFrame(calibrations, columns=columns))
    summary = {
        "n_cases": n,
        "n_patients": n,
        "classes": {"2": int((label == 0).sum()), "3": int(label.sum())},
        "procedure": "CNN",
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder
