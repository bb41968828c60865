"""Label maps (NIfTI, NRRD, MHA) on the image's grid."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from prognosis_dask.errors import Code, collected_warnings
from prognosis_dask.imaging.masks import read_mask
from prognosis_dask.volumes.files import volume_grid
from prognosis_dask.volumes.grid import Grid
from tests.dicom_helpers import problem_of

LABELS = np.random.default_rng(1).integers(0, 4, (5, 7, 9)).astype(np.int16)


def image_of(array: np.ndarray, spacing: tuple[float, ...] = (0.5, 0.75, 3.0)) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin((-20.0, 30.0, 7.5))
    return image


GRID = Grid((9, 7, 5), (0.5, 0.75, 3.0), (-20.0, 30.0, 7.5), (1, 0, 0, 0, 1, 0, 0, 0, 1))


def saved(image: sitk.Image, path: Path) -> Path:
    sitk.WriteImage(image, str(path))
    return path


def read(path: Path, *labels: int, grid: Grid = GRID, resample: bool = False) -> np.ndarray:
    with collected_warnings():  # that labels are taken together where none is named is a test of its own
        return read_mask(path, labels, grid, resample=resample)


def code_of(path: Path, *labels: int, grid: Grid = GRID, resample: bool = False) -> Code:
    return problem_of(lambda: read(path, *labels, grid=grid, resample=resample))


@pytest.mark.parametrize("name", ["m.nii", "m.nii.gz", "m.nrrd", "m.mha"])
def test_labels_are_chosen_and_merged_in_every_format(tmp_path: Path, name: str) -> None:
    path = saved(image_of(LABELS), tmp_path / name)
    np.testing.assert_array_equal(read(path, 2), LABELS == 2)
    np.testing.assert_array_equal(read(path, 1, 3), (LABELS == 1) | (LABELS == 3))
    np.testing.assert_array_equal(read(path), LABELS != 0)
    assert code_of(path, 9) is Code.ROI_NOT_FOUND


@pytest.mark.parametrize("flips", [(True, True, False), (False, False, True)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_other_axis_orders_of_the_same_voxels_are_put_in_place(
    tmp_path: Path, flips: tuple[bool, ...], order: tuple[int, ...]
) -> None:
    turned = sitk.PermuteAxes(sitk.Flip(image_of(LABELS), flips), order)
    np.testing.assert_array_equal(read(saved(turned, tmp_path / "m.nrrd"), 2), LABELS == 2)


def test_a_cropped_label_map_is_put_in_place_and_a_padded_one_may_be_empty_outside(tmp_path: Path) -> None:
    cropped = saved(image_of(LABELS)[2:8, 1:6, 1:4], tmp_path / "cropped.nrrd")
    expected = np.zeros_like(LABELS)
    expected[1:4, 1:6, 2:8] = LABELS[1:4, 1:6, 2:8]
    np.testing.assert_array_equal(read(cropped, 2), expected == 2)
    padded = sitk.ConstantPad(image_of(LABELS), (3, 1, 2), (2, 4, 0), 0)
    np.testing.assert_array_equal(read(saved(padded, tmp_path / "padded.nrrd"), 2), LABELS == 2)
    padded[0, 0, 0] = 2
    assert code_of(saved(padded, tmp_path / "outside.nrrd"), 2) is Code.MASK_OUTSIDE


def test_a_mask_of_the_images_size_that_lies_beside_it_is_told(tmp_path: Path) -> None:
    inner = np.zeros_like(LABELS)
    inner[1:4, 1:5, 2:7] = 1
    beside = image_of(inner)
    beside.SetOrigin((-20.0 + 2 * 0.5, 30.0, 7.5 - 3.0))
    with collected_warnings() as said:
        found = read_mask(str(saved(beside, tmp_path / "m.nrrd")), (1,), GRID, resample=False)
    image = sitk.GetImageFromArray(np.zeros_like(LABELS))
    image.CopyInformation(image_of(LABELS))
    expected = sitk.GetArrayFromImage(sitk.Resample(beside, image, sitk.Transform(), sitk.sitkNearestNeighbor))
    np.testing.assert_array_equal(found, expected == 1)
    [warning] = said
    assert warning.code is Code.MASK_OTHER_GRID
    assert "[2, 0, -1] voxels (x, y, z) beside the image" in warning.reason


def test_another_grid_is_refused_unless_resampling_is_chosen(tmp_path: Path) -> None:
    finer = saved(
        sitk.Resample(image_of(LABELS), (18, 14, 5), sitk.Transform(), sitk.sitkNearestNeighbor,
                      (-20.125, 29.8125, 7.5), (0.25, 0.375, 3.0)),
        tmp_path / "finer.nrrd",
    )  # fmt: skip
    assert code_of(finer, 2) is Code.MASK_OTHER_GRID
    np.testing.assert_array_equal(read(finer, 2, resample=True), LABELS == 2)
    moved = image_of(LABELS)
    moved.SetOrigin((-19.8, 30.0, 7.5))
    assert code_of(saved(moved, tmp_path / "moved.nrrd"), 2) is Code.MASK_OTHER_GRID
    moved.SetOrigin((100.0, 30.1, 7.5))
    assert code_of(saved(moved, tmp_path / "moved.nrrd"), 2, resample=True) is Code.MASK_OUTSIDE


def test_rounded_headers_are_the_same_grid(tmp_path: Path) -> None:
    rounded = image_of(LABELS, (0.5001, 0.7499, 3.0004))
    rounded.SetOrigin((-20.001, 30.002, 7.499))
    np.testing.assert_array_equal(read(saved(rounded, tmp_path / "m.nii.gz"), 2), LABELS == 2)


def write_two_places(
    path: Path, voxels: np.ndarray, qform: np.ndarray, sform: np.ndarray, codes: tuple[int, int]
) -> Path:
    """A NIfTI file whose header may say two places of its voxels, (slice, row, column)."""
    written = nibabel.Nifti1Image(voxels.transpose(2, 1, 0), sform)
    written.set_qform(qform, codes[0])
    written.set_sform(sform, codes[1])
    nibabel.save(written, path)
    return path


def placed_by(load: Callable[[Path], np.ndarray], image: Path, mask: Path) -> np.ndarray:
    """The mask's centre in voxels of the image, by the affines that a program reads."""
    centre = [*(np.array(LABELS.shape[::-1]) - 1) / 2, 1]
    where: np.ndarray = np.linalg.solve(load(image), load(mask) @ centre)[:3]
    return where


