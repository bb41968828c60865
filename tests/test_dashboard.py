"""The page on Dask's dashboard, as its visitors get it, and the gauges: of real runs on real schedulers."""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import msgpack
import pytest
from bokeh.client import pull_session
from distributed import Client, Scheduler
from playwright.sync_api import expect

from prognosis_dask.execution import dashboard
from prognosis_dask.execution.cluster import LocalSpec, connect
from prognosis_dask.execution.dashboard.plugin import ProgressPlugin
from prognosis_dask.execution.monitor import TOPIC, RunMonitor, journal_in
from prognosis_dask.execution.plan import CohortPlan, PlannedStage
from prognosis_dask.execution.progress import PATIENTS, RunProgress
from prognosis_dask.execution.runner import run_plan
from prognosis_dask.execution.task import metered
from prognosis_dask.storage.ledger import TaskResult
from tests.browser import chromium, complaints, needs_browser, new_context
from tests.dask_processes import PATIENCE, wait_for
from tests.runner_stages import Marks, visit
from tests.watched import PATIENT, held_by, make_cases, watched_run

#: Bokeh's client leaves its socket to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")

#: How many colours a canvas has.
COLOURS = """canvas => new Set(new Uint32Array(
  canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size"""

needs_prometheus = pytest.mark.skipif(
    importlib.util.find_spec("prometheus_client") is None, reason="prometheus-client is not installed"
)


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """Such a socket goes here, not in the middle of another file's test."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with connect(LocalSpec(workers=2, dashboard="127.0.0.1:0")) as client:
        yield client


@pytest.fixture(scope="module")
def address(client: Client) -> str:
    return str(client.dashboard_link).rpartition("/")[0]


@contextmanager
def going_on(client: Client, folder: Path, count: int, seconds: float, job: str, held: bool = True) -> Iterator[None]:
    """A run beside the test, over after the block. ``held``: it stays in its middle until the end of the block."""
    if held:
        held_by(folder).touch()
    run = threading.Thread(target=watched_run, args=(client, count, seconds, folder, job))
    run.start()
    try:
        yield
    finally:
        held_by(folder).unlink(missing_ok=True)
        run.join()


def page(address: str) -> dict[str, Any]:
    """What a visitor gets over HTTP and the websocket: the texts, and the plots' data."""
    session = pull_session(url=f"{address}/prognosis")
    try:
        texts = {name: session.document.get_model_by_name(name).text for name in ("head", "stages", "failures", "gpus")}
        data = {name: dict(session.document.get_model_by_name(name).data) for name in ("speed", "steps")}
    finally:
        session.close()
    plain = {name: re.sub(r"<style>.*?</style>|<[^>]*>", " ", text, flags=re.S) for name, text in texts.items()}
    return {name: " ".join(text.split()) for name, text in plain.items()} | data


def get(url: str) -> str:
    with urlopen(url, timeout=PATIENCE) as answer:
        return str(answer.read().decode())


def plugin_of(client: Client) -> ProgressPlugin:
    return client.cluster.scheduler.plugins[ProgressPlugin.name]


def test_before_the_first_run_the_page_says_how_to_start_one(client: Client, address: str) -> None:
    head = page(address)["head"]
    assert "No run yet" in head
    assert f"prognosis run JOB.toml --cluster {client.scheduler.address}" in head


def test_the_page_is_in_the_dashboards_navigation(address: str) -> None:
    assert '<a href="prognosis">Prognosis</a>' in get(f"{address}/status")


