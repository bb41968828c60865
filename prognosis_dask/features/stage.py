"""What a stage is: its name and version, what it needs, what its results depend on, what it gives to the dataset.

A :class:`Stage` is a declaration, cheap to import; :mod:`prognosis_dask.features.registry` lists them all. What a stage
does is a :class:`Work`, in a module that is imported only where it is done: on a worker's child process, and on the
driver when a run is planned.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from prognosis_dask.cohort.case import Case
from prognosis_dask.config.job import Job, digest
from prognosis_dask.features.guard import (
    Stopwatch,
    Wanted,
    begin_ahead,
    guarded,
    is_read_ahead,
    keep_ahead,
    take_ahead,
)
from prognosis_dask.objects.address import is_address
from prognosis_dask.objects.cache import use_cache
from prognosis_dask.storage.ledger import TaskResult, Values

if TYPE_CHECKING:
    from prognosis_dask.radiomics.params import ModalityParams, RadiomicsParams

Kind = Literal["text", "float64", "float32"]


@dataclass(frozen=True)
class VariableSpec:
    """One variable.

    Attributes
    ----------
    name
        Its name; the one that ends in ``*`` stands for all that begin so.
    dims
        Its dimensions, in order.
    kinds
        What it may hold: ``text`` (an array of str), ``float64``, ``float32``.
    units
        In UCUM's notation, ``1`` for a pure number; empty for text.
    meaning
        One line; the variable's ``long_name``.
    coordinate
        Whether it is a coordinate.
    optional
        Whether a dataset may lack it.
    """

    name: str
    dims: tuple[str, ...]
    kinds: tuple[Kind, ...]
    units: str
    meaning: str
    coordinate: bool = False
    optional: bool = False

    @property
    def attributes(self) -> dict[str, str]:
        """What the variable carries in the dataset."""
        return {"long_name": self.meaning, "units": self.units}


def label(name: str, dim: str, meaning: str, *, optional: bool = False) -> VariableSpec:
    """A coordinate of text along one dimension."""
    return VariableSpec(name, (dim,), ("text",), "", meaning, coordinate=True, optional=optional)


def number(name: str, units: str, meaning: str) -> VariableSpec:
    """A number of each case."""
    return VariableSpec(name, ("case",), ("float64",), units, meaning)


def table(name: str, dim: str, units: str, meaning: str, *, kind: Kind = "float64") -> VariableSpec:
    """Numbers of each case along a second dimension."""
    return VariableSpec(name, ("case", dim), (kind,), units, meaning, optional=True)


#: What is on where ``run.json`` does not say.
_DEFAULTS = Job("")
#: Ends the key of what a digest was made of, as text: it tells in what two differ, and need not agree itself.
TOLD = ".told"


@dataclass(frozen=True)
class Family:
    """The features of one stage: a table of the dataset, one row per case and one column per feature.

    Attributes
    ----------
    values
        The table, (case, feature). Its name is the family's.
    names
        The coordinate of the features' names.
    units, labels
        The coordinates of their units and of their classes, where they have some.
    part
        From a feature's name to what the report calls the features that it belongs to.
    if_constant
        What to look at where features of the family have one value in all cases.
    handful
        Whether they are a few figures that enter a model as clinical columns do; else many, which are selected from.
    """

    values: VariableSpec
    names: VariableSpec
    units: VariableSpec | None = None
    labels: VariableSpec | None = None
    part: Callable[[str], str] | None = None
    if_constant: str = ""
    handful: bool = False

    @property
    def name(self) -> str:
        """As the dataset, tables of features and the report have it."""
        return self.values.name

    @property
    def variables(self) -> tuple[VariableSpec, ...]:
        """The coordinates and the table."""
        return tuple(filter(None, (self.names, self.units, self.labels, self.values)))


def _nothing(job: Job) -> tuple[str, ...]:
    return ()


@dataclass(frozen=True)
class Stage:
    """One stage of a run, which each case passes by itself.

    Attributes
    ----------
    name
        As in the ledger, the report and the dashboard.
    title
        What a reader is told while it runs.
    version
        Raised by one whenever its results change for the same input and job, so that resume computes them anew.
    work
        ``module:class`` of its :class:`Work`.
    switch
        The job's key that turns it on; empty: it is part of every run.
    on
        Where no single key does, from what gives the values of the job's keys to whether it is on.
    needs
        Stages that a case has to come through before, as far as they are on.
    values_from
        Stages whose results its own are made of, where those are others than ``needs``.
    settings
        The job's keys that its results, or what it stores, depend on.
    ignores
        From the job to the keys on which what it stores elsewhere depends, through ``values_from``, but not its values.
    variables
        What it gives to the dataset besides a family: numbers or texts of each case, under the names of its result.
    family
        The features that it gives; its result holds them as ``values``.
    memory
        Bytes that a task may need at its peak.
    device
        The job's key that says whether it runs on a ``gpu``; empty: it never does.
    """

    name: str
    title: str
    version: int
    work: str
    switch: str = ""
    on: Callable[[Callable[[str], Any]], bool] | None = None
    needs: tuple[str, ...] = ()
    values_from: tuple[str, ...] | None = None
    settings: tuple[str, ...] = ()
    ignores: Callable[[Job], Collection[str]] = _nothing
    variables: tuple[VariableSpec, ...] = ()
    family: Family | None = None
    memory: int = 1_000_000_000
    device: str = ""

    @property
    def sources(self) -> tuple[str, ...]:
        """The stages that its results are made of."""
        return self.needs if self.values_from is None else self.values_from

    @property
    def is_in_every_run(self) -> bool:
        """Whether nothing turns it off."""
        return not self.switch and self.on is None

    def is_on(self, job: Job | Mapping[str, Any]) -> bool:
        """Whether the job, or what ``run.json`` holds of it, has the stage."""

        def value(key: str) -> Any:
            if isinstance(job, Job):
                return value_of(job, key)
            section, _, name = key.partition(".")
            return (job.get(section) or {}).get(name, value_of(_DEFAULTS, key))

        return self.is_in_every_run or bool(self.on(value) if self.on else value(self.switch))

    def wants_gpu(self, job: Job) -> bool:
        """Whether the job has the stage, on a GPU."""
        return bool(self.device) and self.is_on(job) and value_of(job, self.device) == "gpu"

    def load(self) -> Work:
        """What it does; imports its module."""
        module, _, name = self.work.partition(":")
        work: Work = getattr(import_module(module), name)(self)
        return work


@dataclass(frozen=True)
class StageContext:
    """What travels with every task beside its cases.

    Attributes
    ----------
    folder
        The run's folder, in which stages keep what others need.
    job
        The job, with everything settled that it leaves open.
    radiomics
        Its parameters of pyradiomics, read on the driver: workers may not see the file.
    maps
        Those of feature maps; None where there are none.
    started
        Of this start of a driver alone: what a worker's child remembers of the run's stores holds for one.
    """

    folder: str
    job: Job
    radiomics: ModalityParams
    maps: RadiomicsParams | None = None
    started: str = ""

    @property
    def rois(self) -> str:
        """The store of regions of interest."""
        return f"{self.folder}/rois.zarr"

    @property
    def brains(self) -> str:
        """The folder of prepared brains; empty where images are taken as they are."""
        return f"{self.folder}/brain" if self.job.brain.enabled else ""

    @property
    def masks(self) -> str:
        """The folder of masks that a network outlined; empty where none does."""
        return f"{self.folder}/segment" if self.job.segment.enabled else ""


@dataclass(frozen=True)
class Columns:
    """The features of a stage in one run.

    Attributes
    ----------
    units
        The unit of each feature, by name, in order.
    labels
        The class of each, where they are logits of known classes.
    of_modality
        By modality the features that its cases have, in the order of their values; empty: every case has all.
    """

    units: Mapping[str, str]
    labels: Sequence[str] = ()
    of_modality: Mapping[str, Sequence[str]] = field(default_factory=dict)


class Work:
    """What a stage does: :meth:`measure` and, where it has a family, :meth:`columns`; few need the rest."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def measure(self, case: Case, context: StageContext, watch: Stopwatch) -> Values:
        """The result of one case; data are in the store before it is returned, so that a ledger row means them too.

        Raises
        ------
        CaseError
            What is wrong with the case. Whatever else is raised is the infrastructure's fault, or the program's.
        """
        raise NotImplementedError

    def read(self, case: Case, context: StageContext, seconds: dict[str, float]) -> Any:
        """What :meth:`measure` begins with, for :meth:`held`; gains the seconds of its steps.

        From a bucket it is read in another thread, while the case before is computed.
        """

    def held(self, case: Case, context: StageContext, watch: Stopwatch) -> Any:
        """What :meth:`read` gives, which may have been read ahead."""
        if not is_read_ahead(self.stage.name, case.case_id):
            return self.read(case, context, watch.seconds)
        with watch.step("read"):
            return take_ahead(self.stage.name, case.case_id)

    def reads_ahead(self, case: Case, context: StageContext) -> bool:
        """Whether what the case begins with comes from a bucket."""
        return type(self).read is not Work.read and (is_address(context.folder) or is_address(case.image))

    def run(
        self,
        cases: tuple[Case, ...],
        digests: tuple[str, ...],
        context: StageContext,
        *,
        follows: Callable[[], object] | None = None,
    ) -> list[TaskResult]:
        """The result of each case, whatever becomes of it; ``follows`` begins to read for the task after this one."""
        own = self._begun(cases, digests, context)
        results = []
        for number, one in enumerate(own, start=1):
            if number < len(own):
                self.begin(*own[number], context)
            elif follows is not None:
                follows()
            results.append(guarded(self.stage.name, *one, partial(self.measure, one[0], context)))
        return results

    def begin(self, case: Case, digest: str, context: StageContext) -> None:
        """Have the case's :meth:`read` done meanwhile, where it is one from a bucket."""
        if self.reads_ahead(case, context):
            self._read_ahead(case, digest, context)

    def _begun(
        self, cases: tuple[Case, ...], digests: tuple[str, ...], context: StageContext
    ) -> list[tuple[Case, str]]:
        """The cases of a task with their digests, what was read ahead for others forgotten."""
        use_cache(context.job.run.cache, context.job.run.cache_gb)
        own = list(zip(cases, digests, strict=True))
        keep_ahead([self._wanted(*one, context) for one in own])
        return own

    def _read_ahead(self, case: Case, digest: str, context: StageContext) -> None:
        begin_ahead(self._wanted(case, digest, context), partial(self.read, case, context, {}))

    def _wanted(self, case: Case, digest: str, context: StageContext) -> Wanted:
        return Wanted(context.started, context.folder, self.stage.name, case.case_id, digest)

    def columns(self, context: StageContext, modalities: Collection[str]) -> Columns:
        """The features that cases of these modalities have."""
        raise NotImplementedError

    def check(self, job: Job) -> None:
        """Raise what stands against the job before anything is started: a program that is not installed."""

    def settled(self, job: Job) -> Job:
        """The job with what it leaves open (``auto``) settled, as one for all workers."""
        return job

    def prepare(self, context: StageContext, cases: Sequence[Case]) -> None:
        """Make what the tasks write to; on the driver, before them."""

    def warm(self, context: StageContext) -> None:
        """Load what the first case of a process would wait for."""

    def inputs(self, context: StageContext, modality: str) -> tuple[object, ...]:
        """What the results depend on besides images and settings: the content of files, say; as JSON holds it."""
        return ()

    def meaning(self, context: StageContext) -> dict[str, str]:
        """What the features mean, whatever the cohort: tables that are to be compared must agree in it."""
        return {}

    def provenance(self, context: StageContext) -> dict[str, str]:
        """What ``run.json`` says of the stage, under its name."""
        return {}

    def concerns(self, case: Case) -> bool:
        """Whether the case's results depend on what the stage does; else it passes, whatever the settings."""
        return True

    def lost(self, context: StageContext, done: Mapping[str, TaskResult]) -> set[str]:
        """Of the cases (``case_id``) that are done, with their results, those whose stored data are gone."""
        return set()

    def cases_per_task(self, context: StageContext) -> int:
        """How many cases make a task; 0: as the job says, or as their seconds make worth while."""
        return 0

    def group(self, context: StageContext, needed: TaskResult) -> int:
        """What the cases of one task must share, from the result of the first stage that is needed."""
        return 0


