"""The epitome: the slices that are chosen, the crop, and a mosaic that a reader can trust."""

from __future__ import annotations

import io

import numpy as np
import pytest
import SimpleITK as sitk
from matplotlib.image import imread

from prognosis_dask.brain.pictures import MARGIN_MM, epitome
from prognosis_dask.errors import CaseError, Code

SPACING = (1.0, 1.0, 3.0)


@pytest.fixture(scope="module")
def tumour() -> tuple[sitk.Image, sitk.Image]:
    """Slices 2 to 8, slice 3 with the largest area, on a grey wedge with one bright spot at the front left."""
    mask = np.zeros((12, 60, 80), np.uint8)
    for index, side in zip(range(2, 9), (6, 14, 10, 10, 9, 8, 4), strict=True):
        mask[index, 30 : 30 + side, 20 : 20 + side] = 1
    image = np.tile(np.linspace(100, 200, 80, dtype=np.float32), (12, 60, 1))
    image[:, 5:10, 65:70] = 1000  # y to the back, x to the left: front is above, the patient's left on the right
    return on_grid(image), on_grid(mask)


def on_grid(array: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING)
    return image


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(imread(io.BytesIO(png)))[..., :3]


def test_the_slices_are_the_ends_the_largest_and_the_centre(tumour):
    image, mask = tumour
    found = epitome(image, mask)
    area = sitk.GetArrayFromImage(mask).sum(axis=(1, 2))
    assert (found.first, found.last, found.largest) == (2, 8, 3)
    assert found.centre == round(float((area * np.arange(12)).sum() / area.sum()))
    assert found.slices == (2, 3, 4, 8)


def test_the_crop_is_the_tumour_with_its_margin_in_its_place(tumour):
    image, mask = tumour
    found = epitome(image, mask)
    assert found.crop.GetSize() == (10 + 14 + 10, 10 + 14 + 10, 12)
    assert found.crop.GetOrigin() == (20 - MARGIN_MM, 30 - MARGIN_MM, 0.0)
    assert sitk.GetArrayFromImage(found.crop_mask).sum() == sitk.GetArrayFromImage(mask).sum()
    whole = sitk.Resample(image, found.crop, sitk.Transform(), sitk.sitkNearestNeighbor)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found.crop), sitk.GetArrayFromImage(whole))


def test_the_mosaic_is_a_png_and_the_same_every_time(tumour):
    one, other = (epitome(*tumour).mosaic for _ in range(2))
    assert one[:8] == b"\x89PNG\r\n\x1a\n"
    assert one == other
    height, width, _ = pixels(one).shape
    assert width == 4 * 200
    assert height > 400


def test_the_outline_is_drawn_and_the_note_is_written(tumour):
    image, mask = tumour
    plain, noted = epitome(image, mask).mosaic, epitome(image, mask, "T2; tumour: drawn").mosaic
    red, _, blue = np.moveaxis(pixels(plain), 2, 0)
    amber = (red > 0.8) & (blue < 0.3)
    # eight tiles: four slices, four crops
    assert 8 * 20 < np.count_nonzero(amber) < 8 * 800
    assert plain != noted
    assert pixels(noted)[:20].max() > 0.9
    assert pixels(plain)[:8].max() < 0.1


def test_left_is_on_the_right_and_front_on_top_however_the_voxels_are_stored(tumour):
    image, mask = tumour
    expected = pixels(epitome(image, mask).mosaic)
    first = expected[25:240, :200].mean(axis=2) > 0.95
    rows, columns = np.nonzero(first[25:])
    assert columns.mean() > 120
    assert rows.mean() < 80
    for axes in ([True, False, False], [False, True, False], [True, True, False]):
        flipped = epitome(sitk.Flip(image, axes), sitk.Flip(mask, axes))
        np.testing.assert_allclose(pixels(flipped.mosaic), expected, atol=0.5)
        assert np.abs(pixels(flipped.mosaic) - expected).mean() < 0.01


def test_around_a_brain_whose_mean_is_zero_it_is_black():
    image = np.zeros((3, 40, 40), np.float32)
    image[:, 10:30, 10:30] = np.random.default_rng(0).standard_normal((3, 20, 20))
    mask = np.zeros((3, 40, 40), np.uint8)
    mask[1, 15:20, 15:20] = 1
    tile = pixels(epitome(on_grid(image), on_grid(mask)).mosaic)[30:220]
    assert tile[5:40, 5:40].max() < 0.02


def test_an_empty_mask_or_one_of_another_size_is_a_problem(tumour):
    image, mask = tumour
    for spoilt, code in ((mask * 0, Code.MASK_EMPTY), (mask[:, :, 1:], Code.MASK_OTHER_GRID)):
        with pytest.raises(CaseError) as caught:
            epitome(image, spoilt)
        assert caught.value.problem.code is code


def test_a_tumour_on_one_slice_at_the_edge_has_an_epitome():
    mask = np.zeros((3, 30, 30), np.uint8)
    mask[0, :4, :4] = 1
    found = epitome(on_grid(np.zeros((3, 30, 30), np.float32)), on_grid(mask))
    assert found.slices == (0,)
    assert found.crop.GetSize() == (14, 14, 3)
