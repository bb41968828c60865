"""A column of somebody's table as numbers: what it is, its levels where it holds words, and what it may not be."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from prognosis_dask.arrays import FloatArray, IntArray
from prognosis_dask.cohort.clinical import key
from prognosis_dask.errors import StatisticsError, count
from prognosis_dask.modelling.data.families import family_of
from prognosis_dask.tables.values import KnownCells, known_cells

#: More different words than this in one column are names, dates or remarks, not levels.
MOST_LEVELS = 12
#: A level with fewer rows is rare: with another such it is grouped under :data:`OTHER`.
RARE = 5
OTHER = "other"
#: Words that a line to paste lists at most.
_PASTED = 10
#: The square of a larger number is none; some programs write such for a missing value (Stata 8.99e307).
_LARGEST = 1e150

#: Numbers that tables write where nothing is known.
_FAR_CODES = frozenset([9.0, 99.0, 999.0, 9999.0, 99999.0, 88.0, 888.0, 8888.0, -1.0, -9.0, -99.0, -999.0, -9999.0])
#: Others, which stand for "refused" or "not applicable", mostly beside one of those; in so many rows at least.
_OTHER_CODES = frozenset([*(c - k for c in (9, 99, 999, 9999) for k in (1, 2)), 77, 777, 888, 7777, *range(-9, 0)])
_OFTEN, _MOST_CODES = 3, 3
#: A scale that goes below zero, of so few whole numbers one after the other, has no codes.
_MOST_LEVELS_OF_SCALE = 6
#: A zero below all other numbers by this share of their range stands for something else.
_FAR = 0.3
#: Of so many numbers or more, one that is so many times the next largest may be a slip.
_FEWEST_NUMBERS, _SLIP = 20, 10
#: The others of numbers apart are so many different ones, and so many times as large or small.
_FEWEST, _APART = 6, 3
#: More numbers than this share that are so much larger are no other unit, but what the column holds.
_MOST_OTHERS = 0.25
#: A feature that is the outcome in other words would be the best of all.
_OUTCOME = re.compile(
    r".*(surviv|death|dead|deceas|recurr|relapse|progressi|followup|vitalstatus|duration|censor|überleb|ueberleb|verstorben|"
    r"rezidiv|survie|décès|décédé|récidive).*|"
    r"(os|dfs|pfs|pfi|dfi|efs|rfs|css|dss|lrfs|dmfs|mfs|lrc|dm|ttp)(time|event|status|days|weeks|months|years)?|time(days|tod\w+)?|event\w*|status|label|outcome"
)
_STAGE_LEVEL = re.compile(r"(?:stage)?(0|i{1,3}|iv)([abc]?)(\d?)")
_TNM_LEVEL = re.compile(r"[cpyr]*[tnmg]?(is|[0-4])([a-d]?)")
_WITH_UNIT = re.compile(
    r"[<>≤≥~]\s*[-+]?[\d.,]+\s*\S*|[-+]?\d{1,3}(,\d{3})+|[-+]?[\d.,]+\s*(%|[mc]m[23²³]?|m?l|cc|[cm]?gy|[mµ]?g|kg|hu|suv|years?|yrs?|months?|days?|jahre?n?|j\.?)",
    re.IGNORECASE,
)
#: An age as DICOM writes it.
_AGE = re.compile(r"(\d{3})Y")
_ROMAN = {"0": 0, "i": 1, "ii": 2, "iii": 3, "iv": 4}


@dataclass(frozen=True)
class Encoding:
    """How one column becomes features. Plain data: kept with a frozen model, so that other tables are read alike.

    Attributes
    ----------
    column
        The column's name.
    family, unit
        What its features are.
    levels
        The words it may hold; none: it holds numbers.
    ordered
        The levels become one feature 0, 1, 2, ... in their order. Otherwise each level but the first, the reference,
        becomes a feature that is 1 where the case has it.
    log
        The feature is the natural logarithm of the number.
    name
        What the features are called after; empty: the column.
    missing
        What says in this column that nothing is known, besides the usual words.
    modality, roi
        On what the column was measured: a modality (several, joined by ``+``, where rows were pooled), and a region
        where patients have several; empty where it was not measured on an image, or nobody knows.
    indicator, words
        The feature is 1 where the column says nothing, else 0; ``words`` are the levels it may hold, () for any.
    """

    column: str
    family: str
    unit: str = ""
    levels: tuple[str, ...] = ()
    ordered: bool = False
    log: bool = False
    name: str = ""
    missing: tuple[str, ...] = ()
    modality: str = ""
    roi: str = ""
    grouped: tuple[str, ...] = ()
    indicator: bool = False
    words: tuple[str, ...] = ()

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features that the column gives.

        >>> Encoding("histology", "clinical", levels=("nos", "large cell")).features
        ('histology=large cell',)
        """
        name = self.name or self.column
        if self.log:
            return (f"ln_{name}",)
        if not self.levels or self.ordered:
            return (name,)
        return tuple(f"{name}={level}" for level in self.levels[1:])

    @property
    def units(self) -> tuple[str, ...]:
        """The unit of each feature."""
        return (f"ln({self.unit})" if self.log else self.unit,) * len(self.features)


