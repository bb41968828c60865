"""Cohort: case flow, characteristics, missing data, and what could not be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from prognosis_dask.cohort.case import Case
from prognosis_dask.errors import Problem, count
from prognosis_dask.features.registry import ROI, stages, stages_in
from prognosis_dask.features.stage import all_needs
from prognosis_dask.report import canvas
from prognosis_dask.report.canvas import svg
from prognosis_dask.report.content import Block, Heading, Picture, Rows, Section, Table, Text, absent
from prognosis_dask.report.read import RunFolder
from prognosis_dask.report.sections.characteristics import characteristics_blocks, missing_blocks, of_class
from prognosis_dask.report.words import clipped, in_words, named, without_names


def cohort(run: RunFolder) -> Section:
    """Case flow, characteristics, missing data and problems."""
    blocks: list[Block] = [Heading("Case flow"), *_flow_blocks(run), *_data_blocks(run)]
    blocks += [Heading("Characteristics"), *characteristics_blocks(run)]
    blocks += [Heading("Missing data"), *missing_blocks(run)]
    if run.info:
        blocks += [Heading("What could not be used"), _problems(run), *_warnings(run)]
    return Section("cohort", "Cohort", blocks)


def _data_blocks(run: RunFolder) -> list[Block]:
    """Where the images were published, ready to cite; nothing where the sources do not say."""
    data = run.info.get("data")
    if not data:
        return []
    version = f"Imaging Data Commons, version {data['idc_version']}."
    use = "" if data["commercial_use"] else " Some of the licences exclude commercial use."
    return [Heading("Data"), Text(" ".join([version, *(f"{line}." for line in data["sources"])]) + use)]


@dataclass(frozen=True)
class FlowStep:
    """One box of the flow diagram, and what was left out on the way into it: (reason, cases)."""

    title: str
    cases: int
    patients: int | None
    left_out: tuple[tuple[str, int], ...] = ()


def _flow_blocks(run: RunFolder) -> list[Block]:
    figure = flow_figure(run)
    if figure is None:
        empty = "No case was found; the problems below say why." if run.info else "The models’ folder counts no case."
        return [absent(empty)]
    if not run.info:
        return [figure]
    not_cases = sum(not problem.case_id for problem in run.problems if problem.severity == "problem")
    note = "A case is one region of interest on one image series of one patient."
    if not_cases:
        note += (
            f" Not counted here: {count(not_cases, 'problem')} with files or patients that did not yield a case, "
            "listed below."
        )
    return [Text(note, "note"), figure]


def flow_figure(run: RunFolder) -> Picture | None:
    """How many cases passed each step, and why the others did not; None where there is no case."""
    steps = flow(run)
    if not steps or not steps[0].cases:
        return None
    rows: list[tuple[object, ...]] = [(step.title, step.cases, step.patients, "", None) for step in steps]
    rows += [(step.title, None, None, reason, lost) for step in steps for reason, lost in step.left_out]
    told = "; ".join(f"{step.title.lower()} {step.cases}" for step in steps)
    return Picture(
        "flow",
        _draw_flow([(s.title, s.cases, s.patients, s.left_out) for s in steps]),
        pd.DataFrame(rows, columns=["step", "cases", "patients", "left_out_because", "left_out"]),
        f"Flow diagram of the cases: {told}.",
        "Flow of the cases. "
        + ("Left out at each step, and why: on the right." if any(s.left_out for s in steps) else "None was left out."),
    )


@svg
def _draw_flow(steps: Sequence[tuple[str, int, int | None, Sequence[tuple[str, int]]]]) -> Figure:
    """A flow diagram: a box per step, and beside the arrow into it what was left out.

    Parameters
    ----------
    steps
        Title, cases, patients (None where they are not counted), and (reason, cases) left out on the way.
    """
    heights = [0.17 * len(lost) + 0.32 if lost else 0.0 for *_, lost in steps]
    gaps = [0.0, *(max(0.32, height + 0.16) for height in heights[1:])]
    figure = canvas.new_figure(canvas.FULL_WIDTH, 0.55 * len(steps) + sum(gaps) + 0.1)
    axes = figure.subplots()
    top = 0.0
    for (title, cases, patients, lost), gap in zip(steps, gaps, strict=True):
        if gap:
            axes.annotate("", (1.35, top + gap), (1.35, top), arrowprops=_ARROW)
        if lost:
            _lost_box(axes, top + gap / 2, lost)
        top += gap
        _box(axes, top, title, f"{cases:,}" if patients is None else f"{cases:,}  ({count(patients, 'patient')})")
        top += 0.55
    axes.set(xlim=(0, canvas.FULL_WIDTH - 0.1), ylim=(top + 0.02, -0.02))
    axes.set_axis_off()
    return figure


_ARROW = {"arrowstyle": "-|>", "color": canvas.INK, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 9}


def _box(axes: Axes, top: float, title: str, counted: str) -> None:
    axes.add_patch(Rectangle((0.02, top), 2.66, 0.55, facecolor="white", edgecolor=canvas.INK, linewidth=0.8))
    axes.text(1.35, top + 0.18, title, ha="center", va="center")
    axes.text(1.35, top + 0.385, counted, ha="center", va="center", fontweight="bold")


def _lost_box(axes: Axes, middle: float, lost: Sequence[tuple[str, int]]) -> None:
    height = 0.17 * len(lost) + 0.32
    axes.plot([1.35, 3.0], [middle, middle], color=canvas.INK, linewidth=0.8)
    axes.add_patch(
        Rectangle((3.0, middle - height / 2), 3.3, height, facecolor="white", edgecolor=canvas.INK, linewidth=0.8)
    )
    reasons = (f"   {clipped(in_words(reason), 46)}: {n:,}" for reason, n in lost)
    lines = [f"Left out: {sum(n for _, n in lost):,}", *reasons]
    for i, line in enumerate(lines):
        axes.text(3.1, middle - height / 2 + 0.16 + 0.17 * i, line, va="center", fontsize=8)


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
    if of_class(run):
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
    before = all_needs({stage.name: stage.needs for stage in stages()})
    own = [ROI, *(stage for stage in stages() if stage.family and chosen in (stage.family.name, "both"))]
    needed = {name for stage in own for name in (*before[stage.name], stage.name)}
    return [stage.name for stage in stages_in(run.info) if stage.name in needed]


def _why_unusable(run: RunFolder, case: Case, needed: Sequence[str]) -> str:
    for stage in needed:
        result = run.results.get(stage, {}).get(case.case_id)
        if result is None:
            return f"{stage} not done yet"
        if result.problem is not None:
            return str(result.problem.code)
    return ""


def _problems(run: RunFolder) -> Block:
    groups = problem_groups(run)
    if not groups:
        return Text("Nothing: no file, patient or case had a problem.")
    return _by_code(
        run, groups, "Every problem, by its code. “Step” is where it was found; “index” is the reading of the folders."
    )


def _warnings(run: RunFolder) -> list[Block]:
    groups = problem_groups(run, "warning")
    if not groups:
        return []
    caption = "Every warning, by its code. These cases are used: their values are in the dataset and in the models."
    return [Heading("What is used with a warning"), _by_code(run, groups, caption)]


def _by_code(run: RunFolder, groups: Sequence[ProblemGroup], caption: str) -> Table:
    known = {of for case in run.cases for of in (case.case_id, case.patient_id)}
    known |= {problem.patient_id for problem in run.problems}
    rows = [
        Rows(
            f"{in_words(group.code)}: {len(group.problems)} ({group.code})",
            [_problem(*found, known) for found in group.problems],
        )
        for group in groups
    ]
    return Table(caption, ("Case or patient", "Step", "Reason"), "llw", rows)


def _problem(stage: str, problem: Problem, known: set[str]) -> tuple[str, str, str]:
    where = f" ({problem.where})" if problem.where else ""
    reason = without_names(f"{problem.reason}{where}", (problem.case_id, problem.patient_id), known)
    return named(problem.case_id or problem.patient_id) or "–", stage, reason


@dataclass(frozen=True)
class ProblemGroup:
    """Every problem with one code."""

    code: str
    problems: tuple[tuple[str, Problem], ...]
    """(stage, problem); the stage is ``index`` for what never became a case."""


def problem_groups(run: RunFolder, severity: str = "problem") -> list[ProblemGroup]:
    """Every problem (or warning) of the index and of the stages, once, by code; the most frequent code first."""
    patients = {case.case_id: case.patient_id for case in run.cases}
    rows: dict[tuple[str, str, str], tuple[str, Problem]] = {}
    for stage, results in run.results.items():
        for case_id, result in results.items():
            for problem in filter(None, (result.problem, *result.warnings)):
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
