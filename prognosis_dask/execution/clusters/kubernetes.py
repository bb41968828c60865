"""Kubernetes, by the Dask operator: a DaskCluster of CPU workers and a worker group of fixed size with GPUs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from dask.utils import parse_bytes
from distributed import Client

from prognosis_dask.errors import ClusterError, import_extra
from prognosis_dask.execution.clusters.spec import KubernetesSpec
from prognosis_dask.execution.clusters.started import SCHEDULER_PRELOAD

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
        _wait(client, spec)
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


def _wait(client: Client, spec: KubernetesSpec) -> None:
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