def affine_of_itk(path: Path) -> np.ndarray:
    image = sitk.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return affine


@pytest.mark.parametrize("codes", [(1, 2), (1, 4), (0, 0)])
def test_of_two_places_in_a_header_that_counts_by_which_image_and_mask_have_the_same_voxels(
    tmp_path: Path, codes: tuple[int, int]
) -> None:
    sform = np.array([[0.5, 0, 0, 20], [0, 0.75, 0, -30], [0, 0, 3, 7.5], [0, 0, 0, 1]])
    qform = sform.copy()
    qform[0, 3] += 1.0  # two columns beside it
    image = write_two_places(tmp_path / "image.nii", LABELS, qform, sform, codes)
    # nibabel's users write a mask with the affine that it read
    affine = nibabel.load(image).affine
    mask = write_two_places(tmp_path / "mask.nii", LABELS, affine, affine, (0, 2))
    centre = (np.array(LABELS.shape[::-1]) - 1) / 2
    np.testing.assert_allclose(placed_by(lambda path: nibabel.load(path).affine, image, mask), centre, atol=1e-4)
    assert np.abs(placed_by(affine_of_itk, image, mask) - centre).max() > 1, "ITK reads the other place"

    with collected_warnings() as said:
        found = read_mask(str(mask), (2,), volume_grid(image), resample=False)
    np.testing.assert_array_equal(found, LABELS == 2)
    assert [warning.code for warning in said] == [Code.MASK_OTHER_GRID]

    # where both headers say the same two places, nothing depends on them
    twin = write_two_places(tmp_path / "twin.nii", LABELS, qform, sform, codes)
    with collected_warnings() as said:
        found = read_mask(str(twin), (2,), volume_grid(image), resample=False)
    np.testing.assert_array_equal(found, LABELS == 2)
    assert not said

    # a part of the image lies in it by either
    part = affine.copy()
    part[:3, 3] = affine[:3] @ [1, 1, 1, 1]
    cropped = write_two_places(tmp_path / "part.nii", LABELS[1:4, 1:5, 1:6], part, part, (0, 2))
    assert code_of(cropped, 2, grid=volume_grid(image)) is Code.MASK_OTHER_GRID


def test_masks_too_small_for_features_are_found(tmp_path: Path) -> None:
    empty = np.zeros_like(LABELS)
    voxel, plane = empty.copy(), empty.copy()
    voxel[2, 3, 4] = 1
    plane[2] = 1
    for array, code in ((empty, Code.MASK_EMPTY), (voxel, Code.MASK_ONE_VOXEL), (plane, Code.MASK_ONE_SLICE)):
        assert code_of(saved(image_of(array), tmp_path / "m.nii.gz")) is code


def test_files_that_are_no_label_maps_are_problems(tmp_path: Path) -> None:
    assert code_of(tmp_path / "absent.nii.gz") is Code.UNREADABLE_FILE
    text = tmp_path / "text.nii.gz"
    text.write_text("no image")
    assert code_of(text) is Code.MASK_UNREADABLE
    cut = saved(image_of(LABELS), tmp_path / "cut.nrrd")
    cut.write_bytes(cut.read_bytes()[:-100])
    assert code_of(cut) is Code.MASK_UNREADABLE
    four = saved(sitk.JoinSeries([image_of(LABELS), image_of(LABELS)]), tmp_path / "four.nii.gz")
    assert code_of(four) is Code.MASK_UNREADABLE
    layers = saved(sitk.Compose([image_of(LABELS), image_of(LABELS)]), tmp_path / "layers.nrrd")
    assert code_of(layers) is Code.MASK_UNREADABLE
    damaged = tmp_path / "damaged.dcm"
    damaged.write_bytes(bytes(128) + b"DICM" + b"\x02\x00\x00\x00UL\x04\x00\xff\xff\xff\xff" * 3)
    assert code_of(damaged) is Code.MASK_UNREADABLE


