"""The stage of IBSI's features: measured as pyradiomics' are. Its imports are heavy, so it is a module of its own."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from prognosis_dask.cohort.case import Case
from prognosis_dask.config.job import Job
from prognosis_dask.features.guard import Stopwatch
from prognosis_dask.features.roi import CropWork, read_case
from prognosis_dask.features.stage import Columns, StageContext, described_settings
from prognosis_dask.imaging.roi import Roi
from prognosis_dask.radiomics import ibsi
from prognosis_dask.radiomics.ibsi.filters import read_filter
from prognosis_dask.storage.ledger import Values


class IbsiWork(CropWork):
    """The features that IBSI defines."""

    def check(self, job: Job) -> None:
        for name in job.ibsi.filters:
            read_filter(name, by_slice=job.ibsi.by_slice)

    def measure(self, case: Case, context: StageContext, watch: Stopwatch) -> Values:
        roi: Roi = self.held(case, context, watch)
        read_full = partial(read_case, case, context, full=True, seconds=watch.seconds)
        with watch.step("ibsi"):
            values = ibsi.measure(roi, context.job.ibsi, read_full, whole=case.modality == "CT")
        return {"values": list(values.values())}

    def columns(self, context: StageContext, modalities: Collection[str]) -> Columns:
        return Columns({name: ibsi.unit(name) for name in ibsi.names(context.job.ibsi)})

    def meaning(self, context: StageContext) -> dict[str, str]:
        return described_settings("ibsi.parameters", context.job, self.stage.settings, self.stage.version)
