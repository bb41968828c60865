"""Cohort: what the cases are like, by outcome, and what is missing of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from prognosis_dask.arrays import FloatArray
from prognosis_dask.cohort.case import Case
from prognosis_dask.modelling.data.endpoint import Survival
from prognosis_dask.modelling.data.table_one import quartiles
from prognosis_dask.modelling.folder import ModelFolder
from prognosis_dask.modelling.metrics import kaplan_meier
from prognosis_dask.report.content import Block, Rows, Table, Text, absent, optional
from prognosis_dask.report.read import RunFolder, records
from prognosis_dask.report.sections.curves import cumulative_incidence
from prognosis_dask.report.words import breakable, number, span, with_interval, with_powers

#: Covariates in the table of characteristics, and values listed of one of them.
MAX_COVARIATES = 20
MAX_LEVELS = 8
#: Names of :data:`prognosis_dask.cohort.headers.ACQUISITION`.
ACQUIRED = {
    "scanner_maker": "manufacturer",
    "scanner": "scanner",
    "kvp": "tube voltage (kV)",
    "kernel": "reconstruction kernel",
    "slice_thickness_mm": "slice thickness (mm)",
    "field_strength_t": "field strength (T)",
    "repetition_time_ms": "TR (ms)",
    "echo_time_ms": "TE (ms)",
}


def characteristics_blocks(run: RunFolder) -> list[Block]:
    """The cases that were found in numbers, and those of the analysis by outcome."""
    found: list[Block] = []
    rows = characteristics(run)
    if rows:
        caption = "Characteristics of the cases that were found. Continuous values: median (quartiles)."
        found.append(Table(caption, ("Characteristic", "Value"), "lw", [Rows("", rows)]))
    by_outcome = table_one(run.model) if run.model is not None else None
    if by_outcome is not None:
        found.append(by_outcome)
    elif run.model is not None and not run.model.not_fitted:
        found.append(absent("Standardised differences are not shown: models/table1.csv was not written."))
    if run.model is not None:
        found += [*optional(follow_up(run.model)), *optional(cumulative_incidence(run.model))]
    return found or [absent("Nothing is known of the cases.")]


def characteristics(run: RunFolder) -> list[tuple[str, str]]:
    """The cohort in numbers, as a paper's first table: counts, medians with quartiles, levels with their share."""
    cases = run.cases
    if not cases:
        return []
    rows = [
        ("Patients", str(len({case.patient_id for case in cases}))),
        ("Cases", str(len(cases))),
        ("Modality", _levels([case.modality for case in cases])),
        ("Region of interest", _levels([case.roi for case in cases])),
    ]
    # a patient with three cases had one event
    ends = {c.patient_id: (c.time_days, c.event) for c in cases if c.time_days is not None and c.event is not None}
    known = list(ends.values())
    if known or not of_class(run):
        whose = " patients" if len({case.patient_id for case in cases}) < len(cases) else ""
        codes = Counter(event for _, event in known)
        competing = f", {codes[2]} with a competing event" if codes[2] else ""
        rows.append(("Events", f"{codes[1]} of {len(known)}{whose} with a known endpoint{competing}"))
    followed = [(time, event) for time, event in known if time > 0]
    if followed and not (run.job.get("model") or {}).get("entry"):  # with late entry it is that of the analysis below
        rows.append(("Median follow-up (reverse Kaplan-Meier)", median_follow_up(followed)))
    names = list(dict.fromkeys(name for case in cases for name in case.covariates))
    for name in names[:MAX_COVARIATES]:
        text = _covariate(_values_of_patients(cases, name))
        if text:
            rows.append((name, text))
    return [*rows, *_acquired(cases)]


def _acquired(cases: Sequence[Case]) -> list[tuple[str, str]]:
    """What the images were acquired with, of each modality apart; what no header of a modality says is left out."""
    rows = []
    for modality in dict.fromkeys(case.modality for case in cases):
        own = [case for case in cases if case.modality == modality]
        for key, title in ACQUIRED.items():
            values = [case.acquisition.get(key, "").strip() for case in own]
            text = _covariate(values) or (f"{len(set(values) - {''})} different values" if any(values) else "")
            if text:
                rows.append((f"{modality}: {title}", text))
    return rows


def of_class(run: RunFolder) -> bool:
    """Whether the job's endpoint is a class: a column of the clinical table, no survival."""
    return bool((run.job.get("model") or {}).get("label"))


def _values_of_patients(cases: Sequence[Case], name: str) -> list[str]:
    """A covariate's value of each patient; of each case where a patient's cases differ in it."""
    values = [case.covariates.get(name, "").strip() for case in cases]
    of_patient = dict(zip((case.patient_id for case in cases), values, strict=True))
    same = all(of_patient[case.patient_id] == value for case, value in zip(cases, values, strict=True))
    return list(of_patient.values()) if same else values


def median_follow_up(followed: Sequence[tuple[float, int]]) -> str:
    """Median time to censoring, events of any kind taken as censored (Schemper and Smith, 1996), as text."""
    times, events = np.array(followed).T
    median = kaplan_meier.median_follow_up(Survival(times, events > 0))
    return f"{median:.0f} days" if np.isfinite(median) else "not reached"


