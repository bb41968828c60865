"""The page itself: drawn anew once a second, for each visitor, from what the scheduler's plugin remembers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from html import escape
from typing import Any

from bokeh.layouts import column, row
from bokeh.models import ColumnDataSource, Div, NumeralTickFormatter, Range1d
from bokeh.plotting import figure

from prognosis_dask.execution.dashboard.plugin import ProgressPlugin, RunView
from prognosis_dask.execution.progress import PHASES, duration

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
        _set(self._head, head(self._plugin, run))
        begun = bool(run and run.stages)
        self._plots.visible = begun
        _set(self._stages, stages(run, self._plugin.running_tasks()) if run and begun else "")
        _set(self._failures, failures(run) if run and begun else "")
        _set(self._gpus, gpus(self._plugin.gpus()))
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
        "Seconds per case, mean of this run",
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
    plot.styles = {"background": "#fff"}  # its letters are dark, whatever the page is
    plot.outline_line_color = None
    return plot


# The page's tables, as HTML: where the run is, its stages, its latest failures, its GPUs.

# Okabe and Ito's palette (2008), as in the report: distinct for every common colour vision deficiency
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
STAGE_COLOURS = (BLUE, GREEN, PURPLE)

_STYLE = """<style>
  :host { font: 14px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; color: var(--ink);
    max-width: calc(100vw - 24px); }
  .bk-clearfix { display: block; max-width: 100%; }
  h1 { font-size: 20px; margin: 4px 0; } h2 { font-size: 15px; margin: 8px 0 4px; }
  p { margin: 2px 0; } .pale { color: var(--soft); } .bad { color: var(--bad); font-weight: 600; }
  .good { color: var(--good); }
  .wide { overflow-x: auto; } code { overflow-wrap: anywhere; }
  table { border-collapse: collapse; width: 100%; max-width: 1100px; }
  th { text-align: left; font-weight: 600; color: var(--soft); border-bottom: 1px solid var(--line); }
  th, td { padding: 4px 14px 4px 0; white-space: nowrap; }
  td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
  .bar { display: flex; height: 14px; min-width: 160px; background: var(--bar); border-radius: 2px; overflow: hidden; }
  code { font-family: "DejaVu Sans Mono", monospace; font-size: 13px; }
