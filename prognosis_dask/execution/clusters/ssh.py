"""Hosts that are reached by ssh: a scheduler on one, workers on the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import dask
from dask.utils import parse_bytes
from distributed import Client, SpecCluster
from distributed.deploy.ssh import Scheduler, Worker

from prognosis_dask.errors import ClusterError, import_extra
from prognosis_dask.execution.clusters.security import security, tls_config
from prognosis_dask.execution.clusters.spec import SshSpec
from prognosis_dask.execution.clusters.started import dashboard_config

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
