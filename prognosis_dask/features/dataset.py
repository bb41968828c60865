"""The feature dataset: one labelled table of what the stages found."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from prognosis_dask.arrays import AnyArray, FloatArray
from prognosis_dask.cohort.case import Case
from prognosis_dask.errors import Code, Problem, StoreError, count
from prognosis_dask.features.registry import families, stages
from prognosis_dask.features.schema import COVARIATE, check_dataset, spec_of
from prognosis_dask.features.stage import Columns, Family, Stage, VariableSpec
from prognosis_dask.storage.ledger import TaskResult

# text as xarray marks it: written as zarr's variable-length text, also where there is none
_TEXT = np.dtype("O", metadata={"element_type": str})
#: Attribute of the dataset that tells the program's own files from others and newer ones.
FORMAT = "prognosis_dask features 1"

TaskResults = Mapping[str, Mapping[str, TaskResult]]


def build_features(
    cases: Sequence[Case],
    columns: Mapping[str, Columns],
    results: TaskResults,
    attributes: Mapping[str, Any] = MappingProxyType({}),
) -> xr.Dataset:
    """Collect what the stages found into one labelled dataset, as :mod:`prognosis_dask.features.schema` describes it.

    Parameters
    ----------
    cases
        One row each, in this order.
    columns
        By stage its features; a stage that is off, or has no features, is not there, and there is no such variable.
    results
        By stage and ``case_id``. The result of a stage holds its variables by name, and its features as ``values``, in
        the order of the columns; of a modality's cases those of the modality, and what is another modality's is NaN.
    attributes
        Provenance; anything JSON holds except NaN and infinity.

    Raises
    ------
    StoreError
        When there is no case, when values and names differ in number, or when two covariates have one name.
    """
    if not cases:
        raise StoreError("there is no case, so there are no features; problems.csv says what became of the patients")
    held = [stage for stage in stages() if stage.name in columns or stage.name in results or stage.is_in_every_run]
    variables: dict[str, AnyArray] = {
        "case": _text(case.case_id for case in cases),
        "patient_id": _text(case.patient_id for case in cases),
        "roi": _text(case.roi for case in cases),
        "modality": _text(case.modality for case in cases),
        "time_days": _numbers(case.time_days for case in cases),
        "event": _numbers(case.event for case in cases),
        "problem": _text(_problem(case.case_id, held, results) for case in cases),
        **_covariates(cases),
    }
    for stage in held:
        measured = [_values(results.get(stage.name, {}).get(case.case_id)) for case in cases]
        variables |= {spec.name: _variable(spec, measured) for spec in stage.variables}
        if stage.family and stage.name in columns:
            variables |= _table(stage.name, stage.family, columns[stage.name], cases, measured)
    dataset = _dataset(variables, {"format": FORMAT, **_plain(attributes)})
    check_dataset(dataset)
    return dataset


def _variable(spec: VariableSpec, measured: Sequence[Mapping[str, object]]) -> AnyArray:
    found = (one.get(spec.name) for one in measured)
    return _text(str(value or "") for value in found) if "text" in spec.kinds else _numbers(found)


def _table(
    stage: str, family: Family, columns: Columns, cases: Sequence[Case], measured: Sequence[Mapping[str, object]]
) -> dict[str, AnyArray]:
    """The family's table, (cases, features), and the coordinates that say what its columns are."""
    place = {name: i for i, name in enumerate(columns.units)}
    values = np.full((len(cases), len(place)), np.nan)
    for row, (case, one) in enumerate(zip(cases, measured, strict=True)):
        found = one.get("values")
        if found is None:
            continue
        at = [place[name] for name in columns.of_modality.get(case.modality, columns.units)]
        if not isinstance(found, list) or len(found) != len(at):
            seen = len(found) if isinstance(found, list) else found
            raise StoreError(
                f"{stage} of {case.case_id} holds {seen} values, expected {len(at)}: the ledger and the job do not "
                "belong together; choose another folder with --out"
            )
        values[row, at] = found
    table = {family.names.name: _text(columns.units), family.name: values.astype(family.values.kinds[0])}
    if family.units:
        table[family.units.name] = _text(columns.units.values())
    if family.labels and columns.labels:
        table[family.labels.name] = _text(columns.labels)
    return table


