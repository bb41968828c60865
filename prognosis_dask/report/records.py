"""The rows of a table, one object each."""

from __future__ import annotations

from typing import Any

import pandas as pd


def records(table: pd.DataFrame) -> list[Any]:
    """Each row, with the columns as its attributes."""
    return list(table.itertuples(index=False))
