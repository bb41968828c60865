"""The endpoint among the columns of tables: time and event, or a class, as somebody has spelt them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from prognosis_dask.cohort.clinical import key
from prognosis_dask.cohort.collections import COLLECTIONS, DAYS, EVENT_CODES
from prognosis_dask.errors import Code, StatisticsError
from prognosis_dask.statistics.columns import Column, level_key, number
from prognosis_dask.statistics.endpoint import BoolArray, Classes, Endpoint, FloatArray, IntArray, Survival
from prognosis_dask.statistics.spec import EndpointRule

_TIMES = tuple(dict.fromkeys([*(n for p in COLLECTIONS.values() for n in p.time_columns), "OS_days", "duration_col"]))
_EVENTS = tuple(dict.fromkeys([*(n for p in COLLECTIONS.values() for n in p.event_columns), "OS_event", "event_col"]))
_CODES = dict(EVENT_CODES) | dict(COLLECTIONS["sts"].event_codes)


@dataclass(frozen=True)
class Outcomes:
    """The endpoint of each row, where it has one.

    Attributes
    ----------
    values
        Survival: times in days and events (1, 0), NaN where unknown. Classes: numbers, NaN where unknown.
    names
        The classes' names; () for survival.
    faults
        Per row why it has no endpoint, or empty.
    columns
        The columns that it was read from.
    """

    values: tuple[FloatArray, ...]
    names: tuple[str, ...]
    faults: tuple[str, ...]
    columns: tuple[str, ...]

    def endpoint(self, rows: IntArray | BoolArray) -> Endpoint:
        """The endpoint of rows that have one.

        Raises
        ------
        StatisticsError
            When there is one class only.
        """
        if self.names:
            return Classes(self.values[0][rows].astype(np.int64), self.names)
        return Survival(self.values[0][rows], self.values[1][rows] == 1)


def endpoint_columns(names: Sequence[str], rule: EndpointRule) -> tuple[str, ...]:
    """The columns that hold the endpoint, as they are spelt among the names; () where they do not have it."""
    known = {key(name): name for name in reversed(names)}

    def find(spellings: Sequence[str]) -> str | None:
        return next((known[key(spelling)] for spelling in spellings if key(spelling) in known), None)

    wanted = [(rule.label,)] if rule.label else [(rule.time,), (rule.event,)] if rule.time else [_TIMES, _EVENTS]
    found = [find(spellings) for spellings in wanted]
    return tuple(name for name in found if name) if None not in found else ()


def read_outcomes(columns: Mapping[str, Column], names: tuple[str, ...], rule: EndpointRule) -> Outcomes:
    """Read the endpoint from the named columns.

    Raises
    ------
    StatisticsError
        When a cell cannot be what it should be; names the column, the row, what was seen and what was expected.
    """
    if len(names) == 1:
        return _classes(columns[names[0]], rule)
    time = columns[names[0]].numbers() * DAYS[rule.time_unit]
    event = _events(columns[names[1]])
    unknown = np.isnan(time) | np.isnan(event)
    faults = np.select([unknown, ~(time > 0)], [Code.NO_ENDPOINT.value, "time-not-positive"], default="")
    return Outcomes((time, event), (), tuple(faults.tolist()), names)


def _events(column: Column) -> FloatArray:
    texts = [level_key(text) for text in column.texts()]
    for row, text in enumerate(texts):
        if text and text not in _CODES:
            raise StatisticsError(
                f"{column.where}: column {column.name!r} holds {text!r} in data row {column.row(row)}, expected "
                "1 where the event was seen and 0 where the case was censored (or yes, no; dead, alive)"
            )
    return np.array([float(_CODES[text]) if text else np.nan for text in texts])


def _classes(column: Column, rule: EndpointRule) -> Outcomes:
    texts = column.texts()
    spelt: dict[str, str] = {}
    for text in texts:
        if text:
            spelt.setdefault(level_key(text), text)
    names = rule.classes or tuple(spelt[found] for found in sorted(spelt, key=_level_order))
    place = {level_key(name): i for i, name in enumerate(names)}
    if rule.classes and not set(place) & set(spelt):
        raise StatisticsError(
            f"{column.where}: column {column.name!r} holds {', '.join(list(spelt.values())[:5]) or 'nothing'}, and "
            f"none of the endpoint's classes: {', '.join(names)}"
        )
    if len(names) > 12:
        raise StatisticsError(
            f"{column.where}: column {column.name!r} holds {len(names)} different values, too many to be classes"
        )
    values = np.array([float(place.get(level_key(text), np.nan)) if text else np.nan for text in texts])
    faults = [
        "" if text and level_key(text) in place else Code.NO_ENDPOINT.value if not text else "other-class"
        for text in texts
    ]
    return Outcomes((values,), names, tuple(faults), (column.name,))


def _level_order(level: str) -> tuple[float, str]:
    value = number(level)
    return (value, level) if not np.isnan(value) else (np.inf, level)
