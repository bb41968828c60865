"""The sections on what went in: cases, what could not be used, regions of interest, features."""

from __future__ import annotations

from collections.abc import Sequence

from prognosis_dask.errors import Problem, count
from prognosis_dask.report import pictures, table_one, tables
from prognosis_dask.report.content import Block, Heading, Rows, Section, Table, Text, absent
from prognosis_dask.report.read import RunFolder


def cohort(run: RunFolder) -> Section:
    """Case flow, characteristics, missing data and problems."""
    blocks: list[Block] = [Heading("Case flow"), *_flow(run)]
    blocks += [Heading("Characteristics"), *_characteristics(run)]
    blocks += [Heading("Missing data"), *_missing(run)]
    if run.info:
        blocks += [Heading("What could not be used"), _problems(run), *_warnings(run)]
    return Section("cohort", "Cohort", blocks)


def _flow(run: RunFolder) -> list[Block]:
    figure = pictures.flow(run)
    if figure is None:
        empty = "No case was found; the problems below say why." if run.info else "The models’ folder counts no case."
        return [absent(empty)]
    if not run.info:
        return [figure]
    not_cases = sum(not problem.case_id for problem in run.problems if problem.severity == "problem")
    note = "A case is one region of interest on one image series of one patient."
    if not_cases:
        note += (
            f" Not counted here: {count(not_cases, 'problem')} of files or patients that became no case, listed below."
        )
    return [Text(note, "note"), figure]


def _characteristics(run: RunFolder) -> list[Block]:
    found: list[Block] = []
    rows = tables.characteristics(run)
    if rows:
        caption = "Characteristics of the cases that were found. Continuous values: median (quartiles)."
        found.append(Table(caption, ("Characteristic", "Value"), "lw", [Rows("", rows)]))
    by_outcome = table_one.table_one(run.model) if run.model is not None else None
    if by_outcome is not None:
        found.append(by_outcome)
    elif run.model is not None and not run.model.not_fitted:
        found.append(absent("Standardised differences are not shown: models/table1.csv was not written."))
    return found or [absent("Nothing is known of the cases.")]


def _missing(run: RunFolder) -> list[Block]:
    table = table_one.missing(run.model) if run.model is not None else None
    if table is not None:
        return [table]
    if run.model is None or run.model.table("table1", "variable", "missing") is None:
        return [absent("Missing clinical values were not counted: models/table1.csv was not written.")]
    return [Text("No variable of the table above is missing in any case.")]


def _problems(run: RunFolder) -> Block:
    groups = tables.problem_groups(run)
    if not groups:
        return Text("Nothing: no file, patient or case had a problem.")
    return _by_code(
        groups, "Every problem, by its code. “Step” is where it was found; “index” is the reading of the folders."
    )


def _warnings(run: RunFolder) -> list[Block]:
    groups = tables.problem_groups(run, "warning")
    if not groups:
        return []
    caption = "Every warning, by its code. These cases are used: their values stand in the dataset and in the models."
    return [Heading("What is used with a warning"), _by_code(groups, caption)]


def _by_code(groups: Sequence[tables.ProblemGroup], caption: str) -> Table:
    rows = [Rows(f"{group.code} ({len(group.problems)})", [_problem(*p) for p in group.problems]) for group in groups]
    return Table(caption, ("Case or patient", "Step", "Reason"), "llw", rows)


def _problem(stage: str, problem: Problem) -> tuple[str, str, str]:
    where = f" ({problem.where})" if problem.where else ""
    return problem.case_id or problem.patient_id or "–", stage, f"{problem.reason}{where}"


def regions(run: RunFolder) -> Section:
    """Pictures of the regions of interest, and their size."""
    gallery, sizes = pictures.gallery(run), pictures.sizes(run)
    return Section(
        "regions",
        "Regions of interest",
        [
            gallery or absent("No region of interest was stored, so there is none to show."),
            sizes or absent("The regions’ volumes are not known."),
        ],
    )


def features(run: RunFolder) -> Section:
    """Features by family, and how they hang together."""
    found = tables.families(run)
    blocks: list[Block] = [_families(found) if found else absent("This run holds no features.")]
    for stage in ("radiomics", "deep"):
        if (run.job.get(stage) or {}).get("enabled") is False:
            blocks.append(absent(_without(run, stage)))
    correlation = pictures.correlation(run)
    if correlation is not None:
        blocks.append(correlation)
    elif found:
        blocks.append(absent("Too few cases have finite features to correlate them (5 are needed)."))
    return Section("features", "Features", blocks)


def _without(run: RunFolder, stage: str) -> str:
    if stage == "deep" and (run.job.get("grade") or {}).get("enabled"):
        return (
            "The deep features are those of the grade’s own network. It is trained anew in every fold, so they are no "
            "columns of the run: see Validation."
        )
    return f"The job has {stage} features switched off."


def _families(found: Sequence[tables.Family]) -> Table:
    rows = [(f.name, str(f.features), f"{100 * f.missing:.1f} %", str(f.constant)) for f in found]
    return Table(
        "Features by family. “Missing” is the share of values that are not finite among the cases that passed that "
        "stage; a constant feature has one value in all of them.",
        ("Family", "Features", "Missing", "Constant"),
        "lnnn",
        [Rows("", rows)],
    )
