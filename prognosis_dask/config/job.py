"""The job file as a validated, frozen object, and the digests that resume compares."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from prognosis_dask.config.sections import build_section
from prognosis_dask.errors import JobError


@dataclass(frozen=True)
class CohortSection:
    """Where the cases come from. Either ``cases`` (a table) or ``sources`` (folders to index).

    ``collection`` names a preset; ``roi``, ``modalities``, ``exclude`` and ``clinical`` override what it says.
    ``sequences``: the MR sequences of a session (T1, T1c, T2, FLAIR) are one case, on the one that the ROI is drawn on.
    ``sheet``: of the clinical table, where it is an XLSX file of several. ``time_column``, ``event_column``: its
    endpoint, where the preset's names are others; ``time_unit``: empty for what preset or heading say;
    ``event_codes``: what each value of the event means, ``{ "1" = 0, "2" = 1 }`` for 2 seen and 1 censored.
    ``automatic``: sessions of patients without any mask are cases too, whose tumour the brain stage looks for itself.
    """

    collection: str = "generic"
    sources: tuple[str, ...] = ()
    cases: str = ""
    clinical: str = ""
    sheet: str = ""
    time_column: str = ""
    event_column: str = ""
    time_unit: Literal["", "days", "weeks", "months", "years"] = ""
    event_codes: dict[str, int] = field(default_factory=dict)
    roi: tuple[str, ...] = ()
    roi_policy: Literal["", "first", "merge", "each"] = ""
    modalities: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    sequences: bool = False
    automatic: bool = False


@dataclass(frozen=True)
class SynthSection:
    """The made cohort of the demo; ``patients`` of zero: none is made.

    ``study``: chest CT with survival times, or MR of the brain with grades, of ``matrix`` x ``matrix`` voxels a slice.
    """

    patients: int = 0
    seed: int = 0
    signal: float = 1.0
    bad_cases: bool = True
    study: Literal["chest", "brain"] = "chest"
    matrix: int = 256


@dataclass(frozen=True)
class ImageSection:
    """How a case is brought onto one grid and cropped (see :mod:`prognosis_dask.imaging`).

    Where slices within a structure's span are empty (see :mod:`prognosis_dask.imaging.gaps`), ``fill_gaps`` fills them
    by shape, ``keep_gaps`` takes the mask as it is. ``mask_threshold``: what a voxel of a mask file that holds shares
    or probabilities has to reach to belong to the mask, 0.5 for instance; zero: such files are a problem.
    ``pet``: PET's values as SUVs by body weight, made with what the DICOM headers say
    (:mod:`prognosis_dask.cohort.pet`), or as they are stored.
    """

    resample_mask: bool = False
    mask_threshold: float = 0.0
    fill_gaps: bool = False
    keep_gaps: bool = False
    gap_tolerance: float = 0.01
    pet: Literal["suv", "stored"] = "suv"
    margin_mm: float = 20.0


@dataclass(frozen=True)
class BrainSection:
    """How MR of the head is prepared before anything is measured (see :mod:`prognosis_dask.brain`).

    ``skull_strip``: ``deepbet``, a neural network (extra ``brain``); ``template``, by registration; ``auto``, the first
    of both where it is installed, else the second; a program that is installed (HD-BET, SynthStrip, FSL's BET, ROBEX);
    or ``none`` where all images came without skull. ``sequences``: those to use besides the one that the tumour is
    drawn on; empty: all that are there. ``smooth_fwhm_mm``: Gaussian smoothing by its full width at half maximum; 0:
    none.
    """

    enabled: bool = False
    skull_strip: Literal["auto", "deepbet", "template", "hd-bet", "synthstrip", "fsl-bet", "robex", "none"] = "auto"
    sequences: tuple[str, ...] = ()
    bias_field: bool = True
    smooth_fwhm_mm: float = 0.0
    normalise: Literal["zscore", "nyul", "none"] = "zscore"


@dataclass(frozen=True)
class FramesSection:
    """How ROI frames are cut: see :mod:`prognosis_dask.imaging.frames`.

    ``window`` is (low, high) in the image's own units; for CT in HU. Empty: CT -1000..1000, else the ROI's 1st to
    99th percentile. ``placement = "reference"`` is the study's window, ``centred`` our own.
    """

    placement: Literal["centred", "reference"] = "centred"
    window: tuple[float, ...] = ()


@dataclass(frozen=True)
class RadiomicsSection:
    """What pyradiomics computes: ``params`` is its own YAML file; empty: its defaults with binWidth 25.

    Or a file for each modality, in a table: ``[radiomics.params]`` with ``CT = "..."``, ``PT = "..."``, ``default =
    "..."``. One width of bins does not do for HU, SUV and the arbitrary numbers of MR.
    """

    enabled: bool = True
    params: str | dict[str, str] = ""


@dataclass(frozen=True)
class DeepSection:
    """Which network on which engine.

    ``engine = "auto"`` is torch where it is installed, else gluon. ``network``: a name, or ``file:PATH`` of a
    TorchScript or ONNX file. The file holds its own weights and takes clips of ``input_shape`` (channels, frames,
    height, width; frames of 0 for one per slice), normalised by ``input_mean`` and ``input_std``. ``weights`` of a
    named network: ``kinetics400``, ``file:PATH`` or ``untrained:SEED``; ``weights_sha256``, where given, is what the
    file must have. ``precision``: see docs/precision.md; float32 runs on every engine and device.
    """

    enabled: bool = True
    engine: Literal["auto", "gluon", "torch", "onnx"] = "auto"
    network: str = "i3d_inceptionv1_kinetics400"
    weights: str = "kinetics400"
    weights_sha256: str = ""
    output: Literal["logits", "pooled"] = "logits"
    device: Literal["cpu", "gpu"] = "cpu"
    precision: Literal["float32", "tf32", "bfloat16", "float16"] = "float32"
    batch_size: int = 8
    input_shape: tuple[int, ...] = ()
    input_mean: tuple[float, ...] = ()
    input_std: tuple[float, ...] = ()


@dataclass(frozen=True)
class ModelSection:
    """What a run ends in (see :mod:`prognosis_dask.modelling.fit`); `prognosis fit` compares more.

    ``selector`` and ``learner`` are names of :mod:`prognosis_dask.modelling.procedure`; without a learner Cox's model,
    or logistic regression where ``label`` names a column with a class. ``classes`` are its values in order.
    Without ``enabled`` a run ends with its features. ``label_days``: selectors of classes take "alive after so many
    days" as the label of survival; where that leaves one class, the median time of the events, which is said.
    ``rows``: a row per patient, with the columns of each modality side by side, or ``pooled``, one per case.
    """

    enabled: bool = True
    features: Literal["deep", "radiomics", "both"] = "deep"
    selector: str = "svm-rfe"
    learner: str = ""
    label: str = ""
    classes: tuple[str, ...] = ()
    label_days: float = 365.0
    max_features: int = 100
    penalizer: float = 0.01
    folds: int = 5
    repeats: int = 3
    halves: int = 20
    seed: int = 0
    rows: Literal["patient", "pooled"] = "patient"


@dataclass(frozen=True)
class GradeSection:
    """Whether and how the 3D network of the grade is trained (see :mod:`prognosis_dask.networks.training`).

    ``input``: the study's 64 x 64 x 20, or a crop of the brain or tumour with equal spacing. ``epochs``, ``batch_size``
    and ``learning_rate`` are the study's. ``validation_share`` of the training patients is held back, and training ends
    when their loss has not fallen for ``patience`` epochs; patience of 0: all train, for all epochs. ``balance`` weighs
    the classes alike, ``augment`` flips, turns and changes the volumes. ``cross_fit``: training cases get their
    features from so many networks, each trained without them; 0: from the one that was trained on all of them.
    ``clinical``: columns of the clinical table that may help to tell the grade.
    """

    enabled: bool = False
    engine: Literal["auto", "gluon", "torch"] = "auto"
    device: Literal["cpu", "gpu"] = "cpu"
    input: Literal["study", "brain", "tumour"] = "study"
    epochs: int = 5
    batch_size: int = 2
    learning_rate: float = 1e-4
    validation_share: float = 0.2
    patience: int = 2
    balance: bool = True
    augment: bool = True
    cross_fit: int = 3
    clinical: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class RunSection:
    """How the runner behaves; nothing here changes a value, so nothing here enters a digest.

    ``cases_per_task``; zero: as many as the seconds that cases take make worth while. ``retries`` after errors of the
    infrastructure. ``case_limit_s``: seconds that a stage may take for a case before it is stopped. ``workers_wait_s``:
    seconds to wait for a worker when the cluster has none. Zero: for ever.
    """

    out: str = ""
    cases_per_task: int = 0
    retries: int = 2
    case_limit_s: float = 1800.0
    workers_wait_s: float = 300.0


@dataclass(frozen=True)
class Job:
    """One job file. Relative paths in it have been resolved against the file's folder."""

    name: str
    title: str = ""
    cohort: CohortSection = field(default_factory=CohortSection)
    synth: SynthSection = field(default_factory=SynthSection)
    image: ImageSection = field(default_factory=ImageSection)
    brain: BrainSection = field(default_factory=BrainSection)
    frames: FramesSection = field(default_factory=FramesSection)
    radiomics: RadiomicsSection = field(default_factory=RadiomicsSection)
    deep: DeepSection = field(default_factory=DeepSection)
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
    """
    path = Path(path)
    if not path.is_file():
        raise JobError(f"no job file at {path}; the ones that come with the project are in jobs/")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise JobError(f"{path} is not TOML: {error}") from error
    for override in overrides:
        apply_override(data, override)
    data.setdefault("name", path.stem)
    job: Job = build_section(Job, data, str(path))
    _check(job, str(path))
    return _resolve(job, path.parent)


def cohort_section(data: dict[str, Any], overrides: Sequence[str]) -> CohortSection:
    """A cohort section of its own, as ``prognosis index`` takes it, with ``cohort.key=value`` overrides.

    Raises
    ------
    JobError
        When a key is unknown, or a value of another type.
    """
    whole: dict[str, Any] = {"cohort": data}
    for override in overrides:
        apply_override(whole, override)
    others = [name for name in whole if name != "cohort"]
    if others:
        raise JobError(f"--set {others[0]}: an index takes the keys of cohort only")
    section: CohortSection = build_section(CohortSection, whole["cohort"], "--set", "cohort.")
    return section


def apply_override(data: dict[str, Any], override: str) -> None:
    """Write what ``section.key=value`` says into the file's content; a path is taken from the current folder.

    Raises
    ------
    JobError
        When it is not of that form.
    """
    key, equals, text = override.partition("=")
    if not equals:
        raise JobError(f"--set {override!r}: expected section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    key, here = key.strip(), Path.cwd()
    if key in PATHS or key.rpartition(".")[0] in PATHS:
        value = resolved(key, value, here)
    *sections, name = key.split(".")
    for section in sections:
        data = data.setdefault(section, {})
        if not isinstance(data, dict):
            raise JobError(f"--set {override!r}: {section!r} is not a section, but holds a value in the file")
    data[name] = value


def _check(job: Job, where: str) -> None:
    def expect(condition: bool, key: str, value: object, expected: str) -> None:
        if not condition:
            raise JobError(f"{where}: {key} is {value!r}, expected {expected}")

    is_name = Path(job.name).name == job.name and job.name not in ("", "..")
    expect(is_name, "name", job.name, "a name that a folder can have, without slashes")
    cohort = job.cohort
    ways = [bool(cohort.cases), bool(cohort.sources), job.synth.patients > 0]
    expect(sum(ways) <= 1, "cohort", "more than one source", "one of cohort.cases, cohort.sources, synth.patients")
    expect(job.synth.patients >= 0, "synth.patients", job.synth.patients, "zero or more")
    expect(job.synth.seed >= 0, "synth.seed", job.synth.seed, "zero or more")
    window = job.frames.window
    expect(
        not window or (len(window) == 2 and window[0] < window[1]),
        "frames.window",
        list(window),
        "two numbers, the lower one first, or none",
    )
    expect(job.image.margin_mm >= 0, "image.margin_mm", job.image.margin_mm, "zero or more")
    threshold = job.image.mask_threshold
    expect(threshold >= 0, "image.mask_threshold", threshold, "above zero, or zero: none")
    alone = cohort.automatic and not job.brain.enabled
    expect(not alone, "cohort.automatic", True, "false, unless brain.enabled, whose stage looks for the tumour")
    expect(job.brain.smooth_fwhm_mm >= 0, "brain.smooth_fwhm_mm", job.brain.smooth_fwhm_mm, "zero or more")
    expect(0 < job.image.gap_tolerance < 1, "image.gap_tolerance", job.image.gap_tolerance, "between 0 and 1")
    expect(job.deep.batch_size >= 1, "deep.batch_size", job.deep.batch_size, "one or more")
    expect(job.grade.epochs >= 1, "grade.epochs", job.grade.epochs, "one or more")
    expect(job.grade.batch_size >= 1, "grade.batch_size", job.grade.batch_size, "one or more")
    expect(job.grade.learning_rate > 0, "grade.learning_rate", job.grade.learning_rate, "above zero")
    expect(0 < job.grade.validation_share < 1, "grade.validation_share", job.grade.validation_share, "between 0 and 1")
    expect(job.grade.patience >= 0, "grade.patience", job.grade.patience, "zero or more")
    several = job.grade.cross_fit == 0 or job.grade.cross_fit >= 2
    expect(several, "grade.cross_fit", job.grade.cross_fit, "zero, or two or more")
    expect(job.grade.seed >= 0, "grade.seed", job.grade.seed, "zero or more")
    expect(job.model.folds >= 2, "model.folds", job.model.folds, "two or more")
    expect(job.model.repeats >= 1, "model.repeats", job.model.repeats, "one or more")
    halves = job.model.halves
    expect(halves == 0 or halves >= 10, "model.halves", halves, "zero, or ten or more")
    expect(job.model.max_features >= 1, "model.max_features", job.model.max_features, "one or more")
    expect(job.run.cases_per_task >= 0, "run.cases_per_task", job.run.cases_per_task, "zero or more")
    expect(job.run.retries >= 0, "run.retries", job.run.retries, "zero or more")
    expect(job.run.case_limit_s >= 0, "run.case_limit_s", job.run.case_limit_s, "seconds, or zero for no limit")
    expect(job.run.workers_wait_s >= 0, "run.workers_wait_s", job.run.workers_wait_s, "seconds, or zero for no limit")
    expect(job.model.penalizer >= 0, "model.penalizer", job.model.penalizer, "zero or more")


def _resolve(job: Job, folder: Path) -> Job:
    for key in PATHS:
        section_name, name = key.split(".")
        section = getattr(job, section_name)
        found = resolved(key, getattr(section, name), folder)
        job = replace(job, **{section_name: replace(section, **{name: found})})
    return job


def digest(*parts: object) -> str:
    """Sixteen hex digits over sections, numbers and texts; equal exactly when all parts are equal.

    >>> digest(ImageSection()) == digest(ImageSection(margin_mm=20.0))
    True
    """
    plain = [asdict(part) if is_dataclass(part) and not isinstance(part, type) else part for part in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


# --- Which keys of a job hold paths, and what these are as seen from a folder.


#: The keys that hold paths ...
PATHS = (
    "cohort.sources",
    "cohort.cases",
    "cohort.clinical",
    "radiomics.params",
    "deep.network",
    "deep.weights",
    "run.out",
)
#: ... these where they begin with ``file:``.
_FILES = ("deep.network", "deep.weights")
_FILE = "file:"


def resolved(key: str, value: Any, folder: Path) -> Any:
    """A path, or several in a list or a table, as seen from the folder; what is no path is left to be judged later."""
    if isinstance(value, dict):
        return {name: _path(key, item, folder) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_path(key, item, folder) for item in value)
    return _path(key, value, folder)


def _path(key: str, value: Any, folder: Path) -> Any:
    """The path as seen from the folder; what is no path is left as it is, to be judged later."""
    is_file = isinstance(value, str) and value.startswith(_FILE)
    if not isinstance(value, str) or not value or (key in _FILES and not is_file):
        return value
    prefix = _FILE if is_file else ""
    return f"{prefix}{(folder / Path(value.removeprefix(prefix)).expanduser()).resolve()}"
