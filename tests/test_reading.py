"""Tables as people keep them become the one table that statistics take, or are refused in words that help."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from prognosis_dask.errors import JobError, StatisticsError
from prognosis_dask.modelling.data.endpoint import Classes
from prognosis_dask.modelling.data.reading import ReadTable, find_tables, read_tables
from prognosis_dask.modelling.spec import ColumnRule, EndpointRule, ModelSpec, TableFile, load_spec

JOBS = Path(__file__).parents[1] / "jobs" / "models"


def write(folder: Path, text: str, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def read(*paths: Path, spec: ModelSpec | None = None) -> ReadTable:
    spec = spec or ModelSpec()
    return read_tables(find_tables(paths, spec), spec)


def column(found: ReadTable, name: str) -> np.ndarray:
    return found.table.X[:, found.table.features.index(name)]


def test_the_reference_studys_tables_are_joined_by_patient_with_all_their_traps(shared_data: Path) -> None:
    spec = load_spec(JOBS / "lung1_tables.toml")
    found = read(shared_data / "lung1_tables", spec=spec)
    table = found.table
    # LUNG1-128 has no radiomics, and a row without a patient trails behind the last
    assert found.left_out == {"no-patient-id": 1, "not in summariedradiomicsfeatures.xlsx": 1}
    assert (len(table.case_ids), "LUNG1-128" in table.patient_ids) == (421, False)
    folder = shared_data / "lung1_tables"
    deep = pd.read_excel(folder / "summarieddeepfeatures.xlsx")
    clinical = pd.read_csv(folder / "nsclc-radiomics_clinical.csv").set_index("PatientID").loc[list(table.patient_ids)]
    rows = [int(name[-3:]) - 1 for name in table.patient_ids]
    np.testing.assert_array_equal(column(found, "Feature7"), deep["Feature7"].to_numpy()[rows])
    np.testing.assert_array_equal(table.time_days, clinical["Survival.time"])
    np.testing.assert_array_equal(table.event, clinical["deadstatus.event"] == 1)
    ladder = {"I": 0, "II": 1, "IIIa": 2, "IIIb": 3}
    np.testing.assert_array_equal(column(found, "Overall.Stage"), clinical["Overall.Stage"].map(ladder))
    volume = column(found, "original_shape_MeshVolume")
    np.testing.assert_allclose(column(found, "ln_volume"), np.log(volume))
    families = pd.Series(table.families, index=table.features)
    assert families.value_counts().to_dict() == {"deep": 400, "radiomics": 103, "clinical": 5, "stage": 4, "volume": 1}
    # the table of deep features holds the outcome three times over
    assert not {"duration_col", "event_col", "1-year survival(1-survival;0-dead)"} & set(table.features)
    assert np.isnan(column(found, "age")).sum() == clinical["age"].isna().sum() == 22


def test_decimal_commas_blanks_and_the_ways_of_saying_unknown(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "PatientID ; f1 ;f2;age;sex;time_days;event\n P1 ;1,5;1; 60 ;male;100,5;1\nP2;NA;2;n/a; Male;200;0\n"
        "P3;2,25;3;;FEMALE;300;yes\n;;;;;;\nP4; 3 ;4;70; female ;400;no\nP5;;NA;50;male;500;1\n",
    )
    found = read(path)
    np.testing.assert_array_equal(column(found, "f1"), [1.5, np.nan, 2.25, 3])
    np.testing.assert_array_equal(column(found, "age"), [60, np.nan, np.nan, 70])
    np.testing.assert_array_equal(column(found, "sex=FEMALE"), [0, 0, 1, 1])
    np.testing.assert_array_equal(found.table.time_days, [100.5, 200, 300, 400])
    assert found.table.event.tolist() == [True, False, True, False]
    assert found.table.patient_ids == ("P1", "P2", "P3", "P4")
    assert found.left_out == {"no-features-values": 1}  # one value is imputed, none at all is no case


def test_words_become_levels_with_the_most_frequent_as_reference_and_stages_keep_their_order(tmp_path: Path) -> None:
    rows = [("squamous", "IIIB"), ("adeno", "I"), ("squamous", "IV"), ("", "IIIA"), ("large", ""), ("squamous", "II")]
    text = "".join(f"P{i},{h},{s},{i + 1},1\n" for i, (h, s) in enumerate(rows))
    found = read(write(tmp_path, "id,histology,stage,time_days,event\n" + text))
    assert found.table.features == ("histology=adeno", "histology=large", "stage")
    np.testing.assert_array_equal(column(found, "histology=adeno"), [0, 1, 0, np.nan, 0, 0])
    np.testing.assert_array_equal(column(found, "stage"), [3, 0, 4, 2, np.nan, 1])
    assert found.table.families == ("clinical", "clinical", "stage")


def test_another_table_is_encoded_by_the_levels_that_were_learnt(tmp_path: Path) -> None:
    first = read(write(tmp_path, "id,sex,stage,time_days,event\nA,m,I,1,1\nB,m,III,2,1\nC,f,II,3,1\n"))
    other = write(tmp_path, "id,sex,stage\nD,F,III\nE,x,I\nF,m,IV\n", "other.csv")
    found = read_tables(find_tables([other], ModelSpec()), None, first.encodings)
    assert found.table.features == first.table.features == ("sex=f", "stage")
    np.testing.assert_array_equal(found.table.X, [[1, 2], [np.nan, 0], [0, np.nan]])
    assert not found.has_endpoint
    assert any("sex holds x, which the levels m, f do not have" in note for note in found.notes)
    assert any("stage holds IV" in note for note in found.notes)


def test_where_values_are_missing_can_be_a_feature_and_another_table_has_it_too(tmp_path: Path) -> None:
    psa = [i * 3 % 7 if i % 5 else "" for i in range(40)]
    kind = ["abc"[i % 3] if i % 4 else "NA" for i in range(40)]
    rows = "".join(f"P{i},{i * 7 % 40 + 1},{i % 2},{psa[i]},{kind[i]},{50 + i * 11 % 30}\n" for i in range(40))
    path = write(tmp_path, "ID,time,event,psa,kind,age\n" + rows)
    assert not any("missing" in name for name in read(path).table.features)
    found = read(path, spec=ModelSpec(missing_indicators=True))
    assert [name for name in found.table.features if "missing" in name] == ["psa is missing", "kind is missing"]
    np.testing.assert_array_equal(column(found, "psa is missing"), np.arange(40) % 5 == 0)
    np.testing.assert_array_equal(column(found, "kind is missing"), np.arange(40) % 4 == 0)
    assert np.isnan(column(found, "psa")).sum() == 8  # and becomes the training cases' median
    other = write(tmp_path, "ID,psa,kind,age\nQ1,,a,3\nQ2,2,never heard of,4\n", "other.csv")
    again = read_tables(find_tables([other], ModelSpec()), ModelSpec(), found.encodings)
    np.testing.assert_array_equal(column(again, "psa is missing"), [1.0, 0.0])
    np.testing.assert_array_equal(column(again, "kind is missing"), [0.0, 1.0])


def test_covariates_of_a_runs_table_go_by_their_own_names_as_in_its_dataset(tmp_path: Path) -> None:
    text = "case_id,patient_id,time_days,event,covariate_age,covariate_sex,sex\nA1,A,5,1,60,m,f\nB1,B,9,0,70,f,m\n"
    found = read(write(tmp_path, text))
    assert found.table.features == ("age", "covariate_sex=m", "sex=m")  # where both are there, both keep their names


def test_an_xlsx_file_is_read_as_its_csv_twin(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": ["1", "2", "3"], "f1": [0.1, None, 1e-9], "time_days": [1, 2, 3], "event": [1, 0, 1]})
    frame.to_excel(tmp_path / "t.xlsx", index=False)
    frame.to_csv(tmp_path / "t.csv", index=False)
    ours, twin = read(tmp_path / "t.xlsx"), read(tmp_path / "t.csv")
    np.testing.assert_array_equal(ours.table.X, twin.table.X)
    assert (ours.table.patient_ids, ours.table.features) == (twin.table.patient_ids, twin.table.features)


def test_tables_are_joined_whatever_their_order_and_who_is_missing_is_counted(tmp_path: Path) -> None:
    features = write(tmp_path, "ID,f1\nP-3,3\nP-1,1\nP-2,2\nP-9,9\n", "features.csv")
    clinical = write(tmp_path, "Patient,OS time,dead,age\np-1,10,1,50\nP-2,20,0,60\nP-3,,1,70\nP-7,5,1,80\n", "c.csv")
    spec = ModelSpec(endpoint=EndpointRule(time="OS time", event="dead", time_unit="months"))
    found = read(features, clinical, spec=spec)
    assert found.table.patient_ids == ("P-1", "P-2")
    np.testing.assert_array_equal(found.table.X, [[1, 50], [2, 60]])
    np.testing.assert_allclose(found.table.time_days, np.array([10, 20]) * 365.25 / 12)
    assert found.left_out == {"not in c.csv": 1, "not in features.csv": 1, "no-endpoint": 1}


def test_ids_whose_separators_another_program_changed_are_joined_aloud(tmp_path: Path) -> None:
    path = write(tmp_path, "id,f1\nTCGA.02.0001,1\nTCGA_02_0002,2\nTCGA-02-0003,3\n")
    clinical = write(
        tmp_path, "PatientID,time_days,event\nTCGA-02-0001,5,1\nTCGA-02-0002,6,0\nTCGA-02-0003,7,1\n", "c.csv"
    )
    found = read(path, clinical)
    assert (found.table.time_days.tolist(), found.left_out) == ([5, 6, 7], {})
    assert any("2 patients of c.csv joined though they differ in leading zeros or separators" in n for n in found.notes)


def test_endpoints_that_two_tables_have_and_that_differ_are_told(tmp_path: Path) -> None:
    first = write(tmp_path, "id,f1,time_days,event\n1,1,100,1\n2,2,200,0\n3,3,300,1\n")
    same = write(tmp_path, "id,f2,time_days,event\n1,1,100.4,1\n2,2,200,0\n3,3,,\n", "b.csv")
    other = write(tmp_path, "id,f3,time_days,event\n1,1,100,0\n2,2,260,0\n3,3,300,1\n", "c.csv")
    assert not any("another endpoint" in note for note in read(first, same).notes)
    found = read(first, other)
    assert any("2 rows of c.csv with another endpoint than table.csv" in note for note in found.notes)
    assert found.table.time_days.tolist() == [100, 200, 300]


def test_an_endpoint_that_is_not_used_may_be_as_it_likes(tmp_path: Path) -> None:
    first = write(tmp_path, "id,f1,time,event\n1,1,10,1\n2,2,20,0\n3,3,30,1\n")
    coded = write(tmp_path, "id,f2,time,status\n1,1,100,1\n2,2,200,2\n3,3,300,2\n", "b.csv")
    days = write(tmp_path, "id,f3,OS_days,event\n1,1,304.4,1\n2,2,608.8,0\n3,3,913.1,1\n", "c.csv")
    spec = ModelSpec(endpoint=EndpointRule(time_unit="months"))
    for other in (coded, days):
        found = read(first, other, spec=spec)
        np.testing.assert_allclose(found.table.time_days, np.array([10, 20, 30]) * 365.25 / 12)
        assert not any("another endpoint" in note for note in found.notes)


def test_classes_that_two_tables_tell_apart_otherwise_are_told(tmp_path: Path) -> None:
    first = write(tmp_path, "id,f1,grade\n1,1,low\n2,2,high\n3,3,low\n")
    other = write(tmp_path, "id,f2,grade\n1,1,high\n2,2,high\n3,3,high\n", "b.csv")
    found = read(first, other, spec=ModelSpec(endpoint=EndpointRule(label="grade")))
    assert any("2 rows of b.csv with another endpoint than table.csv" in note for note in found.notes)


def test_classes_take_their_order_from_the_specification(tmp_path: Path) -> None:
    path = write(tmp_path, "id,f1,f2,grade\n1,1,2,3\n2,2,1,2\n3,3,3,2.0\n4,4,0,4\n5,5,1,\n")
    found = read(path, spec=ModelSpec(endpoint=EndpointRule(label="grade", classes=("2", "3"))))
    assert isinstance(found.table.endpoint, Classes)
    assert found.table.endpoint.names == ("2", "3")
    assert found.table.endpoint.label.tolist() == [1, 0, 0]
    assert found.left_out == {"other-class": 1, "no-endpoint": 1}
    assert "grade" not in found.table.features


def test_a_column_that_tells_the_outcome_is_no_feature_unless_it_is_named(tmp_path: Path) -> None:
    text = "id,f1,time_days,event,Overall survival (months),recurrence\n" + "".join(
        f"{i},{i},{i + 1},1,{i},0\n" for i in range(4)
    )
    path = write(tmp_path, text)
    found = read(path)
    assert found.table.features == ("f1",)
    assert any("look like an outcome: Overall survival (months), recurrence" in note for note in found.notes)
    named = read(path, spec=ModelSpec(column={"recurrence": ColumnRule(family="clinical")}))
    assert "recurrence" in named.table.features


def test_several_cases_of_a_patient_need_ids_of_their_own(tmp_path: Path) -> None:
    path = write(tmp_path, "case_id,patient_id,f1\nP1_a,P1,1\nP1_b,P1,2\nP2_a,P2,3\n")
    clinical = write(tmp_path, "PatientID,time_days,event\nP1,5,1\nP2,6,0\n", "c.csv")
    found = read(path, clinical)
    assert (found.table.case_ids, found.table.patient_ids) == (("P1_a", "P1_b", "P2_a"), ("P1", "P1", "P2"))
    np.testing.assert_array_equal(found.table.time_days, [5, 5, 6])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", r"no endpoint: .*table.csv has no columns of a time and an event .* there are a, b"),
        ("id,f1,time_days,event\n", "has 1 rows, expected a row of headings"),
        ("id,f1\n1,2\n", r"no endpoint: .* there are f1. Name them: --set endpoint.time=COLUMN"),
        ("id,f1,time_days,event\n1,2,3,1\n 1 ,3,4,0\n", "patient '1' stands in data rows 1 and 2"),
        ("id,f1,time_days,event\n1,2,3,1\n2,abc,4,0\n3,4,5,1\n", "column 'f1' holds 'abc' in data row 2, expected"),
        ("id,f1,time_days,event\n1,2,3,1\n2,inf,4,0\n3,4,5,1\n", "column 'f1' is infinite in data row 2"),
        ("id,f1,time_days,event\n1,2,3,1\n2,8.99e307,4,0\n3,4,5,1\n", "too large to compute with, in data row 2"),
        ("id,f1,time_days,event\n1,2,3,1\n2,3,late,0\n", "column 'time_days' holds 'late' in data row 2"),
        ("id,f1,time_days,event\n1,2,3,1\n2,3,4,2\n", "column 'event' holds '2' in data row 2, expected 1 where"),
        ("id,f1,time_days,event\n1,2,3,1,9\n", "data row 1 has 5 cells under 4 headings"),
        ("id,f1,time_days,event\n1,2,0,1\n2,2,-5,1\n", r"no row can be used \(2 time-not-positive\)"),
        ("id,remark,time_days,event\n" + "".join(f"{i},w{i},3,1\n" for i in range(20)), "holds 20 different words"),
        ("id,time_days,event\n1,2,1\n", "no column that can be a feature"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_the_place_and_the_value(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(StatisticsError, match=message):
        read(write(tmp_path, text))


def test_tables_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    first = write(tmp_path, "id,f1,time_days,event\nA1,2,3,1\n", "a.csv")
    with pytest.raises(StatisticsError, match=r"no patient in common: IDs such as 'A1' and 'B1'; id_format"):
        read(first, write(tmp_path, "id,f2\nB1,2\n", "b.csv"))
    with pytest.raises(StatisticsError, match=r"1 columns stand in two tables \(.*a.csv, .*c.csv\), 'f1' first"):
        read(first, write(tmp_path, "id,f1\nA1,2\n", "c.csv"))
    with pytest.raises(StatisticsError, match=r"no table at .*nowhere.csv"):
        read(tmp_path / "nowhere.csv")
    with pytest.raises(StatisticsError, match=r"holds no features.zarr, .* give the tables themselves"):
        read(tmp_path)
    (tmp_path / "broken.xlsx").write_bytes(b"no zip")
    with pytest.raises(StatisticsError, match=r"cannot read .*broken.xlsx as a table"):
        read(tmp_path / "broken.xlsx")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[endpoint]\ntime = 'a'\n", "both time and event"),
        ("[procedure.a]\nselektor = 'x'\n", r"unknown key procedure.a.selektor; did you mean procedure.a.selector\?"),
        ("[procedure.a]\nselector = 'x'\n", "procedure.a.selector is 'x', expected one of '', 'svm-rfe'"),
        ("final = 'b'\n[procedure.a]\n", "final is 'b', expected one of the procedures: a"),
        ("[[table]]\npath = 'x'\nid_format = '{:q}'\n", "table.id_format is '{:q}'"),
        ("[column.a]\nlevels = ['x']\n", "column.a.levels is .* expected two levels or more"),
        ("[validation]\nfolds = 1\n", "validation.folds is 1, expected two or more"),
        ("column = 3\n", r"column is 3, expected sections \[column.NAME\]"),
        ("a = [", "is not TOML"),
    ],
)
def test_a_specification_is_refused_by_its_key(content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=message):
        load_spec(write(tmp_path, content, "spec.toml"))


def test_what_a_specification_names_must_be_there(tmp_path: Path) -> None:
    path = write(tmp_path, "Nr,f1,time_days,event\n7,2,3,1\n8,2,3,1\n")
    rule = TableFile("table.csv", id="Nr", id_format="P{:03d}")
    assert read(path, spec=ModelSpec(table=(rule,))).table.patient_ids == ("P007", "P008")
    for spec, message in [
        (ModelSpec(table=(TableFile("table.csv", id="No"),)), r"no column of patients' IDs \('No'\)"),
        (ModelSpec(table=(TableFile("table.csv", id="Nr", take=("re:^g",)),)), "take names 're:\\^g', and no column"),
        (ModelSpec(table=(rule,), column={"age": ColumnRule()}), "names the column 'age', and no table has it"),
        (ModelSpec(table=(rule,), column={"v": ColumnRule(copy_of="w")}), "to be a copy of 'w', and there is none"),
        (ModelSpec(table=(rule,), site="scanner"), "site is the column 'scanner', and no table has it"),
        (ModelSpec(table=(rule,), endpoint=EndpointRule(label="grade")), "no columns grade"),
    ]:
        with pytest.raises(StatisticsError, match=message):
            read(path, spec=spec)
