"""The synthetic brains: what is said to be true of them is, in the images and in the files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from highdicom._standard_utils import check_required_attributes, get_iod_module_map
from pydicom import dcmread
from scipy.spatial.distance import pdist
from sklearn.metrics import roc_auc_score

from prognosis_dask.brain.template import icbm152
from prognosis_dask.cli.main import main
from prognosis_dask.config.job import SynthSection
from prognosis_dask.errors import JobError
from prognosis_dask.imaging.masks import read_mask
from prognosis_dask.imaging.roi import grid_of
from prognosis_dask.synthetic import SyntheticCohort, draw_brain_patients, make_cohort
from prognosis_dask.synthetic.brain import BIAS, LANDMARKS, NOISE, points_of
from prognosis_dask.synthetic.files import drawn_mask
from prognosis_dask.synthetic.patient import SEQUENCES
from tests.synthetic_brains import healthy_scan, made_scan

SETTINGS = SynthSection(patients=4, seed=0, study="brain", matrix=64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("brains") / "cohort"


@pytest.fixture(scope="module")
def made(folder) -> SyntheticCohort:
    return make_cohort(folder, SETTINGS)


def series(made: SyntheticCohort, patient_id: str, modality: str) -> list[list[Path]]:
    """The patient's DICOM files of a modality, by folder."""
    folders: dict[Path, list[Path]] = {}
    for path in sorted((made.images / patient_id).rglob("*.dcm")):
        if dcmread(path, specific_tags=["Modality"]).Modality == modality:
            folders.setdefault(path.parent, []).append(path)
    return list(folders.values())


def test_the_lesion_has_the_volume_and_the_diameters_that_are_said():
    lesion = made_scan(2).lesion
    axes = np.linspace(-40, 40, 81)
    points = np.stack(np.meshgrid(axes, axes, axes, indexing="ij")) + lesion.centre_mm[:, None, None, None]
    inside = lesion.level_mm(points) > 0
    assert inside.sum() / 1000 == pytest.approx(lesion.volume_ml, rel=0.005)
    circle = np.random.default_rng(0).standard_normal((3, 4000))
    surface = lesion.rotation @ (circle / np.linalg.norm(circle, axis=0) * lesion.semi_axes_mm[:, None])
    assert pdist(surface.T).max() == pytest.approx(lesion.diameter_3d_mm, rel=0.005)
    long_mm, short_mm = lesion.axial_diameters_mm
    section = np.argwhere(inside[:, :, 40])
    assert pdist(section).max() == pytest.approx(long_mm, abs=2)
    assert np.pi / 4 * long_mm * short_mm == pytest.approx(len(section), rel=0.02)


@pytest.mark.parametrize("number", [1, 2, 4])
def test_the_lesion_lies_in_the_brain_and_its_mask_has_its_volume(number):
    scan = made_scan(number)
    mask, brain = (sitk.GetArrayFromImage(i) > 0 for i in (scan.lesion_mask, scan.sequences["T2"].brain))
    assert mask.sum() * np.prod(scan.lesion_mask.GetSpacing()) / 1000 == pytest.approx(scan.lesion.volume_ml, rel=0.05)
    assert np.count_nonzero(mask & brain) / mask.sum() > 0.97


@pytest.mark.parametrize("number", [1, 2])
def test_landmarks_are_where_the_transforms_take_them(number):
    scan = made_scan(number)
    for name, at in LANDMARKS.items():
        on_reference = scan.landmarks["T2"][name]
        assert scan.to_template.TransformPoint(on_reference.tolist()) == pytest.approx(at, abs=1e-3)
        for sequence in SEQUENCES:
            moved = scan.sequences[sequence].to_reference.TransformPoint(scan.landmarks[sequence][name].tolist())
            assert moved == pytest.approx(on_reference, abs=1e-6)


def test_the_brain_mask_is_the_templates_warped():
    scan = made_scan(2)
    sequence = scan.sequences["T1"]
    whole = sitk.CompositeTransform([scan.to_template, sequence.to_reference])
    theirs = sitk.Resample(icbm152().brain, sequence.image, whole, sitk.sitkNearestNeighbor, 0)
    ours, expected = (sitk.GetArrayFromImage(mask) > 0 for mask in (sequence.brain, theirs))
    assert 2 * np.count_nonzero(ours & expected) / (ours.sum() + expected.sum()) > 0.985


@pytest.mark.parametrize("sequence", ["T1", "T2"])
def test_the_bias_field_is_what_makes_white_matter_uneven(sequence):
    scan = healthy_scan()
    made = scan.sequences[sequence]
    whole = sitk.CompositeTransform([scan.to_template, made.to_reference])
    white = sitk.GetArrayFromImage(sitk.Resample(icbm152().white, made.image, whole, sitk.sitkLinear, 0.0)) > 0.97
    image, bias = (sitk.GetArrayFromImage(i).astype(float)[white] for i in (made.image, made.bias))
    assert np.corrcoef(np.log(image), np.log(bias))[0, 1] > 0.75
    assert (image / bias).std() < 0.7 * image.std() * (image / bias).mean() / image.mean()
    inside = sitk.GetArrayFromImage(made.bias)[sitk.GetArrayFromImage(made.brain) > 0]
    assert np.abs(np.log(inside)).max() == pytest.approx(BIAS, abs=1e-5)


