"""Figures of the cohort: regions of interest, their size, and how the features hang together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from prognosis_dask.arrays import BoolArray, ByteArray, FloatArray
from prognosis_dask.errors import count
from prognosis_dask.report import canvas
from prognosis_dask.report.canvas import svg
from prognosis_dask.report.words import clipped, short_name

#: Features in the correlation figure: more names than this cannot be read on a page.
MAX_CORRELATED = 40

_COLUMNS = 4
_BAR_MM = 20


@svg
def flow(steps: Sequence[tuple[str, int, int | None, Sequence[tuple[str, int]]]]) -> Figure:
    """A flow diagram: a box per step, and beside the arrow into it what was left out.

    Parameters
    ----------
    steps
        Title, cases, patients (None where they are not counted), and (reason, cases) left out on the way.
    """
    heights = [0.17 * len(lost) + 0.32 if lost else 0.0 for *_, lost in steps]
    gaps = [0.0, *(max(0.32, height + 0.16) for height in heights[1:])]
    figure = canvas.new_figure(canvas.FULL_WIDTH, 0.55 * len(steps) + sum(gaps) + 0.1)
    axes = figure.subplots()
    top = 0.0
    for (title, cases, patients, lost), gap in zip(steps, gaps, strict=True):
        if gap:
            axes.annotate("", (1.35, top + gap), (1.35, top), arrowprops=_ARROW)
        if lost:
            _lost_box(axes, top + gap / 2, lost)
        top += gap
        _box(axes, top, title, f"{cases:,}" if patients is None else f"{cases:,}  ({count(patients, 'patient')})")
        top += 0.55
    axes.set(xlim=(0, canvas.FULL_WIDTH - 0.1), ylim=(top + 0.02, -0.02))
    axes.set_axis_off()
    return figure


_ARROW = {"arrowstyle": "-|>", "color": canvas.INK, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 9}


def _box(axes: Axes, top: float, title: str, counted: str) -> None:
    axes.add_patch(Rectangle((0.02, top), 2.66, 0.55, facecolor="white", edgecolor=canvas.INK, linewidth=0.8))
    axes.text(1.35, top + 0.18, title, ha="center", va="center")
    axes.text(1.35, top + 0.385, counted, ha="center", va="center", fontweight="bold")


def _lost_box(axes: Axes, middle: float, lost: Sequence[tuple[str, int]]) -> None:
    height = 0.17 * len(lost) + 0.32
    axes.plot([1.35, 3.0], [middle, middle], color=canvas.INK, linewidth=0.8)
    axes.add_patch(
        Rectangle((3.0, middle - height / 2), 3.3, height, facecolor="white", edgecolor=canvas.INK, linewidth=0.8)
    )
    lines = [f"Left out: {sum(n for _, n in lost):,}", *(f"   {clipped(reason, 46)}: {n:,}" for reason, n in lost)]
    for i, line in enumerate(lines):
        axes.text(3.1, middle - height / 2 + 0.16 + 0.17 * i, line, va="center", fontsize=8)


@dataclass(frozen=True)
class Thumbnail:
    """One slice of one region of interest, for looking at.

    Attributes
    ----------
    case_id, volume_ml
        Whose, and how large the whole region is.
    frame
        Grey values, (row, column), uint8.
    mask
        The region on the same pixels, boolean.
    spacing_mm
        Distance of neighbouring columns; None where it is not known.
    """

    case_id: str
    volume_ml: float
    frame: ByteArray
    mask: BoolArray
    spacing_mm: float | None


@svg
def gallery(thumbnails: Sequence[Thumbnail]) -> Figure:
    """Slices with the region's outline along the pixels' edges, and a bar of 20 mm."""
    rows = math.ceil(len(thumbnails) / _COLUMNS)
    figure = canvas.new_figure(canvas.FULL_WIDTH, 1.95 * rows)
    grid = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axes, thumbnail in zip(grid, thumbnails, strict=False):
        _picture(axes, thumbnail)
    for axes in grid[len(thumbnails) :]:
        axes.set_axis_off()
    return figure


def _picture(axes: Axes, thumbnail: Thumbnail) -> None:
    rows, columns = thumbnail.frame.shape
    axes.imshow(thumbnail.frame, cmap="gray", vmin=0, vmax=255)
    axes.add_collection(LineCollection(list(outline(thumbnail.mask)), colors=canvas.YELLOW, linewidths=1))
    if thumbnail.spacing_mm:
        length = _BAR_MM / thumbnail.spacing_mm
        x, y = columns * 0.05, rows * 0.94
        for colour, width in (("black", 4.0), ("white", 2.2)):  # seen on light and on dark
            axes.plot([x, x + length], [y, y], color=colour, linewidth=width, solid_capstyle="butt")
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
    axes.set_axis_off()
    axes.set_title(f"{clipped(thumbnail.case_id, 26)}\n{thumbnail.volume_ml:.3g} mL", fontsize=7)


def outline(mask: BoolArray) -> FloatArray:
    """The edges between pixels inside and outside of a mask: (segment, end, x or y), each one pixel long."""
    padded = np.pad(mask, 1)
    across_r, across_c = np.nonzero(padded[1:, 1:-1] != padded[:-1, 1:-1])
    down_r, down_c = np.nonzero(padded[1:-1, 1:] != padded[1:-1, :-1])
    across = np.stack([across_c - 0.5, across_r - 0.5, across_c + 0.5, across_r - 0.5], axis=1)
    down = np.stack([down_c - 0.5, down_r - 0.5, down_c - 0.5, down_r + 0.5], axis=1)
    segments: FloatArray = np.concatenate([across, down]).reshape(-1, 2, 2)
    return segments


@svg
def sizes(volume_ml: FloatArray, n_slices: FloatArray) -> Figure:
    """How large the regions are: volume on a logarithmic axis, and the number of slices."""
    figure = canvas.new_figure(canvas.FULL_WIDTH, 2.3)
    left, right = figure.subplots(1, 2, sharey=True)
    volume = volume_ml[volume_ml > 0]
    low, high = (volume.min(), volume.max()) if volume.size else (1.0, 10.0)
    if high < low * 1.01:
        low, high = low / 2, high * 2
    bins = 24 if volume.size > 200 else 12
    left.hist(volume, bins=np.geomspace(low, high, bins + 1), color=canvas.BLUE, edgecolor="white", linewidth=0.5)
    canvas.log_axis(left)
    left.set(xlabel="ROI volume (mL), log scale", ylabel="Cases")
    slices = n_slices[np.isfinite(n_slices)]
    top = slices.max() if slices.size else 1
    width = max(1, math.ceil(top / bins))
    edges = np.arange(0.5, top + width + 0.5, width)
    right.hist(slices, bins=edges, color=canvas.BLUE, edgecolor="white", linewidth=0.5)
    right.set(xlabel="Slices that hold the ROI")
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.yaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (left, right):
        canvas.light_grid(axes, "y")
    return figure


@dataclass(frozen=True)
class Correlation:
    """Spearman's rho between features, and of each with the volume; ordered so that similar features are neighbours."""

    names: list[str]
    between: FloatArray
    with_volume: FloatArray


