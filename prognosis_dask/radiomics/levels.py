"""Count the grey levels of an ROI after binning: refuse too many, warn of too few."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prognosis_dask.arrays import AnyArray
from prognosis_dask.errors import CaseError, Code, warn

#: Warn of fewer grey levels than this in an ROI: texture describes relations between levels, and a handful of them has
#: almost none. (pyradiomics recommends 16 to 128.)
FEWEST = 8
#: Refuse more than this: co-occurrence needs a matrix of levels by levels for each of 13 directions, 0.4 GB at 2,000
#: levels, several of them at once, and takes minutes.
MOST = 2000
#: First-order features only need the bins themselves.
MOST_FIRST_ORDER = 10_000_000


def expect_not_too_many(values: AnyArray, settings: Mapping[str, Any], image_type: str, *, texture: bool) -> None:
    """Refuse an ROI with so many grey levels that its matrices would exhaust memory, before they are allocated.

    Parameters
    ----------
    values
        Of the ROI's voxels, shape (voxels,).
    settings
        ``binCount`` or ``binWidth``, as pyradiomics has them.
    image_type
        Name of the image in the message.
    texture
        Whether matrices are computed from the levels.

    Raises
    ------
    CaseError
        ``RADIOMICS_FAILED``, with suitable bins.
    """
    low, high = float(values.min()), float(values.max())
    if settings.get("binCount") is not None:
        levels, key, value, advice = settings["binCount"], "binCount", settings["binCount"], "64, say"
    else:
        value = settings.get("binWidth", 25)
        levels, key = (high - low) / value, "binWidth"
        advice = f"{float(f'{(high - low) / 64:.1g}'):g} makes some 64 levels of it"
    most = MOST if texture else MOST_FIRST_ORDER
    if levels > most:
        raise CaseError(
            Code.RADIOMICS_FAILED,
            f"{key} {value:g} makes {levels:,.0f} grey levels of the {image_type} image's ROI, whose values go from "
            f"{low:g} to {high:g}; at most {most:,} are computed: set another {key}, {advice}",
        )


def warn_of_few(levels: Mapping[str, int], settings: Mapping[str, Any], modality: str) -> None:
    """Warn of an ROI that has fewer than :data:`FEWEST` grey levels in an image.

    Parameters
    ----------
    levels
        The number of levels in the ROI, by image type.
    settings
        The settings that the levels were binned with.
    modality
        The image's.
    """
    few = {name: number for name, number in levels.items() if number < FEWEST}
    if not few:
        return
    named = ", ".join(f"{number} in {name}" for name, number in list(few.items())[:3])
    more = f" and {len(few) - 3} more images" if len(few) > 3 else ""
    by_width = settings.get("binCount") is None
    bins = f"binWidth {settings.get('binWidth', 25):g}" if by_width else f"binCount {settings['binCount']}"
    warn(
        Code.FEW_GREY_LEVELS,
        f"fewer than {FEWEST} grey levels in the ROI ({named}{more}) with {bins}: its texture says little or nothing; "
        f"give {modality or 'the image'} a smaller binWidth in a parameter file of its own "
        "([radiomics.params], --params)",
    )
