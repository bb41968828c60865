"""Models from tables or runs, as a notebook calls them: fit, compare, validate, predict. The commands call these."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from prognosis_dask.arrays import Map
from prognosis_dask.errors import StatisticsError, count
from prognosis_dask.features.registry import NETWORKS
from prognosis_dask.modelling.data.reading import ReadTable, find_tables, read_tables
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.data.table_one import table1_rows
from prognosis_dask.modelling.fit import fit_models
from prognosis_dask.modelling.folder import describe_table, headline, publish_tables, write_csv
from prognosis_dask.modelling.saved import Frozen, load_frozen
from prognosis_dask.modelling.spec import ModelSpec, load_spec
from prognosis_dask.modelling.table_spec import Tables
from prognosis_dask.modelling.validation import comparing
from prognosis_dask.modelling.validation.evaluate import evaluate, time_grid
from prognosis_dask.modelling.validation.external import (
    endpoint_warnings,
    expect_agreement,
    external_result,
    prediction_rows,
    range_warnings,
    training_overlap,
)
from prognosis_dask.modelling.worth import UNTRAINED, untrained, worth_of
from prognosis_dask.objects.address import is_address, parse_address
from prognosis_dask.publish import expect_no_loss, expect_writable
from prognosis_dask.storage.place import Place, local_copy, placed
from prognosis_dask.workflows.idle_keys import idle_settings

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from prognosis_dask.execution.cluster import Workers

#: A run's folder or tables; in Python also a DataFrame or a feature dataset.
One: TypeAlias = "Path | str | pd.DataFrame | xr.Dataset"
Data: TypeAlias = "One | Sequence[One]"
Say: TypeAlias = Callable[[str], None]
#: Features of a kind that are named on the terminal.
_NAMED = 12


@dataclass(frozen=True)
class ModelResult:
    """What a command found.

    Attributes
    ----------
    folder
        Where it was written, a path or an address; None where nothing was.
    summary
        Counts, headline figures, notes.
    tables
        The rows of each table; empty where they are only in the folder.
    """

    folder: Path | str | None
    summary: Mapping[str, Any]
    tables: Tables


def fit(
    data: Data,
    spec: ModelSpec | Path | str | None = None,
    out: Path | str | None = None,
    *,
    overrides: Sequence[str] = (),
    client: Workers | None = None,
    say: Say = print,
) -> ModelResult:
    """Compare the specification's procedures on the same folds, fit and save the final one, write the report.

    Parameters
    ----------
    data
        A run's folder, CSV or XLSX tables, or the folder that holds the specification's tables; a DataFrame, or the
        features of a run as :func:`prognosis_dask.features.dataset.read_features` gives them.
    spec
        A specification (jobs/models/); without one, each family of features is compared, and all of them.
    out
        Its ``models/`` and ``report.html`` are written; without it, beside the features of the run.
    overrides
        ``key=value``, as ``--set`` takes them.
    client
        A Dask client whose workers run the folds, what ``--cluster`` takes, or what gives a client in a ``with``
        statement that is entered once the tables are read; without one the folds run here.
    say
        Takes the lines that tell what is being done.

    Raises
    ------
    PrognosisError
        When the user has something to correct.

    Examples
    --------
    A published table and few folds; ``say`` takes the lines that tell what is done.

    >>> from tempfile import TemporaryDirectory
    >>> from lifelines.datasets import load_rossi
    >>> quick = ["validation.repeats=1", "validation.folds=2", "validation.halves=0"]
    >>> with TemporaryDirectory() as folder:
    ...     found = fit(load_rossi().head(150), out=folder, overrides=quick, say=str)
    >>> found.summary["n_cases"], found.summary["n_events"], found.summary["procedure"]
    (150, 35, 'clinical')
    """
    from prognosis_dask.report.page import write_report

    spec = _spec(spec, overrides)
    with _target(data, out) as (given, place):
        folder = place.folder
        _expect_no_other_run(folder, given)
        expect_writable(folder)
        expect_no_loss(folder)
        read = _read(given, spec, say)
        comparing.expect_sound(read, spec)
        names = ", ".join(comparing.procedures_of(read, spec))
        say(f"Validating {names}: {spec.validation.repeats} x {spec.validation.folds} folds")
        with _map(client) as cluster_map:
            summary = fit_models(read, spec, folder / "models", cluster_map)
        say(headline_text(summary))
        report = write_report(folder)
    say(str(report if place.address is None else place.address / report.name))
    return ModelResult(folder if place.address is None else str(place.address), summary, {})


def compare(
    data: Data,
    spec: ModelSpec | Path | str | None = None,
    out: Path | str | None = None,
    *,
    procedures: Sequence[str] = (),
    overrides: Sequence[str] = (),
    client: Workers | None = None,
    say: Say = print,
) -> ModelResult:
    """Validate procedures on the same folds and test their differences; no model is fitted for use.

    Parameters
    ----------
    data, spec, overrides, client, say
        See :func:`fit`.
    out
        Where the tables go, if anywhere.
    procedures
        The names of those to compare; () for all.

    Raises
    ------
    PrognosisError
        When the user has something to correct.

    Examples
    --------
    >>> from lifelines.datasets import load_rossi
    >>> quick = ["validation.repeats=1", "validation.folds=2"]
    >>> found = compare(load_rossi().head(150), overrides=quick, say=str)
    >>> sorted({row["procedure"] for row in found.tables["measures"]})
    ['clinical']
    """
    spec = _spec(spec, overrides)
    expect_writable(out)
    expect_no_loss(out)
    read = _read(_here(data), spec, say)
    known = comparing.procedures_of(read, spec)
    unknown = [name for name in procedures if name not in known]
    if unknown:
        raise StatisticsError(f"no procedure is called {unknown[0]!r}; there are {', '.join(known)}")
    spec = replace(spec, procedure={name: known[name] for name in procedures or known}, final="")
    comparing.expect_sound(read, spec)
    with _map(client) as cluster_map:
        tables, _ = comparing.compare(read, spec, cluster_map)
    return _published(read, tables, out)


def validate(
    data: Data,
    spec: ModelSpec | Path | str | None = None,
    out: Path | str | None = None,
    *,
    model: Path | str | None = None,
    overrides: Sequence[str] = (),
    client: Workers | None = None,
    say: Say = print,
) -> ModelResult:
    """Validate a frozen model on another cohort, or the specification's procedures on this one.

    Parameters
    ----------
    data, spec, overrides, client, say
        See :func:`fit`. With a model, the specification only says how the tables are read.
    out
        Where the tables go, if anywhere: its ``models/``.
    model
        The folder of a frozen model; without it, the specification's ``validation.method`` says how.

    Raises
    ------
    PrognosisError
        When the user has something to correct: a table whose features or parameters are not the model's, say.

    Examples
    --------
    >>> from lifelines.datasets import load_rossi
    >>> drawn = ["validation.method=bootstrap", "validation.draws=5"]
    >>> sorted(validate(load_rossi().head(150), overrides=drawn, say=str).tables)
    ['bootstrap', 'table1']
    """
    spec = _spec(spec, overrides)
    expect_writable(out)
    expect_no_loss(out)
    data = _here(data)
    if model is not None:
        return _validate_frozen(local_copy(model), data, spec, out, say)
    if spec.validation.method == "nested":
        return compare(data, spec, out, client=client, say=say)
    read = _read(data, spec, say, spec.validation.method)
    comparing.expect_sound(read, spec)
    with _map(client) as cluster_map:
        tables = comparing.resample(read, spec, cluster_map)
    return _published(read, tables, out, validation=asdict(spec.validation))


def _validate_frozen(model: Path | str, data: Data, spec: ModelSpec, out: Path | str | None, say: Say) -> ModelResult:
    frozen, name = load_frozen(model), str(Path(model))
    read, warnings = _read_for(model, frozen, data, spec, say)
    if not read.has_endpoint:
        raise StatisticsError("the cohort's table has no endpoint to validate on; `prognosis predict` needs none")
    times = () if frozen.classes else time_grid(read.table.survival, frozen.horizons_days)
    overlap = training_overlap(frozen, read.table)
    special = [*overlap.notes(len(read.table.case_ids)), *endpoint_warnings(frozen, read.table)]
    for warning in special:
        say(warning)
    tables = evaluate(read.table, [external_result(frozen, read.table, times, name)], frozen.horizons_days)
    found = headline(tables, name, bool(frozen.classes))
    found |= {"met_before": overlap.in_training, "met_by": overlap.ground} if overlap.in_training else {"met_before": 0}
    said = [*read.notes, *special, *warnings]
    return _published(read, tables, out, **found, procedure=name, external=True, notes=said)


def _published(read: ReadTable, tables: Tables, out: Path | str | None, **more: Any) -> ModelResult:
    """What was found, with the cases' table 1, in a folder where one is wanted."""
    tables = {**tables, "table1": table1_rows(read.table, read.encodings)}
    summary = describe_table(read) | {"notes": list(read.notes)} | more
    if out is None:
        return ModelResult(None, summary, tables)
    with placed(out) as place:
        place.fetch(needed=False)
        publish_tables(place.folder, summary, tables)
    return ModelResult(Path(out) if place.address is None else str(place.address), summary, tables)


