"""The job file: its sections, each a frozen dataclass whose fields are the keys, and what has to hold between them.

What stands at a field is explained in :mod:`prognosis_dask.config.fields`; ``docs/configuration.md`` is made from it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from prognosis_dask.config.fields import (
    Above,
    AtLeast,
    Below,
    EventCode,
    File,
    FolderName,
    Location,
    Unit,
    Window,
)
from prognosis_dask.config.radiomics import IbsiSection, MapsSection, RadiomicsSection
from prognosis_dask.config.reading import build, expect, override, read_toml, resolve_paths, shipped
from prognosis_dask.errors import JobError, expect_kind

# Fields that a model specification has too.
TimeUnit = Literal["", "days", "weeks", "months", "years"]
EventCodes = Annotated[
    dict[str, Annotated[int, EventCode()]],
    'What each value of the event column means, for instance `{ "1" = 0, "2" = 1 }`: 1 the event, 0 censored, 2 a '
    "competing event, after which the event cannot be seen; empty: words such as Dead and Alive, and 0 and 1, say "
    "it themselves.",
]
Halves = Annotated[
    int,
    AtLeast(10, or_zero=True),
    "Random halves of the patients on which the whole validation is repeated, for intervals that count the training; "
    "0: intervals from a bootstrap of the patients that keeps the models.",
]
Rows = Annotated[
    Literal["patient", "pooled"],
    "A row per patient, with the columns of each modality side by side, or a row per case, all in the same columns.",
]
Seed = Annotated[int, AtLeast(0), "Seed of the random numbers; equal seeds give equal results."]
Device = Literal["cpu", "gpu"]


@dataclass(frozen=True)
class CohortSection:
    """Where the cases come from: `sources` are folders to index, `cases` is a table of cases."""

    collection: Annotated[
        str,
        "Preset of ROI names, modalities, exclusions and clinical columns: `generic`, `lung1`, `lung4`, `opc`, `hn1`, "
        "`rider`, `abcs`, `lgg_1p19q`, `brats`, `ucsf_pdgm` or `sts`. The keys below override it.",
    ] = "generic"
    sources: Annotated[
        tuple[str, ...],
        Location(),
        "Folders with DICOM, NIfTI, NRRD or MetaImage files; a CSV file of pyradiomics; `s3://BUCKET/PREFIX` and "
        "`gs://BUCKET/PREFIX`; `idc:COLLECTION` and `idc:COLLECTION/PATIENT` of the Imaging Data Commons; a manifest "
        "(`.tcia`, `.s5cmd`) or a list of SeriesInstanceUIDs (`.txt`) of series there.",
    ] = ()
    cases: Annotated[str, File(), "A `cases.csv`, as `prognosis index` writes it."] = ""
    clinical: Annotated[str, File(), "CSV or XLSX with a row per patient."] = ""
    sheet: Annotated[str, "Sheet of the clinical table, where an XLSX file has several."] = ""
    id_column: Annotated[str, "Column of the patients' IDs; empty: as the collection names it."] = ""
    time_column: Annotated[str, "Column of the survival time; empty: as the collection names it."] = ""
    event_column: Annotated[str, "Column of the event; empty: as the collection names it."] = ""
    time_unit: Annotated[TimeUnit, "Unit of the survival time; empty: what collection or heading say, else days."] = ""
    event_codes: EventCodes = field(default_factory=dict)
    roi: Annotated[
        tuple[str, ...], "Names of the region of interest, the first that is there counts; `re:` begins a pattern."
    ] = ()
    roi_policy: Annotated[
        Literal["", "first", "merge", "each"],
        "When several regions match: the first, their union, or a case for each; empty: as the collection has it.",
    ] = ""
    modalities: Annotated[tuple[str, ...], "Modalities to index (`CT`, `MR`, `PT`); empty: the collection's."] = ()
    exclude: Annotated[tuple[str, ...], "Patients to leave out, in place of the collection's own list."] = ()
    sequences: Annotated[
        bool, "The MR sequences of a session (T1, T1c, T2, FLAIR) are one case, on the one that the ROI is drawn on."
    ] = False
    automatic: Annotated[
        bool, "Sessions of patients without any mask are cases too; the brain stage looks for their tumour."
    ] = False
    unmasked: Annotated[bool, "Series of patients without any mask are cases too; `[segment]` outlines them."] = False


@dataclass(frozen=True)
class SynthSection:
    """A synthetic cohort, as the demo makes one."""

    patients: Annotated[int, AtLeast(0), "Number of patients; 0: no cohort is made."] = 0
    seed: Annotated[int, AtLeast(0), "Another cohort for each."] = 0
    signal: Annotated[float, "Factor of the log hazard that the images carry; 0: they say nothing of the outcome."] = (
        1.0
    )
    bad_cases: Annotated[bool, "Eight damaged patients in addition, which show how problems are reported."] = True
    study: Annotated[
        Literal["chest", "brain"], "Chest CT with survival times, or MR of the brain with grades of gliomas."
    ] = "chest"
    matrix: Annotated[int, AtLeast(32), Unit("voxels"), "Rows and columns of a slice of the brain."] = 256


@dataclass(frozen=True)
class ImageSection:
    """How image and mask of a case are brought onto one grid and cropped."""

    resample_mask: Annotated[
        bool, "A mask on another grid is resampled onto the image's (nearest neighbour); else it is a problem."
    ] = False
    mask_threshold: Annotated[
        float,
        AtLeast(0),
        "Least value of a voxel of the mask in files of shares or probabilities; 0: such files are a problem.",
    ] = 0.0
    fill_gaps: Annotated[bool, "Missing contours within a structure's span are filled by shape."] = False
    keep_gaps: Annotated[bool, "Masks are taken as they are, also with empty slices within their span."] = False
    gap_tolerance: Annotated[
        float, Above(0), Below(1), "Deviation of a slice distance from the usual one, relative to it, that is accepted."
    ] = 0.01
    pet: Annotated[Literal["suv", "stored"], "PET as SUV by body weight, or in the units that are stored."] = "suv"
    margin_mm: Annotated[float, AtLeast(0), Unit("mm"), "Margin around the region's bounding box in the crop."] = 20.0


@dataclass(frozen=True)
class BrainSection:
    """How MR of the head is prepared before features are computed."""

    enabled: Annotated[bool, "Whether MR of the head is prepared."] = False
    skull_strip: Annotated[
        Literal["auto", "deepbet", "template", "hd-bet", "synthstrip", "fsl-bet", "robex", "none"],
        "`deepbet`: a neural network (extra `brain`); `template`: registration; `auto`: deepbet where it is installed, "
        "else template; an installed program; or `none`, where all images come without skull.",
    ] = "auto"
    compare_with: Annotated[
        Literal["", "deepbet", "template", "hd-bet", "synthstrip", "fsl-bet", "robex"],
        "A second method: a brain on which both do not agree is refused. Empty: none.",
    ] = ""
    sequences: Annotated[
        tuple[str, ...], "Sequences used besides the one that the tumour is drawn on; empty: all that are there."
    ] = ()
    bias_field: Annotated[bool, "Correct the bias field (N4)."] = True
    smooth_fwhm_mm: Annotated[
        float, AtLeast(0), Unit("mm"), "Full width at half maximum of a Gaussian smoothing; 0: none."
    ] = 0.0
    normalise: Annotated[
        Literal["zscore", "nyul", "none"], "Intensities as z-scores in the brain, mapped to Nyul's scale, or as is."
    ] = "zscore"


@dataclass(frozen=True)
class FramesSection:
    """How the frames of the video network are cut from the image."""

    placement: Annotated[
        Literal["centred", "reference"],
        "The window is centred on the region, or lies where the reference study's does.",
    ] = "centred"
    window: Annotated[
        tuple[float, ...],
        Window(),
        "Lowest and highest grey level in the image's own units, for CT in HU; empty: CT -1000 to 1000, else the "
        "region's 1st to 99th percentile.",
    ] = ()


@dataclass(frozen=True)
class DeepSection:
    """Deep features of a video network."""

    key: ClassVar[str] = "deep"
    enabled: Annotated[bool, "Whether deep features are computed."] = True
    engine: Annotated[
        Literal["auto", "gluon", "torch", "onnx"], "What runs the network; `auto`: torch where installed, else gluon."
    ] = "auto"
    network: Annotated[
        str, File(after="file:"), "A name of docs/networks.md, or `file:PATH` of a TorchScript or ONNX file."
    ] = "i3d_inceptionv1_kinetics400"
    weights: Annotated[
        str, File(after="file:"), "Weights of a named network: `kinetics400`, `file:PATH` or `untrained:SEED`."
    ] = "kinetics400"
    weights_sha256: Annotated[str, "SHA-256 that weights or network file must have; empty: any."] = ""
    output: Annotated[Literal["logits", "pooled"], "The classes' logits, or the averages before the classifier."] = (
        "logits"
    )
    device: Annotated[Device, "Where the network runs."] = "cpu"
    precision: Annotated[
        Literal["float32", "tf32", "bfloat16", "float16"],
        "Arithmetic of the network, see docs/precision.md; float32 runs on every engine and device.",
    ] = "float32"
    memory_format: Annotated[
        Literal["channels_last", "contiguous", "measured"],
        "How the study's network lies in a GPU's memory (engine torch); `measured`: as it is faster, tried once at the "
        "start on one worker, and kept with the run. Features differ in their last bits.",
    ] = "channels_last"
    batch_size: Annotated[
        int, AtLeast(1), Unit("clips"), "Clips that go through a GPU together; on a CPU one by one."
    ] = 8
    input_shape: Annotated[
        tuple[int, ...],
        "Input of a network file: channels, frames (0: one per slice), height, width.",
    ] = ()
    input_mean: Annotated[
        tuple[float, ...], "Mean per channel of a network file's input, grey levels 0 to 1; empty: ImageNet's."
    ] = ()
    input_std: Annotated[
        tuple[float, ...], "Standard deviation per channel of a network file's input; empty: ImageNet's."
    ] = ()


@dataclass(frozen=True)
class SecondDeepSection(DeepSection):
    """Deep features of a second network, a family of their own beside the first one's."""

    key: ClassVar[str] = "deep_2"
    enabled: Annotated[bool, "Whether they are computed."] = False


