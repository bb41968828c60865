"""A cohort on a real Slurm: jobs are cancelled, run out of time and are added, and the values stay."""

from __future__ import annotations

import os
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

import prognosis_dask
from prognosis_dask.config.job import Job, SynthSection, load_job
from prognosis_dask.execution.cluster import connect, read_cluster
from prognosis_dask.storage.ledger import Ledger
from prognosis_dask.synthetic import make_cohort
from tests.dask_processes import wait_for, when
from tests.slurm_server import slurm_node, slurm_says

FILE = Path(__file__).parents[1] / "cluster" / "slurm.toml"
PATIENTS = 6


@pytest.fixture
def job(tmp_path: Path) -> Job:
    made = make_cohort(tmp_path / "cohort", SynthSection(patients=PATIENTS, seed=3, bad_cases=False))
    path = tmp_path / "job.toml"
    path.write_text(
        f"""
        name = "slurm"
        cohort = {{ sources = ["{made.images}"], clinical = "{made.clinical}", roi = ["GTV-1"] }}
        deep.enabled = false
        model.enabled = false
        run.cases_per_task = 1
        """
    )
    return load_job(path)


@pytest.fixture
def cluster_file(tmp_path: Path) -> Iterator[Path]:
    """The file that the project ships, for two jobs of one worker on this machine's own Slurm."""
    changes = {
        '"~/prognosis-cluster"': f'"{tmp_path}/cluster"',
        'interface = "ib0"': 'interface = "lo"',
        "jobs = 4": "jobs = 2",
        "workers_per_job = 16": "workers_per_job = 1",
        'dashboard = "127.0.0.1:8787"': 'dashboard = "127.0.0.1:0"',
    }
    text = FILE.read_text().partition("[tls]")[0]
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new, 1)
    path = tmp_path / "slurm.toml"
    path.write_text(text)
    assert tomllib.loads(text)["cpu"]["jobs"] == 2
    with slurm_node(tmp_path / "slurm"):
        yield path


@pytest.mark.slow
def test_a_cancelled_job_one_out_of_time_and_one_added_by_hand_change_no_value(
    job: Job, cluster_file: Path, tmp_path: Path
) -> None:
    local = prognosis_dask.run(job, out=tmp_path / "local", say=lambda line: None)
    out = tmp_path / "slurm-run"
    with connect(read_cluster(str(cluster_file))) as client:
        client.wait_for_workers(2)
        wait_for(lambda: len(jobs()) == 2)
        cancelled, late = jobs()
        slurm("scontrol", "update", f"JobId={late}", "TimeLimit=1")

        def disturb() -> None:
            # as on a node that has lost its disk, so that only Slurm ends the job, and with it the case
            for one in processes_of_job(late):
                one.suspend()
            slurm("scancel", cancelled)
            slurm("sbatch", str(tmp_path / "cluster" / "cpu.sbatch"))

        disturbance = when(lambda: rows(out) > 0, disturb)
        prognosis_dask.run(job, client=client, out=out, say=lambda line: None)
        disturbance.join()
        names = {str(one["name"]) for one in client.scheduler_info(n_workers=-1)["workers"].values()}
    assert [name for name in names if f"-{cancelled}" not in name and f"-{late}" not in name]
    assert "JobState=CANCELLED" in slurm_says("scontrol", "show", "job", cancelled)
    assert "JobState=TIMEOUT" in slurm_says("scontrol", "show", "job", late)
    assert prognosis_dask.read_features(out).identical(prognosis_dask.read_features(local.folder))
    wait_for(lambda: not jobs() and not processes_of_job(""), 60)


def jobs() -> list[str]:
    """Those that wait or run, in order."""
    return sorted(slurm_says("squeue", "--noheader", "--format=%i").split(), key=int)


def slurm(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def rows(folder: Path) -> int:
    """How many results the run has recorded."""
    if not (folder / "ledger.sqlite").exists():
        return 0
    with Ledger.read(folder / "ledger.sqlite") as ledger:
        return sum(counts.done for counts in ledger.counts().values())


def processes_of_job(number: str) -> list[psutil.Process]:
    """What runs in a job of this Slurm; in any of them where no number is given."""
    found = []
    for one in psutil.process_iter():
        with suppress(psutil.Error):
            environment = one.environ()
            here = environment.get("SLURM_CONF") == os.environ["SLURM_CONF"] and one.pid != os.getpid()
            if here and environment.get("SLURM_JOB_ID", "").startswith(number) and "SLURM_JOB_ID" in environment:
                found.append(one)
    return found
