"""Validation: how well the procedures predict held-out cases, calibration and net benefit included."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prognosis_dask.errors import count
from prognosis_dask.modelling.folder import ModelFolder
from prognosis_dask.report import canvas
from prognosis_dask.report.canvas import svg
from prognosis_dask.report.content import Block, Picture, Rows, Section, Table, Text, absent, or_absent, titled
from prognosis_dask.report.read import records
from prognosis_dask.report.sections.comparison import differences_blocks, honesty_blocks, influence, performance
from prognosis_dask.report.sections.curves import (
    HELD_OUT,
    auc_over_time,
    confusion,
    kaplan_meier,
    roc,
    shown_procedures,
)
from prognosis_dask.report.words import (
    breakable,
    clipped,
    describe,
    interval,
    listed,
    number,
    p_number,
    span,
    with_interval,
)


def no_model(models: ModelFolder | None, *, wanted: bool = True) -> str:
    """Why there is no model to report; empty where there is one."""
    if models is None:
        return "This run holds no model." if wanted else "The job has the model switched off (model.enabled)."
    return f"No model was fitted: {models.not_fitted}" if models.not_fitted else ""


def validation(models: ModelFolder | None, *, wanted: bool = True) -> Section:
    """How well the procedures predict held-out cases, beside their in-sample figures.

    ``wanted`` is False where the run's job has the model switched off.
    """
    title = "Validation"
    if models is None or no_model(models):
        return Section("validation", title, [absent(no_model(models, wanted=wanted))])
    blocks: list[Block] = [Text(design)] if (design := _design(models)) else []
    if not wanted:
        other = "this model was fitted before the run, or by hand after it."
        blocks.append(Text(f"The run’s job has the model switched off (model.enabled): {other}", "warning"))
    if met := int(models.summary.get("met_before") or 0):
        blocks.append(Text(_not_external(met, models.summary), "warning"))
    if (found := resampled(models)) and models.table("measures") is None:
        return Section("validation", title, [*blocks, *found])
    blocks += titled("Comparison", or_absent(performance(models), "measures.csv"))
    blocks += measures(models)
    blocks += [Text(note, "note") for note in measure_notes(models)]
    blocks += differences_blocks(models)
    blocks += influence(models)
    blocks += honesty_blocks(models)
    for heading, draw, file in _CLASSES if models.classes else _SURVIVAL:
        blocks += titled(heading, or_absent(draw(models), file))
    return Section("validation", title, blocks)


def _design(models: ModelFolder) -> str:
    if models.external:
        cohort = "" if models.summary.get("met_before") else "External validation: fitted on another cohort, "
        return f"{cohort}{'the' if cohort else 'The'} model in {models.primary} predicts these cases as it is."
    said = [of_procedures(models.names)] if models.names else []
    folds = models.table("folds")
    if folds is not None:
        repeats, per = folds["repeat"].nunique(), folds["fold"].nunique()
        said.append(
            f"Nested cross-validation, {count(repeats, 'repeat')} of {per} folds, patients split: everything that "
            "learns from cases (imputation, scaling, selection, tuning, the model) saw the training cases alone."
        )
    found = models.estimate()
    if found is not None and models.fitted:
        title = describe(models.headline).title
        said.append(f"The final model is “{models.primary}”; on held-out cases it has {title} {with_interval(*found)}.")
    return " ".join(said)


def _not_external(met: int, summary: Mapping[str, Any]) -> str:
    by = summary.get("met_by", "")
    return (
        f"The model was fitted on {met} of these {count(int(summary['n_cases']), 'case')}"
        f"{f', recognised by {by}' if by else ''}. On them its figures are in-sample, so this is not an external "
        "validation."
    )


def of_procedures(names: Sequence[str]) -> str:
    """How many procedures were compared, and which.

    >>> of_procedures(["cox"]), of_procedures(["a", "b"])
    ('One procedure was validated: “cox”.', '2 procedures were compared on the same folds: “a” and “b”.')
    """
    quoted = [f"“{name}”" for name in names]
    if len(names) == 1:
        return f"One procedure was validated: {quoted[0]}."
    return f"{len(names)} procedures were compared on the same folds: {listed(quoted)}."


#: Measures of the whole follow-up, those at a horizon, those of classes, and their calibration.
_OVERALL = ("harrell_c", "uno_c", "mean_auc", "ibs")
_AT_HORIZON = ("auc_t", "brier", "calibration_slope", "observed_expected", "ici")
_OF_CLASSES = ("auc", "balanced_accuracy", "brier", "log_loss")
_CALIBRATION = ("calibration_slope", "observed_expected", "ici")
_BEST = (
    "Higher is better for C, AUC and accuracy, lower for Brier scores and log loss; calibration slope and "
    "observed / expected are best at 1, ICI (mean distance of predicted from observed risk) at 0; noise only "
    "adds to the ICI, so its interval lies high."
)


def measures(models: ModelFolder) -> list[Table]:
    """Measures of every procedure on held-out cases, the headline one beside its in-sample value."""
    table = models.table("measures")
    if table is None:
        return []
    caption = f"Performance on held-out cases, with 95 % intervals over patients. {_BEST} More: models/measures.csv."
    if models.classes:
        found = [
            (caption, [("", table)], _OF_CLASSES),
            ("Calibration on held-out cases.", _by_class(models, table), _CALIBRATION),
        ]
    else:
        days = sorted(table["horizon_days"].dropna().unique().tolist())
        at = [(f"At {span(horizon)}", table[table["horizon_days"] == horizon]) for horizon in days]
        found = [
            (caption, [("", table)], _OVERALL),
            ("Performance on held-out cases at single times.", at, _AT_HORIZON),
        ]
    return [made for one in found if (made := _measure_table(models, *one)) is not None]


def _by_class(models: ModelFolder, table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The measures of each class, where there are more than two and their names end in the class's."""
    names = list(models.summary.get("classes") or ())
    if len(names) < 3:
        return [("", table)]
    own = {name: {f"{measure}_{name}": measure for measure in _CALIBRATION} for name in names}
    return [
        (f"Class {name}", table[table["measure"].isin(list(short))].replace({"measure": short}))
        for name, short in own.items()
    ]


