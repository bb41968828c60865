"""A bucket: whole objects and parts of them, listings, and writes that may depend on what is there.

>>> from prognosis_dask.objects.address import parse_address
>>> bucket = bucket_of(parse_address("s3://bucket/run"))  # nothing is asked of the store yet
>>> bucket
Bucket(scheme='s3', name='bucket')

A bucket is a name and travels between processes as one: each process opens a store of its own, with the credentials
that it finds around itself (:mod:`prognosis_dask.objects.address`).
"""

from __future__ import annotations

import os
import random
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from prognosis_dask.errors import BucketError, CaseError, Code, PrognosisError
from prognosis_dask.objects.address import Address, connect, endpoint
from prognosis_dask.objects.cache import used_cache

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_Result = TypeVar("_Result")

#: How often a body is asked for again that came cut or too short; between two tries ``PAUSE`` seconds and more.
TRIES = 5
PAUSE = 0.1
#: Bytes that are written in one request; S3 takes no more than five times as many.
LARGEST_PUT = 1 << 30
#: What obstore says of a listing whose body ended too soon; it does not ask again by itself.
_CUT_LISTING = "list response body"
#: What a store says that is overloaded, or out of order; obstore has repeated the request by then.
_OVERLOAD = re.compile(r"<Code>(SlowDown|ServiceUnavailable|InternalError|RequestTimeout)<")
#: What no key begins with.
_NOTHING = "prognosis-dask-asks-whether-you-answer"
#: By process the stores that it has opened; a forked one opens its own.
_STORES: dict[tuple[int, str, str], ObjectStore] = {}


class WriteConflictError(BucketError):
    """An object is there that should not be, or is no longer the one that was to be replaced."""


class _ExpiredError(BucketError):
    """Credentials that were good once."""


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

    All raise :class:`CaseError` for one object (``OBJECT_MISSING``, ``OBJECT_FORBIDDEN``, ``OBJECT_CHANGED``;
    ``OBJECT_UNREADABLE`` where it alone is not given, or not whole) and :class:`BucketError` for the bucket, the
    credentials or the network; requests were repeated before that, as far as that may help.
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

        try:
            return _stat(self._asked(key, lambda: obstore.head(self.store, key)))
        except PrognosisError as error:
            if isinstance(error, CaseError) and error.problem.code is Code.OBJECT_MISSING:
                raise
            self._asked(key, lambda: obstore.get(self.store, key))  # why, a store says in a body alone
            raise

    def find(self, key: str) -> ObjectStat | None:
        """What the store says of an object; None where there is none."""
        try:
            return self.head(key)
        except CaseError as error:
            if error.problem.code is Code.OBJECT_MISSING:
                return None
            raise

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        return self.find(key) is not None

    def get(self, key: str, *, expected: ObjectStat | None = None, etag: str = "") -> bytes:
        """The bytes of an object; of exactly the one that is ``expected``, by ETag and size, or by its ETag alone."""
        span = (0, expected.bytes) if expected is not None else None
        options = {"if_match": etag} if etag else {}
        return self._kept(key, span, expected, lambda: self._body(key, options, expected)[0])

    def get_with_stat(self, key: str) -> tuple[bytes, ObjectStat]:
        """The bytes of an object, and what the store says of just these."""
        return self._body(key, {}, None)

    def get_first(self, key: str, length: int, *, etag: str = "") -> tuple[bytes, ObjectStat]:
        """The first bytes of an object, and what the store says of it; ``etag``: of no other object than this one."""
        options = {"range": (0, length), **({"if_match": etag} if etag else {})}
        try:
            return self._body(key, options, None)
        except BucketError:
            stat = self.head(key)
            if stat.bytes:
                raise
            return b"", stat  # of an object without bytes no range can be had

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
                chunk = self._asked(prefix, partial(next, stream, None), one=False)
            except BucketError as error:
                cuts += 1
                expired = isinstance(error, _ExpiredError) and cuts == 1  # perhaps renewed meanwhile
                if not expired and (cuts == TRIES or _CUT_LISTING not in str(error.__cause__)):
                    raise
                _pause(cuts - 1)
                stream = self._listing(prefix, last)
                continue
            if chunk is None:
                return
            last, cuts = chunk[-1]["path"] if chunk else last, 0
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
            # one request may be repeated; of a write in several parts the last one may not, once its answer is lost, a
            # condition would not hold, and whoever is killed leaves parts behind
            parts = len(data) > LARGEST_PUT
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
                    reason = f"{error}, {TRIES} times; run the same command again"
                    raise CaseError(Code.OBJECT_UNREADABLE, reason, where=str(self.address(key))) from error
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

    def _asked(self, key: str, ask: Callable[[], _Result], *, one: bool = True) -> _Result:
        """The answer, or an error in the product's words; ``one``: what is asked for is a single object."""
        try:
            return self._asked_once(key, ask, one=one)
        except _ExpiredError:
            if not one:  # what is left of a listing that failed looks like its end
                raise
            return self._asked_once(key, ask, one=one)

    def _asked_once(self, key: str, ask: Callable[[], _Result], *, one: bool) -> _Result:
        try:
            return ask()
        except (PrognosisError, _CutError):
            raise
        except Exception as error:  # obstore's exceptions have no common base but its own and a few of Python's
            fault = fault_of(error, self.address(key))
            if isinstance(fault, _ExpiredError):  # something may renew them where this process found them
                _STORES.pop((os.getpid(), self.scheme, self.name), None)
            code = re.search(_OVERLOAD, str(error))
            if code and one and self._answers():
                reason = f"the bucket refuses just this object ({code[1]}), however often; run the same command again"
                fault = CaseError(Code.OBJECT_UNREADABLE, reason, where=str(self.address(key)))
            raise fault from error

    def _answers(self) -> bool:
        """Whether the bucket answers other requests, after one that failed although it was repeated."""
        import obstore

        try:
            next(iter(obstore.list(self.store, prefix=_NOTHING, chunk_size=1)), None)
        except Exception as error:  # as above
            return not re.search(_OVERLOAD, str(error)) and "<Code>" in str(error)
        return True


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


