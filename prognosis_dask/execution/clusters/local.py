"""Workers on this machine: processes of one thread each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psutil
from dask.system import CPU_COUNT
from distributed import Client

from prognosis_dask.execution.clusters.security import security
from prognosis_dask.execution.clusters.spec import LocalSpec
from prognosis_dask.execution.clusters.started import fitting_workers, started, worker_process


@contextmanager
def local(spec: LocalSpec) -> Iterator[Client]:
    """Start the workers; each may use its share of the machine's memory."""
    workers = spec.workers or fitting_workers(spec.memory_per_worker, CPU_COUNT)
    memory = psutil.virtual_memory().total // workers
    keys = security(spec.tls, one_host=True, kind=spec.kind)
    specs = {f"cpu-{n}": worker_process(host=spec.host, memory_limit=memory, security=keys) for n in range(workers)}
    with started(specs, host=spec.host, dashboard=spec.dashboard, security=keys) as client:
        yield client
