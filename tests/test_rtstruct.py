"""Contours to masks, on real structure sets with published masks and on made edge cases."""

from __future__ import annotations

import csv
from pathlib import Path
from random import Random

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import assume, given
from hypothesis import strategies as st
from pydicom.dataelem import DataElement

from prognosis_dask.errors import CaseError, Code, Problem, collected_warnings
from prognosis_dask.imaging.masks import read_mask
from prognosis_dask.imaging.polygon import fill_even_odd
from prognosis_dask.imaging.rtstruct import place_contours, rtstruct_mask
from prognosis_dask.imaging.series import read_slices, series_grid
from prognosis_dask.volumes.grid import Grid, steps_of
from tests.dicom_helpers import list_series, problem_of, write_rtstruct

GRID = Grid((14, 12, 5), (1.0, 1.0, 2.0), (-3.0, 4.0, 10.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
TURNED = (0.9541666, 0.2785886, -0.1093369, -0.2080757, 0.880128, 0.4267065, 0.2151061, -0.3843997, 0.8977564)


def square(low: float, high: float, plane: float, grid: Grid = GRID) -> np.ndarray:
    """Corners at continuous indices, in mm."""
    corners = np.array([[low, low, plane], [high, low, plane], [high, high, plane], [low, high, plane]])
    return corners @ steps_of(grid).T + np.array(grid.origin)


def mask_of(tmp_path: Path, contours: list[np.ndarray], grid: Grid = GRID, **options: str) -> np.ndarray:
    return read_mask(write_rtstruct(tmp_path / "rs.dcm", contours, **options), (1,), grid, resample=False)


def code_of(tmp_path: Path, contours: list[np.ndarray], grid: Grid = GRID, **options: str) -> Code:
    return problem_of(lambda: mask_of(tmp_path, contours, grid, **options))


def test_all_36_sarcoma_masks_equal_the_published_ones(shared_data: Path) -> None:
    different = {}
    for twin in sorted(shared_data.glob("sts/STS_*/nifti/*_mask.nii.gz")):
        scan = twin.parents[1] / twin.name.removesuffix("_mask.nii.gz")
        structures = pydicom.dcmread(scan / "mask" / "RS.dcm")
        mask = rtstruct_mask(structures, (1,), series_grid(list_series(scan / "image"), 0.01))
        published = sitk.GetArrayFromImage(sitk.ReadImage(str(twin)))
        different[twin] = int(np.count_nonzero(mask != (published > 0)))
    assert len(different) == 36
    assert not any(different.values()), different


def test_ibsi_phantom_mask_equals_the_published_one(shared_data: Path) -> None:
    folder = shared_data / "ibsi" / "ct_phantom"
    grid = series_grid(list_series(folder / "dicom" / "image"), 0.01)
    mask = read_mask(next((folder / "dicom" / "mask").iterdir()), (), grid, resample=False)
    published = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "nifti" / "mask" / "mask.nii.gz")))
    np.testing.assert_array_equal(mask, published > 0)


def test_lung1_002_equals_the_published_case_by_hash(shared_data: Path) -> None:
    """The reference table holds pyradiomics' hashes of image (as float32) and mask (as int32): every voxel counts."""
    folder = shared_data / "lung1_002"
    with (folder / "reference_radiomics.csv").open() as stream:
        published = next(csv.DictReader(stream))
    listing = list_series(folder / "ct")
    grid = series_grid(listing, 0.01)
    mask = read_mask(next((folder / "rtstruct").iterdir()), (2,), grid, resample=False)
    assert np.count_nonzero(mask) == int(published["diagnostics_Mask-original_VoxelNum"])
    image = sitk.GetImageFromArray(read_slices(listing, 0, len(listing.slices)))
    assert image.GetPixelID() == sitk.sitkInt16
    assert sitk.Hash(sitk.Cast(image, sitk.sitkFloat32)) == published["diagnostics_Image-original_Hash"]
    assert sitk.Hash(sitk.GetImageFromArray(mask.astype(np.int32))) == published["diagnostics_Mask-original_Hash"]


@pytest.mark.filterwarnings("ignore:The value length")
def test_hole_is_even_odd(tmp_path: Path) -> None:
    rings = [square(low, high, plane) for plane in (1, 2) for low, high in ((0.5, 9.5), (3.5, 6.5))]
    mask = mask_of(tmp_path, rings)
    assert mask.sum(axis=(1, 2)).tolist() == [0, 81 - 9, 81 - 9, 0, 0]
    for kind in ("CLOSEDPLANAR_XOR", "CLOSED_PLANAR_XOR"):  # DICOM's term, and what writers make of it
        np.testing.assert_array_equal(mask_of(tmp_path, rings, kind=kind), mask)


