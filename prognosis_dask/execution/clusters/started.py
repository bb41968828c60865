"""A scheduler in this process and worker processes on this machine: how they start, restart and end.

This module is also a preload of the workers' nannies (:func:`dask_setup`).
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import active_children, resource_tracker
from pathlib import Path
from typing import Any

import dask
import psutil
from dask.utils import parse_bytes
from distributed import Client, Nanny, Scheduler, Security, SpecCluster, Status

from prognosis_dask.errors import ClusterError, import_extra
from prognosis_dask.execution.clusters import Encryption, HostPort

# What keeps others off a cluster. Whoever reaches a Dask scheduler's port, and holds a certificate where it asks for
# one, runs code on every worker as the user who started it: there are no users and no passwords in between.


def security(tls: Encryption, *, one_host: bool, kind: str) -> Security | None:
    """The certificates that scheduler, workers and client use, or None for plain ``tcp://``.

    Raises
    ------
    ClusterError
        When a certificate's file is missing, or a temporary set is asked for where workers are on other hosts.
    MissingExtraError
        When the package that makes a temporary set is not installed.
    """
    if not tls.enabled:
        return None
    files = {"tls.ca": tls.ca, "tls.cert": tls.cert, "tls.key": tls.key}
    if not any(files.values()):
        if not one_host:
            raise ClusterError(
                f"a temporary set of certificates works on one host only; kind {kind} needs ca, cert and key in the "
                "[tls] section of a cluster file (cluster/README.md says how to make them)"
            )
        import_extra("cryptography", extra="tls", feature="a temporary set of certificates (--tls)")
        return Security.temporary()
    for key, path in files.items():
        if not Path(path).is_file():
            raise ClusterError(f"{key}: no file at {path!r}; expected a PEM file" + ("" if path else ", all three"))
    roles = {f"tls_{role}_{part}": files[f"tls.{part}"] for role in _ROLES for part in ("cert", "key")}
    return Security(require_encryption=True, tls_ca_file=tls.ca, **roles)


_ROLES = ("scheduler", "worker", "client")


def tls_config(tls: Encryption) -> dict[str, Any]:
    """The same as Dask's configuration, for processes that are started on other hosts and read the files there."""
    if not tls.enabled:
        return {}
    config: dict[str, Any] = {"distributed.comm.require-encryption": True, "distributed.comm.tls.ca-file": tls.ca}
    for role in _ROLES:
        config[f"distributed.comm.tls.{role}.cert"] = tls.cert
        config[f"distributed.comm.tls.{role}.key"] = tls.key
    return config


def websocket_origins(dashboard: str) -> list[str]:
    """Who may open the dashboard's websocket: pages served from it itself, by its own name or through a tunnel.

    Bokeh compares the browser's Origin header; ``*`` would let any web page that the user visits read the cluster's
    state through the user's own browser.

    >>> websocket_origins("127.0.0.1:8787")
    ['localhost:8787', '127.0.0.1:8787']
    >>> websocket_origins("10.0.0.7:8787")
    ['localhost:8787', '127.0.0.1:8787', '10.0.0.7:8787']
    """
    host, _, port = dashboard.rpartition(":")
    names = ["localhost", "127.0.0.1"]
    if host in ("", "0.0.0.0"):
        names.append(socket.gethostname())
    elif host not in names:
        names.append(host)
    return [f"{name}:{port}" for name in names]


def free_dashboard(address: str) -> str:
    """The address itself when its port is free, else the same host with one that is.

    Raises
    ------
    ClusterError
        When it is not HOST:PORT, or the host is none of this machine's.
    """
    host, _, port = address.rpartition(":")
    if not HostPort().holds(address):
        raise ClusterError(f"dashboard is {address!r}, expected {HostPort.expected}")
    for candidate in (int(port), 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, candidate))
            except OSError as error:
                reason = error
            else:
                return f"{host}:{probe.getsockname()[1]}"
    raise ClusterError(f"dashboard: cannot listen on {address} ({reason}); its host must be one of this machine's")


#: Modules that a scheduler loads when a kind of cluster here starts it, whether in this process or on another host:
#: the place for pages on its dashboard and for scheduler plugins. See ``dask scheduler --preload``.
SCHEDULER_PRELOAD: tuple[str, ...] = ("prognosis_dask.execution.dashboard",)
#: How often a worker that dies while it starts is started in a row, before the cluster is given up.
STARTS = 3
#: Seconds that a process which is being started may take to receive its instructions.
INSTRUCTION_SECONDS = 5.0
#: Seconds that a connection of this machine to itself may take.
_REACHED_SECONDS = 10.0

