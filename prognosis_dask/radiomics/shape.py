"""pyradiomics' shape features of a mask: surface, volume and diameters of its mesh with the bits of its C code."""

from __future__ import annotations

import logging
import math
from functools import cache, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from radiomics import getFeatureClasses
from radiomics.shape import RadiomicsShape

from prognosis_dask.arrays import BoolArray, FloatArray, IntArray

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
#: Cells along each axis.
_CELLS = 12


class _Shape(RadiomicsShape):  # type: ignore[misc]
    """Takes an array, (z, y, x), as its mask; in pyradiomics' module, whose logger it uses."""

    __module__ = RadiomicsShape.__module__

    def __init__(self, mask: BoolArray, spacing: tuple[float, ...]) -> None:
        self.logger = logging.getLogger(self.__module__)
        self.voxelBased = False
        self.enabledFeatures: dict[str, bool] = {}
        self.featureValues: dict[str, Any] = {}
        self.featureNames = _NAMES
        self.pixelSpacing = np.array(spacing[::-1])
        self.SurfaceArea, self.Volume, self.diameters = mesh(mask, self.pixelSpacing)
        # pyradiomics' own steps from here: BLAS and LAPACK round differently for other memory layouts
        self.labelledVoxelCoordinates = np.where(np.pad(mask, 1))
        count = len(self.labelledVoxelCoordinates[0])
        places = np.array(self.labelledVoxelCoordinates, dtype="int").transpose((1, 0)) * self.pixelSpacing[None, :]
        places -= np.mean(places, axis=0)
        places /= np.sqrt(count)
        self.eigenValues = np.linalg.eigvals(np.dot(places.T.copy(), places))
        self.eigenValues[(self.eigenValues < 0) & (self.eigenValues > -1e-10)] = 0
        self.eigenValues.sort()


_NAMES = RadiomicsShape.getFeatureNames()


def shape_features(
    mask: BoolArray, spacing: tuple[float, ...], kinds: dict[str, Any], settings: dict[str, Any]
) -> dict[str, Any]:
    """The features of ``computeShape()`` for a mask cut to its box."""
    values: dict[str, Any] = {}
    for kind in ("shape", "shape2D"):
        if kind not in kinds or (kind == "shape2D" and not _is_plane(mask, settings)):
            continue
        shape = _Shape(mask, spacing) if kind == "shape" else _plane(mask, spacing, settings)
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


_Mesh = tuple[float, float, tuple[float, float, float, float]]


def mesh(mask: BoolArray, spacing: npt.ArrayLike) -> _Mesh:
    """Surface, volume and largest diameters of a mask, (z, y, x), with voxels of ``spacing``, (z, y, x), in mm.

    The diameters are those within a plane of one z (Slice), y (Column) and x (Row), then in space.
    """
    return _mesh(mask.shape, np.ascontiguousarray(mask).tobytes(), tuple(np.asarray(spacing).tolist()))


@lru_cache(maxsize=1)
def _mesh(shape: tuple[int, ...], voxels: bytes, spacing: tuple[float, ...]) -> _Mesh:
    """Kept for other parameters with the same mask."""
    padded = np.pad(np.frombuffer(voxels, bool).reshape(shape), 1)
    # in half voxels, since a vertex lies halfway between two voxels
    places = [np.arange(2 * size) / 2 * step for size, step in zip(padded.shape, np.asarray(spacing), strict=True)]
    return *_surface_and_volume(padded, places), _diameters(padded, places)


def _surface_and_volume(mask: BoolArray, places: list[FloatArray]) -> tuple[float, float]:
    cubes, kinds = _surface_cubes(mask)
    first, edges = _triangle_tables()
    complement = kinds >= 128
    kinds = np.where(complement, 255 - kinds, kinds)
    owner, triangles = _ranges(first[kinds], first[kinds + 1])
    a, b, c = (
        [
            place[(2 * cube)[owner] + edges[axis, corner][triangles]]
            for axis, (place, cube) in enumerate(zip(places, cubes, strict=True))
        ]
        for corner in range(3)
    )
    normal = _cross(a, b)
    volume = (normal[0] * c[0] + normal[1] * c[1] + normal[2] * c[2]) * (1.0 - 2.0 * complement)[owner]
    normal = _cross(*([p - q for p, q in zip(point, c, strict=True)] for point in (a, b)))
    for one in normal:
        one *= one
    surface = 0.5 * np.sqrt(normal[0] + normal[1] + normal[2])
    return _sum_in_order(surface), _sum_in_order(volume) / 6


def _surface_cubes(mask: BoolArray) -> tuple[tuple[IntArray, ...], IntArray]:
    """The cubes partly inside the mask, in order: their positions, (z, y, x), and the bits of their corners."""
    size = tuple(side - 1 for side in mask.shape)
    bits = np.zeros(size, np.uint8)
    voxels = mask.view(np.uint8)
    for number, corner in enumerate(_CORNERS):
        part = voxels[tuple(slice(at, at + side) for at, side in zip(corner, size, strict=True))]
        bits |= np.left_shift(part, number, dtype=np.uint8)
    flat = np.flatnonzero((bits != 0) & (bits != 255))
    return np.unravel_index(flat, size), bits.ravel()[flat].astype(np.int64)


