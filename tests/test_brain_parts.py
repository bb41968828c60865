"""The steps of the brain's preparation one by one, against slow obvious versions and other programs."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from prognosis_dask.brain.intensity import correct_bias, nyul, smooth, zscore
from prognosis_dask.brain.orient import axial
from prognosis_dask.brain.pictures import qc_figure
from prognosis_dask.brain.preprocess import check_sequence
from prognosis_dask.brain.register import rigid
from prognosis_dask.brain.strip import PROGRAMS, check_tool, strip_with
from prognosis_dask.brain.template import closed, contrast, dilated, icbm152, opened
from prognosis_dask.errors import CaseError, Code, MissingExtraError
from prognosis_dask.storage.brains import BrainStore, StoredBrain


def image(values: np.ndarray, spacing: tuple[float, ...] = (2.0, 2.0, 3.0)) -> sitk.Image:
    made = sitk.GetImageFromArray(values)
    made.SetSpacing(spacing)
    return made


@pytest.fixture(scope="module")
def head() -> sitk.Image:
    """The template's T1 on coarse slices, as a scanner's image in its own units."""
    template = contrast("t1")
    grid = sitk.Image([64, 72, 30], sitk.sitkFloat32)
    grid.SetSpacing((3.0, 3.0, 5.0))
    grid.SetDirection(template.GetDirection())
    grid.SetOrigin((95.0, 125.0, -65.0))
    return sitk.Resample(template, grid) * 1000.0


@pytest.fixture(scope="module")
def brain(head) -> sitk.Image:
    return sitk.Resample(icbm152().brain, head, sitk.Transform(), sitk.sitkNearestNeighbor)


@pytest.mark.parametrize(
    ("made", "code"),
    [
        (image(np.zeros((30, 64, 64), np.int16)), Code.IMAGE_EMPTY),
        (sitk.GetImageFromArray(np.ones((64, 64), np.float32)), Code.IMAGE_INVALID),
        (image(np.ones((1, 64, 64), np.float32)), Code.IMAGE_INVALID),
        (sitk.Image([8, 8, 8, 3], sitk.sitkFloat32), Code.IMAGE_INVALID),
        (sitk.Image([64, 64, 30], sitk.sitkVectorFloat32, 3), Code.IMAGE_INVALID),
        (image(np.full((30, 64, 64), np.nan, np.float32)), Code.IMAGE_INVALID),
        (image(np.arange(30 * 64 * 64, dtype=np.float32).reshape(30, 64, 64), (25.0, 25.0, 25.0)), Code.VOXEL_SIZE),
        (image(np.arange(30 * 64 * 64, dtype=np.float32).reshape(30, 64, 64), (0.01, 0.01, 0.01)), Code.VOXEL_SIZE),
        (image(np.arange(30 * 64 * 64, dtype=np.float32).reshape(30, 64, 64), (0.5, 0.5, 0.5)), Code.VOXEL_SIZE),
    ],
    ids=["empty", "2D", "one slice", "4D", "colour", "NaN", "huge voxels", "tiny voxels", "a corner of a head"],
)
def test_what_is_no_scan_of_a_head_has_a_code(made, code):
    with pytest.raises(CaseError) as caught:
        check_sequence("T1", made)
    assert caught.value.problem.code is code
    assert "T1" in caught.value.problem.reason


def test_the_templates_mask_is_nilearns_and_holds_what_is_known_of_it():
    mask = sitk.GetArrayFromImage(icbm152().brain) > 0
    from nilearn.datasets import load_mni152_brain_mask

    # nilearn's axes run from right to left and from back to front
    theirs = load_mni152_brain_mask(resolution=1).get_fdata().transpose(2, 1, 0) > 0
    assert theirs.shape == mask.shape
    assert 2 * np.count_nonzero(mask & theirs) / (mask.sum() + theirs.sum()) > 0.97
    # the commissure lies in the brain, the nose and the neck do not
    inside = icbm152().brain
    at = [inside[inside.TransformPhysicalPointToIndex(point)] for point in ((0, 0, 0), (0, -90, -40), (0, 60, -70))]
    assert at == [1, 0, 0]


@pytest.mark.parametrize("radii", [(1, 1, 1), (4, 4, 4), (6, 6, 6), (0, 2, 2), (0, 5, 3), (2, 1, 4)])
def test_a_mask_is_dilated_opened_and_closed_to_the_same_bits_as_by_itk(radii):
    draw = np.random.default_rng(radii).random((30, 27, 41))
    for mask, ours, theirs in (
        (draw > 0.999, dilated, sitk.BinaryDilate),
        (~dilated(draw > 0.999, radii), opened, sitk.BinaryMorphologicalOpening),
        (draw > 0.98, closed, sitk.BinaryMorphologicalClosing),
    ):
        expected = theirs(sitk.GetImageFromArray(mask.astype(np.uint8)), radii[::-1])
        np.testing.assert_array_equal(ours(mask, radii), sitk.GetArrayViewFromImage(expected) > 0)
        assert 0 < np.count_nonzero(ours(mask, radii)) < mask.size


def test_the_bias_field_does_not_depend_on_what_the_image_shows_beside_the_head(head, brain):
    fields, deep = [], sitk.BinaryErode(brain, [6, 6, 2])
    for width in (8, 20):
        pad = [width, width, 0]
        field = correct_bias(sitk.ConstantPad(head, pad, pad), sitk.ConstantPad(deep, pad, pad))[1]
        fields.append(sitk.GetArrayFromImage(sitk.Crop(field, pad, pad)))
    np.testing.assert_allclose(*fields, rtol=1e-5)


def test_zscores_have_mean_zero_and_deviation_one_in_the_brain_and_nothing_outside(head, brain):
    values = sitk.GetArrayFromImage(zscore(head, brain))
    inside = sitk.GetArrayFromImage(brain) > 0
    assert abs(values[inside].mean()) < 1e-4
    assert abs(values[inside].std() - 1) < 1e-4
    assert not values[~inside].any()


def test_nyul_gives_the_templates_percentiles_whatever_the_scanners_units(head, brain):
    inside = sitk.GetArrayFromImage(brain) > 0
    standard = 100 * sitk.GetArrayFromImage(contrast("t1"))[sitk.GetArrayFromImage(icbm152().brain) > 0]
    for scanner in (head, sitk.Sqrt(head) * 37.0 + 12.0):
        values = sitk.GetArrayFromImage(nyul(sitk.Cast(scanner, sitk.sitkFloat32), brain, "t1"))
        for percent in (10, 50, 90):
            assert abs(np.percentile(values[inside], percent) - np.percentile(standard, percent)) < 0.5
        assert not values[~inside].any()


def test_one_value_has_no_zscore(head, brain):
    with pytest.raises(CaseError, match="image-empty"):
        zscore(sitk.Cast(head * 0.0, sitk.sitkFloat32), brain)


def test_smoothing_has_the_asked_width_in_millimetres():
    spike = np.zeros((41, 41, 41), np.float32)
    spike[20, 20, 20] = 1.0
    smoothed = sitk.GetArrayFromImage(smooth(image(spike, (0.5, 0.5, 1.0)), 4.0))
    for line, step in ((smoothed[20, 20], 0.5), (smoothed[:, 20, 20], 1.0)):
        # where the line crosses half of its height, between voxels
        above = np.flatnonzero(line > line.max() / 2)
        left, right = above[0], above[-1]
        out = (line[left] - line.max() / 2) / (line[left] - line[left - 1])
        width = (right - left + 2 * out) * step
        assert width == pytest.approx(4.0, abs=0.15)


def test_a_planted_bias_field_is_found(head, brain):
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in head.GetSize()[::-1]], indexing="ij")
    planted = np.exp(0.3 * x - 0.2 * y * z + 0.2 * z**2).astype(np.float32)
    field = sitk.GetImageFromArray(planted)
    field.CopyInformation(head)
    white = sitk.Resample(icbm152().white, head) > 0.8
    corrected, found = correct_bias(sitk.Cast(head * field, sitk.sitkFloat32), white)
    inside = sitk.GetArrayFromImage(brain) > 0
    assert np.corrcoef(np.log(sitk.GetArrayFromImage(found)[inside]), np.log(planted[inside]))[0, 1] > 0.95
    spread = [np.std(sitk.GetArrayFromImage(i)[sitk.GetArrayFromImage(white) > 0]) for i in (head * field, corrected)]
    assert spread[1] < 0.6 * spread[0]


def test_a_movement_between_sequences_is_found(head):
    moved = sitk.Euler3DTransform()
    moved.SetCenter((0.0, 15.0, 10.0))
    moved.SetRotation(0.07, -0.03, 0.05)
    moved.SetTranslation((4.0, -3.0, 5.0))
    # what lay at p lies at moved(p); another contrast
    other = sitk.Resample(head, head, moved.GetInverse(), sitk.sitkLinear)
    found, shared = rigid(head, sitk.Cast(1000.0 * sitk.Cos(other / 400.0), sitk.sitkFloat32))
    for point in ((0, 15, 10), (50, 15, 10), (0, -50, 10), (0, 15, 60)):
        assert np.linalg.norm(np.subtract(found.TransformPoint(point), moved.TransformPoint(point))) < 1.0
    assert shared > 0.3


def test_axial_order_moves_voxels_and_leaves_them_where_they_are():
    made = image(np.arange(24, dtype=np.int16).reshape(2, 3, 4))
    turned = sitk.DICOMOrient(made, "PIR")
    back = axial(turned)
    assert sitk.Hash(back) == sitk.Hash(axial(made))
    at = back.TransformPhysicalPointToIndex(made.TransformIndexToPhysicalPoint((3, 1, 0)))
    assert back[at] == made[3, 1, 0]


def test_a_program_that_is_not_installed_is_named_with_its_source(monkeypatch):
    monkeypatch.setenv("PATH", "")
    for tool in PROGRAMS:
        with pytest.raises(MissingExtraError, match=r"on the PATH; install it .* brain.skull_strip = 'template'"):
            check_tool(tool)


#: Stub programs that take the arguments as the real ones' help describes them, with a threshold for a method.
_STAND_INS = {
    "hd-bet": ("hd-bet", "--save_bet_mask", "o.replace('.nii.gz', '_bet.nii.gz')", "-o"),
    "synthstrip": ("mri_synthstrip", "-m", "o", "-m"),
    # its output has the format of this variable, whatever it is called
    "fsl-bet": (
        "bet",
        "-m",
        "sys.argv[2].replace('.nii.gz', '_mask' + {'NIFTI_GZ': '.nii.gz'}.get(os.environ['FSLOUTPUTTYPE'], '.nii'))",
        "",
    ),
    "robex": ("robex", "--output-mask", "sys.argv[sys.argv.index('--output-mask') + 1]", ""),
}


@pytest.mark.parametrize("tool", PROGRAMS)
def test_another_programs_mask_is_taken_on_the_images_grid(tool, head, brain, tmp_path, monkeypatch):
    name, flag, written, option = _STAND_INS[tool]
    source = "sys.argv[sys.argv.index('-i') + 1]" if option else "sys.argv[1]"
    target = f"sys.argv[sys.argv.index({option!r}) + 1]" if option else "''"
    program = tmp_path / name
    program.write_text(
        f"#!{sys.executable}\nimport os, sys, SimpleITK as sitk\nassert {flag!r} in sys.argv\no = {target}\n"
        f"sitk.WriteImage(sitk.ReadImage({source}) > 100, {written})\n",
        encoding="utf-8",
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FSLOUTPUTTYPE", "NIFTI")
    found = strip_with(tool, head)
    assert np.array_equal(sitk.GetArrayFromImage(found) > 0, sitk.GetArrayFromImage(head) > 100)
    assert found.GetOrigin() == head.GetOrigin()
    program.write_text("#!/bin/sh\necho no licence >&2\nexit 3\n", encoding="utf-8")
    with pytest.raises(CaseError, match=r"brain-not-found: .* ended with status 3: no licence"):
        strip_with(tool, head)


def test_a_prepared_brain_is_read_as_written_and_damage_is_seen(head, brain, tmp_path):
    store = BrainStore(tmp_path / "brain")
    store.create()
    store.write("a_MR", StoredBrain(head, brain, brain, {"reference": "T1"}), {"quality": b"png"})
    found = store.read("a_MR")
    assert np.array_equal(sitk.GetArrayFromImage(found.image), sitk.GetArrayFromImage(head))
    assert found.attributes == {"reference": "T1"}
    assert np.allclose(found.image.GetOrigin(), head.GetOrigin(), atol=1e-4)
    file = Path(store.folder("a_MR")) / "tumour.nii.gz"
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(CaseError, match="store-damaged"):
        store.read("a_MR")
    with pytest.raises(CaseError, match="store-damaged"):
        store.read("b_MR")
    store.write("a_MR", StoredBrain(head, brain, brain, {}), {}, "of the run")
    assert store.read("a_MR", "of the run").attributes == store.read("a_MR").attributes == {}
    with pytest.raises(CaseError, match=r"store-damaged.*another run"):
        store.read("a_MR", "of another")


def test_the_figure_of_quality_is_a_png_of_both_rows(head, brain, tmp_path):
    png = qc_figure(head, zscore(head, brain), brain, sitk.Cast(brain * 0, sitk.sitkUInt8), "T1: brain 1.9 l")
    (tmp_path / "q.png").write_bytes(png)
    size = sitk.ReadImage(str(tmp_path / "q.png")).GetSize()
    assert size[0] == 1040
    assert 250 < size[1] < 400
    assert png == qc_figure(head, zscore(head, brain), brain, sitk.Cast(brain * 0, sitk.sitkUInt8), "T1: brain 1.9 l")


def test_the_figure_of_quality_is_filled_by_the_brain_whatever_lies_around_it(head, brain):
    def figure(pad: int) -> bytes:
        image, mask = (sitk.ConstantPad(one, [pad, pad, 0], [pad, pad, 0], 0.0) for one in (head, brain))
        return qc_figure(image, image, mask, sitk.Cast(mask * 0, sitk.sitkUInt8), "")

    assert figure(40) == figure(60)
