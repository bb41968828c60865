"""The stage of the radiomic features: pyradiomics on each case's crop, on its files where the crop does not suffice."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from prognosis_dask.cohort.case import Case
from prognosis_dask.features.guard import Stopwatch
from prognosis_dask.features.roi import read_case
from prognosis_dask.features.stage import Columns, StageContext, Work, told, told_settings
from prognosis_dask.imaging.roi import Roi
from prognosis_dask.radiomics import column_names, extract, unit
from prognosis_dask.radiomics.levels import warn_of_few
from prognosis_dask.radiomics.params import OTHERS
from prognosis_dask.storage.rois import RoiStore


class RadiomicsWork(Work):
    """The values are those of the full image, however much of it the crop holds."""

    def inputs(self, context: StageContext, modality: str) -> tuple[object, ...]:
        return context.radiomics.of(modality).identity

    def warm(self, context: StageContext) -> None:
        for _, params in context.radiomics.by_modality:
            column_names(params)

    def read(self, case: Case, context: StageContext, seconds: dict[str, float]) -> Roi:
        with Stopwatch(seconds).step("read"):
            return RoiStore.open(context.rois).read_roi(case.case_id)

    def measure(self, case: Case, context: StageContext, watch: Stopwatch) -> dict[str, object]:
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
            found |= told(f"radiomics.parameters{of}", settings, self.stage.version, *params.identity)
        return found | told_settings("radiomics.image", context.job, self.stage.settings)
