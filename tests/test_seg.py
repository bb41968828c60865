"""DICOM SEG to masks. The witnesses are dcmqi's NRRD twins and highdicom's reader."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from prognosis_dask.config.job import ImageSection
from prognosis_dask.errors import Code
from prognosis_dask.imaging.load import load_roi
from prognosis_dask.imaging.masks import read_mask
from prognosis_dask.imaging.seg import _decoded, _frames, seg_mask, stack_frames
from prognosis_dask.imaging.series import series_grid
from prognosis_dask.radiomics.extraction import extract
from prognosis_dask.radiomics.parameter_file import read_params
from prognosis_dask.volumes.files import volume_grid
from prognosis_dask.volumes.grid import Grid, steps_of, to_index
from tests.dicom_helpers import case_of, list_series, problem_of, write_seg, write_series

RNG = np.random.default_rng(0)
TRUTH = RNG.random((6, 11, 13)) > 0.6
OBLIQUE = (0.9541666, -0.2080757, 0.2151061, 0.2785886, 0.880128, -0.3843997)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seg") / "series"
    return write_series(folder, np.full(TRUTH.shape, -1000, np.int16), spacing=(0.7, 1.2, 2.5), orientation=OBLIQUE)


@pytest.fixture(scope="module")
def grid(source: Path) -> Grid:
    return series_grid(list_series(source), 0.01)


def read(path: Path, grid: Grid, *labels: int, resample: bool = False) -> np.ndarray:
    return read_mask(path, labels, grid, resample=resample)


def code_of(path: Path, grid: Grid, *labels: int, resample: bool = False) -> Code:
    return problem_of(lambda: read(path, grid, *labels, resample=resample))


def volume_on(grid: Grid, mask: np.ndarray, scale: float = 1.0) -> highdicom.Volume:
    affine = np.eye(4)
    affine[:3, :3] = steps_of(grid)[:, ::-1] * scale
    affine[:3, 3] = grid.origin
    return highdicom.Volume(mask.astype(np.uint8), affine, "PATIENT")


def test_binary_labelmap_and_fractional_give_the_same_mask(source: Path, grid: Grid, tmp_path: Path) -> None:
    fractions = np.where(TRUTH, RNG.uniform(0.51, 1, TRUTH.shape), RNG.uniform(0, 0.49, TRUTH.shape))
    for kind, pixels in (("BINARY", TRUTH), ("LABELMAP", TRUTH.astype(np.uint8)), ("FRACTIONAL", fractions)):
        path = write_seg(tmp_path / "seg.dcm", source, pixels, [1], kind)
        np.testing.assert_array_equal(read(path, grid), TRUTH, err_msg=kind)


def test_segments_may_overlap_and_are_merged(source: Path, grid: Grid, tmp_path: Path) -> None:
    masks = np.stack([RNG.random(TRUTH.shape) > 0.8 for _ in range(5)], axis=-1)
    path = write_seg(tmp_path / "seg.dcm", source, masks.astype(np.uint8), [1, 2, 3, 4, 5])
    for number in range(1, 6):
        np.testing.assert_array_equal(read(path, grid, number), masks[..., number - 1])
    np.testing.assert_array_equal(read(path, grid, 2, 5), masks[..., 1] | masks[..., 4])
    assert code_of(path, grid) is Code.ROI_AMBIGUOUS
    assert code_of(path, grid, 2, 8) is Code.ROI_NOT_FOUND


def test_sparse_frames_in_any_order_go_where_their_position_says(source: Path, grid: Grid, tmp_path: Path) -> None:
    sparse = TRUTH & np.isin(np.arange(6), (1, 2, 5))[:, None, None]
    path = write_seg(tmp_path / "seg.dcm", source, sparse, [1])
    segmentation = pydicom.dcmread(path)
    frames = segmentation.pixel_array
    assert len(frames) == 3, "empty frames are left out"
    order = [2, 0, 1]
    groups = segmentation.PerFrameFunctionalGroupsSequence
    segmentation.PerFrameFunctionalGroupsSequence = [groups[k] for k in order]
    segmentation.PixelData = pydicom.pixels.pack_bits(frames[order].ravel())
    segmentation.save_as(path)
    np.testing.assert_array_equal(read(path, grid), sparse)


@pytest.mark.parametrize("axes", [(2, 1, 0), (1, 0, 2), (0, 2, 1)], ids=["sagittal", "coronal", "transposed"])
def test_frames_across_the_images_slices_are_put_in_place(
    source: Path, grid: Grid, tmp_path: Path, axes: tuple[int, int, int]
) -> None:
    volume = volume_on(grid, TRUTH).permute_spatial_axes(axes).flip_spatial(1)
    path = write_seg(tmp_path / "seg.dcm", source, volume, [1])
    np.testing.assert_array_equal(read(path, grid), TRUTH)


def test_frames_beyond_the_image_may_be_empty_only(source: Path, grid: Grid, tmp_path: Path) -> None:
    path = write_seg(tmp_path / "seg.dcm", source, TRUTH, [1])
    shorter = Grid((grid.size[0], grid.size[1], 4), grid.spacing, grid.origin, grid.direction)
    assert code_of(path, shorter) is Code.MASK_OUTSIDE
    segmentation = pydicom.dcmread(path)
    frames = segmentation.pixel_array
    positions = [g.PlanePositionSequence[0].ImagePositionPatient for g in segmentation.PerFrameFunctionalGroupsSequence]
    frames[to_index(grid, np.array(positions, float))[:, 2] > 3.5] = 0
    segmentation.PixelData = pydicom.pixels.pack_bits(frames.ravel())
    segmentation.save_as(path)
    np.testing.assert_array_equal(read(path, shorter), TRUTH[:4])


def test_frames_smaller_than_the_image_are_put_in_place(source: Path, grid: Grid, tmp_path: Path) -> None:
    part = volume_on(grid, TRUTH)[1:5, 2:9, 3:12]
    path = write_seg(tmp_path / "seg.dcm", source, part, [1])
    expected = np.zeros_like(TRUTH)
    expected[1:5, 2:9, 3:12] = TRUTH[1:5, 2:9, 3:12]
    np.testing.assert_array_equal(read(path, grid), expected)


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP", "FRACTIONAL"])
def test_another_grid_is_refused_unless_resampling_is_chosen(
    source: Path, grid: Grid, tmp_path: Path, kind: str
) -> None:
    finer = volume_on(grid, np.kron(TRUTH[:, 1:9, 1:9], np.ones((2, 2, 2), bool)), 0.5)
    path = write_seg(tmp_path / "seg.dcm", source, finer, [1], kind)
    assert code_of(path, grid) is Code.MASK_OTHER_GRID
    expected = np.zeros_like(TRUTH)
    expected[:, :8, :8] = TRUTH[:, 1:9, 1:9]
    np.testing.assert_array_equal(read(path, grid, resample=True), expected)


def test_frames_thicker_than_the_slices_are_another_grid(source: Path, grid: Grid, tmp_path: Path) -> None:
    thick = volume_on(grid, TRUTH[:3])
    affine = thick.affine.copy()
    affine[:3, 0] *= 2
    path = write_seg(tmp_path / "seg.dcm", source, highdicom.Volume(thick.array, affine, "PATIENT"), [1])
    assert code_of(path, grid) is Code.MASK_OTHER_GRID


@pytest.mark.parametrize("told", ["SpacingBetweenSlices", "SliceThickness", ""])
def test_thick_frames_are_found_by_their_thickness_or_as_gaps_where_the_file_says_neither(
    source: Path, tmp_path: Path, told: str
) -> None:
    truth = np.zeros(TRUTH.shape, bool)
    truth[::2, 2:8, 3:9] = True
    path = write_seg(tmp_path / "seg.dcm", source, truth, [1])
    change_shared(path, told)
    case = case_of(source, path, (1,), tmp_path)
    expected = Code.MASK_OTHER_GRID if told else Code.MASK_GAPS
    assert problem_of(lambda: load_roi(case, ImageSection())) is expected
    if told:
        mask = sitk.GetArrayFromImage(load_roi(case, ImageSection(resample_mask=True)).mask)
        # each slice has its nearest frame; of two equally near ones the next, which slice 5 has none of
        assert mask.sum(axis=(1, 2)).tolist() == [36, 36, 36, 36, 36, 0]


def change_shared(path: Path, told: str) -> None:
    """Let a SEG say by one attribute alone that its frames are twice as far apart as the slices."""
    dataset = pydicom.dcmread(path)
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        if keyword in measures:
            delattr(measures, keyword)
    if told:
        setattr(measures, told, 5.0)
    dataset.save_as(path)


def test_values_whose_meaning_is_not_said_are_a_problem(source: Path, grid: Grid, tmp_path: Path) -> None:
    """A tenth of a voxel is no mask, a frame of no segment is nobody's, and segment numbers are no shares."""
    shares = np.where(TRUTH, 0.9, 0.1)

    def changed(kind: str, pixels: np.ndarray, segments: list[int], *keywords: str) -> Path:
        path = write_seg(tmp_path / "seg.dcm", source, pixels, segments, kind)
        dataset = pydicom.dcmread(path)
        for keyword in keywords:
            delattr(dataset, keyword)
        dataset.save_as(path)
        return path

    assert code_of(changed("FRACTIONAL", shares, [1], "MaximumFractionalValue"), grid) is Code.MASK_UNREADABLE
    assert code_of(changed("FRACTIONAL", shares, [1], "SegmentationType"), grid) is Code.MASK_UNREADABLE
    np.testing.assert_array_equal(read(changed("BINARY", TRUTH, [1], "SegmentationType"), grid), TRUTH)
    labels = TRUTH * np.where(np.arange(TRUTH.shape[0]) % 2, 1, 2)[:, None, None].astype(np.uint8)
    unsaid = changed("LABELMAP", labels, [1, 2], "SegmentationType")
    np.testing.assert_array_equal(read(unsaid, grid, 2), labels == 2)

    path = write_seg(tmp_path / "two.dcm", source, np.stack([labels == 1, labels == 2], axis=-1), [1, 2])
    dataset = pydicom.dcmread(path)
    del dataset.PerFrameFunctionalGroupsSequence[3].SegmentIdentificationSequence
    dataset.save_as(path)
    assert code_of(path, grid, 1) is Code.MASK_UNREADABLE


