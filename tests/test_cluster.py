"""Each kind of cluster with real processes: who may reach it, and that work gets done on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from urllib.parse import urlparse

import dask
import psutil
import pytest
from distributed import Client

from prognosis_dask.errors import ClusterError, MissingExtraError
from prognosis_dask.execution.cluster import check_run, check_workers, connect, read_cluster
from prognosis_dask.execution.clusters import (
    CudaSpec,
    Encryption,
    ExistingSpec,
    LocalSpec,
    SlurmJobs,
    SlurmSpec,
    SshSpec,
)
from prognosis_dask.execution.clusters.hosts import cuda_workers, find_gpus, ssh_specs
from prognosis_dask.execution.clusters.started import websocket_origins
from tests.dask_processes import PATIENCE, listening, scheduler, wait_for, worker

ANY_PORT = "127.0.0.1:0"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Encryption:
    """Made as cluster/README.md says."""
    folder = tmp_path_factory.mktemp("certificates")
    text = (Path(__file__).parents[1] / "cluster" / "README.md").read_text()
    block = text.partition("<!-- certificates -->")[2].partition("```sh\n")[2].partition("```")[0]
    assert "openssl" in block
    subprocess.run(["bash", "-e", "-c", block], cwd=folder, check=True, capture_output=True)
    return Encryption(True, *(str(folder / name) for name in ("ca.pem", "cluster.pem", "cluster-key.pem")))


@pytest.fixture(scope="module")
def local() -> Iterator[Client]:
    with connect(LocalSpec(workers=1, dashboard=ANY_PORT)) as client:
        yield client


def test_scheduler_workers_and_dashboard_listen_on_this_machine_only(local: Client) -> None:
    me = psutil.Process()
    pids = [me.pid, *(child.pid for child in me.children(recursive=True))]
    assert len(pids) > 2
    assert listening(pids) == {"127.0.0.1"}


def test_a_worker_spends_nothing_on_looking_where_its_threads_wait(local: Client) -> None:
    (profiles,) = local.run(lambda dask_worker: "profile" in dask_worker.periodic_callbacks).values()
    assert not profiles


@pytest.mark.parametrize(("origin", "status"), [("http://{}", 101), ("http://evil.example:8787", 403)])
def test_only_the_dashboards_own_pages_may_open_its_websocket(local: Client, origin: str, status: int) -> None:
    address = urlparse(local.dashboard_link).netloc
    headers = {
        "Origin": origin.format(address),
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
        "Sec-WebSocket-Protocol": "bokeh",
    }
    with closing(HTTPConnection(address, timeout=100)) as connection:
        connection.request("GET", "/status/ws", headers=headers)
        assert connection.getresponse().status == status


def test_a_machine_without_semaphores_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a container without a writable /dev/shm is, where the workers' processes would never start."""
    monkeypatch.setattr("multiprocessing.synchronize.SemLock._make_name", lambda *_: "/no/such/semaphore")
    with pytest.raises(ClusterError, match="no worker process can start"), connect(LocalSpec(workers=1)):
        pass


def test_a_machine_whose_loopback_is_down_is_refused_at_once(tmp_path: Path) -> None:
    alone = ["unshare", "--map-root-user", "--net"]
    if subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("needs the right to a network namespace")
    command = [*alone, sys.executable, "-m", "prognosis_dask", "index", str(tmp_path), "-o", str(tmp_path / "out")]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert "this machine does not reach itself there" in line
    assert "ip link set lo up" in line


def test_a_dashboard_on_another_interface_allows_that_name_and_a_tunnel() -> None:
    assert websocket_origins("10.0.0.7:80") == ["localhost:80", "127.0.0.1:80", "10.0.0.7:80"]
    assert "*" not in "".join(websocket_origins("0.0.0.0:8787"))


def test_a_taken_dashboard_port_is_replaced_and_a_foreign_host_refused(local: Client) -> None:
    taken = urlparse(local.dashboard_link).netloc
    with connect(LocalSpec(workers=1, dashboard=taken)) as other:
        assert urlparse(other.dashboard_link).netloc != taken
    with (
        pytest.raises(ClusterError, match="cannot listen on 203"),
        connect(LocalSpec(workers=1, dashboard="203.0.113.1:8787")),
    ):
        pass


