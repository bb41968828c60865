"""What a table's cells mean: words that say nothing is known, codes, units, rows that are only numbered."""

from __future__ import annotations

import io
import re
import tomllib
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prognosis_dask.cohort.case import read_cases, read_problems
from prognosis_dask.cohort.clinical import read_clinical
from prognosis_dask.cohort.collections import COLLECTIONS, resolve
from prognosis_dask.cohort.endpoints import event_codes, unit_of
from prognosis_dask.cohort.index import index_cohort
from prognosis_dask.config.job import CohortSection, index_sections
from prognosis_dask.errors import Code, JobError, PrognosisError, StatisticsError
from prognosis_dask.modelling.data.columns import SourceColumn, apart_notes, far_code_notes
from prognosis_dask.modelling.data.reading import ReadTable, find_tables, read_tables
from prognosis_dask.modelling.spec import ColumnRule, EndpointRule, ModelSpec, load_spec
from prognosis_dask.tables.values import known_cells

GENERIC = COLLECTIONS["generic"]


def read(folder: Path, columns: dict[str, object], spec: ModelSpec | None = None, n: int = 24) -> ReadTable:
    """A table of n patients with a random feature, times and events, and these columns."""
    rng = np.random.default_rng(0)
    table: dict[str, list[object]] = {
        "PatientID": [f"P{i}" for i in range(n)],
        "x": rng.normal(size=n).tolist(),
        "time_days": rng.integers(10, 900, n).tolist(),
        "event": rng.permutation(np.arange(n) % 3 > 0).astype(int).tolist(),
    }
    for name, cells in columns.items():
        table[name] = [cells[i % len(cells)] for i in range(n)] if isinstance(cells, (list, tuple)) else list(cells)  # type: ignore[call-overload]
    lines = [";".join(table), *(";".join(map(str, row)) for row in zip(*table.values(), strict=True))]
    (folder / "t.csv").write_text("\n".join(lines), encoding="utf-8")
    spec = spec or ModelSpec()
    return read_tables(find_tables([folder / "t.csv"], spec), spec)


def said(found: ReadTable) -> str:
    return " ".join(found.notes)


@pytest.mark.parametrize(
    ("cells", "named", "expected"),
    [
        (["None", "Former", "Current", "NA"], (), ["None", "Former", "Current", ""]),
        (["None", "1.5", "2"], (), ["", "1.5", "2"]),
        (["+", "-", "?"], (), ["+", "-", ""]),
        (["HPV+", "-", "unknown"], (), ["HPV+", "-", ""]),
        (["male", "female", "-"], (), ["male", "female", ""]),
        (["male", "female", "-"], ("male", "female", "-"), ["male", "female", "-"]),
        (["NA", "DE", "US"], ("NA", "DE", "US"), ["NA", "DE", "US"]),
        (["nan", "Nan", "x"], (), ["", "", "x"]),
        (["0", "N/A", "1"], (), ["0", "", "1"]),
        (["0.4", "not done", "1"], (), ["0.4", "", "1"]),
        (["TMZ", "not done", "untested"], (), ["TMZ", "not done", "untested"]),
        (["never", "UNK", "Blank(s)", "k.A.", "Prefer not to answer"], (), ["never", "", "", "", ""]),
        (["nie", "unbekannt", "keine Angabe", "Inconnue"], (), ["nie", "", "", ""]),
        (["T1", "#VALUE!", "#REF!"], (), ["T1", "", ""]),
        (["1", "#DIV/0!", "2"], (), ["1", "#DIV/0!", "2"]),  # refused where a number is needed
        (["TMZ", "[Not Applicable]", "[Discrepancy]"], (), ["TMZ", "[Not Applicable]", ""]),
        (["0.4", "[Not Applicable]", "1"], (), ["0.4", "", "1"]),
    ],
)
def test_what_is_not_known_depends_on_the_column_and_on_what_is_named(
    cells: list[str], named: tuple[str, ...], expected: list[str]
) -> None:
    found = known_cells(cells, named)
    assert found.texts == expected
    assert sum(found.emptied.values()) == expected.count("")


def test_what_is_emptied_and_what_is_kept_is_counted_aloud(tmp_path: Path) -> None:
    found = read(tmp_path, {"smoking": ["None", "Former", "NA"], "hpv": ["+", "-"], "sex": ["m", "f", "-", "m"]})
    assert len({"smoking=Former", "smoking=None", "hpv=-", "hpv=+"} & {*found.table.features}) == 2
    assert "Taken as not known: smoking 'NA' in 8 rows, sex '-' in 6 rows; levels in [column.NAME]" in said(found)
    assert "Taken as a value: smoking 'None' in 8 rows, hpv '-' in 12 rows; missing in [column.NAME]" in said(found)
    rule = {"smoking": ColumnRule(missing=("None",)), "sex": ColumnRule(levels=("m", "f", "-"))}
    found = read(tmp_path, {"smoking": ["None", "Former", "Now"], "sex": ["m", "f", "-"]}, ModelSpec(column=rule))
    assert {"sex=f", "sex=-"} <= {*found.table.features}
    assert len({"smoking=Now", "smoking=Former"} & {*found.table.features}) == 1
    assert np.isnan(found.table.X).any(axis=1).sum() == 8


