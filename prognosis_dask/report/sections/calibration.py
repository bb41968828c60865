"""Validation: observed against predicted risk, and the net benefit of deciding by it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prognosis_dask.modelling.folder import ModelFolder
from prognosis_dask.report import canvas
from prognosis_dask.report.canvas import svg
from prognosis_dask.report.content import Picture
from prognosis_dask.report.sections.discrimination import HELD_OUT, shown_procedures
from prognosis_dask.report.words import clipped, interval, listed, span

#: Panels of calibration curves that a page has room for.
_MOST_PANELS = 6


def calibration(models: ModelFolder) -> Picture | None:
    """Observed against predicted risk of the final procedure."""
    part = models.primary_rows("calibration")
    if part is None:
        return None
    panels = _panels(models, part)[:_MOST_PANELS]
    what = "probability" if models.classes else "risk of the event"
    kaplan = "observed share" if models.classes else "Kaplan-Meier’s estimate"
    points = f"Points: groups of equal size by predicted {what}, against their {kaplan} with its 95 % interval; line: "
    if not (part["kind"] == "group").any():  # where cases enter late
        points = "Line: a Cox model of the prediction, "
    return Picture(
        "calibration",
        _draw_calibration(panels, what),
        part,
        f"Calibration of {models.primary}: observed against predicted {what}, a panel each for "
        f"{listed([title for title, _ in panels])}.",
        f"Calibration of “{models.primary}”. {HELD_OUT} {points}smoothed. On the dotted diagonal predictions are right."
        f"{of_held_out(models)}",
    )


def _panels(models: ModelFolder, part: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Rows by horizon or class, with their title."""
    if models.classes:
        return [(f"class {name}", rows) for name, rows in part.groupby("class", sort=False)]
    horizons = sorted(part["horizon_days"].unique().tolist())
    return [(span(days), part[part["horizon_days"] == days]) for days in horizons]


def of_held_out(models: ModelFolder) -> str:
    """Between what nine in ten held-out cases of the final procedure are predicted; empty where it is not known."""
    own = models.primary_rows("predictions")
    if own is None:
        return ""
    found = []
    for name in own.columns:
        kind, _, key = str(name).partition("_")
        values = own[name].to_numpy(dtype=float) if kind in ("survival", "probability") else np.zeros(0)
        if len(values) and np.isfinite(values).all():
            lower, upper = np.percentile(1 - values if kind == "survival" else values, [5, 95])
            where = f"at {span(float(key))}" if kind == "survival" else f"for class {key}"
            found.append(f"{interval(lower, upper)} {where}")
    if len(found) == 2 and models.classes:
        found = found[1:]
    return f" Nine in ten predictions lie from {listed(found)}." if found else ""


@svg
def _draw_calibration(panels: Sequence[tuple[str, pd.DataFrame]], what: str) -> Figure:
    """Observed against predicted, a panel per horizon or class.

    Parameters
    ----------
    panels
        Title and rows; columns ``kind`` (``group`` for points with an interval, else the smooth curve), ``predicted``,
        ``observed``, ``lower``, ``upper``.
    what
        The risk's name in the axes' labels.
    """
    rows, columns = _grid(len(panels))
    width = canvas.FULL_WIDTH if columns > 1 else 3.7
    figure = canvas.new_figure(width, (width / columns + 0.15 * columns - 0.05) * rows)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes, (title, part) in zip(grid.ravel(), panels, strict=False):
        _draw_calibration_panel(axes, part)
        axes.set_title(title)
    for axes in grid.ravel()[len(panels) :]:
        axes.set_axis_off()
    for axes in grid[:, 0]:
        axes.set_ylabel(f"Observed {what}")
    figure.supxlabel(f"Predicted {what}", fontsize=9)
    return figure