def predict(
    model: Path | str,
    data: Data,
    out: Path | str | None = None,
    *,
    spec: ModelSpec | Path | str | None = None,
    overrides: Sequence[str] = (),
    say: Say = print,
) -> pd.DataFrame:
    """Predict the cases of a table or a run with a frozen model.

    Parameters
    ----------
    model
        Its folder.
    data, spec, overrides, say
        See :func:`fit`; the endpoint is not needed.
    out
        A CSV file to write, if any.

    Returns
    -------
    pandas.DataFrame
        One row per case: ``case_id, patient_id``, risk score, group and survival at the model's horizons, or class and
        probabilities; how many of the model's features lie ``outside_training``, and how many are ``missing``; and in
        each row what the model is worth (:class:`prognosis_dask.modelling.worth.Worth`).

    Raises
    ------
    PrognosisError
        When the table's features or parameters are not the model's, it cannot be read, or ``out`` not be written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from lifelines.datasets import load_rossi
    >>> men, new = load_rossi().head(150), load_rossi().tail(2).drop(columns=["week", "arrest"])
    >>> quick = ["validation.repeats=1", "validation.folds=2", "validation.halves=0"]
    >>> with TemporaryDirectory() as folder:
    ...     _ = fit(men, out=folder, overrides=quick, say=str)
    ...     predicted = predict(folder, new, say=str)
    >>> predicted[["case_id", "group"]].values.tolist()
    [['row 1', 'high'], ['row 2', 'low']]
    """
    import pandas as pd

    _expect_file(out)
    model, data = local_copy(model), _here(data)
    frozen = load_frozen(model)
    read, _ = _read_for(model, frozen, data, _spec(spec, overrides), say, outcome=False)
    worth = worth_of(frozen, model)
    for line in (worth.sentence, *worth.warnings):
        say(line)
    rows = [row | worth.columns for row in prediction_rows(frozen, read.table, frozen.fitted.predict(read.table))]
    if out is not None:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        write_csv(Path(out), rows)
    return pd.DataFrame(rows)


