"""The table of cases: what is written is read, and a case's digest follows its files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from prognosis_dask.cohort.case import Case, read_cases, write_cases
from prognosis_dask.errors import JobError

HEADER = "case_id,patient_id,modality,roi,image,mask,labels,time_days,event"
CASE = Case("a_CT_GTV", "a", "CT", "GTV", "/x/image.nii", "/x/mask.nii", (1, 3), 12.5, 1, "abc", {"age": "61,5"})


def test_a_written_table_reads_back_the_same(tmp_path: Path) -> None:
    more = {"stage": "II, b", "stored": "yes"}
    other = replace(CASE, case_id="b_CT_GTV", time_days=None, event=None, labels=(), covariates=more)
    write_cases(tmp_path / "cases.csv", [CASE, other])
    first, second = read_cases(tmp_path / "cases.csv")
    assert first == replace(CASE, covariates={"age": "61,5", "stage": "", "stored": ""})
    assert second == replace(other, covariates={"age": "", "stage": "II, b", "stored": "yes"})


def test_the_digest_follows_the_files_and_labels_not_where_they_lie_nor_the_outcome() -> None:
    moved = replace(CASE, image="/y/image.nii", mask="/y/mask.nii", time_days=3.0, covariates={})
    assert moved.digest == CASE.digest
    assert replace(CASE, source="abd").digest != CASE.digest
    assert replace(CASE, labels=(1,)).digest != CASE.digest
    assert replace(CASE, mask="/x/other.nii").digest != CASE.digest


def test_a_hand_written_table_notices_when_its_files_change(tmp_path: Path) -> None:
    for name in ("i.nii", "m.nii"):
        (tmp_path / name).write_bytes(b"1")
    table = tmp_path / "cases.csv"
    table.write_text("case_id,patient_id,modality,roi,image,mask\na,a,CT,GTV,i.nii,m.nii\n")
    before = read_cases(table)[0]
    assert before.image == str(tmp_path / "i.nii")
    (tmp_path / "m.nii").write_bytes(b"22")
    assert read_cases(table)[0].digest != before.digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case_id,patient_id\na,b\n", r"lacks the columns \['modality', 'roi', 'image', 'mask'\]"),
        ("case_id,patient_id,modality,roi,image,mask\n" + "a,a,CT,G,i,m\n" * 2, "names the case 'a' twice"),
        (f"{HEADER}\na,a,CT,G,i\n", "line 2: mask is empty"),
        (f"{HEADER}\na,a,CT,G,i,m\n,a,CT,G,i,m\n", "line 3: case_id is empty"),
        (f"{HEADER}\na,a,CT,G,i,m,GTV\n", "line 2: labels has 'GTV', expected whole numbers"),
        (f"{HEADER}\na,a,CT,G,i,m,,long\n", "line 2: time_days is 'long', expected a number of days, or nothing"),
        (f"{HEADER}\na,a,CT,G,i,m,,9,dead\n", r"line 2: event is 'dead', expected 1 \(observed\), 0 \(censored\)"),
        (f"{HEADER}\na,a,CT,G,i,m,,9,1,too,many\n", "line 2: it has more cells than the 9 columns"),
    ],
)
def test_a_table_that_cannot_be_used_says_why(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text(text)
    with pytest.raises(JobError, match=message):
        read_cases(tmp_path / "cases.csv")


def test_a_file_that_is_no_text_is_refused_as_one(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_bytes(bytes(range(256)))
    with pytest.raises(JobError, match="not a CSV file in UTF-8"):
        read_cases(tmp_path / "cases.csv")
