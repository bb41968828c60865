"""Local binary patterns in planes and in space, as in pyradiomics 3.0.1 with scikit-image, trimesh and old SciPy.

pyradiomics silently omits these image types if it does not find those packages, including functions that SciPy no
longer has; so their code is here. Patterns in planes have the bits of scikit-image's
``local_binary_pattern``; in space they depend on SciPy's spherical harmonics, whose last bits differ by its version.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, special

from prognosis_dask.arrays import AnyArray, BoolArray, FloatArray, IntArray

#: Corners of an icosahedron: along each axis the shorter (1) or the longer (2) of two distances.
_CORNERS = (
    *((-1, 2, 0), (1, 2, 0), (-1, -2, 0), (1, -2, 0), (0, -1, 2), (0, 1, 2)),
    *((0, -1, -2), (0, 1, -2), (2, 0, -1), (2, 0, 1), (-2, 0, -1), (-2, 0, 1)),
)
#: Its triangles' corners, as hexadecimal digits.
_FACES = "0b5 051 017 07a 0ab 159 5b4 ba2 a76 718 394 342 326 368 389 495 24b 62a 867 981"


def planar_patterns(image: AnyArray, box: tuple[slice, ...], settings: dict[str, Any]) -> AnyArray:
    """The patterns within ``box`` of each plane across ``force2Ddimension``, in the image's own type."""
    axis = settings.get("force2Ddimension", 0)
    if settings.get("lbp2DMethod") == "var":
        raise ValueError("lbp2DMethod var differs between versions of scikit-image, expected uniform or ror")
    samples, radius = settings.get("lbp2DSamples", 8), settings.get("lbp2DRadius", 1)
    method = settings.get("lbp2DMethod", "uniform")
    sides = list(box)
    sides[0], sides[axis] = sides[axis], sides[0]
    planes = image.swapaxes(0, axis)
    patterns = [_patterns(plane, sides[1], sides[2], samples, radius, method) for plane in planes[sides[0]]]
    return np.stack(patterns).astype(image.dtype).swapaxes(0, axis)


def planar_reach(settings: dict[str, Any]) -> int:
    """The distance in pixels to the farthest one that a pixel's pattern depends on."""
    radius: float = settings.get("lbp2DRadius", 1)
    return math.ceil(radius)


def _patterns(plane: AnyArray, rows: slice, columns: slice, samples: int, radius: float, method: str) -> FloatArray:
    """scikit-image's ``local_binary_pattern`` (Ojala et al. 2002): which neighbours on a circle are not darker."""
    angles = 2 * np.pi * np.arange(samples, dtype=np.double) / samples
    radius = float(np.float32(radius))
    places = zip(np.round(-radius * np.sin(angles), 5), np.round(radius * np.cos(angles), 5), strict=True)
    y, x = np.arange(rows.start, rows.stop), np.arange(columns.start, columns.stop)
    around = np.stack([_interpolated(plane, y + down, x + right) for down, right in places], axis=-1)
    above = around - plane[rows, columns, None].astype(np.float64) >= 0
    if method in ("default", "ror"):
        codes = above @ (2 ** np.arange(samples))
        return np.asarray(_least_rotated(codes, samples) if method == "ror" else codes, np.float64)
    changes = np.count_nonzero(above[..., 1:] != above[..., :-1], axis=-1)
    codes = np.where(changes <= 2, np.count_nonzero(above, axis=-1), samples + 1).astype(np.float64)
    return codes


def _interpolated(plane: AnyArray, rows: FloatArray, columns: FloatArray) -> FloatArray:
    """The plane at these positions; linear between pixels, zero outside."""
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    bottom, at_right = np.ceil(rows).astype(int), np.ceil(columns).astype(int)
    y, x = (rows - top)[:, None], (columns - left)[None]
    upper = (1 - x) * _pixels(plane, top, left) + x * _pixels(plane, top, at_right)
    lower = (1 - x) * _pixels(plane, bottom, left) + x * _pixels(plane, bottom, at_right)
    moved: FloatArray = (1 - y) * upper + y * lower
    return moved


def _pixels(plane: AnyArray, rows: IntArray, columns: IntArray) -> FloatArray:
    inside = np.ix_((rows >= 0) & (rows < plane.shape[0]), (columns >= 0) & (columns < plane.shape[1]))
    pixels = np.zeros((len(rows), len(columns)))
    pixels[inside] = plane[np.ix_(rows[inside[0].ravel()], columns[inside[1].ravel()])]
    return pixels