def test_named_classes_win_over_words_for_not_known(tmp_path: Path) -> None:
    rule = EndpointRule(label="mutation", classes=("None", "IDH"))
    found = read(tmp_path, {"mutation": ["None", "IDH", "NA"]}, ModelSpec(endpoint=rule))
    assert np.bincount(found.table.endpoint.label).tolist() == [8, 8]  # type: ignore[union-attr]
    assert "mutation 'NA' in 8 rows was taken as not known" in said(found)


def test_a_number_that_stands_for_not_known_is_told_and_can_be_named(tmp_path: Path) -> None:
    cells = {"T": [1, 2, 3, 9], "age": [60, 61, 99, 98, 97, 55], "psa": [3.1, 0.2, -1, 8.5]}
    found = read(tmp_path, cells)
    assert 'T is 9 in 6 rows, far from the others (1 to 3): if that means not known, say missing = ["9"]' in said(found)
    assert "psa is -1 in 6 rows" in said(found)
    assert "age is 99" not in said(found)
    found = read(tmp_path, cells, ModelSpec(column={"T": ColumnRule(missing=("9",))}))
    assert int(np.isnan(found.table.X[:, found.table.features.index("T")]).sum()) == 6


@pytest.mark.parametrize(
    ("heading", "cells", "expected"),
    [
        ("event", ["1", "0"], {"1": 1, "0": 0}),
        ("event", ["1.0", "0.0"], {"1": 1, "0": 0}),
        ("event", ["TRUE", "False"], {"true": 1, "false": 0}),
        ("vital status", ["Dead", "Alive", "NA"], {"dead": 1, "alive": 0}),
        ("OS_STATUS", ["0:LIVING", "1:DECEASED"], {"0:living": 0, "1:deceased": 1}),
        ("DSS_STATUS", ["0:ALIVE OR DEAD TUMOR FREE", "1:DEAD WITH TUMOR"],
         {"0:alive or dead tumor free": 0, "1:dead with tumor": 1}),
        ("DFS_STATUS", ["DiseaseFree", "Recurred/Progressed"], {"diseasefree": 0, "recurred/progressed": 1}),
        ("status (1 = censored, 2 = dead)", ["1", "2"], {"1": 0, "2": 1}),
        ("OS 0=dead", ["1", "0"], {"1": 0, "0": 1}),
        ("censored", ["dead", "censored"], {"dead": 1, "censored": 0}),
        ("event", ["0", "1", "2"], {"0": 0, "1": 1}),  # the 2 is a fault of its row
        ("event", ["0:DECEASED", "1:LIVING"], {}),
    ],
)  # fmt: skip
def test_codes_of_the_event_that_can_mean_one_thing_only_are_read(
    heading: str, cells: list[str], expected: dict[str, int]
) -> None:
    assert event_codes(heading, cells) == expected


@pytest.mark.parametrize(
    ("heading", "cells"),
    [
        ("status", ["1", "2"]),
        ("status", ["2"]),
        ("alive", ["1", "0"]),
        ("Censored", ["yes", "no"]),
        ("cens", ["0", "1"]),
        ("Vital status", ["1", "0"]),
        ("survival_status", ["yes", "no"]),
        ("Survival", ["0", "1"]),
        ("Vital status at last follow-up", ["0", "1"]),
        ("Lebt", ["ja", "nein"]),
        ("Zensiert", ["1", "0"]),
        ("Überlebensstatus", ["1", "0"]),
        ("Statut vital", ["oui", "non"]),
        ("Censuré", ["1", "0"]),
        ("relapse_free", ["1", "0"]),
        ("Local control", ["yes", "no"]),
        ("in remission", ["1", "0"]),
        ("lost to follow-up", ["1", "0"]),
        ("NED", ["1", "0"]),
        ("no death", ["1", "0"]),
    ],
)
def test_codes_of_the_event_that_may_mean_either_are_asked_for(heading: str, cells: list[str]) -> None:
    with pytest.raises(ValueError, match=r"event_codes = \{"):
        event_codes(heading, cells)
    given = dict(zip(cells, (1, 0), strict=False))
    assert event_codes(heading, cells, given=given) == given


@pytest.mark.parametrize(
    "heading",
    ["metastasis_free_survival_event", "Relapse.Free.Survival.Event", "event.tumorfree", "Uncontrolled disease"],
)
def test_a_heading_that_names_the_event_itself_needs_no_codes(heading: str) -> None:
    assert event_codes(heading, ["1", "0"]) == {"1": 1, "0": 0}


@pytest.mark.parametrize(("heading", "cells"), [("alive", ["1", "0"]), ("cens", ["1"]), ("censored", ["yes", "no"])])
def test_both_meanings_of_a_code_that_may_mean_either_are_written_out(heading: str, cells: list[str]) -> None:
    with pytest.raises(ValueError, match="set event_codes") as caught:
        event_codes(heading, cells)
    tables = re.findall(r"\{ .*? \}", str(caught.value))
    not_seen, seen = (tomllib.loads(f"event_codes = {table}")["event_codes"] for table in tables)
    assert (not_seen[cells[0]], seen[cells[0]]) == (0, 1)
    assert not_seen.keys() == seen.keys() == set(cells)


