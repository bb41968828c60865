"""Walk the sources and read the header of every file: each is opened once, and read only as far as needed.

Objects in buckets are read several at once, in ranges that grow until the last element is in.
"""

from __future__ import annotations

import os
import stat
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast

from prognosis_dask.arrays import Map
from prognosis_dask.cohort.dicom_header import dicom_header
from prognosis_dask.cohort.headers import FileStamp, Header, OtherFile, VolumeFile, stamp
from prognosis_dask.cohort.names import is_mask_name
from prognosis_dask.errors import BucketError, CaseError, Code, JobError, Problem
from prognosis_dask.objects.address import IDC_BUCKETS, Address, is_address, parse_address
from prognosis_dask.objects.bucket import ObjectStat, bucket_of, several
from prognosis_dask.objects.files import RangeReader, as_local
from prognosis_dask.volumes.files import VOLUME_SUFFIXES, volume_voxels
from prognosis_dask.volumes.labels import labels_in, named_labels

#: Paths in one unit of work: about a tenth of a second of reading.
BATCH = 200


def read_headers(paths: Sequence[str]) -> list[Header]:
    """Read the headers of some files. A file that cannot be read comes back as a :class:`Problem`.

    This is the unit of work that the index hands out: plain data in, plain data out.
    """
    with warnings.catch_warnings():
        # pydicom warns about values that break the standard; those that matter here become problems instead
        warnings.simplefilter("ignore")
        return [header for path in paths for header in _read(path)]


@dataclass(frozen=True)
class _FileOnDisk:
    path: str
    stream: BinaryIO

    def stamp(self, *, mask: bool = False) -> FileStamp:
        if mask:
            return stamp(self.path, checksum=True)
        state = os.fstat(self.stream.fileno())
        return FileStamp(self.path, state.st_size, state.st_mtime_ns)

    def expect_all(self) -> None:
        pass


def _read(path: str) -> Sequence[Header]:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - paths travel as text
            return [OtherFile(path, "not a regular file")]  # reading a pipe would block for ever
        if path.lower().endswith(VOLUME_SUFFIXES):
            return [_volume(path)]
        with open(path, "rb") as stream:  # noqa: PTH123 - paths travel as text
            found = dicom_header(_FileOnDisk(path, stream))
        return found if isinstance(found, list) else [found]
    except Exception as error:  # pydicom may raise anything on a damaged file, which must not stop the index
        return [Problem(Code.UNREADABLE_FILE, f"{type(error).__name__}: {error}", where=path)]


def _volume(path: str) -> Header:
    if not is_mask_name(path):
        return VolumeFile(stamp(path), is_mask=False)
    file = stamp(path, checksum=True)
    try:
        segments, table = named_labels(Path(path))
    except CaseError as error:
        return error.problem.of(where=path)
    if not segments:
        return VolumeFile(file, is_mask=True)
    try:
        present = labels_in(volume_voxels(Path(path)))
    except CaseError:  # the fault is reported when the case is read
        return VolumeFile(file, is_mask=True)
    return VolumeFile(file, True, segments, present, stamp(table, checksum=True) if table else None)


def crawl(sources: Sequence[Path | str], map: Map, *, leave_out: Path | None = None) -> list[Header]:
    """Read the headers of every file under the sources, in the order of their paths, and of every object.

    Parameters
    ----------
    sources
        Folders, or single files; as text also addresses of objects, or what their keys begin with.
    map
        The built-in ``map``, or one that distributes the batches over a cluster.
    leave_out
        A folder that is not entered: the index's own output.

    Raises
    ------
    JobError, BucketError
        When a source does not exist, or a bucket cannot be read.
    """
    unreadable: list[Header] = []
    folders = [Path(source) for source in sources if not is_address(source)]
    paths = _named_in_utf8(sorted(_files(folders, leave_out, unreadable)), unreadable)
    hidden: list[Header] = [OtherFile(path) for path in paths if _is_hidden(path)]
    visible = [path for path in paths if not _is_hidden(path)]
    batches = [visible[start : start + BATCH] for start in range(0, len(visible), BATCH)]
    headers = [header for batch in map(read_headers, batches) for header in batch]
    return [*unreadable, *hidden, *headers, *crawl_objects([str(s) for s in sources if is_address(s)], map)]


