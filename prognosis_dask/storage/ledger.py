"""``ledger.sqlite``: what became of every stage of every case. The memory that resume reads.

One driver writes, any number of processes read meanwhile. The journal is SQLite's default one, not a write-ahead log:
run folders lie on network disks, where that does not work.
"""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import Any, TextIO, TypeAlias

import psutil
from filelock import lock_descriptor

from prognosis_dask.errors import Code, Problem, StoreError, system_reason
from prognosis_dask.publish import cannot_write, replacing

#: Failures that say nothing about the case itself: the next run tries again.
RETRIED = frozenset(
    {
        *(Code.WORKER_LOST, Code.TIME_LIMIT, Code.MEMORY_LIMIT, Code.STOPPED, Code.UNEXPECTED, Code.STORE_DAMAGED),
        # a bucket's owner may give it back, or the right to read it, and a store may recover
        *(Code.OBJECT_MISSING, Code.OBJECT_FORBIDDEN, Code.OBJECT_CHANGED, Code.OBJECT_UNREADABLE),
    }
)

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

_RECORD = """
INSERT INTO outcome (stage, case_id, digest, status, code, reason, place, patient_id,
                     finished_at, recorded, attempts, seconds, result)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?)
ON CONFLICT (stage, case_id) DO UPDATE SET
    attempts = CASE WHEN digest = excluded.digest THEN attempts + 1 ELSE 1 END,
    digest = excluded.digest, status = excluded.status, code = excluded.code, reason = excluded.reason,
    place = excluded.place, patient_id = excluded.patient_id, finished_at = excluded.finished_at,
    recorded = excluded.recorded, seconds = excluded.seconds, result = excluded.result
"""

#: Where a result's warnings stand in the column of its values.
_WARNINGS = "warnings"

_SELECT = "SELECT stage, case_id, digest, code, reason, place, patient_id, seconds, result FROM outcome"

# a row is void when another stage of the same case found the stored ROI damaged after it was written; "after" is the
# order of recording, since clocks jump
_FINISHED = """
SELECT own.case_id, digest, code FROM outcome AS own LEFT JOIN (
    SELECT case_id, MAX(recorded) AS damaged_at FROM outcome WHERE code = ? AND stage <> ? GROUP BY case_id
) AS other ON other.case_id = own.case_id
WHERE own.stage = ? AND (damaged_at IS NULL OR damaged_at < own.recorded)
"""


#: What JSON holds.
Value: TypeAlias = "bool | float | str | Sequence[Value] | Mapping[str, Value] | None"
#: The named values of one case's result.
Values: TypeAlias = dict[str, Value]


@dataclass(frozen=True)
class TaskResult:
    """One stage of one case, done or failed.

    Attributes
    ----------
    case_id, stage, digest
        Whose, which stage, and the digest of everything the result depends on (input and job).
    problem
        None when the stage is done, else why it failed.
    seconds
        Seconds per named step (``read``, ``rasterise``, ``write``, ...), ``total`` among them.
    values
        Small named values (numbers, or lists of them, or texts) that the feature dataset and the report read. Those of
        a step on one scan, which no ledger records, may be anything that can be pickled.
    warnings
        What has to be known of the case although it is used (:func:`prognosis_dask.errors.warn`).
    """

    case_id: str
    stage: str
    digest: str
    problem: Problem | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    values: Values = field(default_factory=dict)
    warnings: tuple[Problem, ...] = ()

    def number(self, name: str) -> float:
        """One of the values, which is a number.

        Raises
        ------
        StoreError
            When there is none of that name, or it is something else.
        """
        value = self.values.get(name)
        if not isinstance(value, int | float):
            raise StoreError(
                f"the stage {self.stage} says {name} = {value!r} of a case, expected a number; run it again"
            )
        return value


@dataclass(frozen=True)
class StageCounts:
    """How many cases a stage has done and failed."""

    done: int
    failed: int


