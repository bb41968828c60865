"""The region of interest in memory: image and mask on one grid, and where they lie in the full series."""

from __future__ import annotations

from dataclasses import dataclass

import SimpleITK as sitk

from prognosis_dask.volumes.grid import Grid

__all__ = ["Grid", "Roi", "grid_of"]


@dataclass(frozen=True)
class Roi:
    """Image and mask (0 and 1, uint8) on the same grid, cut out of a larger image.

    ``full`` is the geometry of the uncropped image; ``start`` the (x, y, z) index there of the first voxel here.
    pyradiomics' results depend on both, which is why they travel with every crop. ``unit`` is the image's, in UCUM's
    notation; empty: nobody says.
    """

    image: sitk.Image
    mask: sitk.Image
    full: Grid
    start: tuple[int, int, int]
    unit: str = ""


def grid_of(image: sitk.Image) -> Grid:
    """The geometry of a SimpleITK image."""
    return Grid(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
