"""Spellings of a glioma's grade, IDH and 1p/19q, read as one value where a text can mean nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping

from prognosis_dask.tables.headings import key

#: WHO's grades by number: G2, WHO II, CNS WHO grade 2. Neither "II-III", nor HGG (3 or 4), nor a type such as GBM.
_GRADE = {
    rf"((cns|who|grad(e|us)?|gr\.?|g)[ _:.-]*)*({roman}|{number})(\.0+|°)?": number
    for number, roman in (("1", "i"), ("2", "ii"), ("3", "iii"), ("4", "iv"))
}
#: Neither where a text says both, is in doubt, or denies it: "R132H negative" says nothing of the other mutations.
_IDH = {
    r"(?!.*(p\.|[rk]\d{3}|unlikely|unknown|\?|\bno[nt]?[ -]+wild)).*wild[ -]?type.*|"
    r"(idh[12/]*[ _-]?)?wt|negative": "wildtype",
    r"(?!.*(wild|wt\b|negativ|absen|without|lack|exclu|unlikely|unknown|\?|\b(no|non|not)\b|\bun)).*"
    r"(mut|p\.|[rk]\d{3}).*|positive": "mutated",
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
    return _GRADE if re.search(r"grad(e|ing)$|^(who|cns)+(grade?)?$", plain) else {}


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
