"""Many weightings of the cases, some at a time, so that what is worked on stays in the processor's cache."""

from __future__ import annotations

from collections.abc import Iterator

#: Numbers that an array of some draws holds.
_NUMBERS = 100_000


def in_parts(draws: int, cases: int) -> Iterator[slice]:
    """The draws in slices.

    >>> [(part.start, part.stop) for part in in_parts(5, 50_000)]
    [(0, 2), (2, 4), (4, 5)]
    """
    size = max(1, _NUMBERS // max(1, cases))
    for start in range(0, draws, size):
        yield slice(start, min(start + size, draws))
