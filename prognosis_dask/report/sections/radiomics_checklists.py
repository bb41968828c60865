"""The checklists of radiomics, CLEAR and METRICS, as far as a run knows its answers.

CLEAR: Kocak et al., Insights into Imaging 14, 2023, 75. METRICS: Kocak et al., Insights into Imaging 15, 2024, 8. Both
CC BY 4.0. METRICS' weights are those of the authors' web tool, version 1.0 (metricsscore.github.io/metrics), which are
those of the paper's Table 1 in three digits. The score is the weight of the items that are met over that of those that
apply.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prognosis_dask.errors import count
from prognosis_dask.features.registry import DEEP, DEEP_2, IBSI, RADIOMICS
from prognosis_dask.features.stage import TOLD
from prognosis_dask.modelling.data.families import is_of_images
from prognosis_dask.modelling.folder import known_json
from prognosis_dask.report.content import Answer, Block, Heading, Items, Text, filled_in, item_table
from prognosis_dask.report.read import RunFolder
from prognosis_dask.report.sections.features import families
from prognosis_dask.report.words import listed
from prognosis_dask.report.words import settings as hidden

#: The 58 items by the paper's sections.
CLEAR_ITEMS: Items = {
    "Title, abstract, keywords": (
        ("1", "Relevant title, specifying the radiomic methodology"),
        ("2", "Structured summary with relevant information"),
        ("3", "Relevant keywords for radiomics"),
    ),
    "Introduction": (
        ("4", "Scientific or clinical background"),
        ("5", "Rationale for using a radiomic approach"),
        ("6", "Study objectives"),
    ),
    "Method: study design": (
        ("7", "Adherence to guidelines or checklists"),
        ("8", "Ethical details: approval, consent, data protection"),
        ("9", "Sample size calculation"),
        ("10", "Study nature: retrospective, prospective"),
        ("11", "Eligibility criteria"),
        ("12", "Flowchart for technical pipeline"),
    ),
    "Method: data": (
        ("13", "Data source: private, public"),
        ("14", "Data overlap with earlier publications"),
        ("15", "Data split methodology"),
        ("16", "Imaging protocol: acquisition and processing"),
        ("17", "Definition of non-radiomic predictor variables"),
        ("18", "Definition of the reference standard (outcome variable)"),
    ),
    "Method: segmentation": (
        ("19", "Segmentation strategy"),
        ("20", "Details of operators performing segmentation"),
    ),
    "Method: pre-processing": (
        ("21", "Image pre-processing details"),
        ("22", "Resampling method and its parameters"),
        ("23", "Discretization method and its parameters"),
        ("24", "Image types: original, filtered, transformed"),
    ),
    "Method: feature extraction": (
        ("25", "Feature extraction method"),
        ("26", "Feature classes"),
        ("27", "Number of features"),
        ("28", "Default configuration statement for remaining parameters"),
    ),
    "Method: data preparation": (
        ("29", "Handling of missing data"),
        ("30", "Details of class imbalance"),
        ("31", "Details of segmentation reliability analysis"),
        ("32", "Feature scaling details: normalization, standardization"),
        ("33", "Dimension reduction details"),
    ),
    "Method: modeling": (
        ("34", "Algorithm details"),
        ("35", "Training and tuning details"),
        ("36", "Handling of confounders"),
        ("37", "Model selection strategy"),
    ),
    "Method: evaluation": (
        ("38", "Testing technique: internal, external"),
        ("39", "Performance metrics and rationale for choosing"),
        ("40", "Uncertainty evaluation and measures"),
        ("41", "Statistical performance comparison"),
        ("42", "Comparison with non-radiomic and combined methods"),
        ("43", "Interpretability and explainability methods"),
    ),
    "Results": (
        ("44", "Baseline demographic and clinical characteristics"),
        ("45", "Flowchart for eligibility criteria"),
        ("46", "Feature statistics: reproducibility, feature selection"),
        ("47", "Model performance evaluation"),
        ("48", "Comparison with non-radiomic and combined approaches"),
    ),
    "Discussion": (
        ("49", "Overview of important findings"),
        ("50", "Previous works with differences from the current study"),
        ("51", "Practical implications"),
        ("52", "Strengths and limitations: bias, generalizability"),
    ),
    "Open science": (
        ("53", "Sharing images along with segmentation data (not essential, recommended)"),
        ("54", "Sharing radiomic feature data"),
        ("55", "Sharing pre-processing scripts or settings"),
        ("56", "Sharing source code for modeling"),
        ("57", "Sharing final model files"),
        ("58", "Sharing a ready-to-use system (not essential, recommended)"),
    ),
}
#: Items that ask what one of TRIPOD+AI asks.
_AS_TRIPOD = {
    "9": "10", "11": "6b", "15": "12a", "18": "8a", "21": "7", "29": "11", "30": "13", "34": "12c", "35": "12c",
    "44": "20b", "45": "20a", "47": "23a", "52": "26", "56": "18f",
}  # fmt: skip


def clear(run: RunFolder, tripod: Mapping[str, Answer]) -> list[Block]:
    """The checklist, for what is made of images."""
    citation = "Kocak et al., Insights into Imaging 14, 2023, 75, doi.org/10.1186/s13244-023-01415-8, CC BY 4.0"
    return filled_in("CLEAR", citation, CLEAR_ITEMS, clear_answers(run, tripod))


def uses_images(run: RunFolder) -> bool:
    """Whether CLEAR and METRICS apply: a run of images, or models of image features."""
    frozen = run.model.frozen if run.model is not None else None
    encodings = frozen.encodings if frozen else ()
    return bool(run.info) or any(is_of_images(one.family) for one in encodings)


def clear_answers(run: RunFolder, tripod: Mapping[str, Answer]) -> dict[str, Answer]:
    """Answers by item number, ``tripod`` among them; items that only the authors can answer are not in it."""
    found = {item: tripod[same] for item, same in _AS_TRIPOD.items() if same in tripod}
    found |= {**_data(run), **_extraction(run), **_modelling(run, tripod)}
    return {item: answer for item, answer in found.items() if answer.text}


def _data(run: RunFolder) -> dict[str, Answer]:
    if not run.info:
        return {}
    data = run.info.get("data") or {}
    public = ". ".join(data.get("sources") or ())
    predictors = list(dict.fromkeys(name for case in run.cases for name in case.covariates))
    rois = sorted({case.roi for case in run.cases})
    return {
        "12": Answer(f"Stages: {listed(list(run.info.get('stages') or {}))}; see The run."),
        "13": Answer(f"Public. {public}." if public else ""),
        "16": Answer("Scanner and acquisition parameters by modality: see Characteristics." if acquired(run) else ""),
        "17": Answer(f"Columns of the clinical table: {listed(predictors[:12])}." if predictors else ""),
        "19": Answer(f"Regions {listed(rois[:5])}, on the series’ own grid: see Regions of interest." if rois else ""),
        "53": Answer("Data and licences: see Data." if public else ""),
        "54": Answer("features.csv and features.zarr hold them, with names and units."),
        "55": Answer("See The job; run.json holds the content of parameter files as well.", whole=True),
    }  # fmt: skip


def acquired(run: RunFolder) -> bool:
    """Whether headers say what images were acquired with."""
    return any(case.acquisition for case in run.cases)


def parameters(run: RunFolder) -> Iterator[tuple[str, dict[str, Any]]]:
    """The content of the run's parameter files by modality ("" for all), as its record tells it."""
    settings: Mapping[str, str] = run.info.get("settings") or {}
    for key, text in settings.items():
        name = key.removeprefix("radiomics.parameters").removesuffix(TOLD)
        if key.startswith("radiomics.parameters") and key.endswith(TOLD):
            yield name.strip("."), json.loads(text)


