"""Counts in sentences: one case, two cases."""

from __future__ import annotations


def count(number: int, noun: str) -> str:
    """A number with its noun.

    >>> count(1, "case"), count(0, "case"), count(1200, "case")
    ('1 case', '0 cases', '1,200 cases')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
