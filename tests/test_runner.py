"""The runner on real worker processes: outcomes are values, faults of the infrastructure are not."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from distributed import Client, Nanny, Scheduler, SpecCluster

from prognosis_dask.cohort.case import Case
from prognosis_dask.errors import CaseError, ClusterError, Code, JobError, Problem, collected_warnings, warn
from prognosis_dask.execution.cluster import LocalSpec, connect
from prognosis_dask.execution.plan import CohortPlan, PlannedStage
from prognosis_dask.execution.runner import RETRY_AFTER, TASKS_PER_THREAD, Task, _Lanes, run_plan
from prognosis_dask.execution.task import run_task
from prognosis_dask.features import guard
from prognosis_dask.storage.ledger import TaskResult
from tests.dask_processes import wait_for
from tests.runner_stages import (
    Marks,
    begin,
    fill_and_free,
    follow,
    run_program,
    visit,
    visit_ahead,
    visits,
    write_behind,
)

CASES = [Case(f"case-{n:02d}", f"patient-{n:02d}", "CT", "GTV", "image", "mask") for n in range(12)]
DIGESTS = {case.case_id: f"digest-{case.case_id}" for case in CASES}
FIRST = PlannedStage("visit", visit, DIGESTS)
FOLLOWER = PlannedStage("follow", follow, DIGESTS, ("visit",), batch_size=4)
NOTHING: dict[str, dict[str, TaskResult]] = {"visit": {}, "follow": {}}


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with connect(LocalSpec(workers=2, dashboard="127.0.0.1:0")) as client:
        yield client


def run(
    client: Client, marks: Marks, known: dict[str, dict[str, TaskResult]] = NOTHING
) -> dict[tuple[str, str], TaskResult]:
    outcomes: dict[tuple[str, str], TaskResult] = {}

    def record(news: Sequence[TaskResult]) -> None:
        outcomes.update({(outcome.stage, outcome.case_id): outcome for outcome in news})

    run_plan(client, CohortPlan(CASES, [FIRST, FOLLOWER], marks, known), record, retries=2)
    return outcomes


def test_every_case_passes_every_stage_once(client: Client, tmp_path: Path) -> None:
    outcomes = run(client, Marks(str(tmp_path)))
    assert len(outcomes) == 2 * len(CASES)
    assert all(outcome.problem is None for outcome in outcomes.values())
    assert {visits(tmp_path, stage, case.case_id) for stage in ("visit", "follow") for case in CASES} == {1}


def test_a_worker_begins_to_read_the_case_that_it_gets_next_and_that_harms_no_other(
    client: Client, tmp_path: Path
) -> None:
    def run_ahead(marks: Marks) -> dict[str, TaskResult]:
        results: dict[str, TaskResult] = {}
        stage = PlannedStage("visit", visit_ahead, DIGESTS, batch_size=1, begin=begin)
        record = lambda news: results.update({result.case_id: result for result in news})  # noqa: E731
        run_plan(client, CohortPlan(CASES, [stage], marks, {"visit": {}}), record, retries=2)
        return results

    results = run_ahead(Marks(str(tmp_path)))
    assert (
        sum(bool(result.values["ahead"]) for result in results.values()) >= len(CASES) // 2
    )  # not the first of each worker, nor the last of all
    (tmp_path / "again").mkdir()
    results = run_ahead(Marks(str(tmp_path / "again"), killer="case-05"))
    assert {result.problem for result in results.values()} == {None}
    assert len(results) == len(CASES)


@pytest.mark.parametrize("how", ["refused memory", "killed"])
def test_a_case_is_not_to_blame_for_a_child_that_still_wrote_another(tmp_path: Path, how: str) -> None:
    """And the one that was written is whole: where its child ended, it is computed once more."""
    results: dict[str, TaskResult] = {}
    stage = PlannedStage("visit", write_behind, DIGESTS, batch_size=1)
    written, blamed = (case.case_id for case in CASES[:2])
    marks = Marks(str(tmp_path), bad=written, killer=blamed, flaky=blamed if how == "refused memory" else "")
    record = lambda news: results.update({result.case_id: result for result in news})  # noqa: E731
    with connect(LocalSpec(workers=1, dashboard="127.0.0.1:0")) as client:
        run_plan(client, CohortPlan(CASES, [stage], marks, {"visit": {}}), record, retries=0)
        (children,) = client.run(lambda: len(psutil.Process().children())).values()
    assert {result.problem for result in results.values()} == {None}
    assert (visits(tmp_path, "visit", written), visits(tmp_path, "visit", blamed)) == (2 if how == "killed" else 1, 2)
    assert children == 1  # those that a case was tried in alone are gone


def test_a_worker_that_offers_a_resource_computes_the_next_case_while_it_writes_one(tmp_path: Path) -> None:
    workers = {name: {"cls": Nanny, "options": {"nthreads": 1, "resources": {name: 1}}} for name in ("CPU", "GPU")}
    stages = [
        PlannedStage("visit", write_behind, DIGESTS, batch_size=1, resource="CPU"),
        PlannedStage("follow", follow, DIGESTS, ("visit",), resource="GPU"),
    ]
    results: dict[tuple[str, str], TaskResult] = {}
    record = lambda news: results.update({(one.stage, one.case_id): one for one in news})  # noqa: E731
    marks = Marks(str(tmp_path), bad=CASES[0].case_id)
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}}
    with SpecCluster(workers, scheduler) as cluster, Client(cluster) as client:
        client.wait_for_workers(2)
        run_plan(client, CohortPlan(CASES, stages, marks, NOTHING), record, retries=0)
    assert len(results) == 2 * len(CASES)
    assert visits(tmp_path, "visit", CASES[0].case_id) == 1  # what waits for its writing alone is computed once more


def test_a_program_that_a_case_waits_for_ends_with_the_case(tmp_path: Path) -> None:
    work = pickle.dumps((run_program, Marks(str(tmp_path))))
    (result,) = run_task("visit", work, (CASES[0],), ("",), 4.0)
    assert result.problem is not None
    assert result.problem.code is Code.TIME_LIMIT
    program = int((tmp_path / "pid").read_text())
    ended = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    wait_for(lambda: all(p.pid != program or p.info["status"] in ended for p in psutil.process_iter(["status"])))


def test_a_case_does_not_get_memory_anew_that_the_one_before_has_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "65536")  # as Dask sets it for its workers
    work = pickle.dumps((fill_and_free, None))
    (result,) = run_task("visit", work, (CASES[0],), ("",), 0.0, alone=True)
    assert result.number("pages") < 1000  # of 25,600
    assert result.number("pages of a thread") < 30_000  # of 222,720, in a heap of its own 89,360


def test_what_was_read_ahead_fails_warns_and_counts_for_its_own_case_alone() -> None:
    def read() -> None:
        warn(Code.MASK_GAPS, "slice 4 is empty")
        raise CaseError(Code.SLICE_GAP, "3.0 mm expected")

    first, other = (guard.Wanted("started", "run", "roi", name, "digest") for name in ("first", "other"))
    with collected_warnings() as said_meanwhile:
        guard.begin_ahead(first, read)
        guard.begin_ahead(other, lambda: "pixels")
    assert said_meanwhile == []
    guard.keep_ahead([first, other._replace(digest="another")])
    assert not guard.is_read_ahead("roi", "other")
    with collected_warnings() as said, pytest.raises(CaseError, match="expected"):
        guard.take_ahead("roi", "first")
    assert [warning.code for warning in said] == [Code.MASK_GAPS]
    assert not guard.is_read_ahead("roi", "first")


def test_a_bad_case_is_a_value_and_goes_no_further(client: Client, tmp_path: Path) -> None:
    outcomes = run(client, Marks(str(tmp_path), bad="case-03"))
    problem = outcomes["visit", "case-03"].problem
    assert problem is not None
    assert problem.code is Code.SLICE_GAP
    assert len(outcomes) == 2 * len(CASES) - 1
    assert visits(tmp_path, "follow", "case-03") == 0


def test_an_infrastructure_error_is_retried_and_counts_for_nothing(client: Client, tmp_path: Path) -> None:
    outcomes = run(client, Marks(str(tmp_path), flaky="case-05"))
    assert visits(tmp_path, "visit", "case-05") == 3
    assert outcomes["visit", "case-05"].problem is None
    assert len(outcomes) == 2 * len(CASES)


def test_an_infrastructure_error_that_stays_ends_the_run_with_what_to_do(client: Client, tmp_path: Path) -> None:
    (tmp_path / "visit-case-05").mkdir()
    begun = time.monotonic()
    with pytest.raises(
        ClusterError, match=r"stage visit failed 3 times.*IsADirectoryError.*run the same command again"
    ):
        run(client, Marks(str(tmp_path)))
    assert time.monotonic() - begun >= RETRY_AFTER * (1 + 4), "a disk needs a moment to come back"


def test_a_users_mistake_found_on_a_worker_ends_the_run_with_its_own_message(client: Client, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="the weights are another network's"):
        run(client, Marks(str(tmp_path), mistaken="case-00"))


def test_a_case_that_kills_its_worker_is_found_and_its_batch_goes_on(tmp_path: Path) -> None:
    with connect(LocalSpec(workers=2, dashboard="127.0.0.1:0")) as client:
        outcomes = run(client, Marks(str(tmp_path), killer="case-06"))
    lost = {key: outcome.problem.code for key, outcome in outcomes.items() if outcome.problem}
    assert lost == {("follow", "case-06"): Code.WORKER_LOST}
    assert len(outcomes) == 2 * len(CASES)


def test_what_the_ledger_holds_is_not_run_again(client: Client, tmp_path: Path) -> None:
    done = run(client, Marks(str(tmp_path)))
    known = {stage: {k: v for (s, k), v in done.items() if s == stage and k < "case-07"} for stage in NOTHING}
    del known["follow"]["case-01"]
    (tmp_path / "again").mkdir()
    again = run(client, Marks(str(tmp_path / "again")), known)
    assert ("follow", "case-01") in again
    assert len(again) == 1 + 2 * (len(CASES) - 7)
    assert visits(tmp_path / "again", "visit", "case-01") == 0


def test_a_case_whose_stored_data_are_damaged_goes_through_the_first_stage_once_more() -> None:
    plan = CohortPlan(CASES[:1], [FIRST, FOLLOWER], None, NOTHING)
    damaged = TaskResult("case-00", "follow", "d", Problem(Code.STORE_DAMAGED, "checksum differs"))
    seen = []
    for outcome in (TaskResult("case-00", "visit", "d"), damaged, TaskResult("case-00", "visit", "d"), damaged):
        task = plan.take()
        assert task is not None
        seen.append(task.stage)
        plan.accept([outcome])
    assert seen == ["visit", "follow", "visit", "follow"]
    assert plan.take() is None


def test_the_window_stays_bounded_however_many_cases_wait(client: Client) -> None:
    class Counting(CohortPlan):
        taken = most = 0

        def take(self, full=()):
            task = super().take(full)
            self.taken += task is not None
            self.most = max(self.most, self.taken)
            return task

        def accept(self, outcomes):
            self.taken -= 1
            super().accept(outcomes)

    plan = Counting([Case(f"c{n}", "p", "CT", "r", "i", "m") for n in range(300)], [_instant_stage(300)], None, NOTHING)
    run_plan(client, plan, lambda outcomes: None, retries=0)
    assert plan.most == 2 * TASKS_PER_THREAD


def _instant_stage(n: int) -> PlannedStage:
    return PlannedStage("visit", instant, {f"c{i}": "d" for i in range(n)})


def instant(cases: tuple[Case, ...], digests: tuple[str, ...], context: None) -> list[TaskResult]:
    return [TaskResult(case.case_id, "visit", digest) for case, digest in zip(cases, digests, strict=True)]


def test_no_task_is_lost_where_a_worker_ends_that_was_told_what_follows() -> None:
    """What followed on the lost worker goes to another one, and what follows there stays for its turn."""

    class Workers:
        there = ("a", "b")

        def full(self, running):
            return set()

        def of_one_thread(self):
            return self.there

    cases = [Case(f"c{n}", "p", "CT", "r", "i", "m") for n in range(9)]
    tasks = [Task("visit", (case,), ("d",), instant, None, begin=begin) for case in cases]

    class Queue:
        def take(self, *, idle, full):
            return tasks.pop(0) if tasks else None

    lanes, workers = _Lanes(Queue()), Workers()
    sent = [lanes.take([], workers)]
    sent.append(lanes.take(sent, workers))
    assert [one.worker for one in sent] == ["a", "b"]
    workers.there = ("b",)
    while one := lanes.take([], workers):
        sent.append(one)
    assert sorted(one.task.cases[0].case_id for one in sent) == [case.case_id for case in cases]


def test_a_run_that_has_left_out_a_case_does_not_end_in_peace(client: Client) -> None:
    class Forgetful(CohortPlan):
        def take(self, full=()):
            task = super().take(full)
            return super().take(full) if task and task.cases[0].case_id == "c1" else task

    cases = [Case(f"c{n}", "p", "CT", "r", "i", "m") for n in range(5)]
    with pytest.raises(ClusterError, match="1 results of cases are missing"):
        run_plan(client, Forgetful(cases, [_instant_stage(5)], None, {"visit": {}}), lambda outcomes: None, retries=0)
