"""Which columns become features and how: learnt from the cells, or as a specification or a frozen model says."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from prognosis_dask.arrays import FloatArray
from prognosis_dask.cohort.clinical import key
from prognosis_dask.config.fields import given_keys
from prognosis_dask.errors import StatisticsError, count
from prognosis_dask.modelling.data.columns import (
    OTHER,
    RARE,
    Encoding,
    SourceColumn,
    apart_notes,
    encode,
    far_code_notes,
    far_codes,
    learn_encoding,
    slip_notes,
    tells_the_outcome,
    unit_of,
)
from prognosis_dask.modelling.data.doubts import (
    age_notes,
    design_notes,
    excel_date_notes,
    kinds_notes,
    no_stage_notes,
    row_name_notes,
    serial_date_notes,
    share_notes,
    slip_of_pen_notes,
    spelling_notes,
)
from prognosis_dask.modelling.data.families import computed_families, family_of, is_of_images, kind_of, plain_family
from prognosis_dask.modelling.data.outcomes import Outcomes
from prognosis_dask.modelling.data.sources import Source, matching
from prognosis_dask.modelling.spec import ColumnRule, ModelSpec
from prognosis_dask.tables.headings import no_property
from prognosis_dask.tables.values import KnownCells

#: Columns by their source's place and their name.
Columns: TypeAlias = Mapping[tuple[int, str], SourceColumn]
#: A column with one of these words in a cell of its own is follow-up, whatever its name.
_VITAL = frozenset(
    [
        "dead",
        "died",
        "deceased",
        "death",
        "expired",
        "alive",
        "living",
        "dod",
        "dead of disease",
        "ned",
        "awd",
        "lost to follow-up",
    ]
)
#: Volumes among pyradiomics' features, taken as the volume where no column is one, the first that is there.
_VOLUMES = ("original_shape_MeshVolume", "original_shape_VoxelVolume")


def needed_families(spec: ModelSpec) -> Container[str]:
    """The families that the procedures may see: all where one of them may see all."""
    named = [(*procedure.families, *procedure.forced) for procedure in spec.procedure.values() if procedure.families]
    everything = not named or len(named) < len(spec.procedure)
    return _Needed(everything, frozenset(family for families in named for family in families))


@dataclass(frozen=True)
class _Needed:
    """Families by name; a kind stands for its families of every modality."""

    everything: bool
    names: frozenset[str]

    def __contains__(self, family: object) -> bool:
        return self.everything or bool({str(family), kind_of(str(family))} & self.names)


def learn_encodings(
    sources: Sequence[Source],
    columns: Columns,
    spec: ModelSpec,
    outcomes: Outcomes | None,
    needed: Container[str],
) -> tuple[list[Encoding], list[str]]:
    """How every column that may be a feature becomes one, and notes on those that do not.

    Image features of families that are not ``needed`` are no features; others describe the cases in Table 1, and may
    hold what they like.

    Raises
    ------
    StatisticsError
        When none does, a column holds numbers and words, or stands in two sources, or the specification names one that
        is not there.
    """
    taken = {spec.site, *(outcomes.columns if outcomes else ()), *_excluded(columns, spec)}
    encodings: list[Encoding] = []
    left_out: dict[str, list[str]] = {reason: [] for reason in (_OUTCOME_LIKE, _NO_PROPERTY, _UNUSABLE)}
    notes: list[str] = []
    coded: list[SourceColumn] = []
    for place, source in enumerate(sources):
        names = [name for name in source.features if name not in taken]
        plain = source.family or ("features" if spec.procedure else plain_family(names))
        for name in names:
            rule = spec.column.get(name, ColumnRule())
            family = rule.family or source.families.get(name) or family_of(name, plain)
            if name not in spec.column and (reason := _not_a_feature(source, name)):
                left_out[reason[0]].append(reason[1])
                continue
            if family not in needed and is_of_images(family):
                continue
            column = with_missing(columns[place, name], spec)
            made = _encoding(column, family, rule, lenient=family not in needed)
            if isinstance(made, str):
                left_out[_UNUSABLE].append(f"{name} ({made})")
                continue
            modality, roi = source.measured.get(name, ("", ""))
            encodings.append(replace(made, modality=modality, roi=roi))
            notes += grouped_note(made) + spelling_notes(made) + excel_date_notes(made)
            notes += [] if rule.levels else no_stage_notes(made) + slip_of_pen_notes(made, column)
            notes += _not_logged(column, made, rule)
            if kind_of(family) not in computed_families() and not made.levels:
                coded += [column] * (has_codes := len(far_codes(column)[0]) > 0)
                if not is_of_images(family):
                    notes += slip_notes(column) or ([] if has_codes else apart_notes(column))
                    notes += kinds_notes(column) + age_notes(column) + design_notes(column)
                    notes += (serial_date_notes(column) or row_name_notes(column)) + share_notes(column)
    notes += far_code_notes(*coded)
    copies, told = _copies(columns, spec, encodings)
    encodings += copies
    notes += told
    if spec.missing_indicators:
        encodings += _indicators(columns, encodings)
    notes += [reason.format(_listed(names)) for reason, names in left_out.items() if names]
    _expect_names(spec, columns, encodings)
    if not encodings:
        raise StatisticsError(f"{sources[0].where} has no column that can be a feature; {' '.join(notes)}")
    return encodings, notes


def with_missing(column: SourceColumn, spec: ModelSpec) -> SourceColumn:
    """The column with what the specification says is not known in it."""
    missing = spec.column[column.name].missing if column.name in spec.column else ()
    return replace(column, missing=missing) if missing else column


_OUTCOME_LIKE = "Left out, since they look like an outcome: {}."
_NO_PROPERTY = "Left out, since they number, name or date the rows: {}; [column.NAME] in the specification keeps one."
_UNUSABLE = "Left out: {}."


def _listed(names: Sequence[str], most: int = 40) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _not_a_feature(source: Source, name: str) -> tuple[str, str] | None:
    """Why a column that nobody named is no feature of a patient, with its name; None where it may be one."""
    if tells_the_outcome(name):
        return _OUTCOME_LIKE, name
    family = family_of(name)
    if name in source.families or is_of_images(family):
        return None
    column = source.columns[name]
    texts = [] if isinstance(column.cells, np.ndarray) else column.cells
    if column.plain is None and not _VITAL.isdisjoint(text.casefold() for text in set(texts)):
        return _OUTCOME_LIKE, f"{name} (says who is alive)"
    why = no_property(name, column.plain, texts, source.patients)
    if family and not why.startswith("holds dates"):  # age and stage are properties, and a date of surgery is none
        return None
    return (_NO_PROPERTY, f"{name} ({why})") if why else None


def _not_logged(column: SourceColumn, made: Encoding, rule: ColumnRule) -> list[str]:
    """What is to be said of a volume whose logarithm a few rows forbid, where nobody decided on it."""
    if made.family != "volume" or made.log or made.levels or "log" in given_keys(rule):
        return []
    values = column.numbers()
    wrong = np.flatnonzero(values <= 0).tolist()
    if not wrong or not (values > 0).any():
        return []
    more = f" and not above zero in {len(wrong) - 1} more" if len(wrong) > 1 else ""
    return [
        f"{column.name} enters as it is and not by its logarithm, since it is {values[wrong[0]]:g} in data row "
        f"{column.row(wrong[0])}{more}: empty it, if no volume was measured."
    ]


def grouped_note(encoding: Encoding) -> list[str]:
    """What is to be said of a column whose rare words are one level."""
    if not encoding.grouped:
        return []
    words = _listed(encoding.grouped, 8)
    name = json.dumps(encoding.column, ensure_ascii=False)
    return [
        f"{encoding.column}: {count(len(encoding.grouped), 'word')} in fewer than {RARE} rows each became {OTHER!r} "
        f"({words}); levels in [column.{name}] keeps them apart."
    ]


def _excluded(columns: Columns, spec: ModelSpec) -> set[str]:
    names = dict.fromkeys(name for _, name in columns)
    return set(matching("the specification", names, spec.exclude, "exclude"))


def _encoding(column: SourceColumn, family: str, rule: ColumnRule, *, lenient: bool = False) -> Encoding | str:
    if rule.levels:
        return Encoding(column.name, family, rule.unit, rule.levels, rule.ordered, missing=rule.missing)
    try:
        learnt = learn_encoding(column, family)
    except StatisticsError as error:
        if not lenient:
            raise
        return f"not used: {error}"
    if isinstance(learnt, str):
        return learnt
    logged = rule.log
    if family == "volume" and "log" not in given_keys(rule) and not learnt.levels:
        logged = bool((column.numbers() > 0).any()) and not (column.numbers() <= 0).any()
    return replace(
        learnt,
        unit=rule.unit or learnt.unit or unit_of(column.name, kind_of(family)),
        log=logged and not learnt.levels,
        missing=rule.missing,
    )


def _copies(columns: Columns, spec: ModelSpec, encodings: Sequence[Encoding]) -> tuple[list[Encoding], list[str]]:
    """The columns that appear a second time under another name, those asked for and the volume; and notes on them."""
    by_name = {name: column for (_, name), column in columns.items()}
    made, notes = list[Encoding](), list[str]()
    for name, rule in spec.column.items():
        if rule.copy_of:
            if rule.copy_of not in by_name:
                raise StatisticsError(f"column {name!r} is to be a copy of {rule.copy_of!r}, and there is none")
            column = replace(by_name[rule.copy_of], missing=rule.missing or by_name[rule.copy_of].missing)
            copied = _encoding(column, rule.family or "clinical", rule)
            if isinstance(copied, str):
                raise StatisticsError(f"column {name!r} is to be a copy of {rule.copy_of!r}, which {copied}")
            made.append(replace(copied, name=name))
            notes += _not_logged(column, copied, rule)
    if "volume" not in {encoding.family for encoding in (*encodings, *made)}:
        source = next((name for name in _VOLUMES if name in by_name), None)
        if source is not None:
            rule = ColumnRule(unit="mm^3")
            volume = _encoding(by_name[source], "volume", rule)
            if isinstance(volume, Encoding):
                made.append(replace(volume, name="volume"))
                notes += _not_logged(by_name[source], volume, rule)
    return made, notes


def _indicators(columns: Columns, encodings: Sequence[Encoding]) -> list[Encoding]:
    """What says where a column lacks values, for each that does in some rows and not in all; not for image features."""
    by_name = {name: column for (_, name), column in columns.items()}
    made = []
    for encoding in encodings:
        if is_of_images(encoding.family):
            continue
        indicator = replace(
            encoding,
            name=f"{encoding.name or encoding.column} is missing",
            unit="",
            levels=(),
            ordered=False,
            log=False,
            indicator=True,
            words=encoding.levels,
        )
        column = by_name[encoding.column]
        missing, _ = encode(indicator, replace(column, missing=encoding.missing) if encoding.missing else column)
        if 0 < missing.sum() < len(missing):
            made.append(indicator)
    return made


def _expect_names(spec: ModelSpec, columns: Columns, encodings: Sequence[Encoding]) -> None:
    present = {name for _, name in columns}
    for name, rule in spec.column.items():
        if not rule.copy_of and name not in present:
            raise StatisticsError(f"the specification names the column {name!r}, and no table has it")
    counts = Counter(name for encoding in encodings for name in encoding.features)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        where = sorted({column.where for (_, name), column in columns.items() if name == twice[0]})
        raise StatisticsError(
            f"{len(twice)} columns stand in two tables ({', '.join(where)}), {twice[0]!r} first; drop them from one"
        )


def encode_columns(encodings: Sequence[Encoding], columns: Columns) -> tuple[FloatArray, tuple[str, ...], list[str]]:
    """The features, shape (rows, features), their units as the columns say, and notes on words that are no known level.

    Raises
    ------
    StatisticsError
        When a column is missing or holds what it cannot.
    """
    by_name = {name: column for (_, name), column in reversed(list(columns.items()))}
    by_key: dict[str, SourceColumn] = {}
    if not all(encoding.column in by_name for encoding in encodings):
        alike = Counter(map(key, by_name))
        by_key = {key(name): column for name, column in by_name.items() if alike[key(name)] == 1}
    found = [by_name.get(e.column) or by_key.get(key(e.column)) for e in encodings]
    absent = list(dict.fromkeys(e.column for e, column in zip(encodings, found, strict=True) if column is None))
    if absent:
        taken = count(len({e.column for e in encodings}), "column")
        raise StatisticsError(
            f"the table lacks {len(absent)} of the {taken} that the model takes: "
            f"{', '.join(absent[:5])}{', ...' if len(absent) > 5 else ''}"
        )
    parts, units, notes, words = [], list[str](), list[str](), dict[str, KnownCells]()
    for encoding, column in zip(encodings, found, strict=True):
        assert column is not None
        if encoding.missing:
            column = replace(column, missing=encoding.missing)
        values, strange = encode(encoding, column)
        parts.append(values)
        units += replace(encoding, unit=column.unit or encoding.unit).units if column.unit else encoding.units
        if strange:
            notes.append(
                f"{encoding.column} holds {', '.join(strange[:5])}, which the levels {', '.join(encoding.levels)} do "
                "not have: taken as missing."
            )
        if column.plain is None and encoding.column not in words:
            words[encoding.column] = column.known(encoding.levels)
    named = {encoding.column for encoding in encodings if encoding.levels}
    return np.hstack(parts), tuple(units), [*notes, *_not_known_notes(words, named)]


def _not_known_notes(words: Mapping[str, KnownCells], with_levels: Container[str]) -> list[str]:
    """What was taken as not known, and what as a value though elsewhere it says so, counted."""
    gone = [f"{name} {_counted(known.emptied)}" for name, known in words.items() if known.emptied]
    kept = [f"{name} {_counted(known.kept)}" for name, known in words.items() if known.kept and name in with_levels]
    notes = []
    if gone:
        notes.append(f"Taken as not known: {_listed(gone, 12)}; levels in [column.NAME] makes a word a value.")
    if kept:
        notes.append(f"Taken as a value: {_listed(kept, 12)}; missing in [column.NAME] makes it not known.")
    return notes


def _counted(words: Mapping[str, int]) -> str:
    return ", ".join(f"{word!r} in {count(often, 'row')}" for word, often in words.items())
