"""What the numbers of an image mean: Hounsfield units, SUVs, or what the scanner stored."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prognosis_dask.cohort.listing import SeriesListing
from prognosis_dask.cohort.usable import wants_suv
from prognosis_dask.imaging.series import read_slices
from prognosis_dask.job import ImageSection

SUV = "{SUVbw}g/mL"
_UCUM = {"HU": "[hnsf'U]", "BQML": "Bq/mL", "GML": "g/mL", "CNTS": "{counts}"}


def read_values(listing: SeriesListing, first: int, stop: int, settings: ImageSection) -> NDArray[np.generic]:
    """The slices ``first`` to ``stop`` - 1 in the unit that :func:`unit_of` says, (slice, row, column).

    Raises
    ------
    CaseError
        As :func:`~prognosis_dask.imaging.series.read_slices`.
    """
    pixels = read_slices(listing, first, stop)
    factors = np.array([one.suv_factor for one in listing.slices[first:stop]], dtype=np.float64)
    if not wants_suv(listing, settings) or (factors == 1).all():
        return pixels
    return pixels.astype(np.float64) * factors[:, None, None]


def unit_of(listing: SeriesListing, settings: ImageSection) -> str:
    """The unit of the series' values in UCUM's notation; MR's are arbitrary, and empty is what nobody says."""
    if wants_suv(listing, settings):
        return SUV
    if listing.modality == "MR":
        return "[arb'U]"
    return _UCUM.get(listing.units, f"{{{listing.units}}}" if listing.units else "")
