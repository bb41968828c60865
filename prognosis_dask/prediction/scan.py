"""One new scan: prepared, measured and predicted as the cases of a run were, then told in JSON and on a page."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from prognosis_dask.brain.size import SIZE_FEATURES, TumourSize, tumour_size
from prognosis_dask.cohort.case import Case, read_cases, read_problems
from prognosis_dask.cohort.index import index_cohort
from prognosis_dask.cohort.listing import read_listing
from prognosis_dask.cohort.names import sequence_of
from prognosis_dask.config.job import CohortSection, DeepSection, Job
from prognosis_dask.config.reading import build
from prognosis_dask.errors import CaseError, JobError, StatisticsError
from prognosis_dask.features.brain_stage import run_brain
from prognosis_dask.features.plan import feature_settings, radiomic_names, radiomic_units
from prognosis_dask.features.stages import StageContext, run_radiomics, run_roi
from prognosis_dask.modelling.data.clinical_inputs import read_given
from prognosis_dask.modelling.data.network_features import FAMILY, FILE, NetworkFeatures
from prognosis_dask.modelling.data.out_of_range import unlike
from prognosis_dask.modelling.data.patient_rows import expect_one_image
from prognosis_dask.modelling.data.reading import read_tables
from prognosis_dask.modelling.data.sources import dataset_source
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.folder import read_json
from prognosis_dask.modelling.saved import Frozen, thaw
from prognosis_dask.modelling.validation.external import expect_agreement
from prognosis_dask.modelling.worth import Worth, worth_of
from prognosis_dask.networks.grade_file import read_trained
from prognosis_dask.prediction.page import ScanResult, expect_room, write_scan
from prognosis_dask.radiomics import job_params
from prognosis_dask.storage.brains import BrainStore
from prognosis_dask.storage.features import build_features
from prognosis_dask.storage.outcome import Outcome
from prognosis_dask.storage.rois import RoiStore
from prognosis_dask.workflows.grade import make_volumes

_NAME = "scan"


@dataclass(frozen=True)
class _Model:
    """What a run left that a scan is predicted with."""

    run: Path
    job: Job
    frozen: Frozen
    reference: str
    worth: Worth
    procedure: str


def predict_scan(
    run: Path | str,
    files: Sequence[Path | str] | Mapping[str, Path | str],
    out: Path | str,
    *,
    mask: Path | str = "",
    clinical: Mapping[str, str] | None = None,
) -> ScanResult:
    """Predict the class of one new scan, measure its tumour, and write ``scan.json``, ``scan.html``, ``epitome.png``.

    Parameters
    ----------
    run
        The folder of a run whose job trained a grade: its prepared brains, network and frozen model are used.
    files
        Image files of the sequences, by sequence (``T1``, ``T1c``, ``T2``, ``FLAIR``), or a list whose names say which
        is which; a single file may have any name. Or one folder with the DICOM series of one session (or its files):
        an RTSTRUCT or SEG in it is the mask.
    out
        The folder to write; an earlier scan's is replaced as a whole.
    mask
        The tumour's mask; without one an automatic candidate takes its place, and is called so.
    clinical
        The patient's values of clinical columns that the model has; those not given count as missing, and are taken as
        the training cases' median.

    Raises
    ------
    CaseError
        When the scan cannot be used: what is wrong with it, in one line.
    PrognosisError
        When the run holds no such model, a file is not there, or ``out`` cannot be written or holds something else.
    """
    out = Path(out).absolute()
    expect_room(out)
    model = _model(Path(run))
    given = read_given(model.frozen, clinical or {})
    with tempfile.TemporaryDirectory() as folder:
        case = _case(model, files, str(mask), given, Path(folder))
        used = model.job.brain.sequences or tuple(case.sequences)
        shown = {name: _place(path) for name, path in case.sequences.items() if name in used or name == model.reference}
        dataset, attributes, size, pictures = _measured(model, case, Path(folder))
        table = _table(model, dataset, Path(folder))
    probability = model.frozen.fitted.predict(table).probability
    assert probability is not None  # _model has seen classes
    result = ScanResult(
        name=_called(files, shown[model.reference]),
        files=shown,
        probability=dict(zip(model.frozen.classes, probability[0].tolist(), strict=True)),
        model=_told(model),
        mask=str(attributes["tumour"]["tumour_source"]),
        confidence=attributes["tumour"].get("tumour_confidence"),
        size=size,
        slices=_shown(attributes["slices"]),
        mosaic=pictures["epitome"],
        before_after=pictures["quality"],
        quality=attributes["quality"],
        warnings=[
            *model.worth.warnings,
            *expect_agreement(model.frozen, table, where="the scan"),
            *unlike(model.frozen, table),
        ],
        worth=model.worth,
    )
    write_scan(result, out)
    return result


def _model(run: Path) -> _Model:
    info = read_json(run / "run.json")
    job: Job | None = build(Job, dict(info["job"]), str(run / "run.json")) if info and "job" in info else None
    if job is None or not job.grade.enabled:
        raise StatisticsError(f"{run} is no run that trained a grade (its run.json, with grade.enabled)")
    frozen = thaw(run)
    if len(frozen.classes) != 2:
        raise StatisticsError(f"the model in {run} predicts {frozen.classes or 'survival'}, expected two classes")
    expect_one_image(frozen.encodings, f"the model in {run}")
    headers = [read_json(path) or {} for path in sorted((run / "brain").glob("*/case.json"))]
    references = Counter(str(header["attributes"]["reference"]) for header in headers if "attributes" in header)
    if not references:
        raise StatisticsError(f"{run}/brain holds no prepared case; run the job again")
    summary = read_json(run / "models" / "summary.json") or {}
    reference = references.most_common(1)[0][0]
    return _Model(run, job, frozen, reference, worth_of(frozen, run), str(summary.get("procedure", "")))


def _case(
    model: _Model,
    files: Sequence[Path | str] | Mapping[str, Path | str],
    mask: str,
    clinical: dict[str, str],
    work: Path,
) -> Case:
    if mask and not Path(mask).is_file():
        raise JobError(f"no file at {mask}")
    case = Case(_NAME, _NAME, "MR", "tumour", "", mask, covariates=clinical)
    if not isinstance(files, Mapping) and len(files) == 1 and Path(files[0]).is_dir():
        found = _found_in(Path(files[0]), model.job.cohort, work / "index")
        own = (mask, ()) if mask else (found.mask, found.labels)
        case = replace(case, sequences=found.sequences, mask=own[0], labels=own[1])
    else:
        case = replace(case, sequences=_named(model, files))
    if model.reference not in case.sequences:
        raise JobError(
            f"the model was made on {model.reference}, and the scan's sequences are {', '.join(case.sequences)}; give "
            f"one of {model.reference}"
        )
    return replace(case, image=case.sequences[model.reference])


def _found_in(folder: Path, cohort: CohortSection, index: Path) -> Case:
    """The one case of a folder with DICOM, or with files, found as the run's were."""
    rules = replace(cohort, sources=(), cases="", clinical="", exclude=(), sequences=True, automatic=True)
    index_cohort([folder], index, rules)
    cases = read_cases(index / "cases.csv")
    if len(cases) == 1:
        return cases[0]
    reasons = [f"{problem.code}: {problem.reason}" for problem in read_problems(index / "problems.csv")]
    held = ", ".join(case.case_id for case in cases) or "; ".join(reasons[:3]) or "no image"
    raise JobError(f"{folder} holds {len(cases)} cases ({held}), expected one: the sequences of one session of MR")


