"""Which MR sequence a SeriesDescription or a file's name means."""

from __future__ import annotations

import re

#: What is no anatomical image of these four kinds.
_OTHER = re.compile(
    r"adc|e?dwi|dti|trace|perf\w*|pwi|dsc|dce|swi|swan|loc\w*|scout|survey|3plane|t2star|t2\*|asl|mra|tof"
)
_T1 = re.compile(r"t1\w*|mprage|mpr|spgr|bravo|tfe|fspgr|vibe")
_T2 = re.compile(r"t2\w*")
_FLAIR = re.compile(r"\w*flair\w*|t2f|dark_?fluid")
_CONTRAST = re.compile(r"\w*(gd|gad\w*|post|contrast|enh\w*)|ce|c|\+c|\+|kontrast|km|t1(c|ce|gd|post|\+c)\w*")


def sequence_of(text: str) -> str:
    """``T1``, ``T1c``, ``T2`` or ``FLAIR`` for a file's name or a SeriesDescription; empty where it names none.

    >>> [sequence_of(name) for name in ("LGG-203_T2.nii.gz", "AX T1 POST GD", "Ax T2 FLAIR", "SAG T1 MPRAGE", "ADC")]
    ['T2', 'T1c', 'FLAIR', 'T1', '']
    """
    words = re.findall(r"[a-z0-9+*]+", text.lower().replace("_", " "))
    if any(_OTHER.fullmatch(word) for word in words):
        return ""
    if any(_T1.fullmatch(word) for word in words):
        return "T1c" if any(_CONTRAST.fullmatch(word) for word in words) else "T1"
    if any(_FLAIR.fullmatch(word) for word in words):
        return "FLAIR"
    return "T2" if any(_T2.fullmatch(word) for word in words) else ""
