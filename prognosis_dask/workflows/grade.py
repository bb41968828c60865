"""What a run of the brain study ends in: the volumes of its network, and the grade learnt from all its features."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import xarray as xr

from prognosis_dask.arrays import Float32Array, Map
from prognosis_dask.cohort.clinical import key
from prognosis_dask.config.job import GradeSection, Job, ModelSection, digest
from prognosis_dask.errors import BucketError, CaseError, JobError, StatisticsError, StoreError, WeightsError, count
from prognosis_dask.execution.record import recorded_job
from prognosis_dask.features.dataset import read_features
from prognosis_dask.features.registry import families
from prognosis_dask.modelling.data.endpoint import Classes
from prognosis_dask.modelling.data.families import computed_families
from prognosis_dask.modelling.data.network_features import FAMILY, FILE, NetworkFeatures
from prognosis_dask.modelling.data.sources import Source, dataset_source
from prognosis_dask.modelling.estimators import learner_for
from prognosis_dask.modelling.fit import fit_source
from prognosis_dask.modelling.folder import known_json
from prognosis_dask.modelling.procedure import Procedure
from prognosis_dask.modelling.selectors import selector_for
from prognosis_dask.modelling.spec import EndpointRule, ModelSpec, ValidationRule
from prognosis_dask.networks.grade_network import BRAIN, STUDY_SHAPE, TUMOUR, isotropic_crop, study_input
from prognosis_dask.networks.keras_file import read_keras
from prognosis_dask.networks.training import Trained, run_network, settle_learner, trained_bytes
from prognosis_dask.objects.address import join
from prognosis_dask.publish import remove_abandoned
from prognosis_dask.storage.brains import BrainStore, StoredBrain
from prognosis_dask.storage.ledger import digests_in
from prognosis_dask.storage.place import fetch_part, kept_in, local_copy
from prognosis_dask.storage.volumes import create_volumes, write_volume


def check_grade(job: Job) -> None:
    """Refuse a job whose grade cannot be learnt, before anything is started.

    Raises
    ------
    JobError
        When the brains are not prepared, no column is named that holds the grade, it is a feature too, it has other
        than two classes, or a selector or a learner is not for classes.
    MissingExtraError
        When the engine is not installed.
    """
    if not job.brain.enabled:
        raise JobError("grade.enabled needs the prepared brains: set brain.enabled = true")
    if not job.model.label:
        raise JobError("grade.enabled needs model.label: the column of the clinical table that holds the grade")
    if key(job.model.label) in map(key, job.grade.clinical):
        raise JobError(f"grade.clinical names {job.model.label!r}, which is to be predicted; leave it out")
    if len(job.model.classes) not in (0, 2):
        told = ", ".join(job.model.classes)
        raise JobError(f"model.classes is {told}; the grade network learns two: the second is the positive one")
    try:
        grade_spec(job.model, (*_families(), FAMILY))
    except StatisticsError as error:
        raise JobError(f"model.{error}") from error
    settle_learner(job.grade)


def _families() -> tuple[str, ...]:
    """What a grade is learnt from besides its network, in the order of the comparison: all that a run measures."""
    return (*(family.name for family in families() if family.handful), "clinical", *computed_families())


def fit_grade(
    job: Job, dataset: xr.Dataset, folder: Path, map: Map = map, training_map: Map | None = None
) -> dict[str, Any]:
    """Make the network's volumes, then compare, validate and save the models of the grade in ``folder/models``.

    Parameters
    ----------
    job
        Its ``[grade]`` says how the network is trained and which clinical columns may be features, its ``[model]``
        what is predicted and how it is validated.
    dataset
        The run's feature dataset.
    folder
        The run's folder, or the working copy of one in a bucket: ``brain/`` is read; ``volumes.zarr``, ``networks/``
        and ``models/`` are written.
    map
        Where volumes are made and models fitted; called like the built-in one.
    training_map
        Where networks are trained; as ``map`` if there is none.

    Returns
    -------
    dict
        As :func:`prognosis_dask.modelling.fit.fit_source`.

    Raises
    ------
    JobError
        When a clinical column is not in the cohort's table.
    StoreError, BucketError
        When a prepared brain is damaged, or its bucket does not give it.
    """
    section = replace(job.grade, engine=settle_learner(job.grade))
    source = _features(dataset_source(dataset, "the run"), section)
    brains, volumes, networks = (join(kept_in(folder), name) for name in (BrainStore.stage, "volumes.zarr", "networks"))
    contents = make_volumes(brains, volumes, source.cases, section, map, digests_in(folder, BrainStore.stage))
    _expect_volumes(source, contents, brains)
    remove_abandoned(folder / "networks" / FILE)
    known = {*source.families.values(), *(("clinical",) if section.clinical else ())}
    spec = grade_spec(job.model, (*(family for family in _families() if family in known), FAMILY))
    of_case = dict(zip(source.cases, contents, strict=True))
    features = NetworkFeatures(volumes, section, digest(contents), networks, of_case)
    summary = fit_source(source, spec, folder / "models", map, extend=features.of_folds(training_map or map))
    fetch_part(folder, "networks")
    return summary


def make_volumes(
    brains: Path | str,
    volumes: Path | str,
    case_ids: Sequence[str],
    section: GradeSection,
    map: Map = map,
    made: Mapping[str, str] | None = None,
) -> list[str]:
    """Make each prepared brain's volume; the digest of each, "" where a case has no prepared brain.

    ``made``: by case the digest under which the brain was prepared.
    """
    create_volumes(volumes, case_ids, shape_of(section))
    digests = [(made or {}).get(case_id, "") for case_id in case_ids]
    return list(map(partial(_make, brains, volumes, section), list(case_ids), digests))


def import_network(
    source: Path,
    target: Path,
    *,
    axes: str = "",
    shape: tuple[int, int, int] | None = None,
    run: Path | str | None = None,
) -> Trained:
    """Write a network that Keras saved as this program keeps its own, and predict the prepared brains of a run.

    Parameters
    ----------
    source, axes, shape
        As :func:`prognosis_dask.networks.keras_file.read_keras` takes them.
    target
        The file to be written.
    run
        A run's folder or address: the probability of the positive class for each of its prepared brains is written
        beside ``target``, as ``.csv`` with the columns ``case_id`` and ``probability``.

    Raises
    ------
    MissingExtraError, WeightsError
        As :func:`read_keras`; or when ``target`` cannot be written.
    StoreError, JobError, CaseError
        When ``run`` is no run with prepared brains, or a brain is damaged.
    """
    trained = read_keras(source, axes=axes, input_shape=shape)
    rows = [] if run is None else _probabilities(trained, local_copy(run))
    try:
        target.write_bytes(trained_bytes(trained))
        if run is not None:
            with target.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([("case_id", "probability"), *rows])
    except OSError as error:
        raise WeightsError(f"cannot write {error.filename}: {error.strerror}") from error
    return trained


def _probabilities(trained: Trained, run: Path) -> list[tuple[str, float]]:
    """Each case that has a prepared brain, with the network's probability of the positive class."""
    job = recorded_job(known_json(run / "run.json"), run / "run.json")
    if job is None or not job.brain.enabled:
        raise StoreError(f"{run} is no run with prepared brains; --run takes the folder of one")
    if shape_of(job.grade) != trained.network.input_shape:
        raise WeightsError(
            f"the network takes {trained.network.input_shape} slices, rows and columns, grade.input = "
            f"{job.grade.input!r} of {run} gives {shape_of(job.grade)}"
        )
    source = dataset_source(read_features(run), "the run")
    cases = [case for case, failed in zip(source.cases, source.failed["size"], strict=True) if not failed]
    if not cases:
        raise StoreError(f"{run} has no prepared brain")
    store = BrainStore(join(kept_in(run), BrainStore.stage))
    volumes = np.stack([volume_of(store.read(case), job.grade) for case in cases])
    _, found = run_network(trained, volumes, job.grade)
    return [(case, float(value)) for case, value in zip(cases, found, strict=True)]


