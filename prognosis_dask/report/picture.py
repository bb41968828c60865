"""A figure of the report: its drawing, its data, its caption and a text for who cannot see it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pandas as pd

from prognosis_dask.report.canvas import FULL_WIDTH, csv_address, svg_address
from prognosis_dask.storage.publish import publish_folder, staging


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
        What a reader who cannot see it is told.
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

    @property
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


def write_figures(pictures: Iterable[Picture], folder: Path) -> None:
    """Write NAME.svg and NAME.csv of every figure; the folder is replaced as a whole."""
    with staging(folder) as work:
        staged = work / folder.name
        staged.mkdir()
        for picture in pictures:
            (staged / f"{picture.name}.svg").write_text(picture.svg, encoding="utf-8")
            (staged / f"{picture.name}.csv").write_text(picture.csv, encoding="utf-8")
        publish_folder(staged, folder)
