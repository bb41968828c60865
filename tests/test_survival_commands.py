"""What a user meets when the disk, the folder or a process of a run goes: through the command line."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import xarray as xr

import prognosis_dask
from prognosis_dask.cli import main as cli
from prognosis_dask.config.job import SynthSection
from prognosis_dask.synthetic import make_cohort
from tests.dask_processes import PATIENCE, wait_for
from tests.mounts import mounted


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    made = make_cohort(folder / "cohort", SynthSection(patients=5, seed=7, bad_cases=False))
    (folder / "cluster.toml").write_text('kind = "local"\nworkers = 2\ndashboard = "127.0.0.1:0"\n')
    path = folder / "job.toml"
    path.write_text(
        f"""
        name = "made"
        cohort = {{ sources = ["{made.images}"], clinical = "{made.clinical}", roi = ["GTV-1"] }}
        deep = {{ enabled = false }}
        model = {{ features = "radiomics", repeats = 1, folds = 2, halves = 0 }}
        """
    )
    return path


@pytest.fixture(scope="module")
def calm(job: Path, workers: str) -> Path:
    out = job.parent / "calm"
    ran_here(job, out, workers)
    return out


def command(job: Path, out: Path) -> list[str]:
    run = ["run", str(job), "--out", str(out), "--cluster", str(job.parent / "cluster.toml")]
    return [sys.executable, "-m", "prognosis_dask", *run]


def ran_here(job: Path, out: Path, workers: str, *arguments: str) -> None:
    """The command in this process, which spares its imports."""
    cli.main(["run", str(job), "--out", str(out), "--cluster", workers, *arguments])


def in_its_own_process(job: Path, out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(job, out), capture_output=True, text=True)


def assert_told(said: str, *words: str) -> None:
    """One message says so, at the end."""
    last = said.strip().splitlines()[-1]
    assert last.startswith("prognosis: ")
    for word in words:
        assert word in last


def assert_goes_on(job: Path, out: Path, calm: Path, workers: str) -> None:
    ran_here(job, out, workers)
    assert_like_calm(out, calm)


def assert_like_calm(out: Path, calm: Path) -> None:
    """Each case was computed once, and has the values of the run that nobody disturbed."""
    xr.testing.assert_identical(prognosis_dask.read_features(out).load(), prognosis_dask.read_features(calm).load())
    with sqlite3.connect(out / "ledger.sqlite") as ledger:
        assert {row[0] for row in ledger.execute("SELECT attempts FROM outcome")} == {1}


@pytest.mark.slow
def test_a_full_disk_ends_the_run_and_a_larger_one_goes_on(job: Path, calm: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    used = sum(path.stat().st_blocks * 512 for path in calm.rglob("*"))
    with mounted("-t", "tmpfs", "-o", f"size={used // 2}", "tmpfs", at=out):
        full = in_its_own_process(job, out)
        assert full.returncode == 2
        assert_told(full.stderr, "No space left on device")
        subprocess.run(["mount", "-o", f"remount,size={4 * used}", str(out)], check=True)
        assert in_its_own_process(job, out).returncode == 0  # which leaves no file of the disk open
        assert_like_calm(out, calm)


def test_a_read_only_folder_is_refused_before_any_work(job: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    out = tmp_path / "run"
    out.mkdir()
    with mounted("-t", "tmpfs", "-o", "ro", "tmpfs", at=out):
        assert_told(refused("run", job, "--out", out), "cannot write in", "choose another folder with --out")


@pytest.mark.slow
def test_a_folder_that_turns_read_only_in_mid_run_ends_it_and_a_writable_one_goes_on(
    job: Path, calm: Path, workers: str, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with subprocess.Popen(command(job, out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as run:
        wait_for(lambda: rows(out) >= 1)
        run.send_signal(signal.SIGSTOP)  # however long mounting takes here, the run is then still in the middle
        try:
            with mounted("--bind", str(out), at=out):  # what is open stays writable, what is opened now does not
                # refused while a worker, which goes on, has a file open to write
                wait_for(lambda: subprocess.run(["mount", "-o", "remount,bind,ro", str(out)]).returncode == 0)
                run.send_signal(signal.SIGCONT)
                _, errors = run.communicate()
        finally:
            run.send_signal(signal.SIGCONT)  # where nothing can be mounted: it would stay for ever
    assert run.returncode == 2
    assert_told(errors, "Read-only file system")
    assert rows(out) < rows(calm)
    assert_goes_on(job, out, calm, workers)


def rows(folder: Path) -> int:
    """Outcomes that the ledger holds."""
    try:
        with sqlite3.connect(f"file:{folder / 'ledger.sqlite'}?mode=ro", uri=True) as ledger:
            return int(ledger.execute("SELECT count(*) FROM outcome").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def test_the_ledger_of_an_older_version_is_refused(job: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    with sqlite3.connect(tmp_path / "ledger.sqlite") as ledger:
        ledger.execute("PRAGMA application_id = 0x70726F67")
        ledger.execute("PRAGMA user_version = 1")
    said = refused("run", job, "--out", tmp_path, "--cluster", job.parent / "cluster.toml")
    assert_told(said, "is a ledger of version 1", "choose another folder with --out")


@pytest.mark.slow
def test_another_job_in_the_folder_takes_nothing_for_its_own(
    job: Path, calm: Path, workers: str, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(calm, out)
    other = ("--set", "image.margin_mm=5", "--set", "frames.window=[-100.0, 200.0]")
    for folder in (out, tmp_path / "own"):
        ran_here(job, folder, workers, *other)
    ours, theirs = (prognosis_dask.read_features(path).load() for path in (out, tmp_path / "own"))
    xr.testing.assert_identical(ours, theirs)
    assert_goes_on(job, out, calm, workers)


def is_a_cases_process(process: psutil.Process) -> bool:
    try:
        return "prognosis_dask.execution.child" in process.cmdline()
    except psutil.Error:  # a short one, which has ended since it was listed
        return False


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_no_process_outlives_its_driver(job: Path, tmp_path: Path, how: signal.Signals) -> None:
    with subprocess.Popen(command(job, tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
        wait_for(lambda: any(map(is_a_cases_process, psutil.Process(driver.pid).children(recursive=True))))
        family = psutil.Process(driver.pid).children(recursive=True)
        driver.send_signal(how)
        driver.wait()
    assert len(family) >= 3
    assert psutil.wait_procs(family, timeout=PATIENCE)[1] == []
