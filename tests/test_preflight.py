"""Before any work: what is wrong with a cluster is said in a line, and nothing has been started."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from distributed import Client

from prognosis_dask.errors import ClusterError, StoreError
from prognosis_dask.execution.cluster import check_run, check_workers
from tests.dask_processes import PATIENCE, ROOT, scheduler, worker

NEEDS = {"gpu": False, "memory": 10**9}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    file = tmp_path_factory.mktemp("scheduler") / "scheduler.json"
    with scheduler(file):
        yield file


@contextmanager
def joined(file: Path, *options: str, prefix: list[str] | None = None) -> Iterator[Client]:
    """A client of the scheduler with this worker, and no other."""
    with ExitStack() as stack:
        stack.enter_context(worker(file, "--death-timeout", "100", *options, prefix=prefix or []))
        client = stack.enter_context(Client(scheduler_file=str(file)))
        client.wait_for_workers(1, timeout=PATIENCE)
        yield client
        client.retire_workers(list(client.scheduler_info(n_workers=-1)["workers"]))


def environment(folder: Path) -> list[str]:
    """Start a worker with this folder before all others on Python's path."""
    return ["env", f"PYTHONPATH={folder}{os.pathsep}{ROOT}"]


def test_a_sound_worker_passes_and_leaves_nothing_behind(file: Path, tmp_path: Path) -> None:
    with joined(file, "--memory-limit", "2GB") as client:
        check_workers(client)
        check_run(client, tmp_path, **NEEDS)
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(ClusterError, match=r"the job wants a GPU .* no worker offers one; use --cluster cuda"):
            check_run(client, tmp_path, gpu=True, memory=10**9)
        with pytest.raises(ClusterError, match=r"has 1.86 GiB for each of its threads, but a task may need 3.73 GiB"):
            check_run(client, tmp_path, gpu=False, memory=4 * 10**9)
        with pytest.raises(StoreError, match="cannot write in /proc/nowhere"):
            check_run(client, Path("/proc/nowhere"), **NEEDS)


def test_a_worker_with_other_versions_is_refused_with_both(file: Path, tmp_path: Path) -> None:
    for package in ("numpy", "prognosis_dask"):
        (tmp_path / f"{package}-9.9.dist-info").mkdir()
        (tmp_path / f"{package}-9.9.dist-info" / "METADATA").write_text(f"Name: {package}\nVersion: 9.9\n")
    with joined(file, prefix=environment(tmp_path)) as client, pytest.raises(ClusterError) as caught:
        check_workers(client)
    assert "has prognosis-dask 9.9 (here " in str(caught.value)
    assert ", numpy 9.9 (here " in str(caught.value)
    assert "\n" not in str(caught.value)


WITHOUT = """
import importlib.metadata, sys
kept = importlib.metadata.version
def version(name):
    if name in ("prognosis-dask", "simpleitk"):
        raise importlib.metadata.PackageNotFoundError(name)
    return kept(name)
importlib.metadata.version = version
sys.modules["prognosis_dask"] = None
"""


def test_a_worker_without_the_package_can_still_say_so(file: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT)
    with joined(file, prefix=environment(tmp_path)) as client, pytest.raises(ClusterError) as caught:
        check_workers(client)
    assert "lacks prognosis-dask, simpleitk; install the same environment there as here" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        ("mount -t tmpfs none {}", r"does not see the run's folder .*, or another one under that name; choose"),
        ("mount --bind {} {} && mount -o remount,ro,bind {}", r"cannot write in .* \(.*Read-only file system.*\)"),
    ],
    ids=["another disk", "read-only"],
)
def test_a_worker_that_cannot_write_in_the_runs_folder_is_refused(
    mount: str, message: str, file: Path, tmp_path: Path
) -> None:
    try:
        subprocess.run(["unshare", "--mount", "mount", "-t", "tmpfs", "none", tmp_path], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this machine lets no test mount a folder of its own ({error})")
    command = mount.replace("{}", str(tmp_path)) + ' && exec "$@"'
    with joined(file, prefix=["unshare", "--mount", "sh", "-c", command, "sh"]) as client:
        with pytest.raises(ClusterError, match=message):
            check_run(client, tmp_path, **NEEDS)
        assert list(tmp_path.iterdir()) == []


def test_a_job_for_a_gpu_is_refused_before_any_work(file: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "job.toml").write_text('synth = { patients = 2 }\ndeep = { weights = "untrained:1", device = "gpu" }\n')
    (tmp_path / "cluster.toml").write_text(f'kind = "existing"\nscheduler_file = "{file}"\n')
    with joined(file):
        said = refused("run", tmp_path / "job.toml", "--out", tmp_path / "out", "--cluster", tmp_path / "cluster.toml")
    assert "the job wants a GPU" in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "out" / "cases.csv").exists()
