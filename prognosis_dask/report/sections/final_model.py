"""Final model: its features, how stable their selection was, and what they add to size and stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from prognosis_dask.errors import count
from prognosis_dask.modelling.folder import ModelFolder
from prognosis_dask.report import canvas
from prognosis_dask.report.canvas import svg
from prognosis_dask.report.content import (
    Block,
    Picture,
    Rows,
    Section,
    Table,
    Text,
    absent,
    not_written,
    optional,
    or_absent,
    titled,
)
from prognosis_dask.report.read import records
from prognosis_dask.report.sections.comparison import dfbeta
from prognosis_dask.report.sections.nomogram import nomogram_picture
from prognosis_dask.report.sections.validation import no_model
from prognosis_dask.report.words import (
    clipped,
    in_words,
    interval,
    listed,
    number,
    p_number,
    short_name,
    span,
    with_interval,
    without_names,
)

#: Events per variable below which a model is said to be overfitted easily (Peduzzi et al., J Clin Epidemiol 48, 1995).
FEW_EVENTS = 10
#: Features in the forest plot; the table beside it holds them all.
MAX_FOREST_ROWS = 30
_COEFFICIENTS = "models/coefficients.csv"
#: Nine cases in ten whose predictions lie within this hardly differ.
_NARROW = 0.1


def final_model(models: ModelFolder | None) -> Section:
    """The final model."""
    title = "Final model"
    if models is None or no_model(models):
        return Section("model", title, [absent(no_model(models))])
    if not models.fitted:
        return Section("model", title, [absent(_no_final_model(models)), *(Text(n, "note") for n in notes(models))])
    warning = few_events(models)
    blocks: list[Block] = [Text(_counts(models))]
    blocks += [Text(note, "note") for note in notes(models)]
    blocks += titled("Events per variable", or_absent(events_per_variable(models), "folds.csv"))
    blocks += [Text(warning, "warning")] if warning else []
    blocks += titled("Selection stability", stability(models) or absent(no_selection(models)))
    if not models.classes or models.table("coefficients") is not None:
        blocks += titled("Coefficients", or_absent(forest(models), "coefficients.csv"))
        blocks += optional(coefficients(models))
    if not models.classes:
        blocks += titled("Proportional hazards", proportional_hazards(models) or absent(_untested(models)))
    blocks += [*optional(competing(models)), *optional(dfbeta(models))]
    nomogram = not_written("model.json") if models.frozen is None else nomogram_picture(models.frozen)
    blocks += titled("Nomogram", absent(nomogram) if isinstance(nomogram, str) else nomogram)
    blocks += [of_final_model(models)] if models.summary.get("spread") else []
    if not models.classes:
        blocks += titled("Beyond size and stage", or_absent(correlation(models), "correlation.csv"))
        blocks += [or_absent(added_value(models), "added.csv")]
    return Section("model", title, blocks)


def _untested(models: ModelFolder) -> str:
    """Why proportional hazards were not tested."""
    learner = str((models.procedures.get(models.primary) or {}).get("learner") or "cox")
    if learner != "cox":
        return f"Not tested: the final model ({learner}) is not a Cox model."
    if models.frozen is not None and len(models.frozen.fitted.chosen) >= int(models.summary.get("n_events") or 0):
        return "Not tested. The test needs more events than features."
    return not_written("ph.csv")


def _no_final_model(models: ModelFolder) -> str:
    if models.external:
        return f"The model was fitted elsewhere: the report of {models.primary} describes it."
    return "No final model was fitted here: the procedures were only validated. `prognosis fit` fits one."


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
    predicted = models.table("predictions")
    known = set() if predicted is None else {str(name) for of in ("case_id", "patient_id") for name in predicted[of]}
    left_out = ", ".join(f"{in_words(reason)} ({n})" for reason, n in (models.summary.get("left_out") or {}).items())
    excluded = [f"Cases excluded from the model: {left_out}."] if left_out else []
    return excluded + [without_names(str(note), (), known) for note in ([found] if isinstance(found, str) else found)]


def events_per_variable(models: ModelFolder) -> Table | None:
    """Events of the training folds (of classes: cases of the rarest one) per feature in the model."""
    folds = models.table("folds")
    if folds is None:
        return None
    counted = [c for c in folds.columns if c == "events_train" or c.startswith("train_")]
    if not counted:
        return None
    rows = []
    for name in sorted(dict.fromkeys(folds["procedure"]), key=models.names.index):
        part = folds[folds["procedure"] == name]
        events = part[counted].min(axis=1)
        ratio = events / part["n_features"].clip(lower=1)
        few = float((ratio < FEW_EVENTS).mean())
        sizes = (f"{values.median():.0f}" for values in (part["n_train"], events))
        rows.append((name, *sizes, _median_range(part["n_features"], 0), _median_range(ratio, 1), f"{100 * few:.0f} %"))
    what = "Cases of the rarest class" if models.classes else "Events"
    head = ("Procedure", "Cases", what, "Features in the model", f"{what} per feature", f"Folds below {FEW_EVENTS}")
    return Table(
        f"{what} per variable in the training folds, median (range). Below {FEW_EVENTS} an unpenalised model overfits "
        "easily (Peduzzi et al. 1995); with a penalty, and counting every candidate that selection saw, no single "
        f"limit holds.{_counted_in_cases(models)}",
        head,
        "lvvvvv",
        [Rows("", rows)],
    )


def _counted_in_cases(models: ModelFolder) -> str:
    several = models.summary.get("n_cases") != models.summary.get("n_patients")
    return " These are counts of cases; a patient may have several." if several else ""


def _median_range(values: pd.Series, digits: int) -> str:
    low, middle, high = (float(v) for v in np.percentile(values, [0, 50, 100]))
    text = f"{middle:.{digits}f}"
    return text if low == high else f"{text} ({low:.{digits}f} to {high:.{digits}f})"


def few_events(models: ModelFolder) -> str:
    """A warning where the final model has few events per variable; empty where it has enough."""
    chosen = models.frozen.fitted.chosen if models.frozen is not None else models.table("coefficients")
    if chosen is None or not len(chosen):
        return ""
    classes = models.summary.get("classes")
    events = min(classes.values()) if classes else int(models.summary.get("n_events", 0))
    ratio = events / len(chosen)
    if ratio >= FEW_EVENTS:
        return ""
    held = f"{count(events, 'case')} of the rarest class" if classes else count(events, "event")
    return (
        f"Few events per variable: {held} for {count(len(chosen), 'feature')} in the final model, {ratio:.1f} each; "
        f"{FEW_EVENTS} or more are usually required. Its coefficients depend on the penalty as much as on the data."
    )


def forest(models: ModelFolder) -> Picture | None:
    """Hazard or odds ratios of the final model."""
    table = models.table("coefficients")
    if table is None:
        return None
    shown = min(len(table), MAX_FOREST_ROWS)
    ratio, worse = ("Odds", _higher_odds(models)) if models.classes else ("Hazard", "a worse outcome")
    which = f"the {shown} of {len(table)} that matter most" if shown < len(table) else "all"
    return Picture(
        "forest",
        _draw_forest(table, f"{ratio} ratio"),
        table,
        f"{ratio} ratios with 95 % intervals of {count(shown, 'feature')}; the values are in the table below.",
        f"{ratio} ratios of the final model’s features ({which}). A ratio above 1 means {worse} for higher values.",
    )


def _higher_odds(models: ModelFolder) -> str:
    names = list(models.summary.get("classes") or ())
    return f"higher odds of class {names[1]}" if len(names) == 2 else "higher odds of the second class"


@svg
def _draw_forest(coefficients: pd.DataFrame, ratio_name: str) -> Figure:
    """Hazard or odds ratios with 95 % intervals on a logarithmic axis; at most 30, :func:`strongest` first."""
    shown = strongest(coefficients).iloc[::-1]
    rows = np.arange(len(shown))
    figure = canvas.new_figure(canvas.FULL_WIDTH, 1.1 + 0.19 * len(shown))
    axes = figure.subplots()
    ratio, lower, upper = (shown[c].to_numpy(dtype=float) for c in ("hazard_ratio", "lower_95", "upper_95"))
    interval = " (95 % interval)" if np.isfinite(lower).any() else ""
    axes.axvline(1, color=canvas.INK, linewidth=0.8, linestyle=":")
    axes.hlines(rows, lower, upper, color=canvas.BLUE, linewidth=1.3)
    axes.plot(ratio, rows, "s", color=canvas.BLUE, markersize=4.5)
    canvas.log_axis(axes)
    canvas.named_rows(axes, rows, (clipped(short_name(name)) for name in shown["feature"]), 7.5, 0.7)
    axes.set(xlabel=f"{ratio_name} per standard deviation{interval}, log scale")
    axes.spines["left"].set_visible(False)
    return figure


def strongest(coefficients: pd.DataFrame) -> pd.DataFrame:
    """The rows of the forest plot: the largest ``|coef / se|`` first; ``|coef|`` where no error is known."""
    error = coefficients["se"] if coefficients["se"].notna().any() else 1.0
    order = (coefficients["coef"] / error).abs().sort_values(ascending=False, kind="stable")
    return coefficients.loc[order.index[:MAX_FOREST_ROWS]]


def coefficients(models: ModelFolder) -> Table | None:
    """The final model's coefficients."""
    table = models.table("coefficients")
    if table is None:
        return None
    ratio, short = ("odds ratio", "OR") if models.classes else ("hazard ratio", "HR")
    caption = f"The final model, per standard deviation. {short}: {ratio}"
    if len(table) > MAX_FOREST_ROWS:
        caption += f"; the {MAX_FOREST_ROWS} of {len(table)} that matter most, all in models/coefficients.csv"
        table = strongest(table)
    digits = _digits(table["coef"])
    if table["se"].isna().all():
        short_rows = [(r.feature, number(r.coef, digits), number(r.hazard_ratio, digits - 1)) for r in records(table)]
        caption += ". With this penalty coefficients have no standard errors."
        return Table(caption, ("Feature", "Coefficient", short), "lnn", [Rows("", short_rows)], _COEFFICIENTS)
    rows = [
        (r.feature, number(r.coef, digits), number(r.se, digits), number(r.hazard_ratio, digits - 1),
         interval(r.lower_95, r.upper_95, digits - 1),
         p_number(r.p))
        for r in records(table)
    ]  # fmt: skip
    return Table(
        f"{caption}; CI: confidence interval. The model is penalised, and any feature selection was done on the same "
        "cases: these intervals and p values describe the model and are no evidence for a feature.",
        ("Feature", "Coefficient", "SE", short, "95 % CI", "p"),
        "lnnnnn",
        [Rows("", rows)],
        _COEFFICIENTS,
    )