def _named_in_utf8(paths: list[str], unreadable: list[Header]) -> list[str]:
    """The paths that are valid UTF-8; the others (Latin-1 on an old share) are one problem per folder."""
    named: list[str] = []
    others: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        try:
            path.encode()
            named.append(path)
        except UnicodeEncodeError:
            others[os.path.dirname(path)].append(path)  # noqa: PTH120 - of millions of texts
    for group in others.values():
        more = f" (and {len(group) - 1} more in this folder)" if len(group) > 1 else ""
        reason = f"its name is not UTF-8{more}: rename it, for instance with convmv"
        shown = os.fsencode(group[0]).decode(errors="backslashreplace")
        unreadable.append(Problem(Code.UNREADABLE_FILE, reason, where=shown))
    return named


def _is_hidden(path: str) -> bool:
    return os.path.basename(path).startswith(".")  # noqa: PTH119 - of millions of texts


def _files(sources: Sequence[Path], leave_out: Path | None, unreadable: list[Header]) -> Iterator[str]:
    """Every file once, even if sources overlap or links form cycles."""
    entered: set[tuple[int, int] | None] = set()
    if leave_out is not None and leave_out.is_dir() and leave_out.absolute() not in {s.absolute() for s in sources}:
        entered.add(_identity(str(leave_out)))

    def refuse(error: OSError) -> None:
        where = os.fsencode(str(error.filename)).decode(errors="backslashreplace")
        unreadable.append(Problem(Code.UNREADABLE_FILE, f"folder: {error.strerror}", where=where))

    for source in sources:
        if source.is_file():
            yield os.path.abspath(source)  # noqa: PTH100 - keeps links, as the other paths do
            continue
        if not source.is_dir():
            raise JobError(f"no folder or file at {source}")
        for folder, below, names in os.walk(source.absolute(), followlinks=True, onerror=refuse):
            identity = _identity(folder)
            if identity is None or identity in entered:
                below.clear()
                continue
            entered.add(identity)
            hidden = [name for name in below if name.startswith(".")]  # .git, .snapshot, .Trash: older copies
            unreadable += [OtherFile(os.path.join(folder, name), "hidden folders") for name in hidden]  # noqa: PTH118
            below[:] = [name for name in below if name not in hidden]
            yield from (os.path.join(folder, name) for name in names)  # noqa: PTH118


def _identity(folder: str) -> tuple[int, int] | None:
    """The identity of a folder, whatever path leads to it; None if it no longer exists."""
    try:
        state = os.stat(folder)  # noqa: PTH116
    except OSError:
        return None
    return state.st_dev, state.st_ino


#: Objects in one unit of work, and series of the IDC, each of which is listed first.
OBJECTS = 400
SERIES_BATCH = 8
_DETACHED = (".nhdr", ".mhd")


@dataclass(frozen=True)
class _Object:
    """An object that is being read."""

    address: Address
    stat: ObjectStat
    reader: RangeReader

    @property
    def path(self) -> str:
        return str(self.address)

    @property
    def stream(self) -> BinaryIO:
        return cast(BinaryIO, self.reader)

    def stamp(self, *, mask: bool = False) -> FileStamp:
        return _stamp(self.address, self.stat)

    def expect_all(self) -> None:
        self.reader.fetch_all()


def crawl_objects(sources: Sequence[str], map: Map) -> list[Header]:
    """The headers of all objects under the addresses, in the order of their keys; an object counts once.

    Series of the IDC are listed where they are read, other prefixes here.

    Raises
    ------
    JobError, BucketError
        When there is nothing under an address, or its bucket cannot be read.
    """
    places = [parse_address(source) for source in sources]
    series = [place for place in places if place.bucket in IDC_BUCKETS and place.key]
    found = [header for batch in map(read_series, _batches(dict.fromkeys(series), SERIES_BATCH)) for header in batch]
    others = [place for place in places if place not in set(series)]
    objects, hidden = _visible(others)
    batches = _batches((objects[name] for name in sorted(objects)), OBJECTS)
    return [*found, *hidden, *(header for batch in map(read_objects, batches) for header in batch)]


