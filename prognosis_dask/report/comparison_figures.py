"""Figures that set side by side: procedures, honest and in-sample figures, chosen and random features, folds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from prognosis_dask.report import canvas
from prognosis_dask.report.canvas import svg
from prognosis_dask.report.records import records
from prognosis_dask.report.words import clipped, number, short_name, with_interval

#: Features in the figures of one row each; the data beside them hold them all.
MAX_ROWS = 30

IN_SAMPLE_LABEL = "in-sample, chosen features (optimistic)"


@svg
def performance(rows: pd.DataFrame, title: str, no_skill: float | None) -> Figure:
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
    axes.set_yticks(place, [clipped(name, 30) for name in rows["procedure"]])
    axes.tick_params(axis="y", length=0)
    axes.set(ylim=(-0.6, len(rows) - 0.4), xlabel=title)
    axes.spines["left"].set_visible(False)
    canvas.light_grid(axes, "x")
    for y, row in zip(place, records(rows), strict=True):
        text = with_interval(row.value, row.lower, row.upper)
        axes.annotate(
            text, (1.01, y), xycoords=("axes fraction", "data"), va="center", fontsize=7.5, annotation_clip=False
        )
    figure.legend(loc="outside upper left", ncols=2)
    return figure


@svg
def differences(rows: pd.DataFrame, title: str) -> Figure:
    """Differences of two procedures on the same folds, with their intervals."""
    place = np.arange(len(rows))[::-1]
    figure = canvas.new_figure(canvas.FULL_WIDTH, 1.0 + (0.32 if len(rows) < 8 else 0.2) * len(rows))
    axes = figure.subplots()
    axes.axvline(0, color=canvas.INK, linewidth=0.8, linestyle=":")
    axes.hlines(place, rows["lower"], rows["upper"], color=canvas.BLUE, linewidth=1.4)
    axes.plot(rows["difference"], place, "s", color=canvas.BLUE, markersize=5)
    names = [f"{clipped(row.a, 24)} − {clipped(row.b, 24)}" for row in records(rows)]
    axes.set_yticks(place, names)
    axes.tick_params(axis="y", length=0, labelsize=7.5)
    axes.set(ylim=(-0.6, len(rows) - 0.4), xlabel=f"Difference in {title} (95 % interval)")
    axes.spines["left"].set_visible(False)
    canvas.light_grid(axes, "x")
    return figure


@svg
def in_sample_curve(
    curve: pd.DataFrame, folds: pd.DataFrame | None, estimate: tuple[float, float, float] | None, title: str
) -> Figure:
    """A figure over the number of features: in-sample, what random features give in-sample, and held-out.

    Parameters
    ----------
    curve
        Columns ``k``, ``in_sample`` and, where they were drawn, ``random_median``, ``random_lower``,
        ``random_upper``.
    folds
        Columns ``n_features`` and ``value``: one row per held-out fold.
    estimate
        The held-out figure and its interval's two ends.
    title
        Its name.
    """
    figure = canvas.new_figure(canvas.FULL_WIDTH, 3.7)
    axes = figure.subplots()
    if "random_median" in curve:
        band: dict[str, Any] = {
            "color": canvas.ORANGE,
            "alpha": 0.3,
            "linewidth": 0,
            "label": "in-sample, random features: range",
        }
        axes.fill_between(curve["k"], curve["random_lower"], curve["random_upper"], **band)
        axes.plot(
            curve["k"], curve["random_median"], color=canvas.VERMILION, label="in-sample, random features: median"
        )
    axes.plot(curve["k"], curve["in_sample"], "--", color=canvas.INK, label=IN_SAMPLE_LABEL)
    if folds is not None:
        dots: dict[str, Any] = {
            "color": canvas.BLUE,
            "alpha": 0.35,
            "markersize": 4,
            "markeredgewidth": 0,
            "label": "each held-out fold",
        }
        axes.plot(folds["n_features"], folds["value"], "o", **dots)
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


@svg
def selection_stability(rows: pd.DataFrame) -> Figure:
    """In which share of the outer folds each feature was chosen; the most frequent first."""
    shown = rows.head(MAX_ROWS).iloc[::-1]
    figure = canvas.new_figure(canvas.FULL_WIDTH, 0.8 + 0.17 * len(shown))
    axes = figure.subplots()
    axes.barh(np.arange(len(shown)), 100 * shown["share"], color=canvas.BLUE, height=0.65)
    axes.set_yticks(np.arange(len(shown)), [clipped(short_name(name)) for name in shown["feature"]])
    axes.tick_params(axis="y", length=0, labelsize=7.5)
    axes.set(xlabel="Outer folds that chose the feature (%)", xlim=(0, 100), ylim=(-0.6, len(shown) - 0.4))
    canvas.light_grid(axes, "x")
    return figure


@svg
def correlation_with(rows: pd.DataFrame, others: Sequence[str]) -> Figure:
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
