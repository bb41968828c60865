"""The page itself: drawn anew once a second, for each visitor, from what the scheduler's plugin remembers."""

from __future__ import annotations

from typing import Any

from bokeh.layouts import column, row
from bokeh.models import ColumnDataSource, Div, NumeralTickFormatter, Range1d
from bokeh.plotting import figure

from prognosis_dask.execution.dashboard import tables
from prognosis_dask.execution.dashboard.plugin import ProgressPlugin, RunView
from prognosis_dask.execution.dashboard.tables import BLUE, STAGE_COLOURS

HOUR = 3600.0
_TOOLS = "hover"
#: Pixels that a plot needs, and a phone has.
_NARROW = 330


class Page:
    """What one visitor sees. ``root`` is the document's content, ``update`` brings it up to date."""

    def __init__(self, plugin: ProgressPlugin) -> None:
        self._plugin = plugin
        self._head = Div(name="head", sizing_mode="stretch_width")
        self._stages = Div(name="stages", sizing_mode="stretch_width")
        self._failures = Div(name="failures", sizing_mode="stretch_width", min_width=_NARROW)
        self._gpus = Div(name="gpus", sizing_mode="stretch_width", min_width=_NARROW)
        self._speed = ColumnDataSource(data={"left": [], "right": [], "top": []}, name="speed")
        self._steps = ColumnDataSource(data=_no_steps(), name="steps")
        self._speed_plot = _speed_plot(self._speed)
        self._steps_plot = _steps_plot(self._steps)
        self._plots = _beside(self._speed_plot, self._steps_plot, visible=False)
        self.root = column(
            self._head,
            self._stages,
            self._plots,
            _beside(self._failures, self._gpus),
            sizing_mode="stretch_width",
            margin=(10, 12, 10, 12),
        )
        self.update()

    def update(self) -> None:
        """Show the runs as they are now."""
        run = self._plugin.latest()
        _set(self._head, tables.head(self._plugin, run))
        begun = bool(run and run.stages)
        self._plots.visible = begun
        _set(self._stages, tables.stages(run, self._plugin.running_tasks()) if run and begun else "")
        _set(self._failures, tables.failures(run) if run and begun else "")
        _set(self._gpus, tables.gpus(self._plugin.gpus()))
        if run and begun:
            self._draw_speed(run)
            self._draw_steps(run)

    def _draw_speed(self, run: RunView) -> None:
        edges, values = (run.patients["per_minute"][key] for key in ("edges", "values"))
        long = bool(edges) and edges[-1] > 3 * HOUR
        unit = HOUR if long else 60.0
        self._speed_plot.xaxis.axis_label = f"Time since the run began ({'h' if long else 'min'})"
        begin = edges[0] if edges else 0.0  # the cohort came first
        self._speed_plot.x_range.start = begin / unit
        self._speed_plot.x_range.end = max(run.elapsed, begin + 60.0) / unit
        self._speed_plot.y_range.end = 1.15 * max([1.0, *values])
        self._speed.data = {
            "left": [edge / unit for edge in edges[:-1]],
            "right": [edge / unit for edge in edges[1:]],
            "top": values,
        }

    def _draw_steps(self, run: RunView) -> None:
        data = _no_steps()
        for (stage, counts), colour in zip(run.stages.items(), STAGE_COLOURS * 3, strict=False):
            cases = counts["done"] + counts["failed"]
            for step, seconds in counts["seconds"].items():
                if step != "total" and cases:
                    data["step"].append(f"{stage}: {step}")
                    data["seconds"].append(seconds / cases)
                    data["label"].append(f" {seconds / cases:.3g} s")
                    data["colour"].append(colour)
        names = data["step"][::-1]
        if self._steps_plot.y_range.factors != names:
            self._steps_plot.y_range.factors = names
            self._steps_plot.height = max(220, 70 + 26 * len(names))
            self._speed_plot.height = self._steps_plot.height
        self._steps_plot.x_range.end = 1.25 * max([0.01, *data["seconds"]])
        self._steps.data = data


def _beside(*parts: Any, **options: Any) -> Any:
    """Beside each other, or on a phone one below the other."""
    return row(*parts, sizing_mode="stretch_width", styles={"flex-wrap": "wrap"}, **options)


def _no_steps() -> dict[str, list[Any]]:
    return {"step": [], "seconds": [], "label": [], "colour": []}


def _set(div: Div, text: str) -> None:
    if div.text != text:  # what does not change does not travel, and stays selected
        div.text = text


def _speed_plot(source: ColumnDataSource) -> Any:
    plot = _plot(
        "Patients finished per minute",
        x_range=Range1d(0, 1),
        y_range=Range1d(0, 1),
        tooltips=[("patients per minute", "@top{0.0}"), ("from", "@left{0.0}"), ("to", "@right{0.0}")],
    )
    plot.quad(left="left", right="right", bottom=0, top="top", source=source, fill_color=BLUE, line_color="white")
    plot.yaxis.axis_label = "Patients per minute"
    plot.yaxis.formatter = NumeralTickFormatter(format="0[.]0")
    plot.xgrid.visible = False
    return plot


def _steps_plot(source: ColumnDataSource) -> Any:
    plot = _plot(
        "Seconds per case, by step (mean of this run)",
        x_range=Range1d(0, 1),
        y_range=[],
        tooltips=[("step", "@step"), ("seconds per case", "@seconds{0.000}")],
    )
    plot.hbar(y="step", right="seconds", height=0.7, source=source, color="colour")
    plot.text(
        x="seconds", y="step", text="label", source=source, text_baseline="middle", text_font_size="12px"
    )  # fmt: skip
    plot.xaxis.axis_label = "Seconds of a worker"
    plot.ygrid.visible = False
    return plot


def _plot(title: str, **options: Any) -> Any:
    plot = figure(
        title=title,
        height=260,
        min_width=_NARROW,
        tools=_TOOLS,
        toolbar_location=None,
        sizing_mode="stretch_width",
        **options,
    )
    plot.min_border_right = 20
    plot.outline_line_color = None
    return plot
