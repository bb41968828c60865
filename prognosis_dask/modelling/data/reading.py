"""From tables and runs to the one table that every statistic takes: joined by patient, encoded, with its endpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prognosis_dask.arrays import BoolArray, FloatArray, IntArray
from prognosis_dask.cohort.clinical import match_spelt_alike, patient_key, same_patient
from prognosis_dask.cohort.endpoints import unit_of
from prognosis_dask.errors import Code, StatisticsError, count
from prognosis_dask.features.registry import check_dataset
from prognosis_dask.modelling.data.columns import Encoding, SourceColumn
from prognosis_dask.modelling.data.doubts import course_notes
from prognosis_dask.modelling.data.encoding import (
    Columns,
    encode_columns,
    learn_encodings,
    needed_families,
    with_missing,
)
from prognosis_dask.modelling.data.endpoint import Endpoint, Survival
from prognosis_dask.modelling.data.families import is_of_images
from prognosis_dask.modelling.data.found_endpoint import endpoint_columns, no_endpoint, with_published
from prognosis_dask.modelling.data.leakage import expect_no_leaks, immortal_notes, site_notes
from prognosis_dask.modelling.data.outcomes import Outcomes, read_outcomes
from prognosis_dask.modelling.data.patient_rows import arrange_rows
from prognosis_dask.modelling.data.sources import Source, dataset_source, read_file
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.data.twins import twin_notes
from prognosis_dask.modelling.spec import EndpointRule, ModelSpec, TableFile
from prognosis_dask.tables.file import frame_cells

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


@dataclass(frozen=True)
class ReadTable:
    """A table, and what became of what was read.

    Attributes
    ----------
    table
        The rows that can be used. Without an endpoint (``has_endpoint`` is False), every row is censored on day 1.
    encodings
        How the columns became features, for reading another table alike.
    left_out
        How many rows are not in the table, by reason; a row counts once, under the first reason that holds.
    notes
        What a reader should know: columns left out, words without a level, what was taken for the endpoint.
    has_endpoint
        Whether the tables hold the endpoint.
    by_patient
        Whether a row holds the modalities or regions of a patient side by side.
    rows_said
        Of the notes those on what a row is.
    """

    table: FeatureTable
    encodings: tuple[Encoding, ...]
    left_out: Mapping[str, int]
    notes: tuple[str, ...]
    has_endpoint: bool
    by_patient: bool = False
    rows_said: tuple[str, ...] = ()


def find_tables(data: Sequence[Path | str | pd.DataFrame | xr.Dataset], spec: ModelSpec) -> list[Source]:
    """Read what a command was given: runs' folders, tables, or the folder that holds the specification's tables.

    In Python also tables and feature datasets in memory, which are read as their files would be.

    Raises
    ------
    StatisticsError
        When there is nothing, or it cannot be read.
    """
    from prognosis_dask.features.dataset import read_features

    sources: list[Source] = []
    for one in data:
        if not isinstance(one, Path | str):
            sources.append(_in_memory(one, spec, alone=len(data) == 1))
            continue
        path = Path(one)
        if (path / "features.zarr").is_dir() or path.suffix == ".zarr":
            sources.append(dataset_source(read_features(path), str(path)))
        elif path.is_dir():
            if not spec.table:
                raise StatisticsError(
                    f"{path} holds no features.zarr, so it is no run's folder, and the specification names no tables "
                    "in it; give the tables themselves, or --spec FILE with a [[table]] for each"
                )
            sources += [read_file(path / rule.path, rule) for rule in spec.table]
        else:
            sources.append(read_file(path, _rule_for(path, spec), alone=len(data) == 1))
    if not sources:
        raise StatisticsError("no table was given; give a run's folder, or CSV or XLSX files")
    return sources


def _in_memory(data: pd.DataFrame | xr.Dataset, spec: ModelSpec, *, alone: bool) -> Source:
    import pandas as pd
    import xarray as xr

    if isinstance(data, xr.Dataset):
        if "event" in data:  # without an outcome it is one of new patients
            check_dataset(data)
        return dataset_source(data, "the dataset")
    if not isinstance(data, pd.DataFrame):
        raise StatisticsError(
            f"a table is {type(data).__name__}, expected the path of a run or a table, a DataFrame or a feature dataset"
        )
    where = Path("DataFrame")
    return read_file(where, _rule_for(where, spec), alone=alone, cells=frame_cells(data, str(where)))


def read_tables(
    sources: Sequence[Source], spec: ModelSpec | None = None, known: Sequence[Encoding] = (), *, outcome: bool = True
) -> ReadTable:
    """Join the sources by patient and make the table of them.

    Parameters
    ----------
    sources
        From :func:`find_tables` or :func:`modelling.data.sources.dataset_source`. Rows are those of the one
        whose patients may have several cases, else of the first; patients that are not in all are left out.
    spec
        What is particular about columns and endpoint.
    known
        A frozen model's encodings: exactly these columns are read, and nothing is learnt. The endpoint may be absent.
    outcome
        Whether the endpoint is read; else rows without one are kept.

    Raises
    ------
    StatisticsError
        When columns or the endpoint are missing or hold what they cannot, a column stands in two sources, no row is
        left, or a column is the outcome in other words (see :mod:`prognosis_dask.modelling.data.leakage`).
    """
    spec = spec or ModelSpec()
    spec, published = with_published(spec, sources[0].columns) if len(sources) == 1 else (spec, [])
    needed = {encoding.family for encoding in known} or needed_families(spec)
    ends = [endpoint_columns(source.columns, spec.endpoint) if outcome else () for source in sources]
    sources = [arrange_rows(source, spec.rows, known, names) for source, names in zip(sources, ends, strict=True)]
    rows_said = [note for source in sources for note in source.rows_said]
    base, rows, left_out, joined = _join(sources)
    columns = _columns(sources, rows)
    outcomes, end_notes = _outcomes(sources, columns, spec, required=not known) if outcome else (None, [])
    if known:
        encodings, notes = list(known), list[str]()
    else:
        encodings, notes = learn_encodings(sources, columns, spec, outcomes, needed)
    X, units, strange = encode_columns(encodings, columns)
    site = _site(columns, spec)
    families = tuple(encoding.family for encoding in encodings for _ in encoding.features)
    table_rows = len(rows[0])
    failed, absent = _without_values(sources, rows, {family for family in families if family in needed})
    faults = _faults(outcomes, absent, failed, site, X, families, table_rows)
    keep = np.flatnonzero(np.array(faults, dtype=object) == "")
    left_out += Counter(fault for fault in faults if fault)
    if not len(keep):
        raise _no_row(base, left_out, several=any(without.any() for without in absent.values()))
    at = rows[sources.index(base)][keep]
    table = FeatureTable(
        X[keep],
        tuple(name for encoding in encodings for name in encoding.features),
        families,
        units,
        tuple((base.cases or base.patients)[i] for i in at),
        tuple(base.patients[i] for i in at),
        outcomes.endpoint(keep) if outcomes else _no_endpoint(len(keep)),
        tuple(site[i] for i in keep) if site else (),
        {name: value for source in sources for name, value in source.origin.items()} | spec.source,
    )
    read_notes = [note for source in sources for note in source.notes]
    said = [*rows_said, *read_notes, *published, *joined, *end_notes, *notes, *strange]
    said += twin_notes(table) if outcomes else []
    if outcomes and not known:
        unseen = {encoding.column for encoding in encodings if encoding.family not in needed}
        measured = {name for source in sources for name in source.families}  # on images, by a run
        expect_no_leaks(encodings, table.X, table.endpoint, unseen | measured | spec.column.keys())
        said += site_notes(table.site, table.endpoint)
        said += immortal_notes(encodings, table.X, table.endpoint) + course_notes(encodings, table.X, table.endpoint)
    by_patient = any(source.absent for source in sources)
    return ReadTable(
        table, tuple(encodings), dict(left_out), tuple(said), outcomes is not None, by_patient, tuple(rows_said)
    )


def _no_row(base: Source, left_out: Mapping[str, int], *, several: bool) -> StatisticsError:
    """What to raise where no row is left; ``several``: patients lack what others have."""
    why = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
    advice = (
        "; where patients have other modalities than each other, keep to some (cohort.modalities in a job), or set "
        'rows = "pooled" (model.rows in a job)'
    )
    return StatisticsError(f"{base.where}: no row can be used ({why or 'there is none'}){advice if several else ''}")


def _rule_for(path: Path, spec: ModelSpec) -> TableFile:
    """The specification's rule for a table that is given by itself: that of its name, else the only one."""
    named = [rule for rule in spec.table if Path(rule.path).name == path.name]
    if named or len(spec.table) == 1:
        return named[0] if named else spec.table[0]
    return TableFile(str(path))


