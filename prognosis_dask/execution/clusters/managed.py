"""Clusters of hosts that a resource manager finds: Slurm's jobs, and Kubernetes' pods by the Dask operator."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
from dask.utils import format_bytes, parse_bytes
from distributed import Client

from prognosis_dask.errors import ClusterError, import_extra
from prognosis_dask.execution.clusters import KubernetesSpec, SlurmJobs, SlurmSpec, Walltime
from prognosis_dask.execution.clusters.started import SCHEDULER_PRELOAD, security, started

#: Before Slurm ends a job, its workers stop taking tasks and finish the one they have.
MARGIN_SECONDS = 300


@contextmanager
def slurm(spec: SlurmSpec) -> Iterator[Client]:
    """Start a scheduler here, submit the jobs, wait for the first of each sort; cancel them with the block.

    The job scripts stay in the folder: ``sbatch`` one of them again while the run goes on and its workers join.

    Raises
    ------
    ClusterError
        When Slurm is not there, refuses a job, or starts none in time.
    MissingExtraError
        When dask-jobqueue is not installed.
    """
    keys = security(spec.tls, one_host=False, kind=spec.kind)
    host = _address_on(spec.interface)
    folder = Path(spec.folder).expanduser().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    scripts = write_scripts(spec, folder)
    options = {"scheduler_file": str(folder / "scheduler.json")}
    with started({}, host=host, dashboard=spec.dashboard, security=keys, scheduler_options=options) as client:
        submitted: list[str] = []
        try:
            for sort, script in scripts.items():
                submitted += [_sbatch(script) for _ in range(_jobs(spec)[sort].jobs)]
            _wait_for_jobs(client, scripts, spec.wait_minutes)
            yield client
        finally:
            if submitted:
                subprocess.run(["scancel", *submitted], check=False, capture_output=True)


def write_scripts(spec: SlurmSpec, folder: Path) -> dict[str, Path]:
    """``cpu.sbatch`` and ``gpu.sbatch``, those of which the file asks for at least one job."""
    scripts = {}
    for sort, jobs in _jobs(spec).items():
        if jobs.jobs:
            scripts[sort] = folder / f"{sort}.sbatch"
            scripts[sort].write_text(job_script(spec, folder, sort), encoding="utf-8")
    if not scripts:
        raise ClusterError("a slurm cluster needs jobs: set cpu.jobs or gpu.jobs to one or more")
    return scripts


def job_script(spec: SlurmSpec, folder: Path, sort: str) -> str:
    """The job script that dask-jobqueue writes for a sort of jobs, ``cpu`` or ``gpu``.

    Raises
    ------
    MissingExtraError
        When dask-jobqueue is not installed.
    """
    jobqueue: Any = import_extra("dask_jobqueue.slurm", extra="slurm", feature="a slurm cluster")
    jobs = _jobs(spec)[sort]
    memory = parse_bytes(jobs.memory_per_worker)
    lifetime = max(60, _seconds(jobs.walltime) - MARGIN_SECONDS)
    arguments = [
        *(["--resources", f"{sort.upper()}=1"] if spec.gpu.jobs else []),
        *("--lifetime", f"{lifetime}s"),
        *("--dashboard-address", "127.0.0.1:0"),  # else its web server listens on every interface
        *_tls_arguments(spec),
    ]
    job = jobqueue.SLURMJob(
        # taken word for word into the command line, where the scheduler's address would be
        scheduler=f"--scheduler-file {shlex.quote(str(folder / 'scheduler.json'))}",
        name=f"{sort}-$SLURM_JOB_ID",
        job_name=f"prognosis-{sort}",
        cores=jobs.workers_per_job,
        processes=jobs.workers_per_job,
        memory=format_bytes(memory * jobs.workers_per_job),
        job_cpu=jobs.workers_per_job * jobs.cores_per_worker,
        queue=jobs.partition or None,
        account=jobs.account or None,
        walltime=jobs.walltime,
        interface=spec.interface or None,
        death_timeout=120,
        worker_extra_args=arguments,
        job_extra_directives=list(jobs.directives),
        job_script_prologue=list(spec.prologue),
        log_directory=str(folder / "logs"),
        python=spec.python or None,
    )
    return str(job.job_script())


def _jobs(spec: SlurmSpec) -> Mapping[str, SlurmJobs]:
    return {"cpu": spec.cpu, "gpu": spec.gpu}


def _tls_arguments(spec: SlurmSpec) -> Sequence[str]:
    if not spec.tls.enabled:
        return ()
    return ("--tls-ca-file", spec.tls.ca, "--tls-cert", spec.tls.cert, "--tls-key", spec.tls.key)


def _seconds(walltime: str) -> int:
    """Slurm's HH:MM:SS or D-HH:MM:SS in seconds.

    >>> _seconds("1-02:00:00")
    93600
    """
    if not Walltime().holds(walltime):
        raise ClusterError(f"walltime is {walltime!r}, expected {Walltime.expected}")
    days, _, clock = walltime.rpartition("-")
    hours, minutes, seconds = (int(part) for part in clock.split(":"))
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def _sbatch(script: Path) -> str:
    try:
        done = subprocess.run(["sbatch", "--parsable", str(script)], check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise ClusterError("there is no sbatch on this machine; run this on a login node of the cluster") from error
    except subprocess.CalledProcessError as error:
        raise ClusterError(f"sbatch refused {script}: {error.stderr.strip() or error}") from error
    return done.stdout.strip().partition(";")[0]


def _wait_for_jobs(client: Client, sorts: Mapping[str, Path], minutes: float) -> None:
    """Until a worker of each sort has come."""
    deadline = time.monotonic() + 60 * minutes
    while True:
        names = [str(worker["name"]) for worker in client.scheduler_info(n_workers=-1)["workers"].values()]
        missing = [sort for sort in sorts if not any(name.startswith(f"{sort}-") for name in names)]
        if not missing:
            return
        if time.monotonic() > deadline:
            raise ClusterError(
                f"no {missing[0]} job joined within {minutes:g} minutes; see squeue --me and "
                f"{sorts[missing[0]].parent / 'logs'}; wait_minutes in the cluster file allows more"
            )
        time.sleep(1)


def _address_on(interface: str) -> str:
    if not interface:
        raise ClusterError(
            "interface: name the network that login and compute nodes share (see `ip -brief address`), such as ib0"
        )
    for address in psutil.net_if_addrs().get(interface, []):
        if address.family.name == "AF_INET":
            return str(address.address)
    known = ", ".join(sorted(psutil.net_if_addrs()))
    raise ClusterError(f"interface: {interface!r} has no address on this machine; it has {known}")


_FEATURE = "a kubernetes cluster"


@contextmanager
def kubernetes(spec: KubernetesSpec) -> Iterator[Client]:
    """Create the cluster's resources, wait for workers of each sort, and delete them with the block.

    Raises
    ------
    ClusterError
        When Kubernetes does not answer, lacks the operator, or starts no worker in time.
    MissingExtraError
        When dask-kubernetes is not installed.
    """
    operator: Any = import_extra("dask_kubernetes.operator", extra="kubernetes", feature=_FEATURE)
    resource = cluster_resource(spec)
    with ExitStack() as stack:
        try:
            cluster = stack.enter_context(
                operator.KubeCluster(
                    custom_cluster_spec=resource,
                    namespace=spec.namespace,
                    resource_timeout=60 * spec.wait_minutes,
                    quiet=True,
                )
            )
            if spec.gpu_workers:
                # the operator's own name for it is the cluster's, a dash, and this
                cluster.add_worker_group("gpu", custom_spec=gpu_group(spec)["spec"]["worker"])
            client = stack.enter_context(Client(cluster))
        except Exception as error:  # the API server, the operator and the network each have errors of their own
            raise ClusterError(
                f"the kubernetes cluster did not start ({type(error).__name__}: {error}); "
                f"look at: kubectl -n {spec.namespace} get daskclusters,pods"
            ) from error
        _wait_for_pods(client, spec)
        yield client


def cluster_resource(spec: KubernetesSpec) -> dict[str, Any]:
    """The DaskCluster that is submitted.

    Raises
    ------
    ClusterError
        When the file names no image.
    """
    operator: Any = import_extra("dask_kubernetes.operator", extra="kubernetes", feature=_FEATURE)
    if not spec.image:
        raise ClusterError("image: name the container image that holds this package (cluster/Dockerfile)")
    resource: dict[str, Any] = operator.make_cluster_spec(
        name=spec.name,
        image=spec.image,
        n_workers=spec.workers,
        resources=_limits(spec.memory_per_worker),
        worker_command=_command(spec.memory_per_worker, "CPU" if spec.gpu_workers else ""),
    )
    resource["metadata"]["namespace"] = spec.namespace
    scheduler = resource["spec"]["scheduler"]["spec"]
    scheduler["containers"][0]["env"] = _scheduler_environment()
    for pod in (scheduler, resource["spec"]["worker"]["spec"]):
        _mount(pod, spec)
    return resource


def gpu_group(spec: KubernetesSpec) -> dict[str, Any]:
    """The DaskWorkerGroup of the GPU workers, one GPU each; its size is fixed, since GPUs are."""
    operator: Any = import_extra("dask_kubernetes.operator", extra="kubernetes", feature=_FEATURE)
    worker = operator.make_worker_spec(
        image=spec.image,
        n_workers=spec.gpu_workers,
        resources=_limits(spec.memory_per_gpu_worker, gpus=1),
        worker_command=_command(spec.memory_per_gpu_worker, "GPU"),
    )
    _mount(worker["spec"], spec)
    return {
        "apiVersion": "kubernetes.dask.org/v1",
        "kind": "DaskWorkerGroup",
        "metadata": {"name": f"{spec.name}-gpu", "namespace": spec.namespace},
        "spec": {"cluster": spec.name, "worker": worker},
    }


def _command(memory: str, resource: str) -> str:
    """The operator adds the worker's name and its dashboard's port; the scheduler's address comes by environment."""
    tag = f" --resources {resource}=1" if resource else ""
    return f"dask worker --nthreads 1 --memory-limit {parse_bytes(memory)}{tag}"


