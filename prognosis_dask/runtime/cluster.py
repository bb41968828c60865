"""From a cluster definition to a Dask client: workers on this machine, or a scheduler that is already there."""

from __future__ import annotations

import socket
import tomllib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import dask
import psutil
from dask.system import CPU_COUNT
from dask.utils import parse_bytes
from distributed import Client, LocalCluster

from prognosis_dask.errors import ClusterError
from prognosis_dask.runtime.worker import WorkerSetup

#: One case of a 512 x 512 CT stays below this; a worker with less would be killed at its work.
WORKER_MEMORY = "2 GiB"

#: What a long run needs that is not Dask's default. A crashing task is tried on three workers, then set aside by the
#: runner; results are small, so spilling them to disk would only hide a leak.
DASK_CONFIG = {
    "distributed.scheduler.allowed-failures": 3,
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.comm.timeouts.connect": "30s",
    # a tight loop of crashes must not make the cluster give its workers up: the nannies restart them
    "distributed.deploy.lost-worker-timeout": "1 hour",
    # but a cluster that has lost every worker for this long ends the run, rather than waiting for ever
    "distributed.scheduler.no-workers-timeout": "5 minutes",
}


@dataclass(frozen=True)
class ClusterSpec:
    """What a cluster file may say.

    ``kind`` is ``local`` (workers on this machine: processes of one thread each) or ``existing`` (the scheduler at
    ``address``). ``workers`` of zero: as many as there are cores and memory for.
    """

    kind: str = "local"
    workers: int = 0
    memory_per_worker: str = WORKER_MEMORY
    dashboard: str = "127.0.0.1:8787"
    address: str = ""


def read_cluster(text: str) -> ClusterSpec:
    """The cluster that ``--cluster`` names: ``local``, ``tcp://HOST:PORT`` (or ``tls://``), or a TOML file.

    Raises
    ------
    ClusterError
        When it is none of these, or the file has an unknown key or kind.
    """
    if text == "local":
        return ClusterSpec()
    if "://" in text:
        return ClusterSpec(kind="existing", address=text)
    path = Path(text)
    if not path.is_file():
        raise ClusterError(f"--cluster {text!r}: expected local, tcp://HOST:PORT, or a cluster file; no such file")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        spec = ClusterSpec(**data)
    except tomllib.TOMLDecodeError as error:
        raise ClusterError(f"{path} is not TOML: {error}") from error
    except TypeError as error:
        known = ", ".join(f.name for f in fields(ClusterSpec))
        raise ClusterError(f"{path}: {error}; known keys: {known}") from error
    if spec.kind not in KINDS:
        raise ClusterError(f"{path}: kind is {spec.kind!r}, expected one of {', '.join(KINDS)}")
    return spec


@contextmanager
def connect(spec: ClusterSpec) -> Iterator[Client]:
    """Start or join the cluster, prepare its workers (also those that join later), and yield a client.

    Raises
    ------
    ClusterError
        When the scheduler does not answer, or has no worker.
    """
    with dask.config.set(DASK_CONFIG), KINDS[spec.kind](spec) as client:
        prepare(client)
        yield client


def prepare(client: Client) -> None:
    """Register the workers' set-up, and refuse a cluster without workers.

    Raises
    ------
    ClusterError
        When no worker is connected.
    """
    if not client.scheduler_info(n_workers=-1)["workers"]:
        raise ClusterError(
            f"the scheduler at {client.scheduler.address} has no workers; "
            f"start some with: dask worker {client.scheduler.address}"
        )
    client.register_plugin(WorkerSetup())


@contextmanager
def _local(spec: ClusterSpec) -> Iterator[Client]:
    memory = parse_bytes(spec.memory_per_worker)
    fitting = max(1, int(psutil.virtual_memory().available // memory))
    workers = spec.workers or min(CPU_COUNT, fitting)
    with (
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            memory_limit=psutil.virtual_memory().total // workers,
            dashboard_address=_free_dashboard(spec.dashboard),
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@contextmanager
def _existing(spec: ClusterSpec) -> Iterator[Client]:
    try:
        client = Client(spec.address, timeout="20s")
    except (OSError, TimeoutError, ValueError) as error:
        raise ClusterError(
            f"no Dask scheduler answers at {spec.address} ({error}); is `dask scheduler` running?"
        ) from error
    with client:
        yield client


#: A new kind of cluster is a function from its definition to a client, entered here.
KINDS: dict[str, Callable[[ClusterSpec], AbstractContextManager[Client]]] = {"local": _local, "existing": _existing}


def _free_dashboard(address: str) -> str:
    """The address itself when its port is free, else the same host with a port that the system chooses."""
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        try:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, int(port)))
        except OSError:
            return f"{host}:0"
    return address
