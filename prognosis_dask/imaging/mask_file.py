"""Open a mask: a file as a whole, an object up to its pixel data, whose frames are then fetched one by one."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pydicom

from prognosis_dask.errors import CaseError, Code
from prognosis_dask.imaging.seg import StoredPixels
from prognosis_dask.objects.address import is_address, parse_address
from prognosis_dask.objects.bucket import ObjectStat, bucket_of
from prognosis_dask.objects.ranges import RangeReader

#: (7FE0,0010) OW, and a length, as an explicit little-endian file begins its pixels.
_PIXELS = struct.pack("<HH2sH", 0x7FE0, 0x0010, b"OW", 0)
_PIXELS_BYTES = struct.pack("<HH2sH", 0x7FE0, 0x0010, b"OB", 0)
_PIXELS_IMPLICIT = struct.pack("<HH", 0x7FE0, 0x0010)
_UNDEFINED = 0xFFFFFFFF


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
    stat = bucket_of(address).head(address.key)
    if etag and stat.etag != etag:
        reason = "the mask is another one than it was when the cohort was indexed; index the cohort again"
        raise CaseError(Code.OBJECT_CHANGED, reason, where=path)
    reader = RangeReader(address, ObjectStat(address.key, stat.bytes, stat.etag))
    yield MaskFile(path, reader, _is_dicom(reader))


def _is_dicom(stream: BinaryIO | RangeReader) -> bool:
    """A preamble and ``DICM``; or, in old exports without one, the group number of the first element."""
    start = stream.read(132)
    stream.seek(0)
    return start[128:] == b"DICM" or start[:2] in (b"\x02\x00", b"\x08\x00")


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
