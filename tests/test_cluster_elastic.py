"""Tasks go where they belong, and workers may come and go: on real processes, on one host and on two."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import Client, LocalCluster

from prognosis_dask.cohort.case import Case
from prognosis_dask.errors import ClusterError
from prognosis_dask.execution.cluster import connect
from prognosis_dask.execution.clusters import ExistingSpec
from prognosis_dask.execution.plan import CohortPlan, PlannedStage
from prognosis_dask.execution.runner import TASKS_PER_THREAD, run_plan
from prognosis_dask.storage.ledger import TaskResult
from tests.dask_processes import PATIENCE, kill_tree, scheduler, when, worker
from tests.hosts import second_host
from tests.resource_stages import Pace, Visit, let_go, network, prepare, visits


class Cluster:
    """A scheduler of its own, to which a test adds named workers."""

    def __init__(self, folder: Path, stack: ExitStack, *options: str) -> None:
        self._file, self._stack = folder / "scheduler.json", stack
        self.address = stack.enter_context(scheduler(self._file, *options))

    def add(self, name: str, *options: str, prefix: Sequence[str] = ()) -> None:
        marked = ["env", f"TEST_WORKER={name}"]
        self._stack.enter_context(worker(self._file, "--name", name, *options, prefix=[*prefix, *marked]))

    @contextmanager
    def client(self, workers: int) -> Iterator[Client]:
        with Client(self.address) as probe:
            probe.wait_for_workers(workers, timeout=PATIENCE)
        with connect(ExistingSpec(address=self.address)) as client:
            yield client


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with ExitStack() as stack:
        yield Cluster(tmp_path, stack)


def plan_of(count: int, pace: Pace, resource: str = "", followed: bool = False) -> CohortPlan:
    cases = [Case(f"case-{n:03d}", f"p{n}", "CT", "GTV", "image", "mask") for n in range(count)]
    digests = {case.case_id: "d" for case in cases}
    first = PlannedStage("prepare", prepare, digests, batch_size=1, resource="CPU" if resource else "")
    follower = PlannedStage("network", network, digests, ("prepare",), batch_size=2, resource=resource)
    return CohortPlan(cases, [first, follower] if followed else [first], pace, {"prepare": {}, "network": {}})


def run(
    client: Client,
    plan: CohortPlan,
    then: Callable[[Counter[str]], object] = lambda recorded: None,
    **limits: float,
) -> Counter[str]:
    """How often each stage's outcome was recorded; `then` is told after each."""
    recorded: Counter[str] = Counter()

    def record(outcomes: Sequence[TaskResult]) -> None:
        recorded.update(outcome.stage for outcome in outcomes)
        assert not [outcome.problem for outcome in outcomes if outcome.problem]
        then(recorded)

    run_plan(client, plan, record, retries=2, **limits)
    return recorded