def programs(run: RunFolder) -> list[str]:
    """By which program and version features of the hand-crafted kind were computed."""
    versions: Mapping[str, str] = run.info.get("versions") or {}
    with_version = [f"{name} {versions[name]}" for name in versions if name.startswith("pyradiomics")]
    found = [f"radiomics as {listed(with_version)} computes them"] if with_version and RADIOMICS.is_on(run.job) else []
    return found + (["IBSI’s features by their definitions"] if run.info and IBSI.is_on(run.job) else [])


def _extraction(run: RunFolder) -> dict[str, Answer]:
    known = list(parameters(run))
    summaries = families(run)
    made = programs(run)
    alone = not (run.info and IBSI.is_on(run.job))
    brains = bool((run.job.get("brain") or {}).get("enabled"))
    used = [run.info.get(stage.name) or {} for stage in (DEEP, DEEP_2) if run.info and stage.is_on(run.job)]
    made += [f"the network {hidden(network['network'])}" for network in used if "network" in network]
    each = ", ".join(f"{family.name} {family.features}" for family in summaries)
    return {
        "22": Answer(_by_modality(known, _resampling), whole=alone and not brains),
        "23": Answer(_by_modality(known, _discretisation), whole=alone),
        "24": Answer(_by_modality(known, _image_types), whole=True),
        "25": Answer(f"By {listed(made)}; versions under The run." if made else ""),
        "26": Answer(f"{each}." if each else "", whole=True),
        "27": Answer(f"{sum(family.features for family in summaries)} for each case." if each else "", whole=True),
        "28": Answer("What the settings under The job do not name is at its default." if run.info else "", whole=True),
    }


def _by_modality(known: list[tuple[str, dict[str, Any]]], say: Any) -> str:
    return " ".join(f"{modality}: {say(one)}" if modality else say(one) for modality, one in known)


