"""What the scheduler remembers of the runs that it serves, the last message of each, and tells Prometheus of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from distributed import Scheduler, SchedulerPlugin

from prognosis_dask.execution.monitor import TOPIC

if TYPE_CHECKING:
    from prometheus_client.core import GaugeMetricFamily

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


_RUN = ["run", "job"]


class RunCollector:
    """The runs' numbers as gauges, among those that Dask's scheduler serves under ``/metrics``.

    Reads the plugins of this process's schedulers (one, outside of tests) when Prometheus asks.
    """

    def __init__(self) -> None:
        self.plugins: WeakSet[ProgressPlugin] = WeakSet()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Called by the Prometheus client for every request."""
        gauges = _Gauges()
        for plugin in list(self.plugins):
            running = plugin.running_tasks()
            for stage in {stage for run in plugin.runs.values() for stage in run.stages}:
                gauges.tasks.add_metric([stage], running[stage])
            for name, run in plugin.runs.items():
                gauges.add(name, run)
        yield from gauges.families()


class _Gauges:
    def __init__(self) -> None:
        from prometheus_client.core import GaugeMetricFamily as family

        self.active = family("prognosis_run_active", "1 while the run goes on", labels=_RUN)
        self.elapsed = family("prognosis_run_seconds", "Seconds since the run began", labels=_RUN)
        self.patients = family("prognosis_patients", "Patients of the run", labels=[*_RUN, "state"])
        self.per_minute = family("prognosis_patients_per_minute", "Patients finished per minute, of late", labels=_RUN)
        self.cases = family("prognosis_cases", "Cases of a stage", labels=[*_RUN, "stage", "state"])
        self.rate = family("prognosis_cases_per_minute", "Cases per minute, of late", labels=[*_RUN, "stage"])
        self.left = family("prognosis_seconds_left", "Seconds until the stage is through", labels=[*_RUN, "stage"])
        self.steps = family("prognosis_step_seconds", "Workers' seconds by step", labels=[*_RUN, "stage", "step"])
        self.tasks = family("prognosis_running_tasks", "Tasks on the workers now", labels=["stage"])

    def families(self) -> list[GaugeMetricFamily]:
        return list(vars(self).values())

    def add(self, name: str, run: RunView) -> None:
        labels = [name, str(run.message["job"])]
        self.active.add_metric(labels, run.active)
        self.elapsed.add_metric(labels, run.elapsed)
        if not run.stages:
            return
        patients = run.patients
        self.patients.add_metric([*labels, "done"], patients["done"])
        self.patients.add_metric([*labels, "waiting"], patients["total"] - patients["done"])
        if run.active and patients["rate"]:
            self.per_minute.add_metric(labels, 60.0 * patients["rate"])
        for name, stage in run.stages.items():
            self._add_stage([*labels, name], stage, active=run.active)

    def _add_stage(self, labels: list[str], stage: Mapping[str, Any], *, active: bool) -> None:
        for state in ("done", "failed", "reused", "waiting"):
            self.cases.add_metric([*labels, state], stage[state])
        if active and stage["rate"]:
            self.rate.add_metric(labels, 60.0 * stage["rate"])
        if stage["left"] is not None and (active or not stage["waiting"]):
            self.left.add_metric(labels, stage["left"])
        for step, seconds in stage["seconds"].items():
            self.steps.add_metric([*labels, step], seconds)


_COLLECTOR = RunCollector()


def offer(plugin: ProgressPlugin) -> None:
    """Let ``/metrics`` show what the plugin knows."""
    from prometheus_client import REGISTRY

    if not _COLLECTOR.plugins:
        REGISTRY.register(_COLLECTOR)
    _COLLECTOR.plugins.add(plugin)
