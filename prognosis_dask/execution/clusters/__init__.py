"""The kinds of cluster: what a cluster file may say of each, one dataclass per kind, each field a key."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from dask.utils import parse_bytes

from prognosis_dask.config.fields import AtLeast, AtMost, File, Folder, Unit
from prognosis_dask.config.reading import build, expect, read_toml, resolve_paths
from prognosis_dask.errors import ClusterError, JobError

#: One case of a 512 x 512 CT stays below this; a worker with less would be killed at its work.
WORKER_MEMORY = "2 GiB"
#: Only this machine; a port that is taken is replaced by a free one.
DASHBOARD = "127.0.0.1:8787"
_LAST_PORT = 65_535


class Size:
    """An amount of memory, as Dask reads it."""

    expected = "a size such as '4 GiB'"

    def holds(self, value: str) -> bool:
        """Whether Dask can read it."""
        try:
            return bool(parse_bytes(value) > 0)
        except (ValueError, OverflowError):
            return False


class HostPort:
    """Where a scheduler's dashboard listens."""

    expected = f"HOST:PORT, a port of 0 (any) to {_LAST_PORT}"

    def holds(self, value: str) -> bool:
        """Whether there is a host, and a port that can be."""
        host, _, port = value.rpartition(":")
        return bool(host) and port.isdecimal() and int(port) <= _LAST_PORT


class Walltime:
    """Slurm's limit of a job's time."""

    expected = "HH:MM:SS or D-HH:MM:SS"

    def holds(self, value: str) -> bool:
        """Whether it is of one of these forms."""
        return bool(re.fullmatch(r"([0-9]+-)?[0-9]+:[0-9]+:[0-9]+", value))


Kind = Annotated[str, "The kind of cluster."]
Workers = Annotated[int, AtLeast(0), "CPU workers; 0: as many as cores and free memory allow."]
WorkerMemory = Annotated[str, Size(), "Main memory of a CPU worker; a worker's task may need all of it."]
GpuWorkerMemory = Annotated[str, Size(), "Main memory of a GPU worker."]
Host = Annotated[str, "Address that scheduler and workers listen on."]
Dashboard = Annotated[str, HostPort(), "Where the dashboard listens; a port that is taken is replaced by a free one."]
Python = Annotated[str, "Python interpreter on the other hosts; empty: the same path as here."]
Certificate = Annotated[str, File(keep_links=True)]


@dataclass(frozen=True)
class Encryption:
    """Certificates for `tls://` addresses; one certificate with its key is for all roles."""

    enabled: Annotated[
        bool,
        "Whether connections are encrypted, also where files are named; without files by a temporary set in memory, "
        "which reaches the workers of this machine only.",
    ] = False
    ca: Annotated[Certificate, "The authority's certificate (PEM)."] = ""
    cert: Annotated[Certificate, "The certificate (PEM)."] = ""
    key: Annotated[Certificate, "Its key (PEM), readable by you alone."] = ""


@dataclass(frozen=True)
class LocalSpec:
    """Workers on this machine: processes of one thread."""

    kind: Kind = "local"
    workers: Workers = 0
    memory_per_worker: WorkerMemory = WORKER_MEMORY
    host: Host = "127.0.0.1"
    dashboard: Dashboard = DASHBOARD
    tls: Encryption = field(default_factory=Encryption)


@dataclass(frozen=True)
class CudaSpec:
    """One host with GPUs: a worker per GPU, and CPU workers on the cores that remain."""

    kind: Kind = "cuda"
    gpus: Annotated[
        tuple[Annotated[int, AtLeast(0)], ...], "Numbers of the GPUs, as nvidia-smi shows them; empty: all."
    ] = ()
    workers: Workers = 0
    memory_per_worker: WorkerMemory = WORKER_MEMORY
    memory_per_gpu_worker: GpuWorkerMemory = "8 GiB"
    host: Host = "127.0.0.1"
    dashboard: Dashboard = DASHBOARD
    tls: Encryption = field(default_factory=Encryption)


@dataclass(frozen=True)
class ExistingSpec:
    """A scheduler that is running already."""

    kind: Kind = "existing"
    address: Annotated[str, "Address of the scheduler, such as `tcp://127.0.0.1:8786`."] = ""
    scheduler_file: Annotated[
        str, File(), "Instead of the address: the file that `dask scheduler --scheduler-file FILE` wrote."
    ] = ""
    tls: Encryption = field(default_factory=Encryption)


