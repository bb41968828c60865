"""One count of a run's cases and patients, with its rates and the time left, which every view shows."""

from __future__ import annotations

import io
import re
import sqlite3
from pathlib import Path

import pytest

from prognosis_dask.cohort.case import Case
from prognosis_dask.errors import Code, Problem
from prognosis_dask.execution.monitor import TerminalView
from prognosis_dask.execution.progress import MAX_POINTS, History, RunProgress, duration, read_progress
from prognosis_dask.storage.ledger import Ledger, TaskResult

GAP = Problem(Code.SLICE_GAP, "3.0 mm expected, 6.0 mm seen")
NEEDS = {"roi": (), "deep": ("roi",)}


def outcomes(stage: str, names: str, problem: Problem | None = None) -> list[TaskResult]:
    return [TaskResult(name, stage, "d", problem, {"read": 1.0, "total": 2.0}) for name in names.split()]


def test_a_patient_is_finished_with_the_last_stage_of_its_last_case() -> None:
    cases = [Case(name, name[0], "CT", "r", "i", "m") for name in ("a1", "a2", "b1", "c1", "d1")]
    known = {"roi": {o.case_id: o for o in outcomes("roi", "c1") + outcomes("roi", "d1", GAP)}, "deep": {}}
    progress = RunProgress(cases, NEEDS, known)
    assert (progress.patients, progress.patients_done, progress.patients_reused) == (
        4,
        1,
        1,
    )  # d failed in an earlier run
    assert (progress.stages["roi"].total, progress.stages["deep"].total) == (3, 4)
    progress.count(outcomes("roi", "a1 a2") + outcomes("deep", "a1"), 1.0)
    assert progress.patients_done == 1
    progress.count(outcomes("deep", "a2"), 1.0)
    assert progress.patients_done == 2
    progress.count(outcomes("roi", "b1", GAP), 1.0)
    assert progress.patients_done == 3
    assert progress.stages["deep"].total == 3
    progress.count(outcomes("deep", "c1"), 1.0)
    assert progress.patients_done == 4
    assert progress.stages["deep"].seconds == {"read": 3.0, "total": 6.0}


def test_brains_are_counted_with_the_stages_that_follow() -> None:
    """A patient whose brain is prepared is not finished, and one whose brain is not found has nothing left to do."""
    needs: dict[str, tuple[str, ...]] = {"brain": (), "roi": ("brain",), "radiomics": ("brain", "roi")}
    cases = [Case(name, name, "MR", "r", "i", "m") for name in "abcd"]
    known = {"brain": {o.case_id: o for o in outcomes("brain", "c") + outcomes("brain", "d", GAP)}}
    progress = RunProgress(cases, needs, known | {"roi": {}, "radiomics": {}})
    assert [progress.stages[name].total for name in needs] == [2, 3, 3]
    progress.count(outcomes("brain", "a") + outcomes("brain", "b", GAP), 1.0)
    assert [progress.stages[name].total for name in needs] == [2, 2, 2]
    assert progress.patients_done == 2  # b and d
    progress.count(outcomes("roi", "a") + outcomes("roi", "c", GAP), 1.0)
    assert (progress.stages["radiomics"].total, progress.patients_done) == (1, 3)
    progress.count(outcomes("radiomics", "a", Problem(Code.STORE_DAMAGED, "checksum")), 3.0, {"a": ("roi",)})
    assert (progress.stages["brain"].total, progress.stages["roi"].total) == (2, 3)
    progress.count(outcomes("roi", "a") + outcomes("radiomics", "a"), 1.0)
    assert progress.patients_done == 4


def test_a_case_with_damaged_data_is_counted_once_it_is_through() -> None:
    progress = RunProgress([Case("a", "a", "CT", "r", "i", "m")], NEEDS, {"roi": {}, "deep": {}})
    progress.count(outcomes("roi", "a"), 1.0)
    progress.count(outcomes("deep", "a", Problem(Code.STORE_DAMAGED, "checksum")), 2.0, {"a": ("roi",)})
    assert progress.patients_done == 0
    progress.count(outcomes("roi", "a") + outcomes("deep", "a"), 1.0)
    assert progress.patients_done == 1
    counts = {name: (stage.total, stage.done, stage.failed) for name, stage in progress.stages.items()}
    assert counts == {"roi": (2, 2, 0), "deep": (1, 1, 0)}


def test_a_case_that_is_damaged_beyond_repair_takes_back_only_what_is_still_to_run() -> None:
    """The network is through when radiomics finds the ROI damaged; the second reading fails, and its work stays."""
    needs = {"roi": (), "radiomics": ("roi",), "deep": ("roi",)}
    progress = RunProgress([Case("a", "a", "CT", "r", "i", "m")], needs, {stage: {} for stage in needs})
    progress.count(outcomes("roi", "a") + outcomes("deep", "a"), 1.0)
    progress.count(outcomes("radiomics", "a", Problem(Code.STORE_DAMAGED, "checksum")), 2.0, {"a": ("roi",)})
    assert progress.patients_done == 0
    progress.count(outcomes("roi", "a", GAP), 3.0)
    assert progress.patients_done == 1
    counts = {name: (stage.waiting, stage.done, stage.failed) for name, stage in progress.stages.items()}
    assert counts == {"roi": (0, 1, 1), "radiomics": (0, 0, 0), "deep": (0, 1, 0)}


