"""What becomes of a run when its parts die, hang or break: on real processes, with values compared to a calm run's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import SimpleITK as sitk
from distributed import Client, LocalCluster

from prognosis_dask.cohort.case import Case, read_cases
from prognosis_dask.cohort.index import index_cohort
from prognosis_dask.config.job import CohortSection, Job, SynthSection
from prognosis_dask.errors import ClusterError, Code
from prognosis_dask.execution import runner
from prognosis_dask.execution.cluster import DASK_CONFIG
from prognosis_dask.execution.plan import CohortPlan, PlannedStage
from prognosis_dask.execution.runner import run_plan
from prognosis_dask.features.registry import RADIOMICS, ROI
from prognosis_dask.features.stage import StageContext
from prognosis_dask.radiomics.parameter_file import job_params
from prognosis_dask.storage.ledger import Ledger, TaskResult
from prognosis_dask.storage.rois import RoiStore
from prognosis_dask.synthetic import make_cohort
from tests.dask_processes import PATIENCE, wait_for, when
from tests.hosts import second_host
from tests.survival_stages import Faults, damage, run_radiomics, run_roi, visits

STAGES = ("roi", "radiomics")
#: Seconds that a case may take: far more than any sound one does, also on a machine with much else to do.
LIMIT = 12.0
Outcomes = dict[tuple[str, str], TaskResult]


@dataclass(frozen=True)
class Cohort:
    """A synthetic cohort, and the results of an undisturbed run in this very process."""

    folder: Path
    cases: list[Case]
    calm: dict[tuple[str, str], dict[str, object]]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    folder = tmp_path_factory.mktemp("cohort")
    made = make_cohort(folder / "images", SynthSection(patients=8, seed=5, bad_cases=False))
    index_cohort([made.images], folder, CohortSection(roi=("GTV-1",), clinical=str(made.clinical)))
    cases = read_cases(folder / "cases.csv")
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    calm = faults(folder / "calm", cases).context
    digests = tuple(digest_of(case) for case in cases)
    functions = (ROI.load().run, RADIOMICS.load().run)
    outcomes = [outcome for function in functions for outcome in function(tuple(cases), digests, calm)]
    return Cohort(folder, cases, {(outcome.stage, outcome.case_id): values(outcome) for outcome in outcomes})


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, memory_limit="1.2 GB", dashboard_address="127.0.0.1:0"
        ) as local,
        Client(local) as client,
    ):
        yield client


def digest_of(case: Case) -> str:
    return f"digest-{case.case_id}"


def values(outcome: TaskResult) -> dict[str, object]:
    assert outcome.problem is None, outcome.problem
    measured = ("peak_memory_mb", "read_mb")
    return {name: value for name, value in outcome.values.items() if name not in measured}


def faults(folder: Path, cases: Sequence[Case], *planted: tuple[str, str, str]) -> Faults:
    folder.mkdir(exist_ok=True)
    RoiStore.create(folder / "rois.zarr", [case.case_id for case in cases])
    context = StageContext(str(folder), Job("survival"), job_params(""))
    return Faults(context, str(folder), planted)


def run(
    client: Client,
    cohort: Cohort,
    folder: Path,
    *planted: tuple[str, str, str],
    batch: int = 1,
    only_roi: bool = False,
    **limits: float,
) -> Outcomes:
    """Go on with the run in the folder, as the pipeline does; all outcomes that its ledger holds afterwards."""
    context = faults(folder, cohort.cases, *planted)
    digests = {case.case_id: digest_of(case) for case in cohort.cases}
    with Ledger.create(folder / "ledger.sqlite") as ledger:
        known = {
            stage: {k: v for k, v in ledger.results(stage).items() if k in ledger.finished(stage, digests)}
            for stage in STAGES
        }
        roi = PlannedStage("roi", run_roi, digests, batch_size=1)
        radiomics = PlannedStage("radiomics", run_radiomics, digests, ("roi",), batch_size=batch)
        plan = CohortPlan(cohort.cases, [roi] if only_roi else [roi, radiomics], context, known)
        run_plan(client, plan, ledger.record, retries=2, **limits)
    return outcomes_in(folder)


def outcomes_in(folder: Path) -> Outcomes:
    with Ledger.read(folder / "ledger.sqlite") as ledger:
        return {(stage, k): outcome for stage in STAGES for k, outcome in ledger.results(stage).items()}


def assert_calm(cohort: Cohort, outcomes: Outcomes, without: Sequence[tuple[str, str]] = ()) -> None:
    """Every case but those has its outcome, with the very values of the calm run."""
    expected = {key: value for key, value in cohort.calm.items() if key not in without}
    assert {key: values(outcome) for key, outcome in outcomes.items() if key not in without} == expected


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "batch"), [("roi", 1), ("radiomics", 2)])
def test_a_case_that_hangs_crashes_or_takes_all_memory_ends_alone(
    client: Client, cohort: Cohort, tmp_path: Path, stage: str, batch: int
) -> None:
    ids = [case.case_id for case in cohort.cases]
    kinds = {
        "hang": (Code.TIME_LIMIT, f"stopped after {LIMIT:g} s"),
        "segfault": (Code.WORKER_LOST, "killed by SIGSEGV, 3 times"),
        "exit": (Code.WORKER_LOST, "ended with exit status 3, 3 times"),
        "eat": (Code.MEMORY_LIMIT, "more than the worker's 1.1 GB"),
        "ask": (Code.MEMORY_LIMIT, "refused memory"),
        "raise": (Code.UNEXPECTED, "KeyError: 'a bug in a library'"),
    }
    guilty = dict(zip(ids, kinds, strict=False))
    workers = set(client.scheduler_info()["workers"])
    planted = [(stage, case_id, fault) for case_id, fault in guilty.items()]
    outcomes = run(client, cohort, tmp_path, *planted, batch=batch, case_limit_s=LIMIT)
    for case_id, fault in guilty.items():
        problem = outcomes[stage, case_id].problem
        assert problem is not None
        code, reason = kinds[fault]
        assert problem.code is code
        assert reason in problem.reason
    without = [(s, case_id) for s in STAGES[STAGES.index(stage) :] for case_id in guilty]
    assert_calm(cohort, {k: v for k, v in outcomes.items() if k[0] == "roi" or k[1] not in guilty}, without)
    assert set(client.scheduler_info()["workers"]) == workers, "no worker was lost"
    again = run(client, cohort, tmp_path)
    assert_calm(cohort, again)


def test_a_crash_that_does_not_repeat_costs_nothing(client: Client, cohort: Cohort, tmp_path: Path) -> None:
    first, second = cohort.cases[:2]
    planted = (("roi", first.case_id, "segfault once"), ("radiomics", second.case_id, "segfault once"))
    outcomes = run(client, cohort, tmp_path, *planted)
    assert_calm(cohort, outcomes)
    assert visits(faults(tmp_path, cohort.cases), "roi", first) == 2


@pytest.mark.parametrize("stage", STAGES)
def test_a_worker_killed_in_a_stage_costs_its_running_cases_only(
    client: Client, cohort: Cohort, tmp_path: Path, stage: str
) -> None:
    outcomes = run(client, cohort, tmp_path, (stage, cohort.cases[3].case_id, "kill worker once"))
    assert_calm(cohort, outcomes)
    context = faults(tmp_path, cohort.cases)
    again = sum(visits(context, stage, case) - 1 for stage in STAGES for case in cohort.cases)
    assert 1 <= again <= 4, "at most what two workers held"


def test_a_worker_that_its_nanny_restarts_for_memory_costs_its_running_cases_only(
    client: Client, cohort: Cohort, tmp_path: Path
) -> None:
    client.wait_for_workers(2, timeout=PATIENCE)  # an earlier test killed one
    pids = set(client.run(os.getpid).values())
    planted = [("radiomics", case.case_id, "wait") for case in cohort.cases]
    with Client(client.scheduler.address, set_as_default=False) as stranger:
        glutton = stranger.submit(fill_memory_once, str(tmp_path), pure=False)
        outcomes = run(client, cohort, tmp_path, *planted)
        wait_for(lambda: not all(map(psutil.pid_exists, pids)))  # a worker was restarted, late on a busy machine
        glutton.cancel(force=True)
    assert_calm(cohort, outcomes)


def fill_memory_once(folder: str) -> None:
    held = []
    while not (Path(folder) / "filled").exists():
        held.append(bytearray(b"x") * 20_000_000)
        time.sleep(0.01)
        if len(held) == 40:
            (Path(folder) / "filled").touch()
            held.append(bytearray(b"x") * 2_000_000_000)
            time.sleep(100)


def test_stored_pixels_that_are_damaged_or_another_runs_are_made_again(
    client: Client, cohort: Cohort, tmp_path: Path
) -> None:
    during, between, late = cohort.cases[2], cohort.cases[5], cohort.cases[4]
    run(client, cohort, tmp_path, only_roi=True)
    damage(tmp_path / "rois.zarr", between.case_id)
    faulty = ("radiomics", during.case_id, "damage once"), ("radiomics", late.case_id, "overwrite once")
    outcomes = run(client, cohort, tmp_path, *faulty)
    assert_calm(cohort, outcomes)
    assert visits(faults(tmp_path, cohort.cases), "roi", late) == 2
    assert visits(faults(tmp_path, cohort.cases), "roi", between) == 2
    assert visits(faults(tmp_path, cohort.cases), "roi", during) == 2


@contextmanager
def processes() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """A way to start ``dask`` programs, all of which end with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str, within: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        command = [*within, sys.executable, "-m", "distributed.cli.dask_" + arguments[0], *arguments[1:]]
        patient = {**os.environ, "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": DASK_CONFIG["distributed.comm.timeouts.tcp"]}
        started.append(subprocess.Popen(command, env=patient, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return started[-1]

    try:
        yield start
    finally:
        for process in started:
            process.kill()
            process.wait()


def scheduler_on(start: Callable[..., subprocess.Popen[bytes]], file: Path) -> subprocess.Popen[bytes]:
    file.unlink(missing_ok=True)
    scheduler = start(
        "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)
    )
    wait_for(lambda: file.exists() and file.read_text())
    return scheduler


def worker_on(start: Callable[..., subprocess.Popen[bytes]], file: Path) -> subprocess.Popen[bytes]:
    return start(
        "worker",
        "--scheduler-file",
        str(file),
        "--nthreads",
        "1",
        "--no-nanny",
        "--no-dashboard",
        "--host",
        "127.0.0.1",
    )


@pytest.mark.slow
def test_all_workers_killed_ends_the_run_and_new_ones_go_on(cohort: Cohort, tmp_path: Path) -> None:
    planted = [("radiomics", case.case_id, "wait") for case in cohort.cases]
    with processes() as start:
        file = tmp_path / "scheduler.json"
        scheduler_on(start, file)
        workers = [worker_on(start, file) for _ in range(2)]
        with Client(scheduler_file=str(file), set_as_default=False) as client:
            client.wait_for_workers(2, timeout=PATIENCE)
            killer = when(lambda: recorded(tmp_path / "run") >= 10, lambda: [worker.kill() for worker in workers])
            with pytest.raises(ClusterError, match=r"no worker for 3 s \(run.workers_wait_s\).*run the same command"):
                run(client, cohort, tmp_path / "run", *planted, workers_wait_s=3.0)
            killer.join()
            assert recorded(tmp_path / "run") < len(cohort.calm)
            latecomer = threading.Timer(1.0, worker_on, (start, file))
            latecomer.start()
            assert_calm(cohort, run(client, cohort, tmp_path / "run", *planted, workers_wait_s=60.0))
    assert set(attempts(tmp_path / "run")) == {1}


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_scheduler_that_dies_ends_the_run_with_what_to_do(
    cohort: Cohort, tmp_path: Path, how: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "RECONNECT_SECONDS", 10.0)
    planted = [("radiomics", case.case_id, "wait") for case in cohort.cases]
    file = tmp_path / "scheduler.json"
    with processes() as start:
        scheduler = scheduler_on(start, file)
        for _ in range(2):
            worker_on(start, file)
        client = Client(scheduler_file=str(file), set_as_default=False, timeout="10s")
        client.wait_for_workers(2, timeout=PATIENCE)
        killer = when(lambda: recorded(tmp_path / "run") >= 10, lambda: scheduler.send_signal(how))
        with pytest.raises(ClusterError, match=r"the scheduler at tcp.*run the same command again"):
            run(client, cohort, tmp_path / "run", *planted)
        killer.join()
        client.close()
    with processes() as start:
        scheduler_on(start, file)
        worker_on(start, file)
        with Client(scheduler_file=str(file), set_as_default=False) as client:
            client.wait_for_workers(1, timeout=PATIENCE)
            assert_calm(cohort, run(client, cohort, tmp_path / "run"))
    assert set(attempts(tmp_path / "run")) == {1}


@pytest.mark.slow
def test_a_network_that_is_cut_for_half_a_minute_costs_time_only(cohort: Cohort, tmp_path: Path) -> None:
    planted = [("radiomics", case.case_id, "wait") for case in cohort.cases]
    with second_host() as hosts, processes() as start:
        file = tmp_path / "scheduler.json"
        start("scheduler", f"--host={hosts.here}", "--port=0", "--no-dashboard", "--scheduler-file", str(file))
        wait_for(lambda: file.exists() and file.read_text())
        start(
            "worker", "--scheduler-file", str(file), "--nthreads=1", "--no-dashboard", f"--host={hosts.there}",
            within=hosts.prefix,
        )  # fmt: skip
        with Client(scheduler_file=str(file), set_as_default=False) as client:
            client.wait_for_workers(1, timeout=PATIENCE)

            def cut() -> None:
                hosts.cut()
                time.sleep(30.0)
                hosts.mend()

            cutter = when(lambda: recorded(tmp_path / "run") >= 10, cut)
            outcomes = run(client, cohort, tmp_path / "run", *planted, workers_wait_s=120.0)
            cutter.join()
    assert_calm(cohort, outcomes)
    assert set(attempts(tmp_path / "run")) == {1}


def recorded(folder: Path) -> int:
    return len(attempts(folder)) if (folder / "ledger.sqlite").exists() else 0


def attempts(folder: Path) -> list[int]:
    with Ledger.read(folder / "ledger.sqlite") as ledger:
        return [row[0] for row in ledger._rows("SELECT attempts FROM outcome")]
