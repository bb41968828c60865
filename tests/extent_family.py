"""A feature family that the program does not have: how far the region of interest reaches along each axis."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import SimpleITK as sitk

from prognosis_dask.cohort.case import Case
from prognosis_dask.features.guard import Stopwatch
from prognosis_dask.features.stage import Columns, Family, Stage, StageContext, Work, label, table
from prognosis_dask.storage.rois import RoiStore


class ExtentWork(Work):
    def measure(self, case: Case, context: StageContext, watch: Stopwatch) -> dict[str, object]:
        with watch.step("read"):
            roi = RoiStore.open(context.rois).read_roi(case.case_id)
        held = np.argwhere(sitk.GetArrayViewFromImage(roi.mask) > 0)[:, ::-1]
        voxels = held.max(axis=0) - held.min(axis=0) + 1
        return {"values": [float(n * mm) for n, mm in zip(voxels, roi.mask.GetSpacing(), strict=True)]}

    def columns(self, context: StageContext, modalities: Collection[str]) -> Columns:
        return Columns(dict.fromkeys(("extent_x", "extent_y", "extent_z"), "mm"))


EXTENT = Stage(
    name="extent",
    title="Extent of the region",
    version=1,
    work="tests.extent_family:ExtentWork",
    needs=("roi",),
    family=Family(
        table("extent", "axis", "see axis_units", "extent of the region; NaN where it failed"),
        label("axis", "axis", "the extent's name", optional=True),
        units=label("axis_units", "axis", "its unit", optional=True),
    ),
)
