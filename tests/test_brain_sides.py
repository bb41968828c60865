"""A head whose NIfTI header does not say where left and right are: it is used, and that is said."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from prognosis_dask.errors import CaseError, Code, collected_warnings
from prognosis_dask.features.brain import warn_of_sides
from prognosis_dask.volumes.nifti import doubt_of_sides


def written(path: Path, qform: int, sform: int) -> Path:
    image = nibabel.Nifti1Image(np.zeros((4, 4, 4), np.float32), None)
    image.header.set_qform(np.eye(4), code=qform)
    image.header.set_sform(np.eye(4), code=sform)
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize(("qform", "sform"), [(1, 0), (0, 1), (1, 1)])
def test_one_of_the_two_forms_is_enough(tmp_path: Path, qform: int, sform: int) -> None:
    path = written(tmp_path / "T1.nii.gz", qform, sform)
    with collected_warnings() as found:
        warn_of_sides(str(path))
    assert not found


def test_without_either_left_and_right_are_said_to_be_unknown(tmp_path: Path) -> None:
    path = written(tmp_path / "T1.nii.gz", 0, 0)
    with collected_warnings() as found:
        warn_of_sides(str(path))
    (problem,) = found
    assert problem.code is Code.ORIENTATION
    assert "left and right are unknown" in problem.reason
    assert problem.where == str(path)


def test_two_forms_that_turn_the_head_differently_leave_left_and_right_unknown(tmp_path: Path) -> None:
    """ITK takes the qform, nibabel the sform; one that is only moved says the same of sides."""
    path = tmp_path / "T1.nii.gz"
    for sides, expected in ((1, []), (-1, ["the header's qform and sform turn the image differently"])):
        image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.float32), None)
        image.set_qform(np.diag([1.0, 1.0, 1.0, 1.0]), code=1)
        image.set_sform(np.array([[sides, 0, 0, 20], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), code=2)
        nibabel.save(image, path)
        with collected_warnings() as found:
            warn_of_sides(str(path))
        assert [problem.reason.partition(",")[0] for problem in found] == expected


def test_what_is_no_nifti_file_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "T1.nii.gz"
    path.write_bytes(b"nothing")
    with pytest.raises(CaseError, match="unreadable-file"):
        doubt_of_sides(path)