def all_needs(needs: Mapping[str, Collection[str]]) -> dict[str, tuple[str, ...]]:
    """By stage all the stages that a case has to come through before it.

    Parameters
    ----------
    needs
        By stage those that it needs itself; each stage comes after those. What is no stage here is left out.

    >>> all_needs({"roi": ["brain"], "deep": ["roi"]})
    {'roi': (), 'deep': ('roi',)}
    """
    found: dict[str, tuple[str, ...]] = {}
    for stage, own in needs.items():
        before = [name for need in own if need in found for name in (*found[need], need)]
        found[stage] = tuple(dict.fromkeys(before))
    return found


def value_of(job: Job, key: str) -> Any:
    """The value of ``section.name``."""
    section, _, name = key.partition(".")
    return getattr(getattr(job, section), name)


def chosen_settings(job: Job, keys: Collection[str]) -> list[dict[str, Any]]:
    """The sections of the keys, all that is not among these at its default: equal exactly where the keys' values are.

    >>> from prognosis_dask.config.job import ImageSection
    >>> jobs = [Job("a", image=ImageSection(margin_mm=mm, fill_gaps=True)) for mm in (20.0, 30.0)]
    >>> [chosen_settings(job, ["image.fill_gaps"]) == chosen_settings(jobs[0], ["image.fill_gaps"]) for job in jobs]
    [True, True]
    """
    by_section: dict[str, dict[str, Any]] = {}
    for key in keys:
        section, _, name = key.partition(".")
        by_section.setdefault(section, {})[name] = value_of(job, key)
    return [asdict(replace(getattr(_DEFAULTS, section), **values)) for section, values in by_section.items()]


def described(key: str, settings: Mapping[str, Any], *parts: object) -> dict[str, str]:
    """A digest over the parts, and beside it, under the key and :data:`TOLD`, the settings that a message tells.

    >>> described("radiomics.image", {"image.fill_gaps": True}, 1)
    {'radiomics.image': '080a9ed428559ef6', 'radiomics.image.told': '{"image.fill_gaps": true}'}
    """
    return {key: digest(*parts), f"{key}{TOLD}": json.dumps(settings)}


def described_settings(key: str, job: Job, keys: Collection[str], *versions: int) -> dict[str, str]:
    """The same of a job's settings, and of the versions of the stages that use them."""
    settings: dict[str, Any] = {"version": "/".join(map(str, versions))} if versions else {}
    return described(
        key, settings | {name: value_of(job, name) for name in keys}, *versions, *chosen_settings(job, keys)
    )
