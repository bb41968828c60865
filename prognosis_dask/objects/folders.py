"""Folders in a bucket: several objects that belong together, of which one, the mark, says that all are there.

The mark is written last and removed first. So a folder with its mark is whole, whoever was killed when; and one that
changes while it is fetched is noticed, since every object is asked for by its ETag and the listing is compared.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path

from prognosis_dask.errors import BucketError, CaseError, Code
from prognosis_dask.objects.address import Address
from prognosis_dask.objects.bucket import ObjectStat, bucket_of, several

#: How often a folder that is replaced meanwhile is looked at again, and the seconds between.
_LOOKS, _LOOK_AGAIN_SECONDS = 10, 1.0


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
    if mark:
        bucket.delete((address / mark).key)
    kept = {(address / name).key for name in files}
    for stat in [stat for stat in bucket.list(address.key) if stat.key not in kept]:
        bucket.delete(stat.key)
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
