"""From the tables of a folder of models to figures of how well its procedures predict."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from prognosis_dask.errors import count
from prognosis_dask.report import comparison_figures, survival_figures
from prognosis_dask.report.canvas import LINES
from prognosis_dask.report.headline import curve_of, estimate, headline
from prognosis_dask.report.measures import describe
from prognosis_dask.report.model_folder import ModelFolder
from prognosis_dask.report.model_spread import of_held_out
from prognosis_dask.report.picture import Picture
from prognosis_dask.report.records import records
from prognosis_dask.report.survival_figures import Curve
from prognosis_dask.report.words import listed, p_text, span, with_interval

HELD_OUT = "Every case was predicted by models that were fitted without it."


def performance(models: ModelFolder) -> Picture | None:
    """The headline measure of every procedure, held-out beside in-sample."""
    measure = describe(headline(models))
    held_out = models.measure(headline(models))
    if held_out.empty:
        return None
    flattering = models.measure(headline(models), in_sample=True).set_index("procedure")["value"]
    rows = held_out[["procedure", "value", "lower", "upper"]].assign(
        in_sample=held_out["procedure"].map(flattering[~flattering.index.duplicated()]).astype(float)
    )
    rows = rows.drop_duplicates("procedure").set_index("procedure")
    rows = rows.loc[[name for name in models.names if name in rows.index]].reset_index()
    told = "; ".join(f"{r.procedure} {with_interval(r.value, r.lower, r.upper)}" for r in records(rows))
    caption = f"{measure.title} of each procedure: squares with lines, held-out cases with 95 % intervals"
    if rows["in_sample"].notna().any():
        caption += (
            "; open diamonds, what would have been reported had the model been judged on the cases that it was "
            "selected and fitted on"
        )
    return Picture(
        "comparison",
        comparison_figures.performance(rows, measure.title, measure.no_skill),
        rows,
        f"{measure.title} of each procedure on held-out cases, in-sample beside it: {told}.",
        f"{caption}. Dotted line: guessing.",
    )


def differences(models: ModelFolder) -> Picture | None:
    """Differences of the headline measure between procedures."""
    table = models.table("differences", "a", "b", "measure", "difference", "lower", "upper")
    if table is None:
        return None
    rows = table[table["measure"] == headline(models)]
    if rows.empty:
        return None
    title = describe(headline(models)).title
    apart = [f"{r.a} and {r.b}" for r in records(rows) if r.lower > 0 or r.upper < 0]
    return Picture(
        "differences",
        comparison_figures.differences(rows, title),
        rows,
        f"Differences in {title} between {count(len(rows), 'pair')} of procedures; intervals that leave out 0: "
        f"{'; '.join(apart) or 'none'}.",
        f"Differences in {title} between procedures on the same folds: right of the dotted line the first one is "
        f"better. {'The interval leaves out 0 between ' + listed(apart) if apart else 'Every interval includes 0'}."
        + (f" Of {len(rows)} intervals one in twenty does so by chance: see Holm’s p." if len(rows) > 2 else ""),
    )


def in_sample_curve(models: ModelFolder) -> Picture | None:
    """The in-sample curve of a ranking with what random features give, and the same procedure's held-out folds."""
    ranking, column = curve_of(models)
    curve = models.table("curve", "k", column)
    if curve is None:
        return None
    of_fold = column.removesuffix("_in_sample")
    folds = models.table("folds", "procedure", "n_features", of_fold)
    if folds is not None:
        folds = folds[folds["procedure"] == ranking].rename(columns={of_fold: "value"})
    found = estimate(models, ranking)
    title = "AUC" if models.classes else "Harrell’s concordance index"
    caption = [
        f"{title} over the number of features. Dashed: in-sample, the features that “{ranking}” ranks first; "
        "optimistic, since features and coefficients were chosen on the same cases."
    ]
    if "random_median" in curve:
        caption.append("Orange band and line: in-sample with features drawn at random, range and median of the draws.")
    caption.append(f"Blue points: held-out folds of “{ranking}”, at the number of features in their models.")
    if found is not None:
        caption.append("Blue line and band: their estimate and its 95 % interval.")
    last = curve.iloc[-1]
    return Picture(
        "in_sample_curve",
        comparison_figures.in_sample_curve(curve.rename(columns={column: "in_sample"}), folds, found, title),
        curve,
        f"{title} over the number of features of “{ranking}”: in-sample {last[column]:.2f} at "
        f"{count(int(last['k']), 'feature')} (optimistic)"
        + (f"; held-out {with_interval(*found)}." if found is not None else "."),
        " ".join(caption),
    )


