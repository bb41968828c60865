"""METRICS: what a run shows of each item, with its weight (Kocak et al., Insights into Imaging 15, 2024, 8; CC BY 4.0).

The weights are those of the authors' web tool, version 1.0 (metricsscore.github.io/metrics), which are those of the
paper's Table 1 in three digits. The score is the weight of the items that are met over that of those that apply.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prognosis_dask.features.registry import DEEP, IBSI, RADIOMICS
from prognosis_dask.report.content import Answer, Block, Heading, Items, Text, item_table
from prognosis_dask.report.read import RunFolder
from prognosis_dask.report.sections.clear import clear_answers, programs, reduction, without_images

#: The 30 items by category.
ITEMS: Items = {
    "Study design": (
        ("1", "Adherence to radiomics or machine learning checklists"),
        ("2", "Eligibility criteria that describe a representative population"),
        ("3", "High-quality reference standard with a clear definition"),
    ),
    "Imaging data": (
        ("4", "Multi-center"),
        ("5", "Clinical translatability of the imaging data source"),
        ("6", "Imaging protocol with acquisition parameters"),
        ("7", "Interval between imaging and reference standard"),
    ),
    "Segmentation": (
        ("8", "Transparent description of segmentation methodology"),
        ("9", "Formal evaluation of fully automated segmentation"),
        ("10", "Test set masks by a single reader or automated tool"),
    ),
    "Image processing and feature extraction": (
        ("11", "Appropriate image preprocessing with transparent description"),
        ("12", "Use of standardized feature extraction software"),
        ("13", "Transparent reporting of extraction parameters, else of defaults"),
    ),
    "Feature processing": (
        ("14", "Removal of non-robust features"),
        ("15", "Removal of redundant features"),
        ("16", "Appropriateness of dimensionality compared to data size"),
        ("17", "Robustness assessment of end-to-end deep learning pipelines"),
    ),
    "Preparation for modeling": (
        ("18", "Proper data partitioning process"),
        ("19", "Handling of confounding factors"),
    ),
    "Metrics and comparison": (
        ("20", "Appropriate performance evaluation metrics for the task"),
        ("21", "Consideration of uncertainty"),
        ("22", "Calibration assessment"),
        ("23", "Uni-parametric imaging, or proof of its inferiority"),
        ("24", "Comparison with a non-radiomic approach, or proof of added clinical value"),
        ("25", "Comparison with simple or classical statistical models"),
    ),
    "Testing": (
        ("26", "Internal testing"),
        ("27", "External testing"),
    ),
    "Open science": (
        ("28", "Data availability"),
        ("29", "Code availability"),
        ("30", "Model availability"),
    ),
}
WEIGHTS = dict(
    zip(
        map(str, range(1, 31)),
        (
            0.037, 0.074, 0.092, 0.044, 0.029, 0.044, 0.029, 0.034, 0.022, 0.011, 0.062, 0.031, 0.041, 0.020, 0.020,
            0.030, 0.020, 0.060, 0.030, 0.035, 0.023, 0.018, 0.012, 0.029, 0.018, 0.037, 0.075, 0.007, 0.007, 0.007,
        ),
        strict=True,
    )
)  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """What the run shows of an item; ``met`` is None where the authors have to judge."""

    text: str
    met: bool | None = None


def metrics_score(run: RunFolder, tripod: Mapping[str, Answer]) -> list[Block]:
    """The items with their weights, and between what the score lies."""
    apply, found = applying(run), verdicts(run, tripod)
    least, most = score(apply, found)
    of_authors = sum(found.get(item, Verdict("")).met is None for item in apply)
    intro = (
        f"{len(apply)} of 30 items apply. By what this run shows the score is at least {100 * least:.1f} %, and "
        f"{100 * most:.1f} % where the authors can answer all of the {of_authors} that are theirs with yes. It judges "
        "a study’s methods, not its model."
    )
    said = {item: _text(verdict) for item, verdict in found.items()}
    said |= {item: "Does not apply." for item in WEIGHTS if item not in apply}
    citation = "Kocak et al., Insights into Imaging 15, 2024, 8, doi.org/10.1186/s13244-023-01572-w, CC BY 4.0"
    weights = {item: f"{weight:.3f}" for item, weight in WEIGHTS.items()}
    return [Heading("METRICS"), Text(intro), item_table(f"METRICS ({citation}), items in short.", ITEMS, said, weights)]


def applying(run: RunFolder) -> list[str]:
    """The items that apply by the tool's five conditions; whether masks were drawn by a program the run cannot know."""
    absent = set()
    if run.info and not (RADIOMICS.is_on(run.job) or IBSI.is_on(run.job)):
        absent.add("12")
    if not (run.job.get("grade") or {}).get("enabled"):
        absent.add("17")  # networks give features to a table here, but for the grade's own
    return [item for item in WEIGHTS if item not in absent]


