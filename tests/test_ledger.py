"""The ledger: exact, final, one writer at a time, readable meanwhile, and whole after a kill."""

from __future__ import annotations

import errno
import itertools
import json
import math
import multiprocessing
import sqlite3
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prognosis_dask.errors import Code, Problem, StoreError
from prognosis_dask.storage.ledger import RETRIED, Ledger, TaskResult
from tests.dask_processes import wait_for
from tests.mounts import mounted
from tests.store_workers import hold_ledger, record_for_ever

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def done(case_id: str, stage: str = "roi", digest: str = "d") -> TaskResult:
    return TaskResult(case_id, stage, digest)


def failed(case_id: str, code: Code, stage: str = "roi", digest: str = "d") -> TaskResult:
    return TaskResult(case_id, stage, digest, Problem(code, "why", patient_id="P", case_id=case_id, where="file"))


def test_outcomes_come_back_exactly(path: Path) -> None:
    numbers = [0.1 + 0.2, 5e-324, 1.7976931348623157e308, -0.0, math.inf, -math.inf, 1e16, 1 / 3]
    outcomes = [
        TaskResult("a", "radiomics", "d1", None, {"read": 0.25, "total": 1 / 3}, {"values": numbers, "n": 3, "é": "ü"}),
        failed("b", Code.MASK_EMPTY, "radiomics"),
    ]
    with Ledger.create(path) as ledger:
        ledger.record(outcomes)
    with Ledger.read(path) as ledger:
        found = ledger.results("radiomics")
    assert found == {"a": outcomes[0], "b": outcomes[1]}
    values = found["a"].values["values"]
    assert isinstance(values, list)
    assert struct.pack(f"{len(numbers)}d", *values) == struct.pack(f"{len(numbers)}d", *numbers)


def test_warnings_come_back_with_the_outcome_that_they_belong_to(path: Path) -> None:
    warning = Problem(Code.MASK_GAPS, "slice 4 is empty", "P", "a", "file", "warning")
    outcomes = [TaskResult("a", "roi", "d", values={"n": 1}, warnings=(warning, warning)), done("b")]
    with Ledger.create(path) as ledger:
        ledger.record(outcomes)
        assert ledger.results("roi") == {"a": outcomes[0], "b": outcomes[1]}
        assert ledger.failures() == []


def test_nan_comes_back(path: Path) -> None:
    with Ledger.create(path) as ledger:
        ledger.record([TaskResult("a", "roi", "d", None, {}, {"x": math.nan, "values": [math.nan, 1.0]})])
        result = ledger.results("roi")["a"].values
    assert json.dumps(result) == '{"x": NaN, "values": [NaN, 1.0]}'


def test_problem_is_filed_under_its_outcomes_case(path: Path) -> None:
    with Ledger.create(path) as ledger:
        ledger.record([TaskResult("a", "roi", "d", Problem(Code.MASK_EMPTY, "0 voxels"))])
        assert ledger.failures() == [TaskResult("a", "roi", "d", Problem(Code.MASK_EMPTY, "0 voxels", case_id="a"))]


def test_finished_is_done_or_failed_by_itself_with_the_same_digest(path: Path) -> None:
    with Ledger.create(path) as ledger:
        ledger.record([done("same"), done("other-digest", digest="old"), done("other-stage", stage="deep")])
        ledger.record(failed(code.value, code) for code in Code)
        digests = dict.fromkeys(["same", "other-digest", "other-stage", "never-run", *(c.value for c in Code)], "d")
        assert ledger.finished("roi", digests) == {"same"} | {code.value for code in Code if code not in RETRIED}
        assert ledger.finished("roi", {"not-in-ledger": "d"}) == set()


def test_damage_found_later_makes_the_roi_anew_once(path: Path) -> None:
    digests = {"a": "d", "b": "d"}
    with Ledger.create(path) as ledger:
        ledger.record([done("a"), done("b")])
        ledger.record([failed("a", Code.STORE_DAMAGED, "radiomics"), done("b", "radiomics")])
        assert ledger.finished("roi", digests) == {"b"}
        assert ledger.finished("radiomics", digests) == {"b"}
        ledger.record([done("a")])
        assert ledger.finished("roi", digests) == {"a", "b"}
        assert ledger.finished("radiomics", digests) == {"b"}
        ledger.record([done("a", "radiomics")])
        assert ledger.finished("radiomics", digests) == {"a", "b"}


