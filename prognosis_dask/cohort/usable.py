"""What headers tell of whether, and how, a series can be read: the same for the index and for the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prognosis_dask.cohort.headers import Point
from prognosis_dask.cohort.listing import SeriesListing
from prognosis_dask.cohort.stack import (
    Run,
    check_axis,
    check_slices,
    even_runs,
    gap_error,
    plane_heights,
    run_at,
)
from prognosis_dask.errors import CaseError, Code, warn
from prognosis_dask.job import ImageSection


def wants_suv(listing: SeriesListing, settings: ImageSection) -> bool:
    """Whether the series' values are to become SUVs."""
    return listing.modality == "PT" and settings.pet == "suv"


def usable_runs(
    listing: SeriesListing, settings: ImageSection, planes: Callable[[], Sequence[Point]] | None
) -> list[Run]:
    """The evenly spaced parts of a series among which the one is that a mask lies on; mostly one, the whole.

    Warns of what has to be known of it.

    Parameters
    ----------
    planes
        A point in each plane of the mask, asked for only where slices are missing; none where its planes may be empty.
        None in its place: the whole series is wanted, for want of a mask.

    Raises
    ------
    CaseError
        ``PET_UNITS`` when the headers do not suffice for SUVs, ``UNREADABLE_FILE`` when an older listing says nothing
        of them, ``SERIES_TOO_SHORT``, ``SERIES_MIXED``, ``SLICE_DUPLICATE``, ``SLICE_GAP``, ``GANTRY_TILT``.
    """
    _check_values(listing, settings)
    check_slices(listing)
    runs = even_runs(listing, settings.gap_tolerance)
    if runs != [Run(0, len(listing.slices))]:
        if planes is None:
            raise gap_error(listing, settings.gap_tolerance)
        heights = plane_heights(listing, planes())
        if heights or not runs:
            runs = [run_at(listing, runs, heights, settings.gap_tolerance)]
        told = gap_error(listing, settings.gap_tolerance).problem
        warn(told.code, f"only the slices on the ROI's side of a gap are used: {told.reason}", where=told.where)
    for run in runs:
        check_axis(listing, run)
    return sorted(runs, key=lambda run: -run.size)


def _check_values(listing: SeriesListing, settings: ImageSection) -> None:
    """Check that the series' values can be had in the wanted unit."""
    suv = wants_suv(listing, settings)
    if suv and listing.no_suv:
        raise CaseError(Code.PET_UNITS, listing.no_suv, where=listing.root)
    if suv and any(one.suv_factor is None for one in listing.slices):
        reason = "the listing of the series says nothing of SUVs; index the cohort again"
        raise CaseError(Code.UNREADABLE_FILE, reason, where=listing.root)
    if listing.notes and (suv or listing.modality != "PT"):
        warn(Code.IMAGE_UNITS, listing.notes, where=listing.root)
