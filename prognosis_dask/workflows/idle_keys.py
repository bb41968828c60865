"""Keys of a job or specification that are set and have no effect with the others: named when a run or fit starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prognosis_dask.cohort.sources import names_series
from prognosis_dask.config.fields import given_keys, keys_of
from prognosis_dask.config.job import Job
from prognosis_dask.modelling.data.endpoint import Classes, Endpoint
from prognosis_dask.modelling.estimators import LEARNERS
from prognosis_dask.modelling.procedure import Procedure
from prognosis_dask.modelling.selectors import NEED_LABEL
from prognosis_dask.modelling.spec import ModelSpec
from prognosis_dask.radiomics.parameter_file import job_params

#: A condition that holds, the keys that have no effect then, and why.
_Rule = tuple[bool, tuple[str, ...], str]

_ENDPOINT = tuple(f"cohort.{name}" for name in ("time_column", "event_column", "time_unit", "event_codes"))


def idle_keys(job: Job) -> list[str]:
    """A warning for each reason for which keys that are set have no effect, naming them.

    >>> idle_keys(Job("example"))
    []
    """
    return [*_lines(_rules(job), lambda key: _is_set(job, key)), *_idle_parameters(job)]


def _idle_parameters(job: Job) -> Iterator[str]:
    """Of radiomics' parameter files: a case names its labels itself, and its mask lies on the image's grid."""
    labels = "a case's labels are those of its ROI (cohort.roi, or Label in a table of cases)"
    idle = {"label": (1, labels), "label_channel": (0, labels), "correctMask": (False, "image.resample_mask does that")}
    for _, params in job_params(job.radiomics.params).by_modality if job.radiomics.enabled else ():
        for _, part in params.parts:
            for key, (usual, why) in idle.items():
                if part.settings.get(key, usual) != usual:
                    yield f"Warning: {key} {part.settings[key]} in radiomics.params has no effect: {why}"


def idle_settings(spec: ModelSpec, method: str, endpoint: Endpoint) -> list[str]:
    """As :func:`idle_keys`, of a specification; ``method``: by which it is validated."""
    return _lines(_rules_of_spec(spec, method, isinstance(endpoint, Classes)), lambda key: _is_given(spec, key))


def _lines(rules: Iterable[_Rule], is_set: Callable[[str], bool]) -> list[str]:
    told: set[str] = set()
    lines = []
    for holds, keys, why in rules:
        found = [key for key in keys if holds and key not in told and is_set(key)]
        told.update(found)
        if found:
            lines.append(f"Warning: {', '.join(found)} {'have' if len(found) > 1 else 'has'} no effect: {why}")
    return lines


def _rules(job: Job) -> Iterator[_Rule]:
    yield from _cohort_rules(job)
    yield not any(map(names_series, job.cohort.sources)), _all("idc"), "cohort.sources names nothing of the IDC"
    yield job.image.keep_gaps, ("image.fill_gaps",), "image.keep_gaps takes masks as they are"
    yield not job.run.cache, ("run.cache_gb",), "run.cache names no folder"
    yield job.idc.limit == 0, ("idc.seed",), "idc.limit is 0, so that nothing is drawn"
    yield not job.brain.enabled, _all("brain"), "brain.enabled is false"
    none = job.brain.skull_strip == "none"
    yield none, ("brain.compare_with",), 'brain.skull_strip = "none" strips nothing that could be compared'
    yield not job.segment.enabled, _all("segment"), "segment.enabled is false"
    yield not job.radiomics.enabled, _all("radiomics"), "radiomics.enabled is false"
    yield not job.ibsi.enabled, _all("ibsi"), "ibsi.enabled is false"
    yield not job.maps.enabled, _all("maps"), "maps.enabled is false"
    yield job.ibsi.bin_width > 0, ("ibsi.bin_count",), "ibsi.bin_width is given"
    yield not job.ibsi.spacing_mm, ("ibsi.interpolator",), "ibsi.spacing_mm is 0, so that nothing is resampled"
    yield job.ibsi.ivh_bin_count > 0, ("ibsi.ivh_bin_width",), "ibsi.ivh_bin_count is given"
    for name, section in (("deep", job.deep), ("deep_2", job.deep_2)):
        yield not section.enabled, _all(name), f"{name}.enabled is false"
        cpu = section.device != "gpu"
        yield cpu, (f"{name}.batch_size",), f"on a CPU clips go through the network one by one ({name}.device)"
    yield from _model_rules(job)


def _cohort_rules(job: Job) -> Iterator[_Rule]:
    cohort, synth = job.cohort, job.synth
    made = synth.patients > 0
    yield not made, _all("synth"), "synth.patients is 0, so that no cohort is made"
    yield synth.study == "brain", ("synth.bad_cases",), 'synth.study = "brain" has no damaged patients'
    yield synth.study == "chest", ("synth.matrix",), 'the images of synth.study = "chest" have one size'
    yield made, ("cohort.clinical", "cohort.sheet"), "the synthetic cohort has a clinical table of its own"
    in_table = ("cohort.clinical", "cohort.sheet", "cohort.id_column", "cohort.exclude", *_ENDPOINT)
    yield bool(cohort.cases), in_table, "cohort.cases holds the cases, with their outcome"
    yield not cohort.clinical, ("cohort.sheet", "cohort.id_column"), "cohort.clinical names no table"


def _model_rules(job: Job) -> Iterator[_Rule]:
    model, grade = job.model, job.grade
    yield not model.enabled, _all("model"), "model.enabled is false"
    yield not grade.enabled, _all("grade"), "grade.enabled is false"
    yield not model.enabled, ("grade.enabled", *_all("grade")), "model.enabled is false"
    yield grade.patience == 0, ("grade.validation_share",), "grade.patience is 0, so that all patients train"
    by_grade = tuple(f"model.{name}" for name in ("features", "penalizer", "label_days", "halves"))
    yield grade.enabled, by_grade, "with grade.enabled all families are compared, and penalties tuned"
    yield not model.label, ("model.classes",), "model.label names no column"
    yield bool(model.label), ("model.label_days", "model.entry"), "model.label is the label"
    survival = model.selector not in NEED_LABEL
    yield survival, ("model.label_days",), f"model.selector = {model.selector!r} needs no label of survival"
    yield not model.selector, ("model.max_features",), "without model.selector all features enter"
    unpriced = model.learner in LEARNERS and "penalty" not in LEARNERS[model.learner].takes
    yield unpriced, ("model.penalizer",), f"model.learner = {model.learner!r} has no penalty"


def _rules_of_spec(spec: ModelSpec, method: str, classes: bool) -> Iterator[_Rule]:
    yield bool(spec.endpoint.label), ("endpoint.time_unit", "endpoint.event_codes"), "endpoint.label is predicted"
    yield not spec.endpoint.label, ("endpoint.classes",), "endpoint.label names no column"
    by_command = "prognosis fit and compare cross-validate; prognosis validate takes another method"
    yield method != spec.validation.method, ("validation.method",), by_command
    yield method == "nested", ("validation.draws",), by_command
    yield classes, ("validation.horizons_days",), "a class is predicted"
    unused = {"bootstrap": ("folds", "repeats"), "permutation": ("repeats",)}.get(method, ())
    of_folds = tuple(f"validation.{name}" for name in (*unused, *(("halves", "horizons_days") if unused else ())))
    yield bool(unused), of_folds, f"validation.method is {method!r}"
    for name, procedure in spec.procedure.items():
        for holds, keys, why in _procedure_rules(procedure, classes):
            yield holds, tuple(f"procedure.{name}.{key}" for key in keys), why


def _procedure_rules(procedure: Procedure, classes: bool) -> Iterator[_Rule]:
    learner, selector = LEARNERS[procedure.learner], procedure.selector
    unused = tuple(key for key in ("penalty", "mixing") if key not in learner.takes)
    yield True, unused, f"learner {procedure.learner!r} has no penalty"
    trees = learner.remembers and not selector
    yield trees, ("balance_families",), f"learner {procedure.learner!r} splits columns, whose scale changes nothing"
    yield not procedure.bound, ("bound_margin",), "bound is false"
    yield not selector, ("n_features", "label_days"), "without a selector all features enter"
    yield selector not in NEED_LABEL, ("label_days",), f"selector {selector!r} needs no label of survival"
    yield classes, ("label_days",), "a class is predicted"
    yield classes, ("tune_by",), "classes are tuned by the log loss"
    of_trees = {"depth": learner.depths, "rounds": learner.rounds}
    tried = [getattr(procedure, key) or of_trees[key] for key in learner.takes]
    fixed = all(len(values) == 1 for values in tried) and not (selector and len(procedure.n_features) > 1)
    yield fixed, ("tune_by", "inner_folds"), "the procedure leaves nothing to tune"


def _all(section: str) -> tuple[str, ...]:
    """The keys of a section, but for the one that switches it on."""
    names = keys_of(keys_of(Job)[section].kind)
    return tuple(f"{section}.{name}" for name in names if name not in ("enabled", "patients"))


def _is_set(job: Job, key: str) -> bool:
    section, name = key.split(".")
    return name in given_keys(getattr(job, section))


def _is_given(spec: ModelSpec, key: str) -> bool:
    section, _, name = key.rpartition(".")
    owner: Any = spec
    if section.startswith("procedure."):
        owner = spec.procedure[section.removeprefix("procedure.")]
    elif section:
        owner = getattr(spec, section)
    return name in given_keys(owner)
