"""The report's tables: who passed which step, what failed, who is in the cohort, which features there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from prognosis_dask.arrays import FloatArray
from prognosis_dask.cohort.case import Case
from prognosis_dask.errors import Problem
from prognosis_dask.report.read import STAGES, RunFolder, enabled_stages

#: Covariates in the table of characteristics, and values listed of one of them.
MAX_COVARIATES = 20
MAX_LEVELS = 8


@dataclass(frozen=True)
class FlowStep:
    """One box of the flow diagram, and what was left out on the way into it: (reason, cases)."""

    title: str
    cases: int
    patients: int | None
    left_out: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class ProblemGroup:
    """Every problem with one code."""

    code: str
    problems: tuple[tuple[str, Problem], ...]
    """(stage, problem); the stage is ``index`` for what never became a case."""


@dataclass(frozen=True)
class Family:
    """Features that share a kind, and how many of their values are unusable.

    ``missing`` is the share of values that are not finite, over the cases whose stage is done; ``constant`` counts
    features that have the same value in every case.
    """

    name: str
    features: int
    missing: float
    constant: int


def flow(run: RunFolder) -> list[FlowStep]:
    """Cases found, with features, with an endpoint, in the model; of models alone, those of the table."""
    if not run.info:
        return _table_flow(run)
    cases = list(run.cases)
    steps = [_step("Cases found", cases)]
    needed = _needed_stages(run)
    reasons: Counter[str] = Counter()
    usable = []
    for case in cases:
        reason = _why_unusable(run, case, needed)
        if reason:
            reasons[reason] += 1
        else:
            usable.append(case)
    steps.append(_step("With features", usable, reasons))
    if _of_class(run):
        return [*steps, *_class_step(run, len(usable))]
    known = [case for case in usable if case.time_days is not None and case.event is not None]
    steps.append(_step("With a known endpoint", known, Counter({"no endpoint": len(usable) - len(known)})))
    if run.model is not None and not run.model.not_fitted:
        summary = run.model.summary
        modelled = int(summary["n_cases"])
        if summary.get("rows") == "patient":
            lost = Counter(summary.get("left_out") or {})
            return [*steps, FlowStep("In the survival model, a row per patient", modelled, None, _positive(lost))]
        early = sum(case.time_days is not None and case.time_days <= 0 for case in known)
        lost = Counter({"time not positive": early, "a feature not finite": len(known) - modelled - early})
        steps.append(FlowStep("In the survival model", modelled, summary.get("n_patients"), _positive(lost)))
    return steps


def _of_class(run: RunFolder) -> bool:
    """Whether the job's endpoint is a class: a column of the clinical table, no survival."""
    return bool((run.job.get("model") or {}).get("label"))


def _class_step(run: RunFolder, usable: int) -> list[FlowStep]:
    """The cases of a class's model; what the model does not account for has no class."""
    if run.model is None or run.model.not_fitted:
        return []
    summary = run.model.summary
    modelled = int(summary["n_cases"])
    lost = Counter(dict(summary.get("left_out") or {}))
    lost["no class"] += usable - modelled - sum(lost.values())
    return [FlowStep("In the model", modelled, summary.get("n_patients"), _positive(lost))]


def _table_flow(run: RunFolder) -> list[FlowStep]:
    summary = run.model.summary if run.model is not None else {}
    modelled = summary.get("n_cases")
    if modelled is None:
        return []
    lost = _positive(Counter(summary.get("left_out") or {}))
    steps = [FlowStep("Cases in the tables", modelled + sum(n for _, n in lost), None)] if lost else []
    return [*steps, FlowStep("In the analysis", modelled, summary.get("n_patients"), lost)]


def _step(title: str, cases: Sequence[Case], reasons: Counter[str] | None = None) -> FlowStep:
    patients = len({case.patient_id for case in cases})
    return FlowStep(title, len(cases), patients, _positive(reasons or Counter()))


def _positive(reasons: Counter[str]) -> tuple[tuple[str, int], ...]:
    return tuple((reason, count) for reason, count in reasons.most_common() if count > 0)


def _needed_stages(run: RunFolder) -> list[str]:
    chosen = (run.job.get("model") or {}).get("features", "both")
    return [stage for stage in enabled_stages(run.info) if stage in ("brain", "roi") or chosen in (stage, "both")]


def _why_unusable(run: RunFolder, case: Case, needed: Sequence[str]) -> str:
    for stage in needed:
        outcome = run.outcomes.get(stage, {}).get(case.case_id)
        if outcome is None:
            return f"{stage} not done yet"
        if outcome.problem is not None:
            return str(outcome.problem.code)
    return ""


def problem_groups(run: RunFolder, severity: str = "problem") -> list[ProblemGroup]:
    """Every problem (or warning) of the index and of the stages, once, by code; the most frequent code first."""
    patients = {case.case_id: case.patient_id for case in run.cases}
    rows: dict[tuple[str, str, str], tuple[str, Problem]] = {}
    for stage, outcomes in run.outcomes.items():
        for case_id, outcome in outcomes.items():
            for problem in filter(None, (outcome.problem, *outcome.warnings)):
                told = problem.of(case_id=case_id, patient_id=patients[case_id])
                rows.setdefault((told.code, case_id, told.reason), (stage, told))
    for problem in run.problems:  # those of the stages, which a run writes to problems.csv too, are there already
        rows.setdefault((problem.code, problem.case_id, problem.reason), ("index", problem))
    groups: dict[str, list[tuple[str, Problem]]] = {}
    for stage, problem in rows.values():
        if problem.severity == severity:
            groups.setdefault(str(problem.code), []).append((stage, problem))
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    return [ProblemGroup(code, tuple(found)) for code, found in ordered]


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
    if known or not _of_class(run):
        whose = " patients" if len({case.patient_id for case in cases}) < len(cases) else ""
        rows.append(("Events", f"{sum(event for _, event in known)} of {len(known)}{whose} with a known endpoint"))
    followed = [(time, event) for time, event in known if time > 0]
    if followed:
        rows.append(("Median follow-up (reverse Kaplan-Meier)", median_follow_up(followed)))
    names = list(dict.fromkeys(name for case in cases for name in case.covariates))
    for name in names[:MAX_COVARIATES]:
        text = _covariate(_values_of_patients(cases, name))
        if text:
            rows.append((name, text))
    return rows


