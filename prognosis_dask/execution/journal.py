"""What a run leaves behind of its course: ``log.jsonl``, its events, and Dask's performance report where it is wanted.

The events are one JSON object a line. Cases appear in them by their short hash, nothing else: no message of an
exception and no reason of a problem is written, since both may hold a path, and a path a patient's name. They stand in
``problems.csv``, beside the case.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from distributed import Client, performance_report

from prognosis_dask.config.folders import expect_writable
from prognosis_dask.errors import JobError

#: The logger's name, for programs that want the events somewhere else too.
LOGGER = "prognosis"

_logger = logging.getLogger(LOGGER)
_logger.addHandler(logging.NullHandler())


def journal(event: str, *, level: int = logging.INFO, **fields: object) -> None:
    """Write an event with its fields to the journal, if one is open.

    >>> journal("case-failed", level=logging.WARNING, stage="roi", case="90753e4a5b47", code="slice-gap")
    """
    text = " ".join([event, *(f"{key}={value}" for key, value in fields.items())])
    _logger.log(level, "%s", text, extra={"event": event, "fields": fields})


@contextmanager
def journal_in(folder: Path) -> Iterator[None]:
    """Append the events to ``folder/log.jsonl``. A file that cannot be written never stops a run."""
    handler = _JsonLines(folder / "log.jsonl", encoding="utf-8", delay=True)
    level = _logger.level
    _logger.setLevel(logging.INFO)
    _logger.addHandler(handler)
    try:
        yield
    finally:
        _logger.removeHandler(handler)
        _logger.setLevel(level)
        handler.close()


class _JsonLines(logging.FileHandler):
    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:  # from opening; those of writing end in handleError
            self.handleError(record)

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", record.getMessage()),
            **getattr(record, "fields", {}),
        }
        return json.dumps(line, default=str)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """A full disk has its own message, from the ledger; without the journal the run can go on."""


def check_report(path: Path | None) -> None:
    """Refuse a performance report that could not be written at the end of a long run.

    Raises
    ------
    JobError, StoreError
        When its folder is not there, or cannot be written.
    """
    if path and not path.absolute().parent.is_dir():
        raise JobError(f"--performance-report {path}: no folder {path.absolute().parent}; make it, or name another")
    if path:
        expect_writable(path.absolute().parent, "with --performance-report")


@contextmanager
def report_to(path: Path | None, client: Client) -> Iterator[None]:
    """Write the performance report of what runs inside to ``path``; a report that fails never stops a run."""
    if path is None:
        yield
        return
    with client.as_current():
        report = performance_report(filename=str(path.absolute()))
        report.__enter__()
        try:
            yield
        finally:
            try:
                report.__exit__(None, None, None)
            except Exception as error:  # the scheduler may be gone, the disk full
                journal("performance-report-failed", level=logging.WARNING, error=type(error).__name__)
