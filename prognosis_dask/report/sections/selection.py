"""Final model: how stably its features were chosen, and what they say beyond size and stage."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from prognosis_dask.errors import count
from prognosis_dask.modelling.folder import ModelFolder
from prognosis_dask.report import canvas
from prognosis_dask.report.canvas import svg
from prognosis_dask.report.content import Picture, Rows, Table, not_written
from prognosis_dask.report.read import records
from prognosis_dask.report.words import clipped, listed, number, p_number, short_name, with_interval

#: Features in the figures of one row each; the data beside them hold them all.
MAX_ROWS = 30


def stability(models: ModelFolder) -> Picture | None:
    """How often the outer folds chose each feature."""
    rows = models.primary_rows("selection")
    if rows is None or _takes_all(models, rows):
        return None
    rows = rows.sort_values("share", ascending=False, kind="stable")
    always, shown = int((rows["share"] >= 0.8).sum()), min(len(rows), MAX_ROWS)
    which = f"the {shown} most frequent of {len(rows)}" if shown < len(rows) else "all that were ever chosen"
    return Picture(
        "selection_stability",
        _draw_stability(rows),
        rows,
        f"Share of the outer folds that chose each feature; 80 % or more chose {always} of {len(rows)}.",
        f"Selection stability of “{models.primary}”: in which share of the outer folds each feature was chosen "
        f"({which}).{_forced(models)} 80 % of the folds or more chose {always} of "
        f"{count(len(rows), 'feature')}; what a few folds choose is not a finding.",
    )


def _takes_all(models: ModelFolder, rows: pd.DataFrame) -> bool:
    """Whether the procedure has no selector, and every fold's model all features: then there is no figure to draw."""
    selector = (models.procedures.get(models.primary) or {}).get("selector")
    return selector == "" and bool((rows["share"] == 1).all())


def no_selection(models: ModelFolder) -> str:
    """Why there is no figure of the selection."""
    rows = models.primary_rows("selection")
    if rows is None or not _takes_all(models, rows):
        return not_written("selection.csv")
    return (
        f"“{models.primary}” does not choose: all {count(len(rows), 'feature')} are in the model of every fold, by "
        "decision and not because they were found."
    )


def _forced(models: ModelFolder) -> str:
    """The families that selection does not choose from."""
    forced = (models.procedures.get(models.primary) or {}).get("forced") or ()
    return f" Always in, by decision and not by selection: {listed(list(forced))}." if forced else ""


@svg
def _draw_stability(rows: pd.DataFrame) -> Figure:
    """In which share of the outer folds each feature was chosen; the most frequent first."""
    shown = rows.head(MAX_ROWS).iloc[::-1]
    figure = canvas.new_figure(canvas.FULL_WIDTH, 0.8 + 0.17 * len(shown))
    axes = figure.subplots()
    places = np.arange(len(shown))
    axes.barh(places, 100 * shown["share"], color=canvas.BLUE, height=0.65)
    canvas.named_rows(axes, places, (clipped(short_name(name)) for name in shown["feature"]), 7.5)
    axes.set(xlabel="Outer folds that chose the feature (%)", xlim=(0, 100))
    return figure


def correlation(models: ModelFolder) -> Picture | None:
    """Pearson's correlation of the selected features with volume and stage."""
    table = models.table("correlation")
    if table is None:
        return None
    others = list(dict.fromkeys(table["with"]))
    strong = {other: int((table[table["with"] == other]["pearson"].abs() > 0.7).sum()) for other in others}
    told = ", ".join(f"{n} with {other}" for other, n in strong.items() if n) or "none"
    features = table["feature"].nunique()
    shown = min(features, MAX_ROWS)
    which = f"the {shown} with the strongest of {features}" if shown < features else "all"
    strongest = table.assign(r=table["pearson"].abs()).groupby("feature")["r"].max().sort_values(ascending=False)
    table = table.set_index("feature").loc[strongest.index].reset_index()
    return Picture(
        "correlation_with_size",
        _draw_correlation(table, others),
        table,
        f"Pearson's correlation of {count(features, 'selected feature')} with {listed(others)}; beyond 0.7: {told}.",
        f"Pearson correlation of the selected features ({which}) with {listed(others)}, with 95 % intervals. Beyond "
        f"|r| = 0.7, and so saying little that size or stage does not: {told}.",
    )


@svg
def _draw_correlation(rows: pd.DataFrame, others: Sequence[str]) -> Figure:
    """Pearson's correlation of features with size and stage, a panel each.

    Parameters
    ----------
    rows
        Columns ``feature``, ``with``, ``pearson``, ``lower``, ``upper``.
    others
        The values of ``with``, a panel each.
    """
    features = list(dict.fromkeys(rows["feature"]))[:MAX_ROWS]
    figure = canvas.new_figure(canvas.FULL_WIDTH, 1.1 + 0.17 * len(features))
    panels = figure.subplots(1, len(others), squeeze=False, sharey=True)[0]
    place = {name: y for y, name in enumerate(reversed(features))}
    ticks = [-1, -0.5, 0, 0.5, 1] if len(others) < 3 else [-1, 0, 1]
    for axes, other in zip(panels, others, strict=True):
        part = rows[(rows["with"] == other) & rows["feature"].isin(features)]
        y = [place[name] for name in part["feature"]]
        axes.axvline(0, color=canvas.INK, linewidth=0.8, linestyle=":")
        axes.hlines(y, part["lower"], part["upper"], color=canvas.BLUE, linewidth=1.2)
        axes.plot(part["pearson"], y, "o", color=canvas.BLUE, markersize=3.5)
        axes.set(xlim=(-1.05, 1.05))
        axes.set_title(clipped(other, 40 // len(others) + 8), fontsize=9 if len(others) < 4 else 7)
        axes.set_xticks(ticks, [number(t, 1 if t % 1 else 0) for t in ticks])
        axes.tick_params(axis="y", length=0, labelsize=7.5)
        canvas.light_grid(axes, "x")
    panels[0].set_yticks(list(place.values()), [clipped(short_name(name)) for name in place])
    panels[0].set_ylim(-0.7, len(features) - 0.3)
    figure.supxlabel("Pearson’s r", fontsize=9)
    return figure


def added_value(models: ModelFolder) -> Table | None:
    """What features add to volume and stage."""
    table = models.table("added")
    if table is None:
        return None
    known = {"volume", "stage", "volume + stage", models.primary}
    shown = table[table["base"].isin(known) & table["added"].isin(known)]
    shown = table if shown.empty else shown
    over_patients = "Wald’s test with its variance over patients, who have several cases"
    tests = over_patients if any(str(test).startswith("Wald") for test in shown["test"]) else "likelihood-ratio test"
    scatter = (
        " Such a score’s χ² and p are corrected for how much it scatters between random halves of the patients."
        if any("delete-half" in str(test) for test in shown["test"])
        else ""
    )
    others = " Other procedures: models/added.csv." if len(shown) < len(table) else ""
    rows = [
        (r.base, r.added, number(r.statistic), number(r.df, 0), p_number(r.p),
         with_interval(r.delta_c, r.lower, r.upper, 3))
        for r in records(shown)
    ]  # fmt: skip
    return Table(
        f"What is added to a model of what is known without it: {tests}, and the change in Harrell’s C with its 95 % "
        f"interval. A procedure stands for itself by its held-out risk score.{scatter}{others}",
        ("Known", "Added", "χ²", "df", "p", "Change in C"),
        "llnnnn",
        [Rows("", rows)],
    )
