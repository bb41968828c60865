"""A small S3 server in memory, whose processor time is little beside that of the client: for benchmarks.

    python -m benchmarks.bucket_server --latency 0.03 --fill images=/data/lung1_002 --fill results=

It knows what the product asks: whole objects and ranges of them, heads, listings, writes and deletions, with the
conditions on ETags. Files are sent by the kernel from where they lie; nothing is checked that concerns signatures.
``tests/test_objects.py`` compares its answers with those of moto, which takes 4 ms of processor time for each.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import socket
import socketserver
import threading
import time
from dataclasses import dataclass, field
from email.utils import formatdate
from itertools import islice
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape, unescape

#: Keys of one answer to a listing.
_PAGE = 1000


@dataclass(frozen=True)
class _Object:
    """One object: its bytes, or the descriptor of the file that holds them."""

    size: int
    etag: str
    modified: float
    content: bytes = b""
    file: int = -1


@dataclass
class _Held:
    """What the server holds, by bucket and key."""

    latency: float = 0.0
    buckets: dict[str, dict[str, _Object]] = field(default_factory=dict)
    writing: threading.Lock = field(default_factory=threading.Lock)

    def fill(self, bucket: str, folder: Path) -> None:
        """Enter every file under a folder by its relative path; they stay open, and must not change."""
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
            held = _Object(path.stat().st_size, digest, time.time(), file=os.open(path, os.O_RDONLY))
            self.buckets[bucket][path.relative_to(folder).as_posix()] = held


class _Connection(socketserver.StreamRequestHandler):
    held: ClassVar[_Held]
    disable_nagle_algorithm = True

    def handle(self) -> None:
        """Answer requests until the client hangs up."""
        while line := self.rfile.readline():
            self.method, target, _ = line.decode().split(" ")
            headers: dict[str, str] = {}
            while (line := self.rfile.readline()) not in (b"\r\n", b""):
                name, _, value = line.decode().partition(":")
                headers[name.lower()] = value.strip()
            body = self.rfile.read(int(headers.get("content-length", 0)))
            time.sleep(self.held.latency)
            parts = urlsplit(target)
            _, bucket, key = f"{unquote(parts.path)}/".split("/", 2)
            objects = self.held.buckets.get(bucket)
            if objects is None:
                self._say("404 Not Found", _error("NoSuchBucket"))
            elif "list-type" in parts.query:
                self._say("200 OK", _listing(objects, parse_qs(parts.query)))
            elif self.method in ("GET", "HEAD"):
                self._get(objects.get(key[:-1]), headers)
            else:
                self._write(objects, key[:-1], body, headers)

    def _say(self, status: str, body: bytes = b"", *headers: str) -> None:
        lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}"]
        if self.method == "HEAD":  # whose answers have no body, or the next one would seem to begin with it
            body = b""
        self.wfile.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def _get(self, found: _Object | None, headers: dict[str, str]) -> None:
        if found is None:
            self._say("404 Not Found", _error("NoSuchKey"))
            return
        if headers.get("if-match", found.etag).strip('"') != found.etag:
            self._say("412 Precondition Failed", _error("PreconditionFailed"))
            return
        first, stop, status, span = 0, found.size, "200 OK", ""
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", ""))
        if asked:
            first, stop = int(asked[1]), min(int(asked[2] or found.size) + 1, found.size)
            status, span = "206 Partial Content", f"Content-Range: bytes {first}-{stop - 1}/{found.size}\r\n"
        if asked and first >= found.size:
            self._say("416 Range Not Satisfiable", _error("InvalidRange"))
            return
        head = (
            f'HTTP/1.1 {status}\r\nETag: "{found.etag}"\r\nLast-Modified: {formatdate(found.modified, usegmt=True)}'
            f"\r\n{span}Content-Length: {stop - first}\r\n\r\n"
        )
        self.connection.sendall(head.encode(), 0 if self.method == "HEAD" else socket.MSG_MORE)
        if self.method == "HEAD":
            return
        if found.file < 0:
            self.wfile.write(memoryview(found.content)[first:stop])
        while found.file >= 0 and first < stop:
            first += os.sendfile(self.connection.fileno(), found.file, first, stop - first)

    def _write(self, objects: dict[str, _Object], key: str, body: bytes, headers: dict[str, str]) -> None:
        if self.method == "POST":  # several deletions
            names = re.findall(r"<Key>(.*?)</Key>", body.decode())
            for name in names:
                objects.pop(unescape(name), None)
            deleted = "".join(f"<Deleted><Key>{name}</Key></Deleted>" for name in names)
            self._say("200 OK", f"<DeleteResult>{deleted}</DeleteResult>".encode())
            return
        with self.held.writing:
            there = objects.get(key)
            known = headers.get("if-match", "").strip('"')
            if (there and headers.get("if-none-match") == "*") or (known and known != (there.etag if there else "")):
                self._say("412 Precondition Failed", _error("PreconditionFailed"))
                return
            if self.method == "DELETE":
                objects.pop(key, None)
                self._say("204 No Content")
                return
            etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
            objects[key] = _Object(len(body), etag, time.time(), body)
        self._say("200 OK", b"", f'ETag: "{etag}"')


def _listing(objects: dict[str, _Object], asked: dict[str, list[str]]) -> bytes:
    """The objects whose keys begin so, and come after the one that is named: a page of them."""
    prefix = asked.get("prefix", [""])[0]
    after = asked.get("continuation-token", asked.get("start-after", [""]))[0]
    keys = sorted(key for key in list(objects) if key.startswith(prefix) and key > after)
    page = list(islice(keys, _PAGE))
    entries = "".join(_entry(key, objects[key]) for key in page if key in objects)
    more = len(keys) > len(page)
    token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>'
        f"{token}{entries}</ListBucketResult>"
    ).encode()


def _entry(key: str, one: _Object) -> str:
    modified = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(one.modified))
    return (
        f"<Contents><Key>{escape(key)}</Key><LastModified>{modified}</LastModified>"
        f'<ETag>"{one.etag}"</ETag><Size>{one.size}</Size></Contents>'
    )


def _error(code: str) -> bytes:
    return f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>no</Message></Error>'.encode()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that is gone is no fault of the server's."""


def main() -> None:
    """Serve until the process is ended; the first line names the address."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--fill", action="append", default=[], metavar="BUCKET=FOLDER")
    arguments = parser.parse_args()
    held = _Held(arguments.latency)
    for bucket, _, folder in (text.partition("=") for text in arguments.fill):
        held.buckets[bucket] = {}
        if folder:
            held.fill(bucket, Path(folder))
    _Connection.held = held
    with _Server(("127.0.0.1", 0), _Connection) as server:
        print(f"AWS_ENDPOINT_URL=http://127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
