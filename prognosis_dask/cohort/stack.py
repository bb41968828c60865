"""Check from the headers whether and how a series can be read: the same checks for the index and the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

import numpy as np

from prognosis_dask.arrays import BoolArray, FloatArray
from prognosis_dask.cohort.headers import Point
from prognosis_dask.cohort.series import SAME_POSITION_MM, SeriesListing, dot, slice_normal
from prognosis_dask.config.job import ImageSection
from prognosis_dask.errors import CaseError, Code, count, warn

#: Largest difference between the direction cosines of two slices: 0.05 voxel over 512.
SAME_DIRECTION = 1e-4
#: Largest relative difference between the pixel spacings of two slices: 0.05 voxel over 512.
SAME_SPACING = 1e-4
#: Largest distance, in pixels, of a slice from the stack's axis: beyond it the mask would move by a pixel.
OFF_AXIS_PIXELS = 0.5
#: Largest distance, in slice distances, of a slice from its position in an even stack (as far as a contour may lie from
#: its slice): small differences, each within the tolerance, must not add up to more.
DRIFT = 0.1
#: Positions written more coarsely than this (mm) are not treated as rounded: rounding would move a slice visibly.
COARSEST_STEP_MM = 0.1
#: Fewest slices of a part with its own slice distance that counts as a stack rather than a row of gaps.
OWN_STACK = 4


@dataclass(frozen=True)
class Run:
    """Slices ``first`` to ``stop`` - 1 of a listing, evenly spaced, so that they form one grid.

    ``between_mm`` is their distance if rounding hides it in the positions; zero: use the mean of the positions.
    """

    first: int
    stop: int
    between_mm: float = field(default=0.0, compare=False)

    @property
    def size(self) -> int:
        """How many slices."""
        return self.stop - self.first


def check_slices(listing: SeriesListing) -> None:
    """Check that there are two slices or more, of equal size, spacing and direction, each at its own position.

    Raises
    ------
    CaseError
        ``SERIES_TOO_SHORT``, ``SERIES_MIXED`` or ``SLICE_DUPLICATE``; the reason has the values seen and expected.
    """
    slices = listing.slices
    if len(slices) < 2:
        raise CaseError(
            Code.SERIES_TOO_SHORT, f"{count(len(slices), 'slice')}; a volume needs two or more", where=listing.root
        )
    _check_alike(listing)
    along = heights_of(listing)
    same = np.flatnonzero(np.abs(np.diff(along)) < SAME_POSITION_MM)
    if len(same):
        one, two = slices[same[0]], slices[same[0] + 1]
        raise CaseError(
            Code.SLICE_DUPLICATE,
            f"{count(len(same), 'slice')} at the position of another, first {one.file} and {two.file} at "
            f"{along[same[0]]:.2f} mm along the normal; one slice for each position was expected: several time points, "
            f"echoes or reconstructions in one series, which its headers do not distinguish; index one of them alone",
            where=listing.root,
        )


def even_runs(listing: SeriesListing, tolerance: float) -> list[Run]:
    """The evenly spaced parts of a checked series; one part, the whole, if there is no gap.

    A distance is even if it differs from the usual one by at most ``tolerance`` (relative), or by no more than the
    rounding of the positions to their written decimals explains.
    """
    along = heights_of(listing)
    if is_even(along, tolerance):
        return [Run(0, len(along))]
    rounding = _rounding(listing)
    return [
        Run(first, stop, 0.0 if is_even(along[first:stop], tolerance) else _simplest(along[first:stop], rounding))
        for first, stop in _runs(along, tolerance, rounding)
    ]


def run_at(listing: SeriesListing, runs: Sequence[Run], heights: Sequence[float], tolerance: float) -> Run:
    """The part that contains all planes of a structure, given by their ``heights`` (mm along the normal).

    Planes beyond the first or the last slice of the series are handled when the mask is read.

    Raises
    ------
    CaseError
        ``SLICE_GAP`` if the structure reaches into or across a gap.
    """
    along = heights_of(listing)
    known = np.asarray(heights, dtype=np.float64)
    gap = float(np.median(np.diff(along)))
    known = known[(known >= along[0] - gap / 2) & (known <= along[-1] + gap / 2)]
    held = [int(_in_run(along, run, known).sum()) for run in runs]
    if not held or max(held) < len(known):
        raise gap_error(listing, tolerance, ", which the ROI reaches")
    return runs[held.index(max(held))] if len(known) else max(runs, key=lambda run: run.size)


def _in_run(along: FloatArray, run: Run, heights: FloatArray) -> BoolArray:
    half = (along[run.stop - 1] - along[run.first]) / (run.size - 1) / 2
    inside: BoolArray = (heights >= along[run.first] - half) & (heights <= along[run.stop - 1] + half)
    return inside


def check_axis(listing: SeriesListing, run: Run) -> None:
    """Check that the slices of a run are stacked along their normal.

    Raises
    ------
    CaseError
        ``GANTRY_TILT``, with the angle.
    """
    slices = listing.slices[run.first : run.stop]
    normal = np.asarray(slice_normal(listing.slices[0].orientation))
    offsets = np.array([s.position for s in slices]) - np.asarray(slices[0].position)
    sideways = np.linalg.norm(offsets - np.outer(offsets @ normal, normal), axis=1)
    limit = OFF_AXIS_PIXELS * min(slices[0].pixel_spacing)
    if sideways.max() > limit:
        k = int(sideways.argmax())
        angle = float(np.degrees(np.arctan2(sideways[k], abs(offsets[k] @ normal))))
        raise CaseError(
            Code.GANTRY_TILT,
            f"{slices[k].file} lies {sideways[k]:.2f} mm off the line along the slice normal (tolerance "
            f"{limit:.2f} mm; a tilt of {angle:.1f} degrees): the slices do not form a right-angled grid; resample the "
            f"series onto one first",
            where=listing.root,
        )


def heights_of(listing: SeriesListing) -> FloatArray:
    """Positions of the slices along the normal of the first, in mm."""
    positions = np.array([s.position for s in listing.slices])
    along: FloatArray = positions @ np.asarray(slice_normal(listing.slices[0].orientation))
    return along


def plane_heights(listing: SeriesListing, points: Sequence[Point]) -> list[float]:
    """Heights (mm along the series' normal) of a structure's planes, given by one point of each."""
    normal = slice_normal(listing.slices[0].orientation)
    return [dot(normal, point) for point in points]


def gap_error(listing: SeriesListing, tolerance: float, place: str = "") -> CaseError:
    """The error for an uneven series, with its gaps and what can be done."""
    along = heights_of(listing)
    gaps = np.diff(along)
    usual = float(np.median(gaps))
    wrong = np.flatnonzero(np.abs(gaps - usual) > tolerance * usual)
    if not len(wrong):
        return CaseError(
            Code.SLICE_GAP,
            f"the distances between slices drift from {gaps[0]:.3f} to {gaps[-1]:.3f} mm: an even stack would have "
            f"slices up to {_off_line(along).max():.2f} mm from their place",
            where=listing.root,
        )
    k = int(wrong[0])
    missing = int(np.rint(gaps[wrong] / usual - 1).clip(0).sum())
    return CaseError(
        Code.SLICE_GAP,
        f"other distances between slices than {usual:.3f} mm{place}: {len(wrong)} of {len(gaps)} "
        f"(about {count(missing, 'slice')} missing), first {gaps[k]:.3f} mm after {listing.slices[k].file} at "
        f"{along[k]:.2f} mm; {_advice(along, float(np.abs(gaps[wrong] / usual - 1).max()), tolerance)}",
        where=listing.root,
    )


#: A larger relative difference is not jitter: a slice is missing, or belongs to another stack.
_JITTER = 0.25


def _advice(along: FloatArray, worst: float, tolerance: float) -> str:
    if worst > _JITTER:
        return "find the missing slices"
    needed = float(np.ceil(worst * 1000) / 1000)
    return (
        f"image.gap_tolerance = {max(needed, tolerance):g} accepts them as even, with slices up to "
        f"{_off_line(along).max():.2f} mm from their place"
    )


def is_even(along: FloatArray, tolerance: float, rounding: float = 0.0) -> bool:
    """Whether two or more heights are evenly spaced, to a relative tolerance or to their rounding (mm)."""
    gaps = np.diff(along)
    usual = float(np.median(gaps))
    if usual <= 0:
        return False
    if np.abs(gaps - usual).max() > tolerance * usual:
        return _is_rounded(along, rounding)
    return bool(_off_line(along).max() <= max(DRIFT, tolerance) * usual)


def _is_rounded(along: FloatArray, rounding: float) -> bool:
    return rounding > 0 and _scatter(along, _fitted(along)) <= rounding


def _scatter(along: FloatArray, between: float) -> float:
    """Width of the band of slope ``between`` per slice that contains all heights; rounding allows one step."""
    return float(np.ptp(along - between * np.arange(len(along))))


def _fitted(along: FloatArray) -> float:
    """The slice distance of the even stack nearest to all heights (minimax)."""
    gaps = np.diff(along)
    low, high = float(gaps.min()), float(gaps.max())
    for _ in range(80):  # the scatter is convex in the distance
        third = (high - low) / 3
        if _scatter(along, low + third) < _scatter(along, high - third):
            high -= third
        else:
            low += third
    return (low + high) / 2


def _simplest(along: FloatArray, rounding: float) -> float:
    """The slice distance with fewest decimals whose rounding explains all heights.

    >>> _simplest(np.array([0.0, 0.62, 1.25, 1.88, 2.5]), 0.0101)
    0.625
    """
    fitted, mean = _fitted(along), float(along[-1] - along[0]) / (len(along) - 1)
    tried = (round(between, decimals) for decimals in range(7) for between in (mean, fitted))
    return next((one for one in tried if _scatter(along, one) <= rounding), fitted)


def _off_line(along: FloatArray) -> FloatArray:
    """Distance (mm) of each height from its position in an even stack between the first and the last."""
    off: FloatArray = np.abs(along - np.linspace(along[0], along[-1], len(along)))
    return off


def _runs(along: FloatArray, tolerance: float, rounding: float) -> list[tuple[int, int]]:
    if is_even(along, tolerance, rounding):
        return [(0, len(along))]
    gaps = np.diff(along)
    usual = float(np.percentile(gaps, 50, method="lower"))
    good = np.abs(gaps - usual) <= max(tolerance * usual, rounding)
    if not good.any():
        return []
    runs = []
    for first, last, is_good in _stretches(good):
        part = along[first : last + 2]
        if is_good and is_even(part, tolerance, rounding):
            runs.append((first, last + 2))
        elif not is_good and len(part) >= OWN_STACK:
            found = _runs(part, tolerance, rounding)
            runs += [(first + a, first + b) for a, b in found if b - a >= OWN_STACK]
    return runs


def _stretches(good: BoolArray) -> list[tuple[int, int, bool]]:
    """(first, last, value) of the stretches of equal values."""
    edges = np.flatnonzero(np.diff(good)) + 1
    starts = [0, *edges.tolist()]
    stops = [*edges.tolist(), len(good)]
    return [(start, stop - 1, bool(good[start])) for start, stop in zip(starts, stops, strict=True)]


def _rounding(listing: SeriesListing) -> float:
    """Largest shift (mm, along the normal) between two slices by rounding to the written decimals."""
    exponents = [
        exponent
        for s in listing.slices
        for value in s.position
        if isinstance(exponent := Decimal(repr(value)).normalize().as_tuple().exponent, int)
    ]
    step = 10.0 ** min(exponents)
    if step > COARSEST_STEP_MM:
        return 0.0
    return float(step * np.abs(slice_normal(listing.slices[0].orientation)).sum() * (1 + 1e-6))


def _check_alike(listing: SeriesListing) -> None:
    first = listing.slices[0]
    for other in listing.slices[1:]:
        turned = max(abs(a - b) for a, b in zip(first.orientation, other.orientation, strict=True))
        scaled = max(abs(a / b - 1) for a, b in zip(first.pixel_spacing, other.pixel_spacing, strict=True))
        for name, differs in (
            ("orientation", turned > SAME_DIRECTION),
            ("pixel_spacing", scaled > SAME_SPACING),
            ("size", first.size != other.size),
        ):
            if differs:
                raise CaseError(
                    Code.SERIES_MIXED,
                    f"{name} is {getattr(first, name)} in {first.file} and {getattr(other, name)} in {other.file}; one "
                    f"value was expected: the series holds several stacks, index it without the stray slices",
                    where=listing.root,
                )


def wants_suv(listing: SeriesListing, settings: ImageSection) -> bool:
    """Whether the series' values are to become SUVs."""
    return listing.modality == "PT" and settings.pet == "suv"


def usable_runs(
    listing: SeriesListing, settings: ImageSection, planes: Callable[[], Sequence[Point]] | None
) -> list[Run]:
    """The evenly spaced parts of a series that a mask may lie on; mostly one, the whole.

    Warns of gaps and doubtful units.

    Parameters
    ----------
    planes
        Returns a point in each plane of the mask, or nothing if its planes may be empty; called only if slices are
        missing. None: there is no mask, so the whole series is needed.

    Raises
    ------
    CaseError
        ``PET_UNITS`` if the headers are insufficient for SUVs, ``UNREADABLE_FILE`` if an older listing lacks them,
        ``SERIES_TOO_SHORT``, ``SERIES_MIXED``, ``SLICE_DUPLICATE``, ``SLICE_GAP``, ``GANTRY_TILT``.
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
        gap = gap_error(listing, settings.gap_tolerance).problem
        warn(gap.code, f"only the slices on the ROI's side of a gap are used: {gap.reason}", where=gap.where)
    for run in runs:
        check_axis(listing, run)
    return sorted(runs, key=lambda run: -run.size)


def _check_values(listing: SeriesListing, settings: ImageSection) -> None:
    """Check that the series' values can be converted to the requested unit."""
    suv = wants_suv(listing, settings)
    if suv and listing.no_suv:
        raise CaseError(Code.PET_UNITS, listing.no_suv, where=listing.root)
    if suv and any(one.suv_factor is None for one in listing.slices):
        reason = "the listing of the series has no SUV factors; index the cohort again"
        raise CaseError(Code.UNREADABLE_FILE, reason, where=listing.root)
    if listing.notes and (suv or listing.modality != "PT"):
        warn(Code.IMAGE_UNITS, listing.notes, where=listing.root)
