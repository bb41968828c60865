"""Folders in a bucket: several objects that belong together, of which one, the mark, says that all are there.

The mark is written last and removed first. So a folder with its mark is whole, whoever was killed when; and one that
changes while it is fetched is noticed, since every object is asked for by its ETag and the listing is compared.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path

from prognosis_dask.errors import BucketError, CaseError, Code
from prognosis_dask.objects.address import Address
from prognosis_dask.objects.bucket import ObjectStat, begin, bucket_of, several

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