# What a store answers, in the product's words: a problem of one object, or a mistake that ends the command.

_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken", "RequestExpired")
_UNKNOWN_KEY = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "UnrecognizedClientException")
_REGION = (
    "PermanentRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "configured region",
)


def fault_of(error: Exception, address: Address) -> PrognosisError:
    """What to raise in place of an exception of obstore.

    A :class:`CaseError` where one object is missing (``OBJECT_MISSING``), closed (``OBJECT_FORBIDDEN``) or another one
    than it was (``OBJECT_CHANGED``); else a :class:`BucketError`: no such bucket, credentials, region, network.
    """
    kind, said = type(error).__name__, str(error)
    found = _of_access(said, address)
    if found is not None:
        return found
    if kind == "NotFoundError" or isinstance(error, FileNotFoundError):
        return CaseError(Code.OBJECT_MISSING, "there is no such object in the bucket (any more)", where=str(address))
    if kind in ("PermissionDeniedError", "UnauthenticatedError"):
        reason = "the bucket refuses to give it (403); ask its owner for the right to read, or set credentials"
        return CaseError(Code.OBJECT_FORBIDDEN, reason, where=str(address))
    if kind in ("PreconditionError", "NotModifiedError"):
        reason = "the object is another one than it was when the cohort was indexed; index the cohort again"
        return CaseError(Code.OBJECT_CHANGED, reason, where=str(address))
    if "<Code>AccessDenied<" in said:  # of a listing; it has no kind of its own
        where = f"{address.scheme}://{address.bucket}"
        return BucketError(f"{where} may not be listed (403); ask its owner for the right to, or set credentials")
    server = endpoint() if address.scheme == "s3" else ""
    return BucketError(
        f"no answer from {address.scheme}://{address.bucket} ({_gist(said)}); check the network"
        f"{f' and AWS_ENDPOINT_URL ({server})' if server else ''}, and run the same command again"
    )


def _of_access(said: str, address: Address) -> BucketError | None:
    """What holds for the whole bucket: expired or unknown credentials, a clock that is wrong, another region."""
    where = f"{address.scheme}://{address.bucket}"
    if any(f"<Code>{code}<" in said for code in _EXPIRED):
        return _ExpiredError(f"the credentials for {where} have expired; renew them, and run the same command again")
    if any(f"<Code>{code}<" in said for code in _UNKNOWN_KEY):
        return BucketError(f"the credentials for {where} are not known there; check the access key and its secret")
    if "<Code>NoSuchBucket<" in said:
        at = f" at {endpoint()}" if endpoint() and address.scheme == "s3" else ""
        return BucketError(f"there is no bucket {address.bucket!r}{at}; check its name")
    if "<Code>RequestTimeTooSkewed<" in said:
        return BucketError(f"{where} refuses requests by this machine's clock, which is wrong by minutes; set it")
    if any(code in said for code in _REGION):
        named = re.search(r"<Region>([\w-]+)</Region>|<Endpoint>[\w.-]*?s3[.-]([a-z0-9-]+)\.amazonaws", said)
        region = next((group for group in named.groups() if group), "") if named else ""
        is_in = f" ({region})" if region else ""
        return BucketError(f"the bucket {address.bucket!r} lies in another region{is_in}; set AWS_REGION to it")
    return None


def _gist(said: str) -> str:
    """The cause in a message of several lines, without the addresses that it is wrapped in."""
    code = re.search(r"<Code>(\w+)</Code>", said)
    if code:
        return code[1]
    first = said.splitlines()[0] if said else "no reason given"
    inner = re.findall(r'error: "([^"]+)"', said) or re.findall(r'(?:source|message): "([^"]+)"|kind: (\w+)', said)
    inner = [one if isinstance(one, str) else "".join(one) for one in inner]
    shown = inner[-1] if inner else re.split(r":\s+", first)[-1]
    return shown[:160]


# Several requests at once, in the order in which they were asked for; as many in flight as a process may have.

_Question = TypeVar("_Question")
_Answer = TypeVar("_Answer")

#: Requests in flight in one process. A store gives some 50-100 MB/s to one connection, and waits 10-100 ms before it.
MOST = 32
_POOLS: dict[int, ThreadPoolExecutor] = {}


def several(ask: Callable[[_Question], _Answer], questions: Iterable[_Question]) -> Iterator[_Answer]:
    """The answers in the order of the questions; while one is used, the next :data:`MOST` are on their way.

    No more answers than that are held. The first error is raised where its answer would have stood, and what has not
    been asked yet is not asked any more.
    """
    pool = _pool()
    todo = iter(questions)
    flying: deque[Future[_Answer]] = deque(pool.submit(ask, question) for question in islice(todo, MOST))
    try:
        while flying:
            answer = flying.popleft().result()
            flying.extend(pool.submit(ask, question) for question in islice(todo, 1))
            yield answer
    finally:
        for future in flying:
            future.cancel()


def begin(ask: Callable[[], _Answer]) -> Future[_Answer]:
    """One request whose answer is waited for later."""
    return _pool().submit(ask)


def _pool() -> ThreadPoolExecutor:
    """The threads of this process; a forked one has its own."""
    if os.getpid() not in _POOLS:
        _POOLS[os.getpid()] = ThreadPoolExecutor(MOST, thread_name_prefix="objects")
    return _POOLS[os.getpid()]
