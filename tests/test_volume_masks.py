"""Label maps for DICOM series: linked by patient and grid, with the voxels that the RTSTRUCT gives."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from prognosis_dask.cohort.case import Case, read_cases, read_problems
from prognosis_dask.cohort.index import index_cohort
from prognosis_dask.config.job import CohortSection, ImageSection
from prognosis_dask.errors import Code, Problem
from prognosis_dask.imaging.load import load_case
from tests.dicom_helpers import problem_of

PATIENTS = ("STS_002", "STS_015", "STS_041")


def indexed(out: Path, *sources: Path, **section: object) -> tuple[list[Case], list[Problem]]:
    index_cohort(sources, out, CohortSection(**section))  # type: ignore[arg-type]
    return read_cases(out / "cases.csv"), read_problems(out / "problems.csv")


def arrays(case: Case) -> tuple[np.ndarray, np.ndarray]:
    image, mask = load_case(case)
    return sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(mask)


def linked(folder: Path, name: str, target: Path) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)
    return path


@pytest.fixture(scope="module")
def drawn(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Case]:
    """The cases of the RTSTRUCTs, by patient and modality."""
    sources = [shared_data / "sts" / patient / part for patient in PATIENTS for part in ("CT", "MR_T1", "PET")]
    cases, _ = indexed(tmp_path_factory.mktemp("rtstruct"), *sources)
    return {(case.patient_id, case.modality): case for case in cases}


def test_nifti_masks_give_the_cases_of_the_rtstructs(
    drawn: dict[tuple[str, str], Case], shared_data: Path, tmp_path: Path
) -> None:
    images = [shared_data / "sts" / p / part / "image" for p in PATIENTS for part in ("CT", "MR_T1", "PET")]
    cases, problems = indexed(tmp_path, *images, *(shared_data / "sts" / p / "nifti" for p in PATIENTS))
    assert problems == []
    assert {(case.patient_id, case.modality): Path(case.mask).name for case in cases} == {
        (patient, modality): name
        for patient in PATIENTS
        for modality, name in (("CT", "CT_mask.nii.gz"), ("MR", "MR_T1_mask.nii.gz"), ("PT", "PET_mask.nii.gz"))
    }
    for case in cases:
        (image, mask), (other_image, other_mask) = arrays(case), arrays(drawn[case.patient_id, case.modality])
        np.testing.assert_array_equal(image, other_image)
        np.testing.assert_array_equal(mask, other_mask)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("turned", [(0, 1, 2), (2, 0, 1)])
def test_axes_in_any_order_and_direction_are_the_same_grid(
    drawn: dict[tuple[str, str], Case], shared_data: Path, tmp_path: Path, suffix: str, turned: tuple[int, int, int]
) -> None:
    source = sitk.ReadImage(str(shared_data / "sts" / "STS_015" / "nifti" / "MR_T1_mask.nii.gz"))
    mask = sitk.PermuteAxes(sitk.Flip(source, (True, False, True)), turned)
    sitk.WriteImage(mask, str(tmp_path / f"STS_015_MR_mask{suffix}"))
    images = [shared_data / "sts" / patient / part / "image" for patient in PATIENTS for part in ("MR_T1", "CT")]
    [case], _ = indexed(tmp_path / "out", *images, tmp_path / f"STS_015_MR_mask{suffix}")
    np.testing.assert_array_equal(arrays(case)[1], arrays(drawn["STS_015", "MR"])[1])


def test_a_cropped_mask_lies_in_its_place(
    drawn: dict[tuple[str, str], Case], shared_data: Path, tmp_path: Path
) -> None:
    """Slicer writes the extent of the segments alone."""
    mask = sitk.ReadImage(str(shared_data / "sts" / "STS_041" / "nifti" / "CT_mask.nii.gz"))
    held = np.argwhere(sitk.GetArrayViewFromImage(mask))
    low, high = held.min(axis=0)[::-1], held.max(axis=0)[::-1] + 1
    cut = mask[low[0] : high[0], low[1] : high[1], low[2] : high[2]]  # type: ignore[misc]
    sitk.WriteImage(cut, str(tmp_path / "STS_041 Segmentation.seg.nrrd"))
    [case], _ = indexed(
        tmp_path / "out", shared_data / "sts" / "STS_041" / "CT" / "image", tmp_path / "STS_041 Segmentation.seg.nrrd"
    )
    np.testing.assert_array_equal(arrays(case)[1], arrays(drawn["STS_041", "CT"])[1])


def test_a_name_without_patient_is_found_by_its_grid_alone(
    drawn: dict[tuple[str, str], Case], shared_data: Path, tmp_path: Path
) -> None:
    images = [shared_data / "sts" / patient / "CT" / "image" for patient in PATIENTS]
    linked(tmp_path, "masks/tumour.nii.gz", shared_data / "sts" / "STS_015" / "nifti" / "CT_mask.nii.gz")
    summary = index_cohort([*images, tmp_path / "masks"], tmp_path / "out", CohortSection())
    [case] = read_cases(tmp_path / "out" / "cases.csv")
    assert (case.patient_id, case.roi, summary.by_geometry, summary.masks["label map"]) == ("STS_015", "tumour", 1, 1)
    np.testing.assert_array_equal(arrays(case)[1], arrays(drawn["STS_015", "CT"])[1])


def test_a_mask_of_another_patient_is_not_put_on_a_series(shared_data: Path, tmp_path: Path) -> None:
    mask = shared_data / "sts" / "STS_015" / "nifti" / "CT_mask.nii.gz"
    images = [shared_data / "sts" / patient / "CT" / "image" for patient in ("STS_002", "STS_041")]
    linked(tmp_path, "a/STS_041_mask.nii.gz", mask)  # named after one, drawn on another
    linked(tmp_path, "b/mask.nii.gz", mask)  # of a patient that is not there
    cases, problems = indexed(tmp_path / "out", *images, tmp_path / "a", tmp_path / "b")
    assert cases == []
    assert {(Path(p.where).parent.name, p.code) for p in problems if p.where} == {
        ("a", Code.MASK_OTHER_GRID),
        ("b", Code.MASK_WITHOUT_SERIES),
    }


def test_a_mask_on_another_grid_needs_resampling(
    drawn: dict[tuple[str, str], Case], shared_data: Path, tmp_path: Path
) -> None:
    mask = sitk.ReadImage(str(shared_data / "sts" / "STS_041" / "nifti" / "CT_mask.nii.gz"))
    sitk.WriteImage(sitk.Expand(mask, (2, 2, 1), sitk.sitkNearestNeighbor), str(tmp_path / "STS_041_mask.nii.gz"))
    images = [shared_data / "sts" / patient / "CT" / "image" for patient in ("STS_002", "STS_041")]
    [case], problems = indexed(tmp_path / "out", *images, tmp_path / "STS_041_mask.nii.gz")
    assert (Code.MASK_OTHER_GRID, "warning") in {(problem.code, problem.severity) for problem in problems}
    assert problem_of(lambda: load_case(case)) is Code.MASK_OTHER_GRID
    resampled = sitk.GetArrayFromImage(load_case(case, ImageSection(resample_mask=True))[1])
    np.testing.assert_array_equal(resampled, arrays(drawn["STS_041", "CT"])[1])


def test_series_of_one_grid_need_a_name(shared_data: Path, tmp_path: Path) -> None:
    import pydicom
    from pydicom.uid import generate_uid

    series = generate_uid()
    twin = tmp_path / "twin"
    twin.mkdir()
    for file in (shared_data / "ibsi" / "ct_phantom" / "dicom" / "image").iterdir():
        dataset = pydicom.dcmread(file)
        dataset.PatientID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = "7", series, generate_uid()
        dataset.save_as(twin / file.name)
    phantom = shared_data / "ibsi" / "ct_phantom"
    sources = [linked(tmp_path, "one", phantom / "dicom" / "image"), twin]
    unnamed = linked(tmp_path, "masks/tumour.nii.gz", phantom / "nifti" / "mask" / "mask.nii.gz")
    cases, problems = indexed(tmp_path / "out1", *sources, unnamed)
    assert cases == []
    assert Code.SERIES_AMBIGUOUS in {problem.code for problem in problems}
    named = linked(tmp_path, "masks/7_tumour_mask.nii.gz", phantom / "nifti" / "mask" / "mask.nii.gz")
    [case], _ = indexed(tmp_path / "out2", *sources, named)
    assert (case.patient_id, case.roi) == ("7", "tumour")


def test_of_two_series_of_one_grid_a_mask_belongs_to_the_one_in_whose_folder_it_lies(
    shared_data: Path, tmp_path: Path
) -> None:
    import pydicom
    from pydicom.uid import generate_uid

    phantom = shared_data / "ibsi" / "ct_phantom"
    soft, sharp = tmp_path / "P" / "soft", tmp_path / "P" / "sharp"
    shutil.copytree(phantom / "dicom" / "image", soft)
    sharp.mkdir()
    series = generate_uid()
    for file in soft.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.SeriesInstanceUID, dataset.SOPInstanceUID = series, generate_uid()
        dataset.SeriesDescription = "sharp kernel"
        dataset.save_as(sharp / file.name)
    shutil.copy(phantom / "nifti" / "mask" / "mask.nii.gz", sharp / "mask.nii.gz")
    [case], _ = indexed(tmp_path / "out", tmp_path / "P")
    assert case.roi == "mask"
    assert series in Path(case.image).read_text()
    (sharp / "mask.nii.gz").rename(tmp_path / "P" / "mask.nii.gz")
    cases, problems = indexed(tmp_path / "out2", tmp_path / "P")
    assert cases == []
    assert Code.SERIES_AMBIGUOUS in {problem.code for problem in problems}


def test_two_patients_masks_on_one_series_are_a_problem(shared_data: Path, tmp_path: Path) -> None:
    phantom = shared_data / "ibsi" / "ct_phantom"
    images = [phantom / "dicom" / "image", shared_data / "sts" / "STS_041" / "CT" / "image"]
    for name in ("A01_mask.nii.gz", "A02_mask.nii.gz"):
        linked(tmp_path / "masks", name, phantom / "nifti" / "mask" / "mask.nii.gz")
    cases, problems = indexed(tmp_path / "out", *images, tmp_path / "masks")
    assert cases == []
    assert [problem.code for problem in problems].count(Code.SERIES_AMBIGUOUS) == 2


def test_the_ibsi_phantoms_nifti_mask_lies_on_its_dicom_images(shared_data: Path, tmp_path: Path) -> None:
    phantom = shared_data / "ibsi" / "ct_phantom"
    [one], _ = indexed(tmp_path / "a", phantom / "dicom")
    [two], _ = indexed(tmp_path / "b", phantom / "dicom" / "image", phantom / "nifti" / "mask")
    for first, second in zip(arrays(one), arrays(two), strict=True):
        np.testing.assert_array_equal(first, second)


def test_the_lung_patients_mask_as_nifti_gives_the_published_radiomics(shared_data: Path, tmp_path: Path) -> None:
    from radiomics.featureextractor import RadiomicsFeatureExtractor

    lung = shared_data / "lung1_002"
    [drawn], _ = indexed(tmp_path / "a", lung, collection="lung1")
    image, mask = load_case(drawn)
    whole = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(lung / "ct")))
    on_whole = sitk.Resample(mask, whole, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    sitk.WriteImage(on_whole, str(tmp_path / "LUNG1-002_GTV-1.nii.gz"))
    cases, _ = indexed(tmp_path / "b", lung / "ct", tmp_path / "LUNG1-002_GTV-1.nii.gz", roi=("GTV-1",))
    [case] = cases
    assert (case.case_id, case.mask.endswith(".nii.gz")) == ("LUNG1-002_CT_GTV-1", True)
    extractor = RadiomicsFeatureExtractor(binWidth=25, additionalInfo=False)
    assert extractor.execute(*load_case(case)) == extractor.execute(image, mask)


def test_a_changed_mask_changes_the_cases_digest(shared_data: Path, tmp_path: Path) -> None:
    images = shared_data / "sts" / "STS_041" / "CT" / "image"
    mask = sitk.ReadImage(str(shared_data / "sts" / "STS_041" / "nifti" / "CT_mask.nii.gz"))
    path = tmp_path / "STS_041_mask.mhd"
    sitk.WriteImage(mask, str(path), useCompression=True)
    [before], _ = indexed(tmp_path / "out", images, path)
    values = sitk.GetArrayFromImage(mask)
    values[tuple(np.argwhere(values)[0])] = 0
    changed = sitk.GetImageFromArray(values)
    changed.CopyInformation(mask)
    sitk.WriteImage(changed, str(path), useCompression=True)
    [after], _ = indexed(tmp_path / "out", images, path)
    assert (before.case_id, before.digest != after.digest) == (after.case_id, True)
