"""The endpoint among the columns of tables: time and event, or a class, as somebody has spelt them."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from prognosis_dask.arrays import BoolArray, FloatArray, IntArray
from prognosis_dask.cohort.collections import COLLECTIONS
from prognosis_dask.cohort.endpoints import DAYS, EVENT_CODES, LONGEST_DAYS, event_codes, plain_code, unit_of
from prognosis_dask.errors import Code, StatisticsError, count
from prognosis_dask.modelling.data.columns import SourceColumn, far_code_notes, level_key, number, slip_notes
from prognosis_dask.modelling.data.doubts import mixed_unit_notes
from prognosis_dask.modelling.data.endpoint import Classes, Endpoint, Survival
from prognosis_dask.modelling.data.found_endpoint import time_unit_known
from prognosis_dask.modelling.metrics.competing import COMPETING, subdistribution
from prognosis_dask.modelling.spec import EndpointRule
from prognosis_dask.tables.values import class_patterns, merged_note, read_level

_EXPECTED = "1 where the event was seen and 0 where the case was censored (or yes, no; dead, alive)"
#: Events that were seen while fewer were at risk, before others entered, are noted.
_FEW_AT_RISK = 10
#: Follow-up in days, up to this, is suspected to be in months or years where it is in fractions.
_SHORT_DAYS = 250
#: More than this share that ends on the last day was not followed beyond it by plan.
_PLANNED = 0.1
#: Times in fractions, so many and so much shorter than the others, may be in another unit than these.
_FEW_PARTS, _OTHER_UNIT = 3, 8
#: From this share of the rows on, in tables of so many rows or more, what is empty means censored, not forgotten.
_LOST, _FEWEST_ROWS = 0.1, 20
#: Codes of the event that a refusal writes out at most.
_MOST_CODES = 8
#: Words that are none of the classes, told at most.
_MOST_TOLD = 20
_CODES = dict(EVENT_CODES) | dict(COLLECTIONS["sts"].event_codes)


@dataclass(frozen=True)
class Outcomes:
    """The endpoint of each row, where it has one.

    Attributes
    ----------
    values
        Survival: times in days and causes (1: event, 0: censored, 2: competing), NaN where unknown, and times of entry
        where there are any. Classes: numbers, NaN where unknown.
    names
        The classes' names; () for survival.
    faults
        Per row why it has no endpoint, or empty.
    columns
        The columns that it was read from.
    notes
        What was decided: the unit, what was taken as not known.
    """

    values: tuple[FloatArray, ...]
    names: tuple[str, ...]
    faults: tuple[str, ...]
    columns: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def endpoint(self, rows: IntArray | BoolArray) -> Endpoint:
        """The endpoint of rows that have one.

        Raises
        ------
        StatisticsError
            When there is one class only, or events compete and cases enter late.
        """
        if self.names:
            return Classes(self.values[0][rows].astype(np.int64), self.names)
        time, cause = self.values[0][rows], self.values[1][rows]
        entry = self.values[2][rows] if len(self.values) > 2 and (self.values[2][rows] > 0).any() else None
        if not (cause == COMPETING).any():
            return Survival(time, cause == 1, entry_days=entry)
        if entry is not None:
            raise StatisticsError(
                f"{self.columns[2]} is a time of delayed entry and {self.columns[1]} has competing events: the two "
                "are not modelled together; take one cause as the event and code the others 0 (endpoint.event_codes)"
            )
        return subdistribution(time, cause.astype(np.int64))


def read_outcomes(
    columns: Mapping[str, SourceColumn],
    names: tuple[str, ...],
    rule: EndpointRule,
    whole: Mapping[str, SourceColumn] | None = None,
) -> Outcomes:
    """Read the endpoint from the named columns.

    ``whole``: the same columns with the rows that were not joined too. What codes mean is seen in all of them: where
    1 is censored and 2 seen, the rows that were joined may hold 1 only.

    Raises
    ------
    StatisticsError
        When a cell cannot be what it should be; names the column, the row, what was seen and what was expected.
    """
    if len(names) == 1:
        return _classes(columns[names[0]], rule)
    unit, notes = _unit(names[0], rule)
    time = columns[names[0]].numbers() * DAYS[unit]
    _refuse_beyond_a_life(time, columns[names[0]], unit)
    notes += _fractions_of_days(columns[names[0]], unit) or mixed_unit_notes(columns[names[0]])
    notes += far_code_notes(columns[names[0]]) + slip_notes(columns[names[0]])
    event = _events(columns[names[1]], rule, (whole or columns)[names[1]])
    _refuse_lost_censoring(columns[names[0]], columns[names[1]], time, event, rule)
    notes += _all_ones(names[1], event, rule) + _competing(names[1], event)
    unknown, late = np.isnan(time) | np.isnan(event), np.zeros(len(time), dtype=bool)
    values = [time, event]
    if len(names) > 2:
        own = unit_of(names[2]) or unit
        entry = columns[names[2]].numbers() * DAYS[own]
        unknown |= np.isnan(entry)
        late = ~((entry >= 0) & (entry < time))
        known = ~unknown & ~late
        notes += far_code_notes(columns[names[2]]) + _entering(names[2], own, entry[known], time[known], event[known])
        values.append(entry)
    reasons = [Code.NO_ENDPOINT.value, "time-not-positive", "entry-not-before-time"]
    faults = np.select([unknown, ~(time > 0), late], reasons, default="")
    return Outcomes(tuple(values), (), tuple(faults.tolist()), names, tuple(notes))


def _entering(name: str, unit: str, entry: FloatArray, time: FloatArray, event: FloatArray) -> list[str]:
    """What is made of late entry."""
    late = entry > 0
    if not late.any():
        return [f"No row enters after day 0 by {name}."]
    few = ""
    if entry.min() > 0:
        few = (
            f" None is followed before day {entry.min():.4g}: earlier deaths are not observed, and survival is that of "
            "cases that lived to that day."
        )
    died = np.sort(time[event == 1])
    at_risk = np.searchsorted(np.sort(entry), died) - np.searchsorted(np.sort(time), died)
    more_later = np.maximum.accumulate(at_risk[::-1])[::-1] >= _FEW_AT_RISK
    early = int(((at_risk < _FEW_AT_RISK) & more_later).sum())
    if early:
        few += (
            f" {count(early, 'event')} occurred while fewer than {_FEW_AT_RISK} were at risk, before others entered. "
            "They dominate the Kaplan-Meier estimate from then on; it is 0 if the last case at risk had the event."
        )
    return [
        f"{count(int(late.sum()), 'row')} of {len(entry)} enter late by {name} (in {unit}), at the median after "
        f"{np.median(entry[late]):.4g} days: a case is at risk from its entry on, and survival is from day 0 on. C is "
        "over the pairs in which both were at risk. AUC at a time, Uno's C, Brier scores, observed over expected "
        f"events and net benefit do not apply then and are not given.{few}"
    ]


def _unit(name: str, rule: EndpointRule) -> tuple[str, list[str]]:
    """The unit of a time column, and what is to be said about it."""
    said = unit_of(name)
    if rule.time_unit:
        differs = [f"{name} was taken in {rule.time_unit}, as the specification says; its heading says {said}."]
        return rule.time_unit, differs if said and said != rule.time_unit else []
    if time_unit_known(name):
        return said or "days", []
    return "days", [f"{name} was taken in days, since nothing says its unit: time_unit in [endpoint] names another."]


def _fractions_of_days(column: SourceColumn, unit: str) -> list[str]:
    """A note where times in days are few and in fractions, as years and months are."""
    values = column.numbers()
    values = values[np.isfinite(values)]
    if len(values) > 1 and not np.ptp(values):
        return [
            f"{column.name} is {values[0]:g} in all rows. All times are equal, so early and late events cannot be "
            "distinguished. Is the outcome a class (label in [endpoint]), or the time that of the horizon?"
        ]
    if unit != "days" or not len(values):
        return []
    parts = values != np.floor(values)
    if parts.sum() >= _FEW_PARTS and parts.mean() <= 0.5 and _OTHER_UNIT * np.median(values[parts]) < np.median(values):
        return [
            f"{column.name} has decimals in {count(int(parts.sum()), 'row')} (at most {values[parts].max():.4g}) but "
            f"whole numbers in the others (median {np.median(values[~parts]):.4g}): are some in months or years?"
        ]
    if values.max() > _SHORT_DAYS:
        return []
    if parts.mean() < 0.5:
        planned = (values == values.max()).mean() > _PLANNED  # as of 28 or 90 days
        few = len(values) < _FEWEST_ROWS or planned or unit_of(column.name) != "days"
        return (
            []
            if few
            else [
                f"{column.name} is {values.max():.4g} at most, little for days: if it is in months, "
                "--set endpoint.time_unit=months."
            ]
        )
    return [
        f"{column.name} was taken in days, is {values.max():.4g} at most and mostly no whole number: if it is in years "
        "or months, --set endpoint.time_unit=years (or months)."
    ]


def _refuse_beyond_a_life(days: FloatArray, column: SourceColumn, unit: str) -> None:
    wrong = np.flatnonzero(days > LONGEST_DAYS).tolist()
    if wrong:
        raise StatisticsError(
            f"{column.where}: column {column.name!r} is {days[wrong[0]] / DAYS[unit]:.15g} {unit} in data row "
            f"{column.row(wrong[0])}, longer than a life: is it in another unit (time_unit in [endpoint]), a "
            "date, or a code for not known?"
        )


def _events(column: SourceColumn, rule: EndpointRule, whole: SourceColumn) -> FloatArray:
    if isinstance(column.cells, np.ndarray) and column.name == "event" and not rule.event_codes:
        return np.asarray(column.cells, dtype=float)  # a run's own: its job has said what the codes mean
    cells = column.texts(rule.event_codes)
    said = filter(None, whole.texts(rule.event_codes))
    try:
        codes = event_codes(column.name, said, _CODES, rule.event_codes, "endpoint.event_codes")
    except ValueError as error:
        why = f"{error}{_to_paste(str(error))}"
        if "2" not in map(plain_code, cells):
            raise StatisticsError(f"{column.where}: {why}") from None
        codes = {"0": 0, "1": 1}
    else:
        why = "event_codes in [endpoint] says what other codes mean"
        held = sorted({plain_code(text) for text in cells if text})
        if 1 < len(held) <= _MOST_CODES and not rule.event_codes:
            asked = ", ".join(f"{json.dumps(code, ensure_ascii=False)} = ?" for code in held)
            why += f", with 1, 0, or 2 (a competing event) for each ?\n  --set 'endpoint.event_codes={{ {asked} }}'"
        if {plain_code(text) for text in cells if text} == {"0", "1", "2"}:
            meant = '{ "0" = 0, "1" = 1, "2" = 2 }'
            why = f"2 may be an event that competes with 1: then{_to_paste(meant)}"
    expected = ", ".join(rule.event_codes) or _EXPECTED
    for row, text in enumerate(cells):
        if text and plain_code(text) not in codes:
            raise StatisticsError(
                f"{column.where}: column {column.name!r} holds {text!r} in data row {column.row(row)}, expected "
                f"{expected}; {why}"
            )
    empty = float(rule.event_codes.get("", np.nan))  # an empty cell, not a word for not known
    written = (
        np.isfinite(column.cells) if isinstance(column.cells, np.ndarray) else [cell != "" for cell in column.cells]
    )
    return np.array(
        [
            float(codes[plain_code(text)]) if text else np.nan if there else empty
            for text, there in zip(cells, written, strict=True)
        ]
    )


def _refuse_lost_censoring(
    time_column: SourceColumn, event_column: SourceColumn, time: FloatArray, event: FloatArray, rule: EndpointRule
) -> None:
    """Refuse columns of which only the observed events would be left, since what says "censored" is an empty cell."""
    timed, known = time > 0, ~np.isnan(event)
    left = np.unique(event[timed & known])
    if len(left) != 1 or len(time) < _FEWEST_ROWS:
        return
    gone = int((~timed & known & (event != left[0])).sum())
    if gone >= _LOST * len(time):
        raise StatisticsError(
            f"{time_column.where}: {time_column.name} is empty or 0 in all {count(gone, 'row')} in which "
            f"{event_column.name} says that the event was {'not ' if left[0] == 1 else ''}seen: their follow-up "
            "stands in another column; write both into one"
        )
    blank = int((timed & ~known).sum())
    if blank >= _LOST * len(time) and left[0] == 1 and "" not in rule.event_codes:
        seen = rule.event_codes or {text: 1 for text in event_column.texts() if text}
        codes = ", ".join(f"{json.dumps(code, ensure_ascii=False)} = {meant}" for code, meant in seen.items())
        raise StatisticsError(
            f"{event_column.where}: {event_column.name} is empty in {count(blank, 'row')} with a time, and in all "
            "others the event was seen: if empty means censored,\n"
            f"  --set 'endpoint.event_codes={{ {codes}, \"\" = 0 }}'\n"
            "If it is not known there, leave these rows out of the table"
        )


def _to_paste(refusal: str) -> str:
    """The refusal's codes as options of the command line, a line each."""
    return "".join(f"\n  --set 'endpoint.event_codes={codes}'" for codes in re.findall(r"\{[^}]*\}", refusal))