@dataclass(frozen=True)
class SourceColumn:
    """A column as it was read: ``cells`` are texts, or numbers where the source holds numbers.

    ``where`` names the source, ``rows`` the cells' rows in it, counted from 1 below the headings; () for all.
    ``missing``: what says that nothing is known, besides the usual words.
    """

    name: str
    cells: Sequence[str] | FloatArray
    where: str
    unit: str = ""
    rows: Sequence[int] = ()
    missing: tuple[str, ...] = ()

    def row(self, at: int) -> int:
        """The cell's row in the source, for messages."""
        return self.rows[at] if self.rows else at + 1

    def known(self, named: Collection[str] = ()) -> KnownCells:
        """The cells as texts, empty where not known; ``named`` are words that are values, whatever they are."""
        if isinstance(self.cells, np.ndarray):
            return known_cells(["" if math.isnan(value) else f"{value:.15g}" for value in self.cells], (), self.missing)
        return known_cells(self.cells, named, self.missing, self.name)

    def texts(self, named: Collection[str] = ()) -> list[str]:
        """The texts of :meth:`known`."""
        return self.known(named).texts

    def numbers(self) -> FloatArray:
        """The cells as numbers, NaN where unknown.

        Raises
        ------
        StatisticsError
            When a cell is no number, or is infinite; names the row.
        """
        values = self.plain
        if values is None:
            values = np.array([number(cell) for cell in self.texts()])
            self._refuse_words(values)
        self._refuse_infinite(values)
        return values

    @cached_property
    def plain(self) -> FloatArray | None:
        """The cells as numbers where every one is a number or empty; None where words have to be looked at."""
        if self.missing:
            return None
        if isinstance(self.cells, np.ndarray):
            return np.asarray(self.cells, dtype=float)
        try:
            values = np.array([float(cell or "nan") for cell in self.cells])
        except ValueError:
            return None
        written = np.isnan(values).sum() > self.cells.count("") or "_" in "".join(self.cells)
        return None if written else values

    def _refuse_words(self, values: FloatArray) -> None:
        texts = self.texts()
        wrong = [row for row, text in enumerate(texts) if text and math.isnan(values[row])]
        if wrong:
            words = json.dumps(list(dict.fromkeys(texts[row] for row in wrong))[:_PASTED], ensure_ascii=False)
            name = json.dumps(self.name, ensure_ascii=False)
            unknown = f"\nIf it is not known there: --set 'column.{name}.missing={words}'"
            if any(re.search(r"\d", texts[row]) for row in wrong):  # <5 and 1,588 are known, if not as numbers
                unknown = ""
            raise StatisticsError(
                f"{self.where}: column {self.name!r} holds {texts[wrong[0]]!r} in data row {self.row(wrong[0])}"
                f"{f' and {len(wrong) - 1} more' if len(wrong) > 1 else ''}, expected numbers: correct the table, or "
                f"name the column's words as levels in the specification, or drop it there{unknown}"
            )

    def _refuse_infinite(self, values: FloatArray) -> None:
        wrong = np.flatnonzero(np.abs(values) > _LARGEST).tolist()
        if wrong:
            seen = "infinite" if np.isinf(values[wrong[0]]) else f"{values[wrong[0]]:g}, too large to compute with,"
            raise StatisticsError(
                f"{self.where}: column {self.name!r} is {seen} in data row {self.row(wrong[0])}; correct or empty it"
            )