def _spec(spec: ModelSpec | Path | str | None, overrides: Sequence[str]) -> ModelSpec:
    return spec if isinstance(spec, ModelSpec) else load_spec(spec, overrides)


@contextmanager
def _map(client: Workers | None) -> Iterator[Map]:
    """A ``map`` on the client's workers, or the built-in one."""
    if client is None:
        yield builtins.map
        return
    from prognosis_dask.execution.cluster import joined, map_on

    with joined(client) as entered:
        yield map_on(entered)


def _listed(data: Data) -> list[One]:
    return list(data) if isinstance(data, list | tuple) else [data]  # type: ignore[list-item]


def _paths(data: Data) -> list[Path]:
    return [Path(one) for one in _listed(data) if isinstance(one, Path | str)]


def _here(data: Data) -> list[One]:
    """What is read, on this machine."""
    return [local_copy(one) if isinstance(one, Path | str) else one for one in _listed(data)]


@contextmanager
def _target(data: Data, out: Path | str | None) -> Iterator[tuple[list[One], Place]]:
    """What is read, and where is written; without ``out`` to the run that is read."""
    listed = _listed(data)
    with placed(_out(listed, out), needed=out is None) as place:
        place.fetch(needed=False)
        own = [is_address(one) and parse_address(str(one)) == place.address for one in listed]
        yield _here([place.folder if is_own else one for one, is_own in zip(listed, own, strict=True)]), place


