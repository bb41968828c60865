"""A file, wherever it lies: on this machine or in a bucket, by one text."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from prognosis_dask.errors import BucketError, CaseError, Code
from prognosis_dask.objects.address import is_address, parse_address
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
