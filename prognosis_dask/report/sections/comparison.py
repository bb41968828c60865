"""Validation: figures beside others: of procedures, in sample, of chance, and without one patient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from prognosis_dask.errors import count
from prognosis_dask.modelling.folder import ModelFolder
from prognosis_dask.report import canvas
from prognosis_dask.report.canvas import svg
from prognosis_dask.report.content import (
    Block,
    Heading,
    Picture,
    Rows,
    Table,
    Text,
    absent,
    not_written,
    optional,
    titled,
)
from prognosis_dask.report.read import records
from prognosis_dask.report.words import (
    clipped,
    describe,
    interval,
    listed,
    named,
    number,
    p_number,
    span,
    with_interval,
)

IN_SAMPLE_LABEL = "in-sample, chosen features (optimistic)"


def performance(models: ModelFolder) -> Picture | None:
    """The headline measure of every procedure, held-out beside in-sample."""
    measure = describe(models.headline)
    held_out = models.measure(models.headline)
    if held_out is None:
        return None
    flattering = models.measure(models.headline, in_sample=True)
    by_name = {} if flattering is None else dict(zip(flattering["procedure"], flattering["value"], strict=True))
    rows = held_out[["procedure", "value", "lower", "upper"]].assign(
        in_sample=[by_name.get(name, np.nan) for name in held_out["procedure"]]
    )
    rows = rows.set_index("procedure")
    rows = rows.loc[[name for name in models.names if name in rows.index]].reset_index()
    told = "; ".join(f"{r.procedure} {with_interval(r.value, r.lower, r.upper)}" for r in records(rows))
    caption = f"{measure.title} of each procedure: squares with lines, held-out cases with 95 % intervals"
    if rows["in_sample"].notna().any():
        caption += "; open diamonds: in-sample (optimistic) performance"
    return Picture(
        "comparison",
        _draw_performance(rows, measure.title, measure.no_skill),
        rows,
        f"{measure.title} of each procedure on held-out cases, in-sample beside it: {told}.",
        f"{caption}. Dotted line: guessing.",
    )


@svg
def _draw_performance(rows: pd.DataFrame, title: str, no_skill: float | None) -> Figure:
    """One measure of every procedure, held-out with its interval beside in-sample.

    Parameters
    ----------
    rows
        Columns ``procedure``, ``value``, ``lower``, ``upper``, ``in_sample`` (NaN where it is not known).
    title
        The measure's name.
    no_skill
        What guessing gives.
    """
    place = np.arange(len(rows))[::-1]
    figure = canvas.new_figure(canvas.FULL_WIDTH, 1.3 + 0.32 * len(rows))
    axes = figure.subplots()
    if no_skill is not None:
        axes.axvline(no_skill, color=canvas.INK, linewidth=0.8, linestyle=":")
    axes.hlines(place, rows["lower"], rows["upper"], color=canvas.BLUE, linewidth=1.4)
    axes.plot(rows["value"], place, "s", color=canvas.BLUE, markersize=5, label="held-out cases, 95 % interval")
    if rows["in_sample"].notna().any():
        hollow: dict[str, Any] = {"markerfacecolor": "white", "markeredgecolor": canvas.VERMILION, "markersize": 5}
        axes.plot(rows["in_sample"], place, "D", label="in-sample (optimistic)", **hollow)
    canvas.named_rows(axes, place, (clipped(name, 30) for name in rows["procedure"]))
    axes.set(xlabel=title)
    axes.spines["left"].set_visible(False)
    for y, row in zip(place, records(rows), strict=True):
        text = with_interval(row.value, row.lower, row.upper)
        axes.annotate(
            text, (1.01, y), xycoords=("axes fraction", "data"), va="center", fontsize=7.5, annotation_clip=False
        )
    figure.legend(loc="outside upper left", ncols=2)
    return figure


def differences_blocks(models: ModelFolder) -> list[Block]:
    """Which procedures differ, as a figure and as a table; nothing for another cohort's model."""
    figure, table = differences_figure(models), differences(models)
    if figure is None and table is None:
        if models.external:
            return []
        one = len(models.names) < 2
        said = "One procedure was fitted, so there is nothing to compare." if one else not_written("differences.csv")
        return [Heading("Which differences are real"), absent(said)]
    return [Heading("Which differences are real"), *optional(figure), *optional(table)]