def auc_over_time(models: ModelFolder) -> Picture | None:
    """AUC(t) of the procedures."""
    table = models.table("auc_t", "procedure", "time_days", "auc", "lower", "upper")
    if table is None or table["auc"].notna().sum() < 2:
        return None
    shown, note = shown_procedures(models, table)
    first = table[table["procedure"] == shown[0]]
    return Picture(
        "auc_t",
        survival_figures.auc_over_time(table[table["procedure"].isin(shown)], shown),
        table,
        f"Time-dependent AUC; {shown[0]}: {first['auc'].min():.2f} to {first['auc'].max():.2f} over the times shown.",
        "Cumulative/dynamic AUC(t): how well the risk score tells cases with the event by time t from those still "
        f"without it, weighted for censoring. {HELD_OUT} Band: 95 % interval of “{shown[0]}”. Dotted: guessing.{note}",
    )


def calibration(models: ModelFolder) -> Picture | None:
    """Observed against predicted risk of the final procedure."""
    table = models.table("calibration", "procedure", "predicted", "observed")
    if table is None:
        return None
    part = table[table["procedure"] == models.primary]
    if part.empty:
        return None
    part = part.reindex(columns=list(dict.fromkeys([*part.columns, "kind", "lower", "upper"])))
    part = part.assign(kind=part["kind"].fillna("group"))
    panels = _panels(models, part)
    what = "probability" if models.classes else "risk of the event"
    kaplan = "observed share" if models.classes else "Kaplan-Meier’s estimate"
    return Picture(
        "calibration",
        survival_figures.calibration(panels, what),
        part,
        f"Calibration of {models.primary}: observed against predicted {what}, a panel each for "
        f"{listed([title for title, _ in panels])}.",
        f"Calibration of “{models.primary}”. {HELD_OUT} Points: groups of equal size by predicted {what}, against "
        f"their {kaplan} with its 95 % interval; line: smoothed. On the dotted diagonal predictions are right."
        f"{of_held_out(models)}",
    )


#: Panels of calibration curves that a page has room for.
_MOST_PANELS = 6