@cache
def _triangle_tables() -> tuple[IntArray, IntArray]:
    """First triangle of each cube; vertex coordinates of all triangles, in half voxels."""
    rows = [row.replace("-", "") for row in _TRIANGLES.split()]
    first = np.cumsum([0] + [len(row) // 3 for row in rows])
    middles = np.array([np.add(_CORNERS[one], _CORNERS[other]) for one, other in _EDGES])
    edges = np.array([int(digit, 16) for row in rows for digit in row])
    return first, np.ascontiguousarray(middles[edges].reshape(-1, 3, 3).T)


def _cross(a: list[FloatArray], b: list[FloatArray]) -> list[FloatArray]:
    return [a[1] * b[2] - b[1] * a[2], a[2] * b[0] - b[2] * a[0], a[0] * b[1] - b[0] * a[1]]


def _sum_in_order(terms: FloatArray) -> float:
    """Unlike NumPy's pairwise sum."""
    return float(np.cumsum(terms)[-1]) + 0.0 if terms.size else 0.0


def _diameters(mask: BoolArray, places: list[FloatArray]) -> tuple[float, float, float, float]:
    """Of a line of vertices only the two ends are compared: one of them is at least as far from any other vertex.

    That holds for rounded distances too, since rounding of differences, squares and sums is monotonic.
    """
    vertices = _vertices(mask)
    sizes = [2 * side for side in mask.shape]
    ends = [_line_ends(vertices, axis, sizes) for axis in (0, 1, 2)]
    planes = [_line_ends(ends[(axis + 2) % 3], (axis + 1) % 3, sizes) for axis in (0, 1, 2)]
    within = [math.sqrt(_largest(points, points[:, axis], places)) for axis, points in enumerate(planes)]
    space = _line_ends(planes[0], 0, sizes)
    return within[0], within[1], within[2], math.sqrt(_largest(space, np.zeros(len(space), np.int64), places))


def _vertices(mask: BoolArray) -> IntArray:
    """The mesh's vertices, shape (n, 3), (z, y, x) in half voxels, ordered along each line."""
    vertices = []
    for axis in range(3):
        changes = np.diff(mask.view(np.int8), axis=axis)
        points = 2 * np.stack(np.unravel_index(np.flatnonzero(changes), changes.shape), axis=1)
        points[:, axis] += 1
        vertices.append(points)
    return np.concatenate(vertices)


def _line_ends(points: IntArray, axis: int, sizes: list[int]) -> IntArray:
    """The first and the last point of each line along ``axis``, in the points' own order."""
    one, other = (number for number in range(3) if number != axis)
    lines = points[:, one] * sizes[other] + points[:, other]
    numbers = np.arange(len(points))
    last = np.full(sizes[one] * sizes[other], -1)
    first = last.copy()
    last[lines] = numbers
    first[lines[::-1]] = numbers[::-1]
    ends: IntArray = points[(last[lines] == numbers) | (first[lines] == numbers)]
    return ends


def _largest(points: IntArray, groups: IntArray, places: list[FloatArray]) -> float:
    """The largest squared distance of two points, in half voxels, of the same group.

    Points are grouped in cells; only pairs of cells whose boxes may exceed a known distance are compared.
    """
    if not len(points):
        return 0.0
    points, groups = _in_order(points, groups)
    located = np.stack([place[points[:, axis]] for axis, place in enumerate(places)])
    known, far = _some_distance(located, groups)
    points, groups, located = points[far >= known], groups[far >= known], located[:, far >= known]
    cell = groups
    for axis in range(3):
        cell = cell * _CELLS + points[:, axis] * _CELLS // len(places[axis])
    order = np.argsort(cell, kind="stable")
    groups, cell, located = groups[order], cell[order], located[:, order]
    starts = np.flatnonzero(np.diff(cell, prepend=-1))
    low, high = np.minimum.reduceat(located, starts, axis=1), np.maximum.reduceat(located, starts, axis=1)
    stops = np.append(starts[1:], len(points))
    one, other = _ranges(np.arange(len(starts)), np.searchsorted(groups[starts], groups[starts], side="right"))
    near = _squares(np.maximum(high[:, one] - low[:, other], high[:, other] - low[:, one])) < known
    one, other = one[~near], other[~near]
    for some in np.array_split(np.arange(len(one)), len(one) // 1000 + 1):
        pair, first = _ranges(starts[one[some]], stops[one[some]])
        index, second = _ranges(starts[other[some]][pair], stops[other[some]][pair])
        distances = _squares(located[:, first[index]] - located[:, second])
        known = max(known, float(distances.max(initial=0.0)))
    return known


def _in_order(points: IntArray, groups: IntArray) -> tuple[IntArray, IntArray]:
    if np.all(groups[1:] >= groups[:-1]):
        return points, groups
    order = np.argsort(groups, kind="stable")
    return points[order], groups[order]


def _some_distance(located: FloatArray, groups: IntArray) -> tuple[float, FloatArray]:
    """A lower bound that few pairs of a group exceed, and an upper bound for each point."""
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    group = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(groups)))
    at, largest = starts, 0.0
    for _ in range(3):  # from any point to the farthest, and again
        distances = _squares(located - located[:, at[group]])
        farthest = np.maximum.reduceat(distances, starts)
        largest = max(largest, float(farthest.max()))
        far = np.flatnonzero(distances == farthest[group])
        at = at.copy()
        at[group[far]] = far
    low, high = np.minimum.reduceat(located, starts, axis=1), np.maximum.reduceat(located, starts, axis=1)
    return largest, _squares(np.maximum(high[:, group] - located, located - low[:, group]))


def _ranges(starts: IntArray, stops: IntArray) -> tuple[IntArray, IntArray]:
    """All numbers from each start to its stop, preceded by the index of their start."""
    counts = stops - starts
    ends = np.cumsum(counts)
    owner = np.repeat(np.arange(len(starts)), counts)
    return owner, np.arange(ends[-1] if ends.size else 0) + (starts - (ends - counts))[owner]


def _squares(differences: FloatArray) -> FloatArray:
    """Squared lengths, added in the order of the axes."""
    squares = differences * differences
    lengths: FloatArray = squares[0] + squares[1] + squares[2]
    return lengths
