"""A patient is a row: CT, MR and PET are columns of their own, patients are counted once, and models know it."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from prognosis_dask.cohort.case import Case
from prognosis_dask.cohort.summary import IndexSummary
from prognosis_dask.config.job import ModelSection
from prognosis_dask.errors import Code, StatisticsError
from prognosis_dask.features.dataset import (
    build_features,
    constant_warnings,
    said_of_twins,
    twin_warnings,
    write_features,
)
from prognosis_dask.features.stage import Columns
from prognosis_dask.modelling.data.reading import ReadTable, find_tables, read_tables
from prognosis_dask.modelling.data.sources import dataset_source
from prognosis_dask.modelling.data.table_one import table1_rows
from prognosis_dask.modelling.fit import fit_dataset
from prognosis_dask.modelling.saved import load_frozen
from prognosis_dask.modelling.spec import ModelSpec
from prognosis_dask.prediction.model import load_model
from prognosis_dask.report.read import RunFolder
from prognosis_dask.report.sections.characteristics import characteristics
from prognosis_dask.report.sections.features import families
from prognosis_dask.storage.ledger import TaskResult
from prognosis_dask.workflows.models import fit, predict, validate

UNITS = {"original_firstorder_Mean": "u", "original_glcm_Contrast": "1"}
#: Follow-up in days: in no order that anything else is in.
DAYS = (100.0 + 37 * np.random.default_rng(3).permutation(24)).tolist()
#: What a mean is of, in HU, arbitrary numbers and SUV.
LEVEL = {"CT": 40.0, "MR": 700.0, "PT": 8.0}


def make_cases(modalities: Sequence[str] = ("CT", "MR", "PT"), patients: int = 24) -> list[Case]:
    """10 of 24 patients have the event; the age is the patient's, the scanner each case's."""
    return [
        Case(
            f"P{i:02d}_{modality}_GTV",
            f"P{i:02d}",
            modality,
            "GTV",
            "image",
            "mask",
            time_days=DAYS[i],
            event=int(i % 5 in (0, 3)),
            covariates={"age": str(40 + i * i % 11), "scanner": f"{modality}{i % 2}"},
        )
        for i in range(patients)
        for modality in modalities
    ]


def value_of(case: Case) -> list[float]:
    number = int(case.patient_id[1:])
    return [LEVEL[case.modality] + number * 7 % 24, LEVEL[case.modality] / (1 + number * number % 7)]


def volume_of(case: Case) -> float:
    return 1.0 + (3 * int(case.patient_id[1:]) + len(case.roi)) ** 2 % 31


def make_dataset(cases: Sequence[Case]) -> xr.Dataset:
    roi = {"voxels": 9, "n_slices": 3, "lesion_cut": False}
    outcomes = {
        "roi": {
            case.case_id: TaskResult(case.case_id, "roi", "d", None, {}, roi | {"volume_ml": volume_of(case)})
            for case in cases
        },
        "radiomics": {
            case.case_id: TaskResult(case.case_id, "radiomics", "d", None, {}, {"values": value_of(case)})
            for case in cases
        },
    }
    settings = {"radiomics.parameters.CT": "11", "radiomics.parameters.default": "22", "radiomics.image": "33"}
    attributes = {"settings": settings}
    return build_features(cases, {"radiomics": Columns(UNITS)}, outcomes, attributes)


def make_run(folder: Path, cases: Sequence[Case]) -> Path:
    folder.mkdir()
    write_features(make_dataset(cases), folder)
    return folder


def table_of_dataset(dataset: xr.Dataset, spec: ModelSpec | None = None) -> ReadTable:
    return read_tables([dataset_source(dataset, "the feature dataset")], spec)


SPEC = ModelSpec(validation=replace(ModelSpec().validation, folds=3, repeats=1, halves=0))


def test_each_modality_is_a_family_of_columns_and_each_patient_a_row() -> None:
    read = table_of_dataset(make_dataset(make_cases()))
    table = read.table
    assert table.patient_ids == table.case_ids == tuple(f"P{i:02d}" for i in range(24))
    assert set(table.families) == {"radiomics CT", "radiomics MR", "radiomics PT", "volume", "clinical"}
    means = [name for name in table.features if name.endswith("original_firstorder_Mean")]
    assert means == [f"{modality} original_firstorder_Mean" for modality in ("CT", "MR", "PT")]
    for name in means:
        values = table.X[:, table.features.index(name)]
        np.testing.assert_array_equal(values, LEVEL[name[:2]] + np.arange(24) * 7 % 24)
        assert table.units[table.features.index(name)] == "u"
    assert table.features.count("age") == 1, "what is the patient's is there once"
    assert "CT scanner=CT1" in table.features, "and what is each case's, for each"
    assert "A row is a patient: what was measured on CT (24), MR (24), PT (24)" in " ".join(read.notes)
    assert dict(table.source) == {
        "radiomics.image": "33",
        "radiomics.parameters.CT": "11",
        "radiomics.parameters.MR": "22",
        "radiomics.parameters.PT": "22",
    }


def test_one_modality_keeps_its_rows_and_names() -> None:
    cases = make_cases(["CT"])
    table = table_of_dataset(make_dataset(cases)).table
    assert table.case_ids == tuple(case.case_id for case in cases)
    assert table.features[:2] == tuple(UNITS)
    assert table.source["radiomics.parameters"] == "11"


def test_patients_and_events_are_counted_as_patients() -> None:
    """24 patients with three cases each: 10 events, not 30, whether their rows are pooled or not."""
    for rows in ("patient", "pooled"):
        read = table_of_dataset(make_dataset(make_cases()), replace(SPEC, rows=rows))
        counted = table1_rows(read.table, read.encodings)[0]
        assert (counted["variable"], counted["overall"], counted["event"]) == ("patients", 24, 10)
    pooled = table1_rows(read.table, read.encodings)[1]
    assert (pooled["variable"], pooled["overall"]) == ("cases", 72)


def test_rows_are_pooled_only_where_the_specification_says_so() -> None:
    read = table_of_dataset(make_dataset(make_cases()), replace(SPEC, rows="pooled"))
    assert len(read.table.case_ids) == 72
    assert "Rows of CT, MR, PT are pooled in the same columns" in " ".join(read.notes)
    (mean,) = (encoding for encoding in read.encodings if encoding.column == "original_firstorder_Mean")
    assert mean.modality == "CT+MR+PT"


def test_a_patient_without_one_of_the_modalities_is_left_out_by_that_reason() -> None:
    cases = [case for case in make_cases() if case.case_id not in ("P03_PT_GTV", "P04_PT_GTV", "P05_CT_GTV")]
    read = table_of_dataset(make_dataset(cases))
    assert read.left_out == {"no PT case": 2, "no CT case": 1}
    assert len(read.table.case_ids) == 21


def test_patients_of_different_modalities_have_no_row_in_common_and_are_told_what_to_do() -> None:
    cases = [case for case in make_cases(["CT", "MR"]) if (case.modality == "CT") == (case.patient_id < "P12")]
    with pytest.raises(
        StatisticsError, match=r"no row can be used \(12 no MR case, 12 no CT case\).*cohort.modalities"
    ):
        table_of_dataset(make_dataset(cases))


def test_several_cases_of_a_patient_in_one_modality_are_never_averaged() -> None:
    """Test and retest: somebody has to say which of them counts, or that both do."""
    cases = make_cases(["CT"])
    dataset = make_dataset([*cases, replace(cases[4], case_id="P04_CT_again")])
    with pytest.raises(StatisticsError) as caught:
        table_of_dataset(dataset)
    assert "1 patient with several cases of CT, the first 'P04' (P04_CT_GTV, P04_CT_again)" in str(caught.value)
    assert 'rows = "pooled"' in str(caught.value)
    pooled = table_of_dataset(dataset, ModelSpec(rows="pooled")).table
    assert len(pooled.case_ids) == 25


def test_several_regions_in_one_modality_are_families_of_their_own() -> None:
    cases = [
        replace(case, case_id=f"{case.case_id}{roi}", roi=roi) for case in make_cases(["CT"]) for roi in ("GTV", "node")
    ]
    table = table_of_dataset(make_dataset(cases)).table
    assert {"radiomics CT GTV", "radiomics CT node"} <= set(table.families)
    assert len(table.case_ids) == 24


def test_regions_that_are_called_differently_are_one_where_each_patient_has_one() -> None:
    cases = [replace(case, roi="GTV" if i % 2 else "HTV") for i, case in enumerate(make_cases(["CT"]))]
    assert set(table_of_dataset(make_dataset(cases)).table.families) >= {"radiomics"}


def test_an_endpoint_that_differs_between_a_patients_cases_is_refused() -> None:
    cases = make_cases()
    cases[1] = replace(cases[1], time_days=1.0)
    with pytest.raises(StatisticsError, match="time_days differs between the cases of a patient"):
        table_of_dataset(make_dataset(cases))


def test_a_column_of_a_runs_csv_is_told_apart_too(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", make_cases())
    ours = table_of_dataset(make_dataset(make_cases())).table
    table = read_tables(find_tables([run / "features.csv"], ModelSpec())).table
    assert set(ours.features) <= {*table.features}
    at = [table.features.index(name) for name in ours.features]
    np.testing.assert_array_equal(table.X[:, at], ours.X)


def test_a_column_called_modality_that_is_none_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    rows = [
        {"patient": f"P{i}", "modality": "surgery", "time_days": 9 + i, "event": i % 2, "x": i * i} for i in range(9)
    ]
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert read_tables(find_tables([path], ModelSpec())).table.features == ("x",)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Frozen models: of CT alone, of three modalities, and of these pooled."""
    folder = tmp_path_factory.mktemp("models")
    ct, three = make_run(folder / "ct", make_cases(["CT"])), make_run(folder / "three", make_cases())
    exclude = ("age", "re:scanner")
    for run, name, rows in ((ct, "of_ct", "patient"), (three, "of_three", "patient"), (three, "pooled", "pooled")):
        fit(run, replace(SPEC, rows=rows, exclude=exclude), folder / name, say=lambda _: None)
    return {name: folder / name for name in ("ct", "three", "of_ct", "of_three", "pooled")}


