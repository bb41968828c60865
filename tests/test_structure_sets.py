"""RTSTRUCTs with defects, from the index to the mask."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataelem import DataElement

from prognosis_dask.errors import Code
from prognosis_dask.imaging.load import load_case
from tests.dicom_helpers import problem_of
from tests.test_cohort_index import index


def test_a_number_that_two_rois_share_costs_these_two_only(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "reported" / "B19_empty_roi" / "in"
    shutil.copytree(source / "ct", tmp_path / "in" / "ct")
    structures = pydicom.dcmread(source / "rs.dcm")
    twin = copy.deepcopy(structures.StructureSetROISequence[0])
    twin.ROIName = "twin"
    structures.StructureSetROISequence.append(twin)
    structures.save_as(tmp_path / "in" / "rs.dcm")
    found = index(tmp_path / "out", tmp_path / "in", roi=("GTV-1", "twin"), roi_policy="each")
    assert [case.roi for case in found.cases] == ["GTV-1"]
    assert [(p.code, "twin" in p.reason) for p in found.problems] == [(Code.ROI_AMBIGUOUS, True)]


def with_gtv(shared_data: Path, folder: Path, change: Callable[[pydicom.Dataset], None]) -> Path:
    """A CT and an RTSTRUCT whose only ROI is changed before it is written."""
    source = shared_data / "reported" / "B17_no_image_refs" / "in"
    shutil.copytree(source / "ct", folder / "ct")
    structures = pydicom.dcmread(source / "rs.dcm")
    change(structures)
    structures.save_as(folder / "rs.dcm")
    return folder


@pytest.mark.parametrize("declared", ["", "ISO_IR 100", "ISO_IR 192"])
def test_a_name_in_utf8_is_read_whatever_character_set_the_file_says(
    shared_data: Path, tmp_path: Path, declared: str
) -> None:
    def rename(structures: pydicom.Dataset) -> None:
        structures.SpecificCharacterSet = "ISO_IR 192"
        structures.StructureSetROISequence[0].ROIName = "Tumör"

    folder = with_gtv(shared_data, tmp_path / "in", rename)
    content = (folder / "rs.dcm").read_bytes()
    assert content.count(b"ISO_IR 192") == 1
    (folder / "rs.dcm").write_bytes(content.replace(b"ISO_IR 192", declared.encode().ljust(10)))
    assert [case.roi for case in index(tmp_path / "out", folder, roi=("Tumör",)).cases] == ["Tumör"]


def test_a_malformed_roi_gives_way_to_no_other(shared_data: Path, tmp_path: Path) -> None:
    def spoil(structures: pydicom.Dataset) -> None:
        for sequence in (structures.StructureSetROISequence, structures.ROIContourSequence):
            sequence.append(copy.deepcopy(sequence[0]))
        structures.StructureSetROISequence[1].ROIName = "GTV-2"
        structures.StructureSetROISequence[1].ROINumber = structures.ROIContourSequence[1].ReferencedROINumber = 9
        contour = structures.ROIContourSequence[0].ContourSequence[2]
        contour[0x30060050] = DataElement(0x30060050, "LO", ["x"] * 12)

    folder = with_gtv(shared_data, tmp_path / "in", spoil)
    for policy in ("", "merge"):
        found = index(tmp_path / f"out{policy}", folder, roi=("GTV-1", "GTV-2"), roi_policy=policy)
        assert found.cases == []
        assert [problem.code for problem in found.problems] == [Code.MASK_UNREADABLE]
    found = index(tmp_path / "other", folder, roi=("GTV-2",))
    assert [case.roi for case in found.cases] == ["GTV-2"]
    assert found.problems == []


@pytest.mark.parametrize("kind", [None, "", "closed_planar "])
def test_a_contour_without_a_type_is_closed(shared_data: Path, tmp_path: Path, kind: str | None) -> None:
    def change(structures: pydicom.Dataset) -> None:
        for contour in structures.ROIContourSequence[0].ContourSequence:
            if kind is None:
                del contour.ContourGeometricType
            else:
                contour[0x30060042] = DataElement(0x30060042, "LO", kind)

    found = index(tmp_path / "out", with_gtv(shared_data, tmp_path / "in", change))
    [case] = found.cases
    assert sitk.GetArrayFromImage(load_case(case)[1]).sum() == 738


def test_a_number_that_two_segments_share_costs_these_two_only(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "qin_prostate"
    shutil.copytree(source, tmp_path / "in")
    [path] = (tmp_path / "in" / "seg").iterdir()
    path.chmod(0o644)
    segmentation = pydicom.dcmread(path)
    segmentation.SegmentSequence[1].SegmentNumber = segmentation.SegmentSequence[0].SegmentNumber
    segmentation.save_as(path)
    found = index(tmp_path / "out", tmp_path / "in", roi_policy="each")
    codes = [problem.code for problem in found.problems]
    assert len(found.cases) == 2
    assert codes.count(Code.ROI_AMBIGUOUS) == 2
    number = int(segmentation.SegmentSequence[0].SegmentNumber)
    assert problem_of(lambda: load_case(replace(found.cases[0], labels=(number,)))) is Code.ROI_AMBIGUOUS


def test_a_structure_set_that_was_rejected_is_told(shared_data: Path, tmp_path: Path) -> None:
    for status, codes in (("REJECTED", [Code.MASK_ITEM_INVALID]), ("UNAPPROVED", [])):
        folder = with_gtv(
            shared_data,
            tmp_path / status,
            lambda structures, status=status: setattr(structures, "ApprovalStatus", status),
        )
        found = index(tmp_path / f"out{status}", folder, roi=("GTV-1",))
        assert len(found.cases) == 1
        assert [problem.code for problem in found.problems] == codes


def test_contours_that_lie_on_another_slice_than_that_of_the_image_they_name_are_told(
    shared_data: Path, tmp_path: Path
) -> None:
    ct = shared_data / "reported" / "B17_no_image_refs" / "in" / "ct"
    images = sorted((pydicom.dcmread(path) for path in ct.iterdir()), key=lambda one: one.ImagePositionPatient[2])
    heights = np.array([float(one.ImagePositionPatient[2]) for one in images])

    def naming(shift: int) -> Callable[[pydicom.Dataset], None]:
        def name(structures: pydicom.Dataset) -> None:
            for contour in structures.ROIContourSequence[0].ContourSequence:
                item = pydicom.Dataset()
                at = int(np.abs(heights - float(contour.ContourData[2])).argmin()) + shift
                item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = (
                    images[0].SOPClassUID,
                    images[at].SOPInstanceUID,
                )
                contour.ContourImageSequence = [item]

        return name

    for shift, codes in ((0, []), (2, [Code.CONTOUR_OFF_PLANE])):
        found = index(tmp_path / f"out{shift}", with_gtv(shared_data, tmp_path / f"in{shift}", naming(shift)))
        assert len(found.cases) == 1
        assert [problem.code for problem in found.problems] == codes
