"""Masks that do not say, or say in vain, which images they were drawn on."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import generate_uid

from prognosis_dask.errors import Code, collected_warnings
from prognosis_dask.imaging.load import load_case
from tests.dicom_helpers import problem_of
from tests.test_cohort_index import index


@pytest.fixture
def folder(shared_data: Path, tmp_path: Path) -> Path:
    """A CT of twelve slices and an RTSTRUCT, ``rs.dcm``, with a ball on six of them."""
    shutil.copytree(shared_data / "reported" / "B17_no_image_refs" / "in", tmp_path / "in")
    return tmp_path / "in"


def change(path: Path, action: Callable[[pydicom.Dataset], None]) -> None:
    dataset = pydicom.dcmread(path)
    action(dataset)
    dataset.save_as(path)


def say_nothing(structures: pydicom.Dataset) -> None:
    for keyword in ("ReferencedFrameOfReferenceSequence", "FrameOfReferenceUID"):
        if keyword in structures:
            delattr(structures, keyword)
    for roi in structures.StructureSetROISequence:
        if "ReferencedFrameOfReferenceUID" in roi:
            del roi.ReferencedFrameOfReferenceUID


def name_another_series(structures: pydicom.Dataset) -> None:
    reference = structures.ReferencedFrameOfReferenceSequence[0]
    series, study = pydicom.Dataset(), pydicom.Dataset()
    series.SeriesInstanceUID = "1.2.3"
    study.RTReferencedSeriesSequence = [series]
    reference.RTReferencedStudySequence = [study]


def second_series(folder: Path) -> None:
    (folder / "second").mkdir()
    uid = generate_uid()
    for path in sorted((folder / "ct").iterdir()):
        dataset = pydicom.dcmread(path)
        dataset.SeriesInstanceUID, dataset.SOPInstanceUID = uid, generate_uid()
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(folder / "second" / path.name)


def test_a_structure_set_that_names_nothing_belongs_to_the_patients_only_series(folder: Path, tmp_path: Path) -> None:
    change(folder / "rs.dcm", say_nothing)
    [case] = index(tmp_path / "one", folder).cases
    assert np.count_nonzero(sitk.GetArrayFromImage(load_case(case)[1])) == 738
    second_series(folder)
    found = index(tmp_path / "two", folder)
    assert found.cases == []
    assert Code.MASK_WITHOUT_SERIES in {problem.code for problem in found.problems}


def test_a_structure_set_that_names_nothing_and_lies_elsewhere_belongs_to_no_series(
    folder: Path, tmp_path: Path
) -> None:
    def move(structures: pydicom.Dataset) -> None:
        say_nothing(structures)
        for contour in structures.ROIContourSequence[0].ContourSequence:
            points = np.array(contour.ContourData, dtype=float).reshape(-1, 3) + np.array([0, 0, 500])
            contour.ContourData = [f"{value:.3f}" for value in points.ravel()]

    change(folder / "rs.dcm", move)
    found = index(tmp_path / "out", folder)
    assert found.cases == []
    assert Code.MASK_WITHOUT_SERIES in {problem.code for problem in found.problems}


def test_a_mask_of_an_absent_series_is_put_on_another_of_its_frame_with_a_warning(folder: Path, tmp_path: Path) -> None:
    change(folder / "rs.dcm", name_another_series)
    found = index(tmp_path / "out", folder)
    assert len(found.cases) == 1
    [problem] = found.problems
    assert (problem.code, problem.severity) == (Code.MASK_WITHOUT_SERIES, "warning")
    assert "1.2.3" in problem.reason


def test_contours_of_an_absent_thicker_series_are_told_by_the_index_and_refused(folder: Path, tmp_path: Path) -> None:
    def thin_out(structures: pydicom.Dataset) -> None:
        name_another_series(structures)
        lines = structures.ROIContourSequence[0]
        lines.ContourSequence = lines.ContourSequence[::2]

    change(folder / "rs.dcm", thin_out)
    found = index(tmp_path / "out", folder)
    [case] = found.cases
    assert [p.severity for p in found.of(Code.MASK_GAPS)] == ["warning"]
    assert "3 of the 5 slices" in found.of(Code.MASK_GAPS)[0].reason
    assert problem_of(lambda: load_case(case)) is Code.MASK_GAPS


def test_contours_that_reach_beyond_the_only_series_still_belong_to_it(folder: Path, tmp_path: Path) -> None:
    def shift(structures: pydicom.Dataset) -> None:
        """Up by 4.4 slices of 3 mm: one of six lies beyond the last slice, the others 0.4 slices from one."""
        for contour in structures.ROIContourSequence[0].ContourSequence:
            points = np.array(contour.ContourData, dtype=float).reshape(-1, 3) + np.array([0, 0, 4.4 * 3])
            contour.ContourData = [f"{value:.3f}" for value in points.ravel()]

    change(folder / "rs.dcm", shift)
    [case] = index(tmp_path / "out", folder).cases
    with collected_warnings() as said:
        mask = sitk.GetArrayFromImage(load_case(case)[1])
    assert {warning.code for warning in said} == {Code.CONTOURS_DROPPED, Code.CONTOUR_OFF_PLANE}
    assert 0 < mask.sum() < 738


def test_a_mask_whose_images_are_of_no_use_says_why_they_are(folder: Path, tmp_path: Path) -> None:
    def refer(structures: pydicom.Dataset) -> None:
        name_another_series(structures)
        series = structures.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
        series.RTReferencedSeriesSequence[0].SeriesInstanceUID = uid

    def unplace(image: pydicom.Dataset) -> None:
        del image.ImagePositionPatient

    uid = str(pydicom.dcmread(next((folder / "ct").iterdir())).SeriesInstanceUID)
    change(folder / "rs.dcm", refer)
    for path in (folder / "ct").iterdir():
        change(path, unplace)
    [problem] = index(tmp_path / "out", folder).of(Code.MASK_WITHOUT_SERIES)
    assert "were found, but cannot be used: no ImagePositionPatient" in problem.reason


def test_a_structure_of_another_frame_of_reference_is_not_put_on_the_one_series_that_is_here(
    folder: Path, tmp_path: Path
) -> None:
    """A structure set of two frames, as after a registration: one's coordinates mean another place in the other."""

    def add_frame(structures: pydicom.Dataset) -> None:
        frames = structures.ReferencedFrameOfReferenceSequence
        series, study = pydicom.Dataset(), pydicom.Dataset()
        series.SeriesInstanceUID = uid
        study.RTReferencedSeriesSequence = [series]
        frames[0].RTReferencedStudySequence = [study]
        frames.append(pydicom.Dataset())
        frames[1].FrameOfReferenceUID = "1.2.9"
        for sequence in (structures.StructureSetROISequence, structures.ROIContourSequence):
            sequence.append(copy.deepcopy(sequence[0]))
        elsewhere = structures.StructureSetROISequence[1]
        elsewhere.ROIName, elsewhere.ReferencedFrameOfReferenceUID = "GTV-MR", "1.2.9"
        elsewhere.ROINumber = structures.ROIContourSequence[1].ReferencedROINumber = 9
        structures.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = frames[0].FrameOfReferenceUID

    uid = str(pydicom.dcmread(next((folder / "ct").iterdir())).SeriesInstanceUID)
    change(folder / "rs.dcm", add_frame)
    found = index(tmp_path / "out", folder)
    assert [case.roi for case in found.cases] == ["GTV-1"]
    assert [problem.code for problem in found.problems] == [Code.MASK_WITHOUT_SERIES]
