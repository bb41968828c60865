"""Validation: curves of held-out cases: survival of risk groups, AUC over time, ROC; and the confusion matrix."""

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
from prognosis_dask.report.canvas import LINES, TimeAxis, svg, time_axis
from prognosis_dask.report.content import Picture
from prognosis_dask.report.read import records
from prognosis_dask.report.words import clipped, number, p_text, with_interval

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


HELD_OUT = "Every case was predicted by models that were fitted without it."


def shown_procedures(models: ModelFolder, table: pd.DataFrame) -> tuple[list[str], str]:
    """At most as many procedures as there are lines that can be told apart, the final one first."""
    known = set(table["procedure"])
    names = [name for name in models.names if name in known] or list(dict.fromkeys(table["procedure"]))
    left = len(names) - len(LINES)
    return names[: len(LINES)], f" Not drawn: {count(left, 'more procedure')}, see the data." if left > 0 else ""


def auc_over_time(models: ModelFolder) -> Picture | None:
    """AUC(t) of the procedures."""
    table = models.table("auc_t")
    if table is None or table["auc"].notna().sum() < 2:
        return None
    shown, note = shown_procedures(models, table)
    first = table[table["procedure"] == shown[0]]
    return Picture(
        "auc_t",
        _draw_auc_over_time(table[table["procedure"].isin(shown)], shown),
        table,
        f"Time-dependent AUC; {shown[0]}: {first['auc'].min():.2f} to {first['auc'].max():.2f} over the times shown.",
        "Cumulative/dynamic AUC(t): how well the risk score tells cases with the event by time t from those still "
        f"without it, weighted for censoring. {HELD_OUT} Band: 95 % interval of “{shown[0]}”. Dotted: guessing.{note}",
    )


@svg
def _draw_auc_over_time(table: pd.DataFrame, procedures: Sequence[str]) -> Figure:
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


def roc(models: ModelFolder) -> Picture | None:
    """ROC curves of every procedure, or of every class of the final one."""
    table = models.table("roc")
    if table is None:
        return None
    curves = _roc_curves(models, table)
    several = table["class"].nunique() > 1
    of = f" of “{models.primary}”, one class against the others" if several else ""
    return Picture(
        "roc",
        _draw_roc(curves),
        table,
        f"ROC curves: {'; '.join(label for label, _ in curves)}.",
        f"Receiver operating characteristic{of}, mean over the folds. {HELD_OUT} Numbers: area under the curve"
        f"{'' if several else ' with its 95 % interval'}; band: 95 % interval of the first curve. Dotted: guessing.",
    )


def _roc_curves(models: ModelFolder, table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    classes = list(dict.fromkeys(table["class"]))
    if len(classes) > 1:
        own = table[table["procedure"] == models.primary]
        parts = [(name, own[own["class"] == name].sort_values("false_positive_rate")) for name in classes[: len(LINES)]]
        # the mean curve's area is the mean of the folds'
        areas = [_area(part) for _, part in parts]
        return [(f"class {name}, {area:.2f}", part) for (name, part), area in zip(parts, areas, strict=True)]
    curves = []
    for name in shown_procedures(models, table)[0]:
        found = models.estimate(name)
        label = f"{name}, {with_interval(*found)}" if found else name
        curves.append((label, table[table["procedure"] == name]))
    return curves


def _area(curve: pd.DataFrame) -> float:
    """By trapezia."""
    x, y = (curve[name].to_numpy(dtype=float) for name in ("false_positive_rate", "true_positive_rate"))
    return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum())


@svg
def _draw_roc(curves: Sequence[tuple[str, pd.DataFrame]]) -> Figure:
    """ROC curves.

    Parameters
    ----------
    curves
        Label and rows with columns ``false_positive_rate``, ``true_positive_rate``, ``lower`` and ``upper``; the first
        one's interval is drawn.
    """
    figure = canvas.new_figure(4.0, 4.1 + 0.17 * len(curves))
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=canvas.INK, linewidth=0.8, linestyle=":")
    for i, ((label, part), (colour, dashes)) in enumerate(zip(curves, canvas.LINES, strict=False)):
        if i == 0:
            rate = part["false_positive_rate"]
            axes.fill_between(rate, part["lower"], part["upper"], color=colour, alpha=0.15, linewidth=0)
        line = {"color": colour, "linestyle": dashes, "label": clipped(label, 48), "zorder": 3 - 0.1 * i}
        axes.plot(part["false_positive_rate"], part["true_positive_rate"], **line)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.set(xlabel="1 − specificity (false positive rate)", ylabel="Sensitivity (true positive rate)")
    figure.legend(loc="outside upper left")
    return figure


def confusion(models: ModelFolder) -> Picture | None:
    """The confusion matrix of the final procedure."""
    part = models.primary_rows("confusion")
    if part is None:
        return None
    order = list(dict.fromkeys([*part["true"], *part["predicted"]]))
    counts = part.pivot_table(index="true", columns="predicted", values="cases", aggfunc="sum", fill_value=0)
    counts = counts.reindex(index=order, columns=order, fill_value=0)
    right = float(np.trace(counts.to_numpy(dtype=float)) / max(counts.to_numpy(dtype=float).sum(), 1e-12))
    return Picture(
        "confusion",
        _draw_confusion(counts),
        part,
        f"Confusion matrix of {models.primary}: {100 * right:.0f} % of the predictions are right.",
        f"Confusion matrix of “{models.primary}”: predictions of held-out cases (mean over the repeats), and their "
        "share of the true class (shaded).",
    )


@svg
def _draw_confusion(counts: pd.DataFrame) -> Figure:
    """Cases by true and predicted class; shaded by the share of the true class.

    Parameters
    ----------
    counts
        True classes as rows, predicted ones as columns.
    """
    values = counts.to_numpy(dtype=float)
    share = values / np.maximum(values.sum(axis=1, keepdims=True), 1e-12)
    figure = canvas.new_figure(1.6 + 0.9 * len(counts), 1.3 + 0.75 * len(counts))
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(*values.shape):
        colour = "white" if share[row, column] > 0.55 else canvas.INK
        text = (
            f"{number(values[row, column], 0 if values[row, column] % 1 == 0 else 1)}\n{100 * share[row, column]:.0f} %"
        )
        axes.text(column, row, text, ha="center", va="center", color=colour)
    axes.set_xticks(range(len(counts.columns)), [clipped(str(name), 14) for name in counts.columns])
    axes.set_yticks(range(len(counts)), [clipped(str(name), 14) for name in counts.index])
    axes.set(xlabel="Predicted", ylabel="True")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure
