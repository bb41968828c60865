"""How a bucket is reached: endpoint, credentials or none, time-outs, retries.

Nothing of it is a setting of a job. It belongs to the machine: environment, profile or instance role, as every other
tool of the cloud takes it, so that no credential can get into a graph, a log or a run's record.

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
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from prognosis_dask.errors import JobError, import_extra
from prognosis_dask.objects.address import IDC_BUCKETS, Address

if TYPE_CHECKING:
    from obstore.store import ObjectStore

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
            f"AWS_PROFILE is {named!r}, of which {path} has no keys; write them there, or set AWS_ACCESS_KEY_ID, "
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
