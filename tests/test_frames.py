"""ROI frames: the reference study's own video, and the rules of both placements."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from prognosis_dask.config.job import FramesSection, ImageSection
from prognosis_dask.errors import Code, JobError
from prognosis_dask.imaging.load import load_roi
from prognosis_dask.imaging.roi import MOST_BEYOND, SIDE, Roi, crop_roi, grid_of, make_frames
from tests.dicom_helpers import case_of, problem_of

REFERENCE = FramesSection(placement="reference")


def roi_of(image: np.ndarray, rows: tuple[int, int], columns: tuple[int, int]) -> Roi:
    """An ROI on slices 1 and 2, over the given rows and columns (first and one past the last)."""
    mask = np.zeros(image.shape, np.uint8)
    mask[1:3, slice(*rows), slice(*columns)] = 1
    pixels = sitk.GetImageFromArray(image)
    return Roi(pixels, sitk.GetImageFromArray(mask), grid_of(pixels), (0, 0, 0))


def places(rows: int, columns: int) -> np.ndarray:
    """An image whose value tells row and column (modulo 16 each): -1000 + 16 * row + column."""
    row, column = np.indices((rows, columns)) % 16
    return np.broadcast_to(-1000 + 16 * row + column, (4, rows, columns)).astype(np.int16)


def starts(roi: Roi, settings: FramesSection = REFERENCE) -> tuple[int, int]:
    return make_frames(roi, settings, "CT").window_start


@pytest.fixture(scope="module")
def lung(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Roi:
    folder = shared_data / "lung1_002"
    case = case_of(folder / "ct", next((folder / "rtstruct").iterdir()), (2,), tmp_path_factory.mktemp("lung"))
    return load_roi(case, ImageSection())


def test_reference_frames_equal_the_studys_video(lung: Roi, shared_data: Path) -> None:
    """Each slice is held for 25 frames of a lossy video."""
    import imageio.v3 as iio

    video = iio.imread(shared_data / "lung1_tables" / "LUNG1-002.mp4")[::25].mean(axis=-1)
    frames = make_frames(lung, REFERENCE, "CT")
    assert frames.pixels.shape == (26, SIDE, SIDE) == video.shape
    assert np.corrcoef(video.ravel(), frames.pixels.ravel())[0, 1] >= 0.998
    assert np.abs(video - frames.pixels).mean() < 1
    assert (frames.first_slice, frames.window_start) == (28, (226 - 32, 129 - 32))
    assert frames.cut, "the lesion is 99 rows high, and 96 fit behind the lead"


def test_reference_window_starts_32_before_the_box_within_the_image() -> None:
    image = places(512, 512)
    assert starts(roi_of(image, (100, 110), (416, 420))) == (68, 384)
    assert starts(roi_of(image, (20, 30), (417, 420))) == (0, 384)
    assert starts(roi_of(image, (500, 510), (32, 40))) == (384, 0)


def test_reference_window_in_other_image_sizes_ends_with_the_image() -> None:
    assert starts(roi_of(places(200, 100), (190, 195), (90, 99))) == (200 - SIDE, 0)


def test_reference_adds_1000_where_the_first_slice_is_in_hu() -> None:
    hu = np.full((4, 130, 130), -1000, np.int16)
    hu[1:3] = 240
    shifted = hu + 1000
    one, two = (make_frames(roi_of(image, (40, 50), (40, 50)), REFERENCE, "CT").pixels for image in (hu, shifted))
    np.testing.assert_array_equal(one, two)
    assert np.unique(one).tolist() == [int(1240 / 2000 * 255)]


def test_reference_rules_are_for_ct_only() -> None:
    with pytest.raises(JobError, match="defined for CT"):
        make_frames(roi_of(places(200, 200), (90, 100), (90, 100)), REFERENCE, "MR")


def test_centred_window_has_the_box_in_its_middle() -> None:
    image = places(512, 512)
    frames = make_frames(roi_of(image, (100, 140), (200, 210)), FramesSection(window=(-1000, -745)), "CT")
    assert frames.window_start == (120 - 64, 205 - 64)
    np.testing.assert_array_equal(frames.pixels[0], (image + 1000)[0, 56:184, 141:269])
    assert (frames.first_slice, frames.cut) == (1, False)


def test_centred_window_is_padded_with_the_lowest_level_outside_the_image() -> None:
    image = np.full((4, 40, 50), 3000, np.int16)
    frames = make_frames(roi_of(image, (0, 10), (45, 50)), FramesSection(), "CT")
    inside = np.zeros((SIDE, SIDE), bool)
    inside[59:99, 64 - 47 : 64 - 47 + 50] = True
    assert frames.window_start == (-59, -17)
    np.testing.assert_array_equal(frames.pixels[0], np.where(inside, 255, 0))


@pytest.mark.parametrize("placement", ["centred", "reference"])
def test_a_cut_lesion_is_recorded(placement: str) -> None:
    def cut(size: int) -> bool:
        roi = roi_of(places(512, 512), (100, 100 + size), (100, 110))
        return make_frames(roi, FramesSection(placement=placement), "CT").cut  # type: ignore[arg-type]

    fits = {"centred": SIDE, "reference": SIDE - 32}[placement]
    assert (cut(fits), cut(fits + 1)) == (False, True)


def test_other_modalities_span_the_rois_percentiles() -> None:
    image = np.random.default_rng(0).gamma(2, 300, (4, 140, 140))
    roi = roi_of(image, (40, 80), (40, 80))
    low, high = np.percentile(image[1:3, 40:80, 40:80], (1, 99))
    expected = np.clip((image[1:3] - low) / (high - low), 0, 1) * 255
    pixels = make_frames(roi, FramesSection(), "MR").pixels
    np.testing.assert_array_equal(pixels[:, 4:, 4:], expected.astype(np.uint8)[:, : SIDE - 4, : SIDE - 4])


def test_constant_roi_without_a_window_is_a_problem() -> None:
    roi = roi_of(np.ones((4, 140, 140)), (40, 80), (40, 80))
    assert problem_of(lambda: make_frames(roi, FramesSection(), "PT")) is Code.IMAGE_INVALID


def test_frames_are_cut_before_the_crop(lung: Roi) -> None:
    with pytest.raises(ValueError, match="before the ROI is cropped"):
        make_frames(crop_roi(lung, 20.0), FramesSection(), "CT")


def test_a_window_that_shows_nothing_of_the_lesion_is_known_by_its_share_beyond() -> None:
    """The window of soft tissue in HU, on an MR whose lesion is at 700 and more."""
    image = np.full((2, 200, 200), 700.0)
    image[0, 100, 100] = 100.0
    roi = roi_of(image, (90, 110), (90, 110))
    assert make_frames(roi, FramesSection(window=(-160.0, 240.0)), "MR").beyond > MOST_BEYOND
    assert make_frames(roi, FramesSection(window=(0.0, 1000.0)), "MR").beyond == 0