def test_what_codes_of_the_event_mean_is_seen_in_rows_that_are_not_joined_too(tmp_path: Path) -> None:
    (tmp_path / "clinical.csv").write_text("PatientID,time_days,status\nP1,100,1\nP2,200,1\nP3,300,2\nP4,400,2\n")
    (tmp_path / "features.csv").write_text("PatientID,original_firstorder_Mean\nP1,1\nP2,2\n")
    sources = find_tables([tmp_path / "features.csv", tmp_path / "clinical.csv"], ModelSpec())
    with pytest.raises(StatisticsError, match=r"status holds '1' and '2'.*event_codes = \{"):
        read_tables(sources, ModelSpec())


def test_event_codes_of_a_specification_are_followed(tmp_path: Path) -> None:
    columns = {"status": ["1", "2"]}
    rule = EndpointRule(time="time_days", event="status")
    with pytest.raises(StatisticsError, match=r'endpoint.event_codes = \{ "1" = 0, "2" = 1 \}'):
        read(tmp_path, columns, ModelSpec(endpoint=rule))
    rule = EndpointRule(time="time_days", event="status", event_codes={"1": 0, "2": 1})
    assert read(tmp_path, columns, ModelSpec(endpoint=rule, exclude=("event",))).table.event.sum() == 12


def test_a_none_among_events_is_not_dropped_in_silence(tmp_path: Path) -> None:
    rule = EndpointRule(time="time_days", event="what")
    with pytest.raises(StatisticsError, match="column 'what' holds 'None' in data row 1, expected"):
        read(tmp_path, {"what": ["None", "death"]}, ModelSpec(endpoint=rule))


@pytest.mark.parametrize(
    ("heading", "unit"),
    [("OS_MONTHS", "months"), ("OSmonths", "months"), ("time (d)", "days"), ("FU_yrs", "years"), ("week", "weeks"),
     ("survival_in_days", "days"), ("time", ""), ("Survival.time", ""), ("days_and_months", ""), ("modality", ""),
     ("Time - diagnosis to last follow-up (days)", "days"), ("fu_mo", "months"), ("my time", "")],
)  # fmt: skip
def test_a_heading_says_the_unit_of_time(heading: str, unit: str) -> None:
    assert unit_of(heading) == unit


def test_a_unit_is_taken_from_the_heading_the_specification_or_told(tmp_path: Path) -> None:
    cells = {"OS_MONTHS": [12, 24, 36, 60], "t": [1, 2, 3, 5]}
    exclude = ("time_days", "t")
    found = read(tmp_path, cells, ModelSpec(endpoint=EndpointRule(time="OS_MONTHS", event="event"), exclude=exclude))
    assert found.table.time_days[0] == pytest.approx(365.25)
    exclude = ("time_days", "OS_MONTHS")
    found = read(tmp_path, cells, ModelSpec(endpoint=EndpointRule(time="t", event="event"), exclude=exclude))
    assert "t was taken in days, since nothing says its unit: time_unit in [endpoint]" in said(found)
    rule = EndpointRule(time="t", event="event", time_unit="years")
    found = read(tmp_path, cells, ModelSpec(endpoint=rule, exclude=exclude))
    assert found.table.time_days[0] == pytest.approx(365.25)
    rule = EndpointRule(time="OS_MONTHS", event="event", time_unit="days")
    found = read(tmp_path, cells, ModelSpec(endpoint=rule, exclude=("time_days", "t")))
    assert "its heading says months" in said(found)


def test_an_event_column_without_a_censored_row_is_used_and_said(tmp_path: Path) -> None:
    days = [float(day) for day in range(100, 124)]
    cells = {"t_days": days, "status": ["1"] * 24}
    rule = EndpointRule(time="t_days", event="status")
    assert "All 24 rows of status were taken as observed events" in said(
        read(tmp_path, cells, ModelSpec(endpoint=rule, exclude=("time_days", "event")))
    )
    rule = EndpointRule(time="t_days", event="status", event_codes={"1": 1, "2": 0})
    assert "observed events" not in said(
        read(tmp_path, cells, ModelSpec(endpoint=rule, exclude=("time_days", "event")))
    )


def test_codes_of_kinds_are_told_and_the_option_to_paste_makes_levels_of_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    cells = {
        "Histology code": rng.permutation([1, 2, 3, 5] * 6),
        "site": rng.permutation([1, 2, 3] * 8),
        "txgrp": rng.permutation([1, 2, 3, 4] * 6),
        "morphology": rng.permutation([8000 + 7 * i for i in range(24)]),
        "arm": rng.permutation([1, 2] * 12),
        **{
            name: rng.permutation([1, 2, 3, 4] * 6) for name in ("stage", "grade", "ECOG", "age_group", "risk category")
        },
    }
    found = read(tmp_path, cells)
    assert len(re.findall("enter as an amount", said(found))) == 4
    assert "morphology holds 24 codes, which enter as an amount" in said(found)
    line = re.search(r"Histology code holds the codes 1, 2, 3, 5, .*?--set '(column.*?)'", said(found))
    assert line is not None
    again = read(tmp_path, cells, load_spec(None, [line[1]]))
    assert [name for name in again.table.features if name.startswith("Hist")] == [
        f"Histology code={code}" for code in (2, 3, 5)
    ]
    assert "Histology code holds" not in said(again)


