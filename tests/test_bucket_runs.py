"""Runs whose results lie in a bucket: the folder's values, from workers that share nothing but the bucket."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from urllib.request import HTTPCookieProcessor, build_opener

import numpy as np
import pytest
import xarray as xr
from distributed import Client

import prognosis_dask
from prognosis_dask.cohort.case import short_hash
from prognosis_dask.config.job import Job, SynthSection, load_job
from prognosis_dask.errors import BucketError, ClusterError, Code, StoreError
from prognosis_dask.execution.cluster import map_on
from prognosis_dask.features.dataset import read_features
from prognosis_dask.objects.address import parse_address
from prognosis_dask.objects.bucket import WriteConflictError, bucket_of
from prognosis_dask.report.page import rewrite_report
from prognosis_dask.report.status import status
from prognosis_dask.storage.ledger import Ledger, TaskResult
from prognosis_dask.storage.place import Place, local_copy, placed, results_folder
from prognosis_dask.storage.rois import RoiStore
from prognosis_dask.synthetic import make_cohort
from prognosis_dask.workflows.grade import fit_grade
from prognosis_dask.workflows.models import fit, predict
from prognosis_dask.workflows.reproducibility import reproducibility
from prognosis_dask.workflows.robustness import robustness
from tests.dask_processes import PATIENCE, process, scheduler, wait_for
from tests.grade_network_run import JOB as GRADE_JOB
from tests.grade_network_run import make_grade_network_run, write_run
from tests.object_server import ObjectServer

OUT = "s3://results/lung"
#: Without these rights root is held to the permissions of files as anybody is.
WITHOUT_RIGHTS = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search,-fowner,-chown")
IS_ROOT = os.geteuid() == 0
NOBODY = 65_534


@contextmanager
def lone_worker(address: str, folder: Path) -> Iterator[subprocess.Popen]:
    """A worker with a home, a current and a temporary folder of its own, and nothing else to write to."""
    for name in ("home", "here", "tmp"):
        (folder / name).mkdir(parents=True)
    own = {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp")}
    environment = {name: value for name, value in os.environ.items() if name != "PROGNOSIS_CACHE"} | own
    command = ["distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard", "--host", "127.0.0.1"]
    command += ["--dashboard-address", "127.0.0.1:0", "--memory-limit", "4GB"]
    prefix = WITHOUT_RIGHTS if IS_ROOT else ()
    with process(*command, environment=environment, folder=folder / "here", prefix=prefix) as started:
        yield started


def keep_workers_out(folder: Path) -> None:
    """Let workers neither read nor write in a folder of the driver's; where tests do not run as root, nothing."""
    folder.mkdir(exist_ok=True)
    if IS_ROOT:
        os.chown(folder, NOBODY, NOBODY)
        folder.chmod(0o700)


@contextmanager
def lone_workers(folder: Path, number: int = 2) -> Iterator[tuple[Client, list[subprocess.Popen]]]:
    """A scheduler and workers that share no folder."""
    with ExitStack() as stack:
        address = stack.enter_context(scheduler(folder / "scheduler.json"))
        workers = [stack.enter_context(lone_worker(address, folder / f"worker-{one}")) for one in range(number)]
        client = stack.enter_context(Client(address))
        client.wait_for_workers(number)
        yield client, workers


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PROGNOSIS_CACHE", str(tmp_path / "cache"))
    keep_workers_out(tmp_path / "cache")
    return tmp_path / "cache"


def cohort_in_bucket(server: ObjectServer, folder: Path, patients: int, bad_cases: bool = False) -> Job:
    """A synthetic cohort, its images in a bucket, and the job on it."""
    made = make_cohort(folder / "cohort", SynthSection(patients=patients, seed=3, bad_cases=bad_cases))
    server.make_bucket("cohort")
    server.make_bucket("results")
    server.fill("cohort", "images/", made.images)
    job = folder / "job.toml"
    job.write_text(
        f"""
        name = "bucket"
        cohort = {{ sources = ["s3://cohort/images"], clinical = "{made.clinical}", roi = ["GTV-1"] }}
        deep = {{ enabled = false }}
        model = {{ features = "radiomics", repeats = 1, folds = 2, halves = 0 }}
        """
    )
    return load_job(job)


