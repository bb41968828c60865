"""``log.jsonl``: what happened in a run, one JSON object a line. Cases appear by their short hash, nothing else.

No message of an exception and no reason of a problem is written, since both may hold a path, and a path a patient's
name. They stand in ``problems.csv``, beside the case.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

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
