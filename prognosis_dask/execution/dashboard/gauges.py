"""The runs' numbers as Prometheus gauges, among those that Dask's scheduler serves under ``/metrics``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from weakref import WeakSet

from prometheus_client import REGISTRY
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from prognosis_dask.execution.dashboard.plugin import ProgressPlugin, RunView

_RUN = ["run", "job"]


class RunCollector(Collector):  # type: ignore[misc]
    """Reads the plugins of this process's schedulers (one, outside of tests) when Prometheus asks."""

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
        family = GaugeMetricFamily
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
    if not _COLLECTOR.plugins:
        REGISTRY.register(_COLLECTOR)
    _COLLECTOR.plugins.add(plugin)