def _digits(coefficient: pd.Series) -> int:
    """Decimals that show two figures of the largest coefficient: three, more where a penalty leaves it small."""
    largest = float(coefficient.abs().max())
    return 3 if largest >= 0.01 or largest == 0 else min(8, 2 - int(np.floor(np.log10(largest))))


def proportional_hazards(models: ModelFolder) -> Table | None:
    """The check of proportional hazards, those most in doubt first."""
    table = models.table("ph")
    if table is None:
        return None
    rows = [(r.feature, number(r.statistic), p_number(r.p)) for r in records(table.sort_values("p", kind="stable"))]
    doubtful = int((table["p"] < 0.05).sum())
    return Table(
        "Proportional hazards: score test of a drift with the rank of time (Grambsch and Therneau 1994; cox.zph of R). "
        f"{doubtful} of {len(table)} below p = 0.05, where {0.05 * len(table):.1f} are expected by chance.",
        ("Feature", "Statistic", "p"),
        "lnn",
        [Rows("", rows)],
        "models/ph.csv",
    )


def competing(models: ModelFolder) -> Table | None:
    """The features in Fine and Gray's and the cause-specific models, where events compete."""
    table = models.table("competing")
    if table is None:
        return None
    rows = [
        (r.feature, number(r.subdistribution), number(r.cause_specific), number(r.of_competing)) for r in records(table)
    ]
    return Table(
        "Competing risks: hazard ratios per standard deviation, with the final model’s penalty. Subdistribution: a "
        "feature’s effect on the incidence of the event (Fine and Gray); cause-specific: its effect on the rate of "
        "each event among cases still free of any.",
        ("Feature", "Subdistribution", "Cause-specific", "Of competing events"),
        "lnnn",
        [Rows("", rows)],
        "models/competing.csv",
    )


