"""The stage of feature maps: pyradiomics' voxel mode on each case's files; ``maps/`` keeps the images.

One folder per case, named by the first 12 hex digits of the SHA-256 of the case_id::

    NAME.nrrd          the map of one feature, over the mask's box and the neighbourhood around it
    case.json          case_id and the names of the maps; written last

A folder is written aside and published by one rename; in a bucket object by object.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path

from prognosis_dask.cohort.case import Case, short_hash
from prognosis_dask.config.job import Job
from prognosis_dask.features.guard import Stopwatch
from prognosis_dask.features.roi import read_case
from prognosis_dask.features.stage import StageContext, Work
from prognosis_dask.objects.address import is_address, join, parse_address
from prognosis_dask.objects.files import files_named
from prognosis_dask.objects.folders import files_below, put_files
from prognosis_dask.publish import publish_folder, remove_abandoned, staging
from prognosis_dask.radiomics.maps import expect_maps, feature_maps, write_nrrd
from prognosis_dask.radiomics.parameter_file import read_params

_HEADER = "case.json"


class MapsWork(Work):
    """Compute and keep the maps of each case; no feature comes of them."""

    def check(self, job: Job) -> None:
        expect_maps(read_params(job.maps.params, "maps.params"))

    def inputs(self, context: StageContext, modality: str) -> tuple[object, ...]:
        assert context.maps is not None
        return context.maps.identity

    def prepare(self, context: StageContext, cases: Sequence[Case]) -> None:
        folder = _folder(context)
        if not is_address(folder):
            Path(folder).mkdir(parents=True, exist_ok=True)
            remove_abandoned(Path(folder) / "case")

    def lost(self, context: StageContext, done: Collection[str]) -> set[str]:
        held = {path.split("/")[-2] for path in files_named(_folder(context), _HEADER)}
        return {case_id for case_id in done if short_hash(case_id) not in held}

    def measure(self, case: Case, context: StageContext, watch: Stopwatch) -> dict[str, object]:
        assert context.maps is not None
        roi = read_case(case, context, full=True, seconds=watch.seconds)
        with watch.step("maps"):
            maps = feature_maps(roi, context.maps, radius=context.job.maps.radius or None)
        target = join(_folder(context), short_hash(case.case_id))
        with watch.step("write"), staging(target if is_address(target) else Path(target)) as work:
            staged = work / "case"
            staged.mkdir()
            write_nrrd(maps, staged)
            header = {"case_id": case.case_id, "maps": list(maps)}
            (staged / _HEADER).write_text(json.dumps(header, indent=1), encoding="utf-8")
            if is_address(target):
                put_files(files_below(staged), parse_address(target), mark=_HEADER)
            else:
                publish_folder(staged, Path(target))
        return {"maps": len(maps)}


def _folder(context: StageContext) -> str:
    return f"{context.folder}/maps"
