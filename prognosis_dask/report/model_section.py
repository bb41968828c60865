"""The sections on the model: how well it predicts cases that it has not seen, and what it is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pandas as pd

from prognosis_dask.errors import count
from prognosis_dask.report import (
    class_pictures,
    comparison_figures,
    model_figures,
    model_pictures,
    model_spread,
    model_tables,
    resampled_tables,
)
from prognosis_dask.report.content import Block, Heading, Section, Table, Text, absent
from prognosis_dask.report.headline import estimate, headline, verdict
from prognosis_dask.report.measures import describe
from prognosis_dask.report.model_chart import nomogram_picture
from prognosis_dask.report.model_folder import ModelFolder
from prognosis_dask.report.picture import Picture
from prognosis_dask.report.words import listed, with_interval

#: Heading, what draws its part, and the file that it needs.
_SURVIVAL: tuple[tuple[str, Callable[[ModelFolder], Picture | None], str], ...] = (
    ("Discrimination over time", model_pictures.auc_over_time, "auc_t.csv"),
    ("Calibration", model_pictures.calibration, "calibration.csv"),
    ("Risk groups", model_pictures.kaplan_meier, "kaplan_meier.csv"),
    ("Net benefit", model_pictures.net_benefit, "net_benefit.csv"),
)
_CLASSES: tuple[tuple[str, Callable[[ModelFolder], Picture | None], str], ...] = (
    ("ROC curve", class_pictures.roc, "roc.csv"),
    ("Confusion matrix", class_pictures.confusion, "confusion.csv"),
    ("Calibration", model_pictures.calibration, "calibration.csv"),
    ("Net benefit", model_pictures.net_benefit, "net_benefit.csv"),
)


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
        blocks.append(Text(_not_external(met, int(models.summary["n_cases"])), "warning"))
    resampled = resampled_tables.resampled(models)
    if resampled and models.table("measures") is None:
        return Section("validation", title, [*blocks, *resampled])
    blocks += _part("Comparison", _or_absent(model_pictures.performance(models), "measures.csv"))
    blocks += model_tables.measures(models)
    blocks += [Text(note, "note") for note in model_tables.measure_notes(models)]
    blocks += _differences(models)
    blocks += _honesty(models)
    for heading, draw, file in _CLASSES if models.classes else _SURVIVAL:
        blocks += _part(heading, _or_absent(draw(models), file))
    return Section("validation", title, blocks)


def _design(models: ModelFolder) -> str:
    if models.external:
        cohort = "" if models.summary.get("met_before") else "External validation: fitted on another cohort, "
        return f"{cohort}{'the' if cohort else 'The'} model in {models.primary} predicts these cases as it is."
    said = [model_pictures.of_procedures(models.names)] if models.names else []
    folds = models.table("folds", "procedure", "repeat", "fold")
    if folds is not None:
        repeats, per = folds["repeat"].nunique(), folds["fold"].nunique()
        said.append(
            f"Nested cross-validation, {count(repeats, 'repeat')} of {per} folds, patients split: everything that "
            "learns from cases (imputation, scaling, selection, tuning, the model) saw the training cases alone."
        )
    found = estimate(models)
    if found is not None and models.fitted:
        title = describe(headline(models)).title
        said.append(f"The final model is “{models.primary}”; on held-out cases it has {title} {with_interval(*found)}.")
    return " ".join(said)


def _not_external(met: int, cases: int) -> str:
    return (
        f"The model was fitted on {met} of these {count(cases, 'case')}: it knows their very features. On them its "
        "figures are in-sample, and this is no external validation."
    )


def _differences(models: ModelFolder) -> list[Block]:
    figure, table = model_pictures.differences(models), model_tables.differences(models)
    if figure is None and table is None:
        if models.external:
            return []
        one = len(models.names) < 2
        said = "One procedure was fitted, so there is nothing to compare." if one else _missing("differences.csv")
        return [Heading("Which differences are real"), absent(said)]
    return [Heading("Which differences are real"), *_optional(figure), *_optional(table)]


def _honesty(models: ModelFolder) -> list[Block]:
    """In-sample beside honest, with what chance gives."""
    if models.external:
        return []
    figure, said = model_pictures.in_sample_curve(models), verdict(models)
    blocks: list[Block] = [Text(said, "warning")] if said else []
    if figure is None:
        ranked = any(procedure.get("selector") for procedure in models.procedures.values())
        said = (
            _missing("curve.csv") if ranked or not models.procedures else "No procedure ranks its features: no curve."
        )
        blocks.append(absent(said))
    blocks += _optional(figure)
    return [Heading("What in-sample figures would have said"), *blocks] if blocks else []


def final_model(models: ModelFolder | None) -> Section:
    """What the final model is made of."""
    title = "Final model"
    if models is None or no_model(models):
        return Section("model", title, [absent(no_model(models))])
    if not models.fitted:
        return Section("model", title, [absent(_no_final_model(models)), *(Text(n, "note") for n in notes(models))])
    warning = model_tables.few_events(models)
    blocks: list[Block] = [Text(_counts(models))]
    blocks += [Text(note, "note") for note in notes(models)]
    blocks += _part("Events per variable", _or_absent(model_tables.events_per_variable(models), "folds.csv"))
    blocks += [Text(warning, "warning")] if warning else []
    blocks += _part("Selection stability", selection(models) or absent(_no_selection(models)))
    if not models.classes or models.table("coefficients") is not None:
        blocks += _part("Coefficients", _or_absent(forest(models), "coefficients.csv"))
        blocks += _optional(model_tables.coefficients(models))
    if not models.classes:
        blocks += _part("Proportional hazards", model_tables.proportional_hazards(models) or absent(_untested(models)))
    nomogram = _missing("model.json") if models.frozen is None else nomogram_picture(models.frozen)
    blocks += _part("Nomogram", absent(nomogram) if isinstance(nomogram, str) else nomogram)
    blocks += [model_spread.of_final_model(models)] if models.summary.get("spread") else []
    if not models.classes:
        blocks += _part("Beyond size and stage", _or_absent(correlation(models), "correlation.csv"))
        blocks += [_or_absent(model_tables.added_value(models), "added.csv")]
    return Section("model", title, blocks)


def _untested(models: ModelFolder) -> str:
    """Why proportional hazards were not tested."""
    learner = str((models.procedures.get(models.primary) or {}).get("learner") or "cox")
    if learner != "cox":
        return f"Not tested: the final model ({learner}) is not Cox’s."
    if models.frozen is not None and len(models.frozen.fitted.chosen) >= int(models.summary.get("n_events") or 0):
        return "Not tested: with no fewer features than events there is no variance to test with."
    return _missing("ph.csv")


def _no_final_model(models: ModelFolder) -> str:
    if models.external:
        return f"The model was fitted elsewhere: the report of {models.primary} says what it is made of."
    return "No final model was fitted here: procedures were validated only. `prognosis fit` fits one."


def _part(heading: str, block: Block) -> list[Block]:
    return [Heading(heading), block]


def _optional(block: Picture | Table | None) -> list[Block]:
    return [] if block is None else [block]


def _or_absent(block: Picture | Table | None, file: str) -> Block:
    return absent(_missing(file)) if block is None else block


def _missing(file: str) -> str:
    return f"Not shown: models/{file} was not written for this model."


def _counts(models: ModelFolder) -> str:
    summary = models.summary
    text = f"“{models.primary}”" if models.primary else "The model"
    text += f", fitted on {count(summary['n_cases'], 'case')} of {count(summary['n_patients'], 'patient')}"
    if models.classes:
        by_class = summary.get("classes") or {}
        told = (
            listed([f"{n} of class {name}" for name, n in by_class.items()])
            if isinstance(by_class, Mapping) and by_class
            else ""
        )
        return f"{text}{': ' + told if told else ''}."
    return f"{text}, {summary['n_events']} of them with the event."


def notes(models: ModelFolder) -> list[str]:
    """What the fit had to say, and which cases are not in the model."""
    found = models.summary.get("notes") or []
    left_out = ", ".join(f"{reason} ({n})" for reason, n in (models.summary.get("left_out") or {}).items())
    told = [f"Cases of the feature table that are not in the model: {left_out}."] if left_out else []
    return told + ([found] if isinstance(found, str) else [str(note) for note in found])


def selection(models: ModelFolder) -> Picture | None:
    """How often the outer folds chose each feature."""
    table = models.table("selection", "procedure", "feature", "share")
    if table is None:
        return None
    rows = table[(table["procedure"] == models.primary) & (table["share"] > 0)]
    rows = rows.sort_values("share", ascending=False, kind="stable")
    if rows.empty or _takes_all(models, rows):
        return None
    always, shown = int((rows["share"] >= 0.8).sum()), min(len(rows), comparison_figures.MAX_ROWS)
    which = f"the {shown} most frequent of {len(rows)}" if shown < len(rows) else "all that were ever chosen"
    return Picture(
        "selection_stability",
        comparison_figures.selection_stability(rows),
        rows,
        f"Share of the outer folds that chose each feature; 80 % or more chose {always} of {len(rows)}.",
        f"Selection stability of “{models.primary}”: in which share of the outer folds each feature was chosen "
        f"({which}).{_forced(models)} 80 % of the folds or more chose {always} of "
        f"{count(len(rows), 'feature')}; what a few folds choose is not a finding.",
    )


def _takes_all(models: ModelFolder, rows: pd.DataFrame) -> bool:
    """Whether the procedure has no selector, and every fold's model all features: then there is no figure to draw."""
    selector = (models.procedures.get(models.primary) or {}).get("selector")
    return selector == "" and bool((rows["share"] == 1).all())