def of_final_model(models: ModelFolder) -> Text:
    """Between what nine in ten of the cases that the final model was fitted on are predicted; a warning if narrow."""
    rows = models.summary["spread"]
    ranges = listed([f"{interval(row['lower'], row['upper'], 3)} {_where(row)}" for row in rows])
    what = "a probability" if models.classes else "a survival"
    said = f"For nine in ten of the cases that it was fitted on it predicts {what} of {ranges}."
    if max(row["upper"] - row["lower"] for row in rows) >= _NARROW:
        return Text(said, "note")
    return Text(
        f"The predictions hardly differ. {said} The model ranks the cases but gives all of them nearly the same "
        "prognosis.",
        "warning",
    )


def _where(row: dict[str, float | str]) -> str:
    return f"for class {row['class']}" if "class" in row else f"at {span(float(row['horizon_days']))}"


#: Features in the figures of one row each; the data beside them hold them all.
MAX_ROWS = 30


def stability(models: ModelFolder) -> Picture | None:
    """How often the outer folds chose each feature."""
    rows = models.primary_rows("selection")
    if rows is None or _takes_all(models, rows):
        return None
    rows = rows.sort_values("share", ascending=False, kind="stable")
    always, shown = int((rows["share"] >= 0.8).sum()), min(len(rows), MAX_ROWS)
    which = f"the {shown} most frequent of {len(rows)}" if shown < len(rows) else "all that were ever chosen"
    return Picture(
        "selection_stability",
        _draw_stability(rows),
        rows,
        f"Share of the outer folds that selected each feature; 80 % or more selected {always} of {len(rows)}.",
        f"Selection stability of “{models.primary}”: the share of outer folds that selected each feature "
        f"({which}).{_forced(models)} {always} of {count(len(rows), 'feature')} were selected by 80 % of the folds or "
        "more; a feature that only a few folds select is not a finding.",
    )


