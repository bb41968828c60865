"""Find a table's headings: below a title, or in two rows of which the upper one names groups."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

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