def test_contour_given_twice_does_not_erase_itself(tmp_path: Path) -> None:
    mask = mask_of(tmp_path, [square(0.5, 5.5, 1), square(0.5, 5.5, 2), square(0.5, 5.5, 1)])
    assert mask.sum(axis=(1, 2)).tolist() == [0, 25, 25, 0, 0]


def test_oblique_series_gives_the_same_mask_as_a_straight_one(tmp_path: Path) -> None:
    turned = Grid(GRID.size, (1.3, 0.7, 4.5), (123.0, -432.0, 30.0), TURNED)
    shapes = ((0.5, 9.5, 1), (2.2, 7.9, 2), (4.4, 6.1, 2), (1.1, 5.7, 4))
    straight = mask_of(tmp_path, [square(*shape) for shape in shapes])
    np.testing.assert_array_equal(mask_of(tmp_path, [square(*shape, turned) for shape in shapes], turned), straight)


polygon = st.lists(st.tuples(st.floats(0, 13), st.floats(0, 11)), min_size=3, max_size=9).map(np.array)


@given(st.lists(polygon, min_size=1, max_size=3), st.randoms(use_true_random=False), st.booleans())
def test_repeats_of_contours_in_any_order_start_direction_and_rounding_change_nothing(
    shapes: list[np.ndarray], random: Random, rounded: bool
) -> None:
    solid = [shape for shape in shapes if np.ptp(shape, axis=0).min() > 3]
    contours = [np.pad(shape, ((0, 0), (0, 1)), constant_values=1 + i) for i, shape in enumerate(solid)]
    assume(contours)
    everything = list(contours)
    for contour in contours:
        turned = np.roll(contour, random.randrange(len(contour)), axis=0)[:: random.choice((1, -1))]
        closed = np.concatenate([turned, turned[:1]]) if random.random() < 0.5 else turned
        everything.append(np.round(closed, 2) if rounded else closed)
    random.shuffle(everything)
    once, again = (placed_mask([index_to_mm(contour) for contour in some]) for some in (contours, everything))
    moved = np.argwhere(once != again)
    # whichever rounding is kept, no pixel centre changes sides but one that an outline passes within the rounding
    for plane, row, column in moved:
        assert rounded
        assert from_outline(np.array([column, row]), contours[plane - 1][:, :2]) < 0.01


def index_to_mm(index: np.ndarray) -> np.ndarray:
    return np.asarray(index @ steps_of(GRID).T + np.array(GRID.origin))


def from_outline(point: np.ndarray, outline: np.ndarray) -> float:
    """Slow and obvious: the distance from the nearest of many points along the edges."""
    ends = np.roll(outline, -1, axis=0)
    along = np.linspace(0, 1, 5001)[:, None, None]
    return float(np.linalg.norm(outline + along * (ends - outline) - point, axis=2).min())


def placed_mask(contours: list[np.ndarray]) -> np.ndarray:
    placed = place_contours(contours, GRID, "GTV")
    return fill_even_odd([one.outline for one in placed], [one.plane for one in placed], GRID.size[::-1])


def test_a_contour_given_twice_is_known_whatever_its_start_direction_closing_point_and_rounding(tmp_path: Path) -> None:
    angle = np.linspace(0, 2 * np.pi, 31, endpoint=False)
    circle = np.stack([6 + 4.321 * np.cos(angle), 5.5 + 4.321 * np.sin(angle), 0 * angle + 1], axis=1)
    once = [square(0.5, 9.5, 2), circle @ steps_of(GRID).T + np.array(GRID.origin)]
    expected = mask_of(tmp_path, once)
    for again in (
        np.roll(once[1], 7, axis=0),
        once[1][::-1],
        np.concatenate([once[1], once[1][:1]]),
        np.round(once[1], 1),
        np.roll(np.round(once[1], 2)[::-1], 3, axis=0),
        np.repeat(once[1], 2, axis=0),
        once[1] + np.array([0, 0, 0.04]),
    ):
        np.testing.assert_array_equal(mask_of(tmp_path, [once[0], again, once[1]]).sum(), expected.sum())
        np.testing.assert_array_equal(mask_of(tmp_path, [*once, again]), expected)


