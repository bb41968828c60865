"""Which columns hold the endpoint, where nobody named them: what is unambiguous is taken and said, else asked for.

Of tables that statistics packages publish, their documentation says what headings do not: ``cens`` may mean either
thing, 1 and 2 may too, and a week is a time of follow-up in one table only.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isnan
from pathlib import Path

import numpy as np

from prognosis_dask.cohort.clinical import find_column, key
from prognosis_dask.cohort.collections import COLLECTIONS
from prognosis_dask.cohort.endpoints import (
    EVENT_CODES,
    Unit,
    are_calendar_years,
    as_option,
    likely_endpoints,
    names_a_time,
    names_an_event,
    plain_code,
    unit_of,
)
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.columns import SourceColumn, number
from prognosis_dask.modelling.spec import EndpointRule, ModelSpec
from prognosis_dask.tables.headings import no_property

#: The spellings of the known collections, first; of several the first one counts. ``OS`` has any unit elsewhere.
KNOWN_TIMES = tuple(
    dict.fromkeys(name for preset in COLLECTIONS.values() for name in preset.time_columns if name != "OS")
)
_TIMES = (*KNOWN_TIMES, "OS_days", "OS_MONTHS", "duration_col")
_EVENTS = tuple(
    dict.fromkeys([*(n for p in COLLECTIONS.values() for n in p.event_columns), "OS_event", "OS_STATUS", "event_col"])
)


@dataclass(frozen=True)
class TimeAndEvent:
    """The columns of time and event."""

    time: str
    event: str

    @property
    def settings(self) -> str:
        """The options that name them."""
        return f"{as_option('endpoint.time', self.time)} {as_option('endpoint.event', self.event)}"


def endpoint_columns(columns: Mapping[str, SourceColumn], rule: EndpointRule) -> tuple[str, ...]:
    """The columns that hold the endpoint, as they are spelt; () where the table has none, or several might.

    A label; or a time, an event and, where the rule names one, an entry.
    Those that the rule names; else those of a known collection's spelling; else the only ones whose headings and cells
    are of a time and of an event.
    """
    names = list(columns)
    wanted = [(rule.label,)] if rule.label else [(rule.time,), (rule.event,)] if rule.time else [_TIMES, _EVENTS]
    found = [find_column(names, spellings) for spellings in wanted]
    if None in found and not (rule.label or rule.time):
        pairs = endpoint_pairs(columns)
        found = [pairs[0].time, pairs[0].event] if len(pairs) == 1 else [None]
    if rule.entry:
        found.append(find_column(names, (rule.entry,)))
    return () if None in found else tuple(name for name in found if name)


def endpoint_pairs(columns: Mapping[str, SourceColumn]) -> list[TimeAndEvent]:
    """Every pair of columns that might be time and event."""
    pairs = likely_endpoints(
        columns, lambda name: _may_be_time(columns[name]), lambda name: _may_be_event(columns[name])
    )
    return [TimeAndEvent(*pair) for pair in pairs]


def _may_be_time(column: SourceColumn) -> bool:
    """Numbers alone, more than a few of them, some above zero, and no years by the calendar."""
    try:
        values = column.numbers()
    except StatisticsError:
        return False
    known = values[np.isfinite(values)]
    different = np.unique(known)
    return bool((known > 0).any()) and len(different) > min(4, len(known) - 1) and not are_calendar_years(different)


def _may_be_event(column: SourceColumn) -> bool:
    """Few codes, as an event has."""
    held = {str(EVENT_CODES.get(plain_code(text), text)) for text in column.texts() if text}
    return 1 <= len(held) <= 4


def with_published(spec: ModelSpec, columns: Mapping[str, SourceColumn]) -> tuple[ModelSpec, list[str]]:
    """The specification with what a published table's documentation says, where nothing in it says otherwise."""
    end = spec.endpoint
    table = None if end.time or end.label else published_table(columns)
    if table is None:
        return spec, []
    names = {key(name): name for name in columns}
    time, event = names[key(table.time)], names[key(table.event)]
    codes = end.event_codes or codes_for(table, columns[event].texts(table.codes))
    rule = replace(end, time=time, event=event, time_unit=end.time_unit or table.unit, event_codes=dict(codes))
    gone = {names[key(name)]: why for name, why in table.exclude.items() if key(name) in names}
    gone = {name: why for name, why in gone.items() if name not in spec.column}
    told = f"By its columns this is {table.name}: {time} is in {rule.time_unit}{_event_code(event, codes, end)}"
    left = f"; no features are {', '.join(f'{name} ({why})' for name, why in gone.items())}" if gone else ""
    exclude = (*spec.exclude, *(name for name in gone if name not in spec.exclude))
    return replace(spec, endpoint=rule, exclude=exclude), [f"{told}{left}."]


def _event_code(event: str, codes: Mapping[str, int], end: EndpointRule) -> str:
    if not codes or end.event_codes:
        return ""
    seen = next(code for code, meaning in codes.items() if meaning == 1)
    return f", {event} is {seen} where the event was seen"


def no_endpoint(columns: Mapping[str, SourceColumn], where: Sequence[str], rule: EndpointRule) -> StatisticsError:
    """The refusal of tables whose endpoint cannot be told: what they have, and the options that name it."""
    named = " and ".join(filter(None, (rule.time, rule.event, rule.label, rule.entry)))
    pairs = [] if named else endpoint_pairs(columns)
    has = ", ".join(columns)
    listed = has if len(has) < 600 else f"{has[:600].rpartition(', ')[0]}, ... ({len(columns)} columns)"
    told = ", ".join(str(Path(path)) for path in where)
    if pairs:
        shown = "\n".join(f"  {pair.settings}" for pair in pairs[:6])
        return StatisticsError(
            f"{told}: several columns may hold the endpoint, which one is meant? Add one of these lines\n{shown}"
        )
    if not named and (why := _unreadable(columns)):
        return StatisticsError(f"{told}: no endpoint: {why}")
    lacks = f"no endpoint: {told} {'has' if len(where) == 1 else 'have'} no columns"
    return StatisticsError(
        f"{lacks} {named or 'of a time and an event that can be told by their names'}; there are {listed}. "
        "Name them: --set endpoint.time=COLUMN --set endpoint.event=COLUMN, or for a class --set endpoint.label=COLUMN"
    )


