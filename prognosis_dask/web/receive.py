"""Take an upload off the network: each file straight to disk, under a name of our own, within the limits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO
from urllib.parse import parse_qsl

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from prognosis_dask.cohort.names import sequence_of
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