def test_the_page_shows_a_run_while_it_goes_on_and_after_it(client: Client, address: str, tmp_path: Path) -> None:
    with going_on(client, tmp_path, 60, 0.3, "lung <b>one</b>"):
        shown = wait_for(lambda: _rated(now := page(address)) and now)
        assert "Running for" in shown["head"]
        assert "of 60" in shown["head"]
        assert re.search(r"about (\d+ \w+ )+left", shown["head"])
        assert re.search(r"roi\s+\d+\s+\d+\s+\d+\s+[012]\s+[\d.]+\s+\d+ (s|min|h)", shown["stages"]), shown["stages"]
        assert wait_for(lambda: re.search(r"(roi|deep)(\s+\d+){3}\s+[12]\s", page(address)["stages"]))
        assert re.search(r"\d\d:\d\d:\d\d\s+roi\s+slice-gap\s+[0-9a-f]{12}", shown["failures"])
        assert shown["steps"]["step"] == ["roi: read", "roi: rasterise", "deep: network"]
        assert list(shown["steps"]["seconds"]) == pytest.approx([0.3, 0.15, 0.3])
    after = page(address)
    assert "Finished in" in after["head"]
    assert "60 of 60 patients finished" in after["head"]
    assert re.search(r"roi\s+54\s+6\s+0.*done\s+deep\s+54\s+0\s+0.*done", after["stages"])
    assert "(6)" in after["failures"]
    widths = [right - left for left, right in zip(after["speed"]["left"], after["speed"]["right"], strict=True)]
    # the bars hold the patients of the whole run but for its last seconds
    assert 0 < sum(rate * width for rate, width in zip(after["speed"]["top"], widths, strict=True)) <= 60 + 1e-6


def _rated(shown: dict[str, Any]) -> bool:
    return "left" in shown["head"] and "a minute" in shown["head"] and "slice-gap" in shown["failures"]


@needs_browser
def test_a_browser_draws_the_page_and_follows_the_run(client: Client, address: str, tmp_path: Path) -> None:
    with going_on(client, tmp_path, 20, 0.3, "in a browser", held=False), chromium() as browser:
        page = new_context(browser).new_page()
        page.goto(f"{address}/prognosis")
        expect(page.get_by_text("20 of 20 patients finished")).to_be_visible()
        expect(page.get_by_text("in a browser")).to_be_visible()
        plots = page.locator(".bk-Figure").all()
        assert len(plots) > 1
        for plot in plots:  # each on several layers; more than one colour: something is drawn
            layers = plot.locator("canvas")
            wait_for(lambda layers=layers: any(layer.evaluate(COLOURS) > 1 for layer in layers.all()))
        assert complaints(page) == []  # which leaves it as wide as a phone
        wait_for(lambda: page.evaluate("document.documentElement.scrollWidth") == 390)


@needs_prometheus
def test_the_gauges_are_among_the_schedulers_metrics(client: Client, address: str, tmp_path: Path) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    def gauges() -> dict[tuple[str, ...], float]:
        families = text_string_to_metric_families(get(f"{address}/metrics"))
        samples = [sample for family in families for sample in family.samples]
        return {
            (s.name, *(v for k, v in sorted(s.labels.items()) if k not in ("job", "run"))): s.value
            for s in samples
            if s.labels.get("job") == "gauged"
        }

    with going_on(client, tmp_path, 20, 0.2, "gauged"):
        running = wait_for(lambda: (now := gauges()) and now.get(("prognosis_cases", "roi", "done"), 0) > 3 and now)
        assert running["prognosis_run_active",] == 1
    finished = gauges()
    assert finished["prognosis_run_active",] == 0
    assert finished["prognosis_cases", "roi", "done"] == 18
    assert finished["prognosis_cases", "roi", "failed"] == 2
    assert finished["prognosis_cases", "deep", "waiting"] == 0
    assert finished["prognosis_patients", "done"] == 20
    assert finished["prognosis_step_seconds", "roi", "read"] == pytest.approx(20 * 0.2)
    assert "dask_scheduler_workers" in get(f"{address}/metrics")


def test_dasks_spans_hold_the_seconds_of_the_steps(client: Client, tmp_path: Path) -> None:
    watched_run(client, 10, 0.05, tmp_path)
    spans = client.cluster.scheduler.extensions["spans"]

    def booked() -> float:
        metrics = [span.cumulative_worker_metrics for span in spans.spans.values()]
        return float(sum(metric.get(("execute", "roi", "rasterise", "seconds"), 0.0) for metric in metrics))

    wait_for(lambda: booked() >= 10 * 0.05 / 2 * 0.999)