def differences_figure(models: ModelFolder) -> Picture | None:
    """Differences of the headline measure between procedures."""
    rows = _differences(models)
    if rows is None:
        return None
    title = describe(models.headline).title
    apart = [f"{r.a} and {r.b}" for r in records(rows) if r.lower > 0 or r.upper < 0]
    return Picture(
        "differences",
        _draw_differences(rows, title),
        rows,
        f"Differences in {title} between {count(len(rows), 'pair')} of procedures; intervals that leave out 0: "
        f"{'; '.join(apart) or 'none'}.",
        f"Differences in {title} between procedures on the same folds: right of the dotted line the first one is "
        f"better. {'The interval leaves out 0 between ' + listed(apart) if apart else 'Every interval includes 0'}."
        + (f" Of {len(rows)} intervals one in twenty does so by chance: see Holm’s p." if len(rows) > 2 else ""),
    )


@svg
def _draw_differences(rows: pd.DataFrame, title: str) -> Figure:
    """Differences of two procedures on the same folds, with their intervals."""
    place = np.arange(len(rows))[::-1]
    figure = canvas.new_figure(canvas.FULL_WIDTH, 1.0 + (0.32 if len(rows) < 8 else 0.2) * len(rows))
    axes = figure.subplots()
    axes.axvline(0, color=canvas.INK, linewidth=0.8, linestyle=":")
    axes.hlines(place, rows["lower"], rows["upper"], color=canvas.BLUE, linewidth=1.4)
    axes.plot(rows["difference"], place, "s", color=canvas.BLUE, markersize=5)
    names = [f"{clipped(row.a, 24)} − {clipped(row.b, 24)}" for row in records(rows)]
    canvas.named_rows(axes, place, names, 7.5)
    axes.set(xlabel=f"Difference in {title} (95 % interval)")
    axes.spines["left"].set_visible(False)
    return figure


def _differences(models: ModelFolder) -> pd.DataFrame | None:
    """Those of the headline measure; None where there are none."""
    table = models.table("differences")
    rows = None if table is None else table[table["measure"] == models.headline]
    return None if rows is None or rows.empty else rows


def differences(models: ModelFolder) -> Table | None:
    """Differences of the headline measure between procedures, with both tests."""
    part = _differences(models)
    if part is None:
        return None
    halves = (models.summary.get("validation") or {}).get("halves")
    quoted = "p" if halves else "p_corrected"
    how = (
        "the whole validation again on both halves of random splits of the patients, training included"
        if halves
        else "resampled t-test that allows for the folds’ shared training cases (Nadeau and Bengio 2003)"
    )
    rows = [
        (f"{r.a} less {r.b}", number(r.difference, 3), interval(r.lower, r.upper, 3), p_number(getattr(r, quoted)),
         p_number(r.p_holm), p_number(r.p_wilcoxon))
        for r in records(part)
    ]  # fmt: skip
    return Table(
        f"Differences in {describe(models.headline).title} between procedures on the same folds. Interval and p: "
        f"{how}. Holm: the same p for {count(len(part), 'pair')} tested at once (Holm 1979). Wilcoxon: "
        "signed-rank test over the folds, as the reference study used it; it takes the folds as independent, so its p "
        "is too small. Other measures: models/differences.csv.",
        ("Procedures", "Difference", "95 % CI", "p", "p, Holm", "p, Wilcoxon"),
        "lnnnnn",
        [Rows("", rows)],
    )


def honesty_blocks(models: ModelFolder) -> list[Block]:
    """In-sample beside held-out performance, with what chance gives."""
    if models.external:
        return []
    figure, said = in_sample_curve(models), verdict(models)
    blocks: list[Block] = [Text(said, "warning")] if said else []
    if figure is None:
        ranked = any(procedure.get("selector") for procedure in models.procedures.values())
        expected = ranked or not models.procedures
        why = not_written("curve.csv") if expected else "No procedure ranks its features: no curve."
        blocks.append(absent(why))
    blocks += optional(figure)
    return [Heading("In-sample figures beside chance"), *blocks] if blocks else []


def verdict(models: ModelFolder) -> str:
    """The in-sample performance beside the held-out one, in words."""
    found, flattering = models.estimate(), models.in_sample()
    title = describe(models.headline).title
    said = []
    if flattering is not None and found is not None:
        gap = flattering - found[0]
        said.append(
            f"On the cases that it was fitted on, the in-sample performance is {title} {number(flattering)}; on "
            f"held-out cases it is {with_interval(*found)}. "
            + (f"The difference of {number(gap)} is optimism, not skill." if gap >= 0.005 else "The two hardly differ.")
        )
    if chance := _beside_chance(models):
        said.append(chance)
    if found is not None and found[1] <= (describe(models.headline).no_skill or 0.5):
        said.append("The held-out interval includes chance level.")
    return " ".join(said)


