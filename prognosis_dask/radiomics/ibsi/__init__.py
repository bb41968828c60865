"""Radiomic features as the Image Biomarker Standardisation Initiative (IBSI) defines them: of one case, with units.

Those of intensities, of shape and of where intensities lie are here, by the formulas of the IBSI reference manual
(arXiv:1612.07003v11), 3.1 to 3.5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from operator import mul

import numpy as np
from scipy import fft, signal, spatial

from prognosis_dask.arrays import BoolArray, FloatArray, IntArray
from prognosis_dask.config.radiomics import IbsiSection
from prognosis_dask.errors import CaseError, Code, warn
from prognosis_dask.imaging.roi import Roi, bounding_box
from prognosis_dask.radiomics.extractor import mesh
from prognosis_dask.radiomics.ibsi.images import PEAK_MM, Prepared, discretised, prepare, read_filter
from prognosis_dask.radiomics.ibsi.texture import Levels, texture
from prognosis_dask.radiomics.texture import FEWEST, MOST

#: More than any image is wide, in mm: where a filter's response depends on all of it.
_EVERYTHING = 1e6
#: Units of features of shape and place that have one; ``u`` is the image's own unit.
_MORPHOLOGICAL = {
    "volume": "mm^3",
    "vol_approx": "mm^3",
    "area_mesh": "mm^2",
    "av": "mm^-1",
    "com": "mm",
    "diam": "mm",
    "pca_maj_axis": "mm",
    "pca_min_axis": "mm",
    "pca_least_axis": "mm",
    "integ_int": "u mm^3",
}
#: Statistics of intensities whose unit is not the image's.
_STATISTICAL = {"var": "u^2", "energy": "u^2", "skew": "1", "kurt": "1", "cov": "1", "qcod": "1"}


def measure(
    roi: Roi, settings: IbsiSection, full: Callable[[], Roi] | None = None, *, whole: bool = False
) -> dict[str, float]:
    """The features of a case, by IBSI's tag: exactly :func:`names`, in that order.

    Parameters
    ----------
    full
        Loads the same case uncropped; called only where the crop lacks voxels that the features depend on.
    whole
        Whether intensities are whole numbers, as HU are: resampled ones are rounded to these.

    Returns
    -------
    dict
        NaN where a feature is not defined, as texture of a single voxel.

    Raises
    ------
    CaseError
        ``RADIOMICS_FAILED`` where no voxel is left, or the bins make too many grey levels
        (:data:`prognosis_dask.radiomics.texture.MOST`).
    """
    read_full = None if full is None else cache(full)

    @lru_cache(maxsize=1)  # filters of one reach share it
    def around(mm: float) -> Prepared:
        return _prepared(roi, settings, read_full, whole=whole, around_mm=mm)

    prepared = around(0.0)
    found = _features(prepared, settings, whole=whole)
    for name in settings.filters:
        found |= _filtered(name, prepared.spacing, settings, around)
    return {name: found.get(name, math.nan) for name in names(settings)}


def _prepared(
    roi: Roi, settings: IbsiSection, full: Callable[[], Roi] | None, *, whole: bool, around_mm: float
) -> Prepared:
    """From the crop, or from the whole image where the crop does not suffice."""
    prepared = prepare(roi, settings, whole=whole, around_mm=around_mm)
    if prepared is None and full is not None:
        prepared = prepare(full(), settings, whole=whole, around_mm=around_mm)
    if prepared is None:
        raise CaseError(
            Code.RADIOMICS_FAILED,
            f"a crop of {roi.image.GetSize()} voxels, out of {roi.full.size}, lacks voxels that IBSI's features depend "
            "on; measure the full image",
        )
    return prepared


def _filtered(
    name: str, spacing: Sequence[float], settings: IbsiSection, around: Callable[[float], Prepared]
) -> dict[str, float]:
    """The statistics of a filter's response in the region, whose voxels are those of the unfiltered image."""
    chosen = read_filter(name, by_slice=settings.by_slice)
    prepared = around(_EVERYTHING if chosen.reach is None else max(map(mul, chosen.reach(spacing), spacing)))
    response = chosen.response(prepared.image, spacing, (1, 2) if settings.by_slice else (0, 1, 2))
    return {f"{name}.{tag}": value for tag, value in statistics(response[prepared.intensity]).items()}


