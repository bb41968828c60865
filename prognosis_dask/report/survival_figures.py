"""Figures of a survival model's honest validation: survival by risk group, AUC(t), calibration, net benefit."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prognosis_dask.arrays import FloatArray, IntArray
from prognosis_dask.report import canvas
from prognosis_dask.report.canvas import svg
from prognosis_dask.report.words import clipped


@dataclass(frozen=True)
class TimeAxis:
    """The unit in which a follow-up is shown, and where its ticks lie (in that unit)."""

    unit: str
    days: float
    ticks: FloatArray


def time_axis(longest_days: float) -> TimeAxis:
    """Years, months or days: the largest unit that gives at least three ticks; at most eight ticks.

    >>> axis = time_axis(1600.0)
    >>> axis.unit, axis.ticks.tolist()
    ('years', [0.0, 1.0, 2.0, 3.0, 4.0])
    """
    for unit, days in (("years", 365.25), ("months", 365.25 / 12), ("days", 1.0)):
        longest = longest_days / days
        if longest >= 3 or unit == "days":
            break
    steps = (1, 2, 3, 6, 12) if unit != "days" else (1, 2, 5, 10, 20)
    step = next((s for s in steps if longest / s <= 7.5), longest / 6)
    return TimeAxis(unit, days, np.arange(0, longest + 1e-9, step, dtype=float))


@dataclass(frozen=True)
class Curve:
    """A Kaplan-Meier curve of one group; one row of ``steps`` per distinct time.

    Attributes
    ----------
    name
        The group's.
    steps
        Columns ``time_days``, ``survival``, ``lower``, ``upper`` and ``at_risk`` (followed up to that time or beyond).
    """

    name: str
    steps: pd.DataFrame

    @property
    def cases(self) -> int:
        """Cases of the group."""
        return int(self.steps["at_risk"].iloc[0])

    @property
    def events(self) -> int:
        """Cases with the event, from the steps' heights."""
        survival = self.steps["survival"].to_numpy(dtype=float)
        before = np.concatenate([[1.0], survival[:-1]])
        share = np.divide(before - survival, before, out=np.zeros_like(before), where=before > 0)
        return int(np.rint(share * self.steps["at_risk"].to_numpy(dtype=float)).sum())

    def at_risk(self, at_days: FloatArray) -> IntArray:
        """How many are still followed, and without an event, just before each of the given times."""
        times, counts = self.steps["time_days"].to_numpy(), self.steps["at_risk"].to_numpy()
        place = np.searchsorted(times, at_days, side="left")
        return np.where(place < len(times), counts[np.minimum(place, len(times) - 1)], 0).astype(np.int64)

    def censored(self) -> pd.DataFrame:
        """The steps at which somebody was censored: more left than had the event."""
        survival, at_risk = (self.steps[c].to_numpy(dtype=float) for c in ("survival", "at_risk"))
        before = np.concatenate([[1.0], survival[:-1]])
        share = np.divide(before - survival, before, out=np.zeros_like(before), where=before > 0)
        lost = at_risk - np.concatenate([at_risk[1:], [0.0]]) - np.rint(share * at_risk)
        chosen: pd.DataFrame = self.steps[(lost > 0.5) & (self.steps["time_days"] > 0).to_numpy()]
        return chosen


@svg
def kaplan_meier(curves: Sequence[Curve], test: str | None) -> Figure:
    """Kaplan-Meier curves with their bands, censoring ticks and the numbers at risk.

    Parameters
    ----------
    curves
        In the order of the legend.
    test
        What the legend is headed with, the log-rank test's outcome for instance.
    """
    longest = max(float(curve.steps["time_days"].iloc[-1]) for curve in curves)
    axis = time_axis(longest)
    table_height = 0.3 + 0.18 * len(curves)
    figure = canvas.new_figure(canvas.FULL_WIDTH, 3.8 + table_height)
    axes, table = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3.2, table_height]})
    for curve, colour in zip(curves, itertools.cycle(canvas.GROUP_COLOURS), strict=False):
        _curve(axes, curve, axis, colour)
    longest /= axis.days
    axes.set(xlabel=f"Time ({axis.unit})", ylabel="Survival (%)", ylim=(0, 103))
    axes.set(xlim=(-0.02 * longest, 1.02 * longest))
    axes.set_xticks(axis.ticks)
    axes.set_yticks(np.arange(0, 101, 25))
    axes.tick_params(axis="x", labelbottom=True)
    canvas.light_grid(axes, "y")
    axes.legend(loc="upper right", title=test, title_fontsize=8, alignment="left")
    _risk_table(table, axis, curves)
    return figure


def _curve(axes: Axes, curve: Curve, axis: TimeAxis, colour: str) -> None:
    steps = curve.steps
    time = steps["time_days"] / axis.days
    label = f"{curve.name} risk (n = {curve.cases}, events = {curve.events})"
    axes.step(time, 100 * steps["survival"], where="post", color=colour, label=label)
    axes.fill_between(
        time, 100 * steps["lower"], 100 * steps["upper"], step="post", color=colour, alpha=0.15, linewidth=0
    )
    lost = curve.censored()
    axes.plot(lost["time_days"] / axis.days, 100 * lost["survival"], "|", color=colour, markersize=6, markeredgewidth=1)


