"""Columns that are the outcome in other words, found by their values: what no name tells.

A model that sees the follow-up, the event, or what was written down because of it, is perfect and useless. Honest
predictors do not come near: the strongest column of lifelines' and scikit-survival's public cohorts has a C-index of
0.81, and of scikit-learn's an AUC of 0.982 between the two classes that it tells apart worst (see
tests/test_leakage.py). The limits lie between.

Survival: a column is suspected that by its name and by its values is a time of delayed entry, or of another event on
the way (relapse, transplantation), which nobody knew when the follow-up began; or

* whose C-index by itself, in either direction, is above 0.95;
* that less another column has (an age at the end of the follow-up, less the age at its beginning);
* that among the cases with the event rises or falls with the time, but for a tenth of them: the time itself, a part
  of it, whether two years were survived;
* whose values or words tell, or whose being empty tells, in which cases the event was seen, with a balanced accuracy
  of 0.95 (values: each case judged by the others of its value); a number that separates them with an AUC above 0.99.

Classes: an AUC above 0.99 between any two of them, or values or empty cells that tell them, likewise.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from prognosis_dask.arrays import BoolArray, FloatArray, IntArray
from prognosis_dask.cohort.endpoints import DAYS, as_option, unit_of
from prognosis_dask.errors import StatisticsError, count
from prognosis_dask.modelling.data.columns import Encoding
from prognosis_dask.modelling.data.endpoint import Classes, Endpoint, Survival
from prognosis_dask.modelling.data.families import is_measured
from prognosis_dask.modelling.metrics.concordance import concordance

#: Above this C-index a column by itself is suspected.
MOST_C_INDEX = 0.95
#: Above this AUC, between any two classes or between cases with and without the event.
MOST_AUC = 0.99
#: From this balanced accuracy on values are taken to tell the event or the class.
_TELLS = 0.95
#: Share of the cases with the event that may be off a monotone function of time.
_EXCEPTIONS = 0.1
#: Fewer cases, or fewer with the event or in a class, say nothing.
_FEWEST_CASES, _FEWEST_EVENTS, _FEWEST_OF_CLASS = 20, 10, 5
#: Among fewer comparable pairs one of many random columns reaches the limit.
_FEWEST_PAIRS = 200
#: Columns of so many different values at most are taken as words are.
_MOST_VALUES = 12
#: Of a column that may be known only later: of the cases without it this share ended before the first of those with it,
#: which has at most this probability if the ends do not depend on it.
_ENDED, _BY_CHANCE = 0.2, 1e-6
#: Cases that all columns are looked at on; those that stand out are then looked at on all.
_SAMPLE = 250
#: Columns of numbers whose differences are looked at, if there are no more.
_MOST_PAIRED = 40

_ENTRY = re.compile(
    r"t?(entry|start)(time|days|months|years)?|(left|delayed)(truncat\w*|entry)(time|days|months|years)?"
)

_TIME = re.compile(r"time|duration|days|weeks|months|years")
#: Rounding of times in months or years, as a share of the follow-up.
_ROUNDING = 0.01

Pairs = tuple[FloatArray, FloatArray, FloatArray]


@dataclass(frozen=True)
class Leak:
    """A suspected column, and what it does."""

    column: str
    why: str


def expect_no_leaks(encodings: Sequence[Encoding], X: FloatArray, endpoint: Endpoint, named: Iterable[str]) -> None:
    """Refuse columns that are the outcome in other words, unless the specification names them.

    Parameters
    ----------
    encodings
        How columns became features.
    X
        Their features, shape (cases, features); NaN where a value is missing.
    endpoint
        What is to be predicted.
    named
        Columns that somebody has looked at.

    Raises
    ------
    StatisticsError
        Names them with what each does, and the lines that leave them out or keep them.
    """
    known = set(named)
    leaks = [leak for leak in find_leaks(encodings, X, endpoint) if leak.column not in known]
    if not leaks:
        return
    shown = "; ".join(f"{leak.column!r} {leak.why}" for leak in leaks[:5])
    names = json.dumps([leak.column for leak in leaks], ensure_ascii=False)
    raise StatisticsError(
        f"{count(len(leaks), 'column')} may be the outcome in other words: {shown}"
        f"{f'; and {len(leaks) - 5} more' if len(leaks) > 5 else ''}\n"
        f"To leave out, at the top of the specification (or with --set): exclude = {names}. To keep a feature that "
        f"is known before the outcome, name it: [column.{json.dumps(leaks[0].column, ensure_ascii=False)}]"
    )


def immortal_notes(encodings: Sequence[Encoding], X: FloatArray, endpoint: Endpoint) -> list[str]:
    """Notes on columns as of a later treatment: who has it was followed up to some day, before which many others ended.

    Events and censoring count alike, for a prognosis keeps nobody from being censored.

    Parameters
    ----------
    encodings, X, endpoint
        As in :func:`expect_no_leaks`.
    """
    if not isinstance(endpoint, Survival) or len(X) < _FEWEST_CASES or endpoint.entry_days is not None:
        return []
    time, censored = endpoint.observed_days, ~endpoint.any_event
    owner = [encoding for encoding in encodings for _ in encoding.features]
    notes: dict[str, str] = {}
    for encoding, values in zip(owner, X.T, strict=True):
        if is_measured(encoding.family) or len(np.unique(values[np.isfinite(values)])) != 2:
            continue
        has = values == np.nanmax(values)
        if has.sum() < _FEWEST_EVENTS:
            continue
        first = float(time[has].min())
        ended = time[~has] < first
        share, lost = float(ended.mean()), float((ended & censored[~has]).mean())
        if share >= _ENDED and lost > 0 and (1 - share) ** int(has.sum()) < _BY_CHANCE:
            notes[encoding.column] = (
                f"{encoding.column}: no case with this value ({int(has.sum())}) was followed for less than {first:.4g} "
                f"days, but {share:.0%} of the {int((~has).sum())} others were. If it was given or found during "
                "follow-up, patients who died early could not have it: "
                f"{as_option('exclude', [encoding.column])} leaves it out."
            )
    return list(notes.values())


def site_notes(site: Sequence[str], endpoint: Endpoint) -> list[str]:
    """A note where the site reveals the outcome: what is harmonised by it then carries the outcome, or has lost it."""
    if len(site) < _FEWEST_CASES or len(set(site)) < 2:
        return []
    label = endpoint.event.astype(np.int64) if isinstance(endpoint, Survival) else endpoint.label
    what = "in which cases the event was seen" if isinstance(endpoint, Survival) else "the class"
    codes = np.unique(np.array(site), return_inverse=True)[1].astype(float)[:, None]
    if np.bincount(label).min() < _FEWEST_OF_CLASS or not _telling(codes, label):
        return []
    return [
        f"The site reveals {what}: harmonised features then carry the outcome, or have lost it, and their figures do "
        "not apply to cases of one site."
    ]


def find_leaks(encodings: Sequence[Encoding], X: FloatArray, endpoint: Endpoint) -> list[Leak]:
    """The columns that are suspected, in their order; see this module. Shapes as in :func:`expect_no_leaks`."""
    codes = _codes(encodings, X)
    words = np.array([bool(encoding.levels) and not encoding.ordered for encoding in encodings], dtype=bool)
    if isinstance(endpoint, Survival):
        if len(X) < _FEWEST_CASES or endpoint.event.sum() < _FEWEST_EVENTS:
            return []
        found = _of_times(encodings, codes, endpoint) | _of_survival(codes, words, endpoint)
        found |= _of_differences(encodings, codes, endpoint, found)
        found |= _of_entry(encodings, codes, endpoint)
    else:
        found = _of_classes(codes, words, endpoint)
    leaks = {encodings[at].column: why for at, why in sorted(found.items(), reverse=True)}
    return [Leak(column, why) for column, why in reversed(leaks.items())]


def _codes(encodings: Sequence[Encoding], X: FloatArray) -> FloatArray:
    """One number per column and case: the feature, or the word's place among the levels."""
    starts = np.cumsum([0, *(len(encoding.features) for encoding in encodings)])
    codes = X[:, starts[:-1]].copy()
    for at, encoding in enumerate(encodings):
        if len(encoding.features) > 1:
            ones = X[:, starts[at] : starts[at + 1]]
            codes[:, at] = np.where(np.isnan(ones).any(axis=1), np.nan, ones @ np.arange(1.0, ones.shape[1] + 1))
    return codes


