"""The file of the ledger: its schema and version, how it is made and opened, and what is said when the disk refuses."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

from prognosis_dask.errors import StoreError

_APPLICATION_ID = 0x70726F67  # "prog": tells a ledger from any other SQLite file
_VERSION = 2
_BUSY_SECONDS = 60.0

# the large columns come last: SQLite then finds the small ones without reading them
_SCHEMA = f"""
CREATE TABLE outcome (
    stage TEXT NOT NULL, case_id TEXT NOT NULL, digest TEXT NOT NULL,
    status TEXT NOT NULL, code TEXT, reason TEXT, place TEXT, patient_id TEXT,
    finished_at REAL NOT NULL, recorded INTEGER NOT NULL, attempts INTEGER NOT NULL,
    seconds TEXT NOT NULL, result TEXT NOT NULL,
    PRIMARY KEY (stage, case_id)
);
CREATE INDEX outcome_by_code ON outcome (code, stage);
CREATE INDEX outcome_by_recorded ON outcome (recorded);
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_VERSION};
"""


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn what SQLite says inside into a StoreError that names the ledger and the cause."""
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(f"the ledger {path} cannot be used: {_cause(path, error)}") from error


def _cause(path: Path, error: sqlite3.Error) -> str:
    """What the disk itself says: to SQLite, a disk that turned read only is one that is "unable to open" a file."""
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return f"{os.strerror(errno.ENOSPC)} ({error})"
    try:
        with TemporaryFile(dir=path.parent) as probe:
            probe.write(b"\0")
    except OSError as refusal:
        return f"{refusal.strerror} ({error})"
    return f"{error}; is it in use elsewhere, or on a disk without file locks?"


def make_ledger(path: Path) -> None:
    """Make an empty ledger under another name first, so that readers never see one without its tables."""
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.unlink(missing_ok=True)
    with translated(path):
        connection = sqlite3.connect(unfinished)
        connection.executescript(_SCHEMA)
        connection.close()
    unfinished.replace(path)


def open_ledger(path: Path) -> sqlite3.Connection:
    """Open a ledger to read and write.

    Raises
    ------
    StoreError
        When it cannot be opened, is none, or one of another version.
    """
    with translated(path):
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=_BUSY_SECONDS, isolation_level=None
        )
        try:
            _check(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def _check(connection: sqlite3.Connection, path: Path) -> None:
    try:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:  # not SQLite at all
        application, version = None, None
    if application != _APPLICATION_ID:
        raise StoreError(f"{path} is not a ledger; name the folder of a run, or choose another one with --out")
    if version != _VERSION:
        raise StoreError(
            f"{path} is a ledger of version {version}, this program reads version {_VERSION}; "
            "use the program that wrote it, or choose another folder with --out"
        )
