"""Read the headers of objects in buckets, several at once, in ranges that grow until the last element is in."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import BinaryIO, cast

from prognosis_dask.cohort.dicom_header import dicom_header
from prognosis_dask.cohort.headers import FileStamp, Header, OtherFile, VolumeFile
from prognosis_dask.cohort.names import is_mask_name
from prognosis_dask.errors import BucketError, CaseError, Code, JobError, Problem
from prognosis_dask.maps import Map
from prognosis_dask.objects.address import IDC_BUCKETS, Address, parse_address
from prognosis_dask.objects.bucket import ObjectStat, bucket_of, several
from prognosis_dask.objects.files import as_local
from prognosis_dask.objects.ranges import RangeReader
from prognosis_dask.volumes.files import VOLUME_SUFFIXES, volume_voxels
from prognosis_dask.volumes.labels import labels_in
from prognosis_dask.volumes.segments import named_labels

#: Objects in one unit of work, and series of the IDC, each of which is listed first.
BATCH = 400
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
    objects = {str(address): (address, stat) for place in others for address, stat in _listed(place)}
    batches = _batches((objects[name] for name in sorted(objects)), BATCH)
    return [*found, *(header for batch in map(read_objects, batches) for header in batch)]


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
        return [header for headers in several(_read, objects) for header in headers]


def _read(one: tuple[Address, ObjectStat]) -> Sequence[Header]:
    address, stat = one
    path = str(address)
    try:
        if address.name.startswith("."):
            return [OtherFile(path)]
        if path.lower().endswith(VOLUME_SUFFIXES):
            return [_volume(address, stat)]
        found = dicom_header(_Object(address, stat, RangeReader(address, stat)))
        return found if isinstance(found, list) else [found]
    except CaseError as error:
        return [error.problem.of(where=path)]
    except BucketError:
        raise
    except Exception as error:  # pydicom may raise anything on a damaged file, which must not stop the index
        return [Problem(Code.UNREADABLE_FILE, f"{type(error).__name__}: {error}", where=path)]


def _volume(address: Address, stat: ObjectStat) -> Header:
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
    for stat in bucket.list(place.key):
        found = True
        if stat.bytes:  # else it stands for a folder
            yield replace(place, key=stat.key), stat
    if not found:
        if not place.key or not bucket.exists(place.key):
            raise JobError(f"no object under {place}; check the address (a prefix ends where a folder would)")
        yield place, bucket.head(place.key)


def _stamp(address: Address, stat: ObjectStat) -> FileStamp:
    when = 0 if stat.etag or stat.modified is None else int(stat.modified.timestamp() * 1e9)
    return FileStamp(str(address), stat.bytes, when, etag=stat.etag)


def _batches(items: Iterable[object], size: int) -> Iterator[list[object]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
