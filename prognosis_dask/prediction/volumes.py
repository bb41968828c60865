"""Image and mask of a scan as NIfTI, for the viewer in the page: the slices as written, with their place in mm."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import nibabel
import numpy as np
import zarr

from prognosis_dask.arrays import NumberArray
from prognosis_dask.publish import replacing

#: The files of the viewer, and which of the slices' arrays each holds.
VOLUMES: Final[dict[str, Literal["image", "mask"]]] = {"image.nii.gz": "image", "mask.nii.gz": "mask"}
#: Fast: the files go over the network once, and are asked for by somebody who waits.
_LEVEL: Final = 1


@dataclass(frozen=True)
class Shown:
    """What the viewer is told before it opens the volumes: windows by name, and how much it will fetch."""

    presets: tuple[tuple[str, float, float], ...]
    megabytes: float


def shown(slices: Path) -> Shown | None:
    """What can be shown in three planes of slices; None where an earlier version wrote them without their place."""
    group = zarr.open_group(slices, mode="r", use_consolidated=False)
    if "affine" not in group.attrs:
        return None
    presets = tuple((str(name), float(centre), float(width)) for name, centre, width in group.attrs["presets"])
    stored = sum(path.stat().st_size for path in slices.rglob("*") if path.is_file())
    return Shown(presets, stored / 1e6)


def volume_file(slices: Path, name: str) -> Path:
    """The NIfTI file of this name (:data:`VOLUMES`) beside the slices, written when it is first asked for.

    Voxel (i, j, k) is column, row and slice of what is shown as slices, the lowest slice first.
    """
    path = slices.parent / name
    if not path.is_file():
        group = zarr.open_group(slices, mode="r", use_consolidated=False)
        values = np.transpose(_small(np.asarray(group[VOLUMES[name]][:])))
        file = nibabel.Nifti1Image(values, np.asarray(group.attrs["affine"], float))  # type: ignore[no-untyped-call]
        file.header.set_xyzt_units("mm")  # type: ignore[no-untyped-call]
        with replacing(path) as aside:
            aside.write_bytes(gzip.compress(file.to_bytes(), _LEVEL, mtime=0))
    return path


def _small(values: NumberArray) -> NumberArray:
    """The same values in 16 bits where these hold them all, else in single precision."""
    if values.dtype == np.uint8:
        return values
    least, most = np.iinfo(np.int16).min, np.iinfo(np.int16).max
    if least <= values.min() and values.max() <= most:
        whole = values.astype(np.int16)
        if np.array_equal(whole, values):
            return whole
    return values.astype(np.float32)