def _competing(name: str, cause: FloatArray) -> list[str]:
    """What is made of competing events."""
    competing = int((cause == COMPETING).sum())
    if not competing:
        return []
    return [
        f"{count(competing, 'row')} of {name} have a competing event. Models are of the subdistribution hazard (Fine "
        "and Gray): a case with a competing event stays at risk, weighted by the censoring of others; trees, "
        "accelerated failure time and support vector machines draw a censoring time once instead. Predicted survival "
        "is freedom from the event while others compete, and so are all figures and the curves of risk groups. "
        "competing.csv has the cause-specific models beside it."
    ]


def _all_ones(name: str, event: FloatArray, rule: EndpointRule) -> list[str]:
    """A note on a cohort without a censored case: its codes may be those of R, where 1 is censored."""
    known = event[~np.isnan(event)]
    if rule.event_codes or known.size < 2 or (known != 1).any():
        return []
    return [
        f"All {known.size} rows of {name} were taken as observed events, none as censored: event_codes in [endpoint] "
        "says otherwise."
    ]


def _classes(column: SourceColumn, rule: EndpointRule) -> Outcomes:
    known = column.known(rule.classes)
    texts, patterns = known.texts, class_patterns(column.name, rule.classes)

    def level(text: str) -> str:
        return level_key(read_level(patterns, text))

    spelt: dict[str, Counter[str]] = defaultdict(Counter)
    for text in filter(None, texts):
        spelt[level(text)][text] += 1
    names = rule.classes or tuple(next(iter(spelt[found])) for found in sorted(spelt, key=_level_order))
    place = {level(name): i for i, name in enumerate(names)}
    if len(place) < len(names):
        raise StatisticsError(f"endpoint.classes has one class twice: {', '.join(names)}")
    if rule.classes and not set(place) & set(spelt):
        held = [next(iter(texts)) for texts in spelt.values()]
        raise StatisticsError(
            f"{column.where}: column {column.name!r} holds {', '.join(held[:5]) or 'nothing'}, and "
            f"none of the endpoint's classes: {', '.join(names)}"
        )
    if len(names) > 12:
        raise StatisticsError(
            f"{column.where}: column {column.name!r} holds {len(names)} different values, too many to be classes"
        )
    values = np.array([float(place.get(level(text), np.nan)) if text else np.nan for text in texts])
    faults = [
        "" if text and level(text) in place else Code.NO_ENDPOINT.value if not text else "other-class" for text in texts
    ]
    gone = ", ".join(f"{word!r} in {count(often, 'row')}" for word, often in known.emptied.items())
    notes = [f"Of {column.name} {gone} was taken as not known; classes in [endpoint] makes it one."] if gone else []
    notes += _class_notes(column.name, names, place, spelt)
    return Outcomes((values,), names, tuple(faults), (column.name,), tuple(notes))


def _class_notes(
    column: str, names: Sequence[str], place: Mapping[str, int], spelt: Mapping[str, Counter[str]]
) -> list[str]:
    """Which spellings are of one class, and which are of none."""
    seen: dict[str, set[str]] = {names[place[level]]: set(texts) for level, texts in spelt.items() if level in place}
    several = {name: texts for name, texts in seen.items() if len({level_key(text) for text in (name, *texts)}) > 1}
    notes = [merged_note(column, seen)] if several else []
    other = Counter({text: n for level, texts in spelt.items() if level not in place for text, n in texts.items()})
    if other:
        told = ", ".join(f"{text!r} in {count(often, 'row')}" for text, often in other.most_common(_MOST_TOLD))
        told += f" and {len(other) - _MOST_TOLD} more" if len(other) > _MOST_TOLD else ""
        notes.append(
            f"Of {column} {told} is none of the classes {', '.join(names)} and was left out: write there the class "
            "that is meant, or name another with classes in [endpoint]."
        )
    return notes


def _level_order(level: str) -> tuple[float, str]:
    value = number(level)
    return (value, level) if not np.isnan(value) else (np.inf, level)
