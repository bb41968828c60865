"""What a worker does for a case: read and crop it, measure it, show it to the network.

Each stage is a plain function from cases to outcomes: what goes wrong with a case is part of its outcome, and only
the infrastructure's faults (:class:`OSError`: full disk, lost mount) are raised. Data are written to the store before
the outcome is returned, so that a ledger row means finished data.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import cast

import SimpleITK as sitk

from prognosis_dask.arrays import ByteArray, Float32Array
from prognosis_dask.cohort.case import Case
from prognosis_dask.config.job import BrainSection, DeepSection, FramesSection, ImageSection
from prognosis_dask.errors import CaseError, Code, Problem, PrognosisError, collected_warnings, warn
from prognosis_dask.imaging.frames import MOST_BEYOND, make_frames
from prognosis_dask.imaging.load import load_roi
from prognosis_dask.imaging.roi import Roi, crop_roi, grid_of
from prognosis_dask.networks.clips import check_frames
from prognosis_dask.networks.engine import Engine, check_features, load_engine, rows_together
from prognosis_dask.radiomics import ModalityParams, RadiomicsParams, column_names, extract
from prognosis_dask.radiomics.levels import warn_of_few
from prognosis_dask.storage.brains import BrainStore
from prognosis_dask.storage.outcome import Outcome
from prognosis_dask.storage.rois import RoiStore

#: Raised by one whenever a stage's results change for the same input and job, so that resume computes them anew.
BRAIN_VERSION = 4
ROI_VERSION = 2
RADIOMICS_VERSION = 1
DEEP_VERSION = 1


@dataclass(frozen=True)
class StageContext:
    """What travels with every task beside its cases: where to write, and the sections of the job.

    ``brains`` is where prepared brains lie; empty where the images are taken as they are.
    """

    rois: str
    image: ImageSection
    frames: FramesSection
    radiomics: ModalityParams
    deep: DeepSection
    brain: BrainSection = field(default_factory=BrainSection)
    brains: str = ""


def run_roi(cases: tuple[Case, ...], digests: tuple[str, ...], context: StageContext) -> list[Outcome]:
    """Read each case, bring image and mask onto one grid, cut frames and crop, store them."""
    return [guarded("roi", case, digest, partial(_roi, case, context)) for case, digest in _pairs(cases, digests)]


def run_radiomics(cases: tuple[Case, ...], digests: tuple[str, ...], context: StageContext) -> list[Outcome]:
    """Compute the radiomic features of each case, from the stored crop where that suffices, else from its files."""
    return [
        guarded("radiomics", case, digest, partial(_radiomics, case, context))
        for case, digest in _pairs(cases, digests)
    ]


def run_deep(cases: tuple[Case, ...], digests: tuple[str, ...], context: StageContext) -> list[Outcome]:
    """The network's features of the cases, whose clips have one length; a thread reads ahead while the network runs."""
    engine = load_engine_once(context.deep)
    asked = rows_together(context.deep.device, context.deep.batch_size)
    outcomes: list[Outcome] = []
    with ThreadPoolExecutor(1) as reader:
        reads = [
            reader.submit(guarded, "deep", case, digest, partial(_frames, case, context))
            for case, digest in _pairs(cases, digests)
        ]
        while reads:
            batch, reads = reads[: engine.rows], reads[engine.rows :]
            outcomes += _network([read.result() for read in batch], engine, asked)
    return outcomes


@lru_cache(maxsize=1)
def load_engine_once(section: DeepSection) -> Engine:
    """The engine of this process: built at first use, kept for the tasks that follow."""
    return load_engine(section)


