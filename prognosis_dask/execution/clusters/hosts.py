"""Clusters of hosts that are named: this machine (local, cuda), others by ssh, and a scheduler that runs already."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dask
import psutil
from dask.system import CPU_COUNT
from dask.utils import parse_bytes
from distributed import Client, Security, SpecCluster
from distributed.deploy.ssh import Scheduler, Worker

from prognosis_dask.errors import ClusterError, import_extra, system_reason
from prognosis_dask.execution.clusters import CudaSpec, ExistingSpec, LocalSpec, SshSpec
from prognosis_dask.execution.clusters.started import (
    dashboard_config,
    fitting_workers,
    security,
    started,
    tls_config,
    worker_process,
)


@contextmanager
def local(spec: LocalSpec) -> Iterator[Client]:
    """Start the workers; each may use its share of the machine's memory."""
    workers = spec.workers or fitting_workers(spec.memory_per_worker, CPU_COUNT)
    memory = psutil.virtual_memory().total // workers
    keys = security(spec.tls, one_host=True, kind=spec.kind)
    specs = {f"cpu-{n}": worker_process(host=spec.host, memory_limit=memory, security=keys) for n in range(workers)}
    with started(specs, host=spec.host, dashboard=spec.dashboard, security=keys) as client:
        yield client


@contextmanager
def cuda(spec: CudaSpec) -> Iterator[Client]:
    """Start the workers of both sorts; tasks find theirs by the resources ``GPU`` and ``CPU``.

    Raises
    ------
    ClusterError
        When there is no driver, no GPU, or not the one that is asked for.
    """
    keys = security(spec.tls, one_host=True, kind=spec.kind)
    workers = cuda_workers(spec, find_gpus(spec.gpus), keys)
    with started(workers, host=spec.host, dashboard=spec.dashboard, security=keys) as client:
        yield client