@dataclass(frozen=True)
class GradeSection:
    """The 3D network of the grade, which is trained on the prepared brains within each training fold."""

    enabled: Annotated[bool, "Whether a grade is learnt; needs `brain.enabled` and `model.label`."] = False
    engine: Annotated[Literal["auto", "gluon", "torch"], "What trains; `auto`: torch where installed, else gluon."] = (
        "auto"
    )
    device: Annotated[Device, "Where the network is trained."] = "cpu"
    input: Annotated[
        Literal["study", "brain", "tumour"],
        "The study's 64 x 64 x 20 voxels, or a crop of brain or tumour with equal spacing.",
    ] = "study"
    epochs: Annotated[int, AtLeast(1), "Passes over the training cases, at most."] = 5
    batch_size: Annotated[int, AtLeast(1), Unit("cases"), "Cases per step of the optimiser."] = 2
    learning_rate: Annotated[float, Above(0), "Learning rate of the optimiser."] = 1e-4
    validation_share: Annotated[
        float, Above(0), Below(1), "Share of the training patients that is held back to decide when to stop."
    ] = 0.2
    patience: Annotated[
        int,
        AtLeast(0),
        Unit("epochs"),
        "Training ends when the held-back patients' loss has not fallen for so long; 0: all patients train, to the "
        "last epoch.",
    ] = 2
    balance: Annotated[bool, "Both classes weigh the same in the loss."] = True
    augment: Annotated[bool, "Training volumes are flipped, turned and varied in intensity."] = True
    cross_fit: Annotated[
        int,
        AtLeast(2, or_zero=True),
        Unit("networks"),
        "Training cases get their features from networks that were trained without them, so many; 0: from the one "
        "that was trained on all of them.",
    ] = 3
    clinical: Annotated[tuple[str, ...], "Columns of the clinical table that may predict the grade."] = ()
    seed: Seed = 0