def number(text: str) -> float:
    """The number that a cell holds; NaN where it holds none.

    >>> number("1e3"), number("065Y"), number("12_0"), number("abc")
    (1000.0, 65.0, nan, nan)
    """
    try:
        return float(text) if text and "_" not in text else math.nan
    except ValueError:
        age = _AGE.fullmatch(text)
        return float(age[1]) if age else math.nan


def unit_of(name: str, family: str) -> str:
    """The unit of a column of pyradiomics' name; empty for any other."""
    from prognosis_dask.radiomics.parameter_file import unit

    try:
        return unit(name) if family == "radiomics" else ""
    except ValueError:  # a name in another fashion
        return ""


def tells_the_outcome(name: str) -> bool:
    """Whether a column's name says that it holds the outcome, which no model may see.

    >>> tells_the_outcome("1-year survival(1-survival;0-dead)"), tells_the_outcome("original_glcm_Contrast")
    (True, False)
    """
    plain = key(re.sub(r"\.\d+$", "", name))  # the second of two headings has a number
    return family_of(name) == "" and _OUTCOME.fullmatch(plain) is not None


def learn_encoding(column: SourceColumn, family: str) -> Encoding | str:
    """How a column becomes features, learnt from its cells; or a few words that say why it cannot.

    Numbers stay numbers. Words become levels: stages in their clinical order, others one feature each with the most
    frequent as the reference. A level that a training fold lacks is a constant column there, and pruned.

    Raises
    ------
    StatisticsError
        When most cells are numbers and some are not.
    """
    if column.plain is not None:
        return "is empty" if np.isnan(column.plain).all() else Encoding(column.name, family, column.unit)
    known = column.known()
    held = [text for text in known.texts if text]
    gone = f" besides {', '.join(map(repr, known.emptied))}, taken as not known" if known.emptied else ""
    if not held:
        return f"holds nothing{gone}" if gone else "is empty"
    staged = family == "stage" and all(map(stage_rank, held))
    numbers = sum(not math.isnan(number(text)) for text in held)
    if 2 * numbers > len(held) and not (staged and numbers < len(held)):
        column.numbers()
        return Encoding(column.name, family, column.unit)
    with_unit = [text for text in held if _WITH_UNIT.fullmatch(text)]
    if 2 * len(with_unit) > len(held):
        return (
            f"holds numbers with units or signs, such as {with_unit[0]!r}: write the numbers alone, or name its levels"
        )
    spelt: dict[str, str] = {}
    for text in held:
        spelt.setdefault(level_key(text), text)
    counts = Counter(level_key(text) for text in held)
    if staged:
        ladder = sorted(counts, key=lambda level: stage_rank(level) or (0.0, ""))
        return Encoding(column.name, family, levels=tuple(spelt[level] for level in ladder), ordered=True)
    if len(counts) == 1:
        return f"holds one word only{gone}"
    order = sorted(counts, key=lambda level: (-counts[level], level))
    rare = [level for level in order if counts[level] < RARE]
    frequent = order[: len(order) - len(rare)]
    if not _grouping_tells(counts, frequent, rare):
        frequent, rare = order, []
    if len(frequent) > MOST_LEVELS:
        return f"holds {len(counts)} different words"
    levels = [spelt[frequent[0]], *sorted(spelt[level] for level in frequent[1:]), *([OTHER] if rare else [])]
    return Encoding(column.name, family, levels=tuple(levels), grouped=tuple(spelt[level] for level in rare))


def _grouping_tells(counts: Counter[str], frequent: Sequence[str], rare: Sequence[str]) -> bool:
    """Whether rare words are to be one level: several of them, all else being most of the rows, and none called so."""
    most = 2 * sum(counts[level] for level in frequent) > sum(counts.values())
    return len(rare) > 1 and len(frequent) > 1 and most and OTHER not in frequent


