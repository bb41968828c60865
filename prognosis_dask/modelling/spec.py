"""A model specification (TOML): which tables and columns, what is predicted, by which procedures, how validated."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from prognosis_dask.config.job import ModelSection, apply_override
from prognosis_dask.config.sections import build_section
from prognosis_dask.errors import JobError, StatisticsError, count
from prognosis_dask.modelling.data.columns import IMAGE_FAMILIES, kind_of
from prognosis_dask.modelling.data.endpoint import Classes, Survival
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.procedure import Procedure
from prognosis_dask.modelling.selectors import NEED_LABEL
from prognosis_dask.modelling.selectors.svm_rfe import settled_days
from prognosis_dask.modelling.validation.reproducibility import read_reproducible
from prognosis_dask.modelling.validation.splitting import split_patients


@dataclass(frozen=True)
class TableFile:
    """One table to join, ``[[table]]``.

    Attributes
    ----------
    path
        A CSV or XLSX file, relative to the folder that is given on the command line.
    sheet
        Of an XLSX file with several; empty: the one with a column of patients.
    id
        The column of the patients' IDs; where its heading is blank, ``(blank)``. Empty: the usual spellings.
    id_format
        What IDs look like in the other tables, with the ID's last whole number in braces: ``LUNG1-{:03d}`` makes
        LUNG1-007 of Patient-7.
    case_id
        The column of the cases' IDs where a patient has several rows.
    family
        The family of the columns that no rule and no name tells apart.
    take, drop
        Columns that are features, those that are not: names, or ``re:`` and a regular expression. No ``take``: all.
    """

    path: str
    sheet: str = ""
    id: str = ""
    id_format: str = ""
    case_id: str = ""
    family: str = ""
    take: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


@dataclass(frozen=True)
class ColumnRule:
    """What is particular about a column, ``[column."NAME"]``; see :class:`modelling.data.columns.Encoding`.

    ``copy_of``: the column is another one's copy, under this name (a radiomic volume as the volume, say). ``missing``:
    what says that nothing is known, such as 999; ``NA``, ``unknown`` and their like do without being named.
    """

    family: str = ""
    unit: str = ""
    levels: tuple[str, ...] = ()
    ordered: bool = False
    log: bool = False
    copy_of: str = ""
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class EndpointRule:
    """What is to be predicted, ``[endpoint]``: ``time`` and ``event``, or ``label``; empty: the usual spellings.

    ``time_unit``: empty for what the heading says, else days. ``event_codes``: what each value of the event means,
    where it does not say so itself: ``{ "1" = 0, "2" = 1 }`` for 2 seen and 1 censored.
    ``classes`` are the label's values in order; of two, the second is the positive one.
    """

    time: str = ""
    event: str = ""
    time_unit: Literal["", "days", "weeks", "months", "years"] = ""
    event_codes: dict[str, int] = field(default_factory=dict)
    label: str = ""
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ValidationRule:
    """How the procedures are validated, ``[validation]``.

    ``horizons_days``: times that survival is predicted at; none: of 1, 2, 3 and 5 years those within follow-up.
    ``draws``: of the bootstrap and of the permutations. ``halves``: random halves of the patients that the whole
    validation is done on for intervals that count the training; 0: intervals draw patients and keep the models.
    """

    method: Literal["nested", "bootstrap", "permutation"] = "nested"
    folds: int = 5
    repeats: int = 20
    seed: int = 0
    draws: int = 100
    halves: int = 20
    horizons_days: tuple[float, ...] = ()


@dataclass(frozen=True)
class ModelSpec:
    """A specification as a whole.

    Attributes
    ----------
    title
        The report's heading.
    table, column, endpoint
        See :class:`TableFile`, :class:`ColumnRule`, :class:`EndpointRule`.
    exclude
        Columns that are no features, in whatever table or run they stand: names, or ``re:`` and a regular expression.
    rows
        What a row is where a table holds cases of several modalities or regions, or several cases of one: ``patient``,
        with the columns of each modality side by side, or ``pooled``: every case, in the same columns.
    site
        The column that names each row's scanner or site, for harmonisation.
    source
        What the tables themselves do not say of their features (digests of parameters, weights).
    procedure
        What is compared, by name; empty: one for each family of features and one for all.
    final
        The procedure that becomes the final model; empty: the last.
    validation
        See :class:`ValidationRule`.
    """

    title: str = ""
    table: tuple[TableFile, ...] = ()
    column: dict[str, ColumnRule] = field(default_factory=dict)
    endpoint: EndpointRule = field(default_factory=EndpointRule)
    exclude: tuple[str, ...] = ()
    rows: Literal["patient", "pooled"] = "patient"
    site: str = ""
    source: dict[str, str] = field(default_factory=dict)
    procedure: dict[str, Procedure] = field(default_factory=dict)
    final: str = ""
    validation: ValidationRule = field(default_factory=ValidationRule)


def load_spec(path: Path | str | None, overrides: Sequence[str] = ()) -> ModelSpec:
    """Read a specification, or the default one where there is no path, with ``key=value`` overrides as in a job.

    A procedure's ``reproducible`` may be one CSV file of features (what ``prognosis reproducibility`` writes), relative
    to the specification's folder.

    Raises
    ------
    JobError
        When the file is missing, is not TOML, has an unknown key or a value that cannot be.
    StatisticsError
        When there is no such list of features.
    """
    data: dict[str, object] = {}
    where = str(path) if path else "the default specification"
    if path is not None:
        try:
            data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise JobError(f"no specification at {path} ({error.strerror}); examples are in jobs/models/") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise JobError(f"{path} is not TOML: {error}") from error
    for override in overrides:
        apply_override(data, override)
    try:
        spec: ModelSpec = build_section(ModelSpec, data, where)
    except StatisticsError as error:  # of a procedure
        raise JobError(f"{where}: in a [procedure], {error}") from error
    check_spec(spec, where)
    folder = Path(path).parent if path is not None else Path()
    return replace(spec, procedure={name: _with_list(of, folder) for name, of in spec.procedure.items()})


def _with_list(procedure: Procedure, folder: Path) -> Procedure:
    """The procedure with the names of a list of features, where it names a file of them."""
    match procedure.reproducible:
        case (file,) if file.endswith(".csv"):
            return replace(procedure, reproducible=read_reproducible(folder / file))
    return procedure


def check_spec(spec: ModelSpec, where: str) -> None:
    """Refuse what can be seen to be wrong before any table is read.

    Raises
    ------
    JobError
        Names the key, its value and what was expected.
    """

    def expect(condition: bool, key: str, value: object, expected: str) -> None:
        if not condition:
            raise JobError(f"{where}: {key} is {value!r}, expected {expected}")

    rule, end = spec.validation, spec.endpoint
    expect(rule.folds >= 2, "validation.folds", rule.folds, "two or more")
    expect(rule.repeats >= 1, "validation.repeats", rule.repeats, "one or more")
    expect(rule.draws >= 1, "validation.draws", rule.draws, "one or more")
    expect(rule.halves == 0 or rule.halves >= 10, "validation.halves", rule.halves, "zero, or ten or more")
    expect(all(days > 0 for days in rule.horizons_days), "validation.horizons_days", rule.horizons_days, "days above 0")
    expect(not (end.label and (end.time or end.event)), "endpoint.label", end.label, "a label, or time and event")
    expect(
        bool(end.time) == bool(end.event),
        "endpoint",
        {"time": end.time, "event": end.event},
        "both time and event, or neither",
    )
    codes = end.event_codes
    expect(set(codes.values()) <= {0, 1}, "endpoint.event_codes", codes, "1 (seen) or 0 (censored) for each value")
    known = ", ".join(spec.procedure)
    named = f"one of the procedures: {known}" if known else "a [procedure.NAME] of that name, or no final"
    expect(not spec.final or spec.final in spec.procedure, "final", spec.final, named)
    for table in spec.table:
        try:
            table.id_format.format(1)
        except (ValueError, KeyError, IndexError):
            expect(False, "table.id_format", table.id_format, "something like 'LUNG1-{:03d}'")
    for name, column in spec.column.items():
        expect(not (column.log and column.levels), f"column.{name}", "log with levels", "one of the two")
        expect(len(column.levels) != 1, f"column.{name}.levels", column.levels, "two levels or more")


# --- What is compared, and when survival is predicted, where nobody says it.


_YEAR = 365.0
#: Fewest cases that have the event up to a horizon, and fewest that are followed beyond it.
_FEWEST = 10
#: Numbers of features that are tried, besides the most that are allowed.
_GRID = (1, 2, 5, 10, 20, 50, 100)


def default_horizons(endpoint: Survival) -> tuple[float, ...]:
    """Of 1, 2, 3 and 5 years those within follow-up; else the median time of the events.

    >>> import numpy as np
    >>> default_horizons(Survival(np.arange(1.0, 1000.0, 4), np.arange(250) % 2 == 0))
    (365.0, 730.0)
    """
    years = [_YEAR * n for n in (1, 2, 3, 5)]
    before = [int((endpoint.event & (endpoint.time_days <= days)).sum()) for days in years]
    beyond = [int((endpoint.time_days > days).sum()) for days in years]
    within = [days for days, a, b in zip(years, before, beyond, strict=True) if min(a, b) >= _FEWEST]
    if within or not endpoint.event.any():
        return tuple(within)
    times = sorted(endpoint.time_days[endpoint.event].tolist())
    return (round(times[len(times) // 2]) or 1.0,)


def default_procedures(table: FeatureTable) -> dict[str, Procedure]:
    """One procedure for each family of features, volume with stage, and all of it.

    Image features by themselves are selected by SVM-RFE, and number and penalty are tuned. All families together are
    not selected but weigh the same, so that many image features do not drown a few others. The learner is Cox's model
    with a tuned ridge penalty, or logistic regression for classes.
    """
    learner = "logistic" if isinstance(table.endpoint, Classes) else "cox"
    families = list(dict.fromkeys(table.families))
    images = [family for family in families if kind_of(family) in IMAGE_FAMILIES]
    others = [family for family in families if kind_of(family) not in IMAGE_FAMILIES]
    found = {family: Procedure((family,), selector="", learner=learner) for family in others}
    if {"volume", "stage"} <= set(others):
        found["stage and volume"] = Procedure(("stage", "volume"), selector="", learner=learner)
    found |= {family: Procedure((family,), learner=learner) for family in images}
    if len(families) > 1:
        found["all"] = Procedure(tuple(families), balance_families=True, selector="", learner=learner)
    if not found:
        raise StatisticsError("the table has no features")
    return found


def job_spec(section: ModelSection, *, has_volume: bool) -> ModelSpec:
    """The specification that a job's ``[model]`` stands for: its features, and the volume alone to compare with."""
    learner = section.learner or ("logistic" if section.label else "cox")
    families = ("radiomics", "deep") if section.features == "both" else (section.features,)
    most = section.max_features
    counts = (*(k for k in _GRID if k < most), most)
    penalty = (section.penalizer,)
    procedures = {}
    if has_volume:
        procedures["volume"] = Procedure(("volume",), selector="", learner=learner, penalty=penalty)
    procedures[section.features] = Procedure(
        families,
        selector=section.selector,
        learner=learner,
        n_features=counts,
        penalty=penalty,
        label_days=section.label_days,
    )
    return ModelSpec(
        endpoint=EndpointRule(label=section.label, classes=section.classes),
        rows=section.rows,
        procedure=procedures,
        final=section.features,
        validation=ValidationRule(
            folds=section.folds, repeats=section.repeats, halves=section.halves, seed=section.seed
        ),
    )


