"""Addresses of objects: ``s3://BUCKET/KEY`` and ``gs://BUCKET/KEY``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from prognosis_dask.errors import JobError

#: What an address may begin with.
SCHEMES = ("s3", "gs")
#: Public buckets of the Imaging Data Commons. A key in them begins with the ``crdc_series_uuid``, which belongs to one
#: version of a series: what has such a key never changes.
IDC_BUCKETS = ("idc-open-data", "idc-open-data-cr", "idc-open-data-two", "public-datasets-idc")


@dataclass(frozen=True, slots=True)
class Address:
    """Where an object lies, or what the keys of several begin with.

    ``key`` has no slash at its ends; empty, it is the whole bucket.

    >>> str(parse_address("s3://idc-open-data/0af4/") / "1.dcm")
    's3://idc-open-data/0af4/1.dcm'
    """

    scheme: str
    bucket: str
    key: str = ""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}"

    def __truediv__(self, name: str) -> Address:
        return replace(self, key="/".join(part for part in (self.key, name.strip("/")) if part))

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition("/")[2]


def is_address(text: object) -> bool:
    """Whether a text names a bucket or an object in one, and no path on this machine.

    >>> is_address("s3://bucket/prefix"), is_address("/data/s3"), is_address(Path("s3:/bucket"))
    (True, False, False)
    """
    return isinstance(text, str) and text.partition("://")[0].lower() in SCHEMES and "://" in text


def parse_address(text: str) -> Address:
    """The parts of an address.

    Raises
    ------
    JobError
        When it begins otherwise or names no bucket.

    >>> parse_address("gs://bucket/a/b.dcm")
    Address(scheme='gs', bucket='bucket', key='a/b.dcm')
    """
    scheme, mark, rest = text.partition("://")
    bucket, _, key = rest.partition("/")
    if not mark or scheme.lower() not in SCHEMES or not bucket:
        raise JobError(f"{text!r} is no address of objects, expected s3://BUCKET/PREFIX or gs://BUCKET/PREFIX")
    return Address(scheme.lower(), bucket, key.strip("/"))


def join(folder: str | Path, name: str) -> str:
    """The path or address of ``name`` in ``folder``, which is a path or an address; ``name`` alone if it is absolute.

    >>> join("s3://bucket/run", "series/1.json"), join("/run", "s3://bucket/1.dcm"), join("/run", "1.dcm")
    ('s3://bucket/run/series/1.json', 's3://bucket/1.dcm', '/run/1.dcm')
    """
    if is_address(name):
        return name
    if is_address(folder):
        return str(parse_address(str(folder)) / name)
    return str(Path(folder) / name)


def common_folder(paths: Sequence[str]) -> str:
    """The folder, or the prefix in a bucket, that all files lie under; empty where they have none in common.

    >>> common_folder(["s3://b/u/1.dcm", "s3://b/u/x/2.dcm"]), common_folder(["/a/1", "s3://b/1"])
    ('s3://b/u', '')
    """
    places = [parse_address(path) for path in paths if is_address(path)]
    if not places:
        return os.path.commonpath([os.path.dirname(path) for path in paths])  # noqa: PTH120 - of millions of texts
    if len(places) < len(paths) or len({(place.scheme, place.bucket) for place in places}) > 1:
        return ""
    shared = os.path.commonpath([f"/{place.key.rpartition('/')[0]}" for place in places])
    return str(replace(places[0], key=shared.strip("/"))).rstrip("/")


def relative(path: str, folder: str) -> str:
    """The path as seen from its folder; as it is, where the folder is empty."""
    if not folder:
        return path
    return path[len(folder) + 1 :] if is_address(path) else os.path.relpath(path, folder)


def vouched(path: str, etag: str) -> str:
    """What tells an object's content from any other: in the buckets of the IDC the key, elsewhere the ETag.

    >>> vouched("s3://idc-open-data/6e0f8b4e/1.dcm", '"5d41"'), vouched("s3://other/1.dcm", '"5d41"')
    ('6e0f8b4e/1.dcm', '"5d41"')
    """
    address = parse_address(path)
    return address.key if address.bucket in IDC_BUCKETS else etag
