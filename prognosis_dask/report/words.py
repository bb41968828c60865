"""Numbers, counts and the names of measures as a journal prints them; hashes for patients, names for paths."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from prognosis_dask.cohort.case import short_hash
from prognosis_dask.cohort.clinical import SAME_PATIENT

#: A space at which no line ends.
NARROW = "\N{NO-BREAK SPACE}"
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float | None, digits: int = 2) -> str:
    """A number with a true minus sign, a dash where there is none.

    >>> number(-0.123), number(None), number(12.0, 0)
    ('−0.12', '–', '12')
    """
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:.{digits}f}"
    return (text[1:] if float(text) == 0 and text.startswith("-") else text).replace("-", "\N{MINUS SIGN}")


def interval(lower: float | None, upper: float | None, digits: int = 2) -> str:
    """The two ends of an interval, nothing where one is not known.

    >>> interval(0.514, 0.6), interval(None, 1.0)
    ('0.51 to 0.60', '')
    """
    if lower is None or upper is None or not (math.isfinite(lower) and math.isfinite(upper)):
        return ""
    return f"{number(lower, digits)} to {number(upper, digits)}"


def with_interval(value: float | None, lower: float | None, upper: float | None, digits: int = 2) -> str:
    """A number and, in brackets, its interval.

    >>> with_interval(0.6, 0.5, 0.7), with_interval(0.6, None, None)
    ('0.60 (0.50 to 0.70)', '0.60')
    """
    ends = interval(lower, upper, digits)
    return f"{number(value, digits)} ({ends})" if ends else number(value, digits)


def p_text(p: float) -> str:
    """A p value as journals print it.

    >>> p_text(0.00001), p_text(0.0321), p_text(0.4567)
    ('p < 0.001', 'p = 0.032', 'p = 0.46')
    """
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def p_number(p: float | None) -> str:
    """The same without the letter, for a table's column.

    >>> p_number(0.00001), p_number(0.2), p_number(float("nan"))
    ('< 0.001', '0.20', '–')
    """
    if p is None or not math.isfinite(p):
        return "–"
    return p_text(p).removeprefix("p = ").removeprefix("p ")


def duration(seconds: float | None) -> str:
    """Seconds below two minutes, then minutes, then hours.

    >>> duration(3.21), duration(200), duration(9000), duration(None)
    ('3.2 s', '3.3 min', '2.5 h', '–')
    """
    if seconds is None:
        return "–"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def span(days: float) -> str:
    """A time in years where it is a whole or half number of them, quarters of the first in months, else in days.

    >>> span(730.5), span(365), span(548), span(183), span(100)
    ('2 years', '1 year', '1.5 years', '6 months', '100 days')
    """
    quarters = round(4 * days / 365.25)
    if quarters in (1, 2, 3) and abs(days - 365.25 * quarters / 4) <= 1:
        return f"{3 * quarters} months"
    years = round(2 * days / 365.25) / 2
    if years > 0 and abs(days - 365.25 * years) <= 3:
        return f"{years:g} year" if years == 1 else f"{years:g} years"
    return f"{days:g} days"


def in_words(reason: str) -> str:
    """A problem's code as words; any other reason as it is.

    >>> in_words("mask-one-slice"), in_words("no CT case")
    ('mask one slice', 'no CT case')
    """
    return reason.replace("-", " ") if re.fullmatch(r"[a-z]+(-[a-z]+)+", reason) else reason


def listed(names: list[str]) -> str:
    """Names in a sentence.

    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def short_name(feature: str) -> str:
    """A feature's name without what all of pyradiomics' names begin with.

    >>> short_name("original_glcm_ClusterShade")
    'glcm ClusterShade'
    """
    return feature.removeprefix("original_").replace("_", " ", 1)


def with_powers(unit: str) -> str:
    """A unit, or a name that ends in one, with its powers raised.

    >>> with_powers("volume (mm^3)"), with_powers("mm2"), with_powers("u^2 mm^-1")
    ('volume (mm³)', 'mm²', 'u² mm⁻¹')
    """
    plain = re.sub(r"\bmm2\b", "mm^2", unit)
    return re.sub(r"\^(-?\d)", lambda power: power[1].translate(_RAISED), plain)


def clipped(text: str, length: int = 34) -> str:
    """A text that is too long for its place, cut at its end.

    >>> clipped("glcm ClusterShade", 8)
    'glcm Cl…'
    """
    return text if len(text) <= length else text[: length - 1] + "…"


def breakable(text: str) -> str:
    """A number with its interval as a cell of a table: a line may end before the bracket, not in it.

    >>> breakable("0.61 (0.56 to 0.66)").replace(NARROW, "_")
    '0.61 (0.56_to_0.66)'
    """
    head, bracket, rest = text.partition(" (")
    return head + bracket + rest.replace(" ", NARROW)


