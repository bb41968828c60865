"""Several requests at once, in the order in which they were asked for; as many in flight as a process may have."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

_Question = TypeVar("_Question")
_Answer = TypeVar("_Answer")

#: Requests in flight in one process. A store gives some 50-100 MB/s to one connection, and waits 10-100 ms before it.
MOST = 16
_POOLS: dict[int, ThreadPoolExecutor] = {}


def several(ask: Callable[[_Question], _Answer], questions: Iterable[_Question]) -> Iterator[_Answer]:
    """The answers in the order of the questions; while one is used, the next :data:`MOST` are on their way.

    No more answers than that are held. The first error is raised where its answer would have stood, and what has not
    been asked yet is not asked any more.
    """
    pool = _pool()
    todo = iter(questions)
    flying: deque[Future[_Answer]] = deque(pool.submit(ask, question) for question in islice(todo, MOST))
    try:
        while flying:
            answer = flying.popleft().result()
            flying.extend(pool.submit(ask, question) for question in islice(todo, 1))
            yield answer
    finally:
        for future in flying:
            future.cancel()


def _pool() -> ThreadPoolExecutor:
    """The threads of this process; a forked one has its own."""
    if os.getpid() not in _POOLS:
        _POOLS[os.getpid()] = ThreadPoolExecutor(MOST, thread_name_prefix="objects")
    return _POOLS[os.getpid()]