@dataclass(frozen=True)
class ModelSection:
    """The model that a run ends in; `prognosis fit` compares more."""

    enabled: Annotated[bool, "Whether a model is fitted; else a run ends with its features."] = True
    features: Annotated[
        str,
        "Image features that the model may use, a family of docs/features.md: deep, deep_2, radiomics or ibsi; both: "
        "deep and radiomics.",
    ] = "deep"
    selector: Annotated[str, "Selection of features, a name of docs/procedures.md; empty: none."] = "svm-rfe"
    learner: Annotated[
        str, "The model, a name of docs/procedures.md; empty: Cox, for a label logistic regression, for a grade `mlp`."
    ] = ""
    label: Annotated[str, "Clinical column with the class to predict; empty: survival."] = ""
    classes: Annotated[tuple[str, ...], "The label's values in order; of two, the second is the positive class."] = ()
    entry: Annotated[
        str,
        "Clinical column with the time from which on a case was followed (delayed entry), in days unless its heading "
        "says otherwise; empty: from 0 on.",
    ] = ""
    label_days: Annotated[
        float,
        Above(0),
        Unit("days"),
        "Selectors of classes take survival beyond this time as the label; where that leaves one class, the median "
        "time of the events, with a note.",
    ] = 365.0
    max_features: Annotated[int, AtLeast(1), "Most features that are selected."] = 100
    penalizer: Annotated[float, AtLeast(0), "Strength of the model's penalty."] = 0.01
    folds: Annotated[int, AtLeast(2), "Folds of the cross-validation, over patients."] = 5
    repeats: Annotated[int, AtLeast(1), "Repeats of the cross-validation."] = 3
    halves: Halves = 20
    seed: Seed = 0
    rows: Rows = "patient"