def _measure_table(
    models: ModelFolder, caption: str, parts: Sequence[tuple[str, pd.DataFrame]], names: Sequence[str]
) -> Table | None:
    written = set().union(*(part["measure"] for _, part in parts))
    shown = [name for name in names if name in written]
    if not shown:
        return None
    head = ["Procedure", *(describe(name).title for name in shown)]
    main = models.headline
    beside = main in shown and any((part["in_sample"] == 1).any() for _, part in parts)
    if beside:
        head.insert(2, f"{describe(main).title}, in-sample (optimistic)")
    groups = []
    for title, part in parts:
        inside = part["in_sample"] == 1
        rows = []
        for name in [name for name in models.names if name in set(part["procedure"])]:
            own = part["procedure"] == name
            cells = [_value(part[own & ~inside & (part["measure"] == measure)]) for measure in shown]
            if beside:
                cells.insert(1, _value(part[own & inside & (part["measure"] == main)]).split(" ")[0])
            rows.append((name, *cells))
        groups.append(Rows(title, rows))
    return Table(caption, head, "l" + "v" * (len(head) - 1), groups)


def _value(rows: pd.DataFrame) -> str:
    if rows.empty:
        return "–"
    row = rows.iloc[0]
    digits = 3 if str(row["measure"]) in ("ici", "brier", "ibs") else 2
    return breakable(with_interval(row["value"], row["lower"], row["upper"], digits))


