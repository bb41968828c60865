"""What a page is made of: sections of headings, texts, tables and figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from prognosis_dask.report.picture import Picture


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    text: str
    kind: ClassVar[str] = "heading"


@dataclass(frozen=True)
class Text:
    """A paragraph; ``role`` is ``plain``, ``note``, ``absent`` (what is missing, and why) or ``warning``."""

    text: str
    role: str = "plain"
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Details:
    """A long text that is folded away."""

    title: str
    text: str
    kind: ClassVar[str] = "details"


@dataclass(frozen=True)
class Rows:
    """Rows of a table under a common title, which may be empty."""

    title: str
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes
    ----------
    caption
        What stands over it.
    head
        The columns' names.
    columns
        A letter each: ``l`` text, ``w`` long text, ``n`` number, ``c`` code.
    groups
        The rows; the first cell of each is the row's heading.
    """

    caption: str
    head: Sequence[str]
    columns: str
    groups: Sequence[Rows]
    kind: ClassVar[str] = "table"


def absent(text: str) -> Text:
    """What is not there, and why."""
    return Text(text, "absent")


Block: TypeAlias = Heading | Text | Details | Table | Picture


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    anchor: str
    title: str
    blocks: Sequence[Block]