def _join(sources: Sequence[Source]) -> tuple[Source, list[IntArray], Counter[str], list[str]]:
    """The source that gives the rows, for each source which of its rows belongs to each of them, and notes."""
    several = [source for source in sources if source.cases]
    if len(several) > 1:
        raise StatisticsError(
            f"{several[0].where} and {several[1].where} both have several cases per patient; join them by case first"
        )
    base = several[0] if several else sources[0]
    if not base.patients:
        raise StatisticsError(f"{base.where} has no row")
    keys = [patient_key(patient) for patient in base.patients]
    places: list[dict[str, int]] = []
    notes = []
    for source in sources:
        place = {patient_key(patient): i for i, patient in enumerate(source.patients)}
        other = match_spelt_alike(place, set(keys))
        if other:
            told, of = count(len(other), "patient"), Path(source.where).name
            spelt = same_patient(*next(iter(other.items())))
            notes.append(f"{told} of {of} joined though they differ in leading zeros or separators: {spelt}.")
        places.append({other.get(name, name): i for name, i in place.items()})
    left_out = Counter({"no-patient-id": sum(source.without_id for source in sources)})
    for source in sources:
        left_out.update(source.left_out)
    kept: list[int] = []
    for row, patient in enumerate(keys):
        absent = next((s.where for s, held in zip(sources, places, strict=True) if patient not in held), None)
        if absent is None:
            kept.append(row)
        else:
            left_out[f"not in {Path(absent).name}"] += 1
    if not kept:
        second = next(source for source in sources if source is not base)
        raise StatisticsError(
            f"{base.where} and {second.where} have no patient in common: IDs such as {base.patients[0]!r} and "
            f"{second.patients[0]!r}; id_format in the specification's [[table]] makes one like the other"
        )
    present = set(keys)
    for place in places:
        left_out[f"not in {Path(base.where).name}"] += sum(patient not in present for patient in place)
    rows = [
        np.array(kept) if source is base else np.array([place[keys[i]] for i in kept])
        for source, place in zip(sources, places, strict=True)
    ]
    return base, rows, +left_out, notes