def cuda_workers(spec: CudaSpec, gpus: tuple[int, ...], keys: Security | None) -> Mapping[str, Mapping[str, Any]]:
    """A worker that sees one GPU for each of these, and CPU workers that see none."""
    gpu_memory = parse_bytes(spec.memory_per_gpu_worker)
    cores = max(1, CPU_COUNT - len(gpus))
    cpus = spec.workers or fitting_workers(spec.memory_per_worker, cores, beside=len(gpus) * gpu_memory)
    left = psutil.virtual_memory().total - len(gpus) * gpu_memory
    cpu_memory = max(parse_bytes(spec.memory_per_worker), left // cpus)
    return {
        **{f"gpu-{gpu}": _gpu_worker(spec.host, gpu, gpu_memory, keys) for gpu in gpus},
        **{f"cpu-{n}": _cpu_worker(spec.host, cpu_memory, keys) for n in range(cpus)},
    }


def find_gpus(wanted: tuple[int, ...]) -> tuple[int, ...]:
    """The numbers of this machine's GPUs, or those of them that are wanted.

    Raises
    ------
    ClusterError
        When there is no driver, no GPU, or not the one that is wanted.
    MissingExtraError
        When NVML's bindings are not installed.
    """
    nvml: Any = import_extra("pynvml", extra="cuda", feature="a cuda cluster")
    try:
        nvml.nvmlInit()
        count = int(nvml.nvmlDeviceGetCount())
    except nvml.NVMLError as error:
        raise ClusterError(
            f"no NVIDIA driver answers on this machine ({error}); check with nvidia-smi, or use --cluster local"
        ) from error
    if not count:
        raise ClusterError("the NVIDIA driver sees no GPU on this machine; use --cluster local")
    missing = [gpu for gpu in wanted if not 0 <= gpu < count]
    if missing:
        raise ClusterError(f"gpus: there is no GPU {missing[0]} on this machine, it has 0 to {count - 1}")
    return wanted or tuple(range(count))


def _gpu_worker(host: str, gpu: int, memory: int, keys: Security | None) -> dict[str, Any]:
    return worker_process(
        host=host,
        memory_limit=memory,
        security=keys,
        resources={"GPU": 1},
        env={"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": str(gpu)},
    )


def _cpu_worker(host: str, memory: int, keys: Security | None) -> dict[str, Any]:
    return worker_process(
        host=host, memory_limit=memory, security=keys, resources={"CPU": 1}, env={"CUDA_VISIBLE_DEVICES": ""}
    )


#: Seconds in which the first worker that was started must have joined the scheduler.
_JOIN_SECONDS = 60


@contextmanager
def ssh(spec: SshSpec) -> Iterator[Client]:
    """Log in to each host, start scheduler and workers there, and end them with the block.

    Raises
    ------
    ClusterError
        When the file names no host, or one of them cannot be reached or does not start its process.
    MissingExtraError
        When the ssh client is not installed.
    """
    import_extra("asyncssh", extra="ssh", feature="an ssh cluster")
    keys = security(spec.tls, one_host=False, kind=spec.kind)
    scheduler, workers = ssh_specs(spec)
    with dask.config.set({**dashboard_config(spec.dashboard), **tls_config(spec.tls)}):
        try:
            cluster = SpecCluster(workers, scheduler, name="ssh", security=keys)
        except Exception as error:  # whatever the network, the login or the remote Python have to say
            hosts = ", ".join(dict.fromkeys([spec.scheduler_host, *spec.hosts, *spec.gpu_hosts]))
            raise ClusterError(
                f"the ssh cluster did not start ({type(error).__name__}: {error}); try by hand: ssh HOST PYTHON -c "
                f"'import prognosis_dask', for each of {hosts}"
            ) from error
        with cluster, Client(cluster, security=keys) as client:
            with suppress(TimeoutError):  # their processes are there, but may not have joined; none is told of later
                client.wait_for_workers(1, timeout=_JOIN_SECONDS)
            yield client


def ssh_specs(spec: SshSpec) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """What starts on which host: the scheduler, and by name the workers.

    Raises
    ------
    ClusterError
        When the file names no scheduler or no worker.
    """
    if not spec.scheduler_host or not (spec.hosts or spec.gpu_hosts):
        raise ClusterError("an ssh cluster needs scheduler_host and hosts (or gpu_hosts)")
    scheduler = _on(spec, spec.scheduler_host, Scheduler, _scheduler_options(spec))
    mixed = {"resources": {"CPU": 1}} if spec.gpu_hosts else {}
    workers = {
        f"cpu-{host}": _on(spec, host, Worker, {**_cpu_options(spec), "host": _address(host), **mixed})
        for host in spec.hosts
    }
    for host in spec.gpu_hosts:
        for gpu in spec.gpus:
            options = {**_gpu_options(spec, gpu), "host": _address(host)}
            workers[f"gpu-{host}-{gpu}"] = _on(spec, host, Worker, options)
    return scheduler, workers


def _scheduler_options(spec: SshSpec) -> dict[str, Any]:
    return {"host": _address(spec.scheduler_host), "port": 0, "dashboard_address": spec.dashboard, **_protocol(spec)}


def _cpu_options(spec: SshSpec) -> dict[str, Any]:
    memory = parse_bytes(spec.memory_per_worker)
    return {"n_workers": spec.workers_per_host, "nthreads": 1, "memory_limit": memory, **_protocol(spec)}


def _gpu_options(spec: SshSpec, gpu: int) -> dict[str, Any]:
    return {
        "nthreads": 1,
        "memory_limit": parse_bytes(spec.memory_per_gpu_worker),
        "resources": {"GPU": 1},
        "env": {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": str(gpu)},
        **_protocol(spec),
    }


def _protocol(spec: SshSpec) -> dict[str, str]:
    return {"protocol": "tls://"} if spec.tls.enabled else {}


def _address(host: str) -> str:
    """A process listens under the name by which the others know its host, not on every interface."""
    return "127.0.0.1" if host == "localhost" else host


def _on(spec: SshSpec, host: str, kind: type, options: Mapping[str, Any]) -> dict[str, Any]:
    login = {
        "port": spec.port,
        **({"username": spec.username} if spec.username else {}),
        **({"client_keys": [spec.key_file]} if spec.key_file else {}),
        **({"known_hosts": spec.known_hosts} if spec.known_hosts else {}),
    }
    return {
        "cls": kind,
        "options": {
            "address": host,
            "connect_options": login,
            "kwargs": dict(options),
            "remote_python": spec.python or None,
        },
    }


@contextmanager
def existing(spec: ExistingSpec) -> Iterator[Client]:
    """Join the scheduler.

    Raises
    ------
    ClusterError
        When nothing answers there, or the address and the certificates do not go together.
    """
    address = spec.address or _read_scheduler_file(spec.scheduler_file)
    keys = security(spec.tls, one_host=False, kind=spec.kind)
    if keys and not address.startswith("tls://"):
        raise ClusterError(f"the scheduler's address is {address}, but --tls asks for tls://HOST:PORT")
    if address.startswith("tls://") and not keys:
        raise ClusterError(f"{address} needs certificates: ca, cert and key in the [tls] section of a cluster file")
    try:
        client = Client(address, timeout="10s", security=keys)
    except (OSError, TimeoutError, ValueError) as error:
        reason = system_reason(error)
        raise ClusterError(
            f"no Dask scheduler answers at {address} ({reason}); is `dask scheduler` running?"
        ) from error
    with client:
        yield client


def _read_scheduler_file(file: str) -> str:
    if not file:
        raise ClusterError("an existing cluster needs an address or a scheduler_file")
    path = Path(file).expanduser()
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["address"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ClusterError(
            f"scheduler_file: {path} is not the file that `dask scheduler --scheduler-file` writes ({error})"
        ) from error
