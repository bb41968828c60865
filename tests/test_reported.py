"""Inputs after public bug reports, each with the right answer that its README gives.

Images: what a case's mask holds (voxels, on how many slices), or a problem's code. Tables: a
function that checks what `fit` or `index` make of it.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from prognosis_dask.cohort.case import Case, read_cases
from prognosis_dask.cohort.index import index_cohort
from prognosis_dask.config.job import CohortSection, ImageSection
from prognosis_dask.errors import CaseError, Code, StatisticsError, collected_warnings
from prognosis_dask.imaging.load import load_case
from prognosis_dask.modelling.data.reading import ReadTable, find_tables, read_tables
from prognosis_dask.modelling.procedure import Procedure
from prognosis_dask.modelling.spec import ColumnRule, EndpointRule, ModelSpec, ValidationRule, load_spec
from prognosis_dask.workflows import models as modelling

#: The endpoint's columns in all of them, and one round of folds.
COMMON = ("endpoint.time=time", "endpoint.event=event", "validation.repeats=1", "validation.halves=0")
ONE_ROUND = ValidationRule(repeats=1, halves=0)


def a_single_volume_is_fitted_at_its_true_hazard_ratio(folder: Path, out: Path) -> None:
    modelling.fit(folder / "table.csv", None, out, overrides=COMMON, say=lambda _: None)
    row = pd.read_csv(out / "models" / "coefficients.csv").iloc[0]
    assert row["lower_95"] < np.exp(0.7) < row["upper_95"]
    assert row["hazard_ratio"] > 1.5
    spread = json.loads((out / "models" / "summary.json").read_text())["spread"]
    assert all(one["upper"] - one["lower"] > 0.2 for one in spread)


def what_separates_is_refused_without_a_penalty(folder: Path, out: Path) -> None:
    """`a` is 1 for those with the event: no penalty, no estimate; with the default penalties a modest one."""
    _refused(folder, out, "order the events perfectly")


def what_is_collinear_is_refused_without_a_penalty(folder: Path, out: Path) -> None:
    """`vox` is the mesh's volume but for some thousandths of a cubic millimetre."""
    _refused(folder, out, "collinear")


def _refused(folder: Path, out: Path, reason: str) -> None:
    table = pd.read_csv(folder / "table.csv")
    features = [name for name in table.columns if name not in ("PatientID", "time", "event")]
    endpoint = EndpointRule(time="time", event="event")
    columns = {name: ColumnRule(family="clinical") for name in features}
    free = {"free": Procedure(selector="", penalty=(0.0,))}
    spec = ModelSpec(endpoint=endpoint, column=columns, procedure=free, validation=ONE_ROUND)
    with pytest.raises(StatisticsError, match=f"no finite estimate, since .*({reason})") as refused:
        modelling.fit(folder / "table.csv", spec, out, say=lambda _: None)
    assert features[-1] in str(refused.value)
    held = ModelSpec(endpoint=endpoint, column=columns, validation=ONE_ROUND)
    modelling.fit(folder / "table.csv", held, out, say=lambda _: None)
    rows = pd.read_csv(out / "models" / "coefficients.csv")
    assert rows["hazard_ratio"].between(0.05, 20).all()


SPEC = ModelSpec(endpoint=EndpointRule(time="time", event="event"))


def read(*paths: Path, spec: ModelSpec = SPEC) -> ReadTable:
    return read_tables(find_tables(paths, spec), spec)


def two_rows_on_one_image_keep_their_patients(folder: Path, out: Path) -> None:
    index_cohort([folder / "c_labels.csv"], out / "c", CohortSection())
    patients = [case.patient_id for case in read_cases(out / "c" / "cases.csv")]
    assert sorted(patients) == ["b1", "b1", "b4"]
    problems = pd.read_csv(out / "c" / "problems.csv", dtype=str)
    assert {"b2", "b3"} <= set(problems["patient_id"])
    index_cohort([folder / "d_outcome.csv"], out / "d", CohortSection())
    cases = {case.patient_id: (case.time_days, case.event) for case in read_cases(out / "d" / "cases.csv")}
    assert cases == {"001": (300.0, 1), "002": (None, None), "1e5": (None, None)}


def a_named_level_none_is_a_level(folder: Path, out: Path) -> None:
    found = read(folder / "table.csv", spec=load_spec(folder / "s.toml"))
    assert [name for name in found.table.features if "=" in name] == ["smoking=Former", "smoking=Current"]
    assert not np.isnan(found.table.X).any()


