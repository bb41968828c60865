"""The features of one case, from its crop where that settles every value, else from the full image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from typing import TYPE_CHECKING

from prognosis_dask.errors import CaseError, Code
from prognosis_dask.radiomics.columns import column_names
from prognosis_dask.radiomics.params import RadiomicsParams, quiet

if TYPE_CHECKING:
    from prognosis_dask.imaging.roi import Roi


def extract(
    roi: Roi,
    params: RadiomicsParams,
    full: Callable[[], Roi] | None = None,
    *,
    levels: dict[str, int] | None = None,
) -> dict[str, float]:
    """Compute the features of ``roi``, equal to the last bit to ``execute()`` on the full image and mask.

    ``full`` loads the same case uncropped. It is called only where the crop does not hold, or cannot prove, what the
    features depend on; it may be left out when ``roi`` is uncropped.
    ``levels`` gains how many grey levels the ROI has in each image that texture was computed of.

    Returns
    -------
    dict
        Exactly :func:`column_names`, in that order. A value is NaN or infinite where pyradiomics says so, and NaN
        where it says nothing: an image too small for a filter, a mask of several planes under ``shape2D``.

    Raises
    ------
    CaseError
        ``RADIOMICS_FAILED`` with pyradiomics' reason, such as a mask of too few voxels or dimensions, or because the
        bins make too many grey levels (:data:`prognosis_dask.radiomics.levels.MOST`).
    """
    from prognosis_dask.radiomics.crop import prepare
    from prognosis_dask.radiomics.extractor import extractor_for

    extractor = extractor_for(params)
    with pyradiomics_problems():
        images = prepare(roi, extractor)
    if images is None:
        if full is None:
            raise CaseError(
                Code.RADIOMICS_FAILED,
                f"a crop of {roi.image.GetSize()} voxels, out of {roi.full.size}, does not settle every value; "
                "extract from the full image",
            )
        roi = full()
        with pyradiomics_problems():
            images = prepare(roi, extractor)
        assert images is not None, "the full image settles every value"
    if levels is not None:
        extractor = copy(extractor)
        extractor.settings = extractor.settings | {"levels": levels}
    with pyradiomics_problems():
        values = extractor.execute(*images)
    return {name: float(values.get(name, math.nan)) for name in column_names(params)}


@contextmanager
def pyradiomics_problems() -> Iterator[None]:
    """Keep its warnings quiet, and make what it raises the case's problem."""
    try:
        with quiet():
            yield
    except (ValueError, RuntimeError, AssertionError) as error:
        reason = " ".join(" ".join(map(str, error.args)).split())
        raise CaseError(Code.RADIOMICS_FAILED, f"pyradiomics: {reason}") from error
