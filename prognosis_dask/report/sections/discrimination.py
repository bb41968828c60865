"""Validation: AUC over time, and of classes the ROC curve and the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from prognosis_dask.errors import count
from prognosis_dask.modelling.folder import ModelFolder
from prognosis_dask.report import canvas
from prognosis_dask.report.canvas import LINES, svg, time_axis
from prognosis_dask.report.content import Picture
from prognosis_dask.report.words import clipped, number, with_interval

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