def _beside_chance(models: ModelFolder) -> str:
    """What random features give in-sample where the selected ones give so much."""
    ranking, column = _curve_of(models)
    curve = models.table("curve")
    if curve is None:
        return ""
    # where most of all features are drawn, random ones are the selected ones
    chosen = curve[curve["k"] <= curve["of"] / 2]
    last = (curve if chosen.empty else chosen).iloc[-1]
    found = models.estimate(ranking)
    value = last[column]
    if not np.isfinite([value, last["random_upper"]]).all():
        return ""
    if value <= last["random_median"]:
        judged = "no more than chance gives at that size."
    elif value <= last["random_upper"]:
        judged = "within their range, so chance can give as much at that size."
    else:
        judged = "more than any random draw; selection on the same cases does this even on pure noise."
    held_out = (
        f" On held-out cases “{ranking}” has {with_interval(*found)}." if found and ranking != models.primary else ""
    )
    gives = "gives" if last["k"] == 1 else "give"
    return (
        f"In-sample, {count(int(last['k']), 'feature')} drawn at random {gives} {number(last['random_median'], 3)} "
        f"({number(last['random_lower'], 3)} to {number(last['random_upper'], 3)}) where what “{ranking}” "
        f"selects gives {number(value, 3)}: {judged}{held_out}"
    )


def _curve_of(models: ModelFolder) -> tuple[str, str]:
    """Whose ranking the in-sample curve follows, and the column that holds its figures."""
    column = "auc_in_sample" if models.classes else "c_index_in_sample"
    return str(models.summary.get("curve") or models.primary), column


def in_sample_curve(models: ModelFolder) -> Picture | None:
    """The in-sample curve of a ranking with what random features give, and the same procedure's held-out folds."""
    ranking, column = _curve_of(models)
    curve = models.table("curve")
    if curve is None:
        return None
    of_fold = column.removesuffix("_in_sample")
    folds = models.table("folds")
    if folds is not None:
        folds = folds[folds["procedure"] == ranking].rename(columns={of_fold: "value"})
    found = models.estimate(ranking)
    title = "AUC" if models.classes else "Harrell’s concordance index"
    caption = [
        f"{title} over the number of features. Dashed: in-sample, the features that “{ranking}” ranks first; "
        "optimistic, since features and coefficients were chosen on the same cases.",
        "Orange band and line: in-sample with features drawn at random, range and median of the draws.",
        f"Blue points: held-out folds of “{ranking}”, at the number of features in their models.",
    ]
    if found is not None:
        caption.append("Blue line and band: their estimate and its 95 % interval.")
    last = curve.iloc[-1]
    return Picture(
        "in_sample_curve",
        _draw_in_sample_curve(curve.rename(columns={column: "in_sample"}), folds, found, title),
        curve,
        f"{title} over the number of features of “{ranking}”: in-sample {last[column]:.2f} at "
        f"{count(int(last['k']), 'feature')} (optimistic)"
        + (f"; held-out {with_interval(*found)}." if found is not None else "."),
        " ".join(caption),
    )


