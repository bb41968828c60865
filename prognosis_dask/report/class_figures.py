"""Figures of a model of classes: ROC curves and the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from prognosis_dask.report import canvas
from prognosis_dask.report.canvas import svg
from prognosis_dask.report.words import clipped, number


@svg
def roc(curves: Sequence[tuple[str, pd.DataFrame]]) -> Figure:
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


@svg
def confusion(counts: pd.DataFrame) -> Figure:
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
