"""Images and masks paired by name, and pyradiomics' table of cases."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from prognosis_dask.cohort.case import Case, read_cases, read_problems
from prognosis_dask.cohort.headers import FileStamp, VolumeFile
from prognosis_dask.cohort.index import index_cohort
from prognosis_dask.cohort.names import is_mask_name
from prognosis_dask.cohort.pairs import pair_volumes
from prognosis_dask.config.job import CohortSection
from prognosis_dask.errors import Code, JobError, Problem


def cases_of(out: Path, *sources: Path, **section: object) -> list[Case]:
    index_cohort(sources, out, CohortSection(**section))  # type: ignore[arg-type]
    return read_cases(out / "cases.csv")


def pair(*names: str) -> tuple[set[tuple[str, str, str, str]], list[Problem]]:
    """(patient, image, mask, roi) of every pair, for files that need not exist."""
    paired = pair_volumes(
        [VolumeFile(FileStamp(f"/data/study/{name}", 1, 1), is_mask_name(f"/data/study/{name}")) for name in names]
    )
    short = "/data/study/"
    found = {
        (p.patient_id, p.image.file.path[len(short) :], p.mask.file.path[len(short) :], p.roi) for p in paired.pairs
    }
    return found, [problem for _, problem in paired.masks]


def test_pyradiomics_samples_are_pairs(shared_data: Path, tmp_path: Path) -> None:
    found = cases_of(tmp_path, shared_data / "pyradiomics")
    assert [(c.case_id, Path(c.image).name, Path(c.mask).name, c.labels) for c in found] == [
        ("brain1_OT_mask", "brain1_image.nrrd", "brain1_label.nrrd", ()),
        ("breast1_OT_mask", "breast1_image.nrrd", "breast1_label.nrrd", ()),
    ]


def test_one_image_with_several_masks_gives_a_case_for_each(shared_data: Path, tmp_path: Path) -> None:
    found = cases_of(tmp_path, shared_data / "nifti_edge", modalities=("MR",))
    assert {c.case_id for c in found} == {
        f"nifti-edge_MR_{roi}" for roi in ("dilated-10mm", "empty", "multilabel", "one", "single-slice", "two")
    }


def test_the_ibsi_phantoms_are_paired_across_image_and_mask_folders(shared_data: Path, tmp_path: Path) -> None:
    found = cases_of(tmp_path, shared_data / "ibsi")
    assert {c.patient_id for c in found} == {"1", "digital_phantom", "nifti"}


def test_images_without_a_mask_are_listed_by_patient(shared_data: Path, tmp_path: Path) -> None:
    assert cases_of(tmp_path, shared_data / "brain") == []
    found = {p.patient_id: p.reason for p in read_problems(tmp_path / "problems.csv")}
    assert found == {
        "TCGA-02-0054": "images (4 MR), but no mask on any",
        "smooth_LGG-203": "images (1 MR), but no mask on any",
    }


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("P1/image.nii.gz", "P1/mask.nii.gz"), {("P1", "P1/image.nii.gz", "P1/mask.nii.gz", "")}),
        (("P1/CT.nii", "P1/GTV-1.nii"), {("P1", "P1/CT.nii", "P1/GTV-1.nii", "GTV-1")}),
        (("LUNG1-001.nrrd", "LUNG1-001_gtv.nrrd"), {("LUNG1-001", "LUNG1-001.nrrd", "LUNG1-001_gtv.nrrd", "gtv")}),
        (
            ("STS_1_CT.mha", "STS_1_PET.mha", "STS_1_PET_mask.mha", "STS_1_CT_mask.mha"),
            {("STS_1", "STS_1_CT.mha", "STS_1_CT_mask.mha", ""), ("STS_1", "STS_1_PET.mha", "STS_1_PET_mask.mha", "")},
        ),
        (
            ("B_001/B_001_t1.nii.gz", "B_001/B_001_flair.nii.gz", "B_001/B_001_seg.nii.gz"),
            {
                ("B_001", "B_001/B_001_t1.nii.gz", "B_001/B_001_seg.nii.gz", ""),
                ("B_001", "B_001/B_001_flair.nii.gz", "B_001/B_001_seg.nii.gz", ""),
            },
        ),
        (
            ("imagesTr/lung_001_0000.nii.gz", "imagesTr/lung_010_0000.nii.gz", "labelsTr/lung_001.nii.gz"),
            {("lung_001", "imagesTr/lung_001_0000.nii.gz", "labelsTr/lung_001.nii.gz", "")},
        ),
        (
            ("A/scan.mhd", "A/roi.mhd", "B/scan.mhd", "B/roi.mhd"),
            {("A", "A/scan.mhd", "A/roi.mhd", ""), ("B", "B/scan.mhd", "B/roi.mhd", "")},
        ),
        (("P1.nii", "P10.nii", "P1_label.nii"), {("P1", "P1.nii", "P1_label.nii", "")}),
    ],
    ids=["folder", "roi-name", "stem", "modality", "brats", "nnunet", "same-names", "prefix"],
)
def test_common_layouts_pair_up(names: tuple[str, ...], expected: set[tuple[str, str, str, str]]) -> None:
    found, problems = pair(*names)
    assert found == expected
    assert problems == []


def test_files_of_equal_names_in_two_trees_get_identifiers_of_their_own(tmp_path: Path) -> None:
    for site in ("north", "south"):
        (tmp_path / site / "P1").mkdir(parents=True)
        for name in ("image.nrrd", "mask.nrrd"):
            (tmp_path / site / "P1" / name).touch()
    found = [case.case_id for case in cases_of(tmp_path / "out", tmp_path / "north", tmp_path / "south")]
    assert len(set(found)) == 2
    assert all(case_id.startswith("P1_OT_mask_") for case_id in found)


def test_a_mask_that_may_belong_to_several_images_is_not_guessed_at() -> None:
    found, [problem] = pair("one.nii", "two.nii", "mask.nii")
    assert found == set()
    assert problem.code == Code.SERIES_AMBIGUOUS
    assert "one.nii, two.nii" in problem.reason
    found, [problem] = pair("P1/PET.nii", "P1/CT_mask.nii")
    assert (found, problem.code) == (set(), Code.MASK_WITHOUT_SERIES)


@pytest.fixture
def table(shared_data: Path, tmp_path: Path) -> Path:
    for name in ("brain1_image.nrrd", "brain1_label.nrrd", "breast1_image.nrrd", "breast1_label.nrrd"):
        (tmp_path / "data").mkdir(exist_ok=True)
        shutil.copy(shared_data / "pyradiomics" / name, tmp_path / "data" / name)
    return tmp_path / "cases.in.csv"


def test_a_pyradiomics_table_is_a_source(table: Path, tmp_path: Path) -> None:
    table.write_text(
        "Image,Mask,Label,ID,age,time_days,event\n"
        "data/brain1_image.nrrd,data/brain1_label.nrrd,1,B-1,60,100,1\n"
        "data/brain1_image.nrrd,data/brain1_label.nrrd,2,B-1,60,100,1\n"
        f"{tmp_path}/data/breast1_image.nrrd,data/breast1_label.nrrd,,,50,-1,0\n"
        "data/gone.nrrd,data/breast1_label.nrrd,1,,,,\n"
    )
    found = cases_of(tmp_path / "out", table, collection="generic")
    assert [(c.case_id, c.labels, c.time_days, c.event, c.covariates) for c in found] == [
        ("B-1_OT_label-1", (1,), 100.0, 1, {"age": "60"}),
        ("B-1_OT_label-2", (2,), 100.0, 1, {"age": "60"}),
        ("breast1_OT_mask", (1,), None, None, {"age": "50"}),  # pyradiomics' own default is label 1
    ]
    assert all(Path(c.image).is_absolute() and Path(c.mask).is_file() for c in found)
    problems = {p.code: p for p in read_problems(tmp_path / "out" / "problems.csv")}
    assert problems[Code.UNREADABLE_FILE].where == str(tmp_path / "data" / "gone.nrrd")
    assert problems[Code.NO_ENDPOINT].case_id == "breast1_OT_mask"


def test_rules_do_not_apply_to_rows_that_the_user_wrote(table: Path, tmp_path: Path) -> None:
    table.write_text("mask;image;Patient\ndata/brain1_label.nrrd;data/brain1_image.nrrd;P 7\n")
    [case] = cases_of(tmp_path / "out", table, collection="lung1")
    assert (case.patient_id, case.modality, case.roi) == ("P 7", "CT", "mask")


def test_a_table_without_image_and_mask_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("Img,Msk\na,b\n")
    with pytest.raises(JobError, match=r"needs the columns Image and Mask; it has \['Img', 'Msk'\]"):
        cases_of(tmp_path / "out", tmp_path / "t.csv")
