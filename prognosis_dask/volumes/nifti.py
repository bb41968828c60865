"""Read NIfTI files, header and voxels, and refuse what is ambiguous.

ITK's reader returns zeros for NaN, infinity and the missing part of a truncated file, reads ``a.nii`` instead of
``a.nii.gz`` beside it, and refuses a sform whose axes are off by 0.01 degrees.
Voxels are therefore read from the file itself, in the type and with the values that ITK gives for an intact one,
because pyradiomics resamples in that type.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from prognosis_dask.arrays import FloatArray, NumberArray
from prognosis_dask.errors import CaseError, Code
from prognosis_dask.volumes.grid import SAME_VOXEL, Grid, corners_in, right_angled

NIFTI_SUFFIXES = (".nii", ".nii.gz")
#: Bytes of a NIfTI-1 and of a NIfTI-2 header, which distinguish them.
_NIFTI_1, _NIFTI_2 = 348, 540
#: Largest relative difference between the voxel sizes of pixdim and of the affine.
SAME_SPACING = 1e-3
_BLOCK = 1 << 22
_ORDERS: tuple[Literal["little", "big"], ...] = ("little", "big")
#: Largest expansion of a byte by gzip (deflate's limit).
_MOST_PACKED = 1032
_DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error)


@dataclass(frozen=True)
class NiftiHeader:
    """Type, layout and offset of the voxels. ``affine`` is (4, 4), voxel indices to mm, right-anterior-superior."""

    size: tuple[int, int, int]
    dtype: np.dtype[Any]
    offset: int
    slope: float
    intercept: float
    affine: FloatArray
    version: int


def is_nifti(path: Path) -> bool:
    """By the file's ending."""
    return path.name.lower().endswith(NIFTI_SUFFIXES)


def nifti_header(path: Path) -> NiftiHeader:
    """Read and check a header.

    Raises
    ------
    CaseError
        ``UNREADABLE_FILE`` if it is not a NIfTI file, ``IMAGE_INVALID`` if it is not one three-dimensional image of
        real numbers, or if programs read it differently.
    """
    try:
        with _opened(path) as stream:
            raw = _raw_header(stream)
    except (OSError, *_DAMAGED) as error:
        raise CaseError(Code.UNREADABLE_FILE, f"not a readable NIfTI file: {error}", where=str(path)) from error
    try:
        return _checked(raw)
    except CaseError as error:
        raise CaseError(error.problem.code, error.problem.reason, where=str(path)) from error


def doubt_of_sides(path: Path) -> str:
    """Why the header does not say where left and right are; empty where it does.

    Without qform and sform, readers take the axes as they come. Where these two turn the image differently, ITK may
    take the one and nibabel the other.

    Raises
    ------
    CaseError
        ``UNREADABLE_FILE`` if it is not a NIfTI file, or as :func:`nifti_grid`.
    """
    try:
        with _opened(path) as stream:
            raw = _raw_header(stream)
    except (OSError, *_DAMAGED) as error:
        raise CaseError(Code.UNREADABLE_FILE, f"not a readable NIfTI file: {error}", where=str(path)) from error
    if int(raw["qform_code"]) <= 0 and int(raw["sform_code"]) <= 0:
        return "the header has neither qform nor sform"
    grid = nifti_grid(path)
    if grid.other is None:
        return ""
    mine, others = (np.reshape(one.direction, (3, 3)) for one in (grid, grid.other))
    return "the header's qform and sform turn the image differently" if (mine * others).sum(axis=0).min() < 0.5 else ""


