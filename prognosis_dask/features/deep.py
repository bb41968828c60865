"""The stages of the deep features: cubes cut from each case, and a network on its frames or cube.

A cube is cut once for each way of cutting, and stored; cases of one shape go through a network together.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from prognosis_dask.arrays import ByteArray, Float32Array, Map
from prognosis_dask.cohort.case import Case
from prognosis_dask.config.job import DeepSection, Job, digest
from prognosis_dask.errors import CaseError, Code, Problem, warn
from prognosis_dask.features.guard import Stopwatch, guarded, peak_memory_mb
from prognosis_dask.features.registry import CUBE, DEEP, DEEP_2, stage_named
from prognosis_dask.features.roi import CropWork, read_case
from prognosis_dask.features.stage import Columns, Stage, StageContext, Work, described, described_settings
from prognosis_dask.imaging.cube import CubeRule, cut_cube
from prognosis_dask.imaging.roi import Roi
from prognosis_dask.networks.catalogue import CubeNetwork, cube_network, network_files
from prognosis_dask.networks.clip_engine import CubeEngine
from prognosis_dask.networks.clips import check_frames
from prognosis_dask.networks.engine import (
    Engine,
    EngineDescription,
    cases_per_task,
    check_features,
    describe_engine,
    frames_together,
    load_engine,
    rows_together,
    settle_engine,
    try_memory_formats,
)
from prognosis_dask.storage.ledger import RETRIED, TaskResult, Values
from prognosis_dask.storage.rois import RoiStore
from prognosis_dask.storage.volumes import CubeStore


class CubeWork(CropWork):
    """Cut all cubes of a case. What stands against one of them is kept in its place, for its network to tell."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._held: set[str] = set()

    def prepare(self, context: StageContext, cases: Sequence[Case]) -> None:
        self._held = CubeStore(context.rois).keep(cube_rules(context.job))

    def lost(self, context: StageContext, done: Mapping[str, TaskResult]) -> set[str]:
        wanted = cube_rules(context.job).keys()
        cut = {case_id: cast("list[str]", result.values["cubes"]) for case_id, result in done.items()}
        return {case_id for case_id, keys in cut.items() if not wanted <= self._held.intersection(keys)}

    def measure(self, case: Case, context: StageContext, watch: Stopwatch) -> Values:
        roi: Roi = self.held(case, context, watch)
        read_full = cache(partial(read_case, case, context, full=True, seconds=watch.seconds))
        store, rules = CubeStore(context.rois), cube_rules(context.job)
        for key, rule in rules.items():
            with watch.step("cut"):
                values, attributes = _cut(roi, rule, read_full)
            with watch.step("write"):
                kept = {"rule": asdict(rule), **attributes}
                store.write_cube(case.case_id, key, values, kept, case.stored.get(CUBE.name, ""))
        return {"cubes": list(rules)}


def _cut(roi: Roi, rule: CubeRule, read_full: Callable[[], Roi]) -> tuple[Float32Array, Values]:
    """The cube and what to keep beside it; in place of one that cannot be cut nothing, and why.

    What the next run tries again is not kept, but raised.
    """
    try:
        cube = cut_cube(roi, rule, read_full)
    except CaseError as error:
        if error.problem.code in RETRIED:
            raise
        problem = {"code": error.problem.code, "reason": error.problem.reason}
        return np.zeros((1, 1, 1, 1), np.float32), {"problem": problem}
    place = {"first_mm": cube.first_mm.tolist(), "steps_mm": cube.steps.tolist()}
    return cube.values, {**place, "lesion_cut": cube.cut, "outside": cube.outside}


def cube_rules(job: Job) -> dict[str, CubeRule]:
    """How the cubes of a job's networks are cut, each way once, by the key under which they are stored."""
    sections = [getattr(job, stage.name) for stage in (DEEP, DEEP_2) if stage.is_on(job)]
    networks = filter(None, map(cube_network, sections))
    return {cube_key(network.cube): network.cube for network in networks}


def cube_key(rule: CubeRule) -> str:
    """Stands for a way of cutting, and the version of what cuts."""
    return digest(CUBE.version, asdict(rule))