def test_a_few_numbers_in_another_unit_zeros_that_stand_for_nothing_and_a_volume_without_logarithm_are_told(
    tmp_path: Path,
) -> None:
    kg = [60 + i if i % 8 else 1000 * (60 + i) for i in range(24)]
    cells = {"weight": kg, "age": [0, *range(40, 63)], "volume": [*range(1, 24), 0], "nodes": [*range(12), *range(12)]}
    told = said(read(tmp_path, cells))
    assert "weight is 60000 to 76000 in 3 rows, 1 first, far from the others (61 to 83): correct them" in told
    assert "age is 0 in 1 row, far from the others (40 to 62)" in told
    assert "volume enters as it is and not by its logarithm, since it is 0 in data row 24" in told
    assert "nodes is" not in told


def test_a_volume_whose_logarithm_is_switched_off_enters_as_it_is_and_nothing_is_told(tmp_path: Path) -> None:
    off = load_spec(None, ["column.volume_ml.log=false"])
    in_python = ModelSpec(column={"volume_ml": ColumnRule(log=False)})
    for cells, rule in (([*range(1, 24), 0], off), ([*range(1, 25)], off), ([*range(1, 25)], in_python)):
        found = read(tmp_path, {"volume_ml": cells}, rule)
        np.testing.assert_array_equal(found.table.X[:, found.table.features.index("volume_ml")], cells)
        assert "logarithm" not in said(found)
    missing = read(tmp_path, {"volume_ml": [*range(1, 24), 0]}, load_spec(None, ['column.volume_ml.unit="ml"']))
    assert "volume_ml enters as it is and not by its logarithm, since it is 0 in data row 24" in said(missing)


def test_a_copied_volume_without_logarithm_is_told(tmp_path: Path) -> None:
    name = "original_shape_MeshVolume"
    cells = {name: [*range(1, 24), 0]}
    note = f"{name} enters as it is and not by its logarithm, since it is 0 in data row 24"
    assert note in said(read(tmp_path, cells))
    copy = [f"column.size.copy_of={name}", "column.size.family=volume"]
    assert note in said(read(tmp_path, cells, load_spec(None, copy)))
    without = read(tmp_path, cells, load_spec(None, [*copy, 'column.size.missing=["0"]']))
    assert note not in said(without)
    size = without.table.X[:, without.table.features.index("ln_size")]
    np.testing.assert_allclose(size, [*np.log(np.arange(1, 24)), np.nan])
    assert "logarithm" not in said(read(tmp_path, cells, load_spec(None, [*copy, "column.size.log=false"])))


def test_points_that_part_thousands_are_no_decimal_points(tmp_path: Path) -> None:
    cells = ["1.006", "993", "2.314", "870", "12.001", "455", "1.2", "3"]
    assert read(tmp_path, {"psa": cells}).table.X[0, 1] == 1.006  # 1.2 shows that they are decimals
    with pytest.raises(
        PrognosisError, match=r"'psa' holds '1\.006' and '993': is the first 1006.*write 993 as 993\.0 in one cell"
    ):
        read(tmp_path, {"psa": cells[:6]})
    assert read(tmp_path, {"psa": [*cells[:6] * 3, *cells[:5], "993.0"]}).table.X[0, 1] == 1.006  # as it says
    assert read(tmp_path, {"density": ["1.006", "1.010", "1.200"]}).table.X[0, 1] == 1.006


@pytest.mark.parametrize(
    "whole", [["0", "1", "1", "1", "100"], ["0"] * 5, ["7", "12", "45", "80", "250"], ["100"] * 5, ["100", "200"] * 3]
)
def test_decimals_of_three_digits_are_decimals_beside_zeros_small_numbers_and_whole_hundreds(
    tmp_path: Path, whole: list[str]
) -> None:
    cells = ["1.125", "2.250", "3.375", "10.125", "12.625", *whole]
    assert read(tmp_path, {"dose": cells}, n=len(cells)).table.X[0, 1] == 1.125


def test_whole_hundreds_beside_thousands_that_are_as_round_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PrognosisError, match=r"'income' holds '1\.200' and '900'"):
        read(tmp_path, {"income": ["1.200", "900", "2.500", "700"]})


@pytest.mark.parametrize(("did", "did_not"), [("performed", "not performed"), ("done", "not done")])
def test_a_treatment_that_was_not_done_is_known(tmp_path: Path, did: str, did_not: str) -> None:
    found = read(tmp_path, {"radiotherapy": [did, did_not]})
    assert len({f"radiotherapy={did}", f"radiotherapy={did_not}"} & {*found.table.features}) == 1
    assert f"Taken as a value: radiotherapy '{did_not}' in 12 rows; missing in [column.NAME]" in said(found)
    rule = EndpointRule(label="radiotherapy", classes=(did, did_not))
    found = read(tmp_path, {"radiotherapy": [did, did_not]}, ModelSpec(endpoint=rule))
    assert np.bincount(found.table.endpoint.label).tolist() == [12, 12]  # type: ignore[union-attr]


def test_a_column_of_one_word_is_left_out_with_the_words_that_were_taken_as_not_known(tmp_path: Path) -> None:
    told = said(read(tmp_path, {"IDH": ["wt", "not tested", "NA"], "hpv": ["positive", "unknown"], "t": ["NA", "?"]}))
    assert "holds one word only besides 'NA', 'not tested', taken as not known" in told
    assert "holds one word only besides 'unknown', taken as not known" in told
    assert "holds nothing besides '?', 'NA', taken as not known" in told