def shape_of(section: GradeSection) -> tuple[int, int, int]:
    """Slices, rows and columns of the network's input."""
    return {"study": STUDY_SHAPE, "brain": BRAIN.shape, "tumour": TUMOUR.shape}[section.input]


def volume_of(brain: StoredBrain, section: GradeSection) -> Float32Array:
    """What the network takes of a prepared brain.

    Raises
    ------
    CaseError
        As :mod:`prognosis_dask.networks.grade_network` has it.
    """
    if section.input == "study":
        return study_input(sitk.GetArrayViewFromImage(brain.image))
    if section.input == "brain":
        return isotropic_crop(brain.image, brain.brain, BRAIN)
    return isotropic_crop(brain.image, brain.tumour, TUMOUR)


def _make(brains: Path | str, volumes: Path | str, section: GradeSection, case_id: str, made: str) -> str:
    try:
        volume = volume_of(BrainStore(brains).read(case_id, made), section)
    except CaseError as error:
        if error.problem.code.startswith("object-"):  # says nothing about what is in it
            raise BucketError.of(error) from error
        return ""  # the brain stage has told why
    return write_volume(volumes, case_id, volume)


def _expect_volumes(source: Source, contents: Sequence[str], brains: str) -> None:
    """A case whose brain was prepared and measured is not left out in silence."""
    whole = ~source.failed["size"]
    lost = [case for case, content, held in zip(source.cases, contents, whole, strict=True) if held and not content]
    if lost:
        raise StoreError(
            f"{count(len(lost), 'prepared brain')} missing or damaged, the first in "
            f"{BrainStore(brains).folder(lost[0])}: remove what is left of each and run the same command again"
        )


