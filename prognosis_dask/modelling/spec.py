"""A model specification (TOML): which tables and columns, what is predicted, by which procedures, how validated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from prognosis_dask.config.fields import Above, AtLeast, Unit, note_given
from prognosis_dask.config.job import EventCodes, Halves, ModelSection, Rows, Seed, TimeUnit
from prognosis_dask.config.reading import build, expect, override, read_toml
from prognosis_dask.errors import StatisticsError, count, expect_kind
from prognosis_dask.modelling.data.endpoint import Classes, Survival
from prognosis_dask.modelling.data.families import is_of_images
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.procedure import Procedure
from prognosis_dask.modelling.selectors import NEED_LABEL
from prognosis_dask.modelling.selectors.svm_rfe import settled_days
from prognosis_dask.modelling.validation.reproducibility import read_reproducible
from prognosis_dask.modelling.validation.splitting import split_patients


class IdFormat:
    """A format of IDs by their number, as ``str.format`` takes it."""

    expected = "something like 'LUNG1-{:03d}'"

    def holds(self, value: str) -> bool:
        """Whether a number can be written so."""
        try:
            value.format(1)
        except (ValueError, KeyError, IndexError, AttributeError):
            return False
        return True


@dataclass(frozen=True)
class TableFile:
    """One table to join."""

    path: Annotated[str, "A CSV or XLSX file, relative to the folder that is given on the command line."]
    sheet: Annotated[str, "Sheet of an XLSX file with several; empty: the one with a column of patients."] = ""
    id: Annotated[
        str, "Column of the patients' IDs, `(blank)` where its heading is blank; empty: the usual spellings."
    ] = ""
    id_format: Annotated[
        str,
        IdFormat(),
        "What IDs look like in the other tables, with the ID's last whole number in braces: `LUNG1-{:03d}` makes "
        "LUNG1-007 of Patient-7.",
    ] = ""
    case_id: Annotated[str, "Column of the cases' IDs, where a patient has several rows."] = ""
    family: Annotated[str, "Family of the columns that no rule and no name tells apart."] = ""
    take: Annotated[
        tuple[str, ...], "Columns that are features: names, or `re:` and a regular expression; empty: all."
    ] = ()
    drop: Annotated[tuple[str, ...], "Columns that are no features, named in the same way."] = ()


@dataclass(frozen=True)
class ColumnRule:
    """What is particular about a column."""

    family: Annotated[str, "Family of its features."] = ""
    unit: Annotated[str, "Unit of its values."] = ""
    levels: Annotated[tuple[str, ...], "The words that it may hold, in order; empty: it holds numbers."] = ()
    ordered: Annotated[
        bool,
        "The levels become one feature 0, 1, 2, ...; else each level but the first becomes a feature of its own.",
    ] = False
    log: Annotated[
        bool, "The feature is the natural logarithm of the value; a volume above zero is logged unless this is `false`."
    ] = False
    copy_of: Annotated[str, "The column is a copy of this one, under its own name."] = ""
    missing: Annotated[
        tuple[str, ...], "What stands for a missing value, such as 999; `NA`, `unknown` and their like always do."
    ] = ()

    def __new__(cls, *values: Any, **given: Any) -> ColumnRule:
        """Note what is given in Python too: ``log=False`` says something, the default says nothing."""
        rule = super().__new__(cls)
        if given:
            note_given(rule, given)
        return rule


@dataclass(frozen=True)
class EndpointRule:
    """What is predicted: time and event, or a label; empty: the usual spellings."""

    time: Annotated[str, "Column of the survival time."] = ""
    event: Annotated[str, "Column of the event."] = ""
    entry: Annotated[
        str,
        "Column of the time from which on a case was followed (delayed entry, left truncation), in the unit of the "
        "survival time unless its heading says another; empty: from 0 on.",
    ] = ""
    time_unit: Annotated[TimeUnit, "Unit of the survival time; empty: what the heading says, else days."] = ""
    event_codes: EventCodes = field(default_factory=dict)
    label: Annotated[str, "Column with the class to predict."] = ""
    classes: Annotated[tuple[str, ...], "The label's values in order; of two, the second is the positive class."] = ()


@dataclass(frozen=True)
class ValidationRule:
    """How the procedures are validated."""

    method: Annotated[
        Literal["nested", "bootstrap", "permutation"],
        "Nested cross-validation, bootstrap with optimism correction, or a test by permuted endpoints.",
    ] = "nested"
    folds: Annotated[int, AtLeast(2), "Folds of the cross-validation, over patients."] = 5
    repeats: Annotated[int, AtLeast(1), "Repeats of the cross-validation."] = 20
    seed: Seed = 0
    draws: Annotated[int, AtLeast(1), "Bootstrap samples, or permutations."] = 100
    halves: Halves = 20
    horizons_days: Annotated[
        tuple[Annotated[float, Above(0)], ...],
        Unit("days"),
        "Times at which survival is predicted; empty: of 1, 2, 3 and 5 years those within follow-up, of a short one "
        "3, 6 and 9 months too.",
    ] = ()


@dataclass(frozen=True)
class ModelSpec:
    """A model specification: tables, endpoint, procedures, validation."""

    title: Annotated[str, "Heading of the report."] = ""
    table: tuple[TableFile, ...] = ()
    column: dict[str, ColumnRule] = field(default_factory=dict)
    endpoint: EndpointRule = field(default_factory=EndpointRule)
    exclude: Annotated[
        tuple[str, ...],
        "Columns that are no features, in whatever table or run they stand: names, or `re:` and a regular expression.",
    ] = ()
    missing_indicators: Annotated[
        bool,
        "A clinical column that lacks values gets a feature of its own, `NAME is missing`: 1 where it does.",
    ] = False
    rows: Rows = "patient"
    site: Annotated[str, "Column with the scanner or site of each row, for harmonisation."] = ""
    source: Annotated[
        dict[str, str], "What the tables do not say of their features themselves (digests of parameters, of weights)."
    ] = field(default_factory=dict)
    procedure: dict[str, Procedure] = field(default_factory=dict)
    final: Annotated[str, "The procedure that becomes the final model; empty: the last."] = ""
    validation: ValidationRule = field(default_factory=ValidationRule)


def load_spec(path: Path | str | None, overrides: Sequence[str] = ()) -> ModelSpec:
    """Read a specification, or the default one where there is no path, with ``key=value`` overrides as in a job.

    A procedure's ``reproducible`` may be one CSV file of features (what ``prognosis reproducibility`` writes), relative
    to the specification's folder. Without a ``[procedure]`` each family of features is compared, and all together.

    Raises
    ------
    JobError
        When the file is missing, is not TOML, has an unknown key or a value that cannot be.
    StatisticsError
        When there is no such list of features.
    """
    expect_kind(path, Path | str | None, "the specification", "the path of a TOML file, or none")
    where = str(path) if path else "the default specification"
    data = read_toml(Path(path), f"no specification at {path}, examples are in jobs/models/") if path else {}
    override(ModelSpec, data, overrides)
    spec = build(ModelSpec, data, where)
    _check_together(spec, where)
    folder = Path(path).parent if path is not None else Path()
    return replace(spec, procedure={name: _with_list(of, folder) for name, of in spec.procedure.items()})


def _with_list(procedure: Procedure, folder: Path) -> Procedure:
    """The procedure with the names of a list of features, where it names a file of them."""
    match procedure.reproducible:
        case (file,) if file.endswith(".csv"):
            return replace(procedure, reproducible=read_reproducible(folder / file))
    return procedure


def _check_together(spec: ModelSpec, where: str) -> None:
    """What has to hold between keys."""
    end = spec.endpoint
    expect(
        not (end.label and (end.time or end.event)), where, "endpoint.label", end.label, "a label, or time and event"
    )
    pair = {"time": end.time, "event": end.event}
    expect(not (end.label and end.entry), where, "endpoint.entry", end.entry, "a label without a time of entry")
    expect(bool(end.time) == bool(end.event), where, "endpoint", pair, "both time and event, or neither")
    known = ", ".join(spec.procedure)
    named = f"one of the procedures: {known}" if known else "a [procedure.NAME] of that name, or no final"
    expect(not spec.final or spec.final in spec.procedure, where, "final", spec.final, named)
    for name, column in spec.column.items():
        expect(not (column.log and column.levels), where, f"column.{name}", "log with levels", "one of the two")
        expect(len(column.levels) != 1, where, f"column.{name}.levels", column.levels, "two levels or more")


# What is compared, and when survival is predicted, where nobody says it.


_YEAR = 365.0
#: 3, 6 and 9 months.
_MONTHS = (91.0, 183.0, 274.0)
#: Fewest cases that have the event up to a horizon, and fewest that are followed beyond it.
_FEWEST = 10
#: Numbers of features that are tried, besides the most that are allowed.
_GRID = (1, 2, 5, 10, 20, 50, 100)


def default_horizons(endpoint: Survival) -> tuple[float, ...]:
    """Of 1, 2, 3 and 5 years those within follow-up; of 3, 6 and 9 months too where that is one year at most.

    Within follow-up: ten cases have the event before and ten are followed beyond. Where none is, the median time of the
    events.

    >>> import numpy as np
    >>> default_horizons(Survival(np.arange(1.0, 1000.0, 4), np.arange(250) % 2 == 0))
    (365.0, 730.0)
    """

    def held(days: float) -> bool:
        until = endpoint.observed_days <= days
        beyond = ~until if endpoint.entry_days is None else ~until & (endpoint.entry_days < days)
        return min(int((endpoint.event & until).sum()), int(beyond.sum())) >= _FEWEST

    within = [_YEAR * n for n in (1, 2, 3, 5) if held(_YEAR * n)]
    if len(within) < 2:
        within = [*(days for days in _MONTHS if held(days)), *within]
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
    images = [family for family in families if is_of_images(family)]
    others = [family for family in families if not is_of_images(family)]
    found = {family: Procedure((family,), selector="", learner=learner) for family in others}
    if {"volume", "stage"} <= set(others):
        found["stage and volume"] = Procedure(("stage", "volume"), selector="", learner=learner)
    found |= {family: Procedure((family,), learner=learner) for family in images}
    if len(families) > 1:
        found["all"] = Procedure(tuple(families), balance_families=True, selector="", learner=learner)
    if not found:
        raise StatisticsError("the table has no features")
    return found


#: The families that a job's ``model.features = "both"`` stands for.
BOTH = ("radiomics", "deep")


def job_spec(section: ModelSection, *, has_volume: bool) -> ModelSpec:
    """The specification that a job's ``[model]`` stands for: its features, and the volume alone to compare with."""
    learner = section.learner or ("logistic" if section.label else "cox")
    families = BOTH if section.features == "both" else (section.features,)
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
        endpoint=EndpointRule(label=section.label, classes=section.classes, entry=section.entry),
        rows=section.rows,
        procedure=procedures,
        final=section.features,
        validation=ValidationRule(
            folds=section.folds, repeats=section.repeats, halves=section.halves, seed=section.seed
        ),
    )


# What is said where the label of a selection is not the one that was asked for.


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
