"""Store failures during a whole run between buckets: a problem of each case or one line, and nothing lost."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from distributed import Client

import prognosis_dask
from prognosis_dask.cohort.case import Case, short_hash, write_cases
from prognosis_dask.cohort.collections import resolve
from prognosis_dask.cohort.gather import label_candidates
from prognosis_dask.cohort.headers import FileStamp, VolumeFile
from prognosis_dask.cohort.index import index_cohort
from prognosis_dask.cohort.series import read_listing
from prognosis_dask.config.job import CohortSection, ImageSection, Job
from prognosis_dask.errors import BucketError, CaseError, Code
from prognosis_dask.imaging.load import load_image, load_roi
from prognosis_dask.objects.address import RETRIES, parse_address
from prognosis_dask.objects.bucket import TRIES, bucket_of
from prognosis_dask.storage.ledger import Ledger
from prognosis_dask.storage.place import local_copy
from tests.object_server import ObjectServer, _forget_stores
from tests.test_bucket_runs import OUT, assert_same_results, cohort_in_bucket, keep_workers_out, lone_workers


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PROGNOSIS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("prognosis_dask.storage.place.LEASE", 0.5)  # of a driver in this process that has ended
    keep_workers_out(tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def workers(object_server: ObjectServer, tmp_path: Path, cache: Path) -> Iterator[Client]:
    with lone_workers(tmp_path) as (client, _):
        yield client


def small_cohort(server: ObjectServer, folder: Path, patients: int) -> Job:
    job = cohort_in_bucket(server, folder, patients)
    return replace(job, model=replace(job.model, enabled=False), run=replace(job.run, cases_per_task=1))


def codes(run: Path) -> dict[str, Code | None]:
    with Ledger.read(run / "ledger.sqlite") as ledger:
        return {case: row.problem.code if row.problem else None for case, row in ledger.results("roi").items()}


def a_slice_of(case: Case) -> str:
    """The path, in the server, of a slice in the middle of the case's region."""
    roi, listing = load_roi(case, ImageSection()), read_listing(case.image)
    middle = listing.slices[roi.start[2] + roi.image.GetSize()[2] // 2].file
    return quote(f"/{parse_address(f'{listing.root}/{middle}').bucket}/{parse_address(f'{listing.root}/{middle}').key}")


def cases_in_bucket(job: Job, folder: Path) -> list[Case]:
    index_cohort(job.cohort.sources, folder, job.cohort)
    return prognosis_dask.read_cases(folder / "cases.csv")


def crops(lines: list[str]) -> set[str]:
    """The cases of which a crop was written."""
    return {found[1] for line in lines if (found := re.search(r"PUT /.*/crops/(\w{12})/", line))}


@pytest.mark.slow
def test_an_object_that_fails_in_mid_run_is_a_problem_of_its_case_and_of_no_other(
    object_server: ObjectServer, workers: Client, tmp_path: Path
) -> None:
    """From the first crop on, an object each is gone, is another one, is cut, throttled for ever, forbidden."""
    job = small_cohort(object_server, tmp_path, 10)
    prognosis_dask.run(job, client=workers, out=tmp_path / "folder", say=str)
    cases = cases_in_bucket(job, tmp_path / "index")
    gone, changed, cut, throttled, forbidden = (a_slice_of(case) for case in cases[5:])
    content = {path: bucket_of(parse_address(f"s3:/{path}")).get(path.split("/", 2)[2]) for path in (gone, changed)}
    weather, begun = object_server.weather, []

    def storm(method: str, path: str) -> tuple[int, str] | None:
        if method == "PUT" and "/crops/" in path and not begun:
            begun.append(path)
            object_server.send("DELETE", gone)
            object_server.send("PUT", changed, content[changed] + b" ")
            weather.always_short = (cut,)
        if begun and path in (throttled, forbidden):
            return (503, "SlowDown") if path == throttled else (403, "AccessDenied")
        return None

    weather.refuse = storm
    object_server.traffic.clear()
    prognosis_dask.run(job, client=workers, out=OUT, say=str)
    requests = Counter(object_server.traffic.lines)
    # once by the index; then by at most two readers, the case's own and the one that reads ahead
    assert 1 + TRIES <= requests[f"GET {cut}"] <= 1 + 2 * TRIES
    assert 1 + (1 + RETRIES) <= requests[f"GET {throttled}"] <= 1 + 2 * (1 + RETRIES)
    assert all(requests[f"GET {path}"] <= 3 for path in (gone, changed, forbidden)), "not repeated"
    found = codes(local_copy(OUT))
    expected = [Code.OBJECT_MISSING, Code.OBJECT_CHANGED, *2 * [Code.OBJECT_UNREADABLE], Code.OBJECT_FORBIDDEN]
    assert [found[case.case_id] for case in cases] == [*5 * [None], *expected]

    weather.fine()
    for path, original in content.items():
        object_server.send("PUT", path, original)
    object_server.traffic.clear()
    prognosis_dask.run(job, client=workers, out=OUT, say=str)
    assert crops(object_server.traffic.lines) == {short_hash(case.case_id) for case in cases[5:]}
    assert_same_results(OUT, tmp_path / "folder")


@pytest.mark.slow
def test_a_bucket_that_fails_in_mid_run_ends_it_in_one_line_and_the_same_command_goes_on(
    object_server: ObjectServer, workers: Client, tmp_path: Path
) -> None:
    """Credentials expire after two crops; then the bucket is deleted after two more, and made anew."""
    job = small_cohort(object_server, tmp_path, 7)
    prognosis_dask.run(job, client=workers, out=tmp_path / "folder", say=str)
    results = bucket_of(parse_address(OUT))

    def after_two_crops(answer: tuple[int, str], where: str) -> None:
        written: set[str] = set()

        def storm(method: str, path: str) -> tuple[int, str] | None:
            written.update(crops([f"{method} {path}"]))
            return answer if len(written) > 2 and path.startswith(where) else None

        object_server.traffic.clear()
        object_server.weather.refuse = storm

    after_two_crops((400, "ExpiredToken"), "/")
    with pytest.raises(BucketError, match=r"credentials for s3://\w+ have expired; renew them, and run") as expired:
        prognosis_dask.run(job, client=workers, out=OUT, say=str)
    after_two_crops((404, "NoSuchBucket"), "/results")
    with pytest.raises(BucketError, match=r"there is no bucket 'results' at .*; check its name") as deleted:
        prognosis_dask.run(job, client=workers, out=OUT, say=str)
    assert not any("\n" in str(error.value) for error in (expired, deleted))
    object_server.weather.fine()
    for stat in list(results.list()):
        results.delete(stat.key)
    prognosis_dask.run(job, client=workers, out=OUT, say=str)
    assert_same_results(OUT, tmp_path / "folder")


def test_a_bucket_of_another_region_is_named_before_anything_is_read(
    object_server: ObjectServer, refused: Callable[..., str], tmp_path: Path
) -> None:
    object_server.make_bucket("elsewhere")
    object_server.weather.refuse = lambda method, path: (301, "PermanentRedirect")
    told = "the bucket 'elsewhere' lies in another region; set AWS_REGION to it"
    assert told in refused("index", "s3://elsewhere/images", "-o", tmp_path / "index")


def test_an_image_file_that_changed_after_it_was_indexed_is_refused(
    object_server: ObjectServer, tmp_path: Path
) -> None:
    """Of a cohort that was indexed, and of a table that was written by hand."""
    import numpy as np
    import SimpleITK as sitk

    ball = (((np.mgrid[:20, :20, :20] - 10) ** 2).sum(axis=0) < 36).astype(np.uint8)
    for name, values in (("p1/ct.nii", 80.0 * ball - 50), ("p1/mask.nii", ball), ("other.nii", 40.0 * ball)):
        (tmp_path / "files" / "p1").mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(sitk.GetImageFromArray(values), tmp_path / "files" / name)
    object_server.make_bucket("cohort")
    object_server.fill("cohort", "", tmp_path / "files")
    index_cohort(["s3://cohort/p1"], tmp_path / "index", CohortSection(modalities=("CT",)))
    (indexed,) = prognosis_dask.read_cases(tmp_path / "index" / "cases.csv")
    write_cases(tmp_path / "table.csv", [replace(indexed, source="", mask_etag="", image_etags=())])
    (by_hand,) = prognosis_dask.read_cases(tmp_path / "table.csv")
    for case in (indexed, by_hand):
        assert sitk.GetArrayFromImage(load_roi(case, ImageSection()).image).max() == 30
    for name in ("ct", "mask"):
        whole = bucket_of(parse_address("s3://cohort")).get(f"p1/{name}.nii")
        object_server.send("PUT", f"/cohort/p1/{name}.nii", (tmp_path / "files" / "other.nii").read_bytes())
        for case in (indexed, by_hand):
            with pytest.raises(CaseError, match="object-changed") as changed:
                load_roi(case, ImageSection())
            assert changed.value.problem.where == f"s3://cohort/p1/{name}.nii"
        object_server.send("PUT", f"/cohort/p1/{name}.nii", whole)
    object_server.send("PUT", "/cohort/p1/ct.nii", (tmp_path / "files" / "other.nii").read_bytes())
    with pytest.raises(CaseError, match="object-changed"):
        load_image(indexed.image, ImageSection(), etag=indexed.etag(indexed.image))


def test_an_object_that_is_throttled_is_not_taken_as_missing_or_of_one_label(
    object_server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prognosis_dask.objects.address.RETRIES", 1)
    _forget_stores()
    object_server.make_bucket("cohort")
    for name in ("ct", "mask"):
        bucket_of(parse_address("s3://cohort")).put(f"p1/{name}.nii", b"x")
    heading, mask = "case_id,patient_id,modality,roi,image,mask\n", "s3://cohort/p1/mask.nii"
    (tmp_path / "table.csv").write_text(f"{heading}1,P1,CT,GTV,s3://cohort/p1/ct.nii,{mask}\n")
    told = f"{mask}: the bucket refuses just this object"
    file = VolumeFile(FileStamp(mask, 1, 0), is_mask=True)
    object_server.weather.refuse = lambda method, path: (503, "SlowDown") if path.endswith("/mask.nii") else None
    with pytest.raises(BucketError, match=told):
        prognosis_dask.read_cases(tmp_path / "table.csv")
    with pytest.raises(BucketError, match=told):
        label_candidates(file, "", resolve(CohortSection()), asked=True)
    object_server.weather.refuse = lambda method, path: (403, "AccessDenied") if path.endswith("/mask.nii") else None
    (case,) = prognosis_dask.read_cases(tmp_path / "table.csv")  # which is told of its case alone, when it is read
    assert case.mask_etag == ""
    assert case.source.endswith(" missing")
