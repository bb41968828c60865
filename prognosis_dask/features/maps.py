"""The stage of feature maps: pyradiomics' voxel mode on each case's files; ``maps/`` keeps the images.

One folder per case, named by the first 12 hex digits of the SHA-256 of the case_id::

    NAME.nrrd          the map of one feature, over the mask's box and the neighbourhood around it
    case.json          case_id and the names of the maps; written last

A folder is written aside and published by one rename; in a bucket object by object.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

from prognosis_dask.cohort.case import Case, short_hash
from prognosis_dask.config.job import Job
from prognosis_dask.features.guard import Stopwatch
from prognosis_dask.features.roi import read_case
from prognosis_dask.features.stage import StageContext, Work
from prognosis_dask.radiomics.maps import expect_maps, feature_maps, write_nrrd
from prognosis_dask.radiomics.parameter_file import read_params
from prognosis_dask.storage.brains import HEADER, ImageStore


class MapsWork(Work):
    """Compute and keep the maps of each case; no feature comes of them."""

    def check(self, job: Job) -> None:
        expect_maps(read_params(job.maps.params, "maps.params"))

    def inputs(self, context: StageContext, modality: str) -> tuple[object, ...]:
        assert context.maps is not None
        return context.maps.identity

    def prepare(self, context: StageContext, cases: Sequence[Case]) -> None:
        _store(context).create()

    def lost(self, context: StageContext, done: Collection[str]) -> set[str]:
        held = _store(context).held()
        return {case_id for case_id in done if short_hash(case_id) not in held}

    def measure(self, case: Case, context: StageContext, watch: Stopwatch) -> dict[str, object]:
        assert context.maps is not None
        roi = read_case(case, context, full=True, seconds=watch.seconds)
        with watch.step("maps"):
            maps = feature_maps(roi, context.maps, radius=context.job.maps.radius or None)
        with watch.step("write"), _store(context).filled(case.case_id) as folder:
            write_nrrd(maps, folder)
            header = {"case_id": case.case_id, "maps": list(maps)}
            (folder / HEADER).write_text(json.dumps(header, indent=1), encoding="utf-8")
        return {"maps": len(maps)}


def _store(context: StageContext) -> ImageStore:
    return ImageStore(f"{context.folder}/maps")
