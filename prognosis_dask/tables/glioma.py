"""Spellings of a glioma's grade, IDH and 1p/19q, read as one value where a text can mean nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from prognosis_dask.tables.headings import key

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
