"""What the checklists share: items in the order of their paper, and what a run answers of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from prognosis_dask.report.content import Block, Heading, Rows, Table, Text

#: By the paper's sections: each item's number, and in short what is asked for.
Items: TypeAlias = Mapping[str, Sequence[tuple[str, str]]]

_OPEN = "For the authors: the run does not know it."


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
    return Table(
        caption, ("Item", "What is asked for", *weight, "What this run says"), f"sw{column}w", groups, fold=True
    )


def _text(answer: Answer) -> str:
    return answer.text if answer.whole else f"In part: {answer.text}"
