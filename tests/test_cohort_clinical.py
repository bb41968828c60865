"""Clinical tables as they come, and their join to the cases."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import openpyxl
import pytest
from distributed import Client

import prognosis_dask
from prognosis_dask.cli.main import main
from prognosis_dask.cohort.case import read_cases, read_problems
from prognosis_dask.cohort.clinical import patient_key, read_clinical, read_rows
from prognosis_dask.cohort.collections import COLLECTIONS, Collection, resolve
from prognosis_dask.cohort.index import index_cohort
from prognosis_dask.config.job import CohortSection
from prognosis_dask.errors import Code, JobError

GENERIC = COLLECTIONS["generic"]


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def test_the_lung1_table_gives_422_patients_and_373_deaths(shared_data: Path) -> None:
    path = shared_data / "lung1_tables" / "nsclc-radiomics_clinical.csv"
    table = read_clinical(path, COLLECTIONS["lung1"])
    with path.open() as stream:
        witness = {row["PatientID"]: row for row in csv.DictReader(stream)}
    assert len(table.rows) == 422
    assert sum(row.event or 0 for row in table.rows.values()) == 373
    for name, row in witness.items():
        read = table.rows[patient_key(name)]
        assert (read.time_days, read.event) == (float(row["Survival.time"]), int(row["deadstatus.event"]))
        assert read.covariates["Histology"] in (row["Histology"].strip(), "")
    assert len(read.covariates) == 7


def test_cases_get_their_endpoint_and_the_rest_of_the_table_is_listed(shared_data: Path, tmp_path: Path) -> None:
    clinical = str(shared_data / "lung1_tables" / "nsclc-radiomics_clinical.csv")
    section = CohortSection(collection="lung1", clinical=clinical)
    summary = index_cohort([shared_data / "lung1_002"], tmp_path, section)
    [case] = read_cases(tmp_path / "cases.csv")
    assert (case.time_days, case.event) == (155.0, 1)
    assert case.covariates["Histology"] == "squamous cell carcinoma"
    assert case.covariates["Overall.Stage"] == "I"
    assert (summary.with_endpoint, summary.events) == (1, 1)
    assert summary.problems == {"no-images": 421}


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("patient_id,time_days,event,age\nP1,100,1,63.5\nP2,20.5,0,NA\n", "utf-8"),
        ("patient_id;time_days;event;age\nP1;100;1;63,5\nP2;20,5;0;NA\n", "utf-8-sig"),
        ("\n PatientID \tTime (days)\tEvent\tage\nP1 \t100\t1\t63,5 \np 2\t20,5\t0.0\tn/a\n\t\t\t\n", "utf-8"),
        ('ID,time.days,EVENT,age\nP1,100,yes,"63,5"\nP2,"20,5",No,\n', "cp1252"),
    ],
    ids=["commas", "semicolons-bom", "tabs-spaces", "quoted-commas"],
)
def test_every_dialect_reads_the_same(tmp_path: Path, text: str, encoding: str) -> None:
    collection = Collection(time_columns=("time_days", "Time (days)"))
    table = read_clinical(write(tmp_path / "t.csv", text, encoding), collection)
    assert [(row.time_days, row.event) for row in table.rows.values()] == [(100.0, 1), (20.5, 0)]
    assert [row.covariates for row in table.rows.values()] == [{"age": "63.5"}, {"age": ""}]
    assert list(table.rows) == ["p1", "p2"]


def test_a_comma_that_may_part_thousands_is_not_guessed_at(tmp_path: Path) -> None:
    table = read_clinical(write(tmp_path / "t.csv", 'id,time_days,event\nP1,"1,234",1\n'), GENERIC)
    assert table.rows["p1"].fault == "time_days is '1,234', expected days above zero"


def test_odd_times_and_events_are_listed_with_the_value_seen(tmp_path: Path) -> None:
    rows = ["A,0,1", "B,-3,1", "C,10,2", "D,,1", "E,soon,1", "F,10,", "G,10,1", "G,12,1", "H,10,1", "H,10,1", "I,5,0"]
    table = read_clinical(write(tmp_path / "t.csv", "id,time_days,event\n" + "\n".join(rows)), GENERIC)
    faults = {row.patient_id: row.fault for row in table.rows.values()}
    assert faults["A"] == "time_days is '0', expected days above zero"
    assert faults["B"].startswith("time_days is '-3'")
    assert faults["C"].startswith("event is '2', expected one of 1, yes")
    assert faults["D"].startswith("time_days is 'empty'")
    assert faults["E"].startswith("time_days is 'soon'")
    assert faults["F"].startswith("event is 'empty'")
    assert faults["G"] == "two rows disagree: 10.0 days, event 1 and 12.0 days, event 1"
    assert faults["H"] == ""
    assert {name for name, row in table.rows.items() if row.event is None} == set("abcdefg")


def test_an_xlsx_table_reads_like_a_csv(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for line in (["id", "overall_survival_in_days", "event_overall_survival", "clin_t"], ["HN1004", 812, 1, 4]):
        book.active.append(line)
    book.active.append(["HN1005 ", 300.5, 0, None])
    book.save(tmp_path / "hn1.xlsx")
    table = read_clinical(tmp_path / "hn1.xlsx", COLLECTIONS["hn1"])
    assert [(r.patient_id, r.time_days, r.event) for r in table.rows.values()] == [
        ("HN1004", 812, 1),
        ("HN1005", 300.5, 0),
    ]
    assert [r.covariates for r in table.rows.values()] == [{"clin_t": "4"}, {"clin_t": ""}]


def test_the_reference_study_s_workbooks_are_readable(shared_data: Path) -> None:
    rows = read_rows(shared_data / "lung1_tables" / "summariedradiomicsfeatures.xlsx")
    assert sum(bool(row["patient"]) for row in rows) == 421  # a row without a patient trails


def test_collections_code_death_in_their_own_way(tmp_path: Path) -> None:
    sts = (
        'Patient ID,"Status (NED, AWD, D)",Time - diagnosis to last follow-up (days)\nSTS_001,D,400\nSTS_002,AWD,500\n'
    )
    rows = read_clinical(write(tmp_path / "sts.csv", sts), COLLECTIONS["sts"]).rows
    assert [row.event for row in rows.values()] == [1, 0]
    idc = (
        "dicom_patient_id,status,time_interval_from_the_date_of_diagnosis_to_the_date_of_last_fu__days\n"
        "OPC-00001,Dead,700\nOPC-00002,Alive,900\n"
    )
    rows = read_clinical(write(tmp_path / "opc.csv", idc), COLLECTIONS["opc"]).rows
    assert [(row.time_days, row.event) for row in rows.values()] == [(700, 1), (900, 0)]


def test_a_code_of_a_competing_event_stays_one_and_is_kept_with_the_case(tmp_path: Path) -> None:
    text = "id,time_days,event\nA,12,relapse\nB,15,died\nC,20,none\n"
    codes = CohortSection(event_codes={"relapse": 1, "died": 2, "none": 0})
    table = read_clinical(write(tmp_path / "t.csv", text), resolve(codes).collection)
    assert [row.event for row in table.rows.values()] == [1, 2, 0]
    header = "case_id,patient_id,modality,roi,image,mask,labels,time_days,event"
    cases = read_cases(write(tmp_path / "cases.csv", f"{header}\nb,B,CT,G,i,m,,15,2\n"))
    assert (cases[0].time_days, cases[0].event) == (15, 2)


def test_follow_up_in_months_becomes_days(tmp_path: Path) -> None:
    months = Collection(time_columns=("months",), time_unit="months")
    table = read_clinical(write(tmp_path / "t.csv", "id,months,event\nA,12,1\n"), months)
    assert table.rows["a"].time_days == pytest.approx(365.25)


def test_a_table_without_ids_is_the_user_s_mistake_one_without_outcome_is_not(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"it has 'name', 'age', expected one of PatientID.*; name the column"):
        read_clinical(write(tmp_path / "a.csv", "name,age\nx,1\n"), GENERIC)
    with pytest.raises(JobError, match="no clinical table"):
        read_clinical(tmp_path / "none.csv", GENERIC)
    with pytest.raises(JobError, match="cannot read the clinical table"):
        read_clinical(write(tmp_path / "b.xlsx", "not a workbook"), GENERIC)
    graded = read_clinical(write(tmp_path / "c.csv", "id,grade\nx,2\n"), GENERIC)
    assert not graded.has_endpoint
    assert [problem.code for problem in graded.problems] == [Code.NO_ENDPOINT]
    assert "it has id, grade" in graded.problems[0].reason


def test_cases_without_row_or_endpoint_stay_with_an_empty_endpoint(shared_data: Path, tmp_path: Path) -> None:
    clinical = write(tmp_path / "c.csv", "id,time_days,event,modality\nBRAIN1,0,1,x\nother,5,1,y\n")
    index_cohort([shared_data / "pyradiomics"], tmp_path / "out", CohortSection(clinical=str(clinical)))
    cases = {case.patient_id: case for case in read_cases(tmp_path / "out" / "cases.csv")}
    assert cases["brain1"].event is cases["breast1"].time_days is None
    assert cases["brain1"].covariates == {"clinical_modality": "x"}  # cases.csv has a column modality of its own
    found = {(p.code, p.case_id or p.patient_id) for p in read_problems(tmp_path / "out" / "problems.csv")}
    assert found == {
        (Code.NO_ENDPOINT, "brain1_OT_mask"),
        (Code.NO_CLINICAL_ROW, "breast1_OT_mask"),
        (Code.NO_IMAGES, "other"),
    }


def test_of_a_job_that_predicts_a_class_a_case_without_a_time_is_no_problem(shared_data: Path, tmp_path: Path) -> None:
    clinical = write(tmp_path / "c.csv", "id,grade\nbrain1,2\nbreast1,3\n")
    rules = CohortSection(clinical=str(clinical))
    index_cohort([shared_data / "pyradiomics"], tmp_path / "index", rules)
    assert [p.code for p in read_problems(tmp_path / "index" / "problems.csv")] == [Code.NO_ENDPOINT]
    off = "deep.enabled = false\nradiomics.enabled = false\nmodel = { enabled = false, label = 'grade' }\n"
    cohorts = {
        "sources": f"sources = ['{shared_data / 'pyradiomics'}']\nclinical = '{clinical}'",
        "cases": f"cases = '{tmp_path / 'index' / 'cases.csv'}'",
    }
    with Client(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as client:
        for name, cohort in cohorts.items():
            job, said = write(tmp_path / f"{name}.toml", f"{off}[cohort]\n{cohort}\n"), list[str]()
            prognosis_dask.run(job, client=client, out=tmp_path / name, say=said.append)
            assert len(read_cases(tmp_path / name / "cases.csv")) == 2
            assert not read_problems(tmp_path / name / "problems.csv")
            assert "No endpoint" not in "\n".join(said)


def test_patients_under_other_names_in_the_whole_table_are_told_from_single_missing_rows(
    shared_data: Path, tmp_path: Path
) -> None:
    for name in ("2", "LUNG1-003"):
        table = write(tmp_path / "clinical.csv", f"PatientID,time_days,event\n{name},10,1\n")
        index_cohort([shared_data / "lung1_002"], tmp_path, CohortSection(clinical=str(table)))
        [problem] = [p for p in read_problems(tmp_path / "problems.csv") if p.code == Code.NO_CLINICAL_ROW]
        assert f"its first is '{name}': are its IDs written like those of the images?" in problem.reason
    for name in ("lung1-002", "LUNG1\u2013002", "Lung1-2"):  # the dash of a word processor, zeros lost in a spreadsheet
        table = write(tmp_path / "clinical.csv", f"PatientID,time_days,event\n{name},10,1\n")
        assert index_cohort([shared_data / "lung1_002"], tmp_path, CohortSection(clinical=str(table))).problems == {}


def test_lung1_leaves_out_one_patient_and_warns_of_others(shared_data: Path, tmp_path: Path) -> None:
    source = tmp_path / "images"
    source.mkdir()
    for patient in ("LUNG1-002", "LUNG1-014", "LUNG1-128"):
        for role in ("image", "mask"):
            (source / f"{patient}_{role}.nrrd").touch()
    clinical = str(shared_data / "lung1_tables" / "nsclc-radiomics_clinical.csv")
    section = CohortSection(collection="lung1", clinical=clinical)
    summary = index_cohort([source], tmp_path / "out", section)
    assert summary.problems == {"no-images": 419, "excluded": 1}
    assert (summary.patients, summary.cases, summary.with_endpoint) == (3, 2, 2)
    assert list(summary.cautions) == ["LUNG1-014"]
    assert "16 slices are missing" in str(summary)
    decided = CohortSection(collection="lung1", clinical=clinical, exclude=("LUNG1-014", "LUNG1-128"))
    summary = index_cohort([source], tmp_path / "out", decided)
    assert (summary.cases, summary.problems["excluded"], summary.cautions) == (1, 2, {})


TABLE = "study_no,OS_months,dead,age\n{patient},12,2,60\nB,30,1,50\nC,9,2,70\nD,5,1,66\nE,41,1,71\nF,8,2,55\n"


@pytest.mark.parametrize("preset", ["generic", "lung1"])
def test_clinical_columns_go_by_the_names_that_are_given_under_a_preset_too(
    preset: str, shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write(tmp_path / "t.csv", TABLE.format(patient="LUNG1-002"))
    command = ["index", str(shared_data / "lung1_002"), "-o", str(tmp_path / "out"), "--collection", preset]
    named = ["--id-column", "study_no", "--time-column", "OS_months", "--event-column", "dead"]
    main([*command, "--clinical", str(table), *named, "--event-codes", "2=1,1=0"])
    [case] = read_cases(tmp_path / "out" / "cases.csv")
    assert (case.time_days, case.event) == (pytest.approx(365.25), 1)
    assert case.covariates == {"age": "60"}
    assert "No endpoint" not in capsys.readouterr().out


def test_the_terminal_says_why_there_is_no_endpoint_with_the_option_to_paste(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], refused: Callable[..., str]
) -> None:
    table = write(tmp_path / "t.csv", TABLE.format(patient="LUNG1-002"))
    command = ["index", str(shared_data / "lung1_002"), "-o", str(tmp_path / "out"), "--clinical", str(table)]
    said = refused(*command)
    assert "--set cohort.id_column=study_no" in said
    command += ["--id-column", "study_no"]
    main(command)
    said = capsys.readouterr().out
    options = "--set cohort.time_column=OS_months --set cohort.event_column=dead"
    assert options in said
    main([*command, *options.split()])
    assert 'cohort.event_codes = { "1" = 0, "2" = 1 }' in capsys.readouterr().out
    said = refused(*command, "--time-column", "OS_month")
    assert "cohort.time_column is 'OS_month'" in said
    assert "did you mean 'OS_months'?" in said
    main(["index", str(shared_data / "lung1_002"), "-o", str(tmp_path / "out")])
    assert "--set cohort.clinical=TABLE" in capsys.readouterr().out
