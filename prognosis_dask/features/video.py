"""The stage of the deep features: the video network on each case's frames, cases of one clip length together."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache, partial
from typing import cast

from prognosis_dask.arrays import ByteArray, Float32Array
from prognosis_dask.cohort.case import Case
from prognosis_dask.config.job import DeepSection, Job, digest
from prognosis_dask.errors import CaseError, Problem
from prognosis_dask.features.guard import Stopwatch, guarded, peak_memory_mb
from prognosis_dask.features.registry import stage_named
from prognosis_dask.features.stage import Columns, Stage, StageContext, Work, chosen_settings
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
)
from prognosis_dask.storage.rois import RoiStore
from prognosis_dask.storage.task_result import TaskResult


class VideoWork(Work):
    """One engine a process; a thread reads ahead while the network runs."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._described: EngineDescription | None = None

    def check(self, job: Job) -> None:
        describe_engine(job.deep)

    def settled(self, job: Job) -> Job:
        return replace(job, deep=settle_engine(job.deep))

    def warm(self, context: StageContext) -> None:
        load_engine_once(context.job.deep)

    def inputs(self, context: StageContext, modality: str) -> tuple[object, ...]:
        return (self._engine(context).provenance,)

    def provenance(self, context: StageContext) -> dict[str, str]:
        return self._engine(context).provenance

    def meaning(self, context: StageContext) -> dict[str, str]:
        frames = stage_named("roi")
        keys = [key for key in frames.settings if key not in self.stage.ignores(context.job)]
        settings = chosen_settings(context.job, keys)
        known = self._engine(context).provenance
        named = {f"deep.{key}": known[key] for key in ("network", "output", "weights_sha256") if key in known}
        return {"deep.frames": digest(frames.version, self.stage.version, *settings), **named}

    def columns(self, context: StageContext, modalities: Collection[str]) -> Columns:
        engine = self._engine(context)
        return Columns(dict.fromkeys(engine.feature_names, "1"), engine.labels)

    def _engine(self, context: StageContext) -> EngineDescription:
        """What is known of the engine; its weights are read once in a run."""
        if self._described is None:
            self._described = describe_engine(context.job.deep)
        return self._described

    def cases_per_task(self, context: StageContext) -> int:
        return cases_per_task(context.job.deep) if self.stage.wants_gpu(context.job) else 0

    def group(self, context: StageContext, needed: TaskResult) -> int:
        return frames_together(context.job.deep, int(str(needed.values["n_slices"])))

    def run(self, cases: tuple[Case, ...], digests: tuple[str, ...], context: StageContext) -> list[TaskResult]:
        engine = load_engine_once(context.job.deep)
        asked = rows_together(context.job.deep.device, context.job.deep.batch_size)
        results: list[TaskResult] = []
        with ThreadPoolExecutor(1) as reader:
            reads = [
                reader.submit(guarded, self.stage.name, case, digest, partial(_frames, case, context))
                for case, digest in zip(cases, digests, strict=True)
            ]
            while reads:
                batch, reads = reads[: engine.rows], reads[engine.rows :]
                results += through_network([read.result() for read in batch], engine, asked)
        return results


@lru_cache(maxsize=1)
def load_engine_once(section: DeepSection) -> Engine:
    """The engine of this process: built at first use, kept for the tasks that follow."""
    return load_engine(section)


def _frames(case: Case, context: StageContext, watch: Stopwatch) -> dict[str, object]:
    with watch.step("read"):
        frames = RoiStore.open(context.rois).read_frames(case.case_id)
    check_frames(frames)
    return {"frames": frames}


def through_network(read: list[TaskResult], engine: Engine, asked: int) -> list[TaskResult]:
    """The results with features in place of frames; those with a problem as they are."""
    sound = [result for result in read if result.problem is None]
    if not sound:
        return read
    watch = Stopwatch()
    frames = [cast("ByteArray", result.values.pop("frames")) for result in sound]
    try:
        with watch.step("network"):
            features = engine.features_of_frames(frames)
    except CaseError as error:
        of_all = error.problem
        return [o if o.problem else replace(o, problem=of_all.of(case_id=o.case_id), values={}) for o in read]
    share = watch.seconds["network"] / len(sound)
    # a GPU short of memory took fewer clips at once, which rounds differently: to be seen in the ledger
    fewer = {"rows": engine.rows} if engine.rows < asked else {}
    rows = iter(features)
    return [o if o.problem else _with_features(o, next(rows), share, fewer) for o in read]


def _with_features(read: TaskResult, values: Float32Array, share: float, fewer: Mapping[str, int]) -> TaskResult:
    found: dict[str, object] = {"values": values.astype(float).tolist(), "peak_memory_mb": peak_memory_mb(), **fewer}
    problem: Problem | None = None
    try:
        check_features(values)
    except CaseError as error:
        problem = error.problem.of(case_id=read.case_id)
    seconds = {**read.seconds, "network": share, "total": read.seconds["total"] + share}
    return replace(read, seconds=seconds, problem=problem, values={} if problem else found)