def assert_same_results(place: str, folder: Path) -> None:
    """The features, the crops and the tables of models are those of the folder's run."""
    found, expected = read_features(local_copy(place)), read_features(folder)
    xr.testing.assert_identical(found.drop_attrs(), expected.drop_attrs())
    for attribute in ("digests", "settings", "data", "versions"):
        assert found.attrs.get(attribute) == expected.attrs.get(attribute)
    theirs = RoiStore.open(folder / "rois.zarr")
    for case_id in expected["case"].to_numpy()[expected["problem"].to_numpy() == ""]:
        assert RoiStore.open(f"{place}/rois.zarr")._header(case_id) == theirs._header(case_id)
    for table in sorted((folder / "models").glob("*")):
        assert (local_copy(place) / "models" / table.name).read_bytes() == table.read_bytes(), table.name


def test_a_run_between_buckets_equals_the_folders_and_leaves_nothing_with_its_workers(
    object_server: ObjectServer, tmp_path: Path, cache: Path
) -> None:
    job = cohort_in_bucket(object_server, tmp_path, 6, bad_cases=True)
    object_server.weather.throttled, object_server.weather.cut = 0.05, 0.01
    keep_workers_out(tmp_path / "cohort")
    with lone_workers(tmp_path) as (client, _):
        seen = client.run(lambda: os.access(tmp_path / "cohort", os.R_OK) or os.access(cache, os.W_OK))
        assert not IS_ROOT or not any(seen.values())
        result = prognosis_dask.run(job, client=client, out=OUT, say=str)
        prognosis_dask.run(job, client=client, out=tmp_path / "folder", say=str)
    assert result.folder == OUT
    assert_same_results(OUT, tmp_path / "folder")
    assert object_server.traffic.faults > 20
    assert not [path for path in tmp_path.glob("worker-*/*/**/*") if path.is_file() and "dask" not in str(path)]
    assert not list(cache.rglob("rois.zarr"))
    record = bucket_of(parse_address(OUT)).get("lung/run.json")
    assert json.loads(record)["finished"]
    for secret in (b"its-secret", b"a-test"):
        assert secret not in record + bucket_of(parse_address(OUT)).get("lung/log.jsonl")
    assert "finished in" in status(OUT)
    report = bucket_of(parse_address(OUT)).get("lung/report.html")
    assert rewrite_report(OUT) == f"{OUT}/report.html"
    assert bucket_of(parse_address(OUT)).get("lung/report.html") == report