@dataclass(frozen=True)
class IdcSection:
    """What is taken of collections of the Imaging Data Commons (`idc:` among `cohort.sources`)."""

    patients: Annotated[tuple[str, ...], "Only these patients (PatientID)."] = ()
    modalities: Annotated[
        tuple[str, ...],
        "Only these series, images and masks (`CT`, `RTSTRUCT`); empty: `cohort.modalities` with RTSTRUCT and SEG.",
    ] = ()
    analysis_results: Annotated[
        tuple[str, ...],
        "Only masks of these analyses, such as `totalsegmentator_ct_segmentations`; `original`: those that came with "
        "the collection, mostly drawn by experts.",
    ] = ()
    licence: Annotated[
        Literal["", "commercial"], "`commercial`: nothing whose licence is against commercial use; empty: everything."
    ] = ""
    body_part: Annotated[str, "Only images whose headers name this body part (BodyPartExamined); empty: any."] = ""
    limit: Annotated[int, AtLeast(0), Unit("patients"), "Largest number of patients, of those with a mask; 0: all."] = 0
    seed: Annotated[int, AtLeast(0), "With a limit, a random choice for each; 0: the first patients by name."] = 0


@dataclass(frozen=True)
class RunSection:
    """How the job is run; no value depends on it."""

    out: Annotated[
        str, Location(), "The run's folder or address (`s3://`); empty: `runs/NAME` here. `--out` goes first."
    ] = ""
    cache: Annotated[
        str, Location(), "Folder on each worker in which objects that are read are kept; empty: nowhere. `--cache`."
    ] = ""
    cache_gb: Annotated[float, Above(0), Unit("GB"), "What it may hold; the oldest are removed. `--cache-size`."] = 50.0
    cases_per_task: Annotated[int, AtLeast(0), "Cases per task; 0: as many as make a task worth its overhead."] = 0
    retries: Annotated[int, AtLeast(0), "Repeats of a task after an error of the infrastructure."] = 2
    case_limit_s: Annotated[
        float, AtLeast(0), Unit("s"), "Time that a stage may take for a case before it is stopped; 0: no limit."
    ] = 1800.0
    workers_wait_s: Annotated[
        float, AtLeast(0), Unit("s"), "Time to wait for a worker while the cluster has none; 0: no limit."
    ] = 300.0


@dataclass(frozen=True)
class SegmentSection:
    """A network that outlines the region where a case has no mask; see `cohort.unmasked`."""

    key: ClassVar[str] = "segment"
    enabled: Annotated[bool, "Whether regions are outlined where a case has no mask."] = False
    network: Annotated[
        str,
        File(after="file:"),
        "`file:PATH` of a TorchScript or ONNX file with a TOML file beside it, or an installed program: "
        "`totalsegmentator:TASK`, `nnunet:DATASET`. See docs/networks.md.",
    ] = ""
    regions: Annotated[tuple[str, ...], "Labels of the network that make the region, together; empty: all."] = ()
    weights_sha256: Annotated[str, "SHA-256 that the network's file must have; empty: any."] = ""
    device: Annotated[Literal["cpu", "gpu"], "Where the network runs."] = "cpu"


