"""An image file (NIfTI, NRRD, MHA ...) as an image of SimpleITK: the slices that are asked for."""

from __future__ import annotations

from pathlib import Path

import SimpleITK as sitk

from prognosis_dask.imaging.geometry import image_on
from prognosis_dask.volumes.files import volume_grid, volume_voxels
from prognosis_dask.volumes.grid import Grid

__all__ = ["read_volume", "volume_grid"]


def read_volume(path: Path, grid: Grid, first: int, stop: int) -> sitk.Image:
    """The slices ``first`` to ``stop`` - 1 of an image file on its grid, in its own pixel type.

    Raises
    ------
    CaseError
        As :func:`prognosis_dask.volumes.files.volume_voxels`.
    """
    return image_on(volume_voxels(path, first, stop), grid, (0, 0, first))