def test_driver_and_ledger_tell_the_same_of_a_run(tmp_path: Path) -> None:
    """Counts, rates and time left: what the driver counts, and what another process reads from the ledger."""
    cases = [Case(f"c{n}", f"p{n}", "CT", "r", "i", "m") for n in range(60)]
    driver = RunProgress(cases, NEEDS, {"roi": {}, "deep": {}})
    batches = [outcomes("roi", f"c{n}", GAP if n == 7 else None) for n in range(40)]
    batches += [outcomes("deep", f"c{n}") for n in range(20) if n != 7]
    with Ledger.create(tmp_path / "ledger.sqlite") as ledger:
        for number, batch in enumerate(batches):
            driver.count(batch, 1.5 * number)
            ledger.record(batch)
    with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
        connection.execute("UPDATE outcome SET finished_at = 1000 + 1.5 * (recorded - 1)")
    connection.close()
    with Ledger.read(tmp_path / "ledger.sqlite") as ledger:
        read = read_progress(ledger, len(cases), NEEDS, 900.0)
    now = 1.5 * len(batches)
    for stage, (waiting, done, failed) in {"roi": (20, 39, 1), "deep": (40, 19, 0)}.items():
        for progress, at in ((driver, now), (read, 1000.0 + now)):
            counts = progress.stages[stage]
            assert (counts.waiting, counts.done, counts.failed) == (waiting, done, failed)
            assert progress.rate(stage, at) == pytest.approx(driver.rate(stage, now))
            assert progress.seconds_left(stage, at) == pytest.approx(driver.seconds_left(stage, now))
    deep = driver.snapshot(now)["stages"]["deep"]
    assert (deep["waiting"], deep["rate"], deep["left"]) == (
        40,
        driver.rate("deep", now),
        driver.seconds_left("deep", now),
    )


def test_a_log_file_gets_the_counts_rates_and_time_left() -> None:
    progress = RunProgress([Case(f"c{n}", "p", "CT", "r", "i", "m") for n in range(40)], NEEDS, {"roi": {}, "deep": {}})
    for n in range(20):
        progress.count(outcomes("roi", f"c{n}", GAP if n == 3 else None), float(n))
    stream = io.StringIO()
    TerminalView(stream).end(progress, 19.0)
    assert stream.getvalue() == "roi 20/40 (1 failed) 1.0/s, 20 s left  deep 0/39\n"


def test_a_terminal_gets_a_bar_for_each_stage_with_rate_and_time_left() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    progress = RunProgress([Case(f"c{n}", "p", "CT", "r", "i", "m") for n in range(40)], NEEDS, {"roi": {}, "deep": {}})
    for n in range(20):
        progress.count(outcomes("roi", f"c{n}", GAP if n == 3 else None), float(n))
    stream = Terminal()
    TerminalView(stream).end(progress, 19.0)
    assert re.search(r"roi:  50%\|.*\| 20/40, 1 failed, 1\.0/s, 20 s left", stream.getvalue())
    assert re.search(r"deep:   0%\|.*\| 0/39", stream.getvalue())


def test_a_stage_that_needs_another_is_not_through_before_it() -> None:
    progress = RunProgress([Case(f"c{n}", "p", "CT", "r", "i", "m") for n in range(40)], NEEDS, {"roi": {}, "deep": {}})
    for n in range(20):
        progress.count(outcomes("roi", f"c{n}"), float(n))
    assert progress.seconds_left("roi", 19.0) == pytest.approx(20.0)
    assert progress.seconds_left("deep", 19.0) is None  # nothing of it has finished
    for n in range(20):
        progress.count(outcomes("deep", f"c{n}"), 19.0 + n / 4)
    # a quarter of a second each, but the other twenty cases have still to be read, of which none came for 6 s
    assert progress.seconds_left("deep", 25.0) == pytest.approx(20 / (19 / 25))


def test_a_long_runs_history_stays_small_and_keeps_its_counts() -> None:
    history = History()
    for second in range(100_000):
        history.add(float(second), {"roi": second // 3})
    assert len(history._points) <= MAX_POINTS
    edges, values = history.per_minute("roi", 99_999.0)
    assert edges[0] == 0
    assert values == pytest.approx([20.0] * len(values), rel=0.01)
    assert history.rate("roi", 99_999.0) == pytest.approx(1 / 3, rel=0.1)


def test_a_rate_needs_time_and_a_stall_lets_it_fall() -> None:
    history = History()
    for second in range(30):
        history.add(float(second), {"deep": max(0, second - 20)})
    assert history.rate("deep", 24.0) is None
    assert history.rate("deep", 29.0) == pytest.approx(8 / 8)
    assert history.rate("deep", 61.0) == pytest.approx(8 / 40)
    assert history.rate("roi", 29.0) is None


def test_durations_read_as_one_would_say_them() -> None:
    assert [duration(seconds) for seconds in (0.4, 59.6, 3600, 86400)] == ["0 s", "1 min 0 s", "1 h 0 min", "1 d 0 h"]
