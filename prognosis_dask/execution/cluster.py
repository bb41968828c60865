"""The cluster factory: from a cluster definition to a Dask client whose workers are ready, and a map over them."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, TypeAlias, cast

import dask
from distributed import CancelledError, Client, Future, KilledWorker, as_completed
from tqdm import tqdm

from prognosis_dask.arrays import Map
from prognosis_dask.errors import ClusterError
from prognosis_dask.execution.clusters import hosts, managed
from prognosis_dask.execution.clusters.spec import AnyCluster, LocalSpec, read_cluster
from prognosis_dask.execution.monitor import LOG_EVERY
from prognosis_dask.execution.preflight import check_workers
from prognosis_dask.execution.progress import duration
from prognosis_dask.execution.task import KEEP_MEMORY

__all__ = [
    "DASK_CONFIG",
    "AnyCluster",
    "LocalSpec",
    "Workers",
    "connect",
    "joined",
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
    # a hundred times a second, where a worker's threads stand: they wait for their children, which no one looks into
    "distributed.worker.profile.enabled": False,
    # the scheduler keeps the latest messages to each worker, and the cases in them: of a thousand, 200 MB a worker
    "distributed.admin.low-level-log-length": 20,
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.comm.timeouts.connect": "30s",
    # a network that is gone for half a minute: Dask's 30 s would close the workers, and their nannies with them
    "distributed.comm.timeouts.tcp": "3 minutes",
    # a tight loop of crashes must not make the cluster give its workers up: the nannies restart them
    "distributed.deploy.lost-worker-timeout": "1 hour",
    **{f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in KEEP_MEMORY.items()},
}


@contextmanager
def connect(spec: AnyCluster) -> Iterator[Client]:
    """Start or join the cluster, check its workers, and yield a client.

    Raises
    ------
    ClusterError
        When the cluster does not start, the scheduler does not answer, or its workers are not fit for the work.
    """
    # a kind is a context manager of its name, from its definition to a client
    kind = getattr(managed if hasattr(managed, spec.kind) else hosts, spec.kind)
    with dask.config.set(DASK_CONFIG), cast("AbstractContextManager[Client]", kind(spec)) as client:
        check_workers(client)
        yield client


@contextmanager
def joined(workers: Workers) -> Iterator[Client]:
    """A client whose workers are checked. What :func:`connect` returned is started only now.

    Raises
    ------
    ClusterError
        As :func:`connect`, and when it is none of these.
    """
    if isinstance(workers, str):
        workers = connect(read_cluster(workers))
    if not isinstance(workers, AbstractContextManager):
        raise ClusterError(
            f"client is {type(workers).__name__}, expected a Dask client, or as --cluster has it 'local' or "
            "'tcp://HOST:PORT'"
        )
    if isinstance(workers, Client):  # a context manager too, which would close what is its owner's to close
        check_workers(workers)
        yield workers
        return
    with workers as client:
        yield client


#: Seconds before a map that is not done shows a bar on a terminal.
_SHOWN_AFTER = 2.0


def map_on(client: Client, *, gpu: bool = False) -> Map:
    """A ``map`` whose calls run as tasks on the client's cluster; results come in order. ``gpu``: on GPU workers.

    What a partial function holds, a table of features say, is sent once; a worker that lacks it gets it from another.
    """
    resources = {"GPU": 1} if gpu else None

    def cluster_map(function: Callable[..., Any], *items: Iterable[Any]) -> Iterable[Any]:
        listed = [list(item) for item in items]
        with warnings.catch_warnings():  # what is large is sent once, knowingly: an item is one task's alone
            warnings.filterwarnings("ignore", message="Sending large graph", category=UserWarning)
            if isinstance(function, partial):
                shared = client.submit(_same, function, pure=False)  # computed again where its worker is lost
                futures = client.map(_call, *listed, function=shared, pure=False, resources=resources)
            else:
                futures = client.map(function, *listed, pure=False, resources=resources)
        try:
            _wait(futures)
            return client.gather(futures)  # type: ignore[no-any-return]
        except (CancelledError, KilledWorker) as error:
            raise ClusterError(
                f"the cluster was lost ({error}). Start or mend it and run the same command again"
            ) from error

    return cluster_map


def _wait(futures: Sequence[Future[Any]]) -> None:
    """Wait for all, or raise the first failure. Ctrl-C in ``gather``'s own waiting prints a traceback per task."""
    done = as_completed(futures)
    shown = tqdm(done, "tasks", len(futures), leave=False, delay=_SHOWN_AFTER, disable=None, dynamic_ncols=True)
    begun = told = time.monotonic()
    for number, future in enumerate(shown, 1):
        if future.status != "finished":
            future.result()
        waiting = len(futures) - number
        if shown.disable and waiting and time.monotonic() - told > LOG_EVERY:  # no terminal: a log, a batch system
            told = time.monotonic()
            left = duration((told - begun) / number * waiting)
            print(f"{number} of {len(futures)} tasks done, about {left} left", file=sys.stderr, flush=True)


def _same(value: Any) -> Any:
    return value


def _call(*items: Any, function: Callable[..., Any]) -> Any:
    return function(*items)
