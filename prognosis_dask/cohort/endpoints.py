"""Follow-up and event as tables write them: headings, units and codes. What is ambiguous is refused, never guessed."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, TypeAlias

from prognosis_dask.tables.headings import key as letters
from prognosis_dask.tables.values import known_cells

Unit: TypeAlias = Literal["days", "weeks", "months", "years"]
#: Days in a unit of follow-up time: a year is 365.25 days.
DAYS = {"days": 1.0, "weeks": 7.0, "months": 365.25 / 12, "years": 365.25}
#: A follow-up longer than a lifetime is in another unit, or a date.
LONGEST_DAYS = 130 * 365.25

#: Codes of the event that hold for every collection.
EVENT_CODES: Mapping[str, int] = {
    **dict.fromkeys(("1", "yes", "y", "true", "dead", "died", "deceased", "death", "event"), 1),
    **dict.fromkeys(("recurred", "recurred/progressed", "progressed", "progression", "relapsed", "recurrence"), 1),
    **dict.fromkeys(("ja", "oui", "verstorben", "gestorben", "tot", "décédé", "décédée", "dcd"), 1),
    **dict.fromkeys(("0", "no", "n", "false", "alive", "living", "censored", "no event"), 0),
    **dict.fromkeys(("nein", "non", "lebt", "lebend", "vivant", "vivante"), 0),
    **dict.fromkeys(("diseasefree", "disease free", "disease-free", "progression-free", "event-free"), 0),
}
#: Codes without a meaning of their own: a heading may reverse them.
_BARE = frozenset(["1", "0", "yes", "no", "y", "n", "true", "false", "ja", "nein", "oui", "non"])
#: Headings under which 1 and yes may mean that the event was not observed.
_TURNED = re.compile(
    r".*(censor|alive|living|survived|survivor|zensier|censur|lebt|lebend|vivant|survécu|"
    r"(ereignis|rezidiv|krankheits|progressions)frei).*|"
    r"(?!.*events?$|event(?!free)|.*uncontrol).*(free|remission|response|control|lost).*|live|ned|no(event|death|deaths|relapse|recurrence|progression)|"
    r"cens|(overall|gesamt)?(vital|survival|(ü|ue)berlebens?)(status)?((at)?(last)?(followup|fu|contact))?|"
    r"(statut)?vitale?|survie(globale)?"
)
_CODE_AND_WORD = re.compile(r"([01])\s*[:=]\s*(\S.*)")
_UNITS = {"days": r"days?|tage?n?|jours?|d", "weeks": r"weeks?|wochen?|semaines?|wks?|w",
          "months": r"months?|monate?n?|mois|mon|mths?|mos?|m",
          "years": r"years?|jahre?n?|ans|années?|yrs?|y"}  # fmt: skip


def unit_of(heading: str) -> str:
    """The unit of time that a heading names: days, weeks, months or years; empty if it names none or two.

    >>> unit_of("OS_MONTHS"), unit_of("Survival.time"), unit_of("time (d)"), unit_of("timeDays")
    ('months', '', 'days', 'days')
    """
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", heading).casefold()
    found = set()
    for unit, words in _UNITS.items():
        alone = rf"[(\[]\s*({words})\s*[)\]]|(?<![a-z])({words.rpartition('|')[0]})(?![a-z])"
        if re.search(alone, plain) or re.search(rf"({unit})(?![a-z])", plain):
            found.add(unit)
    return found.pop() if len(found) == 1 else ""


def plain_code(text: str) -> str:
    """The key for comparing codes: 1.0 is 1, and case is ignored.

    >>> plain_code("1.0"), plain_code(" Dead")
    ('1', 'dead')
    """
    try:
        value = float(text)
    except ValueError:
        return " ".join(text.split()).casefold()
    return str(int(value)) if math.isfinite(value) and value.is_integer() else text.strip()


def event_codes(
    heading: str,
    cells: Iterable[str],
    known: Mapping[str, int] = EVENT_CODES,
    given: Mapping[str, int] | None = None,
    key: str = "event_codes",
) -> dict[str, int]:
    """The meaning of each of a column's values: 1, the event was observed; 0, the case was censored.

    Parameters
    ----------
    heading, cells
        The column.
    known
        The words that are understood.
    given
        Codes given by the user; nothing is then inferred.
    key
        The setting that gives them, for messages.

    Returns
    -------
    dict
        By :func:`plain_code`; without the values that are not understood, if others are.

    Raises
    ------
    ValueError
        When the codes are ambiguous: 1 and 2, or 1 under a heading such as "alive".
    """
    values = {plain_code(cell) for cell in known_cells(list(cells), given or ()).texts if cell}
    if given:
        said = {plain_code(value): code for value, code in given.items()}
        return {value: said[value] for value in values if value in said}
    stated = _from_heading(heading, values, known)
    if stated:
        return stated
    if values <= {"1", "2"} and "2" in values:
        why = "in R, SAS and SPSS 1 is often censored and 2 observed: say which is which"
        raise ValueError(
            f"{_held(heading, values)}, and {why}, {key} = {_table(values, '2', 1)} (1: observed, 0: censored)"
        )
    if values and values <= _BARE and _TURNED.fullmatch(letters(heading)):
        one = sorted(values)[-1]
        raise ValueError(
            f"{_held(heading, values)}, and under this heading {one!r} may say that the event was not seen, or that it "
            f"was: set {key} = {_table(values, one, 0)} if not seen, {_table(values, one, 1)} if seen "
            "(1: observed, 0: censored)"
        )
    codes = {}
    for value in values:
        if (both := _CODE_AND_WORD.fullmatch(value)) and known.get(both[2], int(both[1])) == int(both[1]):
            codes[value] = int(both[1])
        elif value in known:
            codes[value] = known[value]
    return codes


def _from_heading(heading: str, values: set[str], known: Mapping[str, int]) -> dict[str, int]:
    """The codes in a heading such as "status (1 = censored, 2 = dead)"."""
    stated = {
        number: known[word]
        for number, word in re.findall(r"(\d)\s*[=:]\s*([a-z]+)", heading.casefold())
        if number in values and word in known and word not in _BARE
    }
    rest = values - stated.keys()
    if len(stated) == 1 and len(rest) == 1:
        stated[rest.pop()] = 1 - next(iter(stated.values()))
        return stated
    return stated if stated and not rest else {}


def _held(heading: str, values: set[str]) -> str:
    return f"{heading} holds {' and '.join(map(repr, sorted(values)))}"


def _table(values: set[str], one: str, code: int) -> str:
    """An inline table of TOML in which ``one`` means ``code``, as do others like it, and the rest the opposite."""
    alike = {value for value in values if value == one or (one != "2" and EVENT_CODES[value] == EVENT_CODES[one])}
    said = (f"{json.dumps(value)} = {code if value in alike else 1 - code}" for value in sorted(values))
    return f"{{ {', '.join(said)} }}"


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
    return _TIME.fullmatch(letters(heading)) is not None


def names_an_event(heading: str) -> bool:
    """Whether a heading may be that of an event; what its codes mean in brackets does not count.

    >>> names_an_event("Death (1=yes)"), names_an_event("Deaths")
    (True, False)
    """
    return _EVENT.fullmatch(letters(re.sub(r"[(\[].*[=:].*[)\]]", "", heading))) is not None


def _letters(name: str) -> str:
    found = re.match(r"(os|overall|dfs|pfs|pfi|dfi|efs|rfs|css|dss|lrfs|dmfs|mfs)", letters(name))
    return found[1].replace("overall", "os") if found else ""


def are_calendar_years(values: Iterable[float]) -> bool:
    """Whether all numbers are years by the calendar, as of a diagnosis, and no lengths of time.

    >>> are_calendar_years([1998.0, 2004.0]), are_calendar_years([2004.0, 12.5]), are_calendar_years([])
    (True, False, False)
    """
    known = list(values)
    return bool(known) and all(1900 <= value < 2100 and value == int(value) for value in known)


def as_option(name: str, value: str | list[str]) -> str:
    """The option that sets a key to a text or a list of texts, quoted for a shell.

    >>> as_option("cohort.time_column", "OS_days")
    '--set cohort.time_column=OS_days'
    >>> print(as_option("cohort.time_column", "OS (days)"))
    --set 'cohort.time_column="OS (days)"'
    >>> print(as_option("exclude", ["age"]))
    --set 'exclude=["age"]'
    """
    plain = isinstance(value, str) and re.fullmatch(r"[\w.]+", value)
    text = f"{name}={value}" if plain else f"{name}={json.dumps(value, ensure_ascii=False)}"
    return f"--set {text}" if re.fullmatch(r"[\w.=]+", text) else f"--set '{text}'"
