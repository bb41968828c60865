"""What the scheduler remembers of the runs that it serves: the last message of each of a few runs."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from distributed import Scheduler, SchedulerPlugin

from prognosis_dask.execution.monitor import TOPIC

#: Runs that are remembered; the oldest goes first.
MAX_RUNS = 8
#: Seconds without a message after which the driver is called silent.
SILENT = 15.0


class RunView:
    """The last message of a run (see :meth:`~execution.progress.RunProgress.snapshot`), and when it came."""

    def __init__(self, message: dict[str, Any]) -> None:
        self.driver_left = False
        self.update(message)

    def update(self, message: dict[str, Any]) -> None:
        """Take the next message."""
        self.message, self.heard = message, time.monotonic()

    @property
    def stages(self) -> dict[str, dict[str, Any]]:
        """Per stage its counts, rate and time left; empty before the stages begin."""
        stages: dict[str, dict[str, Any]] = self.message.get("stages", {})
        return stages

    @property
    def patients(self) -> dict[str, Any]:
        """Patients in total, done, and reused from an earlier run, and how fast they finish; once the stages begin."""
        patients: dict[str, Any] = self.message["patients"]
        return patients

    @property
    def elapsed(self) -> float:
        """Seconds since the run began, by the driver's clock and, since the last message, by this one."""
        since = time.monotonic() - self.heard if self.active else 0.0
        return float(self.message["elapsed"]) + since

    @property
    def active(self) -> bool:
        """Whether the run goes on."""
        return self.message["state"] == "running" and not self.driver_left

    @property
    def silent(self) -> bool:
        """Whether the driver should have spoken and did not."""
        return self.active and time.monotonic() - self.heard > SILENT


class ProgressPlugin(SchedulerPlugin):  # type: ignore[misc]
    """Listens on the scheduler to the drivers of runs. What it cannot understand it leaves alone."""

    name = "prognosis-progress"

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.runs: dict[str, RunView] = {}

    def log_event(self, topic: str, msg: Any) -> None:
        """Called by Dask with every event."""
        if topic != TOPIC or not isinstance(msg, dict) or not {"run", "job", "state", "elapsed"} <= msg.keys():
            return
        if msg["run"] in self.runs:
            self.runs[msg["run"]].update(msg)
            return
        self.runs[msg["run"]] = RunView(msg)
        while len(self.runs) > MAX_RUNS:
            del self.runs[next(iter(self.runs))]

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """Called by Dask when a client leaves: a driver that was killed takes no leave."""
        for run in self.runs.values():
            if run.message.get("client") == client and run.message["state"] == "running":
                run.driver_left = True

    def latest(self) -> RunView | None:
        """The run to show: the last one that goes on, else the last one."""
        runs = list(self.runs.values())
        return next((run for run in reversed(runs) if run.active), runs[-1] if runs else None)

    def running_tasks(self) -> Counter[str]:
        """Tasks on the workers at this moment (as of their last heartbeats), by stage."""
        return Counter(
            task.prefix.name for worker in self.scheduler.workers.values() for task in list(worker.executing)
        )

    def gpus(self) -> list[dict[str, Any]]:
        """Per worker with a GPU: its name, busy percent, and memory used and there, in bytes."""
        found = []
        for worker in self.scheduler.workers.values():
            use, card = worker.metrics.get("gpu"), (worker.extra or {}).get("gpu", {})
            if use:
                found.append(
                    {
                        "worker": str(worker.name),
                        "card": card.get("name", "GPU"),
                        "busy": use.get("utilization", 0),
                        "used": use.get("memory-used", 0),
                        "memory": card.get("memory-total", 0),
                    }
                )
        return found
