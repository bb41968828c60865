"""Recognise missing values in a column, and words that look like missing values but are not.

``None`` in a column of numbers is missing; among Former and Current it is a smoker's answer. So the column decides:

* what a specification names as a level or a class is a value, whatever it is;
* ``NA``, ``unknown``, ``?`` and their like are not known, everywhere;
* ``None`` is a value among words, and ``-`` beside a ``+``; among numbers both are not known;
* so is ``not done``, a value among words as of a radiotherapy, but not under the heading of a glioma's marker.

Nothing is emptied in silence: :func:`known_cells` counts it by word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from prognosis_dask.tables.glioma import glioma_levels

#: Missing in every column.
NOT_KNOWN = frozenset(
    [
        *("na", "n/a", "n.a.", "nan", "<na>", "null", "#n/a", "#na", ".", "?", "--", "'--", "unknown", "[unknown]"),
        *("not known", "not available", "[not available]", "not reported", "not evaluated", "[not evaluated]"),
        "missing",
    ]
)
_NOT_DONE = frozenset(["not tested", "not done", "not performed", "untested"])
#: Missing among numbers; among words a value if :func:`known_cells` says so.
_EITHER = frozenset(["none", "-"]) | _NOT_DONE


@dataclass(frozen=True)
class KnownCells:
    """A column's cells, empty if missing.

    Attributes
    ----------
    texts
        The cells.
    emptied
        How often each word was taken as missing.
    kept
        How often each word is a value here although it means missing elsewhere.
    """

    texts: list[str]
    emptied: Mapping[str, int] = field(default_factory=dict)
    kept: Mapping[str, int] = field(default_factory=dict)


def means_missing(text: str) -> bool:
    """Whether a single value, outside a column, means missing.

    >>> means_missing("n/a"), means_missing(" - "), means_missing("no")
    (True, True, False)
    """
    plain = text.strip().casefold()
    return not plain or plain in NOT_KNOWN or plain in _EITHER


def known_cells(
    texts: Sequence[str], named: Collection[str] = (), also: Collection[str] = (), heading: str = ""
) -> KnownCells:
    """The cells of a column, empty if missing.

    Parameters
    ----------
    texts
        Cells without blanks around them.
    named
        Words that are values: a specification's levels or classes. Case does not count.
    also
        Further words that mean missing in this column; they take precedence over ``named``. Numbers are compared as
        such: 999 is 999.0.
    heading
        The column's: what was not done is missing under that of a glioma's marker.
    """
    more, values = set(map(_alike, also)), {word.casefold() for word in named}
    words = {text: text.casefold() for text in set(texts)}
    asked = {text for text in words if _alike(text) in more} if more else set()
    doubtful = asked | {text for text, word in words.items() if word in NOT_KNOWN or word in _EITHER}
    if not doubtful:
        return KnownCells(list(texts))
    others = [words[text] for text in texts if text and text not in doubtful]
    among_words = 2 * sum(map(_is_number, others)) <= len(others) and bool(others)
    signs = any("+" in word for word in others)
    values |= ({"none"} if among_words else set()) | ({"-"} if among_words and signs else set())
    values |= _NOT_DONE if among_words and not glioma_levels(heading) else set()
    gone = {text for text in doubtful if text in asked or words[text] not in values}
    counts = Counter(text for text in texts if text in doubtful)
    return KnownCells(
        ["" if text in gone else text for text in texts],
        {text: counts[text] for text in sorted(gone)},
        {text: counts[text] for text in sorted(doubtful - gone)},
    )


def _alike(word: str) -> str:
    return f"{float(word):.15g}" if _is_number(word) else word.casefold()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
