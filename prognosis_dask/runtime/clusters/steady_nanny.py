"""A nanny whose worker may die at any moment, also while it starts."""

from __future__ import annotations

import asyncio
from typing import Any

from distributed import Nanny, Status

#: How often a worker that dies while it starts is started in a row; one that never lives is a cluster that does not.
STARTS = 3


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
                if status == Status.running or self.status in (Status.closing, Status.closed, Status.failed):
                    break
                status = await super().instantiate()
        if self.status == Status.init and status != Status.running:
            raise RuntimeError(f"a worker died {STARTS} times while it started (memory?)")
        return status
