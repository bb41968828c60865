"""The stages of one job, loaded: what they get to know, their digests, and what their features mean.

A digest holds the stage's version, the case's own digest with the way in which its files are read or the digests of the
stages that its results are made of, the settings that its results depend on, and what else they depend on: equal
digests, equal results.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prognosis_dask.cohort.case import Case
from prognosis_dask.config.job import Job, digest
from prognosis_dask.features.registry import stages_of
from prognosis_dask.features.stage import Columns, Stage, StageContext, Work, chosen_settings
from prognosis_dask.imaging.load import READING
from prognosis_dask.radiomics.parameter_file import job_params, read_params


@dataclass(frozen=True)
class LoadedStages:
    """The stages that a job has switched on, each after those that it needs, by name."""

    context: StageContext
    works: Mapping[str, Work]

    def digests(self, cases: Sequence[Case]) -> dict[str, dict[str, str]]:
        """By stage and ``case_id`` the digest of everything that the stage's result depends on."""
        found = _Digests(self)
        return {name: {case.case_id: found.of(name, case) for case in cases} for name in self.works}

    def settings(self) -> dict[str, str]:
        """What a feature means, whatever the cohort: tables whose features are to be compared must agree in it."""
        return {key: value for work in self.works.values() for key, value in work.meaning(self.context).items()}

    def columns(self, cases: Sequence[Case]) -> dict[str, Columns]:
        """By stage the features that the cases have."""
        modalities = {case.modality for case in cases}
        return {name: w.columns(self.context, modalities) for name, w in self.works.items() if w.stage.family}

    def provenance(self) -> dict[str, dict[str, str]]:
        """By stage what a run's record says of it besides the job."""
        found = {name: work.provenance(self.context) for name, work in self.works.items()}
        return {name: provenance for name, provenance in found.items() if provenance}

    def prepare(self, cases: Sequence[Case]) -> None:
        """Make what the tasks write to."""
        for work in self.works.values():
            work.prepare(self.context, cases)


def load_stages(job: Job, folder: str) -> LoadedStages:
    """The stages of a job in a run's folder, with all settled that the job leaves open.

    Raises
    ------
    JobError, MissingExtraError
        When the parameters of pyradiomics, the network or a program are not there.
    """
    works = {stage.name: stage.load() for stage in stages_of(job)}
    for work in works.values():
        job = work.settled(job)
    maps = read_params(job.maps.params, "maps.params") if job.maps.enabled else None
    return LoadedStages(StageContext(folder, job, job_params(job.radiomics.params), maps, uuid.uuid4().hex), works)


class _Digests:
    """What the digests of a stage's cases share is put together once for each modality."""

    def __init__(self, stages: LoadedStages) -> None:
        self._context, self._works = stages.context, stages.works
        self._shared: dict[tuple[str, str, frozenset[str]], list[object]] = {}

    def of(self, name: str, case: Case, ignored: frozenset[str] = frozenset()) -> str:
        """The digest of a case; on the settings that are ``ignored`` nothing of what follows depends."""
        work, stage = self._works[name], self._works[name].stage
        if not work.concerns(case):
            return digest(stage.version, case.digest)
        below = ignored.union(stage.ignores(self._context.job))
        concerned = [one for one in stage.sources if one in self._works and self._works[one].concerns(case)]
        sources = [self.of(source, case, below) for source in concerned]
        return digest(stage.version, *(sources or (READING, case.digest)), *self._parts(stage, case.modality, ignored))

    def _parts(self, stage: Stage, modality: str, ignored: frozenset[str]) -> list[object]:
        key = stage.name, modality, ignored
        if key not in self._shared:
            settings = [name for name in stage.settings if name not in ignored]
            inputs = self._works[stage.name].inputs(self._context, modality)
            self._shared[key] = [*chosen_settings(self._context.job, settings), *inputs]
        return self._shared[key]