def test_frames_that_contradict_each_other_or_their_header_are_a_problem(
    source: Path, grid: Grid, tmp_path: Path
) -> None:
    """Two time points would be united, shares of more than a whole counted, frames without a place lost."""

    def changed(
        change: Callable[[pydicom.Dataset], None], pixels: np.ndarray = TRUTH, kind: str = "FRACTIONAL"
    ) -> Path:
        path = write_seg(tmp_path / "seg.dcm", source, pixels, [1], kind)
        dataset = pydicom.dcmread(path)
        change(dataset)
        dataset.save_as(path)
        return path

    def twice(shift: int) -> Callable[[pydicom.Dataset], None]:
        def change(dataset: pydicom.Dataset) -> None:
            dataset.PerFrameFunctionalGroupsSequence.append(copy.deepcopy(dataset.PerFrameFunctionalGroupsSequence[0]))
            frames = dataset.pixel_array
            dataset.PixelData = frames.tobytes() + np.roll(frames[0], shift, axis=0).tobytes()
            dataset.NumberOfFrames += 1

        return change

    np.testing.assert_array_equal(read(changed(twice(0)), grid), TRUTH)
    assert code_of(changed(twice(1)), grid) is Code.ROI_AMBIGUOUS
    for kind in ("BINARY", "FRACTIONAL"):
        path = changed(lambda dataset: dataset.PerFrameFunctionalGroupsSequence.pop(), kind=kind)
        assert code_of(path, grid) is Code.MASK_UNREADABLE
    shares = np.where(TRUTH, 0.9, 0.4)
    assert code_of(changed(lambda dataset: setattr(dataset, "MaximumFractionalValue", 100), shares), grid) is (
        Code.MASK_UNREADABLE
    )
    assert code_of(changed(lambda dataset: setattr(dataset, "SegmentationType", "BINARY"), shares), grid) is (
        Code.MASK_UNREADABLE
    )
    whole = changed(lambda dataset: setattr(dataset, "SegmentationType", "BINARY"))
    np.testing.assert_array_equal(read(whole, grid), TRUTH)