def test_two_outlines_less_than_a_pixel_apart_are_a_problem_and_a_real_wall_is_a_ring(tmp_path: Path) -> None:
    other = square(0.5, 9.5, 2)
    for inset in (0.2, 0.5):
        assert code_of(tmp_path, [other, square(0.5, 9.5, 1), square(0.5 + inset, 9.5 - inset, 1)]) is (
            Code.CONTOURS_AMBIGUOUS
        )
    ring = mask_of(tmp_path, [other, square(0.5, 9.5, 1), square(2.5, 7.5, 1)])
    assert ring[1].sum() == 81 - 25


def test_contours_that_cross_each_other_are_told(tmp_path: Path) -> None:
    other = square(0.5, 9.5, 2)
    mask, said = warned(tmp_path, [other, square(0.5, 6.5, 1), square(3.5, 9.5, 1)])
    assert mask[1].sum() == 2 * 36 - 2 * 9
    assert [warning.code for warning in said] == [Code.CONTOURS_AMBIGUOUS]
    assert "on 1 slice (1): the 9 voxels" in said[0].reason
    for quiet in ([square(0.5, 4.5, 1), square(4.5, 9.5, 1)], [square(0.5, 9.5, 1), square(2.5, 6.5, 1)]):
        assert warned(tmp_path, [other, *quiet])[1] == []


def test_a_contour_that_runs_around_its_outline_several_times_is_one(tmp_path: Path) -> None:
    """The last slices of a structure would be lost without a word: by the even-odd rule two rounds enclose nothing."""
    once = [square(0.5, 6.5, plane) for plane in (1, 2, 3)]
    straight = mask_of(tmp_path, once)
    for twice in (np.vstack([once[2]] * 2), np.vstack([once[2]] * 3), np.vstack([once[2], once[2][:1], once[2][::-1]])):
        mask, said = warned(tmp_path, [*once[:2], twice])
        np.testing.assert_array_equal(mask, straight)
        assert said == []


def test_a_contour_that_overlaps_itself_is_told_and_a_keyhole_is_not(tmp_path: Path) -> None:
    other, outer, hole = square(0.5, 9.5, 2), square(0.5, 9.5, 1), square(2.5, 6.5, 1)
    mask, said = warned(tmp_path, [other, np.vstack([outer, square(0.5, 4.5, 1)])])
    assert mask[1].sum() == 81 - 16
    assert [warning.code for warning in said] == [Code.CONTOURS_AMBIGUOUS]
    assert "or themselves, on 1 slice (1): the 16 voxels" in said[0].reason
    for inner in (hole, hole[::-1]):
        ring, said = warned(tmp_path, [other, np.vstack([outer, outer[:1], inner, inner[:1]])])
        assert (ring[1].sum(), said) == (81 - 16, [])
    spike = np.vstack([outer, outer[:1], outer[:1] - [1, 1, 0], outer[:1], square(0.5, 4.5, 1)])
    assert [warning.code for warning in warned(tmp_path, [other, spike])[1]] == [Code.CONTOURS_AMBIGUOUS]


def test_a_contour_that_was_cut_short_is_a_problem(tmp_path: Path) -> None:
    path = write_rtstruct(tmp_path / "rs.dcm", [square(0.5, 5.5, 1), square(0.5, 5.5, 2)])
    structures = pydicom.dcmread(path)
    contour = structures.ROIContourSequence[0].ContourSequence[0]
    for told, taken in ((3, True), (5, True), (7, False)):
        contour.NumberOfContourPoints = told
        structures.save_as(path)
        if taken:
            assert read_mask(path, (1,), GRID, resample=False).any()
        else:
            assert problem_of(lambda: read_mask(path, (1,), GRID, resample=False)) is Code.MASK_UNREADABLE


def test_a_separator_after_the_last_number_is_none(tmp_path: Path) -> None:
    closed = [square(0.5, 5.5, 1), square(0.5, 5.5, 2)]
    path = write_rtstruct(tmp_path / "rs.dcm", closed)
    expected = read_mask(str(path), (1,), GRID, resample=False)
    dataset = pydicom.dcmread(path)
    for contour in dataset.ROIContourSequence[0].ContourSequence:
        text = "\\".join(map(str, contour.ContourData)).encode() + b"\\"
        contour[0x30060050] = DataElement(0x30060050, "UN", text)  # as pydicom finds a long one
    dataset.save_as(path)
    np.testing.assert_array_equal(read_mask(str(path), (1,), GRID, resample=False), expected)