def test_levels_that_say_the_same_in_other_words_are_told(tmp_path: Path) -> None:
    told = said(read(tmp_path, {"smoker": ["yes", "Y", "no", "NO "], "sex": ["m", "female", "male"]}))
    assert "smoker: 'yes' and 'Y' are levels apart: write them alike" in told
    assert "sex: 'male' and 'm' are levels apart" in told
    assert "smoker: 'no'" not in told


def test_stages_in_arabic_and_roman_or_in_one_sign_have_their_order(tmp_path: Path) -> None:
    for cells, levels in (
        (["1", "2", "III", "IV"], ("1", "2", "III", "IV")),
        (["1", "2", "3a", "4"], ("1", "2", "3a", "4")),
        (["Ⅰ", "Ⅲ", "III", "Ⅳ"], ("Ⅰ", "Ⅲ", "Ⅳ")),
    ):
        found = read(tmp_path, {"stage": cells})
        (encoding,) = [one for one in found.encodings if one.column == "stage"]
        assert (encoding.levels, encoding.ordered) == (levels, True)


@pytest.mark.parametrize("word", ["lll", "TX", "Occult", "Stage X"])
def test_a_word_that_is_no_stage_is_told_since_it_takes_the_order_from_the_others(word: str, tmp_path: Path) -> None:
    cells = ["I", "II", "III", word]
    found = read(tmp_path, {"stage": cells})
    assert f"stage holds '{word}', which is no stage: its levels are features without an order" in said(found)
    found = read(tmp_path, {"stage": cells}, ModelSpec(column={"stage": ColumnRule(missing=(word,))}))
    assert "stage" in found.table.features
    assert "no stage" not in said(found)


def test_stages_in_two_notations_and_an_age_beyond_anyone_s_are_told(tmp_path: Path) -> None:
    cells = {"stage": ["I", "II", "III", "IV", "3"], "grade": ["low", "Low grade"], "age": [650, *range(40, 63)]}
    told = said(read(tmp_path, cells))
    assert re.search("stage: '(III|3)' and '(III|3)' are levels apart: write them alike", told)
    assert "grade: 'low' and 'Low grade' are levels apart" in told
    assert "age is 650 in data row 1, older than anyone" in told
    assert "levels apart" not in said(read(tmp_path, {"stage": ["I", "II", "III", "IV"], "T": ["T1", "T2", "T2a"]}))


@pytest.mark.parametrize("heading", ["Age (months)", "age_weeks", "Age in days", "age_mo"])
def test_an_age_in_months_weeks_or_days_is_not_held_against_a_life_s_years(tmp_path: Path, heading: str) -> None:
    assert "older than anyone" not in said(read(tmp_path, {heading: [20, 60, 96, 130, 200, 40]}))


@pytest.mark.parametrize("heading", ["Age (years)", "age", "Age [y]"])
def test_an_age_in_years_or_of_no_unit_is_held_against_a_life_s_years(tmp_path: Path, heading: str) -> None:
    assert "older than anyone" in said(read(tmp_path, {heading: [20, 60, 96, 130, 200, 40]}))


def test_cells_with_digits_are_never_offered_as_missing(tmp_path: Path) -> None:
    for cell in ("<5", "14.9*", "1_588"):
        with pytest.raises(StatisticsError, match=r"expected numbers: correct the table") as refused:
            read(tmp_path, {"crp": [cell, *range(23)]})
        assert "missing" not in str(refused.value)


def test_days_in_fractions_are_told_where_they_are_few(tmp_path: Path) -> None:
    rule, exclude = EndpointRule(time="OS_days", event="event"), ("time_days",)
    years = [0.3 + i / 7 for i in range(24)]
    told = said(read(tmp_path, {"OS_days": years}, ModelSpec(endpoint=rule, exclude=exclude)))
    assert "OS_days was taken in days, is 3.586 at most and mostly no whole number" in told
    days = [round(365 * year) for year in years]
    assert "whole number" not in said(read(tmp_path, {"OS_days": days}, ModelSpec(endpoint=rule, exclude=exclude)))


@pytest.mark.parametrize("written", ["999", "999.0", "9.99e2", "999,00"])
def test_a_number_named_as_missing_is_it_however_it_is_written(written: str, tmp_path: Path) -> None:
    cells = {"Hb": [written, "12.5", "13.1", "11.9"] if "," not in written else [written, "12,5", "13,1", "11,9"]}
    assert "Hb is 999 in 6 rows, far from the others" in said(read(tmp_path, cells))
    found = read(tmp_path, cells, load_spec(None, ['column."Hb".missing=["999"]']))
    assert np.isnan(found.table.X[:, 1]).sum() == 6
    assert "far from the others" not in said(found)


@pytest.mark.parametrize(
    ("cells", "codes"),
    [
        ([*range(30), 98, 98, 98, 99], ["98", "99"]),
        ([0, 1, 2, 3, 4, 8, 8, 8, 9, 9], ["8", "9"]),
        ([*range(20), -3, -3, -3, -1, -1], ["-3", "-1"]),  # UK Biobank's
        ([*range(3, 300, 7), 888, 888, 888, 999], ["888", "999"]),  # SEER's
        ([*range(20, 60), 99, 99, 99], ["99"]),
        ([*range(400, 6300, 70), 9999, 9999, 9999], ["9999"]),
    ],
)
def test_codes_for_not_known_are_told_where_they_are_several_or_less_than_twice_the_others(
    cells: list[int], codes: list[str]
) -> None:
    (note,) = far_code_notes(SourceColumn("x", np.array(cells, dtype=float), "t.csv"))
    assert f"x is {' or '.join(codes)} in" in note
    named = SourceColumn("x", [str(cell) for cell in cells], "t.csv", missing=tuple(codes))
    assert np.isnan(named.numbers()).sum() == sum(str(cell) in codes for cell in cells)
    assert not far_code_notes(named)


