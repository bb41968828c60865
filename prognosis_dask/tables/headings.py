"""Find a table's headings, and the columns that number, name or date its rows.

Headings lie below a title, or in two rows of which the upper one names groups. What numbers, names or dates the rows is
no property of a patient, although row order may tell the outcome.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from prognosis_dask.arrays import FloatArray

#: The name of a column without a heading.
BLANK = "(blank)"
#: Rows that a title may take.
_MOST_TITLES = 10

Lines = list[list[str]]


@lru_cache(maxsize=1 << 18)
def key(column: str) -> str:
    """The key for comparing column names: their letters and digits, of any script.

    >>> key("Survival.time"), key("survival_time ")
    ('survivaltime', 'survivaltime')
    """
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFC", column).casefold())


def find_headings(lines: Lines) -> tuple[list[str], Lines, list[str]]:
    """The headings (blank if there is none), the rows below them, and notes on skipped lines."""
    width = _width(lines)
    marked = next((at for at, line in enumerate(lines) if not line or not line[0].startswith("#")), 0)
    titles = marked if 1 < marked < len(lines) - 1 else 0  # as cBioPortal describes its columns
    while titles < min(_MOST_TITLES, len(lines) - 2) and _is_title(lines[titles], width):
        titles += 1
    notes = []
    if titles:
        shown = "; ".join(" ".join(filter(None, line))[:60] for line in lines[:titles])
        notes.append(f"Skipped above the headings: {shown}.")
    lines = lines[titles:]
    header, below = lines[0], lines[1:]
    two = _two_rows(header, below)
    if two:
        notes.append(f"The headings are in two rows: {', '.join(two[:8])}{', ...' if len(two) > 8 else ''}.")
        header, below = two, below[1:]
    while header and not header[-1] and not any(len(line) >= len(header) and line[len(header) - 1] for line in below):
        header = header[:-1]
    return header, below, notes


def names_a_patient(heading: str) -> bool:
    """Whether a heading is a usual name for a column of patients or cases.

    >>> names_a_patient("TRIAL PatientID"), names_a_patient("Histology")
    (True, False)
    """
    return (
        re.fullmatch(r"(.*[\W_])?(id|.*patient(en)?.*|.*subject.*|case|image)([\W_].*)?", heading.casefold())
        is not None
    )


def _width(lines: Lines) -> int:
    """The most frequent number of filled cells per row."""
    filled = Counter(sum(map(bool, line)) for line in lines[:200])
    return max(filled, key=lambda n: (filled[n], n))


def _is_title(line: Sequence[str], width: int) -> bool:
    return sum(map(bool, line)) * 3 <= width


def _two_rows(upper: Sequence[str], below: Lines) -> list[str]:
    """The headings made of two rows; () if there is one row."""
    if len(below) < 2:
        return []
    n = max(len(upper), len(below[0]))
    first, second = ([*line, *[""] * (n - len(line))] for line in (upper, below[0]))
    blank = [at for at in range(n) if not first[at] and second[at]]
    whole = all(first[at] or second[at] for at in range(n) if any(at < len(line) and line[at] for line in below[1:]))
    words = not any(_is_number(cell) for cell in (*first, *second) if cell)
    numbers = any(_is_number(line[at]) for line in below[1:] for at in range(min(n, len(line))) if second[at])
    patient = any(map(names_a_patient, second)) or any(
        names_a_patient(f) and not s for f, s in zip(first, second, strict=True)
    )
    if not (blank and whole and words and numbers and patient):
        return []
    names = [low or high for high, low in zip(first, second, strict=True)]
    group, often = "", Counter(names)
    for at, name in enumerate(names):
        group = first[at] or group
        if name and often[name] > 1 and group != name:
            names[at] = f"{group} {name}"
    return names


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text.replace(",", ".")))
    except ValueError:
        return False


#: Fewer rows may be in ascending order, or a permutation of the row numbers, by chance.
_FEWEST_STEPS, _FEWEST_PLACES, _FEWEST_GAPS = 8, 10, 20
#: A column of ascending numbers counts rows of which some are missing if at most this share is left out.
_MOST_GAPS = 5
#: Rows a group, on average, of a column that counts the rows of each.
_LEAST_GROUP = 4
_UNNAMED = re.compile(rf"{re.escape(BLANK)}.*|unnamed:? ?\d+.*", re.IGNORECASE)
_IDENTIFIER = re.compile(
    r"(.*[\W_])?(id|ids|uid|mrn|pid|accession|identifier)([\W_].*)?|.*(patient|case|subject|study|record|hospital)"
    r"[\W_]*(id|no|nr|num|number|nummer)|index|row([\W_]*(id|no|nr|number|names?))?|serial.*|lfd.*nr.*",
    re.IGNORECASE,
)
_PERSON = re.compile(
    r"(.*[\W_])?(mrn|pid|patient|subject|person)([\W_]*(id|no|nr|num|number|nummer))?|"
    r"((case[\W_]*)?submitter|pat(ient(en)?)?|pt|participant|proband(en)?|u?subj(ect)?|person|stud(y|ien)|case|fall|hospital|"
    r"record)[\W_]*(id|no|nr|num|number|nummer|identifier)[\W_]*|id[\W_].*|eid|pseudonym|ipp",
    re.IGNORECASE,
)
_DATE_NAME = re.compile(
    r"(.*[\W_])?(date|datum|dob|birthdate|birthday|timestamp|datetime)([\W_].*)?|dateof.*", re.IGNORECASE
)
_MAY_BE_DATE = re.compile("dat|dob|birth|timestamp", re.IGNORECASE)
_DATE = re.compile(
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([ T].*)?|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2})([ T].*)?|"
    r"\d{1,2}[- ](jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)\w*[- ]\d{2,4}",
    re.IGNORECASE,
)


def may_identify(name: str) -> bool:
    """Whether a heading may name a column of persons, though it is no usual spelling.

    >>> may_identify("USUBJID"), may_identify("Pat.-Nr."), may_identify("index"), may_identify("grade")
    (True, True, False, False)
    """
    return _PERSON.fullmatch(name) is not None


def is_unnamed(name: str) -> bool:
    """Whether a heading stands for none, here or as pandas writes it.

    >>> is_unnamed("(blank)"), is_unnamed("Unnamed: 0"), is_unnamed("unnamed")
    (True, True, False)
    """
    return _UNNAMED.fullmatch(name) is not None


def no_property(name: str, values: FloatArray | None, texts: Sequence[str], rows: Sequence[object]) -> str:
    """Why a column is not a property of a patient, in a few words; empty if it may be one.

    Parameters
    ----------
    name
        Its heading.
    values
        The cells as numbers, in the table's order, NaN if missing; None for words.
    texts
        The cells as written, for words.
    rows
        The subject of each row: of rows with the same one, the first counts.
    """
    if name[:1] in "(uU" and is_unnamed(name):
        return "has no heading"
    if _MAY_BE_DATE.search(name) and _DATE_NAME.fullmatch(name):
        return "holds dates"
    if values is None:
        held = [text for text in texts if text]
        return "holds dates" if held and 10 * sum(map(bool, map(_DATE.fullmatch, held))) >= 9 * len(held) else ""
    if len(values) > 1 and not (float(values[0]).is_integer() and float(values[-1]).is_integer()):
        return ""  # most features return here
    return _of_whole_numbers(name, values[_first_of_each(rows)])


def _of_whole_numbers(name: str, values: FloatArray) -> str:
    if len(values) < 2 or not np.isfinite(values).all() or (values % 1).any():
        return ""
    if (np.abs(values) > 19_000_000).all() and _are_dates(values):
        return "holds dates or times"
    steps, span = np.diff(values), np.ptp(values)
    if len(np.unique(values)) < len(values):
        starts = values == 1  # of a group, whose rows are counted
        counted = len(values) >= _FEWEST_STEPS and starts[0] and (starts[1:] | (steps == 1)).all()
        return "counts the rows of each group" if counted and _LEAST_GROUP * starts.sum() <= len(values) else ""
    if _IDENTIFIER.fullmatch(name) or may_identify(name):
        return "names the rows"
    n = len(values)
    if n >= _FEWEST_STEPS and (steps == steps[0]).all():
        return "counts the rows"
    if n >= _FEWEST_PLACES and span == n - 1:
        return "numbers the rows"
    growing = (steps > 0).all() or (steps < 0).all()
    return "counts the rows" if n >= _FEWEST_GAPS and growing and span < _MOST_GAPS * n else ""


def _are_dates(values: FloatArray) -> bool:
    """Whether all are dates such as 20201231, or seconds or milliseconds since 1970 from 1985 on."""
    day, month, year = values % 100, values // 100 % 100, values // 10_000
    written = (day >= 1) & (day <= 31) & (month >= 1) & (month <= 12) & (year >= 1900) & (year <= 2100)
    seconds = (values > 4.8e8) & (values < 4.2e9)
    return bool(written.all() or seconds.all() or ((values > 4.8e11) & (values < 4.2e12)).all())


def _first_of_each(rows: Sequence[object]) -> list[int]:
    return list({row: at for at, row in reversed(list(enumerate(rows)))}.values())[::-1]
