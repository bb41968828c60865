"""Real `dask scheduler` and `dask worker` processes for the tests, ended with the block."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import psutil

ROOT = Path(__file__).parents[1]
Found = TypeVar("Found")
#: Seconds that anything is waited for, however much else the machine has to do; below pytest's own limit.
PATIENCE = 900.0


@contextmanager
def process(
    *command: str | Path,
    prefix: Sequence[str] = (),
    log: Path | None = None,
    environment: Mapping[str, str] = os.environ,
    folder: Path = ROOT,
) -> Iterator[subprocess.Popen]:
    """`python -m` the command, in the checkout; the whole tree of processes is ended with the block."""
    environment = {**environment, "PYTHONPATH": os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])}
    stream = log.open("w") if log else subprocess.DEVNULL
    started = subprocess.Popen(
        [*prefix, sys.executable, "-m", *map(str, command)], env=environment, cwd=folder, stdout=stream, stderr=stream
    )
    try:
        yield started
    finally:
        if started.poll() is None:
            kill_tree(started.pid)
        started.wait()
        if log:
            stream.close()


def kill_tree(pid: int) -> None:
    """Kill a process and all below it, as when its machine is taken away."""
    root = psutil.Process(pid)
    for one in [root, *root.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):  # some end with their parent
            one.kill()


@contextmanager
def scheduler(file: Path, *options: str | Path, prefix: Sequence[str] = ()) -> Iterator[str]:
    """The address of a scheduler that writes this scheduler file."""
    arguments = ("--port", "0", "--scheduler-file", file, *options)
    host = () if "--host" in options else ("--host", "127.0.0.1")
    dashboard = () if "--dashboard-address" in options else ("--dashboard-address", "127.0.0.1:0")
    with process("distributed.cli.dask_scheduler", *arguments, *host, *dashboard, prefix=prefix):
        wait_for(lambda: file.exists() and file.read_text())
        yield json.loads(file.read_text())["address"]


@contextmanager
def worker(file: Path, *options: str | Path, prefix: Sequence[str] = ()) -> Iterator[subprocess.Popen]:
    """A worker of one thread that finds its scheduler by the file."""
    host = () if "--host" in options else ("--host", "127.0.0.1")
    # without this a worker answers /health and /metrics on every interface
    dashboard = () if "--dashboard-address" in options else ("--dashboard-address", "127.0.0.1:0")
    arguments = ("--scheduler-file", file, "--nthreads", "1", "--no-dashboard", *dashboard, *host, *options)
    with process("distributed.cli.dask_worker", *arguments, prefix=prefix) as started:
        yield started


def wait_for(condition: Callable[[], Found], seconds: float = PATIENCE) -> Found:
    """Until it holds, and what it gave."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return found


def when(condition: Callable[[], object], act: Callable[[], object]) -> threading.Thread:
    """Wait for the condition and act, beside what the test does; to be joined."""

    def watch() -> None:
        wait_for(condition)
        act()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def listening(pids: Sequence[int]) -> set[str]:
    """The addresses on which these processes accept connections; one that has ended accepts none."""
    found: set[str] = set()
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            connections = psutil.Process(pid).net_connections(kind="inet")
            found |= {one.laddr.ip for one in connections if one.status == psutil.CONN_LISTEN}
    return found