def test_noise_is_that_of_a_magnitude():
    """In air a magnitude has Rayleigh's distribution: mean and spread of the noise times 1.25 and 0.66."""
    corner = sitk.GetArrayFromImage(made_scan(2).sequences["T1"].image)[:, :6, :6].astype(float)
    assert corner.mean() == pytest.approx(NOISE * np.sqrt(np.pi / 2), rel=0.05)
    assert corner.std() == pytest.approx(NOISE * np.sqrt(2 - np.pi / 2), rel=0.08)


def test_tissues_have_the_contrast_of_their_sequence():
    template = icbm152()
    scan = healthy_scan()
    means = {}
    for name, sequence in scan.sequences.items():
        whole = sitk.CompositeTransform([scan.to_template, sequence.to_reference])
        values = sitk.GetArrayFromImage(sequence.image) / sitk.GetArrayFromImage(sequence.bias)
        grey, white, brain = (
            sitk.GetArrayFromImage(
                sitk.Resample(sitk.Cast(image, sitk.sitkFloat32), sequence.image, whole, sitk.sitkLinear, 0.0)
            )
            for image in (template.grey, template.white, template.brain)
        )
        fluid = (grey + white < 0.1) & (brain > 0.9)
        means[name] = [values[tissue].mean() for tissue in (grey > 0.9, white > 0.95, fluid)]
    for name, order in {"T1": (2, 0, 1), "T1c": (2, 0, 1), "T2": (1, 0, 2), "FLAIR": (2, 1, 0)}.items():
        assert tuple(np.argsort(means[name])) == order, name


def test_nifti_files_hold_the_images_and_the_mask(made):
    scan, folder = made_scan(1), made.images / "MADE-B0001"
    for name in SEQUENCES:
        stored = np.asarray(nibabel.load(folder / f"MADE-B0001_{name}.nii.gz").dataobj)
        np.testing.assert_array_equal(stored.transpose(2, 1, 0), sitk.GetArrayFromImage(scan.sequences[name].image))
    path = folder / "MADE-B0001_Segmentation.nii.gz"
    mask = read_mask(path, (), grid_of(scan.lesion_mask), resample=False)
    np.testing.assert_array_equal(mask, sitk.GetArrayFromImage(scan.lesion_mask) > 0)


@pytest.mark.parametrize("number", [2, 3])
def test_gdcm_reads_the_series_as_they_were_drawn(made, number):
    found = {}
    for files in series(made, f"MADE-B{number:04d}", "MR"):
        reader = sitk.ImageSeriesReader()
        (uid,) = reader.GetGDCMSeriesIDs(str(files[0].parent))
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(files[0].parent), uid))
        found[dcmread(files[0], specific_tags=["SeriesDescription"]).SeriesDescription] = reader.Execute()
    words = {"T2": "AX T2 FSE", "T1": "AX T1", "T1c": "AX T1 POST GD", "FLAIR": "AX T2 FLAIR"}
    assert set(found) == set(words.values())
    for name, sequence in made_scan(number).sequences.items():
        image = found[words[name]]
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(sequence.image))
        for value in ("GetSpacing", "GetOrigin", "GetDirection"):
            np.testing.assert_allclose(getattr(image, value)(), getattr(sequence.image, value)(), atol=1e-4)


@pytest.mark.parametrize(("number", "modality"), [(2, "RTSTRUCT"), (3, "SEG")])
def test_dicom_masks_hold_the_voxels_of_the_lesion(made, number, modality):
    ((path,),) = series(made, f"MADE-B{number:04d}", modality)
    scan = made_scan(number)
    drawn = sitk.GetArrayFromImage(scan.lesion_mask) > 0
    np.testing.assert_array_equal(read_mask(path, (1,), grid_of(scan.lesion_mask), resample=False), drawn)
    if modality == "SEG":
        seg = highdicom.seg.segread(path)
        assert seg.get_segment_description(1).SegmentDescription == "Tumour"
        assert np.count_nonzero(seg.pixel_array) == drawn.sum()


def test_one_patient_in_four_has_three_outlined_slices(made):
    patients = draw_brain_patients(SynthSection(patients=12, study="brain"))
    assert [p.patient_id for p in patients if p.outlined_slices] == ["MADE-B0004", "MADE-B0008", "MADE-B0012"]
    scan = made_scan(4)
    mask = read_mask(
        made.images / "MADE-B0004" / "MADE-B0004_Segmentation.nii.gz", (), grid_of(scan.lesion_mask), resample=False
    )
    whole = sitk.GetArrayFromImage(scan.lesion_mask) > 0
    held, outlined = (np.flatnonzero(m.any(axis=(1, 2))) for m in (whole, mask))
    assert len(held) > len(outlined) == 3
    assert (outlined[0], outlined[-1]) == (held[0], held[-1])
    np.testing.assert_array_equal(mask[outlined], whole[outlined])
    np.testing.assert_array_equal(mask, drawn_mask(scan, 3))