def test_a_worker_that_does_not_reach_the_bucket_is_named(
    object_server: ObjectServer, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = cohort_in_bucket(object_server, tmp_path, 2)
    with ExitStack() as stack:
        address = stack.enter_context(scheduler(tmp_path / "scheduler.json"))
        with monkeypatch.context() as elsewhere:
            elsewhere.setenv("AWS_SKIP_SIGNATURE", "true")
            stack.enter_context(lone_worker(address, tmp_path / "worker"))
        client = stack.enter_context(Client(address))
        client.wait_for_workers(1)
        with pytest.raises(ClusterError, match=rf"worker .* cannot write in {OUT}: .*; give it credentials"):
            prognosis_dask.run(job, client=client, out=OUT, say=str)


def results_of_roi(folder: Path) -> dict[str, TaskResult]:
    """By short hash of the case."""
    with Ledger.read(folder / "ledger.sqlite") as ledger:
        return {short_hash(case_id): result for case_id, result in ledger.results("roi").items()}


def test_a_case_is_written_while_the_next_is_computed_and_done_when_all_of_it_is_there(
    object_server: ObjectServer, tmp_path: Path, cache: Path
) -> None:
    """The server holds one object of the first crop until the next case's comes, and refuses one of the third's."""
    job = cohort_in_bucket(object_server, tmp_path, 4)
    job = replace(job, model=replace(job.model, enabled=False), run=replace(job.run, cases_per_task=1))
    crops: list[str] = []
    second_came = threading.Event()
    done_meanwhile: list[str] = []

    def hold(method: str, path: str) -> tuple[int, str] | None:
        crop = re.search(r"/crops/(\w{12})/mask/zarr.json", path)
        if method != "PUT" or not crop:
            return None
        if crop[1] not in crops:
            crops.append(crop[1])
        if crop[1] == crops[0]:
            assert second_came.wait(PATIENCE)
            done_meanwhile.extend(results_of_roi(next(cache.glob("runs/*"))))
        second_came.set()
        return (403, "AccessDenied") if crops.index(crop[1]) == 2 else None

    object_server.weather.refuse = hold
    with lone_workers(tmp_path, 1) as (client, _):
        prognosis_dask.run(job, client=client, out=OUT, say=str)
    assert crops[0] not in done_meanwhile
    ended = results_of_roi(local_copy(OUT))
    problems = {crop: ended[crop].problem for crop in crops}
    assert {crop: problem.code for crop, problem in problems.items() if problem} == {crops[2]: Code.OBJECT_FORBIDDEN}


@pytest.mark.parametrize("out", [OUT, OUT.replace("s3", "gs", 1)])
def test_a_second_driver_is_refused_and_one_that_is_gone_is_succeeded(
    object_server: ObjectServer, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    object_server.make_bucket("results")
    monkeypatch.setattr("prognosis_dask.storage.place.RENEW_EVERY", 0.2)
    lock = bucket_of(parse_address(out))

    def driver() -> None:
        with placed(out) as first:
            refuse_another_and_lose_the_lock(first)

    def overwritten() -> bool:
        content, stat = lock.get_with_stat("lung/driver.lock")
        with suppress(WriteConflictError):  # renewed in between
            lock.put_over("lung/driver.lock", content + b" ", stat)
            return True
        return False

    def refuse_another_and_lose_the_lock(first: Place) -> None:
        (first.folder / "run.json").write_text('{"name": "lung"}')
        with pytest.raises(StoreError, match=rf"{out} is in use by process {os.getpid()} on "), placed(out):
            pass
        # it sleeps beyond its lease, and another one goes on
        monkeypatch.setattr("prognosis_dask.storage.place.LEASE", 0.5)
        wait_for(overwritten)
        wait_for(lambda: first._lost)

    with pytest.raises(StoreError, match="was taken over by another driver"):
        driver()
    monkeypatch.setenv("PROGNOSIS_CACHE", str(tmp_path / "elsewhere"))
    with placed(out):
        pass
    assert lock.get("lung/driver.lock") == b"{}"


def test_at_a_mistaken_address_nothing_is_left_behind(object_server: ObjectServer, cache: Path) -> None:
    object_server.make_bucket("results")
    bucket = bucket_of(parse_address(OUT))
    bucket.put("lung/1/cases.csv", b"of a run below")
    for command in (robustness, rewrite_report, fit):
        with pytest.raises(StoreError, match=f"there is no run at {OUT}; "):
            command(OUT)
    assert [stat.key for stat in bucket.list()] == ["lung/1/cases.csv"]


def test_a_right_that_is_lost_in_mid_run_is_named(object_server: ObjectServer, cache: Path) -> None:
    object_server.make_bucket("results")
    RoiStore.create(f"{OUT}/rois.zarr", ["a"])

    def lose_the_right() -> None:
        with placed(OUT) as place:
            (place.folder / "run.json").write_text('{"name": "lung"}')
            object_server.weather.refuse = lambda method, path: (403, "AccessDenied")
            with pytest.raises(BucketError, match=rf"cannot read {OUT}/rois.zarr/zarr.json: .*\(403\)"):
                RoiStore.open(f"{OUT}/rois.zarr")

    with pytest.raises(BucketError, match=rf"cannot write in {OUT} .*the right to list, read, write and delete"):
        lose_the_right()


def test_a_store_of_regions_that_is_made_again_is_known_by_its_new_rows(object_server: ObjectServer) -> None:
    object_server.make_bucket("results")
    store, again, bucket = f"{OUT}/rois.zarr", f"{OUT}/again.zarr", bucket_of(parse_address(OUT))
    RoiStore.create(store, ["a", "b"])
    RoiStore.create(again, ["c", "b", "a"])
    assert [RoiStore.open(store, "one run")._row(name) for name in "ab"] == [0, 1]
    object_server.traffic.clear()
    assert RoiStore.open(store, "one run")._row("a") == 0
    assert not object_server.traffic.requests
    for stat in list(bucket.list("lung/again.zarr")):  # as another process does
        bucket.put(stat.key.replace("again", "rois"), bucket.get(stat.key))
    for started in ("another run", ""):
        assert [RoiStore.open(store, started)._row(name) for name in "abc"] == [2, 1, 0]


def test_results_that_are_written_beside_a_run_remove_nothing_of_it(object_server: ObjectServer) -> None:
    object_server.make_bucket("results")
    bucket = bucket_of(parse_address(OUT))
    held = ("ledger.sqlite", "models/summary.json", "rois.zarr/zarr.json")
    for name in (*held, "summary.json"):
        bucket.put(f"lung/{name}", b"of the run")
    with results_folder(OUT) as folder:
        for name in ("summary.json", "agreement.csv"):
            (folder / name).write_text("new")
    assert [bucket.get(f"lung/{name}") for name in held] == [b"of the run"] * 3
    assert [bucket.get(f"lung/{name}") for name in ("summary.json", "agreement.csv")] == [b"new"] * 2


@pytest.mark.slow
def test_robustness_in_a_bucket_is_the_folders(object_server: ObjectServer, tmp_path: Path, cache: Path) -> None:
    job = cohort_in_bucket(object_server, tmp_path, 4)
    job = replace(job, model=replace(job.model, enabled=False))
    folder = tmp_path / "folder"
    with lone_workers(tmp_path) as (client, _):
        for out in (OUT, folder):
            prognosis_dask.run(job, client=client, out=out, say=str)
            robustness(out, repeats=2, client=client)
    assert "4 cases were perturbed 2 times each" in (local_copy(OUT) / "report.html").read_text()
    for name in ("agreement.csv", "reproducible.csv", "summary.json"):
        assert (local_copy(OUT) / "robustness" / name).read_bytes() == (folder / "robustness" / name).read_bytes()
    found = reproducibility(OUT, folder, "s3://results/agreement")
    assert min(row["ccc"] for row in found.agreement if np.isfinite(row["ccc"])) == pytest.approx(1)
    assert bucket_of(parse_address(OUT)).exists("agreement/summary.json")


@pytest.mark.slow
def test_a_grade_is_learnt_in_a_bucket_as_in_a_folder(
    object_server: ObjectServer,
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    once: Callable[[str, Callable[[Path], Path]], Path],
) -> None:
    """By workers that see neither each other's nor the driver's folder; what was trained once is not trained again."""
    expected = once("grade", make_grade_network_run)
    object_server.make_bucket("results")
    object_server.fill("results", "lung/brain/", expected / "brain")
    with lone_workers(tmp_path) as (client, _):
        for folder in (cache, tmp_path / "elsewhere"):
            monkeypatch.setenv("PROGNOSIS_CACHE", str(folder))
            with placed(OUT) as place:
                write_run(read_features(expected), place.folder)
                object_server.traffic.clear()
                fit_grade(GRADE_JOB, read_features(expected), place.folder, map_on(client))
                trained = [line for line in object_server.traffic.lines if re.search("PUT .*/networks/.*npy", line)]
                assert bool(trained) == (folder == cache)
    for table in sorted((expected / "models").glob("*")):
        assert (local_copy(OUT) / "models" / table.name).read_bytes() == table.read_bytes(), table.name
    network = Path("networks", "network.safetensors")
    assert (local_copy(OUT) / network).read_bytes() == (expected / network).read_bytes()


@pytest.mark.slow
def test_models_are_fitted_from_and_into_buckets(object_server: ObjectServer, tmp_path: Path, cache: Path) -> None:
    job = cohort_in_bucket(object_server, tmp_path, 14)
    without = replace(job, model=replace(job.model, enabled=False))
    with lone_workers(tmp_path) as (client, _):
        prognosis_dask.run(without, client=client, out=OUT, say=str)
    quick = ("validation.folds=2", "validation.repeats=1", "validation.halves=0")
    fit(local_copy(OUT), out=tmp_path / "folder", overrides=quick, say=str)
    own = fit(OUT, overrides=quick, say=str)
    assert own.folder == OUT
    fit(OUT, out="gs://results/google", overrides=quick, say=str)
    for place in (OUT, "gs://results/google"):
        for table in sorted((tmp_path / "folder" / "models").glob("*")):
            assert (local_copy(place) / "models" / table.name).read_bytes() == table.read_bytes(), table.name
        assert bucket_of(parse_address(place)).exists((parse_address(place) / "report.html").key)
    log = tmp_path / "serve.log"
    with process("prognosis_dask", "serve", "--model", OUT, "--port", "0", "--out", tmp_path / "serve", log=log):
        lines = wait_for(lambda: "http://" in log.read_text() and log.read_text().split())
        (page,) = (line for line in lines if line.startswith("http://"))
        assert b"bucket" in build_opener(HTTPCookieProcessor()).open(page).read()
    predicted = predict(OUT, OUT, say=str)
    expected = predict(tmp_path / "folder", local_copy(OUT), say=str)
    assert predicted.equals(expected)
