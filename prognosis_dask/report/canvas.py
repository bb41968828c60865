"""What every figure shares: fonts, colours, axes, and how a drawing becomes text that can stand in a page."""

from __future__ import annotations

import base64
import functools
import io
import math
import re
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, ParamSpec
from urllib.parse import quote

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from prognosis_dask.arrays import FloatArray

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
ORANGE = "#E69F00"
SKY = "#56B4E9"
BROWN = "#8C510A"  # ColorBrewer's, where eight have to be told apart
GROUP_COLOURS = (BLUE, VERMILION, GREEN, PURPLE)
#: One look per line where several are compared: told apart by their dashes too, in grey print.
LINES: tuple[tuple[str, Any], ...] = (
    (BLUE, "-"),
    (VERMILION, (0, (5, 1.5))),
    (GREEN, (0, (1.2, 1))),
    (PURPLE, (0, (6, 1.5, 1.2, 1.5))),
    (ORANGE, (0, (8, 2))),
    (SKY, (0, (3, 1, 1, 1, 1, 1))),
    (INK, (0, (1, 3))),
    (BROWN, (0, (4, 1.5, 1, 1.5, 1, 1.5))),
)

#: Ticks of a logarithmic axis that spans less than two and a half times its start.
_TENTHS = (1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.7, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)

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
        return _compact(stream.getvalue())

    return as_text


def _compact(text: str) -> str:
    """The same drawing with its paths to a hundredth of a point, which is a third of the bytes."""
    paths = re.compile(r'\bd="[^"]*"')
    return paths.sub(lambda path: re.sub(r"-?\d+\.\d{3,}", lambda n: f"{float(n[0]):.2f}", path[0]), text)


def svg_address(text: str) -> str:
    """SVG text as the address of an image that is held in the address itself."""
    # quotation marks and line ends would each take three characters
    plain = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL).replace('"', "'")
    return "data:image/svg+xml," + quote(re.sub(r"\s+", " ", plain), safe=" /:;=,?!()*'@&+$")


def png_address(content: bytes) -> str:
    """A PNG as an address that needs no other file."""
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


def png_size(content: bytes) -> tuple[int, int]:
    """Width and height, which a PNG's first chunk begins with."""
    width, height = struct.unpack(">II", content[16:24])
    return width, height


def csv_address(text: str) -> str:
    """A table's text as the address of a file that is held in the address itself."""
    return "data:text/csv;charset=utf-8," + quote(text, safe=",/:;=()*'@+$")


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, whose parts are laid out so that nothing is cut off or overlaps."""
    return _DrawnOnce(figsize=(width, height), layout="constrained")


class _DrawnOnce(Figure):
    """Matplotlib draws a figure twice to save it, first into nothing so that it is laid out: this one only lays it out.

    That is a fifth of a report's time.
    """

    def draw(self, renderer: Any) -> None:
        """Draw, or lay out: where figures are saved the layout is switched off for the drawing itself."""
        layout = self.get_layout_engine()
        if not isinstance(layout, ConstrainedLayoutEngine):
            super().draw(renderer)
        elif self.axes:
            with suppress(ValueError):  # as matplotlib has it
                layout.execute(self)


#: A logarithmic axis of fewer decades than this is as good as linear, and has linear ticks.
_NARROW = 0.1


def log_axis(axes: Axes) -> None:
    """A logarithmic x axis with plain numbers (0.5, 1, 2, 5) at its ticks; closer ones where it spans little."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    span = math.log10(high / low)
    subs = (1.0, 2.0, 5.0) if span > 0.9 else (1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if span > 0.35 else tuple(_TENTHS)
    axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=10) if span > _NARROW else MaxNLocator(5))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")


def named_rows(axes: Axes, places: Iterable[float], names: Iterable[str], size: float = 8, edge: float = 0.6) -> None:
    """A row per name, read along x: letters of a size in points, and the room beyond the outermost rows."""
    at = list(places)
    axes.set_yticks(at, list(names))
    axes.tick_params(axis="y", length=0, labelsize=size)
    axes.set(ylim=(min(at) - edge, max(at) + edge))
    light_grid(axes, "x")


def light_grid(axes: Axes, axis: Literal["x", "y"]) -> None:
    """Thin lines behind the data, along the one axis that values are read from."""
    axes.set_axisbelow(True)
    axes.grid(axis=axis, color=PALE, linewidth=0.6)


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
