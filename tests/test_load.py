"""One case in memory: which slices are read, where they lie, and what cannot be used."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from prognosis_dask.cohort.case import Case
from prognosis_dask.config.job import ImageSection
from prognosis_dask.errors import Code, collected_warnings
from prognosis_dask.imaging.load import load_case, load_roi
from prognosis_dask.imaging.roi import SPLINE_TAIL_VOXELS, Roi, bounding_box, crop_roi, grid_of
from tests.dicom_helpers import case_of, list_series, problem_of


@pytest.fixture(scope="module")
def lung(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = shared_data / "lung1_002"
    return case_of(folder / "ct", next((folder / "rtstruct").iterdir()), (2,), tmp_path_factory.mktemp("lung"))


@pytest.fixture(scope="module")
def full(lung: Case) -> Roi:
    return load_roi(lung, ImageSection(), full=True)


def assert_lies_in(part: Roi, whole: Roi) -> None:
    """Every voxel of the part has the value and the place that it has in the whole."""
    x, y, z = part.start
    width, height, depth = part.image.GetSize()
    window = slice(z, z + depth), slice(y, y + height), slice(x, x + width)
    for one, other in ((part.image, whole.image), (part.mask, whole.mask)):
        np.testing.assert_array_equal(sitk.GetArrayFromImage(one), sitk.GetArrayFromImage(other)[window])
        np.testing.assert_allclose(one.GetOrigin(), other.TransformIndexToPhysicalPoint(part.start), atol=1e-9)
    assert sitk.GetArrayFromImage(part.mask).sum() == sitk.GetArrayFromImage(whole.mask).sum()
    assert part.full == whole.full
    assert grid_of(part.image) == grid_of(part.mask)


def test_full_load_equals_simpleitks_image(lung: Case, full: Roi, shared_data: Path) -> None:
    folder = shared_data / "lung1_002" / "ct"
    expected = sitk.ReadImage([str(folder / s.file) for s in list_series(folder).slices])
    assert sitk.Hash(full.image) == sitk.Hash(expected)
    assert full.start == (0, 0, 0)
    assert full.mask.GetPixelID() == sitk.sitkUInt8
    assert sitk.GetArrayFromImage(full.mask).sum() == 125204


def test_only_the_slices_of_the_roi_and_the_margin_are_read(lung: Case, full: Roi) -> None:
    seconds: dict[str, float] = {}
    part = load_roi(lung, ImageSection(margin_mm=3.0), seconds=seconds)
    assert_lies_in(part, full)
    assert part.start == (0, 0, 28 - 1 - SPLINE_TAIL_VOXELS)
    assert part.image.GetSize() == (512, 512, 26 + 2 * (1 + SPLINE_TAIL_VOXELS))
    assert set(seconds) == {"read", "rasterise"}


@pytest.mark.parametrize("margin_mm", [0.0, 20.0, 1000.0])
def test_a_crop_keeps_the_margin_and_the_splines_tail_on_every_side(lung: Case, full: Roi, margin_mm: float) -> None:
    crop = crop_roi(load_roi(lung, ImageSection(margin_mm=margin_mm)), margin_mm)
    assert_lies_in(crop, full)
    inner = bounding_box(sitk.GetArrayFromImage(full.mask))[::-1]
    for axis in range(3):
        pad = int(np.ceil(margin_mm / full.full.spacing[axis])) + 20
        stop = crop.start[axis] + crop.image.GetSize()[axis]
        assert crop.start[axis] == max(0, inner[axis][0] - pad)
        assert stop == min(full.full.size[axis], inner[axis][1] + pad)


def test_cropping_a_full_load_equals_cropping_a_slab(lung: Case, full: Roi) -> None:
    one, two = crop_roi(full, 20.0), crop_roi(load_roi(lung, ImageSection()), 20.0)
    assert (one.start, one.full) == (two.start, two.full)
    assert sitk.Hash(one.image) == sitk.Hash(two.image)


def test_all_107_published_radiomics_come_out(lung: Case, shared_data: Path) -> None:
    """The table was made by pyradiomics 2.2 with its defaults and binWidth 25, which needs no more than the slab."""
    from radiomics.featureextractor import RadiomicsFeatureExtractor

    with (shared_data / "lung1_002" / "reference_radiomics.csv").open() as stream:
        row = next(csv.DictReader(stream))
    published = {name: float(value) for name, value in row.items() if name.startswith("original_")}
    image, mask = load_case(lung)
    values = RadiomicsFeatureExtractor(binWidth=25, additionalInfo=False).execute(image, mask)
    assert len(published) == 107
    for name, value in published.items():
        assert float(values[name]) == pytest.approx(value, rel=1e-12), name


def test_load_case_returns_image_and_mask(lung: Case) -> None:
    image, mask = load_case(lung)
    assert image.GetSize() == mask.GetSize()


@pytest.mark.parametrize("name", ["brain1", "breast1"])
def test_image_files_load_like_series(shared_data: Path, tmp_path: Path, name: str) -> None:
    folder = shared_data / "pyradiomics"
    case = case_of(folder / f"{name}_image.nrrd", folder / f"{name}_label.nrrd", (1,), tmp_path, "MR")
    whole = load_roi(case, ImageSection(), full=True)
    assert sitk.Hash(whole.image) == sitk.Hash(sitk.ReadImage(case.image))
    assert_lies_in(load_roi(case, ImageSection(margin_mm=0.0)), whole)


def test_ibsi_phantom_is_the_same_from_dicom_and_from_nifti(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "ibsi" / "ct_phantom"
    dicom = case_of(folder / "dicom" / "image", next((folder / "dicom" / "mask").iterdir()), (), tmp_path)
    nifti = case_of(
        folder / "nifti" / "image" / "phantom.nii.gz", folder / "nifti" / "mask" / "mask.nii.gz", (1,), tmp_path
    )
    one, two = (load_roi(case, ImageSection()) for case in (dicom, nifti))
    assert one.start == two.start
    np.testing.assert_array_equal(sitk.GetArrayFromImage(one.image), sitk.GetArrayFromImage(two.image))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(one.mask), sitk.GetArrayFromImage(two.mask))


def blob() -> np.ndarray:
    mask = np.zeros((6, 8, 9), np.uint8)
    mask[2:4, 3:6, 2:7] = 1
    return mask


def code_of_image(image: sitk.Image, folder: Path) -> Code:
    sitk.WriteImage(image, str(folder / "image.nrrd"))
    sitk.WriteImage(sitk.GetImageFromArray(blob()), str(folder / "mask.nrrd"))
    case = case_of(folder / "image.nrrd", folder / "mask.nrrd", (1,), folder)
    return problem_of(lambda: load_roi(case, ImageSection()))


def test_images_that_cannot_be_used_are_problems(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=blob().shape)
    plain = sitk.GetImageFromArray(values)
    assert code_of_image(sitk.JoinSeries([plain, plain]), tmp_path) is Code.IMAGE_INVALID
    assert code_of_image(plain[:, :, 0], tmp_path) is Code.IMAGE_INVALID
    assert code_of_image(sitk.Compose([plain, plain]), tmp_path) is Code.IMAGE_INVALID
    values[3, 3, 3] = np.nan
    assert code_of_image(sitk.GetImageFromArray(values), tmp_path) is Code.IMAGE_INVALID


def test_files_that_are_missing_or_damaged_are_problems(tmp_path: Path) -> None:
    mask = tmp_path / "mask.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(blob()), str(mask))

    def code(image: Path) -> Code:
        return problem_of(lambda: load_roi(case_of(image, mask, (1,), tmp_path), ImageSection()))

    assert code(tmp_path / "absent.nrrd") is Code.UNREADABLE_FILE
    assert code(tmp_path / "absent.series.json") is Code.UNREADABLE_FILE
    text = tmp_path / "text.nii.gz"
    text.write_text("no image")
    assert code(text) is Code.UNREADABLE_FILE
    cut = tmp_path / "cut.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(np.random.default_rng(0).normal(size=blob().shape)), str(cut))
    cut.write_bytes(cut.read_bytes()[:-500])
    assert code(cut) is Code.PIXELS_UNREADABLE


def test_a_ct_without_a_value_below_zero_is_told(tmp_path: Path) -> None:
    """As of CT that was converted without its intercept of -1024: no image of a body is without air and fat."""
    stored = np.full((5, 12, 14), 24, dtype=np.int16)
    stored[:, 3:9, 3:9] = 1064
    mask = sitk.GetImageFromArray((stored > 1000).astype(np.uint8))
    for intercept, told in ((-1024, []), (0, [Code.IMAGE_UNITS])):
        image = sitk.GetImageFromArray(stored + np.int16(intercept))
        for name, one in (("ct.nii", image), ("mask.nii", mask)):
            sitk.WriteImage(one, str(tmp_path / name))
        with collected_warnings() as warnings:
            load_case(case_of(tmp_path / "ct.nii", tmp_path / "mask.nii", (1,), tmp_path))
        assert [warning.code for warning in warnings] == told


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda hu: hu, []),
        (lambda hu: hu - 1024, ["hardly a value of this CT is above -300", "of the mask below -1500"]),
        (lambda hu: hu / 100, ["the values of this CT go from -1"]),
        (lambda hu: np.clip(hu, -160, 240), ["of the mask's voxels have the image's least value, -160"]),
        (lambda hu: np.clip(hu, -160, 40), ["least value, -160", "largest value, 40"]),
        (lambda hu: np.clip(hu, -1000, 3000), []),
    ],
)
def test_a_ct_that_was_rescaled_twice_or_cut_off_at_a_window_is_told(
    shared_data: Path, tmp_path: Path, made: Callable[[np.ndarray], np.ndarray], told: list[str]
) -> None:
    """What is left of an image that was made for looking at, or converted by a program that knew the intercept."""
    folder = shared_data / "ibsi" / "ct_phantom" / "nifti"
    image, mask = (sitk.ReadImage(str(next((folder / name).iterdir()))) for name in ("image", "mask"))
    changed = sitk.GetImageFromArray(made(sitk.GetArrayFromImage(image).astype(np.float32)))
    changed.CopyInformation(image)
    sitk.WriteImage(changed, str(tmp_path / "ct.nii"))
    sitk.WriteImage(mask, str(tmp_path / "mask.nii"))
    with collected_warnings() as warnings:
        load_case(case_of(tmp_path / "ct.nii", tmp_path / "mask.nii", (1,), tmp_path))
    assert all(part in warning.reason for part, warning in zip(told, warnings, strict=True))
    assert all(warning.code is Code.IMAGE_UNITS for warning in warnings[:1])


def warned_of_ct(folder: Path, values: np.ndarray, mask: np.ndarray) -> list[str]:
    for name, voxels in (("ct.nii", values.round().astype(np.int16)), ("mask.nii", mask.astype(np.uint8))):
        sitk.WriteImage(sitk.GetImageFromArray(voxels), str(folder / name))
    with collected_warnings() as warnings:
        load_case(case_of(folder / "ct.nii", folder / "mask.nii", (1,), folder))
    return [warning.reason for warning in warnings]


def test_the_brightest_voxel_of_a_small_nodule_is_no_window(tmp_path: Path) -> None:
    random, (z, y, x) = np.random.default_rng(0), np.mgrid[:24, :64, :64] - np.array([12, 32, 32]).reshape(3, 1, 1, 1)
    nodule = z**2 + y**2 + x**2 < 7
    ct = np.where(y**2 + x**2 < 24**2, random.normal(40, 15, nodule.shape), random.normal(-1000, 15, nodule.shape))
    ct[nodule] = np.linspace(200, 800, nodule.sum())
    assert warned_of_ct(tmp_path, ct, nodule) == []
    (said,) = warned_of_ct(tmp_path, np.minimum(ct, 750), nodule)
    assert said.startswith("9% of the mask's voxels have the image's largest value, 750")


def test_a_wrist_in_a_wide_padded_field_of_view_was_not_rescaled_twice(tmp_path: Path) -> None:
    random, (_, y, x) = np.random.default_rng(0), np.mgrid[:24, :64, :64] - 32
    wrist, scanned = y**2 + x**2 < 3**2, y**2 + x**2 < 32**2
    air = np.where(scanned, random.normal(-1000, 10, wrist.shape), -3024)
    ct = np.where(wrist, random.normal(60, 100, wrist.shape), air)
    assert warned_of_ct(tmp_path, ct, wrist) == []
    (said,) = warned_of_ct(tmp_path, ct, wrist | (~scanned & (x < 0) & (y < 0)))
    assert "reach beyond what was scanned?" in said
    (said,) = warned_of_ct(tmp_path, np.where(scanned, ct - 1024, -3024), wrist)
    assert "as where -1024 is added twice" in said


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda plane: plane, []),
        (lambda plane: 0 * plane - 1000, ["1 of the 26 slices of the mask have one value", "lies 737 HU"]),
        (lambda plane: plane + 1000, ["HU on average from the two beside it"]),
        (lambda plane: plane.astype(np.int16).byteswap(), ["below -1500", "lies 15537 HU"]),
    ],
)
def test_a_slice_unlike_those_beside_it_is_told(
    shared_data: Path, tmp_path: Path, spoil: Callable[[np.ndarray], np.ndarray], told: list[str]
) -> None:
    folder = shared_data / "ibsi" / "ct_phantom" / "nifti"
    image, mask = (sitk.ReadImage(str(next((folder / name).iterdir()))) for name in ("image", "mask"))
    values = sitk.GetArrayFromImage(image)
    middle = int(np.flatnonzero(sitk.GetArrayViewFromImage(mask).any(axis=(1, 2))).mean())
    values[middle] = spoil(values[middle])
    changed = sitk.GetImageFromArray(values)
    changed.CopyInformation(image)
    sitk.WriteImage(changed, str(tmp_path / "ct.nii"))
    sitk.WriteImage(mask, str(tmp_path / "mask.nii"))
    with collected_warnings() as warnings:
        load_case(case_of(tmp_path / "ct.nii", tmp_path / "mask.nii", (1,), tmp_path))
    assert all(warning.code is Code.IMAGE_INVALID for warning in warnings[-1:])
    assert all(part in warning.reason for part, warning in zip(told, warnings, strict=True))


def test_a_mask_that_reaches_beyond_what_was_scanned_is_told(tmp_path: Path) -> None:
    """Scanners pad what lies outside of their circle with -2000 or -3024, which enters means and ranges."""
    values = np.full((5, 12, 14), -1000, dtype=np.int16)
    values[:, 3:9, 3:9] = 40
    values[:, :, :4] = -2000
    mask = np.zeros(values.shape, np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(values), str(tmp_path / "ct.nii"))
    for first, told in ((4, []), (3, [(Code.MASK_OUTSIDE, "30 voxels")])):
        mask[:, 3:9, first:9] = 1
        sitk.WriteImage(sitk.GetImageFromArray(mask), str(tmp_path / "mask.nii"))
        with collected_warnings() as warnings:
            load_case(case_of(tmp_path / "ct.nii", tmp_path / "mask.nii", (1,), tmp_path))
        assert [(warning.code, warning.reason[:9]) for warning in warnings] == told