def test_no_patient_is_named_on_page_gauges_journal_and_events(client: Client, address: str, tmp_path: Path) -> None:
    watched_run(client, 10, 0.01, tmp_path)
    told = json.dumps(page(address), default=str) + json.dumps(client.get_events(), default=str)
    told += (tmp_path / "log.jsonl").read_text()
    if importlib.util.find_spec("prometheus_client"):
        told += get(f"{address}/metrics")
    assert "slice-gap" in told
    assert PATIENT not in told
    assert "/data/" not in told


def test_the_journal_tells_of_a_lost_worker(client: Client, tmp_path: Path) -> None:
    def events() -> dict[str, dict[str, Any]]:
        lines = (tmp_path / "log.jsonl").read_text().splitlines() if (tmp_path / "log.jsonl").exists() else []
        return {line["event"]: line for line in map(json.loads, lines)}

    with going_on(client, tmp_path, 20, 0.3, "disturbed"):
        wait_for(lambda: "worker-joined" in events())
        worker = next(iter(client.cluster.scheduler.workers.values()))
        os.kill(client.run(os.getpid, workers=[worker.address])[worker.address], signal.SIGKILL)
    assert events()["worker-lost"]["worker"] == worker.address
    assert events()["run-finished"]["stages"]["roi"] == {"done": 18, "failed": 2, "reused": 0}


def test_the_journal_tells_of_a_task_that_is_tried_again(client: Client, tmp_path: Path) -> None:
    (case,) = make_cases(1)
    plan = CohortPlan(
        [case],
        [PlannedStage("visit", visit, {case.case_id: "d"})],
        Marks(str(tmp_path), flaky=case.case_id),
        {"visit": {}},
    )
    with journal_in(tmp_path):
        run_plan(client, plan, lambda outcomes: None, retries=2)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    told = [(line["event"], line["stage"], line["case"], line["attempt"], line["error"]) for line in lines]
    assert told == [("task-retried", "visit", case.short_hash, attempt, "OSError") for attempt in (1, 2)]


def test_a_driver_that_was_killed_is_reported_as_gone(client: Client, address: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.watched", client.scheduler.address, "200", "0.2", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
        wait_for(lambda: "in a process of its own" in (head := page(address)["head"]) and "of 200" in head)
        driver.send_signal(signal.SIGKILL)
    head = wait_for(lambda: "driver is gone" in (now := page(address)["head"]) and now)
    assert "run the same command again to resume" in head


@contextmanager
def scheduler_process(*options: str) -> Iterator[tuple[str, str]]:
    """A ``dask scheduler`` and a worker as processes: the scheduler's address, and its dashboard's."""
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    options = ("--dashboard-address", "127.0.0.1:0", *options)
    with subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True) as scheduler:
        assert scheduler.stderr
        said = ""
        while not re.search(r"dashboard at:", said):
            line = scheduler.stderr.readline()
            assert line, said
            said += line
        address = re.search(r"Scheduler at: +(\S+)", said)
        dashboard_url = re.search(r"dashboard at: +(\S+)/status", said)
        assert address
        assert dashboard_url
        threading.Thread(target=scheduler.stderr.read, daemon=True).start()
        worker = [sys.executable, "-m", "distributed.cli.dask_worker", address[1], "--no-nanny", "--no-dashboard"]
        with subprocess.Popen([*worker, "--nthreads", "1"], stderr=subprocess.DEVNULL) as working:
            try:
                yield address[1], dashboard_url[1]
            finally:
                working.kill()
                scheduler.kill()


def test_a_run_on_a_scheduler_without_the_page_works_all_the_same(tmp_path: Path) -> None:
    with scheduler_process() as (address, dashboard_url), Client(address) as client:
        client.wait_for_workers(1)
        progress = watched_run(client, 10, 0.01, tmp_path)
        assert {name: (stage.done, stage.failed) for name, stage in progress.stages.items()} == {
            "roi": (9, 1),
            "deep": (9, 0),
        }
        with pytest.raises(OSError, match="404"):
            get(f"{dashboard_url}/prognosis")


