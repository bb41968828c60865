"""IBSI's features of intensities: peaks, statistics, histogram, volume by intensity.

Formulas as in the IBSI reference manual (arXiv:1612.07003v11), 3.2 to 3.5.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import signal

from prognosis_dask.arrays import FloatArray, IntArray
from prognosis_dask.config.radiomics import IbsiSection
from prognosis_dask.radiomics.ibsi.prepare import PEAK_MM, Prepared, discretised

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