def encode(encoding: Encoding, column: SourceColumn) -> tuple[FloatArray, list[str]]:
    """The column's features, shape (cases, features), and the words in it that are none of the known levels.

    Unknown words are missing values, as empty cells are.

    Raises
    ------
    StatisticsError
        When numbers are expected and a cell holds words, or none of the words is known.
    """
    if encoding.indicator:
        known = {level_key(word) for word in (*encoding.words, *encoding.grouped)}
        texts = [level_key(text) for text in column.texts(encoding.words)]
        return np.array([[float(not text or (bool(known) and text not in known))] for text in texts]), []
    if not encoding.levels:
        values = column.numbers()
        if encoding.log:
            _refuse_below_zero(values, column)
            values = np.log(values)
        return values[:, None], []
    place = {level_key(level): i for i, level in enumerate(encoding.levels)}
    place |= {level_key(word): place[OTHER] for word in encoding.grouped}
    texts = column.texts(encoding.levels)
    found = np.array([place.get(level_key(text), -1) for text in texts])
    strange = sorted({text for text, at in zip(texts, found, strict=True) if text and at < 0})
    if strange and (found < 0).all():
        raise StatisticsError(
            f"{column.where}: column {column.name!r} holds {', '.join(strange[:3])}, and none of its known levels: "
            f"{', '.join(encoding.levels)}"
        )
    missing = found < 0
    if encoding.ordered:
        return np.where(missing, np.nan, found.astype(float))[:, None], strange
    ones = (found[:, None] == np.arange(1, len(encoding.levels))).astype(float)
    return np.where(missing[:, None], np.nan, ones), strange


def level_key(text: str) -> str:
    """What levels are compared by: case, blanks and width do not count, 2.0 is 2, and ``Ⅲ`` in one sign is III."""
    value = number(text)
    plain = f"{value:.15g}" if math.isfinite(value) else unicodedata.normalize("NFKC", text)
    return " ".join(plain.split()).casefold()


def far_code_notes(*columns: SourceColumn) -> list[str]:
    """A note where a column's greatest or least numbers are far from the others, and stand for "not known".

    Of columns with the same codes the first is described, and the others are counted.

    >>> far_code_notes(SourceColumn("stage", np.array([1.0, 2.0, 9.0, 3.0, 9.0]), "t.csv"))[0][:44]
    'stage is 9 in 2 rows, far from the others (1'
    """
    notes: dict[tuple[str, ...], list[str]] = {}
    for column in columns:
        codes, low = far_codes(column)
        if len(codes):
            texts = tuple(f"{code:g}" for code in codes.tolist())
            rows = count(int(np.isin(column.numbers(), codes).sum()), "row")
            notes.setdefault(texts, []).append(
                f"{column.name} is {' or '.join(texts)} in {rows}, far from the others ({low[0]:g} to {low[-1]:g}): if "
                f'that means not known, say missing = {json.dumps(texts)} in [column."{column.name}"].'
            )
    more = [f" So it is in {count(len(of) - 1, 'more column')}." if len(of) > 1 else "" for of in notes.values()]
    return [of[0] + others for of, others in zip(notes.values(), more, strict=True)]


def far_codes(column: SourceColumn) -> tuple[FloatArray, FloatArray]:
    """The numbers that may stand for "not known", and the others, in their order; none where there are no such."""
    values = column.numbers()
    values = values[np.isfinite(values)]
    if not len(values) or {float(values.max()), float(values.min())}.isdisjoint(_FAR_CODES | _OTHER_CODES | {0.0}):
        return values[:0], values
    levels, often = np.unique(values, return_counts=True)
    found = _codes_above(levels, often) or _codes_below(levels, often)
    if found is None and _zero_stands_apart(levels):
        found = levels[:1], levels[1:]
    return found or (levels[:0], levels)


def _codes_above(levels: FloatArray, often: IntArray) -> tuple[FloatArray, FloatArray] | None:
    """The codes above all other numbers, and these: half as large at most, or the codes frequent and set apart."""
    for n in range(1, min(_MOST_CODES, len(levels) - 2) + 1):
        codes, low, frequent = levels[-n:], levels[:-n], often[-n:] >= _OFTEN
        known = np.isin(codes, [*_FAR_CODES])
        if codes[0] <= 0 or not (known | np.isin(codes, [*_OTHER_CODES]) & frequent).all():
            return None
        gap, step = codes[0] - low[-1], max(1.0, np.diff(low).max(initial=0.0))  # a score's 9 follows its 8
        apart = gap > step and gap > _FAR * (low[-1] - low[0]) > 0
        if codes[0] >= 2 * low[-1] or (apart and known.any() and frequent.all()):
            return codes, low
    return None


def _codes_below(levels: FloatArray, often: IntArray) -> tuple[FloatArray, FloatArray] | None:
    """The codes below zero where no other number is, and the others; a change and copy numbers, -2 to 1, have none."""
    n = int((levels < 0).sum())
    codes, low = levels[:n], levels[n:]
    known = np.isin(codes, [*_FAR_CODES]) | np.isin(codes, [*_OTHER_CODES]) & (often[:n] >= _OFTEN)
    if not 0 < n <= _MOST_CODES or len(levels) < 3 or not len(low) or not known.all():
        return None
    scale = codes[0] == -low[-1] or ((np.diff(levels) == 1).all() and levels[-1] - levels[0] < _MOST_LEVELS_OF_SCALE)
    return None if n > 1 and scale else (codes, low)