def test_a_segmentation_without_dimension_indices_is_resampled_too(source: Path, grid: Grid, tmp_path: Path) -> None:
    """highdicom's own volume needs DimensionIndexSequence, which real files lack."""
    finer = volume_on(grid, np.kron(TRUTH[:, 1:9, 1:9], np.ones((2, 2, 2), bool)), 0.5)
    path = write_seg(tmp_path / "seg.dcm", source, finer, [1])
    intact = read(path, grid, resample=True)
    dataset = pydicom.dcmread(path)
    del dataset.DimensionIndexSequence
    dataset.save_as(path)
    with pytest.raises(Exception, match="no such column"):
        highdicom.seg.Segmentation.from_dataset(pydicom.dcmread(path)).get_volume(segment_numbers=[1])
    np.testing.assert_array_equal(read(path, grid, resample=True), intact)
    assert intact.any()


def test_frames_stack_to_highdicoms_volume(shared_data: Path) -> None:
    checked = 0
    for path in [*sorted((shared_data / "qin_prostate" / "seg").iterdir()), shared_data / "dcmqi" / "liver.dcm"]:
        dataset = pydicom.dcmread(path)
        for number in [int(segment.SegmentNumber) for segment in dataset.SegmentSequence]:
            volume = highdicom.seg.Segmentation.from_dataset(dataset).get_volume(
                segment_numbers=[number], allow_missing_positions=True
            )
            frames = _frames(dataset, (number,))
            image = stack_frames(_decoded(dataset, frames, (number,)))
            theirs = volume_image(volume)
            set_here, set_there = (np.argwhere(sitk.GetArrayFromImage(one))[:, ::-1] for one in (image, theirs))
            here = sorted(
                image.TransformContinuousIndexToPhysicalPoint(place) for place in set_here.astype(float).tolist()
            )
            there = sorted(theirs.TransformContinuousIndexToPhysicalPoint(p) for p in set_there.astype(float).tolist())
            np.testing.assert_allclose(here, there, atol=0.01)
            checked += len(here) > 0
    assert checked >= 5


