"""One variable of the feature dataset: its name, dimensions, type, unit and meaning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "float64", "float32"]


@dataclass(frozen=True)
class VariableSpec:
    """One variable.

    Attributes
    ----------
    name
        Its name; the one that ends in ``*`` stands for all that begin so.
    dims
        Its dimensions, in order.
    kinds
        What it may hold: ``text`` (an array of str), ``float64``, ``float32``.
    units
        In UCUM's notation, ``1`` for a pure number; empty for text.
    meaning
        One line; the variable's ``long_name``.
    coordinate
        Whether it is a coordinate.
    optional
        Whether a dataset may lack it.
    """

    name: str
    dims: tuple[str, ...]
    kinds: tuple[Kind, ...]
    units: str
    meaning: str
    coordinate: bool = False
    optional: bool = False

    @property
    def attributes(self) -> dict[str, str]:
        """What the variable carries in the dataset."""
        return {"long_name": self.meaning, "units": self.units}


def label(name: str, dim: str, meaning: str, *, optional: bool = False) -> VariableSpec:
    """A coordinate of text along one dimension."""
    return VariableSpec(name, (dim,), ("text",), "", meaning, coordinate=True, optional=optional)


def number(name: str, units: str, meaning: str) -> VariableSpec:
    """A number of each case."""
    return VariableSpec(name, ("case",), ("float64",), units, meaning)


def table(name: str, dim: str, units: str, meaning: str, *, kind: Kind = "float64") -> VariableSpec:
    """Numbers of each case along a second dimension."""
    return VariableSpec(name, ("case", dim), (kind,), units, meaning, optional=True)
