"""The steps of one scan, from its files to its prediction: once for the command and for the web page.

They are those of a run on one case: the files are resolved into a case (:mod:`prognosis_dask.prediction.resolve`), the
job's stages compute its features, the model predicts (:mod:`prognosis_dask.prediction.compose`). All that opens images
runs on the cluster's workers, with their limits of time and memory.
"""

from __future__ import annotations

import pickle
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from distributed import Client, Future

from prognosis_dask.cohort.case import SEQUENCES, Case, read_cases, read_problems, write_cases
from prognosis_dask.cohort.sequences import is_other
from prognosis_dask.config.job import CohortSection, Job
from prognosis_dask.errors import CaseError, JobError, Problem, StoreError, count
from prognosis_dask.execution.record import load_stages
from prognosis_dask.execution.task import run_task
from prognosis_dask.features.guard import Stopwatch, guarded
from prognosis_dask.features.registry import stages_of
from prognosis_dask.prediction.compose import compose
from prognosis_dask.prediction.dicom import FILES, DicomTask, write_dicom
from prognosis_dask.prediction.model import ScanModel, cohort_rules
from prognosis_dask.prediction.resolve import ScanFiles, Upload, resolve_upload
from prognosis_dask.prediction.result import ScanPrediction, without_identifiers
from prognosis_dask.prediction.slices import SliceTask, write_slices
from prognosis_dask.storage.brains import BrainStore, MaskStore
from prognosis_dask.storage.ledger import Ledger, TaskResult, Values
from prognosis_dask.workflows.run import run_features


class ChoiceNeeded(Exception):  # noqa: N818 - no error: somebody is asked
    """The files hold several structures, and no rule chooses one."""

    def __init__(self, choices: Sequence[str]) -> None:
        super().__init__()
        self.choices = tuple(choices)


class ScanError(CaseError):
    """The scan cannot be used; ``secrets`` are words that must not be shown where names must not appear."""

    def __init__(self, problem: Problem, secrets: Sequence[str] = ()) -> None:
        super().__init__(problem.code, problem.reason, where=problem.where)
        self.secrets = tuple(secrets)


def _ignore(step: str) -> None:
    pass


@dataclass(frozen=True)
class ScanContext:
    """Where and how one scan is worked on.

    Attributes
    ----------
    client
        Of the cluster; its workers see both folders under the same path.
    name
        The case's identifier, which stands where a patient's would.
    work
        The folder of what is made on the way: ``index/`` and ``run/``. What is finished in it is not done again.
    out
        The folder for the slices, drawings and pictures.
    case_limit_s
        Seconds that a step may take; 0 sets no limit.
    tell
        Called with the name of each part that begins: ``read``, ``stages``, ``predict``.
    """

    client: Client
    name: str
    work: Path
    out: Path
    case_limit_s: float
    tell: Callable[[str], None] = _ignore


def steps(model: ScanModel) -> dict[str, str]:
    """The steps of a scan in order, and how a reader calls them."""
    of_stages = {stage.name: stage.title for stage in stages_of(model.job)}
    return {"read": "Reading the files", **of_stages, "predict": "Prediction and pictures"}


def finished_steps(work: Path) -> set[str]:
    """The stages of a scan that are finished, by the ledger of its run."""
    try:
        with Ledger.read(work / "run" / "ledger.sqlite") as ledger:
            return {name for name, counts in ledger.counts().items() if counts.done or counts.failed}
    except (StoreError, OSError, KeyError):
        return set()


def predict_files(model: ScanModel, files: ScanFiles, context: ScanContext) -> ScanPrediction:
    """Take the files of one scan to its prediction.

    Raises
    ------
    ChoiceNeeded, ScanError
        When somebody has to choose a structure; when the scan cannot be used.
    PrognosisError
        When the cluster or the model is at fault.
    """
    started = time.monotonic()
    context.tell("read")
    case, notes, secrets = _resolved(model, files, context)
    # what the stages prepare can be shown once they are through
    slices = None if model.job.brain.enabled or not case.mask else _slices(model, case, context)
    context.tell("stages")
    run = context.work / "run"
    _run_stages(model, case, run, context, secrets)
    context.tell("predict")
    shown = _result((slices or _slices(model, case, context)).result()[0], secrets)
    found = compose(model, case, shown, run, context.out, secrets)
    seconds = round(time.monotonic() - started, 2)
    return replace(found, warnings=(*files.notes, *notes, *found.warnings), seconds=seconds)


def dicom_files(model: ScanModel, plain: Mapping[str, Any], context: ScanContext, out: Path) -> list[Path]:
    """The DICOM objects of a scan whose prediction (the content of its JSON) was made in this context, written anew.

    Raises
    ------
    ScanError
        When the scan did not come as DICOM, or its headers lack what such an object must have.
    """
    run = context.work / "run"
    (case,) = read_cases(run / "case.csv")
    task = DicomTask(str(out), str(run), model.job.image, model.job.brain.enabled, plain)
    _result(_submit(context, "dicom", write_dicom, task, case).result()[0], ())
    return [out / name for name in FILES]


