"""What the driver tells while it runs: counts to the scheduler's page once a second, events to the journal.

The driver tells, not the workers: it counts what the ledger holds, so a worker's death loses nothing, and the workers
have nothing to do. Each message holds the counts of the whole run, so a lost one does no harm. Nothing here can stop
a run: a scheduler without the page keeps the last messages as events, and no answer is no error.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

from distributed import Client
from tornado.ioloop import PeriodicCallback

from prognosis_dask import __version__
from prognosis_dask.cohort.case import short_hash
from prognosis_dask.execution.journal import journal
from prognosis_dask.execution.tally import Tally
from prognosis_dask.storage.outcome import Outcome

#: Dask's name for the stream of messages.
TOPIC = "prognosis"
#: Seconds between two messages, between two looks at the workers, and at most for one answer.
TELL_EVERY = 1.0
LOOK_EVERY = 5.0
PATIENCE = 5.0


class Watch:
    """One run, from its start to its end; a context manager around it."""

    def __init__(self, client: Client, job: str) -> None:
        self._client = client
        self._job = job
        self._run = uuid.uuid4().hex[:8]
        self._lock = threading.Lock()  # the counts change in the driver's thread, and are told from Dask's
        self._tally: Tally | None = None
        self._phase = "starting"
        self._state = "running"
        self._begun = time.monotonic()
        self._looked = self._begun
        self._workers: set[str] | None = None
        self._callback: PeriodicCallback | None = None

    def __enter__(self) -> Watch:
        journal("run-started", job=self._job, run=self._run, version=__version__)
        with suppress(Exception):
            self._client.loop.add_callback(self._start)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._state = "finished" if kind is None else "stopped"
        if kind is None:
            with suppress(Exception):
                self._client.sync(self._look, callback_timeout=PATIENCE)
        counts = {
            name: {"done": stage.done, "failed": stage.failed, "reused": stage.reused}
            for name, stage in (self._tally.stages if self._tally else {}).items()
        }
        seconds = round(time.monotonic() - self._begun, 3)
        if kind is None:
            journal("run-finished", run=self._run, seconds=seconds, stages=counts)
        else:
            journal(
                "run-stopped", level=logging.ERROR, run=self._run, seconds=seconds, stages=counts, error=kind.__name__
            )
        with suppress(Exception):
            self._client.sync(self._finish, callback_timeout=PATIENCE)

    def phase(self, name: str) -> None:
        """What the run does now; no path and no patient in it."""
        self._phase = name
        journal("phase", run=self._run, name=name)

    def begin(self, tally: Tally) -> None:
        """The cases are known and the stages begin."""
        self._tally = tally
        self.phase("stages")

    def count(self, outcomes: Sequence[Outcome]) -> None:
        """Count outcomes that the ledger has taken, and write those with a problem to the journal."""
        with self._lock:
            if self._tally:
                self._tally.count(outcomes)
        for outcome in outcomes:
            if outcome.problem:
                journal(
                    "case-failed",
                    level=logging.WARNING,
                    run=self._run,
                    stage=outcome.stage,
                    case=short_hash(outcome.case_id),
                    code=outcome.problem.code.value,
                )

    def _message(self) -> dict[str, Any]:
        with self._lock:
            counts = self._tally.snapshot() if self._tally else {}
        return {
            "action": "progress",  # Dask's own page of events expects the key
            "run": self._run,
            "job": self._job,
            "client": self._client.id,
            "state": self._state,
            "phase": self._phase,
            "elapsed": time.monotonic() - self._begun,
            **counts,
        }

    def _start(self) -> None:
        self._callback = PeriodicCallback(self._tick, TELL_EVERY * 1000)
        self._callback.start()

    async def _tick(self) -> None:
        if self._state != "running" and self._callback:
            self._callback.stop()
        with suppress(Exception):
            await asyncio.wait_for(self._tell(), PATIENCE)
        if time.monotonic() - self._looked >= LOOK_EVERY or self._workers is None:
            self._looked = time.monotonic()
            with suppress(Exception):
                await asyncio.wait_for(self._look(), PATIENCE)

    async def _finish(self) -> None:
        if self._callback:
            self._callback.stop()
        await self._tell()

    async def _tell(self) -> None:
        await self._client.scheduler.log_event(topic=TOPIC, msg=self._message())

    async def _look(self) -> None:
        """Write to the journal which workers joined and left since the last look."""
        now = set(await self._client.scheduler.ncores(workers=None))
        before, self._workers = self._workers, now
        for worker in sorted(now - (before or set())):
            journal("worker-joined", run=self._run, worker=worker)
        for worker in sorted((before or set()) - now):
            journal("worker-lost", level=logging.WARNING, run=self._run, worker=worker)
