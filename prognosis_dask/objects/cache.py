"""Objects kept on this machine's disk, for those who read the same ones again: only where it is asked for.

An entry is a file whose name says which bytes of which object it holds: address, ETag, range. One whose length is not
the expected one is no entry. Several processes may share the folder: entries are written aside and renamed, each read
makes one the newest, and the oldest are removed where all together are larger than the limit.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from prognosis_dask.objects.address import Address

#: After writing this part of the limit, a process looks at the size of the folder.
_PART = 0.02
_SUFFIX = ".object"


@dataclass
class ObjectCache:
    """The entries in one folder, of ``limit`` bytes; what each process writes between two looks comes on top."""

    folder: Path
    limit: int
    _unseen: float = field(default=float("inf"))

    def get(self, address: Address, etag: str, span: tuple[int, int]) -> bytes | None:
        """The bytes from the first to the one before the last of a span; None where there is no such entry."""
        path = self._path(address, etag, span)
        with suppress(OSError):
            content = path.read_bytes()
            if len(content) == span[1] - span[0]:
                os.utime(path)
                return content
        return None

    def put(self, address: Address, etag: str, span: tuple[int, int], content: bytes) -> None:
        """Keep the bytes of a span. A disk that is full or read only is no error: they are read from the bucket."""
        if len(content) > self.limit:
            return
        path = self._path(address, etag, span)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_bytes(content)
            aside.replace(path)
        except OSError:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
            return
        self._unseen += len(content)
        if self._unseen > _PART * self.limit:
            self._unseen = 0
            self._shrink()

    def _path(self, address: Address, etag: str, span: tuple[int, int]) -> Path:
        name = hashlib.sha256(f"{address} {etag} {span}".encode()).hexdigest()
        return self.folder / name[:2] / f"{name[2:40]}{_SUFFIX}"

    def _shrink(self) -> None:
        """Remove the entries that were not read for longest, until the rest is within the limit."""
        found: list[tuple[float, int, Path]] = []
        for path in self.folder.glob(f"*/*{_SUFFIX}"):
            with suppress(OSError):
                state = path.stat()
                found.append((state.st_mtime, state.st_size, path))
        held = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if held <= self.limit:
                return
            path.unlink(missing_ok=True)
            held -= size


_used: list[ObjectCache] = []


def use_cache(folder: str, gigabytes: float) -> None:
    """Keep in this process what is read of objects in a folder; an empty one: nowhere."""
    wanted = [ObjectCache(Path(folder), int(gigabytes * 1e9))] if folder else []
    if [(cache.folder, cache.limit) for cache in _used] != [(cache.folder, cache.limit) for cache in wanted]:
        _used[:] = wanted


def used_cache() -> ObjectCache | None:
    """The cache of this process."""
    return _used[0] if _used else None
