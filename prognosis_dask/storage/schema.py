"""The variables of the feature dataset: one specification each, for the documentation, for writing and for reading."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from prognosis_dask.errors import StoreError

if TYPE_CHECKING:
    import xarray as xr

Kind = Literal["text", "float64", "float32"]

#: What the name of a covariate's variable starts with; the rest is the column's name in ``cases.csv``.
COVARIATE = "covariate_"


@dataclass(frozen=True)
class VariableSpec:
    """One variable.

    Attributes
    ----------
    name
        Its name; the one that ends in ``*`` stands for all that begin so.
    dims
        Its dimensions, in order.
    kinds
        What it may hold: ``text`` (an array of str), ``float64``, ``float32``.
    units
        In UCUM's notation, ``1`` for a pure number; empty for text.
    meaning
        One line; the variable's ``long_name``.
    coordinate
        Whether it is a coordinate.
    optional
        Whether a dataset may lack it.
    """

    name: str
    dims: tuple[str, ...]
    kinds: tuple[Kind, ...]
    units: str
    meaning: str
    coordinate: bool = False
    optional: bool = False

    @property
    def attributes(self) -> dict[str, str]:
        """What the variable carries in the dataset."""
        return {"long_name": self.meaning, "units": self.units}


def _label(name: str, dim: str, meaning: str, *, optional: bool = False) -> VariableSpec:
    return VariableSpec(name, (dim,), ("text",), "", meaning, coordinate=True, optional=optional)


def _number(name: str, units: str, meaning: str) -> VariableSpec:
    return VariableSpec(name, ("case",), ("float64",), units, meaning)


# days are "d", never "days": xarray turns a variable in "days" into time differences when it opens the file
VARIABLES = (
    _label("case", "case", "case_id: patient, image series and region of interest"),
    _label("patient_id", "case", "patient"),
    _label("roi", "case", "name of the region of interest"),
    _label("modality", "case", "DICOM modality of the image"),
    _number("time_days", "d", "follow-up; NaN where it is not known"),
    _number("event", "1", "1 where the event was seen, 0 where the case was censored; NaN where it is not known"),
    _number("voxels", "1", "voxels in the mask"),
    _number("volume_ml", "mL", "volume of the mask: voxels times the volume of one"),
    _number("n_slices", "1", "slices from the first to the last of the mask, one frame each"),
    _number("lesion_cut", "1", "1 where the mask reaches beyond the window that frames show, else 0"),
    VariableSpec(
        "image_units",
        ("case",),
        ("text",),
        "",
        "unit of the image's values; empty where nobody says, as of an image file",
        optional=True,
    ),
    VariableSpec("problem", ("case",), ("text",), "", "'stage: code' of what failed, joined by '; '; empty when fine"),
    VariableSpec(
        f"{COVARIATE}*",
        ("case",),
        ("float64", "text"),
        "",
        "further column of cases.csv, as numbers where all its values are",
        optional=True,
    ),
    _label("radiomic", "radiomic", "name of the radiomic feature", optional=True),
    _label("radiomic_units", "radiomic", "unit of the radiomic feature; u is the image's own unit", optional=True),
    VariableSpec(
        "radiomics",
        ("case", "radiomic"),
        ("float64",),
        "see radiomic_units",
        "radiomic features; NaN where they failed",
        optional=True,
    ),
    _label("size_feature", "size_feature", "name of a figure of the tumour's size or place", optional=True),
    _label("size_units", "size_feature", "its unit", optional=True),
    VariableSpec(
        "size",
        ("case", "size_feature"),
        ("float64",),
        "see size_units",
        "size and place of the tumour; NaN where they failed",
        optional=True,
    ),
    _label("deep_feature", "deep_feature", "name of the deep feature", optional=True),
    _label("deep_label", "deep_feature", "class whose logit the deep feature is, where it is one", optional=True),
    VariableSpec(
        "deep",
        ("case", "deep_feature"),
        ("float32",),
        "1",
        "features of the network; NaN where they failed",
        optional=True,
    ),
)
_TOGETHER = (
    ("radiomic", "radiomics"),
    ("radiomic_units", "radiomics"),
    ("size_feature", "size"),
    ("size_units", "size"),
    ("deep_feature", "deep"),
)
_BY_NAME = {spec.name: spec for spec in VARIABLES}


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
    if text.startswith(COVARIATE):
        spec = _BY_NAME[f"{COVARIATE}*"]
        return replace(spec, name=text, meaning=f"{text.removeprefix(COVARIATE)}: {spec.meaning}")
    if text not in _BY_NAME:
        raise StoreError(f"feature dataset: unknown variable {text!r}, expected one of {', '.join(_BY_NAME)}")
    return _BY_NAME[text]


def check_dataset(dataset: xr.Dataset) -> None:
    """Check that the dataset has the variables of the schema, as the schema says, and no others.

    Raises
    ------
    StoreError
        Names the variable, what was seen and what was expected.
    """
    for spec in VARIABLES:
        if not spec.optional and spec.name not in dataset.variables:
            raise StoreError(f"feature dataset: {spec.name} is missing; it has {sorted(map(str, dataset.variables))}")
    for label, values in _TOGETHER:
        if (label in dataset.variables) != (values in dataset.variables):
            raise StoreError(f"feature dataset: {label} and {values} go together, one of them is missing")
    for name in dataset.variables:
        _check_variable(name, dataset)


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
        for spec in VARIABLES
    ]
    return "\n".join([_HEAD, "| variable | dimensions | type | unit | meaning |", "|---|---|---|---|---|", *rows, ""])


_HEAD = """# The feature dataset

<!-- made from prognosis_dask/storage/schema.py:
python -c "from prognosis_dask.storage.schema import documentation as d; print(d(), end='')" > docs/features.md -->

`features.zarr` in a run's folder is an xarray dataset with one row per case, also of the cases that failed. Open it
with `prognosis_dask.read_features(folder)`, which checks it, or with `xarray.open_zarr(path)`. `radiomics`, `size`
and `deep` are there when the job has switched their stage on. The dataset's attributes say what its values depend on:
the job, the versions of the programs, the digests and the network.

`features.csv` holds the same values, one row per case: the variables of the table below in this order, then one
column per radiomic and per deep feature. Numbers are written so that reading gives the same value, for instance with
`pandas.read_csv(path, float_precision="round_trip", keep_default_na=False, na_values=[""])`; an empty cell is NaN.
Units are in UCUM's notation.
"""