def test_every_edge_nifti_gives_its_mask_or_its_own_problem(shared_data: Path) -> None:
    folder = shared_data / "nifti_edge"
    grid = volume_grid(folder / "img.nii.gz")
    assert code_of(folder / "seg_empty.nii.gz", grid=grid) is Code.MASK_EMPTY
    assert code_of(folder / "seg_single_slice.nii.gz", grid=grid) is Code.MASK_ONE_SLICE
    voxels = {
        ("seg_one_label.nii.gz", 1): 19401,
        ("seg_two_labels.nii.gz", 1): 19401,
        ("seg_two_labels.nii.gz", 2): 21900 - 19401,
        ("seg_dilated_10mm.nii.gz", 1): 70101,
    }
    for (name, label), expected in voxels.items():
        values = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / name)))
        mask = read(folder / name, label, grid=grid)
        np.testing.assert_array_equal(mask, values == label)
        assert np.count_nonzero(mask) == expected, name
    np.testing.assert_array_equal(
        read(folder / "seg_multilabel.nrrd", grid=grid), read(folder / "seg_two_labels.nii.gz", 1, 2, grid=grid)
    )


@pytest.mark.parametrize(("name", "voxels"), [("brain1", 4137), ("breast1", 143)])
def test_pyradiomics_cases_are_on_one_grid(shared_data: Path, name: str, voxels: int) -> None:
    folder = shared_data / "pyradiomics"
    mask = read(folder / f"{name}_label.nrrd", 1, grid=volume_grid(folder / f"{name}_image.nrrd"))
    assert np.count_nonzero(mask) == voxels


def test_labels_are_whole_numbers_within_a_thousandth(tmp_path: Path) -> None:
    nearly = LABELS * np.float32(1.0000001)
    path = saved(image_of(nearly.astype(np.float32)), tmp_path / "m.nii.gz")
    np.testing.assert_array_equal(read(path, 2), LABELS == 2)
    np.testing.assert_array_equal(read(path), LABELS != 0)
    halves = saved(image_of(LABELS.astype(np.float32) + 0.5), tmp_path / "halves.nii.gz")
    assert code_of(halves) is Code.MASK_UNREADABLE
    assert code_of(halves, 1) is Code.MASK_UNREADABLE  # pyradiomics' cast would cut 1.5 down to 1


@pytest.mark.parametrize("value", [255, 1 / 255, 1000.0])
def test_a_scaled_mask_is_a_mask(tmp_path: Path, value: float) -> None:
    path = saved(image_of((LABELS == 2).astype(np.float32) * np.float32(value)), tmp_path / "m.nii.gz")
    np.testing.assert_array_equal(read(path), LABELS == 2)


@pytest.mark.parametrize("scale", [1.0, 100.0, 255.0])
def test_shares_need_a_threshold(tmp_path: Path, scale: float) -> None:
    shares = np.random.default_rng(0).random(LABELS.shape, np.float32) * (LABELS > 1)
    shares[0, 0, :2] = 0, 1
    stored = shares * np.float32(scale)
    path = saved(image_of(np.rint(stored).astype(np.uint8) if scale == 255 else stored), tmp_path / "m.nrrd")
    half = saved(image_of(stored), tmp_path / "half.nrrd")
    assert code_of(path) is Code.MASK_UNREADABLE
    np.testing.assert_array_equal(read_mask(half, (), GRID, resample=False, threshold=scale / 2), stored >= scale / 2)
    np.testing.assert_array_equal(read_mask(half, (1,), GRID, resample=False, threshold=scale / 2), stored >= scale / 2)
    if scale > 1:
        assert problem_of(lambda: read_mask(path, (), GRID, resample=False, threshold=0.5)) is Code.MASK_UNREADABLE


def test_a_threshold_leaves_whole_labels_as_they_are(tmp_path: Path) -> None:
    path = saved(image_of(LABELS), tmp_path / "m.nrrd")
    np.testing.assert_array_equal(read_mask(path, (2,), GRID, resample=False, threshold=0.5), LABELS == 2)
    with collected_warnings() as said:
        np.testing.assert_array_equal(read_mask(path, (), GRID, resample=False, threshold=0.5), LABELS != 0)
    assert [warning.code for warning in said] == [Code.MASK_LABELS_MERGED]


def test_what_is_no_mask_is_not_taken_for_one(tmp_path: Path) -> None:
    for values in (LABELS - 1, LABELS + 1, np.arange(LABELS.size).reshape(LABELS.shape) % 30):
        path = saved(image_of(values.astype(np.int16)), tmp_path / "m.nrrd")
        assert code_of(path) is Code.MASK_UNREADABLE
    np.testing.assert_array_equal(read(path, 7), np.arange(LABELS.size).reshape(LABELS.shape) % 30 == 7)
