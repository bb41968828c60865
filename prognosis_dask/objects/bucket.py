"""A bucket: whole objects and parts of them, listings, and writes that may depend on what is there.

>>> from prognosis_dask.objects.address import parse_address
>>> bucket = bucket_of(parse_address("s3://bucket/run"))  # nothing is asked of the store yet
>>> bucket
Bucket(scheme='s3', name='bucket')

A bucket is a name and travels between processes as one: each process opens a store of its own, with the credentials
that it finds around itself (:mod:`prognosis_dask.objects.signing`).
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from prognosis_dask.errors import BucketError, CaseError, Code, PrognosisError
from prognosis_dask.objects.address import Address
from prognosis_dask.objects.cache import used_cache
from prognosis_dask.objects.faults import fault_of
from prognosis_dask.objects.signing import connect

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_Result = TypeVar("_Result")

#: How often a body is asked for again that came cut or too short; between two tries ``PAUSE`` seconds and more.
TRIES = 5
PAUSE = 0.1
#: What obstore says of a listing whose body ended too soon; it does not ask again by itself.
_CUT_LISTING = "list response body"
#: By process the stores that it has opened; a forked one opens its own.
_STORES: dict[tuple[int, str, str], ObjectStore] = {}


class WriteConflictError(BucketError):
    """An object is there that should not be, or is no longer the one that was to be replaced."""


@dataclass(frozen=True, slots=True)
class ObjectStat:
    """What a store says of an object: its key in the bucket, bytes, ETag, when it was written, Google's generation."""

    key: str
    bytes: int
    etag: str = ""
    modified: datetime | None = None
    version: str = ""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket by its name. Every method takes keys, and may be called from several threads.

    All raise :class:`CaseError` for one object (``OBJECT_MISSING``, ``OBJECT_FORBIDDEN``, ``OBJECT_CHANGED``) and
    :class:`BucketError` for the bucket, the credentials or the network; requests were repeated before that, as far as
    that may help.
    """

    scheme: str
    name: str

    @property
    def store(self) -> ObjectStore:
        """The store of obstore in this process, as zarr takes it (``zarr.storage.ObjectStore(bucket.store)``)."""
        place = os.getpid(), self.scheme, self.name
        if place not in _STORES:
            _STORES[place] = connect(Address(self.scheme, self.name))
        return _STORES[place]

    def address(self, key: str) -> Address:
        """Where an object of this bucket lies."""
        return Address(self.scheme, self.name, key)

    def head(self, key: str) -> ObjectStat:
        """What the store says of an object, without its bytes."""
        import obstore

        return _stat(self._asked(key, lambda: obstore.head(self.store, key)))

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        try:
            self.head(key)
        except CaseError as error:
            if error.problem.code is Code.OBJECT_MISSING:
                return False
            raise
        return True

    def get(self, key: str, *, expected: ObjectStat | None = None) -> bytes:
        """The bytes of an object; of exactly the one that is ``expected``, by ETag and size."""
        span = (0, expected.bytes) if expected is not None else None
        return self._kept(key, span, expected, lambda: self._body(key, {}, expected)[0])

    def get_with_stat(self, key: str) -> tuple[bytes, ObjectStat]:
        """The bytes of an object, and what the store says of just these."""
        return self._body(key, {}, None)

    def get_range(self, key: str, start: int, length: int, *, expected: ObjectStat | None = None) -> bytes:
        """``length`` bytes from ``start`` on; fewer where the object ends before."""
        if expected is not None:
            length = min(length, expected.bytes - start)
        if length <= 0:
            return b""
        span = start, start + length
        return self._kept(key, span, expected, lambda: self._body(key, {"range": span}, expected)[0])

    def list(self, prefix: str = "") -> Iterator[ObjectStat]:
        """All objects whose keys begin with ``prefix`` and a slash, in the order of the store."""
        last, cuts = "", 0
        stream = self._listing(prefix, last)
        while True:
            try:
                chunk = self._asked(prefix, partial(next, stream, None))
            except BucketError as error:
                cuts += 1
                if cuts == TRIES or _CUT_LISTING not in str(error.__cause__):
                    raise
                _pause(cuts - 1)
                stream = self._listing(prefix, last)
                continue
            if chunk is None:
                return
            last = chunk[-1]["path"] if chunk else last
            yield from map(_stat, chunk)

    def _listing(self, prefix: str, after: str) -> Iterator[Any]:
        import obstore

        return iter(obstore.list(self.store, prefix=prefix or None, offset=after or None, chunk_size=1000))

    def put(self, key: str, data: bytes) -> ObjectStat:
        """Write an object as a whole, in place of what is there."""
        return self._put(key, data, "overwrite")

    def put_new(self, key: str, data: bytes) -> ObjectStat:
        """Write an object where there is none; else :class:`WriteConflictError`. Of two writers at once one wins."""
        return self._put(key, data, "create")

    def put_over(self, key: str, data: bytes, known: ObjectStat) -> ObjectStat:
        """Write an object in place of the one that is ``known``; else :class:`WriteConflictError`."""
        version = {"version": known.version} if known.version else {}
        return self._put(key, data, {"e_tag": known.etag, **version})

    def delete(self, key: str) -> None:
        """Remove an object; nothing where there is none."""
        import obstore

        try:
            self._asked(key, lambda: obstore.delete(self.store, key))
        except CaseError as error:
            if error.problem.code is not Code.OBJECT_MISSING:
                raise

    def _kept(
        self, key: str, span: tuple[int, int] | None, expected: ObjectStat | None, read: Callable[[], bytes]
    ) -> bytes:
        """What is read, from the cache where one is used and the object is known by its ETag."""
        cache = used_cache()
        if cache is None or span is None or expected is None or not expected.etag:
            return read()
        address = self.address(key)
        found = cache.get(address, expected.etag, span)
        if found is None:
            found = read()
            cache.put(address, expected.etag, span, found)
        return found

    def _put(self, key: str, data: bytes, mode: Any) -> ObjectStat:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        def write() -> ObjectStat:
            # a condition holds for one request only; in several parts a write would be without it
            parts = None if mode == "overwrite" else False
            try:
                result = obstore.put(self.store, key, data, mode=mode, use_multipart=parts)
            except (AlreadyExistsError, PreconditionError) as error:
                held, stat = self.get_with_stat(key)
                if held == data:  # a first try that came through, of which the answer was lost
                    return stat
                raise WriteConflictError(f"{self.address(key)} was written by another process meanwhile") from error
            return ObjectStat(key, len(data), result["e_tag"] or "", version=result.get("version") or "")

        return self._asked(key, write)

    def _body(self, key: str, options: dict[str, Any], expected: ObjectStat | None) -> tuple[bytes, ObjectStat]:
        """A body with as many bytes as were announced, of the object that is expected; asked for again if it is cut."""
        if expected is not None and expected.etag:
            options = {**options, "if_match": expected.etag}
        for attempt in range(TRIES):
            try:
                return self._asked(key, lambda: self._once(key, options, expected))
            except _CutError as error:
                if attempt == TRIES - 1:
                    raise BucketError(
                        f"{self.address(key)}: {error}, {TRIES} times; run the same command again"
                    ) from error
                _pause(attempt)
        raise AssertionError("a last try ends otherwise")

    def _once(self, key: str, options: dict[str, Any], expected: ObjectStat | None) -> tuple[bytes, ObjectStat]:
        import obstore

        answer = obstore.get(self.store, key, options=options)  # type: ignore[arg-type]
        stat = _stat(answer.meta)
        if expected is not None and stat.bytes != expected.bytes:
            if expected.etag and stat.etag == expected.etag:
                raise _CutError(f"{stat.bytes:,} bytes came, the listing has {expected.bytes:,}")
            reason = f"the object has {stat.bytes:,} bytes, expected {expected.bytes:,}; index the cohort again"
            raise CaseError(Code.OBJECT_CHANGED, reason, where=str(self.address(key)))
        start, stop = answer.range
        try:
            body = bytes(answer.bytes())
        except Exception as error:
            raise _CutError(f"the connection broke within its {stop - start:,} bytes") from error
        if len(body) != stop - start:
            raise _CutError(f"{len(body):,} bytes came, {stop - start:,} were announced")
        return body, stat

    def _asked(self, key: str, ask: Callable[[], _Result]) -> _Result:
        """The answer, or an error in the product's words."""
        try:
            return ask()
        except (PrognosisError, _CutError):
            raise
        except Exception as error:  # obstore's exceptions have no common base but its own and a few of Python's
            raise fault_of(error, self.address(key)) from error


def _pause(attempt: int) -> None:
    time.sleep(PAUSE * 2**attempt * random.uniform(0.5, 1.5))


class _CutError(Exception):
    """A body that ended before its announced length."""


def bucket_of(address: Address) -> Bucket:
    """The bucket that an address lies in."""
    return Bucket(address.scheme, address.bucket)


def _stat(meta: Any) -> ObjectStat:
    version = meta.get("version") or ""
    return ObjectStat(meta["path"], int(meta["size"]), meta.get("e_tag") or "", meta.get("last_modified"), version)