# --- What is said where the label of a selection is not the one that was asked for.


def label_notes(table: FeatureTable, procedures: Mapping[str, Procedure], rule: ValidationRule) -> list[str]:
    """A sentence for each ``label_days`` that leaves one class only, among all cases or in a training fold.

    There the selection takes the median time of the events among its own training cases
    (:func:`prognosis_dask.modelling.selectors.svm_rfe.settled_days`).
    """
    if not isinstance(table.endpoint, Survival):
        return []
    notes = []
    for days in dict.fromkeys(p.label_days for p in procedures.values() if p.selector in NEED_LABEL):
        whole = settled_days(table.endpoint, days)
        training = list(_training(table, procedures, rule))
        other = sum(settled_days(fold.survival, days) != days for fold in training)
        if whole == days and not other:
            continue
        patients = np.array(table.patient_ids)
        dead = len(set(patients[table.event & (table.time_days <= days)]))
        folds = f"in {other} of {count(len(training), 'training set')} of the validation"
        where = f"of all cases, {whole:g} days, and {folds}" if whole != days else folds
        notes.append(
            f"{dead} of {count(len(set(patients)), 'patient')} had the event within {days:g} days (label_days), which "
            f"leaves the selection one class only: instead it took the median time of the events, {where}."
        )
    return notes


def _training(table: FeatureTable, procedures: Mapping[str, Procedure], rule: ValidationRule) -> Iterator[FeatureTable]:
    """The cases that the selection of each fold learns from, the inner folds of its tuning among them."""
    inner = {p.inner_folds for p in procedures.values() if p.selector in NEED_LABEL}
    for repeat in range(rule.repeats):
        number = split_patients(table, rule.folds, [rule.seed, repeat])
        for fold in range(rule.folds):
            train = table.rows(np.flatnonzero(number != fold))
            yield train
            for folds in inner:
                within = split_patients(train, folds, [rule.seed, repeat, fold])
                yield from (train.rows(np.flatnonzero(within != part)) for part in range(folds))