def read_cube(case: Case, context: StageContext, network: CubeNetwork) -> Float32Array:
    """The stored cube, with a warning where a part of the lesion lies beyond it.

    Raises
    ------
    CaseError
        ``STORE_DAMAGED`` when it is missing or damaged; ``IMAGE_UNITS`` for an image of which the network does not know
        the grey levels; whatever stood against cutting it.
    """
    rule = network.cube
    if case.modality and network.modalities and case.modality not in network.modalities:
        raise CaseError(
            Code.IMAGE_UNITS,
            f"the image is {case.modality}, the network takes {' or '.join(network.modalities)}; leave it out "
            "(cohort.modalities), or choose another network",
        )
    cube, kept = CubeStore(context.rois).read_cube(case.case_id, cube_key(rule), case.stored.get(CUBE.name, ""))
    if "problem" in kept:
        raise CaseError(Code(kept["problem"]["code"]), kept["problem"]["reason"])
    if kept["lesion_cut"]:
        size = " x ".join(f"{n * mm:g}" for n, mm in zip(rule.voxels, rule.spacing_mm, strict=True))
        warn(
            Code.LESION_CUT,
            f"{kept['lesion_cut']:.1%} of the lesion's voxels lie beyond the cube of {size} mm that the network sees",
        )
    return cube