def _no_selection(models: ModelFolder) -> str:
    table = models.table("selection", "procedure", "feature", "share")
    rows = None if table is None else table[(table["procedure"] == models.primary) & (table["share"] > 0)]
    if rows is None or rows.empty or not _takes_all(models, rows):
        return _missing("selection.csv")
    return (
        f"“{models.primary}” does not choose: all {count(len(rows), 'feature')} are in the model of every fold, by "
        "decision and not because they were found."
    )


def _forced(models: ModelFolder) -> str:
    """The families that selection does not choose from."""
    forced = (models.procedures.get(models.primary) or {}).get("forced") or ()
    return f" Always in, by decision and not by selection: {listed(list(forced))}." if forced else ""


def forest(models: ModelFolder) -> Picture | None:
    """Hazard or odds ratios of the final model."""
    table = models.table("coefficients", "feature", "coef", "se", "hazard_ratio", "lower_95", "upper_95")
    if table is None:
        return None
    shown = min(len(table), model_figures.MAX_FOREST_ROWS)
    ratio, worse = ("Odds", _higher_odds(models)) if models.classes else ("Hazard", "a worse outcome")
    which = f"the {shown} of {len(table)} that matter most" if shown < len(table) else "all"
    return Picture(
        "forest",
        model_figures.forest(table, f"{ratio} ratio"),
        table,
        f"{ratio} ratios with 95 % intervals of {count(shown, 'feature')}; the values are in the table below.",
        f"{ratio} ratios of the final model’s features ({which}). A ratio above 1 means {worse} for higher values.",
    )