def _dataset(columns: Mapping[str, AnyArray], attributes: Mapping[str, Any]) -> xr.Dataset:
    data: dict[str, xr.Variable] = {}
    coordinates: dict[str, xr.Variable] = {}
    for name, values in columns.items():
        spec = spec_of(name)
        (coordinates if spec.coordinate else data)[name] = xr.Variable(spec.dims, values, spec.attributes)
    return xr.Dataset(data, coordinates, dict(attributes))


def _text(values: Iterable[str]) -> npt.NDArray[np.object_]:
    return np.array(list(values), dtype=_TEXT)


def _numbers(values: Iterable[object]) -> FloatArray:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def _values(result: TaskResult | None) -> Mapping[str, object]:
    return result.values if result is not None and result.problem is None else {}


def _problem(case_id: str, stages: Sequence[Stage], results: TaskResults) -> str:
    """Every stage that failed; else the first one that has not been run."""
    found = {stage.name: results.get(stage.name, {}).get(case_id) for stage in stages}
    failed = [f"{stage}: {result.problem.code}" for stage, result in found.items() if result and result.problem]
    waiting = [f"{stage}: not-run" for stage, result in found.items() if result is None]
    return "; ".join(failed or waiting[:1])


def _covariates(cases: Sequence[Case]) -> dict[str, AnyArray]:
    names = dict.fromkeys(name for case in cases for name in case.covariates)
    columns: dict[str, AnyArray] = {}
    for name in names:
        # what a folder's name may hold: every variable is one in features.zarr
        variable = COVARIATE + re.sub(r"[^\w.+-]+", "_", name)
        if variable in columns:
            raise StoreError(f"cases.csv has two columns that become {variable!r}, one is {name!r}; rename it")
        columns[variable] = _covariate([case.covariates.get(name, "").strip() for case in cases])
    return columns


def _covariate(cells: Sequence[str]) -> AnyArray:
    try:
        return np.array([_number(cell) for cell in cells], dtype=np.float64)
    except ValueError:
        return _text(cells)


def _number(cell: str) -> float:
    if "_" in cell:  # Python reads 1_0 as ten
        raise ValueError(cell)
    return float(cell) if cell else math.nan


def _plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """As they will be read back: tuples become lists."""
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(attributes), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise StoreError(f"feature dataset: its attributes must be what JSON holds: {error}") from error
    return plain


# Features that tell no case from another: constant among all cases of a modality.


#: Of fewer cases nothing is said: two may be alike by chance.
FEWEST_CASES = 3


def constant_warnings(dataset: xr.Dataset) -> list[Problem]:
    """A warning for each modality in which features have one value in all cases.

    Parameters
    ----------
    dataset
        A run's features.
    """
    found = []
    for family in families():
        if family.name not in dataset:
            continue
        values = np.asarray(dataset[family.name].values, dtype=float)
        names = dataset[family.names.name].values
        for modality in sorted(set(map(str, dataset["modality"].values))):
            rows = values[dataset["modality"].values == modality]
            rows = rows[np.isfinite(rows).any(axis=1)]
            if len(rows) < FEWEST_CASES:
                continue
            held = np.isfinite(rows).all(axis=0)
            alike = [str(names[j]) for j in np.flatnonzero(held) if np.ptp(rows[:, j]) == 0]
            if alike:
                found.append(_warning(family, modality, alike, int(held.sum()), len(rows)))
    return found


def _warning(family: Family, modality: str, names: list[str], of: int, cases: int) -> Problem:
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    advice = f"; {family.if_constant}" if family.if_constant else ""
    return Problem(
        Code.FEATURES_CONSTANT,
        f"{len(names)} of {of} {family.name} features have one value in all {count(cases, f'{modality} case')}: "
        f"{shown}. They tell no case from another{advice}",
        severity="warning",
    )
