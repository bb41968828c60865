"""Whatever program wrote a table, it is read as it is shown there, or refused in one line; never half."""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import itertools
import unicodedata
import zipfile
from pathlib import Path

import openpyxl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from prognosis_dask.cohort.clinical import match_spelt_alike, patient_key, read_clinical
from prognosis_dask.cohort.collections import COLLECTIONS
from prognosis_dask.errors import JobError, PrognosisError, TableError
from prognosis_dask.tables.file import read_cells

LINES = [["PatientID", "age", "sex"], ["P1", "63.5", "m"], ["P2", "70", "f"]]
EXPECTED = {"PatientID": ["P1", "P2"], "age": ["63.5", "70"], "sex": ["m", "f"]}


def read(path: Path, sheet: str = "") -> dict[str, list[str]]:
    cells = read_cells(path, sheet)
    return dict(zip(cells.header, cells.columns, strict=True))


def write(folder: Path, content: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def joined(delimiter: str = ",", end: str = "\n") -> str:
    return "".join(delimiter.join(line) + end for line in LINES)


def book(folder: Path, *pages: tuple[str, list[list[object]]]) -> Path:
    made = openpyxl.Workbook()
    made.remove(made.active)
    for title, lines in pages:
        page = made.create_sheet(title)
        for line in lines:
            page.append(line)
    made.save(folder / "t.xlsx")
    return folder / "t.xlsx"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_delimiter_and_line_end_is_read(delimiter: str, end: str, tmp_path: Path) -> None:
    assert read(write(tmp_path, joined(delimiter, end))) == EXPECTED


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "latin-1"]
)
def test_every_encoding_is_read(encoding: str, tmp_path: Path) -> None:
    text = joined(";").replace("m\n", "männlich\n")
    cells = read_cells(write(tmp_path, text.encode(encoding)))
    assert cells.columns[2] == ["männlich", "f"]
    guessed = encoding in ("cp1252", "latin-1")
    assert bool(cells.notes) == guessed
    assert not guessed or "Windows-1252" in cells.notes[0]


def test_a_line_that_names_the_delimiter_is_followed_and_no_heading(tmp_path: Path) -> None:
    assert read(write(tmp_path, "\ufeffsep=;\r\n" + joined(";", "\r\n"))) == EXPECTED
    assert read(write(tmp_path, '"sep=|"\n' + joined("|"))) == EXPECTED


def test_a_gzipped_table_is_read_and_a_cut_one_refused(tmp_path: Path) -> None:
    data = gzip.compress(joined().encode())
    assert read(write(tmp_path, data, "t.csv.gz")) == EXPECTED
    with pytest.raises(TableError, match="gzip archive is damaged"):
        read(write(tmp_path, data[:-12], "t.csv.gz"))


def test_the_rows_tell_the_delimiter_where_headings_hold_commas(tmp_path: Path) -> None:
    text = "ID;Status (NED, AWD, D);Dose (Gy, total);x\nP1;D;1,5;a, b\nP2;NED;2,25;c\n"
    assert read(write(tmp_path, text))["Dose (Gy, total)"] == ["1.5", "2.25"]
    decimal = "ID;a;b;c\n" + "".join(f"P{i};{i},5;{i},25;{i},125\n" for i in range(5))
    assert read(write(tmp_path, decimal))["c"][1] == "1.125"


def test_a_delimiter_that_may_be_either_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="write sep="):
        read(write(tmp_path, "id,age;sex\nP1,60;m\nP2,70;f\n"))
    assert len(read(write(tmp_path, "sep=;\nid,age;sex\nP1,60;m\nP2,70;f\n"))) == 2


