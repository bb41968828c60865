"""The stage of the deep features: a network on each case's frames or cube, cases of one shape together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from prognosis_dask.arrays import ByteArray, Float32Array, Map
from prognosis_dask.cohort.case import Case
from prognosis_dask.config.job import DeepSection, Job
from prognosis_dask.errors import CaseError, Problem
from prognosis_dask.features.cube import cube_key, read_cube
from prognosis_dask.features.guard import Stopwatch, guarded, peak_memory_mb
from prognosis_dask.features.registry import DEEP, DEEP_2, stage_named
from prognosis_dask.features.stage import Columns, Stage, StageContext, Work, told, told_settings
from prognosis_dask.networks.clip_engine import CubeEngine
from prognosis_dask.networks.clips import check_frames
from prognosis_dask.networks.cube_networks import cube_network, network_files
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
from prognosis_dask.storage.ledger import TaskResult, Values
from prognosis_dask.storage.rois import RoiStore


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
            return {**told(f"{own}.cube", cube, self.stage.version, known["cube"]), **named}
        return {**told_settings(f"{own}.frames", context.job, keys, frames.version, self.stage.version), **named}

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
