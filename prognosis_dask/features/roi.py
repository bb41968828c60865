"""The stage of the region of interest: read and crop each case, cut its frames, store both; work on a stored crop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import SimpleITK as sitk

from prognosis_dask.cohort.case import Case
from prognosis_dask.errors import Code, warn
from prognosis_dask.features.guard import Stopwatch
from prognosis_dask.features.stage import StageContext, Work
from prognosis_dask.imaging.load import load_roi
from prognosis_dask.imaging.roi import MOST_BEYOND, Roi, crop_roi, grid_of, make_frames
from prognosis_dask.radiomics import RadiomicsParams, column_names
from prognosis_dask.storage.brains import BrainStore, MaskStore
from prognosis_dask.storage.ledger import Values
from prognosis_dask.storage.rois import RoiStore


class RoiWork(Work):
    """Image and mask on one grid; frames for the network and a crop for what is measured."""

    def prepare(self, context: StageContext, cases: Sequence[Case]) -> None:
        RoiStore.create(context.rois, [case.case_id for case in cases])

    def inputs(self, context: StageContext, modality: str) -> tuple[object, ...]:
        # whether a mask on one slice will do is part of what becomes of a case; elsewhere the digest is as ever
        return ("planar",) if context.radiomics.of(modality).planar else ()

    def warm(self, context: StageContext) -> None:
        import pydicom  # noqa: F401

    def read(self, case: Case, context: StageContext, seconds: dict[str, float]) -> Roi:
        return read_case(case, context, seconds=seconds)

    def measure(self, case: Case, context: StageContext, watch: Stopwatch) -> Values:
        roi: Roi = self.held(case, context, watch)
        with watch.step("frames"):
            frames = make_frames(roi, context.job.frames, case.modality)
        crop = crop_roi(roi, context.job.image.margin_mm)
        with watch.step("write"):
            attributes = {"roi": case.roi, "cut": frames.cut}
            digest = case.stored.get(self.stage.name, "")
            store = RoiStore.open(context.rois, context.started)
            store.write(case.case_id, crop, frames.pixels, attributes, digest)
        mask = sitk.GetArrayViewFromImage(crop.mask)
        voxels = int(mask.sum())
        if frames.beyond > MOST_BEYOND:
            low, high = frames.grey
            warn(
                Code.WINDOW_UNFIT,
                f"{frames.beyond:.0%} of the lesion's voxels lie beyond the frames' grey levels, {low:g} to {high:g}, "
                f"and look alike; set a frames.window for {case.modality}, or none",
            )
        if len(frames.pixels) == 1:
            _warn_of_one_slice(context.radiomics.of(case.modality))
        return {
            "voxels": voxels,
            "volume_ml": voxels * math.prod(roi.image.GetSpacing()) / 1000.0,
            "n_slices": len(frames.pixels),
            "lesion_cut": frames.cut,
            "image_units": roi.unit,
        }


class CropWork(Work):
    """Begins with the case's stored crop."""

    def read(self, case: Case, context: StageContext, seconds: dict[str, float]) -> Roi:
        with Stopwatch(seconds).step("read"):
            return RoiStore.open(context.rois, context.started).read_roi(
                case.case_id, case.stored.get(RoiStore.stage, "")
            )


def read_case(case: Case, context: StageContext, *, full: bool = False, seconds: dict[str, float]) -> Roi:
    """Image and mask from the case's files, or as the stages brain and segment prepared them.

    Parameters
    ----------
    full
        Every slice, not only those around the mask.
    seconds
        Gains the seconds spent in ``read`` and ``rasterise``.

    Raises
    ------
    CaseError
        As :func:`prognosis_dask.imaging.load.load_roi`, or ``STORE_DAMAGED``.
    """
    if not context.brains:
        planar = context.radiomics.of(case.modality).planar
        load = partial(load_roi, settings=context.job.image, full=full, seconds=seconds, one_slice=planar)
        if case.mask or not context.masks:
            return load(case)
        with MaskStore(context.masks).with_mask(case) as outlined:
            return load(outlined)
    with Stopwatch(seconds).step("read"):
        stored = BrainStore(context.brains).read(case.case_id, case.stored.get(BrainStore.stage, ""))
    return Roi(stored.image, stored.tumour, grid_of(stored.image), (0, 0, 0))


def _warn_of_one_slice(params: RadiomicsParams) -> None:
    solid = any("original_shape_" in name for name in column_names(params))
    more = ", and its shape in three dimensions is as thick as the slice" if solid else ""
    warn(Code.MASK_ONE_SLICE, f"the mask lies on one slice: its features are those of a plane{more}")
