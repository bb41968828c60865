"""A DICOM image series: its grid, checked, and the pixels of the slices that are asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray

from prognosis_dask.cohort.listing import SeriesListing, SliceFile
from prognosis_dask.counting import count
from prognosis_dask.errors import CaseError, Code
from prognosis_dask.imaging.roi import Grid

#: Slices nearer than this are at the same place: no scanner makes slices so thin.
SAME_POSITION_MM = 0.01
#: Largest difference between the direction cosines of two slices: 0.05 voxel over 512.
SAME_DIRECTION = 1e-4
#: Largest relative difference between the pixel spacings of two slices: 0.05 voxel over 512.
SAME_SPACING = 1e-4
#: Beyond this slope or intercept a product may not fit into 64 bits; no scanner writes such.
_WHOLE = 2**31
#: Furthest, in pixels, that a slice may lie from the stack's axis: beyond it the mask would move by a pixel.
OFF_AXIS_PIXELS = 0.5


def series_grid(listing: SeriesListing, gap_tolerance: float) -> Grid:
    """The grid of a series, after checking that its slices form one.

    The spacing between slices is the mean over the series. One slice alone makes no volume: nothing in its header
    says where the next would lie (SliceThickness does not), and its masks would fail as ``MASK_ONE_SLICE`` anyway.

    Parameters
    ----------
    listing
        The slices, in order along the slice normal.
    gap_tolerance
        How far a distance between neighbours may differ from the median one, relative to it.

    Raises
    ------
    CaseError
        ``SERIES_TOO_SHORT``, ``SERIES_MIXED``, ``SLICE_DUPLICATE``, ``SLICE_GAP`` or ``GANTRY_TILT``; the reason has
        the values seen and expected.
    """
    slices = listing.slices
    if len(slices) < 2:
        raise CaseError(
            Code.SERIES_TOO_SHORT, f"{count(len(slices), 'slice')}; two or more make a volume", where=listing.root
        )
    _check_alike(listing)
    row, column, normal = _axes(slices[0].orientation)
    positions = np.array([s.position for s in slices])
    _check_positions(listing, positions @ normal, gap_tolerance)
    _check_axis(listing, positions, normal)
    size, pixel_spacing = slices[0].size, slices[0].pixel_spacing
    between = float(np.linalg.norm(positions[-1] - positions[0])) / (len(slices) - 1)
    return Grid(
        size=(size[1], size[0], len(slices)),
        spacing=(pixel_spacing[1], pixel_spacing[0], between),
        origin=slices[0].position,
        direction=tuple(np.stack([row, column, normal], axis=1).ravel().tolist()),
    )


def _axes(orientation: tuple[float, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Unit vectors along a row, along a column, and the slice normal.

    Written cosines are right-angled to a few digits only; as in ITK, the row's are corrected.
    """
    column = np.asarray(orientation[3:]) / np.linalg.norm(orientation[3:])
    normal = np.cross(orientation[:3], column)
    normal /= np.linalg.norm(normal)
    return np.cross(column, normal), column, normal


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


def _check_positions(listing: SeriesListing, along: NDArray[np.float64], tolerance: float) -> None:
    gaps = np.diff(along)
    same = np.flatnonzero(np.abs(gaps) < SAME_POSITION_MM)
    if len(same):
        one, two = listing.slices[same[0]], listing.slices[same[0] + 1]
        raise CaseError(
            Code.SLICE_DUPLICATE,
            f"{count(len(same), 'slice')} where another lies, first {one.file} and {two.file} at "
            f"{along[same[0]]:.2f} mm along the normal; one slice for each position was expected",
            where=listing.root,
        )
    usual = float(np.median(gaps))
    wrong = np.flatnonzero(np.abs(gaps - usual) > tolerance * usual)
    if len(wrong):
        k = int(wrong[0])
        missing = int(np.rint(gaps[wrong] / usual - 1).clip(0).sum())
        raise CaseError(
            Code.SLICE_GAP,
            f"other distances between slices than {usual:.3f} mm: {len(wrong)} of {len(gaps)} (about "
            f"{count(missing, 'slice')} missing), first {gaps[k]:.3f} mm after {listing.slices[k].file} at "
            f"{along[k]:.2f} mm; find the missing slices, or widen image.gap_tolerance ({tolerance})",
            where=listing.root,
        )


def _check_axis(listing: SeriesListing, positions: NDArray[np.float64], normal: NDArray[np.float64]) -> None:
    offsets = positions - positions[0]
    sideways = np.linalg.norm(offsets - np.outer(offsets @ normal, normal), axis=1)
    limit = OFF_AXIS_PIXELS * min(listing.slices[0].pixel_spacing)
    if sideways.max() > limit:
        k = int(sideways.argmax())
        angle = float(np.degrees(np.arctan2(sideways[k], abs(offsets[k] @ normal))))
        raise CaseError(
            Code.GANTRY_TILT,
            f"{listing.slices[k].file} lies {sideways[k]:.2f} mm beside the line along the slice normal (tolerance "
            f"{limit:.2f} mm; a tilt of {angle:.1f} degrees): the slices form no right-angled grid; resample the "
            f"series onto one first",
            where=listing.root,
        )


def read_slices(listing: SeriesListing, first: int, stop: int) -> NDArray[np.generic]:
    """Pixels of the slices ``first`` to ``stop`` - 1 in the series' units (HU for CT), (slice, row, column).

    The type is the one that GDCM, and so SimpleITK, chooses, because resampling rounds to it: stored integers stay
    integers where slope and intercept are whole numbers, else float64.

    Raises
    ------
    CaseError
        ``PIXELS_UNREADABLE`` when a file is missing, is not the instance that was indexed or cannot be decoded.
    """
    pixels = [_read_slice(Path(listing.root), one) for one in listing.slices[first:stop]]
    return np.stack(pixels)


def _read_slice(root: Path, expected: SliceFile) -> NDArray[np.generic]:
    path = root / expected.file
    try:
        dataset = pydicom.dcmread(path, force=True)  # old exports lack the preamble; the identity is checked
        if dataset.get("SOPInstanceUID") != expected.sop_uid:
            raise ValueError("it is not the instance that was indexed; index the cohort again")
        stored = dataset.pixel_array
        if stored.shape != expected.size:
            raise ValueError(f"its pixels have the shape {stored.shape}, expected {expected.size}")
        return _rescale(dataset, stored)
    except Exception as error:  # decoders raise whatever they like
        raise CaseError(
            Code.PIXELS_UNREADABLE, f"cannot read the pixels of {expected.file}: {error}", where=str(path)
        ) from error


def _rescale(dataset: pydicom.Dataset, stored: NDArray[np.generic]) -> NDArray[np.generic]:
    """The modality transform (DICOM PS3.3 C.11.1): stored value * slope + intercept."""
    slope = float(1 if dataset.get("RescaleSlope") is None else dataset.RescaleSlope)
    intercept = float(dataset.get("RescaleIntercept") or 0)
    if slope == 1 and intercept == 0:
        return stored
    whole = slope.is_integer() and intercept.is_integer()
    if not whole or max(abs(slope), abs(intercept)) >= _WHOLE:
        return stored.astype(np.float64) * slope + intercept
    bits, signed = int(dataset.BitsStored), bool(dataset.PixelRepresentation)
    limits = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1], dtype=np.int64)
    low, high = np.sort(limits * int(slope) + int(intercept)).tolist()
    kind = np.min_scalar_type(high if low >= 0 else min(low, -high - 1))
    return (stored.astype(np.int64) * int(slope) + int(intercept)).astype(kind)