@svg
def _draw_in_sample_curve(
    curve: pd.DataFrame, folds: pd.DataFrame | None, estimate: tuple[float, float, float] | None, title: str
) -> Figure:
    """A figure over the number of features: in-sample, what random features give in-sample, and held-out.

    Parameters
    ----------
    curve
        Columns ``k``, ``in_sample``, ``random_median``, ``random_lower``, ``random_upper``.
    folds
        Columns ``n_features`` and ``value``: one row per held-out fold.
    estimate
        The held-out figure and its interval's two ends.
    title
        Its name.
    """
    figure = canvas.new_figure(canvas.FULL_WIDTH, 3.7)
    axes = figure.subplots()
    band: dict[str, Any] = {"color": canvas.ORANGE, "alpha": 0.3, "linewidth": 0}
    label = "in-sample, random features"
    axes.fill_between(curve["k"], curve["random_lower"], curve["random_upper"], label=f"{label}: range", **band)
    axes.plot(curve["k"], curve["random_median"], color=canvas.VERMILION, label=f"{label}: median")
    axes.plot(curve["k"], curve["in_sample"], "--", color=canvas.INK, label=IN_SAMPLE_LABEL)
    if folds is not None:
        dots: dict[str, Any] = {"color": canvas.BLUE, "alpha": 0.35, "markersize": 4, "markeredgewidth": 0}
        axes.plot(folds["n_features"], folds["value"], "o", label="each held-out fold", **dots)
    if estimate is not None:
        middle, lower, upper = estimate
        axes.axhspan(lower, upper, color=canvas.BLUE, alpha=0.12, linewidth=0)
        axes.axhline(middle, color=canvas.BLUE, label=f"held-out cases, {with_interval(*estimate)}")
    axes.axhline(0.5, color=canvas.INK, linewidth=0.8, linestyle=":", label="no discrimination (0.5)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.set(xlabel="Number of features, k", ylabel=title)
    low, high = axes.get_ylim()
    axes.set(ylim=(max(0.0, min(low, 0.45)), min(1.0, max(high, 0.7))), xlim=(0, None))
    figure.legend(loc="outside upper left", ncols=2)
    return figure


#: Rows of the tables here; the CSV files hold more.
_MOST = 5
#: Where leaving out one patient moves a figure by more than this share of its interval's half width, it is named.
_MOVES = 0.5
#: A coefficient that one patient moves by more standard errors is that patient's.
_FAR = 1.0
#: χ² with one degree of freedom at p = 0.05.
_CHI2 = 3.841


def influence(models: ModelFolder) -> list[Block]:
    """The headline figures without the patient that changes each most; a warning where one patient decides."""
    rows = models.primary_rows("influence")
    if rows is None or rows["without"].isna().all():
        return []
    first = rows[rows["without"].notna()].drop_duplicates(["measure", "horizon_days"])
    shown = [
        (_title(r.measure, r.horizon_days), number(r.value, 3), named(r.patient_id), number(r.without, 3))
        for r in records(first)
    ]
    table = Table(
        "Influence: held-out figures without the one patient that changes each most; predictions are not recomputed. "
        "Up to a hundred patients, those with the most extreme predictions, were left out in turn; all in "
        "models/influence.csv.",
        ("Figure", "All patients", "Without patient", "Figure without"),
        "lnln",
        [Rows("", shown)],
    )
    moved = [said for r in records(first) if (said := _decides(models, r))]
    return [*titled("Influence of single patients", table), *(Text(said, "warning") for said in moved)]


def _title(measure: str, horizon: float) -> str:
    if measure.startswith("added_to_"):
        return f"χ² added to {measure.removeprefix('added_to_').replace('_and_', ' and ')}"
    title = describe(measure).title
    return title if np.isnan(horizon) else f"{title}, {span(horizon)}"


def _decides(models: ModelFolder, row: pd.Series) -> str:
    """That one patient decides a figure; empty where none does."""
    if row.measure.startswith("added_to_"):
        if (row.value > _CHI2) == (row.without > _CHI2):
            return ""
    else:
        table = models.measure(row.measure)
        own = None if table is None else table[table["procedure"] == models.primary]
        if own is not None and not np.isnan(row.horizon_days):
            own = own[own["horizon_days"] == row.horizon_days]
        if own is None or own.empty:
            return ""
        half_width = float(own["upper"].iloc[0] - own["lower"].iloc[0]) / 2
        if not abs(row.without - row.value) > _MOVES * half_width:
            return ""
    return (
        f"{_title(row.measure, row.horizon_days)} depends on one patient: {number(row.value, 3)}, but "
        f"{number(row.without, 3)} without {named(row.patient_id)}. Check this patient's data."
    )


def dfbeta(models: ModelFolder) -> Table | None:
    """The coefficients of the final model that one patient changes most."""
    table = models.table("dfbeta")
    if table is None:
        return None
    far = int((table["dfbetas"].abs() > _FAR).sum())
    told = f"{far if far < len(table) else f'{far} or more'} beyond {_FAR:g}." if far else f"None beyond {_FAR:g}."
    return Table(
        "Influence on coefficients: the change in a coefficient when the patient is included, per standard deviation "
        f"(dfbeta) and in standard errors (dfbetas); the {min(_MOST, len(table))} largest, more in "
        f"models/dfbeta.csv. {told}",
        ("Feature", "Patient", "dfbeta", "dfbetas"),
        "llnn",
        [
            Rows(
                "",
                [
                    (r.feature, named(r.patient_id), number(r.dfbeta, 3), number(r.dfbetas))
                    for r in records(table[:_MOST])
                ],
            )
        ],
    )