@dataclass(frozen=True)
class Job:
    """A job: cohort, features, model. Relative paths are seen from the job file's folder."""

    name: Annotated[str, FolderName(), "Name of the job and of its run's folder; if absent, the file's name."]
    title: Annotated[str, "Heading of the report."] = ""
    cohort: CohortSection = field(default_factory=CohortSection)
    idc: IdcSection = field(default_factory=IdcSection)
    synth: SynthSection = field(default_factory=SynthSection)
    image: ImageSection = field(default_factory=ImageSection)
    brain: BrainSection = field(default_factory=BrainSection)
    segment: SegmentSection = field(default_factory=SegmentSection)
    frames: FramesSection = field(default_factory=FramesSection)
    radiomics: RadiomicsSection = field(default_factory=RadiomicsSection)
    ibsi: IbsiSection = field(default_factory=IbsiSection)
    maps: MapsSection = field(default_factory=MapsSection)
    deep: DeepSection = field(default_factory=DeepSection)
    deep_2: SecondDeepSection = field(default_factory=SecondDeepSection)
    grade: GradeSection = field(default_factory=GradeSection)
    model: ModelSection = field(default_factory=ModelSection)
    run: RunSection = field(default_factory=RunSection)


def load_job(path: Path | str, overrides: Sequence[str] = ()) -> Job:
    """Read a job file and apply ``--set section.key=value`` overrides (values in TOML's notation, or plain text).

    Relative paths are taken from the job file's folder, those of the overrides from the current one.

    Raises
    ------
    JobError
        When the file is missing, is not TOML, has an unknown key or a value of the wrong type; the message names
        the key, what was expected, and the nearest known key.

    Examples
    --------
    >>> job = load_job(shipped("jobs") / "demo.toml", ["model.folds=3"])
    >>> job.name, job.synth.patients, job.model.folds
    ('demo', 60, 3)
    """
    expect_kind(path, Path | str, "the job", "the path of a job file, or a Job")
    path = Path(path)
    if path.is_dir():
        example = min(path.glob("*.toml"), default=shipped("jobs") / "demo.toml")
        raise JobError(f"{path} is a folder; expected a job file, such as {example}")
    own = shipped("jobs") / path.name
    named = f"the program's own is {own}" if own.is_file() else f"the program's own are in {own.parent}"
    data = read_toml(path, f"no job file at {path}; {named}")
    override(Job, data, overrides)
    data = {"name": path.stem, **resolve_paths(Job, data, path.parent)}
    job = build(Job, data, str(path))
    _check_together(job, str(path))
    return job


def _check_together(job: Job, where: str) -> None:
    """What has to hold between keys."""
    cohort = job.cohort
    ways = [bool(cohort.cases), bool(cohort.sources), job.synth.patients > 0]
    one_way = "one of cohort.cases, cohort.sources, synth.patients"
    expect(sum(ways) <= 1, where, "cohort", "more than one source", one_way)
    segment, brain = job.segment.enabled, job.brain.enabled
    searched = "false, unless brain.enabled, whose stage looks for the tumour"
    expect(not cohort.automatic or brain, where, "cohort.automatic", True, searched)
    expect(not cohort.unmasked or segment, where, "cohort.unmasked", True, "false, unless segment.enabled")
    expect(not (segment and brain), where, "segment.enabled", True, "false with brain.enabled, which finds the tumour")


def index_sections(data: dict[str, dict[str, Any]], overrides: Sequence[str]) -> tuple[CohortSection, IdcSection]:
    """The sections `cohort` and `idc`, as ``prognosis index`` takes them, with ``cohort.key=value`` overrides.

    Raises
    ------
    JobError
        When a key is unknown, or a value of another type.
    """
    whole = _alone({"cohort": {}, "idc": {}, **data}, overrides, "an index takes the keys of cohort and idc only")
    cohort = build(CohortSection, whole["cohort"], "--set", prefix="cohort.")
    return cohort, build(IdcSection, whole["idc"], "--set", prefix="idc.")


def image_section(overrides: Sequence[str]) -> ImageSection:
    """The section `image` alone, of ``image.key=value`` overrides; JobError as :func:`index_sections` raises it."""
    whole = _alone({"image": {}}, overrides, "only the keys of image act here")
    return build(ImageSection, whole["image"], "--set", prefix="image.")


def _alone(data: dict[str, Any], overrides: Sequence[str], why: str) -> dict[str, Any]:
    """Some sections with overrides; others are refused."""
    known = list(data)
    override(Job, data, overrides)
    for name in list(data)[len(known) :]:
        near = get_close_matches(name, known, n=1)
        raise JobError(f"--set {name}: {why}{f'; did you mean {near[0]}?' if near else ''}")
    return data


def digest(*parts: object) -> str:
    """Sixteen hex digits over sections, numbers and texts; equal exactly when all parts are equal.

    >>> digest(ImageSection()) == digest(ImageSection(margin_mm=20.0))
    True
    """
    plain = [asdict(part) if is_dataclass(part) and not isinstance(part, type) else part for part in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]
