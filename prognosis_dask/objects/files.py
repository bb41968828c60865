"""Files and folders, wherever they lie: on this machine or in a bucket, by one text."""

from __future__ import annotations

import hashlib
import io
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path

from prognosis_dask.errors import BucketError, CaseError, Code
from prognosis_dask.objects.address import Address, is_address, parse_address
from prognosis_dask.objects.bucket import ObjectStat, begin, bucket_of, several

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


# Folders in a bucket: several objects that belong together, of which one, the mark, says that all are there. It is
# written last and removed first. So a folder with its mark is whole, whoever was killed when; and one that changes
# while it is fetched is noticed, since every object is asked for by its ETag and the listing is compared.

#: How often a folder that is replaced meanwhile is looked at again, and the seconds between.
_LOOKS, _LOOK_AGAIN_SECONDS = 10, 1.0
#: The writes of this task that nobody waits for yet; None: each is waited for at once.
_behind: ContextVar[list[Future[ObjectStat]] | None] = ContextVar("behind", default=None)


@contextmanager
def written_behind(*, on: bool = True) -> Iterator[list[Future[ObjectStat]]]:
    """Inside, :func:`put_case` only begins to write; whoever asked for that waits for what is given here."""
    writes: list[Future[ObjectStat]] = []
    token = _behind.set(writes if on else None)
    try:
        yield writes
    finally:
        _behind.reset(token)


def put_case(files: Mapping[str, Path], address: Address) -> None:
    """Write what a stage keeps of a case, all objects at once and in no order.

    What is there may be half of it until the case's row is in the ledger: only a row says that a case is whole.

    Raises
    ------
    CaseError, BucketError
        As :class:`prognosis_dask.objects.bucket.Bucket`.
    """
    writes = _behind.get()
    if writes is None:
        put_files(files, address)
        return
    bucket = bucket_of(address)
    for name, path in files.items():  # the files are gone when their objects are there
        writes.append(begin(partial(bucket.put, (address / name).key, path.read_bytes())))


def put_files(files: Mapping[str, Path], address: Address, mark: str = "") -> None:
    """Write files as objects under an address, by name, several at once; the ``mark`` among them after all others.

    Raises
    ------
    CaseError, BucketError
        As :class:`prognosis_dask.objects.bucket.Bucket`.
    """
    bucket = bucket_of(address)

    def put(name: str) -> None:
        bucket.put((address / name).key, files[name].read_bytes())

    for _ in several(put, [name for name in files if name != mark]):
        pass
    if mark in files:
        put(mark)


def put_changed(files: Mapping[str, Path], address: Address) -> None:
    """Write those files that are not there yet, by the MD5 that S3 gives objects as their ETag; elsewhere all.

    Raises
    ------
    CaseError, BucketError
        As :class:`prognosis_dask.objects.bucket.Bucket`.
    """
    held = {stat.key: stat.etag.strip('"') for stat in bucket_of(address).list(address.key)}

    def is_there(name: str) -> bool:
        digest = hashlib.md5(files[name].read_bytes(), usedforsecurity=False).hexdigest()
        return held.get((address / name).key) == digest

    put_files({name: path for name, path in files.items() if not is_there(name)}, address)


def files_below(folder: Path) -> dict[str, Path]:
    """Every file below a folder, by its name as seen from there."""
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def replace_folder(folder: Path, address: Address, mark: str = "") -> None:
    """Write a folder in place of what lies under an address; without its ``mark`` from the first change to the last.

    Raises
    ------
    CaseError, BucketError
        As :class:`prognosis_dask.objects.bucket.Bucket`.
    """
    bucket, files = bucket_of(address), files_below(folder)
    held = [stat.key for stat in bucket.list(address.key)]
    if mark and (address / mark).key in held:
        bucket.delete((address / mark).key)
    kept = {(address / name).key for name in files}
    for _ in several(bucket.delete, [key for key in held if key not in kept]):
        pass
    put_files(files, address, mark)


def fetch_folder(address: Address, folder: Path, mark: str = "") -> bool:
    """Copy all objects under an address into a new folder, as they were at one moment; False without the ``mark``.

    Raises
    ------
    CaseError, BucketError
        As :class:`prognosis_dask.objects.bucket.Bucket`; also when the objects are replaced again and again.
    """
    bucket = bucket_of(address)

    def get(stat: ObjectStat) -> tuple[str, bytes]:
        return stat.key[len(address.key) :].lstrip("/"), bucket.get(stat.key, expected=stat)

    for _ in range(_LOOKS):
        listed = list(bucket.list(address.key))
        if not listed or (mark and (address / mark).key not in {stat.key for stat in listed}):
            return False
        try:
            for name, content in several(get, listed):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
        except CaseError as error:
            if error.problem.code not in (Code.OBJECT_CHANGED, Code.OBJECT_MISSING):
                raise
        else:
            if list(bucket.list(address.key)) == listed:
                return True
        for path in files_below(folder).values():
            path.unlink()
        time.sleep(_LOOK_AGAIN_SECONDS)
    raise BucketError(f"{address} is being replaced again and again; wait until the run that writes it has ended")
