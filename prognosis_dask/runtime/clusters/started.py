"""A scheduler in this process, with the workers that a kind of cluster asks for."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any

import dask
import psutil
from dask.utils import parse_bytes
from distributed import Client, Scheduler, Security, SpecCluster

from prognosis_dask.errors import ClusterError
from prognosis_dask.runtime.clusters.security import free_dashboard, websocket_origins
from prognosis_dask.runtime.clusters.steady_nanny import SteadyNanny

#: Modules that a scheduler loads when a kind of cluster here starts it, whether in this process or on another host:
#: the place for pages on its dashboard and for scheduler plugins. See ``dask scheduler --preload``.
SCHEDULER_PRELOAD: tuple[str, ...] = ("prognosis_dask.runtime.dashboard",)


@contextmanager
def started(
    workers: Mapping[str, Mapping[str, Any]],
    *,
    host: str,
    dashboard: str,
    security: Security | None,
    scheduler_options: Mapping[str, Any] | None = None,
) -> Iterator[Client]:
    """A client of a new scheduler on ``host`` and these workers, all of them ended with the block.

    Raises
    ------
    ClusterError
        When a worker does not start, or the host is none of this machine's.
    """
    dashboard = free_dashboard(dashboard)
    _start_tracker()
    scheduler = {
        "cls": Scheduler,
        "options": {
            "host": host,
            "port": 0,
            "dashboard_address": dashboard,
            "security": security,
            "protocol": "tls://" if security else "tcp://",
            **(scheduler_options or {}),
        },
    }
    with dask.config.set(dashboard_config(dashboard)):
        try:
            cluster = SpecCluster(
                workers=dict(workers), scheduler=scheduler, security=security, silence_logs=logging.CRITICAL
            )
        except (OSError, RuntimeError) as error:
            first: BaseException = error
            while first.__cause__:
                first = first.__cause__
            raise ClusterError(f"the cluster did not start on {host}: {first}") from error
        with cluster, Client(cluster) as client:
            yield client


def _start_tracker() -> None:
    """Start multiprocessing's tracker of semaphores, if there is none, so that it tidies up without a word.

    Where this process ends in a hurry (Ctrl-C), it would warn of what it removes.
    """
    silently = "ignore::UserWarning:multiprocessing.resource_tracker"
    sys.warnoptions.append(silently)  # it is started with the options of this process
    try:
        resource_tracker.ensure_running()
    finally:
        sys.warnoptions.remove(silently)


def dashboard_config(dashboard: str) -> dict[str, Any]:
    """Dask's configuration of a scheduler that is started here: its dashboard's origins, its preload modules."""
    return {
        "distributed.scheduler.dashboard.bokeh-application.allow_websocket_origin": websocket_origins(dashboard),
        "distributed.scheduler.preload": list(SCHEDULER_PRELOAD),
    }


def worker_process(*, host: str, memory_limit: int, security: Security | None, **options: Any) -> dict[str, Any]:
    """A worker process of one thread, kept alive by a nanny, with nothing that listens beyond ``host``."""
    return {
        "cls": SteadyNanny,
        "options": {
            "host": host,
            "nthreads": 1,
            "memory_limit": memory_limit,
            "dashboard_address": f"{host}:0",
            "silence_logs": logging.CRITICAL,
            "preload_nanny": ["prognosis_dask.runtime.clusters.uninterrupted"],
            "security": security,
            "protocol": "tls://" if security else "tcp://",
            **options,
        },
    }


def fitting_workers(memory: str, cores: int, *, beside: int = 0) -> int:
    """How many workers of this memory fit on the cores and into the free memory that others, in bytes, leave."""
    free = max(0, psutil.virtual_memory().available - beside)
    return max(1, min(cores, int(free // parse_bytes(memory))))
