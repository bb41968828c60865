"""The automatic candidate: where it is found on synthetic brains, where it must not be, and what it is called."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from prognosis_dask.brain.candidate import FoundTumour, automatic_candidate
from prognosis_dask.brain.orient import axial
from prognosis_dask.brain.preprocess import preprocess
from prognosis_dask.brain.size import tumour_size
from prognosis_dask.config.job import BrainSection
from prognosis_dask.errors import CaseError, Code
from prognosis_dask.synthetic.brain import points_of
from tests.heads import prepared
from tests.synthetic_brains import dice, healthy_scan, made_scan, on_reference


@pytest.fixture(scope="module")
def images() -> dict[str, sitk.Image]:
    return on_reference(made_scan(2), "T2", "FLAIR", "T1")


@pytest.fixture(scope="module")
def brain() -> sitk.Image:
    return made_scan(2).sequences["T2"].brain


@pytest.fixture(scope="module")
def found(images, brain) -> FoundTumour:
    return automatic_candidate(images, brain)


def code_of(images: dict[str, sitk.Image], brain: sitk.Image) -> Code:
    with pytest.raises(CaseError) as caught:
        automatic_candidate(images, brain)
    return caught.value.problem.code


def test_a_synthetic_glioma_is_found_on_flair_and_t2(found):
    assert dice(found.mask, made_scan(2).lesion_mask) > 0.75
    assert found.sequences == ("FLAIR", "T2")
    assert 0 < found.confidence <= 1


def test_a_glioma_with_a_dark_middle_on_flair_is_found_whole():
    scan = made_scan(1)
    candidate = automatic_candidate(on_reference(scan, "T2", "FLAIR"), scan.sequences["T2"].brain)
    assert dice(candidate.mask, scan.lesion_mask) > 0.7


@pytest.mark.parametrize("sequence", ["T2", "FLAIR"])
def test_one_of_the_two_sequences_is_enough(images, brain, sequence):
    candidate = automatic_candidate({sequence: images[sequence]}, brain)
    assert dice(candidate.mask, made_scan(2).lesion_mask) > 0.6
    assert candidate.sequences == (sequence,)


def test_a_healthy_brain_has_no_candidate():
    scan = healthy_scan()
    brain = scan.sequences["T2"].brain
    assert code_of(on_reference(scan, "T2", "FLAIR"), brain) is Code.NO_CANDIDATE
    assert code_of(on_reference(scan, "T2"), brain) is Code.NO_CANDIDATE


def test_a_tumour_that_has_crossed_the_middle_is_found():
    """It is its own mirror image: only its thickness tells it from fluid."""
    scan = healthy_scan()
    image, brain = on_reference(scan, "T2")["T2"], scan.sequences["T2"].brain
    middle = scan.landmarks["T2"]["frontal-pole"] + np.array([0, 35, 20])
    inside = (np.linalg.norm(points_of(image) - middle[:, None, None, None], axis=0) < 26) & (
        sitk.GetArrayFromImage(brain) > 0
    )
    array = sitk.GetArrayFromImage(image)
    array[inside] = 900 + 30 * np.random.default_rng(0).standard_normal(np.count_nonzero(inside))
    truth = sitk.GetImageFromArray(inside.astype(np.uint8))
    for made in (spoilt := sitk.GetImageFromArray(array), truth):
        made.CopyInformation(image)
    assert dice(automatic_candidate({"T2": spoilt}, brain).mask, truth) > 0.8


@pytest.mark.slow
def test_a_real_glioma_overlaps_its_outline_by_as_much_as_its_confidence_says(shared_data):
    images, brain = prepared(shared_data, "DU7294")
    truth = axial(sitk.ReadImage(str(shared_data / "heads" / "DU7294_tumour_T2.nii.gz")))
    truth = sitk.Resample(truth, brain, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    for names, least in ((("T2", "FLAIR"), 0.82), (("FLAIR",), 0.82), (("T2",), 0.75)):
        candidate = automatic_candidate({name: images[name] for name in names}, brain)
        assert dice(candidate.mask, truth) >= least
        assert candidate.confidence <= dice(candidate.mask, truth) + 0.02


@pytest.mark.slow
def test_real_gliomas_are_found_where_they_can_be_seen(shared_data):
    """TCGA-02-0054 has one in the left temporal lobe and insula, LGG-203 one of 6 to 7 cm in both frontal lobes."""
    folder = shared_data / "brain"
    images = {name: sitk.ReadImage(str(folder / f"TCGA-02-0054_{name}.nii.gz")) for name in ("T1", "T2", "FLAIR")}
    one = preprocess({name: axial(image) for name, image in images.items()}, BrainSection(), reference="FLAIR")
    found = tumour_size(automatic_candidate(one.images, one.brain_mask).mask, one.to_template)
    assert 25 < found.volume_ml < 70
    assert found.template_mm == pytest.approx((32, 0, -10), abs=12)
    frontal = axial(sitk.ReadImage(str(folder / "smooth_LGG-203_T2.nii.gz")))
    other = preprocess({"T2": frontal}, BrainSection())
    found = tumour_size(automatic_candidate(other.images, other.brain_mask).mask, other.to_template)
    assert 110 < found.volume_ml < 200
    x, y, _ = found.template_mm
    assert abs(x) < 20
    assert y < 0


def test_units_and_offset_of_the_images_do_not_matter(images, brain, found):
    scaled = {"FLAIR": images["FLAIR"] * 0.01 - 3.0, "T2": images["T2"] * 7.0 + 100.0}
    assert dice(automatic_candidate(scaled, brain).mask, found.mask) > 0.999


def test_the_mirrored_patient_has_the_mirrored_candidate(images, brain, found):
    def mirrored(image: sitk.Image) -> sitk.Image:
        flipped = sitk.GetImageFromArray(sitk.GetArrayFromImage(image)[:, :, ::-1])
        flipped.CopyInformation(image)
        return flipped

    candidate = automatic_candidate({name: mirrored(image) for name, image in images.items()}, mirrored(brain))
    assert dice(candidate.mask, mirrored(found.mask)) > 0.97


def test_the_candidate_lies_within_the_brain(found, brain):
    outside = sitk.GetArrayFromImage(brain) == 0
    assert not sitk.GetArrayFromImage(found.mask)[outside].any()


def test_what_a_candidate_cannot_be_looked_for_in_is_a_problem(images, brain):
    assert code_of({"T1": images["T1"]}, brain) is Code.NO_CANDIDATE
    assert code_of(images, brain * 0) is Code.MASK_EMPTY
    assert code_of({"T2": images["T2"] * 0.0}, brain) is Code.IMAGE_INVALID