def _of_survival(codes: FloatArray, words: BoolArray, endpoint: Survival) -> dict[int, str]:
    time, event = endpoint.outlived_days, endpoint.event
    order = np.lexsort((~event, time))
    some = order[np.unique(np.linspace(0, len(order) - 1, _SAMPLE).astype(int))]
    X, t, e = codes[some], time[some], event[some]
    events = np.flatnonzero(e)
    later = (t[events, None] < t) | ((t[events, None] == t) & ~e)
    survived, of_events, told = (_pairs(X, events, mask) for mask in (later, later & e, np.tile(~e, (len(events), 1))))
    found: dict[int, str] = {}
    for at in np.flatnonzero(_auc(survived) > MOST_C_INDEX - 0.04):
        value = _c_index(codes[:, at], endpoint)
        if value > MOST_C_INDEX:
            found[int(at)] = f"has a C-index of {value:.3f} by itself"
    for at in np.flatnonzero((_untied(of_events) > 0.8) | words):
        if _follows_time(codes[:, at], endpoint, word=bool(words[at])):
            found.setdefault(int(at), "follows the time of the event")
    if (~event).sum() >= _FEWEST_OF_CLASS:
        said = "in which cases the event was seen"
        for at, how in _telling(codes, event.astype(np.int64)).items():
            found.setdefault(at, f"tells {how} {said}")
        separating = _auc(told, fewest=_FEWEST_PAIRS)
        for at in np.flatnonzero(separating > MOST_AUC):
            found.setdefault(int(at), f"tells {said} (AUC {separating[at]:.3f})")
    return found