def test_points_and_lines_enclose_nothing(tmp_path: Path) -> None:
    closed = [square(0.5, 5.5, 1), square(0.5, 5.5, 2)]
    np.testing.assert_array_equal(
        mask_of(tmp_path, [*closed, square(8, 9, 1)[:1], square(8, 9, 3)[:2]]), mask_of(tmp_path, closed)
    )
    for kind in ("POINT", "OPEN_PLANAR"):
        assert code_of(tmp_path, closed, kind=kind) is Code.ROI_WITHOUT_CONTOUR


def test_roi_without_contours_missing_roi_and_unnamed_roi(tmp_path: Path) -> None:
    path = write_rtstruct(tmp_path / "rs.dcm", [square(0.5, 5.5, 1), square(0.5, 5.5, 2)])

    def code(*numbers: int) -> Code:
        return problem_of(lambda: read_mask(path, numbers, GRID, resample=False))

    assert code(2) is Code.ROI_WITHOUT_CONTOUR
    assert code(7) is Code.ROI_NOT_FOUND
    assert code() is Code.ROI_AMBIGUOUS


def test_several_rois_are_merged(shared_data: Path) -> None:
    structures = pydicom.dcmread(shared_data / "rt_utils" / "empty" / "dummy_rt.dcm")
    grid = Grid((512, 512, 3), (0.488281, 0.488281, 5.0), (-125.0, -125.0, 60.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    one, two = (rtstruct_mask(structures, (number,), grid) for number in (1, 2))
    np.testing.assert_array_equal(rtstruct_mask(structures, (1, 2), grid), one | two)
    assert one.any()
    assert two.any()


def warned(tmp_path: Path, contours: list[np.ndarray], grid: Grid = GRID) -> tuple[np.ndarray, list[Problem]]:
    with collected_warnings() as found:
        mask = mask_of(tmp_path, contours, grid)
    return mask, found


def test_contours_a_fraction_of_a_slice_off_go_to_the_nearest_slice_and_it_is_said(tmp_path: Path) -> None:
    straight = mask_of(tmp_path, [square(0.5, 5.5, 1), square(0.5, 5.5, 2)])
    assert mask_of(tmp_path, [square(0.5, 5.5, 1.05), square(0.5, 5.5, 2.05)])[2].sum() == 25, "rounding is no fault"
    for off in (0.2, -0.4, 0.49):
        mask, said = warned(tmp_path, [square(0.5, 5.5, 1 + off), square(0.5, 5.5, 2 + off)])
        np.testing.assert_array_equal(mask, straight)
        assert [warning.code for warning in said] == [Code.CONTOUR_OFF_PLANE]
        assert f"{abs(off):.2f} slice spacings" in said[0].reason


@pytest.mark.parametrize("jitter", [0.0, 0.002, -0.002])
def test_contours_half_way_between_slices_all_go_the_same_way(tmp_path: Path, jitter: float) -> None:
    contours = [square(0.5, 5.5, plane + 0.5 + jitter * (-1) ** plane) for plane in range(4)]
    mask, said = warned(tmp_path, contours)
    assert mask.sum(axis=(1, 2)).tolist() == [0, 25, 25, 25, 25]
    assert [warning.code for warning in said] == [Code.CONTOUR_OFF_PLANE]


def test_contours_beyond_the_last_slice_cost_their_share_only(tmp_path: Path) -> None:
    good = [square(0.5, 5.5, 3), square(0.5, 5.5, 4)]
    mask, said = warned(tmp_path, [*good, square(0.5, 5.5, 5)])
    np.testing.assert_array_equal(mask, mask_of(tmp_path, good))
    assert [warning.code for warning in said] == [Code.CONTOURS_DROPPED]
    assert "1 of the 3 contours" in said[0].reason
    assert "33.3%" in said[0].reason
    mask, said = warned(tmp_path, [*good, square(0.5, 5.5, 4.4)])
    np.testing.assert_array_equal(mask, mask_of(tmp_path, good))
    assert "between the slices" in said[0].reason
    assert code_of(tmp_path, [good[1], *[square(0.5, 5.5, plane) for plane in (5, 6)]]) is Code.MASK_OUTSIDE


def test_contours_beyond_rows_and_columns_cost_their_share_only(tmp_path: Path) -> None:
    good = [square(0.5, 5.5, 1), square(0.5, 5.5, 2)]
    mask, said = warned(tmp_path, [*good, square(-4.5, 5.5, 3)])
    assert mask[3].sum() == 36
    assert [warning.code for warning in said] == [Code.CONTOURS_DROPPED]
    assert f"{64 / 150:.1%}" in said[0].reason
    assert code_of(tmp_path, [square(0.5, 5.5, 1), square(14.5, 24.5, 2)]) is Code.MASK_OUTSIDE


def test_of_thin_contours_within_a_thick_slice_those_nearest_to_its_plane_count(tmp_path: Path) -> None:
    """A ball drawn every millimetre on slices of three: its mask is that of the planes, and nothing is cut out."""
    grid = Grid((40, 40, 14), (1.0, 1.0, 3.0), (0.0, 0.0, 0.0), GRID.direction)

    def circle(height_mm: float) -> np.ndarray:
        radius = np.sqrt(15.2**2 - (height_mm - 19.5) ** 2)
        angle = np.linspace(0, 2 * np.pi, 80, endpoint=False)
        points = np.stack([20.3 + radius * np.cos(angle), 19.6 + radius * np.sin(angle), 0 * angle + height_mm], axis=1)
        return np.asarray(points)

    fine = [circle(height) for height in range(5, 35)]
    coarse = mask_of(tmp_path, [circle(height) for height in range(6, 35, 3)], grid)
    mask, said = warned(tmp_path, fine, grid)
    np.testing.assert_array_equal(mask, coarse)
    assert [warning.code for warning in said] == [Code.CONTOURS_DROPPED]
    assert "20 of the 30 contours" in said[0].reason


def test_contours_across_the_slices_are_found(tmp_path: Path) -> None:
    upright = square(0.5, 5.5, 2)[:, [0, 2, 1]]
    assert code_of(tmp_path, [upright]) is Code.CONTOUR_OFF_PLANE


def test_masks_too_small_for_features_are_found(tmp_path: Path) -> None:
    assert code_of(tmp_path, [square(2.2, 2.8, 1)]) is Code.MASK_EMPTY
    assert code_of(tmp_path, [square(1.8, 2.2, 1)]) is Code.MASK_ONE_VOXEL
    assert code_of(tmp_path, [square(0.5, 5.5, 1)]) is Code.MASK_ONE_SLICE


@pytest.mark.parametrize("text", ["1\\2", "1\\2\\x", "1\\2\\3\\4\\5\\6\\7\\8"])
def test_malformed_contour_is_a_problem_not_a_crash(tmp_path: Path, text: str) -> None:
    path = write_rtstruct(tmp_path / "rs.dcm", [np.full((3, 3), 1.0)])
    plain, spoilt = b"\\".join([b"1.0000"] * 9), text.encode()
    content = path.read_bytes()
    assert plain in content
    path.write_bytes(content.replace(plain, spoilt.ljust(len(plain))))
    assert problem_of(lambda: read_mask(path, (1,), GRID, resample=False)) is Code.MASK_UNREADABLE


def test_a_file_cut_short_anywhere_is_a_problem(tmp_path: Path) -> None:
    path = write_rtstruct(tmp_path / "rs.dcm", [square(0.5, 5.5, 1), square(0.5, 5.5, 2)])
    whole = path.read_bytes()
    for length in np.linspace(140, len(whole) - 30, 50).astype(int):
        path.write_bytes(whole[:length])
        with pytest.raises(CaseError):
            read_mask(path, (1,), GRID, resample=False)


def test_every_rt_utils_file_gives_a_mask_or_its_own_problem(shared_data: Path) -> None:
    grid = series_grid(list_series(shared_data / "rt_utils" / "mock_data"), 0.01)
    paths = {path.name: path for path in sorted(shared_data.glob("rt_utils/*/*.dcm"))}
    for name in ("invalid_reference_rt.dcm", "non_existent_reference_rt.dcm", "dummy_rt.dcm"):
        with collected_warnings() as said:
            mask = read_mask(paths.pop(name), (1,), grid, resample=False)
        assert mask.any(axis=(1, 2)).all()
        assert [warning.code for warning in said] == [Code.CONTOURS_DROPPED], "a third lies beyond the two slices here"
    seen = {name: problem_of(lambda p=p: read_mask(p, (1,), grid, resample=False)) for name, p in paths.items()}  # type: ignore[misc]
    assert seen.pop("rt.dcm") is Code.MASK_ONE_SLICE, "two contours on one plane"
    assert set(seen.values()) == {Code.MASK_UNREADABLE}, "image slices are no masks"
