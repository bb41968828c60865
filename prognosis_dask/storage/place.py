"""Where a run lies: a folder, or a prefix in a bucket with a working copy of its small files on this machine.

In a bucket, workers write what is large (``rois.zarr``, ``brain/``) themselves. All else is the driver's: it works in a
folder of its own, the working copy, and publishes from there, at intervals and at the end. Objects are whole or absent;
``features.zarr`` and ``models/`` have a mark that is written last (:mod:`prognosis_dask.objects.files`).

``driver.lock`` makes the driver the only one: an object that is written on condition, and renewed while the driver
lives. One that was not renewed for :data:`LEASE` seconds is taken over. ``ledger.sqlite`` is replaced on condition too,
so that a driver that lost its lock, on a machine that slept, say, cannot undo another's work.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import psutil

from prognosis_dask.errors import BucketError, CaseError, Code, StoreError, expect_kind
from prognosis_dask.objects.address import Address, is_address, parse_address
from prognosis_dask.objects.bucket import ObjectStat, WriteConflictError, bucket_of, several
from prognosis_dask.objects.files import fetch_folder, files_below, put_files, replace_folder
from prognosis_dask.publish import publish_folder, replacing, staging
from prognosis_dask.storage.ledger import snapshot

#: Seconds between two renewals of the lock, and after which one that was not renewed is taken over.
RENEW_EVERY, LEASE = 10.0, 60.0
#: Seconds between two publications of what changed, at least; and the most of the time that they may take.
PUBLISH_EVERY, SHARE = 30.0, 0.05

#: The object that is the driver's while a run goes on.
LOCK = "driver.lock"
_LEDGER = "ledger.sqlite"
_Result = TypeVar("_Result")
#: In a copy: the address that it is a copy of, and the ETag of the ledger that it was last equal to.
_MARK = "bucket.json"
#: Files that are published while the run goes on, and the others, in this order; ``run.json`` says that it has ended.
_EARLY = ("cases.csv", "problems.csv", "data.csv", "log.jsonl")
_LATE = ("features.csv", "report.html", "scan.json")
#: Folders, each with the file that says that it is whole.
_FOLDERS = {
    "features.zarr": "zarr.json",
    "models": "summary.json",
    "networks": "",
    "robustness": "summary.json",
    "figures": "",
}


def cache_folder() -> Path:
    """Where copies are kept on this machine: ``PROGNOSIS_CACHE``, else ``prognosis`` in the user's cache folder."""
    own = os.environ.get("PROGNOSIS_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prognosis"


def kept_in(folder: Path) -> str:
    """The folder or address that holds the arrays of a run: of a copy, the bucket's.

    >>> kept_in(Path("/runs/lung1"))
    '/runs/lung1'
    """
    return str(_marked(folder).get("address") or folder)


class _NothingThereError(StoreError):
    """No run and no models are at an address."""


@dataclass
class Place:
    """Where the driver of a run works and publishes; see :func:`placed`.

    Attributes
    ----------
    folder
        The run's folder, or the working copy.
    address
        Of the run in a bucket; None where it is a folder.
    """

    folder: Path
    address: Address | None = None
    _lock: ObjectStat | None = None
    _ledger: ObjectStat | None = None
    _sent: dict[str, object] = field(default_factory=dict)
    _lost: WriteConflictError | None = None
    _busy: threading.RLock = field(default_factory=threading.RLock)

    def __str__(self) -> str:
        return str(self.address or self.folder)

    def check(self) -> None:
        """Refuse to go on where another driver has taken the run over.

        Raises
        ------
        StoreError
            When it has.
        """
        if self._lost is not None:
            raise StoreError(
                f"{self.address} was taken over by another driver, since this one did not answer for a while; "
                "let one run at a time use it"
            ) from self._lost

    def publish(self, *, whole: bool = False) -> None:
        """Write what has changed into the bucket; ``whole``: also what is made at the end. Nothing for a folder.

        Raises
        ------
        StoreError, BucketError
            When another driver has taken the run over; when the bucket cannot be written.
        """
        if self.address is None:
            return
        with self._busy:
            self.check()
            try:
                self._publish_ledger()
                files = [partial(self._publish_file, name) for name in (*_EARLY, *(_LATE if whole else ()))]
                folders = [partial(self._publish_folder, *one) for one in _FOLDERS.items()] if whole else []
                _at_once([*folders, *files])
                self._publish_file("run.json")
            except WriteConflictError as error:
                self._lost = error
                self.check()
            except CaseError as error:
                raise _no_right(self.address, error) from error

    def fetch(self, *, needed: bool = True) -> None:
        """Bring all that the driver does not hold yet into the working copy: features, models, the report's figures.

        Raises
        ------
        StoreError, BucketError
            When there is nothing although it is ``needed``, or the bucket cannot be read.
        """
        if self.address is not None:
            with suppress(_NothingThereError) if not needed else nullcontext():
                _fetch_copy(self.address, self.folder, (*_EARLY, *_LATE, "run.json"), _FOLDERS)
            self._sent |= {name: self._state(name) for name in (*_EARLY, *_LATE, "run.json", *_FOLDERS)}

    def _state(self, name: str) -> object:
        """What tells a file or a folder from what it was before."""
        path = self.folder / name
        files = sorted(path.rglob("*")) if path.is_dir() else [path] if path.is_file() else []
        return [(str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files]

    def _publish_file(self, name: str) -> None:
        assert self.address is not None
        state = self._state(name)
        if state and self._sent.get(name) != state:
            bucket_of(self.address).put((self.address / name).key, (self.folder / name).read_bytes())
            self._sent[name] = state

    def _publish_folder(self, name: str, mark: str) -> None:
        assert self.address is not None
        state = self._state(name)
        if state and self._sent.get(name) != state:
            replace_folder(self.folder / name, self.address / name, mark)
            self._sent[name] = state

    def _publish_ledger(self) -> None:
        assert self.address is not None
        state = self._state(_LEDGER)
        if not state or self._sent.get(_LEDGER) == state:
            return
        content, key = snapshot(self.folder / _LEDGER), (self.address / _LEDGER).key
        bucket = bucket_of(self.address)
        self._ledger = bucket.put_over(key, content, self._ledger) if self._ledger else bucket.put_new(key, content)
        _mark(self.folder, ledger=self._ledger.etag)
        self._sent[_LEDGER] = state

    def _renew(self) -> None:
        assert self.address is not None
        assert self._lock is not None
        self._lock = bucket_of(self.address).put_over((self.address / LOCK).key, _holder(), self._lock)

    def _keep(self, ended: threading.Event) -> None:
        """Renew the lock and publish, until the end; what fails is tried again, and no fault of the run's."""
        next_time = time.monotonic() + PUBLISH_EVERY
        while not ended.wait(RENEW_EVERY):
            try:
                with self._busy:
                    self._renew()
                begun = time.monotonic()
                if begun > next_time:
                    self.publish()
                    took = time.monotonic() - begun
                    next_time = time.monotonic() + max(PUBLISH_EVERY, took / SHARE)
            except WriteConflictError as error:
                self._lost = error
                return
            except (BucketError, CaseError):
                continue
            except StoreError:
                return


@contextmanager
def placed(out: Path | str, *, needed: bool = False) -> Iterator[Place]:
    """The place of a run, to write: a folder as it is; in a bucket claimed, and published at the end, however it ends.

    ``needed``: only where something is. At an address that is mistaken, no lock is left behind.

    Raises
    ------
    StoreError, BucketError
        When another driver uses it, nothing is there, or the bucket cannot be read and written.
    """
    expect_kind(out, Path | str, "out", "a path or an address")
    if not is_address(out):
        yield Place(Path(out).absolute())
        return
    address = parse_address(str(out))
    if needed:
        _expect_run(address)
    folder = cache_folder() / "runs" / hashlib.sha256(str(address).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    place = Place(folder, address)
    place._lock = _claim(address)
    ended = threading.Event()
    keeper = threading.Thread(target=place._keep, args=(ended,), daemon=True, name="publishing")
    try:
        _fetch_run(place)
        keeper.start()
        yield place
        place.publish(whole=True)
    except BaseException:
        with suppress(BucketError, CaseError, StoreError):
            place.publish()
        raise
    finally:
        ended.set()
        if keeper.ident:
            keeper.join(RENEW_EVERY)
        _release(place)


def local_copy(place: Path | str, *, state_only: bool = False) -> Path:
    """A run or models to read: a folder as it is, of a bucket a fresh copy of all but its arrays.

    Parameters
    ----------
    place
        A folder, or an address in a bucket.
    state_only
        Only what tells how far the run is.

    Raises
    ------
    StoreError, BucketError
        When there is nothing, or the bucket cannot be read.
    """
    expect_kind(place, Path | str, "a run, table or model", "its path or address")
    if not is_address(place):
        return Path(place)
    address = parse_address(str(place))
    folder = cache_folder() / "read" / hashlib.sha256(str(address).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    more, folders = (("models/summary.json",), {}) if state_only else (_LATE, _FOLDERS)
    _fetch_copy(address, folder, (_LEDGER, *_EARLY, *more, "run.json"), folders)
    return folder


@contextmanager
def results_folder(out: Path | str) -> Iterator[Path]:
    """A folder to write results to: ``out`` itself, or one whose files are then written at this address.

    What else lies there stays, as in a folder: it may be a run. At an address, ``summary.json`` says that all
    others are there.

    Raises
    ------
    CaseError, BucketError
        When the bucket cannot be written.
    """
    if not is_address(out):
        Path(out).mkdir(parents=True, exist_ok=True)
        yield Path(out)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
        address = parse_address(str(out))
        bucket_of(address).delete((address / "summary.json").key)
        put_files(files_below(Path(folder)), address, "summary.json")


def _fetch_copy(address: Address, folder: Path, files: Iterable[str], folders: Mapping[str, str]) -> None:
    """Bring a copy up to date."""
    known = _marked(folder)
    etags: dict[str, str] = dict(known.get("files") or {}) if known.get("address") == str(address) else {}
    found: dict[str, str] = {}
    wholes = [partial(_fetch_whole, address, folder, *one) for one in folders.items()]
    for held in _at_once([*wholes, *(partial(_fetch_file, address, folder, name, etags) for name in files)]):
        found |= held
    if not found:
        raise _nothing_at(address)
    _mark(folder, address=str(address), files=found)


def _expect_run(address: Address) -> None:
    marks = (f"{folder}/{mark}" for folder, mark in _FOLDERS.items() if mark)
    keys = [(address / name).key for name in (_LEDGER, "run.json", *_LATE, *marks)]
    try:
        if not any(several(bucket_of(address).exists, keys)):
            raise _nothing_at(address)
    except CaseError as error:
        raise BucketError(f"cannot read in {address} ({error.problem.reason})") from error


def _nothing_at(address: Address) -> _NothingThereError:
    next(bucket_of(address).list(address.key), None)  # raises where there is not even the bucket
    return _NothingThereError(f"there is no run at {address}; `prognosis run JOB.toml --out {address}` makes one")


def fetch_part(folder: Path, name: str) -> None:
    """Bring what workers wrote into a folder of the run from its bucket to the working copy; else it is there.

    Raises
    ------
    CaseError, BucketError
        When the bucket cannot be read.
    """
    if is_address(kept_in(folder)):
        _fetch_whole(parse_address(kept_in(folder)), folder, name, _FOLDERS[name])


def _fetch_whole(address: Address, folder: Path, name: str, mark: str) -> dict[str, str]:
    """Fetch a folder in place of what is here, and remove what is here where it is no more."""
    with staging(folder / name) as aside:
        (aside / name).mkdir()
        if fetch_folder(address / name, aside / name, mark):
            publish_folder(aside / name, folder / name)
            return {name: "whole"}
    shutil.rmtree(folder / name, ignore_errors=True)
    return {}


def _at_once(steps: Sequence[Callable[[], _Result]]) -> list[_Result]:
    """What each step gives; threads of their own, since a step may wait for several requests."""
    with ThreadPoolExecutor(max(1, len(steps))) as threads:
        return [begun.result() for begun in [threads.submit(step) for step in steps]]


def _fetch_file(address: Address, folder: Path, name: str, etags: dict[str, str]) -> dict[str, str]:
    """Fetch a file where it is another one than before, and remove it where it is no more; its ETag."""
    bucket, key = bucket_of(address), (address / name).key
    try:
        stat = bucket.head(key)
        if etags.get(name) != stat.etag or not (folder / name).is_file():
            content, stat = bucket.get_with_stat(key)
            (folder / name).parent.mkdir(exist_ok=True)
            with replacing(folder / name) as aside:
                aside.write_bytes(content)
    except CaseError as error:
        if error.problem.code is not Code.OBJECT_MISSING:
            raise BucketError.of(error) from error
        (folder / name).unlink(missing_ok=True)
        return {}
    return {name: stat.etag}


def _fetch_run(place: Place) -> None:
    """The ledger and the record of what is at the address, unless the working copy went on from just these."""
    assert place.address is not None
    bucket, folder = bucket_of(place.address), place.folder
    known = _marked(folder)
    key = (place.address / _LEDGER).key
    place._ledger = bucket.find(key)
    etag = place._ledger.etag if place._ledger else ""
    if known.get("address") != str(place.address) or known.get("ledger") != etag or not (folder / _LEDGER).is_file():
        shutil.rmtree(folder)
        folder.mkdir()
        _at_once(
            [partial(_fetch_file, place.address, folder, name, {}) for name in (_LEDGER, *_EARLY, "run.json")],
        )
        _mark(folder, address=str(place.address), ledger=etag)


def _mark(folder: Path, **values: object) -> None:
    with replacing(folder / _MARK) as aside:
        aside.write_text(json.dumps(_marked(folder) | values), encoding="utf-8")


def _marked(folder: Path) -> dict[str, Any]:
    try:
        held: dict[str, Any] = json.loads((folder / _MARK).read_text(encoding="utf-8"))
        return held
    except (OSError, ValueError):
        return {}


# The lock.


def _claim(address: Address) -> ObjectStat:
    bucket, key = bucket_of(address), (address / LOCK).key
    try:
        return _claimed(bucket, key, address)
    except WriteConflictError as error:
        raise StoreError(f"{address} is in use: {error}; let one run at a time use it") from error
    except CaseError as error:
        raise _no_right(address, error) from error


def _no_right(address: Address, error: CaseError) -> BucketError:
    if error.problem.code is Code.OBJECT_UNREADABLE:
        return BucketError.of(error)
    return BucketError(
        f"cannot write in {address} ({error.problem.reason}); its results need the right to list, read, write and "
        "delete there"
    )


def _claimed(bucket: Any, key: str, address: Address) -> ObjectStat:
    try:
        made: ObjectStat = bucket.put_new(key, _holder())
        return made
    except WriteConflictError:
        content, stat = bucket.get_with_stat(key)
    holder = _read_holder(content)
    end = time.monotonic() + LEASE
    while holder.get("process") and not _is_gone(holder) and time.monotonic() < end:
        time.sleep(min(1.0, RENEW_EVERY / 5))
        if bucket.head(key).etag != stat.etag:
            content, stat = bucket.get_with_stat(key)
            holder = _read_holder(content)
            if holder.get("process"):
                raise StoreError(
                    f"{address} is in use by process {holder['process']} on {holder.get('host')}; wait until it ends "
                    "or stop it, or choose another place with --out"
                )
    taken: ObjectStat = bucket.put_over(key, _holder(), stat)
    return taken


def _release(place: Place) -> None:
    """Leave a lock that nobody holds; a delete could not be made to depend on whose it is."""
    assert place.address is not None
    with suppress(BucketError, CaseError), place._busy:
        if place._lost is None and place._lock is not None:
            bucket_of(place.address).put_over((place.address / LOCK).key, b"{}", place._lock)


def _holder() -> bytes:
    """The process and the moment: each writing of the lock has another ETag."""
    return json.dumps({"process": os.getpid(), **_machine(), "renewed": time.time_ns()}).encode()


def _machine() -> dict[str, str]:
    """The host; processes of containers that share its name have other numbers."""
    space = ""
    with suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")  # noqa: PTH115
    return {"host": socket.gethostname(), "processes": space}


def _read_holder(content: bytes) -> dict[str, Any]:
    try:
        held: dict[str, Any] = json.loads(content)
        return held
    except ValueError:
        return {"process": "unknown"}


def _is_gone(holder: dict[str, Any]) -> bool:
    here = all(holder.get(name) == value for name, value in _machine().items())
    return here and not psutil.pid_exists(int(holder["process"]))
