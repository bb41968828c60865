"""The IBSI features of one case: names, units and values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from operator import mul

import numpy as np

from prognosis_dask.arrays import IntArray
from prognosis_dask.config.radiomics import IbsiSection
from prognosis_dask.errors import CaseError, Code, warn
from prognosis_dask.imaging.roi import Roi
from prognosis_dask.radiomics.ibsi.filters import read_filter
from prognosis_dask.radiomics.ibsi.intensity import histogram, peaks, statistics, volume_histogram
from prognosis_dask.radiomics.ibsi.morphology import morphology
from prognosis_dask.radiomics.ibsi.prepare import Prepared, discretised, prepare
from prognosis_dask.radiomics.ibsi.texture import Levels, texture
from prognosis_dask.radiomics.levels import FEWEST, MOST

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
        (:data:`prognosis_dask.radiomics.levels.MOST`).
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
