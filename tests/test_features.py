"""The feature dataset: as specified, exact in both formats, and named where it is not."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from prognosis_dask.cohort.case import Case
from prognosis_dask.errors import Code, Problem, StoreError
from prognosis_dask.features.dataset import build_features, read_features, write_features
from prognosis_dask.features.registry import documentation, variables
from prognosis_dask.features.stage import Columns
from prognosis_dask.modelling.data.sources import dataset_source
from prognosis_dask.storage.ledger import TaskResult

RADIOMIC = {"original_shape_MeshVolume": "mm^3", "original_firstorder_Mean": "u", "original_glcm_Contrast": "1"}
DEEP = ("logit_000", "logit_001")
LABELS = ("abseiling", "air drumming")
COLUMNS = {"radiomics": Columns(RADIOMIC), "deep": Columns(dict.fromkeys(DEEP, "1"))}


def make_case(name: str, **changes: object) -> Case:
    case = Case(f"{name}_CT_GTV-1", name, "CT", "GTV-1", "image", "mask", (), 1 / 3, 1)
    return replace(case, **changes)


CASES = (
    make_case("P1", covariates={"age": "61.5", "stage": "IIIa", "T/N": "T1,N0", "empty": ""}),
    make_case("P2", covariates={"age": "", "stage": "", "T/N": 'said "é"\nor', "empty": ""}, event=0),
    make_case("P3", covariates={"age": "7e1", "stage": "2", "empty": ""}, time_days=None, event=None),
    make_case("P4"),
)


def make_outcomes() -> dict[str, dict[str, TaskResult]]:
    """P1 is fine, P2's radiomics failed, P3 has no ROI, P4 was not reached."""
    p1, p2, p3, _ = (case.case_id for case in CASES)
    roi = {"voxels": 12, "volume_ml": 0.1 + 0.2, "n_slices": 3, "lesion_cut": True, "peak_memory_mb": 1.0}
    numbers = [0.1 + 0.2, 5e-324, -math.inf]
    logits = [float(np.float32(0.1)), -2.5]
    return {
        "roi": {
            p1: TaskResult(p1, "roi", "d", None, {}, roi),
            p2: TaskResult(p2, "roi", "d", None, {}, {**roi, "lesion_cut": False}),
            p3: TaskResult(p3, "roi", "d", Problem(Code.MASK_EMPTY, "0 voxels"), {}, {"peak_memory_mb": 1.0}),
        },
        "radiomics": {
            p1: TaskResult(p1, "radiomics", "d", None, {}, {"values": numbers}),
            p2: TaskResult(p2, "radiomics", "d", Problem(Code.RADIOMICS_FAILED, "why"), {}, {}),
        },
        "deep": {
            p1: TaskResult(p1, "deep", "d", None, {}, {"values": logits}),
            p2: TaskResult(p2, "deep", "d", None, {}, {"values": [0.0, math.nan]}),
        },
    }


@pytest.fixture
def dataset() -> xr.Dataset:
    attributes = {"job": {"name": "demo", "window": (1.0, 2.0), "labels": ()}, "versions": {"zarr": "3"}, "deep": None}
    return build_features(
        CASES, COLUMNS | {"deep": replace(COLUMNS["deep"], labels=LABELS)}, make_outcomes(), attributes
    )


def test_one_row_per_case_and_nan_where_it_failed(dataset: xr.Dataset) -> None:
    assert dict(dataset.sizes) == {"case": 4, "radiomic": 3, "deep_feature": 2}
    assert list(dataset["case"].values) == [case.case_id for case in CASES]
    np.testing.assert_array_equal(dataset["radiomics"][0], [0.1 + 0.2, 5e-324, -math.inf])
    assert np.isnan(dataset["radiomics"][1:]).all()
    np.testing.assert_array_equal(
        dataset["deep"], np.array([[0.1, -2.5], [0, np.nan], *[[np.nan] * 2] * 2], np.float32)
    )
    assert dataset["deep"].dtype == np.float32
    np.testing.assert_array_equal(dataset["lesion_cut"], [1, 0, np.nan, np.nan])
    np.testing.assert_array_equal(dataset["volume_ml"], [0.1 + 0.2, 0.1 + 0.2, np.nan, np.nan])
    np.testing.assert_array_equal(dataset["time_days"], [1 / 3, 1 / 3, np.nan, 1 / 3])
    np.testing.assert_array_equal(dataset["event"], [1, 0, np.nan, 1])
    assert list(dataset["problem"].values) == ["", "radiomics: radiomics-failed", "roi: mask-empty", "roi: not-run"]
    assert list(dataset["radiomic_units"].values) == ["mm^3", "u", "1"]
    assert str(dataset["deep"].sel(deep_feature="logit_001")["deep_label"].values) == "air drumming"


