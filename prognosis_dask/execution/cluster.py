"""The cluster: from its definition to a Dask client whose workers are fit for the work, and a map over them.

What a run needs is asked before any work, and answered in one clear line for each thing that is not so. Versions must
be equal, not merely close: tasks are functions of this package and travel as pickles of this Python, and a feature's
value may depend on every package that touches it, while a run's values may not depend on which worker made them. What
only an extra asks for may be absent on a worker, but not another version. Python's patch level is free.
"""

from __future__ import annotations

import platform
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, cast

import dask
from dask.utils import format_bytes
from distributed import CancelledError, Client, Future, KilledWorker, as_completed
from tqdm import tqdm

from prognosis_dask.arrays import Map
from prognosis_dask.errors import ClusterError
from prognosis_dask.execution.clusters import AnyCluster, LocalSpec, hosts, managed, read_cluster
from prognosis_dask.execution.monitor import LOG_EVERY
from prognosis_dask.execution.progress import History, duration
from prognosis_dask.execution.task import KEEP_MEMORY
from prognosis_dask.execution.versions import is_optional, package_versions
from prognosis_dask.objects.address import Address, is_address, parse_address
from prognosis_dask.publish import cannot_write
from prognosis_dask.storage.place import LOCK

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
_TASKS = "tasks"


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
                f"the cluster was lost ({error}). Start or repair it and run the same command again"
            ) from error

    return cluster_map


def _wait(futures: Sequence[Future[Any]]) -> None:
    """Wait for all, or raise the first failure. Ctrl-C in ``gather``'s own waiting prints a traceback per task."""
    done = as_completed(futures)
    shown = tqdm(done, _TASKS, len(futures), leave=False, delay=_SHOWN_AFTER, disable=None, dynamic_ncols=True)
    history, logged = History(), time.monotonic()
    for number, future in enumerate(shown, 1):
        if future.status != "finished":
            future.result()
        waiting, now = len(futures) - number, time.monotonic()
        history.add(now, {_TASKS: number})
        if shown.disable and waiting and now - logged > LOG_EVERY:  # no terminal: a log, a batch system
            logged, rate = now, history.rate(_TASKS, now)
            left = f", about {duration(waiting / rate)} left" if rate else ""
            print(f"{number} of {len(futures)} tasks done{left}", file=sys.stderr, flush=True)


def _same(value: Any) -> Any:
    return value


def _call(*items: Any, function: Callable[..., Any]) -> Any:
    return function(*items)


Facts = Mapping[str, Any]


def check_workers(client: Client) -> None:
    """Refuse a cluster without workers, and workers with other versions or without a package.

    Raises
    ------
    ClusterError
        Naming each worker and what is wrong with it.
    """
    address = client.scheduler.address
    if not client.scheduler_info(n_workers=-1)["workers"]:
        raise ClusterError(f"the scheduler at {address} has no workers; start some with: dask worker {address}")
    own = {"python": ".".join(platform.python_version_tuple()[:2]), **package_versions()}
    _refuse(
        line for worker, facts in _ask(client, _version_probe(tuple(own))).items() for line in _skew(worker, facts, own)
    )


def check_run(client: Client, place: Path | str, *, gpu: bool, memory: int) -> None:
    """Refuse a cluster on which this run would fail: no GPU for it, too little memory, a folder or bucket out of reach.

    Parameters
    ----------
    client
        Of a cluster that passed :func:`check_workers`.
    place
        The run's folder, or its address in a bucket, where every worker writes.
    gpu
        Whether some stage runs on a GPU.
    memory
        Bytes that one task may need, the most of all stages.

    Raises
    ------
    ClusterError, StoreError
        Naming each worker and what is wrong with it.
    """
    workers = client.scheduler_info(n_workers=-1)["workers"]
    if gpu and not any(worker["resources"].get("GPU") for worker in workers.values()):
        raise ClusterError(
            "the job wants a GPU (deep.device), but no worker offers one; use --cluster cuda, start workers with "
            "--resources GPU=1 and CUDA_VISIBLE_DEVICES set, or --set deep.device=cpu"
        )
    small = {
        address: worker["memory_limit"] / worker["nthreads"]
        for address, worker in workers.items()
        if worker["memory_limit"] and worker["memory_limit"] / worker["nthreads"] < memory
    }
    _refuse(
        f"worker {address} has {format_bytes(int(share))} for each of its threads, but a task may need "
        f"{format_bytes(memory)}; start it with --nthreads 1 and --memory-limit {format_bytes(memory).replace(' ', '')}"
        for address, share in small.items()
    )
    if is_address(place):
        _check_bucket(client, parse_address(str(place)))
    else:
        _check_folder(client, Path(place))