def test_a_few_numbers_apart_from_others_that_differ_little_are_told(tmp_path: Path) -> None:
    hb = [9 + 0.4 * (i % 18) for i in range(24)]
    told = said(read(tmp_path, {"Hb": [128, 135, *hb[2:]], "platelets": ["1.006", *range(180, 870, 30)]}))
    assert (
        "Hb is 128 to 135 in 2 rows, 1 first, far from the others (9 to 15.8): correct them" in told
    )  # g/l among g/dl
    assert "platelets is 1.006 in data row 1, far from the others (180 to 840)" in told  # a thousand and six
    skewed = np.exp(np.random.default_rng(0).normal(0, 2, 24)).round(2).tolist()
    assert "far from" not in said(read(tmp_path, {"psa": skewed, "nodes": [0, 0, 0, 1, 1, 2, 3, 12], "Hb": hb}))


def test_numbers_apart_by_more_than_a_number_holds_are_told_without_a_warning_of_numpy() -> None:
    values = np.array([1e-300, 1e149, *range(1, 25)])
    assert apart_notes(SourceColumn("x", values, "t.csv"))


@pytest.mark.parametrize(
    "cells",
    [
        *([-2, -1, 0, 1, 2] * 5, [*range(100)], [0, 1, 2, 3, 7], [*range(60, 99), 99, 99, 99]),
        *([6, 7, 8, 9] * 5, [7, 8, 9] * 9, [90, 94, 95, 99] * 5),  # Gleason's score, Apgar's, saturations
        [-2, -1, 0, 1] * 5,  # copy numbers
    ],
)
def test_changes_percentages_and_single_numbers_are_no_codes_for_not_known(cells: list[int]) -> None:
    assert not far_code_notes(SourceColumn("x", np.array(cells, dtype=float), "t.csv"))


def test_columns_with_the_same_codes_are_told_in_one_note() -> None:
    cells = np.array([*range(30), 99.0, 99.0])
    (note,) = far_code_notes(*(SourceColumn(name, cells, "t.csv") for name in "abc"))
    assert note.startswith("a is 99 in 2 rows")
    assert note.endswith("So it is in 2 more columns.")


def test_what_is_named_as_missing_in_time_or_event_is_it(tmp_path: Path) -> None:
    columns = {"time_days": [100, 200, 9999, 300], "event": [1, 0, 0, 1, 9, 1]}
    rule = {"time_days": ColumnRule(missing=("9999",)), "event": ColumnRule(missing=("9",))}
    found = read(tmp_path, columns, ModelSpec(column=rule))
    assert found.left_out == {"no-endpoint": sum(i % 4 == 2 or i % 6 == 4 for i in range(24))}
    assert found.table.survival.time_days.max() == 300


def test_a_short_time_is_taken_for_no_code_of_a_missing_one(tmp_path: Path) -> None:
    assert "far from the others" not in said(read(tmp_path, {"nodes": [9, *range(19, 42)]}))


def test_follow_up_longer_than_a_life_is_refused(tmp_path: Path) -> None:
    rule = EndpointRule(time="last", event="event")
    with pytest.raises(StatisticsError, match="column 'last' is 20200131 days in data row 1, longer than a life"):
        read(tmp_path, {"last": [20200131, 20210131]}, ModelSpec(endpoint=rule))


ROWS = np.arange(24)
SHUFFLED = np.random.default_rng(3).permutation(24)


@pytest.mark.parametrize(
    ("name", "cells", "why"),
    [
        ("Unnamed: 0", SHUFFLED * 7, "has no heading"),
        ("row", ROWS, "names the rows"),
        ("z", ROWS + 1, "counts the rows"),
        ("z", 1000 - 5 * ROWS, "counts the rows"),
        ("z", SHUFFLED + 1, "numbers the rows"),
        ("no.", [*range(1, 12), *range(1, 14)], "counts the rows of each group"),
        ("z", np.cumsum(1 + SHUFFLED % 3), "counts the rows"),
        ("hospital number", 4_000_000 + SHUFFLED * 991, "names the rows"),
        ("MRN", 4_000_000 + SHUFFLED * 991, "names the rows"),
        ("eid", 1_000_012 + SHUFFLED * 991, "names the rows"),
        ("z", 20200101 + SHUFFLED, "holds dates or times"),
        ("z", 1_580_000_000 + SHUFFLED * 86_400, "holds dates or times"),
        ("date_of_ct", 43_000 + SHUFFLED * 17, "holds dates"),
        ("surgery", 20200101 + SHUFFLED, "holds dates or times"),
        ("chemo", [f"2020-01-{1 + i % 12:02d}" for i in ROWS], "holds dates"),
        ("z", [f"2020-01-{1 + i % 12:02d}" for i in ROWS], "holds dates"),
        ("z", [f"{1 + i % 12}.3.2020" for i in ROWS], "holds dates"),
    ],
)  # fmt: skip
def test_a_column_that_numbers_names_or_dates_the_rows_is_no_feature_unless_named(
    name: str, cells: object, why: str, tmp_path: Path
) -> None:
    found = read(tmp_path, {name: list(cells)})  # type: ignore[call-overload]
    assert found.table.features == ("x",)
    assert f"{name} ({why})" in said(found)
    if not isinstance(cells, list):
        named = read(tmp_path, {name: list(cells)}, ModelSpec(column={name: ColumnRule()}))  # type: ignore[call-overload]
        assert name in named.table.features


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("age", ROWS + 40),
        ("voxels_in_roi", 1000 + SHUFFLED * 313),
        ("year", 2000 + SHUFFLED % 7),
        ("ki67", SHUFFLED % 20),
        ("slope", ROWS * 0.5),
        ("updated_score", SHUFFLED % 5),
        ("mutated", ROWS % 2),
        ("grade", 1 + ROWS % 3),
    ],
)
def test_whole_numbers_that_describe_a_patient_stay_features(name: str, cells: np.ndarray, tmp_path: Path) -> None:
    assert name in read(tmp_path, {name: list(cells)}).table.features


