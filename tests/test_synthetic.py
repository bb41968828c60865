"""The synthetic cohort: valid DICOM, exact masks, repeatable, and with the requested outcome."""

from __future__ import annotations

import csv
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pytest
import SimpleITK as sitk
from highdicom._standard_utils import check_required_attributes, get_iod_module_map, get_module_attribute_map
from lifelines.utils import concordance_index
from matplotlib.path import Path as Polygon
from pydicom import Dataset, dcmread

from prognosis_dask.cohort.case import read_cases, read_problems
from prognosis_dask.cohort.index import index_cohort
from prognosis_dask.config.job import CohortSection, ImageSection, SynthSection, load_job
from prognosis_dask.errors import CaseError, Code, JobError, StoreError
from prognosis_dask.imaging.load import load_roi
from prognosis_dask.synthetic import SyntheticCohort, draw_patients, make_cohort
from prognosis_dask.synthetic.chest import SLICE_STEP_MM, Phantom, make_phantom
from prognosis_dask.synthetic.patient import FAULTS

SETTINGS = SynthSection(patients=3, seed=7, bad_cases=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("synthetic") / "cohort"


@pytest.fixture(scope="module")
def made(folder) -> SyntheticCohort:
    return make_cohort(folder, SETTINGS)


@pytest.fixture(scope="module")
def phantoms() -> dict[str, Phantom]:
    return {patient.patient_id: make_phantom(patient) for patient in draw_patients(SETTINGS)}


def instances(made: SyntheticCohort, patient_id: str, modality: str) -> list[Path]:
    files = sorted((made.images / patient_id).rglob("*.dcm"))
    return [path for path in files if dcmread(path, specific_tags=["Modality"]).Modality == modality]


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("patient_id", ["MADE-0001", "MADE-0002", "MADE-0003"])
def test_gdcm_reads_the_series_as_it_was_drawn(made, phantoms, patient_id):
    phantom = phantoms[patient_id]
    folder = instances(made, patient_id, "CT")[0].parent
    reader = sitk.ImageSeriesReader()
    (series,) = reader.GetGDCMSeriesIDs(str(folder))
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder), series))
    image = reader.Execute()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), phantom.image_hu)
    np.testing.assert_allclose(image.GetSpacing(), (phantom.spacing_mm, phantom.spacing_mm, SLICE_STEP_MM), rtol=1e-9)
    np.testing.assert_allclose(image.GetOrigin(), phantom.origin_mm, atol=1e-4)
    assert image.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)


def test_pydicom_reads_the_pixels_as_they_were_drawn(made, phantoms):
    slices = [dcmread(path) for path in instances(made, "MADE-0001", "CT")]
    slices.sort(key=lambda ds: ds.ImagePositionPatient[2])
    pixels = np.stack([ds.pixel_array * ds.RescaleSlope + ds.RescaleIntercept for ds in slices])
    np.testing.assert_array_equal(pixels, phantoms["MADE-0001"].image_hu)
    assert pixels.min() >= -1024
    assert -1010 < np.median(pixels[:, :8, :8]) < -990


@pytest.mark.parametrize("patient_id", ["MADE-0001", "MADE-0003"])
def test_rtstruct_polygons_hold_exactly_the_centres_of_the_masks_voxels(made, phantoms, patient_id):
    phantom = phantoms[patient_id]
    (path,) = instances(made, patient_id, "RTSTRUCT")
    np.testing.assert_array_equal(even_odd(dcmread(path), "GTV-1", phantom), phantom.mask)


def even_odd(ds: Dataset, name: str, phantom: Phantom) -> np.ndarray:
    """A voxel is inside when its centre lies in an odd number of its slice's polygons (matplotlib decides each)."""
    (number,) = [roi.ROINumber for roi in ds.StructureSetROISequence if roi.ROIName == name]
    (roi,) = [roi for roi in ds.ROIContourSequence if roi.ReferencedROINumber == number]
    _, rows, columns = phantom.mask.shape
    x = phantom.origin_mm[0] + phantom.spacing_mm * np.arange(columns)
    y = phantom.origin_mm[1] + phantom.spacing_mm * np.arange(rows)
    centres = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    mask = np.zeros(phantom.mask.shape, bool)
    for contour in roi.ContourSequence:
        points = np.array(contour.ContourData, float).reshape(-1, 3)
        assert contour.NumberOfContourPoints == len(points)
        assert np.ptp(points[:, 2]) == 0
        index = (points[0, 2] - phantom.origin_mm[2]) / SLICE_STEP_MM
        assert index == int(index)
        closed = np.vstack([points[:, :2], points[:1, :2]])
        mask[int(index)] ^= Polygon(closed).contains_points(centres).reshape(rows, columns)
    return mask


