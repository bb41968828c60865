"""Addresses of objects, ``s3://BUCKET/KEY`` and ``gs://BUCKET/KEY``, and how their bucket is reached.

Endpoint, credentials or none, time-outs and retries are no setting of a job. They belong to the machine: environment,
profile or instance role, as every other tool of the cloud takes them, so that no credential can get into a graph, a log
or a run's record.

===============================================  =====================================================================
``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``  sign requests with these (``AWS_SESSION_TOKEN`` beside them)
``AWS_PROFILE``, ``~/.aws/credentials``           else with the keys of this profile (``default``)
role of the container, pod or instance            else with these
none of these, or ``AWS_SKIP_SIGNATURE=true``     unsigned, as public buckets allow
``AWS_ENDPOINT_URL_S3``, ``AWS_ENDPOINT_URL``     another server than Amazon's; also ``AWS_ENDPOINT``
``AWS_REGION``, ``AWS_DEFAULT_REGION``            of the bucket (default: us-east-1)
``GOOGLE_APPLICATION_CREDENTIALS``                sign with this key file (gs://); ``GOOGLE_SKIP_SIGNATURE=true``: none
``GOOGLE_BASE_URL``                               another server than Google's
===============================================  =====================================================================

The public buckets of the Imaging Data Commons are always read unsigned.
"""

from __future__ import annotations

import configparser
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from prognosis_dask.errors import JobError, import_extra

if TYPE_CHECKING:
    from obstore.store import ObjectStore

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


#: Where a virtual machine learns of its role.
_METADATA = ("169.254.169.254", 80)
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_ROLES = ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI")
#: Seconds: to connect, between two pieces of a body, for one request, and for one with all its repetitions.
CONNECT, PIECE, REQUEST, ALTOGETHER = 5.0, 20.0, 300.0, 60.0
#: How often a request is repeated after 5xx, slow-down, time-outs and broken connections; with jitter.
RETRIES = 8


def connect(address: Address) -> ObjectStore:
    """A store of the address's bucket, by the environment; nothing is asked of it yet.

    Raises
    ------
    JobError, MissingExtraError
        When the profile that is named is not there, or obstore is not.
    """
    store = import_extra("obstore.store", extra="cloud", feature=f"reading {address.scheme}://")
    # http: servers within a cluster
    common: dict[str, Any] = {"client_options": _client(), "retry_config": _retries()}
    found: ObjectStore
    if address.scheme == "gs":
        base = os.environ.get("GOOGLE_BASE_URL", "")
        more: dict[str, Any] = {"base_url": base} if base else {}
        if address.bucket in IDC_BUCKETS or not _google_key():
            more["skip_signature"] = True
        found = store.GCSStore(address.bucket, **common, **more)
        return found
    found = store.S3Store(address.bucket, **common, **_s3(address.bucket))
    return found


def endpoint() -> str:
    """The server of ``s3://`` where it is another than Amazon's; empty: Amazon's.

    Raises
    ------
    JobError
        When it is no address of a server.
    """
    named = next(((name, os.environ[name]) for name in _ENDPOINTS if os.environ.get(name)), None)
    if named is None:
        return ""
    parts = urlsplit(named[1])
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise JobError(
            f"{named[0]} is {named[1]!r}, expected the address of a server: https://HOST or http://HOST:PORT"
        )
    return named[1]


def _client() -> dict[str, Any]:
    return {
        "allow_http": True,
        "connect_timeout": timedelta(seconds=CONNECT),
        "read_timeout": timedelta(seconds=PIECE),
        "timeout": timedelta(seconds=REQUEST),
    }


def _retries() -> dict[str, Any]:
    pause = {"init_backoff": timedelta(seconds=0.2), "max_backoff": timedelta(seconds=8), "base": 2.0}
    return {"max_retries": RETRIES, "retry_timeout": timedelta(seconds=ALTOGETHER), "backoff": pause}


def _s3(bucket: str) -> dict[str, Any]:
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    options: dict[str, Any] = {"region": region}
    if any(name in os.environ for name in _ENDPOINTS):  # an empty one would end obstore
        options["endpoint"] = endpoint() or f"https://s3.{region}.amazonaws.com"
    if bucket in IDC_BUCKETS:
        return {**options, "region": "us-east-1", "skip_signature": True}
    if os.environ.get("AWS_SKIP_SIGNATURE", "").lower() in ("1", "true"):
        return {**options, "skip_signature": True}
    if os.environ.get("AWS_ACCESS_KEY_ID"):
        return options  # obstore reads it, with the session's token
    profile = _profile()
    if profile:
        return {**options, **profile}
    if any(os.environ.get(name) for name in _ROLES) or _has_role():
        return options
    return {**options, "skip_signature": True}


def _profile() -> dict[str, str]:
    """The keys of the profile that ``AWS_PROFILE`` names, or of ``default``; empty where there is none."""
    path = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or Path.home() / ".aws" / "credentials")
    named = os.environ.get("AWS_PROFILE", "")
    held = configparser.ConfigParser(interpolation=None)
    held.read(path, encoding="utf-8")
    keys = dict(held[named or "default"]) if held.has_section(named or "default") else {}
    if named and "aws_access_key_id" not in keys:
        raise JobError(
            f"AWS_PROFILE is {named!r}, but {path} has no keys for it; write them there, or set AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN (`aws configure export-credentials --format env`)"
        )
    names = {
        "aws_access_key_id": "access_key_id",
        "aws_secret_access_key": "secret_access_key",
        "aws_session_token": "session_token",
    }
    return {ours: keys[theirs] for theirs, ours in names.items() if theirs in keys}


def _google_key() -> bool:
    if os.environ.get("GOOGLE_SKIP_SIGNATURE", "").lower() in ("1", "true"):
        return False
    names = ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_KEY")
    beside = Path.home() / ".config" / "gcloud" / "application_default_credentials.json"
    return any(os.environ.get(name) for name in names) or beside.is_file() or _has_role()


@cache
def _has_role() -> bool:
    """Whether this is a virtual machine that may have a role; asked once, for at most a third of a second."""
    if os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        return False
    try:
        socket.create_connection(_METADATA, timeout=0.3).close()
    except OSError:
        return False
    return True
