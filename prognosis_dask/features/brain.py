"""The stage of MR of the head, before all others: prepare the brain, find the tumour, measure it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from prognosis_dask.brain.candidate import automatic_candidate
from prognosis_dask.brain.orient import axial
from prognosis_dask.brain.pictures import epitome, qc_figure
from prognosis_dask.brain.preprocess import FAR_MM, Preprocessed, preprocess
from prognosis_dask.brain.size import SIZE_FEATURES, sides_reached, size_values, tumour_size
from prognosis_dask.brain.strip import TOOLS, carried_distance, check_tool, settle_strip
from prognosis_dask.brain.template import icbm152
from prognosis_dask.cohort.case import Case, short_hash
from prognosis_dask.config.job import ImageSection, Job
from prognosis_dask.errors import CaseError, Code, warn
from prognosis_dask.features.guard import Stopwatch
from prognosis_dask.features.stage import Columns, StageContext, Work
from prognosis_dask.imaging.gaps import between_slices, settle_gaps
from prognosis_dask.imaging.geometry import image_on
from prognosis_dask.imaging.load import load_image, load_roi
from prognosis_dask.imaging.roi import grid_of
from prognosis_dask.objects.files import as_local
from prognosis_dask.storage.brains import BrainStore, StoredBrain
from prognosis_dask.storage.ledger import Values
from prognosis_dask.volumes.nifti import doubt_of_sides, is_nifti

#: What a single image is called whose sequence nobody named.
UNNAMED = "MR"


class BrainWork(Work):
    """Prepare each case's sequences; store image, masks and pictures."""

    def check(self, job: Job) -> None:
        for method in {job.brain.skull_strip, job.brain.compare_with} & set(TOOLS):
            check_tool(method)

    def settled(self, job: Job) -> Job:
        return replace(job, brain=settle_strip(job.brain))

    def prepare(self, context: StageContext, cases: Sequence[Case]) -> None:
        BrainStore(context.brains).create()

    def lost(self, context: StageContext, done: Collection[str]) -> set[str]:
        held = BrainStore(context.brains).held()
        return {case_id for case_id in done if short_hash(case_id) not in held}

    def inputs(self, context: StageContext, modality: str) -> tuple[object, ...]:
        return ("planar",) if context.radiomics.of(modality).planar else ()

    def warm(self, context: StageContext) -> None:
        icbm152()

    def columns(self, context: StageContext, modalities: Collection[str]) -> Columns:
        return Columns(SIZE_FEATURES)

    def measure(self, case: Case, context: StageContext, watch: Stopwatch) -> Values:
        with watch.step("read"):
            reference, images, drawn = _read(case, context)
        with watch.step("brain"):
            done = preprocess(images, context.job.brain, reference=reference)
        with watch.step("tumour"):
            tumour, how = _tumour(drawn, done, context.job.image)
            _check_inside(tumour, done.brain_mask)
            size = tumour_size(tumour, done.to_template)
            if reached := sides_reached(tumour):
                told = f"the tumour reaches the image's {' and '.join(reached)}: its size is that of the part in it"
                warn(Code.LESION_CUT, told)
            shown = epitome(done.images[reference], tumour, f"{reference}; tumour {how['tumour_source']}")
        figures = _finite(done.quality)
        with watch.step("write"):
            title = _title(reference, figures, done.stripped_before, how)
            pictures = {
                "quality": qc_figure(images[reference], done.images[reference], done.brain_mask, tumour, title),
                "epitome": shown.mosaic,
            }
            attributes = {
                "sequences": list(images),
                "reference": reference,
                "stripped_before": done.stripped_before,
                "tumour": how,
                "quality": figures,
                "size": _finite(dict(zip(SIZE_FEATURES, size_values(size), strict=True))),
                "template_mm": size.template_mm,
                "slices": {"first": shown.first, "last": shown.last, "largest": shown.largest, "centre": shown.centre},
            }
            brain = StoredBrain(done.images[reference], done.brain_mask, tumour, attributes)
            BrainStore(context.brains).write(case.case_id, brain, pictures, case.stored.get(BrainStore.stage, ""))
        return {"values": size_values(size), "stripped_before": done.stripped_before, **how, **figures}


