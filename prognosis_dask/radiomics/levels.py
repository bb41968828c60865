"""Grey levels: how many an ROI has once its values are sorted into bins, and what is too few or too many of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prognosis_dask.arrays import AnyArray
from prognosis_dask.errors import CaseError, Code, warn

#: Fewer grey levels than this in an ROI are warned of: texture is what levels have to do with each other, and of one
#: there is none, of a handful next to none. (pyradiomics' own advice is 16 to 128.)
FEWEST = 8
#: More than this are refused: co-occurrence has a matrix of levels by levels for each of 13 directions, 0.4 GB at
#: 2,000 levels, several of which are held at once, and takes minutes.
MOST = 2000
#: First-order features only need the bins themselves.
MOST_FIRST_ORDER = 10_000_000


def expect_not_too_many(values: AnyArray, settings: Mapping[str, Any], image_type: str, *, texture: bool) -> None:
    """Refuse an ROI of so many grey levels that its matrices would take all memory, before there is one.

    Parameters
    ----------
    values
        Of the ROI's voxels, shape (voxels,).
    settings
        ``binCount`` or ``binWidth``, as pyradiomics has them.
    image_type
        What the message calls the image.
    texture
        Whether matrices are made of the levels.

    Raises
    ------
    CaseError
        ``RADIOMICS_FAILED``, with the bins that would do.
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
        The levels that there are in the ROI, by image type.
    settings
        The parameters' settings, which the levels were made with.
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
        f"give {modality} a smaller binWidth in a parameter file of its own ([radiomics.params])",
    )
