"""The TRIPOD+AI checklist, filled in as far as a run knows (Collins et al., BMJ 385, 2024, e078378)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prognosis_dask.errors import count
from prognosis_dask.features.registry import stages
from prognosis_dask.modelling.folder import ModelFolder
from prognosis_dask.report.content import Answer, Block, Items, filled_in
from prognosis_dask.report.read import RunFolder
from prognosis_dask.report.sections.cohort import flow
from prognosis_dask.report.sections.comparison import verdict
from prognosis_dask.report.sections.features import families
from prognosis_dask.report.sections.final_model import few_events
from prognosis_dask.report.words import describe, listed, settings, span, with_interval

#: The 52 items by the paper's sections: number, and requirement in short.
ITEMS: Items = {
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

_LEARNERS = {
    "cox": "Cox proportional hazards",
    "weibull-aft": "Weibull accelerated failure time",
    "loglogistic-aft": "log-logistic accelerated failure time",
    "lognormal-aft": "log-normal accelerated failure time",
    "xgboost": "boosted trees (XGBoost)",
    "survival-forest": "a random survival forest",
    "logistic": "logistic regression",
    "mlp": "multilayer perceptron",
}
_COMBAT = {"combat": "ComBat", "longitudinal-combat": "Longitudinal ComBat"}
_SELECTORS = {
    "svm-rfe": "SVM-RFE",
    "svm-rfe-rbf": "SVM-RFE with a radial kernel",
    "cox-univariate": "univariate Cox models",
    "cox-elastic-net": "an elastic-net Cox model",
    "anova": "analysis of variance",
    "mutual-information": "mutual information",
    "logistic-l1": "logistic regression with an absolute penalty",
    "mrmr": "minimum redundancy, maximum relevance",
    "stability": "stability selection",
}


def tripod(known: Mapping[str, Answer]) -> list[Block]:
    """The checklist with what :func:`answers` found."""
    return filled_in("TRIPOD+AI", "Collins et al., BMJ 385, 2024, e078378", ITEMS, known)


#: What is drawn, by its table.
_PLOTS = {
    "roc": "ROC",
    "confusion": "confusion matrix",
    "calibration": "calibration",
    "auc_t": "AUC(t)",
    "kaplan_meier": "Kaplan-Meier",
    "net_benefit": "net benefit",
}


def answers(run: RunFolder, models: ModelFolder) -> dict[str, Answer]:
    """Answers by item number; items that only the authors can answer are not in it."""
    found = {
        "4": Answer(
            "Evaluation of a model that was fitted on another cohort."
            if models.external
            else "Development with internal validation."
            if models.fitted
            else "Internal validation of procedures; no model was fitted for use."
        ),
        **_data(run),
        **_methods(models),
        **_procedure(models),
        **_results(run, models),
    }
    return {item: answer for item, answer in found.items() if answer.text}


def _data(run: RunFolder) -> dict[str, Answer]:
    if not run.info:
        return {
            "5a": Answer("The tables that the models were fitted on; their origin must be stated by the authors."),
            "18f": _code(run),
        }
    modalities = listed(sorted({case.modality for case in run.cases}) or ["unknown"])
    rois = sorted({case.roi for case in run.cases})
    cohort = run.job.get("cohort") or {}
    lost = sum(n for step in flow(run) for _, n in step.left_out)
    return {
        "5a": Answer(f"Image series ({modalities}) read with the preset “{cohort.get('collection', 'generic')}”."),
        "6b": Answer(
            f"Cases with an image series and a region of interest ({listed(rois[:5]) if rois else 'none'}) that could "
            f"be read; {count(lost, 'case')} left out, each with its reason: see Case flow."
        ),
        "7": Answer(
            f"{_brains(run.job)}Masks were put on the series’ grid and checked; every case that failed a check is "
            f"listed with a code and the values seen. Settings and digests: see The run. {networks_of(run.info)}"
        ),
        "9b": Answer(f"{_families(run)}; settings under The job."),
        "18f": _code(run),
    }


def _code(run: RunFolder) -> Answer:
    versions = run.info.get("versions") or {}
    version = versions.get("prognosis-dask") or versions.get("prognosis_dask", "")  # as runs of before called it
    return Answer(f"prognosis_dask{' ' + version if version else ''}, Apache-2.0; the settings are in this report.")


def _brains(job: Mapping[str, Any]) -> str:
    """How MR of the head was prepared; empty of other images."""
    brain = job.get("brain") or {}
    if not brain.get("enabled"):
        return ""
    steps = [f"skull strip ({brain.get('skull_strip')})"]
    steps += ["N4 bias field correction"] if brain.get("bias_field") else []
    steps += ["rigid registration between a session’s sequences"]
    steps += [f"smoothing ({brain['smooth_fwhm_mm']:g} mm FWHM)"] if brain.get("smooth_fwhm_mm") else []
    steps += [f"normalisation ({brain['normalise']})"] if brain.get("normalise") != "none" else []
    return f"Heads: {listed(steps)}; see Preparation of the brains. "


def networks_of(info: Mapping[str, Any]) -> str:
    """Each network of the run with its weights; empty where there is none.

    >>> networks_of({"deep": {"network": "file:/home/meier/net.onnx", "weights": "file:/home/meier/net.onnx"}})
    'Network .../net.onnx, weights .../net.onnx.'
    """
    used = [settings(info.get(stage.name) or {}) for stage in stages() if stage.name in info]
    return " ".join(
        f"Network {one['network']}, weights {one.get('weights', 'unknown')}." for one in used if "network" in one
    )


def _families(run: RunFolder) -> str:
    known = [f"{family.features} {family.name}" for family in families(run)]
    return "Features: " + (listed(known) if known else "none")


def _methods(models: ModelFolder) -> dict[str, Answer]:
    measures = models.table("measures")
    horizons = [] if measures is None else sorted({float(h) for h in measures["horizon_days"].dropna()})
    at = listed([span(h) for h in horizons]) if horizons else ""
    folds = models.table("folds")
    partition = "All cases were predicted by a model that had been fitted elsewhere." if models.external else ""
    if folds is not None and not models.external:
        partition = (
            f"Nested cross-validation, {count(folds['repeat'].nunique(), 'repeat')} of {folds['fold'].nunique()} "
            "folds; patients, not cases, were split, balanced by outcome. No case was held out once for all."
        )
    if models.classes:
        outcome = f"Classes: {listed([str(name) for name in models.summary.get('classes') or ['unknown']])}."
        output = "A probability per class; the predicted class is the most probable one."
    else:
        outcome = f"Time to event, censored; predictions at {at}." if at else "Time to event, censored."
        output = (
            f"A risk score (higher is worse){f' and the probability of surviving {at}' if at else ''}. Risk groups: "
            "above or below cut-offs that were taken from training cases."
        )
    given = [] if measures is None else measures.loc[measures["value"].notna(), "measure"].tolist()
    used = [describe(str(name)).title for name in dict.fromkeys(given) if name != "log_rank_p"]
    drawn = [title for table, title in _PLOTS.items() if models.table(table) is not None]
    plots = f"; plots of {listed(drawn)}" if drawn else ""
    return {
        "8a": Answer(f"{outcome} How it was assessed must be stated by the authors."),
        "11": Answer(
            f"Missing predictors: {_completed(models)}, within each fold. Cases left out: {_left_out(models)}.",
            whole=True,
        ),
        "12a": Answer(partition, whole=True),
        "12e": Answer(f"{listed(used)}, with 95 % intervals{plots}." if used else "", whole=True),
        "12f": Answer("None: no model was updated.", whole=True),
        "12g": Answer(
            "By the frozen model (`prognosis predict`)." if models.external
            else "By the fitted models, those of each fold for its held-out cases; `prognosis predict` applies the "
            "final model.", whole=True,
        ),
        "15": Answer(output, whole=True),
        "16": Answer(
            "The features, their units and the digests of their parameters agree with the model’s; settings and "
            "eligibility are the authors’ to compare." if models.external
            else "Held-out cases are of the same cohort as the training cases: internal validation."
        ),
    }  # fmt: skip


def _left_out(models: ModelFolder) -> str:
    found = models.summary.get("left_out") or {}
    return ", ".join(f"{reason} ({n})" for reason, n in found.items()) or "none"


def _completed(models: ModelFolder) -> str:
    drawn = {int(of.get("imputations") or 0) for of in models.procedures.values()}
    if not drawn - {0}:
        return "median of the training cases"
    several = listed([f"{number}" for number in sorted(drawn - {0})])
    return f"{several} imputations by chained equations" + (
        " or the median of the training cases" if 0 in drawn else ""
    )


def _procedure(models: ModelFolder) -> dict[str, Answer]:
    final: Mapping[str, Any] = models.procedures.get(models.primary) or {}
    if not final:
        return {}
    families = final.get("families") or ()
    selector, learner = str(final.get("selector") or ""), str(final.get("learner") or "")
    tuned = [
        f"{name.replace('_', ' ')} among {', '.join(f'{v:g}' for v in final[name])}"
        for name in ("n_features", "penalty", "mixing")
        if (selector or name != "n_features") and isinstance(final.get(name), list | tuple) and len(final[name]) > 1
    ]
    steps = _LEARNERS.get(learner, learner or "a learner that is not named")
    steps += f" after selection by {_SELECTORS.get(selector, selector)}" if selector else ", without selection"
    if tuned:
        inner = final.get("inner_folds", "inner")
        steps += f"; tuned by {inner}-fold cross-validation within the training cases: {'; '.join(tuned)}"
    candidates = f"Families {listed(list(families))}" if families else "All features of the table"
    harmonised = (
        f"{_COMBAT[final['harmonise']]} by site{_to(final)}, learnt on training cases."
        if final.get("harmonise")
        else "No harmonisation by site."
    )
    imbalance = (
        "Class balance was handled inside the folds by the learner."
        if models.classes
        else "Not applicable: the outcome is a time."
    )
    return {
        "9a": Answer(f"{candidates}; selection is part of what was validated."),
        "12b": Answer("Predictors standardised by the training cases’ mean and standard deviation, entered linearly."
                      if learner in ("cox", "logistic") or learner.endswith("-aft") else
                      "Predictors standardised by the training cases’ mean and standard deviation.", whole=True),
        "12c": Answer(f"{steps}. Internal validation: nested cross-validation. Settings: see The run.", whole=True),
        "12d": Answer(harmonised),
        "13": Answer(imbalance, whole=True),
    }  # fmt: skip


def _to(final: Mapping[str, Any]) -> str:
    return f" (reference: {final['reference_site']})" if final.get("reference_site") else ""


def _results(run: RunFolder, models: ModelFolder) -> dict[str, Answer]:
    summary = models.summary
    found = models.estimate()
    title = describe(models.headline).title
    events = "" if models.classes else f", {count(summary['n_events'], 'event')}"
    warning = few_events(models)
    folds = models.table("folds")
    per_fold = (
        f" Each fold: {folds['n_train'].median():.0f} cases to fit, {folds['n_test'].median():.0f} held out."
        if folds is not None else ""
    )  # fmt: skip
    said: dict[str, Answer] = {
        "10": Answer(
            f"{count(summary['n_patients'], 'patient')}{events}. {warning or 'Events per variable: see Final model.'} "
            "The reason for this size must be stated by the authors."
        ),
        "20a": Answer("See Case flow.", whole=bool(run.info)),
        "20b": Answer("See Characteristics and Missing data.", whole=models.table("table1") is not None),
        "21": Answer(
            f"{count(summary['n_cases'], 'case')} of {count(summary['n_patients'], 'patient')}{events}.{per_fold}",
            whole=True,
        ),
        "24": Answer("None: no model was updated.", whole=True),
        "26": Answer(f"{verdict(models)} {warning}".strip()),
        "27a": Answer(
            "`prognosis predict` refuses tables whose features or settings differ, and warns of values outside the "
            "training cases’ range."
        ),
    }  # fmt: skip
    if not models.external:
        said["20c"] = Answer("Not applicable: no other cohort was predicted.", whole=True)
    if models.frozen is not None:
        shown = "; coefficients: see Final model" if models.table("coefficients") is not None else ""
        said["22"] = Answer(f"models/model.json and models/arrays.npz hold the whole model{shown}.", whole=True)
    if found is not None:
        said["23a"] = Answer(
            f"{title} {with_interval(*found)} on held-out cases; all others under Validation. No subgroup was examined."
        )
    return said