@dataclass(frozen=True)
class SshSpec:
    """Hosts that are reached by ssh with a key."""

    kind: Kind = "ssh"
    scheduler_host: Annotated[str, "Host of the scheduler, as the other hosts know it."] = ""
    hosts: Annotated[tuple[str, ...], "Hosts of CPU workers."] = ()
    workers_per_host: Annotated[int, AtLeast(1), "CPU workers on each of `hosts`."] = 1
    memory_per_worker: WorkerMemory = WORKER_MEMORY
    gpu_hosts: Annotated[tuple[str, ...], "Hosts of GPU workers."] = ()
    gpus: Annotated[
        tuple[Annotated[int, AtLeast(0)], ...], "Numbers of the GPUs of each of `gpu_hosts`, a worker each."
    ] = (0,)
    memory_per_gpu_worker: GpuWorkerMemory = "8 GiB"
    username: Annotated[str, "Name to log in with; empty: yours here."] = ""
    port: Annotated[int, AtLeast(1), AtMost(_LAST_PORT), "Port of the ssh servers."] = 22
    key_file: Annotated[str, File(), "Private key; empty: the agent's keys, and those in `~/.ssh`."] = ""
    known_hosts: Annotated[str, File(), "Known hosts; empty: `~/.ssh/known_hosts`."] = ""
    python: Python = ""
    dashboard: Dashboard = DASHBOARD
    tls: Encryption = field(default_factory=Encryption)


@dataclass(frozen=True)
class SlurmJobs:
    """Slurm jobs of one sort."""

    jobs: Annotated[int, AtLeast(0), "Number of jobs."] = 0
    workers_per_job: Annotated[int, AtLeast(1), "Worker processes in each job."] = 1
    cores_per_worker: Annotated[int, AtLeast(1), "Cores that a job asks for per worker."] = 1
    memory_per_worker: WorkerMemory = WORKER_MEMORY
    partition: Annotated[str, "Partition; empty: the site's default."] = ""
    account: Annotated[str, "Account; empty: your default."] = ""
    walltime: Annotated[str, Walltime(), "Limit of a job's time."] = "04:00:00"
    directives: Annotated[tuple[str, ...], "Further lines after `#SBATCH`."] = ()


@dataclass(frozen=True)
class SlurmSpec:
    """Slurm jobs with CPU and with GPU workers; the scheduler runs in this process."""

    kind: Kind = "slurm"
    folder: Annotated[
        str, Folder(keep_links=True), "Folder on a disk that all nodes share, for scheduler file, job scripts and logs."
    ] = "~/prognosis-cluster"
    interface: Annotated[str, "Network interface that login and compute nodes share, such as `ib0`."] = ""
    cpu: SlurmJobs = field(default_factory=lambda: SlurmJobs(jobs=1, workers_per_job=4))
    gpu: SlurmJobs = field(default_factory=lambda: SlurmJobs(directives=("--gres=gpu:1",)))
    prologue: Annotated[tuple[str, ...], "Shell lines that each job runs first."] = ()
    python: Python = ""
    wait_minutes: Annotated[
        float, AtLeast(0), Unit("min"), "Longest wait for the first job of each sort in the queue."
    ] = 60.0
    dashboard: Dashboard = DASHBOARD
    tls: Encryption = field(default_factory=Encryption)


@dataclass(frozen=True)
class KubernetesSpec:
    """A DaskCluster of the Dask operator, with CPU workers and a worker group of one GPU each."""

    kind: Kind = "kubernetes"
    name: Annotated[str, "Name of the DaskCluster."] = "prognosis"
    namespace: Annotated[str, "Namespace of all resources."] = "prognosis"
    image: Annotated[str, "Container image with this package (cluster/Dockerfile)."] = ""
    workers: Annotated[int, AtLeast(0), "Pods of one CPU worker each."] = 4
    memory_per_worker: WorkerMemory = WORKER_MEMORY
    gpu_workers: Annotated[int, AtLeast(0), "Pods of one GPU worker each."] = 0
    memory_per_gpu_worker: GpuWorkerMemory = "8 GiB"
    claim: Annotated[str, "Claim of the volume with images and runs (ReadWriteMany); empty: none, all in buckets."] = (
        "prognosis-data"
    )
    mount: Annotated[str, "Where every pod, the driver's too, mounts the volume."] = "/data"
    pull_secret: Annotated[str, "Secret for a private registry; empty: none."] = ""
    service_account: Annotated[str, "Of the pods, where a role in the cloud is bound to it; empty: the default."] = ""
    secret: Annotated[str, "Secret whose entries are the pods' environment, credentials say; empty: none."] = ""
    wait_minutes: Annotated[float, AtLeast(0), Unit("min"), "Longest wait for a pod of each sort."] = 15.0


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
    absent = f"--cluster {str(path)!r}: expected local, cuda, tcp://HOST:PORT, or a cluster file"
    try:
        data = read_toml(path, absent)
        kind = data.get("kind")
        known = isinstance(kind, str) and kind in SPECS
        expect(known, str(path), "kind", kind, f"one of {', '.join(SPECS)}")
        of_kind = SPECS[str(kind)]
        spec: AnyCluster = build(of_kind, resolve_paths(of_kind, data, path.parent), str(path))
    except JobError as error:
        raise ClusterError(str(error)) from None
    if isinstance(spec, KubernetesSpec):
        return spec
    named = bool(spec.tls.ca or spec.tls.cert or spec.tls.key)  # which asks for encryption
    return replace(spec, tls=replace(spec.tls, enabled=spec.tls.enabled or named))