def _takes_all(models: ModelFolder, rows: pd.DataFrame) -> bool:
    """Whether the procedure has no selector, and every fold's model all features: then there is no figure to draw."""
    selector = (models.procedures.get(models.primary) or {}).get("selector")
    return selector == "" and bool((rows["share"] == 1).all())


def no_selection(models: ModelFolder) -> str:
    """Why there is no figure of the selection."""
    rows = models.primary_rows("selection")
    if rows is None or not _takes_all(models, rows):
        return not_written("selection.csv")
    return (
        f"“{models.primary}” does not select features: all {count(len(rows), 'feature')} are in the model of every "
        "fold by design."
    )


def _forced(models: ModelFolder) -> str:
    """The families that selection does not choose from."""
    forced = (models.procedures.get(models.primary) or {}).get("forced") or ()
    return f" Always included by design, not by selection: {listed(list(forced))}." if forced else ""


@svg
def _draw_stability(rows: pd.DataFrame) -> Figure:
    """In which share of the outer folds each feature was chosen; the most frequent first."""
    shown = rows.head(MAX_ROWS).iloc[::-1]
    figure = canvas.new_figure(canvas.FULL_WIDTH, 0.8 + 0.17 * len(shown))
    axes = figure.subplots()
    places = np.arange(len(shown))
    axes.barh(places, 100 * shown["share"], color=canvas.BLUE, height=0.65)
    canvas.named_rows(axes, places, (clipped(short_name(name)) for name in shown["feature"]), 7.5)
    axes.set(xlabel="Outer folds that chose the feature (%)", xlim=(0, 100))
    return figure


