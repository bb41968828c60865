"""A saved model with everything that a new scan is predicted with: its job, its network, its training scans."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from prognosis_dask.cohort.case import SEQUENCES
from prognosis_dask.config.job import CohortSection, Job, SynthSection, load_job
from prognosis_dask.errors import JobError, StatisticsError
from prognosis_dask.execution.record import load_stages, recorded_job
from prognosis_dask.features.registry import stages
from prognosis_dask.modelling.data.families import kind_of
from prognosis_dask.modelling.data.feature_origin import digests, origin_of, other_origin
from prognosis_dask.modelling.data.network_features import FAMILY, FILE
from prognosis_dask.modelling.data.patient_rows import expect_one_image
from prognosis_dask.modelling.folder import known_json
from prognosis_dask.modelling.saved import MODEL, Frozen, load_frozen
from prognosis_dask.modelling.worth import Worth, worth_of
from prognosis_dask.networks.grade_network import feature_names
from prognosis_dask.objects.address import join
from prognosis_dask.prediction.clinical_inputs import ClinicalInput, clinical_inputs
from prognosis_dask.storage.brains import BrainStore
from prognosis_dask.storage.place import kept_in
from prognosis_dask.storage.rois import RoiStore

#: How features are made where no run lies beside the models.
JOB = "job.toml"


@dataclass(frozen=True)
class TrainingScans:
    """The images of the training cases, as far as the run's folder tells; empty where it does not.

    ``spacing_mm`` is the least and the greatest of (x, y, z); ``reference`` the MR sequence of the prepared brains.
    """

    modalities: frozenset[str] = frozenset()
    spacing_mm: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None
    reference: str = ""


@dataclass(frozen=True, eq=False)
class ScanModel:
    """A model that single scans are predicted with.

    Attributes
    ----------
    key
        Its short name, in forms and in the records of scans.
    title
        Its name for readers.
    frozen
        The model with its training cases' distribution.
    job
        How its features are made; its cohort says which ROI is meant. No grade is trained on a scan.
    facts
        What it predicts, how many cases it learnt from and how good it was.
    training
        The images of its training cases.
    worth
        What it is worth: stands beside each prediction.
    network
        The file of its grade network; None where it has none.
    procedure
        The procedure that it was fitted by; empty where its folder does not say.
    """

    key: str
    title: str
    frozen: Frozen
    job: Job
    facts: Mapping[str, str]
    training: TrainingScans
    worth: Worth
    network: Path | None = None
    procedure: str = ""

    @property
    def takes_no_mask(self) -> bool:
        """Whether a scan may come without a mask: the brain stage or a network then finds the region."""
        return self.job.brain.enabled or (self.job.segment.enabled and self.job.cohort.unmasked)

    @property
    def modality(self) -> str:
        """The modality of an image that does not say its own; empty where the training cases do not tell either."""
        if len(self.training.modalities) == 1:
            return next(iter(self.training.modalities))
        return "MR" if self.job.brain.enabled else "CT" if self.job.cohort.modalities == ("CT",) else ""

    @property
    def clinical_inputs(self) -> tuple[ClinicalInput, ...]:
        """The clinical columns that the prediction depends on."""
        return tuple(column for column in clinical_inputs(self.frozen) if column.used)


def load_models(folders: Sequence[Path]) -> dict[str, ScanModel]:
    """Read the models, by key.

    Raises
    ------
    PrognosisError
        When a folder holds no model that a scan can be predicted with; says what it lacks.
    """
    models: dict[str, ScanModel] = {}
    for folder in folders:
        model = load_model(folder)
        number = 2
        key = model.key
        while key in models:
            key, number = f"{model.key}-{number}", number + 1
        models[key] = replace(model, key=key)
    return models


def load_model(folder: Path) -> ScanModel:
    """Read a model, and the job that made its features, from the folder of a run or of models.

    The job is that of the ``run.json`` beside ``models/``; models that were fitted on tables alone need a ``job.toml``
    there that says how the features are made.

    Raises
    ------
    PrognosisError
        When there is no model or no job, or the job makes other features than the model's.
    """
    frozen = load_frozen(folder)
    expect_one_image(frozen.encodings, f"the model in {folder}")
    models = folder if (folder / MODEL).is_file() else folder / "models"
    run = models.parent
    job, title = _job(folder, models, run)
    if frozen.fitted.procedure.harmonise:
        raise StatisticsError(
            f"{folder}: the model harmonises by scanner or site, and a new scan's site is unknown to it; use one "
            "fitted without harmonisation"
        )
    families = _families(frozen)
    network = run / "networks" / FILE if FAMILY in families else None
    if network is not None and not network.is_file():
        raise StatisticsError(f"{folder}: the model needs the network {network}, which is not there")
    job = replace(
        job,
        synth=SynthSection(),
        maps=replace(job.maps, enabled=False),
        grade=replace(job.grade, enabled=False),
    )
    job = _without_idle_stages(job, families)
    _expect_same_features(folder, frozen, job)
    worth = worth_of(frozen, models)
    key = re.sub(r"[^a-z0-9]+", "-", (job.name or folder.name).lower()).strip("-") or "model"
    procedure = str(known_json(models / "summary.json").get("procedure") or "")
    facts = {"predicts": _predicts(frozen, job), **worth.facts}
    return ScanModel(key, title, frozen, job, facts, _training(run), worth, network, procedure)


def _job(folder: Path, models: Path, run: Path) -> tuple[Job, str]:
    record = known_json(run / "run.json")
    job = recorded_job(record, run / "run.json")
    if job is not None:
        return job, str(record.get("title") or job.name)
    found = next((path / JOB for path in (models, run) if (path / JOB).is_file()), None)
    if found is None:
        raise JobError(
            f"{folder}: nothing says how the model's features are made; give the folder of a run (with its run.json), "
            f"or put the job beside the model as {models / JOB}"
        )
    job = load_job(found)
    title = str(known_json(models / "summary.json").get("title") or "") or job.title or job.name
    return job, title


def _families(frozen: Frozen) -> set[str]:
    """The families of all features that the model asks for.

    Raises
    ------
    StatisticsError
        When nothing tells where one comes from.
    """
    family = {name: encoding.family for encoding in frozen.encodings for name in encoding.features}
    family |= dict.fromkeys(feature_names(), FAMILY)
    unknown = [name for name in frozen.fitted.features if name not in family]
    if unknown:
        raise StatisticsError(f"nothing tells where the model's features come from: {', '.join(unknown[:5])}")
    return {kind_of(family[name]) for name in frozen.fitted.features}


def _without_idle_stages(job: Job, families: set[str]) -> Job:
    """The job without the stages of features that the model does not ask for, unless another stage needs them."""
    wanted = families | ({"radiomics"} if "volume" in families else set())
    needed = {name for stage in stages() for name in stage.needs}
    for stage in stages():
        if stage.switch and stage.family and stage.family.name not in wanted and stage.name not in needed:
            section, _, switch = stage.switch.partition(".")
            off = replace(getattr(job, section), **{switch: False})
            job = replace(job, **{section: off})
    return job


def _expect_same_features(folder: Path, frozen: Frozen, job: Job) -> None:
    modalities = {encoding.modality for encoding in frozen.encodings if encoding.modality}
    made = load_stages(job, "").settings()
    made |= origin_of(made, sorted(modalities)) if len(modalities) == 1 else {}
    for what, value in digests(frozen.fitted.source).items():
        if made.get(what, value) != value:
            raise StatisticsError(other_origin(what, made, frozen.fitted.source, "the job beside it", f"{folder}"))


def _predicts(frozen: Frozen, job: Job) -> str:
    what = f"{job.model.label}: " if job.model.label else ""
    return what + " or ".join(frozen.classes) if frozen.classes else "survival"


def _training(run: Path) -> TrainingScans:
    modalities: set[str] = set()
    if (run / "features.csv").is_file():
        with (run / "features.csv").open(newline="", encoding="utf-8") as stream:
            modalities = {row["modality"] for row in csv.DictReader(stream) if row.get("modality")}
    brains = [header.get("attributes", {}) for header in BrainStore(join(kept_in(run), BrainStore.stage)).headers()]
    references = Counter(str(brain["reference"]) for brain in brains if "reference" in brain).most_common(1)
    reference = references[0][0] if references else ""
    crops = RoiStore(join(kept_in(run), "rois.zarr")).headers()
    spacings = [tuple(map(float, crop["spacing_mm"])) for crop in crops if "spacing_mm" in crop]
    if not spacings:
        return TrainingScans(frozenset(modalities), reference=reference)
    axes = list(zip(*spacings, strict=True))
    least, most = (tuple(end(axis) for axis in axes) for end in (min, max))
    return TrainingScans(
        frozenset(modalities), ((least[0], least[1], least[2]), (most[0], most[1], most[2])), reference
    )


def cohort_rules(model: ScanModel, roi: str = "") -> CohortSection:
    """The job's rules for one scan: without its folders, table and exclusions, and with the ROI named ``roi``, if any.

    MR sequences are told apart where those of the training cases were, by their names or by a table.
    """
    cohort = model.job.cohort
    told_apart = cohort.sequences or model.training.reference in SEQUENCES
    roi_names = (roi,) if roi else cohort.roi
    return replace(cohort, sources=(), cases="", clinical="", exclude=(), sequences=told_apart, roi=roi_names)
