"""Read any image file: its grid, the requested slices, and checksums that readers of NRRD and MetaImage pass over."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prognosis_dask.arrays import NumberArray
from prognosis_dask.errors import CaseError, Code, count
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
    _expect_mm(path, text_header(path).fields)
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
    if not min(reader.GetSpacing()[:3]) > 0 or not np.isfinite(reader.GetSpacing()[:3]).all():
        sizes = " x ".join(f"{mm:g}" for mm in reader.GetSpacing()[:3])
        reason = f"its header gives voxels of {sizes} mm; expected sizes above 0: correct the header"
        raise CaseError(Code.IMAGE_INVALID, reason, where=str(path))
    grid = Grid(size[:3], reader.GetSpacing()[:3], reader.GetOrigin()[:3], tuple(direction.ravel().tolist()))
    if not is_right_angled(grid):
        _refuse_sheared(grid, path)
    return grid


#: Where NRRD and MetaImage say how large voxels are.
_VOXEL_SIZES = ("space directions", "spacings", "ElementSpacing", "ElementSize")


def says_voxel_size(path: Path) -> bool:
    """Whether the header of an NRRD or MetaImage file says how large voxels are; ITK takes 1 mm where it does not."""
    if is_nifti(path):
        return True
    fields = text_header(path).fields
    said = next((fields[key] for key in _VOXEL_SIZES if fields.get(key)), "")
    of_axes = re.findall(r"\([^)]*\)", said) or said.split()
    known = [one for one in of_axes if not re.search(r"\b(none|nan)\b", one, re.IGNORECASE)]
    return len(known) >= 3  # an axis that is none of space has no size


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
    _check_length(path, reader, text_header(path))
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


def _expect_mm(path: Path, fields: Mapping[str, str]) -> None:
    """Refuse a header that says another unit of length, or a scale of values: ITK passes over both.

    Raises
    ------
    CaseError
        ``IMAGE_INVALID``.
    """
    of_axes = [re.findall(r'"([^"]*)"', fields.get(name, "")) for name in ("space units", "units")]
    units = [*of_axes[0], *of_axes[1], fields.get("DistanceUnits", "")]
    other = next((unit for unit in units if unit.strip().lower() not in _MM), "")
    if other:
        raise CaseError(
            Code.IMAGE_INVALID, f"its unit of length is {other}; some programs ignore it: write mm", where=str(path)
        )
    for key, neutral in (("ElementToIntensityFunctionSlope", 1.0), ("ElementToIntensityFunctionOffset", 0.0)):
        if key in fields and _number(fields[key]) != neutral:
            reason = f"{key} is {fields[key]}: some programs scale by that, some do not; rewrite the file"
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


def _check_length(path: Path, reader: sitk.ImageFileReader, header: TextHeader) -> None:
    """Check how many bytes of voxels there are: ITK reads the first as many as the header describes.

    Raises
    ------
    CaseError
        ``PIXELS_UNREADABLE`` if their file is missing, damaged, too short, or too long.
    """
    if header.is_listed:
        _check_pieces(path, reader, header)
    if header.voxels is None:
        return
    unpacked, packed = _unpacked(path, *header.voxels) if header.coding == "gzip" else (0, 0)
    if packed and "ElementDataFile" in header.fields:
        _expect_packed_size(path, header.fields.get("CompressedDataSize", "0"), packed, own=bool(header.files))
    data, begin = (path, 0) if unpacked else header.voxels
    if not data.is_file():
        raise CaseError(Code.PIXELS_UNREADABLE, f"the file of its voxels, {data.name}, is missing", where=str(path))
    plane, described = (_voxel_bytes(reader) * math.prod(reader.GetSize()[:axes]) for axes in (2, None))
    held = unpacked or data.stat().st_size - begin
    if held < described:
        seen = f"{data.name} is cut short: {held:,} bytes of voxels, and the header describes {described:,}"
        raise CaseError(Code.PIXELS_UNREADABLE, f"{seen}; copy it again", where=str(path))
    # before the voxels of a file of their own, a header that nothing tells of would shift them
    expect_no_more(path, held - described, plane if data == path else min(plane, _MOST_BEHIND))


def _voxel_bytes(reader: sitk.ImageFileReader) -> int:
    import SimpleITK as sitk

    components = reader.GetNumberOfComponents()
    of_component = sitk.Image((1, 1, 1), reader.GetPixelID(), components).GetSizeOfPixelComponent()
    return int(of_component) * int(components)


def _check_pieces(path: Path, reader: sitk.ImageFileReader, header: TextHeader) -> None:
    """Check that a list of files has all slices: ITK leaves those undefined that MetaImage's lacks, and drops others.

    Raises
    ------
    CaseError
        ``PIXELS_UNREADABLE``.
    """
    wanted = reader.GetSize()[-1] if "ElementDataFile" in header.fields else max(1, len(header.files))
    if len(header.files) < wanted:
        named = count(len(header.files), "file")
        reason = f"its header names {named} of voxels that all programs find, expected {wanted}; rewrite it"
        raise CaseError(Code.PIXELS_UNREADABLE, reason, where=str(path))
    described = _voxel_bytes(reader) * math.prod(reader.GetSize()) // wanted
    for piece in header.files[:wanted] if header.coding == "raw" else ():
        held = piece.stat().st_size if piece.is_file() else 0
        if held < described:
            seen = f"{piece.name} is missing or cut short: {held:,} bytes of voxels, and the header describes"
            raise CaseError(Code.PIXELS_UNREADABLE, f"{seen} {described:,}; copy it again", where=str(path))
        expect_no_more(piece, held - described, _MOST_BEHIND)


def _expect_packed_size(path: Path, said: str, packed: int, *, own: bool) -> None:
    """Refuse a CompressedDataSize that is too small: ITK leaves the voxels undefined that it does not unpack.

    ``own``: the voxels have a file of their own, whose size counts where the header says none.

    Raises
    ------
    CaseError
        ``PIXELS_UNREADABLE``.
    """
    size = _number(said)
    if not (size >= packed or (own and size == 0)):
        reason = f"CompressedDataSize is {said}, and its compressed voxels take {packed:,} bytes: some programs would "
        raise CaseError(Code.PIXELS_UNREADABLE, f"{reason}read a part; rewrite the file", where=str(path))


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


@dataclass(frozen=True)
class TextHeader:
    """The header of an NRRD or MetaImage file; empty for a file of another kind.

    Attributes
    ----------
    fields
        Keys as written. Of NRRD the fields (``key: value``) and the key/value pairs (``key:=value``).
    voxels
        The file of the voxels, and where in it they begin; None where they are not in one piece, or coded otherwise.
    coding
        ``raw`` or ``gzip`` (of MetaImage, zlib).
    files
        The files of the voxels; none where they follow the header.
    is_listed
        Whether these are given by a list, or a pattern and numbers.
    """

    fields: Mapping[str, str]
    voxels: tuple[Path, int] | None = None
    coding: str = ""
    files: tuple[Path, ...] = ()
    is_listed: bool = False


def text_header(path: Path) -> TextHeader:
    """Read the header of an NRRD or MetaImage file."""
    with path.open("rb") as stream:
        start = stream.read(_MOST_HEADER)
    if start.startswith(b"NRRD"):
        return _nrrd_header(path, start)
    return _metaimage_header(path, start) if path.name.lower().endswith((".mha", ".mhd")) else TextHeader({})


def _nrrd_header(path: Path, start: bytes) -> TextHeader:
    ends = [start.find(mark) + len(mark) for mark in (b"\n\n", b"\r\n\r\n") if mark in start]
    end = min(ends, default=len(start))
    fields = {}
    lines = start[:end].decode("utf-8", errors="replace").splitlines()[1:]
    for line in lines:
        if line.startswith("#"):
            continue
        found = line.partition(":=") if ":=" in line else line.partition(":")
        name = found[0].strip()
        if found[1]:  # names of fields may be written in either case, keys of one's own mean what they say
            fields[name.lower() if found[1] == ":" else name] = found[2].strip().replace("\\n", "\n")
    coding = {"raw": "raw", "gzip": "gzip", "gz": "gzip"}.get(fields.get("encoding", "").lower(), "")
    if any(fields.get(key, "0") != "0" for key in ("line skip", "lineskip", "byte skip", "byteskip")):
        coding = ""
    data = fields.get("data file") or fields.get("datafile") or ""
    first = next((n for n, line in enumerate(lines, 1) if re.match(r"data ?file:", line, re.IGNORECASE)), len(lines))
    names = None
    if "%" in data:
        names = _numbered(data)
    elif data.startswith("LIST"):
        names = lines[first:]
    return _header(path, fields, coding, data, end, names)


def _metaimage_header(path: Path, start: bytes) -> TextHeader:
    fields, end = dict[str, str](), 0
    lines = iter(start.split(b"\n"))
    for line in lines:
        end += len(line) + 1
        key, _, value = line.decode("latin-1").partition("=")
        fields[key.strip()] = value.strip()
        if key.strip() == "ElementDataFile":
            break
    data = fields.get("ElementDataFile", "")
    coding = ""
    if fields.get("CompressedData", "").lower() == "true":
        coding = "gzip"
    elif fields.get("BinaryData", "").lower() == "true" and fields.get("HeaderSize", "0") == "0":
        coding = "raw"
    coding, data = coding if data else "", "" if data.upper() == "LOCAL" else data
    names, sizes = None, [int(size) for size in fields.get("DimSize", "").split() if size.isdigit()]
    if data.startswith("LIST"):
        # ITK passes over a last line without an end, and leaves voxels undefined of files that are no slices
        of_slices = data.split()[1:] in ([], [str(len(sizes) - 1)])
        names = [line.decode("utf-8", errors="replace") for line in list(lines)[:-1]] if of_slices else []
    elif "%" in data:
        names = _numbered(data, slices=sizes[-1] if sizes else 0)
    return _header(path, fields, coding, data, end, names)


def _header(
    path: Path, fields: Mapping[str, str], coding: str, data: str, end: int, names: Iterable[str] | None
) -> TextHeader:
    """The header of a file whose voxels lie in ``data``; where that is empty, they follow the header from ``end`` on.

    ``names``: of the files, where ``data`` stands for a list of them.
    """
    if names is not None:
        listed = tuple(path.parent / name.strip() for name in names if name.strip())
        return TextHeader(fields, None, coding, listed, is_listed=True)
    files = (path.parent / data,) if data else ()
    return TextHeader(fields, ((*files, path)[0], 0 if data else end) if coding else None, coding, files)


def _numbered(pattern: str, slices: int = 0) -> list[str]:
    """The names that a pattern stands for; none without three numbers, unless it is of a MetaImage with ``slices``.

    Its numbers are 1, 2, ... or, where it gives one, begin there. Of two, and downwards, ITK would make up something.

    >>> _numbered("ct%02d.raw 5 1 -2")
    ['ct05.raw', 'ct03.raw', 'ct01.raw']
    >>> _numbered("ct%d.raw 7", slices=2)
    ['ct7.raw', 'ct8.raw']
    """
    name, *words = pattern.split()
    try:
        numbers = [int(word) for word in words]
        if slices and len(numbers) < 2:
            begin = (*numbers, 1)[0]
            numbers = [begin, begin + slices - 1, 1]
        first, last, step = numbers if slices else numbers[:3]
        if slices and step < 1:
            return []
        return [name % number for number in range(first, last + (1 if step > 0 else -1), step)[: slices or None]]
    except (ValueError, TypeError):
        return []


def _unpacked(path: Path, data: Path, begin: int) -> tuple[int, int]:
    """Unpack compressed voxels to their end, and verify the checksum: ITK does not notice damage.

    Returns
    -------
    tuple
        Their length, and that of what they were compressed to.

    Raises
    ------
    CaseError
        ``PIXELS_UNREADABLE`` if data are damaged or missing.
    """
    try:
        return _unpack(data, begin)
    except (OSError, EOFError, zlib.error) as error:
        raise CaseError(
            Code.PIXELS_UNREADABLE, f"the file is cut short or damaged: {error}; copy it again", where=str(path)
        ) from error


def _unpack(path: Path, begin: int) -> tuple[int, int]:
    length = packed = 0
    unpacker = zlib.decompressobj(_EITHER)
    with path.open("rb") as stream:
        stream.seek(begin)
        while not unpacker.eof:
            block = stream.read(_BLOCK)
            if not block:
                raise EOFError("the compressed data end too early")
            packed += len(block)
            while block and not unpacker.eof:
                length += len(unpacker.decompress(block, _BLOCK))
                block = unpacker.unconsumed_tail
    return length, packed - len(unpacker.unused_data)