def test_line_ends_and_quotes_within_cells_stay(tmp_path: Path) -> None:
    text = 'PatientID,remark,age\nP1,"two\nlines, ""quoted""",60\nP2,5" tumour,70\nP3, "a, b", 80\n'
    found = read(write(tmp_path, text))
    assert found["remark"] == ['two\nlines, "quoted"', '5" tumour', "a, b"]
    assert found["age"] == ["60", "70", "80"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('id,a,b\nP1,"x,1\nP2,y,2\n', "its quotes do not match"),
        ('id,a\nP1,"x" y\nP2,z\n', "its quotes do not match"),
        ("id,age\nP1,63,5\nP2,70,5\n", "data row 1 has 3 cells under 2 headings"),
        ("id age sex\nP1 60 m\nP2 70 f\n", "separated by blanks"),
        ("id educ div\n9 12-15 years No\n11 < 12 years No\n", "separated by blanks"),
        ("", "it is empty"),
        (b"id,a\nP1,\0\0\x01\x02\n", "binary data"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "old or encrypted Excel"),
        (b"PAR1\x15\x04", "a Parquet file"),
        ("<html><table><tr><td>id</td></tr></table></html>", "a web page or XML"),
        ("id;a;b\nP1;1.234;12,5\nP2;2.500;3,5\n", "column 'a' holds '1.234' in a table with decimal commas"),
        ("id;a\nP1;12,5\nP2;1.234\n", "'1.234' in a table with decimal commas \\(12,5\\): is it 1234"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_for_certain_is_refused_in_one_line(
    content: str | bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(TableError, match=message) as refused:
        read(write(tmp_path, content))
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("delimiter", "cells", "expected"),
    [
        (";", ["1,5", "2", ""], ["1.5", "2", ""]),
        (";", ["1.234,5", "12"], ["1234.5", "12"]),
        (";", ["1.234.567", "12"], ["1234567", "12"]),
        (",", ["1,234.5", "12"], ["1234.5", "12"]),
        (",", ["1,234,567", "1,234"], ["1234567", "1234"]),
        (",", ["1,234", "999"], ["1,234", "999"]),  # not told: who wants a number refuses it
        ("\t", ["1,234", "999"], ["1,234", "999"]),
        ("\t", ["1,234", "0,512"], ["1.234", "0.512"]),
        (";", ["1 234,5", "7"], ["1234.5", "7"]),
        (";", ["1'234.5", "7"], ["1234.5", "7"]),
        (";", ["1\u202f234,5", "12,25"], ["1234.5", "12.25"]),
        (",", ["\u22121.5", "2"], ["-1.5", "2"]),
        (",", ["-1,5e-3", "2"], ["-1.5e-3", "2"]),
        (",", ['="001"', '="002"'], ["001", "002"]),
        (",", ["a, b", "c"], ["a, b", "c"]),
        (",", ["1,234", "0.5", "12,5"], ["1.234", "0.5", "12.5"]),
    ],
)
def test_numbers_are_read_as_their_column_means_them(
    delimiter: str, cells: list[str], expected: list[str], tmp_path: Path
) -> None:
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter)
    writer.writerows([["id", "x", "y"], *([f"P{i}", cell, "z"] for i, cell in enumerate(cells))])
    assert read(write(tmp_path, stream.getvalue()))["x"] == expected


def test_a_comma_that_nothing_explains_is_told_in_a_table_with_semicolons(tmp_path: Path) -> None:
    cells = read_cells(write(tmp_path, "id;x\nP1;1,234\nP2;2,345\n"))
    assert cells.columns[1] == ["1.234", "2.345"]
    assert "was taken as decimal" in cells.notes[0]


def test_titles_above_and_empty_columns_beside_are_passed_over(tmp_path: Path) -> None:
    text = "Cohort of 2020,,,,\n\nexported by hand,,,,\n" + "".join(",".join(line) + ",,\n" for line in LINES)
    cells = read_cells(write(tmp_path, text))
    assert dict(zip(cells.header, cells.columns, strict=True)) == EXPECTED
    assert cells.notes == ("Skipped above the headings: Cohort of 2020; exported by hand.",)


def test_short_rows_are_told(tmp_path: Path) -> None:
    cells = read_cells(write(tmp_path, "id,age,sex\nP1,60,m\nP2,70\n"))
    assert cells.columns[2] == ["m", ""]
    assert "1 row (data row 2)" in cells.notes[0]


def test_names_are_the_same_however_their_letters_are_composed(tmp_path: Path) -> None:
    name = "Müller"
    decomposed = unicodedata.normalize("NFD", f"PatientID,Größe\n{name},1\n\u200bMeier,2\n")
    found = read(write(tmp_path, decomposed))
    assert found == {"PatientID": [name, "Meier"], "Größe": ["1", "2"]}
    assert patient_key(unicodedata.normalize("NFD", name)) == patient_key(name)


def test_a_sheet_is_chosen_by_its_patients_and_the_choice_is_told(tmp_path: Path) -> None:
    path = book(tmp_path, ("Readme", [["About", "this"], ["x", "y"]]), ("Data", LINES), ("Old", [["a"], [1]]))
    cells = read_cells(path)
    assert dict(zip(cells.header, cells.columns, strict=True)) == EXPECTED
    assert cells.notes == ("Of its sheets 'Data' was read, not 'Readme', 'Old'; sheet names another.",)
    assert read(path, "old") == {"a": ["1"]}
    with pytest.raises(TableError, match="no sheet 'X'; it has Readme, Data, Old"):
        read(path, "X")


def test_merged_headings_in_two_rows_are_joined(tmp_path: Path) -> None:
    made = openpyxl.Workbook()
    page = made.active
    page.append(["Title"])
    page.append(["PatientID", "Clinical", None, "Pre", None, "Post"])
    page.append([None, "age", "sex", "ml", "cm", "ml"])
    page.append(["P1", 60, "m", 1, 2, 3])
    page.append(["P2", 70, "f", 4, 5, 6])
    page.merge_cells("B2:C2")
    page.merge_cells("A2:A3")
    made.save(tmp_path / "t.xlsx")
    cells = read_cells(tmp_path / "t.xlsx")
    assert cells.header == ("PatientID", "age", "sex", "Pre ml", "cm", "Post ml")
    assert [len(column) for column in cells.columns] == [2] * 6
    assert len(cells.notes) == 2


def test_cells_of_a_sheet_are_what_they_show(tmp_path: Path) -> None:
    made = openpyxl.Workbook()
    page = made.active
    day = datetime.datetime(2020, 1, 31)
    for line in [["id", "date", "seen", "x", "big"], [1, day, True, 12.0, 123456789012], [2, None, False, 0.1, 3]]:
        page.append(line)
    for row in (2, 3):
        page.cell(row, 1).number_format = "000"
    made.save(tmp_path / "t.xlsx")
    assert read(tmp_path / "t.xlsx") == {
        "id": ["001", "002"],
        "date": ["2020-01-31", ""],
        "seen": ["True", "False"],
        "x": ["12", "0.1"],
        "big": ["123456789012", "3"],
    }


def test_a_formula_that_was_never_computed_is_refused_and_a_computed_one_read(tmp_path: Path) -> None:
    path = book(tmp_path, ("a", [["id", "x"], ["P1", "=1+1"], ["P2", 3]]))
    with pytest.raises(TableError, match="cell B2 holds a formula that was never computed"):
        read(path)
    edited = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(edited, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b"<v></v>", b"<v>2</v>").replace(b"<v />", b"<v>2</v>"))
    assert read(write(tmp_path, edited.getvalue(), "u.xlsx"))["x"] == ["2", "3"]


