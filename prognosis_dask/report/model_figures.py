"""Figures of the survival model: concordance, Kaplan-Meier curves, hazard ratios."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from prognosis_dask.report import canvas
from prognosis_dask.report.canvas import svg

FloatArray = npt.NDArray[np.float64]

#: Features in the forest plot; the table beside it holds them all.
MAX_FOREST_ROWS = 30

IN_SAMPLE_LABEL = "in-sample (as the reference study reports; optimistic)"


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


def number_at_risk(time_days: FloatArray, at_days: FloatArray) -> npt.NDArray[np.int64]:
    """How many are still followed, and without an event, just before each of the given times.

    Parameters
    ----------
    time_days
        Time to event or censoring, one per case.
    at_days
        The times asked for.
    """
    ordered = np.sort(np.asarray(time_days, dtype=float))
    return (ordered.size - np.searchsorted(ordered, at_days, side="left")).astype(np.int64)


@svg
def kaplan_meier(
    time_days: FloatArray, event: npt.NDArray[np.int64], group: Sequence[str], logrank_p: float | None
) -> Figure:
    """Kaplan-Meier curves with 95 % bands (log-log Greenwood), censoring ticks and the numbers at risk.

    The bands are lifelines' (exponential Greenwood; Kalbfleisch and Prentice, 2002, section 1.4).

    Parameters
    ----------
    time_days, event, group
        One per case; groups are drawn in the order of first appearance.
    logrank_p
        Two-sided p of the log-rank test between the groups, None where there is none.
    """
    names = list(dict.fromkeys(group))
    labels = np.asarray(group)
    axis = time_axis(float(np.max(time_days)))
    table_height = 0.3 + 0.18 * len(names)
    figure = canvas.new_figure(canvas.FULL_WIDTH, 3.8 + table_height)
    curves, table = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3.2, table_height]})
    for name, colour in zip(names, itertools.cycle(canvas.GROUP_COLOURS), strict=False):
        chosen = labels == name
        _curve(curves, time_days[chosen] / axis.days, event[chosen], name, colour)
    longest = float(np.max(time_days)) / axis.days
    curves.set(xlabel=f"Time ({axis.unit})", ylabel="Survival (%)", ylim=(0, 103))
    curves.set(xlim=(-0.02 * longest, 1.02 * longest))
    curves.set_xticks(axis.ticks)
    curves.set_yticks(np.arange(0, 101, 25))
    curves.tick_params(axis="x", labelbottom=True)
    canvas.light_grid(curves, "y")
    test = f"log-rank {p_text(logrank_p)}" if logrank_p is not None else None
    curves.legend(loc="upper right", title=test, title_fontsize=8, alignment="left")
    _risk_table(table, axis, time_days, labels, names)
    return figure


def _curve(axes: Axes, time: FloatArray, event: npt.NDArray[np.int64], name: str, colour: str) -> None:
    from lifelines import KaplanMeierFitter

    fit = KaplanMeierFitter().fit(time, event)
    survival = 100 * fit.survival_function_.iloc[:, 0]
    band = 100 * fit.confidence_interval_
    label = f"{name} risk (n = {len(time)}, events = {int(np.sum(event))})"
    axes.step(survival.index, survival, where="post", color=colour, label=label)
    axes.fill_between(band.index, band.iloc[:, 0], band.iloc[:, 1], step="post", color=colour, alpha=0.15, linewidth=0)
    censored = np.unique(time[event == 0])
    heights = 100 * fit.survival_function_at_times(censored).to_numpy()
    axes.plot(censored, heights, "|", color=colour, markersize=6, markeredgewidth=1)


def _risk_table(
    axes: Axes, axis: TimeAxis, time_days: FloatArray, labels: npt.NDArray[np.str_], names: Sequence[str]
) -> None:
    axes.set(ylim=(len(names) - 0.4, -1.2))
    axes.set_yticks(range(-1, len(names)), ["Number at risk", *names])
    axes.tick_params(length=0, labelbottom=False)
    axes.spines[:].set_visible(False)
    axes.get_yticklabels()[0].set_fontweight("bold")
    for row, (name, colour) in enumerate(zip(names, itertools.cycle(canvas.GROUP_COLOURS), strict=False)):
        axes.get_yticklabels()[row + 1].set_color(colour)
        counts = number_at_risk(time_days[labels == name], axis.ticks * axis.days)
        for tick, count in zip(axis.ticks, counts, strict=True):
            axes.text(tick, row, str(count), ha="center", va="center", fontsize=8)


@svg
def concordance(
    curve: pd.DataFrame | None,
    validation: pd.DataFrame | None,
    estimate: tuple[float, float, float] | None,
    k_final: int,
) -> Figure:
    """Harrell's C over the number of features: what the fitting cases say, and what the left-out cases say.

    Parameters
    ----------
    curve
        Columns ``k`` and ``c_index_in_sample``.
    validation
        Columns ``k`` and ``c_index``: one row per repeat and fold.
    estimate
        Cross-validated C-index and its interval's two ends.
    k_final
        Number of features of the reported model.
    """
    figure = canvas.new_figure(canvas.FULL_WIDTH, 3.4)
    axes = figure.subplots()
    if curve is not None:
        axes.plot(curve["k"], curve["c_index_in_sample"], "--", color=canvas.GREY, label=IN_SAMPLE_LABEL)
    if validation is not None:
        axes.plot(
            validation["k"],
            validation["c_index"],
            "o",
            color=canvas.BLUE,
            alpha=0.35,
            markersize=4,
            markeredgewidth=0,
            label="cross-validated, each held-out fold",
        )
    if estimate is not None:
        middle, lower, upper = estimate
        axes.axhspan(lower, upper, color=canvas.BLUE, alpha=0.12, linewidth=0)
        axes.axhline(middle, color=canvas.BLUE, label=f"cross-validated, {middle:.2f} ({lower:.2f} to {upper:.2f})")
    axes.axhline(0.5, color=canvas.INK, linewidth=0.8, linestyle=":", label="no discrimination (0.5)")
    if k_final:
        axes.axvline(k_final, color=canvas.PALE, linewidth=0.8, zorder=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="Number of selected features, k", ylabel="Concordance index (C)")
    low, high = axes.get_ylim()
    axes.set(ylim=(max(0.0, min(low, 0.4)), min(1.0, max(high, 0.8))), xlim=(0, None))
    figure.legend(loc="outside upper left", ncols=1)
    return figure


@svg
def forest(coefficients: pd.DataFrame) -> Figure:
    """Hazard ratios with 95 % intervals on a logarithmic axis; at most 30, those furthest from 1 by their z value."""
    shown = strongest(coefficients).iloc[::-1]
    rows = np.arange(len(shown))
    figure = canvas.new_figure(canvas.FULL_WIDTH, 1.1 + 0.19 * len(shown))
    axes = figure.subplots()
    ratio, lower, upper = (shown[c].to_numpy(dtype=float) for c in ("hazard_ratio", "lower_95", "upper_95"))
    axes.axvline(1, color=canvas.INK, linewidth=0.8, linestyle=":")
    axes.hlines(rows, lower, upper, color=canvas.BLUE, linewidth=1.3)
    axes.plot(ratio, rows, "s", color=canvas.BLUE, markersize=4.5)
    canvas.log_axis(axes)
    axes.set_yticks(rows, [short_name(name) for name in shown["feature"]])
    axes.tick_params(axis="y", length=0, labelsize=7.5)
    axes.set(ylim=(-0.7, len(shown) - 0.3), xlabel="Hazard ratio per standard deviation (95 % interval), log scale")
    axes.spines["left"].set_visible(False)
    canvas.light_grid(axes, "x")
    return figure


def strongest(coefficients: pd.DataFrame) -> pd.DataFrame:
    """The rows of the forest plot: the largest ``|coef / se|`` first."""
    order = (coefficients["coef"] / coefficients["se"]).abs().sort_values(ascending=False, kind="stable")
    return coefficients.loc[order.index[:MAX_FOREST_ROWS]]


def short_name(feature: str) -> str:
    """A feature's name without what all of pyradiomics' names begin with.

    >>> short_name("original_glcm_ClusterShade")
    'glcm ClusterShade'
    """
    return feature.removeprefix("original_").replace("_", " ", 1)


def p_text(p: float) -> str:
    """A p value as journals print it.

    >>> p_text(0.00001), p_text(0.0321), p_text(0.4567)
    ('p < 0.001', 'p = 0.032', 'p = 0.46')
    """
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"
