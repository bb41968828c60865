"""A file, wherever it lies: on this machine or in a bucket, by one text; an object that is read in ranges."""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from prognosis_dask.errors import BucketError, CaseError, Code
from prognosis_dask.objects.address import Address, is_address, parse_address
from prognosis_dask.objects.bucket import ObjectStat, bucket_of, several

#: Memory that looks like a disk, where the system has it.
_MEMORY = Path("/dev/shm")


def read_bytes(path: str, *, expected: ObjectStat | None = None, etag: str = "") -> bytes:
    """The content of a file or an object; of an object exactly the one that is ``expected``, or that has the ETag.

    Raises
    ------
    OSError, CaseError, BucketError
        When it cannot be read.
    """
    if not is_address(path):
        return Path(path).read_bytes()
    address = parse_address(path)
    return bucket_of(address).get(address.key, expected=expected, etag=etag)


def read_all(paths: Sequence[str]) -> Iterator[bytes]:
    """The contents of files, or of objects, several of which are on their way at once; in their order.

    Raises
    ------
    OSError, CaseError, BucketError
        As :func:`read_bytes`.
    """
    return several(read_bytes, paths) if any(map(is_address, paths)) else map(read_bytes, paths)


def files_named(folder: str | Path, name: str) -> list[str]:
    """Every file, or object, of this name that lies in a folder of the folder.

    Raises
    ------
    BucketError
        When the bucket cannot be listed.
    """
    if not is_address(folder):
        return [str(path) for path in Path(folder).glob(f"*/{name}")]
    address = parse_address(str(folder))
    wanted = re.compile(rf"{re.escape(address.key)}/[^/]+/{re.escape(name)}")
    bucket = bucket_of(address)
    return [str(bucket.address(stat.key)) for stat in bucket.list(address.key) if wanted.fullmatch(stat.key)]


def stat_of(path: str) -> ObjectStat | None:
    """What the store says of an object; None where there is none, or none that may be read.

    Raises
    ------
    BucketError
        When the bucket cannot be asked, or does not answer for this object.
    """
    address = parse_address(path)
    try:
        return bucket_of(address).head(address.key)
    except CaseError as error:
        if error.problem.code in (Code.OBJECT_MISSING, Code.OBJECT_FORBIDDEN):
            return None
        raise BucketError.of(error) from error


@contextmanager
def as_local(path: str, etag: str = "") -> Iterator[Path]:
    """A path on this machine, for libraries that read files only.

    It is the file's own, or that of a copy of the object, in memory where possible, that is removed at the end;
    ``etag``: of no other object than this one.

    Raises
    ------
    CaseError, BucketError
        As :func:`read_bytes`.
    """
    if not is_address(path):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        copy = Path(folder) / parse_address(path).name
        copy.write_bytes(read_bytes(path, etag=etag))
        yield copy


#: The header of most images ends before.
_FIRST = 4096
#: A range is at most twice as long as what has been fetched without a gap before it, and as this.
_LARGEST = 1 << 22
#: A span of several that touch is fetched in pieces of this length, at once.
_MOST_AT_ONCE = 1 << 23


class RangeReader(io.RawIOBase):
    """The bytes of one object, by position: what is looked at is fetched, at most once, in ranges that grow.

    Parameters
    ----------
    address, stat
        Where it lies, and what the store said of it; with an ETag, another object in its place is an error.
    start
        Its first bytes, as far as they are known.
    """

    def __init__(self, address: Address, stat: ObjectStat, start: bytes = b"") -> None:
        self._bucket, self._stat = bucket_of(address), stat
        self._at = 0
        self._held: dict[int, bytearray] = {0: bytearray(start)} if start else {}

    @property
    def size(self) -> int:
        """Bytes of the whole object."""
        return self._stat.bytes

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """The position."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move without fetching anything."""
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence])
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """The next ``size`` bytes, or all that follow.

        Raises
        ------
        CaseError, BucketError
            As :meth:`prognosis_dask.objects.bucket.Bucket.get_range`.
        """
        stop = self.size if size is None or size < 0 else min(self._at + size, self.size)
        if stop <= self._at:
            return b""
        start, held = self._window()
        if start + len(held) < stop:
            self._extend(start, held, stop)
        found = bytes(held[self._at - start : stop - start])
        self._at = stop
        return found

    def fetch_all(self) -> None:
        """Fetch in one request what is still lacking."""
        held = self._held.setdefault(0, bytearray())
        if len(held) < self.size:
            self._extend(0, held, self.size)

    def fetch(self, spans: Sequence[tuple[int, int]]) -> None:
        """Fetch spans (first byte, one after the last), several at once; those that touch, in one request.

        Parameters
        ----------
        spans
            In any order; what was fetched before is not looked for.
        """
        joined: list[tuple[int, int]] = []
        for first, stop in sorted(spans):
            if joined and first <= joined[-1][1] and stop - joined[-1][0] <= _MOST_AT_ONCE:
                joined[-1] = joined[-1][0], max(stop, joined[-1][1])
            else:
                joined.append((first, stop))

        def ask(span: tuple[int, int]) -> bytes:
            return self._bucket.get_range(self._stat.key, span[0], span[1] - span[0], expected=self._stat)

        for (first, _), content in zip(joined, several(ask, joined), strict=True):
            self._held[first] = bytearray(content)

    def _window(self) -> tuple[int, bytearray]:
        """What has been fetched around the position, or right before it; else a new beginning."""
        near = [start for start, held in self._held.items() if start <= self._at <= start + len(held)]
        if near:
            return max(near), self._held[max(near)]
        return self._at, self._held.setdefault(self._at, bytearray())

    def _extend(self, start: int, held: bytearray, stop: int) -> None:
        begin = start + len(held)
        length = max(stop - begin, min(2 * len(held), _LARGEST), _FIRST)
        held += self._bucket.get_range(self._stat.key, begin, length, expected=self._stat)
