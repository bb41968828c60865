"""What the scheduler remembers of the runs that it serves: a few runs, and a bounded history of each."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from itertools import pairwise
from typing import Any

from distributed import Scheduler, SchedulerPlugin

from prognosis_dask.execution.watch import TOPIC

#: Runs that are remembered; the oldest goes first.
MAX_RUNS = 8
#: Points of a run's history. The latest stay one message apart, older ones are thinned out.
MAX_POINTS = 600
FRESH_POINTS = 120
#: Seconds over which a rate is taken: the shortest of these in which enough was finished to speak of a rate.
WINDOWS = (60.0, 600.0, float("inf"))
ENOUGH = 10
#: A rate over less than this says nothing.
SHORTEST = 5.0
#: Bars of the plot over time, and the fewest seconds of one.
BINS = 60
SHORTEST_BIN = 10.0
#: Seconds without a message after which the driver is called silent.
SILENT = 15.0


class History:
    """Cumulative counts over time, by name; thinned as it grows, so that a run of any length fits."""

    def __init__(self) -> None:
        self._points: list[tuple[float, dict[str, int]]] = []

    def add(self, at: float, counts: dict[str, int]) -> None:
        """Add a point. Nothing is kept of the time in which nothing changed but its two ends."""
        if len(self._points) > 1 and self._points[-1][1] == counts == self._points[-2][1]:
            self._points.pop()
        self._points.append((at, counts))
        if len(self._points) > MAX_POINTS:
            self._points = self._points[:-FRESH_POINTS:2] + self._points[-FRESH_POINTS:]

    def rate(self, name: str, now: float) -> float | None:
        """Finished per second of late, None where that cannot be told yet.

        Counted from the first message in which something was finished, since a stage may begin late.
        """
        points = [(at, counts[name]) for at, counts in self._points if counts.get(name)]
        if not points:
            return None
        times = [at for at, _ in points]
        for window in WINDOWS:
            at, count = points[min(bisect_left(times, now - window), len(points) - 1)]
            finished = points[-1][1] - count
            if finished >= ENOUGH or window == WINDOWS[-1]:
                break
        return finished / (now - at) if finished and now - at >= SHORTEST else None

    def per_minute(self, name: str) -> tuple[list[float], list[float]]:
        """Finished per minute over time: the edges of the bars, in seconds, and one value less."""
        points = [(at, counts.get(name, 0)) for at, counts in self._points]
        if len(points) < 2:
            return [], []
        begin, end = points[0][0], points[-1][0]
        width = max(SHORTEST_BIN, (end - begin) / BINS)
        edges = [begin]
        while edges[-1] + width <= end + 1e-9:
            edges.append(edges[-1] + width)
        counts = [_at(points, edge) for edge in edges]
        return edges, [60.0 * (after - before) / width for before, after in pairwise(counts)]


def _at(points: list[tuple[float, int]], at: float) -> float:
    """The count at a time, on the straight line between two points."""
    after = min(bisect_left(points, (at, 0)), len(points) - 1)
    (t1, c1), (t0, c0) = points[after], points[max(0, after - 1)]
    return c1 if t1 <= t0 else c0 + (c1 - c0) * min(1.0, max(0.0, (at - t0) / (t1 - t0)))


class RunView:
    """The last message of a run, and its history."""

    def __init__(self, message: dict[str, Any]) -> None:
        self.history = History()
        self.driver_left = False
        self.message: dict[str, Any] = {}
        self.heard = 0.0
        self.hear(message)

    def hear(self, message: dict[str, Any]) -> None:
        """Take the next message."""
        self.message, self.heard = message, time.monotonic()
        if self.stages:
            counts = {name: stage["done"] + stage["failed"] for name, stage in self.stages.items()}
            counts[PATIENTS] = self.patients["done"] - self.patients["reused"]
            self.history.add(float(message["elapsed"]), counts)

    @property
    def stages(self) -> dict[str, dict[str, Any]]:
        """Per stage the counts of :class:`~execution.tally.StageTally`; empty before the stages begin."""
        stages: dict[str, dict[str, Any]] = self.message.get("stages", {})
        return stages

    @property
    def patients(self) -> dict[str, int]:
        """Patients in total, done, and reused from an earlier run."""
        patients: dict[str, int] = self.message.get("patients", {"total": 0, "done": 0, "reused": 0})
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

    def waiting(self, stage: str) -> int:
        """Cases that the stage has still to finish."""
        counts = self.stages[stage]
        return max(0, int(counts["total"] - counts["done"] - counts["failed"]))

    def rate(self, name: str) -> float | None:
        """Cases of a stage, or patients, per second."""
        return self.history.rate(name, self.elapsed) if self.active else None

    def seconds_left(self, stage: str) -> float | None:
        """When the stage will be through at its present rate, but not before the first stage is."""
        first = next(iter(self.stages))
        left = []
        for name in {first, stage}:
            waiting, rate = self.waiting(name), self.rate(name)
            if waiting and not rate:
                return None
            left.append(waiting / rate if rate else 0.0)
        return max(left)


#: The patients' name among the counts of a history; no stage is called so.
PATIENTS = "(patients)"


class Board(SchedulerPlugin):  # type: ignore[misc]
    """Listens on the scheduler to the drivers of runs. What it cannot understand it leaves alone."""

    name = "prognosis-board"

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.runs: dict[str, RunView] = {}

    def log_event(self, topic: str, msg: Any) -> None:
        """Called by Dask with every event."""
        if topic != TOPIC or not isinstance(msg, dict) or not {"run", "job", "state", "elapsed"} <= msg.keys():
            return
        if msg["run"] in self.runs:
            self.runs[msg["run"]].hear(msg)
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
