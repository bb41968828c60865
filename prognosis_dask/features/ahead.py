"""What the next cases need, read in a thread of the process while one is computed.

What was read ahead is for the next task or for nobody: a case that went elsewhere, and comes again, is read anew.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

from prognosis_dask.errors import Problem, collected_warnings, warn

_reader: list[ThreadPoolExecutor] = []
_begun: dict[Wanted, Future[_Read]] = {}


class Wanted(NamedTuple):
    """What is read for one case by one stage of one run, for one start of its driver."""

    started: str
    folder: str
    stage: str
    case_id: str
    digest: str


class _Read(NamedTuple):
    """What came of it, with what was said on the way."""

    value: Any
    error: Exception | None
    said: list[Problem]


def begin(wanted: Wanted, read: Callable[[], object]) -> None:
    """Have something read meanwhile."""
    if not _reader:
        _reader.append(ThreadPoolExecutor(1, thread_name_prefix="ahead"))
    if wanted not in _begun:
        _begun[wanted] = _reader[0].submit(_whole, read)


def keep(wanted: Collection[Wanted]) -> None:
    """Forget what is none of these."""
    for one in set(_begun).difference(wanted):
        _begun.pop(one).cancel()


def is_begun(stage: str, case_id: str) -> bool:
    """Whether it has been read ahead for a case of this task, or is being read."""
    return any((wanted.stage, wanted.case_id) == (stage, case_id) for wanted in _begun)


def take(stage: str, case_id: str) -> Any:
    """What was read, once it is there; warnings and errors as if it had been read just now."""
    (wanted,) = (wanted for wanted in _begun if (wanted.stage, wanted.case_id) == (stage, case_id))
    value, error, said = _begun.pop(wanted).result()
    for warning in said:
        warn(warning.code, warning.reason, where=warning.where)
    if error is not None:
        raise error
    return value


def _whole(read: Callable[[], object]) -> _Read:
    with collected_warnings() as said:
        try:
            return _Read(read(), None, said)
        except Exception as error:  # it is the case's, whose turn has not come
            return _Read(None, error, said)
