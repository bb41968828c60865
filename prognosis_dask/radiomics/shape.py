"""pyradiomics' shape features of a mask: surface, volume and diameters of its mesh with the bits of its C code."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from radiomics import cShape, getFeatureClasses
from radiomics.shape import RadiomicsShape

from prognosis_dask.arrays import BoolArray, FloatArray, IntArray
from prognosis_dask.radiomics.kernels import call, chunk, kernels

#: The triangles of a cube of eight voxels, by the bits of those in the mask (up to 127; beyond, the complement's),
#: three edges each, as hexadecimal digits. Marching cubes (Lorensen and Cline 1987), in the order in which pyradiomics
#: adds them (radiomics/src/cshape.c, Copyright 2017 Harvard Medical School, BSD 3-Clause).
_TRIANGLES = """
- 083 190 183198 12a 08312a 92a029 2832a8a98 b23 b2008b 190b23 b2119b98b 3a1ba3 a1008a8ba 9033b9ba9 98aba8 478
043473 190478 194147173 12a478 34730412a 92a902478 2a9297273479 478b23 b47b24204 190478b23 47b94bb29192 3a1ba3478
ba114b10447b 4789033b9ba9 47b4b99ba 954 954083 054015 854835315 12a954 08312a954 2a5542240 2a5325354834 954b23
b2008b954 054015b23 215258b28548 3a1ba3954 549a1008a8ba 54050ba5bb03 548a58ba8 789579 309539357 780017715 157173
78957912a 12a309395357 0288258572a5 2a5253357 579789b23 579972209b27 b23018178157 21b17b157 7895793a1ba3
5705097b0a10ba0 ba003ba50078570 ba557b 65a 08365a 19065a 18319865a 165126 165126083 965906026 598582526832 b2365a
b2008b65a 190b2365a b2119b98b65a 63b653513 08b0b50515b6 63b036065059 65969bb98 47865a 04347365a 19047865a
19414717365a 478165126 043473165126 478965906026 739479329596269 b2347865a b47b2420465a 190b2347865a
47b94bb2919265a 47863b653513 51b5b610b47b04b 47863b036065059 65969b4797b9 a4964a a4964a083 01aa60640 18316886461a
149124264 149124264083 024426 832824426 b23a4964a b2008ba4964a b2301aa60640 64161a148b2118b 964369139b63
18b081b61149641 63b036640 86468b 67a78a89a 67a0a709a073 67a1a7178018 67a1a7173 126168189678 269129679309739
078706602 273267 b2367a78a89a 207b2709767a9a7 67a1a7178018b23 b2117ba61167 896678169b63136 09167b 07870603bb60 67b
"""
#: A cube's corners, (z, y, x), in the order of their bits.
_CORNERS = ((0, 0, 0), (0, 0, 1), (0, 1, 1), (0, 1, 0), (1, 0, 0), (1, 0, 1), (1, 1, 1), (1, 1, 0))
#: The corners that an edge joins.
_EDGES = ((0, 1), (1, 2), (2, 3), (0, 3), (4, 5), (5, 6), (6, 7), (4, 7), (0, 4), (1, 5), (2, 6), (3, 7))


_Mesh = tuple[float, float, tuple[float, float, float, float]]


class _Shape(RadiomicsShape):  # type: ignore[misc]
    """Takes an array, (z, y, x), as its mask; in pyradiomics' module, whose logger it uses."""

    __module__ = RadiomicsShape.__module__

    def __init__(self, mask: BoolArray, spacing: tuple[float, ...], known: dict[Any, Any] | None) -> None:
        self.logger = logging.getLogger(self.__module__)
        self.voxelBased = False
        self.enabledFeatures: dict[str, bool] = {}
        self.featureValues: dict[str, Any] = {}
        self.featureNames = _NAMES
        self.pixelSpacing = np.array(spacing[::-1])
        key = "mesh", mask.shape, spacing, b"" if known is None else mask.tobytes()
        found: _Mesh = (known or {}).get(key) or mesh(mask, self.pixelSpacing)
        if known is not None:
            known[key] = found
        self.SurfaceArea, self.Volume, self.diameters = found
        places = _spread(mask, self.pixelSpacing)
        self.labelledVoxelCoordinates = places.T  # of which pyradiomics only wants the number
        # BLAS and LAPACK round differently for other memory layouts
        self.eigenValues = np.linalg.eigvals(np.dot(places.T.copy(), places))
        self.eigenValues[(self.eigenValues < 0) & (self.eigenValues > -1e-10)] = 0
        self.eigenValues.sort()


