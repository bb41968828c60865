"""The tables of the report that come from a folder of models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from prognosis_dask.errors import count
from prognosis_dask.report.content import Rows, Table
from prognosis_dask.report.headline import headline
from prognosis_dask.report.measures import describe
from prognosis_dask.report.model_figures import MAX_FOREST_ROWS, strongest
from prognosis_dask.report.model_folder import ModelFolder
from prognosis_dask.report.records import records
from prognosis_dask.report.words import breakable, interval, listed, number, p_number, span, with_interval

#: Events per variable below which a model is said to be overfitted easily (Peduzzi et al., J Clin Epidemiol 48, 1995).
FEW_EVENTS = 10

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
    table = models.table("measures", "procedure", "measure", "horizon_days", "value", "lower", "upper", "in_sample")
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
    main = headline(models)
    beside = main in shown and any(part["in_sample"].fillna(0).astype(int).any() for _, part in parts)
    if beside:
        head.insert(2, f"{describe(main).title}, in-sample (optimistic)")
    groups = []
    for title, part in parts:
        inside = part["in_sample"].fillna(0).astype(int) == 1
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
    table = models.table("measures", "procedure", "measure", "note")
    if table is None:
        return []
    noted = table[table["note"].notna() & ~table["measure"].isin(["log_rank_p"])]
    said: dict[str, list[str]] = {}
    for row in records(noted):
        said.setdefault(str(row.note), []).append(f"{describe(str(row.measure)).title} of {row.procedure}")
    return [f"{listed(list(dict.fromkeys(which)))}: {note}." for note, which in said.items()]


def differences(models: ModelFolder) -> Table | None:
    """Differences of the headline measure between procedures, with both tests."""
    table = models.table(
        "differences", "a", "b", "measure", "difference", "lower", "upper", "p_corrected", "p_holm", "p_wilcoxon"
    )
    main = headline(models)
    part = None if table is None else table[table["measure"] == main]
    if part is None or part.empty:
        return None
    halves = (models.summary.get("validation") or {}).get("halves")
    quoted = "p" if halves else "p_corrected"
    how = (
        "delete-half jackknife of the whole validation, training included (Shao and Wu 1989)"
        if halves
        else "resampled t-test that allows for the folds’ shared training cases (Nadeau and Bengio 2003)"
    )
    rows = [
        (f"{r.a} less {r.b}", number(r.difference, 3), interval(r.lower, r.upper, 3), p_number(getattr(r, quoted)),
         p_number(r.p_holm), p_number(r.p_wilcoxon))
        for r in records(part)
    ]  # fmt: skip
    return Table(
        f"Differences in {describe(main).title} between procedures on the same folds. Interval and p: {how}. "
        f"Holm: the same p for {count(len(part), 'pair')} tested at once (Holm 1979). Wilcoxon: "
        "signed-rank test over the folds, as the reference study used it; it takes the folds as independent, so its p "
        "is too small. Other measures: models/differences.csv.",
        ("Procedures", "Difference", "95 % CI", "p", "p, Holm", "p, Wilcoxon"),
        "lnnnnn",
        [Rows("", rows)],
    )


def events_per_variable(models: ModelFolder) -> Table | None:
    """Events of the training folds (of classes: cases of the rarest one) per feature in the model."""
    folds = models.table("folds", "procedure", "n_train", "n_features")
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
    return " Counted are cases, of which a patient may have several: of patients there are fewer." if several else ""


def _median_range(values: pd.Series, digits: int) -> str:
    low, middle, high = (float(v) for v in np.percentile(values, [0, 50, 100]))
    text = f"{middle:.{digits}f}"
    return text if low == high else f"{text} ({low:.{digits}f} to {high:.{digits}f})"


def few_events(models: ModelFolder) -> str:
    """A warning where the final model has few events per variable; empty where it has enough."""
    chosen = models.frozen.fitted.chosen if models.frozen is not None else models.table("coefficients", "feature")
    if chosen is None or not len(chosen):
        return ""
    classes = models.summary.get("classes")
    events = min(classes.values()) if classes else int(models.summary.get("n_events", 0))
    ratio = events / len(chosen)
    if ratio >= FEW_EVENTS:
        return ""
    told = f"{count(events, 'case')} of the rarest class" if classes else count(events, "event")
    return (
        f"Few events per variable: {told} for {count(len(chosen), 'feature')} in the final model, {ratio:.1f} each; "
        f"{FEW_EVENTS} or more are usually asked for. Its coefficients rest on the penalty as much as on data."
    )


def coefficients(models: ModelFolder) -> Table | None:
    """The final model's coefficients."""
    table = models.table("coefficients", "feature", "coef", "se", "hazard_ratio", "lower_95", "upper_95", "p")
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
        caption += ". With such a penalty coefficients have no standard errors."
        return Table(caption, ("Feature", "Coefficient", short), "lnn", [Rows("", short_rows)])
    rows = [
        (r.feature, number(r.coef, digits), number(r.se, digits), number(r.hazard_ratio, digits - 1),
         interval(r.lower_95, r.upper_95, digits - 1),
         p_number(r.p))
        for r in records(table)
    ]  # fmt: skip
    return Table(
        f"{caption}; CI: confidence interval. The model is penalised, and fitted on the cases that its features were "
        "chosen on where any were chosen: these intervals and p values describe it, and are no evidence for a feature.",
        ("Feature", "Coefficient", "SE", short, "95 % CI", "p"),
        "lnnnnn",
        [Rows("", rows)],
    )


