"""Figures of reproducibility: how the features' agreement is distributed, family by family."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prognosis_dask.report import canvas
from prognosis_dask.report.canvas import svg

FloatArray = npt.NDArray[np.float64]

#: Fewer values have no shape to draw: they are shown as points.
_FEWEST_FOR_VIOLIN = 8


@svg
def agreement_violins(values: Mapping[str, FloatArray], threshold: float) -> Figure:
    """Distribution of the concordance correlation per family of features: violins with every feature as a point.

    Parameters
    ----------
    values
        Family to the coefficients of its features; those that are not finite are not drawn.
    threshold
        A line, and how many reach it is written beside each family.
    """
    held = {family: of_family[np.isfinite(of_family)] for family, of_family in values.items()}
    held = {family: of_family for family, of_family in held.items() if len(of_family)}
    figure = canvas.new_figure(canvas.FULL_WIDTH, 1.0 + 0.85 * max(len(held), 1))
    axes = figure.subplots()
    canvas.light_grid(axes, "x")
    axes.axvline(threshold, color=canvas.INK, linewidth=0.9, linestyle=(0, (4, 2)))
    for at, (of_family, colour) in enumerate(zip(held.values(), itertools.cycle(canvas.GROUP_COLOURS), strict=False)):
        _violin(axes, at, of_family, colour)
        axes.annotate(
            f"{int((of_family >= threshold).sum())} of {len(of_family)} reach {threshold:g}",
            (1.0, at),
            xycoords=("axes fraction", "data"),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_yticks(range(len(held)), list(held))
    axes.set_ylim(max(len(held), 1) - 0.5, -0.5)
    lowest = min((float(of_family.min()) for of_family in held.values()), default=0.0)
    axes.set_xlim(max(-1.02, min(-0.05, lowest - 0.05)), 1.02)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("concordance correlation coefficient (Lin)")
    return figure


def _violin(axes: Axes, at: int, values: FloatArray, colour: str) -> None:
    """One family: its shape, its features as points in a fixed scatter, median and quartiles."""
    shaped = len(values) >= _FEWEST_FOR_VIOLIN
    if shaped and np.ptp(values) > 1e-6:
        parts = axes.violinplot([values], [at], orientation="horizontal", widths=0.8, showextrema=False)
        bodies: Any = parts["bodies"]
        for body in bodies:
            outline = body.get_paths()[0].vertices
            outline[:, 0] = np.clip(outline[:, 0], values.min(), values.max())
            body.set(facecolor=colour, alpha=0.25, edgecolor=colour, linewidth=0.8)
    # each point's height comes from its rank, so that the same data give the same drawing
    order = np.argsort(np.argsort(values))
    height = ((order * 0.6180339887) % 1.0 - 0.5) * (0.42 if shaped else 0.0)
    axes.scatter(values, at + height, s=5, color=colour, alpha=0.55, linewidths=0)
    low, middle, high = np.percentile(values, [25, 50, 75])
    axes.plot([low, high], [at, at], color=canvas.INK, linewidth=3.0, solid_capstyle="butt")
    axes.plot([middle], [at], marker="o", markersize=5.5, markerfacecolor="white", markeredgecolor=canvas.INK)
