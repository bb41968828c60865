"""The stage of the cubes: cut from each case for the networks, once for each way of cutting, and stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache, partial
from typing import cast

import numpy as np

from prognosis_dask.arrays import Float32Array
from prognosis_dask.cohort.case import Case
from prognosis_dask.config.job import Job, digest
from prognosis_dask.errors import CaseError, Code, warn
from prognosis_dask.features.guard import Stopwatch
from prognosis_dask.features.measured import CropWork
from prognosis_dask.features.registry import CUBE, DEEP, DEEP_2
from prognosis_dask.features.roi import read_case
from prognosis_dask.features.stage import Stage, StageContext
from prognosis_dask.imaging.cube import CubeRule, cut_cube
from prognosis_dask.imaging.roi import Roi
from prognosis_dask.networks.cube_networks import CubeNetwork, cube_network
from prognosis_dask.storage.cubes import CubeStore
from prognosis_dask.storage.ledger import RETRIED, TaskResult, Values


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