def _least_rotated(codes: IntArray, bits: int) -> IntArray:
    least = codes.copy()
    for _ in range(bits - 1):
        codes = (codes >> 1) | ((codes & 1) << (bits - 1))
        least = np.minimum(least, codes)
    return least


def spatial_patterns(image: AnyArray, mask: BoolArray, settings: dict[str, Any]) -> list[tuple[AnyArray, str]]:
    """For each voxel of the mask the rotation-invariant patterns by level, and the kurtosis of its sphere.

    Banerjee et al. 2013: the voxels on a sphere that are not darker than its centre, in spherical harmonics.
    """
    from scipy.stats import kurtosis

    levels = settings.get("lbp3DLevels", 2)
    sphere = _icosphere(settings.get("lbp3DIcosphereSubdivision", 1), settings.get("lbp3DIcosphereRadius", 1))
    polar = np.arccos(np.true_divide(sphere[:, 2], settings.get("lbp3DIcosphereRadius", 1)))
    around = np.arctan2(sphere[:, 1], sphere[:, 0])
    # pyradiomics swaps the two angles
    orders = [(n, m) for n in range(levels) for m in range(-n, n + 1)]
    harmonics = np.column_stack([_harmonic(m, n, polar, around) for n, m in orders])
    level = np.array([n for n, _ in orders])
    places = np.where(mask)
    coordinates = np.array(places).T[None, :, :] + sphere[:, None, :]
    samples = ndimage.map_coordinates(image, coordinates.T, order=3)
    bright = np.greater_equal(samples, image[places][:, None]).astype(int)
    weights = np.multiply(bright[:, :, None], harmonics[None, :, :]).sum(axis=1)
    of_levels = np.concatenate(
        [
            np.sum(weights[:, None, level == n] * harmonics[None, :, level == n], axis=2, keepdims=True)
            for n in range(levels)
        ],
        axis=2,
    )
    norms = np.real(np.sqrt(np.sum(of_levels**2, axis=1)))
    patterns = [(_in_mask(norms[:, n], mask), f"lbp-3D-m{n + 1}") for n in range(levels)]
    return [*patterns, (_in_mask(np.real(kurtosis(samples, axis=1)), mask), "lbp-3D-k")]


def _in_mask(values: FloatArray, mask: BoolArray) -> FloatArray:
    array = np.zeros(mask.shape)
    array[mask] = values
    return array


def _harmonic(m: int, n: int, azimuth: FloatArray, polar: FloatArray) -> npt.NDArray[np.complex128]:
    if hasattr(special, "sph_harm_y"):
        return np.asarray(special.sph_harm_y(n, m, polar, azimuth))
    return np.asarray(special.sph_harm(m, n, azimuth, polar))


@lru_cache(maxsize=8)
def _icosphere(subdivisions: int, radius: float) -> FloatArray:
    """The corners of an icosahedron after ``levels`` subdivisions of its triangles into four, in trimesh's order."""
    a = 1 / np.sqrt(1 + ((1 + np.sqrt(5)) / 2) ** 2)
    b = a * (1 + np.sqrt(5)) / 2
    corners = np.array([[(-b, -a, 0, a, b)[size + 2] for size in corner] for corner in _CORNERS])
    faces = np.array([[int(digit, 16) for digit in face] for face in _FACES.split()])
    for number in range(max(1, subdivisions)):
        if number < subdivisions:
            corners, faces = _subdivided(corners, faces)
        length = np.sqrt(np.dot(corners**2, [1, 1, 1]))
        corners = corners + corners / length[:, None] * (radius - length)[:, None]
    return corners


def _subdivided(corners: FloatArray, faces: IntArray) -> tuple[FloatArray, IntArray]:
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    _, first, inverse = np.unique(edges[:, 0] + edges[:, 1] * len(corners), return_index=True, return_inverse=True)
    middle = inverse.reshape(-1, 3) + len(corners)
    a, b, c = faces.T
    ab, bc, ca = middle.T
    faces = np.column_stack([a, ab, ca, ab, b, bc, ca, bc, c, ab, bc, ca]).reshape(-1, 3)
    return np.vstack((corners, corners[edges[first]].mean(axis=1))), faces
