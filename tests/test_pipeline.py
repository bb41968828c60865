"""Whole runs, as a user starts them: on real patients, on synthetic ones, stopped and gone on with."""

from __future__ import annotations

import csv
import doctest
import importlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import xarray as xr
from distributed import Client

import prognosis_dask
from prognosis_dask.cli import main as cli
from prognosis_dask.config.job import SynthSection, load_job
from prognosis_dask.errors import JobError, StoreError
from prognosis_dask.synthetic import draw_patients, make_cohort
from prognosis_dask.synthetic.patient import CHEST_COLUMNS
from tests.dask_processes import PATIENCE, wait_for

JOBS = Path(__file__).parents[1] / "jobs"
NO_NETWORK = ("--set", "deep.enabled=false", "--set", "model.features=radiomics")
ONE_ROUND = ("--set", "model.repeats=1", "--set", "model.halves=0")


def prognosis(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [sys.executable, "-m", "prognosis_dask", *map(str, arguments)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert not re.findall(r"Traceback| - (?:WARNING|ERROR) - ", result.stderr), result.stderr
    return result


@pytest.fixture
def ran_here(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Call a command in this process, which spares its imports, and return what it printed; it warns of nothing."""
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # the command line has one of its own

    def call(*arguments: object) -> str:
        cli.main([str(argument) for argument in arguments])
        said, errors = capfd.readouterr()
        assert not re.findall(r"Traceback| - (?:WARNING|ERROR) - ", errors), errors
        return said

    return call


@pytest.mark.slow
def test_the_example_of_a_run_gives_what_it_shows() -> None:
    tried = doctest.testmod(importlib.import_module("prognosis_dask.workflows.run"))
    assert tried.attempted > 5
    assert tried.failed == 0


def attempts(folder: Path) -> list[int]:
    with sqlite3.connect(folder / "ledger.sqlite", timeout=PATIENCE) as ledger:
        return [row[0] for row in ledger.execute("SELECT attempts FROM outcome")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    cohort = make_cohort(folder / "cohort", SynthSection(patients=6, seed=3, bad_cases=True))
    job = folder / "job.toml"
    job.write_text(
        f"""
        name = "made"
        cohort = {{ sources = ["{cohort.images}"], clinical = "{cohort.clinical}", roi = ["GTV-1"] }}
        deep = {{ weights = "untrained:1", batch_size = 2 }}
        model = {{ folds = 2, repeats = 1, halves = 0 }}
        """
    )
    return job


@pytest.fixture(scope="module")
def undisturbed(made: Path) -> Path:
    out = made.parent / "undisturbed"
    prognosis("run", made, "--out", out, "--cluster", _cluster(made, 1))
    return out


def _cluster(made: Path, workers: int) -> Path:
    path = made.parent / f"cluster-{workers}.toml"
    path.write_text(f'kind = "local"\nworkers = {workers}\ndashboard = "127.0.0.1:0"\n')
    return path


def test_lung1_002_from_dicom_gives_the_published_radiomics(
    shared_data: Path, tmp_path: Path, ran_here: Callable[..., str], workers: str
) -> None:
    ran_here(
        "run", JOBS / "lung1.toml", "--out", tmp_path / "run", "--cluster", workers, *NO_NETWORK,
        "--set", f"cohort.sources=['{shared_data / 'lung1_002'}']", "--set", "radiomics.params=''",
        "--set", f"cohort.clinical='{shared_data / 'lung1_tables' / 'nsclc-radiomics_clinical.csv'}'",
    )  # fmt: skip
    with (shared_data / "lung1_002" / "reference_radiomics.csv").open() as stream:
        published = {k: float(v) for k, v in next(csv.DictReader(stream)).items() if k.startswith("original_")}
    features = prognosis_dask.read_features(tmp_path / "run")
    assert features.sizes == {"case": 1, "radiomic": 107}
    assert float(features.time_days[0]) == 155
    assert float(features.event[0]) == 1
    for name, value in published.items():
        assert float(features.radiomics.sel(radiomic=name)[0]) == pytest.approx(value, rel=1e-9), name
    assert len(published) == 107


@pytest.mark.slow
def test_all_36_sarcoma_cases_run_to_a_report(shared_data: Path, tmp_path: Path) -> None:
    prognosis(
        "run", JOBS / "sts.toml", "--out", tmp_path, "--set", f"cohort.sources=['{shared_data / 'sts'}']"
    )  # fmt: skip
    features = prognosis_dask.read_features(tmp_path)
    assert features.sizes["case"] == 36
    assert sorted(np.unique(features.modality, return_counts=True)[1]) == [12, 12, 12]
    assert (features.problem == "").all()
    assert np.isfinite(features.radiomics).all()
    assert (tmp_path / "report.html").is_file()


def test_made_images_are_indexed_and_a_report_is_written_anew_by_commands_of_their_own(
    undisturbed: Path, tmp_path: Path, ran_here: Callable[..., str]
) -> None:
    made = ran_here("synth", tmp_path / "cohort", "--patients", "2", "--seed", "5", "--no-bad-cases")
    assert "2 patients, " in made
    clinical = tmp_path / "cohort" / "clinical.csv"
    found = ran_here("index", tmp_path / "cohort", "-o", tmp_path / "index", "--roi", "gtv-1", "--clinical", clinical)
    assert "cases      2; 2 with time and event" in found
    assert [case.roi for case in prognosis_dask.read_cases(tmp_path / "index" / "cases.csv")] == ["GTV-1", "GTV-1"]
    before = (undisturbed / "report.html").read_bytes()
    (undisturbed / "report.html").unlink()
    assert ran_here("report", undisturbed).strip() == str(undisturbed / "report.html")
    assert (undisturbed / "report.html").read_bytes() == before


@pytest.mark.slow
def test_the_demos_model_finds_a_signal_where_there_is_one(
    tmp_path: Path, ran_here: Callable[..., str], workers: str
) -> None:
    """Without it the images are the same, so that only their outcome is drawn anew, and no feature computed again."""

    def c_index(*options: str) -> float:
        ran_here("run", JOBS / "demo.toml", "--out", tmp_path, "--cluster", workers, *NO_NETWORK, *ONE_ROUND, *options)
        summary = json.loads((tmp_path / "models" / "summary.json").read_text())
        assert summary["n_patients"] == 60
        return float(summary["c_index_cv"])

    assert 0.65 < c_index() < 1.0
    with (tmp_path / "cohort" / "clinical.csv").open(newline="") as stream:
        listed = {row["PatientID"] for row in csv.DictReader(stream)}  # one of the spoilt patients is not
    patients = draw_patients(replace(load_job(JOBS / "demo.toml").synth, signal=0.0))
    drawn = [patient.clinical_row for patient in patients if patient.patient_id in listed]
    with (tmp_path / "chance.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([CHEST_COLUMNS, *drawn])
    images, outcome = tmp_path / "cohort" / "manifest-made", tmp_path / "chance.csv"
    chance = [f"cohort.sources={images}", f"cohort.clinical={outcome}", "synth.patients=0"]
    assert 0.3 < c_index(*(word for setting in chance for word in ("--set", setting))) < 0.65
    stages = json.loads((tmp_path / "run.json").read_text())["stages"]
    assert {stage["done"] for stage in stages.values()} == {0}


def test_the_planted_bad_cases_end_in_their_own_codes_and_the_others_go_on(made: Path, undisturbed: Path) -> None:
    with (made.parent / "cohort" / "planted.csv").open() as stream:
        planted = {(row["patient_id"], row["code"]) for row in csv.DictReader(stream)}
    with (undisturbed / "problems.csv").open() as stream:
        found = {(row["patient_id"], row["code"]) for row in csv.DictReader(stream)}
    assert found == planted
    features = prognosis_dask.read_features(undisturbed)
    good = features.patient_id.str.startswith("MADE-")
    assert int(good.sum()) == 6
    assert np.isfinite(features.radiomics[good]).all()
    assert np.isfinite(features.deep[good]).all()


def test_two_workers_and_another_batch_of_the_network_give_the_same_features(
    made: Path, undisturbed: Path, tmp_path: Path, ran_here: Callable[..., str], workers: str
) -> None:
    ran_here("run", made, "--out", tmp_path, "--cluster", workers, "--set", "deep.batch_size=5")
    ours, theirs = (prognosis_dask.read_features(path).load() for path in (tmp_path, undisturbed))
    assert {name for name in theirs.attrs if ours.attrs[name] != theirs.attrs[name]} == {"job"}
    xr.testing.assert_identical(ours.assign_attrs(job=""), theirs.assign_attrs(job=""))


def test_running_again_computes_nothing(
    made: Path, undisturbed: Path, ran_here: Callable[..., str], workers: str
) -> None:
    before = prognosis_dask.read_features(undisturbed).load()
    ran_here("run", made, "--out", undisturbed, "--cluster", workers)
    stages = json.loads((undisturbed / "run.json").read_text())["stages"]
    assert {stage["done"] + stage["failed"] for stage in stages.values()} == {0}
    assert set(attempts(undisturbed)) == {1}
    xr.testing.assert_identical(prognosis_dask.read_features(undisturbed).load(), before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nowhere.toml"], "no job file at nowhere.toml; the program's own are in"),
        (["run", str(JOBS / "params")], f"params is a folder; expected a job file, such as {JOBS / 'demo.toml'}"),
        (["run", str(JOBS)], f"is a folder; expected a job file, such as {JOBS / 'abcs.toml'}"),
        (["run", "nowhere/demo.toml"], f"the program's own is {JOBS / 'demo.toml'}"),
        (["predict", "/nowhere", str(Path(__file__).parent), "-o", "x"], "--cohort predicts the patients"),
        (
            ["run", str(JOBS / "demo.toml"), "--set", "deep.bacth_size=4"],
            "unknown key deep.bacth_size; did you mean deep.batch_size?",
        ),
        (
            ["run", str(JOBS / "demo.toml"), "--set", "deep.batch_size=four"],
            "deep.batch_size is 'four', expected a whole number",
        ),
        (
            ["run", str(JOBS / "demo.toml"), "--cluster", "nowhere"],
            "expected local, cuda, tcp://HOST:PORT, or a cluster file",
        ),
        (
            ["run", str(JOBS / "demo.toml"), "--cluster", "tcp://127.0.0.1:9"],
            "no Dask scheduler answers at tcp://127.0.0.1:9",
        ),
        (["run", str(JOBS / "lung1.toml")], "names no images; set cohort.sources"),
        (["run", str(JOBS / "lung1.toml"), "--set", "cohort.sources=['/nowhere']"], "/nowhere"),
        (["run", str(JOBS / "demo.toml"), "--set", "deep.enabled=false"], "or model.features = 'radiomics'"),
        (["status", "/nowhere"], "no run in /nowhere"),
        (["report", "/nowhere"], "/nowhere holds no run.json"),
        (["index", "/nowhere", "-o", "index"], "/nowhere"),
    ],
)
def test_a_mistake_is_answered_in_a_line_or_two_without_a_traceback(
    arguments: Sequence[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(*arguments)


@pytest.mark.parametrize("port", ["99999", "-1", "http"])
def test_a_port_that_cannot_be_is_refused_before_any_model_is_read(port: str, refused: Callable[..., str]) -> None:
    said = refused("serve", "--model", "/nowhere", f"--port={port}")
    assert f"'{port}', expected a whole number from 0 to 65535" in said


def test_a_second_driver_on_one_folder_is_refused(made: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    command = [sys.executable, "-m", "prognosis_dask", "run", str(made), "--out", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
        wait_for(lambda: (tmp_path / "run.json").exists())
        first.send_signal(signal.SIGSTOP)  # it has the folder as long as the second one takes
        try:
            assert "is in use by process" in refused("run", made, "--out", tmp_path)
        finally:
            first.kill()


def test_a_cohort_without_a_case_ends_the_run_with_what_was_found_in_its_place(
    made: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "notes.txt").write_text("no image")
    one = ("--cluster", _cluster(made, 1))
    empty = ("run", JOBS / "sts.toml", "--out", tmp_path / "run", "--set", f"cohort.sources={images}")
    assert f"prognosis: no images in {images}; expected a folder of DICOM series" in refused(*empty, *one)
    other = ("run", made, *NO_NETWORK, "--out", tmp_path / "other", "--set", 'cohort.roi=["GTV-9"]')
    said = refused(*other, *one)
    assert "roi-not-found" in said
    assert f"{tmp_path / 'other' / 'problems.csv'} says of each what to do" in said


def test_a_column_that_the_table_has_not_is_told_before_the_images_are_read(
    made: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    job = ("run", made, *NO_NETWORK, "--out", tmp_path, "--cluster", _cluster(made, 1))
    told = "prognosis: model.label names the column 'grad', which the cohort's table has not; it has age, gender, stage"
    assert refused(*job, "--set", "model.label=grad").splitlines()[-1].startswith(told)
    assert not (tmp_path / "rois.zarr").exists()


def test_the_folder_of_another_jobs_run_is_refused(undisturbed: Path, refused: Callable[..., str]) -> None:
    before = (undisturbed / "run.json").read_bytes()
    said = refused("run", JOBS / "demo.toml", "--out", undisturbed)
    assert "holds a run of the job 'made', not of 'demo'; choose another folder with --out" in said
    assert (undisturbed / "run.json").read_bytes() == before


def test_nothing_is_started_for_a_run_that_cannot_be(tmp_path: Path) -> None:
    @contextmanager
    def cluster() -> Iterator[Client]:
        pytest.fail("a cluster was started")
        yield

    (tmp_path / "file").write_text("")
    demo = load_job(JOBS / "demo.toml")
    with pytest.raises(JobError, match="names no images"):
        prognosis_dask.run(replace(demo, synth=SynthSection()), client=cluster(), out=tmp_path / "run")
    with pytest.raises(JobError, match="--performance-report"):
        prognosis_dask.run(demo, client=cluster(), out=tmp_path / "run", performance_report=tmp_path / "no" / "x.html")
    with pytest.raises(StoreError, match="cannot write in"):
        prognosis_dask.run(demo, client=cluster(), out=tmp_path / "file" / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(
    made: Path, tmp_path: Path, ran_here: Callable[..., str]
) -> None:
    command = [sys.executable, "-m", "prognosis_dask", "run", str(made), "--out", str(tmp_path)]
    # as on a terminal, the signal reaches every process of the run
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as run:
        wait_for(lambda: recorded_rows(tmp_path) >= 1)
        os.killpg(run.pid, signal.SIGINT)
        _, errors = run.communicate()
    assert run.returncode == 130
    assert "stopped. Finished work is kept; run the same command again to resume." in errors
    assert "Traceback" not in errors
    assert " - WARNING - " not in errors
    assert set(attempts(tmp_path)) == {1}
    assert "waiting" in ran_here("status", tmp_path)


def test_ctrl_c_within_a_destructor_is_not_lost() -> None:
    code = """
import signal, sys, time
from prognosis_dask.cli.main import keep_interrupt

class Task:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

sys.unraisablehook = keep_interrupt
task = Task()
del task
try:
    time.sleep(30)
except KeyboardInterrupt:
    print("stopped")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("stopped\n", "")


def test_ctrl_c_while_workers_start_is_answered_in_one_line(made: Path, tmp_path: Path) -> None:
    job = ("run", made, "--out", tmp_path / "run", "--cluster", _cluster(made, 2))
    command = [sys.executable, "-m", "prognosis_dask", *map(str, job)]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as run:
        # the process of a worker, which has only begun to import
        wait_for(lambda: any("spawn_main" in " ".join(child.cmdline()) for child in psutil.Process(run.pid).children()))
        os.killpg(run.pid, signal.SIGINT)
        _, errors = run.communicate()
    assert run.returncode == 130
    assert errors.strip() == "prognosis: stopped. Finished work is kept; run the same command again to resume."


def test_ctrl_c_while_models_are_fitted_prints_no_traceback(tmp_path: Path) -> None:
    code = """
import os, pathlib, signal, sys, threading, time
from prognosis_dask.execution.cluster import LocalSpec, connect
from prognosis_dask.execution.cluster import map_on

began = pathlib.Path(sys.argv[1])

def fit(number):
    began.touch()
    time.sleep(60)

def interrupt():
    while not began.exists():
        time.sleep(0.1)
    time.sleep(1)
    os.kill(os.getpid(), signal.SIGINT)

try:
    with connect(LocalSpec(workers=1, dashboard="127.0.0.1:0")) as client:
        threading.Thread(target=interrupt, daemon=True).start()
        map_on(client)(fit, range(8))
except KeyboardInterrupt:
    print("stopped")
    os._exit(0)
"""
    command = [sys.executable, "-c", code, tmp_path / "began"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("stopped\n", "")


def recorded_rows(folder: Path) -> int:
    return len(attempts(folder)) if (folder / "ledger.sqlite").exists() else 0


@pytest.mark.slow
def test_a_run_without_a_model_ends_with_its_features_and_says_so(
    made: Path, tmp_path: Path, ran_here: Callable[..., str], workers: str
) -> None:
    out = tmp_path / "run"
    said = ran_here(
        "run", made, "--out", out, "--cluster", workers, "--set", "deep.enabled=false",
        "--set", "model.enabled=false", "--set", "radiomics.params.CT=''",
    )  # fmt: skip
    assert "Fitting" not in said
    assert not (out / "models").exists()
    assert prognosis_dask.read_features(out).sizes["radiomic"] == 107
    assert "no model: the job has it switched off" in ran_here("status", out)
    assert "The job has the model switched off" in (out / "report.html").read_text()
    found = ran_here("run", made, "--out", out, "--cluster", workers, "--set", "deep.enabled=false",
        "--set", "model.features=radiomics", "--set", "radiomics.params.CT=''")  # fmt: skip
    assert "No model: " in found
    assert "no model: " in ran_here("status", out)