def test_numbers_with_units_are_no_levels(tmp_path: Path) -> None:
    found = read(tmp_path, {"size": ["12 mm", "1.2 cm", "15 mm"], "crp": ["<5", ">100", "<3"]})
    assert found.table.features == ("x",)
    told = "size (holds numbers with units or signs, such as '12 mm': write the numbers alone, or name its levels)"
    assert told in said(found)


def test_headings_of_other_scripts_are_told_apart(tmp_path: Path) -> None:
    columns = {"年龄": [60, 70, 50, 40, 66], "生存时间": [100, 200, 300], "死亡": [1, 0, 1, 1, 0, 0, 1]}
    spec = ModelSpec(endpoint=EndpointRule(time="生存时间", event="死亡"), exclude=("time_days", "event"))
    found = read(tmp_path, columns, spec)
    assert found.table.time_days[:3].tolist() == [100, 200, 300]
    assert "年龄" in found.table.features


def test_an_exact_heading_is_preferred_to_one_that_is_spelt_alike(tmp_path: Path) -> None:
    columns = {"OS.time": [1, 2], "os_time": [300, 400]}
    spec = ModelSpec(endpoint=EndpointRule(time="os_time", event="event"), exclude=("OS.time",))
    assert read(tmp_path, columns, spec).table.time_days[0] == 300


def test_levels_that_are_long_numbers_are_told_apart(tmp_path: Path) -> None:
    found = read(tmp_path, {"site": [1234567, 1234568]}, ModelSpec(site="site"))
    assert {*found.table.site} == {"1234567", "1234568"}


def test_one_patient_spelt_in_two_ways_stays_one_patient(tmp_path: Path) -> None:
    text = "case_id,patient_id,x,time_days,event\n" + "".join(
        f"c{i},{name},{i * i},5,1\n" for i, name in enumerate(["P1", "p1", "P 1", "P2", "P2.0"])
    )
    (tmp_path / "t.csv").write_text(text)
    found = read_tables(find_tables([tmp_path / "t.csv"], ModelSpec()))
    assert found.table.patient_ids == ("P1", "P1", "P1", "P2", "P2.0")


def clinical(folder: Path, text: str, **section: object) -> dict[str, tuple[float | None, int | None, str]]:
    (folder / "c.csv").write_text(text, encoding="utf-8")
    rules = resolve(index_sections({"cohort": dict(section)}, ())[0])
    rows = read_clinical(folder / "c.csv", rules.collection).rows.values()
    return {row.patient_id: (row.time_days, row.event, row.fault) for row in rows}


def test_a_clinical_table_with_events_of_one_and_two_is_asked_about(tmp_path: Path) -> None:
    text = "PatientID,time_days,event\nP1,100,1\nP2,200,2\n"
    found = clinical(tmp_path, text)
    assert all(event is None and "cohort.event_codes = {" in fault for _, event, fault in found.values())
    assert "cohort.event_codes = {" in read_clinical(tmp_path / "c.csv", GENERIC).notes[0]
    found = clinical(tmp_path, text, event_codes={"1": 0, "2": 1})
    assert found == {"P1": (100, 0, ""), "P2": (200, 1, "")}
    with pytest.raises(JobError, match=r"cohort.event_codes.1 is 3, expected 1 \(observed\), 0"):
        clinical(tmp_path, text, event_codes={"1": 3})


def test_a_clinical_tables_columns_unit_and_sheet_can_be_named(tmp_path: Path) -> None:
    text = "PatientID,OS_MONTHS,OS_STATUS\nP1,12,1:DECEASED\nP2,24,0:LIVING\n"
    found = clinical(tmp_path, text, time_column="OS_MONTHS", event_column="OS_STATUS")
    assert found == {"P1": (pytest.approx(365.25), 1, ""), "P2": (pytest.approx(730.5), 0, "")}
    found = clinical(tmp_path, text, time_column="OS_MONTHS", event_column="OS_STATUS", time_unit="years")
    assert found["P1"][0] == pytest.approx(12 * 365.25)
    overridden, _ = index_sections({}, ["cohort.time_unit=months", 'cohort.event_codes={"1"=0,"2"=1}'])
    assert (overridden.time_unit, overridden.event_codes) == ("months", {"1": 0, "2": 1})
    with pytest.raises(JobError, match="an index takes the keys of cohort and idc only"):
        index_sections({}, ["image.margin_mm=3"])