def test_a_sheet_whose_file_says_a_smaller_size_is_read_whole(tmp_path: Path) -> None:
    path = book(tmp_path, ("a", LINES))
    edited = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(edited, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b'ref="A1:C3"', b'ref="A1"'))
    assert read(write(tmp_path, edited.getvalue(), "u.xlsx")) == EXPECTED


@pytest.mark.parametrize("cut", [30, 200, 1500, 4000])
def test_a_cut_workbook_is_refused_in_one_line(cut: int, tmp_path: Path) -> None:
    data = book(tmp_path, ("a", LINES)).read_bytes()
    with pytest.raises(TableError) as refused:
        read(write(tmp_path, data[:cut], "u.xlsx"))
    assert len(str(refused.value).splitlines()) == 1


def test_an_archive_of_another_kind_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr("a.csv", "id\n1\n")
    with pytest.raises(TableError, match=r"no XLSX workbook \(it holds a.csv\)"):
        read(tmp_path / "t.zip")


def test_ids_join_over_separators_only_where_that_is_certain() -> None:
    assert match_spelt_alike(["tcga.02.0001", "a-1"], ["tcga-02-0001", "a-1"]) == {"tcga.02.0001": "tcga-02-0001"}
    assert match_spelt_alike(["p_1"], ["p-1", "p.1"]) == {}  # one here is two there
    assert match_spelt_alike(["12"], ["1-2"]) == {}