def volume_image(volume: highdicom.Volume) -> sitk.Image:
    image = sitk.GetImageFromArray(volume.array[..., 0].astype(np.uint8))
    spacing = np.array(volume.spacing)[::-1]
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(list(volume.position))
    image.SetDirection((volume.affine[:3, 2::-1] / spacing).ravel().tolist())
    return image


def test_a_file_cut_short_anywhere_is_a_problem(source: Path, grid: Grid, tmp_path: Path) -> None:
    path = write_seg(tmp_path / "seg.dcm", source, TRUTH, [1])
    whole = path.read_bytes()
    for length in np.linspace(200, len(whole) - 30, 50).astype(int):
        path.write_bytes(whole[:length])
        assert code_of(path, grid, 1) in (Code.MASK_UNREADABLE, Code.ROI_NOT_FOUND)


def test_empty_segment_is_a_problem(source: Path, grid: Grid, tmp_path: Path) -> None:
    masks = np.stack([TRUTH, np.zeros_like(TRUTH)], axis=-1).astype(np.uint8)
    assert code_of(write_seg(tmp_path / "seg.dcm", source, masks, [1, 2]), grid, 2) is Code.MASK_EMPTY


@pytest.mark.parametrize("syntax", [pydicom.uid.RLELossless, pydicom.uid.JPEGLSLossless])
def test_compressed_frames_are_decoded(source: Path, grid: Grid, tmp_path: Path, syntax: pydicom.uid.UID) -> None:
    path = write_seg(tmp_path / "seg.dcm", source, TRUTH.astype(np.uint8), [1], "LABELMAP")
    segmentation = pydicom.dcmread(path)
    segmentation.compress(syntax)
    segmentation.save_as(path)
    np.testing.assert_array_equal(read(path, grid), TRUTH)


def twin(path: Path, label: int) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path))) == label