@dataclass(frozen=True)
class Measure:
    """A measure of performance: its name, and what guessing gives (None: depends)."""

    title: str
    no_skill: float | None = None


MEASURES = {
    "harrell_c": Measure("Harrell’s C", 0.5),
    "uno_c": Measure("Uno’s C", 0.5),
    "auc_t": Measure("AUC(t)", 0.5),
    "mean_auc": Measure("Mean AUC(t)", 0.5),
    "brier": Measure("Brier score"),
    "brier_scaled": Measure("Scaled Brier score"),
    "ibs": Measure("Integrated Brier score"),
    "calibration_slope": Measure("Calibration slope", 0.0),
    "observed_expected": Measure("Observed / expected"),
    "ici": Measure("ICI"),
    "e50": Measure("E50"),
    "e90": Measure("E90"),
    "auc": Measure("AUC", 0.5),
    "balanced_accuracy": Measure("Balanced accuracy"),
    "accuracy": Measure("Accuracy"),
    "log_loss": Measure("Log loss"),
    "log_rank_p": Measure("Log-rank p"),
    "hazard_ratio_high_low": Measure("Hazard ratio of high to low risk"),
}


def describe(name: str) -> Measure:
    """The measure of that name in ``measures.csv``; an unknown one by its own name.

    >>> describe("uno_c").title, describe("my_score").title
    ('Uno’s C', 'my score')
    """
    return MEASURES.get(name, Measure(name.replace("_", " ")))


_shown: ContextVar[bool] = ContextVar("identifiers", default=False)

#: An absolute path, of Windows too, or in a URL's notation.
_PATH = re.compile(r"(?<![^\s'\"(=,:])(?:file:(?://)?)?(?!//)(?:~?/|[A-Za-z]:\\)[^\s,;:'\"()<>]*[\w\]]")
#: Of a series or an instance of DICOM.
_UID = re.compile(r"\b[0-2](?:\.\d+){5,}\b")
_WORD = re.compile(r"[^\s,;:'\"()<>]+")
#: Shorter numbers are taken for numbers.
_LEAST_DIGITS = 5


@contextmanager
def identifiers_shown(shown: bool) -> Iterator[None]:
    """Whether the page that is written within shows identifiers and paths as they are."""
    token = _shown.set(shown)
    try:
        yield
    finally:
        _shown.reset(token)


def named(identifier: str) -> str:
    """What the page calls a patient or case: twelve hex digits, as in task keys and the log; or the identifier."""
    return identifier if _shown.get() or not identifier else short_hash(identifier)


def without_names(reason: str, own: Collection[str], others: Collection[str] = ()) -> str:
    """A reason without paths and UIDs, without ``own`` identifiers, and without ``others`` where they stand as words.

    >>> without_names("Meier has two series: /data/Meier/1, Meier_ct.nrrd (/data/Meier)", ["Meier"])
    '05c2d2b4cad1 has two series: a path, 05c2d2b4cad1_ct.nrrd'
    >>> without_names("no image that it references (series: 1.2.826.0.1.3680043.8.498.48920)", [])
    'no image that it references (series: a UID)'
    >>> without_names("2 patients joined although they differ in spelling: 'gbm-7' is 'gbm-007_x'.", [])
    '2 patients joined although they differ in spelling: an ID in two spellings.'
    """
    if _shown.get():
        return reason
    reason = SAME_PATIENT.sub("an ID in two spellings", reason)
    reason = _UID.sub("a UID", _PATH.sub("a path", reason).replace(" (a path)", ""))
    for identifier in sorted(filter(_telling, own), key=len, reverse=True):
        reason = re.sub(rf"(?<![A-Za-z0-9]){re.escape(identifier)}(?![A-Za-z0-9])", short_hash(identifier), reason)
    return _WORD.sub(lambda word: named(word[0]) if word[0] in others and _telling(word[0]) else word[0], reason)


def _telling(identifier: str) -> bool:
    return bool(identifier) and not (identifier.isdigit() and len(identifier) < _LEAST_DIGITS)


def settings(value: Any) -> Any:
    """Settings with the last part alone of each absolute path, which may have spaces where it is all of a setting.

    >>> settings({"sources": ["/home/Jane Doe/scans"], "say": "see /home/meier/a.csv, if any"})
    {'sources': ['.../scans'], 'say': 'see .../a.csv, if any'}
    """
    if _shown.get():
        return value
    if isinstance(value, Mapping):
        return {key: settings(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [settings(inner) for inner in value]
    if isinstance(value, str):
        whole = _PATH.match(value)
        return _shortened(value) if whole else _PATH.sub(lambda path: _shortened(path[0]), value)
    return value


def _shortened(path: str) -> str:
    return f".../{PurePath(path.replace(chr(92), '/')).name}"
