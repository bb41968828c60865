"""Whether the cluster is still there: a scheduler that answers, workers that are connected."""

from __future__ import annotations

import time
from typing import Any

from distributed import Client

from prognosis_dask.errors import ClusterError

#: Seconds in which a scheduler that was lost may come back; the client connects again by itself.
RECONNECT_SECONDS = 30.0
_PAUSE = 0.5


class ClusterHealth:
    """Looks at the cluster while the runner waits. Dask alone would wait for ever for a result that cannot come."""

    def __init__(self, client: Client, workers_wait_s: float) -> None:
        """``workers_wait_s``: seconds that the run waits for a worker when it has none; 0: for ever."""
        self._client = client
        self._workers_wait_s = workers_wait_s or float("inf")
        self._address = client.scheduler.address
        self._scheduler = self._identity()["id"]
        self._seen_workers = time.monotonic()

    def seen_at_work(self) -> None:
        """A task has come back, so there were workers until now: the wait for one begins anew."""
        self._seen_workers = time.monotonic()

    def check(self) -> None:
        """Return when all is well, or is well again after a moment.

        Raises
        ------
        ClusterError
            When the scheduler is gone or was started anew, or no worker came for too long.
        """
        found = self._identity()
        # a scheduler that was started again knows none of our tasks: their results can never arrive
        if found["id"] != self._scheduler:
            raise ClusterError(f"the scheduler at {self._address} was started anew{_GO_ON}")
        if found["n_workers"]:
            self._seen_workers = time.monotonic()
        elif time.monotonic() - self._seen_workers > self._workers_wait_s:
            raise ClusterError(
                f"the scheduler at {self._address} has had no worker for {self._workers_wait_s:g} s "
                f"(run.workers_wait_s){_GO_ON}"
            )

    def _identity(self) -> dict[str, Any]:
        deadline = time.monotonic() + RECONNECT_SECONDS
        while True:
            if self._client.status in ("closed", "closing"):
                raise ClusterError(f"the scheduler at {self._address} is gone{_GO_ON}")
            try:
                found: dict[str, Any] = self._client.sync(
                    self._client.scheduler.identity, n_workers=0, callback_timeout=RECONNECT_SECONDS
                )
            except (OSError, AttributeError) as error:  # AttributeError: the client is between two connections
                if time.monotonic() > deadline:
                    raise ClusterError(
                        f"the scheduler at {self._address} does not answer any more ({error}){_GO_ON}"
                    ) from error
                time.sleep(_PAUSE)
            else:
                if self._client.status == "running":
                    return found
                time.sleep(_PAUSE)


_GO_ON = ". Finished work is kept; start or repair it and run the same command again"
