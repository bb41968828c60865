"""What every figure shares: fonts, colours, and how a drawing becomes text that can stand in a page."""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Callable
from typing import Any, Literal, ParamSpec

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

P = ParamSpec("P")

# Okabe and Ito's palette (2008): distinct for every common colour vision deficiency, and in grey print
BLUE = "#0072B2"
VERMILION = "#D55E00"
GREEN = "#009E73"
PURPLE = "#CC79A7"
YELLOW = "#F0E442"
INK = "#222222"
GREY = "#767676"
PALE = "#d9d9d9"
GROUP_COLOURS = (BLUE, VERMILION, GREEN, PURPLE)

#: Width of a figure that fills the text column, in inches; narrow enough that a phone still shows readable labels.
FULL_WIDTH = 6.6

_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same drawing on every machine
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.8,
    "xtick.major.width": 0.8,
    "ytick.major.width": 0.8,
    "lines.linewidth": 1.5,
    "text.parse_math": False,  # a case's name may hold a dollar sign
    "image.interpolation": "nearest",
    "svg.fonttype": "path",
    "svg.hashsalt": "prognosis-dask",  # without it, element names differ from run to run
}


def svg(draw: Callable[P, Figure]) -> Callable[P, str]:
    """Make a function that draws a figure return it as SVG text instead.

    The drawing starts from matplotlib's own defaults, so a user's ``matplotlibrc`` changes nothing, and holds no
    date: the same data give the same text. No global figure is made, so there is none to close.
    """

    @functools.wraps(draw)
    def as_text(*args: P.args, **kwargs: P.kwargs) -> str:
        with matplotlib.style.context(["default", _STYLE]):
            stream = io.StringIO()
            draw(*args, **kwargs).savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
        return stream.getvalue()

    return as_text


def data_uri(text: str) -> str:
    """SVG text as the address of an image that is held in the address itself."""
    return "data:image/svg+xml;base64," + base64.b64encode(text.encode()).decode("ascii")


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, whose parts are laid out so that nothing is cut off or overlaps."""
    return Figure(figsize=(width, height), layout="constrained")


def log_axis(axes: Axes) -> None:
    """A logarithmic x axis with plain numbers (0.5, 1, 2, 5) at its ticks."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=10))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def light_grid(axes: Axes, axis: Literal["x", "y"]) -> None:
    """Thin lines behind the data, along the one axis that values are read from."""
    axes.set_axisbelow(True)
    axes.grid(axis=axis, color=PALE, linewidth=0.6)
