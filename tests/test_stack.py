"""Uneven stacks, several stacks in one series, and what is read of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from prognosis_dask.cohort.case import Case, read_cases, read_problems
from prognosis_dask.cohort.index import index_cohort
from prognosis_dask.cohort.series import read_listing
from prognosis_dask.cohort.stack import Run, even_runs
from prognosis_dask.config.job import CohortSection, ImageSection
from prognosis_dask.errors import Code, Problem, collected_warnings
from prognosis_dask.imaging.load import load_roi
from prognosis_dask.imaging.roi import Roi
from prognosis_dask.imaging.series import series_grid
from tests.dicom_helpers import case_of, list_series, problem_of, refer_to, write_rtstruct, write_seg, write_series

CUBE = np.array([[3.0, 3.0], [3.0, 7.0], [8.0, 7.0], [8.0, 3.0]])


def volume(slices: int) -> np.ndarray:
    return np.random.default_rng(0).integers(-500, 500, (slices, 12, 14)).astype(np.int16)


def heights(folder: Path, *values: float | str) -> Path:
    """Put the slices of a written series at other heights."""
    for path, value in zip(sorted(folder.iterdir()), values, strict=True):
        change(path, ImagePositionPatient=["0", "0", str(value)])
    return folder


def change(path: Path, **values: object) -> None:
    slice_ = pydicom.dcmread(path)
    for keyword, value in values.items():
        setattr(slice_, keyword, value)
    slice_.save_as(path)


def drawn(path: Path, *values: float, images: list[Path] | None = None) -> Path:
    """A structure set with a square at each height; ``images``: what each contour says it is drawn on."""
    write_rtstruct(path, [np.column_stack([CUBE, np.full(4, height)]) for height in values])
    if images:
        dataset = pydicom.dcmread(path)
        for contour, image in zip(dataset.ROIContourSequence[0].ContourSequence, images, strict=True):
            reference = pydicom.Dataset()
            reference.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
            reference.ReferencedSOPInstanceUID = pydicom.dcmread(image).SOPInstanceUID
            contour.ContourImageSequence = [reference]
        dataset.save_as(path)
    return path


def roi_and_warnings(case: Case, **settings: object) -> tuple[Roi, list[Problem]]:
    with collected_warnings() as found:
        return load_roi(case, ImageSection(**settings)), found  # type: ignore[arg-type]


def same(one: sitk.Image, other: sitk.Image) -> bool:
    return bool(sitk.Hash(one) == sitk.Hash(other)) and one.GetOrigin() == other.GetOrigin()


def test_slices_before_a_gap_are_read_as_if_the_series_ended_there(tmp_path: Path) -> None:
    stored = volume(12)
    folder = heights(write_series(tmp_path / "gap", stored), 0, 2, 4, 6, 8, 10, 12, 14, 20, 22, 24, 26)
    alone = heights(write_series(tmp_path / "alone", stored[:8]), 0, 2, 4, 6, 8, 10, 12, 14)
    mask = drawn(tmp_path / "rs.dcm", 4, 6, 8)
    found, [warning] = roi_and_warnings(case_of(folder, mask, (1,), tmp_path))
    wanted, none = roi_and_warnings(case_of(alone, mask, (1,), tmp_path))
    assert none == []
    assert same(found.image, wanted.image)
    assert same(found.mask, wanted.mask)
    assert (found.full, found.start) == (wanted.full, wanted.start)
    assert warning.code is Code.SLICE_GAP
    assert "about 2 slices missing" in warning.reason


def test_slices_behind_a_gap_lie_where_their_headers_say(tmp_path: Path) -> None:
    folder = heights(write_series(tmp_path / "gap", volume(12)), 0, 2, 4, 6, 8, 10, 12, 14, 20.3, 22.3, 24.3, 26.3)
    found, _ = roi_and_warnings(case_of(folder, drawn(tmp_path / "rs.dcm", 22.3, 24.3), (1,), tmp_path))
    assert found.image.GetSpacing()[2] == pytest.approx(2.0)
    assert found.image.GetOrigin()[2] == 20.3
    z = np.flatnonzero(sitk.GetArrayViewFromImage(found.mask).any(axis=(1, 2)))
    assert [found.mask.TransformIndexToPhysicalPoint((0, 0, int(k)))[2] for k in z] == pytest.approx([22.3, 24.3])


@pytest.mark.parametrize("drawn_at", [(4, 6, 8, 14), (6, 8, 10), (8, 10)])
def test_a_structure_that_reaches_into_a_gap_is_a_problem(tmp_path: Path, drawn_at: tuple[float, ...]) -> None:
    folder = heights(write_series(tmp_path / "gap", volume(10)), 0, 2, 4, 6, 8, 12, 14, 16, 18, 20)
    case = case_of(folder, drawn(tmp_path / "rs.dcm", *drawn_at), (1,), tmp_path)
    assert problem_of(lambda: load_roi(case, ImageSection())) is Code.SLICE_GAP


def test_segments_beside_a_gap_are_read_and_segments_across_one_are_not(tmp_path: Path) -> None:
    stored = volume(12)
    whole = write_series(tmp_path / "ct", stored, rescale=(1, 0))
    masks = np.zeros((12, 12, 14), np.uint8)
    masks[2:5, 3:7, 3:8] = 1
    masks[7:10, 3:7, 3:8] = 2
    beside = write_seg(tmp_path / "beside.dcm", whole, masks == 1, [1])
    across = write_seg(tmp_path / "across.dcm", whole, masks > 0, [1])
    behind = write_seg(tmp_path / "behind.dcm", whole, masks == 2, [1])
    (whole / "006.dcm").unlink()
    for path in (beside, behind):
        case = case_of(whole, path, (1,), tmp_path)
        found, [warning] = roi_and_warnings(case)
        assert warning.code is Code.SLICE_GAP
        assert int(sitk.GetArrayViewFromImage(found.mask).sum()) == 60
        assert sitk.GetArrayViewFromImage(found.image).shape[0] in (5, 6)
    case = case_of(whole, across, (1,), tmp_path)
    assert problem_of(lambda: roi_and_warnings(case)) is Code.SLICE_GAP


def test_a_jittered_slice_far_away_does_no_harm_and_one_in_the_roi_is_told_how_to_take(tmp_path: Path) -> None:
    where = [3.27 * k for k in range(20)]
    where[15] += 0.08
    folder = heights(write_series(tmp_path / "jitter", volume(20)), *(f"{z:.4f}" for z in where))
    far = case_of(folder, drawn(tmp_path / "far.dcm", *where[4:8]), (1,), tmp_path)
    assert len(roi_and_warnings(far)[1]) == 1
    near = case_of(folder, drawn(tmp_path / "near.dcm", *where[13:17]), (1,), tmp_path)
    with pytest.raises(Exception, match=r"image\.gap_tolerance = 0\.025 accepts them as even, with slices up to 0\.08"):
        load_roi(near, ImageSection())
    assert load_roi(near, ImageSection(gap_tolerance=0.025)).image.GetSpacing()[2] == pytest.approx(3.27)


def test_a_missing_slice_brings_no_advice_that_cannot_be_followed(tmp_path: Path) -> None:
    folder = heights(write_series(tmp_path / "gap", volume(6)), 0, 2, 4, 8, 10, 12)
    case = case_of(folder, drawn(tmp_path / "rs.dcm", 4, 8), (1,), tmp_path)
    with pytest.raises(Exception, match=r"find the missing slices$"):
        load_roi(case, ImageSection())


@pytest.mark.parametrize(
    ("between", "decimals"), [(0.625, 2), (0.625, 1), (1.25, 1), (0.7, 2), (3.27, 1), (2 / 3, 2), (0.9765625, 3)]
)
def test_positions_that_were_rounded_are_those_of_an_even_stack(tmp_path: Path, between: float, decimals: int) -> None:
    written = [f"{-30.1 + k * between:.{decimals}f}" for k in range(12)]
    listing = list_series(heights(write_series(tmp_path / "s", volume(12)), *written))
    assert series_grid(listing, 0.01).spacing[2] == pytest.approx(between, abs=10**-decimals / 11)


def test_rounding_excuses_no_slice_that_lies_elsewhere(tmp_path: Path) -> None:
    written = [f"{k * 0.625:.2f}" for k in range(12)]
    written[6] = "3.77"  # 0.02 mm from its place
    folder = heights(write_series(tmp_path / "s", volume(12)), *written)
    assert problem_of(lambda: series_grid(list_series(folder), 0.01)) is Code.SLICE_GAP
    folder = heights(write_series(tmp_path / "whole", volume(7)), *["0", "3", "6", "10", "12", "15", "18"])
    assert problem_of(lambda: series_grid(list_series(folder), 0.01)) is Code.SLICE_GAP


def test_distances_that_drift_are_not_averaged(tmp_path: Path) -> None:
    where = np.cumsum([0.0] + [3.0] * 40 + [3.02] * 40)  # each within a hundredth, together 0.4 mm off
    folder = heights(write_series(tmp_path / "s", volume(81)), *(f"{z:.3f}" for z in where))
    assert problem_of(lambda: series_grid(list_series(folder), 0.01)) is Code.SLICE_GAP


def test_a_part_with_a_distance_of_its_own_is_a_stack_and_a_row_of_gaps_is_none(tmp_path: Path) -> None:
    thin = [*range(10), *range(12, 24, 3)]
    folder = heights(write_series(tmp_path / "s", volume(14)), *thin)
    assert even_runs(list_series(folder), 0.01) == [Run(0, 10), Run(9, 14)]
    folder = heights(write_series(tmp_path / "t", volume(8)), 0, 1, 2, 3, 6, 7, 8, 9)
    assert even_runs(list_series(folder), 0.01) == [Run(0, 4), Run(4, 8)]


def indexed(source: Path, out: Path) -> tuple[list[Case], list[Problem]]:
    index_cohort([source], out, CohortSection(roi=("GTV-1",)))
    problems = read_problems(out / "problems.csv")
    return read_cases(out / "cases.csv"), [problem for problem in problems if problem.severity == "problem"]


def time_points(folder: Path, slices: int, **marks: list[object]) -> Path:
    """A series of as many images at each place as the marks have values."""
    number = len(next(iter(marks.values())))
    write_series(folder, volume(slices * number), modality="MR")
    for k, path in enumerate(sorted(folder.iterdir())):
        time, place = divmod(k, slices)
        change(
            path,
            ImagePositionPatient=[0, 0, 2 * place],
            **{name: values[time] for name, values in marks.items() if values[time] is not None},
        )
    return folder


@pytest.mark.parametrize(
    "marks",
    [
        {"TemporalPositionIdentifier": [1, 2, 3]},
        {"AcquisitionNumber": [1, 2, 3]},
        {"EchoTime": [4.6, 9.2, 13.8]},
        {"DiffusionBValue": [0.0, 500.0, 1000.0]},
        {"AcquisitionTime": ["101010.5", "101110.5", "101210.5"]},
        {"TemporalPositionIdentifier": [1, 2, 2], "EchoTime": [4.6, 4.6, 9.2]},
    ],
)
def test_of_several_time_points_the_one_that_the_mask_names_is_read(
    tmp_path: Path, marks: dict[str, list[object]]
) -> None:
    folder = time_points(tmp_path / "in" / "mr", 6, **marks)
    images = sorted(folder.iterdir())
    drawn(tmp_path / "in" / "rs.dcm", 4, 6, 8, images=images[8:11])
    [case], problems = indexed(tmp_path / "in", tmp_path / "out")
    assert problems == []
    listing = read_listing(case.image)
    assert [s.file for s in listing.slices] == [path.name for path in images[6:12]]
    np.testing.assert_array_equal(sitk.GetArrayFromImage(load_roi(case, ImageSection()).image), volume(18)[6:12])


def test_a_mask_that_names_no_time_point_is_told_that_there_are_several(tmp_path: Path) -> None:
    folder = time_points(tmp_path / "in" / "mr", 6, TemporalPositionIdentifier=[1, 2, 3])
    refer_to(drawn(tmp_path / "in" / "rs.dcm", 4, 6, 8), folder)
    cases, problems = indexed(tmp_path / "in", tmp_path / "out")
    assert cases == []
    assert problems[0].code is Code.SERIES_AMBIGUOUS
    assert "3 images at each place of one series" in problems[0].reason
    assert "TemporalPositionIdentifier 1; TemporalPositionIdentifier 2" in problems[0].reason


def test_of_two_overlapping_acquisitions_the_one_that_the_mask_names_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "in" / "ct"
    first, second = [2.0 * k for k in range(8)], [5.1 + 2.0 * k for k in range(8)]
    heights(write_series(folder, volume(16)), *first, *second)
    images = sorted(folder.iterdir())
    for k, path in enumerate(images):
        change(path, AcquisitionNumber=1 + k // 8)
    drawn(tmp_path / "in" / "rs.dcm", *second[2:5], images=images[10:13])
    [case], problems = indexed(tmp_path / "in", tmp_path / "out")
    assert problems == []
    assert [s.file for s in read_listing(case.image).slices] == [path.name for path in images[8:]]


def test_an_acquisition_that_goes_on_where_another_ends_is_one_stack(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "in" / "ct", volume(12))
    for k, path in enumerate(sorted(folder.iterdir())):
        change(path, AcquisitionNumber=1 + k // 6)
    refer_to(drawn(tmp_path / "in" / "rs.dcm", 8, 10, 12, 14), folder)
    [case], problems = indexed(tmp_path / "in", tmp_path / "out")
    assert problems == []
    assert len(read_listing(case.image).slices) == 12


def test_a_scout_in_the_series_is_not_mixed_with_its_slices(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "in" / "ct", volume(12))
    last = sorted(folder.iterdir())[-1]
    change(last, ImageOrientationPatient=[1, 0, 0, 0, 0, -1], ImagePositionPatient=[0, 6, 30])
    refer_to(drawn(tmp_path / "in" / "rs.dcm", 8, 10, 12, 14), folder)
    [case], problems = indexed(tmp_path / "in", tmp_path / "out")
    assert problems == []
    assert len(read_listing(case.image).slices) == 11
