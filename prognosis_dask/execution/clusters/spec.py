"""What a cluster file may say: one dataclass per kind, each field a key."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from dask.utils import parse_bytes

from prognosis_dask.config.sections import build_section
from prognosis_dask.errors import ClusterError, JobError

#: One case of a 512 x 512 CT stays below this; a worker with less would be killed at its work.
WORKER_MEMORY = "2 GiB"
#: Only this machine; a port that is taken is replaced by a free one.
DASHBOARD = "127.0.0.1:8787"


@dataclass(frozen=True)
class Encryption:
    """Certificates for ``tls://``: the authority's, and one certificate with its key for all roles.

    Without files, ``enabled`` makes a temporary set in memory, which reaches the workers of this machine only.
    """

    enabled: bool = False
    ca: str = ""
    cert: str = ""
    key: str = ""


@dataclass(frozen=True)
class LocalSpec:
    """Workers on this machine: processes of one thread. ``workers`` of zero: as many as cores and memory allow."""

    kind: str = "local"
    workers: int = 0
    memory_per_worker: str = WORKER_MEMORY
    host: str = "127.0.0.1"
    dashboard: str = DASHBOARD
    tls: Encryption = field(default_factory=Encryption)


@dataclass(frozen=True)
class CudaSpec:
    """One host with GPUs: a worker per GPU, and CPU workers on the cores that remain.

    ``gpus`` are device numbers as in ``nvidia-smi``; empty: all of them.
    """

    kind: str = "cuda"
    gpus: tuple[int, ...] = ()
    workers: int = 0
    memory_per_worker: str = WORKER_MEMORY
    memory_per_gpu_worker: str = "8 GiB"
    host: str = "127.0.0.1"
    dashboard: str = DASHBOARD
    tls: Encryption = field(default_factory=Encryption)


@dataclass(frozen=True)
class ExistingSpec:
    """A scheduler that is already there, by its ``address`` or by the ``scheduler_file`` that it wrote."""

    kind: str = "existing"
    address: str = ""
    scheduler_file: str = ""
    tls: Encryption = field(default_factory=Encryption)


@dataclass(frozen=True)
class SshSpec:
    """Hosts that are reached by ssh with a key. The scheduler runs on ``scheduler_host``.

    Each of ``hosts`` gets ``workers_per_host`` CPU workers; each of ``gpu_hosts`` a worker per number in ``gpus``.
    ``python`` is the interpreter on the hosts; empty: the same path as here.
    """

    kind: str = "ssh"
    scheduler_host: str = ""
    hosts: tuple[str, ...] = ()
    workers_per_host: int = 1
    memory_per_worker: str = WORKER_MEMORY
    gpu_hosts: tuple[str, ...] = ()
    gpus: tuple[int, ...] = (0,)
    memory_per_gpu_worker: str = "8 GiB"
    username: str = ""
    port: int = 22
    key_file: str = ""
    known_hosts: str = ""
    python: str = ""
    dashboard: str = DASHBOARD
    tls: Encryption = field(default_factory=Encryption)


@dataclass(frozen=True)
class SlurmJobs:
    """One sort of Slurm job: how many, what each asks for, and the directives that a site wants on top."""

    jobs: int = 0
    workers_per_job: int = 1
    cores_per_worker: int = 1
    memory_per_worker: str = WORKER_MEMORY
    partition: str = ""
    account: str = ""
    walltime: str = "04:00:00"
    directives: tuple[str, ...] = ()


@dataclass(frozen=True)
class SlurmSpec:
    """Slurm jobs of two sorts that find one scheduler by the file that it writes.

    ``folder``, on a disk that all nodes share, takes the scheduler file, the job scripts and the logs. ``interface`` is
    the network that the nodes share; the scheduler runs in this process and listens there. ``prologue`` are shell
    lines that each job runs first. ``wait_minutes`` is how long the first job of each sort may stay in the queue.
    """

    kind: str = "slurm"
    folder: str = "~/prognosis-cluster"
    interface: str = ""
    cpu: SlurmJobs = field(default_factory=lambda: SlurmJobs(jobs=1, workers_per_job=4))
    gpu: SlurmJobs = field(default_factory=lambda: SlurmJobs(directives=("--gres=gpu:1",)))
    prologue: tuple[str, ...] = ()
    python: str = ""
    wait_minutes: float = 60.0
    dashboard: str = DASHBOARD
    tls: Encryption = field(default_factory=Encryption)


@dataclass(frozen=True)
class KubernetesSpec:
    """A DaskCluster of the Dask operator: CPU workers, and a worker group of fixed size with a GPU each.

    ``claim`` is the volume that all pods see under ``mount``; ``pull_secret`` is for a private image.
    """

    kind: str = "kubernetes"
    name: str = "prognosis"
    namespace: str = "prognosis"
    image: str = ""
    workers: int = 4
    memory_per_worker: str = WORKER_MEMORY
    gpu_workers: int = 0
    memory_per_gpu_worker: str = "8 GiB"
    claim: str = "prognosis-data"
    mount: str = "/data"
    pull_secret: str = ""
    wait_minutes: float = 15.0


AnyCluster = LocalSpec | CudaSpec | ExistingSpec | SshSpec | SlurmSpec | KubernetesSpec
SPECS: dict[str, type[AnyCluster]] = {
    "local": LocalSpec,
    "cuda": CudaSpec,
    "ssh": SshSpec,
    "slurm": SlurmSpec,
    "kubernetes": KubernetesSpec,
    "existing": ExistingSpec,
}


def read_cluster(text: str, *, tls: bool = False) -> AnyCluster:
    """The cluster that ``--cluster`` names: ``local``, ``cuda``, ``tcp://HOST:PORT`` (or ``tls://``), or a TOML file.

    ``tls`` asks for encryption on top of what the file says.

    Raises
    ------
    ClusterError
        When it is none of these, the file has an unknown key or kind, or the kind cannot be encrypted.
    """
    if text in ("local", "cuda"):
        spec: AnyCluster = SPECS[text]()
    elif "://" in text:
        spec = ExistingSpec(address=text)
    else:
        spec = _read_file(Path(text))
    if not tls:
        return spec
    if isinstance(spec, KubernetesSpec):
        raise ClusterError("--tls: a kubernetes cluster is closed by its network policy instead; see cluster/README.md")
    return replace(spec, tls=replace(spec.tls, enabled=True))


def _read_file(path: Path) -> AnyCluster:
    if not path.is_file():
        raise ClusterError(
            f"--cluster {str(path)!r}: expected local, cuda, tcp://HOST:PORT, or a cluster file; no such file"
        )
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ClusterError(f"{path} is not TOML: {error}") from error
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in SPECS:
        raise ClusterError(f"{path}: kind is {kind!r}, expected one of {', '.join(SPECS)}")
    try:
        spec: AnyCluster = build_section(SPECS[kind], data, str(path))
    except JobError as error:
        raise ClusterError(str(error)) from None
    _check(spec, str(path))
    if not isinstance(spec, KubernetesSpec):
        spec = replace(spec, tls=_beside(spec.tls, path.parent))
    return spec


#: The least that a number may be; every other whole number may be zero.
_LEAST = {"workers_per_host": 1, "workers_per_job": 1, "cores_per_worker": 1, "port": 1}


def _check(spec: Any, where: str) -> None:
    """Refuse sizes that cannot be meant, in the file's own words, before a library finds its own."""
    for one in fields(spec):
        value = getattr(spec, one.name)
        if is_dataclass(value):
            _check(value, f"{where}: [{one.name}]")
        elif one.name.startswith("memory_per"):
            try:
                parse_bytes(value)
            except ValueError:
                raise ClusterError(f"{where}: {one.name} is {value!r}, expected a size such as '4 GiB'") from None
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and value < _LEAST.get(one.name, 0):
            raise ClusterError(f"{where}: {one.name} is {value}, expected {_LEAST.get(one.name, 0)} or more")


def _beside(tls: Encryption, folder: Path) -> Encryption:
    """The certificates' paths as seen from the cluster file; naming them asks for encryption."""
    files = {
        name: str((folder / Path(value).expanduser()).absolute())
        for name in ("ca", "cert", "key")
        if (value := getattr(tls, name))
    }
    return replace(tls, enabled=tls.enabled or bool(files), **files)