def the_same_table_with_another_word_is_read_alike(folder: Path, out: Path) -> None:
    none = read(folder.parent / "C_h30" / "table.csv")
    never = read(folder / "table.csv")
    assert not np.isnan(none.table.X).any()
    assert any("smoking 'None' in 97 rows" in note for note in none.notes)
    ones = [found.table.X[:, found.table.features.index("smoking=Former")] for found in (none, never)]
    np.testing.assert_array_equal(*ones)


def ids_with_and_without_zeros_in_front_are_joined(folder: Path, out: Path) -> None:
    found = read(folder / "a.csv", folder / "b.xlsx")
    assert (len(found.table.case_ids), found.left_out) == (120, {})
    assert any("joined though they differ in leading zeros" in note for note in found.notes)


def status_and_months_are_read(folder: Path, out: Path) -> None:
    spec = ModelSpec(endpoint=EndpointRule(time="OS_MONTHS", event="OS_STATUS"))
    table, witness = read(folder / "table.csv", spec=spec).table, pd.read_csv(folder / "table.csv")
    np.testing.assert_allclose(table.time_days, witness["OS_MONTHS"] * 365.25 / 12)
    np.testing.assert_array_equal(table.event, witness["OS_STATUS"].str.contains("DECEASED"))


def a_row_number_is_no_feature(folder: Path, out: Path) -> None:
    found = read(folder / "table.csv")
    assert all(name.startswith(("original", "wavelet", "ln_volume")) for name in found.table.features)
    assert any("(blank) (has no heading)" in note for note in found.notes)


def noise_sorted_by_follow_up_predicts_nothing(folder: Path, out: Path) -> None:
    settings = ("endpoint.time=time", "endpoint.event=event", "validation.repeats=1", "validation.folds=3")
    said = modelling.compare(folder / "table.csv", procedures=["volume"], overrides=settings, say=lambda _: None)
    [row] = [r for r in said.tables["measures"] if r["measure"] == "harrell_c" and not r["in_sample"]]
    assert 0.35 < row["value"] < 0.65


def the_outcome_under_other_names_stops(folder: Path, out: Path) -> None:
    with pytest.raises(StatisticsError, match=r"exclude = \[.*\"futime\""):
        read(folder / "table.csv")


def it_is_the_table_of_the_others(folder: Path, out: Path) -> None:
    [path] = folder.glob("table.*")
    table, plain = read(path).table, pd.read_csv(folder.parent / "C_h120" / "table.csv", float_precision="round_trip")
    assert (len(table.case_ids), int(table.event.sum())) == (120, 93)
    np.testing.assert_array_equal(table.time_days, plain["time"])
    name = "original_shape_Sphericity"
    np.testing.assert_array_equal(table.X[:, table.features.index(name)], plain[name])


#: Voxels and slices of the sphere that most of these masks hold.
SPHERE = (738, 6)


@dataclass(frozen=True)
class Right:
    """The right answer: per patient (and per ROI where there are several) voxels and slices, or a problem's code."""

    cases: Mapping[str, tuple[int, int] | Code] = field(default_factory=dict)
    #: Problems that `problems.csv` must hold, by how many.
    problems: Mapping[Code, int] = field(default_factory=dict)
    roi: tuple[str, ...] = ()
    image: ImageSection = field(default_factory=ImageSection)
    #: Per patient time and event, where a clinical table is joined.
    endpoints: Mapping[str, tuple[float | None, int | None]] = field(default_factory=dict)


