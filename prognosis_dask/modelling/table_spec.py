"""What a CSV table holds: its columns in their order, and the check of names and cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isnan
from numbers import Integral, Real
from typing import Any, Literal, TypeAlias

from prognosis_dask.errors import StatisticsError

#: A row of a table: its cells by column; and the rows of each table, by its name.
Row: TypeAlias = dict[str, Any]
Tables: TypeAlias = dict[str, list[Row]]

#: ``cell`` is shown as it is written: a count, or a text of numbers. The last three are of JSON alone.
Kind = Literal["text", "cell", "integer", "number", "bool", "list", "object"]
#: Which endpoint's tables have a column; empty: those of both.
Of = Literal["", "survival", "classes"]


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes
    ----------
    name
        Its name; the one that ends in ``*`` stands for all that begin so, of which there may be none.
    kind
        What its cells hold; each may be empty.
    unit
        In UCUM's notation, ``1`` for a pure number; empty for text.
    meaning
        One line.
    of
        The endpoint whose tables have it.
    optional
        Whether a table may lack it.
    """

    name: str
    kind: Kind
    unit: str
    meaning: str
    of: Of = ""
    optional: bool = False

    @property
    def stem(self) -> str:
        """What the names begin with that a column with ``*`` stands for."""
        return self.name.removesuffix("*")

    @property
    def several(self) -> bool:
        """Whether it stands for several columns."""
        return self.name.endswith("*")

    def check(self, value: object, where: str) -> None:
        """Check that a value, unless it is missing, is of the column's kind.

        Raises
        ------
        StatisticsError
            Names ``where``, the column and the value.
        """
        if value is None or value == "" or (isinstance(value, float) and isnan(value)):
            return
        types, expected = _KINDS[self.kind]
        if not isinstance(value, types):
            raise StatisticsError(f"{where}: {self.name} is {value!r}, expected {expected}")


@dataclass(frozen=True)
class TableSpec:
    """One table, a file ``NAME.csv``: what a row is, and its columns in their order."""

    name: str
    meaning: str
    columns: tuple[Column, ...]

    def column(self, name: str) -> Column:
        """The column of that name.

        Raises
        ------
        StatisticsError
            When the table has none.
        """
        for column in self.columns:
            if column.name == name:
                return column
        for column in sorted(self.columns, key=lambda column: -len(column.stem)):
            if column.several and name.startswith(column.stem):
                return column
        expected = ", ".join(column.name for column in self.columns)
        raise StatisticsError(f"{self.name}.csv: unknown column {name!r}, expected {expected}")

    def ordered(self, names: Iterable[str]) -> list[str]:
        """The names in the order of the table's columns.

        Raises
        ------
        StatisticsError
            When a name is unknown, or a column is missing; names table and column.
        """
        names = list(names)
        placed = {name: self.column(name) for name in names}
        of = {column.of for column in placed.values()} - {""}
        if len(of) > 1:
            mixed = ", ".join(name for name, column in placed.items() if column.of)
            raise StatisticsError(f"{self.name}.csv: columns of survival and of classes together: {mixed}")
        for column in self.columns:
            wanted = not (column.optional or column.several) and (not of or column.of in ("", *of))
            if wanted and column not in placed.values():
                raise StatisticsError(f"{self.name}.csv: column {column.name!r} is missing, seen {', '.join(names)}")
        return sorted(names, key=lambda name: self.columns.index(placed[name]))

    def check_row(self, row: Mapping[str, object]) -> None:
        """Check that each cell is of its column's kind.

        Raises
        ------
        StatisticsError
            Names table, column and value.
        """
        for name, value in row.items():
            self.column(name).check(value, f"{self.name}.csv")


#: Of each kind the types of its values, and what a message calls it.
_KINDS: Mapping[Kind, tuple[tuple[type, ...], str]] = {
    "text": ((str,), "text"),
    "cell": ((str, Integral), "text or a count"),
    "integer": ((Integral,), "a whole number"),
    "number": ((Real,), "a number"),
    "bool": ((bool,), "true or false"),
    "list": ((list, tuple), "a list"),
    "object": ((Mapping,), "an object"),
}