_ending = threading.Event()


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
        When a worker does not start, the host is none of this machine's, or each worker would run the caller's script.
    """
    _expect_guard()
    dashboard = free_dashboard(dashboard)
    _start_tracker()
    _expect_semaphores()
    _expect_reachable(host)
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
    """Start multiprocessing's tracker of semaphores, if there is none, without its warnings.

    Where this process ends in a hurry (Ctrl-C), it would warn of what it removes.
    """
    silently = "ignore::UserWarning:multiprocessing.resource_tracker"
    sys.warnoptions.append(silently)  # it is started with the options of this process
    try:
        resource_tracker.ensure_running()
    finally:
        sys.warnoptions.remove(silently)


def _expect_guard() -> None:
    """Each worker process imports the script that starts it, which would start workers again if nothing keeps it."""
    main = sys.modules["__main__"]
    script, name = getattr(main, "__file__", None), getattr(getattr(main, "__spec__", None), "name", "")
    if not script or f".{name}".endswith(".__main__"):  # a prompt, a notebook; `python -m PACKAGE` is not imported
        return
    try:
        guarded = b"__main__" in Path(script).read_bytes()
    except OSError:  # nothing that a worker could import either
        return
    if not guarded:
        raise ClusterError(
            f"{script} would be run again by each worker that it starts: put its calls below a line "
            '`if __name__ == "__main__":`'
        )


def _expect_semaphores() -> None:
    """Refuse a machine where no worker process could start: a container without a writable /dev/shm."""
    try:
        multiprocessing.get_context("spawn").Lock()
    except OSError as error:
        raise ClusterError(
            f"no worker process can start: the system gives no semaphore ({error.strerror}). In a container, mount a "
            "writable /dev/shm (a tmpfs)"
        ) from error


def _expect_reachable(host: str) -> None:
    """Refuse a host that this machine does not reach itself at, where Dask would try for more than a minute."""
    try:
        family = socket.getaddrinfo(host, None)[0][0]
        with socket.create_server((host, 0), family=family) as server:
            address = server.getsockname()[:2]
            socket.create_connection(address, timeout=_REACHED_SECONDS).close()
    except OSError as error:
        advice = ": bring the loopback interface up (ip link set lo up)" if host == "127.0.0.1" else ""
        raise ClusterError(
            f"the cluster cannot start on {host}: this machine does not reach itself there ({error}){advice}"
        ) from error


def dashboard_config(dashboard: str) -> dict[str, Any]:
    """Dask's configuration of a scheduler that is started here: its dashboard's origins, its preload modules."""
    return {
        "distributed.scheduler.dashboard.bokeh-application.allow_websocket_origin": websocket_origins(dashboard),
        "distributed.scheduler.preload": list(SCHEDULER_PRELOAD),
    }


def fitting_workers(memory: str, cores: int, *, beside: int = 0) -> int:
    """How many workers of this memory fit on the cores and into the free memory that others, in bytes, leave."""
    free = max(0, psutil.virtual_memory().available - beside)
    return max(1, min(cores, int(free // parse_bytes(memory))))


def worker_process(*, host: str, memory_limit: int, security: Security | None, **options: Any) -> dict[str, Any]:
    """A worker process of one thread, restarted by a nanny, with nothing that listens beyond ``host``."""
    return {
        "cls": OneAtATimeNanny,
        "options": {
            "host": host,
            "nthreads": 1,
            "memory_limit": memory_limit,
            "dashboard_address": f"{host}:0",
            "silence_logs": logging.CRITICAL,
            "preload_nanny": [__name__],
            "security": security,
            "protocol": "tls://" if security else "tcp://",
            **options,
        },
    }


class OneAtATimeNanny(Nanny):  # type: ignore[misc]
    """Starts one worker process after the other, never two at once.

    Where a worker dies while it starts, Dask before 2026.8 starts the next one while it still waits for the first. Then
    one of the two takes the message that is for the other, and the nanny waits for ever, and with it the start or the
    end of its cluster.
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
                if self._ends() or status == Status.running:
                    break
                status = await super().instantiate()
        if self.status == Status.init and status != Status.running:
            raise RuntimeError(f"a worker died {STARTS} times while it started (memory?)")
        return status

    async def kill(self, timeout: float = 5, reason: str = "nanny-kill") -> None:
        """End the worker process.

        On a busy machine one that was killed takes its time to go. At the end of its cluster that is no error, which
        would end a run after its last result.

        Raises
        ------
        TimeoutError
            When the process is still there, and another one is to be started.
        """
        try:
            await super().kill(timeout, reason)
        except TimeoutError:
            if not self._ends():
                raise

    def _ends(self) -> bool:
        return _ending.is_set() or self.status in (Status.closing, Status.closed, Status.failed)


def dask_setup(nanny: Nanny) -> None:
    """Called by Dask on the thread that starts the workers: keep Ctrl-C from them.

    On a terminal the signal reaches every process of the run, and each worker would answer it with a traceback. It is
    for the driver, which then ends the workers. They inherit what this thread blocks, from their first moment on.
    """
    resource_tracker.ensure_running()  # its start, which comes with that of the first process, would unblock the signal
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def end_workers() -> None:
    """Kill this process's workers and start no more: for a process that is about to end at once.

    A worker that has only just been started, and still reads its instructions, would answer that with a traceback.
    """
    _ending.set()
    deadline = time.monotonic() + INSTRUCTION_SECONDS
    while _uninstructed() and time.monotonic() < deadline:
        time.sleep(0.01)
    for worker in active_children():
        worker.kill()


def _uninstructed() -> set[int]:
    """Processes that are being started: multiprocessing lists a child once it has its instructions."""
    children = psutil.Process().children()
    instructed = {child.pid for child in active_children()}
    return {child.pid for child in children if child.pid not in instructed and not _is_tracker(child)}


def _is_tracker(child: psutil.Process) -> bool:
    try:
        return any("resource_tracker" in argument for argument in child.cmdline())
    except psutil.Error:
        return True  # gone
