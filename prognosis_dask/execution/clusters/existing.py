"""A scheduler that is already running."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distributed import Client

from prognosis_dask.errors import ClusterError, system_reason
from prognosis_dask.execution.clusters.security import security
from prognosis_dask.execution.clusters.spec import ExistingSpec


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
