"""One host with GPUs: a worker process per GPU, and CPU workers on the cores that remain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psutil
from dask.system import CPU_COUNT
from dask.utils import parse_bytes
from distributed import Client, Security

from prognosis_dask.errors import ClusterError, import_extra
from prognosis_dask.execution.clusters.security import security
from prognosis_dask.execution.clusters.spec import CudaSpec
from prognosis_dask.execution.clusters.started import fitting_workers, started, worker_process


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
