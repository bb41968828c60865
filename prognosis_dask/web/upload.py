"""Receive and unpack an upload, within limits: each file straight to disk, and judged by its content.

Files get names of our own; what an upload calls them is never trusted.
"""

from __future__ import annotations

import gzip
import math
import shutil
import struct
import zipfile
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, BinaryIO, Final
from urllib.parse import parse_qsl

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from prognosis_dask.cohort.dicom_header import is_dicom
from prognosis_dask.cohort.sequence_names import sequence_of
from prognosis_dask.errors import count
from prognosis_dask.prediction.resolve import free_name, mask_name
from prognosis_dask.web.settings import Limits, RefusedError

#: Bytes of a refused upload that are still read.
_DRAIN_BYTES = 300_000_000
_FORM_BYTES = 10_000
_FIELD_BYTES = 1_000
_FIELDS = 200
_HEADER_BYTES = 4_000


@dataclass(frozen=True)
class ReceivedFile:
    """One file of an upload; of its own name only the MR sequence is kept that it says, since names name patients."""

    path: Path
    field: str
    sequence: str


@dataclass
class _Part:
    name: str = ""
    sequence: str = ""
    stream: BinaryIO | None = None
    text: bytearray = field(default_factory=bytearray)


class _Receiver:
    """The callbacks of the parser, which calls them in order for each part."""

    def __init__(self, folder: Path, limits: Limits, check: Callable[[dict[str, str]], None]) -> None:
        self._folder, self._limits, self._check = folder, limits, check
        self.fields: dict[str, str] = {}
        self.files: list[ReceivedFile] = []
        self.bytes = 0
        self._part = _Part()
        self._header = (bytearray(), bytearray())
        self._disposition = b""

    def callbacks(self) -> dict[str, Callable[..., None]]:
        return {
            name: getattr(self, name)
            for name in (
                "on_part_begin",
                "on_part_data",
                "on_part_end",
                "on_header_field",
                "on_header_value",
                "on_header_end",
                "on_headers_finished",
            )
        }

    def on_part_begin(self) -> None:
        self._part, self._disposition = _Part(), b""

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._add_header(0, data[start:end])

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._add_header(1, data[start:end])

    def _add_header(self, at: int, data: bytes) -> None:
        self._header[at].extend(data)
        if len(self._header[at]) > _HEADER_BYTES:
            raise RefusedError("The upload's form is not one of this page's.")

    def on_header_end(self) -> None:
        if self._header[0].lower() == b"content-disposition":
            self._disposition = bytes(self._header[1])
        self._header = (bytearray(), bytearray())

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._part.name = options.get(b"name", b"").decode("utf-8", "replace")
        if b"filename" not in options:
            return
        self._check(self.fields)  # the fields come first; nothing is written for whoever has no right to it
        if not options[b"filename"]:  # a file that was not chosen
            return
        if len(self.files) >= self._limits.files:
            raise RefusedError(f"More than {self._limits.files} files; send one series, or a zip of it.", 413)
        self._part.sequence = sequence_of(options[b"filename"].decode("utf-8", "replace"))
        path = self._folder / f"{len(self.files):05d}"
        self._part.stream = path.open("xb")
        self.files.append(ReceivedFile(path, self._part.name, self._part.sequence))

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._part.stream is not None:
            self._part.stream.write(data[start:end])
            return
        self._part.text.extend(data[start:end])
        if len(self._part.text) > _FIELD_BYTES:
            raise RefusedError("A field of the form is longer than it can be.")

    def on_part_end(self) -> None:
        if self._part.stream is not None:
            self._part.stream.close()
        elif len(self.fields) < _FIELDS:
            self.fields[self._part.name] = self._part.text.decode("utf-8", "replace").strip()
        else:
            raise RefusedError("The upload's form is not one of this page's.")

    def close(self) -> None:
        if self._part.stream is not None:
            self._part.stream.close()


