"""All stages, one entry each: plan, digests, dataset, report, status, dashboard and server go through this list.

The feature dataset's variables follow from it: one specification each, for the documentation, for writing and reading.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from prognosis_dask.config.job import BrainSection, FramesSection, ImageSection, Job
from prognosis_dask.config.radiomics import IbsiSection
from prognosis_dask.errors import StoreError
from prognosis_dask.features.stage import Family, Stage, VariableSpec, label, number, table
from prognosis_dask.storage.ledger import TaskResult

if TYPE_CHECKING:
    import xarray as xr

_MARGIN = "image.margin_mm"
#: How image and mask are read. What lies around the mask is stored as far as the margin goes: no value depends on it.
_IMAGE = tuple(f"image.{field.name}" for field in fields(ImageSection) if f"image.{field.name}" != _MARGIN)
_BRAIN = tuple(f"brain.{field.name}" for field in fields(BrainSection))
_IBSI = tuple(f"ibsi.{field.name}" for field in fields(IbsiSection) if field.name != "enabled")
_FRAMES = tuple(f"frames.{field.name}" for field in fields(FramesSection))


def _beside_frames(job: Job) -> tuple[str, ...]:
    """The reference study's grey levels follow from the first slice that was read, so from the margin; ours do not."""
    return () if job.frames.placement == "reference" else (_MARGIN,)


def _filter_and_class(feature: str) -> str:
    """From pyradiomics' name of a feature to its filter and class."""
    filtered, _, rest = feature.partition("_")
    return f"{filtered} {rest.partition('_')[0]}"


def _ibsi_family(feature: str) -> str:
    """From IBSI's tag of a feature to its family of features."""
    return f"ibsi {feature.partition('_')[0]}"


def _size_and_place(feature: str) -> str:
    return "tumour’s size and place"


ROI = Stage(
    name="roi",
    title="Region of interest",
    version=2,
    work="prognosis_dask.features.roi:RoiWork",
    needs=("brain", "segment"),
    settings=(*_IMAGE, _MARGIN, *_FRAMES),
    variables=(
        number("voxels", "1", "voxels in the mask"),
        number("volume_ml", "mL", "volume of the mask: voxels times the volume of one"),
        number("n_slices", "1", "slices from the first to the last of the mask, one frame each"),
        number("lesion_cut", "1", "1 where the mask reaches beyond the window that frames show, else 0"),
        VariableSpec(
            "image_units",
            ("case",),
            ("text",),
            "",
            "unit of the image's values; empty where it is not known, as of an image file",
            optional=True,
        ),
    ),
)

RADIOMICS = Stage(
    name="radiomics",
    title="Radiomic features",
    version=2,
    work="prognosis_dask.features.roi:RadiomicsWork",
    switch="radiomics.enabled",
    needs=("roi",),
    values_from=("brain", "segment"),
    settings=_IMAGE,
    family=Family(
        table("radiomics", "radiomic", "see radiomic_units", "radiomic features; NaN where they failed"),
        label("radiomic", "radiomic", "name of the radiomic feature", optional=True),
        units=label(
            "radiomic_units",
            "radiomic",
            "unit of the radiomic feature; u is the image's own unit",
            optional=True,
        ),
        part=_filter_and_class,
        if_constant="of texture, see whether binWidth fits the image's values",
    ),
)

IBSI = Stage(
    name="ibsi",
    title="IBSI features",
    version=1,
    work="prognosis_dask.features.roi:IbsiWork",
    switch="ibsi.enabled",
    needs=("roi",),
    values_from=("brain", "segment"),
    settings=(*_IMAGE, *_IBSI),
    family=Family(
        table("ibsi", "ibsi_feature", "see ibsi_units", "features as IBSI defines them; NaN where they failed"),
        label("ibsi_feature", "ibsi_feature", "IBSI's tag of the feature", optional=True),
        units=label("ibsi_units", "ibsi_feature", "its unit; u is the image's own unit", optional=True),
        part=_ibsi_family,
        if_constant="of texture, see whether the bins fit the image's values",
    ),
    # the Fourier transforms of Moran's I over the box of a large region that is not resampled
    memory=1_500_000_000,
)

MAPS = Stage(
    name="maps",
    title="Feature maps",
    version=1,
    work="prognosis_dask.features.roi:MapsWork",
    switch="maps.enabled",
    needs=("roi",),
    values_from=("brain", "segment"),
    settings=(*_IMAGE, "maps.radius"),
    # the matrices of a batch of neighbourhoods
    memory=1_500_000_000,
)

BRAIN = Stage(
    name="brain",
    title="Preparing the brain, finding and measuring the tumour",
    version=11,
    work="prognosis_dask.features.brain:BrainWork",
    switch="brain.enabled",
    settings=(*_IMAGE, *_BRAIN),
    family=Family(
        table("size", "size_feature", "see size_units", "size and place of the tumour; NaN where they failed"),
        label("size_feature", "size_feature", "name of a figure of the tumour's size or place", optional=True),
        units=label("size_units", "size_feature", "its unit", optional=True),
        part=_size_and_place,
        handful=True,
    ),
    # four sequences of 256 x 256 x 48, the template and the registrations
    memory=2_000_000_000,
)