def test_ids_join_over_zeros_in_front_only_where_that_is_certain() -> None:
    assert match_spelt_alike(["1", "2", "10"], ["001", "002", "010", "011"]) == {"1": "001", "2": "002", "10": "010"}
    assert match_spelt_alike(["1", "01"], ["001"]) == {}  # two patients here are one there
    assert match_spelt_alike(["1"], ["1", "001"]) == {}
    assert match_spelt_alike(["P1", "A1-10"], ["P001", "A01-1"]) == {"P1": "P001"}


WORD = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cf", "Cn", "Co"]), min_size=1, max_size=8)
CLEAN = WORD.map(lambda text: unicodedata.normalize("NFC", " ".join(text.split()))).filter(
    lambda text: text != "" and text[0] not in "=\u2212" and not any(c.isdecimal() for c in text)
)


@given(
    rows=st.lists(st.tuples(CLEAN, st.floats(allow_nan=False, allow_infinity=False)), min_size=2, max_size=6),
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    zipped=st.booleans(),
)
def test_what_a_csv_writer_writes_is_read_back(
    rows: list[tuple[str, float]],
    delimiter: str,
    encoding: str,
    quoting: int,
    end: str,
    zipped: bool,
    tmp_path: Path,
) -> None:
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter, quoting=quoting, lineterminator=end)  # type: ignore[arg-type]
    writer.writerow(["PatientID", "word", "number", "last"])
    writer.writerows([f"P{i}", word, number, "x"] for i, (word, number) in enumerate(rows))
    data = stream.getvalue().encode(encoding)
    found = read(write(tmp_path, gzip.compress(data) if zipped else data))
    assert found["PatientID"] == [f"P{i}" for i in range(len(rows))]
    assert found["word"] == [word for word, _ in rows]
    assert [float(text) for text in found["number"]] == [number for _, number in rows]


@given(data=st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "replace")))
@example(data=b"PK\x03\x04")
@example(data=b"\x1f\x8b\x08")
@example(data=b"\xff\xfe\x00")
@example(data=b'sep=,\n"')
def test_no_bytes_end_in_a_traceback(data: bytes, tmp_path: Path) -> None:
    for name in ("t.csv", "t.xlsx"):
        try:
            cells = read_cells(write(tmp_path, data, name))
        except TableError:
            continue
        assert all(len(column) == cells.n_rows for column in cells.columns)


@given(data=st.data())
def test_no_mutated_clinical_table_ends_in_a_traceback_or_a_wrong_endpoint(data: st.DataObject, tmp_path: Path) -> None:
    lines = ["PatientID;time_days;event;age", "P1;100,5;1;60", "P2;200;0;NA", "P3;300;1;70"]
    text = bytearray("\n".join(lines).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    try:
        table = read_clinical(write(tmp_path, bytes(text)), COLLECTIONS["generic"])
    except PrognosisError:
        return
    for row in table.rows.values():
        assert row.event in (None, 0, 1)
        assert row.time_days is None or 0 < row.time_days < 50_000


def test_a_clinical_tables_reader_says_what_the_file_is(tmp_path: Path) -> None:
    for data, name in itertools.product((b"\xd0\xcf\x11\xe0", b"\0\0\0\1"), ("t.csv", "t.xlsx")):
        with pytest.raises(JobError, match="cannot read the clinical table"):
            read_clinical(write(tmp_path, data, name), COLLECTIONS["generic"])