@pytest.mark.skipif(find_spec("cryptography") is None, reason="extra tls (cryptography) is not installed")
def test_a_temporary_set_of_certificates_encrypts_a_cluster_of_one_host() -> None:
    with connect(LocalSpec(workers=1, dashboard=ANY_PORT, tls=Encryption(enabled=True))) as client:
        address = client.scheduler.address
        assert address.startswith("tls://")
        assert set(client.run(os.getpid)) == set(client.scheduler_info()["workers"])
        assert all(worker.startswith("tls://") for worker in client.scheduler_info()["workers"])
        with pytest.raises(OSError), Client(address.replace("tls://", "tcp://"), timeout=2):
            pass


def test_own_certificates_join_a_scheduler_over_tls(certificates: Encryption, tmp_path: Path) -> None:
    file = tmp_path / "scheduler.json"
    keys = ["--tls-ca-file", certificates.ca, "--tls-cert", certificates.cert, "--tls-key", certificates.key]
    with scheduler(file, *keys, "--protocol", "tls") as address, worker(file, *keys, "--protocol", "tls"):
        assert address.startswith("tls://127.0.0.1:")
        wait_for_workers(ExistingSpec(address=address, tls=certificates), 1)
        with connect(ExistingSpec(scheduler_file=str(file), tls=certificates)) as client:
            assert client.submit(sum, (1, 2)).result() == 3
        with pytest.raises(ClusterError, match="needs certificates"), connect(ExistingSpec(address=address)):
            pass


