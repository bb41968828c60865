"""``volumes.zarr``: what the grade network takes, one small volume per case.

Layout (zarr format 3)::

    volume    (case, slice, row, column) float32, one file per case; NaN where a case has none
    case_id   (case) text
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import zarr

from prognosis_dask.arrays import Float32Array
from prognosis_dask.errors import StoreError, count
from prognosis_dask.publish import publish_folder, staging


def create_volumes(path: Path, case_ids: Sequence[str], shape: tuple[int, int, int]) -> None:
    """Make the store, unless it is there for these cases and this shape. For the driver, before the tasks.

    Volumes of cases that an older store of that shape holds are kept.
    """
    held: dict[str, Float32Array] = {}
    if path.exists():
        old = list(_case_ids(path))
        volume = _open(path, "r")["volume"]
        if old == list(case_ids) and volume.shape[1:] == shape:
            return
        if volume.shape[1:] == shape:
            held = {name: volume[row] for row, name in enumerate(old) if name in set(case_ids)}
    with staging(path) as folder:
        group = zarr.create_group(store=folder / "store")
        made = group.create_array(
            "volume",
            shape=(len(case_ids), *shape),
            chunks=(1, *shape),
            dtype="float32",
            fill_value=float("nan"),
            dimension_names=("case", "slice", "row", "column"),
        )
        names = group.create_array(
            "case_id", shape=(len(case_ids),), chunks=(4096,), dtype=str, dimension_names=("case",)
        )
        names[:] = np.array(case_ids, dtype=object)
        for row, name in enumerate(case_ids):
            if name in held:
                made[row] = held[name]
        publish_folder(folder / "store", path)


def write_volume(path: Path, case_id: str, volume: Float32Array) -> None:
    """Write one case's volume, replacing what it had."""
    _open(path, "r+")["volume"][_case_ids(path)[case_id]] = volume


def read_volumes(path: Path, case_ids: Sequence[str]) -> Float32Array:
    """The volumes of these cases, shape (cases, slice, row, column).

    Raises
    ------
    StoreError
        When there is no such store, or it lacks a case.
    """
    known, volume = _case_ids(path), _open(path, "r")["volume"]
    volumes = np.full((len(case_ids), *volume.shape[1:]), np.nan, np.float32)
    for row, name in enumerate(case_ids):
        if name in known:
            volumes[row] = volume[known[name]]
    lost = [name for name, one in zip(case_ids, volumes, strict=True) if np.isnan(one).any()]
    if lost:
        raise StoreError(
            f"{path} holds no volume of {count(len(lost), 'case')} ({', '.join(lost[:3])}); run the job again"
        )
    return volumes


def _open(path: Path, mode: str) -> zarr.Group:
    try:
        return zarr.open_group(path, mode=mode, use_consolidated=False)
    except (FileNotFoundError, ValueError, KeyError) as error:
        raise StoreError(f"no store of volumes at {path} ({error}); `prognosis run` makes one") from error


def _case_ids(path: Path) -> dict[str, int]:
    return {str(name): row for row, name in enumerate(_open(path, "r")["case_id"][:])}
