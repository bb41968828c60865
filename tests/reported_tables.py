"""What the readers must make of the reported tables whose faults lie in how tables are written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from prognosis_dask.cohort.case import read_cases
from prognosis_dask.cohort.index import index_cohort
from prognosis_dask.config.job import CohortSection
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.reading import ReadTable, find_tables, read_tables
from prognosis_dask.modelling.spec import EndpointRule, ModelSpec, load_spec
from prognosis_dask.workflows import models as modelling

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
    with pytest.raises(StatisticsError, match=r"'futime'|exclude = \[.*\"futime\""):
        read(folder / "table.csv")


def it_is_the_table_of_the_others(folder: Path, out: Path) -> None:
    [path] = folder.glob("table.*")
    table, plain = read(path).table, pd.read_csv(folder.parent / "C_h120" / "table.csv", float_precision="round_trip")
    assert (len(table.case_ids), int(table.event.sum())) == (120, 93)
    np.testing.assert_array_equal(table.time_days, plain["time"])
    name = "original_shape_Sphericity"
    np.testing.assert_array_equal(table.X[:, table.features.index(name)], plain[name])
