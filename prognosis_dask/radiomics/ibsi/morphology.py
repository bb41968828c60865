"""IBSI's features of shape and of where intensities lie. Formulas as in the IBSI reference manual, 3.1."""

from __future__ import annotations

import math

import numpy as np
from scipy import fft, spatial

from prognosis_dask.arrays import BoolArray, FloatArray
from prognosis_dask.imaging.roi import bounding_box
from prognosis_dask.radiomics.ibsi.prepare import Prepared
from prognosis_dask.radiomics.shape import mesh

#: Terms of the series of an ellipsoid's surface, as the manual has it.
_TERMS = 20


def morphology(prepared: Prepared) -> dict[str, float]:
    """The features of one region; lengths in mm.

    Without the densities of the smallest box in any position and of the smallest enclosing ellipsoid, for which IBSI
    has no reference value.
    """
    whole, spacing = prepared.morphological, np.array(prepared.spacing)
    # where voxels touch by an edge the mesh has holes, and its volume depends on where the box begins
    mask = np.ascontiguousarray(whole[tuple(slice(*span) for span in bounding_box(whole))])
    area, volume, diameters = mesh(mask, spacing)
    places = np.argwhere(mask) * spacing
    major, minor, least = _axes(places)
    compact = 36 * math.pi * volume**2
    sides, hull = _box_and_hull(mask, spacing)
    inside = np.argwhere(prepared.intensity) * spacing
    middle = np.argwhere(whole).mean(axis=0) * spacing
    values = prepared.values
    weight = float(values.sum())
    centre = values @ inside / weight if weight else np.full(3, math.nan)
    moran, geary = _autocorrelation(prepared)
    found = {
        "volume": volume,
        "vol_approx": len(places) * float(np.prod(spacing)),
        "area_mesh": area,
        "av": area / volume,
        "comp_1": volume / (math.sqrt(math.pi) * area**1.5),
        "comp_2": compact / area**3,
        "sph_dispr": area / compact ** (1 / 3),
        "sphericity": compact ** (1 / 3) / area,
        "asphericity": (area**3 / compact) ** (1 / 3) - 1,
        "com": float(np.linalg.norm(middle - centre)),
        "diam": diameters[-1],
        "pca_maj_axis": 4 * math.sqrt(major),
        "pca_min_axis": 4 * math.sqrt(minor),
        "pca_least_axis": 4 * math.sqrt(least),
        "pca_elongation": math.sqrt(minor / major) if major else math.nan,
        "pca_flatness": math.sqrt(least / major) if major else math.nan,
        "vol_dens_aabb": volume / float(np.prod(sides)),
        "area_dens_aabb": area / (2 * float(sides @ np.roll(sides, 1))),
        **_ellipsoid(volume, area, [2 * math.sqrt(one) for one in (major, minor, least)]),
        "vol_dens_conv_hull": volume / hull.volume,
        "area_dens_conv_hull": area / hull.area,
        "integ_int": float(values.mean()) * volume,
        "moran_i": moran,
        "geary_c": geary,
    }
    return {f"morph_{name}": value for name, value in found.items()}


def _axes(places: FloatArray) -> tuple[float, float, float]:
    """The variances along the principal axes, the largest first."""
    centred = places - places.mean(axis=0)
    variances = np.maximum(np.linalg.eigvalsh(centred.T @ centred / (len(places) - 1 or 1)), 0)
    return float(variances[2]), float(variances[1]), float(variances[0])


def _box_and_hull(mask: BoolArray, spacing: FloatArray) -> tuple[FloatArray, spatial.ConvexHull]:
    """Sides of the mesh's box, and its convex hull. A vertex lies halfway between a voxel and its neighbour outside."""
    padded = np.pad(mask, 1)
    vertices = []
    for axis in range(3):
        changes = np.argwhere(np.diff(padded.view(np.int8), axis=axis)).astype(np.float64)
        changes[:, axis] += 0.5
        vertices.append(changes)
    points = np.concatenate(vertices) * spacing
    return np.ptp(points, axis=0), spatial.ConvexHull(points)


def _ellipsoid(volume: float, area: float, axes: list[float]) -> dict[str, float]:
    """Densities in the ellipsoid of the principal axes."""
    a, b, c = axes
    if not c:
        return {"vol_dens_aee": math.nan, "area_dens_aee": math.nan}
    alpha2, beta2 = 1 - (b / a) ** 2, 1 - (c / a) ** 2
    # Legendre's recurrence, each term times (alpha beta)**n, so that equal axes divide nothing by zero
    before, term, total = 0.0, 1.0, 0.0
    for n in range(_TERMS + 1):
        total += term / (1 - 4 * n * n)
        following = ((2 * n + 1) * (alpha2 + beta2) / 2 * term - n * alpha2 * beta2 * before) / (n + 1)
        before, term = term, following
    return {
        "vol_dens_aee": volume / (4 / 3 * math.pi * a * b * c),
        "area_dens_aee": area / (4 * math.pi * a * b * total),
    }


def _autocorrelation(prepared: Prepared) -> tuple[float, float]:
    """Moran's I and Geary's C: sums over all pairs of voxels, weighted by one over their distance.

    Both are sums of products with a convolution by 1 / distance, which a Fourier transform gives.
    """
    mask = prepared.intensity
    used = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    part = tuple(slice(at[0], at[-1] + 1) for at in used)
    inside = mask[part].astype(np.float64)
    deviation = np.where(mask[part], prepared.image[part] - prepared.values.mean(), 0.0)
    count, squares = float(inside.sum()), float((deviation**2).sum())
    if count < 2 or not squares:
        return math.nan, math.nan
    shape = [fft.next_fast_len(2 * n - 1, real=True) for n in inside.shape]
    axes = [np.minimum(np.arange(n), n - np.arange(n)) * step for n, step in zip(shape, prepared.spacing, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    distance = np.sqrt(z * z + y * y + x * x)
    distance[0, 0, 0] = np.inf
    weights = fft.rfftn(1 / distance)
    crop = tuple(slice(n) for n in inside.shape)

    def weighted(values: FloatArray) -> FloatArray:
        around: FloatArray = fft.irfftn(fft.rfftn(values, shape) * weights, shape)[crop]
        return around

    around = weighted(inside)
    total = float((inside * around).sum())
    product = float((deviation * weighted(deviation)).sum())
    apart = 2 * float((deviation**2 * around).sum()) - 2 * product
    return count / total * product / squares, (count - 1) / (2 * total) * apart / squares