def _named(model: _Model, files: Sequence[Path | str] | Mapping[str, Path | str]) -> dict[str, str]:
    """The files by sequence."""
    if isinstance(files, Mapping):
        named = {name: str(path) for name, path in files.items()}
    else:
        found = [(sequence_of(Path(path).name), str(path)) for path in files]
        named = {model.reference: found[0][1]} if len(found) == 1 else dict(found)
        if len(named) < len(found) or "" in named:
            raise JobError(
                f"which sequences are {', '.join(path for _, path in found)}? Each name has to say one of T1, T1c, T2 "
                "and FLAIR, each once; or write T2=FILE"
            )
    absent = [path for path in named.values() if not Path(path).is_file()]
    if absent:
        raise JobError(f"no file at {absent[0]}")
    return named


def _called(files: Sequence[Path | str] | Mapping[str, Path | str], reference: str) -> str:
    """The scan's name: its folder's, or its file's without what comes after the first dot."""
    if not isinstance(files, Mapping) and len(files) == 1 and Path(files[0]).is_dir():
        return Path(files[0]).resolve().name
    return Path(reference).name.split(".")[0]


def _place(image: str) -> str:
    """Where an image lies, for the reader: a file, or the folder of a series."""
    return read_listing(image).root if image.endswith(".series.json") else image