def _visible(places: Sequence[Address]) -> tuple[dict[str, tuple[Address, ObjectStat]], list[Header]]:
    """The objects under some addresses, and the hidden folders below those, which are passed over as on disks."""
    objects: dict[str, tuple[Address, ObjectStat]] = {}
    hidden: dict[str, Header] = {}
    for place in places:
        for address, listed in _listed(place):
            folder = _hidden_folder(address, place)
            if folder:
                hidden[folder] = OtherFile(folder, "hidden folders")
            else:
                objects[str(address)] = address, listed
    return objects, list(hidden.values())


def _hidden_folder(address: Address, source: Address) -> str:
    """The first hidden folder on the way from a source, which may be hidden itself, to an object; else empty."""
    folder = source
    for part in address.key[len(source.key) :].split("/")[:-1]:
        folder /= part
        if part.startswith("."):
            return str(folder)
    return ""


def read_series(places: Sequence[Address]) -> list[Header]:
    """List what lies under some addresses, and read the headers; a series that cannot be read is a :class:`Problem`."""
    objects: list[tuple[Address, ObjectStat]] = []
    problems: list[Header] = []
    for found in several(_series_or_problem, places):
        if isinstance(found, Problem):
            problems.append(found)
        else:
            objects += found
    return [*problems, *read_objects(objects)]


def _series_or_problem(place: Address) -> list[tuple[Address, ObjectStat]] | Problem:
    try:
        found = list(_listed(place))
    except CaseError as error:
        return error.problem
    except JobError:
        return Problem(Code.OBJECT_MISSING, "the catalogue has a series here, the bucket has none", where=str(place))
    return found


def read_objects(objects: Sequence[tuple[Address, ObjectStat]]) -> list[Header]:
    """Read the headers of some objects. One that cannot be read comes back as a :class:`Problem`.

    Raises
    ------
    BucketError
        When the bucket cannot be reached.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as of files: what matters becomes a problem
        return [header for headers in several(_read_object, objects) for header in headers]


def _read_object(one: tuple[Address, ObjectStat]) -> Sequence[Header]:
    address, stat = one
    path = str(address)
    try:
        if address.name.startswith("."):
            return [OtherFile(path)]
        if path.lower().endswith(VOLUME_SUFFIXES):
            return [_object_volume(address, stat)]
        found = dicom_header(_Object(address, stat, RangeReader(address, stat)))
        return found if isinstance(found, list) else [found]
    except CaseError as error:
        return [error.problem.of(where=path)]
    except BucketError:
        raise
    except Exception as error:  # pydicom may raise anything on a damaged file, which must not stop the index
        return [Problem(Code.UNREADABLE_FILE, f"{type(error).__name__}: {error}", where=path)]


def _object_volume(address: Address, stat: ObjectStat) -> Header:
    """An image file in a bucket; of a mask the labels, by its own header: a table beside it is not looked for."""
    file = _stamp(address, stat)
    if address.name.lower().endswith(_DETACHED):
        reason = "a header whose data lie in another object; write both into one file (.nrrd, .mha)"
        return Problem(Code.UNREADABLE_FILE, reason, where=str(address))
    if not is_mask_name(address.key):
        return VolumeFile(file, is_mask=False)
    with as_local(str(address)) as copy:
        segments, _ = named_labels(copy)
        try:
            present = labels_in(volume_voxels(copy)) if segments else ()
        except CaseError:  # the fault is reported when the case is read
            return VolumeFile(file, is_mask=True)
    return VolumeFile(file, True, segments, present)


def _listed(place: Address) -> Iterator[tuple[Address, ObjectStat]]:
    """The objects under an address, or the one that has it."""
    bucket = bucket_of(place)
    found = False
    for listed in bucket.list(place.key):
        found = True
        if listed.bytes:  # else it stands for a folder
            yield replace(place, key=listed.key), listed
    if not found:
        if not place.key or not bucket.exists(place.key):
            raise JobError(f"no object under {place}; check the address (a prefix ends where a folder would)")
        yield place, bucket.head(place.key)


def _stamp(address: Address, listed: ObjectStat) -> FileStamp:
    when = 0 if listed.etag or listed.modified is None else int(listed.modified.timestamp() * 1e9)
    return FileStamp(str(address), listed.bytes, when, etag=listed.etag)


def _batches(items: Iterable[object], size: int) -> Iterator[list[object]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
