"""The cluster factory: from a cluster definition to a Dask client whose workers are ready."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from typing import TypeAlias, cast

import dask
from distributed import Client

from prognosis_dask.errors import ClusterError
from prognosis_dask.execution.clusters.spec import AnyCluster, LocalSpec, read_cluster
from prognosis_dask.execution.preflight import check_workers

__all__ = [
    "DASK_CONFIG",
    "KINDS",
    "AnyCluster",
    "LocalSpec",
    "Workers",
    "connect",
    "joined",
    "prepare",
    "read_cluster",
]

#: A client that is there already, what gives one in a ``with`` statement, as :func:`connect` does, or what
#: ``--cluster`` takes: ``local``, ``cuda``, ``tcp://HOST:PORT``, a cluster file.
Workers: TypeAlias = Client | AbstractContextManager[Client] | str

#: What a long run needs that is not Dask's default. A task whose workers die is tried on three, then set aside by the
#: runner; results are small, so spilling them to disk would only hide a leak.
DASK_CONFIG = {
    "distributed.scheduler.allowed-failures": 3,
    "distributed.scheduler.worker-saturation": 1.0,
    # the scheduler keeps the latest messages to each worker, and the cases in them: of a thousand, 200 MB a worker
    "distributed.admin.low-level-log-length": 20,
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.comm.timeouts.connect": "30s",
    # a network that is gone for half a minute: Dask's 30 s would close the workers, and their nannies with them
    "distributed.comm.timeouts.tcp": "3 minutes",
    # a tight loop of crashes must not make the cluster give its workers up: the nannies restart them
    "distributed.deploy.lost-worker-timeout": "1 hour",
    # Dask's 64 kB give every array of a statistic back to the system and fetch it anew, page by page: as long again as
    # the statistic itself. Images are larger than what is kept here, and given back as before
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 64 * 2**20,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 8 * 2**20,
}

#: A new kind of cluster is a context manager from its definition to a client: a function of this name in the module
#: of this name in :mod:`prognosis_dask.execution.clusters`, loaded when it is asked for.
KINDS = ("local", "cuda", "ssh", "slurm", "kubernetes", "existing")


@contextmanager
def connect(spec: AnyCluster) -> Iterator[Client]:
    """Start or join the cluster, prepare its workers (also those that join later), and yield a client.

    Raises
    ------
    ClusterError
        When the cluster does not start, the scheduler does not answer, or its workers are not fit for the work.
    """
    kind = getattr(import_module(f"prognosis_dask.execution.clusters.{spec.kind}"), spec.kind)
    with dask.config.set(DASK_CONFIG), cast("AbstractContextManager[Client]", kind(spec)) as client:
        prepare(client)
        yield client


@contextmanager
def joined(workers: Workers) -> Iterator[Client]:
    """A client whose workers are prepared. What :func:`connect` returned is started only now.

    Raises
    ------
    ClusterError
        As :func:`connect` and :func:`prepare`, and when it is none of these.
    """
    if isinstance(workers, str):
        workers = connect(read_cluster(workers))
    if not isinstance(workers, AbstractContextManager):
        raise ClusterError(
            f"client is {type(workers).__name__}, expected a Dask client, or as --cluster has it 'local' or "
            "'tcp://HOST:PORT'"
        )
    if isinstance(workers, Client):  # a context manager too, which would close what is its owner's to close
        prepare(workers)
        yield workers
        return
    with workers as client:
        yield client


def prepare(client: Client) -> None:
    """Check the workers: what the runner asks of a client that is already there.

    Raises
    ------
    ClusterError
        When there is no worker, or one has other versions than this process, or lacks a package.
    """
    check_workers(client)