def _features(source: Source, section: GradeSection) -> Source:
    """The source with the features that may predict a grade: of images, of size, and the clinical columns named.

    No other column: a table of grades holds histology and markers that are known from the operation only.
    """
    found = {name: source.find(name) for name in section.clinical}
    absent = [name for name, column in found.items() if column is None]
    if absent:
        raise JobError(f"grade.clinical names {absent[0]!r}; the cohort's table has no such column")
    wanted = {column.name for column in found.values() if column is not None}
    measured = _families()
    kept = tuple(name for name in source.features if source.families.get(name) in measured or name in wanted)
    return replace(source, features=kept)


_PENALTIES = (0.01, 0.1, 1.0)
_COUNTS = (2, 5, 10, 20, 50)
#: Of two features that correlate more than this one is left: a network's units say much the same, and many that say
#: nothing would crowd out the few that say something.
_CORRELATION = 0.9
#: What learners and selectors have to be for.
_TWO_CLASSES = Classes(np.arange(2), ("benign", "malignant"))


def grade_spec(section: ModelSection, families: Sequence[str]) -> ModelSpec:
    """The specification of a job whose ``[model]`` names a label.

    Parameters
    ----------
    section
        Its ``label``, ``classes``, ``learner`` (empty: the perceptron), ``selector``, ``folds``, ``repeats`` and
        ``seed`` are used.
    families
        The families of features that there are, in the order of the comparison.

    Raises
    ------
    StatisticsError
        When the learner or the selector is none, or not for classes.
    """
    counts = tuple(count for count in _COUNTS if count < section.max_features) or (section.max_features,)
    common = Procedure(
        learner=section.learner or "mlp",
        selector=section.selector,
        correlation=_CORRELATION,
        n_features=counts,
        penalty=_PENALTIES,
    )
    procedures = {family: _of(common, (family,)) for family in families}
    if len(families) > 1:
        procedures["all"] = _of(common, tuple(families))
    for procedure in procedures.values():
        learner_for(procedure.learner, _TWO_CLASSES)
        if procedure.selector:
            selector_for(procedure.selector, _TWO_CLASSES)
    return ModelSpec(
        endpoint=EndpointRule(label=section.label, classes=section.classes),
        rows=section.rows,
        procedure=procedures,
        final=list(procedures)[-1],
        validation=ValidationRule(
            folds=section.folds, repeats=section.repeats, halves=section.halves, seed=section.seed
        ),
    )


def _of(common: Procedure, families: tuple[str, ...]) -> Procedure:
    many = (*computed_families(), FAMILY)  # these need a selection; the others enter a model as they are
    forced = tuple(family for family in families if family not in many)
    if len(forced) == len(families):
        return replace(common, families=families, selector="")
    return replace(common, families=families, forced=forced)