def _columns(sources: Sequence[Source], rows: Sequence[IntArray]) -> Columns:
    """Every column with the joined rows only, under its source's place and its name."""
    joined: dict[tuple[int, str], SourceColumn] = {}
    for place, (source, at) in enumerate(zip(sources, rows, strict=True)):
        if np.array_equal(at, np.arange(len(source.patients))):
            joined |= {(place, name): column for name, column in source.columns.items()}
            continue
        for name, column in source.columns.items():
            cells = column.cells[at] if isinstance(column.cells, np.ndarray) else [column.cells[i] for i in at]
            numbers = tuple(column.rows[i] for i in at) if column.rows else tuple((at + 1).tolist())
            joined[place, name] = replace(column, cells=cells, rows=numbers)
    return joined


def _outcomes(
    sources: Sequence[Source], columns: Columns, spec: ModelSpec, *, required: bool
) -> tuple[Outcomes | None, list[str]]:
    ends = [endpoint_columns(source.columns, spec.endpoint) for source in sources]
    place = next((place for place, names in enumerate(ends) if names), None)
    if place is None:
        if not required:
            return None, []
        every = {name: column for source in sources for name, column in source.columns.items()}
        raise no_endpoint(every, [source.where for source in sources], spec.endpoint)

    def read(place: int, rule: EndpointRule) -> Outcomes:
        joined = {name: with_missing(columns[place, name], spec) for name in ends[place]}
        whole = {name: with_missing(sources[place].columns[name], spec) for name in ends[place]}
        return read_outcomes(joined, ends[place], rule, whole)

    found, names, where = read(place, spec.endpoint), ends[place], Path(sources[place].where).name
    notes = [
        f"The endpoint is {' and '.join(names[:2])}{f', entry {names[2]},' if len(names) > 2 else ''} of {where}.",
        *found.notes,
    ]
    for other in (other for other, held in enumerate(ends) if held and other > place):
        rule = replace(spec.endpoint, time_unit="") if unit_of(ends[other][0]) else spec.endpoint
        try:
            differing = _differing(found, read(other, rule))
        except StatisticsError:  # that table's endpoint is not used, so it need not be right
            continue
        if differing:
            notes.append(
                f"{count(differing, 'row')} of {Path(sources[other].where).name} with another endpoint than {where}, "
                "which is used: correct one of them."
            )
    return found, notes


