"""What a cell's text means: that the value is missing, or a glioma's grade, IDH or 1p/19q in one of their spellings.

``None`` in a column of numbers is missing; among Former and Current it is a smoker's answer. So the column decides:

* what a specification names as a level or a class is a value, whatever it is;
* ``NA``, ``unknown``, ``?`` and their like are not known, everywhere;
* ``None`` and ``not applicable`` are values among words, and ``-`` beside a ``+``; among numbers they are not known;
* an error of a formula (``#REF!``) is not known among words; among numbers it stays, and is refused;
* so is ``not done``, a value among words as of a radiotherapy, but not under the heading of a glioma's marker.

Nothing is emptied in silence: :func:`known_cells` counts it by word. A spelling is read as a value only where the text
can mean nothing else.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from prognosis_dask.tables.headings import key

#: Missing in every column.
NOT_KNOWN = frozenset(
    [
        *("na", "n/a", "n.a.", "nan", "<na>", "null", "#n/a", "#na", ".", "?", "--", "'--", "unknown", "[unknown]"),
        *("not known", "not available", "[not available]", "not reported", "not evaluated", "[not evaluated]"),
        *("missing", "blank(s)", "unk", "not stated", "not recorded", "[discrepancy]"),
        *("do not know", "don't know", "prefer not to answer"),
        *("unbekannt", "nicht bekannt", "keine angabe", "k.a.", "k. a."),
        *("inconnu", "inconnue", "non connu", "non renseigné", "manquant"),
    ]
)
_NOT_DONE = frozenset(["not tested", "not done", "not performed", "untested"])
#: Missing among numbers; among words a value if :func:`known_cells` says so.
_NONE = frozenset(["none", "not applicable", "[not applicable]"])
_EITHER = _NONE | {"-"} | _NOT_DONE
#: A formula's errors: missing among words; among numbers somebody has to look at them.
_ERRORS = frozenset(["#value!", "#ref!", "#div/0!", "#name?", "#num!", "#null!", "#spill!", "#calc!"])
_DOUBTFUL = NOT_KNOWN | _EITHER | _ERRORS


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
    doubtful = asked | {text for text, word in words.items() if word in _DOUBTFUL}
    if not doubtful:
        return KnownCells(list(texts))
    others = [words[text] for text in texts if text and text not in doubtful]
    among_words = 2 * sum(map(_is_number, others)) <= len(others) and bool(others)
    signs = any("+" in word for word in others)
    values |= (_NONE if among_words else _ERRORS) | ({"-"} if among_words and signs else set())
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


#: WHO's grades by number: G2, WHO II, CNS WHO grade 2. Neither "II-III", nor HGG (3 or 4), nor a type such as GBM.
_GRADE = {
    rf"((cns|who|grad(e|us)?|gr\.?|g)[ _:.-]*)*({roman}|{number})(\.0+|°)?": number
    for number, roman in (("1", "i"), ("2", "ii"), ("3", "iii"), ("4", "iv"))
}
_GENE = r"(idh[ -]?([12](/(idh)?2)?)?[ :_-]*)?"
#: The codons at which IDH1 and IDH2 mutate, with the amino acids that have been found there.
_VARIANT = r"(p\.)?(r|arg)(100|132|140|172)([cghklmpqsvw]|cys|gly|his|lys|leu|met|gln|ser|trp)?"
_MUTATED = r"mut(\.|at(ed|ion)|ant|iert)?"
#: Whole texts, since what stands beside them may deny them (keine Mutation) or leave them open (mutation pending).
#: "R132H negative" says nothing of the other mutations.
_IDH = {
    rf"{_GENE}(wild[ -]?type|wt)( ?\(?nos\)?)?|negative": "wildtype",
    rf"{_GENE}({_VARIANT}([ -]*{_MUTATED})?|{_MUTATED}([ :,-]*\(?{_GENE}{_VARIANT}\)?)?)"
    rf"( ?\(?nos\)?|[ :-]*(positive|present|detected)|\+)?|{_GENE}positive": "mutated",
}
_PAIR = r"(1p[ /,_-]*19q[ :_-]*)?"
#: n/n and d/d: both arms normal, both deleted. One arm deleted (d/n), and a relative loss, are values of their own.
_CODELETION = {
    rf"{_PAIR}(co[ -]?del|co[ -]?delet(ed|ion)|d/d)": "codeleted",
    rf"{_PAIR}(non?[ -]*co[ -]?del|no[nt]?[ -]*co[ -]?delet(ed|ion)|intact|n/n)": "not codeleted",
}


def glioma_levels(heading: str) -> Mapping[str, str]:
    """Patterns (whole, without case) and the value that they are read as, for a heading of one of the three; else {}.

    >>> [read_level(glioma_levels("WHO CNS Grade"), text) for text in ("G2", "WHO II", "III", "HGG", "II/III")]
    ['2', '2', '3', 'HGG', 'II/III']
    >>> [read_level(glioma_levels("1p/19q"), text) for text in ("co-deleted", "non-codel", "d/n")]
    ['codeleted', 'not codeleted', 'd/n']
    """
    plain = key(heading)
    if "idh" in plain:
        return {} if re.search("codel|1p|subtype|group|type$", plain) else _IDH  # else a class of both markers
    if "1p19q" in plain or "codel" in plain:
        return _CODELETION
    return _GRADE if re.search(r"(grad(e|ing)|^(who|oms|cns)+(grade?)?)(who|oms|cns|\d{4})*$", plain) else {}


def class_patterns(heading: str, classes: Sequence[str]) -> Mapping[str, str]:
    """The patterns of :func:`glioma_levels`; none where they read two of these classes, R132H and R132C, as one.

    Two spellings of one class stay one:

    >>> [bool(class_patterns("IDH", names)) for names in (("R132H", "R132C"), ("mut", "IDH1 mut"), ("mut", "mutant"))]
    [False, False, True]
    """
    patterns = glioma_levels(heading)
    mutations: dict[str, list[str]] = {}
    for name in classes:
        mutations.setdefault(read_level(patterns, name), []).append(_mutation(name))
    apart = any(len(set(found)) == len(found) > 1 for found in mutations.values())
    return {} if apart else patterns


def _mutation(text: str) -> str:
    """Which variant a text names, else which gene; empty: neither."""
    found = re.search(_VARIANT, text, re.IGNORECASE) or re.search(r"idh[ -]?[12](/(idh)?2)?", text, re.IGNORECASE)
    return found[0].casefold().removeprefix("p.") if found else ""


def read_level(patterns: Mapping[str, str], text: str) -> str:
    """The value that the first matching pattern stands for; else the text."""
    plain = " ".join(text.split())
    return next((value for pattern, value in patterns.items() if re.fullmatch(pattern, plain, re.IGNORECASE)), text)


def merged_note(column: str, seen: Mapping[str, set[str]]) -> str:
    """What the spellings of a column's values were read as; empty where each value has one, its own.

    ``seen``: by value its spellings.
    """
    if all(texts == {value} for value, texts in seen.items()):
        return ""
    told = "; ".join(f"{value}: {', '.join(map(repr, sorted(texts)))}" for value, texts in sorted(seen.items()))
    return f"Spellings of {column} were read as {len(seen)} values ({told})."
