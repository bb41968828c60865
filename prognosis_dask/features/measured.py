"""The stages of pyradiomics: features, and maps of features.

Features are measured on each case's crop, and on its files where the crop does not suffice: their values are those of
the full image, however much of it the crop holds. Maps are computed on the files, and ``maps/`` keeps the images. One
folder per case, named by the first 12 hex digits of the SHA-256 of the case_id::

    NAME.nrrd          the map of one feature, over the mask's box and the neighbourhood around it
    case.json          case_id, the names of the maps, the SHA-256 of every file, and the digest of the stage that made
                       them, so that what another run wrote late is not taken for this one's

A folder is written aside and published by one rename; in a bucket all objects are written at once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial

from prognosis_dask.cohort.case import Case
from prognosis_dask.config.job import Job
from prognosis_dask.features.guard import Stopwatch
from prognosis_dask.features.roi import CropWork, read_case
from prognosis_dask.features.stage import Columns, StageContext, Work, described, described_settings
from prognosis_dask.imaging.roi import Roi
from prognosis_dask.radiomics import column_names, extract, unit
from prognosis_dask.radiomics.levels import warn_of_few
from prognosis_dask.radiomics.maps import expect_maps, feature_maps, write_nrrd
from prognosis_dask.radiomics.parameter_file import read_params
from prognosis_dask.radiomics.params import OTHERS
from prognosis_dask.storage.brains import ImageStore, is_of_another_run
from prognosis_dask.storage.ledger import TaskResult, Values


class RadiomicsWork(CropWork):
    """The features of pyradiomics, by the parameters of each modality."""

    def inputs(self, context: StageContext, modality: str) -> tuple[object, ...]:
        return context.radiomics.of(modality).identity

    def warm(self, context: StageContext) -> None:
        for _, params in context.radiomics.by_modality:
            column_names(params)

    def measure(self, case: Case, context: StageContext, watch: Stopwatch) -> Values:
        roi: Roi = self.held(case, context, watch)
        read_full = partial(read_case, case, context, full=True, seconds=watch.seconds)
        params, levels = context.radiomics.of(case.modality), dict[str, int]()
        with watch.step("radiomics"):
            values = extract(roi, params, read_full, levels=levels)
        for part, one in params.parts:
            own = {name: count for name, count in levels.items() if name.rpartition(".")[0] == part}
            warn_of_few(own, one.settings, case.modality)
        return {"values": [values[name] for name in column_names(params)]}

    def columns(self, context: StageContext, modalities: Collection[str]) -> Columns:
        """Each feature that some modality has, with its unit; those of each in the order of its own parameters."""
        own = {modality: column_names(context.radiomics.of(modality)) for modality in sorted(modalities)}
        return Columns({name: unit(name) for names in own.values() for name in names}, of_modality=own)

    def meaning(self, context: StageContext) -> dict[str, str]:
        found: dict[str, str] = {}
        for modality, params in context.radiomics.by_modality:
            of = "" if modality == OTHERS else f".{modality}"
            more = {name: one.content for name, one in params.more}
            settings = {"version": self.stage.version, **params.content, **more}
            found |= described(f"radiomics.parameters{of}", settings, self.stage.version, *params.identity)
        return found | described_settings("radiomics.image", context.job, self.stage.settings)


class MapsWork(Work):
    """Compute and keep the maps of each case; no feature comes of them."""

    def check(self, job: Job) -> None:
        expect_maps(read_params(job.maps.params, "maps.params"))

    def inputs(self, context: StageContext, modality: str) -> tuple[object, ...]:
        assert context.maps is not None
        return context.maps.identity

    def prepare(self, context: StageContext, cases: Sequence[Case]) -> None:
        _store(context).create()

    def lost(self, context: StageContext, done: Mapping[str, TaskResult]) -> set[str]:
        made = {header.get("case_id"): header for header in _store(context).headers()}
        return {name for name, row in done.items() if name not in made or is_of_another_run(made[name], row.digest)}

    def measure(self, case: Case, context: StageContext, watch: Stopwatch) -> Values:
        assert context.maps is not None
        roi = read_case(case, context, full=True, seconds=watch.seconds)
        with watch.step("maps"):
            maps = feature_maps(roi, context.maps, radius=context.job.maps.radius or None)
        digest = case.stored.get(self.stage.name, "")
        with watch.step("write"), _store(context).filled(case.case_id, {"maps": list(maps)}, digest) as folder:
            write_nrrd(maps, folder)
        return {"maps": len(maps)}


def _store(context: StageContext) -> ImageStore:
    return ImageStore(f"{context.folder}/maps")