def _values_of_patients(cases: Sequence[Case], name: str) -> list[str]:
    """A covariate's value of each patient; of each case where a patient's cases differ in it."""
    values = [case.covariates.get(name, "").strip() for case in cases]
    of_patient = dict(zip((case.patient_id for case in cases), values, strict=True))
    same = all(of_patient[case.patient_id] == value for case, value in zip(cases, values, strict=True))
    return list(of_patient.values()) if same else values


def median_follow_up(followed: Sequence[tuple[float, int]]) -> str:
    """Median time to censoring, events taken as censored (Schemper and Smith, 1996), as text."""
    from lifelines import KaplanMeierFitter

    times = [time for time, _ in followed]
    median = float(KaplanMeierFitter().fit(times, [1 - event for _, event in followed]).median_survival_time_)
    return f"{median:.0f} days" if np.isfinite(median) else "not reached"


def _covariate(values: Sequence[str]) -> str:
    known = [value for value in values if value and value.lower() not in ("na", "nan", "n/a")]
    unknown = f"; unknown {len(values) - len(known)}" if len(known) < len(values) else ""
    levels = set(known)
    numbers = _numbers(known)
    if numbers is not None and len(levels) > MAX_LEVELS:
        return quartiles(numbers) + unknown
    if not known or len(levels) > MAX_LEVELS:
        return ""  # free text, or an identifier
    return _levels(known) + unknown


def _numbers(values: Sequence[str]) -> FloatArray | None:
    try:
        return np.array([float(value) for value in values])
    except ValueError:
        return None


def quartiles(values: FloatArray) -> str:
    """Median and quartiles of the finite values.

    >>> quartiles(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    '3 (2 to 4)'
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        return "unknown"
    low, middle, high = np.percentile(finite, [25, 50, 75])
    return f"{middle:.3g} ({low:.3g} to {high:.3g})"


def _levels(values: Sequence[str]) -> str:
    counts = Counter(values).most_common()
    shown = [f"{level} {n} ({100 * n / len(values):.0f} %)" for level, n in counts[:MAX_LEVELS]]
    rest = len(counts) - MAX_LEVELS
    return ", ".join(shown) + (f" and {rest} more" if rest > 0 else "")


def families(run: RunFolder) -> list[Family]:
    """The features by kind: the tumour's size and place, pyradiomics' classes, and the deep features.

    Those of several modalities are told apart: each has its own values, and may have its own parameters.
    """
    found = []
    modality = {case.case_id: case.modality for case in run.cases}
    several = sorted(set(modality.values()))
    for part, stage in (("size", "brain"), ("radiomics", "radiomics"), ("deep", "deep")):
        values = run.values(part)
        if values is None:
            continue
        values = values[values.index.isin(_done(run, stage))]
        if len(several) < 2:
            found += _families_of(part, values)
            continue
        for name in several:
            own = values[[modality.get(case) == name for case in values.index]]
            found += _families_of(part, own.loc[:, own.notna().any()], f"{name} ")
    return found


def _families_of(part: str, values: pd.DataFrame, of: str = "") -> list[Family]:
    names = [_family(part, name) for name in values.columns]
    chosen = {family: [name == family for name in names] for family in dict.fromkeys(names)}
    return [_summarise(f"{of}{name}", values.loc[:, at].to_numpy(dtype=float)) for name, at in chosen.items()]


def _done(run: RunFolder, stage: str) -> set[str]:
    return {case_id for case_id, outcome in run.outcomes.get(stage, {}).items() if outcome.problem is None}


def _family(stage: str, feature: str) -> str:
    if stage != "radiomics":
        return {"size": "tumour’s size and place"}.get(stage, stage)
    filtered, _, rest = feature.partition("_")
    return f"{filtered} {rest.partition('_')[0]}"


def _summarise(name: str, values: FloatArray) -> Family:
    missing = float(1 - np.isfinite(values).mean()) if values.size else 0.0
    constant = int(np.sum(np.ptp(values, axis=0) == 0)) if len(values) > 1 else 0
    return Family(name, values.shape[1], missing, constant)


def step_seconds(run: RunFolder) -> list[tuple[str, str, int, float]]:
    """(stage, step, cases, median seconds) over the outcomes that the ledger holds."""
    rows = []
    for stage in STAGES:
        seconds: dict[str, list[float]] = {}
        for outcome in run.outcomes.get(stage, {}).values():
            for step, value in outcome.seconds.items():
                seconds.setdefault(step, []).append(value)
        steps = sorted(seconds, key=lambda step: step == "total")  # as they were taken, the total last
        rows += [(stage, step, len(seconds[step]), float(np.median(seconds[step]))) for step in steps]
    return rows