async def receive(
    content_type: str,
    stream: AsyncIterator[bytes],
    folder: Path,
    limits: Limits,
    check: Callable[[dict[str, str]], None],
) -> tuple[dict[str, str], list[ReceivedFile]]:
    """Read a form of ``multipart/form-data`` whose files are written into the folder as they come.

    Parameters
    ----------
    content_type, stream
        The request's.
    folder
        Where files are written, named 00000, 00001, ... whatever the sender calls them.
    limits
        Bytes and files; the request is cut off as soon as it goes beyond.
    check
        Called with the fields before the first file: raises RefusedError for a sender without the right to send.

    Raises
    ------
    RefusedError
        When it is no such form, breaks off, or goes beyond the limits.
    """
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise RefusedError("Files are sent with the page's own form.", 415)
    receiver = _Receiver(folder, limits, check)
    try:
        parser = MultipartParser(options[b"boundary"], receiver.callbacks())  # type: ignore[arg-type]
        async for chunk in stream:
            receiver.bytes += len(chunk)
            if receiver.bytes > limits.upload_bytes:
                raise RefusedError(
                    f"The upload is larger than {limits.upload_bytes / 1e6:,.0f} MB; send the one series only.", 413
                )
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise RefusedError("The upload broke off, or is no form of this page's; send it again.") from error
    finally:
        receiver.close()
    check(receiver.fields)
    if not receiver.files:
        raise RefusedError("No file was chosen.")
    return receiver.fields, receiver.files


async def small_form(stream: AsyncIterator[bytes]) -> dict[str, str]:
    """The fields of a form without files.

    Raises
    ------
    RefusedError
        When it is longer than a form of ours, or no form.
    """
    body = b""
    async for chunk in stream:
        body += chunk
        if len(body) > _FORM_BYTES:
            raise RefusedError("The form is longer than it can be.", 413)
    try:
        return dict(parse_qsl(body.decode("ascii"), max_num_fields=20))
    except ValueError as error:
        raise RefusedError("The form cannot be read.") from error


async def drain(stream: AsyncIterator[bytes]) -> None:
    """Read on what a refused sender sends, so that his browser shows the answer and not a broken connection."""
    left = _DRAIN_BYTES
    with suppress(ClientDisconnect, RuntimeError):
        async for chunk in stream:
            left -= len(chunk)
            if left < 0:
                return


#: The form's field of a mask.
MASK: Final = "mask"
_BLOCK: Final = 1 << 20
_HEAD: Final = 600
#: Members below this size may grow by any factor: a text of zeros is no bomb.
_SMALL: Final = 10_000_000
_NOT_ENOUGH: Final = "The server has no room left for this upload; try again later."


@dataclass(frozen=True)
class Unpacked:
    """The images of an upload, in one folder; ``mask`` is the name of the label map that came as a mask, if any."""

    files: int
    ignored: int
    mask: str


def unpack(received: Sequence[ReceivedFile], folder: Path, limits: Limits) -> Unpacked:
    """Bring what can be an image or a mask into the folder, under names of our own; what was received stays.

    DICOM, NIfTI in one file and NRRD in one file are images. Archives in archives are not opened, and formats whose
    headers point to other files are refused, since those could be any file of the server's.

    Raises
    ------
    RefusedError
        When an archive is damaged, encrypted, holds links, too many files or too much; when an image is larger than
        the limits; or when nothing is left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept, ignored = 0, 0
    mask = ""
    budget = _Budget(limits)
    for path, is_mask, sequence in _all(received, folder, budget):
        suffix = _suffix(path, limits)
        if suffix is None:
            ignored += 1
            path.unlink()
            continue
        kept += 1
        if suffix == ".dcm":
            path.rename(folder / f"{kept:05d}.dcm")
        elif is_mask:
            if mask:
                raise RefusedError("More than one label map came as the mask; send one.")
            mask = path.rename(folder / f"{mask_name(sequence)}{suffix}").name
        else:
            path.rename(free_name(folder, sequence or "image", suffix))
    if not kept:
        raise RefusedError(
            f"No image in {count(ignored, 'file')}: expected DICOM, NIfTI (.nii, .nii.gz) or NRRD (.nrrd), or a "
            "zip of them."
        )
    return Unpacked(kept, ignored, mask)


class _Budget:
    """Files and bytes that may still be unpacked."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._files, self._bytes = limits.files, limits.unpacked_bytes

    def take_file(self) -> None:
        self._files -= 1
        if self._files < 0:
            raise RefusedError(f"The upload holds more than {self.limits.files} files; send the one series only.")

    def take_bytes(self, count: int) -> None:
        self._bytes -= count
        if self._bytes < 0:
            raise RefusedError(
                f"Unpacked, the archive is larger than {self.limits.unpacked_bytes / 1e6:,.0f} MB; send the one "
                "series only."
            )


