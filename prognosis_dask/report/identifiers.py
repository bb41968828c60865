"""What the report says of patients and of this machine: hashes and names, unless identifiers are asked for."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import PurePath
from typing import Any

from prognosis_dask.cohort.case import short_hash
from prognosis_dask.cohort.clinical import SAME_PATIENT

_shown: ContextVar[bool] = ContextVar("identifiers", default=False)

#: An absolute path, of Windows too, or in a URL's notation.
_PATH = re.compile(r"(?<![^\s'\"(=,:])(?:file:(?://)?)?(?!//)(?:~?/|[A-Za-z]:\\)[^\s,;:'\"()<>]*[\w\]]")
#: Of a series or an instance of DICOM.
_UID = re.compile(r"\b[0-2](?:\.\d+){5,}\b")
_WORD = re.compile(r"[^\s,;:'\"()<>]+")
#: Shorter numbers are taken for numbers.
_LEAST_DIGITS = 5


@contextmanager
def identifiers_shown(shown: bool) -> Iterator[None]:
    """Whether the page that is written within shows identifiers and paths as they are."""
    token = _shown.set(shown)
    try:
        yield
    finally:
        _shown.reset(token)


def named(identifier: str) -> str:
    """What the page calls a patient or case: twelve hex digits, as in task keys and the log; or the identifier."""
    return identifier if _shown.get() or not identifier else short_hash(identifier)


def without_names(reason: str, own: Collection[str], others: Collection[str] = ()) -> str:
    """A reason without paths and UIDs, without ``own`` identifiers, and without ``others`` where they stand as words.

    >>> without_names("Meier has two series: /data/Meier/1, Meier_ct.nrrd (/data/Meier)", ["Meier"])
    '05c2d2b4cad1 has two series: a path, 05c2d2b4cad1_ct.nrrd'
    >>> without_names("no image that it references (series: 1.2.826.0.1.3680043.8.498.48920)", [])
    'no image that it references (series: a UID)'
    >>> without_names("2 patients joined although they differ in spelling: 'gbm-7' is 'gbm-007_x'.", [])
    '2 patients joined although they differ in spelling: an ID in two spellings.'
    """
    if _shown.get():
        return reason
    reason = SAME_PATIENT.sub("an ID in two spellings", reason)
    reason = _UID.sub("a UID", _PATH.sub("a path", reason).replace(" (a path)", ""))
    for identifier in sorted(filter(_telling, own), key=len, reverse=True):
        reason = re.sub(rf"(?<![A-Za-z0-9]){re.escape(identifier)}(?![A-Za-z0-9])", short_hash(identifier), reason)
    return _WORD.sub(lambda word: named(word[0]) if word[0] in others and _telling(word[0]) else word[0], reason)


def _telling(identifier: str) -> bool:
    return bool(identifier) and not (identifier.isdigit() and len(identifier) < _LEAST_DIGITS)


def settings(value: Any) -> Any:
    """Settings with the last part alone of each absolute path, which may have spaces where it is all of a setting.

    >>> settings({"sources": ["/home/Jane Doe/scans"], "say": "see /home/meier/a.csv, if any"})
    {'sources': ['.../scans'], 'say': 'see .../a.csv, if any'}
    """
    if _shown.get():
        return value
    if isinstance(value, Mapping):
        return {key: settings(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [settings(inner) for inner in value]
    if isinstance(value, str):
        whole = _PATH.match(value)
        return _shortened(value) if whole else _PATH.sub(lambda path: _shortened(path[0]), value)
    return value


def _shortened(path: str) -> str:
    return f".../{PurePath(path.replace(chr(92), '/')).name}"