</style>"""


def head(plugin: ProgressPlugin, run: RunView | None) -> str:
    """The job, what it does now, and how long it will take; or how to start one."""
    if run is None:
        address = escape(str(plugin.scheduler.address))
        return (
            f"{_STYLE}<h1>No run yet</h1><p>This page fills as soon as one uses this cluster:</p>"
            f"<p><code>prognosis run JOB.toml --cluster {address}</code></p>"
        )
    lines = [f"<h1>{escape(str(run.message['job']))}</h1>", f"<p>{_state(run)}</p>"]
    if run.stages:
        patients = run.patients
        reused = f" ({patients['reused']} of them by an earlier run)" if patients["reused"] else ""
        computing = run.active and run.message["phase"] == "stages"
        speed = f", {60 * patients['rate']:.3g} a minute" if computing and patients["rate"] else ""
        lines.append(f"<p><b>{patients['done']} of {patients['total']}</b> patients finished{reused}{speed}</p>")
    others = [other for other in plugin.runs.values() if other is not run and other.active]
    if others:
        names = ", ".join(escape(str(other.message["job"])) for other in others)
        lines.append(f"<p class=pale>Also on this cluster: {names}</p>")
    return _STYLE + "".join(lines)


def _state(run: RunView) -> str:
    after = duration(run.elapsed)
    if run.message["state"] == "finished":
        return f"<span class=good>Finished</span> in {after}"
    if run.message["state"] == "stopped" or run.driver_left:
        why = "its driver is gone" if run.driver_left else "stopped"
        return (
            f"<span class=bad>Not finished</span>: {why} after {after}. "
            "Finished work is kept; run the same command again to resume."
        )
    text = f"Running for {after}, {PHASES.get(str(run.message['phase']), 'running')}"
    left = [stage["left"] for stage in run.stages.values()]
    if run.message["phase"] == "stages" and left and None not in left:
        text += f"; about {duration(max(left))} left"
    if run.silent:
        text += " <span class=bad>(no word from its driver for a while)</span>"
    return text


def stages(run: RunView, running: Mapping[str, int]) -> str:
    """A row per stage: cases done, failed, waiting, the tasks that run now, rate and time left."""
    rows = [_stage(run, name, running.get(name, 0)) for name in run.stages]
    heads = ["Stage", "Progress", "Done", "Failed", "Waiting", "Running tasks", "Cases/min", "Time left"]
    return _STYLE + _table(heads, rows, numbers=range(2, 8))


def _stage(run: RunView, name: str, running: int) -> list[str]:
    counts = run.stages[name]
    rate, left, waiting = counts["rate"], counts["left"], counts["waiting"]
    total = max(1, counts["total"] + counts["reused"])
    bar = _bar([(BLUE, (counts["done"] + counts["reused"]) / total), (VERMILION, counts["failed"] / total)])
    reused = f" <span class=pale>+ {counts['reused']} earlier</span>" if counts["reused"] else ""
    failed = f"<span class=bad>{counts['failed']}</span>" if counts["failed"] else "0"
    return [
        escape(name),
        bar,
        f"{counts['done']}{reused}",
        failed,
        str(waiting),
        str(running) if run.active else "–",
        f"{60 * rate:.3g}" if rate and waiting and run.active else "–",
        "done" if not waiting else duration(left) if left is not None and run.active else "–",
    ]


def failures(run: RunView) -> str:
    """The latest cases without a result: when, where and why, by the case's short hash."""
    latest = run.message["failures"][::-1]
    if not latest:
        return f"{_STYLE}<h2>Failed cases</h2><p class=good>None in this run.</p>"
    rows = [
        [_clock(at), escape(stage), f"<code>{escape(code)}</code>", f"<code>{escape(case)}</code>"]
        for at, stage, case, code in latest
    ]
    failed = sum(stage["failed"] for stage in run.stages.values())
    shown = f"the latest {len(latest)} of {failed}" if failed > len(latest) else str(failed)
    note = "<p class=pale><code>prognosis status DIR</code> names the cases and says what to do.</p>"
    table = _table(["Time (UTC)", "Stage", "Why", "Case (hash)"], rows)
    return f"{_STYLE}<h2>Failed cases ({shown})</h2>{table}{note}"


def gpus(found: Iterable[Mapping[str, Any]]) -> str:
    """A row per GPU worker; nothing where there is none."""
    rows = [
        [
            escape(f"{gpu['worker']}: {gpu['card']}"),
            _bar([(GREEN, gpu["busy"] / 100)]),
            f"{gpu['busy']} %",
            f"{gpu['used'] / 2**30:.1f} of {gpu['memory'] / 2**30:.0f} GiB",
        ]
        for gpu in found
    ]
    heads = ["Worker", "Load", "Busy", "Memory"]
    return f"{_STYLE}<h2>GPUs</h2>{_table(heads, rows, numbers=(2, 3))}" if rows else ""


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]], numbers: Iterable[int] = ()) -> str:
    right = Counter(numbers)
    kind = [" class=n" if right[place] else "" for place in range(20)]
    top = "".join(f"<th{kind[place]}>{text}</th>" for place, text in enumerate(heads))
    body = "".join(
        f"<tr>{''.join(f'<td{kind[place]}>{text}</td>' for place, text in enumerate(row))}</tr>" for row in rows
    )
    return f"<div class=wide tabindex=0><table><tr>{top}</tr>{body}</table></div>"


def _bar(parts: Iterable[tuple[str, float]]) -> str:
    filled = "".join(
        f'<div style="width:{100 * min(1.0, share):.2f}%;background:{colour}"></div>' for colour, share in parts
    )
    return f"<div class=bar>{filled}</div>"


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S")
