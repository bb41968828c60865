"""What a terminal shows of a run, and what is left in its folder for later: status, journal, Dask's report."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from prognosis_dask.cohort.case import Case, read_cases, short_hash, write_cases
from prognosis_dask.config.job import SynthSection
from prognosis_dask.errors import Code, Problem, StoreError
from prognosis_dask.execution.monitor import journal, journal_in
from prognosis_dask.report.status import status, watch
from prognosis_dask.storage.ledger import Ledger, TaskResult
from prognosis_dask.synthetic import make_cohort
from tests.dask_processes import PATIENCE, wait_for

CASES = [Case(f"DOE-{n}_CT", f"DOE-{n}", "CT", "GTV", "i", "m", source="s") for n in range(20)]
GAP = Problem(Code.SLICE_GAP, "3.0 mm expected, 6.0 mm seen")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was begun ten seconds ago: 10 of 20 cases read, one of them spoilt, and no radiomics wanted.

    A case was read every second, the last one now, by a clock that stands still however long the machine takes.
    """
    now = time.time()
    write_cases(tmp_path / "cases.csv", CASES)
    run(tmp_path, finished=None, now=now)
    with Ledger.create(tmp_path / "ledger.sqlite") as ledger:
        for n, case in enumerate(CASES[:10]):
            moment = SimpleNamespace(time=lambda n=n: now - (9 - n))
            monkeypatch.setattr("prognosis_dask.storage.ledger.time", moment)
            ledger.record([TaskResult(case.case_id, "roi", "d", GAP if n == 3 else None)])
    monkeypatch.setattr("prognosis_dask.report.status.time", SimpleNamespace(time=lambda: now, sleep=time.sleep))
    return tmp_path


def run(folder: Path, finished: str | None, now: float | None = None) -> None:
    started = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime((now or time.time()) - 10))
    job = {"radiomics": {"enabled": False}, "deep": {"enabled": True}}
    (folder / "run.json").write_text(json.dumps({"job": job, "started": started, "finished": finished, "seconds": 75}))


def test_status_says_how_far_how_fast_and_how_long_yet(folder: Path) -> None:
    lines = status(folder).splitlines()
    assert re.search(r"20 cases, not finished, begun \d\d s ago, last result \d+ s ago", lines[0])
    assert lines[1].split() == ["stage", "done", "failed", "waiting", "per", "min", "time", "left"]
    stage, done, failed, waiting, rate, *left = lines[2].split()
    assert (stage, done, failed, waiting) == ("roi", "9", "1", "10")
    # 9 outcomes after the first one, in 9 s
    assert float(rate) == pytest.approx(60)
    assert left == ["10", "s"]
    assert lines[3].split() == ["deep", "0", "0", "19", "-", "-"]


def test_status_says_why_a_finished_run_has_no_model(folder: Path) -> None:
    run(folder, finished="2026-01-01T00:00:00+00:00")
    (folder / "models").mkdir()
    summary = folder / "models" / "summary.json"
    summary.write_text(json.dumps({"not_fitted": "0 patients with the event: a fold of 5 would have none"}))
    assert status(folder).splitlines()[-1] == "no model: 0 patients with the event: a fold of 5 would have none"
    summary.write_text(json.dumps({"label": ["0 of 12 cases had the event within 365 days"]}))
    assert status(folder).splitlines()[-1] == "0 of 12 cases had the event within 365 days"
    told = json.loads((folder / "run.json").read_text())
    told["job"]["model"] = {"enabled": False}
    (folder / "run.json").write_text(json.dumps(told))
    assert status(folder).splitlines()[-1] == "no model: the job has it switched off (model.enabled)"


def test_status_names_the_failed_case_and_its_hash_on_page_and_in_journal(folder: Path) -> None:
    line = status(folder).splitlines()[-1]
    assert line == f"  DOE-3_CT (roi, {short_hash('DOE-3_CT')}): slice-gap: 3.0 mm expected, 6.0 mm seen"


def test_status_of_a_finished_run_speaks_of_no_rate(folder: Path) -> None:
    run(folder, finished="2026-01-01T00:00:00+00:00")
    assert "finished in 1 min 15 s" in status(folder)
    assert status(folder).splitlines()[2].split() == ["roi", "9", "1", "10", "-", "-"]


def test_status_says_that_the_model_is_fitted_when_all_cases_are_through(folder: Path) -> None:
    lines = [{"event": "phase", "name": "cohort"}, {"event": "phase", "name": "model"}, {"event": "worker-lost"}]
    (folder / "log.jsonl").write_text('cut"}\n' + "".join(json.dumps(line) + "\n" for line in lines))
    said = status(folder).splitlines()[0]
    begun = re.search(r"20 cases, fitting and validating the model, begun (\d+) s ago$", said)
    assert begun
    assert int(begun[1]) >= 10


def test_watch_prints_what_changed_and_ends_with_the_run(folder: Path) -> None:
    stream = io.StringIO()
    watching = threading.Thread(target=watch, args=(folder, stream, 0.1))
    watching.start()
    wait_for(lambda: "9       1       10" in stream.getvalue())
    with Ledger.create(folder / "ledger.sqlite") as ledger:
        ledger.record([TaskResult(case.case_id, "roi", "d") for case in CASES[10:]])
    wait_for(lambda: "19       1        0" in stream.getvalue())
    assert watching.is_alive()
    run(folder, finished="2026-01-01T00:00:00+00:00")
    watching.join(PATIENCE)
    assert not watching.is_alive()
    assert "\x1b" not in stream.getvalue()
    assert "finished in" in stream.getvalue().splitlines()[-5]


def test_watch_ends_when_the_driver_says_that_it_stopped(folder: Path) -> None:
    with journal_in(folder):
        journal("run-stopped")
    stream = io.StringIO()
    watch(folder, stream)
    assert "stopped; run the same command again to resume" in stream.getvalue()


