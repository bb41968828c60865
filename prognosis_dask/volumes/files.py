"""Read any image file: its grid, the requested slices, and checksums that readers of NRRD and MetaImage pass over."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prognosis_dask.arrays import NumberArray
from prognosis_dask.errors import CaseError, Code
from prognosis_dask.volumes.grid import Grid, is_right_angled, right_angled
from prognosis_dask.volumes.nifti import expect_no_more, is_nifti, nifti_grid, nifti_voxels

if TYPE_CHECKING:
    import SimpleITK as sitk

#: File endings of images that carry their own geometry.
VOLUME_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")


def volume_grid(path: Path, *, layers: bool = False) -> Grid:
    """The grid of an image file, from its header. ``layers``: several values per voxel are allowed.

    Raises
    ------
    CaseError
        ``UNREADABLE_FILE``; ``IMAGE_INVALID`` if it is not one three-dimensional scalar image in mm; ``GANTRY_TILT`` if
        its axes are not orthogonal.
    """
    if is_nifti(path):
        return nifti_grid(path)
    import SimpleITK as sitk

    reader = _reader(path)
    _expect_mm(path)
    size, components = reader.GetSize(), reader.GetNumberOfComponents()
    complex_valued = "complex" in sitk.GetPixelIDValueAsString(reader.GetPixelID())
    single = all(length == 1 for length in size[3:])
    if len(size) < 3 or not single or complex_valued or (components != 1 and not layers):
        raise CaseError(
            Code.IMAGE_INVALID,
            f"the image has {len(size)} dimensions {size} and {components} values a voxel"
            f"{' (complex)' if complex_valued else ''}, expected 3 and 1 real one; split a time series into "
            f"one file each",
            where=str(path),
        )
    direction = np.asarray(reader.GetDirection()).reshape(len(size), -1)[:3, :3]
    grid = Grid(size[:3], reader.GetSpacing()[:3], reader.GetOrigin()[:3], tuple(direction.ravel().tolist()))
    if not is_right_angled(grid):
        _refuse_sheared(grid, path)
    return grid


def volume_voxels(path: Path, first: int = 0, stop: int | None = None) -> NumberArray:
    """Voxels of the slices ``first`` to ``stop`` - 1 (all), (slice, row, column), in the file's own type.

    Several values per voxel (layers) form a fourth axis.

    Raises
    ------
    CaseError
        As :func:`volume_grid`, or ``PIXELS_UNREADABLE`` when the file is cut short or damaged.
    """
    if is_nifti(path):
        return nifti_voxels(path, first, stop)
    import SimpleITK as sitk

    reader = _reader(path)
    _check_length(path, reader, check_stream(path))
    size = list(reader.GetSize())
    index = [0] * len(size)
    index[2], size[2] = first, (size[2] if stop is None else stop) - first
    reader.SetExtractIndex(index)
    reader.SetExtractSize([*size[:3], *(0 for _ in size[3:])])
    try:
        voxels: NumberArray = sitk.GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        raise CaseError(
            Code.PIXELS_UNREADABLE, f"cannot read the image: {_last_line(error)}", where=str(path)
        ) from error
    return voxels


def _expect_mm(path: Path) -> None:
    """Refuse a header that says another unit of length, or a scale of values: ITK passes over both.

    Raises
    ------
    CaseError
        ``IMAGE_INVALID``.
    """
    units = re.findall(r'"([^"]*)"', nrrd_header(path)[0].get("space units", ""))
    fields = _metaimage_header(path)[0]
    units.append(fields.get("DistanceUnits", ""))
    other = next((unit for unit in units if unit.strip().lower() not in _MM), "")
    if other:
        raise CaseError(
            Code.IMAGE_INVALID, f"its unit of length is {other}; some programs ignore it: write mm", where=str(path)
        )
    for key, neutral in (("ElementToIntensityFunctionSlope", 1.0), ("ElementToIntensityFunctionOffset", 0.0)):
        if key in fields and _number(fields[key]) != neutral:
            reason = f"{key} is {fields[key]}: some programs scale by that, some do not; write the file anew"
            raise CaseError(Code.IMAGE_INVALID, reason, where=str(path))


def _number(text: str) -> float:
    """What a header's text says, in any notation; NaN, which equals nothing, where it is no number."""
    try:
        return float(text)
    except ValueError:
        return math.nan


#: What headers say of millimetres, or of nothing.
_MM = ("", "mm", "millimeter", "millimetre", "millimeters", "millimetres", "?", "???")


#: More bytes than these are no newline or padding behind the voxels of a detached header.
_MOST_BEHIND = 16