def _grid(panels: int) -> tuple[int, int]:
    """Rows and columns for so many panels."""
    columns = 2 if panels == 4 else min(3, panels)
    return -(-panels // columns), columns


def _draw_calibration_panel(axes: Axes, part: pd.DataFrame) -> None:
    axes.plot([0, 1], [0, 1], color=canvas.INK, linewidth=0.8, linestyle=":")
    grouped = (part["kind"] == "group").to_numpy()
    smooth = part[~grouped].sort_values("predicted")
    if smooth["lower"].notna().any():
        band: dict[str, Any] = {"color": canvas.BLUE, "alpha": 0.15, "linewidth": 0}
        axes.fill_between(smooth["predicted"], smooth["lower"], smooth["upper"], **band)
    axes.plot(smooth["predicted"], smooth["observed"], color=canvas.BLUE)
    groups = part[grouped]
    if len(groups):
        axes.vlines(
            groups["predicted"], groups["lower"], groups["upper"], color=canvas.VERMILION, linewidth=1, clip_on=False
        )
        point: dict[str, Any] = {"color": canvas.VERMILION, "markersize": 4, "clip_on": False, "zorder": 3}
        axes.plot(groups["predicted"], groups["observed"], "o", **point)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ticks = [0, 0.25, 0.5, 0.75, 1]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.set_yticks(ticks, [f"{t:g}" for t in ticks])


def net_benefit(models: ModelFolder) -> Picture | None:
    """Decision curves of the procedures."""
    table = models.table("net_benefit")
    if table is None:
        return None
    shown, note = shown_procedures(models, table)
    panels = _panels(models, table[table["procedure"].isin(shown)])[:_MOST_PANELS]
    return Picture(
        "net_benefit",
        _draw_net_benefit(panels, shown),
        table,
        f"Decision curves of {listed(shown)} with treat all and treat none over threshold probabilities.",
        "Decision curves (net benefit, Vickers and Elkin 2006; for censored outcomes Vickers et al. 2008): true "
        "positives less false positives weighted by the odds of the threshold, per case. A procedure is of use at a "
        "threshold where its curve lies above both “treat all” and “treat none”. Drawn where thresholds lie among the "
        f"predictions; band: 95 % interval of “{shown[0]}”. {HELD_OUT}{note}",
    )


@svg
def _draw_net_benefit(panels: Sequence[tuple[str, pd.DataFrame]], procedures: Sequence[str]) -> Figure:
    """Decision curves: a panel per horizon or class, with the benefit of treating all and none.

    Parameters
    ----------
    panels
        Title and rows; columns ``procedure``, ``threshold``, ``net_benefit``, ``treat_all``.
    procedures
        Those that are drawn.
    """
    rows, columns = _grid(len(panels))
    figure = canvas.new_figure(canvas.FULL_WIDTH, 2.3 * rows + 1)
    every = figure.subplots(rows, columns, squeeze=False, sharey=True)
    grid = every.ravel()
    for axes, (title, part) in zip(grid, panels, strict=False):
        _draw_decision_panel(axes, part, procedures)
        axes.set_title(title)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    for axes in every[:, 0]:
        axes.set_ylabel("Net benefit")
    top = max(0.01, *(float(part[["net_benefit", "treat_all"]].max().max()) for _, part in panels))
    grid[0].set_ylim(-0.12 * top, 1.08 * top)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3)
    figure.supxlabel("Threshold probability", fontsize=9)
    return figure


def _draw_decision_panel(axes: Axes, part: pd.DataFrame, procedures: Sequence[str]) -> None:
    axes.axhline(0, color=canvas.INK, linewidth=0.8, label="treat none")
    everyone = part.drop_duplicates("threshold").sort_values("threshold")
    axes.plot(everyone["threshold"], everyone["treat_all"], color=canvas.GREY, linewidth=1, label="treat all")
    first = part[part["procedure"] == procedures[0]].sort_values("threshold")
    band: dict[str, Any] = {"color": canvas.LINES[0][0], "alpha": 0.15, "linewidth": 0}
    axes.fill_between(first["threshold"], first["lower"], first["upper"], **band)
    for i, (name, (colour, dashes)) in enumerate(zip(procedures, canvas.LINES, strict=False)):
        own = part[part["procedure"] == name].sort_values("threshold")
        line = {"color": colour, "linestyle": dashes, "label": clipped(name), "zorder": 3 - 0.1 * i}
        axes.plot(own["threshold"], own["net_benefit"], **line)
    axes.set(xlim=_deciding(part))
    canvas.light_grid(axes, "y")


def _deciding(part: pd.DataFrame) -> tuple[float, float]:
    """From where to where thresholds decide: some cases, and not all, are treated by one of the procedures."""
    all_alike = np.isclose(part["net_benefit"], part["treat_all"], atol=1e-9) | (part["net_benefit"] == 0)
    deciding = part["threshold"][~all_alike]
    if deciding.empty:
        return 0.0, 1.0
    return max(0.0, float(deciding.min()) - 0.04), min(1.0, float(deciding.max()) + 0.04)
