"""Cubes in mm: a planted sphere, SimpleITK's resampling, and the published networks' own preprocessing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from prognosis_dask.config.reading import build
from prognosis_dask.errors import CaseError, Code, JobError
from prognosis_dask.imaging.cube import CubeRule, VolumeRule, cut_cube, whole_volume
from prognosis_dask.imaging.roi import Roi, crop_roi, grid_of

PLAIN = CubeRule(voxels=(40, 48, 44), spacing_mm=(1.53, 1.01, 1.27), intensity="keep", outside=-1000.0)
#: A rotation about an axis of no symmetry, as DICOM's direction cosines.
OBLIQUE = tuple(np.linalg.qr(np.array([[1, 0.3, -0.2], [-0.25, 1, 0.15], [0.1, -0.3, 1]]))[0].ravel())
FLIPPED = (-1.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, -1.0, 0.0)


def never() -> Roi:
    raise AssertionError("the full image was asked for")


def grown(direction: tuple[float, ...], spacing: tuple[float, ...], size: tuple[int, ...]) -> sitk.Image:
    """An image of zeros, float32, whose origin is no round number."""
    image = sitk.Image(size, sitk.sitkFloat32)
    image.SetSpacing(spacing)
    image.SetOrigin((-31.7, 12.3, 101.9))
    image.SetDirection(direction)
    return image


def distances(image: sitk.Image, centre_mm: np.ndarray) -> np.ndarray:
    """Of each voxel (slice, row, column) from a point, in mm."""
    steps = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    places = np.indices(image.GetSize()[::-1])[::-1].reshape(3, -1).T @ steps.T + image.GetOrigin()
    return np.linalg.norm(places - centre_mm, axis=1).reshape(image.GetSize()[::-1])


def planted(image: sitk.Image, centre_mm: np.ndarray, radius: float) -> Roi:
    """A ball of value 100 that is the mask too, with a bead 12 mm to its left, 9 mm to the back and 7 mm up."""
    ball = distances(image, centre_mm) <= radius
    bead = distances(image, centre_mm + np.array((12, 9, 7))) <= 2.5
    pixels = sitk.GetImageFromArray((100 * ball + 50 * (bead & ~ball)).astype(np.float32))
    mask = sitk.GetImageFromArray(ball.astype(np.uint8))
    for made in (pixels, mask):
        made.CopyInformation(image)
    return Roi(pixels, mask, grid_of(pixels), (0, 0, 0))


@pytest.mark.parametrize("centre", ["centroid", "box"])
@pytest.mark.parametrize("orientation", ["SPL", "RAS", "IAR"])
@pytest.mark.parametrize(
    ("direction", "spacing", "size", "at"),
    [
        ((1, 0, 0, 0, 1, 0, 0, 0, 1), (0.98, 0.98, 3.0), (80, 80, 30), (0.5, 0.5, 0.5)),
        (OBLIQUE, (0.7, 1.1, 2.5), (110, 80, 40), (0.48, 0.55, 0.5)),
        (FLIPPED, (1.0, 1.0, 2.0), (80, 80, 40), (0.52, 0.5, 0.45)),
        (OBLIQUE, (0.7, 1.1, 2.5), (110, 80, 40), (0.15, 0.2, 0.75)),
    ],
    ids=["anisotropic", "oblique", "other axes", "partly outside"],
)
def test_a_planted_ball_lies_in_the_middle_with_its_own_size(direction, spacing, size, at, orientation, centre) -> None:
    image = grown(direction, spacing, size)
    middle = np.array(
        image.TransformContinuousIndexToPhysicalPoint([a * (n - 1) for a, n in zip(at, size, strict=True)])
    )
    roi = planted(image, middle, 9.0)
    rule = replace(PLAIN, orientation=orientation, centre=centre)

    cube = cut_cube(roi, rule, never)

    ball = np.argwhere(cube.values[0] > 75)
    expected = (np.array(rule.voxels) - 1) / 2
    # the box of a mask is known to half a voxel of the image
    known = 0.5 if centre == "centroid" else 0.5 * np.maximum(1.0, max(spacing) / np.array(rule.spacing_mm))
    assert (np.abs(ball.mean(axis=0) - expected) <= known).all()
    extent = ball.max(axis=0) - ball.min(axis=0) + 1
    # a ball of voxels is as high as its slices, which are up to 3 mm apart
    coarse = np.maximum(1.0, np.array([max(spacing)] * 3) / rule.spacing_mm)
    assert (np.abs(extent * rule.spacing_mm - 18.0) <= coarse * rule.spacing_mm).all()
    assert cube.cut == 0
    assert (cube.outside > 0.2) == (at[0] == 0.15)
    bead = np.argwhere((cube.values[0] > 30) & (cube.values[0] < 60))
    bead = bead[np.linalg.norm((bead - expected) * rule.spacing_mm, axis=1) > 13]
    moved = {"S": 7, "I": -7, "P": 9, "A": -9, "L": 12, "R": -12}
    wanted = expected + np.array([moved[letter] for letter in orientation]) / rule.spacing_mm
    assert (np.abs(bead.mean(axis=0) - wanted) <= known + 0.25).all()


@pytest.mark.parametrize("axes", ["patient", "image"])
def test_values_are_those_of_simpleitk_also_where_the_cube_leaves_the_image(axes) -> None:
    image = grown(OBLIQUE, (0.7, 1.1, 2.5), (60, 50, 20))
    roi = planted(image, np.array(image.TransformContinuousIndexToPhysicalPoint((20.3, 40.2, 9.1))), 8.0)
    noise = sitk.GetImageFromArray(np.random.default_rng(0).normal(0, 300, (20, 50, 60)).astype(np.float32))
    noise.CopyInformation(image)
    roi = replace(roi, image=noise)

    cube = cut_cube(roi, replace(PLAIN, axes=axes, mask="channel"), never)

    assert 0.2 < cube.outside < 0.8
    directions = cube.steps / np.linalg.norm(cube.steps, axis=0)
    own = np.array(OBLIQUE).reshape(3, 3)
    closest = np.abs(own.T @ directions).max(axis=0) if axes == "image" else np.abs(directions).max(axis=0)
    np.testing.assert_allclose(closest, 1)
    for channel, pixels, how, outside in [
        (0, noise, sitk.sitkLinear, -1000.0),
        (1, sitk.Cast(roi.mask, sitk.sitkFloat32), sitk.sitkNearestNeighbor, 0.0),
    ]:
        theirs = sitk.Resample(
            pixels,
            PLAIN.voxels[::-1],
            sitk.Transform(),
            how,
            cube.first_mm.tolist(),
            PLAIN.spacing_mm[::-1],
            directions[:, ::-1].ravel().tolist(),
            outside,
        )
        np.testing.assert_allclose(cube.values[channel], sitk.GetArrayFromImage(theirs), atol=2e-3)


def test_a_crop_gives_the_bits_of_the_full_image_and_is_left_where_it_does_not_reach() -> None:
    image = grown(OBLIQUE, (0.7, 1.1, 1.5), (200, 160, 120))
    roi = planted(image, np.array(image.TransformContinuousIndexToPhysicalPoint((90, 85, 50))), 8.0)
    noise = sitk.GetImageFromArray(np.random.default_rng(1).normal(0, 300, (120, 160, 200)).astype(np.float32))
    noise.CopyInformation(roi.image)
    roi = replace(roi, image=noise)
    crop = crop_roi(roi, 20.0)
    assert crop.image.GetSize() != roi.image.GetSize()
    small = replace(PLAIN, voxels=(20, 20, 20))
    np.testing.assert_array_equal(cut_cube(crop, small, never).values, cut_cube(roi, small, never).values)

    asked = []

    def read_full() -> Roi:
        asked.append(1)
        return roi

    large = replace(PLAIN, voxels=(20, 140, 120))
    np.testing.assert_array_equal(cut_cube(crop, large, read_full).values, cut_cube(roi, large, never).values)
    assert asked == [1]


def test_a_region_that_the_cube_cuts_is_told_by_its_share() -> None:
    roi = planted(grown((1, 0, 0, 0, 1, 0, 0, 0, 1), (1, 1, 1), (60, 60, 60)), np.array((-1.7, 42.3, 131.9)), 12.0)
    cube = cut_cube(roi, replace(PLAIN, voxels=(11, 41, 41), spacing_mm=(1.0, 1.0, 1.0)), never)
    held = sitk.GetArrayViewFromImage(roi.mask)
    kept = cube.values[0] == 100
    assert cube.cut == pytest.approx(1 - kept.sum() / held.sum())
    assert 0.3 < cube.cut < 0.8


@pytest.mark.parametrize("shown", ["channel", "background"])
def test_a_region_that_is_lost_between_the_cubes_voxels_is_not_shown_as_none(shown: str) -> None:
    roi = planted(grown((1, 0, 0, 0, 1, 0, 0, 0, 1), (1, 1, 1), (30, 30, 30)), np.array((-20.7, 27.3, 114.9)), 1.1)
    coarse = replace(PLAIN, voxels=(8, 8, 8), spacing_mm=(4.0, 4.0, 4.0), outside=0.0)
    assert cut_cube(roi, coarse, never).values.shape == (1, 8, 8, 8)
    with pytest.raises(CaseError, match="of the region's 7 voxels none is left") as caught:
        cut_cube(roi, replace(coarse, mask=shown), never)
    assert caught.value.problem.code is Code.MASK_EMPTY


def test_grey_levels_are_clipped_scaled_or_standardised_and_the_background_is_removed() -> None:
    roi = planted(grown((1, 0, 0, 0, 1, 0, 0, 0, 1), (1, 1, 1), (30, 30, 30)), np.array((-20.7, 27.3, 114.9)), 8.0)
    rule = CubeRule((41, 31, 31), (1.0, 1.0, 1.0), "window", outside=-10.0, window=(-50.0, 50.0))
    values = cut_cube(roi, rule, never).values[0]
    assert sorted(np.unique(values)) == pytest.approx([0.4, 0.5, 1.0], abs=1e-6)  # outside, zero, above the window
    standard = cut_cube(roi, replace(rule, intensity="zscore", window=()), never)
    inside = standard.values[0][standard.values[0] >= np.unique(standard.values[0])[1]]
    assert (inside.mean(), inside.std()) == (pytest.approx(0, abs=1e-5), pytest.approx(1, abs=1e-5))
    alone = cut_cube(roi, replace(rule, intensity="keep", mask="background", window=()), never).values[0]
    assert sorted(np.unique(alone)) == [-10.0, 100.0]
    with pytest.raises(CaseError) as caught:
        cut_cube(roi, replace(rule, intensity="zscore", mask="background", window=()), never)
    assert caught.value.problem.code is Code.IMAGE_INVALID


def test_a_whole_image_is_standardised_by_its_own_voxels_and_covered_by_the_networks_grid() -> None:
    image = grown(OBLIQUE, (0.7, 1.1, 2.5), (50, 40, 12))
    stored = np.random.default_rng(3).integers(-32768, 32767, (12, 40, 50)).astype(np.int16)
    pixels = sitk.GetImageFromArray(stored)
    pixels.CopyInformation(image)
    rule = VolumeRule((64, 8, 8), (1.5, 1.0, 1.2), "zscore", outside=0.0, axes="image")

    volume = whole_volume(pixels, rule)

    slices = sitk.GetArrayViewFromImage(volume).shape
    assert slices[0] == 64, "one patch at least"
    for corner in np.ndindex(2, 2, 2):
        place = pixels.TransformIndexToPhysicalPoint(
            [int(c * (n - 1)) for c, n in zip(corner, (50, 40, 12), strict=True)]
        )
        at = np.array(volume.TransformPhysicalPointToContinuousIndex(place))
        assert (at > -1e-6).all()
        assert (at < np.array(slices[::-1]) - 1 + 1e-6).all()
    # the two grids share a voxel: the corner of the image where the network's axes begin
    x, y, z = pixels.TransformPhysicalPointToIndex(volume.TransformIndexToPhysicalPoint((0, 0, 0)))
    expected = (float(stored[z, y, x]) - stored.mean()) / stored.std()
    assert volume[0, 0, 0] == pytest.approx(expected, abs=1e-4)


def test_a_rule_that_says_too_little_or_nonsense_is_refused_by_its_key() -> None:
    said = {
        "voxels": [50, 50, 50],
        "spacing_mm": [1, 1, 1],
        "intensity": "window",
        "outside": -1024,
        "orientation": "SPL",
    }
    with pytest.raises(JobError, match=r"window is .*two numbers, where intensity is 'window'"):
        build(CubeRule, said, "net.toml").check("net.toml")
    for key, value, expected in [
        ("orientation", "SPX", "one letter of each pair"),
        ("orientation", "SPA", "one letter of each pair"),
        ("voxels", [50, 50], "three numbers"),
        ("spacing_mm", [1, 1, 0], "above zero"),
    ]:
        with pytest.raises(JobError, match=f"{key} is .*{expected}"):
            build(CubeRule, said | {key: value}, "net.toml")
    del said["outside"]
    with pytest.raises(JobError, match="outside is missing"):
        build(CubeRule, said, "net.toml")
