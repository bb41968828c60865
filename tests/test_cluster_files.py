"""Cluster files: read exactly, and refused in a line that says what to mend."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from prognosis_dask.errors import ClusterError
from prognosis_dask.execution.cluster import read_cluster
from prognosis_dask.execution.clusters import SPECS, CudaSpec, ExistingSpec, KubernetesSpec, LocalSpec, SlurmSpec
from prognosis_dask.execution.clusters.managed import job_script

CLUSTER = Path(__file__).parents[1] / "cluster"


@pytest.mark.parametrize("kind", SPECS)
def test_each_kind_has_a_file_to_copy_that_reads(kind: str) -> None:
    assert read_cluster(str(CLUSTER / f"{kind}.toml")).kind == kind


def test_a_cluster_is_named_by_kind_by_address_or_by_file() -> None:
    assert read_cluster("local") == LocalSpec()
    assert read_cluster("cuda") == CudaSpec()
    assert read_cluster("tls://10.0.0.1:8786") == ExistingSpec(address="tls://10.0.0.1:8786")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('kind = "local"\nwokers = 2', "unknown key wokers; did you mean workers?"),
        ('kind = "slurm"\n[cpu]\npartitoin = "x"', "unknown key cpu.partitoin; did you mean cpu.partition?"),
        ('kind = "local"\nworkers = "two"', "workers is 'two', expected a whole number"),
        ('kind = "yarn"', "kind is 'yarn', expected one of local, cuda, ssh, slurm, kubernetes, existing"),
        ("workers = 2", "kind is None, expected one of"),
        ("kind = []", "kind is [], expected one of"),
        ("kind = ", "is not TOML"),
        ('kind = "kubernetes"\n[tls]\nenabled = true', "unknown key tls"),
        ('kind = "ssh"\nmemory_per_worker = "lots"', "memory_per_worker is 'lots', expected a size such as '4 GiB'"),
        ('kind = "slurm"\n[gpu]\nmemory_per_worker = "8 apples"', "gpu.memory_per_worker is '8 apples'"),
        ('kind = "local"\nworkers = -3', "workers is -3, expected zero or more"),
        ('kind = "ssh"\nworkers_per_host = 0', "workers_per_host is 0, expected one or more"),
        ('kind = "slurm"\n[cpu]\njobs = -1', "cpu.jobs is -1, expected zero or more"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_what_was_meant(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text(text)
    with pytest.raises(ClusterError, match=re.escape(message)) as caught:
        read_cluster(str(path))
    assert str(path) in str(caught.value)


def test_certificates_are_found_beside_their_file_and_ask_for_encryption(tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text('kind = "existing"\naddress = "tls://h:1"\n[tls]\nca = "ca.pem"\ncert = "/c.pem"\nkey = "~/k.pem"')
    tls = read_cluster(str(path)).tls
    assert (tls.enabled, tls.ca, tls.cert) == (True, str(tmp_path / "ca.pem"), "/c.pem")
    assert tls.key == str(Path.home() / "k.pem")


def test_tls_on_the_command_line_encrypts_any_kind_but_kubernetes() -> None:
    assert read_cluster("local", tls=True).tls.enabled
    with pytest.raises(ClusterError, match="closed by its network policy"):
        read_cluster(str(CLUSTER / "kubernetes.toml"), tls=True)


def test_slurm_jobs_of_both_sorts_find_the_scheduler_by_its_file_and_offer_their_resource(tmp_path: Path) -> None:
    pytest.importorskip("dask_jobqueue", reason="extra slurm is not installed")
    path = tmp_path / "slurm.toml"
    text = (CLUSTER / "slurm.toml").read_text().replace("jobs = 0 ", "jobs = 2 ").replace('"ib0"', '""')
    path.write_text(text.replace("prologue = []", 'prologue = ["module load python/3.11"]'))
    spec = read_cluster(str(path))
    assert isinstance(spec, SlurmSpec)
    cpu, gpu = (job_script(spec, tmp_path / "shared", sort) for sort in ("cpu", "gpu"))
    certificates = Path.home() / "prognosis-certs"
    for script, lines in {
        cpu: ["#SBATCH -p cpu", "#SBATCH --cpus-per-task=16", "#SBATCH --mem=32G", "#SBATCH -t 08:00:00"],
        gpu: ["#SBATCH -p gpu", "#SBATCH --cpus-per-task=4", "#SBATCH --mem=8G", "#SBATCH --gres=gpu:1"],
    }.items():
        assert set(lines) <= set(script.splitlines())
        assert script.startswith("#!")
        assert "module load python/3.11" in script.splitlines()
        command = script.strip().splitlines()[-1]
        assert f"-m distributed.cli.dask_worker --scheduler-file {tmp_path / 'shared' / 'scheduler.json'} " in command
        assert f"--tls-ca-file {certificates / 'ca.pem'} " in command
        assert "--nthreads 1 " in command
        assert "--lifetime 28500s" in command
    assert "--nworkers 16 " in cpu
    assert "--memory-limit 2.00GiB" in cpu
    assert "--name cpu-$SLURM_JOB_ID " in cpu
    assert "--resources CPU=1" in cpu
    assert "--resources GPU=1" in gpu
    assert "--gres" not in cpu


def test_slurm_jobs_ask_for_nothing_by_name_when_all_are_cpu_jobs(tmp_path: Path) -> None:
    pytest.importorskip("dask_jobqueue", reason="extra slurm is not installed")
    assert "--resources" not in job_script(SlurmSpec(), tmp_path, "cpu")


def test_the_kubernetes_cluster_is_the_operators_own_with_our_volume_and_commands() -> None:
    pytest.importorskip("dask_kubernetes", reason="extra kubernetes is not installed")
    from prognosis_dask.execution.clusters.managed import cluster_resource, gpu_group

    spec = read_cluster(str(CLUSTER / "kubernetes.toml"))
    assert isinstance(spec, KubernetesSpec)
    spec = KubernetesSpec(**{**vars(spec), "gpu_workers": 2})
    cluster, group = cluster_resource(spec), gpu_group(spec)
    assert (cluster["kind"], cluster["metadata"]) == ("DaskCluster", {"name": "prognosis", "namespace": "prognosis"})
    scheduler, worker = (cluster["spec"][part]["spec"] for part in ("scheduler", "worker"))
    gpu = group["spec"]["worker"]["spec"]
    for pod in (scheduler, worker, gpu):
        assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": "prognosis-data"}
        assert pod["containers"][0]["volumeMounts"] == [{"name": "data", "mountPath": "/data"}]
        assert pod["containers"][0]["image"] == spec.image
        assert pod["securityContext"]["runAsNonRoot"]
    assert cluster["spec"]["worker"]["replicas"] == 8
    assert group["spec"]["worker"]["replicas"] == 2
    assert group["spec"]["cluster"] == "prognosis"
    words = worker["containers"][0]["args"]
    assert words[:4] == ["dask", "worker", "--nthreads", "1"]
    assert words[words.index("--resources") + 1] == "CPU=1"
    assert "GPU=1" in gpu["containers"][0]["args"]
    limits = gpu["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "1"
    assert int(limits["memory"]) > 8 * 2**30  # the pod outlives what Dask lets the worker take
    origins = {item["name"]: item["value"] for item in scheduler["containers"][0]["env"]}
    assert (
        '"localhost:8787"'
        in origins["DASK_DISTRIBUTED__SCHEDULER__DASHBOARD__BOKEH_APPLICATION__ALLOW_WEBSOCKET_ORIGIN"]
    )


def test_pods_without_a_volume_have_their_credentials_from_a_secret_or_a_role() -> None:
    pytest.importorskip("dask_kubernetes", reason="extra kubernetes is not installed")
    from prognosis_dask.execution.clusters.managed import cluster_resource

    spec = KubernetesSpec(
        image="registry.example.org/image", claim="", secret="prognosis-bucket", service_account="role"
    )
    parts = cluster_resource(spec)["spec"]
    for pod in (parts["scheduler"]["spec"], parts["worker"]["spec"]):
        assert "volumes" not in pod
        assert pod["serviceAccountName"] == "role"
        (container,) = pod["containers"]
        assert "volumeMounts" not in container
        assert container["envFrom"] == [{"secretRef": {"name": "prognosis-bucket"}}]


def test_the_manifests_agree_with_the_cluster_file() -> None:
    spec = read_cluster(str(CLUSTER / "kubernetes.toml"))
    assert isinstance(spec, KubernetesSpec)
    setup = {item["kind"]: item for item in yaml.safe_load_all((CLUSTER / "kubernetes" / "setup.yaml").read_text())}
    run = yaml.safe_load((CLUSTER / "kubernetes" / "run.yaml").read_text())
    assert setup["Namespace"]["metadata"]["name"] == spec.namespace
    assert {item["metadata"].get("namespace", spec.namespace) for item in setup.values()} == {spec.namespace}
    assert setup["PersistentVolumeClaim"]["metadata"]["name"] == spec.claim
    assert setup["PersistentVolumeClaim"]["spec"]["accessModes"] == ["ReadWriteMany"]
    pod = run["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == setup["ServiceAccount"]["metadata"]["name"]
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == spec.claim
    (container,) = pod["containers"]
    assert container["image"] == spec.image
    assert container["volumeMounts"][0]["mountPath"] == spec.mount
    assert container["command"][:2] == ["prognosis", "run"]
    assert setup["NetworkPolicy"]["spec"]["podSelector"] == {}
    assert {"from": [{"podSelector": {}}, {"namespaceSelector": {"matchLabels": {
        "kubernetes.io/metadata.name": "dask-operator"}}}]} in setup["NetworkPolicy"]["spec"]["ingress"]  # fmt: skip
    assert all(set(rule["verbs"]) <= {"get", "list", "watch", "create", "patch", "delete"}
               for rule in setup["Role"]["rules"])  # fmt: skip
