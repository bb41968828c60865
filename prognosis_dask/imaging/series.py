"""Read a DICOM image series: its checked grid, and the pixels of the requested slices."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from io import BytesIO

import numpy as np
import pydicom
from pydicom.pixels.processing import apply_modality_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from prognosis_dask.arrays import FloatArray, NumberArray
from prognosis_dask.cohort.dicom_header import name_syntax, transformation_of
from prognosis_dask.cohort.series import SeriesListing, SliceFile
from prognosis_dask.cohort.stack import Run, check_axis, check_slices, even_runs, gap_error
from prognosis_dask.errors import CaseError, Code
from prognosis_dask.objects.address import is_address, join, parse_address
from prognosis_dask.objects.bucket import ObjectStat, several
from prognosis_dask.objects.files import read_bytes
from prognosis_dask.volumes.grid import Grid

#: Beyond this slope or intercept a product may overflow 64 bits; no scanner writes such values.
_WHOLE = 2**31


def series_grid(listing: SeriesListing, gap_tolerance: float) -> Grid:
    """The grid of a whole series, after checking that its slices form one.

    A single slice is not a volume: its header does not give the position of a next one (SliceThickness does not), and
    its masks would fail as ``MASK_ONE_SLICE``.

    Parameters
    ----------
    listing
        The slices, in order along the slice normal.
    gap_tolerance
        Relative tolerance of distances between neighbours, against the median.

    Raises
    ------
    CaseError
        ``SERIES_TOO_SHORT``, ``SERIES_MIXED``, ``SLICE_DUPLICATE``, ``SLICE_GAP`` or ``GANTRY_TILT``; the reason has
        the values seen and expected.
    """
    check_slices(listing)
    runs = even_runs(listing, gap_tolerance)
    if runs != [Run(0, len(listing.slices))]:
        raise gap_error(listing, gap_tolerance)
    return run_grid(listing, runs[0])


def run_grid(listing: SeriesListing, run: Run) -> Grid:
    """The grid of an evenly spaced part of a series.

    Raises
    ------
    CaseError
        ``GANTRY_TILT``.
    """
    check_axis(listing, run)
    slices = listing.slices[run.first : run.stop]
    row, column, normal = _axes(listing.slices[0].orientation)
    positions = np.array([s.position for s in slices])
    size, pixel_spacing = slices[0].size, slices[0].pixel_spacing
    between = run.between_mm or float(np.linalg.norm(positions[-1] - positions[0])) / (len(slices) - 1)
    return Grid(
        size=(size[1], size[0], len(slices)),
        spacing=(pixel_spacing[1], pixel_spacing[0], between),
        origin=slices[0].position,
        direction=tuple(np.stack([row, column, normal], axis=1).ravel().tolist()),
    )


def _axes(orientation: tuple[float, ...]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Unit vectors along a row, along a column, and the slice normal.

    Written cosines are orthogonal to a few digits only; as in ITK, those of the row are corrected.
    """
    column = np.asarray(orientation[3:]) / np.linalg.norm(orientation[3:])
    normal = np.cross(orientation[:3], column)
    normal /= np.linalg.norm(normal)
    return np.cross(column, normal), column, normal


def read_slices(listing: SeriesListing, first: int, stop: int) -> NumberArray:
    """Pixels of the slices ``first`` to ``stop`` - 1 in the series' units (HU for CT), (slice, row, column).

    The type is that of GDCM, and so of SimpleITK, because resampling rounds to it: stored integers stay integers if
    slope and intercept are whole numbers, else float64.

    Raises
    ------
    CaseError
        ``PIXELS_UNREADABLE`` when a file is missing, is not the instance that was indexed or cannot be decoded.
    """
    files = itertools.groupby(listing.slices[first:stop], lambda one: join(listing.root, one.file))
    wanted = [(path, list(slices)) for path, slices in files]
    pixels: list[NumberArray] = []
    for (path, slices), content in zip(wanted, _contents(wanted), strict=True):
        pixels += _read_file(path, content, slices)
    return np.stack(pixels)


def _contents(wanted: Sequence[tuple[str, list[SliceFile]]]) -> Iterator[str | BytesIO]:
    """The paths of files; of objects their bytes, several on their way while one is decoded."""
    if not any(is_address(path) for path, _ in wanted):
        return (path for path, _ in wanted)
    return several(_content, wanted)


def _content(one: tuple[str, list[SliceFile]]) -> str | BytesIO:
    path, (first, *_) = one
    if not is_address(path):
        return path
    return BytesIO(read_bytes(path, expected=ObjectStat(parse_address(path).key, first.bytes, first.etag)))


def _read_file(path: str, content: str | BytesIO, wanted: Sequence[SliceFile]) -> list[NumberArray]:
    """The slices in a file: one, or some frames of a multi-frame file."""
    try:
        dataset = pydicom.dcmread(content, force=True)  # old exports lack the preamble; the UID is checked
        if dataset.get("SOPInstanceUID") != wanted[0].sop_uid:
            raise ValueError("it is not the instance that was indexed; index the cohort again")
        name_syntax(dataset)
        return [_read_slice(dataset, one) for one in wanted]
    except Exception as error:  # decoders may raise anything
        name = path.rpartition("/")[2]
        raise CaseError(Code.PIXELS_UNREADABLE, f"cannot read the pixels of {name}: {error}", where=path) from error


