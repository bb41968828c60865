"""What a page is made of: sections of headings, texts, tables and figures; checklists."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, TypeAlias

import pandas as pd

from prognosis_dask.publish import publish_folder, staging
from prognosis_dask.report.canvas import FULL_WIDTH, csv_address, svg_address


@dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes
    ----------
    name
        Of its files, without an ending.
    svg
        The drawing.
    data
        What was drawn, one row per mark.
    alt
        The description for readers who cannot see it.
    caption
        What stands under it.
    """

    name: str
    svg: str
    data: pd.DataFrame
    alt: str
    caption: str
    kind: ClassVar[str] = "figure"

    @property
    def width_rem(self) -> float:
        """How wide the page shows it at most: letters are as large as in a figure of the text's width."""
        points = re.search(r'<svg[^>]*\bwidth="([\d.]+)pt"', self.svg)
        return 46.5 * float(points[1]) / (72 * FULL_WIDTH) if points else 46.5

    @cached_property
    def source(self) -> str:
        """The drawing as an address that needs no other file."""
        return svg_address(self.svg)

    @property
    def csv(self) -> str:
        """The data as a file's text."""
        return self.data.to_csv(index=False, lineterminator="\n")

    @property
    def csv_source(self) -> str:
        """The data as an address that needs no other file."""
        return csv_address(self.csv)


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


#: Longer tables are folded.
LONG = 15


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
    file
        The CSV file that holds the same, if there is one: with it a table of more than :data:`LONG` rows is folded.
    fold
        Whether it is folded without a file.
    """

    caption: str
    head: Sequence[str]
    columns: str
    groups: Sequence[Rows]
    file: str = ""
    fold: bool = False
    kind: ClassVar[str] = "table"

    @property
    def folded(self) -> str:
        """What stands on the folded table; empty where it is short, or is in no file."""
        rows = sum(len(group.rows) for group in self.groups)
        if self.fold:
            return f"{rows} rows"
        return f"{rows} rows; the same in {self.file}" if self.file and rows > LONG else ""


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


def titled(heading: str, block: Block) -> list[Block]:
    """A block under its heading."""
    return [Heading(heading), block]


def optional(block: Picture | Table | None) -> list[Block]:
    """A block, or nothing in its place."""
    return [] if block is None else [block]


def or_absent(block: Picture | Table | None, file: str) -> Block:
    """A block, or in its place that the file it is drawn from was not written."""
    return absent(not_written(file)) if block is None else block


def not_written(file: str) -> str:
    """Why what a file of the models folder holds is not shown."""
    return f"Not shown: models/{file} was not written for this model."


def write_figures(pictures: Iterable[Picture], folder: Path) -> None:
    """Write NAME.svg and NAME.csv of every figure; the folder is replaced as a whole."""
    with staging(folder) as work:
        staged = work / folder.name
        staged.mkdir()
        for picture in pictures:
            (staged / f"{picture.name}.svg").write_text(picture.svg, encoding="utf-8")
            (staged / f"{picture.name}.csv").write_text(picture.csv, encoding="utf-8")
        publish_folder(staged, folder)


# Checklists: items in the order of their paper, and what a run answers of each.

#: By the paper's sections: each item's number, and its requirement in short.
Items: TypeAlias = Mapping[str, Sequence[tuple[str, str]]]

_OPEN = "To be completed by the authors."


@dataclass(frozen=True)
class Answer:
    """What the run knows of an item; ``whole`` where the authors need add nothing but their judgement."""

    text: str
    whole: bool = False


def filled_in(title: str, citation: str, items: Items, known: Mapping[str, Answer]) -> list[Block]:
    """The checklist: what the run can answer is filled in, what only the authors can answer says so."""
    whole, total = sum(answer.whole for answer in known.values()), sum(map(len, items.values()))
    intro = (
        f"Of the {total} items of the checklist the run answers {whole} and {len(known) - whole} in part; the other "
        f"{total - len(known)} are the authors’. Check every answer against your study before you submit it."
    )
    cells = {number: _text(answer) for number, answer in known.items()}
    return [Heading(title), Text(intro), item_table(f"{title} checklist ({citation}), items in short.", items, cells)]


def item_table(caption: str, items: Items, said: Mapping[str, str], more: Mapping[str, str] | None = None) -> Table:
    """The items with what is said of them, folded; ``more``: a weight of each."""
    groups = [
        Rows(
            heading,
            [
                (number, asked, *([] if more is None else [more[number]]), said.get(number, _OPEN))
                for number, asked in of_section
            ],
        )
        for heading, of_section in items.items()
    ]
    weight, column = ([], "") if more is None else (["Weight"], "n")
    return Table(caption, ("Item", "Requirement", *weight, "Answer of this run"), f"sw{column}w", groups, fold=True)


def _text(answer: Answer) -> str:
    return answer.text if answer.whole else f"In part: {answer.text}"