def _check_folder(client: Client, folder: Path) -> None:
    mark = folder / f".preflight-{uuid.uuid4().hex}"
    try:
        mark.touch()
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        found = _ask(client, _folder_probe(str(mark)))
    finally:
        with suppress(OSError):
            mark.unlink()
    _refuse(f"worker {worker} ({facts['host']}): {facts['wrong']}" for worker, facts in found.items() if facts["wrong"])


def _check_bucket(client: Client, address: Address) -> None:
    """Workers write their arrays themselves, with the credentials that each finds around itself."""
    found = _ask(client, _bucket_probe(str(address), LOCK))
    _refuse(
        f"worker {worker} ({facts['host']}) cannot write in {address}: {facts['wrong']}; give it credentials (a role, "
        "a profile or AWS_ACCESS_KEY_ID) and AWS_ENDPOINT_URL as here"
        for worker, facts in found.items()
        if facts["wrong"]
    )


def _refuse(lines: Any) -> None:
    """Raise with the lines, a few of them where many workers say the same."""
    lines = list(lines)
    if not lines:
        return
    more = [f"and {len(lines) - 5} more"] if len(lines) > 5 else []
    raise ClusterError("\n".join([*lines[:5], *more]))


def _ask(client: Client, probe: Callable[[], Facts]) -> dict[str, Facts]:
    """Each worker's answer, by its address; a worker that leaves in between is left out."""
    answers = client.run(probe, on_error="return")
    broken = {worker: error for worker, error in answers.items() if isinstance(error, Exception)}
    gone = {worker for worker, error in broken.items() if isinstance(error, OSError)}
    _refuse(f"worker {worker} cannot answer: {broken[worker]!r}" for worker in broken.keys() - gone)
    return {worker: answer for worker, answer in answers.items() if worker not in gone}


def _skew(worker: str, facts: Facts, own: Mapping[str, str]) -> list[str]:
    absent = [package for package in own if facts["versions"].get(package) is None]
    missing = [package for package in absent if not is_optional(package)]
    lines = []
    if missing:
        lines.append(
            f"worker {worker} ({facts['host']}) lacks {', '.join(missing)}; install the same environment there as here"
        )
    other = [
        f"{package} {facts['versions'][package]} (here {mine})"
        for package, mine in own.items()
        if package not in absent and facts["versions"][package] != mine
    ]
    if other:
        lines.append(
            f"worker {worker} ({facts['host']}) has {', '.join(other)}; values could differ from worker to worker: "
            "install the same environment there as here"
        )
    return lines


# The probes are made inside a function so that they travel by value: a worker that lacks this package, which is one of
# the answers looked for, could not import them from it.


def _version_probe(packages: tuple[str, ...]) -> Callable[[], Facts]:
    def probe() -> Facts:
        import importlib.metadata
        import platform
        import socket

        versions = {"python": ".".join(platform.python_version_tuple()[:2])}
        for package in packages:
            if package != "python":
                try:
                    versions[package] = importlib.metadata.version(package)
                except importlib.metadata.PackageNotFoundError:
                    continue
        return {"host": socket.gethostname(), "versions": versions}

    return probe


def _folder_probe(mark: str) -> Callable[[], Facts]:
    def probe() -> Facts:
        import os
        import socket
        import uuid

        folder = os.path.dirname(mark)  # noqa: PTH120 - travels by value, without this module's imports
        own = f"{mark}-{uuid.uuid4().hex}"
        wrong = ""
        try:
            seen = os.path.exists(mark)  # noqa: PTH110
            with open(own, "x"):  # noqa: PTH123
                pass
            os.remove(own)  # noqa: PTH107
        except OSError as error:
            wrong = f"cannot write in {folder} ({error})"
            seen = os.path.exists(mark)  # noqa: PTH110
        if not seen:
            wrong = f"does not see the run's folder {folder}, or another one under that name"
        advice = "; choose with --out a folder on a disk that every worker sees under the same path and may write"
        return {"host": socket.gethostname(), "wrong": wrong + advice if wrong else ""}

    return probe


def _bucket_probe(place: str, held: str) -> Callable[[], Facts]:
    def probe() -> Facts:
        import socket
        import uuid

        from prognosis_dask.errors import PrognosisError
        from prognosis_dask.objects.address import parse_address
        from prognosis_dask.objects.bucket import begin, bucket_of

        address, wrong = parse_address(place), ""
        bucket, own = bucket_of(address), (address / f".preflight-{uuid.uuid4().hex}").key
        try:
            seen = begin(lambda: bucket.get((address / held).key))
            bucket.put(own, b"")
            bucket.delete(own)
            seen.result()
        except PrognosisError as error:
            wrong = str(error).splitlines()[0]
        return {"host": socket.gethostname(), "wrong": wrong}

    return probe