def measure_notes(models: ModelFolder) -> list[str]:
    """Why a figure that is shown is missing, or what it leaves out: those of held-out cases are."""
    table = models.table("measures")
    if table is None:
        return []
    noted = table[table["note"].notna() & (table["in_sample"] == 0) & ~table["measure"].isin(["log_rank_p"])]
    said: dict[str, list[str]] = {}
    for row in records(noted):
        said.setdefault(str(row.note), []).append(f"{describe(str(row.measure)).title} of {row.procedure}")
    return [f"{listed(list(dict.fromkeys(which)))}: {note}." for note, which in said.items()]


#: The bootstrap's corrected figures, which have intervals.
_CORRECTED = ("optimism_corrected", "point632_plus")


def resampled(models: ModelFolder) -> list[Table]:
    """The bootstrap and permuted endpoints, where they were requested."""
    found = []
    bootstrap = models.table("bootstrap")
    measure = describe(models.headline).title
    if bootstrap is not None:
        rows = [
            (r.procedure, number(r.apparent, 3), number(r.out_of_bag, 3), *(_bounded(r, name) for name in _CORRECTED))
            for r in records(bootstrap)
        ]
        head = ("Procedure", "In-sample (optimistic)", "Out of bag", "Optimism-corrected (95 % CI)", ".632+ (95 % CI)")
        caption = (
            f"Bootstrap of the whole procedure{_draws(models, 'sample')}, {measure}: in-sample; on cases not drawn; "
            "in-sample less the optimism of the bootstrap models (Harrell 1996); and the .632+ mean (Efron and "
            "Tibshirani 1997)."
        )
        if redrawn := int(bootstrap["redrawn"].sum()):
            caption += f" {count(redrawn, 'sample')} without an event or a class were drawn again."
        found.append(Table(caption, head, "lvvvv", [Rows("", rows)]))
    permutation = models.table("permutation")
    if permutation is not None:
        figures = ("observed", "permuted_median", "permuted_greatest")
        rows = [
            (r.procedure, *(number(getattr(r, name), 3) for name in figures), p_number(r.p))
            for r in records(permutation)
        ]
        head = ("Procedure", "Held-out", "Permuted, median", "Permuted, greatest", "p")
        caption = (
            f"{measure} of held-out cases, and of the same procedure with permuted endpoints"
            f"{_draws(models, 'permutation')}; p is the share at least as good, the observed one included."
        )
        found.append(Table(caption, head, "lnnnn", [Rows("", rows)]))
    return found


def _bounded(row: Any, name: str) -> str:
    return breakable(with_interval(getattr(row, name), getattr(row, f"{name}_lower"), getattr(row, f"{name}_upper"), 3))


def _draws(models: ModelFolder, what: str) -> str:
    draws = (models.summary.get("validation") or {}).get("draws")
    return f" ({count(int(draws), what)})" if draws else ""


#: Panels of calibration curves that a page has room for.
_MOST_PANELS = 6


def calibration(models: ModelFolder) -> Picture | None:
    """Observed against predicted risk of the final procedure."""
    part = models.primary_rows("calibration")
    if part is None:
        return None
    panels = _panels(models, part)[:_MOST_PANELS]
    what = "probability" if models.classes else "risk of the event"
    kaplan = "Aalen and Johansen’s estimate" if models.summary.get("n_competing") else "Kaplan-Meier’s estimate"
    kaplan = "observed share" if models.classes else kaplan
    points = f"Points: groups of equal size by predicted {what}, against their {kaplan} with its 95 % interval; line: "
    if not (part["kind"] == "group").any():  # where cases enter late
        points = "Line: a Cox model of the prediction, "
    return Picture(
        "calibration",
        _draw_calibration(panels, what),
        part,
        f"Calibration of {models.primary}: observed against predicted {what}, a panel each for "
        f"{listed([title for title, _ in panels])}.",
        f"Calibration of “{models.primary}”. {HELD_OUT} {points}smoothed. On the dotted diagonal predictions are right."
        f"{of_held_out(models)}",
    )