def test_any_scheduler_gets_the_page_by_a_preload_module(tmp_path: Path) -> None:
    with scheduler_process("--preload", dashboard.PRELOAD) as (address, dashboard_url), Client(address) as client:
        client.wait_for_workers(1)
        watched_run(client, 10, 0.01, tmp_path)
        assert "10 of 10" in page(dashboard_url)["head"]


def test_a_page_that_breaks_stops_no_scheduler_and_no_run(
    client: Client, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("another version of Dask")

    monkeypatch.setattr("distributed.dashboard.scheduler.template_variables", broken)
    monkeypatch.setattr(ProgressPlugin, "log_event", broken)
    client.run_on_scheduler(lambda dask_scheduler: dashboard._attempt(lambda: dashboard._link(dask_scheduler)))
    assert watched_run(client, 10, 0.01, tmp_path).patients_done == 10


def test_the_private_parts_of_dask_that_the_page_stands_on_are_there(client: Client) -> None:
    """Not Dask's public interface: when this fails, mend execution/dashboard/__init__.py and plugin.py."""
    from distributed.dashboard.components.scheduler import BOKEH_THEME, env
    from distributed.dashboard.scheduler import applications, template_variables

    scheduler = client.cluster.scheduler
    assert applications["/prognosis"] is dashboard._show
    assert "prognosis" in template_variables(scheduler)["pages"]
    assert BOKEH_THEME
    assert env.from_string("{{ pages }}")
    worker = next(iter(scheduler.workers.values()))
    assert hasattr(worker, "executing")
    assert hasattr(worker, "metrics")
    assert callable(Scheduler.log_event)


def test_gpus_are_shown_where_workers_report_them(
    client: Client, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "GPU" not in page(address)["gpus"]
    # as distributed.diagnostics.nvml's real_time and one_time report them
    worker = next(iter(client.cluster.scheduler.workers.values()))
    extra = {**worker.extra, "gpu": {"memory-total": 80 * 2**30, "name": "NVIDIA H100"}}
    with monkeypatch.context() as patch:
        patch.setattr(worker, "extra", extra)
        patch.setattr(type(plugin_of(client)), "gpus", _with_metrics(ProgressPlugin.gpus, worker))
        assert re.search(r"NVIDIA H100\s+37 %\s+12\.0 of 80 GiB", page(address)["gpus"])


def _with_metrics(gpus: Callable[[ProgressPlugin], Any], worker: Any) -> Callable[[ProgressPlugin], Any]:
    """The worker's heartbeat overwrites its metrics: put the GPU's in just before they are read."""

    def patched(plugin: ProgressPlugin) -> Any:
        worker.metrics["gpu"] = {"utilization": 37, "memory-used": 12 * 2**30}
        return gpus(plugin)

    return patched


def test_messages_stay_small_for_any_cohort_and_workers_have_nothing_to_do(client: Client) -> None:
    cases = make_cases(100_000)
    monitor = RunMonitor(client, "large")
    monitor.begin(RunProgress(cases, {"roi": (), "deep": ("roi",)}, {"roi": {}, "deep": {}}))
    start = time.thread_time()
    for case in cases:
        monitor.count([TaskResult(case.case_id, "roi", "d", None, {"read": 1.0, "total": 1.0})])
    per_case = (time.thread_time() - start) / len(cases)
    assert len(msgpack.dumps(monitor._message())) < 10_000
    assert per_case < 1e-4
    outcomes = [TaskResult("c", "roi", "d", None, {"read": 1.0, "rasterise": 1.0, "write": 1.0, "total": 3.0})]
    start = time.thread_time()
    for _ in range(1000):
        metered(outcomes)
    assert (time.thread_time() - start) / 1000 < 1e-4


def test_messages_of_others_are_left_alone(client: Client) -> None:
    before = set(plugin_of(client).runs)
    client.log_event(TOPIC, "a text")
    client.log_event(TOPIC, {"run": "1"})
    client.log_event("another", {"run": "1", "job": "j", "state": "running", "elapsed": 0.0})
    assert set(plugin_of(client).runs) == before
    assert PATIENTS not in ("roi", "radiomics", "deep")
