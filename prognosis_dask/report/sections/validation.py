"""Validation: how well the procedures predict cases that they have not seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from prognosis_dask.errors import count
from prognosis_dask.modelling.folder import ModelFolder
from prognosis_dask.report.content import Block, Picture, Rows, Section, Table, Text, absent, or_absent, titled
from prognosis_dask.report.read import records
from prognosis_dask.report.sections.calibration import calibration, net_benefit
from prognosis_dask.report.sections.comparison import differences_blocks, honesty_blocks, performance
from prognosis_dask.report.sections.discrimination import auc_over_time, confusion, roc
from prognosis_dask.report.sections.influence import influence
from prognosis_dask.report.sections.survival_curves import kaplan_meier
from prognosis_dask.report.words import breakable, describe, listed, number, p_number, span, with_interval


def no_model(models: ModelFolder | None, *, wanted: bool = True) -> str:
    """Why there is no model to report; empty where there is one."""
    if models is None:
        return "This run holds no model." if wanted else "The job has the model switched off (model.enabled)."
    return f"No model was fitted: {models.not_fitted}" if models.not_fitted else ""


def validation(models: ModelFolder | None, *, wanted: bool = True) -> Section:
    """How well the procedures predict cases that they have not seen, and what in-sample figures would have said.

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
        f"{f', which are known by {by}' if by else ''}: it knows their very features. On them its figures are "
        "in-sample, and this is no external validation."
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
    """Why a figure is missing, or what it leaves out."""
    table = models.table("measures")
    if table is None:
        return []
    noted = table[table["note"].notna() & ~table["measure"].isin(["log_rank_p"])]
    said: dict[str, list[str]] = {}
    for row in records(noted):
        said.setdefault(str(row.note), []).append(f"{describe(str(row.measure)).title} of {row.procedure}")
    return [f"{listed(list(dict.fromkeys(which)))}: {note}." for note, which in said.items()]


#: The bootstrap's corrected figures, which have intervals.
_CORRECTED = ("optimism_corrected", "point632_plus")


def resampled(models: ModelFolder) -> list[Table]:
    """What the bootstrap and permuted endpoints say, where they were asked for."""
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
            f"Bootstrap of the whole procedure{_draws(models, 'sample')}, {measure}: in-sample, of the cases that were "
            "not drawn, in-sample less the optimism of models of drawn cases (Harrell 1996), and the .632+ mean (Efron "
            "and Tibshirani 1997)."
        )
        if redrawn := int(bootstrap["redrawn"].sum()):
            caption += f" {count(redrawn, 'sample')} that no model could be learnt from (no event drawn) drawn again."
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
            f"{measure} of held-out cases, and what the same procedure finds when the endpoints are permuted"
            f"{_draws(models, 'permutation')}; p is the share at least as good, the observed one counted in."
        )
        found.append(Table(caption, head, "lnnnn", [Rows("", rows)]))
    return found


def _bounded(row: Any, name: str) -> str:
    return breakable(with_interval(getattr(row, name), getattr(row, f"{name}_lower"), getattr(row, f"{name}_upper"), 3))


def _draws(models: ModelFolder, what: str) -> str:
    draws = (models.summary.get("validation") or {}).get("draws")
    return f" ({count(int(draws), what)})" if draws else ""