def correlation(models: ModelFolder) -> Picture | None:
    """Pearson's correlation of the selected features with volume and stage."""
    table = models.table("correlation")
    if table is None:
        return None
    others = list(dict.fromkeys(table["with"]))
    strong = {other: int((table[table["with"] == other]["pearson"].abs() > 0.7).sum()) for other in others}
    beyond = ", ".join(f"{n} with {other}" for other, n in strong.items() if n) or "none"
    features = table["feature"].nunique()
    shown = min(features, MAX_ROWS)
    which = f"the {shown} with the strongest of {features}" if shown < features else "all"
    strongest = table.assign(r=table["pearson"].abs()).groupby("feature")["r"].max().sort_values(ascending=False)
    table = table.set_index("feature").loc[strongest.index].reset_index()
    return Picture(
        "correlation_with_size",
        _draw_correlation(table, others),
        table,
        f"Pearson's correlation of {count(features, 'selected feature')} with {listed(others)}; beyond 0.7: {beyond}.",
        f"Pearson correlation of the selected features ({which}) with {listed(others)}, with 95 % intervals. Beyond "
        f"|r| = 0.7, and so adding little beyond size or stage: {beyond}.",
    )


@svg
def _draw_correlation(rows: pd.DataFrame, others: Sequence[str]) -> Figure:
    """Pearson's correlation of features with size and stage, a panel each.

    Parameters
    ----------
    rows
        Columns ``feature``, ``with``, ``pearson``, ``lower``, ``upper``.
    others
        The values of ``with``, a panel each.
    """
    features = list(dict.fromkeys(rows["feature"]))[:MAX_ROWS]
    figure = canvas.new_figure(canvas.FULL_WIDTH, 1.1 + 0.17 * len(features))
    panels = figure.subplots(1, len(others), squeeze=False, sharey=True)[0]
    place = {name: y for y, name in enumerate(reversed(features))}
    ticks = [-1, -0.5, 0, 0.5, 1] if len(others) < 3 else [-1, 0, 1]
    for axes, other in zip(panels, others, strict=True):
        part = rows[(rows["with"] == other) & rows["feature"].isin(features)]
        y = [place[name] for name in part["feature"]]
        axes.axvline(0, color=canvas.INK, linewidth=0.8, linestyle=":")
        axes.hlines(y, part["lower"], part["upper"], color=canvas.BLUE, linewidth=1.2)
        axes.plot(part["pearson"], y, "o", color=canvas.BLUE, markersize=3.5)
        axes.set(xlim=(-1.05, 1.05))
        axes.set_title(clipped(other, 40 // len(others) + 8), fontsize=9 if len(others) < 4 else 7)
        axes.set_xticks(ticks, [number(t, 1 if t % 1 else 0) for t in ticks])
        axes.tick_params(axis="y", length=0, labelsize=7.5)
        canvas.light_grid(axes, "x")
    panels[0].set_yticks(list(place.values()), [clipped(short_name(name)) for name in place])
    panels[0].set_ylim(-0.7, len(features) - 0.3)
    figure.supxlabel("Pearson’s r", fontsize=9)
    return figure


def added_value(models: ModelFolder) -> Table | None:
    """What features add to volume and stage."""
    table = models.table("added")
    if table is None:
        return None
    known = {"volume", "stage", "volume + stage", models.primary}
    shown = table[table["base"].isin(known) & table["added"].isin(known)]
    shown = table if shown.empty else shown
    over_patients = "Wald’s test, its variance computed over patients, who have several cases"
    tests = over_patients if any(str(test).startswith("Wald") for test in shown["test"]) else "likelihood-ratio test"
    scatter = (
        " The χ² of such a score is corrected for its variation between random halves of the patients; its p value is "
        "one-sided, against no gain."
        if any("one-sided" in str(test) for test in shown["test"])
        else ""
    )
    others = " Other procedures: models/added.csv." if len(shown) < len(table) else ""
    rows = [
        (r.base, r.added, number(r.statistic), number(r.df, 0), p_number(r.p),
         with_interval(r.delta_c, r.lower, r.upper, 3))
        for r in records(shown)
    ]  # fmt: skip
    return Table(
        f"Added value over the known predictors: {tests}, and the change in Harrell’s C with its 95 % interval. A "
        f"procedure is represented by its held-out risk score.{scatter}{others}",
        ("Known", "Added", "χ²", "df", "p", "Change in C"),
        "llnnnn",
        [Rows("", rows)],
    )