def _roi(case: Case, context: StageContext, watch: Stopwatch) -> dict[str, object]:
    roi = _read_roi(case, context, seconds=watch.seconds)
    with watch.step("frames"):
        frames = make_frames(roi, context.frames, case.modality)
    crop = crop_roi(roi, context.image.margin_mm)
    with watch.step("write"):
        RoiStore.open(context.rois).write(case.case_id, crop, frames.pixels, {"roi": case.roi, "cut": frames.cut})
    mask = sitk.GetArrayViewFromImage(crop.mask)
    voxels = int(mask.sum())
    if frames.beyond > MOST_BEYOND:
        low, high = frames.grey
        warn(
            Code.WINDOW_UNFIT,
            f"{frames.beyond:.0%} of the lesion's voxels lie beyond the frames' grey levels, {low:g} to {high:g}, and "
            f"look alike; set a frames.window for {case.modality}, or none",
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


def _warn_of_one_slice(params: RadiomicsParams) -> None:
    solid = any(name.startswith("original_shape_") for name in column_names(params))
    more = ", and its shape in three dimensions is as thick as the slice" if solid else ""
    warn(Code.MASK_ONE_SLICE, f"the mask lies on one slice: its features are those of a plane{more}")


def _radiomics(case: Case, context: StageContext, watch: Stopwatch) -> dict[str, object]:
    with watch.step("read"):
        roi = RoiStore.open(context.rois).read_roi(case.case_id)
    read_full = partial(_read_roi, case, context, full=True, seconds=watch.seconds)
    params, levels = context.radiomics.of(case.modality), dict[str, int]()
    with watch.step("radiomics"):
        values = extract(roi, params, read_full, levels=levels)
    warn_of_few(levels, params.settings, case.modality)
    return {"values": [values[name] for name in column_names(params)]}


def _read_roi(case: Case, context: StageContext, *, full: bool = False, seconds: dict[str, float]) -> Roi:
    """Image and mask from the case's files, or as the brain stage has prepared them."""
    if not context.brains:
        planar = context.radiomics.of(case.modality).planar
        return load_roi(case, context.image, full=full, seconds=seconds, one_slice=planar)
    watch = Stopwatch(seconds)
    with watch.step("read"):
        stored = BrainStore(context.brains).read(case.case_id)
    return Roi(stored.image, stored.tumour, grid_of(stored.image), (0, 0, 0))


def _frames(case: Case, context: StageContext, watch: Stopwatch) -> dict[str, object]:
    with watch.step("read"):
        frames = RoiStore.open(context.rois).read_frames(case.case_id)
    check_frames(frames)
    return {"frames": frames}


def _network(read: list[Outcome], engine: Engine, asked: int) -> list[Outcome]:
    """The outcomes with features in place of frames; those with a problem as they are."""
    sound = [outcome for outcome in read if outcome.problem is None]
    if not sound:
        return read
    watch = Stopwatch()
    frames = [cast("ByteArray", outcome.result.pop("frames")) for outcome in sound]
    try:
        with watch.step("network"):
            features = engine.features_of_frames(frames)
    except CaseError as error:
        of_all = error.problem
        return [o if o.problem else replace(o, problem=of_all.of(case_id=o.case_id), result={}) for o in read]
    share = watch.seconds["network"] / len(sound)
    # a GPU short of memory took fewer clips at once, which rounds differently: to be seen in the ledger
    fewer = {"rows": engine.rows} if engine.rows < asked else {}
    rows = iter(features)
    return [o if o.problem else _with_features(o, next(rows), share, fewer) for o in read]


def _with_features(read: Outcome, values: Float32Array, share: float, fewer: Mapping[str, int]) -> Outcome:
    result: dict[str, object] = {"values": values.astype(float).tolist(), "peak_memory_mb": _peak_memory_mb(), **fewer}
    problem: Problem | None = None
    try:
        check_features(values)
    except CaseError as error:
        problem = error.problem.of(case_id=read.case_id)
    seconds = {**read.seconds, "network": share, "total": read.seconds["total"] + share}
    return replace(read, seconds=seconds, problem=problem, result={} if problem else result)


def guarded(stage: str, case: Case, digest: str, work: Callable[[Stopwatch], dict[str, object]]) -> Outcome:
    """The outcome of the work on one case, whatever becomes of it; only the infrastructure's errors pass."""
    watch = Stopwatch()
    problem: Problem | None = None
    result: dict[str, object] = {}
    _reset_peak_memory()
    read = _read_mb()
    with watch.step("total"), collected_warnings() as warnings:
        try:
            result = work(watch)
        except CaseError as error:
            problem = error.problem
        except (OSError, MemoryError, PrognosisError):
            raise
        except Exception as error:  # a fault of ours, or of a library, must not end the others' night
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}:{place.lineno}"
            problem = Problem(Code.UNEXPECTED, f"{type(error).__name__}: {error}", where=where)
    if problem:
        problem = problem.of(patient_id=case.patient_id, case_id=case.case_id)
    said = tuple(warning.of(patient_id=case.patient_id, case_id=case.case_id) for warning in warnings)
    result |= {"peak_memory_mb": _peak_memory_mb(), "read_mb": _read_mb() - read}
    return Outcome(case.case_id, stage, digest, problem, watch.seconds, result, said)


def _pairs(cases: tuple[Case, ...], digests: tuple[str, ...]) -> Iterator[tuple[Case, str]]:
    return zip(cases, digests, strict=True)


@dataclass(frozen=True)
class Stopwatch:
    """Seconds per named step of one case."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Add the time spent inside to the step."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def _reset_peak_memory() -> None:
    """Let Linux count the process's peak memory anew (proc(5), clear_refs: 5)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_memory_mb() -> float:
    """The process's peak resident memory since the reset, in MB; NaN where the system does not tell."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1000.0
    return math.nan


def _read_mb() -> float:
    """What the process has read from files so far, in MB, cached or not; NaN where the system does not tell."""
    with suppress(OSError):
        return int(Path("/proc/self/io").read_text().split()[1]) / 1e6
    return math.nan
