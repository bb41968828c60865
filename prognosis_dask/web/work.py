"""The work on one scan, from its files to its result: a small run on the cluster, and what the model says of it."""

from __future__ import annotations

import json
import pickle
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from distributed import Client, Future

from prognosis_dask.cohort.case import SEQUENCES, Case, read_problems, write_cases
from prognosis_dask.config.job import CohortSection, Job
from prognosis_dask.errors import Problem, StoreError, count
from prognosis_dask.execution.task import run_task
from prognosis_dask.storage.ledger import Ledger
from prognosis_dask.storage.outcome import Outcome
from prognosis_dask.web.look import Look, run_look
from prognosis_dask.web.model import ServedModel, cohort_rules
from prognosis_dask.web.pictures import View, run_view
from prognosis_dask.web.receive import ReceivedFile
from prognosis_dask.web.result import compose
from prognosis_dask.web.scans import Scan, Scans
from prognosis_dask.web.settings import Limits
from prognosis_dask.web.unpack import Unpacked, unpack
from prognosis_dask.workflows.run import run_features

Progress = Callable[[str], None]


class ChoiceNeeded(Exception):  # noqa: N818 - no error: the reader is asked
    """The upload holds several structures."""

    def __init__(self, choices: Sequence[str]) -> None:
        super().__init__()
        self.choices = tuple(choices)


class ScanFailed(Exception):  # noqa: N818 - the scan's fault, not the program's
    """The scan cannot be used; ``secrets`` are words that its reader must not be told."""

    def __init__(self, problem: Problem, secrets: Sequence[str] = ()) -> None:
        super().__init__()
        self.problem, self.secrets = problem, tuple(secrets)


@dataclass(frozen=True)
class Bench:
    """Where scans are worked on: the cluster, the scans' folders, the limits."""

    client: Client
    scans: Scans
    limits: Limits


def case_name(scan_id: str) -> str:
    """The case's identifier, which stands where a patient's would."""
    return f"scan-{scan_id}"


def steps(model: ServedModel) -> dict[str, str]:
    """The steps of a scan in order, and what a reader calls them."""
    job = model.job
    named = {
        "read": ("Reading the files", True),
        "brain": ("Preparing the brain, finding and measuring the tumour", job.brain.enabled),
        "roi": ("Region of interest", True),
        "radiomics": ("Radiomic features", job.radiomics.enabled),
        "deep": ("Deep features", job.deep.enabled),
        "predict": ("Prediction and pictures", True),
    }
    return {name: label for name, (label, wanted) in named.items() if wanted}


def finished_steps(bench: Bench, scan_id: str) -> set[str]:
    """The stages of a scan that the ledger of its run holds."""
    try:
        with Ledger.read(bench.scans.upload(scan_id) / "run" / "ledger.sqlite") as ledger:
            return {name for name, counts in ledger.counts().items() if counts.done or counts.failed}
    except (StoreError, OSError, KeyError):
        return set()


def work_on(scan: Scan, model: ServedModel, bench: Bench, tell: Progress) -> dict[str, Any]:
    """Take a scan to its result, which is written too; what is finished of it already is not done again.

    Parameters
    ----------
    tell
        Called with the name of each step of the server's own that begins.

    Raises
    ------
    ChoiceNeeded, ScanFailed
        When the reader has to choose; when the scan cannot be used.
    PrognosisError
        When the cluster or the model is at fault.
    """
    tell("read")
    started = time.monotonic()
    upload = bench.scans.upload(scan.id)
    case, notes, secrets = _case(scan, model, bench)
    view = None if model.job.brain.enabled else _view(scan, model, bench, case)
    tell("stages")
    run = upload / "run"
    _run(model.job, bench, case, run, secrets)
    tell("predict")
    shown = _result(view or _view(scan, model, bench, case), secrets)
    result = compose(scan, model, case, shown, run, bench.scans.path(scan.id))
    result["warnings"] = [*notes, *result["warnings"]]
    result["seconds"] = round(time.monotonic() - started, 2)
    bench.scans.put_result(scan.id, result)
    return result