def _read_slice(dataset: pydicom.Dataset, expected: SliceFile) -> NumberArray:
    values = dataset
    _expect_no_more(dataset)
    if expected.frame:
        values = transformation_of(dataset, expected.frame)
        stored = pixel_array(dataset, index=expected.frame - 1)
    else:
        stored = _stored(dataset)
    if stored.shape != expected.size:
        raise ValueError(f"its pixels have the shape {stored.shape}, expected {expected.size}")
    if stored.dtype.kind == "f":  # FloatPixelData or DoubleFloatPixelData, which have no stored bits
        return stored.astype(np.float64) * _slope(values) + _intercept(values)
    if dataset.HighBit != dataset.BitsStored - 1:
        raise ValueError(f"{dataset.BitsStored} bits are stored up to bit {dataset.HighBit}, which decoders mistake")
    if not _is_within(stored, dataset):  # only of what was compressed: otherwise bits above are cut off
        raise ValueError(
            f"its compressed values go from {stored.min()} to {stored.max()}, beyond its {dataset.BitsStored} stored "
            f"bits: programs read them differently"
        )
    if "ModalityLUTSequence" in values and values.get("RescaleSlope") is None:
        return apply_modality_lut(stored, values)
    return _rescale(dataset, values, stored)


def _stored(dataset: pydicom.Dataset) -> NumberArray:
    """The stored values of a file's only slice.

    What lies in the file as it is, 16 bits a pixel, is taken from there: pydicom's decoder takes most of its time to be
    asked.
    """
    syntax = getattr(dataset, "file_meta", {}).get("TransferSyntaxUID")
    layout = tuple(dataset.get(name) for name in ("SamplesPerPixel", "BitsAllocated", "NumberOfFrames"))
    if syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian) and layout in ((1, 16, None), (1, 16, 1)):
        signed, size = dataset.PixelRepresentation, (dataset.Rows, dataset.Columns)
        content = dataset.get("PixelData")
        if isinstance(content, bytes) and len(content) == 2 * size[0] * size[1]:
            values: NumberArray = np.frombuffer(content, "<i2" if signed else "<u2").reshape(size)
            if _is_within(values, dataset):  # bits above the stored ones may hold anything
                return values
    return dataset.pixel_array


def _expect_no_more(dataset: pydicom.Dataset) -> None:
    """Refuse pixels that go on for a row or more: the size or the type in the header is wrong."""
    syntax, content = getattr(dataset, "file_meta", {}).get("TransferSyntaxUID"), dataset.get("PixelData")
    if content is None or syntax is None or syntax.is_encapsulated:
        return
    row = dataset.Columns * dataset.BitsAllocated // 8
    excess = len(content) - row * dataset.Rows * int(dataset.get("NumberOfFrames") or 1)
    if excess >= row:
        raise ValueError(f"its pixels go on for {excess:,} bytes after those that the header describes")


def _limits(dataset: pydicom.Dataset) -> tuple[int, int]:
    """The least and the largest value that the stored bits can hold."""
    bits = int(dataset.BitsStored)
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dataset.PixelRepresentation else (0, 2**bits - 1)


def _is_within(values: NumberArray, dataset: pydicom.Dataset) -> bool:
    if int(dataset.BitsStored) == 8 * values.itemsize:
        return True
    low, high = _limits(dataset)
    return bool(low <= values.min() and values.max() <= high)


def _rescale(dataset: pydicom.Dataset, values: pydicom.Dataset, stored: NumberArray) -> NumberArray:
    """The modality transform (DICOM PS3.3 C.11.1) of ``values``: stored value * slope + intercept."""
    slope, intercept = _slope(values), _intercept(values)
    if slope == 1 and intercept == 0:
        return stored
    whole = slope.is_integer() and intercept.is_integer()
    if not whole or max(abs(slope), abs(intercept)) >= _WHOLE:
        return stored.astype(np.float64) * slope + intercept
    low, high = sorted(limit * int(slope) + int(intercept) for limit in _limits(dataset))
    kind = np.min_scalar_type(high if low >= 0 else min(low, -high - 1))
    # sums and products modulo the type's range: what fits at the end is right, whatever overflows on the way
    pixels = stored.astype(kind)
    pixels *= np.int64(slope).astype(kind)
    pixels += np.int64(intercept).astype(kind)
    return pixels


def _slope(values: pydicom.Dataset) -> float:
    slope = float(1 if values.get("RescaleSlope") is None else values.RescaleSlope)
    if slope == 0:
        raise ValueError("RescaleSlope is 0: every value would be the same")
    return slope


def _intercept(values: pydicom.Dataset) -> float:
    return float(values.get("RescaleIntercept") or 0)