class Ledger:
    """One row per case and stage. Made by :meth:`create` (to write) or :meth:`read`; a context manager."""

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: TextIO | None) -> None:
        self.path = path
        self._connection = connection
        self._lock = lock

    @classmethod
    def create(cls, path: Path | str) -> Ledger:
        """Open the ledger to write, making it if need be. Only one process at a time can.

        The claim is a lock on ``<path>.lock`` that ends with the process, however it ends.

        Raises
        ------
        StoreError
            When another process has it, when the folder cannot be written, or when the file is not a ledger of this
            version.
        """
        path = Path(path)
        lock = claim(path)
        try:
            if not path.exists():
                _make_ledger(path)
            return cls(path, _open_ledger(path), lock)
        except BaseException:
            lock.close()
            raise

    @classmethod
    def read(cls, path: Path | str) -> Ledger:
        """Open the ledger to read only, also while a run writes it.

        Raises
        ------
        StoreError
            When there is none, or the file is not a ledger of this version.
        """
        path = Path(path)
        if not path.is_file():
            raise StoreError(f"no ledger at {path}; `prognosis run` makes one, so name the folder of a run")
        # not SQLite's read-only mode: the journal of a driver that was killed must be rolled back before reading
        connection = _open_ledger(path)
        connection.execute("PRAGMA query_only = ON")
        return cls(path, connection, None)

    def close(self) -> None:
        """Close the file and give up the claim."""
        self._connection.close()
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def record(self, results: Iterable[TaskResult]) -> None:
        """Write the results, all or none. A case's earlier row of the same stage is replaced.

        Every call waits for the disk: give it what has come in since the last call, not one result at a time.
        A problem is filed under its result's case.

        Raises
        ------
        StoreError
            When the file cannot be written: read only, disk full, locked for a minute.
        """
        now = time.time()
        with self._transaction():
            ((last,),) = self._rows("SELECT COALESCE(MAX(recorded), 0) FROM outcome")
            rows = [_row(result, now, last + 1) for result in results]
            self._connection.executemany(_RECORD, rows)

    def results(self, stage: str) -> dict[str, TaskResult]:
        """Every result of a stage, by case_id."""
        rows = self._rows(f"{_SELECT} WHERE stage = ? ORDER BY case_id", stage)
        return {row[1]: _result(row, self.path) for row in rows}

    def failures(self) -> list[TaskResult]:
        """The results of every stage that have a problem."""
        rows = self._rows(f"{_SELECT} WHERE code IS NOT NULL ORDER BY stage, case_id")
        return [_result(row, self.path) for row in rows]

    def finished(self, stage: str, digests: Mapping[str, str]) -> set[str]:
        """The cases whose ``stage`` need not run again, of those in ``digests`` (case_id to digest).

        A case is finished when it was done, or failed for a reason of its own, with the same digest. Failures in
        :data:`RETRIED` are not final. Where a stage found the stored ROI damaged, the case's other stages that were
        recorded before are not finished either, so that the ROI is made again.
        """
        rows = self._rows(_FINISHED, Code.STORE_DAMAGED.value, stage, stage)
        return {case_id for case_id, digest, code in rows if digests.get(case_id) == digest and code not in RETRIED}

    def drop_outdated(self, stage: str, digests: Mapping[str, str]) -> None:
        """Remove the rows of ``stage`` that have another digest than the one in ``digests`` (case_id to digest).

        For a stage that keeps data in files, before it overwrites them: else a run that is killed after the data and
        before the row would leave new data under the old row, which an earlier job, run again, would take for its own.

        Raises
        ------
        StoreError
            When the file cannot be written.
        """
        held = self._rows("SELECT case_id, digest FROM outcome WHERE stage = ?", stage)
        outdated = [(stage, case_id) for case_id, digest in held if digests.get(case_id, digest) != digest]
        with self._transaction():
            self._connection.executemany("DELETE FROM outcome WHERE stage = ? AND case_id = ?", outdated)

    def counts(self) -> dict[str, StageCounts]:
        """How many cases are done and failed, by stage."""
        query = "SELECT stage, COUNT(*) - COUNT(code), COUNT(code) FROM outcome GROUP BY stage"
        return {stage: StageCounts(done, failed) for stage, done, failed in self._rows(query)}

    def cases_failed_in(self, stages: Collection[str]) -> int:
        """How many cases failed in at least one of the stages."""
        marks = ", ".join("?" * len(stages))
        query = f"SELECT COUNT(DISTINCT case_id) FROM outcome WHERE code IS NOT NULL AND stage IN ({marks})"
        ((failed,),) = self._rows(query, *stages)
        return int(failed)

    def finished_over_time(self, since: float) -> list[tuple[float, str, int]]:
        """What was recorded after ``since`` (seconds since 1970), in order: when, in which stage, how many cases.

        Taken together by the second; the time is that of the last case.
        """
        query = """
        SELECT MAX(finished_at), stage, COUNT(*) FROM outcome WHERE finished_at > ?
        GROUP BY CAST(finished_at AS INTEGER), stage ORDER BY 1
        """
        return [(at, stage, count) for at, stage, count in self._rows(query, since)]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _translated(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _rows(self, query: str, *values: str | float) -> list[tuple[Any, ...]]:
        with _translated(self.path):
            return self._connection.execute(query, values).fetchall()


def digests_in(folder: Path, stage: str) -> dict[str, str]:
    """By ``case_id`` the digest under which a run holds what a stage made; empty where its ledger is not there."""
    path = folder / "ledger.sqlite"
    if not path.is_file():
        return {}
    with Ledger.read(path) as ledger:
        return {case_id: result.digest for case_id, result in ledger.results(stage).items()}


def snapshot(path: Path) -> bytes:
    """The ledger's file as it is between two transactions, also while it is written.

    Raises
    ------
    StoreError
        When it cannot be read.
    """
    connection = _open_ledger(path)
    with _translated(path), closing(connection):
        return connection.serialize()


def _row(result: TaskResult, now: float, recorded: int) -> tuple[object, ...]:
    problem = result.problem
    return (
        result.stage,
        result.case_id,
        result.digest,
        "failed" if problem else "done",
        problem.code.value if problem else None,
        problem.reason if problem else None,
        problem.where if problem else None,
        problem.patient_id if problem else None,
        now,
        recorded,
        json.dumps(result.seconds),
        json.dumps(result.values | _kept(result.warnings)),
    )


def _result(row: tuple[Any, ...], path: Path) -> TaskResult:
    stage, case_id, digest, code, reason, place, patient_id, seconds, values = row
    problem = None
    if code is not None:
        problem = Problem(_code(code, path), reason, patient_id=patient_id, case_id=case_id, where=place)
    held = json.loads(values)
    warnings = tuple(
        Problem(_code(code, path), reason, patient_id, case_id, where, "warning")
        for code, reason, patient_id, where in held.pop(_WARNINGS, ())
    )
    return TaskResult(case_id, stage, digest, problem, json.loads(seconds), held, warnings)


def _kept(warnings: Sequence[Problem]) -> dict[str, object]:
    """Warnings as they stand among a result's values: most have none, and none need be found by itself."""
    rows = [[warning.code.value, warning.reason, warning.patient_id, warning.where] for warning in warnings]
    return {_WARNINGS: rows} if rows else {}


def _code(text: str, path: Path) -> Code:
    try:
        return Code(text)
    except ValueError as error:
        raise StoreError(f"{path} holds the problem code {text!r}, unknown here; a newer program wrote it") from error


@contextmanager
def _translated(path: Path) -> Iterator[None]:
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


def _make_ledger(path: Path) -> None:
    """Make an empty ledger under another name first, so that readers never see one without its tables."""
    with _translated(path), replacing(path) as aside:
        connection = sqlite3.connect(aside)
        connection.executescript(_SCHEMA)
        connection.close()


def _open_ledger(path: Path) -> sqlite3.Connection:
    """Open a ledger to read and write.

    Raises
    ------
    StoreError
        When it cannot be opened, is none, or one of another version.
    """
    with _translated(path):
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


# One writer per run's folder: the lock file beside the ledger, and who holds it.


def claim(path: Path) -> TextIO:
    """The lock file, locked. It stays when the lock ends: removing it would let two processes lock two files."""
    name = path.with_name(f"{path.name}.lock")
    try:
        name.parent.mkdir(parents=True, exist_ok=True)
        lock = name.open("a+", encoding="utf-8")
    except OSError as error:
        raise cannot_write(path.parent, error) from error
    try:
        locked = lock_descriptor(lock.fileno(), blocking=False)
    except OSError as error:
        lock.close()
        reason = system_reason(error)
        raise StoreError(
            f"cannot lock {name} ({reason}); the run's folder must be on a disk with file locks"
        ) from error
    if not locked:
        holder = ""
        with lock, suppress(OSError):  # where locks are mandatory (Windows), the holder's name cannot be read
            lock.seek(0)
            holder = lock.read().strip()
        raise StoreError(
            f"{path.parent} is in use by {holder or 'another process'}; wait until it ends or stop it, or choose "
            "another folder with --out"
        )
    lock.truncate(0)
    lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    lock.flush()
    return lock


def driver_is_gone(path: Path) -> bool:
    """Whether the ledger's last writer was a process of this machine that is no more; what others know is not seen."""
    try:
        text = path.with_name(f"{path.name}.lock").read_text(encoding="utf-8")
    except OSError:
        return False
    holder = re.fullmatch(r"process (\d+) on (\S+)\n", text)
    if not holder or holder[2] != socket.gethostname():
        return False
    return not psutil.pid_exists(int(holder[1]))