def _case(scan: Scan, model: ServedModel, bench: Bench) -> tuple[Case, list[str], list[str]]:
    """The one case that the upload is, without identifiers; notes for its reader; and what he must not be told."""
    upload = bench.scans.upload(scan.id)
    unpacked = _unpacked(scan, upload, bench.limits)
    modality = next(iter(model.training.modalities)) if len(model.training.modalities) == 1 else ""
    modality = modality or ("MR" if model.job.brain.enabled else "CT" if model.job.cohort.modalities == ("CT",) else "")
    look = Look(
        str(upload / "files"),
        str(upload / "index"),
        cohort_rules(model, scan.roi),
        str(upload / "files" / unpacked.mask) if unpacked.mask else "",
        model.takes_no_mask,
        modality,
        model.training.reference,
    )
    outcome = _submit(bench, scan, "look", run_look, look).result()
    found = _result_of(outcome[0], ())
    cases: list[Case] = found["cases"]
    chosen = scan.chosen
    if len(cases) > 1 and (chosen is None or chosen >= len(cases)):
        raise ChoiceNeeded(_labels(cases, found["slices"]))
    case = cases[chosen or 0] if len(cases) > 1 else cases[0]
    ignored = unpacked.ignored
    notes = [f"{count(ignored, 'file')} of the upload: no image, left out."] if ignored else []
    if not case.sequences and model.training.reference in SEQUENCES:
        case = replace(case, sequences={model.training.reference: case.image})
        notes.append(
            f"Neither a file's name nor a series description says which MR sequence this is: it was taken as "
            f"{model.training.reference}, which the model learnt from."
        )
    name = case_name(scan.id)
    return replace(case, case_id=name, patient_id=name, covariates=scan.clinical), notes, found["secrets"]


def _unpacked(scan: Scan, upload: Path, limits: Limits) -> Unpacked:
    """The upload's images in ``files``; they are made aside, so that a server that ends in the middle begins anew."""
    note = upload / "unpacked.json"
    if not note.is_file():
        received = [ReceivedFile(upload / "received" / name, field, sequence) for name, field, sequence in scan.files]
        shutil.rmtree(upload / "files", ignore_errors=True)
        unpacked = unpack(received, upload / "files", limits)
        note.write_text(json.dumps(asdict(unpacked)), encoding="utf-8")
        shutil.rmtree(upload / "received")
    return Unpacked(**json.loads(note.read_text(encoding="utf-8")))


def _labels(cases: Sequence[Case], slices: Sequence[int]) -> list[str]:
    patients = sorted({case.patient_id for case in cases})
    labels = []
    for case, number in zip(cases, slices, strict=True):
        of = f"{case.modality}, {count(number, 'slice')}" if number else case.modality
        whose = f" of patient {patients.index(case.patient_id) + 1}" if len(patients) > 1 else ""
        labels.append(f"{case.roi} on {of}{whose}")
    return labels


def _run(job: Job, bench: Bench, case: Case, run: Path, secrets: Sequence[str]) -> None:
    """The job's stages on this case alone."""
    run.mkdir(exist_ok=True)
    write_cases(run / "case.csv", [case])
    limited = replace(
        job,
        name="serve",
        cohort=CohortSection(cases=str(run / "case.csv")),
        run=replace(job.run, case_limit_s=bench.limits.case_seconds, out=""),
    )
    run_features(limited, bench.client, run, say=_quiet)
    problems = read_problems(run / "problems.csv")
    faults = [problem for problem in problems if problem.severity == "problem"]
    if faults:
        raise ScanFailed(faults[0], secrets)


def _quiet(line: str) -> None:
    """What a run tells is for who started it, and this one was started by an upload."""


def _view(scan: Scan, model: ServedModel, bench: Bench, case: Case) -> Future:
    brains = str(bench.scans.upload(scan.id) / "run" / "brain") if model.job.brain.enabled else ""
    view = View(str(bench.scans.path(scan.id) / "slices.zarr"), model.job.image, brains)
    return _submit(bench, scan, "view", run_view, view, case)


def _submit(
    bench: Bench,
    scan: Scan,
    stage: str,
    function: Callable[..., list[Outcome]],
    context: object,
    case: Case | None = None,
) -> Future:
    """One stage on the scan, in a worker's own process for it, with the limits of time and memory that hold there."""
    name = case_name(scan.id)
    case = case or Case(name, name, "", "", "", "")
    return bench.client.submit(
        run_task,
        stage,
        pickle.dumps((function, context)),
        (case,),
        ("",),
        bench.limits.case_seconds,
        key=f"{stage}-{case.short_hash}-{uuid.uuid4().hex[:8]}",
        pure=False,
    )


def _result(future: Future, secrets: Sequence[str]) -> dict[str, Any]:
    return _result_of(future.result()[0], secrets)


def _result_of(outcome: Outcome, secrets: Sequence[str]) -> dict[str, Any]:
    if outcome.problem is not None:
        raise ScanFailed(outcome.problem, secrets)
    return {name: value for name, value in outcome.result.items() if name not in ("peak_memory_mb", "read_mb")}