def _of_differences(
    encodings: Sequence[Encoding], codes: FloatArray, endpoint: Survival, known: Collection[int]
) -> dict[int, str]:
    """Columns that are the follow-up when another is taken from them, as an age or a date at its end.

    ``known``: what is the outcome by itself, and remains it whatever is taken from it.
    """
    numbers = [
        at
        for at, one in enumerate(encodings)
        if at not in known and not (one.levels or one.log or is_measured(one.family))
    ]
    pairs = [(i, j) for place, i in enumerate(numbers) for j in numbers[:place]]
    if not pairs or len(numbers) > _MOST_PAIRED:
        return {}
    first, second = np.array(pairs).T
    rows = np.unique(np.linspace(0, len(codes) - 1, _SAMPLE).astype(int))
    endpoint = Survival(endpoint.observed_days, endpoint.any_event)  # a follow-up ends with whichever event comes first
    time, event = endpoint.time_days[rows], endpoint.event[rows]
    events = np.flatnonzero(event)
    later = (time[events, None] < time) | ((time[events, None] == time) & ~event)
    likely = _auc(_pairs(codes[rows][:, first] - codes[rows][:, second], events, later)) > MOST_C_INDEX - 0.04
    found: dict[int, str] = {}
    for i, j in zip(first[likely].tolist(), second[likely].tolist(), strict=True):
        value = _c_index(codes[:, i] - codes[:, j], endpoint)
        if value > MOST_C_INDEX:
            last, start = (i, j) if np.nanmean(codes[:, i]) > np.nanmean(codes[:, j]) else (j, i)
            found[last] = f"less {encodings[start].column!r} has a C-index of {value:.3f}"
    return found


