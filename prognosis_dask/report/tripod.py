"""The TRIPOD+AI checklist, filled in as far as a run knows (Collins et al., BMJ 385, 2024, e078378)."""

from __future__ import annotations

from collections.abc import Mapping

from prognosis_dask.report.content import Block, Rows, Section, Table, Text
from prognosis_dask.report.read import RunFolder
from prognosis_dask.report.tripod_answers import Answer, answers

#: The 52 items by the paper's sections: number, and what is asked for, in short.
ITEMS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "Title and abstract": (
        ("1", "Title: development or evaluation of a prediction model, population, outcome"),
        ("2", "Abstract: see TRIPOD+AI for Abstracts"),
    ),
    "Introduction": (
        ("3a", "Background: healthcare context, rationale, existing models"),
        ("3b", "Background: target population, intended purpose and users"),
        ("3c", "Background: known health inequalities between sociodemographic groups"),
        ("4", "Objectives: development, validation, or both"),
    ),
    "Methods": (
        ("5a", "Data: sources for development and evaluation, rationale, representativeness"),
        ("5b", "Data: dates of accrual and end of follow-up"),
        ("6a", "Participants: setting, number and location of centres"),
        ("6b", "Participants: eligibility criteria"),
        ("6c", "Participants: treatments received, and how they were handled"),
        ("7", "Data preparation: pre-processing and quality checking"),
        ("8a", "Outcome: definition, time horizon, how and when assessed"),
        ("8b", "Outcome: assessors’ qualifications, where assessment is subjective"),
        ("8c", "Outcome: blinding of its assessment"),
        ("9a", "Predictors: choice of initial predictors, pre-selection"),
        ("9b", "Predictors: definition, how and when measured"),
        ("9c", "Predictors: assessors’ qualifications, where measurement is subjective"),
        ("10", "Sample size: how it was arrived at, whether it suffices"),
        ("11", "Missing data: how handled, reasons for omitting data"),
        ("12a", "Analytical methods: how data were used and partitioned"),
        ("12b", "Analytical methods: functional form, rescaling, standardisation of predictors"),
        ("12c", "Analytical methods: type of model, building steps, tuning, internal validation"),
        ("12d", "Analytical methods: heterogeneity across clusters"),
        ("12e", "Analytical methods: measures and plots of performance, comparison of models"),
        ("12f", "Analytical methods: model updating"),
        ("12g", "Analytical methods: how predictions were calculated"),
        ("13", "Class imbalance: methods, and recalibration after them"),
        ("14", "Fairness: approaches used, and their rationale"),
        ("15", "Model output: what is predicted; classification and its thresholds"),
        ("16", "Training versus evaluation: differences between their data"),
        ("17", "Ethical approval"),
    ),
    "Open science": (
        ("18a", "Funding"),
        ("18b", "Conflicts of interest"),
        ("18c", "Protocol"),
        ("18d", "Registration"),
        ("18e", "Data sharing"),
        ("18f", "Code sharing"),
    ),
    "Patient and public involvement": (("19", "Patient and public involvement"),),
    "Results": (
        ("20a", "Participants: flow, with and without the outcome, follow-up"),
        ("20b", "Participants: characteristics, predictors, missing data"),
        ("20c", "Participants: evaluation data compared with development data"),
        ("21", "Model development: participants and events in each analysis"),
        ("22", "Model specification: the full model, and access to it"),
        ("23a", "Model performance: estimates with confidence intervals, key subgroups"),
        ("23b", "Model performance: heterogeneity across clusters"),
        ("24", "Model updating: results"),
    ),
    "Discussion": (
        ("25", "Interpretation"),
        ("26", "Limitations"),
        ("27a", "Usability: poor quality or unavailable input data"),
        ("27b", "Usability: users’ interaction and expertise"),
        ("27c", "Usability: next steps, applicability and generalisability"),
    ),
}

_OPEN = "For the authors: the run does not know it."


def checklist(run: RunFolder) -> Section:
    """The checklist: what the run can answer is filled in, what only the authors can answer says so."""
    if run.model is None or run.model.not_fitted:
        known: Mapping[str, Answer] = {}
    else:
        known = answers(run, run.model)
    groups = [
        Rows(heading, [(number, item, _told(known.get(number))) for number, item in items])
        for heading, items in ITEMS.items()
    ]
    whole = sum(answer.whole for answer in known.values())
    total = sum(map(len, ITEMS.values()))
    intro = (
        f"Of the {total} items of the checklist the run answers {whole} and {len(known) - whole} in part; the other "
        f"{total - len(known)} are the authors’. Check every answer against your study before you submit it."
    )
    table = Table(
        "TRIPOD+AI checklist (Collins et al. 2024), items in short.",
        ("Item", "What is asked for", "What this run says"),
        "sww",
        groups,
    )
    blocks: list[Block] = [Text(intro), table]
    return Section("tripod", "TRIPOD+AI", blocks)


def _told(answer: Answer | None) -> str:
    if answer is None:
        return _OPEN
    return answer.text if answer.whole else f"In part: {answer.text}"