def test_covariates_are_numbers_where_all_their_values_are(dataset: xr.Dataset) -> None:
    np.testing.assert_array_equal(dataset["covariate_age"], [61.5, np.nan, 70.0, np.nan])
    assert list(dataset["covariate_stage"].values) == ["IIIa", "", "2", ""]
    assert list(dataset["covariate_T_N"].values) == ["T1,N0", 'said "é"\nor', "", ""]
    assert np.isnan(dataset["covariate_empty"]).all()
    text = build_features([make_case("P1", covariates={"id": "1_0"})], {}, {})
    assert text["covariate_id"].values[0] == "1_0"


def test_every_variable_has_a_name_and_a_unit(dataset: xr.Dataset) -> None:
    for name, variable in dataset.variables.items():
        assert variable.attrs["long_name"], name
        assert "units" in variable.attrs, name
    others = {"size", "size_feature", "size_units", "ibsi", "ibsi_feature", "ibsi_units"}
    others |= {"deep_2", "deep_2_feature", "deep_2_label", "mask_source"}
    assert {spec.name for spec in variables()} - set(dataset.variables) == {"covariate_*", *others}


def test_zarr_comes_back_identical_also_with_plain_xarray(dataset: xr.Dataset, tmp_path: Path) -> None:
    write_features(dataset, tmp_path)
    xr.testing.assert_identical(read_features(tmp_path), dataset)
    xr.testing.assert_identical(read_features(tmp_path / "features.zarr"), dataset)
    texts = [variable for variable in read_features(tmp_path).variables.values() if variable.dtype.kind not in "fib"]
    assert {variable.dtype for variable in texts} == {np.dtype(object)}  # with every NumPy
    xr.testing.assert_identical(xr.open_zarr(tmp_path / "features.zarr").load(), dataset)
    assert dataset.attrs["job"]["window"] == [1.0, 2.0]