def quiet(_: str) -> None:
    pass


def test_a_command_counts_patients_where_rows_are_patients(models: dict[str, Path]) -> None:
    said: list[str] = []
    predict(models["of_three"], models["three"], say=said.append)
    predict(models["pooled"], models["three"], say=said.append)
    assert [line for line in said if line[0].isdigit()] == ["24 patients", "72 cases of 24 patients"]


def test_a_frozen_model_knows_the_modality_of_each_column(models: dict[str, Path]) -> None:
    measured = {e.column: e.modality for e in load_frozen(models["of_three"]).encodings}
    assert measured["CT original_firstorder_Mean"] == "CT"
    assert measured["PT volume_ml"] == "PT"
    content = json.loads((models["of_ct"] / "models" / "model.json").read_text())
    assert {e["modality"] for e in content["encodings"]} == {"CT"}
    assert {e.modality for e in load_frozen(models["pooled"]).encodings} == {"CT+MR+PT"}


def test_a_column_of_ct_never_meets_a_row_of_pet(models: dict[str, Path], tmp_path: Path) -> None:
    pet = make_run(tmp_path / "pet", make_cases(["PT"]))
    with pytest.raises(StatisticsError, match=r"the model was fitted on CT, and .* has no case of CT; it has PT"):
        predict(models["of_ct"], pet, say=quiet)
    said: list[str] = []
    told = predict(models["of_ct"], models["three"], say=said.append)
    assert list(told["case_id"]) == [f"P{i:02d}_CT_GTV" for i in range(24)]
    assert "24 of MR, which the model was not fitted on" in said[0]
    alone = predict(models["of_ct"], models["ct"], say=quiet)
    assert list(told["risk_score"]) == list(alone["risk_score"])