def _risk_table(axes: Axes, axis: TimeAxis, curves: Sequence[Curve]) -> None:
    axes.set(ylim=(len(curves) - 0.4, -1.2))
    axes.set_yticks(range(-1, len(curves)), ["Number at risk", *(curve.name for curve in curves)])
    axes.tick_params(length=0, labelbottom=False)
    axes.tick_params(axis="y", pad=10)
    axes.spines[:].set_visible(False)
    axes.get_yticklabels()[0].set_fontweight("bold")
    for row, (curve, colour) in enumerate(zip(curves, itertools.cycle(canvas.GROUP_COLOURS), strict=False)):
        axes.get_yticklabels()[row + 1].set_color(colour)
        for tick, count in zip(axis.ticks, curve.at_risk(axis.ticks * axis.days), strict=True):
            axes.text(tick, row, str(count), ha="center", va="center", fontsize=8)


@svg
def auc_over_time(table: pd.DataFrame, procedures: Sequence[str]) -> Figure:
    """AUC(t) of each procedure, the interval of the first as a band."""
    figure = canvas.new_figure(canvas.FULL_WIDTH, 3.2)
    axes = figure.subplots()
    axis = time_axis(float(table["time_days"].max()))
    axes.axhline(0.5, color=canvas.INK, linewidth=0.8, linestyle=":")
    for i, (name, (colour, dashes)) in enumerate(zip(procedures, canvas.LINES, strict=False)):
        part = table[table["procedure"] == name].sort_values("time_days")
        time = part["time_days"] / axis.days
        if i == 0:
            axes.fill_between(time, part["lower"], part["upper"], color=colour, alpha=0.15, linewidth=0)
        axes.plot(time, part["auc"], color=colour, linestyle=dashes, label=clipped(name), zorder=3 - 0.1 * i)
    low = min(float(table["auc"].min()), float(table[table["procedure"] == procedures[0]]["lower"].min()))
    axes.set(xlabel=f"Time t ({axis.unit})", ylabel="AUC(t)", xlim=(0, None), ylim=(max(0, min(low, 0.4)), 1))
    axes.set_xticks(axis.ticks)
    canvas.light_grid(axes, "y")
    figure.legend(loc="outside upper left", ncols=3)
    return figure


@svg
def calibration(panels: Sequence[tuple[str, pd.DataFrame]], what: str) -> Figure:
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
        _calibration_panel(axes, part)
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


def _calibration_panel(axes: Axes, part: pd.DataFrame) -> None:
    axes.plot([0, 1], [0, 1], color=canvas.INK, linewidth=0.8, linestyle=":")
    grouped = part["kind"].str.startswith(("group", "decile")).to_numpy(dtype=bool)
    smooth = part[~grouped].sort_values("predicted")
    if smooth["lower"].notna().any():
        band: dict[str, Any] = {"color": canvas.BLUE, "alpha": 0.15, "linewidth": 0}
        axes.fill_between(smooth["predicted"], smooth["lower"], smooth["upper"], **band)
    axes.plot(smooth["predicted"], smooth["observed"], color=canvas.BLUE)
    groups = part[grouped]
    axes.vlines(
        groups["predicted"], groups["lower"], groups["upper"], color=canvas.VERMILION, linewidth=1, clip_on=False
    )
    point: dict[str, Any] = {"color": canvas.VERMILION, "markersize": 4, "clip_on": False, "zorder": 3}
    axes.plot(groups["predicted"], groups["observed"], "o", **point)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ticks = [0, 0.25, 0.5, 0.75, 1]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.set_yticks(ticks, [f"{t:g}" for t in ticks])


@svg
def net_benefit(panels: Sequence[tuple[str, pd.DataFrame]], procedures: Sequence[str]) -> Figure:
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
        _decision_panel(axes, part, procedures)
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


def _decision_panel(axes: Axes, part: pd.DataFrame, procedures: Sequence[str]) -> None:
    axes.axhline(0, color=canvas.INK, linewidth=0.8, label="treat none")
    everyone = part.drop_duplicates("threshold").sort_values("threshold")
    axes.plot(everyone["threshold"], everyone["treat_all"], color=canvas.GREY, linewidth=1, label="treat all")
    for i, (name, (colour, dashes)) in enumerate(zip(procedures, canvas.LINES, strict=False)):
        own = part[part["procedure"] == name].sort_values("threshold")
        line = {"color": colour, "linestyle": dashes, "label": clipped(name), "zorder": 3 - 0.1 * i}
        axes.plot(own["threshold"], own["net_benefit"], **line)
    axes.set(xlim=(0, 1))
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    canvas.light_grid(axes, "y")