def _resampling(content: Mapping[str, Any]) -> str:
    setting = content.get("setting") or {}
    spacing = setting.get("resampledPixelSpacing")
    if not spacing:
        return "Not resampled for pyradiomics’ features."
    interpolator = setting.get("interpolator", "sitkBSpline")
    return f"Resampled to {' x '.join(f'{float(mm):g}' for mm in spacing)} mm, interpolator {interpolator}."


def _discretisation(content: Mapping[str, Any]) -> str:
    setting = content.get("setting") or {}
    if setting.get("binCount"):
        return f"Fixed number of bins: {setting['binCount']}."
    return f"Fixed bin width: {setting.get('binWidth', 25):g}, edges at its multiples."


def _image_types(content: Mapping[str, Any]) -> str:
    types = content.get("imageType") or {"Original": {}}
    named = [f"{name} ({json.dumps(own)})" if own else name for name, own in types.items()]
    return f"{listed(named)}."


def _modelling(run: RunFolder, tripod: Mapping[str, Answer]) -> dict[str, Answer]:
    models = run.model
    if models is None or models.not_fitted:
        return {}
    final: Mapping[str, Any] = models.procedures.get(models.primary) or {}
    interval = str(models.summary.get("interval") or "")
    compared = len(models.names) > 1 and models.table("differences") is not None
    linear = models.frozen is not None and models.table("coefficients") is not None
    robustness = known_json(run.path / "robustness" / "summary.json")
    told = f"{robustness['robust']} of {robustness['features']} features" if robustness else ""
    scaling, harmonised = ([tripod[item].text] if item in tripod else [] for item in ("12b", "12d"))
    return {
        "31": Answer(f"Contours perturbed beside image and volume: {told} robust; see Robustness." if told else ""),
        "32": Answer(" ".join([*scaling, *harmonised]), whole=True),
        "33": Answer(reduction(final), whole=True),
        "36": Answer(" ".join([*harmonised, *(["By acquisition: see Features."] if acquired(run) else [])])),
        "37": Answer(
            f"Settings left open were tuned by {final['inner_folds']}-fold cross-validation within the training cases."
            if final.get("inner_folds") else ""
        ),
        "38": Answer(
            "A frozen model on another cohort; whether from another institution must be stated by the authors."
            if models.external else "Internal: nested cross-validation; no case was held out once for all."
        ),
        "39": Answer(tripod["12e"].text if "12e" in tripod else ""),
        "40": Answer(f"{interval[:1].upper()}{interval[1:]}; calibration: see Validation." if interval else "",
                     whole=True),
        "41": Answer(
            "Differences of held-out figures with interval, p and Holm’s p: see Validation." if compared else "",
            whole=True,
        ),
        "42": Answer(without_images(run), whole=True),
        "43": Answer("Coefficients and forest plot: see Final model." if linear else ""),
        "46": Answer(f"How often folds selected each feature{', and coefficients' if linear else ''}: see Final model. "
                     f"Correlations: see Features.{f' Robustness: {told}.' if told else ''}"),
        "48": Answer("See Validation: held-out figures side by side, with differences." if without_images(run) else ""),
        "57": Answer(
            "models/model.json and models/arrays.npz hold the final model, without code."
            if models.frozen is not None else ""
        ),
        "58": Answer(
            "`prognosis predict` and `prognosis serve --model` apply it to new scans."
            if models.frozen is not None and run.info else ""
        ),
    }  # fmt: skip


def reduction(final: Mapping[str, Any]) -> str:
    """How a procedure reduces its features; empty where it takes them all."""
    variance, correlation = float(final.get("variance") or 0), float(final.get("correlation") or 1)
    kept = final.get("reproducible") or ()
    tried = ", ".join(map(str, final.get("n_features") or ()))
    steps = [f"restricted to {count(len(kept), 'reproducible feature')}"] if kept else []
    steps += [f"variance below {variance:g} dropped"] if variance else []
    steps += [f"of pairs with |ρ| above {correlation:g} one dropped"] if correlation < 1 else []
    steps += [f"selection by {final['selector']} among {tried} features"] if final.get("selector") else []
    return f"Within the training cases of each fold: {'; '.join(steps)}." if steps else ""


def without_images(run: RunFolder) -> str:
    """Which procedures of the comparison see no image features; empty where none does, or nothing was compared."""
    procedures = run.model.procedures if run.model is not None else {}
    plain = [
        name
        for name, own in procedures.items()
        if own.get("families") and not any(is_of_images(family) for family in own["families"])
    ]
    if not plain or len(plain) == len(procedures):
        return ""
    return f"Compared on the same folds: {listed([f'“{name}”' for name in plain])}, without image features."


#: The 30 items by category.
METRICS_ITEMS: Items = {
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
    return [
        Heading("METRICS"),
        Text(intro),
        item_table(f"METRICS ({citation}), items in short.", METRICS_ITEMS, said, weights),
    ]


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
