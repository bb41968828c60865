"""Size of a tumour: against ellipsoids in closed form, pyradiomics on the same mask, and all pairs of points."""

from __future__ import annotations

import itertools
import logging

import numpy as np
import pytest
import SimpleITK as sitk
from contourpy import contour_generator
from radiomics import shape
from scipy.ndimage import label
from scipy.spatial.distance import pdist

from prognosis_dask.brain.orient import axial
from prognosis_dask.brain.size import TumourSize, sides_reached, size_values, tumour_size
from prognosis_dask.errors import CaseError, Code
from prognosis_dask.imaging.gaps import between_slices
from tests.synthetic_brains import dice, ellipsoid

SPACINGS = [(1.0, 1.0, 1.0), (0.94, 0.94, 3.0), (0.94, 0.94, 5.0), (0.8, 0.8, 6.5)]
TURN = (0.5, 0.3, 0.9)


def mask_of(array: np.ndarray, spacing: tuple[float, float, float] = (1, 1, 1)) -> sitk.Image:
    image = sitk.GetImageFromArray(array.astype(np.uint8))
    image.SetSpacing(spacing)
    return image


def pyradiomics_shape(mask: sitk.Image) -> dict[str, float]:
    logging.getLogger("radiomics").setLevel(logging.ERROR)
    padded = sitk.ConstantPad(mask, [1, 1, 1], [1, 1, 1])
    features = shape.RadiomicsShape(sitk.Cast(padded, sitk.sitkFloat32), padded, label=1)
    features.enableAllFeatures()
    return {name: float(value) for name, value in features.execute().items()}


def blob(seed: int, shape_: tuple[int, int, int] = (12, 40, 44)) -> np.ndarray:
    """A mask with bays, a hole and loose parts."""
    noise = sitk.SmoothingRecursiveGaussian(sitk.GetImageFromArray(np.random.default_rng(seed).random(shape_)), 2.0)
    field = sitk.GetArrayFromImage(noise)
    array = field > np.quantile(field, 0.8)
    array[:, :2] = array[:, -2:] = array[:, :, :2] = array[:, :, -2:] = False
    return array


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
@pytest.mark.parametrize("turn", [(0, 0, 0), TURN], ids=["straight", "turned"])
def test_an_ellipsoid_has_its_volume_and_longest_diameter(spacing, turn):
    a, b, c = 22.0, 17.0, 14.0
    size = tumour_size(ellipsoid((a, b, c), spacing, turn))
    assert size.volume_ml == pytest.approx(4 / 3 * np.pi * a * b * c / 1000, rel=0.025)
    assert size.diameter_3d_mm == pytest.approx(2 * a, rel=0.05)


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
def test_an_ellipsoids_axial_section_has_its_two_diameters(spacing):
    size = tumour_size(ellipsoid((22.0, 15.0, 18.0), spacing))
    assert size.axial_diameter_mm == pytest.approx(44, rel=0.03)
    assert size.perpendicular_mm == pytest.approx(30, rel=0.03)
    assert size.product_mm2 == pytest.approx(size.axial_diameter_mm * size.perpendicular_mm)


@pytest.mark.parametrize("seed", range(4))
def test_volume_and_diameters_are_pyradiomics_on_any_mask(seed):
    mask = mask_of(blob(seed))
    size, theirs = tumour_size(mask), pyradiomics_shape(mask)
    # both surfaces run half-way between voxels' centres; the cells' corners are cut a little differently
    assert size.volume_ml * 1000 == pytest.approx(theirs["MeshVolume"], rel=0.03)
    assert size.diameter_3d_mm == pytest.approx(theirs["Maximum3DDiameter"], rel=1e-9)
    assert size.axial_diameter_mm <= theirs["Maximum2DDiameterSlice"] + 1e-9


def test_a_real_tumour_has_pyradiomics_volume(shared_data):
    mask = sitk.ReadImage(str(shared_data / "pyradiomics" / "brain1_label.nrrd"), sitk.sitkUInt8)
    size, theirs = tumour_size(mask), pyradiomics_shape(mask)
    assert size.volume_ml * 1000 == pytest.approx(theirs["MeshVolume"], rel=0.01)
    # of that slice alone: of several, pyradiomics also compares the steps between one slice's outline and the next's
    alone = sitk.GetArrayFromImage(mask)
    alone[np.arange(len(alone)) != size.slice_index] = 0
    in_slice = pyradiomics_shape(mask_of(alone, mask.GetSpacing()))
    assert size.axial_diameter_mm == pytest.approx(in_slice["Maximum2DDiameterSlice"], rel=1e-6)
    # slices 6.5 mm apart: pyradiomics' surface juts out by half a slice all around the first and the last one
    assert 0.85 < size.diameter_3d_mm / theirs["Maximum3DDiameter"] <= 1