def test_gpu_tasks_run_on_the_gpu_worker_and_cpu_tasks_never_do_and_neither_waits(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.add("gpu", "--resources", "GPU=1")
    cluster.add("cpu", "--resources", "CPU=1")
    with cluster.client(2) as client:
        pace = Pace(str(tmp_path), held="cpu", free=12)  # the others are prepared when the GPU has been fed
        plan = plan_of(24, pace, "GPU", followed=True)
        recorded = run(client, plan, lambda recorded: let_go(tmp_path) if recorded["network"] > 6 else None)
    assert recorded == {"prepare": 24, "network": 24}
    prepared, seen = visits(tmp_path, "prepare"), visits(tmp_path, "network")
    assert {visit.worker for visit in prepared} == {"cpu"}
    assert {visit.worker for visit in seen} == {"gpu"}
    last = max(visit.ended for visit in prepared)
    assert sum(visit.began < last for visit in seen) > 6  # the GPU was fed while cases were still prepared


def test_each_resource_has_its_own_bounded_window(cluster: Cluster, tmp_path: Path) -> None:
    cluster.add("gpu", "--resources", "GPU=1")
    cluster.add("cpu", "--resources", "CPU=1")
    flying: Counter[str] = Counter()
    most: Counter[str] = Counter()

    class Counting(CohortPlan):
        def take(self, full=()):
            if task := super().take(full):
                flying[task.stage] += 1
                most[task.stage] = max(most[task.stage], flying[task.stage])
            return task

        def accept(self, outcomes):
            flying[outcomes[0].stage] -= 1
            super().accept(outcomes)

    plan = plan_of(30, Pace(str(tmp_path), 0.02, 0.2), "GPU", followed=True)
    plan.__class__ = Counting
    with cluster.client(2) as client:
        run(client, plan)
    assert most == {"prepare": TASKS_PER_THREAD, "network": TASKS_PER_THREAD}


def test_a_gpu_is_fed_before_the_cpus_other_work_and_a_full_one_holds_nobody_up() -> None:
    cases = [Case(f"case-{n}", "p", "CT", "r", "i", "m") for n in range(8)]
    digests = {case.case_id: "d" for case in cases}
    first = PlannedStage("prepare", prepare, digests, batch_size=1, resource="CPU")
    radiomics = PlannedStage("radiomics", prepare, digests, ("prepare",), batch_size=1, resource="CPU")
    deep = PlannedStage("network", network, digests, ("prepare",), batch_size=2, resource="GPU")
    plan = CohortPlan(cases, [first, radiomics, deep], None, {name: {} for name in ("prepare", "radiomics", "network")})

    def next_stage(*full: str) -> str:
        task = plan.take(full)
        if task is None:
            return ""
        if task.stage == "prepare":
            plan.accept([TaskResult(case.case_id, "prepare", "d") for case in task.cases])
        return task.stage

    assert [next_stage() for _ in range(3)] == ["prepare", "prepare", "network"]
    assert next_stage("GPU") == "radiomics"  # the GPU has enough: other work
    assert next_stage() == "prepare"  # it has room again: new cases first
    assert next_stage("CPU") == ""
    assert next_stage("CPU", "GPU") == ""


def test_a_worker_that_joins_late_works_at_once(cluster: Cluster, tmp_path: Path) -> None:
    cluster.add("first")

    def then(recorded: Counter[str]) -> None:
        if recorded.total() == 1:
            cluster.add("late")
        if len(by("late", tmp_path)) >= 3:
            let_go(tmp_path)

    with cluster.client(1) as client:
        run(client, plan_of(24, Pace(str(tmp_path), held="first", free=4)), then)
    last = max(visit.ended for visit in by("first", tmp_path))
    assert sum(visit.ended < last for visit in by("late", tmp_path)) >= 3
    assert Counter(visit.case_id for visit in visits(tmp_path, "prepare")).most_common(1)[0][1] == 1


def test_a_worker_that_joins_late_works_though_every_other_is_in_a_long_case(cluster: Cluster, tmp_path: Path) -> None:
    cluster.add("gpu", "--resources", "GPU=1")
    cluster.add("first", "--resources", "CPU=1")
    with cluster.client(2) as client:
        starter = threading.Thread(target=cluster.add, args=("late", "--resources", "CPU=1"))
        starter.start()
        run(client, plan_of(3, Pace(str(tmp_path), held="first"), "GPU"), lambda recorded: let_go(tmp_path))
        starter.join()
    assert {visit.worker for visit in visits(tmp_path, "prepare")} == {"first", "late"}
    late = min(visit.began for visit in by("late", tmp_path))
    assert late < min(visit.ended for visit in by("first", tmp_path))


def by(name: str, folder: Path) -> list[Visit]:
    """The cases that this worker has prepared."""
    return [visit for visit in visits(folder, "prepare") if visit.worker == name]


@pytest.mark.parametrize("way", ["retired", "out of wall time", "killed"])
def test_a_worker_that_leaves_costs_at_most_the_cases_that_it_was_working_on(
    way: str, cluster: Cluster, tmp_path: Path
) -> None:
    cluster.add("stays")
    count, timed = 24, way == "out of wall time"

    def leave(client: Client) -> None:
        (address,) = [address for address, one in workers_of(client).items() if one["name"] == "leaves"]
        if way == "retired":
            client.retire_workers([address])
        elif way == "killed":
            nanny = psutil.Process(client.run(os.getpid, workers=[address])[address]).parent()
            assert nanny is not None
            kill_tree(nanny.pid)

    with cluster.client(1) as client:
        cluster.add("leaves", *(("--lifetime", "6s") if timed else ()))
        client.wait_for_workers(2, timeout=PATIENCE)
        pace = Pace(str(tmp_path), 0.2, held="*" if timed else "", free=6)  # its time ends in the middle of a case
        left = when(lambda: not timed or len(workers_of(client)) == 1, lambda: let_go(tmp_path))
        recorded = run(client, plan_of(count, pace), lambda now: leave(client) if now.total() == 3 else None)
        left.join()
    assert recorded == {"prepare": count}
    seen = Counter(visit.case_id for visit in visits(tmp_path, "prepare"))
    assert len(seen) == count
    assert sum(seen.values()) <= count + TASKS_PER_THREAD


@pytest.mark.slow
def test_a_run_waits_for_workers_from_the_loss_of_the_last_one_on(cluster: Cluster, tmp_path: Path) -> None:
    cluster.add("only")
    killed = 0.0

    def kill(recorded: Counter[str]) -> None:
        nonlocal killed
        if recorded.total() == 60:  # after 6 s of steady work
            killed = time.monotonic()
            nanny = psutil.Process(next(iter(client.run(os.getpid).values()))).parent()
            assert nanny is not None
            kill_tree(nanny.pid)

    with cluster.client(1) as client, pytest.raises(ClusterError, match="has had no worker for 5 s"):
        run(client, plan_of(100, Pace(str(tmp_path))), kill, workers_wait_s=5.0)
    assert time.monotonic() - killed > 3.5


def workers_of(client: Client) -> dict[str, Any]:
    return client.scheduler_info(n_workers=-1)["workers"]


def test_an_adaptive_cluster_grows_with_the_run_and_loses_nothing(tmp_path: Path) -> None:
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as workers,
        Client(workers) as client,
    ):
        client.wait_for_workers(1)
        workers.adapt(minimum=1, maximum=2, interval="200ms", target_duration="200ms")
        grown = when(lambda: len(workers_of(client)) == 2, lambda: let_go(tmp_path))
        recorded = run(client, plan_of(40, Pace(str(tmp_path), 0.3, held="*", free=10)))
        grown.join()
    assert recorded == {"prepare": 40}


def test_a_cluster_of_two_hosts_shares_the_work(tmp_path: Path) -> None:
    with second_host() as hosts, ExitStack() as stack:
        cluster = Cluster(tmp_path, stack, "--host", hosts.here)
        cluster.add("here", "--host", hosts.here)
        cluster.add("there", "--host", hosts.there, "--dashboard-address", f"{hosts.there}:0", prefix=hosts.prefix)
        with cluster.client(2) as client:
            seen = {one["host"] for one in workers_of(client).values()}
            recorded = run(client, plan_of(12, Pace(str(tmp_path), 0.2)))
    assert seen == {hosts.here, hosts.there}
    assert recorded == {"prepare": 12}
    assert {visit.worker for visit in visits(tmp_path, "prepare")} == {"here", "there"}