def _check_length(path: Path, reader: sitk.ImageFileReader, unpacked: int) -> None:
    """Check how many bytes of voxels there are: ITK reads the first as many as the header describes.

    Raises
    ------
    CaseError
        ``PIXELS_UNREADABLE`` if their file is missing, too short, or too long.
    """
    import SimpleITK as sitk

    data, begin = (path, 0) if unpacked else _raw_data(path) or (None, 0)
    if data is None:
        return
    if not data.is_file():
        raise CaseError(Code.PIXELS_UNREADABLE, f"the file of its voxels, {data.name}, is missing", where=str(path))
    components = reader.GetNumberOfComponents()
    voxel = sitk.Image((1, 1, 1), reader.GetPixelID(), components).GetSizeOfPixelComponent() * components
    plane, described = (voxel * math.prod(reader.GetSize()[:axes]) for axes in (2, None))
    held = unpacked or data.stat().st_size - begin
    if held < described:
        seen = f"{data.name} is cut short: {held:,} bytes of voxels, and the header describes {described:,}"
        raise CaseError(Code.PIXELS_UNREADABLE, f"{seen}; copy it again", where=str(path))
    # before the voxels of a file of their own, a header that nothing tells of would shift them
    expect_no_more(path, held - described, plane if data == path else min(plane, _MOST_BEHIND))


def _refuse_sheared(grid: Grid, path: Path) -> None:
    # a smaller shear is kept as written: ITK and pyradiomics work with it
    try:
        right_angled(grid)
    except CaseError as error:
        raise CaseError(error.problem.code, error.problem.reason, where=str(path)) from error


def _reader(path: Path) -> sitk.ImageFileReader:
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise CaseError(
            Code.UNREADABLE_FILE, f"not a readable image file: {_last_line(error)}", where=str(path)
        ) from error
    return reader


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]


_BLOCK = 1 << 22
#: zlib detects whether the stream is gzip (NRRD) or zlib (MetaImage).
_EITHER = 32 + zlib.MAX_WBITS
_MOST_HEADER = 1 << 20


def check_stream(path: Path) -> int:
    """Unpack a compressed NRRD or MetaImage file to its end, and verify the checksum; its length, 0 for others.

    ITK does not notice damaged data. Uncompressed files have no checksum; the reader notices a missing part.

    Raises
    ------
    CaseError
        ``PIXELS_UNREADABLE`` if data are damaged or missing.
    """
    try:
        return sum(_unpack(file, begin) for file, begin in _streams(path))
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


def _raw_data(path: Path) -> tuple[Path, int] | None:
    """The file of uncompressed voxels, and where in it they begin; None for compressed ones, or several files."""
    fields, begin = nrrd_header(path)
    if fields:
        data = fields.get("data file") or fields.get("datafile") or ""
        plain = fields.get("encoding", "").lower() == "raw" and not _skips(fields)
    else:
        fields, begin = _metaimage_header(path)
        data = fields.get("ElementDataFile", "")
        plain = fields.get("CompressedData", "").lower() != "true" and fields.get("BinaryData", "").lower() == "true"
        plain &= fields.get("HeaderSize", "0") == "0" and bool(data)
        data = "" if data.upper() == "LOCAL" else data
    if not plain or "%" in data or data.upper().startswith("LIST"):
        return None
    return (path.parent / data, 0) if data else (path, begin)


def _metaimage(path: Path) -> Iterator[tuple[Path, int]]:
    fields, at = _metaimage_header(path)
    data = fields.get("ElementDataFile", "")
    if fields.get("CompressedData", "").lower() != "true" or not data or data.upper().startswith("LIST") or "%" in data:
        return
    yield (path, at) if data.upper() == "LOCAL" else (path.parent / data, 0)


def _metaimage_header(path: Path) -> tuple[dict[str, str], int]:
    """Fields of a MetaImage file, and where its header ends; empty for a file of another kind."""
    if not path.name.lower().endswith((".mha", ".mhd")):
        return {}, 0
    with path.open("rb") as stream:
        start = stream.read(_MOST_HEADER)
    fields, at = {}, 0
    for line in start.split(b"\n"):
        at += len(line) + 1
        key, _, value = line.decode("latin-1").partition("=")
        fields[key.strip()] = value.strip()
        if key.strip() == "ElementDataFile":
            break
    return fields, at


def _unpack(path: Path, begin: int) -> int:
    length = 0
    unpacker = zlib.decompressobj(_EITHER)
    with path.open("rb") as stream:
        stream.seek(begin)
        while not unpacker.eof:
            block = stream.read(_BLOCK)
            if not block:
                raise EOFError("the compressed data end too early")
            while block and not unpacker.eof:
                length += len(unpacker.decompress(block, _BLOCK))
                block = unpacker.unconsumed_tail
    return length