def test_features_are_read_here_and_not_by_the_workers_of_a_client(dataset: xr.Dataset, tmp_path: Path) -> None:
    write_features(dataset, tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("read through Dask")

    with dask.config.set(scheduler=refuse):
        xr.testing.assert_identical(read_features(tmp_path), dataset)


def test_csv_comes_back_value_for_value(dataset: xr.Dataset, tmp_path: Path) -> None:
    write_features(dataset, tmp_path)
    table = pd.read_csv(tmp_path / "features.csv", float_precision="round_trip", keep_default_na=False, na_values=[""])
    fixed = ["case_id", "patient_id", "roi", "modality", "time_days", "event", "voxels", "volume_ml", "n_slices"]
    covariates = ["covariate_T_N", "covariate_age", "covariate_empty", "covariate_stage"]
    assert list(table) == [*fixed, "lesion_cut", "image_units", "problem", *covariates, *RADIOMIC, *DEEP]
    np.testing.assert_array_equal(table[list(RADIOMIC)], dataset["radiomics"])
    np.testing.assert_array_equal(table[list(DEEP)].to_numpy(np.float32), dataset["deep"])
    for name in (*fixed[4:], "covariate_age"):
        np.testing.assert_array_equal(table[name].to_numpy(float), dataset[name])
    for name in ("patient_id", "problem", "covariate_stage", "covariate_T_N"):
        assert list(table[name].fillna("")) == list(dataset[name].values)


def test_equal_datasets_give_equal_bytes_and_replace_each_other(dataset: xr.Dataset, tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        write_features(dataset.isel(case=[0]), folder)
        write_features(read_features(folder), folder)  # the order of variables in memory does not matter
    write_features(dataset, folders[0])
    write_features(dataset, folders[1])
    one, other = ({p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file()} for f in folders)
    assert one == other
    assert {path.parts[0] for path in one} == {"features.zarr", "features.csv"}


def test_stages_that_are_off_leave_no_variables(tmp_path: Path) -> None:
    dataset = build_features(CASES[:1], {}, {"roi": make_outcomes()["roi"]})
    assert not {"radiomics", "radiomic", "deep", "deep_feature"} & set(dataset.variables)
    assert list(dataset["problem"].values) == [""]
    write_features(dataset, tmp_path)
    xr.testing.assert_identical(read_features(tmp_path), dataset)


def test_many_cases_in_several_chunks_come_back(tmp_path: Path) -> None:
    cases = [make_case(f"P{i}") for i in range(5000)]
    values = {
        c.case_id: TaskResult(c.case_id, "deep", "d", None, {}, {"values": [i / 7, -i]}) for i, c in enumerate(cases)
    }
    dataset = build_features(cases, {"deep": COLUMNS["deep"]}, {"deep": values})
    write_features(dataset, tmp_path)
    xr.testing.assert_identical(read_features(tmp_path), dataset)
    assert len((tmp_path / "features.csv").read_text().splitlines()) == 5001


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda d: d.drop_vars("event"), "event is missing"),
        (lambda d: d.drop_vars("radiomic_units"), "radiomic_units and radiomics go together"),
        (lambda d: d.assign(extra=("case", np.zeros(4))), "unknown variable 'extra'"),
        (
            lambda d: d.assign(deep=d["deep"].astype(float).assign_attrs(d["deep"].attrs)),
            "deep: type is float64, expec",
        ),
        (lambda d: d.assign(voxels=d["voxels"].astype(object).assign_attrs(d["voxels"].attrs)), "voxels: type is obj"),
        (lambda d: d.transpose("radiomic", ...), "radiomics: dimensions is .'radiomic', 'case'., expected .'case', 'r"),
        (lambda d: d.assign(volume_ml=d["volume_ml"].assign_attrs(units="mm^3")), "units is 'mm.3', expected 'mL'"),
        (lambda d: d.reset_coords("roi"), "roi: being a coordinate is False, expected True"),
        (lambda d: d.isel(case=[0, 0]), "case: 'P1_CT_GTV-1' is there twice"),
    ],
)
def test_violation_of_the_schema_is_named(dataset: xr.Dataset, tmp_path: Path, harm, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        write_features(harm(dataset), tmp_path)
    assert not list(tmp_path.glob("features.*"))


def test_violation_in_a_file_is_named_on_reading(dataset: xr.Dataset, tmp_path: Path) -> None:
    write_features(dataset, tmp_path)
    metadata = tmp_path / "features.zarr" / "zarr.json"
    metadata.write_text(metadata.read_text().replace('"mL"', '"mm^3"'))
    with pytest.raises(StoreError, match=r"features.zarr: .*volume_ml: units is 'mm\^3', expected 'mL'"):
        read_features(tmp_path)


def test_missing_and_incomplete_files_are_told_from_nan(dataset: xr.Dataset, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no features at .*prognosis run"):
        read_features(tmp_path)
    write_features(dataset, tmp_path)
    (tmp_path / "features.zarr/radiomics/c/0/0").unlink()
    with pytest.raises(StoreError, match="radiomics has 0 of its 1 chunks"):
        read_features(tmp_path)
    (tmp_path / "features.zarr/zarr.json").unlink()
    with pytest.raises(StoreError, match="cannot be read"):
        read_features(tmp_path)


def test_what_cannot_be_a_dataset_is_named() -> None:
    def build(cases: tuple[Case, ...] = CASES, attributes: dict[str, object] | None = None, **outcomes: object) -> None:
        build_features(cases, COLUMNS, make_outcomes() | outcomes, attributes or {})

    with pytest.raises(StoreError, match="no case could be used"):
        build(())
    one = CASES[0].case_id
    with pytest.raises(StoreError, match="deep of P1_CT_GTV-1 holds 1 values, expected 2"):
        build(deep={one: TaskResult(one, "deep", "d", None, {}, {"values": [1.0]})})
    with pytest.raises(StoreError, match="two columns that become 'covariate_T_N'"):
        build((make_case("P1", covariates={"T/N": "", "T N": ""}),))
    with pytest.raises(StoreError, match="attributes must be what JSON holds"):
        build(attributes={"x": math.nan})


def test_the_documentation_is_the_schema() -> None:
    page = Path(__file__).resolve().parents[1] / "docs" / "features.md"
    assert page.read_text(encoding="utf-8") == documentation(), "make docs/features.md anew: its second line says how"


def test_a_tumours_size_is_a_family_of_its_own(tmp_path):
    found, lost, _, _ = (case.case_id for case in CASES)
    problem = Problem(Code.NO_CANDIDATE, "none found")
    outcomes = {
        "brain": {
            found: TaskResult(found, "brain", "d", None, {}, {"values": [1.5, 20.0]}),
            lost: TaskResult(lost, "brain", "d", problem, {}, {}),
        }
    }
    sizes = {"size_volume": "mL", "size_axial_diameter": "mm"}
    dataset = build_features(CASES, {"brain": Columns(sizes)}, outcomes)
    write_features(dataset, tmp_path)
    read = read_features(tmp_path)
    np.testing.assert_array_equal(read["size"].values, [[1.5, 20.0], *[[math.nan] * 2] * 3])
    assert read["size_units"].values.tolist() == ["mL", "mm"]
    assert "brain: no-candidate" in read["problem"].values[1]
    source = dataset_source(read, "the run")
    assert (source.families["size_volume"], source.columns["size_volume"].unit) == ("size", "mL")


def test_the_volume_is_read_before_the_clinical_columns_whichever_way_a_dataset_orders_its_variables() -> None:
    dataset = xr.Dataset(
        {"covariate_stage": ("case", [1.0, 2.0]), "volume_ml": ("case", [3.0, 4.0])},
        coords={"case": ["A", "B"], "patient_id": ("case", ["A", "B"])},
    )
    assert dataset_source(dataset, "the run").features == ("volume_ml", "stage")