def test_rtstruct_names_the_lesion_and_the_organs(made):
    ds = dcmread(instances(made, "MADE-0001", "RTSTRUCT")[0])
    names = [roi.ROIName for roi in ds.StructureSetROISequence]
    assert names == ["Lung-Left", "Lung-Right", "Spinal-Cord", "GTV-1"]


def test_one_rtstruct_in_ten_has_a_hole(phantoms):
    patients = [patient for patient in draw_patients(replace(SETTINGS, patients=20)) if patient.cavity]
    assert [patient.patient_id for patient in patients] == ["MADE-0001", "MADE-0011"]
    middle = phantoms["MADE-0001"].mask[len(phantoms["MADE-0001"].mask) // 2]
    filled = sitk.GetArrayFromImage(sitk.BinaryFillhole(sitk.GetImageFromArray(middle.astype(np.uint8))))
    assert filled.sum() > middle.sum()


def test_highdicom_reads_the_segmentation_as_it_was_drawn(made, phantoms):
    (path,) = instances(made, "MADE-0002", "SEG")
    seg = highdicom.seg.segread(path)
    segment = seg.get_segment_description(1)
    assert segment.segment_label == "Neoplasm, Primary"
    assert segment.SegmentDescription == "GTV-1"
    ct = sorted((dcmread(p) for p in instances(made, "MADE-0002", "CT")), key=lambda ds: ds.ImagePositionPatient[2])
    pixels = seg.get_pixels_by_source_instance([ds.SOPInstanceUID for ds in ct], ignore_spatial_locations=False)
    np.testing.assert_array_equal(pixels[..., 0].astype(bool), phantoms["MADE-0002"].mask)


@pytest.mark.parametrize(
    ("patient_id", "modality", "iod"),
    [
        ("MADE-0001", "CT", "ct-image"),
        ("MADE-0001", "RTSTRUCT", "rt-structure-set"),
        ("MADE-0002", "SEG", "segmentation"),
    ],
)
def test_every_attribute_that_the_standard_requires_is_there(made, patient_id, modality, iod):
    """highdicom's copy of the standard's tables lists the type 1 and 2 attributes of each mandatory module."""
    modules = [module["key"] for module in get_iod_module_map()[iod] if module["usage"] == "M"]
    for path in instances(made, patient_id, modality):
        ds = dcmread(path)
        for module in modules:
            # which functional groups of a SEG are shared and which stand with each frame, the tables do not say
            check_required_attributes(ds, module, recursive=modality != "SEG")
            for attribute in get_module_attribute_map()[module]:
                if attribute["type"] == "1" and not attribute["path"]:
                    assert not ds[attribute["keyword"]].is_empty


def test_every_instance_has_its_own_identifier_and_links_to_its_series(made):
    files = [path for path in made.images.rglob("*.dcm") if not path.parts[-4].startswith("BAD")]
    headers = [dcmread(path, stop_before_pixels=True) for path in files]
    assert len({ds.SOPInstanceUID for ds in headers}) == len(headers)
    series = {ds.SeriesInstanceUID: ds for ds in headers if ds.Modality == "CT"}
    for ds in headers:
        if ds.Modality == "RTSTRUCT":
            study = ds.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
            ct = series[study.RTReferencedSeriesSequence[0].SeriesInstanceUID]
        elif ds.Modality == "SEG":
            ct = series[ds.ReferencedSeriesSequence[0].SeriesInstanceUID]
        else:
            continue
        same = ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID")
        assert [ds[name].value for name in same] == [ct[name].value for name in same]


def test_same_settings_give_the_same_bytes_in_any_order(made, folder, tmp_path):
    with ThreadPoolExecutor(3) as pool:
        again = make_cohort(tmp_path / "again", SETTINGS, map=pool.map)
    assert again.files == made.files
    assert content(tmp_path / "again") == content(folder)


def test_a_patients_files_do_not_depend_on_how_many_there_are(made, tmp_path):
    one = make_cohort(tmp_path, replace(SETTINGS, patients=1, bad_cases=False))
    assert content(one.images / "MADE-0001") == content(made.images / "MADE-0001")
    assert table(one.clinical) == table(made.clinical)[:1]


def test_another_seed_gives_other_patients():
    ours, theirs = draw_patients(SETTINGS)[0], draw_patients(replace(SETTINGS, seed=8))[0]
    assert ours.size_score != theirs.size_score


def test_a_complete_cohort_is_kept_untouched(made, folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert make_cohort(folder, SETTINGS) == made
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_cohort_cut_off_in_the_making_is_made_again(tmp_path):
    settings = replace(SETTINGS, patients=2, bad_cases=False)

    def stop_after_one(function, patients):
        yield function(patients[0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_cohort(tmp_path / "cut", settings, map=stop_after_one)
    make_cohort(tmp_path / "cut", settings)
    make_cohort(tmp_path / "whole", settings)
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


def test_a_folder_with_something_else_is_refused(made, folder, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(StoreError, match="something other"):
        make_cohort(tmp_path, SETTINGS)
    with pytest.raises(StoreError, match="another folder"):
        make_cohort(folder, replace(SETTINGS, signal=0.0))
    with pytest.raises(StoreError, match=r"cannot write in .*letter\.txt.*; choose another folder"):
        make_cohort(tmp_path / "letter.txt" / "below", SETTINGS)


def test_a_cohort_without_patients_is_a_mistake(tmp_path):
    with pytest.raises(JobError, match="-2 patients were requested, expected one or more"):
        make_cohort(tmp_path, replace(SETTINGS, patients=-2, seed=7))


def test_the_table_of_planted_cases_names_every_fault(made, folder):
    planted = {row["patient_id"]: row["code"] for row in table(made.planted)}
    assert planted == {fault.patient_id: fault.code.value for fault in FAULTS}
    assert made.bad_patients == len(FAULTS)
    on_disk = {path.name for path in made.images.iterdir() if path.name.startswith("BAD")}
    in_table = {row["PatientID"] for row in table(made.clinical) if row["PatientID"].startswith("BAD")}
    assert set(planted) - on_disk == {fault.patient_id for fault in FAULTS if fault.code is Code.NO_IMAGES}
    assert set(planted) - in_table == {fault.patient_id for fault in FAULTS if fault.code is Code.NO_CLINICAL_ROW}
    assert made.files == len(list(folder.rglob("*.dcm")))


def outcome(signal: float) -> dict[str, np.ndarray]:
    patients = draw_patients(SynthSection(patients=1000, signal=signal, bad_cases=False))
    names = ("time_days", "event", "radius_mm", "texture_hu")
    return {name: np.array([getattr(patient, name) for patient in patients], float) for name in names}


@pytest.mark.parametrize(
    ("signal", "expected", "tolerance"), [(1.0, 0.735, 0.03), (0.0, 0.5, 0.03), (-1.0, 0.265, 0.03)]
)
def test_signal_is_what_size_says_about_survival(signal, expected, tolerance):
    drawn = outcome(signal)
    c_index = concordance_index(drawn["time_days"], -np.log(drawn["radius_mm"]), drawn["event"])
    assert c_index == pytest.approx(expected, abs=tolerance)


def test_texture_drives_survival_too_and_a_quarter_is_censored():
    drawn = outcome(1.0)
    assert concordance_index(drawn["time_days"], -drawn["texture_hu"], drawn["event"]) > 0.6
    assert 0.2 < 1 - drawn["event"].mean() < 0.33
    assert 0.3 < (drawn["time_days"] < 365).mean() < 0.6


def test_a_larger_score_makes_a_larger_mask():
    patients = draw_patients(SynthSection(patients=12, bad_cases=False))
    phantoms = [make_phantom(replace(patient, cavity=False)) for patient in patients]
    volumes = [phantom.mask.sum() * phantom.spacing_mm**2 for phantom in phantoms]
    assert np.corrcoef(np.log(volumes), [patient.size_score for patient in patients])[0, 1] > 0.97


def test_the_demo_job_is_valid():
    job = load_job(Path(__file__).parents[1] / "jobs" / "demo.toml")
    assert job.synth.patients > 0
    assert job.cohort.roi == ("GTV-1",)


def test_index_and_load_report_exactly_the_planted_cases(made, phantoms, tmp_path):
    rules = CohortSection(clinical=str(made.clinical), roi=("GTV-1",), roi_policy="first")
    index_cohort([made.images], tmp_path, rules)
    found = {problem.patient_id: problem.code.value for problem in read_problems(tmp_path / "problems.csv")}
    for case in read_cases(tmp_path / "cases.csv"):
        try:
            roi = load_roi(case, ImageSection(), full=True)
        except CaseError as error:
            found[case.patient_id] = error.problem.code.value
            continue
        if case.patient_id in phantoms:
            np.testing.assert_array_equal(sitk.GetArrayFromImage(roi.image), phantoms[case.patient_id].image_hu)
            np.testing.assert_array_equal(sitk.GetArrayFromImage(roi.mask), phantoms[case.patient_id].mask)
    assert found == {row["patient_id"]: row["code"] for row in table(made.planted)}
