"""Slurm: CPU jobs and GPU jobs side by side, which find one scheduler by the file that it writes."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from dask.utils import format_bytes, parse_bytes
from distributed import Client

from prognosis_dask.errors import ClusterError, import_extra
from prognosis_dask.execution.clusters.security import security
from prognosis_dask.execution.clusters.spec import SlurmJobs, SlurmSpec, Walltime
from prognosis_dask.execution.clusters.started import started

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
            _wait(client, scripts, spec.wait_minutes)
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


def _wait(client: Client, sorts: Mapping[str, Path], minutes: float) -> None:
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