def _unreadable(columns: Mapping[str, SourceColumn]) -> str:
    """What is wrong with columns that are a time or an event by their headings alone; empty if there are none."""
    for name, column in columns.items():
        if names_a_time(name) and not _may_be_time(column):
            wrong = next(((row, text) for row, text in enumerate(column.texts()) if text and isnan(number(text))), None)
            if wrong:
                return (
                    f"{name} is a time by its heading, and holds {wrong[1]!r} in data row {column.row(wrong[0])}: "
                    "write numbers of one unit alone, without words, units or thousands separators"
                )
    for name, column in columns.items():
        if names_an_event(name) and not _may_be_event(column):
            held = list(dict.fromkeys(text for text in column.texts() if text))
            if held:
                return (
                    f"{name} is an event by its heading, and holds {len(held)} different values, such as {held[0]!r}: "
                    "write 1 where the event was seen and 0 where the case was censored"
                )
    dates = [name for name, column in columns.items() if no_property(name, None, column.texts(), ()) == "holds dates"]
    if len(dates) > 1:
        return (
            f"{', '.join(dates[:5])} hold dates: write the days from the first to the event or to the end of the "
            "follow-up into a column time_days, and 1 (seen) or 0 (censored) into a column event"
        )
    return ""


def time_unit_known(name: str) -> bool:
    """Whether a time's unit is known: its heading says it, or it is of a known collection."""
    return bool(unit_of(name) or find_column([name], KNOWN_TIMES))


@dataclass(frozen=True)
class Published:
    """A published table.

    Attributes
    ----------
    name
        The table and where it is from.
    marks
        Headings that it is known by, besides time and event; letters and digits count only.
    time, event
        The columns of the endpoint.
    unit
        Of the time.
    codes
        What the event's codes mean, where they are not 1 for the event and 0 for censored.
    exclude
        Columns that are no features known at the beginning, with the reason.
    """

    name: str
    marks: tuple[str, ...]
    time: str
    event: str
    unit: Unit = "days"
    codes: Mapping[str, int] = field(default_factory=dict)
    exclude: Mapping[str, str] = field(default_factory=dict)


_OBSERVED = {"1": 1, "0": 0}
_R = {"1": 0, "2": 1}
_LATER = "known only later"

PUBLISHED = (
    Published("rossi, recidivism (R's carData, lifelines)", ("fin", "wexp", "paro", "prio"), "week", "arrest", "weeks",
              exclude={f"emp{week}": _LATER for week in range(1, 53)}),
    Published("GBSG2, breast cancer (R's TH.data, scikit-survival)", ("horTh", "menostat", "tgrade", "pnodes"),
              "time", "cens", codes=_OBSERVED),
    Published("lung, NCCTG (R's survival)", ("ph.ecog", "ph.karno", "pat.karno", "meal.cal"), "time", "status",
              codes=_R, exclude={"inst": "a hospital's number"}),
    Published("veteran, lung cancer (R's survival)", ("trt", "celltype", "karno", "diagtime"), "time", "status"),
    Published("veteran, lung cancer (scikit-survival)", ("Celltype", "Karnofsky_score", "Prior_therapy"),
              "Survival_in_days", "Status"),
    Published("whas500, myocardial infarction (Hosmer, Lemeshow and May; scikit-survival)",
              ("sysbp", "chf", "miord", "mitype"), "lenfol", "fstat", exclude={"los": _LATER, "dstat": _LATER}),
    Published("ACTG320, AIDS (Hosmer, Lemeshow and May; scikit-survival)", ("cd4", "karnof", "priorzdv", "ivdrug"),
              "time", "censor", codes=_OBSERVED,
              exclude={"time_d": "the time of death", "censor_d": "death"}),
    Published("larynx cancer (Klein and Moeschberger; lifelines)", ("Stage_II", "Stage_III", "Stage_IV"),
              "time", "death", "years"),
    Published("larynx cancer (R's KMsurv)", ("stage", "age", "diagyr"), "time", "delta", "years"),
    Published("flchain, free light chains (R's survival, scikit-survival)", ("kappa", "lambda", "flc.grp", "mgus"),
              "futime", "death", exclude={"chapter": "the cause of death"}),
)  # fmt: skip


def published_table(headings: Collection[str]) -> Published | None:
    """The published table with these headings; None where there is none, or more than one."""
    held = set(map(key, headings))
    found = [one for one in PUBLISHED if held >= set(map(key, (*one.marks, one.time, one.event)))]
    return found[0] if len(found) == 1 else None


def codes_for(table: Published, cells: Collection[str]) -> Mapping[str, int]:
    """What the event's codes mean: the documentation's where it has all of them, else {}.

    >>> lung = published_table(["time", "status", "ph.ecog", "ph.karno", "pat.karno", "meal.cal"])
    >>> codes_for(lung, ["1", "2"]), codes_for(lung, ["0", "1"])
    ({'1': 0, '2': 1}, {})
    """
    held = {plain_code(cell) for cell in cells if cell}
    return table.codes if held <= table.codes.keys() else {}