def test_a_model_of_three_modalities_predicts_patients(models: dict[str, Path]) -> None:
    told = predict(models["of_three"], models["three"], say=quiet)
    assert list(told["case_id"]) == list(told["patient_id"]) == [f"P{i:02d}" for i in range(24)]
    with pytest.raises(StatisticsError, match=r"fitted on CT, MR, PT, and .* has no case of MR, PT; it has CT"):
        predict(models["of_three"], models["ct"], say=quiet)
    found = validate(models["three"], None, model=models["of_three"], say=quiet)
    assert (found.summary["n_cases"], found.summary["n_patients"], found.summary["n_events"]) == (24, 24, 10)


def test_a_single_scan_is_not_predicted_by_a_model_of_several(models: dict[str, Path]) -> None:
    with pytest.raises(
        StatisticsError, match="takes what was measured on CT, MR, PT of a patient, and one scan is one"
    ):
        load_model(models["of_three"])


def test_a_table_that_does_not_say_its_modality_is_predicted_with_a_warning(
    models: dict[str, Path], tmp_path: Path
) -> None:
    with (models["ct"] / "features.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    with (tmp_path / "bare.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [name for name in rows[0] if name != "modality"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    said: list[str] = []
    predict(models["of_ct"], tmp_path / "bare.csv", say=said.append)
    assert "does not say of which modality its cases are; the model was fitted on CT" in "\n".join(said)


def test_the_model_of_a_job_takes_all_modalities_of_a_patient(tmp_path: Path) -> None:
    section = ModelSection(features="radiomics", folds=3, repeats=1, halves=0, max_features=2, label_days=500.0)
    summary = fit_dataset(make_dataset(make_cases()), section, tmp_path / "models")
    assert "not_fitted" not in summary, summary
    assert (summary["n_cases"], summary["n_patients"], summary["n_events"]) == (24, 24, 10)


def test_features_that_are_constant_within_a_modality_are_warned_of() -> None:
    """PET whose lesions are one bin each: nothing in CT's values shows it."""
    dataset = make_dataset(make_cases())
    values = dataset["radiomics"].values.copy()
    values[dataset["modality"].values == "PT", 1] = 0.0
    dataset["radiomics"].values[:] = values
    (warning,) = constant_warnings(dataset)
    assert (warning.code, warning.severity, warning.case_id) == (Code.FEATURES_CONSTANT, "warning", "")
    assert warning.reason.startswith("1 of 2 radiomics features have one value in all 24 PT cases: original_glcm_Contr")
    assert constant_warnings(make_dataset(make_cases(patients=2))) == []


def test_patients_with_the_same_features_are_told_as_one_scan_under_several_ids() -> None:
    """As where a cohort was exported twice, under other IDs: no UID and no file tells."""
    cases = make_cases()
    units = {f"original_firstorder_{number}": "u" for number in range(12)}
    of = {case.case_id: (np.arange(12) + value_of(case)[0]).tolist() for case in cases}
    of["P05_CT_GTV"] = of["P20_CT_GTV"]
    outcomes = {
        "radiomics": {
            name: TaskResult(name, "radiomics", "d", None, {}, {"values": values}) for name, values in of.items()
        }
    }
    dataset = build_features(cases, {"radiomics": Columns(units)}, outcomes, {})
    (warning,) = twin_warnings(dataset)
    assert (warning.code, warning.severity) == (Code.PATIENTS_MIXED, "warning")
    assert warning.reason.startswith("the patients P05, P20 have the same 12 features of CT: one scan under several")
    assert said_of_twins([warning]) == [warning.reason]
    (said,) = said_of_twins([warning] * 150)
    assert said.startswith(
        "150 groups of patients with the same features, listed in problems.csv; first: the patients P05"
    )
    assert twin_warnings(make_dataset([*cases, *cases[:1]][:6])) == [], "two features may be the same by chance"


def test_the_report_counts_events_and_values_as_the_patients() -> None:
    rows = dict(characteristics(RunFolder(Path("run"), {"name": "run"}, tuple(make_cases()))))
    assert (rows["Patients"], rows["Cases"]) == ("24", "72")
    assert rows["Events"] == "10 of 24 patients with a known endpoint"
    assert rows["scanner"].startswith("CT0: 12 (17 %)"), "what differs between a patient's cases is counted as cases"
    alone = dict(characteristics(RunFolder(Path("run"), {"name": "run"}, tuple(make_cases(["CT"])))))
    assert alone["age"] == rows["age"]
    assert alone["Events"] == "10 of 24 with a known endpoint"


def test_the_report_tells_the_features_of_modalities_apart() -> None:
    """A value that is one in all of PET, and a feature that CT's parameters have not."""
    dataset = make_dataset(make_cases())
    of = dataset["modality"].values
    values = dataset["radiomics"].values
    values[of == "PT", 1] = 0.0
    values[of == "CT", 0] = np.nan
    outcomes = {"radiomics": {case.case_id: TaskResult(case.case_id, "radiomics", "d", None) for case in make_cases()}}
    run = RunFolder(Path("run"), {"name": "run"}, tuple(make_cases()), results=outcomes, features=dataset)
    found = {family.name: (family.features, family.missing, family.constant) for family in families(run)}
    assert found["PT original glcm"] == (1, 0.0, 1)
    assert found["MR original glcm"] == (1, 0.0, 0)
    assert "CT original firstorder" not in found


def test_the_terminal_counts_events_as_the_patients() -> None:
    nothing: Counter[str] = Counter()
    summary = IndexSummary("out", 9, nothing, 12, nothing, nothing, nothing, 36, 36, 12, 6, 0, nothing)
    assert "cases      36; 36 with time and event, of 12 patients, 6 of whom had the event" in str(summary)
    alone = replace(summary, cases=12, with_endpoint=12)
    assert "cases      12; 12 with time and event, 6 events" in str(alone)
