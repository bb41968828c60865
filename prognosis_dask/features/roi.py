"""The stages of a region of interest: read, cropped and stored; pyradiomics' features, IBSI's, and maps of features.

Features are measured on each case's crop, and on its files where the crop does not suffice: their values are those of
the full image, however much of it the crop holds. Maps are computed on the files, and ``maps/`` keeps the images. One
folder per case, named by the first 12 hex digits of the SHA-256 of the case_id::

    NAME.nrrd          the map of one feature, over the mask's box and the neighbourhood around it
    case.json          case_id, the names of the maps, the SHA-256 of every file, and the digest of the stage that made
                       them, so that what another run wrote late is not taken for this one's

A folder is written aside and published by one rename; in a bucket all objects are written at once.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from functools import partial

import SimpleITK as sitk

from prognosis_dask.cohort.case import Case
from prognosis_dask.config.job import Job
from prognosis_dask.errors import Code, warn
from prognosis_dask.features.guard import Stopwatch
from prognosis_dask.features.stage import Columns, StageContext, Work, described, described_settings
from prognosis_dask.imaging.load import load_roi
from prognosis_dask.imaging.roi import MOST_BEYOND, Roi, crop_roi, grid_of, make_frames
from prognosis_dask.radiomics.extraction import extract
from prognosis_dask.radiomics.maps import expect_maps, feature_maps, write_nrrd
from prognosis_dask.radiomics.parameter_file import column_names, read_params, unit
from prognosis_dask.radiomics.params import OTHERS, RadiomicsParams
from prognosis_dask.radiomics.texture import warn_of_few
from prognosis_dask.storage.brains import BrainStore, ImageStore, MaskStore, is_of_another_run
from prognosis_dask.storage.ledger import TaskResult, Values
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


class IbsiWork(CropWork):
    """The features that IBSI defines. What computes them is imported late: it is heavy, and few runs have it."""

    def check(self, job: Job) -> None:
        from prognosis_dask.radiomics.ibsi.images import read_filter

        for name in job.ibsi.filters:
            read_filter(name, by_slice=job.ibsi.by_slice)

    def warm(self, context: StageContext) -> None:
        from prognosis_dask.radiomics import ibsi  # noqa: F401

    def measure(self, case: Case, context: StageContext, watch: Stopwatch) -> Values:
        from prognosis_dask.radiomics import ibsi

        roi: Roi = self.held(case, context, watch)
        read_full = partial(read_case, case, context, full=True, seconds=watch.seconds)
        with watch.step("ibsi"):
            values = ibsi.measure(roi, context.job.ibsi, read_full, whole=case.modality == "CT")
        return {"values": list(values.values())}

    def columns(self, context: StageContext, modalities: Collection[str]) -> Columns:
        from prognosis_dask.radiomics import ibsi

        return Columns({name: ibsi.unit(name) for name in ibsi.names(context.job.ibsi)})

    def meaning(self, context: StageContext) -> dict[str, str]:
        return described_settings("ibsi.parameters", context.job, self.stage.settings, self.stage.version)