def nifti_grid(path: Path) -> Grid:
    """The grid as in ITK; a nearly right-angled sform, which ITK refuses, is corrected.

    Where qform and sform differ, ITK may take the one and nibabel the other: then its ``other`` is nibabel's.

    Raises
    ------
    CaseError
        As :func:`nifti_header`, or ``GANTRY_TILT`` if the axes are not orthogonal.
    """
    import SimpleITK as sitk

    header = nifti_header(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        if header.version == 2 or "orthonormal" in str(error):  # ITK reads no NIfTI-2
            return _straightened(header, path)
        reason = str(error).strip().splitlines()[-1]
        raise CaseError(Code.UNREADABLE_FILE, f"the header cannot be read: {reason}", where=str(path)) from error
    direction = np.asarray(reader.GetDirection()).reshape(reader.GetDimension(), -1)[:3, :3]
    _expect_one_spacing(header, reader.GetSpacing()[:3], path)
    grid = Grid(header.size, reader.GetSpacing()[:3], reader.GetOrigin()[:3], tuple(direction.ravel().tolist()))
    other = _by_affine(header)
    apart = np.abs(corners_in(other, grid) - corners_in(grid, grid)).max() if other else 0.0
    return replace(grid, other=other) if apart > SAME_VOXEL else grid


def _expect_one_spacing(header: NiftiHeader, spacing: tuple[float, ...], path: Path) -> None:
    """ITK takes voxel sizes from pixdim, nibabel from the affine."""
    other = np.linalg.norm(header.affine[:3, :3], axis=0)
    if np.isfinite(other).all() and np.abs(other / np.asarray(spacing) - 1).max() > SAME_SPACING:
        raise CaseError(
            Code.IMAGE_INVALID,
            f"pixdim gives voxels of {' x '.join(f'{mm:.4g}' for mm in spacing)} mm, the affine of "
            f"{' x '.join(f'{mm:.4g}' for mm in other)} mm: programs disagree; rewrite the header",
            where=str(path),
        )


def nifti_voxels(path: Path, first: int = 0, stop: int | None = None) -> NumberArray:
    """Voxels of the slices ``first`` to ``stop`` - 1 (all), (slice, row, column), scaled as the header says.

    Integers that are not scaled keep their type, scaled ones become float32, as in ITK. NaN and infinity stay. A
    compressed file is read to its end, and its checksum compared.

    Raises
    ------
    CaseError
        As :func:`nifti_header`, or ``PIXELS_UNREADABLE`` when the file is cut short or damaged, or longer.
    """
    header = nifti_header(path)
    columns, rows, slices = header.size
    last = slices if stop is None else stop
    plane = columns * rows * header.dtype.itemsize
    try:
        with _opened(path) as stream:
            end = header.offset + slices * plane
            _expect_room(path, stream, end)
            data, held = _span(stream, header.offset + first * plane, (last - first) * plane, end)
    except (OSError, *_DAMAGED) as error:
        raise CaseError(
            Code.PIXELS_UNREADABLE, f"the file is cut short or damaged: {error}; copy it again", where=str(path)
        ) from error
    expect_no_more(path, (held or path.stat().st_size) - end, plane)
    stored = np.frombuffer(data, header.dtype).reshape(last - first, rows, columns)
    return _scaled(stored.astype(header.dtype.newbyteorder("="), copy=False), header)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO | gzip.GzipFile]:
    """By content, not by name: ``.nii.gz`` files may be unpacked, and the reverse."""
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
        stream.seek(0)
        yield gzip.GzipFile(fileobj=stream, mode="rb") if packed else stream


def _raw_header(stream: BinaryIO | gzip.GzipFile) -> Any:
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    start = stream.read(_NIFTI_2)
    kinds: tuple[tuple[Any, int], ...] = ((Nifti1Header, _NIFTI_1), (Nifti2Header, _NIFTI_2))
    for kind, size in kinds:
        for order in _ORDERS:
            if len(start) >= size and int.from_bytes(start[:4], order) == size:
                return kind(start[:size], endianness="<" if order == "little" else ">", check=False)
    raise OSError(f"it begins with {start[:4]!r}, and no header of {_NIFTI_1} or {_NIFTI_2} bytes")


def _checked(raw: Any) -> NiftiHeader:
    if not bytes(raw["magic"].item()).startswith(b"n+"):
        raise CaseError(Code.UNREADABLE_FILE, "its header lacks NIfTI's magic: an Analyze file, or a damaged one")
    sizes = [int(size) for size in raw["dim"][1 : 1 + max(int(raw["dim"][0]), 0)]]
    while len(sizes) > 3 and sizes[-1] == 1:
        sizes.pop()
    try:
        dtype = np.dtype(raw.get_data_dtype())
    except Exception as error:  # of several kinds, for an unknown code
        raise CaseError(Code.IMAGE_INVALID, f"voxels of an unknown type: {error}") from error
    if len(sizes) != 3 or min(sizes) < 1 or dtype.kind not in "iuf" or dtype.itemsize > 8:
        kind = "" if dtype.kind in "iuf" else f" of {'colours' if dtype.names else dtype.name}"
        raise CaseError(
            Code.IMAGE_INVALID,
            f"the image has {len(sizes)} dimensions {tuple(sizes)}{kind}, expected 3 and real numbers; split a time "
            f"series into one file each",
        )
    slope, intercept = _scaling(float(raw["scl_slope"]), float(raw["scl_inter"]))
    offset, least = float(raw["vox_offset"]), int(raw["sizeof_hdr"]) + 4
    if offset < least or not offset.is_integer():
        raise CaseError(
            Code.IMAGE_INVALID, f"vox_offset is {offset:g}, expected {least} or more: programs differ there"
        )
    if int(raw["xyzt_units"]) & 7 not in (0, 2):
        unit = {1: "metres", 3: "micrometres"}.get(int(raw["xyzt_units"]) & 7, "an unknown unit")
        raise CaseError(Code.IMAGE_INVALID, f"xyzt_units says {unit}; some programs ignore it: write mm")
    try:
        affine = np.asarray(raw.get_best_affine(), dtype=np.float64)
    except Exception:  # of several kinds, for a quaternion that is not a rotation; ITK's reading of the header counts
        affine = np.full((4, 4), np.nan)
    return NiftiHeader(
        (sizes[0], sizes[1], sizes[2]), dtype, int(offset), slope, intercept, affine, 1 if least < _NIFTI_2 else 2
    )