def test_every_attribute_that_the_standard_requires_of_mr_is_there(made):
    modules = [module["key"] for module in get_iod_module_map()["mr-image"] if module["usage"] == "M"]
    for files in series(made, "MADE-B0002", "MR"):
        for module in modules:
            check_required_attributes(dcmread(files[0]), module)


def test_the_truth_is_what_the_images_were_made_from(made, folder):
    scan = made_scan(4)
    truth = json.loads((folder / "truth" / "MADE-B0004" / "truth.json").read_text())
    assert truth["volume_ml"] == scan.lesion.volume_ml
    assert truth["centre_mm"] == scan.lesion.centre_mm.tolist()
    assert truth["landmarks_mm"]["T1"]["vertex"] == pytest.approx(scan.landmarks["T1"]["vertex"], abs=1e-3)
    lesion = sitk.ReadImage(str(folder / "truth" / "MADE-B0004" / "lesion.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(lesion), sitk.GetArrayFromImage(scan.lesion_mask))
    brain = sitk.ReadImage(str(folder / "truth" / "MADE-B0004" / "brain_FLAIR.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(brain), sitk.GetArrayFromImage(scan.sequences["FLAIR"].brain))


def test_the_table_has_grade_and_status_of_every_patient(made):
    with made.clinical.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["PatientID"] for row in rows] == [f"MADE-B{n:04d}" for n in range(1, 5)]
    assert {row["grade"] for row in rows} == {"2", "3"}
    assert {row["1p/19q"] for row in rows} <= {"0", "1"}
    assert made.files == sum(1 for path in made.images.rglob("*") if path.is_file())


def test_same_settings_give_the_same_bytes_and_a_patient_does_not_depend_on_the_others(made, folder, tmp_path):
    again = make_cohort(tmp_path / "again", SynthSection(patients=2, seed=0, study="brain", matrix=64))
    for root, other in ((again.images, made.images), (tmp_path / "again" / "truth", folder / "truth")):
        for path in root.rglob("*"):
            if path.is_file():
                assert path.read_bytes() == (other / path.relative_to(root)).read_bytes(), path.name


@pytest.mark.parametrize(("signal", "least", "most"), [(1.0, 0.93, 1.0), (0.0, 0.45, 0.55)])
def test_signal_is_what_the_lesion_says_about_grade_and_status(signal, least, most):
    patients = draw_brain_patients(SynthSection(patients=1000, signal=signal, study="brain"))
    grade, codeleted = ([getattr(p, name) for p in patients] for name in ("grade", "codeleted"))
    assert least < roc_auc_score(np.equal(grade, 3), [p.texture for p in patients]) <= most
    assert least < roc_auc_score(np.equal(grade, 3), [p.enhancement for p in patients]) <= most
    assert least < roc_auc_score(codeleted, [-p.mismatch for p in patients]) <= most
    assert 0.45 < roc_auc_score(np.equal(grade, 3), [p.radius_mm for p in patients]) < 0.55
    assert np.mean(np.equal(grade, 3)) == 0.5


def test_what_the_table_says_can_be_seen_in_the_lesions():
    """Grade 3 takes up contrast agent; without co-deletion the middle is dark on FLAIR but not on T2."""
    one, two = made_scan(1), made_scan(2)  # grade 3 without, grade 2 with co-deletion

    def middle(scan, name: str) -> float:
        image = scan.sequences[name]
        level = scan.lesion.level_mm(points_of(image.image))  # moved by 3 mm at most: the middle is still the lesion's
        values = sitk.GetArrayFromImage(image.image) / sitk.GetArrayFromImage(image.bias)
        return float(values[level > 0.5 * scan.lesion.semi_axes_mm[2]].mean())

    assert middle(one, "T1c") - middle(one, "T1") > 200 + middle(two, "T1c") - middle(two, "T1")
    assert middle(one, "FLAIR") < 0.75 * middle(two, "FLAIR")
    assert middle(one, "T2") == pytest.approx(middle(two, "T2"), rel=0.25)


def test_the_command_makes_the_cohort(tmp_path, capsys):
    main(["synth", str(tmp_path / "c"), "--study", "brain", "--patients", "1", "--matrix", "32"])
    assert "1 patient, 5 files" in capsys.readouterr().out
    assert (tmp_path / "c" / "manifest-made" / "MADE-BRAIN" / "MADE-B0001" / "MADE-B0001_T2.nii.gz").is_file()


def test_too_small_a_matrix_is_a_mistake(tmp_path):
    with pytest.raises(JobError, match=r"synth\.matrix is 16, expected 32 or more"):
        make_cohort(tmp_path, SynthSection(patients=1, study="brain", matrix=16))