def test_watch_ends_when_the_driver_was_killed(folder: Path) -> None:
    code = f"""
import os, pathlib
from prognosis_dask.storage.ledger import Ledger
ledger = Ledger.create(pathlib.Path({str(folder / "ledger.sqlite")!r}))
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    stream = io.StringIO()
    watch(folder, stream)
    assert "stopped; run the same command again to resume" in stream.getvalue()


def test_watch_redraws_a_terminal_and_ctrl_c_ends_it_in_peace(folder: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "prognosis_dask", "status", "--watch", str(folder)]
    with subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE) as process:
        os.close(theirs)
        seen = b""
        while seen.count(b"\x1b[2J") < 2:
            seen += os.read(ours, 4096)
        process.send_signal(signal.SIGINT)
        assert process.stderr
        assert process.stderr.read() == b""
    os.close(ours)
    assert process.returncode == 0


def test_status_of_no_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no run in"):
        watch(tmp_path)


def test_a_look_at_twenty_thousand_cases_takes_little_of_its_two_seconds(tmp_path: Path) -> None:
    cases = [Case(f"c{n}", f"p{n}", "CT", "r", "i", "m", source="s") for n in range(20_000)]
    write_cases(tmp_path / "cases.csv", cases)
    run(tmp_path, finished=None)
    with Ledger.create(tmp_path / "ledger.sqlite") as ledger:
        values: dict[str, object] = {"values": [0.123456789] * 107}
        ledger.record(TaskResult(case.case_id, "roi", "d", None, {"total": 1.0}, values) for case in cases)
    status(tmp_path)
    start = time.thread_time()
    assert "20000" in status(tmp_path)
    assert time.thread_time() - start < 1.0


def test_a_journal_that_cannot_be_written_stops_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log.jsonl").mkdir()
    with journal_in(tmp_path):
        journal("run-started")
    assert capfd.readouterr().err == ""


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six synthetic patients and the spoilt ones, watched from another terminal."""
    folder = tmp_path_factory.mktemp("watched")
    cohort = make_cohort(folder / "cohort", SynthSection(patients=6, seed=3, bad_cases=True))
    (folder / "job.toml").write_text(
        f"""
        name = "made"
        cohort = {{ sources = ["{cohort.images}"], clinical = "{cohort.clinical}", roi = ["GTV-1"] }}
        deep = {{ enabled = false }}
        model = {{ features = "radiomics", repeats = 1, folds = 2, halves = 0 }}
        """
    )
    (folder / "cluster.toml").write_text('kind = "local"\nworkers = 2\ndashboard = "127.0.0.1:0"\n')
    command = [sys.executable, "-m", "prognosis_dask"]
    options = ["--cluster", folder / "cluster.toml", "--performance-report", folder / "performance.html"]
    with (
        subprocess.Popen([*command, "run", folder / "job.toml", "--out", folder / "run", *options]) as running,
        (folder / "shown.txt").open("w") as shown,
    ):
        wait_for(lambda: (folder / "run" / "ledger.sqlite").exists() or running.poll() is not None)
        running.send_signal(signal.SIGSTOP)  # however long the other terminal takes to begin
        with subprocess.Popen([*command, "status", "--watch", folder / "run"], stdout=shown) as watching:
            try:
                wait_for(lambda: (folder / "shown.txt").stat().st_size or watching.poll() is not None)
            finally:
                running.send_signal(signal.SIGCONT)
        (folder / "models.txt").write_text(" ".join(path.name for path in (folder / "run" / "models").glob("*")))
        assert running.wait() == 0
    return folder


def test_a_whole_run_can_be_watched_from_another_terminal(whole_run: Path) -> None:
    shown = (whole_run / "shown.txt").read_text()
    assert re.search(r"cases, (not finished|starting)", shown)
    last = shown[shown.rindex(" cases, ") :]
    assert "finished in" in last
    assert "summary.json" in (whole_run / "models.txt").read_text()  # with the last case the run is not finished yet
    assert re.search(r"radiomics +7 +0 +0 +- +done", last)


def test_the_journal_tells_the_run_in_json_lines_and_names_no_patient(whole_run: Path) -> None:
    text = (whole_run / "run" / "log.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    events = [line["event"] for line in lines]
    assert events[0] == "run-started"
    assert events[-1] == "run-finished"
    assert events.count("worker-joined") == 2
    assert [line["name"] for line in lines if line["event"] == "phase"] == ["cohort", "stages", "features", "model"]
    failed = {(line["case"], line["code"]) for line in lines if line["event"] == "case-failed"}
    with Ledger.read(whole_run / "run" / "ledger.sqlite") as ledger:
        expected = {(short_hash(o.case_id), o.problem.code.value) for o in ledger.failures() if o.problem}
    assert failed == expected != set()
    cases = read_cases(whole_run / "run" / "cases.csv")
    named = {name for case in cases for name in (case.patient_id, case.case_id)}
    assert not [name for name in named if name in text]
    assert str(whole_run) not in text


def test_dasks_performance_report_is_written_and_names_no_patient(whole_run: Path) -> None:
    text = (whole_run / "performance.html").read_text()
    assert "Dask Performance Report" in text
    assert "roi" in text
    assert not [case.case_id for case in read_cases(whole_run / "run" / "cases.csv") if case.patient_id in text]


def test_a_performance_report_into_no_folder_is_refused_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    monkeypatch.chdir(tmp_path)
    job = Path(__file__).parents[1] / "jobs" / "demo.toml"
    assert "no folder" in refused("run", job, "--performance-report", tmp_path / "no" / "r.html")
    assert not (tmp_path / "runs").exists()