def _read(case: Case, context: StageContext) -> tuple[str, dict[str, sitk.Image], sitk.Image | None]:
    """The reference sequence's name, all sequences in axial order, and the mask that was drawn."""
    reference = next((name for name, path in case.sequences.items() if path == case.image), UNNAMED)
    warn_of_sides(case.image)
    if case.mask:
        # slices that nobody outlined are filled by shape here, few as the outlined ones may be
        roi = load_roi(
            case,
            replace(context.job.image, keep_gaps=True),
            full=True,
            one_slice=context.radiomics.of(case.modality).planar,
        )
        images, drawn = {reference: axial(roi.image)}, axial(roi.mask)
    else:
        images, drawn = {reference: axial(load_image(case.image, context.job.image, etag=case.etag(case.image)))}, None
    wanted = context.job.brain.sequences or tuple(case.sequences)
    for name, path in case.sequences.items():
        if name != reference and name in wanted:
            warn_of_sides(path)
            images[name] = axial(load_image(path, context.job.image, etag=case.etag(path)))
    return reference, images, drawn


def warn_of_sides(path: str) -> None:
    """Warn if a sequence's NIfTI header does not say, or says in two ways, where left and right are."""
    if not is_nifti(Path(path)):
        return
    with as_local(path) as local:
        doubt = doubt_of_sides(local)
    if doubt:
        warn(
            Code.ORIENTATION,
            f"{doubt}, so left and right are unknown; what is said of sides may be mirrored. Convert the scan from "
            "DICOM again",
            where=path,
        )


def _finite(figures: Mapping[str, float]) -> dict[str, float]:
    """JSON has no NaN."""
    return {name: float(value) for name, value in figures.items() if math.isfinite(value)}


def _tumour(drawn: sitk.Image | None, done: Preprocessed, settings: ImageSection) -> tuple[sitk.Image, Values]:
    """The tumour's mask, and where it comes from."""
    if drawn is None:
        # where the mask holds part of an orbit, an eye is as bright as a tumour
        depth = carried_distance(done.to_template.GetInverse(), done.brain_mask)
        brain = sitk.And(done.brain_mask, sitk.Cast(depth > -FAR_MM, sitk.sitkUInt8))
        found = automatic_candidate(done.images, brain)
        return found.mask, {"tumour_source": "automatic", "tumour_confidence": found.confidence}
    mask, made = between_slices(drawn)
    whole = settle_gaps(
        sitk.GetArrayFromImage(mask) > 0, grid_of(mask), fill=settings.fill_gaps, keep=settings.keep_gaps
    )
    mask = image_on(whole.astype(np.uint8), grid_of(mask))
    return mask, {"tumour_source": "interpolated" if made else "drawn", "slices_interpolated": len(made)}


def _check_inside(tumour: sitk.Image, brain: sitk.Image) -> None:
    """A drawn tumour that lies mostly outside the brain belongs to another image, or the brain is not the brain."""
    held = sitk.GetArrayViewFromImage(tumour) > 0
    share = float(np.mean(sitk.GetArrayViewFromImage(brain)[held] > 0)) if held.any() else 0.0
    if share < 0.5:
        raise CaseError(
            Code.MASK_OUTSIDE,
            f"{share:.0%} of the tumour's mask lies in the brain that was found, expected at least 50 %; look at both",
        )


def _title(reference: str, figures: Mapping[str, float], stripped_before: bool, how: Mapping[str, object]) -> str:
    words = [
        f"{reference}: brain {figures['brain_volume_l']:.2f} L, overlap with the template "
        f"{figures['template_overlap']:.2f}, mutual information {figures['mutual_information']:.2f}",
        "stripped before" if stripped_before else "",
        f"tumour {how['tumour_source']}",
    ]
    return "; ".join(word for word in words if word)
