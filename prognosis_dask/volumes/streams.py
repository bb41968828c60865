"""Verify the checksums of compressed NRRD and MetaImage files, which their readers do not."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

from prognosis_dask.errors import CaseError, Code

_BLOCK = 1 << 22
#: zlib detects whether the stream is gzip (NRRD) or zlib (MetaImage).
_EITHER = 32 + zlib.MAX_WBITS
_MOST_HEADER = 1 << 20


def check_stream(path: Path) -> None:
    """Unpack a compressed NRRD or MetaImage file to its end, and verify the checksum.

    ITK does not notice damaged data. Uncompressed files have no checksum; the reader notices a missing part.

    Raises
    ------
    CaseError
        ``PIXELS_UNREADABLE`` if data are damaged or missing.
    """
    try:
        for file, begin in _streams(path):
            _unpack(file, begin)
    except (OSError, EOFError, zlib.error) as error:
        raise CaseError(
            Code.PIXELS_UNREADABLE, f"the file is cut short or damaged: {error}; copy it again", where=str(path)
        ) from error


def nrrd_header(path: Path) -> tuple[dict[str, str], int]:
    """Fields (``key: value``) and key/value pairs (``key:=value``) of an NRRD file, and the offset of its data.

    Keys are as written; the first line (``NRRD0004``) is left out. Empty for a file of another kind.
    """
    with path.open("rb") as stream:
        start = stream.read(_MOST_HEADER)
    if not start.startswith(b"NRRD"):
        return {}, 0
    ends = [start.find(mark) + len(mark) for mark in (b"\n\n", b"\r\n\r\n") if mark in start]
    end = min(ends, default=len(start))
    fields = {}
    for line in start[:end].decode("utf-8", errors="replace").splitlines()[1:]:
        if line.startswith("#"):
            continue
        found = line.partition(":=") if ":=" in line else line.partition(":")
        if found[1]:
            fields[found[0].strip()] = found[2].strip().replace("\\n", "\n")
    return fields, end


def _streams(path: Path) -> Iterator[tuple[Path, int]]:
    name = path.name.lower()
    if name.endswith((".nrrd", ".nhdr")):
        fields, begin = nrrd_header(path)
        if fields.get("encoding", "").lower() in ("gzip", "gz") and not _skips(fields):
            data = fields.get("data file") or fields.get("datafile")
            if data is None:
                yield path, begin
            elif "%" not in data and not data.upper().startswith("LIST"):
                yield path.parent / data, 0
    elif name.endswith((".mha", ".mhd")):
        yield from _metaimage(path)


def _skips(fields: dict[str, str]) -> bool:
    return any(fields.get(key, "0") != "0" for key in ("line skip", "lineskip", "byte skip", "byteskip"))


def _metaimage(path: Path) -> Iterator[tuple[Path, int]]:
    with path.open("rb") as stream:
        start = stream.read(_MOST_HEADER)
    fields, at = {}, 0
    for line in start.split(b"\n"):
        at += len(line) + 1
        key, _, value = line.decode("latin-1").partition("=")
        fields[key.strip()] = value.strip()
        if key.strip() == "ElementDataFile":
            break
    data = fields.get("ElementDataFile", "")
    if fields.get("CompressedData", "").lower() != "true" or not data or data.upper().startswith("LIST") or "%" in data:
        return
    yield (path, at) if data.upper() == "LOCAL" else (path.parent / data, 0)


def _unpack(path: Path, begin: int) -> None:
    unpacker = zlib.decompressobj(_EITHER)
    with path.open("rb") as stream:
        stream.seek(begin)
        while not unpacker.eof:
            block = stream.read(_BLOCK)
            if not block:
                raise EOFError("the compressed data end too early")
            while block and not unpacker.eof:
                unpacker.decompress(block, _BLOCK)
                block = unpacker.unconsumed_tail