@lru_cache(maxsize=8)
def names(settings: IbsiSection) -> tuple[str, ...]:
    """The features' names: IBSI's tags, with the way in which texture is aggregated (``3D_avg``, ``2_5D_comb``)."""
    image = np.arange(27.0).reshape(3, 3, 3)
    everywhere = np.ones(image.shape, bool)
    example = Prepared(image, everywhere, everywhere, (1.0, 1.0, 1.0))
    plain = IbsiSection(by_slice=settings.by_slice)
    filtered = [f"{name}.{tag}" for name in settings.filters for tag in statistics(example.values)]
    return (*_features(example, plain, whole=True), *filtered)


def unit(name: str) -> str:
    """The unit of a feature; ``u`` is the image's own (HU in a CT).

    >>> unit("morph_volume"), unit("stat_var"), unit("ivh_v10"), unit("cm_contrast_3D_avg"), unit("log:1.5.stat_mean")
    ('mm^3', 'u^2', '1', '1', 'u')
    """
    kind, _, feature = name.rpartition(".")[2].partition("_")
    if kind == "morph":
        return _MORPHOLOGICAL.get(feature, "1")
    if kind == "stat":
        return _STATISTICAL.get(feature, "u")
    return "u" if kind == "loc" else "1"


def _features(prepared: Prepared, settings: IbsiSection, *, whole: bool) -> dict[str, float]:
    values = prepared.values
    low = settings.intensity_range[0] if settings.intensity_range else None
    level = discretised(values, settings.bin_width, settings.bin_count, low)
    _check(level, settings)
    return {
        **morphology(prepared),
        **peaks(prepared),
        **statistics(values),
        **histogram(level),
        **volume_histogram(values, settings, whole=whole),
        **texture(Levels(prepared.intensity, level, settings.by_slice), prepared.morphological),
    }


def _check(level: IntArray, settings: IbsiSection) -> None:
    """Refuse too many grey levels, warn of too few for texture."""
    bins = f"bin_width {settings.bin_width:g}" if settings.bin_width else f"bin_count {settings.bin_count}"
    if level.max() > MOST:
        raise CaseError(
            Code.RADIOMICS_FAILED,
            f"ibsi.{bins} makes {level.max():,} grey levels of the region; at most {MOST:,} are computed",
        )
    present = np.count_nonzero(np.bincount(level))
    if present < FEWEST and len(level) > FEWEST:
        warn(
            Code.FEW_GREY_LEVELS,
            f"fewer than {FEWEST} grey levels in the ROI ({present}) with ibsi.{bins}: its texture says little",
        )


#: Bins of the intensity-volume histogram of values that are not whole numbers, unless the job says otherwise.
_IVH_BINS = 1000


