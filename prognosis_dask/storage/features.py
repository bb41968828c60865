"""The feature dataset: from outcomes to ``features.zarr`` and ``features.csv``, and back."""

from __future__ import annotations

import csv
import json
import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr

from prognosis_dask.arrays import AnyArray, FloatArray
from prognosis_dask.cohort.case import Case
from prognosis_dask.errors import Code, Problem, StoreError, count
from prognosis_dask.publish import publish_folder, staging
from prognosis_dask.storage.outcome import Outcome
from prognosis_dask.storage.schema import COVARIATE, VARIABLES, check_dataset, spec_of

if TYPE_CHECKING:
    import xarray as xr


#: The numbers of the ROI stage's result that become variables.
ROI_RESULTS = ("voxels", "volume_ml", "n_slices", "lesion_cut")

# text as xarray marks it: written as zarr's variable-length text, also where there is none
_TEXT = np.dtype("O", metadata={"element_type": str})
_CHUNK_CASES = 4096
_BLOCK_CASES = 256
#: Attribute of the dataset that tells the program's own files from others and newer ones.
_FORMAT = "prognosis_dask features 1"

Outcomes = Mapping[str, Mapping[str, Outcome]]


def build_features(
    cases: Sequence[Case],
    *,
    radiomic: Mapping[str, str],
    deep: Sequence[str],
    labels: Sequence[str] = (),
    size: Mapping[str, str] = MappingProxyType({}),
    outcomes: Outcomes,
    attributes: Mapping[str, Any],
    of_modality: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> xr.Dataset:
    """Collect what the stages found into one labelled dataset; :mod:`prognosis_dask.storage.schema` says what is in it.

    Parameters
    ----------
    cases
        One row each, in this order.
    radiomic
        Name and unit of every radiomic feature; empty when their stage is off, and there is no such variable then.
    deep
        Name of every deep feature, likewise.
    labels
        Class of every deep feature where they are logits of known classes; empty where not.
    size
        Name and unit of every figure of the tumour's size; empty when their stage is off.
    outcomes
        Per stage (in the order in which a case passes them) and case_id. Stage ``roi`` gives :data:`ROI_RESULTS`,
        ``radiomics``, ``brain`` (the size) and ``deep`` a list ``values`` in the order of the names.
    attributes
        Provenance; anything JSON holds except NaN and infinity.
    of_modality
        By modality the radiomic features that its cases have, in the order of their values; what is another modality's
        is NaN. Empty: every case has all of them.

    Raises
    ------
    StoreError
        When there is no case, when values and names differ in number, or when two covariates have one name.
    """
    if not cases:
        raise StoreError("there is no case, so there are no features; problems.csv says what became of the patients")
    families = (("brain", size), ("roi", ROI_RESULTS), ("radiomics", radiomic), ("deep", deep))
    stages = [stage for stage, names in families if names]
    columns: dict[str, AnyArray] = {
        "case": _text(case.case_id for case in cases),
        "patient_id": _text(case.patient_id for case in cases),
        "roi": _text(case.roi for case in cases),
        "modality": _text(case.modality for case in cases),
        "time_days": _numbers(case.time_days for case in cases),
        "event": _numbers(case.event for case in cases),
        "image_units": _text(_unit(outcomes.get("roi", {}).get(case.case_id)) for case in cases),
        **_roi_results(cases, outcomes.get("roi", {})),
        "problem": _text(_problem(case.case_id, stages, outcomes) for case in cases),
        **_covariates(cases),
    }
    if radiomic:
        columns["radiomic"] = _text(radiomic)
        columns["radiomic_units"] = _text(radiomic.values())
        columns["radiomics"] = _values("radiomics", cases, len(radiomic), outcomes, _places(radiomic, of_modality))
    if size:
        columns["size_feature"] = _text(size)
        columns["size_units"] = _text(size.values())
        columns["size"] = _values("brain", cases, len(size), outcomes)
    if deep:
        columns["deep_feature"] = _text(deep)
        if labels:
            columns["deep_label"] = _text(labels)
        columns["deep"] = _values("deep", cases, len(deep), outcomes).astype(np.float32)
    dataset = _dataset(columns, {"format": _FORMAT, **_plain(attributes)})
    check_dataset(dataset)
    return dataset


def write_features(dataset: xr.Dataset, folder: Path | str) -> None:
    """Write ``features.zarr`` and ``features.csv`` into the folder, whole or not at all; equal data, equal bytes.

    Raises
    ------
    StoreError
        When the dataset is not as the schema says.
    """
    check_dataset(dataset)
    final = Path(folder) / "features.zarr"
    with staging(final) as staged:
        _write_csv(dataset, staged / "features.csv")
        _write_zarr(dataset, staged / "features.zarr")
        (staged / "features.csv").replace(final.with_suffix(".csv"))
        publish_folder(staged / "features.zarr", final)


def read_features(path: Path | str) -> xr.Dataset:
    """Read and check the feature dataset, into memory.

    Parameters
    ----------
    path
        A run's folder, or its ``features.zarr``.

    Raises
    ------
    StoreError
        When there is none, when a part of it is missing, or when it is not as the schema says.
    """
    path = Path(path)
    if path.suffix != ".zarr":
        path = path / "features.zarr"
    if not path.is_dir():
        raise StoreError(f"no features at {path}; `prognosis run` writes them when all cases are through")
    try:
        _check_whole(path)
        # without chunks, so without Dask: workers of a client need not read what is wanted whole and here
        dataset = _text_as_objects(xr.open_zarr(path, consolidated=True, chunks=None).load())
    except (FileNotFoundError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise StoreError(f"{path} cannot be read ({error}); run the job again to write it anew") from error
    if dataset.attrs.get("format") != _FORMAT:
        raise StoreError(
            f"{path}: format is {dataset.attrs.get('format')!r}, expected {_FORMAT!r}; run the job again to write it"
        )
    try:
        check_dataset(dataset)
    except StoreError as error:
        raise StoreError(f"{path}: {error}") from error
    return dataset


def _dataset(columns: Mapping[str, AnyArray], attributes: Mapping[str, Any]) -> xr.Dataset:
    data: dict[str, xr.Variable] = {}
    coordinates: dict[str, xr.Variable] = {}
    for name, values in columns.items():
        spec = spec_of(name)
        (coordinates if spec.coordinate else data)[name] = xr.Variable(spec.dims, values, spec.attributes)
    return xr.Dataset(data, coordinates, dict(attributes))


def _text_as_objects(dataset: xr.Dataset) -> xr.Dataset:
    """The same texts with every NumPy: from 2 on, zarr hands out NumPy's own kind of text, which few others take."""
    texts = {
        str(name): xr.Variable(variable.dims, variable.to_numpy().astype(object), variable.attrs)
        for name, variable in dataset.variables.items()
        if variable.dtype.kind == "T"
    }
    coordinates = {name: texts.pop(name) for name in [*texts] if name in dataset.coords}
    return dataset.assign(texts).assign_coords(coordinates)


def _text(values: Iterable[str]) -> npt.NDArray[np.object_]:
    return np.array(list(values), dtype=_TEXT)


def _numbers(values: Iterable[object]) -> FloatArray:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def _roi_results(cases: Sequence[Case], outcomes: Mapping[str, Outcome]) -> dict[str, FloatArray]:
    done = [_result(outcomes.get(case.case_id)) for case in cases]
    return {name: _numbers(result.get(name) for result in done) for name in ROI_RESULTS}


def _unit(outcome: Outcome | None) -> str:
    return str(_result(outcome).get("image_units", ""))


def _places(radiomic: Iterable[str], of_modality: Mapping[str, Sequence[str]]) -> dict[str, list[int]]:
    """By modality where its features stand among all."""
    place = {name: i for i, name in enumerate(radiomic)}
    return {modality: [place[name] for name in names] for modality, names in of_modality.items()}


def _values(
    stage: str,
    cases: Sequence[Case],
    width: int,
    outcomes: Outcomes,
    places: Mapping[str, Sequence[int]] = MappingProxyType({}),
) -> FloatArray:
    """The stage's values, shape (cases, width); those of a modality with ``places`` stand there, the rest is NaN."""
    table = np.full((len(cases), width), np.nan)
    found = outcomes.get(stage, {})
    for row, case in enumerate(cases):
        values = _result(found.get(case.case_id)).get("values")
        if values is None:
            continue
        at = places.get(case.modality, range(width))
        if not isinstance(values, list) or len(values) != len(at):
            seen = len(values) if isinstance(values, list) else values
            raise StoreError(
                f"{stage} of {case.case_id} holds {seen} values, expected {len(at)}: the ledger and the job do not "
                "belong together; choose another folder with --out"
            )
        table[row, at] = values
    return table


def _result(outcome: Outcome | None) -> Mapping[str, object]:
    return outcome.result if outcome is not None and outcome.problem is None else {}


def _problem(case_id: str, stages: Sequence[str], outcomes: Outcomes) -> str:
    """Every stage that failed; else the first one that has not been run."""
    found = {stage: outcomes.get(stage, {}).get(case_id) for stage in stages}
    failed = [f"{stage}: {outcome.problem.code}" for stage, outcome in found.items() if outcome and outcome.problem]
    waiting = [f"{stage}: not-run" for stage, outcome in found.items() if outcome is None]
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


def _write_zarr(dataset: xr.Dataset, path: Path) -> None:
    chunks = {
        name: {"chunks": (min(variable.shape[0], _CHUNK_CASES), *variable.shape[1:])}
        for name, variable in dataset.variables.items()
    }
    # every chunk is written, so that a missing one can be told from one of NaN
    dataset.to_zarr(path, zarr_format=3, consolidated=False, encoding=chunks, write_empty_chunks=True)
    with warnings.catch_warnings():
        # no part of the format yet, but what xarray.open_zarr looks for first, with a warning where it is missing
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part", category=UserWarning)
        zarr.consolidate_metadata(path)


def _check_whole(path: Path) -> None:
    for name, array in zarr.open_group(path, mode="r").arrays():
        if array.nchunks_initialized != array.nchunks:
            raise StoreError(
                f"{path}: {name} has {array.nchunks_initialized} of its {array.nchunks} chunks; copy it anew, or run "
                "the job again to write it"
            )


def _write_csv(dataset: xr.Dataset, path: Path) -> None:
    """The columns in the schema's order, some cases at a time."""
    names: list[str] = []
    columns: list[AnyArray] = []
    for variable in sorted(map(str, dataset.variables), key=_place):
        values = dataset[variable]
        if values.dims == ("case",):
            names.append("case_id" if variable == "case" else variable)
            columns.append(values.values)
        elif "case" in values.dims:
            names.extend(dataset[values.dims[1]].values)
            columns.extend(values.values.T)
    if len(set(names)) < len(names):
        raise StoreError(f"features.csv would have a column twice: {sorted(n for n in names if names.count(n) > 1)}")
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(names)
        for start in range(0, dataset.sizes["case"], _BLOCK_CASES):
            block = slice(start, start + _BLOCK_CASES)
            writer.writerows(zip(*(_cells(column[block]) for column in columns), strict=True))


def _place(variable: str) -> tuple[int, str]:
    """Where the schema has the variable; covariates are in alphabetical order."""
    name = f"{COVARIATE}*" if variable.startswith(COVARIATE) else variable
    return [spec.name for spec in VARIABLES].index(name), variable


def _cells(values: AnyArray) -> list[str]:
    """Texts as they are; numbers in the shortest form that reads back as the same number, NaN as an empty cell."""
    if values.dtype.kind in "OT":
        return list(values)
    return ["" if math.isnan(value) else str(value) for value in values]


# --- Features that tell no case from another: constant among all cases of a modality.


#: Of fewer cases nothing is said: two may be alike by chance.
FEWEST_CASES = 3


def constant_warnings(dataset: xr.Dataset) -> list[Problem]:
    """A warning for each modality in which radiomic or deep features have one value in all cases.

    Parameters
    ----------
    dataset
        A run's features.
    """
    found = []
    for family in ("radiomics", "deep"):
        if family not in dataset:
            continue
        values = np.asarray(dataset[family].values, dtype=float)
        names = dataset[str(dataset[family].dims[1])].values
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


def _warning(family: str, modality: str, names: list[str], of: int, cases: int) -> Problem:
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    bins = "; of texture, see whether binWidth fits the image's values" if family == "radiomics" else ""
    return Problem(
        Code.FEATURES_CONSTANT,
        f"{len(names)} of {of} {family} features have one value in all {count(cases, f'{modality} case')}: {shown}. "
        f"They tell no case from another{bins}",
        severity="warning",
    )
