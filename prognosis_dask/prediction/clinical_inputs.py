"""The clinical inputs of a saved model: which values of one new patient it takes, and whether a value is possible."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from prognosis_dask.cohort.clinical import key
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.columns import level_key, number
from prognosis_dask.modelling.saved import QUANTILES, Frozen
from prognosis_dask.tables.values import means_missing

#: Families of columns that come from a table of patients.
_FAMILIES = ("clinical", "stage")
#: No value of a patient is larger.
_GREATEST = 1e9


@dataclass(frozen=True)
class ClinicalInput:
    """One clinical column of a model.

    Attributes
    ----------
    column
        Its name.
    unit
        The unit of its numbers; empty where none is known.
    levels
        The categories that the model knows; () for numbers.
    above_zero
        Whether the model takes the number's logarithm.
    training
        Least, median and greatest number of the training cases; () for words, and where all were missing.
    used
        Whether the prediction depends on it: selection may have left it out.
    """

    column: str
    unit: str = ""
    levels: tuple[str, ...] = ()
    above_zero: bool = False
    training: tuple[float, ...] = ()
    used: bool = True

    def read(self, text: str) -> str:
        """The value as the model's tables spell it; empty, or a word for "unknown", gives "".

        Raises
        ------
        StatisticsError
            When it is none of the levels, or not a possible number; says what is expected.
        """
        text = text.strip()
        found = next((level for level in self.levels if level_key(level) == level_key(text)), None)
        if found is None and means_missing(text):
            return ""
        if self.levels:
            if found is None:
                levels = ", ".join(self.levels)
                raise StatisticsError(f"{self.column} is {text!r}, expected one of {levels}, or nothing")
            return found
        text = text.replace(",", ".") if "." not in text else text
        value = number(text)
        if not math.isfinite(value) or abs(value) > _GREATEST or (self.above_zero and value <= 0):
            wanted = "a number above zero" if self.above_zero else "a number"
            raise StatisticsError(f"{self.column} is {text!r}, expected {wanted}{self._such_as()}, or nothing")
        return text

    def _such_as(self) -> str:
        return f" such as {self.training[1]:.4g}" if self.training else ""


def clinical_inputs(frozen: Frozen) -> tuple[ClinicalInput, ...]:
    """The model's columns that come from a table of patients."""
    inputs = []
    for encoding in frozen.encodings:
        if encoding.family not in _FAMILIES or encoding.indicator:
            continue
        training: tuple[float, ...] = ()
        if not encoding.levels:
            at = frozen.fitted.features.index(encoding.features[0])
            ends = frozen.quantiles[[0, QUANTILES.index(0.5), -1], at]
            ends = np.exp(ends) if encoding.log else ends
            training = tuple(ends.tolist()) if np.isfinite(ends).all() else ()
        used = not set(encoding.features).isdisjoint(frozen.fitted.chosen)
        inputs.append(ClinicalInput(encoding.column, encoding.unit, encoding.levels, encoding.log, training, used))
    return tuple(inputs)


def read_clinical(frozen: Frozen, given: Mapping[str, str]) -> dict[str, str]:
    """Check the values given by column, and return them under the columns' own names; empty ones are left out.

    Raises
    ------
    StatisticsError
        When the model takes no such column, or cannot take the value.
    """
    inputs = {key(one.column): one for one in clinical_inputs(frozen)}
    read = {}
    for name, text in given.items():
        if key(name) not in inputs:
            known = ", ".join(one.column for one in inputs.values()) or "none"
            raise StatisticsError(f"the model takes no column {name!r}; those that may be given: {known}")
        column = inputs[key(name)]
        if value := column.read(text):
            read[column.column] = value
    return read
