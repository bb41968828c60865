"""The feature dataset on disk: ``features.zarr`` and ``features.csv``, written whole and checked when read."""

from __future__ import annotations

import csv
import math
import warnings
from pathlib import Path

import xarray as xr
import zarr

from prognosis_dask.arrays import AnyArray
from prognosis_dask.errors import StoreError
from prognosis_dask.features.dataset import FORMAT
from prognosis_dask.features.schema import COVARIATE, check_dataset, variables
from prognosis_dask.publish import publish_folder, staging

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
        raise StoreError(f"{path} cannot be read ({error}); run the job again to write it anew") from error
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
                f"{path}: {name} has {array.nchunks_initialized} of its {array.nchunks} chunks; copy it anew, or run "
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