def _resolved(model: ScanModel, files: ScanFiles, context: ScanContext) -> tuple[Case, list[str], list[str]]:
    """The one case that the files are, under the context's name; notes for its reader; the patient's identifiers."""
    upload = Upload(
        files,
        str(context.work / "index"),
        cohort_rules(model, files.roi),
        model.job.brain.enabled,
        model.modality,
        model.training.reference,
    )
    found = _result(_submit(context, "resolve", resolve_upload, upload).result()[0], ())
    cases: list[Case] = found["cases"]
    labels = _labels(cases, found["slices"])
    named = [case for case in cases if files.roi and case.roi.casefold() == files.roi.casefold()]
    if len(named) == 1 and files.chosen is None:
        cases = named
    if len(cases) > 1 and (files.chosen is None or files.chosen >= len(cases)):
        raise ChoiceNeeded(labels)
    case = cases[files.chosen or 0] if len(cases) > 1 else cases[0]
    case, notes = on_reference(case, model.training.reference) if model.job.brain.enabled else (case, [])
    case = replace(case, case_id=context.name, patient_id=context.name, covariates=dict(files.clinical))
    # the stages warn of the case by themselves
    told = [problem for problem in found["problems"] if problem.severity == "warning" and not problem.case_id]
    told = [without_identifiers(problem.reason, found["secrets"]) for problem in told]
    return case, [*notes, *(f"{text[:1].upper()}{text[1:]}." for text in dict.fromkeys(told))], found["secrets"]


def _labels(cases: Sequence[Case], slices: Sequence[int]) -> list[str]:
    patients = sorted({case.patient_id for case in cases})
    labels = []
    for case, number in zip(cases, slices, strict=True):
        of = f"{case.modality}, {count(number, 'slice')}" if number else case.modality
        whose = f" of patient {patients.index(case.patient_id) + 1}" if len(patients) > 1 else ""
        labels.append(f"{case.roi} on {of}{whose}")
    return labels


def on_reference(case: Case, reference: str) -> tuple[Case, list[str]]:
    """The case on the MR sequence that the model's brains were prepared on.

    Raises
    ------
    JobError
        When the scan does not hold it, or is another kind of image, such as a map of the diffusion.
    """
    if reference not in SEQUENCES:
        return case, [
            "Which MR sequence the model's brains were prepared on is not known: compare it with this scan's yourself."
        ]
    if not case.sequences and is_other(case.image):
        raise JobError(
            f"the model was fitted on {reference}, but the scan's name or header shows another kind of image (a map, "
            f"perfusion, or several sequences in one): give a {reference} image, or name the file: {reference}=FILE"
        )
    if not case.sequences:
        return replace(case, sequences={reference: case.image}), [
            f"Neither a file's name nor a series description says which MR sequence this is: it was taken as "
            f"{reference}, which the model learnt from."
        ]
    if reference not in case.sequences:
        raise JobError(
            f"the model was fitted on {reference}, but the scan's sequences are {', '.join(case.sequences)}; give a "
            f"{reference} image"
        )
    return replace(case, image=case.sequences[reference]), []


def _run_stages(model: ScanModel, case: Case, run: Path, context: ScanContext, secrets: Sequence[str]) -> None:
    """The job's stages on this case alone."""
    run.mkdir(parents=True, exist_ok=True)
    write_cases(run / "case.csv", [case])
    job = replace(
        model.job,
        name="scan",
        cohort=CohortSection(cases=str(run / "case.csv")),
        run=replace(model.job.run, case_limit_s=context.case_limit_s, out=""),
    )
    run_features(job, context.client, run, say=_ignore)
    faults = [problem for problem in read_problems(run / "problems.csv") if problem.severity == "problem"]
    if faults:
        raise ScanError(faults[0], secrets)


def _slices(model: ScanModel, case: Case, context: ScanContext) -> Future:
    brains = str(context.work / "run" / BrainStore.stage) if model.job.brain.enabled else ""
    masks = str(context.work / "run" / MaskStore.stage) if model.job.segment.enabled and not case.mask else ""
    task = SliceTask(str(context.out / "slices.zarr"), model.job.image, brains, masks)
    return _submit(context, "slices", write_slices, task, case)


def _submit(
    context: ScanContext,
    stage: str,
    function: Callable[..., list[TaskResult]],
    work: object,
    case: Case | None = None,
) -> Future:
    """One step on the scan, in a worker's child process, with the limits of time and memory that hold there."""
    case = case or Case(context.name, context.name, "", "", "", "")
    return context.client.submit(
        run_task,
        stage,
        pickle.dumps((function, work)),
        (case,),
        ("",),
        context.case_limit_s,
        key=f"{stage}-{case.short_hash}-{uuid.uuid4().hex[:8]}",
        pure=False,
    )


def _result(result: TaskResult, secrets: Sequence[str]) -> dict[str, Any]:
    if result.problem is not None:
        raise ScanError(result.problem, secrets)
    return dict(result.values)


def warm_up(cases: tuple[Case, ...], digests: tuple[str, ...], context: Job) -> list[TaskResult]:
    """Load on a worker what the steps of a scan need, so that the first scan does not wait for it."""
    return [guarded("warm", case, digest, partial(_warm, context)) for case, digest in zip(cases, digests, strict=True)]


def _warm(job: Job, watch: Stopwatch) -> Values:
    with watch.step("load"):
        loaded = load_stages(job, "")
        for work in loaded.works.values():
            work.warm(loaded.context)
    return {}