def _of_entry(encodings: Sequence[Encoding], codes: FloatArray, endpoint: Survival) -> dict[int, str]:
    """Columns that by name and values are times from which on a case was followed: a survivor until then."""
    below = np.nan_to_num(codes, nan=0.0) <= endpoint.observed_days[:, None]
    most = below.mean(axis=0) > 1 - _EXCEPTIONS  # a slip in one row makes it no property
    named = [_ENTRY.fullmatch(re.sub(r"[\W_]+", "", one.column.casefold())) is not None for one in encodings]
    return {
        int(
            at
        ): f"is a time of delayed entry by its name ({as_option('endpoint.entry', encodings[at].column)} models it)"
        for at in np.flatnonzero(named & most)
    }


def _of_times(encodings: Sequence[Encoding], codes: FloatArray, endpoint: Survival) -> dict[int, str]:
    """Columns that by name and values are times of another event within the follow-up: relapse, transplantation.

    No value is later than the end of the case's follow-up, and one in ten lies in its second half: a time that was
    known at the beginning (from diagnosis to the image, say) knows nothing of how long a case will be followed. Where a
    tenth of the cases has none, as of an event that not all had, one in ten after its first tenth suffices.
    """
    found = {}
    for at, one in enumerate(encodings):
        values = codes[:, at]
        known = np.isfinite(values)
        unit = unit_of(one.column)
        if (
            one.levels
            or not (unit or _TIME.search(one.column.casefold()))
            or len(np.unique(values[known])) < _FEWEST_EVENTS
        ):
            continue
        late = 0.5 if known.mean() > 0.9 else 0.1
        for days in (DAYS[unit],) if unit else DAYS.values():  # a unit that the heading does not name is any of them
            share = values[known] * days / endpoint.observed_days[known]
            if share.min() >= 0 and share.max() <= 1 + _ROUNDING and (share > late).mean() >= 0.1:
                found[at] = "is a time within the follow-up by its name and values, as of another event"
    return found


def _of_classes(codes: FloatArray, words: BoolArray, endpoint: Classes) -> dict[int, str]:
    label = endpoint.label
    sizes = np.bincount(label, minlength=len(endpoint.names))
    present = np.flatnonzero(sizes)
    if len(label) < _FEWEST_CASES or len(present) < 2 or sizes[present].min() < _FEWEST_OF_CLASS:
        return {}
    worst = np.ones(codes.shape[1])
    for i, one in enumerate(present):
        for other in present[i + 1 :]:
            mine, theirs = np.flatnonzero(label == one), np.flatnonzero(label == other)
            mine, theirs = mine[: _SAMPLE * 2], theirs[: _SAMPLE * 2]
            X = codes[np.concatenate([mine, theirs])]
            mask = np.tile(np.arange(len(X)) >= len(mine), (len(mine), 1))
            worst = np.fmin(worst, _auc(_pairs(X, np.arange(len(mine)), mask), fewest=_FEWEST_PAIRS))
    found = {int(at): f"has an AUC of {worst[at]:.3f} by itself" for at in np.flatnonzero((worst > MOST_AUC) & ~words)}
    return {at: f"tells {how} the class" for at, how in _telling(codes, label).items()} | found


def _pairs(X: FloatArray, first: IntArray, later: BoolArray) -> Pairs:
    """Per column: pairs in which the first has more, in which it has less, and all in which both have a value.

    ``first``: rows, shape (first,); ``later``: whom each is compared with, shape (first, rows).
    """
    known = np.isfinite(X)
    more, less, both = (np.zeros(X.shape[1]) for _ in range(3))
    for row, mask in zip(first, later, strict=True):
        with np.errstate(invalid="ignore"):
            more += (X[row] > X[mask]).sum(axis=0)
            less += (X[row] < X[mask]).sum(axis=0)
        both += known[row] * known[mask].sum(axis=0)
    return more, less, both


def _auc(pairs: Pairs, fewest: int = 1) -> FloatArray:
    """Share of the pairs in one order, ties half, in whichever direction is the better one; of few pairs one half."""
    more, less, both = pairs
    share = np.divide(more + 0.5 * (both - more - less), both, out=np.full(len(both), 0.5), where=both > 0)
    return np.where(both >= fewest, np.maximum(share, 1 - share), 0.5)