def _differing(one: Outcomes, other: Outcomes) -> int:
    """In how many rows two tables' endpoints differ, times by more than a day or a hundredth, where both have one."""
    both = np.array([fault == "" and theirs == "" for fault, theirs in zip(one.faults, other.faults, strict=True)])
    ends = [tuple(values[both] for values in of.values[:2]) for of in (one, other)]
    if one.names:
        mine, theirs = (np.array(of.names)[end[0].astype(int)] for of, end in zip((one, other), ends, strict=True))
        return int((mine != theirs).sum())
    (time, event), (other_time, other_event) = ends
    return int((~np.isclose(time, other_time, rtol=0.01, atol=1.0) | (event != other_event)).sum())


def _site(columns: Columns, spec: ModelSpec) -> tuple[str, ...]:
    if not spec.site:
        return ()
    found = next((column for (_, name), column in columns.items() if name == spec.site), None)
    if found is None:
        raise StatisticsError(f"the specification's site is the column {spec.site!r}, and no table has it")
    return tuple(found.texts())


def _without_values(
    sources: Sequence[Source], rows: Sequence[IntArray], kept: Collection[str]
) -> tuple[list[BoolArray], dict[str, BoolArray]]:
    """Of the ``kept`` families, the joined rows with values that are not whole, and by family those without any."""
    failed, absent = list[BoolArray](), dict[str, BoolArray]()
    for source, at in zip(sources, rows, strict=True):
        failed += [column[at] for family, column in source.failed.items() if family in kept]
        absent |= {family: column[at] for family, column in source.absent.items() if family in kept}
    return failed, absent


def _faults(
    outcomes: Outcomes | None,
    absent: Mapping[str, BoolArray],
    failed: Sequence[BoolArray],
    site: tuple[str, ...],
    X: FloatArray,
    families: tuple[str, ...],
    n: int,
) -> list[str]:
    """Why each joined row cannot be used; empty where it can."""
    no_endpoint = list(outcomes.faults) if outcomes else [""] * n
    not_whole = np.any([np.zeros(n, dtype=bool), *failed], axis=0)
    not_finite = np.where(not_whole, Code.FEATURES_NOT_FINITE.value, "").tolist()
    without_site = ["no-site" if not name else "" for name in site] or [""] * n
    missing, no_case = [""] * n, [""] * n
    for family, without in absent.items():
        for row in np.flatnonzero(without):
            no_case[row] = no_case[row] or f"no {family.partition(' ')[2]} case"
    for family in dict.fromkeys(name for name in families if is_of_images(name)):
        of_family = np.array([name == family for name in families])
        if of_family.any():
            for row in np.flatnonzero(np.isnan(X[:, of_family]).all(axis=1)):
                missing[row] = missing[row] or f"no-{family}-values"
    reasons = zip(no_endpoint, no_case, not_finite, without_site, missing, strict=True)
    return [next(filter(None, of_row), "") for of_row in reasons]


def _no_endpoint(n: int) -> Endpoint:
    return Survival(np.ones(n), np.zeros(n, dtype=bool))
