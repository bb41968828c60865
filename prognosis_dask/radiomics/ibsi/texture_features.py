"""IBSI's features of one texture matrix, by the formulas of its reference manual (arXiv:1612.07003v11), 3.6 to 3.11."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from prognosis_dask.arrays import AnyArray, FloatArray, IntArray

#: NGTDM's coarseness where no voxel differs from its neighbours.
_COARSEST = 1e6
#: By kind the names of features: small and large sizes (with low and high levels), non-uniformity, variance, entropy.
_NAMES = {
    "run": ("sre", "lre", "lgre", "hgre", "srlge", "srhge", "lrlge", "lrhge", "rlnu", "r_perc", "rl_var", "rl_entr"),
    "zone": ("sze", "lze", "lgze", "hgze", "szlge", "szhge", "lzlge", "lzhge", "zsnu", "z_perc", "zs_var", "zs_entr"),
    "distance": (
        "sde",
        "lde",
        "lgze",
        "hgze",
        "sdlge",
        "sdhge",
        "ldlge",
        "ldhge",
        "zdnu",
        "z_perc",
        "zd_var",
        "zd_entr",
    ),
    "dependence": (
        *("lde", "hde", "lgce", "hgce", "ldlge", "ldhge", "hdlge", "hdhge", "dcnu", "dc_perc", "dc_var", "dc_entr"),
    ),
}


@dataclass(frozen=True, eq=False)
class Elements:
    """The elements of a matrix that are not zero.

    Attributes
    ----------
    i, j, n
        Row (grey level, from 1), column and count, each of shape (elements,).
    highest
        The number of grey levels.
    voxels
        Of the region or slice, once for each direction that was counted.
    """

    i: IntArray
    j: IntArray
    n: FloatArray
    highest: int
    voxels: int


def co_occurrence(elements: Elements) -> dict[str, float]:
    """Features of a symmetric co-occurrence matrix (3.6)."""
    p = elements.n / elements.n.sum()
    i, j = elements.i.astype(np.float64), elements.j.astype(np.float64)
    grey = np.arange(1, elements.highest + 1)
    marginal = np.bincount(elements.i, p, elements.highest + 1)[1:]
    mean = float(grey @ marginal)
    variance = float((grey - mean) ** 2 @ marginal)
    apart, together = np.abs(i - j), i + j
    difference = np.bincount(np.abs(elements.i - elements.j), p)
    total = np.bincount(elements.i + elements.j, p)
    mean_difference, mean_sum = float(apart @ p), float(together @ p)
    deviation = together - 2 * mean
    entropy, entropy_1d = _entropy(p), _entropy(marginal)
    beside = float(-p @ np.log2(marginal[elements.i - 1] * marginal[elements.j - 1]))
    product = float((i * j) @ p)
    return {
        "joint_max": float(p.max()),
        "joint_avg": float(i @ p),
        "joint_var": float((i - mean) ** 2 @ p),
        "joint_entr": entropy,
        "diff_avg": mean_difference,
        "diff_var": float((apart - mean_difference) ** 2 @ p),
        "diff_entr": _entropy(difference),
        "sum_avg": mean_sum,
        "sum_var": float((together - mean_sum) ** 2 @ p),
        "sum_entr": _entropy(total),
        "energy": float(p @ p),
        "contrast": float(apart**2 @ p),
        "dissimilarity": mean_difference,
        "inv_diff": float(p @ (1 / (1 + apart))),
        "inv_diff_norm": float(p @ (1 / (1 + apart / elements.highest))),
        "inv_diff_mom": float(p @ (1 / (1 + apart**2))),
        "inv_diff_mom_norm": float(p @ (1 / (1 + (apart / elements.highest) ** 2))),
        "inv_var": float(p[apart > 0] @ (1 / apart[apart > 0] ** 2)),
        "corr": (product - mean**2) / variance if variance > 0 else 1.0,
        "auto_corr": product,
        "clust_tend": float(deviation**2 @ p),
        "clust_shade": float(deviation**3 @ p),
        "clust_prom": float(deviation**4 @ p),
        "info_corr1": (entropy - beside) / entropy_1d if entropy_1d > 0 else 0.0,
        # where levels are independent, both entropies are equal and rounding may make the difference negative
        "info_corr2": float(np.sqrt(max(0.0, 1 - np.exp(-2 * (2 * entropy_1d - entropy))))),
    }


def sizes(elements: Elements, kind: Literal["run", "zone", "distance", "dependence"]) -> dict[str, float]:
    """Features of a matrix of grey levels and sizes (3.7 to 3.9, 3.11)."""
    n, total = elements.n, float(elements.n.sum())
    p, i2, j2 = n / total, elements.i.astype(np.float64) ** 2, elements.j.astype(np.float64) ** 2
    small, large, low, high, small_low, small_high, large_low, large_high, nu, share, var, entr = _NAMES[kind]
    by_level, by_size = np.bincount(elements.i, n), np.bincount(elements.j, n)
    mean_level, mean_size = float(elements.i @ p), float(elements.j @ p)
    found = {
        small: float(p @ (1 / j2)),
        large: float(p @ j2),
        low: float(p @ (1 / i2)),
        high: float(p @ i2),
        small_low: float(p @ (1 / (i2 * j2))),
        small_high: float(p @ (i2 / j2)),
        large_low: float(p @ (j2 / i2)),
        large_high: float(p @ (i2 * j2)),
        "glnu": float(by_level @ by_level) / total,
        "glnu_norm": float(by_level @ by_level) / total**2,
        nu: float(by_size @ by_size) / total,
        f"{nu}_norm": float(by_size @ by_size) / total**2,
        share: total / elements.voxels,
        "gl_var": float((elements.i - mean_level) ** 2 @ p),
        var: float((elements.j - mean_size) ** 2 @ p),
        entr: _entropy(p),
    }
    return found | ({"dc_energy": float(p @ p)} if kind == "dependence" else {})


def neighbourhood_difference(level: IntArray, apart: FloatArray) -> dict[str, float]:
    """Features of voxels' levels and of how far each is from the mean of its neighbours (3.10)."""
    grey, at = np.unique(level, return_inverse=True)
    p, s = np.bincount(at) / len(level), np.bincount(at, apart)
    i, levels = grey.astype(np.float64), len(grey)
    between = i[:, None] - i
    weighted = float(p @ s)
    contrast = float(p @ between**2 @ p) / (levels * (levels - 1)) * float(s.sum()) / len(level) if levels > 1 else 0.0
    busy = float(np.abs(i[:, None] * p[:, None] - i * p).sum())
    both = p[:, None] + p
    complexity = np.abs(between) * ((p * s)[:, None] + p * s) / both
    return {
        "coarseness": min(_COARSEST, 1 / weighted) if weighted > 0 else _COARSEST,
        "contrast": contrast,
        "busyness": weighted / busy if levels > 1 and busy > 0 else 0.0,
        "complexity": float(complexity.sum()) / len(level),
        "strength": float((both * between**2).sum() / s.sum()) if s.sum() > 0 else 0.0,
    }


def _entropy(p: AnyArray) -> float:
    some = p[p > 0]
    return float(-some @ np.log2(some))
