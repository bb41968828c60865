"""The drawings of a result: the group's survival, and where the scan lies among the training cases."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from prognosis_dask.arrays import FloatArray
from prognosis_dask.modelling.saved import QUANTILES
from prognosis_dask.report import canvas
from prognosis_dask.report.canvas import svg, time_axis

#: Inches: letters are readable on a phone, where the report's wider figures would have to shrink.
_WIDTH = 4.6


@svg
def survival_curves(groups: Mapping[str, FloatArray], group: str, own: Mapping[str, float]) -> Figure:
    """The training cases' survival by risk group, the scan's own group strong, with the model's figures for the scan.

    Parameters
    ----------
    groups
        Name to (2, times): days and survival.
    group
        The scan's.
    own
        Days, as text, to the model's survival for this scan.
    """
    axis = time_axis(max(float(curve[0, -1]) for curve in groups.values()))
    figure = canvas.new_figure(_WIDTH, 3.2)
    axes = figure.subplots()
    for (name, curve), colour in zip(sorted(groups.items()), (canvas.VERMILION, canvas.BLUE), strict=False):
        strong = name == group
        axes.step(
            curve[0] / axis.days,
            curve[1],
            where="post",
            color=colour,
            linewidth=2.4 if strong else 1.0,
            alpha=1.0 if strong else 0.6,
            linestyle="-" if name == "low" else (0, (5, 1.5)),
            label=f"{name} risk{': the group of this scan' if strong else ''}",
        )
    if own:
        days = np.array([float(day) for day in own])
        axes.plot(
            days / axis.days, list(own.values()), "o", color=canvas.INK, markersize=5, label="the model for this scan"
        )
    axes.set(xlabel=f"time ({axis.unit})", ylabel="survival", ylim=(0, 1.02), xlim=(0, None), xticks=axis.ticks)
    canvas.light_grid(axes, "y")
    axes.legend(loc="upper right")
    return figure


@svg
def place_among(quantiles: FloatArray, score: float, cutoff: float | None) -> Figure:
    """A box of the training cases' scores with the scan's own marked.

    Parameters
    ----------
    quantiles
        Of the scores, at :data:`prognosis_dask.modelling.saved.QUANTILES`.
    score, cutoff
        The scan's, and what parts the groups.
    """
    least, _, five, lower, median, upper, ninety_five, _, most = (float(q) for q in quantiles)
    assert len(QUANTILES) == 9
    figure = canvas.new_figure(_WIDTH, 1.4)
    axes = figure.subplots()
    axes.plot([least, most], [0, 0], color=canvas.GREY, linewidth=1)
    axes.plot([five, ninety_five], [0, 0], color=canvas.GREY, linewidth=4, solid_capstyle="butt")
    axes.barh(0, upper - lower, left=lower, height=0.5, color=canvas.PALE, edgecolor=canvas.GREY)
    axes.plot([median, median], [-0.25, 0.25], color=canvas.INK)
    if cutoff is not None:
        axes.axvline(cutoff, color=canvas.GREY, linestyle=":", linewidth=1)
    axes.plot(score, 0, "D", color=canvas.VERMILION, markersize=9)
    axes.annotate("this scan", (score, 0), (0, 13), textcoords="offset points", ha="center", color=canvas.VERMILION)
    axes.set(ylim=(-0.6, 0.9), yticks=[], xlabel="score (box: middle half of training cases, thick line: 90 %)")
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.08)
    return figure