def _limits(memory: str, gpus: int = 0) -> dict[str, Any]:
    """Requests equal to limits, so that no other pod's hunger has a worker evicted; a fifth more than Dask may use."""
    amounts = {"cpu": "1", "memory": str(parse_bytes(memory) * 6 // 5)}
    if gpus:
        amounts["nvidia.com/gpu"] = str(gpus)
    return {"requests": dict(amounts), "limits": dict(amounts)}


def _scheduler_environment() -> list[dict[str, str]]:
    """The dashboard opens through a tunnel only, and has its pages."""
    origins = '["localhost:8787", "127.0.0.1:8787"]'
    name = "DASK_DISTRIBUTED__SCHEDULER__DASHBOARD__BOKEH_APPLICATION__ALLOW_WEBSOCKET_ORIGIN"
    preload = "[" + ", ".join(f'"{module}"' for module in SCHEDULER_PRELOAD) + "]"
    return [{"name": name, "value": origins}, {"name": "DASK_DISTRIBUTED__SCHEDULER__PRELOAD", "value": preload}]


def _mount(pod: dict[str, Any], spec: KubernetesSpec) -> None:
    """The volume, if any, under the same path everywhere, credentials, and no rights that the work does not need."""
    if spec.claim:
        pod["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": spec.claim}}]
    if spec.service_account:
        pod["serviceAccountName"] = spec.service_account
    pod["securityContext"] = {"runAsNonRoot": True, "runAsUser": 1000, "fsGroup": 1000}
    if spec.pull_secret:
        pod["imagePullSecrets"] = [{"name": spec.pull_secret}]
    for container in pod["containers"]:
        if spec.claim:
            container["volumeMounts"] = [{"name": "data", "mountPath": spec.mount}]
        if spec.secret:
            container["envFrom"] = [{"secretRef": {"name": spec.secret}}]
        container["securityContext"] = {"allowPrivilegeEscalation": False}


def _wait_for_pods(client: Client, spec: KubernetesSpec) -> None:
    """Until a worker of each sort has come."""
    deadline = time.monotonic() + 60 * spec.wait_minutes
    while True:
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        gpus = [worker for worker in workers if worker["resources"].get("GPU")]
        if len(workers) > len(gpus) and (gpus or not spec.gpu_workers):
            return
        if time.monotonic() > deadline:
            raise ClusterError(
                f"no worker pod joined within {spec.wait_minutes:g} minutes; "
                f"look at: kubectl -n {spec.namespace} describe pods"
            )
        time.sleep(1)
