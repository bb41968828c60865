"""Read any mask file on the grid of an image, and check it.

A file is read as a whole, an object up to its pixel data, whose frames are then fetched one by one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pydicom

from prognosis_dask.arrays import BoolArray, NumberArray
from prognosis_dask.cohort.dicom_header import is_dicom
from prognosis_dask.cohort.headers import FileStamp, Point
from prognosis_dask.cohort.masks import mask_header
from prognosis_dask.errors import BucketError, CaseError, Code, collected_warnings, warn
from prognosis_dask.imaging.geometry import image_on, place, resample_nearest
from prognosis_dask.imaging.rtstruct import rtstruct_mask
from prognosis_dask.imaging.seg import StoredPixels, seg_mask
from prognosis_dask.objects.address import is_address, parse_address
from prognosis_dask.objects.bucket import ObjectStat, bucket_of
from prognosis_dask.objects.files import RangeReader, as_local
from prognosis_dask.volumes.files import volume_grid, volume_voxels
from prognosis_dask.volumes.grid import Grid, corners_in, fits, one_reading, steps_of
from prognosis_dask.volumes.labels import chosen_voxels, layered


def read_mask(
    path: str,
    labels: tuple[int, ...],
    grid: Grid,
    *,
    resample: bool,
    threshold: float = 0.0,
    one_slice: bool = False,
    etag: str = "",
) -> BoolArray:
    """Read an RTSTRUCT, a DICOM SEG or a label map, on disk or in a bucket; the content decides which it is.

    ``threshold`` is for label maps that hold shares or probabilities (see :func:`labelmap_mask`). ``one_slice``: accept
    a mask on a single slice, since features are computed in planes. ``etag``: of an object, what its store said when it
    was indexed; another one in its place is ``OBJECT_CHANGED``.

    Returns
    -------
    numpy.ndarray
        bool, (slice, row, column), of the grid's size; on two slices or more, unless one is accepted.

    Raises
    ------
    CaseError
        What :func:`rtstruct_mask`, :func:`seg_mask` and :func:`labelmap_mask` raise; ``UNREADABLE_FILE`` when the
        file is missing, ``MASK_UNREADABLE`` when it is something else, ``MASK_ONE_VOXEL`` and ``MASK_ONE_SLICE``,
        because three-dimensional features of such a mask have no meaning.
    """
    with collected_warnings() as said:
        try:
            with open_mask(path, etag) as opened:
                mask = _read(opened, labels, grid, resample=resample, threshold=threshold, etag=etag)
            _check_extent(mask, one_slice=one_slice)
        except CaseError as error:
            raise CaseError(error.problem.code, error.problem.reason, where=path) from error
    for warning in said:
        warn(warning.code, warning.reason, where=warning.where or path)
    return mask


def read_planes(path: str, labels: tuple[int, ...], *, etag: str = "") -> list[Point]:
    """A point (mm) in each plane of an RTSTRUCT's ROIs; none for other masks, whose planes may be empty.

    Raises
    ------
    CaseError
        ``UNREADABLE_FILE`` when the file is missing, ``MASK_UNREADABLE`` when it is damaged.
    """
    with open_mask(path, etag) as opened:
        if not opened.is_dicom:
            return []
        try:
            dataset = opened.dataset()
            if dataset.get("Modality") != "RTSTRUCT":
                return []
            structures = mask_header(dataset, FileStamp(path, 0, 0)).structures
        except (CaseError, BucketError):
            raise
        except Exception as error:  # a damaged header may raise anything
            raise CaseError(Code.MASK_UNREADABLE, f"damaged DICOM file: {error}", where=path) from error
    return [point for one in structures if one.number in labels or not labels for point in one.points]


def _read(
    opened: MaskFile, labels: tuple[int, ...], grid: Grid, *, resample: bool, threshold: float, etag: str
) -> BoolArray:
    if not opened.is_dicom:
        with as_local(opened.path, etag) as path:
            return labelmap_mask(path, labels, grid, resample=resample, threshold=threshold)
    try:
        dataset = opened.dataset()
    except (CaseError, BucketError):
        raise
    except Exception as error:  # a damaged header may raise anything
        raise CaseError(Code.MASK_UNREADABLE, f"damaged DICOM file: {error}") from error
    try:
        return _from_dicom(dataset, labels, grid, resample=resample)
    except (CaseError, BucketError):
        raise
    except Exception as error:  # pydicom decodes elements on access, and may raise anything
        raise CaseError(Code.MASK_UNREADABLE, f"malformed DICOM file: {type(error).__name__}: {error}") from error


def _from_dicom(dataset: pydicom.Dataset, labels: tuple[int, ...], grid: Grid, *, resample: bool) -> BoolArray:
    modality = dataset.get("Modality")
    if grid.other is not None:
        raise CaseError(
            Code.MASK_OTHER_GRID,
            "the image's qform and sform differ, so that the mask's place is not known; expected one",
        )
    if modality == "RTSTRUCT":
        return rtstruct_mask(dataset, labels, grid)
    if modality == "SEG":
        return seg_mask(dataset, labels, grid, resample=resample)
    raise CaseError(Code.MASK_UNREADABLE, f"a DICOM file of modality {modality}; expected RTSTRUCT or SEG")


def _check_extent(mask: BoolArray, *, one_slice: bool) -> None:
    slices = np.flatnonzero(mask.any(axis=(1, 2)))
    voxels = int(np.count_nonzero(mask[slices]))
    if voxels == 0:
        raise CaseError(Code.MASK_EMPTY, "the mask holds no voxel of the image")
    if voxels > 1 and mask[np.ix_(*((0, -1) for _ in mask.shape))].all():
        reason = "every corner of the image belongs to the mask: are structure and background exchanged?"
        warn(Code.MASK_ITEM_INVALID, reason)
    if voxels == 1:
        raise CaseError(Code.MASK_ONE_VOXEL, f"the mask is a single voxel, on slice {slices[0]}")
    if len(slices) == 1 and not one_slice:
        raise CaseError(
            Code.MASK_ONE_SLICE,
            f"the mask's {voxels} voxels lie on slice {slices[0]} alone; two or more are needed, unless features are "
            "computed in planes (setting.force2D in the parameter file)",
        )


def labelmap_mask(
    path: Path, labels: tuple[int, ...], grid: Grid, *, resample: bool, threshold: float = 0.0
) -> BoolArray:
    """The voxels with one of ``labels`` (empty: every non-zero voxel).

    See :func:`prognosis_dask.volumes.labels.chosen_voxels` for labels and ``threshold``. Of a
    file with overlapping layers, ``labels`` are its segments, counted from 1.

    A label map that shares the image's voxel lattice, but has another extent or axis order, is placed there; any other
    grid is an error unless ``resample`` (nearest neighbour).

    Returns
    -------
    numpy.ndarray
        bool, (slice, row, column), of the grid's size.

    Raises
    ------
    CaseError
        ``MASK_UNREADABLE``, ``ROI_NOT_FOUND`` when a label does not occur, ``MASK_EMPTY``, ``MASK_OTHER_GRID`` or
        ``MASK_OUTSIDE``.
    """
    own, values = _read_labelmap(path)
    chosen = layered(values, labels) if values.ndim == 4 else chosen_voxels(values, labels, threshold)
    own, on = one_reading(own, grid)
    try:
        block, where = place(chosen, np.asarray(own.origin), steps_of(own), on)
    except CaseError as error:
        if not resample or error.problem.code is not Code.MASK_OTHER_GRID:
            raise
        return resample_nearest(image_on(chosen.astype(np.uint8), own), on)
    if sorted(own.size) == sorted(on.size) and fits(own, on) == "part":
        first = corners_in(own, on).min(axis=0).round().astype(int).tolist()
        warn(
            Code.MASK_OTHER_GRID,
            f"the mask has the image's size, but its header places it {first} voxels (x, y, z) beside the image: used "
            f"as it says; is its origin right?",
        )
    mask: BoolArray = np.zeros(grid.size[::-1], dtype=bool)
    mask[where] = block
    return mask


def _read_labelmap(path: Path) -> tuple[Grid, NumberArray]:
    try:
        return volume_grid(path, layers=True), volume_voxels(path)
    except CaseError as error:
        reason = f"not a readable label map: {error.problem.reason}"
        raise CaseError(Code.MASK_UNREADABLE, reason) from error


#: (7FE0,0010) OW, and a length, as an explicit little-endian file begins its pixels.
_PIXELS = struct.pack("<HH2sH", 0x7FE0, 0x0010, b"OW", 0)
_PIXELS_BYTES = struct.pack("<HH2sH", 0x7FE0, 0x0010, b"OB", 0)
_PIXELS_IMPLICIT = struct.pack("<HH", 0x7FE0, 0x0010)
_UNDEFINED = 0xFFFFFFFF
#: Bytes that are fetched of an object first; and what stands among them in a file of contours, which is read whole.
_FIRST = 1 << 14
_CONTOURS = b"RTSTRUCT"


@dataclass(frozen=True)
class MaskFile:
    """A mask that is open; the stream of an object fetches what is read of it."""

    path: str
    stream: BinaryIO | RangeReader
    is_dicom: bool

    def dataset(self) -> pydicom.Dataset:
        """Its content; the pixels of an object are left where they are, if single frames can be had of them.

        Raises
        ------
        Exception
            Whatever pydicom raises on a damaged file; CaseError and BucketError for an object that cannot be had.
        """
        stream = self.stream
        stream.seek(0)
        if not isinstance(stream, RangeReader):
            return pydicom.dcmread(stream, force=True)
        dataset = pydicom.dcmread(stream, force=True, stop_before_pixels=True)
        if stream.tell() >= stream.size:
            return dataset
        pixels = _stored_pixels(dataset, stream)
        if pixels is None:
            stream.fetch_all()
            stream.seek(0)
            return pydicom.dcmread(stream, force=True)
        dataset.stored_pixels = pixels
        return dataset


@contextmanager
def open_mask(path: str, etag: str = "") -> Iterator[MaskFile]:
    """Open a mask for reading.

    Parameters
    ----------
    path
        A path, or the address of an object.
    etag
        What the store said of the object when it was indexed; empty: any will do.

    Raises
    ------
    CaseError
        ``UNREADABLE_FILE`` when there is no such file; ``OBJECT_MISSING``, ``OBJECT_FORBIDDEN``, ``OBJECT_CHANGED``.
    """
    if not is_address(path):
        if not Path(path).is_file():
            raise CaseError(Code.UNREADABLE_FILE, "there is no mask file here; index the cohort again", where=path)
        with Path(path).open("rb") as stream:
            yield MaskFile(path, stream, _is_dicom(stream))
        return
    address = parse_address(path)
    start, stat = bucket_of(address).get_first(address.key, _FIRST, etag=etag)
    reader = RangeReader(address, ObjectStat(address.key, stat.bytes, stat.etag), start)
    if _CONTOURS in start:
        reader.fetch_all()
    yield MaskFile(path, reader, _is_dicom(reader))


def _is_dicom(stream: BinaryIO | RangeReader) -> bool:
    start = stream.read(132)
    stream.seek(0)
    return is_dicom(start)


def _stored_pixels(dataset: pydicom.Dataset, stream: RangeReader) -> StoredPixels | None:
    """Where the pixels of an uncompressed file of single bits begin; None for any other, which is read as a whole."""
    meta = getattr(dataset, "file_meta", None)
    syntax = None if meta is None else meta.get("TransferSyntaxUID")
    if dataset.get("BitsAllocated") != 1 or syntax is None or syntax.is_encapsulated or not syntax.is_little_endian:
        return None
    if syntax.is_deflated:
        return None
    begin = stream.tell()
    head = stream.read(12)
    if syntax.is_implicit_VR:
        known, at, length = head[:4] == _PIXELS_IMPLICIT, begin + 8, head[4:8]
    else:
        known, at, length = head[:8] in (_PIXELS, _PIXELS_BYTES), begin + 12, head[8:12]
    size = int.from_bytes(length, "little")
    if not known or size == _UNDEFINED or at + size > stream.size:
        return None
    return StoredPixels(stream, at, size)