def _untied(pairs: Pairs) -> FloatArray:
    """The same of the pairs that are not tied."""
    more, less, _ = pairs
    return np.divide(np.maximum(more, less), more + less, out=np.full(len(more), 0.5), where=more + less > 0)


def _c_index(values: FloatArray, endpoint: Survival) -> float:
    known = np.isfinite(values)
    everybody = replace(endpoint.rows(known), entry_days=None)  # pairs that were not at risk together give it away too
    found = concordance(everybody, values[known])
    value = max(found.c_index, 1 - found.c_index)
    return value if found.comparable >= (_FEWEST_PAIRS if value < 1 else _FEWEST_PAIRS // 3) else 0.5


def _follows_time(values: FloatArray, endpoint: Survival, *, word: bool) -> bool:
    """Whether, among cases with the event, a column is a monotone function of time but for few of them.

    Exceptions are counted against the cases that have not the most frequent value, so that rare values cannot hide.
    """
    chosen = endpoint.event & np.isfinite(values)
    time, x = endpoint.time_days[chosen], values[chosen]
    levels, place, counts = np.unique(x, return_inverse=True, return_counts=True)
    varying = len(x) - int(counts.max(initial=0))
    if len(x) < _FEWEST_EVENTS or varying < _FEWEST_EVENTS - 2:
        return False
    if word:
        middle = np.array([np.median(time[place == level]) for level in range(len(levels))])
        x = middle[place]
    if not np.ptp(x) or not np.ptp(time):
        return False
    allowed = int(_EXCEPTIONS * varying) if len(x) >= _FEWEST_CASES else 0
    return any(len(x) - _longest(side[np.lexsort((side, time))]) <= allowed for side in (x, -x))


def _longest(values: FloatArray) -> int:
    """Length of the longest part of a sequence, in its order, that never falls."""
    ends: list[float] = []
    for value in values.tolist():
        at = bisect_right(ends, value)
        ends[at : at + 1] = [value]
    return len(ends)


def _telling(codes: FloatArray, label: IntArray) -> dict[int, str]:
    """Columns whose few values, or whose empty cells, tell the label."""
    found: dict[int, str] = {}
    ordered = np.sort(codes[:_SAMPLE], axis=0)
    with np.errstate(invalid="ignore"):
        few = (np.diff(ordered, axis=0) > 0).sum(axis=0) < _MOST_VALUES
    for at in np.flatnonzero(few):
        values = np.unique(codes[:, at], return_inverse=True)[1]  # NaN is a value
        if values.max() < _MOST_VALUES + 1 and _balanced_accuracy(values, label) >= _TELLS:
            found[int(at)] = "by its values"
    empty = np.isnan(codes)
    seen: dict[bytes, bool] = {}
    for at in np.flatnonzero(empty.any(axis=0) & ~empty.all(axis=0)):
        pattern = empty[:, at].tobytes()
        if pattern not in seen:
            seen[pattern] = _balanced_accuracy(empty[:, at].astype(np.int64), label) >= _TELLS
        if seen[pattern]:
            found[int(at)] = "by being empty or not"
    return found


def _balanced_accuracy(values: IntArray, label: IntArray) -> float:
    """Mean over the classes of the share of cases that the other cases of the same value would be told apart by."""
    table = np.zeros((values.max() + 1, label.max() + 1))
    np.add.at(table, (values, label), 1)
    shares = []
    for k in np.flatnonzero(table.sum(axis=0)):
        mine = table[:, k] - 1
        others = np.delete(table, k, axis=1).max(axis=1, initial=0)
        right = np.where(mine > others, 1.0, np.where((mine == others) & (mine > 0), 0.5, 0.0))
        shares.append(float((right * table[:, k]).sum() / table[:, k].sum()))
    return float(np.mean(shares))