def _measured(
    model: _Model, case: Case, folder: Path
) -> tuple[xr.Dataset, dict[str, Any], TumourSize, dict[str, bytes]]:
    """The stages of the run on this case alone, in a folder that is thrown away; its pictures by name."""
    job = model.job
    params = job_params(job.radiomics.params)
    brains, rois = folder / "brain", folder / "rois.zarr"
    context = StageContext(str(rois), job.image, job.frames, params, DeepSection(enabled=False), job.brain, str(brains))
    BrainStore(brains).create()
    RoiStore.create(rois, [case.case_id])
    stages = [("brain", run_brain), ("roi", run_roi)]
    if job.radiomics.enabled:
        stages.append(("radiomics", run_radiomics))
    outcomes: dict[str, dict[str, Outcome]] = {}
    for name, work in stages:
        (outcome,) = work((case,), ("",), context)
        if outcome.problem:
            raise CaseError(outcome.problem.code, outcome.problem.reason, where=_place(case.image))
        outcomes[name] = {case.case_id: outcome}
    of_modality = radiomic_names([case], params) if job.radiomics.enabled else {}
    dataset = build_features(
        [case],
        radiomic=radiomic_units(of_modality),
        of_modality=of_modality,
        deep=(),
        size=SIZE_FEATURES,
        outcomes=outcomes,
        attributes={"settings": feature_settings(job, context, None)},
    )
    stored = BrainStore(brains).read(case.case_id)
    attributes = dict(stored.attributes)
    size = replace(tumour_size(stored.tumour), template_mm=tuple(attributes["template_mm"]))
    held = BrainStore(brains).folder(case.case_id)
    pictures = {name: (held / f"{name}.png").read_bytes() for name in ("epitome", "quality")}
    return dataset, attributes, size, pictures


def _table(model: _Model, dataset: xr.Dataset, folder: Path) -> FeatureTable:
    """The case's row with every feature that the model asks for."""
    encodings = model.frozen.encodings
    source = dataset_source(dataset, "the scan")
    # a new scan has no outcome, and is not to be left out for it
    source = replace(source, columns={k: v for k, v in source.columns.items() if k not in ("time_days", "event")})
    known = [encoding for encoding in encodings if source.find(encoding.column) is not None]
    read = read_tables([source], None, known)
    table = read.table
    if f"{FAMILY}.sha256" in model.frozen.fitted.source:
        trained = read_trained(model.run / "networks" / FILE)
        volumes = folder / "volumes.zarr"
        make_volumes(folder / "brain", volumes, [_NAME], model.job.grade)
        table = NetworkFeatures(str(volumes), model.job.grade).extend_by(table, trained)
    missing = [name for name in model.frozen.fitted.features if name not in set(table.features)]
    return replace(
        table,
        X=np.concatenate([table.X, np.full((1, len(missing)), np.nan)], axis=1),
        features=(*table.features, *missing),
        families=(*table.families, *("clinical",) * len(missing)),
        units=(*table.units, *("",) * len(missing)),
    )


def _told(model: _Model) -> dict[str, str]:
    return {
        "run": model.job.name,
        "predicts": f"{model.job.model.label}: {' or '.join(model.frozen.classes)}",
        "procedure": model.procedure,
        **model.worth.facts,
    }


def _shown(slices: Mapping[str, int]) -> dict[int, str]:
    """Per slice what it shows, in order."""
    names = {index: [name for name, at in slices.items() if at == index] for index in sorted(set(slices.values()))}
    return {index: ", ".join(found) for index, found in names.items()}