class VideoWork(Work):
    """One engine a process for each of the job's networks; all of a task's cases are read while it runs."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._described: EngineDescription | None = None

    def check(self, job: Job) -> None:
        describe_engine(self._section(job))

    def settled(self, job: Job) -> Job:
        settled: dict[str, Any] = {self.stage.name: settle_engine(self._section(job))}
        return replace(job, **settled)

    def warm(self, context: StageContext) -> None:
        load_engine_once(self._section(context.job))

    def inputs(self, context: StageContext, modality: str) -> tuple[object, ...]:
        cube = cube_network(self._section(context.job))
        more = (cube_key(cube.cube), cube.modalities) if cube else ()
        return (by_content(self._engine(context).provenance), *more)

    def provenance(self, context: StageContext) -> dict[str, str]:
        return self._engine(context).provenance

    def meaning(self, context: StageContext) -> dict[str, str]:
        frames = stage_named("roi")
        keys = [key for key in frames.settings if key not in self.stage.ignores(context.job)]
        known = self._engine(context).provenance
        own = self.stage.name
        named = {f"{own}.{key}": known[key] for key in ("network", "output", "weights_sha256") if key in known}
        if "cube" in known:
            cube = {"version": self.stage.version, "cube": known["cube"]}
            return {**described(f"{own}.cube", cube, self.stage.version, known["cube"]), **named}
        return {**described_settings(f"{own}.frames", context.job, keys, frames.version, self.stage.version), **named}

    def columns(self, context: StageContext, modalities: Collection[str]) -> Columns:
        engine = self._engine(context)
        # as columns of one table with the first network's
        before = "" if self.stage.name == DEEP.name else f"{self.stage.name}_"
        return Columns({f"{before}{name}": "1" for name in engine.feature_names}, engine.labels)

    def _engine(self, context: StageContext) -> EngineDescription:
        """What is known of the engine; its weights are read once in a run."""
        if self._described is None:
            self._described = describe_engine(self._section(context.job))
        return self._described

    def _section(self, job: Job) -> DeepSection:
        section: DeepSection = getattr(job, self.stage.name)
        return section

    def cases_per_task(self, context: StageContext) -> int:
        return cases_per_task(self._section(context.job)) if self.stage.wants_gpu(context.job) else 0

    def group(self, context: StageContext, needed: TaskResult) -> int:
        return frames_together(self._section(context.job), int(needed.number("n_slices")))

    def run(
        self,
        cases: tuple[Case, ...],
        digests: tuple[str, ...],
        context: StageContext,
        *,
        follows: Callable[[], object] | None = None,
    ) -> list[TaskResult]:
        section = self._section(context.job)
        engine = load_engine_once(section)
        asked = rows_together(section.device, section.batch_size)
        own = self._begun(cases, digests, context)
        for one in own:
            self._read_ahead(*one, context)
        if follows is not None:
            follows()
        results: list[TaskResult] = []
        while own:
            batch, own = own[: engine.rows], own[engine.rows :]
            read = [guarded(self.stage.name, *one, partial(self.measure, one[0], context)) for one in batch]
            results += through_network(read, engine, asked)
        return results

    def read(self, case: Case, context: StageContext, seconds: dict[str, float]) -> ByteArray | Float32Array:
        network = cube_network(self._section(context.job))
        with Stopwatch(seconds).step("read"):
            if network:
                return read_cube(case, context, network)
            store = RoiStore.open(context.rois, context.started)
            frames = store.read_frames(case.case_id, case.stored.get(RoiStore.stage, ""))
        check_frames(frames)
        return frames

    def measure(self, case: Case, context: StageContext, watch: Stopwatch) -> Values:
        return {"input": self.held(case, context, watch)}


def load_engine_once(section: DeepSection) -> Engine | CubeEngine:
    """The engine of this process: built at first use, kept for the tasks that follow while its files are the same."""
    return _engine(section, tuple(map(file_stamp, network_files(section))))


@lru_cache(maxsize=2)
def _engine(section: DeepSection, stamps: tuple[tuple[int, int] | None, ...]) -> Engine | CubeEngine:
    return load_engine(section)


def settle_memory_formats(job: Job, earlier: Job | None, gpu_map: Map, say: Callable[[str], object]) -> Job:
    """The job with one memory format for all workers where it is to be ``measured``: on one of them, once in a run.

    Parameters
    ----------
    job
        What is asked for.
    earlier
        The job of the run that goes on here, with what was measured then; it holds for the same network and device.
    gpu_map
        Runs on workers that have the device.
    say
        Takes the line that tells what was measured.
    """
    for stage in (DEEP, DEEP_2):
        section: DeepSection = getattr(job, stage.name)
        if not section.enabled or section.memory_format != "measured":
            continue
        before: DeepSection | None = getattr(earlier, stage.name, None)
        if before and replace(before, memory_format="measured") == section:
            chosen, told = before.memory_format, "as this run began"
        else:
            (rates,) = gpu_map(try_memory_formats, [section])
            chosen = max(rates, key=lambda name: rates[name])
            told = ", ".join(f"{name} {rate:.3g} clips/s" for name, rate in rates.items())
        say(f"{stage.name}.memory_format = {chosen!r}: {told}")
        settled: dict[str, Any] = {stage.name: replace(section, memory_format=chosen)}
        job = replace(job, **settled)
    return job


def file_stamp(path: Path) -> tuple[int, int] | None:
    """Size and time of a file, by which a process knows that it was replaced; None where there is none."""
    return (path.stat().st_size, path.stat().st_mtime_ns) if path.is_file() else None


def by_content(provenance: Mapping[str, str]) -> dict[str, str]:
    """What is known of a network, without the place of a file whose content is known by its digest.

    >>> by_content({"network": "file:/a/net.pt", "weights": "file:/a/net.pt", "weights_sha256": "1f"})
    {'weights_sha256': '1f'}
    """
    known = "weights_sha256" in provenance
    return {name: value for name, value in provenance.items() if not (known and value.startswith("file:"))}


def through_network(read: list[TaskResult], engine: Engine | CubeEngine, asked: int) -> list[TaskResult]:
    """The results with features in place of what the network reads; those with a problem as they are."""
    sound = [result for result in read if result.problem is None]
    if not sound:
        return read
    watch = Stopwatch()
    inputs = [result.values["input"] for result in sound]
    try:
        with watch.step("network"):
            if isinstance(engine, CubeEngine):
                features = engine.features(np.stack(cast("list[Float32Array]", inputs)))
            else:
                features = engine.features_of_frames(cast("list[ByteArray]", inputs))
    except CaseError as error:
        if len(sound) > 1:  # each by itself: it need not be every one's
            return [found for one in read for found in through_network([one], engine, asked)]
        of_all = error.problem
        return [o if o.problem else replace(o, problem=of_all.of(case_id=o.case_id), values={}) for o in read]
    share = watch.seconds["network"] / len(sound)
    # a GPU short of memory took fewer clips at once, which rounds differently: to be seen in the ledger
    fewer = {"rows": engine.rows} if engine.rows < asked else {}
    rows = iter(features)
    return [o if o.problem else _with_features(o, next(rows), share, fewer) for o in read]


def _with_features(read: TaskResult, values: Float32Array, share: float, fewer: Mapping[str, int]) -> TaskResult:
    found: Values = {"values": values.astype(float).tolist(), "peak_memory_mb": peak_memory_mb(), **fewer}
    problem: Problem | None = None
    try:
        check_features(values)
    except CaseError as error:
        problem = error.problem.of(case_id=read.case_id)
    seconds = {**read.seconds, "network": share, "total": read.seconds["total"] + share}
    return replace(read, seconds=seconds, problem=problem, values={} if problem else found)
