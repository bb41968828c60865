"""Enhanced multi-frame images against the classic series that they were made of."""

from __future__ import annotations

import warnings
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedMRImageStorage, generate_uid

from prognosis_dask.cohort.case import Case, read_cases, read_problems
from prognosis_dask.cohort.index import index_cohort
from prognosis_dask.config.job import CohortSection, ImageSection
from prognosis_dask.errors import Code, Problem, collected_warnings
from prognosis_dask.imaging.load import load_roi
from prognosis_dask.imaging.roi import Roi
from tests.dicom_helpers import refer_to, write_rtstruct, write_series

CONVERT = {
    "CT": highdicom.legacy.LegacyConvertedEnhancedCTImage,
    "MR": highdicom.legacy.LegacyConvertedEnhancedMRImage,
    "PT": highdicom.legacy.LegacyConvertedEnhancedPETImage,
}


def enhanced(source: Path, path: Path, modality: str) -> Path:
    """A series as one enhanced multi-frame file, made by highdicom, its frames in no order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        images = [pydicom.dcmread(file) for file in source.iterdir()]
        images.sort(key=lambda image: str(image.SOPInstanceUID)[::-1])
        for image in images:
            image.PatientName = "P^"
        made = CONVERT[modality](
            legacy_datasets=images,
            series_instance_uid=generate_uid(),
            series_number=7,
            sop_instance_uid=generate_uid(),
            instance_number=1,
        )
        made.save_as(path)
    return path


def read(*sources: Path, out: Path) -> tuple[list[Case], list[Problem]]:
    index_cohort(sources, out, CohortSection())
    return read_cases(out / "cases.csv"), read_problems(out / "problems.csv")


def roi_of(case: Case) -> Roi:
    with collected_warnings():
        return load_roi(case, ImageSection())


@pytest.mark.parametrize(("modality", "folder"), [("CT", "CT"), ("MR", "MR_T1"), ("PT", "PET")])
def test_a_series_in_one_file_gives_the_voxels_and_the_mask_of_the_series_in_many(
    shared_data: Path, tmp_path: Path, modality: str, folder: str
) -> None:
    source = shared_data / "sts" / "STS_024" / folder
    (tmp_path / "in").mkdir()
    many = enhanced(source / "image", tmp_path / "in" / "mf.dcm", modality)
    mask = pydicom.dcmread(next((source / "mask").iterdir()))
    mask.save_as(tmp_path / "in" / "rs.dcm")
    refer_to(tmp_path / "in" / "rs.dcm", many.parent)
    [one], problems = read(tmp_path / "in", out=tmp_path / "enhanced")
    assert [problem for problem in problems if problem.severity == "problem"] == []
    [two], _ = read(source, out=tmp_path / "classic")
    found, wanted = roi_of(one), roi_of(two)
    assert found.full == wanted.full
    assert found.start == wanted.start
    assert found.unit == wanted.unit
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found.mask), sitk.GetArrayFromImage(wanted.mask))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found.image), sitk.GetArrayFromImage(wanted.image))


def two_time_points(path: Path, stored: np.ndarray) -> Path:
    """An enhanced MR with every second frame of a later time point, each with its own slope."""
    classic = write_series(path.parent / "classic", stored, modality="MR")
    files = sorted(classic.iterdir())
    image = pydicom.dcmread(files[0])
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    image.NumberOfFrames = len(stored)
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = image.PixelSpacing, 2
    orientation.ImageOrientationPatient = image.ImageOrientationPatient
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = Sequence([measures]), Sequence([orientation])
    image.SharedFunctionalGroupsSequence = Sequence([shared])
    groups = []
    for number in range(len(stored)):
        place, time = divmod(number, 2)
        group, position, content, values = Dataset(), Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [0, 0, 2 * place]
        content.TemporalPositionIndex, content.StackID = time + 1, "1"
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = 1 + number, -number, "US"
        group.PlanePositionSequence, group.FrameContentSequence = Sequence([position]), Sequence([content])
        group.PixelValueTransformationSequence = Sequence([values])
        groups.append(group)
    image.PerFrameFunctionalGroupsSequence = Sequence(groups)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(image, keyword)
    image.PixelData = stored.tobytes()
    for file in files:
        file.unlink()
    classic.rmdir()
    image.save_as(path)
    return path


def test_of_the_time_points_in_one_file_the_one_whose_frames_the_mask_names_is_read(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    stored = np.random.default_rng(0).integers(0, 500, (16, 12, 14)).astype(np.int16)
    many = two_time_points(tmp_path / "in" / "mf.dcm", stored)
    square = np.array([[3.0, 3.0], [3.0, 7.0], [8.0, 7.0], [8.0, 3.0]])
    write_rtstruct(tmp_path / "in" / "rs.dcm", [np.column_stack([square, np.full(4, z)]) for z in (4.0, 6.0)])
    refer_to(tmp_path / "in" / "rs.dcm", many.parent)
    cases, problems = read(tmp_path / "in", out=tmp_path / "unsaid")
    assert cases == []
    assert Code.SERIES_AMBIGUOUS in {problem.code for problem in problems}
    mask = pydicom.dcmread(tmp_path / "in" / "rs.dcm")
    for contour, frame in zip(mask.ROIContourSequence[0].ContourSequence, (6, 8), strict=True):
        reference = Dataset()
        reference.ReferencedSOPInstanceUID = pydicom.dcmread(many).SOPInstanceUID
        reference.ReferencedFrameNumber = frame
        contour.ContourImageSequence = Sequence([reference])
    mask.save_as(tmp_path / "in" / "rs.dcm")
    [case], _ = read(tmp_path / "in", out=tmp_path / "said")
    slopes = np.arange(1, 17)[1::2, None, None]
    np.testing.assert_array_equal(sitk.GetArrayFromImage(roi_of(case).image), stored[1::2] * slopes - slopes + 1)
