"""Cases per task follow the seconds that cases take."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from prognosis_dask.cohort.case import Case
from prognosis_dask.errors import Code, Problem
from prognosis_dask.execution.plan import MOST_CASES, TASK_SECONDS, CohortPlan, PlannedStage, TaskSize
from prognosis_dask.storage.ledger import TaskResult


def outcomes(cases: Sequence[str], stage: str, seconds: float, problem: Problem | None = None) -> list[TaskResult]:
    return [TaskResult(case_id, stage, "digest", problem, {"total": seconds}) for case_id in cases]


@pytest.mark.parametrize("seconds", [1e-6, 0.003, 0.02, 0.15, 1.0])
def test_tasks_become_as_long_as_is_aimed_at_and_hold_no_more_than_the_bound(seconds: float) -> None:
    size = TaskSize()
    for _ in range(20):
        size.learn(outcomes(["case"] * size.cases, "roi", seconds))
    assert size.cases == max(1, min(MOST_CASES, int(TASK_SECONDS / seconds)))


def test_cases_that_fail_at_once_do_not_make_the_tasks_larger() -> None:
    size = TaskSize()
    for _ in range(20):
        size.learn(outcomes(["case"] * size.cases, "roi", 1e-6, Problem(Code.SLICE_GAP, "3 mm, 6 mm")))
    assert size.cases == 1


def test_quick_cases_at_first_do_not_put_slow_ones_on_one_worker() -> None:
    size = TaskSize()
    sizes = []
    for seconds in [1e-6] * 3 + [0.5] * 3:
        sizes.append(size.cases)
        size.learn(outcomes(["case"] * size.cases, "roi", seconds))
    assert sizes == [1, 2, 4, 8, 1, 1]


def test_a_plan_hands_out_every_case_of_every_stage_once_in_tasks_that_grow() -> None:
    cases = [Case(f"case-{n}", "patient", "CT", "GTV", "image", "mask") for n in range(5000)]
    digests = {case.case_id: "digest" for case in cases}
    stages = [PlannedStage("roi", lambda *_: [], digests), PlannedStage("deep", lambda *_: [], digests, ("roi",))]
    plan = CohortPlan(cases, stages, None, {"roi": {}, "deep": {}})
    seen: list[tuple[str, str]] = []
    tasks = 0
    while task := plan.take():
        tasks += 1
        seen += [(task.stage, case.case_id) for case in task.cases]
        plan.accept(outcomes([case.case_id for case in task.cases], task.stage, 1e-6))
    assert sorted(seen) == sorted((stage, case.case_id) for stage in ("roi", "deep") for case in cases)
    assert tasks < 70


@pytest.mark.slow
def test_ten_thousand_patients_cost_little_time_and_no_memory() -> None:
    command = [sys.executable, "-m", "benchmarks.scheduler_scale", "--patients", "10000"]
    root = Path(__file__).parents[1]
    printed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    overhead = re.search(r"CPU of driver and scheduler ([\d.]+) ms", printed)
    growth = re.search(r"grew by (-?[\d.]+) MB", printed)
    assert overhead
    assert growth
    # CPU time, since the machine does other things too
    assert float(overhead[1]) < 1
    assert float(growth[1]) < 15
