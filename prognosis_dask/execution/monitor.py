"""One run as others see it: its progress on the terminal, on the scheduler's page and in the journal.

The driver reports, not the workers: it counts what the ledger holds, so a worker's death loses nothing, and the workers
have nothing to do. Each message to the scheduler holds the progress of the whole run, so a lost one does no harm.
Nothing here can stop a run: a scheduler without the page keeps the last messages as events, and no answer is no error.

The journal ``log.jsonl`` holds one JSON object a line. Cases appear in it by their short hash, nothing else: no message
of an exception and no reason of a problem is written, since both may hold a path, and a path a patient's name. They
stand in ``problems.csv``, beside the case.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from distributed import Client, performance_report
from tornado.ioloop import PeriodicCallback
from tqdm import tqdm

from prognosis_dask import __version__
from prognosis_dask.cohort.case import short_hash
from prognosis_dask.errors import JobError
from prognosis_dask.execution.progress import Progress, RunProgress, duration
from prognosis_dask.publish import expect_writable
from prognosis_dask.storage.ledger import TaskResult

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


#: Dask's name for the stream of messages.
TOPIC = "prognosis"
#: Seconds between two messages, between two looks at the workers, and at most for one answer.
SEND_EVERY = 1.0
LOOK_EVERY = 5.0
PATIENCE = 5.0


class RunMonitor:
    """One run, from its start to its end; a context manager around it."""

    def __init__(self, client: Client, job: str) -> None:
        self._client = client
        self._job = job
        self._run = uuid.uuid4().hex[:8]
        self._lock = threading.Lock()  # the progress changes in the driver's thread, and is sent from Dask's
        self._progress: RunProgress | None = None
        self._terminal = TerminalView()
        self._phase = "starting"
        self._state = "running"
        self._begun = time.monotonic()
        self._looked = self._begun
        self._workers: set[str] | None = None
        self._callback: PeriodicCallback | None = None

    def __enter__(self) -> RunMonitor:
        journal("run-started", job=self._job, run=self._run, version=__version__)
        with suppress(Exception):
            self._client.loop.add_callback(self._start)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._state = "finished" if kind is None else "stopped"
        if self._phase == "stages":
            self._end_terminal()
        if kind is None:
            with suppress(Exception):
                self._client.sync(self._look, callback_timeout=PATIENCE)
        counts = {
            name: {"done": stage.done, "failed": stage.failed, "reused": stage.reused}
            for name, stage in (self._progress.stages if self._progress else {}).items()
        }
        seconds = round(self._elapsed(), 3)
        if kind is None:
            journal("run-finished", run=self._run, seconds=seconds, stages=counts)
        else:
            journal(
                "run-stopped", level=logging.ERROR, run=self._run, seconds=seconds, stages=counts, error=kind.__name__
            )
        with suppress(Exception):
            self._client.sync(self._finish, callback_timeout=PATIENCE)

    def phase(self, name: str) -> None:
        """What the run does now, one of :data:`~execution.progress.PHASES`."""
        if self._phase == "stages":
            self._end_terminal()
        self._phase = name
        journal("phase", run=self._run, name=name)

    def begin(self, progress: RunProgress) -> None:
        """The cases are known and the stages begin."""
        progress.begin(self._elapsed())
        self._progress = progress
        self.phase("stages")

    def count(self, results: Sequence[TaskResult], again: Mapping[str, tuple[str, ...]] | None = None) -> None:
        """Count results that the ledger has taken, and write those with a problem to the journal.

        ``again``: as :meth:`RunProgress.count` takes it.
        """
        if self._progress:
            with self._lock:
                now = self._elapsed()
                self._progress.count(results, now, again)
            self._terminal.show(self._progress, now)  # outside the lock: a terminal may take its time
        for result in results:
            if result.problem:
                journal(
                    "case-failed",
                    level=logging.WARNING,
                    run=self._run,
                    stage=result.stage,
                    case=short_hash(result.case_id),
                    code=result.problem.code.value,
                )

    def _elapsed(self) -> float:
        return time.monotonic() - self._begun

    def _end_terminal(self) -> None:
        if self._progress:
            self._terminal.end(self._progress, self._elapsed())

    def _message(self) -> dict[str, Any]:
        with self._lock:
            now = self._elapsed()
            progress = self._progress.snapshot(now) if self._progress else {}
        return {
            "action": "progress",  # Dask's own page of events expects the key
            "run": self._run,
            "job": self._job,
            "client": self._client.id,
            "state": self._state,
            "phase": self._phase,
            "elapsed": now,
            **progress,
        }

    def _start(self) -> None:
        self._callback = PeriodicCallback(self._tick, SEND_EVERY * 1000)
        self._callback.start()

    async def _tick(self) -> None:
        if self._state != "running" and self._callback:
            self._callback.stop()
        with suppress(Exception):
            await asyncio.wait_for(self._send(), PATIENCE)
        if time.monotonic() - self._looked >= LOOK_EVERY or self._workers is None:
            self._looked = time.monotonic()
            with suppress(Exception):
                await asyncio.wait_for(self._look(), PATIENCE)

    async def _finish(self) -> None:
        if self._callback:
            self._callback.stop()
        await self._send()

    async def _send(self) -> None:
        await self._client.scheduler.log_event(topic=TOPIC, msg=self._message())

    async def _look(self) -> None:
        """Write to the journal which workers joined and left since the last look."""
        now = set(await self._client.scheduler.ncores(workers=None))
        before, self._workers = self._workers, now
        for worker in sorted(now - (before or set())):
            journal("worker-joined", run=self._run, worker=worker)
        for worker in sorted((before or set()) - now):
            journal("worker-lost", level=logging.WARNING, run=self._run, worker=worker)


#: Seconds between two updates on a terminal, and between two lines elsewhere (a log file, a batch system).
REDRAW_EVERY = 0.2
LOG_EVERY = 10.0

_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}"


class TerminalView:
    """Shows a progress. On a terminal its lines are redrawn in place, elsewhere printed now and then."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._bars: dict[str, tqdm[Any]] = {}
        self._shown = time.monotonic()

    def show(self, progress: Progress, now: float) -> None:
        """Show the progress, unless it was shown a moment ago; ``now`` by its history's clock."""
        if time.monotonic() - self._shown >= (REDRAW_EVERY if self._live else LOG_EVERY):
            self._show(progress, now)

    def end(self, progress: Progress, now: float) -> None:
        """Show the progress for the last time."""
        self._show(progress, now)
        for bar in self._bars.values():
            bar.close()

    def _show(self, progress: Progress, now: float) -> None:
        self._shown = time.monotonic()
        if self._live:
            for row, stage in enumerate(progress.stages):
                self._draw(row, stage, progress, now)
        elif lines := [_line(stage, progress, now) for stage, counts in progress.stages.items() if counts.total]:
            print("  ".join(lines), file=self._stream, flush=True)

    def _draw(self, row: int, stage: str, progress: Progress, now: float) -> None:
        if stage not in self._bars:
            self._bars[stage] = tqdm(
                total=progress.stages[stage].total,
                desc=f"{stage:>10}",
                position=row,
                file=self._stream,
                dynamic_ncols=True,
                bar_format=_BAR,
            )
        bar, counts = self._bars[stage], progress.stages[stage]
        failed = [f"{counts.failed} failed"] if counts.failed else []
        bar.n, bar.total = counts.done + counts.failed, counts.total
        bar.set_postfix_str(", ".join([*failed, *_speed(stage, progress, now)]))


def _line(stage: str, progress: Progress, now: float) -> str:
    counts = progress.stages[stage]
    failed = f" ({counts.failed} failed)" if counts.failed else ""
    count = f"{stage} {counts.done + counts.failed}/{counts.total}{failed}"
    return " ".join([count, ", ".join(_speed(stage, progress, now))]).rstrip()


def _speed(stage: str, progress: Progress, now: float) -> list[str]:
    """The rate and, where cases wait, the time left; nothing while they cannot be told."""
    rate, left = progress.rate(stage, now), progress.seconds_left(stage, now)
    waiting = progress.stages[stage].waiting
    return [
        *([f"{rate:.1f}/s"] if rate else []),
        *([f"{duration(left)} left"] if waiting and left is not None else []),
    ]
