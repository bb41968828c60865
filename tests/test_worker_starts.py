"""A worker that dies while it starts is replaced, and its cluster neither waits for it at the start nor at the end."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from prognosis_dask.errors import ClusterError
from prognosis_dask.execution.cluster import connect
from prognosis_dask.execution.clusters import LocalSpec
from tests.dask_processes import PATIENCE, wait_for

ONE = LocalSpec(workers=1, dashboard="127.0.0.1:0")


def workers() -> set[psutil.Process]:
    found = set()
    for process in psutil.Process().children():
        with suppress(psutil.Error):
            if "spawn_main" in " ".join(process.cmdline()):
                found.add(process)
    return found


@contextmanager
def killing(count: int) -> Iterator[None]:
    """Kills the next workers of this process, so many of them, in the middle of their start."""
    seen, ended = workers(), threading.Event()

    def kill() -> None:
        left = count
        while left and not ended.is_set():
            for process in workers() - seen:
                seen.add(process)
                time.sleep(0.3)  # it is importing by then, which takes a second
                process.kill()
                left -= 1
            time.sleep(0.01)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize("deaths", [1, 2])
def test_a_cluster_starts_although_its_workers_die_while_they_start(deaths: int) -> None:
    with killing(deaths), connect(ONE) as client:
        assert client.submit(sum, [1, 2]).result(timeout=PATIENCE) == 3


def test_a_cluster_whose_workers_never_live_says_so() -> None:
    told = "did not start on 127.0.0.1: a worker died 3 times while it started"
    with killing(9), pytest.raises(ClusterError, match=told), connect(ONE):
        pytest.fail("it started")


def test_a_worker_that_dies_while_it_is_started_anew_is_replaced_and_the_cluster_ends() -> None:
    with connect(ONE) as client:
        (first,) = workers()
        with killing(2):
            first.kill()
            wait_for(lambda: client.submit(sum, [3, 4], pure=False).result(timeout=PATIENCE) == 7)
            wait_for(lambda: len(workers()) == 1 and first not in workers())
        assert client.submit(sum, [1, 2]).result(timeout=PATIENCE) == 3
    assert not workers()


def test_a_worker_that_takes_longer_to_end_than_dask_waits_is_no_error() -> None:
    """As on a busy machine: killed after no time at all, its process is not gone at once."""
    with connect(ONE) as client:
        (nanny,) = client.cluster.workers.values()
        client.cluster.sync(nanny.close, timeout=0)
    wait_for(lambda: not workers())


def test_a_script_that_each_worker_would_run_again_is_refused_at_once(tmp_path: Path) -> None:
    call = "from prognosis_dask.execution.cluster import LocalSpec, connect\n{}with connect(LocalSpec(workers=1)): pass"
    script = tmp_path / "study.py"
    script.write_text(call.format(""))
    for command in ([sys.executable, "study.py"], [sys.executable, "-m", "study"]):
        found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
        assert found.returncode == 1
        assert found.stderr.splitlines()[-1].endswith('put its calls below a line `if __name__ == "__main__":`')
    script.write_text(call.format('if __name__ == "__main__":\n    '))
    assert subprocess.run([sys.executable, "-m", "study"], cwd=tmp_path, timeout=PATIENCE).returncode == 0
    (tmp_path / "__main__.py").write_text(call.format(""))  # of a folder or a package: no worker imports it
    assert subprocess.run([sys.executable, str(tmp_path)], timeout=PATIENCE).returncode == 0