@pytest.mark.parametrize("jump", [-86400.0, 0.0, 86400.0])
def test_the_order_of_rows_does_not_rest_on_the_clock(path: Path, monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    clock = itertools.count(time.time(), jump)
    monkeypatch.setattr("prognosis_dask.storage.ledger.time.time", lambda: next(clock))
    with Ledger.create(path) as ledger:
        for row in (done("a"), failed("a", Code.STORE_DAMAGED, "radiomics"), done("a")):
            ledger.record([row])
            assert ledger.finished("roi", {"a": "d"}) == ({"a"} if row.problem is None else set())


def test_row_is_replaced_and_attempts_are_counted_per_digest(path: Path) -> None:
    with Ledger.create(path) as ledger:
        ledger.record([failed("a", Code.WORKER_LOST)])
        ledger.record([done("a")])
        assert ledger.results("roi") == {"a": done("a")}
    query = "SELECT status, attempts, finished_at FROM outcome"
    (row,) = sqlite3.connect(path).execute(query).fetchall()
    assert row[:2] == ("done", 2)
    assert abs(row[2] - time.time()) < 60
    with Ledger.create(path) as ledger:
        ledger.record([done("a", digest="new")])
    assert sqlite3.connect(path).execute("SELECT attempts FROM outcome").fetchall() == [(1,)]


def test_outdated_rows_go_before_their_data_are_overwritten(path: Path) -> None:
    with Ledger.create(path) as ledger:
        ledger.record([done("a"), done("b"), done("elsewhere"), done("a", "radiomics")])
        ledger.drop_outdated("roi", {"a": "new", "b": "d"})
        assert set(ledger.results("roi")) == {"b", "elsewhere"}
        assert set(ledger.results("radiomics")) == {"a"}


def test_counts_say_how_many_are_done_and_failed(path: Path) -> None:
    with Ledger.create(path) as ledger:
        assert ledger.counts() == {}
        ledger.record([done("a"), done("b"), failed("c", Code.MASK_EMPTY), failed("d", Code.MASK_EMPTY)])
        ledger.record([failed("a", Code.RADIOMICS_FAILED, "radiomics")])
        counts = ledger.counts()
    assert (counts["roi"].done, counts["roi"].failed) == (2, 2)
    assert (counts["radiomics"].done, counts["radiomics"].failed) == (0, 1)


def test_record_is_all_or_nothing(path: Path) -> None:
    with Ledger.create(path) as ledger:
        with pytest.raises(TypeError, match="JSON"):
            ledger.record([done("a"), TaskResult("b", "roi", "d", None, {}, {"x": object()})])
        assert ledger.results("roi") == {}
        ledger.record([done("a")])
        assert set(ledger.results("roi")) == {"a"}


def test_second_driver_is_refused_and_accepted_after_a_kill(path: Path, tmp_path: Path) -> None:
    driver = SPAWN.Process(target=hold_ledger, args=(path, tmp_path / "held"))
    driver.start()
    wait_for((tmp_path / "held").exists)
    with pytest.raises(StoreError, match=rf"is in use by process {driver.pid} on .*; wait until it ends"):
        Ledger.create(path)
    Ledger.read(path).close()
    driver.kill()
    driver.join()
    with Ledger.create(path) as ledger:
        ledger.record([done("a")])
        with pytest.raises(StoreError, match="is in use by"):
            Ledger.create(path)
    Ledger.create(path).close()


def test_killed_driver_leaves_whole_transactions_and_readers_see_them_meanwhile(path: Path, tmp_path: Path) -> None:
    """Every transaction gives all rows one number; no read, during or after, sees two numbers."""
    seen = []
    for attempt in range(2):
        ready = tmp_path / f"ready{attempt}"
        driver = SPAWN.Process(target=record_for_ever, args=(path, 1000, ready))
        driver.start()
        wait_for(ready.exists)
        for _ in range(3):
            seen.append(read_numbers(path))
            time.sleep(0.03 * attempt)
        driver.kill()
        driver.join()
        seen.append(read_numbers(path))
    assert all(len(numbers) == 1 for numbers in seen), seen


def read_numbers(path: Path) -> set[object]:
    with Ledger.read(path) as ledger:
        outcomes = ledger.results("roi")
    assert len(outcomes) == 1000
    return {outcome.values["number"] for outcome in outcomes.values()}


def test_reader_rolls_back_the_journal_of_a_killed_driver(path: Path) -> None:
    """A driver killed in the middle of its commit: SQLite's own read-only mode would refuse such a file."""
    with Ledger.create(path) as ledger:
        ledger.record(done(f"case-{i:04d}") for i in range(2000))
    script = f"""
import os, signal, sqlite3
connection = sqlite3.connect({str(path)!r}, isolation_level=None)
connection.execute("PRAGMA cache_size = 1")  # spills changed pages into the file before the commit
connection.execute("BEGIN IMMEDIATE")
connection.execute("UPDATE outcome SET digest = 'torn', reason = hex(randomblob(200))")
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    assert path.with_name("ledger.sqlite-journal").stat().st_size > 0
    with Ledger.read(path) as ledger:
        assert {outcome.digest for outcome in ledger.results("roi").values()} == {"d"}


def test_reader_cannot_write(path: Path) -> None:
    Ledger.create(path).close()
    with Ledger.read(path) as ledger, pytest.raises(StoreError, match="readonly"):
        ledger.record([done("a")])


def test_a_disk_that_turns_read_only_or_full_is_named_so(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    many = [done(f"case {number}", digest="d" * 200) for number in range(1000)]
    with mounted("-t", "tmpfs", "-o", "size=128k", "tmpfs", at=disk), Ledger.create(disk / "ledger.sqlite") as ledger:
        with pytest.raises(StoreError, match="cannot be used: No space left on device"):
            ledger.record(many)
        with mounted("--bind", str(disk), at=disk):
            subprocess.run(["mount", "-o", "remount,bind,ro", str(disk)], check=True)
            with pytest.raises(StoreError, match="cannot be used: Read-only file system"):
                ledger.record(many[:1])
        ledger.record(many[:1])
        assert list(ledger.results("roi")) == ["case 0"]


def test_other_files_are_refused_by_name(path: Path) -> None:
    with pytest.raises(StoreError, match=r"no ledger at .*ledger.sqlite"):
        Ledger.read(path)
    path.write_text("this is a text, and long enough to be taken for the header of a database file, one would think")
    for opening in (Ledger.read, Ledger.create):
        with pytest.raises(StoreError, match="is not a ledger"):
            opening(path)
    path.unlink()
    sqlite3.connect(path).execute("CREATE TABLE outcome (x)").connection.commit()
    with pytest.raises(StoreError, match="is not a ledger"):
        Ledger.create(path)


def test_ledger_of_another_version_is_refused(path: Path) -> None:
    Ledger.create(path).close()
    sqlite3.connect(path).execute("PRAGMA user_version = 99").connection.commit()
    with pytest.raises(StoreError, match="version 99, this program reads version 2"):
        Ledger.read(path)


def test_code_of_a_newer_program_is_named(path: Path) -> None:
    with Ledger.create(path) as ledger:
        ledger.record([failed("a", Code.MASK_EMPTY)])
    connection = sqlite3.connect(path)
    connection.execute("UPDATE outcome SET code = 'new-in-v9'")
    connection.commit()
    with Ledger.read(path) as ledger, pytest.raises(StoreError, match="'new-in-v9', unknown here"):
        ledger.failures()


def test_folder_that_cannot_be_made_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot write in"):
        Ledger.create(tmp_path / "file" / "ledger.sqlite")


def test_a_hundred_thousand_rows(path: Path) -> None:
    """Recorded in 100 transactions with twenty numbers each, then asked what is finished."""
    values = [i / 7 for i in range(20)]
    start = time.thread_time()  # how long the disk takes is not this test's matter
    with Ledger.create(path) as ledger:
        for block in range(100):
            ledger.record(
                TaskResult(f"LUNG1-{block:03d}-{i:03d}", "radiomics", "d", None, {"total": 1.5}, {"values": values})
                for i in range(1000)
            )
        recorded = time.thread_time()
        digests = {f"LUNG1-{block:03d}-{i:03d}": "d" for block in range(100) for i in range(1000)}
        assert len(ledger.finished("radiomics", digests)) == 100_000
        finished = time.thread_time()
        assert ledger.counts()["radiomics"].done == 100_000
    print(f"{(recorded - start) * 10:.0f} us a row to record, {finished - recorded:.2f} s to ask what is finished")
    assert recorded - start < 100  # 4 s on an idle core
    assert finished - recorded < 10  # 0.2 s


def test_a_disk_without_locks_is_told_in_words_where_the_system_gives_a_number_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, *, blocking: bool) -> bool:
        raise OSError(errno.ENOLCK)

    monkeypatch.setattr("prognosis_dask.storage.ledger.lock_descriptor", refuse)
    with pytest.raises(StoreError, match=r"cannot lock .* \(No locks available\)"):
        Ledger.create(tmp_path / "ledger.sqlite")