def _read(data: Data, spec: ModelSpec, say: Say, method: str = "nested") -> ReadTable:
    read = read_tables(find_tables(_listed(data), spec), spec)
    if not set(NETWORKS).isdisjoint(read.table.families) and any(untrained(path) for path in _paths(data)):
        read = replace(read, notes=(*read.notes, UNTRAINED))
    _tell(read, say)
    for line in (family_note(read.table), *idle_settings(spec, method, read.table.endpoint)):
        say(line)
    return read


def headline_text(summary: Mapping[str, Any]) -> str:
    """The final procedure's discrimination of held-out cases, with its interval."""
    name, measure = ("auc_cv", "AUC") if "auc_cv" in summary else ("c_index_cv", "C-index")
    held, lower, upper = (summary.get(f"{name}{end}") for end in ("", "_lower", "_upper"))
    if held is None:
        return f"{summary.get('procedure', '')}: no figure of held-out cases"
    reach = "" if lower is None or upper is None else f" (95 % interval {lower:.3f} to {upper:.3f})"
    return f"{summary['procedure']}: {measure} of held-out cases {held:.3f}{reach}"


def family_note(table: FeatureTable) -> str:
    """What each column was taken for, and how to say otherwise."""
    held: dict[str, list[str]] = {}
    for name, family in zip(table.features, table.families, strict=True):
        held.setdefault(family, []).append(name)
    shown = "; ".join(
        f"{family} ({len(names)}): {', '.join(names[:_NAMED])}{' and others' if len(names) > _NAMED else ''}"
        for family, names in held.items()
    )
    return f"Features by kind: {shown}. --set column.NAME.family=clinical (or another kind) corrects one."


def _read_for(
    model: Path | str, frozen: Frozen, data: Data, spec: ModelSpec, say: Say, *, outcome: bool = True
) -> tuple[ReadTable, list[str]]:
    """The table that a model is to predict, with the warnings that it deserves."""
    if frozen.classes and not spec.endpoint.classes:
        spec = replace(spec, endpoint=replace(spec.endpoint, classes=frozen.classes))
    sources = find_tables(_listed(data), spec)
    read = read_tables(sources, spec, frozen.encodings, outcome=outcome)
    _tell(read, say)
    where = ", ".join(source.where for source in sources)
    warnings = expect_agreement(frozen, read.table, where=where, model=f"the model in {model}")
    for warning in (warnings := [*warnings, *range_warnings(frozen, read.table)]):
        say(warning)
    return read, warnings


def _tell(read: ReadTable, say: Say) -> None:
    left_out = "; ".join(f"{count} {reason}" for reason, count in read.left_out.items())
    rows, patients = len(read.table.case_ids), len(set(read.table.patient_ids))
    told = count(rows, "patient" if read.by_patient else "case")
    told += f" of {count(patients, 'patient')}" if patients < rows else ""
    say(f"{told}{f'; left out: {left_out}' if left_out else ''}")
    for note in read.notes:
        say(note)


def _out(data: Sequence[One], out: Path | str | None) -> Path | str:
    if out is not None:
        return out
    one = data[0] if len(data) == 1 else None
    if isinstance(one, Path | str) and (is_address(one) or (Path(one) / "features.zarr").is_dir()):
        return one
    raise StatisticsError("where to? Give a folder with -o DIR, in Python out=DIR")


def _expect_file(out: Path | str | None) -> None:
    """A CSV file can be written there."""
    if out is not None and Path(out).is_dir():
        raise StatisticsError(f"{out} is a folder, expected a CSV file to write: -o {Path(out) / 'predictions.csv'}")
    expect_writable(out if out is None else Path(out).parent)


def _expect_no_other_run(folder: Path, data: Data) -> None:
    if (folder / "run.json").is_file() and folder.resolve() not in [path.resolve() for path in _paths(data)]:
        raise StatisticsError(f"{folder} holds another run, whose models these would replace; choose another with -o")