SEGMENT = Stage(
    name="segment",
    title="Outlining regions by a network",
    version=1,
    work="prognosis_dask.features.segment:SegmentWork",
    switch="segment.enabled",
    settings=_IMAGE,
    variables=(
        VariableSpec(
            "mask_source",
            ("case",),
            ("text",),
            "",
            "drawn, or automatic: outlined by a network, not reviewed; empty where that failed",
            optional=True,
        ),
    ),
    # a chest at 1 mm, its values, and what several channels of a network give
    memory=3_000_000_000,
    device="segment.device",
)


def _read_cubes(value: Callable[[str], Any]) -> bool:
    from prognosis_dask.networks.catalogue import is_cube_network

    return any(
        value(f"{name}.enabled") and is_cube_network(value(f"{name}.network"), value(f"{name}.input_shape"))
        for name in NETWORKS
    )


CUBE = Stage(
    name="cube",
    title="Cubes for the networks",
    version=1,
    work="prognosis_dask.features.deep:CubeWork",
    on=_read_cubes,
    needs=("roi",),
    values_from=("brain", "segment"),
    settings=_IMAGE,
    # a whole CT and its mask, and a cube of eight million voxels with the positions in it
    memory=1_500_000_000,
)


def _network(name: str, title: str) -> Stage:
    """The stage of the network that a section of the job describes."""
    return Stage(
        name=name,
        title=title,
        version=1,
        work="prognosis_dask.features.deep:VideoWork",
        switch=f"{name}.enabled",
        needs=("roi", "cube"),
        values_from=("roi",),  # which cube it reads is part of its inputs
        ignores=_beside_frames,
        family=Family(
            table(name, f"{name}_feature", "1", "features of the network; NaN where they failed", kind="float32"),
            label(f"{name}_feature", f"{name}_feature", "name of the deep feature", optional=True),
            labels=label(
                f"{name}_label",
                f"{name}_feature",
                "class whose logit the deep feature is, where it is one",
                optional=True,
            ),
        ),
        # the network with its weights
        memory=1_500_000_000,
        device=f"{name}.device",
    )


DEEP = _network("deep", "Deep features")
DEEP_2 = _network("deep_2", "Deep features of the second network")
#: Families of networks, each named after its section of the job.
NETWORKS = (DEEP.name, DEEP_2.name)

#: In the order of their variables in the dataset; the order in which a case passes them follows from their needs.
STAGES: tuple[Stage, ...] = (ROI, RADIOMICS, IBSI, MAPS, BRAIN, SEGMENT, CUBE, DEEP, DEEP_2)


def stages() -> tuple[Stage, ...]:
    """All stages, each after those that it needs."""
    found: dict[str, Stage] = {}

    def add(stage: Stage) -> None:
        for name in stage.needs:
            add(stage_named(name))
        found.setdefault(stage.name, stage)

    for stage in STAGES:
        add(stage)
    return tuple(found.values())


def stage_named(name: str) -> Stage:
    """The stage of a name that the registry has."""
    return next(stage for stage in STAGES if stage.name == name)


def stages_of(job: Job | Mapping[str, Any]) -> list[Stage]:
    """The stages that a job, or what ``run.json`` holds of it, has switched on, each after those that it needs."""
    return [stage for stage in stages() if stage.is_on(job)]


def stages_in(record: Mapping[str, Any]) -> list[Stage]:
    """The stages of a run by the content of its ``run.json``: for older runs, only the stages they had."""
    had = record.get("digests")
    return [stage for stage in stages_of(record.get("job") or {}) if not had or stage.name in had]


def families() -> list[Family]:
    """The families of features, in the order of their variables."""
    return [stage.family for stage in STAGES if stage.family]


def families_in(dataset: xr.Dataset) -> list[Family]:
    """The families that a dataset has, in that order."""
    return [family for family in families() if family.name in dataset]


def came_through(
    stages: Collection[Stage], results: Mapping[str, Mapping[str, TaskResult]]
) -> dict[str, dict[str, TaskResult]]:
    """The results, by stage and case, of cases that came through what the stage needs; others are of an earlier job.

    ``stages`` are those of a job, each after those that it needs.
    """
    kept: dict[str, dict[str, TaskResult]] = {}
    done: dict[str, set[str]] = {}
    for stage in stages:
        needs = [done[name] for name in stage.needs if name in done]
        found = results.get(stage.name, {}).items()
        kept[stage.name] = {k: result for k, result in found if all(k in passed for passed in needs)}
        done[stage.name] = {k for k, result in kept[stage.name].items() if result.problem is None}
    return kept


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
    of_stages = [spec for stage in STAGES for spec in stage.variables]
    of_families = [spec for family in families() for spec in family.variables]
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
    of_family = [(family, spec) for family in families() for spec in (family.names, family.units)]
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

<!-- made from prognosis_dask/features/registry.py:
python -c "from prognosis_dask.features.registry import documentation as d; print(d(), end='')" > docs/features.md -->

`features.zarr` in a run's folder is an xarray dataset with one row per case, also of the cases that failed. Open it
with `prognosis_dask.read_features(folder)`, which checks it, or with `xarray.open_zarr(path)`. `radiomics`,
[`ibsi`](ibsi.md), `size` and `deep` are there when the job has switched their stage on. The dataset's attributes say
what its values depend on: the job, the versions of the programs, the digests and the network.

`features.csv` holds the same values, one row per case: the variables of the table below in this order, then one
column per radiomic and per deep feature. Numbers are written so that reading gives the same value, for instance with
`pandas.read_csv(path, float_precision="round_trip", keep_default_na=False, na_values=[""])`; an empty cell is NaN.
Units are in UCUM's notation.
"""
