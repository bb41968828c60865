"""The features of one case, from its crop where that settles every value, else from the full image."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from prognosis_dask.errors import CaseError, Code
from prognosis_dask.radiomics.columns import column_names
from prognosis_dask.radiomics.params import RadiomicsParams, extractor_for, quiet, resamples

if TYPE_CHECKING:
    from prognosis_dask.imaging.roi import Roi

#: Filters whose value at a voxel depends on few voxels around it, whatever the rest of the image.
LOCAL_FILTERS = frozenset({"Original", "Gradient", "Wavelet"})


def needs_full_image(params: RadiomicsParams) -> bool:
    """Whether these parameters need every case's full image.

    So does ``normalize`` (mean and deviation of the whole image). So does, where the image is neither resampled nor
    cropped first, a filter that looks further than a neighbourhood: LoG is recursive along whole lines; Square,
    SquareRoot, Logarithm and Exponential scale by the image's largest value.
    """
    extractor = extractor_for(params)
    if extractor.settings["normalize"]:
        return True
    if resamples(extractor.settings) or extractor.settings["preCrop"]:
        return False
    return not LOCAL_FILTERS.issuperset(extractor.enabledImagetypes)


def extract(roi: Roi, params: RadiomicsParams, full: Callable[[], Roi] | None = None) -> dict[str, float]:
    """Compute the features of ``roi``, equal to the last bit to ``execute()`` on the full image and mask.

    ``full`` loads the same case uncropped. It is called only where the crop does not hold, or cannot prove, what the
    features depend on; it may be left out when ``roi`` is uncropped.

    Returns
    -------
    dict
        Exactly :func:`column_names`, in that order. A value is NaN or infinite where pyradiomics says so, and NaN
        where it says nothing: an image too small for a filter, a mask of several planes under ``shape2D``.

    Raises
    ------
    CaseError
        ``RADIOMICS_FAILED`` with pyradiomics' reason, such as a mask of too few voxels or dimensions.
    """
    try:
        with quiet():
            values = _execute(roi, params, full)
    except (ValueError, RuntimeError, AssertionError) as error:
        reason = " ".join(" ".join(map(str, error.args)).split())
        raise CaseError(Code.RADIOMICS_FAILED, f"pyradiomics: {reason}") from error
    return {name: float(values.get(name, math.nan)) for name in column_names(params)}


def _execute(roi: Roi, params: RadiomicsParams, full: Callable[[], Roi] | None) -> dict[str, Any]:
    from prognosis_dask.radiomics.crop import prepare

    ready = None if needs_full_image(params) else prepare(roi, extractor_for(params))
    if ready is not None:
        return dict(extractor_for(params, prepared=True).execute(*ready))
    if tuple(roi.image.GetSize()) != tuple(roi.full.size):
        if full is None:
            raise CaseError(
                Code.RADIOMICS_FAILED,
                f"the crop of {roi.image.GetSize()} voxels, out of {roi.full.size}, does not settle every value; "
                "load the full image",
            )
        roi = full()
    return dict(extractor_for(params).execute(roi.image, roi.mask))