def _panels(models: ModelFolder, part: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Rows by horizon or class, with their title."""
    if models.classes:
        return [(f"class {name}", rows) for name, rows in part.groupby("class", sort=False)]
    horizons = sorted(part["horizon_days"].unique().tolist())
    return [(span(days), part[part["horizon_days"] == days]) for days in horizons]


def of_held_out(models: ModelFolder) -> str:
    """The range of predictions of nine in ten held-out cases of the final procedure; empty where it is not known."""
    own = models.primary_rows("predictions")
    if own is None:
        return ""
    found = []
    for name in own.columns:
        kind, _, key = str(name).partition("_")
        values = own[name].to_numpy(dtype=float) if kind in ("survival", "probability") else np.zeros(0)
        if len(values) and np.isfinite(values).all():
            lower, upper = np.percentile(1 - values if kind == "survival" else values, [5, 95])
            where = f"at {span(float(key))}" if kind == "survival" else f"for class {key}"
            found.append(f"{interval(lower, upper)} {where}")
    if len(found) == 2 and models.classes:
        found = found[1:]
    return f" Nine in ten predictions lie from {listed(found)}." if found else ""


@svg
def _draw_calibration(panels: Sequence[tuple[str, pd.DataFrame]], what: str) -> Figure:
    """Observed against predicted, a panel per horizon or class.

    Parameters
    ----------
    panels
        Title and rows; columns ``kind`` (``group`` for points with an interval, else the smooth curve), ``predicted``,
        ``observed``, ``lower``, ``upper``.
    what
        The risk's name in the axes' labels.
    """
    rows, columns = _grid(len(panels))
    width = canvas.FULL_WIDTH if columns > 1 else 3.7
    figure = canvas.new_figure(width, (width / columns + 0.15 * columns - 0.05) * rows)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes, (title, part) in zip(grid.ravel(), panels, strict=False):
        _draw_calibration_panel(axes, part)
        axes.set_title(title)
    for axes in grid.ravel()[len(panels) :]:
        axes.set_axis_off()
    for axes in grid[:, 0]:
        axes.set_ylabel(f"Observed {what}")
    figure.supxlabel(f"Predicted {what}", fontsize=9)
    return figure


def _grid(panels: int) -> tuple[int, int]:
    """Rows and columns for so many panels."""
    columns = 2 if panels == 4 else min(3, panels)
    return -(-panels // columns), columns


def _draw_calibration_panel(axes: Axes, part: pd.DataFrame) -> None:
    axes.plot([0, 1], [0, 1], color=canvas.INK, linewidth=0.8, linestyle=":")
    grouped = (part["kind"] == "group").to_numpy()
    smooth = part[~grouped].sort_values("predicted")
    if smooth["lower"].notna().any():
        band: dict[str, Any] = {"color": canvas.BLUE, "alpha": 0.15, "linewidth": 0}
        axes.fill_between(smooth["predicted"], smooth["lower"], smooth["upper"], **band)
    axes.plot(smooth["predicted"], smooth["observed"], color=canvas.BLUE)
    groups = part[grouped]
    if len(groups):
        axes.vlines(
            groups["predicted"], groups["lower"], groups["upper"], color=canvas.VERMILION, linewidth=1, clip_on=False
        )
        point: dict[str, Any] = {"color": canvas.VERMILION, "markersize": 4, "clip_on": False, "zorder": 3}
        axes.plot(groups["predicted"], groups["observed"], "o", **point)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ticks = [0, 0.25, 0.5, 0.75, 1]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.set_yticks(ticks, [f"{t:g}" for t in ticks])


def net_benefit(models: ModelFolder) -> Picture | None:
    """Decision curves of the procedures."""
    table = models.table("net_benefit")
    if table is None:
        return None
    shown, note = shown_procedures(models, table)
    panels = _panels(models, table[table["procedure"].isin(shown)])[:_MOST_PANELS]
    return Picture(
        "net_benefit",
        _draw_net_benefit(panels, shown),
        table,
        f"Decision curves of {listed(shown)} with treat all and treat none over threshold probabilities.",
        "Decision curves (net benefit, Vickers and Elkin 2006; for censored outcomes Vickers et al. 2008): true "
        "positives less false positives weighted by the odds of the threshold, per case. A procedure is useful at a "
        "threshold where its curve lies above both “treat all” and “treat none”. Thresholds are drawn within the "
        f"range of predictions; band: 95 % interval of “{shown[0]}”. {HELD_OUT}{note}",
    )


@svg
def _draw_net_benefit(panels: Sequence[tuple[str, pd.DataFrame]], procedures: Sequence[str]) -> Figure:
    """Decision curves: a panel per horizon or class, with the benefit of treating all and none.

    Parameters
    ----------
    panels
        Title and rows; columns ``procedure``, ``threshold``, ``net_benefit``, ``treat_all``.
    procedures
        Those that are drawn.
    """
    rows, columns = _grid(len(panels))
    figure = canvas.new_figure(canvas.FULL_WIDTH, 2.3 * rows + 1)
    every = figure.subplots(rows, columns, squeeze=False, sharey=True)
    grid = every.ravel()
    for axes, (title, part) in zip(grid, panels, strict=False):
        _draw_decision_panel(axes, part, procedures)
        axes.set_title(title)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    for axes in every[:, 0]:
        axes.set_ylabel("Net benefit")
    top = max(0.01, *(float(part[["net_benefit", "treat_all"]].max().max()) for _, part in panels))
    grid[0].set_ylim(-0.12 * top, 1.08 * top)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3)
    figure.supxlabel("Threshold probability", fontsize=9)
    return figure


def _draw_decision_panel(axes: Axes, part: pd.DataFrame, procedures: Sequence[str]) -> None:
    axes.axhline(0, color=canvas.INK, linewidth=0.8, label="treat none")
    everyone = part.drop_duplicates("threshold").sort_values("threshold")
    axes.plot(everyone["threshold"], everyone["treat_all"], color=canvas.GREY, linewidth=1, label="treat all")
    first = part[part["procedure"] == procedures[0]].sort_values("threshold")
    band: dict[str, Any] = {"color": canvas.LINES[0][0], "alpha": 0.15, "linewidth": 0}
    axes.fill_between(first["threshold"], first["lower"], first["upper"], **band)
    for i, (name, (colour, dashes)) in enumerate(zip(procedures, canvas.LINES, strict=False)):
        own = part[part["procedure"] == name].sort_values("threshold")
        line = {"color": colour, "linestyle": dashes, "label": clipped(name), "zorder": 3 - 0.1 * i}
        axes.plot(own["threshold"], own["net_benefit"], **line)
    axes.set(xlim=_deciding(part))
    canvas.light_grid(axes, "y")


def _deciding(part: pd.DataFrame) -> tuple[float, float]:
    """From where to where thresholds decide: some cases, and not all, are treated by one of the procedures."""
    all_alike = np.isclose(part["net_benefit"], part["treat_all"], atol=1e-9) | (part["net_benefit"] == 0)
    deciding = part["threshold"][~all_alike]
    if deciding.empty:
        return 0.0, 1.0
    return max(0.0, float(deciding.min()) - 0.04), min(1.0, float(deciding.max()) + 0.04)


#: Heading, what draws its part, and the file that it needs.
_SURVIVAL: tuple[tuple[str, Callable[[ModelFolder], Picture | None], str], ...] = (
    ("Discrimination over time", auc_over_time, "auc_t.csv"),
    ("Calibration", calibration, "calibration.csv"),
    ("Risk groups", kaplan_meier, "kaplan_meier.csv"),
    ("Net benefit", net_benefit, "net_benefit.csv"),
)
_CLASSES: tuple[tuple[str, Callable[[ModelFolder], Picture | None], str], ...] = (
    ("ROC curve", roc, "roc.csv"),
    ("Confusion matrix", confusion, "confusion.csv"),
    ("Calibration", calibration, "calibration.csv"),
    ("Net benefit", net_benefit, "net_benefit.csv"),
)
