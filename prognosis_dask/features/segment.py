"""The stage that outlines the region of cases without a mask: a network over the whole image, its mask, a picture."""

from __future__ import annotations

import io
import math
from collections.abc import Collection, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from prognosis_dask.cohort.case import Case, short_hash
from prognosis_dask.config.job import Job, SegmentSection
from prognosis_dask.errors import CaseError, Code
from prognosis_dask.features.guard import Stopwatch
from prognosis_dask.features.stage import Stage, StageContext, Work, told
from prognosis_dask.features.video import file_stamp
from prognosis_dask.imaging.load import load_image
from prognosis_dask.networks.programs import SegmentProgram
from prognosis_dask.networks.segment import (
    SegmentDescription,
    Segmenter,
    describe_segmenter,
    load_segmenter,
    segment_files,
)
from prognosis_dask.storage.brains import MaskStore

#: Where a region comes from: the variable ``mask_source``.
DRAWN, AUTOMATIC = "drawn", "automatic"
_SLICES = 8
_OUTLINE = "#ffb000"
_INCHES, _DPI = 1.6, 100
#: Percentiles of the slices that are shown that become black and white.
_GREY = (1.0, 99.5)


class SegmentWork(Work):
    """One network a process, over the series of cases that came without a mask; the others pass as they are."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._described: SegmentDescription | None = None
        self._without: frozenset[str] = frozenset()

    def check(self, job: Job) -> None:
        describe_segmenter(job.segment)

    def concerns(self, case: Case) -> bool:
        return not case.mask

    def prepare(self, context: StageContext, cases: Sequence[Case]) -> None:
        self._without = frozenset(case.case_id for case in cases if not case.mask)
        MaskStore(context.masks).create()

    def lost(self, context: StageContext, done: Collection[str]) -> set[str]:
        held = MaskStore(context.masks).held()
        return {case_id for case_id in self._without.intersection(done) if short_hash(case_id) not in held}

    def inputs(self, context: StageContext, modality: str) -> tuple[object, ...]:
        return (self.provenance(context),)

    def provenance(self, context: StageContext) -> dict[str, str]:
        if self._described is None:
            self._described = describe_segmenter(context.job.segment)
        return self._described.provenance

    def meaning(self, context: StageContext) -> dict[str, str]:
        known = self.provenance(context)
        # the digest of its weights says which network it is, wherever its file lies
        placeless = ("network", "weights") if "weights_sha256" in known else ()
        meant = {name: value for name, value in known.items() if name not in placeless}
        return told("segment.network", {"version": self.stage.version, **known}, self.stage.version, meant)

    def warm(self, context: StageContext) -> None:
        load_segmenter_once(context.job.segment)

    def measure(self, case: Case, context: StageContext, watch: Stopwatch) -> dict[str, object]:
        if case.mask:
            return {"mask_source": DRAWN}
        with watch.step("read"):
            image = load_image(case.image, context.job.image)
        with watch.step("network"):
            mask = load_segmenter_once(context.job.segment).mask(image)
        voxels = int(np.count_nonzero(sitk.GetArrayViewFromImage(mask)))
        if not voxels:
            named = Path(context.job.segment.network).name
            raise CaseError(Code.NO_CANDIDATE, f"{named} outlines nothing in the image; look at it, or outline it")
        with watch.step("write"):
            volume = voxels * math.prod(mask.GetSpacing()) / 1000.0
            title = f"outlined by a network, by nobody else; {volume:.3g} mL"
            attributes = {"mask_source": AUTOMATIC, "volume_ml": volume, "network": context.job.segment.network}
            MaskStore(context.masks).write_images(
                case.case_id, {"mask": mask}, attributes, {"quality": outlined(image, mask, title)}
            )
        return {"mask_source": AUTOMATIC}


def load_segmenter_once(section: SegmentSection) -> Segmenter | SegmentProgram:
    """The network of this process: loaded at first use, kept for the tasks that follow while its files are the same."""
    return _segmenter(section, tuple(map(file_stamp, segment_files(section))))


@lru_cache(maxsize=1)
def _segmenter(section: SegmentSection, stamps: tuple[tuple[int, int] | None, ...]) -> Segmenter | SegmentProgram:
    return load_segmenter(section)


def outlined(image: sitk.Image, mask: sitk.Image, title: str) -> bytes:
    """A PNG of up to eight axial slices from the region's foot to its top, with its outline.

    ``title``: the heading. Never a patient's name.
    """
    from matplotlib.figure import Figure

    upright = [sitk.DICOMOrient(one, "LPS") for one in (image, mask)]
    values, inside = map(sitk.GetArrayFromImage, upright)
    x, y, _ = upright[0].GetSpacing()
    held = np.flatnonzero(inside.any(axis=(1, 2)))
    chosen = np.unique(np.linspace(held[0], held[-1], _SLICES).round().astype(int))
    low, high = np.percentile(values[chosen], _GREY)
    height = _INCHES * values.shape[1] * y / (values.shape[2] * x)
    figure = Figure(figsize=(_INCHES * len(chosen), height + 0.3), dpi=_DPI, facecolor="black")
    axes = figure.subplots(1, len(chosen), squeeze=False)[0]
    figure.subplots_adjust(0, 0, 1, height / (height + 0.3), 0.01, 0.01)
    for axis, index in zip(axes, chosen, strict=True):
        axis.imshow(values[index], cmap="gray", vmin=low, vmax=high, aspect=y / x, interpolation="bilinear")
        if inside[index].any():
            axis.contour(inside[index], [0.5], colors=_OUTLINE, linewidths=0.9)
        axis.axis("off")
    figure.text(0.004, 0.99, title, color="white", fontsize=8, va="top")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", facecolor="black", metadata={"Software": None})
    return stream.getvalue()
