"""Read a sheet of an XLSX file as lines of text, formatted as displayed where that matters."""

from __future__ import annotations

import datetime
import io
import re
import unicodedata
import warnings
import zipfile
from collections.abc import Iterator
from typing import Any

from prognosis_dask.errors import count
from prognosis_dask.tables.headings import find_headings, names_a_patient

Lines = list[list[str]]
#: A formula that was never computed: it has no stored value.
_NOT_COMPUTED = re.compile(
    rb"<(?:\w+:)?c\b(?![^>]*\bt=\"str\")[^>]*?\br=\"([A-Z]+\d+)\"(?![^>]*\bt=\"str\")[^>]*>\s*"
    rb"<(?:\w+:)?f\b(?:[^>]*/>|[^>]*>[^<]*</(?:\w+:)?f>)\s*(?:<(?:\w+:)?v\s*/>|<(?:\w+:)?v></(?:\w+:)?v>)?\s*</(?:\w+:)?c>"
)
#: A hidden row, and whether one of its cells has a value.
_HIDDEN = re.compile(
    rb"<(?:\w+:)?row\b[^>]*\bhidden=\"(?:1|true)\"[^>]*(?<!/)>(?:(?!</(?:\w+:)?row>).)*?<(?:\w+:)?(?:v|is)>", re.DOTALL
)
_UNSEEN = re.compile("[\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\u00ad]")


def read_sheet(data: bytes, sheet: str) -> tuple[Lines, list[str]]:
    """The lines of a sheet that are not blank, and notes.

    Parameters
    ----------
    data
        The file's content.
    sheet
        The sheet's name; empty: the only one with a table of patients, else the first that is not empty.

    Raises
    ------
    ValueError
        When it is not such a file or damaged, the sheet does not exist, or a formula was never computed.
    """
    import openpyxl

    _expect_workbook(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about styles, which are not used
            book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
            pages = _pages(book, sheet)
            lines = {page.title: [line for line in _lines(page) if any(line)] for page in pages}
            book.close()
    except ValueError:
        raise
    except Exception as error:  # openpyxl passes on errors of zipfile, XML and its own parsers
        raise ValueError(f"its workbook is damaged ({type(error).__name__}: {error})") from error
    _expect_computed(data)
    chosen, notes = _chosen(lines)
    hidden = _hidden_rows(data, next(page for page in pages if lines[page.title] is chosen))
    if hidden:
        notes = [*notes, f"{count(hidden, 'row')} of the sheet are hidden, by a filter perhaps, and are read too."]
    return chosen, notes


def _expect_workbook(data: bytes) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise ValueError(f"its archive is damaged ({error}); copy it again") from error
    if not any(name.startswith("xl/") for name in names):
        held = ", ".join(names[:3]) or "nothing"
        raise ValueError(f"it is an archive, but no XLSX workbook (it holds {held}); save the table as XLSX or CSV")


def _pages(book: Any, sheet: str) -> list[Any]:
    pages = [page for page in book.worksheets if hasattr(page, "iter_rows")]
    if sheet:
        named = [page for page in pages if page.title.strip().casefold() == sheet.strip().casefold()]
        if not named:
            raise ValueError(f"it has no sheet {sheet!r}; it has {', '.join(page.title for page in pages)}")
        return named
    return [page for page in pages if page.sheet_state == "visible"] or pages


def _lines(page: Any) -> Iterator[list[str]]:
    page.reset_dimensions()  # the declared size may be wrong
    for row in page.iter_rows():
        yield [_text(cell) for cell in row]


def _text(cell: Any) -> str:
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    if isinstance(value, int):
        shown = cell.number_format
        return str(value).zfill(len(shown)) if value >= 0 and shown and not shown.strip("0") else str(value)
    if isinstance(value, datetime.datetime):
        return str(value.date()) if value.time() == datetime.time() else value.isoformat(" ")
    text = str(value).strip()
    return text if text.isascii() else unicodedata.normalize("NFC", _UNSEEN.sub("", text))


def _hidden_rows(data: bytes, page: Any) -> int:
    """How many rows of a sheet that hold something are hidden, as by a filter."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return len(_HIDDEN.findall(archive.read(page._worksheet_path)))


def _expect_computed(data: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for name in archive.namelist():
            if name.startswith("xl/worksheets/") and name.endswith(".xml"):
                content = archive.read(name)
                found = _NOT_COMPUTED.search(content) if b"<f" in content or b":f" in content else None
                if found:
                    raise ValueError(
                        f"cell {found[1].decode()} holds a formula that was never computed; open it in a spreadsheet "
                        "program and save it"
                    )


def _chosen(lines: dict[str, Lines]) -> tuple[Lines, list[str]]:
    filled = {title: rows for title, rows in lines.items() if rows}
    if not filled:
        raise ValueError("it is empty")
    of_patients = [title for title, rows in filled.items() if any(map(names_a_patient, find_headings(rows)[0]))]
    title = of_patients[0] if of_patients else next(iter(filled))
    others = [name for name in filled if name != title]
    if not others:
        return filled[title], []
    return filled[title], [
        f"Of its sheets {title!r} was read, not {', '.join(map(repr, others))}; sheet names another."
    ]