def _covariate(values: Sequence[str]) -> str:
    known = [value for value in values if value and value.lower() not in ("na", "nan", "n/a")]
    unknown = f"; unknown {len(values) - len(known)}" if len(known) < len(values) else ""
    levels = set(known)
    numbers = _numbers(known)
    # of few cases nearly each has a number of its own
    if numbers is not None and (len(levels) > MAX_LEVELS or (len(levels) > 4 and 2 * len(levels) > len(known))):
        return (quartiles(numbers) or "unknown") + unknown
    if not known or len(levels) > MAX_LEVELS:
        return ""  # free text, or an identifier
    return _levels(known) + unknown


def _numbers(values: Sequence[str]) -> FloatArray | None:
    try:
        return np.array([float(value) for value in values])
    except ValueError:
        return None


def _levels(values: Sequence[str]) -> str:
    counts = Counter(values).most_common()
    shown = [f"{level}: {n} ({100 * n / len(values):.0f} %)" for level, n in counts[:MAX_LEVELS]]
    rest = len(counts) - MAX_LEVELS
    return ", ".join(shown) + (f" and {rest} more" if rest > 0 else "")


def table_one(models: ModelFolder) -> Table | None:
    """The cohort's characteristics by outcome, with standardised differences."""
    table = models.table("table1")
    if table is None:
        return None
    by = [c for c in table.columns if c not in ("variable", "level", "overall", "smd", "missing")]
    groups: list[Rows] = [Rows("", [])]
    for variable, part in table.groupby("variable", sort=False):
        name = with_powers(str(variable))
        levels = [
            (_cell(row["level"]), [_cell(row[c]) for c in ("overall", *by)] + [_smd(row["smd"])])
            for _, row in part.iterrows()
        ]
        lost = part["missing"].iloc[0]
        unknown = f"; missing {lost:g}" if lost > 0 else ""
        if len(levels) > 1:
            groups.append(Rows(f"{name}{unknown}", [[f"\N{EM SPACE}{level}", *cells] for level, cells in levels]))
            continue
        level, cells = levels[0]
        if groups[-1].title:
            groups.append(Rows("", []))
        single = [f"{name}, {level}{unknown}" if level else f"{name}{unknown}", *cells]
        groups[-1] = Rows("", [*groups[-1].rows, single])
    groups = [group for group in groups if group.rows]
    return Table(
        "Characteristics of the cases in the analysis. SMD: standardised difference between the groups (Austin 2009; "
        "below 0.1 is usually taken as balanced).",
        ("Characteristic", "Overall", *(c.replace("_", " ") for c in by), "SMD"),
        "l" + "v" * (len(by) + 1) + "n",
        groups,
    )


def follow_up(models: ModelFolder) -> Table | None:
    """Median follow-up, and events and cases at risk by horizon."""
    table = models.table("follow_up")
    if table is None:
        return None
    median = models.summary.get("median_follow_up_days")
    told = f"Median follow-up {median:.0f} days" if median is not None else "Median follow-up is not reached"
    competes = "competing" in table.columns
    estimate = "one minus the event’s cumulative incidence" if competes else "Kaplan-Meier’s survival"
    rows = [
        (span(r.horizon_days), f"{r.events:.0f}", *([f"{r.competing:.0f}"] if competes else []), f"{r.censored:.0f}",
         f"{r.beyond:.0f}", with_interval(100 * r.survival, 100 * r.lower, 100 * r.upper, 0))
        for r in records(table)
    ]  # fmt: skip
    late = " Cases enter late: “followed beyond” counts those that had entered by then."
    return Table(
        f"{told} (reverse Kaplan-Meier estimate); cases by horizon; {estimate}, 95 % interval."
        f"{late if 'n_entered_late' in models.summary else ''}",
        (
            "By",
            "Event",
            *(["Competing"] if competes else []),
            "Censored",
            "Followed beyond",
            "Free of it (%)" if competes else "Survival (%)",
        ),
        "lnnnnn" if competes else "lnnnn",
        [Rows("", rows)],
    )


def _smd(value: object) -> str:
    return number(float(value)) if isinstance(value, int | float) and np.isfinite(value) else ""


def _cell(value: object) -> str:
    """A cell, which may break before its bracket."""
    return "" if value is None or (isinstance(value, float) and np.isnan(value)) else breakable(str(value))


def missing_blocks(run: RunFolder) -> list[Block]:
    """What is missing of the cases of the analysis."""
    table = _missing_table(run.model) if run.model is not None else None
    if table is not None:
        return [table]
    if run.model is None or run.model.table("table1") is None:
        return [absent("Missing clinical values were not counted: models/table1.csv was not written.")]
    return [Text("No variable of the table above is missing in any case.")]


def _missing_table(models: ModelFolder) -> Table | None:
    """Missing values by variable, where there are any."""
    table = models.table("table1")
    cases = models.summary.get("n_cases")
    if table is None:
        return None
    rows = table.drop_duplicates("variable")
    rows = rows[rows["missing"] > 0]
    if rows.empty:
        return None
    body = [
        (
            with_powers(r.variable),
            f"{r.missing:.0f}",
            f"{100 * r.missing / cases:.1f} %" if isinstance(cases, int) and cases else "–",
        )
        for r in records(rows.sort_values("missing", ascending=False, kind="stable"))
    ]
    return Table(
        "Missing values of the cases in the analysis. They are replaced by the training cases’ median in each fold.",
        ("Variable", "Cases without it", "Share"),
        "lnn",
        [Rows("", body)],
        "models/table1.csv",
    )