def _all(received: Sequence[ReceivedFile], folder: Path, budget: _Budget) -> Iterator[tuple[Path, bool, str]]:
    """A copy of every file, those in archives too; whether it came as a mask; the MR sequence that its name says."""
    for file in received:
        with file.path.open("rb") as stream:
            is_archive = stream.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
        if not is_archive:
            budget.take_file()
            path = folder / f"{file.path.name}-0"
            path.hardlink_to(file.path)
            yield path, file.field == MASK, file.sequence
            continue
        for path, sequence in _members(file.path, folder, budget):
            yield path, file.field == MASK, sequence


def _members(archive: Path, folder: Path, budget: _Budget) -> Iterator[tuple[Path, str]]:
    try:
        with zipfile.ZipFile(archive) as content:
            members = [member for member in content.infolist() if not member.is_dir()]
            for number, member in enumerate(members):
                budget.take_file()
                if member.flag_bits & 1:
                    raise RefusedError("The archive is encrypted; send it without a password.")
                if (member.external_attr >> 16) & 0o170000 == 0o120000:
                    raise RefusedError("The archive holds links to other files; send the files themselves.")
                # the member's own name is looked at for the MR sequence, and nothing is ever written by it
                path = folder / f"{archive.name}-{number:05d}"
                with content.open(member) as source, path.open("xb") as target:
                    _copy(source, target, member.compress_size, budget)
                yield path, sequence_of(Path(member.filename.replace("\\", "/")).name)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise RefusedError("The archive is damaged, or of a kind that cannot be opened; create it again.") from error


def _copy(source: IO[bytes], target: IO[bytes], packed: int, budget: _Budget) -> None:
    written = 0
    while block := source.read(_BLOCK):
        written += len(block)
        budget.take_bytes(len(block))
        if written > max(_SMALL, budget.limits.ratio * packed):
            raise RefusedError("The archive holds a file that unpacks to many times its size: no image does that.")
        if shutil.disk_usage(Path(target.name).parent).free < 10 * _BLOCK:
            raise RefusedError(_NOT_ENOUGH)
        target.write(block)


def _suffix(path: Path, limits: Limits) -> str | None:
    """The file's kind by its content, as the ending that readers know it by; None for what is no image."""
    with path.open("rb") as stream:
        head = stream.read(_HEAD)
    if is_dicom(head):
        return ".dcm"
    if head[:4] == b"NRRD":
        _check_nrrd(path, limits)
        return ".nrrd"
    suffix = ".nii"
    if head[:2] == b"\x1f\x8b":
        suffix = ".nii.gz"
        try:
            with gzip.open(path) as stream:
                head = stream.read(_HEAD)
        except (OSError, EOFError, zlib.error):
            raise RefusedError("A compressed file is damaged; send it again.") from None
    return suffix if _is_nifti(head, limits) else None


def _is_nifti(head: bytes, limits: Limits) -> bool:
    """Whether it is NIfTI in one file, version 1 or 2 (nifti.nimh.nih.gov).

    Raises
    ------
    RefusedError
        When the header says that the image is larger than the limits.
    """
    for order in "<>":
        if len(head) >= 352 and struct.unpack_from(f"{order}i", head)[0] == 348 and head[344:347] == b"n+1":
            _check_voxels(struct.unpack_from(f"{order}8h", head, 40)[1:], limits)
            return True
        if len(head) >= 540 and struct.unpack_from(f"{order}i", head)[0] == 540 and head[4:7] == b"n+2":
            _check_voxels(struct.unpack_from(f"{order}8q", head, 16)[1:], limits)
            return True
    return False


def _check_nrrd(path: Path, limits: Limits) -> None:
    with path.open("rb") as stream:
        header = stream.read(16_384).split(b"\n\n")[0].replace(b"\r", b"")
    fields = dict(line.split(b":", 1) for line in header.split(b"\n") if b":" in line and not line.startswith(b"#"))
    names = {name.strip().lower().replace(b" ", b""): value for name, value in fields.items()}
    if b"datafile" in names:
        raise RefusedError("The NRRD file is a header that points to another file; save it as one .nrrd file.")
    try:
        _check_voxels([int(size) for size in names.get(b"sizes", b"").split()], limits)
    except ValueError:
        raise RefusedError("The NRRD file's header cannot be read; save it again.") from None


def _check_voxels(sizes: Sequence[int], limits: Limits) -> None:
    if math.prod(max(1, size) for size in sizes) > limits.voxels:
        shape = " x ".join(str(size) for size in sizes if size > 1)
        raise RefusedError(f"The image has {shape} voxels; up to {limits.voxels:,} in all can be taken.")
