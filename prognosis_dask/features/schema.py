"""The variables of the feature dataset: one specification each, for the documentation, for writing and for reading."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import TYPE_CHECKING

from prognosis_dask.errors import StoreError
from prognosis_dask.features import registry
from prognosis_dask.features.stage import VariableSpec, label, number

if TYPE_CHECKING:
    import xarray as xr

#: What the name of a covariate's variable starts with; the rest is the column's name in ``cases.csv``.
COVARIATE = "covariate_"

# days are "d", never "days": xarray turns a variable in "days" into time differences when it opens the file
_OF_CASES = (
    label("case", "case", "case_id: patient, image series and region of interest"),
    label("patient_id", "case", "patient"),
    label("roi", "case", "name of the region of interest"),
    label("modality", "case", "DICOM modality of the image"),
    number("time_days", "d", "follow-up; NaN where it is not known"),
    number(
        "event",
        "1",
        "1: the event was seen; 0: the case was censored; 2: a competing event was seen; NaN where not known",
    ),
)
_OF_RUNS = (
    VariableSpec("problem", ("case",), ("text",), "", "'stage: code' of what failed, joined by '; '; empty when fine"),
    VariableSpec(
        f"{COVARIATE}*",
        ("case",),
        ("float64", "text"),
        "",
        "further column of cases.csv, as numbers where all its values are",
        optional=True,
    ),
)


def variables() -> tuple[VariableSpec, ...]:
    """All variables that a dataset may have, in the order of their columns in ``features.csv``."""
    of_stages = [spec for stage in registry.STAGES for spec in stage.variables]
    of_families = [spec for family in registry.families() for spec in family.variables]
    return (*_OF_CASES, *of_stages, *_OF_RUNS, *of_families)


def spec_of(name: Hashable) -> VariableSpec:
    """The specification of a variable; a covariate's own name is part of it.

    Raises
    ------
    StoreError
        When the schema has no such variable.

    >>> spec_of("covariate_age").meaning
    'age: further column of cases.csv, as numbers where all its values are'
    """
    text = str(name)
    known = {spec.name: spec for spec in variables()}
    if text.startswith(COVARIATE):
        spec = known[f"{COVARIATE}*"]
        return replace(spec, name=text, meaning=f"{text.removeprefix(COVARIATE)}: {spec.meaning}")
    if text not in known:
        raise StoreError(f"feature dataset: unknown variable {text!r}, expected one of {', '.join(known)}")
    return known[text]


def check_dataset(dataset: xr.Dataset) -> None:
    """Check that the dataset has the variables of the schema, as the schema says, and no others.

    Raises
    ------
    StoreError
        Names the variable, what was seen and what was expected.
    """
    for spec in variables():
        if not spec.optional and spec.name not in dataset.variables:
            raise StoreError(f"feature dataset: {spec.name} is missing; it has {sorted(map(str, dataset.variables))}")
    for names, values in _together():
        if (names in dataset.variables) != (values in dataset.variables):
            raise StoreError(f"feature dataset: {names} and {values} go together, one of them is missing")
    for name in dataset.variables:
        _check_variable(name, dataset)


def _together() -> list[tuple[str, str]]:
    """The coordinates that say what a table's columns are, each with its table."""
    of_family = [(family, spec) for family in registry.families() for spec in (family.names, family.units)]
    return [(spec.name, family.name) for family, spec in of_family if spec]


def _check_variable(name: Hashable, dataset: xr.Dataset) -> None:
    spec, variable = spec_of(name), dataset.variables[name]

    def expect(what: str, seen: object, expected: object) -> None:
        if seen != expected:
            raise StoreError(f"feature dataset: {spec.name}: {what} is {seen!r}, expected {expected!r}")

    expect("dimensions", variable.dims, spec.dims)
    expect("being a coordinate", name in dataset.coords, spec.coordinate)
    for key, value in spec.attributes.items():
        expect(key, variable.attrs.get(key), value)
    kind = str(variable.dtype)
    if variable.dtype.kind in "OT" and all(isinstance(value, str) for value in variable.values):
        kind = "text"
    if kind not in spec.kinds:
        raise StoreError(f"feature dataset: {spec.name}: type is {kind}, expected {' or '.join(spec.kinds)}")
    if spec.dims == (spec.name,) and not dataset.indexes[name].is_unique:
        repeated = dataset.indexes[name][dataset.indexes[name].duplicated()][0]
        raise StoreError(f"feature dataset: {spec.name}: {repeated!r} is there twice, expected every name once")


def documentation() -> str:
    """The page ``docs/features.md``."""
    rows = [
        f"| `{spec.name}` | {', '.join(spec.dims)} | {' or '.join(spec.kinds)} | {spec.units} | {spec.meaning} |"
        for spec in variables()
    ]
    return "\n".join([_HEAD, "| variable | dimensions | type | unit | meaning |", "|---|---|---|---|---|", *rows, ""])


_HEAD = """# The feature dataset

<!-- made from prognosis_dask/features/schema.py:
python -c "from prognosis_dask.features.schema import documentation as d; print(d(), end='')" > docs/features.md -->

`features.zarr` in a run's folder is an xarray dataset with one row per case, also of the cases that failed. Open it
with `prognosis_dask.read_features(folder)`, which checks it, or with `xarray.open_zarr(path)`. `radiomics`,
[`ibsi`](ibsi.md), `size` and `deep` are there when the job has switched their stage on. The dataset's attributes say
what its values depend on: the job, the versions of the programs, the digests and the network.

`features.csv` holds the same values, one row per case: the variables of the table below in this order, then one
column per radiomic and per deep feature. Numbers are written so that reading gives the same value, for instance with
`pandas.read_csv(path, float_precision="round_trip", keep_default_na=False, na_values=[""])`; an empty cell is NaN.
Units are in UCUM's notation.
"""
