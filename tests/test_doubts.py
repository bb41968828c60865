"""What a table says and cannot mean is told: codes, dates and shares among numbers, and what counts the follow-up."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import openpyxl
import pytest

from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.columns import Encoding, SourceColumn
from prognosis_dask.modelling.data.doubts import age_notes, course_notes, serial_date_notes, share_notes
from prognosis_dask.modelling.data.endpoint import Survival
from prognosis_dask.modelling.data.reading import find_tables, read_tables
from prognosis_dask.modelling.spec import ModelSpec
from tests.test_tables_in import read, said

RNG = np.random.default_rng(3)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (
            {"surgery": [43000 + 37 * i for i in range(24)]},
            "dates from 2017-09-22 to 2020-01-21",
        ),
        (
            {"ki67": [20 + i if i % 2 else (20 + i) / 100 for i in range(48)]},
            "whole numbers in 24 rows and fractions in 24",
        ),
        ({"nodes": ["1-2", "0", "02. Jan"]}, "nodes: '02. Jan' may be a range or a fraction that Excel"),
        ({"age": [*range(41, 62), 99, 99, 99]}, "age is 99 in 3 rows, and 90 to 98 in 0"),
        ({"reader": [1, 2, 3]}, "reader holds the codes 1, 2, 3"),
        ({"cluster": [2, 4, 1, 3, 3, 1]}, "cluster holds the codes 1, 2, 3, 4"),
        ({"zip": [8001 + 971 * i % 977 for i in range(24)]}, "zip holds 24 codes, which enter as an amount"),
        ({"fold": [0, 1, 2, 3]}, "fold is by its name a part of a split or a weight"),
        (
            {"tracking": [7919 * (i * 7 % 24 + 201) for i in range(24)]},
            "tracking is another number of 7 digits in each row",
        ),
        ({"sampling_weights": [1.2, 0.8, 1.5]}, "sampling_weights is by its name a part of a split or a weight"),
    ],
)
def test_numbers_and_words_that_are_no_amount_are_told(cells: dict[str, object], expected: str, tmp_path: Path) -> None:
    assert expected in said(read(tmp_path, cells, n=48 if "ki67" in cells else 24))


@pytest.mark.parametrize(
    "cells",
    [
        {"platelets": [143000 + 3700 * i for i in range(24)]},  # beyond any date
        {"psa": [0.3, 4, 5.2, *range(10, 31)]},
        {"age": [*range(88, 98), *range(60, 72), 99, 99]},  # very old people
        {"month": ["Jan 01", "Feb 01", "Mar 01"]},
        {"weight": [60, 72.5, 81]},
        {"grade": [1, 2, 3]},
    ],
)
def test_what_may_well_be_an_amount_is_not_told(cells: dict[str, object], tmp_path: Path) -> None:
    told = said(read(tmp_path, cells))
    for word in ("Excel", "fractions in", "99 in", "codes"):
        assert word not in told


def test_pack_years_postal_codes_and_an_empty_column_of_ages_are_no_slips() -> None:
    packs = np.array([0.25, 0.5, 0.5, 0.5, 0, *range(2, 32)])
    assert not share_notes(SourceColumn("pack_years", packs, "t.csv"))
    codes = np.arange(30000.0, 30050.0)
    assert serial_date_notes(SourceColumn("seen_on", codes, "t.csv"))
    assert not serial_date_notes(SourceColumn("zip", codes, "t.csv"))
    assert not age_notes(SourceColumn("age", np.full(3, np.nan), "t.csv"))


def course(values: np.ndarray, time: np.ndarray, event: np.ndarray) -> list[str]:
    return course_notes([Encoding("x", "clinical")], values[:, None].astype(float), Survival(time, event))


def test_a_count_that_grows_with_the_follow_up_is_told_and_a_prognostic_factor_is_not() -> None:
    risk = RNG.normal(size=300)
    died, lost = 900 * RNG.exponential(size=300) * np.exp(-risk), RNG.uniform(200, 2000, 300)
    time, event = np.ceil(np.minimum(died, lost)), died <= lost
    (note,) = course(RNG.poisson(time / 90), time, event)
    assert "x grows with the length of the follow-up" in note
    assert not course(risk, time, event)
    assert not course(-risk, time, event)


def test_what_only_cases_with_the_event_have_is_told_and_a_grave_stage_is_not() -> None:
    time, event = RNG.uniform(10, 900, 200).round(), np.arange(200) % 2 == 0
    second_line = event & (np.arange(200) % 3 > 0)
    (note,) = course(second_line, time, event)
    assert "x is there in 66 cases that all had the event, as had 25% of the others" in note
    assert not course(second_line | (np.arange(200) % 20 == 1), time, event)
    assert not course(np.arange(200) < 3, time, np.arange(200) < 150)


def test_times_of_which_some_are_in_months_are_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    days = np.ceil(1500 * rng.weibull(1.3, 200)) + 20
    told = said(read(tmp_path, {"time_days": days.tolist()}, n=200))
    assert "in another unit" not in told
    days[50:] = np.ceil(days[50:] / 30.44)
    told = said(read(tmp_path, {"time_days": days.tolist()}, n=200))
    assert re.search("time_days: .* by its distribution 7\\d% may be in another unit than the others", told)


def test_times_in_fractions_among_whole_days_that_are_much_shorter_are_told(tmp_path: Path) -> None:
    days = [400 + 31 * i if i % 4 else round((400 + 31 * i) / 365.25, 2) for i in range(24)]
    told = said(read(tmp_path, {"time_days": days}))
    assert "time_days has decimals in 6 rows (at most 2.79) but whole numbers in the others (median 772)" in told
    halves = [400 + 31 * i + (0.5 if i % 4 == 0 else 0) for i in range(24)]
    assert "has decimals" not in said(read(tmp_path, {"time_days": halves}))


def test_a_word_is_not_said_to_follow_times_that_are_all_one(tmp_path: Path) -> None:
    sex = {"sex": ["m" if i * 7 % 5 > 1 else "f" for i in range(24)]}
    assert len(read(tmp_path, {**sex, "time_days": [365]}).table.case_ids) == 24


def test_an_entry_after_the_end_in_one_row_makes_it_no_feature(tmp_path: Path) -> None:
    cells = {"time_days": [300 + i for i in range(40)], "entry": [900, *range(1, 40)]}
    with pytest.raises(StatisticsError, match="'entry' is a time of delayed entry by its name"):
        read(tmp_path, cells, n=40)


def test_ids_that_differ_by_leading_zeros_and_hidden_rows_are_told(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["PatientID", "x", "time_days", "event"])
    for row in range(30):
        sheet.append(["0007" if row == 20 else str(row), row * 7 % 11, 100 + row, row % 2])
    for row in (*range(5, 9), *range(50, 70)):  # the latter hold nothing
        sheet.row_dimensions[row].hidden = True
    book.save(tmp_path / "t.xlsx")
    found = read_tables(find_tables([tmp_path / "t.xlsx"], ModelSpec()), ModelSpec())
    told = " ".join(found.notes)
    assert "Patients '7' and '0007' differ by leading zeros alone, and are taken for two" in told
    assert "4 rows of the sheet are hidden, by a filter perhaps, and are read too" in told


def test_a_follow_up_that_is_the_same_in_all_rows_is_told(tmp_path: Path) -> None:
    assert "time_days is 365 in all rows" in said(read(tmp_path, {"time_days": [365]}))


def test_patients_who_stand_in_a_table_twice_are_told(tmp_path: Path) -> None:
    days = [100 + 13 * i for i in range(30)]
    columns = {name: RNG.normal(size=30).round(3).tolist() for name in ("x", "Hb")}
    once = {"time_days": days, "event": [0, 1] * 15, "age": [40 + i * 7 % 31 for i in range(30)], **columns}
    assert "repeat" not in said(read(tmp_path, once, n=30))
    twice = {name: [*cells, *cells[:3]] for name, cells in once.items()}
    told = said(read(tmp_path, twice, n=33))
    assert "3 rows repeat another patient's in outcome and all features, 'P30' that of 'P0' first" in told
    coarse = {"time_days": [52], "event": [0], "x": [0, 1], "age": [30, 31, 32]}  # as of many who are alike
    assert "repeat" not in said(read(tmp_path, coarse, n=60))


def test_samples_of_one_patient_under_ids_of_their_own_are_told(tmp_path: Path) -> None:
    samples = [f"TCGA-0{i // 2}-A-0{1 + i % 2}A" for i in range(24)]
    columns = {"PatientID": samples, "time_days": np.repeat([90 + 13 * i for i in range(12)], 2)}
    told = said(read(tmp_path, {**columns, "event": np.repeat([0, 1, 1] * 4, 2)}))
    assert "'TCGA-00-A-01A' and 'TCGA-00-A-02A' have the same follow-up, and so have 11 more such groups" in told
    other = {"PatientID": [f"LUNG1-{i:03d}" for i in range(24)], "time_days": columns["time_days"]}
    assert "same follow-up" not in said(read(tmp_path, other))


def test_cases_of_a_patient_with_different_follow_up_are_told(tmp_path: Path) -> None:
    columns = {"PatientID": [f"P{i // 2}" for i in range(24)], "case_id": [f"c{i}" for i in range(24)]}
    one = {**columns, "time_days": np.repeat([90 + 13 * i for i in range(12)], 2), "event": np.repeat([0, 1, 1] * 4, 2)}
    assert "differ in time" not in said(read(tmp_path, one))
    other = {**one, "time_days": [90 + 13 * (i // 2) + (i == 5) for i in range(24)]}
    assert "The cases of 1 patient, 'P2' first, differ in time or event" in said(read(tmp_path, other))


@pytest.mark.parametrize(
    ("cells", "pair"),
    [
        (["male", "female", "mael"], "'mael' and 'male'"),
        (["m", "f", "м"], "'m' and 'м'"),  # the last one in Cyrillic
        ([*["adenocarcinoma", "squamous"] * 11, "adenocarinoma"], "'adenocarcinoma' and 'adenocarinoma'"),
    ],
)
def test_levels_that_differ_by_a_slip_or_by_the_script_of_a_letter_are_told(
    cells: list[str], pair: str, tmp_path: Path
) -> None:
    assert f"{pair} are levels apart" in said(read(tmp_path, {"word": cells}))


@pytest.mark.parametrize(
    "cells",
    [
        *(
            ["stage II", "stage III"],
            ["type A", "type B"],
            ["G12C", "G12D"],
            ["C34.1", "C34.2"],
            ["left", "left upper"],
        ),
        *(["typical", "atypical"], ["ventral", "central"], ["Site 10001", "Site 10002"]),
        [*["symptomatic"] * 22, "asymptomatic"],
    ],
)
def test_levels_that_are_meant_to_be_apart_are_not_told(cells: list[str], tmp_path: Path) -> None:
    assert "levels apart" not in said(read(tmp_path, {"word": cells}))


def test_whole_days_that_are_few_for_a_follow_up_are_told_and_ninety_days_by_plan_are_not(tmp_path: Path) -> None:
    months = [1 + i * 37 % 83 for i in range(60)]
    assert "time_days is 81 at most, little for days" in said(read(tmp_path, {"time_days": months}, n=60))
    planned = [min(30 + i * 37 % 200, 90) for i in range(60)]
    assert "little for days" not in said(read(tmp_path, {"time_days": planned}, n=60))