def score(apply: list[str], found: Mapping[str, Verdict]) -> tuple[float, float]:
    """The least and the greatest score: what is open counted as not met, and as met.

    >>> score(["20", "21"], {"20": Verdict("", True)}) == (0.035 / 0.058, 1.0)
    True
    """
    total = sum(WEIGHTS[item] for item in apply)
    by_verdict = {met: sum(WEIGHTS[i] for i in apply if found.get(i, Verdict("")).met is met) for met in (True, None)}
    return by_verdict[True] / total, (by_verdict[True] + by_verdict[None]) / total


def _text(verdict: Verdict) -> str:
    lead = {True: "Met. ", False: "Not met. ", None: "For the authors. "}[verdict.met]
    return f"{lead}{verdict.text}"


def verdicts(run: RunFolder, tripod: Mapping[str, Answer]) -> dict[str, Verdict]:
    """What the run shows, by item; items of which it knows nothing are not in it."""
    clear = clear_answers(run, tripod)
    same = {"2": "11", "3": "18", "6": "16", "8": "19", "11": "21", "16": "9", "19": "36", "28": "53"}
    found = {item: Verdict(clear[of].text) for item, of in same.items() if of in clear}
    found["1"] = Verdict("This report holds TRIPOD+AI and CLEAR as far as a run can answer them.")
    found |= _of_features(run, clear)
    return found | _of_models(run, clear)


def _of_features(run: RunFolder, clear: Mapping[str, Answer]) -> dict[str, Verdict]:
    if not run.info:
        return {}
    found = {}
    if programs(run):
        found["12"] = Verdict(clear["25"].text, met=True)
    settings = [clear[item].text for item in ("22", "23", "24") if item in clear]
    if settings or (DEEP.is_on(run.job) and not RADIOMICS.is_on(run.job)):
        found["13"] = Verdict(" ".join([*settings, "The rest: see The job; what it does not name is default."]), True)
    by_patient: dict[str, set[str]] = {}
    for case in run.cases:
        by_patient.setdefault(case.patient_id, set()).add(case.image)
    one_each = bool(by_patient) and all(len(images) == 1 for images in by_patient.values())
    if one_each and not (run.job.get("brain") or {}).get("enabled"):
        found["23"] = Verdict("One image series of each patient.", met=True)
    return found


def _of_models(run: RunFolder, clear: Mapping[str, Answer]) -> dict[str, Verdict]:
    models = run.model
    if models is None or models.not_fitted:
        return {}
    final: Mapping[str, Any] = models.procedures.get(models.primary) or {}
    found = {
        "20": Verdict(clear["39"].text if "39" in clear else "", True if "39" in clear else None),
        "25": Verdict(f"Procedures compared: {', '.join(models.names)}."),
        "26": Verdict("Nested cross-validation: each case was predicted by models that had not seen its patient."),
        "27": Verdict("A model of another cohort was validated here." if models.external else "Not in this folder."),
        "29": Verdict("The program is public under Apache-2.0, and the job stands in this report."),
        "30": Verdict("The folder models/ can be handed on." if models.frozen is not None else ""),
    }
    if final:
        kept = bool(final.get("reproducible"))
        found["14"] = Verdict(
            "Restricted to reproducible features." if kept else "No feature was removed for that.", kept
        )
        reduced = reduction(final)
        found["15"] = Verdict(reduced or "All features enter the model.", bool(reduced))
    if not models.external and "15" in clear:
        found["18"] = Verdict(f"{clear['15'].text} All processing was learnt on training cases.", met=True)
    if models.external:
        del found["26"]
    if "40" in clear:
        found["21"] = Verdict(clear["40"].text, met=True)
    if models.table("calibration") is not None:
        found["22"] = Verdict("See Validation.", met=True)
    plain = without_images(run)
    if plain and models.table("differences") is not None:
        found["24"] = Verdict(f"{plain} Differences are tested, with Holm’s correction: see Validation.", met=True)
    return found