def _panels(models: ModelFolder, part: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    if not models.classes and "horizon_days" in part:
        days = sorted(part["horizon_days"].dropna().unique().tolist())
        return [(span(horizon), part[part["horizon_days"] == horizon]) for horizon in days][:_MOST_PANELS]
    if "class" in part and part["class"].notna().any():
        return [(f"class {name}", rows) for name, rows in part.groupby("class", sort=False)][:_MOST_PANELS]
    return [("", part)]


def kaplan_meier(models: ModelFolder) -> Picture | None:
    """Survival of the held-out risk groups of the final procedure, the lowest risk first."""
    table = models.table("kaplan_meier", "procedure", "group", "time_days", "survival", "lower", "upper", "at_risk")
    if table is None:
        return None
    part = table[table["procedure"] == models.primary]
    if part.empty:
        return None
    curves = [Curve(str(name), rows.sort_values("time_days")) for name, rows in part.groupby("group", sort=False)]
    # the area under a curve says which group lives longer; names may be anything
    curves.sort(key=lambda curve: (_order(curve.name), -float(np.nanmean(curve.steps["survival"]))))
    p = _log_rank(models)
    test = f"log-rank {p_text(p)}" if p is not None else None
    ratio = _of_primary(models, "hazard_ratio_high_low")
    if ratio is not None and np.isfinite(ratio["value"]):
        said = f"hazard ratio {with_interval(ratio['value'], ratio['lower'], ratio['upper'])}"
        test = f"{said}, {test}" if test else said
    counts = "; ".join(
        f"{curve.name} risk {count(curve.cases, 'case')}, {count(curve.events, 'event')}" for curve in curves
    )
    # Simon et al., Briefings in Bioinformatics 12 (2011) 203-214
    caution = (
        " The p value is a rough guide: the folds’ models share cases, so the groups are not independent."
        if test
        else ""
    )
    return Picture(
        "kaplan_meier",
        survival_figures.kaplan_meier(curves, test),
        part,
        f"Kaplan-Meier curves of the risk groups: {counts}." + (f" {test}." if test else ""),
        f"Kaplan-Meier estimate by risk group of “{models.primary}”. {HELD_OUT} The groups’ cut-off, too, comes from "
        f"training cases. Bands: 95 % confidence intervals (log-log); ticks: censored cases.{caution}"
        f"{_several_cases(models)}",
    )


def _several_cases(models: ModelFolder) -> str:
    cases, patients = (models.summary.get(name) for name in ("n_cases", "n_patients"))
    if cases == patients:
        return ""
    return (
        f" Counts are of cases, {cases} of {patients} patients; bands, hazard ratio’s interval and test have their "
        "variance over patients."
    )


def _order(name: str) -> int:
    return {"low": 0, "medium": 1, "intermediate": 1, "high": 2}.get(name.lower(), 1)


def _log_rank(models: ModelFolder) -> float | None:
    row = _of_primary(models, "log_rank_p")
    return None if row is None or not np.isfinite(row["value"]) else float(row["value"])


def _of_primary(models: ModelFolder, measure: str) -> pd.Series | None:
    rows = models.measure(measure)
    rows = rows[rows["procedure"] == models.primary]
    return None if rows.empty else rows.iloc[0]


def net_benefit(models: ModelFolder) -> Picture | None:
    """Decision curves of the procedures."""
    table = models.table("net_benefit", "procedure", "threshold", "net_benefit", "treat_all")
    if table is None:
        return None
    by = "class" if models.classes else "horizon_days"
    table = table.reindex(columns=list(dict.fromkeys([*table.columns, by])))
    shown, note = shown_procedures(models, table)
    drawn = table[table["procedure"].isin(shown)]
    titles = {key: f"class {key}" if models.classes else span(float(key)) for key in dict.fromkeys(drawn[by].dropna())}
    panels = [(title, drawn[drawn[by] == key]) for key, title in titles.items()] or [("", drawn)]
    return Picture(
        "net_benefit",
        survival_figures.net_benefit(panels[:_MOST_PANELS], shown),
        table,
        f"Decision curves of {listed(shown)} with treat all and treat none over threshold probabilities.",
        "Decision curves (net benefit, Vickers and Elkin 2006; for censored outcomes Vickers et al. 2008): true "
        "positives less false positives weighted by the odds of the threshold, per case. A procedure is of use at a "
        f"threshold where its curve lies above both “treat all” and “treat none”. {HELD_OUT}{note}",
    )


def shown_procedures(models: ModelFolder, table: pd.DataFrame) -> tuple[list[str], str]:
    """At most as many procedures as there are lines that can be told apart, the final one first."""
    known = set(table["procedure"])
    names = [name for name in models.names if name in known] or list(dict.fromkeys(table["procedure"]))
    left = len(names) - len(LINES)
    return names[: len(LINES)], f" Not drawn: {count(left, 'more procedure')}, see the data." if left > 0 else ""


def of_procedures(names: Sequence[str]) -> str:
    """How many procedures were compared, and which.

    >>> of_procedures(["cox"]), of_procedures(["a", "b"])
    ('One procedure was validated: “cox”.', '2 procedures were compared on the same folds: “a” and “b”.')
    """
    quoted = [f"“{name}”" for name in names]
    if len(names) == 1:
        return f"One procedure was validated: {quoted[0]}."
    return f"{len(names)} procedures were compared on the same folds: {listed(quoted)}."
