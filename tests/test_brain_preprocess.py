"""Heads made and real: stripped, corrected, registered; and what is no head is refused."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import SimpleITK as sitk

from prognosis_dask.brain.preprocess import Preprocessed, kind_of, preprocess
from prognosis_dask.brain.register import rigid
from prognosis_dask.brain.strip import strip
from prognosis_dask.config.job import BrainSection
from prognosis_dask.errors import CaseError, Code
from prognosis_dask.synthetic.brain import LANDMARKS, SyntheticScan, make_scan
from prognosis_dask.synthetic.patient import draw_brain_patient

pytestmark = pytest.mark.slow

SEQUENCES = ("T1", "T1c", "T2", "FLAIR")


def dice(one: sitk.Image, other: sitk.Image) -> float:
    a, b = (sitk.GetArrayViewFromImage(mask) > 0 for mask in (one, other))
    return float(2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b)))


@pytest.fixture(scope="module")
def scan() -> SyntheticScan:
    return make_scan(draw_brain_patient(2, seed=0, signal=1.0), 64)


@pytest.fixture(scope="module")
def made(scan: SyntheticScan) -> Preprocessed:
    return preprocess({name: scan.sequences[name].image for name in ("T2", "T1")}, BrainSection())


@pytest.fixture(scope="module")
def glioma(shared_data) -> Mapping[str, sitk.Image]:
    return {name: sitk.ReadImage(str(shared_data / "brain" / f"TCGA-02-0054_{name}.nii.gz")) for name in SEQUENCES}


@pytest.fixture(scope="module")
def whole(glioma) -> Preprocessed:
    return preprocess({"T1": glioma["T1"]}, BrainSection())


def test_a_made_head_is_stripped_to_its_planted_brain(scan, made):
    assert dice(made.brain_mask, scan.sequences["T2"].brain) >= 0.95
    assert not made.stripped_before


def test_the_way_to_the_template_is_right_within_two_millimetres(scan, made):
    errors = [
        np.linalg.norm(np.subtract(made.to_template.TransformPoint(tuple(at)), LANDMARKS[name]))
        for name, at in scan.landmarks["T2"].items()
    ]
    assert np.mean(errors) < 2.0


def test_sequences_lie_on_the_references_grid_with_comparable_values(scan, made):
    reference = scan.sequences["T2"].image
    inside = sitk.GetArrayViewFromImage(made.brain_mask) > 0
    for image in made.images.values():
        assert image.GetSize() == reference.GetSize()
        assert np.allclose(image.GetOrigin(), reference.GetOrigin())
        values = sitk.GetArrayFromImage(image)
        assert not values[~inside].any()
        assert values[inside].mean() == pytest.approx(0, abs=1e-4)
        assert values[inside].std() == pytest.approx(1, abs=1e-4)


def test_the_same_input_gives_the_same_values_whatever_the_threads(scan, made):
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(4)
    again = preprocess({name: scan.sequences[name].image for name in ("T2", "T1")}, BrainSection())
    assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == 4
    for name, image in made.images.items():
        assert np.array_equal(sitk.GetArrayViewFromImage(image), sitk.GetArrayViewFromImage(again.images[name]))
    assert again.quality == pytest.approx(made.quality, nan_ok=True)


def test_four_sequences_of_a_patient_are_prepared_together(glioma):
    done = preprocess(glioma, BrainSection(), reference="T2")
    assert set(done.images) == set(SEQUENCES)
    assert 1.0 < done.quality["brain_volume_l"] < 1.4
    assert done.quality["template_overlap"] > 0.93
    assert max(done.quality[f"moved_mm_{name}"] for name in ("T1c", "T2", "FLAIR")) < 5.0


def test_the_two_sequences_that_differ_most_are_stripped_alike_on_their_own(glioma):
    """How far each of the four is from the truth tells tests/test_brain_heads.py."""
    t1c, flair = (sitk.Cast(glioma[name], sitk.sitkFloat32) for name in ("T1c", "FLAIR"))
    one, other = strip(t1c, kind_of("T1c")).brain, strip(flair, kind_of("FLAIR")).brain
    assert dice(one, sitk.Resample(other, t1c, rigid(t1c, flair)[0], sitk.sitkNearestNeighbor)) >= 0.93


def test_t2_alone_keeps_the_whole_brain_and_little_around_it(scan):
    image = sitk.Cast(scan.sequences["T2"].image, sitk.sitkFloat32)
    found = strip(image, "t2").brain
    assert dice(found, scan.sequences["T2"].brain) >= 0.96
    assert dice(scan.sequences["T2"].brain, sitk.And(found, scan.sequences["T2"].brain)) >= 0.99


def test_a_stripped_image_is_known_as_such(shared_data):
    image = sitk.ReadImage(str(shared_data / "brain" / "smooth_LGG-203_T2.nii.gz"))
    done = preprocess({"T2": image}, BrainSection())
    assert done.stripped_before
    inside = sitk.GetArrayViewFromImage(done.brain_mask) > 0
    # all that is bright in it is brain, nothing was cut away
    bright = sitk.GetArrayViewFromImage(image) > 200
    assert np.count_nonzero(bright & inside) > 0.99 * np.count_nonzero(bright)
    assert done.quality["template_overlap"] > 0.85


def test_part_of_a_head_is_stripped_as_the_whole_is(glioma, whole):
    part = slice(7, 18)  # without the top and the foot
    done = preprocess({"T1": glioma["T1"][:, :, part]}, BrainSection())
    assert dice(done.brain_mask, whole.brain_mask[:, :, part]) > 0.93
    assert done.quality["coverage"] < 0.9


def refused(sequences: Mapping[str, sitk.Image]) -> CaseError:
    with pytest.raises(CaseError) as caught:
        preprocess(sequences, BrainSection())
    return caught.value


def test_a_head_upside_down_is_refused_with_the_turn(glioma):
    image = sitk.Image(glioma["T1"])
    middle = image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])
    turn = np.diag([-1.0, 1.0, -1.0])
    image.SetDirection((turn @ np.reshape(image.GetDirection(), (3, 3))).ravel().tolist())
    image.SetOrigin((turn @ np.subtract(image.GetOrigin(), middle) + middle).tolist())
    error = refused({"T1": image})
    assert error.problem.code is Code.ORIENTATION
    assert "upside down" in error.problem.reason


def test_what_shows_no_brain_is_refused():
    noise = sitk.GetImageFromArray(np.random.default_rng(0).normal(100, 20, (30, 128, 128)).astype(np.float32))
    noise.SetSpacing((2.0, 2.0, 5.0))
    assert refused({"T1": noise}).problem.code is Code.BRAIN_NOT_FOUND


def test_part_of_another_organ_is_refused(shared_data):
    prostate = sitk.ReadImage(str(shared_data / "nifti_edge" / "img.nii.gz"))  # 63 x 49 x 60 mm
    assert refused({"T2": prostate}).problem.code is Code.VOXEL_SIZE


def test_sequences_of_two_places_are_refused(glioma):
    rng = np.random.default_rng(0)
    other = sitk.GetImageFromArray(rng.normal(100, 20, glioma["T2"].GetSize()[::-1]).astype(np.float32))
    other.CopyInformation(glioma["T2"])
    assert refused({"T1": glioma["T1"], "T2": other}).problem.code is Code.SEQUENCES_APART


def test_a_head_where_the_job_expects_none_is_refused(glioma):
    with pytest.raises(CaseError, match=r"brain\.skull_strip is 'none'"):
        preprocess({"T1": glioma["T1"]}, BrainSection(skull_strip="none"))