def _digits(coefficient: pd.Series) -> int:
    """Decimals that show two figures of the largest coefficient: three, more where a penalty leaves it small."""
    largest = float(coefficient.abs().max())
    return 3 if largest >= 0.01 or largest == 0 else min(8, 2 - int(np.floor(np.log10(largest))))


def proportional_hazards(models: ModelFolder) -> Table | None:
    """The check of proportional hazards, those most in doubt first."""
    table = models.table("ph", "feature", "statistic", "p")
    if table is None:
        return None
    rows = [(r.feature, number(r.statistic), p_number(r.p)) for r in records(table.sort_values("p", kind="stable"))]
    doubtful = int((table["p"] < 0.05).sum())
    return Table(
        "Proportional hazards: scaled Schoenfeld residuals against time (Grambsch and Therneau 1994). "
        f"{doubtful} of {len(table)} below p = 0.05, where {0.05 * len(table):.1f} are expected by chance.",
        ("Feature", "Statistic", "p"),
        "lnn",
        [Rows("", rows)],
    )


def added_value(models: ModelFolder) -> Table | None:
    """What features add to volume and stage."""
    table = models.table("added", "base", "added", "test", "statistic", "df", "p", "delta_c", "lower", "upper")
    if table is None:
        return None
    known = {"volume", "stage", "volume + stage", models.primary}
    shown = table[table["base"].isin(known) & table["added"].isin(known)]
    shown = table if shown.empty else shown
    over_patients = "Wald’s test with its variance over patients, who have several cases"
    tests = over_patients if any(str(test).startswith("Wald") for test in shown["test"]) else "likelihood-ratio test"
    scatter = (
        " Such a score’s χ² and p are corrected for how much it scatters between random halves of the patients."
        if any("delete-half" in str(test) for test in shown["test"])
        else ""
    )
    others = " Other procedures: models/added.csv." if len(shown) < len(table) else ""
    rows = [
        (r.base, r.added, number(r.statistic), number(r.df, 0), p_number(r.p),
         with_interval(r.delta_c, r.lower, r.upper, 3))
        for r in records(shown)
    ]  # fmt: skip
    return Table(
        f"What is added to a model of what is known without it: {tests}, and the change in Harrell’s C with its 95 % "
        f"interval. A procedure stands for itself by its held-out risk score.{scatter}{others}",
        ("Known", "Added", "χ²", "df", "p", "Change in C"),
        "llnnnn",
        [Rows("", rows)],
    )