@pytest.mark.parametrize("seed", range(6))
def test_axial_diameters_are_the_longest_of_all_pairs_of_points(seed):
    parts, _ = label(blob(seed)[5:6], np.ones((3, 3, 3)))
    array = parts == np.bincount(parts[parts > 0]).argmax()
    size = tumour_size(mask_of(array, (0.7, 1.3, 4.0)))
    points, directions = all_pairs(array[0], 0.7, 1.3)
    length = np.linalg.norm(directions, axis=1)
    assert size.axial_diameter_mm == pytest.approx(length.max(), rel=1e-9)
    along = directions[length.argmax()] / length.max()
    right = np.abs(directions @ along) < 0.05
    assert size.perpendicular_mm == pytest.approx(length[right].max(), abs=0.06)
    assert pdist(points).max() == pytest.approx(length.max())


def all_pairs(plane: np.ndarray, column_mm: float, row_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Points along the outlines, 0.05 mm apart or closer, and the ways between all pairs of a coarser choice."""
    lines = contour_generator(z=np.pad(plane, 1).astype(float)).lines(0.5)
    dense = []
    for line in lines:
        line = line * (column_mm, row_mm)
        for start, stop in itertools.pairwise(line):
            steps = np.linspace(0, 1, 1 + int(np.ceil(np.linalg.norm(stop - start) / 0.1)), endpoint=False)
            dense.append(start + steps[:, None] * (stop - start))
    points = np.concatenate(dense)
    pairs = points[:, None] - points[None]
    return points, pairs.reshape(-1, 2)


def test_the_slice_is_the_one_with_the_largest_product():
    array = np.zeros((3, 40, 40), bool)
    array[0, 10, 2:38] = True  # long and thin
    array[2, 10:24, 10:24] = True
    size = tumour_size(mask_of(array))
    assert size.slice_index == 2
    assert size.axial_diameter_mm < 36
    assert size.perpendicular_mm == pytest.approx(size.axial_diameter_mm, rel=0.01)


def test_of_two_foci_the_larger_one_is_measured_and_not_the_way_between_them():
    array = np.zeros((9, 60, 60), bool)
    array[2:7, 10:24, 8:22] = True
    alone = tumour_size(mask_of(array))
    array[4, 30:36, 50:55] = True
    both = tumour_size(mask_of(array))
    assert (both.axial_diameter_mm, both.perpendicular_mm) == (alone.axial_diameter_mm, alone.perpendicular_mm)
    # from corner to corner of a square of 14 pixels whose corners the outline cuts
    assert both.axial_diameter_mm == pytest.approx(np.hypot(13.5, 13.5), abs=0.5)
    assert both.diameter_3d_mm > 45


@pytest.mark.parametrize("code", ["LPS", "PSL", "SAR", "RIA"])
def test_a_tumour_drawn_on_every_third_sagittal_slice_is_filled_however_its_file_is_stored(code):
    whole = ellipsoid((20.0, 20.0, 20.0), (1.0, 1.0, 1.0))
    array = sitk.GetArrayFromImage(whole)
    array[:, :, np.arange(array.shape[2]) % 3 != 0] = 0
    striped = sitk.GetImageFromArray(array)
    striped.CopyInformation(whole)
    filled, made = between_slices(axial(sitk.DICOMOrient(striped, code)))
    assert len(made) > 20
    assert tumour_size(striped).volume_ml < 12
    assert tumour_size(filled).volume_ml == pytest.approx(4 / 3 * np.pi * 20**3 / 1000, rel=0.03)


@pytest.mark.parametrize("code", ["RAS", "LPI", "ASL", "IPR"])
def test_a_real_tumour_has_one_size_however_its_file_is_stored(shared_data, code):
    stored = sitk.ReadImage(str(shared_data / "heads" / "DU7294_tumour_T2.nii.gz")) > 0
    size, other = (tumour_size(axial(mask)) for mask in (stored, sitk.DICOMOrient(stored, code)))
    assert size_values(other)[:5] == size_values(size)[:5]
    assert other.centre_mm == pytest.approx(size.centre_mm)
    assert size.volume_ml == pytest.approx(
        np.count_nonzero(sitk.GetArrayFromImage(stored)) * 0.46875**2 * 5 / 1000, 0.02
    )


def test_size_does_not_depend_on_how_the_patient_lay():
    straight = ellipsoid((20.0, 15.0, 12.0), (1.0, 1.0, 3.0), TURN)
    tilted = sitk.Image(straight)
    frame = sitk.Euler3DTransform()
    frame.SetRotation(0.3, 0.0, 0.0)
    tilted.SetDirection(frame.GetMatrix())
    one, other = tumour_size(straight), tumour_size(tilted)
    assert one.volume_ml == other.volume_ml
    assert one.axial_diameter_mm == other.axial_diameter_mm
    assert one.diameter_3d_mm == other.diameter_3d_mm


def test_the_place_is_the_centre_of_mass_and_what_the_transform_makes_of_it():
    mask = ellipsoid((15.0, 12.0, 10.0), (1.0, 1.0, 2.0))
    assert tumour_size(mask).template_mm is None
    size = tumour_size(mask, sitk.TranslationTransform(3, (10.0, -5.0, 3.0)))
    assert size.centre_mm == pytest.approx((0, 0, 0), abs=0.1)
    assert size.template_mm == pytest.approx(np.add(size.centre_mm, (10, -5, 3)))


def test_a_single_voxel_has_a_size():
    array = np.zeros((3, 3, 3), bool)
    array[1, 1, 1] = True
    size = tumour_size(mask_of(array, (2, 2, 2)))
    assert isinstance(size, TumourSize)
    assert size.diameter_3d_mm == pytest.approx(2.0)
    assert 0 < size.volume_ml < 0.008


def test_an_empty_mask_has_no_size():
    with pytest.raises(CaseError) as caught:
        tumour_size(mask_of(np.zeros((4, 5, 6))))
    assert caught.value.problem.code is Code.MASK_EMPTY


@pytest.mark.parametrize("spacing", SPACINGS[:3], ids=str)
def test_three_outlined_slices_give_the_ellipsoid_back(spacing):
    whole = ellipsoid((21.0, 17.0, 19.0), spacing, TURN)
    filled, made = between_slices(three_slices(whole))
    assert dice(filled, whole) > 0.95
    assert tumour_size(filled).volume_ml == pytest.approx(tumour_size(whole).volume_ml, rel=0.05)
    held = np.flatnonzero(sitk.GetArrayViewFromImage(whole).any(axis=(1, 2)))
    assert len(made) == len(held) - 3


def three_slices(whole: sitk.Image) -> sitk.Image:
    array = sitk.GetArrayFromImage(whole)
    held = np.flatnonzero(array.any(axis=(1, 2)))
    array[np.setdiff1d(held, held[[0, len(held) // 2, -1]])] = 0
    sampled = sitk.GetImageFromArray(array)
    sampled.CopyInformation(whole)
    return sampled


def test_outlined_slices_stay_as_they_were_drawn():
    sampled = three_slices(ellipsoid((21.0, 17.0, 19.0), (1.0, 1.0, 3.0)))
    filled, made = between_slices(sampled)
    before, after = sitk.GetArrayFromImage(sampled), sitk.GetArrayFromImage(filled)
    drawn = np.setdiff1d(np.arange(len(before)), made)
    np.testing.assert_array_equal(before[drawn], after[drawn])


def test_between_equal_outlines_lies_the_same_outline():
    array = np.zeros((9, 20, 20), bool)
    array[[1, 4, 7], 5:14, 6:12] = True
    filled, made = between_slices(mask_of(array))
    assert made == (2, 3, 5, 6)
    expected = array.copy()
    expected[1:8] = array[1]
    np.testing.assert_array_equal(sitk.GetArrayFromImage(filled) > 0, expected)


def test_a_mask_on_all_its_slices_or_of_two_foci_is_left_alone():
    whole = ellipsoid((15.0, 12.0, 10.0), (1.0, 1.0, 2.0))
    foci = np.zeros((12, 20, 20), bool)
    foci[1:4, 5:9, 5:9] = foci[8:11, 5:9, 5:9] = True
    for mask in (whole, mask_of(foci), mask_of(np.zeros((3, 4, 4)))):
        filled, made = between_slices(mask)
        assert made == ()
        np.testing.assert_array_equal(sitk.GetArrayFromImage(filled), sitk.GetArrayFromImage(mask))


@pytest.mark.parametrize("code", ["LPS", "RAI", "ASL"])
def test_a_tumour_that_the_image_cuts_off_is_known_by_the_sides_that_it_reaches(code):
    values = np.zeros((9, 10, 11), np.uint8)
    values[3:6, 3:6, 3:6] = 1
    assert sides_reached(axial(sitk.DICOMOrient(sitk.GetImageFromArray(values), code))) == ()
    values[8, 4, 4] = values[4, 0, 4] = values[4, 4, 10] = 1
    reached = sides_reached(axial(sitk.DICOMOrient(sitk.GetImageFromArray(values), code)))
    assert reached == ("highest slice", "front", "left side")
