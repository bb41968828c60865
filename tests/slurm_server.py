"""A real Slurm of one node on this machine: munge, controller and node daemon in a folder, ended with the block.

Skipped where Debian's packages ``slurm-wlm`` and ``munge`` are missing, or where the test does not run as root.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from tests.dask_processes import kill_tree, wait_for

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
