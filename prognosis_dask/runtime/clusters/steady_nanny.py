"""A nanny whose worker may die at any moment, also while it starts."""

from __future__ import annotations

import asyncio
import threading
import time
from multiprocessing import active_children
from typing import Any

import psutil
from distributed import Nanny, Status

#: How often a worker that dies while it starts is started in a row; one that never lives is a cluster that does not.
STARTS = 3
#: Seconds that a process which is being started may take to be told what it is for.
TOLD_SECONDS = 5.0

_ending = threading.Event()


class SteadyNanny(Nanny):  # type: ignore[misc]
    """Starts one worker process after the other.

    Where a worker dies while it starts, Dask before 2026.8 starts the next one while it still waits for the first, and
    of the two that wait one takes the message that is for the other: the nanny waits for ever, and with it the start or
    the end of its cluster.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._one_at_a_time = asyncio.Lock()

    async def instantiate(self) -> Status:
        """Start the worker process, unless one runs; where it dies on the way, another one.

        Raises
        ------
        RuntimeError
            When the nanny itself is starting, and no worker lives.
        """
        status = Status.init
        async with self._one_at_a_time:
            for _ in range(STARTS):
                ended = _ending.is_set() or self.status in (Status.closing, Status.closed, Status.failed)
                if ended or status == Status.running:
                    break
                status = await super().instantiate()
        if self.status == Status.init and status != Status.running:
            raise RuntimeError(f"a worker died {STARTS} times while it started (memory?)")
        return status


def end_workers() -> None:
    """Kill this process's workers and start no more: for a process that is about to end without a word.

    A worker that has only just been started, and reads what it is for, would answer that end with a traceback.
    """
    _ending.set()
    deadline = time.monotonic() + TOLD_SECONDS
    while _untold() and time.monotonic() < deadline:
        time.sleep(0.01)
    for worker in active_children():
        worker.kill()


def _untold() -> set[int]:
    """Processes that are being started: multiprocessing lists a child when it has been told all."""
    children = psutil.Process().children()
    told = {child.pid for child in active_children()}
    return {child.pid for child in children if child.pid not in told and not _is_tracker(child)}


def _is_tracker(child: psutil.Process) -> bool:
    try:
        return any("resource_tracker" in argument for argument in child.cmdline())
    except psutil.Error:
        return True  # gone