def correlate(values: FloatArray, names: Sequence[str], volume_ml: FloatArray) -> Correlation | None:
    """Correlate at most 40 features over the cases that have all of them.

    Parameters
    ----------
    values
        (case, feature); the leftmost features that vary are taken, so put the interesting ones first.
    names
        One per column.
    volume_ml
        One per case.

    Returns
    -------
    None where fewer than 5 cases or 3 features are left. The order is that of average linkage on
    ``1 - |rho|``, as in a clustered heat map.
    """
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform
    from scipy.stats import rankdata

    complete = np.isfinite(values).all(axis=1) & np.isfinite(volume_ml)
    kept = values[complete]
    if len(kept) < 5:
        return None
    columns = np.flatnonzero(np.ptp(kept, axis=0) > 0)[:MAX_CORRELATED]
    if len(columns) < 3:
        return None
    ranks = rankdata(np.column_stack([kept[:, columns], volume_ml[complete]]), axis=0)
    if np.ptp(ranks[:, -1]) == 0:
        return None
    rho = np.corrcoef(ranks, rowvar=False)
    between = rho[:-1, :-1]
    distance = squareform(np.clip(1 - np.abs(between), 0, None), checks=False)
    order = leaves_list(linkage(distance, method="average", optimal_ordering=True))
    return Correlation([names[columns[i]] for i in order], between[np.ix_(order, order)], rho[-1, :-1][order])


@svg
def correlations(correlation: Correlation) -> Figure:
    """A clustered heat map of the features, and beside it each feature's correlation with the volume."""
    size = len(correlation.names)
    figure = canvas.new_figure(canvas.FULL_WIDTH, 1.3 + 0.115 * max(size, 14))
    heat, strip = figure.subplots(1, 2, gridspec_kw={"width_ratios": [size, max(1.2, size / 22)], "wspace": 0.01})
    shown = {"cmap": "RdBu_r", "vmin": -1, "vmax": 1, "aspect": "auto"}
    image = heat.imshow(correlation.between, **shown)
    strip.imshow(correlation.with_volume[:, np.newaxis], **shown)
    heat.set_yticks(range(size), [clipped(short_name(name)) for name in correlation.names], fontsize=6.5)
    heat.set_xticks([])
    strip.set_xticks([0], ["volume"], fontsize=7)
    strip.set_yticks([])
    for axes in (heat, strip):
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
    bar: dict[str, Any] = {"location": "bottom", "shrink": 0.5, "aspect": 40, "ticks": [-1, -0.5, 0, 0.5, 1]}
    figure.colorbar(image, ax=[heat, strip], label="Spearman’s ρ", **bar)
    return figure
