"""Validation: survival of the held-out risk groups."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prognosis_dask.arrays import FloatArray, IntArray
from prognosis_dask.errors import count
from prognosis_dask.modelling.folder import ModelFolder
from prognosis_dask.report import canvas
from prognosis_dask.report.canvas import TimeAxis, svg, time_axis
from prognosis_dask.report.content import Picture
from prognosis_dask.report.read import records
from prognosis_dask.report.sections.discrimination import HELD_OUT
from prognosis_dask.report.words import p_text, with_interval

#: Fewer at risk make a band that says little.
_FEW_AT_RISK = 10


@dataclass(frozen=True)
class Curve:
    """A Kaplan-Meier curve of one group; one row of ``steps`` per distinct time.

    Attributes
    ----------
    name
        The group's.
    steps
        Columns ``time_days``, ``survival``, ``lower``, ``upper`` and ``at_risk`` (followed up to that time or beyond);
        where cases enter late, ``entered`` and ``events`` at that time; where events compete, ``events`` and
        ``competing``, and survival is freedom from the event.
    """

    name: str
    steps: pd.DataFrame

    @property
    def cases(self) -> int:
        """Cases of the group."""
        return int(self.steps["entered"].sum() if "entered" in self.steps else self.steps["at_risk"].iloc[0])

    @property
    def events(self) -> int:
        """Cases with the event."""
        return int(self._events().sum())

    def _events(self) -> FloatArray:
        """Cases with the event at each step, from its height where no column says it."""
        if "events" in self.steps:
            return self.steps["events"].to_numpy(dtype=float)
        survival, at_risk = (self.steps[c].to_numpy(dtype=float) for c in ("survival", "at_risk"))
        before = np.concatenate([[1.0], survival[:-1]])
        share = np.divide(before - survival, before, out=np.zeros_like(before), where=before > 0)
        return np.asarray(np.rint(share * at_risk))

    @property
    def shown_days(self) -> float:
        """Until when ten are at risk, or all of a smaller group: its band ends there, the axis with the last."""
        time, at_risk = (self.steps[name].to_numpy(dtype=float) for name in ("time_days", "at_risk"))
        many = at_risk >= _FEW_AT_RISK
        return float(time[many][-1] if many.any() else time[-1])

    def at_risk(self, at_days: FloatArray) -> IntArray:
        """How many are still followed, and without an event, just before each of the given times."""
        times, counts = self.steps["time_days"].to_numpy(), self.steps["at_risk"].to_numpy()
        place = np.searchsorted(times, at_days, side="left")
        return np.where(place < len(times), counts[np.minimum(place, len(times) - 1)], 0).astype(np.int64)

    def censored(self) -> pd.DataFrame:
        """The steps at which somebody was censored: more left than had the event."""
        at_risk = self.steps["at_risk"].to_numpy(dtype=float)
        entered = self.steps["entered"].to_numpy(dtype=float) if "entered" in self.steps else 0.0
        gone = self.steps["competing"].to_numpy(dtype=float) if "competing" in self.steps else 0.0
        lost = at_risk + entered - np.concatenate([at_risk[1:], [0.0]]) - self._events() - gone
        chosen: pd.DataFrame = self.steps[(lost > 0.5) & (self.steps["time_days"] > 0).to_numpy()]
        return chosen


def kaplan_meier(models: ModelFolder) -> Picture | None:
    """Survival of the held-out risk groups of the final procedure, the lowest risk first."""
    part = models.primary_rows("kaplan_meier")
    if part is None:
        return None
    curves = [Curve(str(name), rows.sort_values("time_days")) for name, rows in part.groupby("group", sort=False)]
    # the area under a curve says which group lives longer; names may be anything
    curves.sort(key=lambda curve: (_order(curve.name), -float(np.nanmean(curve.steps["survival"]))))
    test, competes = _tests(models), "competing" in part
    curve, estimate = (
        ("Freedom from the event", "Aalen-Johansen") if competes else ("Kaplan-Meier curves", "Kaplan-Meier")
    )
    counts = "; ".join(
        f"{curve.name} risk {count(curve.cases, 'case')}, {count(curve.events, 'event')}" for curve in curves
    )
    # Simon et al., Briefings in Bioinformatics 12 (2011) 203-214
    caution = "The p value is a rough guide: the folds’ models share cases, so the groups are not independent."
    return Picture(
        "kaplan_meier",
        _draw_kaplan_meier(curves, test or None),
        part,
        f"{curve} of the risk groups: {counts}." + (f" {test}." if test else ""),
        f"{estimate} estimate by risk group of “{models.primary}”. {HELD_OUT} The groups’ cut-off, too, comes from "
        f"training cases. Bands: 95 % confidence intervals (log-log), as long as {_FEW_AT_RISK} are at risk; the axis "
        f"ends with the last of them; ticks: censored cases."
        f"{f' {caution}' if test else ''}{_several_cases(models)}{_competing(models)}{_entered(models)}",
    )


def cumulative_incidence(models: ModelFolder) -> Picture | None:
    """Of the event and of competing ones in the whole cohort, where events compete."""
    table = models.table("incidence")
    if table is None:
        return None
    ends = ", ".join(
        f"{r.cause} {100 * r.incidence:.0f} %" for r in records(table.drop_duplicates("cause", keep="last"))
    )
    return Picture(
        "cumulative_incidence",
        _draw_incidence(table),
        table,
        f"Cumulative incidence of the event and of competing events; at the end of follow-up: {ends}.",
        "Cumulative incidence of the event and of competing events, all cases (Aalen-Johansen estimate); bands: 95 % "
        "confidence intervals (log-log). One less Kaplan-Meier’s estimate with competing events as censored would lie "
        "above the event’s curve.",
    )


@svg
def _draw_incidence(table: pd.DataFrame) -> Figure:
    axis = time_axis(float(table["time_days"].max()))
    figure = canvas.new_figure(canvas.FULL_WIDTH, 3.0)
    axes = figure.subplots()
    for (name, part), colour in zip(table.groupby("cause", sort=False), canvas.GROUP_COLOURS, strict=False):
        time = part["time_days"] / axis.days
        axes.step(time, 100 * part["incidence"], where="post", color=colour, label=str(name))
        axes.fill_between(
            time, 100 * part["lower"], 100 * part["upper"], step="post", color=colour, alpha=0.15, linewidth=0
        )
    axes.set(xlabel=f"Time ({axis.unit})", ylabel="Cumulative incidence (%)", ylim=(0, 103))
    axes.set_xticks(axis.ticks)
    canvas.light_grid(axes, "y")
    figure.legend(loc="outside upper left", ncols=3)
    return figure


def _several_cases(models: ModelFolder) -> str:
    cases, patients = (models.summary.get(name) for name in ("n_cases", "n_patients"))
    if cases == patients:
        return ""
    return (
        f" Counts are of cases, {cases} of {patients} patients; bands, hazard ratio’s interval and test have their "
        "variance over patients."
    )


def _competing(models: ModelFolder) -> str:
    if not models.summary.get("n_competing"):
        return ""
    return " Survival is freedom from the event while others compete: one less its cumulative incidence."


def _entered(models: ModelFolder) -> str:
    if "n_entered_late" not in models.summary:
        return ""
    return " Cases enter late: at risk are those that had entered by then."


def _order(name: str) -> int:
    return {"low": 0, "medium": 1, "intermediate": 1, "high": 2}.get(name.lower(), 1)


def _tests(models: ModelFolder) -> str:
    """Hazard ratio and log-rank test of the groups, as far as they are known."""
    ratio, test = (models.measure_of(name) for name in ("hazard_ratio_high_low", "log_rank_p"))
    said = []
    if ratio is not None and np.isfinite(ratio["value"]):
        said.append(f"hazard ratio {with_interval(ratio['value'], ratio['lower'], ratio['upper'])}")
    if test is not None and np.isfinite(test["value"]):
        which = "Gray’s test" if models.summary.get("n_competing") else "log-rank"
        said.append(f"{which} {p_text(float(test['value']))}")
    return ", ".join(said)


@svg
def _draw_kaplan_meier(curves: Sequence[Curve], test: str | None) -> Figure:
    """Kaplan-Meier curves with their bands, censoring ticks and the numbers at risk.

    Parameters
    ----------
    curves
        In the order of the legend.
    test
        What the legend is headed with, the log-rank test's outcome for instance.
    """
    longest = max(curve.shown_days for curve in curves)
    axis = time_axis(longest)
    table_height = 0.3 + 0.18 * len(curves)
    figure = canvas.new_figure(canvas.FULL_WIDTH, 3.8 + table_height)
    axes, table = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3.2, table_height]})
    for curve, colour in zip(curves, itertools.cycle(canvas.GROUP_COLOURS), strict=False):
        _draw_curve(axes, curve, axis, colour)
    longest /= axis.days
    axes.set(xlabel=f"Time ({axis.unit})", ylabel="Survival (%)", ylim=(0, 103))
    axes.set(xlim=(-0.02 * longest, 1.02 * longest))
    axes.set_xticks(axis.ticks)
    axes.set_yticks(np.arange(0, 101, 25))
    axes.tick_params(axis="x", labelbottom=True)
    canvas.light_grid(axes, "y")
    figure.legend(loc="outside upper left", ncols=3, title=test, title_fontsize=8, alignment="left")
    _draw_risk_table(table, axis, curves)
    return figure


def _draw_curve(axes: Axes, curve: Curve, axis: TimeAxis, colour: str) -> None:
    steps = curve.steps
    time = steps["time_days"] / axis.days
    label = f"{curve.name} risk (n = {curve.cases}, events = {curve.events})"
    axes.step(time, 100 * steps["survival"], where="post", color=colour, label=label)
    shown = steps[steps["time_days"] <= curve.shown_days]
    axes.fill_between(
        shown["time_days"] / axis.days,
        100 * shown["lower"],
        100 * shown["upper"],
        step="post",
        color=colour,
        alpha=0.15,
        linewidth=0,
    )
    lost = curve.censored()
    axes.plot(lost["time_days"] / axis.days, 100 * lost["survival"], "|", color=colour, markersize=6, markeredgewidth=1)


def _draw_risk_table(axes: Axes, axis: TimeAxis, curves: Sequence[Curve]) -> None:
    axes.set(ylim=(len(curves) - 0.4, -1.2))
    axes.set_yticks(range(-1, len(curves)), ["Number at risk", *(curve.name for curve in curves)])
    axes.tick_params(length=0, labelbottom=False)
    axes.tick_params(axis="y", pad=10)
    axes.spines[:].set_visible(False)
    axes.get_yticklabels()[0].set_fontweight("bold")
    for row, (curve, colour) in enumerate(zip(curves, itertools.cycle(canvas.GROUP_COLOURS), strict=False)):
        axes.get_yticklabels()[row + 1].set_color(colour)
        for tick, left in zip(axis.ticks, curve.at_risk(axis.ticks * axis.days), strict=True):
            axes.text(tick, row, str(left), ha="center", va="center", fontsize=8)