def _higher_odds(models: ModelFolder) -> str:
    names = list(models.summary.get("classes") or ())
    return f"higher odds of class {names[1]}" if len(names) == 2 else "higher odds of the second class"


def correlation(models: ModelFolder) -> Picture | None:
    """Pearson's correlation of the selected features with volume and stage."""
    table = models.table("correlation", "feature", "with", "pearson", "lower", "upper")
    if table is None:
        return None
    others = list(dict.fromkeys(table["with"]))
    strong = {other: int((table[table["with"] == other]["pearson"].abs() > 0.7).sum()) for other in others}
    told = ", ".join(f"{n} with {other}" for other, n in strong.items() if n) or "none"
    features = table["feature"].nunique()
    shown = min(features, comparison_figures.MAX_ROWS)
    which = f"the {shown} with the strongest of {features}" if shown < features else "all"
    strongest = table.assign(r=table["pearson"].abs()).groupby("feature")["r"].max().sort_values(ascending=False)
    table = table.set_index("feature").loc[strongest.index].reset_index()
    return Picture(
        "correlation_with_size",
        comparison_figures.correlation_with(table, others),
        table,
        f"Pearson's correlation of {count(features, 'selected feature')} with {listed(others)}; beyond 0.7: {told}.",
        f"Pearson correlation of the selected features ({which}) with {listed(others)}, with 95 % intervals. Beyond "
        f"|r| = 0.7, and so saying little that size or stage does not: {told}.",
    )
