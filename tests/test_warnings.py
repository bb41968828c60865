"""What has to be known of a case that is used all the same."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from prognosis_dask.cohort.case import Case
from prognosis_dask.errors import CaseError, Code, Problem, collected_warnings, warn
from prognosis_dask.features.guard import Stopwatch, guarded

CASE = Case("P_CT_GTV", "P", "CT", "GTV", "image.nii.gz", "mask.nii.gz")


def test_a_stage_files_warnings_with_the_case_once_each() -> None:
    def work(watch: Stopwatch) -> dict[str, object]:
        for _ in range(2):
            warn(Code.CONTOURS_DROPPED, "1 of 7 contours lies beyond the last slice", where="rs.dcm")
        return {"voxels": 3}

    outcome = guarded("roi", CASE, "digest", work)
    assert outcome.problem is None
    reason = "1 of 7 contours lies beyond the last slice"
    assert outcome.warnings == (Problem(Code.CONTOURS_DROPPED, reason, "P", "P_CT_GTV", "rs.dcm", "warning"),)


def test_a_stage_that_fails_keeps_what_was_said_before() -> None:
    def work(watch: Stopwatch) -> dict[str, object]:
        warn(Code.MASK_GAPS, "slice 4 of 9 is empty")
        raise CaseError(Code.MASK_ONE_VOXEL, "one voxel")

    outcome = guarded("roi", CASE, "digest", work)
    assert [warning.code for warning in outcome.warnings] == [Code.MASK_GAPS]
    assert outcome.problem is not None
    assert outcome.problem.severity == "problem"


def test_outside_a_stage_it_is_a_python_warning() -> None:
    with pytest.warns(UserWarning, match=r"mask-gaps: slice 4 of 9 is empty \(rs.dcm\)"):
        warn(Code.MASK_GAPS, "slice 4 of 9 is empty", where="rs.dcm")


def test_threads_do_not_hear_each_other() -> None:
    together = Barrier(4)

    def say(number: int) -> list[str]:
        with collected_warnings() as found:
            together.wait()
            warn(Code.MASK_GAPS, f"slice {number}")
            together.wait()
        return [warning.reason for warning in found]

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(say, range(4))) == [[f"slice {number}"] for number in range(4)]
