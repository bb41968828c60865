"""A cohort on a real Slurm: jobs are cancelled, run out of time and are added, and the values stay.

The Slurm has one node on this machine: munge, controller and node daemon in a folder, ended with the block. Skipped
where Debian's packages ``slurm-wlm`` and ``munge`` are missing, or where the test does not run as root.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

import prognosis_dask
from prognosis_dask.config.job import Job, SynthSection, load_job
from prognosis_dask.execution.cluster import connect, read_cluster
from prognosis_dask.storage.ledger import Ledger
from prognosis_dask.synthetic import make_cohort
from tests.dask_processes import kill_tree, wait_for, when

#: What the node claims to have; jobs are small, and the machine may have fewer cores than there are jobs.
_CPUS, _MEMORY_MB = 4, 8000

_CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmUser=root
MpiDefault=none
ReturnToService=2
KillWait=2
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=cpu Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def slurm_node(folder: Path) -> Iterator[None]:
    """Slurm with a partition ``cpu`` of this machine; its commands find it by ``SLURM_CONF``."""
    missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if not shutil.which(name)]
    if missing or os.getuid():
        pytest.skip("a Slurm of its own needs root, and Debian's packages slurm-wlm and munge")
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o711)
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    file = folder / "slurm.conf"
    file.write_text(
        _CONFIGURATION.format(
            host=socket.gethostname(),
            folder=folder,
            controller=_free_port(),
            node=_free_port(),
            cpus=_CPUS,
            memory=_MEMORY_MB,
        )
    )
    parts = {name: folder / f"munge.{name}" for name in ("socket", "pid", "seed", "log")}
    named = [f"--{name}-file={parts[name]}" for name in ("pid", "seed", "log")]
    with pytest.MonkeyPatch.context() as environment, ExitStack() as stack:
        environment.setenv("SLURM_CONF", str(file))
        munge = ("munged", "--foreground", "--force", f"--key-file={key}", f"--socket={parts['socket']}", *named)
        stack.enter_context(_daemon(folder, *munge))
        wait_for(parts["socket"].exists, 60)
        stack.enter_context(_daemon(folder, "slurmctld", "-D", "-f", str(file)))
        stack.enter_context(_daemon(folder, "slurmd", "-D", "-f", str(file)))
        wait_for(lambda: "idle" in slurm_says("sinfo", "--noheader", "--format=%T"), 120)
        yield


def slurm_says(*command: str) -> str:
    """What a command of Slurm prints; nothing where it fails, as while the controller starts."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


@contextmanager
def _daemon(folder: Path, *command: str) -> Iterator[None]:
    with (folder / f"{command[0]}.out").open("w") as log:
        started = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield
        finally:
            if started.poll() is None:
                kill_tree(started.pid)
            started.wait()


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