IMAGES: dict[str, Right] = {
    "B01_nan": Right({"A": Code.IMAGE_INVALID}),
    "B02_soft_mask": Right({"A": Code.MASK_UNREADABLE}),
    "B03_btcv_names": Right({"0001": (654, 6), "0002": (870, 6)}),
    "B05_dup_roi_number": Right({}, {Code.ROI_AMBIGUOUS: 1}, roi=("GTV-1",)),
    "B06_nameless_roi": Right({"P1": SPHERE, "P2": SPHERE}),
    "B07_multilabel_rule": Right({"A": (654, 6)}, roi=("GTV",)),
    "B08_dup_contour": Right({"P1": SPHERE}),
    "B09_missing_slice_far": Right({"P1": SPHERE}),
    "B10_rounded_ipp": Right({"P1": SPHERE}),
    "B11_sheared_nifti": Right({"A": (654, 6)}),
    "B12_scout_in_series": Right({"P1": SPHERE}),
    "B14_contour_beyond_image": Right({"P1": SPHERE}),
    "B16_series_absent": Right({}, {Code.MASK_WITHOUT_SERIES: 1}),
    "B17_no_image_refs": Right({"P1": SPHERE}),
    "B18_two_point_contour": Right({"P1": SPHERE}),
    "B19_empty_roi": Right({"P1": SPHERE}, roi=("GTV-1",)),
    "B20_signed12": Right({"P1": SPHERE}),
    "B21_oblique_mr": Right({"P1": SPHERE}),
    "B22_shared_series_uid": Right({"P1": SPHERE}),
    "B23_holes": Right({"P1": (564, 6)}),
    "B24_coarse_seg": Right({"P1": Code.MASK_OTHER_GRID}),
    "B25_pet_units": Right({"P1": SPHERE, "P2": SPHERE}),
    "B26_latin1_name": Right({}, {Code.UNREADABLE_FILE: 1}),
    "B27a_mask255": Right({"A": (654, 6)}),
    "B27b_mask_0.00392": Right({"A": (654, 6)}),
    "B28_leading_zeros": Right({"001": SPHERE, "002": SPHERE}),
    "B29_header_commas": Right({"STS_001": SPHERE, "STS_002": SPHERE}),
    "B30_status_1_2": Right({"P1": SPHERE, "P2": SPHERE}, endpoints={"P1": (None, None), "P2": (None, None)}),
    "B32_float_ids": Right({"1": SPHERE, "2": SPHERE}),
    "B34_two_rtstructs": Right({}, {Code.ROI_AMBIGUOUS: 1}, roi=("GTV-1",)),
    "B35_one_bad_item": Right({"P1": SPHERE}, roi=("GTV-1",)),
    "B36_offset_vector": Right({"P1": Code.MASK_UNREADABLE}),
    "B37_open_nonplanar": Right({}, {Code.ROI_WITHOUT_CONTOUR: 1}),
}

#: What a table's function gets: the folder of the input, and one to write into.
TableCheck = Callable[[Path, Path], None]
TABLES: dict[str, TableCheck] = {
    "C_batch": two_rows_on_one_image_keep_their_patients,
    "C_h30": a_named_level_none_is_a_level,
    "C_h30c": the_same_table_with_another_word_is_read_alike,
    "C_h50": ids_with_and_without_zeros_in_front_are_joined,
    "C_h61": status_and_months_are_read,
    "C_h62": status_and_months_are_read,
    "C_h70": a_row_number_is_no_feature,
    "C_h71": noise_sorted_by_follow_up_predicts_nothing,
    "C_h72": the_outcome_under_other_names_stops,
    "C_h78": it_is_the_table_of_the_others,
    "C_h79": it_is_the_table_of_the_others,
    "C_h88": it_is_the_table_of_the_others,
    "C_h120": what_separates_is_refused_without_a_penalty,
    "C_j01": what_is_collinear_is_refused_without_a_penalty,
    "C_k01": a_single_volume_is_fitted_at_its_true_hazard_ratio,
}


@pytest.fixture(scope="module")
def reported(shared_data: Path) -> Path:
    return shared_data / "reported"


def test_every_reported_input_has_its_right_answer_here(reported: Path) -> None:
    there = {folder.name for folder in reported.iterdir() if folder.is_dir()}
    assert there == {*IMAGES, *TABLES}


def found_in(case: Case, image: ImageSection) -> tuple[int, int] | Code:
    try:
        with collected_warnings():
            mask = sitk.GetArrayFromImage(load_case(case, image)[1])
    except CaseError as error:
        return error.problem.code
    return int(mask.sum()), int(np.any(mask, axis=(1, 2)).sum())


@pytest.mark.parametrize("name", IMAGES)
def test_a_reported_image_or_mask_gives_its_right_answer(name: str, reported: Path, tmp_path: Path) -> None:
    folder, right = reported / name, IMAGES[name]
    clinical = next((str(path) for path in folder.glob("clinical.*")), "")
    index_cohort([folder / "in"], tmp_path, CohortSection(roi=right.roi, clinical=clinical))
    cases = list(read_cases(tmp_path / "cases.csv")) if right.cases else []
    assert {case.patient_id: found_in(case, right.image) for case in cases} == dict(right.cases)
    assert len(cases) == len(right.cases)
    with (tmp_path / "problems.csv").open(newline="", encoding="utf-8") as stream:
        codes = [row["code"] for row in csv.DictReader(stream)]
    for code, times in right.problems.items():
        assert codes.count(code.value) == times, codes
    for case in cases:
        if case.patient_id in right.endpoints:
            assert (case.time_days, case.event) == right.endpoints[case.patient_id]


@pytest.mark.parametrize("name", TABLES)
def test_a_reported_table_gives_its_right_answer(name: str, reported: Path, tmp_path: Path) -> None:
    TABLES[name](reported / name, tmp_path)