def _zero_stands_apart(levels: FloatArray) -> bool:
    """Whether 0 is the least of many numbers and far below them, as an age or a haemoglobin of 0."""
    if len(levels) <= MOST_LEVELS or levels[0] != 0:
        return False
    return bool(levels[1] > _FAR * (levels[-1] - levels[1]))


def slip_notes(column: SourceColumn) -> list[str]:
    """A note where one number is more than ten times as large as all others: a lost decimal sign, a date.

    Where a few are so, they may be in another unit.

    >>> slip_notes(SourceColumn("Hb", np.array([13.5, 130.0 * 100, *range(8, 16), *range(8, 18)]), "t.csv"))[0][:50]
    'Hb is 13000 in data row 2, far from the others (8 '
    """
    values = column.numbers()
    known = np.sort(values[np.isfinite(values)])
    jumps = np.flatnonzero((known[:-1] > 0) & (known[1:] > _SLIP * known[:-1])) + 1
    large = known[jumps[-1] :] if len(jumps) else known[:0]
    if (
        len(known) < _FEWEST_NUMBERS
        or len(large) > _MOST_OTHERS * len(known)
        or not _FAR_CODES.isdisjoint(large[-1:].tolist())
    ):
        return []
    return _far_from_others(column, values, large)


def apart_notes(column: SourceColumn) -> list[str]:
    """A note where a few numbers are three times the others or more, or a third, and these differ less by themselves.

    >>> apart_notes(SourceColumn("Hb", np.array([*np.arange(9, 17, 0.4), 128.0, 135.0]), "t.csv"))[0][:62]
    'Hb is 128 to 135 in 2 rows, 21 first, far from the others (9 t'
    """
    values = column.numbers()
    known = np.sort(values[values > 0])
    if len(known) < _FEWEST_NUMBERS:
        return []
    steps = np.diff(np.log(known))
    at = int(np.argmax(steps)) + 1
    few, others = sorted((known[:at], known[at:]), key=len)
    reach = max(np.log(_APART), np.log(others[-1]) - np.log(others[0]))
    if steps[at - 1] <= reach or len(few) > _MOST_OTHERS * len(known) or len(np.unique(others)) < _FEWEST:
        return []
    return _far_from_others(column, values, few)


def _far_from_others(column: SourceColumn, values: FloatArray, few: FloatArray) -> list[str]:
    """What is said of the rows with a few numbers, in their order."""
    if not len(few):
        return []
    among = (values >= few[0]) & (values <= few[-1])
    rest = values[np.isfinite(values) & ~among]
    first = column.row(int(np.flatnonzero(among)[0]))
    others = f"far from the others ({rest.min():g} to {rest.max():g})"
    if len(few) == 1:
        return [f"{column.name} is {few[0]:g} in data row {first}, {others}: correct it if it is a mistake."]
    return [
        f"{column.name} is {few[0]:g} to {few[-1]:g} in {len(few)} rows, {first} first, {others}: correct them if they "
        "are in another unit."
    ]


def _refuse_below_zero(values: FloatArray, column: SourceColumn) -> None:
    wrong = np.flatnonzero(values <= 0).tolist()
    if len(wrong):
        raise StatisticsError(
            f"{column.where}: column {column.name!r} is {values[wrong[0]]:g} in data row {column.row(wrong[0])}, "
            "expected numbers above zero, since its logarithm is taken"
        )


def stage_rank(text: str) -> tuple[float, str] | None:
    """Where a stage or a T, N or M category stands; None where it is neither.

    >>> sorted(["IV", "IIIb", "I", "IIIa"], key=lambda text: stage_rank(text))
    ['I', 'IIIa', 'IIIb', 'IV']
    """
    plain = re.sub(r"[\s._-]+", "", level_key(text))
    if stage := _STAGE_LEVEL.fullmatch(plain):
        return float(_ROMAN[stage[1]]), stage[2] + stage[3]
    if category := _TNM_LEVEL.fullmatch(plain):
        return (0.5 if category[1] == "is" else float(category[1])), category[2]
    return None
