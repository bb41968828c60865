"""Columns of follow-up and event by their headings, where nobody names them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable

from prognosis_dask.tables.headings import key

#: The endpoints by their letters: overall, disease-free, progression-free, ... survival.
_WHICH = (
    r"(os|dfs|pfs|pfi|dfi|efs|rfs|css|dss|lrfs|dmfs|mfs|overall|death|"
    r"(overall|event|disease|progression|relapse)(free)?survival)?"
)
_UNIT = r"(in|en)?(days?|weeks?|months?|years?|d|wks?|mos?|mths?|yrs?|tagen?|wochen|monaten?|jahren?|jours|mois|ans)?"
_TIME = re.compile(
    rf"{_WHICH}(surv(ival)?|fu|followup|event)?(time|duration|length){_UNIT}|(to)?time(to)?(event|death|censor\w*){_UNIT}|"
    rf"(os|dfs|pfs|pfi|efs|rfs|css|dss|(overall|(progression|disease|event|relapse)free)?survival|surv|followup|fu|duration|futime)(in)?{_UNIT}|days|weeks?|months?|years?|"
    r"(days|weeks|months|years)(survived|followed|followup|tolastfollowup|todeath|survival|ofsurvival)|"
    rf"((gesamt)?(überlebens|ueberlebens|(nach)?beobachtungs)?zeit|survie(globale)?|(durée(de)?)?suivi){_UNIT}"
)
_EVENT = re.compile(
    rf"{_WHICH}(event|status|censor(ed|ing)?|cens|delta|indicator|fustat|event(observed|indicator|status)|eventcode)|"
    r"(death|dead|died|deceased|vital|survival|event)(status|event|indicator|observed|code)?|"
    r"vitalstatus|isdead|os|alive|(is)?observed|verstorben|gestorben|tod|ereignis|(vital)?status(at)?(last)?(followup|fu|contact)|décès|deces|décédée?|decedee?|dcd|statutvital"
)


def likely_endpoints(
    names: Iterable[str], may_be_time: Callable[[str], bool], may_be_event: Callable[[str], bool]
) -> list[tuple[str, str]]:
    """Every pair of columns that might be time and event, by their headings and by what their cells allow.

    Where the headings name endpoints by their letters (``OS``, ``PFS``), a time goes with the event of the same one.

    >>> likely_endpoints(["age", "OS_days", "OS_status", "PFS_days"], lambda name: True, lambda name: True)
    [('OS_days', 'OS_status')]
    """
    listed = list(names)
    times = [name for name in listed if names_a_time(name) and may_be_time(name)]
    events = [name for name in listed if name not in times and names_an_event(name) and may_be_event(name)]
    pairs = [(time, event) for time in times for event in events]
    if not pairs and {"T", "E"} <= {*listed} and may_be_time("T") and may_be_event("E"):
        return [("T", "E")]  # lifelines' names; T alone may be the tumour's stage
    alike = [(time, event) for time, event in pairs if _letters(time) == _letters(event)]
    return alike if any(_letters(time) for time, _ in alike) or len(alike) == 1 else pairs


def names_a_time(heading: str) -> bool:
    """Whether a heading may be that of a follow-up."""
    return _TIME.fullmatch(key(heading)) is not None


def names_an_event(heading: str) -> bool:
    """Whether a heading may be that of an event; what its codes mean in brackets does not count.

    >>> names_an_event("Death (1=yes)"), names_an_event("Deaths")
    (True, False)
    """
    return _EVENT.fullmatch(key(re.sub(r"[(\[].*[=:].*[)\]]", "", heading))) is not None


def _letters(name: str) -> str:
    found = re.match(r"(os|overall|dfs|pfs|pfi|dfi|efs|rfs|css|dss|lrfs|dmfs|mfs)", key(name))
    return found[1].replace("overall", "os") if found else ""


def are_calendar_years(values: Iterable[float]) -> bool:
    """Whether all numbers are years by the calendar, as of a diagnosis, and no lengths of time.

    >>> are_calendar_years([1998.0, 2004.0]), are_calendar_years([2004.0, 12.5]), are_calendar_years([])
    (True, False, False)
    """
    known = list(values)
    return bool(known) and all(1900 <= value < 2100 and value == int(value) for value in known)


def as_option(name: str, value: str) -> str:
    """The option that sets a key, quoted for a shell.

    >>> as_option("cohort.time_column", "OS_days")
    '--set cohort.time_column=OS_days'
    >>> print(as_option("cohort.time_column", "OS (days)"))
    --set 'cohort.time_column="OS (days)"'
    """
    text = f"{name}={value}" if re.fullmatch(r"[\w.]+", value) else f"{name}={json.dumps(value, ensure_ascii=False)}"
    return f"--set {text}" if re.fullmatch(r"[\w.=]+", text) else f"--set '{text}'"