def test_a_scheduler_is_found_by_the_file_that_it_wrote(tmp_path: Path) -> None:
    file = tmp_path / "scheduler.json"
    with scheduler(file) as address:
        with pytest.raises(ClusterError, match=rf"{address} has no workers; start some with: dask worker {address}"):
            wait_for_workers(ExistingSpec(address=address), 0)
        with worker(file) as process:
            spec = ExistingSpec(scheduler_file=str(file))
            wait_for_workers(spec, 1)
            with connect(spec) as client:
                assert client.submit(sum, (1, 2)).result() == 3
            pids = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
            assert listening(pids) == {"127.0.0.1"}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (ExistingSpec(), "needs an address or a scheduler_file"),
        (ExistingSpec(scheduler_file="/nowhere.json"), "is not the file that `dask scheduler --scheduler-file` writes"),
        (ExistingSpec(address="tcp://127.0.0.1:9"), "no Dask scheduler answers at tcp://127.0.0.1:9"),
        (ExistingSpec(address="tls://127.0.0.1:9", tls=Encryption(True)), "works on one host only; kind existing"),
        (LocalSpec(tls=Encryption(True, ca="/no.pem")), "tls.ca: no file at '/no.pem'"),
        (LocalSpec(dashboard="8787"), "dashboard is '8787', expected HOST:PORT"),
        (
            LocalSpec(dashboard="127.0.0.1:99999"),
            "dashboard is '127.0.0.1:99999', expected HOST:PORT, a port of 0 (any) to 65535",
        ),
        (SlurmSpec(interface="nosuch0"), "'nosuch0' has no address on this machine; it has"),
        (SlurmSpec(), "name the network that login and compute nodes share"),
        (SlurmSpec(interface="lo", cpu=SlurmJobs()), "needs jobs: set cpu.jobs or gpu.jobs"),
        (SlurmSpec(interface="lo", cpu=SlurmJobs(jobs=1, walltime="8h")), "walltime is '8h', expected HH:MM:SS"),
    ],
)
def test_what_cannot_start_says_why_in_one_line(
    spec: ExistingSpec | LocalSpec | SlurmSpec, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    if isinstance(spec, SlurmSpec) and "walltime" in message:
        pytest.importorskip("dask_jobqueue", reason="extra slurm is not installed")
    with pytest.raises(ClusterError) as caught, connect(spec):
        pass
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


FAKE_NVML = """
    class NVMLError(Exception): pass
    def nvmlInit():
        if {gpus} < 0: raise NVMLError("Driver Not Loaded")
    def nvmlDeviceGetCount(): return {gpus}
"""


def fake_nvml(monkeypatch: pytest.MonkeyPatch, gpus: int) -> None:
    """NVIDIA's library as it answers on a machine with so many GPUs; below zero: without a driver."""
    module = ModuleType("pynvml")
    exec(textwrap.dedent(FAKE_NVML.format(gpus=gpus)), vars(module))
    monkeypatch.setitem(sys.modules, "pynvml", module)


@pytest.mark.parametrize(
    ("gpus", "wanted", "message"),
    [
        (-1, (), r"no NVIDIA driver answers on this machine \(Driver Not Loaded\).*--cluster local"),
        (0, (), "sees no GPU on this machine"),
        (2, (0, 3), "there is no GPU 3 on this machine, it has 0 to 1"),
    ],
)
def test_a_machine_without_the_gpu_says_so(
    gpus: int, wanted: tuple[int, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_nvml(monkeypatch, gpus)
    with pytest.raises(ClusterError, match=message):
        find_gpus(wanted)


def test_a_cuda_cluster_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # cannot be imported
    with pytest.raises(MissingExtraError, match=r"pip install 'prognosis-dask\[cuda\]'"):
        find_gpus(())


def test_a_cuda_cluster_has_a_worker_for_each_gpu_and_workers_for_the_other_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_nvml(monkeypatch, 2)
    spec = CudaSpec(gpus=(1,), workers=1, memory_per_gpu_worker="2 GiB", dashboard=ANY_PORT)
    # Dask's own GPU diagnostics ask the library for more than the fake knows
    with dask.config.set({"distributed.diagnostics.nvml": False}), connect(spec) as client:
        workers = client.scheduler_info(n_workers=-1)["workers"]
        resources = {worker["name"]: worker["resources"] for worker in workers.values()}
        names = {address: worker["name"] for address, worker in workers.items()}
        seen = {names[k]: v for k, v in client.run(lambda: os.environ["CUDA_VISIBLE_DEVICES"]).items()}
        check_run(client, tmp_path, gpu=True, memory=10**9)
    assert resources == {"gpu-1": {"GPU": 1}, "cpu-0": {"CPU": 1}}
    assert seen == {"gpu-1": "1", "cpu-0": ""}
    assert {worker["nthreads"] for worker in workers.values()} == {1}


def test_cuda_workers_share_the_machines_cores_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prognosis_dask.execution.clusters.hosts.CPU_COUNT", 16)
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("", (), {"available": 100 * 2**30, "total": 128 * 2**30}))
    workers = cuda_workers(CudaSpec(), (0, 1), None)
    limits = {name: worker["options"]["memory_limit"] for name, worker in workers.items()}
    assert list(limits) == ["gpu-0", "gpu-1", *(f"cpu-{n}" for n in range(14))]
    assert limits["gpu-0"] == 8 * 2**30
    assert sum(limits.values()) == pytest.approx(128 * 2**30, rel=0.01)


def test_a_local_cuda_cluster_that_the_user_started_is_ready_for_a_gpu_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On faked devices: NVIDIA's library is patched as far as dask-cuda asks it."""
    pytest.importorskip("dask_cuda", reason="extra cuda is not installed")
    import pynvml
    from dask_cuda import LocalCUDACluster

    monkeypatch.setenv("DASK_DISTRIBUTED__DIAGNOSTICS__NVML", "False")
    monkeypatch.setenv("DASK_CUDA_TEST_DISABLE_DEVICE_SPECIFIC", "1")
    for name, answer in {
        "nvmlInit": None,
        "nvmlDeviceGetCount": 2,
        "nvmlDeviceGetHandleByIndex": object(),
        "nvmlDeviceGetMemoryInfo": type("", (), {"total": 8 * 2**30}),
        "nvmlDeviceGetCpuAffinity": [3],
    }.items():
        monkeypatch.setattr(pynvml, name, lambda *_, answer=answer: answer)
    with (
        LocalCUDACluster(
            CUDA_VISIBLE_DEVICES=[0, 1], resources={"GPU": 1}, host="127.0.0.1", dashboard_address=ANY_PORT,
            memory_limit="4 GiB", device_memory_limit="1 GiB",
        ) as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        check_workers(client)
        check_run(client, tmp_path, gpu=True, memory=10**9)
        assert len(client.scheduler_info(n_workers=-1)["workers"]) == 2
        assert client.submit(os.getpid, resources={"GPU": 1}).result()


FAKE_SBATCH = """#!/bin/bash
[ "$1" = --parsable ] || exit 1
export SLURM_JOB_ID=$$
setsid bash "$2" > "{folder}/job-$$.log" 2>&1 &
echo "$$;cluster"
echo $! > "{folder}/pid-$$"
"""
FAKE_SCANCEL = """#!/bin/bash
for job; do kill -TERM -- -$(cat "{folder}/pid-$job"); echo $job >> "{folder}/cancelled"; done
"""


def test_slurm_jobs_of_both_sorts_join_one_scheduler_and_are_cancelled_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job scripts run for real; only Slurm itself is replaced, by two shell scripts."""
    pytest.importorskip("dask_jobqueue", reason="extra slurm is not installed")
    for name, text in {"sbatch": FAKE_SBATCH, "scancel": FAKE_SCANCEL}.items():
        (tmp_path / name).write_text(text.format(folder=tmp_path))
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    spec = SlurmSpec(
        folder=str(tmp_path / "shared folder"), interface="lo", python=sys.executable, wait_minutes=4,
        dashboard=ANY_PORT,
        cpu=SlurmJobs(jobs=1, workers_per_job=2), gpu=SlurmJobs(jobs=1, memory_per_worker="2 GiB"),
    )  # fmt: skip
    with connect(spec) as client:
        wait_for(lambda: len(client.scheduler_info(n_workers=-1)["workers"]) == 3)
        offers = [worker["resources"] for worker in client.scheduler_info(n_workers=-1)["workers"].values()]
        check_run(client, tmp_path, gpu=True, memory=10**9)
    assert sorted(map(str, offers)) == ["{'CPU': 1.0}", "{'CPU': 1.0}", "{'GPU': 1.0}"]
    assert len((tmp_path / "cancelled").read_text().split()) == 2


def test_slurm_that_refuses_a_job_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dask_jobqueue", reason="extra slurm is not installed")
    (tmp_path / "sbatch").write_text("#!/bin/sh\necho 'invalid partition specified: cpu' >&2; exit 1\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    spec = SlurmSpec(folder=str(tmp_path), interface="lo", dashboard=ANY_PORT)
    with pytest.raises(ClusterError, match=r"sbatch refused .*: invalid partition specified: cpu"), connect(spec):
        pass


def test_an_ssh_cluster_starts_each_worker_on_its_host_and_listens_there_only() -> None:
    spec = SshSpec(
        scheduler_host="head", hosts=("node1", "node2"), workers_per_host=8, gpu_hosts=("node2",), gpus=(0, 1),
        username="me", key_file="/k", python="/venv/bin/python", tls=Encryption(True, "a", "b", "c"),
    )  # fmt: skip
    started, workers = ssh_specs(spec)
    assert started["options"]["address"] == "head"
    assert started["options"]["kwargs"]["host"] == "head"
    assert started["options"]["kwargs"]["dashboard_address"] == "127.0.0.1:8787"
    assert list(workers) == ["cpu-node1", "cpu-node2", "gpu-node2-0", "gpu-node2-1"]
    for name, item in workers.items():
        options = item["options"]
        assert options["address"] == options["kwargs"]["host"] == name.split("-")[1]
        assert options["connect_options"] == {"port": 22, "username": "me", "client_keys": ["/k"]}
        assert options["remote_python"] == "/venv/bin/python"
        assert options["kwargs"]["nthreads"] == 1
        assert options["kwargs"]["protocol"] == "tls://"
        json.dumps(options["kwargs"])  # travels as text
    assert workers["cpu-node1"]["options"]["kwargs"]["n_workers"] == 8
    assert workers["cpu-node1"]["options"]["kwargs"]["resources"] == {"CPU": 1}
    assert workers["gpu-node2-1"]["options"]["kwargs"]["env"]["CUDA_VISIBLE_DEVICES"] == "1"
    with pytest.raises(ClusterError, match="needs scheduler_host and hosts"):
        ssh_specs(SshSpec())


def test_an_ssh_cluster_starts_over_a_real_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("asyncssh", reason="extra ssh (asyncssh) is not installed")
    from tests.ssh_server import ssh_server

    with ssh_server(tmp_path) as (port, key, known_hosts):
        spec = SshSpec(
            scheduler_host="127.0.0.1", hosts=("127.0.0.1",), workers_per_host=2, username="me", port=port,
            key_file=str(key), known_hosts=str(known_hosts), python=sys.executable, dashboard=ANY_PORT,
        )  # fmt: skip
        with connect(spec) as client:
            wait_for(lambda: len(client.scheduler_info(n_workers=-1)["workers"]) == 2)
            assert client.submit(sum, (1, 2)).result() == 3
            check_run(client, tmp_path, gpu=False, memory=10**9)


def wait_for_workers(spec: ExistingSpec, count: int) -> None:
    """Connect as the factory does, when so many workers have joined."""
    from prognosis_dask.execution.clusters.hosts import existing

    with existing(spec) as client:
        client.wait_for_workers(count, timeout=PATIENCE) if count else None
        check_workers(client)


def test_the_command_lines_cluster_reaches_the_factory(tmp_path: Path, refused: Callable[..., str]) -> None:
    said = refused("index", tmp_path, "-o", tmp_path, "--cluster", "ssh")
    assert "expected local, cuda, tcp://HOST:PORT, or a cluster file" in said
    assert read_cluster("cuda", tls=True).tls.enabled
