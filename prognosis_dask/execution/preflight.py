"""Is the cluster fit for the run? Asked before any work, answered in one clear line for each thing that is not.

Versions must be equal, not merely close: tasks are functions of this package and travel as pickles of this Python, and
a feature's value may depend on every package that touches it, while a run's values may not depend on which worker made
them. What only an extra asks for may be absent on a worker, but not another version. Python's patch level is free.
"""

from __future__ import annotations

import platform
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from dask.utils import format_bytes
from distributed import Client

from prognosis_dask.errors import ClusterError
from prognosis_dask.execution.versions import is_optional, package_versions
from prognosis_dask.objects.address import Address, is_address, parse_address
from prognosis_dask.publish import cannot_write
from prognosis_dask.storage.place import LOCK

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