_NAMES = RadiomicsShape.getFeatureNames()


def shape_features(
    mask: BoolArray,
    spacing: tuple[float, ...],
    kinds: dict[str, Any],
    settings: dict[str, Any],
    known: dict[Any, Any] | None = None,
) -> dict[str, Any]:
    """The features of ``computeShape()`` for a mask cut to its box; ``known`` holds the meshes of other parameters."""
    values: dict[str, Any] = {}
    for kind in ("shape", "shape2D"):
        if kind not in kinds or (kind == "shape2D" and not _is_plane(mask, settings)):
            continue
        shape = _Shape(mask, spacing, known) if kind == "shape" else _plane(mask, spacing, settings)
        for name in kinds[kind] or ():
            shape.enableFeatureByName(name)
        values |= {f"original_{kind}_{name}": value for name, value in shape.execute().items()}
    return values


def _is_plane(mask: BoolArray, settings: dict[str, Any]) -> bool:
    """By pyradiomics' own test, with the axes in reverse order."""
    return bool(settings.get("force2D", False)) and mask.shape[::-1][settings.get("force2Ddimension", 0)] > 1


def _plane(mask: BoolArray, spacing: tuple[float, ...], settings: dict[str, Any]) -> Any:
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(spacing)
    return getFeatureClasses()["shape2D"](image, image, **settings)


def mesh(mask: BoolArray, spacing: npt.ArrayLike) -> _Mesh:
    """Surface, volume and largest diameters of a mask, (z, y, x), with voxels of ``spacing``, (z, y, x), in mm.

    The diameters are those within a plane of one z (Slice), y (Column) and x (Row), then in space.
    """
    padded, spacing = np.pad(mask, 1), np.asarray(spacing)
    if kernels() is None:
        surface, volume, diameters = cShape.calculate_coefficients(padded, spacing)
        return surface, volume, tuple(diameters)
    # in half voxels, since a vertex lies halfway between two voxels
    places = [np.arange(2 * size) / 2 * step for size, step in zip(padded.shape, spacing, strict=True)]
    first, edges = _triangle_tables()
    size, both, four = np.array(padded.shape), np.empty(2), np.empty(4)
    call("surface_and_volume", padded, size, first, edges, *places, both)
    call("diameters", padded, size, *places, four)
    return float(both[0]), float(both[1]), tuple(four.tolist())


def _spread(mask: BoolArray, spacing: FloatArray) -> FloatArray:
    """The voxels' places from their mean in mm over the root of their number, (voxels, axes).

    They lie column by column in memory, as in pyradiomics.
    """
    terms = chunk()
    if terms is not None:
        along = np.empty((3, np.count_nonzero(mask)))
        call("spread", np.ascontiguousarray(mask), np.array(mask.shape), spacing, along.shape[1], terms, along)
        return along.T
    places = np.array(np.where(np.pad(mask, 1))).transpose((1, 0)) * spacing
    places -= np.mean(places, axis=0)
    places /= np.sqrt(len(places))
    return places


@cache
def _triangle_tables() -> tuple[IntArray, IntArray]:
    """First triangle of each cube; vertex coordinates of all triangles, in half voxels."""
    rows = [row.replace("-", "") for row in _TRIANGLES.split()]
    first = np.cumsum([0] + [len(row) // 3 for row in rows])
    middles = np.array([np.add(_CORNERS[one], _CORNERS[other]) for one, other in _EDGES])
    return first, middles[[int(digit, 16) for row in rows for digit in row]]