@pytest.mark.parametrize(
    ("seg", "label", "nrrd"),
    [
        ("liver.dcm", 1, "liver_seg.nrrd"),
        ("partial_overlaps.dcm", 1, "partial_overlaps-1.nrrd"),
        ("partial_overlaps.dcm", 2, "partial_overlaps-2.nrrd"),
        ("partial_overlaps.dcm", 3, "partial_overlaps-3.nrrd"),
        ("partial_overlaps.dcm", 4, "partial_overlaps-1.nrrd"),
        ("partial_overlaps.dcm", 5, "partial_overlaps-1.nrrd"),
        ("23x38x3/seg/label.seg", 1, "23x38x3/nrrd/label.nrrd"),
        ("24x38x3/seg/label.seg", 1, "24x38x3/nrrd/label.nrrd"),
        ("sparse-labelmap-noppv.dcm", 1, "sparse_labelmap_noppv_seg.nrrd"),
        ("sparse-labelmap-ppv5.dcm", 1, "sparse_labelmap_ppv5_seg.nrrd"),
    ],
)
def test_dcmqi_segmentations_equal_their_nrrd_twins(shared_data: Path, seg: str, label: int, nrrd: str) -> None:
    folder = shared_data / "dcmqi"
    mask = seg_mask(pydicom.dcmread(folder / seg), (label,), volume_grid(folder / nrrd), resample=False)
    np.testing.assert_array_equal(mask, twin(folder / nrrd, label))


def highdicom_mask(path: Path, number: int, grid: Grid) -> np.ndarray:
    """What highdicom reads, resampled onto the grid by SimpleITK."""
    volume = highdicom.seg.segread(path).get_volume(segment_numbers=[number], allow_missing_positions=True)
    image = sitk.GetImageFromArray((volume.array[..., 0] > 0).astype(np.uint8))
    spacing = np.array(volume.spacing)[::-1]
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(list(volume.position))
    image.SetDirection((volume.affine[:3, 2::-1] / spacing).ravel().tolist())
    reference = sitk.Image(grid.size, sitk.sitkUInt8)
    reference.SetSpacing(grid.spacing)
    reference.SetOrigin(grid.origin)
    reference.SetDirection(grid.direction)
    return sitk.GetArrayFromImage(sitk.Resample(image, reference, sitk.Transform(), sitk.sitkNearestNeighbor)) > 0


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_prostate_segments_equal_highdicoms(shared_data: Path, number: int) -> None:
    grid = series_grid(list_series(shared_data / "qin_prostate" / "ADC"), 0.01)
    path = shared_data / "qin_prostate" / "seg" / "1-1.dcm"
    mask = read(path, grid, number)
    assert mask.sum() > 100
    np.testing.assert_array_equal(mask, highdicom_mask(path, number, grid))


def test_seg_twin_of_an_rtstruct_gives_the_same_mask_and_features(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "lung1_002"
    grid = series_grid(list_series(folder / "ct"), 0.01)
    mask = read(next((folder / "rtstruct").iterdir()), grid, 2)
    path = write_seg(tmp_path / "seg.dcm", folder / "ct", mask, [1])
    np.testing.assert_array_equal(read(path, grid), mask)
    drawn, twin = (
        extract(load_roi(case_of(folder / "ct", file, labels, tmp_path), ImageSection()), read_params(""))
        for file, labels in ((next((folder / "rtstruct").iterdir()), (2,)), (path, (1,)))
    )
    assert drawn == twin
    assert len(twin) == 107


def test_every_highdicom_file_gives_a_mask_or_its_own_problem(shared_data: Path) -> None:
    """On the grid of the CT segmentations; slides, reports and single images have no place on it."""
    grid = Grid((16, 16, 3), (0.488281, 0.488281, 1.25), (-125.0, -128.100006, 103.02), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    voxels = {"seg_image_ct_binary": 638, "seg_image_ct_binary_fractional": 638, "seg_image_ct_true_fractional": 638}
    codes = {
        "seg_image_ct_binary_overlap": Code.MASK_OUTSIDE,
        "seg_image_ct_binary_single_frame": Code.MASK_OTHER_GRID,
        "seg_image_sm_dots": Code.MASK_EMPTY,
    }
    for path in sorted((shared_data / "highdicom").glob("*.dcm")):
        if path.stem in voxels:
            assert np.count_nonzero(read(path, grid, 1)) == voxels[path.stem], path.stem
        else:
            assert code_of(path, grid, 1) is codes.get(path.stem, Code.MASK_UNREADABLE), path.stem
