"""Read a table as headings and columns of text: CSV in any dialect, also gzipped, or XLSX.

The one reader of clinical tables, of pyradiomics' tables of cases, and of tables of features. It changes no words, and
lists its decisions in notes. Numbers come out with a decimal point (:func:`plain_numbers`); missing
values are recognised where the column's use is known (:mod:`prognosis_dask.tables.values`).
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from prognosis_dask.errors import TableError, count
from prognosis_dask.tables.headings import BLANK, find_headings

if TYPE_CHECKING:
    import pandas as pd

_DELIMITERS = (",", ";", "\t", "|")
#: Rows used to detect the delimiter.
_SAMPLE = 50
#: Gzipped tables that unpack to more bytes are refused.
_LARGEST = 1 << 32
_SEP = re.compile(r'"?sep=(.)"?[ \t,;]*(\r\n|\r|\n)', re.IGNORECASE)
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_SPACE = re.compile(r"\s")
#: Invisible characters, which would make equal names differ.
_UNSEEN = re.compile("[\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\u00ad]")
#: First bytes of other kinds of file.
_KINDS = (
    (b"\xd0\xcf\x11\xe0", "it is an old or encrypted Excel file; save it as XLSX without a password, or as CSV"),
    (b"PAR1", "it is a Parquet file; write it as CSV"),
    (b"$FL", "it is an SPSS file; write it as CSV with the codes, not the labels, of the event"),
    (b"\x89HDF", "it is an HDF5 file; write it as CSV"),
    (b"%PDF", "it is a PDF; type or export the table as CSV"),
    (b"RDX", "it is an R file; write it with write.csv"),
)
Lines = list[list[str]]


@dataclass(frozen=True)
class Cells:
    """A table as text.

    Attributes
    ----------
    header
        The headings, each once; a column with cells under no heading is called :data:`BLANK`.
    columns
        Per heading the cells, as many as there are rows; without blanks around them, numbers with a decimal point.
    notes
        Decisions that would matter if they were wrong.
    """

    header: tuple[str, ...]
    columns: tuple[list[str], ...]
    notes: tuple[str, ...] = ()

    @property
    def n_rows(self) -> int:
        """Number of rows below the headings, without blank ones."""
        return len(self.columns[0]) if self.columns else 0

    def rows(self) -> list[dict[str, str]]:
        """The rows by heading."""
        return [dict(zip(self.header, row, strict=True)) for row in zip(*self.columns, strict=True)]


def read_cells(path: Path, sheet: str = "") -> Cells:
    """Read a table.

    Parameters
    ----------
    path
        CSV with commas, semicolons, tabs or bars in UTF-8, UTF-16 or Windows-1252, also gzipped; or XLSX. The content
        decides, not the name.
    sheet
        Of an XLSX file; empty: the one with a column of patients, else the first.

    Raises
    ------
    TableError
        When it is missing, of another kind or damaged, or its cells do not match its headings; the message is one line.
    """
    try:
        return _read(path.read_bytes(), sheet, path.suffix.lower() in (".xlsx", ".xlsm"))
    except OSError as error:
        raise TableError(path, f"{error.strerror}") from error
    except ValueError as error:
        raise TableError(path, str(error)) from error


def frame_cells(frame: pd.DataFrame, where: str) -> Cells:
    """A DataFrame, as its CSV file would be read; an index with a name, or of words, is a column.

    Raises
    ------
    TableError
        As :func:`read_cells`.
    """
    named = any(name is not None for name in frame.index.names) or frame.index.inferred_type == "string"
    try:
        return _read(frame.to_csv(index=named).encode(), "", named_xlsx=False)
    except ValueError as error:
        raise TableError(where, str(error)) from error


def _read(data: bytes, sheet: str, named_xlsx: bool) -> Cells:
    if data[:2] == b"\x1f\x8b":
        data = _unpacked(data)
    for start, reason in _KINDS:
        if data.startswith(start):
            raise ValueError(reason)
    if data.startswith(b"PK\x03\x04"):
        from prognosis_dask.tables.xlsx import read_sheet

        lines, notes = read_sheet(data, sheet)
        return _under_headings(lines, "", notes)
    if named_xlsx:
        raise ValueError("it is named XLSX but is not a workbook; name it .csv, or save it as XLSX again")
    if sheet:
        raise ValueError(f"sheet is {sheet!r}, but it is not an XLSX file")
    text, notes = _decoded(data)
    del data  # large tables would be held in memory three times
    lines, delimiter = _parsed(text)
    del text
    return _under_headings(lines, delimiter, notes)


def _unpacked(data: bytes) -> bytes:
    try:
        with gzip.open(io.BytesIO(data)) as stream:
            content = stream.read(_LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"its gzip archive is damaged ({error}); copy it again") from error
    if len(content) > _LARGEST:
        raise ValueError(f"it unpacks to more than {_LARGEST >> 30} GB")
    return content


def _decoded(data: bytes) -> tuple[str, list[str]]:
    """The text, composed (NFC) and without invisible characters."""
    notes = []
    try:
        text = _unicode(data)
    except UnicodeDecodeError as error:
        text = data.decode("cp1252", errors="replace")
        line = data.count(b"\n", 0, error.start) + 1
        notes.append(f"It is not in UTF-8 (line {line}) and was read as Windows-1252: check letters with accents.")
    if "\0" in text:
        raise ValueError("it holds binary data; save the table as CSV or XLSX")
    if text.lstrip()[:200].casefold().startswith(("<html", "<!doctype", "<?xml", "<table")):
        raise ValueError("it is a web page or XML under another name; save the table as CSV or XLSX")
    if text.isascii():
        return text, notes
    return unicodedata.normalize("NFC", _UNSEEN.sub("", text)), notes


def _unicode(data: bytes) -> str:
    for start, encoding in ((b"\xff\xfe\0\0", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if data.startswith(start):
            return data.decode(encoding, errors="replace")
    for nul, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        half = data[nul:2000:2]
        if half and half.count(0) > 0.8 * len(half):
            return data.decode(encoding, errors="replace")
    return data.decode("utf-8-sig")


def _parsed(text: str) -> tuple[Lines, str]:
    said = _SEP.match(text)
    if said:
        text = text[said.end() :]
    delimiter = said[1] if said else _delimiter(text)
    try:
        return [line for line in _reader(text, delimiter) if any(map(str.strip, line))], delimiter
    except csv.Error as error:
        raise ValueError(_quoted_wrongly(error)) from error


def _reader(text: str, delimiter: str) -> Iterator[list[str]]:
    lines = (found[0] for found in _LINE.finditer(text))
    return csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True)


def _quoted_wrongly(error: csv.Error) -> str:
    return (
        f"its quotes do not match ({error}): a cell that begins with a quote has to end with one, and a quote within "
        "it is written twice"
    )


def _delimiter(text: str) -> str:
    """The delimiter for which most rows have as many cells as the headings; among ties the one with most cells."""
    judged = [(_consistency(text, delimiter), delimiter) for delimiter in _DELIMITERS if delimiter in text]
    judged = [found for found in judged if found[0][2] > 1]
    if not judged:
        _expect_no_blanks_between(text)
        return ","
    best = max(judged)[0]
    equal = [delimiter for found, delimiter in judged if found == best]
    if len(equal) > 1:
        named = " or ".join(map(repr, equal))
        raise ValueError(f"its cells may be parted by {named}; write sep={equal[0]} (or the other) as its first line")
    return equal[0]


def _consistency(text: str, delimiter: str) -> tuple[float, int, int]:
    """The share of rows that agree on a number of cells, the first such row (negative), and that number."""
    try:
        widths = [len(line) for line in islice(_reader(text, delimiter), _SAMPLE) if any(map(str.strip, line))]
    except csv.Error:
        return 0.0, 0, 0
    if not widths:
        return 0.0, 0, 0
    width, often = max(Counter(widths).items(), key=lambda item: (item[1], item[0]))
    return round(often / len(widths), 1), -widths.index(width), width


def _expect_no_blanks_between(text: str) -> None:
    """Columns of blanks: every row has as many words as headings, or most have more, since words are in the cells."""
    widths = [len(line.split()) for line in text.splitlines()[:_SAMPLE] if line.strip()]
    if len(widths) > 1 and widths[0] > 2 and sum(width >= widths[0] for width in widths) > 0.9 * len(widths):
        raise ValueError("its cells are separated by blanks; write it with commas, semicolons or tabs")


def _under_headings(lines: Lines, delimiter: str, notes: Sequence[str]) -> Cells:
    for at, line in enumerate(lines):
        if _SPACE.search("\0".join(line)):
            lines[at] = [cell.strip() for cell in line]
    if not lines:
        raise ValueError("it is empty")
    header, lines, skipped = find_headings(lines)
    notes = [*notes, *skipped]
    width = len(header)
    for number, line in enumerate(lines, 1):
        if any(line[width:]):
            shifted = all(len(row) == width + 1 for row in lines)  # or an unquoted comma in each
            hint = "; if R's write.table wrote it, the row names lack a heading: write.csv gives one"
            raise ValueError(
                f"data row {number} has {len(line)} cells under {count(width, 'heading')}{hint if shifted else ''}"
            )
    short = [number for number, line in enumerate(lines, 1) if len(line) < width]
    if short and delimiter:
        rows = ", ".join(map(str, short[:3])) + (", ..." if len(short) > 3 else "")
        notes.append(f"Before the last heading end the cells of {count(len(short), 'row')} (data row {rows}).")
    full = [line if len(line) == width else [*line[:width], *[""] * (width - len(line))] for line in lines]
    del lines
    columns = [list(column) for column in zip(*full, strict=True)] if full else [[] for _ in header]
    del full
    kept = [at for at, name in enumerate(header) if name or any(columns[at])]
    names, renamed = _named([header[at] for at in kept])
    columns, said = plain_numbers(names, [columns[at] for at in kept], delimiter)
    return Cells(tuple(names), tuple(columns), (*notes, *renamed, *said))


def _named(header: Sequence[str]) -> tuple[list[str], list[str]]:
    """The headings, each unique: blank ones by number, repeated ones with .1, .2 as pandas writes them; and a note."""
    blanks = iter(range(1, len(header) + 1))
    names = [name or (BLANK if (n := next(blanks)) == 1 else f"{BLANK} {n}") for name in header]
    taken, made, renamed = set(names), list[str](), list[str]()
    often: Counter[str] = Counter()
    for name in names:
        unique = name
        while often[name] and (unique := f"{name}.{often[name]}") in taken:
            often[name] += 1
        often[name] += 1
        if unique != name:
            taken.add(unique)
            renamed.append(unique)
        made.append(unique)
    told = f"Headings that stand twice were numbered from the second on: {', '.join(renamed[:8])}" if renamed else ""
    return made, [f"{told}{', ...' if len(renamed) > 8 else ''}."] if told else []


# Numbers as people write them, column by column, to numbers with a decimal point. A comma is a decimal sign or
# separates thousands, and so is a point. One cell does not tell which, but a column and its table mostly do: 12,5 and
# 0,512 have a decimal comma, 1,234.5 and 1,234,567 have not. If the table does not tell, the cells are kept and
# refused where numbers are needed; the table is refused if they could be read as other numbers.

_SIGN = r"[-+]?"
_EXPONENT = r"([eE][-+]?\d+)?"
#: Certainly a decimal comma: not three digits after it, or no possible group of thousands before it.
_COMMA_DECIMAL = re.compile(
    rf"{_SIGN}(\d*,(\d{{1,2}}|\d{{4,}})|(0|0\d+|\d{{4,}}),\d+|\d{{1,3}}([. '’]\d{{3}})+,\d+){_EXPONENT}"
)
_COMMA_THOUSANDS = re.compile(rf"{_SIGN}([1-9]\d{{0,2}}(,\d{{3}})+\.\d*|[1-9]\d{{0,2}}(,\d{{3}}){{2,}})")
_EITHER = re.compile(rf"{_SIGN}[1-9]\d{{0,2}},\d{{3}}")
_POINT_THOUSANDS = re.compile(rf"{_SIGN}[1-9]\d{{0,2}}(\.\d{{3}})+")
_SEVERAL_POINTS = re.compile(rf"{_SIGN}[1-9]\d{{0,2}}(\.\d{{3}}){{2,}}")
_PLAIN = re.compile(rf"{_SIGN}(\d+\.?\d*|\.\d+){_EXPONENT}")
_POINT_DECIMAL = re.compile(rf"{_SIGN}(\d*\.\d+){_EXPONENT}")
_PARTED = re.compile(rf"{_SIGN}\d{{1,3}}([ '’]\d{{3}})+([.,]\d+)?")
_ODD = re.compile("[,'’\\s\u2212=]|\\.[^\0.]*\\.")
#: So many numbers with three decimals, and as many of three digits with none, are no accident.
_FEWEST_THOUSANDS = 5
#: Blanks that part thousands: no-break, thin and narrow no-break, as R, LaTeX and CLDR's locales write them.
_NARROW = re.compile(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3})")
#: Excel's notation for numbers as text: ="001"
_AS_TEXT = re.compile(r'="?([^"]*)"?')


def plain_numbers(
    names: Sequence[str], columns: Sequence[list[str]], delimiter: str
) -> tuple[list[list[str]], list[str]]:
    """The columns with their numbers in plain notation, and notes on decisions.

    Raises
    ------
    ValueError
        When a column mixes notations so that a number could be misread; the message names it.
    """
    odd = [bool(column) and _is_odd(column) for column in columns]
    cleaned = [
        [_as_typed(cell) for cell in column] if is_odd else column for column, is_odd in zip(columns, odd, strict=True)
    ]
    kinds = [_kinds(column) if is_odd else set() for column, is_odd in zip(cleaned, odd, strict=True)]
    decimal_comma = any("comma" in kind for kind in kinds)
    points = not decimal_comma and any(map(_has_points, cleaned))
    found, doubtful = [], []
    for name, column, kind, is_odd in zip(names, cleaned, kinds, odd, strict=True):
        if decimal_comma:
            _expect_no_doubt(name, column, kind)
        else:
            _expect_decimal_points(name, column)
        if is_odd and kind:
            column = [_plain(cell, _decimal_sign(kind, delimiter, decimal_comma, points)) for cell in column]
            if kind == {"either"} and not decimal_comma and delimiter == ";" and not points:
                doubtful.append(name)
        found.append(column)
    if doubtful:
        return found, [
            f"The comma in {', '.join(doubtful[:5])} was taken as decimal, since nothing shows that it separates "
            "thousands."
        ]
    return found, []


def _is_odd(column: Sequence[str]) -> bool:
    return _ODD.search("\0".join(column)) is not None


def _as_typed(cell: str) -> str:
    if cell[:1] == "=" and (typed := _AS_TEXT.fullmatch(cell)):
        cell = typed[1]
    if cell[:1] == "\u2212":
        cell = f"-{cell[1:]}"
    return _NARROW.sub(" ", cell)


def _kinds(column: Sequence[str]) -> set[str]:
    """Which notations with a comma or groups of digits a column has; none if most cells are not numbers."""
    kinds: set[str] = set()
    numbers = held = 0
    for cell in column:
        if not cell:
            continue
        held += 1
        kind = _kind(cell)
        numbers += bool(kind)
        kinds |= {kind} - {"", "plain"}
    return kinds if 2 * numbers >= held else set()


def _kind(cell: str) -> str:
    for kind, rule in (
        ("plain", _PLAIN),
        ("comma", _COMMA_DECIMAL),
        ("thousands", _COMMA_THOUSANDS),
        ("either", _EITHER),
        ("points", _SEVERAL_POINTS),
        ("parted", _PARTED),
    ):
        if rule.fullmatch(cell):
            return kind
    return ""


def _has_points(column: Sequence[str]) -> bool:
    return any(_POINT_DECIMAL.fullmatch(cell) for cell in column[:50])


def _decimal_sign(kind: set[str], delimiter: str, decimal_comma: bool, points: bool) -> str:
    """The column's decimal sign; None if undecided."""
    if "comma" in kind:
        return "" if "thousands" in kind else ","
    if "thousands" in kind:
        return "."
    if "either" in kind:
        return "," if decimal_comma or (delimiter == ";" and not points) else ""
    return "." if kind == {"parted"} else ","


