"""The figure of the final model's coefficients."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from prognosis_dask.report import canvas
from prognosis_dask.report.canvas import svg
from prognosis_dask.report.words import clipped, short_name

#: Features in the forest plot; the table beside it holds them all.
MAX_FOREST_ROWS = 30


@svg
def forest(coefficients: pd.DataFrame, ratio_name: str) -> Figure:
    """Hazard or odds ratios with 95 % intervals on a logarithmic axis; at most 30, :func:`strongest` first."""
    shown = strongest(coefficients).iloc[::-1]
    rows = np.arange(len(shown))
    figure = canvas.new_figure(canvas.FULL_WIDTH, 1.1 + 0.19 * len(shown))
    axes = figure.subplots()
    ratio, lower, upper = (shown[c].to_numpy(dtype=float) for c in ("hazard_ratio", "lower_95", "upper_95"))
    interval = " (95 % interval)" if np.isfinite(lower).any() else ""
    axes.axvline(1, color=canvas.INK, linewidth=0.8, linestyle=":")
    axes.hlines(rows, lower, upper, color=canvas.BLUE, linewidth=1.3)
    axes.plot(ratio, rows, "s", color=canvas.BLUE, markersize=4.5)
    canvas.log_axis(axes)
    axes.set_yticks(rows, [clipped(short_name(name)) for name in shown["feature"]])
    axes.tick_params(axis="y", length=0, labelsize=7.5)
    axes.set(ylim=(-0.7, len(shown) - 0.3), xlabel=f"{ratio_name} per standard deviation{interval}, log scale")
    axes.spines["left"].set_visible(False)
    canvas.light_grid(axes, "x")
    return figure


def strongest(coefficients: pd.DataFrame) -> pd.DataFrame:
    """The rows of the forest plot: the largest ``|coef / se|`` first; ``|coef|`` where no error is known."""
    error = coefficients["se"] if coefficients["se"].notna().any() else 1.0
    order = (coefficients["coef"] / error).abs().sort_values(ascending=False, kind="stable")
    return coefficients.loc[order.index[:MAX_FOREST_ROWS]]