def test_a_clinical_table_whose_time_has_no_unit_is_taken_in_days_aloud(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("PatientID,Survival,event,Survival.time\nP1,12,1,365\n")
    assumed = ["Survival was taken in days, since nothing says its unit: cohort.time_unit names another."]
    for section, notes in (
        (CohortSection(time_column="Survival"), assumed),
        (CohortSection(time_column="Survival", time_unit="months"), []),
        (CohortSection(collection="lung1", time_column="Survival.time", event_column="event"), []),
    ):
        assert read_clinical(path, resolve(section).collection).notes == notes


def test_a_follow_up_that_is_a_date_is_a_fault_of_its_row(tmp_path: Path) -> None:
    found = clinical(tmp_path, "PatientID,time_days,event\nP1,20200131,1\nP2,200,0\n")
    assert "longer than a life" in found["P1"][2]
    assert found["P2"] == (200, 0, "")


def test_rows_of_a_patient_that_disagree_leave_the_value_empty_with_a_warning(
    shared_data: Path, tmp_path: Path
) -> None:
    text = "ID,time_days,event,age,sex\nbrain1,5,1,60,m\nbrain1,5,1,70,m\nbreast1,5,0,50,\nbreast1,5,0,,f\n"
    (tmp_path / "c.csv").write_text(text)
    index_cohort([shared_data / "pyradiomics"], tmp_path / "out", CohortSection(clinical=str(tmp_path / "c.csv")))
    cases = {case.patient_id: case.covariates for case in read_cases(tmp_path / "out" / "cases.csv")}
    assert cases == {"brain1": {"age": "", "sex": "m"}, "breast1": {"age": "50", "sex": "f"}}
    [problem] = read_problems(tmp_path / "out" / "problems.csv")
    assert (problem.code, problem.severity, problem.patient_id) == (Code.CLINICAL_TABLE, "warning", "brain1")
    assert "age is '60' and '70'" in problem.reason


def test_ids_that_a_spreadsheet_has_shortened_are_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"'1.23457E\+11' is a number that a spreadsheet program has shortened"):
        clinical(tmp_path, "PatientID,time_days,event\n1.23457E+11,100,1\n")


def test_words_of_a_clinical_table_stay_as_they_are_and_numbers_are_counted(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("ID,time_days,event,age,country\nP1,5,1,NA,NA\nP2,5,1,60,DE\nP3,6,0,n/a,NA\n")
    table = read_clinical(tmp_path / "c.csv", GENERIC)
    assert [row.covariates for row in table.rows.values()] == [
        {"age": "", "country": "NA"}, {"age": "60", "country": "DE"}, {"age": "", "country": "NA"},
    ]  # fmt: skip
    assert list(table.notes) == ["Taken as unknown among numbers: age 'NA' in 1 row, 'n/a' in 1 row."]


LINES = [
    ["PatientID", "row", "age", "smoking", "time_days", "event"],
    ["P1", "1", "60,5", "None", "100", "1"],
    ["P2", "2", "NA", "Former", "200", "0"],
    ["P3", "3", "70", "Current", "1.000", "1"],
    ["P4", "4", "55", "-", "50", "0"],
]


def mutated(data: st.DataObject, content: bytes) -> bytes:
    text = bytearray(content)
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    return bytes(text)


@cache
def workbook_of_lines() -> bytes:
    """Written once: a workbook holds the time, and an example that is tried again has to meet the same bytes."""
    book, stream = openpyxl.Workbook(), io.BytesIO()
    for line in LINES:
        book.active.append(line)
    book.save(stream)
    return stream.getvalue()


@given(data=st.data(), xlsx=st.booleans())
def test_no_mutated_table_of_features_ends_in_a_traceback(data: st.DataObject, xlsx: bool, tmp_path: Path) -> None:
    content = "\n".join(";".join(line) for line in LINES).replace("1.000", "100").encode()
    if xlsx:
        content = workbook_of_lines()
    path = tmp_path / ("t.xlsx" if xlsx else "t.csv")
    path.write_bytes(mutated(data, content))
    try:
        found = read_tables(find_tables([path], ModelSpec()))
    except PrognosisError:
        return
    assert (found.table.time_days > 0).all()
    assert not np.isinf(found.table.X).any()


@given(
    cells=st.lists(
        st.sampled_from(
            [
                "",
                "NA",
                "None",
                "-",
                "+",
                "1",
                "2",
                "9",
                "1,5",
                "1.5",
                "1,234",
                "a",
                "b",
                "x y",
                "0",
                "inf",
                "1e400",
                "nan",
                "=1",
                "'",
                "2020-01-01",
                "<5",
                "12 mm",
                "True",
            ]
        ),
        min_size=1,
        max_size=12,
    ),
    name=st.sampled_from(
        ["age", "x", "", "Unnamed: 0", "date", "stage", "volume", "event", "time_days", "alive", "ID"]
    ),
)
def test_no_column_that_people_type_ends_in_a_traceback(cells: list[str], name: str, tmp_path: Path) -> None:
    with suppress(PrognosisError):
        read(tmp_path, {name or " ": cells})
