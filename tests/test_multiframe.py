"""Enhanced multi-frame images against the classic series that they were made of."""

from __future__ import annotations

import warnings
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, generate_uid

from prognosis_dask.cohort.case import Case, read_cases, read_problems
from prognosis_dask.cohort.collections import resolve
from prognosis_dask.cohort.crawl import crawl
from prognosis_dask.cohort.gather import gather
from prognosis_dask.cohort.index import index_cohort
from prognosis_dask.cohort.sequences import name_sequences
from prognosis_dask.config.job import CohortSection, ImageSection
from prognosis_dask.errors import Code, Problem, collected_warnings
from prognosis_dask.imaging.load import load_roi
from prognosis_dask.imaging.roi import Roi
from prognosis_dask.imaging.series import read_slices, series_grid
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


def test_an_image_of_several_frames_is_refused_as_a_mask(shared_data: Path, tmp_path: Path, refused) -> None:
    many = enhanced(shared_data / "sts" / "STS_024" / "MR_T1" / "image", tmp_path / "mf.dcm", "MR")
    told = refused("features", shared_data / "nifti_edge" / "img.nii.gz", many)
    assert f"mask-unreadable: {many} is no label map, RTSTRUCT or SEG" in told


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


def of(**elements: object) -> Sequence:
    """A functional group with these elements."""
    group = Dataset()
    for keyword, value in elements.items():
        setattr(group, keyword, value)
    return Sequence([group])


def two_heads(path: Path, volumes: list[sitk.Image], groups: list[dict[str, Sequence]], **common: object) -> None:
    """Volumes of one tilted grid as an enhanced MR, frames in no order, with each volume's groups and own slope."""
    grid, image = volumes[0], Dataset()
    direction, spacing = np.reshape(grid.GetDirection(), (3, 3)), grid.GetSpacing()
    image.SOPClassUID, image.SOPInstanceUID, image.Modality = EnhancedMRImageStorage, generate_uid(), "MR"
    image.SeriesInstanceUID, image.StudyInstanceUID, image.FrameOfReferenceUID = "1.2.1", "1.2.3", "1.2.4"
    image.PatientID, image.PhotometricInterpretation, image.SamplesPerPixel = "P", "MONOCHROME2", 1
    image.Columns, image.Rows, slices = grid.GetSize()
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
    for keyword, value in common.items():
        setattr(image, keyword, value)
    plane = of(ImageOrientationPatient=[*direction[:, 0], *direction[:, 1]])
    measures = of(PixelSpacing=[spacing[1], spacing[0]], SliceThickness=spacing[2])
    image.SharedFunctionalGroupsSequence = of(PlaneOrientationSequence=plane, PixelMeasuresSequence=measures)
    frames, pixels = [], []
    for number in np.random.default_rng(0).permutation(slices * len(volumes)).tolist():
        at, z = divmod(number, slices)
        frame = Dataset()
        place = [f"{mm:.6f}" for mm in grid.TransformIndexToPhysicalPoint((0, 0, z))]
        frame.PlanePositionSequence = of(ImagePositionPatient=place)
        frame.PixelValueTransformationSequence = of(RescaleSlope=1 + at, RescaleIntercept=-at, RescaleType="US")
        for keyword, group in groups[at].items():
            setattr(frame, keyword, group)
        frames.append(frame)
        pixels.append(sitk.GetArrayViewFromImage(volumes[at])[z])
    image.PerFrameFunctionalGroupsSequence, image.NumberOfFrames = Sequence(frames), len(frames)
    image.PixelData = np.stack(pixels).tobytes()
    image["PixelData"].VR = "OW"
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.save_as(path, enforce_file_format=True)


_CODED = of(CodeValue="1", CodeMeaning="Gadobutrol", ContrastBolusAgentNumber=1)


@pytest.mark.parametrize(
    ("description", "groups", "common", "sequences"),
    [
        ("AX T2", [{"MREchoSequence": of(EffectiveEchoTime=echo)} for echo in (15.0, 95.0)], {}, ["", "T2"]),
        (
            "AX T1",
            [
                {
                    "ContrastBolusUsageSequence": of(ContrastBolusAgentAdministered=given),
                    "FrameContentSequence": of(TemporalPositionIndex=time),
                }
                for time, given in ((1, "NO"), (2, "YES"))
            ],
            {"ContrastBolusAgentSequence": _CODED},
            ["T1", "T1c"],
        ),
        (
            "AX T2",
            [{"MRImageFrameTypeSequence": of(ComplexImageComponent=part)} for part in ("MAGNITUDE", "PHASE")],
            {},
            ["T2", ""],
        ),
        (
            "HEAD",
            [{"MRDiffusionSequence": of(DiffusionBValue=b)} for b in (0.0, 1000.0)],
            {"EchoPlanarPulseSequence": "YES"},
            ["", ""],
        ),
    ],
    ids=["echoes", "contrast", "magnitude and phase", "b-values"],
)
def test_of_a_real_head_in_an_enhanced_mr_each_volume_is_that_volume_and_its_sequence(
    shared_data: Path,
    tmp_path: Path,
    description: str,
    groups: list[dict[str, Sequence]],
    common: dict[str, object],
    sequences: list[str],
) -> None:
    one, two = (sitk.ReadImage(str(shared_data / "heads" / f"FG6692_{name}.nii.gz")) for name in ("FLAIR", "T2"))
    two = sitk.Resample(two, one)  # onto one tilted grid
    volumes = [sitk.Cast(sitk.Clamp(volume, lowerBound=0, upperBound=20000), sitk.sitkUInt16) for volume in (one, two)]
    two_heads(tmp_path / "mf.dcm", volumes, groups, SeriesDescription=description, **common)
    images = gather(list(crawl([tmp_path], map)), (), resolve(CohortSection(modalities=("MR",)))).images.values()
    name_sequences(images)
    assert len(images) == 2
    found = {}
    for image in images:
        assert image.listing is not None
        read = sitk.GetImageFromArray(read_slices(image.listing, 0, len(image.listing.slices)).astype(np.float64))
        grid = series_grid(image.listing, 0.01)
        read.SetSpacing(grid.spacing), read.SetOrigin(grid.origin), read.SetDirection(grid.direction)
        values = sitk.GetArrayFromImage(sitk.Resample(read, volumes[0], sitk.Transform(), sitk.sitkNearestNeighbor))
        for at, volume in enumerate(volumes):
            stored = sitk.GetArrayFromImage(volume).astype(np.float64)
            if np.array_equal(values, stored * (1 + at) - at):
                found[at] = image.sequence
    assert found == dict(enumerate(sequences))


def test_frames_without_a_place_are_a_problem(tmp_path: Path) -> None:
    """The image would end before the last frames, in silence."""
    (tmp_path / "in").mkdir()
    path = enhanced(write_series(tmp_path / "s", np.zeros((6, 8, 8), np.int16)), tmp_path / "in" / "mf.dcm", "CT")
    image = pydicom.dcmread(path)
    image.PerFrameFunctionalGroupsSequence.pop()
    image.save_as(path)
    _, [problem] = read(tmp_path / "in", out=tmp_path / "out")
    assert problem.code is Code.UNREADABLE_FILE
    assert "NumberOfFrames is 6, and 5 frames have a position" in problem.reason