def _plain(cell: str, decimal: str) -> str:
    kind = _kind(cell)
    if kind in ("", "plain") or not decimal:
        return cell
    cell = re.sub(r"[ '’]", "", cell)
    if kind == "parted":
        return cell.replace(",", ".")
    if decimal == ".":
        return cell.replace(",", "")
    return cell.replace(".", "").replace(",", ".")


def _expect_no_doubt(name: str, column: Sequence[str], kind: set[str]) -> None:
    """Refuse 1.234 in a table with decimal commas: it may be a thousand or a little more than one."""
    held = [cell for cell in column if "." in cell and _PLAIN.fullmatch(cell)]
    suspicious = bool(held) and all(_POINT_THOUSANDS.fullmatch(cell) for cell in held)
    if suspicious:
        other = "12,5" if "comma" not in kind else next(cell for cell in column if _kind(cell) == "comma")
        whole = held[0].replace(".", "")
        raise ValueError(
            f"column {name!r} holds {held[0]!r} in a table with decimal commas ({other}): is it {whole}? "
            "Write all its numbers with one decimal sign and without thousands separators"
        )


def _expect_decimal_points(name: str, column: Sequence[str]) -> None:
    """Refuse 1.234 beside 980: decimals that always have three digits, or none at all, are thousands.

    Zeros and small numbers are no evidence, nor are 100 or 200 alone beside 1.125, as of a percentage or a dose.
    """
    if "." not in "\0".join(column):
        return
    pointed, whole = [], []
    for cell in column:
        if "." not in cell:
            whole += [cell] if cell else []
        elif _POINT_THOUSANDS.fullmatch(cell):
            pointed.append(cell)
        elif _PLAIN.fullmatch(cell):
            return
    numbers = [cell for cell in whole if _PLAIN.fullmatch(cell)]
    hundreds = [cell for cell in numbers if len(cell.lstrip("+-")) == 3]
    if min(len(pointed), len(hundreds)) < _FEWEST_THOUSANDS or max(map(len, numbers)) > 4:
        return
    if all(cell.endswith("00") for cell in hundreds) and not all(cell.endswith("00") for cell in pointed):
        return
    large = pointed[0].replace(".", "")
    raise ValueError(
        f"column {name!r} holds {pointed[0]!r} and {hundreds[0]!r}: is the first {large}? If so, write its "
        f"numbers without thousands separators, {large}; if not, write {hundreds[0]} as {hundreds[0]}.0 in one cell"
    )