def _scaling(slope: float, intercept: float) -> tuple[float, float]:
    """Slope and intercept; none if the slope is zero (the standard) or NaN (as nibabel writes)."""
    scaled = np.isfinite(slope) and slope != 0
    if scaled and np.isfinite(intercept):
        return slope, intercept
    if scaled or (np.isfinite(intercept) and intercept != 0):
        raise CaseError(
            Code.IMAGE_INVALID,
            f"scl_slope is {slope:g} and scl_inter {intercept:g}: some programs scale by that, some do not; write the "
            f"file anew",
        )
    return 1.0, 0.0


def _scaled(stored: NumberArray, header: NiftiHeader) -> NumberArray:
    if header.slope == 1 and header.intercept == 0:
        return stored
    kind = stored.dtype if stored.dtype.kind == "f" else np.dtype(np.float32)
    scaled: NumberArray = (stored.astype(np.float64) * header.slope + header.intercept).astype(kind)
    return scaled


def _expect_room(path: Path, stream: BinaryIO | gzip.GzipFile, end: int) -> None:
    """Raise EOFError if the file is smaller than its header says, before memory is allocated."""
    size = path.stat().st_size
    most = size * _MOST_PACKED if isinstance(stream, gzip.GzipFile) else size
    if most < end:
        raise EOFError(f"{size} bytes, expected {'more' if most > size else end}")


def expect_no_more(path: Path, excess: int, limit: int) -> None:
    """Refuse a file with ``limit`` bytes or more after the voxels that its header describes.

    Raises
    ------
    CaseError
        ``PIXELS_UNREADABLE``: size or type in the header are wrong, and every program reads something.
    """
    if excess >= limit:
        raise CaseError(
            Code.PIXELS_UNREADABLE,
            f"its voxels go on for {excess:,} bytes after those that the header describes: the size or the type there "
            f"is wrong; rewrite the file",
            where=str(path),
        )


def _span(stream: BinaryIO | gzip.GzipFile, begin: int, length: int, end: int) -> tuple[bytearray, int]:
    """``length`` bytes from ``begin``, and the length of what a compressed file holds: it is read to its end."""
    wanted = bytearray(length)
    if not isinstance(stream, gzip.GzipFile):
        stream.seek(begin)
        stream.readinto(wanted)  # type: ignore[attr-defined]
        return wanted, 0
    at = 0
    while block := stream.read(_BLOCK):
        low, high = max(begin, at), min(begin + length, at + len(block))
        if low < high:
            wanted[low - begin : high - begin] = block[low - at : high - at]
        at += len(block)
    if at < end:
        raise EOFError(f"{at} bytes after unpacking, expected {end}")
    return wanted, at


def _by_affine(header: NiftiHeader) -> Grid | None:
    """The grid of the affine that nibabel takes; None if it is none."""
    steps = np.diag([-1.0, -1.0, 1.0]) @ header.affine[:3, :3]
    spacing = np.linalg.norm(steps, axis=0)
    if not np.isfinite(header.affine).all() or spacing.min() <= 0:
        return None
    (x, y, z), (dx, dy, dz) = (header.affine[:3, 3] * (-1, -1, 1)).tolist(), spacing.tolist()
    return Grid(header.size, (dx, dy, dz), (x, y, z), tuple((steps / spacing).ravel().tolist()))


def _straightened(header: NiftiHeader, path: Path) -> Grid:
    grid = _by_affine(header)
    if grid is None:
        raise CaseError(Code.IMAGE_INVALID, f"its affine is not a grid: {header.affine[:3].tolist()}", where=str(path))
    try:
        return right_angled(grid)
    except CaseError as error:
        raise CaseError(error.problem.code, error.problem.reason, where=str(path)) from error
