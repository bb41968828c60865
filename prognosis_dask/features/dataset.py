"""The feature dataset: one labelled table of what the stages found, and its files.

``features.zarr`` and ``features.csv`` are written whole, and checked when read.
"""

from __future__ import annotations

import csv
import json
import math
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr

from prognosis_dask.arrays import AnyArray, FloatArray
from prognosis_dask.cohort.case import Case
from prognosis_dask.errors import Code, Problem, StoreError, count
from prognosis_dask.features.registry import COVARIATE, check_dataset, families_in, spec_of, stages, variables
from prognosis_dask.features.stage import Columns, Family, Stage, VariableSpec
from prognosis_dask.publish import publish_folder, staging
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
    """Collect what the stages found into one labelled dataset, as :mod:`prognosis_dask.features.registry` describes it.

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
        raise StoreError("no case could be used, so there are no features; see problems.csv")
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
    for family in families_in(dataset):
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


#: Of fewer features two patients may have the same by chance.
FEWEST_FEATURES = 10


def twin_warnings(dataset: xr.Dataset) -> list[Problem]:
    """A warning for each group of patients with the same features in a modality: one person's scan under several IDs.

    Models would be validated on what they were fitted to.

    Parameters
    ----------
    dataset
        A run's features.
    """
    measured = [np.asarray(dataset[one.name].values, dtype=float) for one in families_in(dataset)]
    if not measured:
        return []
    rows = np.concatenate([values.reshape(len(values), -1) for values in measured], axis=1)
    alike: dict[tuple[str, bytes], dict[str, int]] = defaultdict(dict)
    for row, modality, patient in zip(rows, dataset["modality"].values, dataset["patient_id"].values, strict=True):
        held = int(np.isfinite(row).sum())
        if held >= FEWEST_FEATURES:
            alike[str(modality), row.tobytes()][str(patient)] = held
    return [
        Problem(
            Code.PATIENTS_MIXED,
            f"the patients {', '.join(list(found)[:5])}{', ...' if len(found) > 5 else ''} have the same "
            f"{next(iter(found.values()))} features of {modality}: one scan under several IDs? leave the others out, "
            f"else a model is validated on what it was fitted to",
            severity="warning",
        )
        for (modality, _), found in alike.items()
        if len(found) > 1
    ]


def said_of_twins(twins: Sequence[Problem]) -> list[str]:
    """What the terminal says of :func:`twin_warnings`: a cohort exported twice has as many groups as patients."""
    if len(twins) < 2:
        return [one.reason for one in twins]
    groups = f"{count(len(twins), 'group')} of patients with the same features, listed in problems.csv"
    return [f"{groups}; first: {twins[0].reason}"]


_CHUNK_CASES = 4096
_BLOCK_CASES = 256


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

    Examples
    --------
    >>> features = read_features("runs/chest")
    >>> features["radiomics"].dims, features["radiomics"].shape
    (('case', 'radiomic'), (16, 107))
    >>> features.sel(case="MADE-0001_CT_GTV-1", radiomic="original_shape_Sphericity")["radiomics"].item() < 1
    True
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
        raise StoreError(f"{path} cannot be read ({error}); run the job again to rewrite it") from error
    if dataset.attrs.get("format") != FORMAT:
        raise StoreError(
            f"{path}: format is {dataset.attrs.get('format')!r}, expected {FORMAT!r}; run the job again to write it"
        )
    try:
        check_dataset(dataset)
    except StoreError as error:
        raise StoreError(f"{path}: {error}") from error
    return dataset


def _text_as_objects(dataset: xr.Dataset) -> xr.Dataset:
    """The same texts with every NumPy: from 2 on, zarr hands out NumPy's own kind of text, which few others take."""
    texts = {
        str(name): xr.Variable(variable.dims, variable.to_numpy().astype(object), variable.attrs)
        for name, variable in dataset.variables.items()
        if variable.dtype.kind == "T"
    }
    coordinates = {name: texts.pop(name) for name in [*texts] if name in dataset.coords}
    return dataset.assign(texts).assign_coords(coordinates)


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
                f"{path}: {name} has {array.nchunks_initialized} of its {array.nchunks} chunks; copy it again, or run "
                "the job again to write it"
            )


def _write_csv(dataset: xr.Dataset, path: Path) -> None:
    """The columns in the schema's order, some cases at a time."""
    order = [spec.name for spec in variables()]

    def place(variable: str) -> tuple[int, str]:
        """Where the schema has the variable; covariates are in alphabetical order."""
        return order.index(f"{COVARIATE}*" if variable.startswith(COVARIATE) else variable), variable

    names: list[str] = []
    columns: list[AnyArray] = []
    for variable in sorted(map(str, dataset.variables), key=place):
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


def _cells(values: AnyArray) -> list[str]:
    """Texts as they are; numbers in the shortest form that reads back as the same number, NaN as an empty cell."""
    if values.dtype.kind in "OT":
        return list(values)
    return ["" if math.isnan(value) else str(value) for value in values]


def read_images(folder: Path | str, case_id: str) -> xr.Dataset:
    """A case's cropped image and mask, and its frames, from a run's folder, with coordinates in mm.

    Returns
    -------
    xarray.Dataset
        ``image`` in its own unit and ``mask`` (0 and 1), (z, y, x); ``frames`` of the video network, (slice, row,
        column), 0 to 255. The coordinates are distances in mm along the image's own axes from its first voxel; where
        that lies in the patient stands in the attributes ``origin_mm`` and ``direction``.

    Raises
    ------
    CaseError, StoreError
        When the run has no such case, or its images are damaged.

    Examples
    --------
    >>> images = read_images("runs/chest", "MADE-0001_CT_GTV-1")
    >>> images["image"].dims, images["frames"].dims
    (('z', 'y', 'x'), ('slice', 'row', 'column'))

    A slice through the middle, with the outline, by xarray and matplotlib::

        middle = images.isel(z=images.sizes["z"] // 2)
        middle.image.plot.imshow(cmap="gray", vmin=-160, vmax=240, yincrease=False)
        middle.mask.plot.contour(levels=[0.5], colors="orange", yincrease=False)
        images.frames.plot.imshow(col="slice", col_wrap=6, cmap="gray", yincrease=False)
    """
    import SimpleITK as sitk

    from prognosis_dask.storage.ledger import digests_in
    from prognosis_dask.storage.rois import RoiStore

    store = RoiStore.open(Path(folder) / "rois.zarr")
    made = digests_in(Path(folder), RoiStore.stage).get(case_id, "")
    roi, frames = store.read_roi(case_id, made), store.read_frames(case_id, made)
    axes = zip("xyz", roi.image.GetSize(), roi.image.GetSpacing(), strict=True)
    coordinates = {name: (name, [i * step for i in range(n)], {"units": "mm"}) for name, n, step in axes}
    return xr.Dataset(
        {
            "image": (("z", "y", "x"), sitk.GetArrayFromImage(roi.image), {"units": roi.unit}),
            "mask": (("z", "y", "x"), sitk.GetArrayFromImage(roi.mask)),
            "frames": (("slice", "row", "column"), frames),
        },
        coordinates,
        {"case_id": case_id, "origin_mm": roi.image.GetOrigin(), "direction": roi.image.GetDirection()},
    )