def peaks(prepared: Prepared) -> dict[str, float]:
    """The mean over 1 cm3 around the brightest voxel, and the largest such mean of the region (3.2).

    Of several brightest voxels, that with the largest mean counts. Voxels outside the region are part of the means.
    """
    reach = [math.floor(PEAK_MM / step) for step in prepared.spacing]
    axes = [np.arange(-n, n + 1) * step for n, step in zip(reach, prepared.spacing, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    sphere = (z * z + y * y + x * x <= PEAK_MM**2).astype(np.float64)
    total = signal.fftconvolve(prepared.image, sphere, mode="same")
    count = np.rint(signal.fftconvolve(np.ones(prepared.image.shape), sphere, mode="same"))
    means = (total / count)[prepared.intensity]
    values = prepared.values
    return {"loc_peak_loc": float(means[values == values.max()].max()), "loc_peak_glob": float(means.max())}


def statistics(values: FloatArray) -> dict[str, float]:
    """Statistics of the region's intensities (3.3)."""
    found = _moments(values) | {
        "energy": float(values @ values),
        "rms": float(np.sqrt(np.mean(values**2))),
    }
    return {f"stat_{name}": value for name, value in found.items()}


def histogram(level: IntArray) -> dict[str, float]:
    """Statistics of the region's grey levels (3.4)."""
    found = _moments(level.astype(np.float64))
    count = np.bincount(level, minlength=2)[1:].astype(np.float64)
    p = count[count > 0] / len(level)
    slope = np.gradient(count) if len(count) > 1 else np.zeros(1)
    modes = np.flatnonzero(count == count.max()) + 1
    found |= {
        "mode": float(modes[np.argmin(np.abs(modes - found["mean"]))]),
        "entropy": float(-p @ np.log2(p)),
        "uniformity": float(p @ p),
        "max_grad": float(slope.max()),
        "max_grad_g": float(slope.argmax() + 1),
        "min_grad": float(slope.min()),
        "min_grad_g": float(slope.argmin() + 1),
    }
    return {f"ih_{name}": value for name, value in found.items()}


def _moments(values: FloatArray) -> dict[str, float]:
    mean, deviations = float(values.mean()), values - values.mean()
    variance = float(np.mean(deviations**2))
    p10, p25, median, p75, p90 = (float(one) for one in np.percentile(values, [10, 25, 50, 75, 90]))
    middle = values[(values >= p10) & (values <= p90)]
    return {
        "mean": mean,
        "var": variance,
        "skew": float(np.mean(deviations**3)) / variance**1.5 if variance > 0 else 0.0,
        "kurt": float(np.mean(deviations**4)) / variance**2 - 3 if variance > 0 else 0.0,
        "median": median,
        "min": float(values.min()),
        "p10": p10,
        "p90": p90,
        "max": float(values.max()),
        "iqr": p75 - p25,
        "range": float(values.max() - values.min()),
        "mad": float(np.abs(deviations).mean()),
        "rmad": float(np.abs(middle - middle.mean()).mean()),
        "medad": float(np.abs(values - median).mean()),
        "cov": math.sqrt(variance) / mean if mean else math.nan,
        "qcod": (p75 - p25) / (p75 + p25) if p75 + p25 else math.nan,
    }


def volume_histogram(values: FloatArray, settings: IbsiSection, *, whole: bool) -> dict[str, float]:
    """Features of the share of the volume that has at least an intensity (3.5)."""
    values, grid = _ivh_levels(values, settings, whole=whole)
    span = grid[-1] - grid[0]
    share = (grid - grid[0]) / span if span else np.zeros(len(grid))
    ordered = np.sort(values)
    # levels are multiples of the step: half a step below one is between two
    half = (grid[1] - grid[0]) / 2 if len(grid) > 1 else 0.5
    volume = 1 - np.searchsorted(ordered, grid - half) / len(ordered)

    def volume_at(part: float) -> float:
        above = volume[share >= part - 1e-9]
        return float(above[0]) if above.size else 0.0

    def level_at(part: float) -> float:
        below = grid[volume <= part + 1e-12]
        return float(below[0]) if below.size else float(grid[-1] + 2 * half)

    found = {
        **{f"ivh_v{n}": volume_at(n / 100) for n in (10, 90)},
        **{f"ivh_i{n}": level_at(n / 100) for n in (10, 90)},
    }
    return {
        **found,
        "ivh_diff_v10_v90": found["ivh_v10"] - found["ivh_v90"],
        "ivh_diff_i10_i90": found["ivh_i10"] - found["ivh_i90"],
        "ivh_auc": float(np.sum(np.diff(share) * (volume[1:] + volume[:-1]) / 2)),
    }


def _ivh_levels(values: FloatArray, settings: IbsiSection, *, whole: bool) -> tuple[FloatArray, FloatArray]:
    """The values on the histogram's levels, and all of its levels."""
    limits = settings.intensity_range or (float(values.min()), float(values.max()))
    count = settings.ivh_bin_count or (0 if whole or settings.ivh_bin_width else _IVH_BINS)
    if count:
        return discretised(values, 0, count, None).astype(np.float64), np.arange(1.0, count + 1)
    width = settings.ivh_bin_width
    if not width:
        return values, np.arange(limits[0], limits[1] + 0.5)
    bins = math.ceil((limits[1] - limits[0]) / width - 1e-9)
    level = np.minimum(discretised(values, width, 0, limits[0]), max(bins, 1))
    centres = limits[0] + (np.arange(1, max(bins, 1) + 1) - 0.5) * width
    return centres[level - 1], centres


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
