"""Objects in buckets: what is asked, what is asked again, and what is said when it cannot be had."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from prognosis_dask.errors import BucketError, CaseError, Code, JobError
from prognosis_dask.objects.address import parse_address
from prognosis_dask.objects.bucket import Bucket, ObjectStat, WriteConflictError, bucket_of, several
from prognosis_dask.objects.cache import use_cache
from tests.object_server import ObjectServer, _forget_stores

DATA = bytes(range(256)) * 400


@pytest.fixture
def bucket(object_server: ObjectServer) -> Bucket:
    object_server.make_bucket("cohort")
    found = bucket_of(parse_address("s3://cohort"))
    found.put("a/1.dcm", DATA)
    return found


def test_an_object_comes_back_whole_and_in_part(bucket: Bucket) -> None:
    stat = bucket.head("a/1.dcm")
    assert stat.bytes == len(DATA)
    assert stat.etag
    assert stat.modified
    assert bucket.get("a/1.dcm", expected=stat) == DATA
    assert bucket.get_range("a/1.dcm", 1000, 500) == DATA[1000:1500]
    assert bucket.get_range("a/1.dcm", len(DATA) - 10, 500, expected=stat) == DATA[-10:]
    assert [(one.key, one.bytes, one.etag) for one in bucket.list("a")] == [("a/1.dcm", len(DATA), stat.etag)]
    assert not list(bucket.list("b"))
    bucket.delete("a/1.dcm")
    bucket.delete("a/1.dcm")
    assert not bucket.exists("a/1.dcm")


@pytest.mark.slow
def test_a_listing_goes_on_beyond_thousands_of_objects_and_where_it_was_cut(
    bucket: Bucket, object_server: ObjectServer
) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: bucket.put(f"many/{number:04}", b"x"), range(5200)))
    for object_server.weather.cut in (0.0, *[0.2] * 3):
        assert [one.key for one in bucket.list("many")] == [f"many/{number:04}" for number in range(5200)]


def test_of_two_writers_one_wins(bucket: Bucket) -> None:
    lock = bucket.put_new("lock", b"one")
    with pytest.raises(WriteConflictError, match="s3://cohort/lock was written by another process"):
        bucket.put_new("lock", b"two")
    taken = bucket.put_over("lock", b"three", lock)
    with pytest.raises(WriteConflictError):
        bucket.put_over("lock", b"four", lock)
    data, stat = bucket.get_with_stat("lock")
    assert data == b"three"
    assert stat.etag == taken.etag


def test_throttled_and_cut_answers_are_asked_for_again(bucket: Bucket, object_server: ObjectServer) -> None:
    object_server.weather.throttled, object_server.weather.cut = 0.2, 0.2
    object_server.weather.short = 0.1
    found = list(several(lambda number: bucket.get_range("a/1.dcm", number, 5000), range(60)))
    assert found == [DATA[number : number + 5000] for number in range(60)]
    assert object_server.traffic.faults > 10


def test_a_listing_that_is_cut_is_asked_for_again(bucket: Bucket, object_server: ObjectServer) -> None:
    whole = [one.key for one in bucket.list("a")]
    object_server.weather.cut = 0.3
    assert [[one.key for one in bucket.list("a")] for _ in range(20)] == [whole] * 20
    assert object_server.traffic.faults > 2


def test_a_body_that_is_always_short_is_a_problem_of_its_object(
    bucket: Bucket, object_server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prognosis_dask.objects.bucket.PAUSE", 0.001)
    stat = bucket.head("a/1.dcm")
    object_server.weather.short = 1.0
    for ask in (bucket.get, lambda key, expected: bucket.get_range(key, 0, 1000)):
        with pytest.raises(CaseError, match=r"object-unreadable: .*bytes.*, 5 times") as error:
            ask("a/1.dcm", expected=stat)
        assert error.value.problem.where == "s3://cohort/a/1.dcm"


def test_a_store_that_refuses_one_object_for_ever_is_told_from_one_that_refuses_all(
    bucket: Bucket, object_server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prognosis_dask.objects.address.RETRIES", 1)
    _forget_stores()
    for asked in (bucket.get, bucket.head, lambda key: bucket.put(key, b"x")):
        object_server.weather.refuse = lambda method, path: (503, "SlowDown") if path == "/cohort/a/1.dcm" else None
        with pytest.raises(CaseError, match=r"object-unreadable: the bucket refuses just this object \(SlowDown\)"):
            asked("a/1.dcm")
        object_server.weather.refuse = lambda method, path: (503, "SlowDown")
        with pytest.raises(BucketError, match=r"no answer from s3://cohort \(SlowDown\)"):
            asked("a/1.dcm")


@pytest.mark.parametrize(
    ("answer", "code"),
    [((403, "AccessDenied"), Code.OBJECT_FORBIDDEN), ((404, "NoSuchKey"), Code.OBJECT_MISSING)],
)
def test_what_is_refused_is_not_asked_for_again(
    bucket: Bucket, object_server: ObjectServer, answer: tuple[int, str], code: Code
) -> None:
    object_server.weather.refuse = lambda method, path: answer
    object_server.traffic.clear()
    with pytest.raises(CaseError) as error:
        bucket.get("a/1.dcm")
    assert error.value.problem.code is code
    assert error.value.problem.where == "s3://cohort/a/1.dcm"
    assert object_server.traffic.requests == 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((400, "ExpiredToken"), "credentials for s3://cohort have expired"),
        ((403, "InvalidAccessKeyId"), "check the access key"),
        ((403, "RequestTimeTooSkewed"), "this machine's clock"),
        ((301, "PermanentRedirect"), "lies in another region; set AWS_REGION"),
        ((400, "AuthorizationHeaderMalformed"), "lies in another region"),
        ((404, "NoSuchBucket"), "there is no bucket 'cohort' at http"),
    ],
)
def test_what_holds_for_a_whole_bucket_is_no_problem_of_a_case(
    bucket: Bucket, object_server: ObjectServer, answer: tuple[int, str], said: str
) -> None:
    object_server.weather.refuse = lambda method, path: answer
    head = [bucket.head] if answer[0] != 404 else []  # of which there is no body that says more
    for ask in (bucket.get, *head, lambda key: list(bucket.list(key))):
        with pytest.raises(BucketError, match=said) as error:
            ask("a/1.dcm")
        assert "\n" not in str(error.value)
        assert pickle.loads(pickle.dumps(error.value)).args == error.value.args


def test_a_bucket_that_may_not_be_listed_or_is_not_there_is_named(
    bucket: Bucket, object_server: ObjectServer, refused: Callable[..., str], tmp_path: Path
) -> None:
    with pytest.raises(BucketError, match="there is no bucket 'nowhere' at http"):
        list(Bucket("s3", "nowhere").list("x"))
    assert "there is no bucket 'nowhere' at http" in refused("status", "s3://nowhere/run")
    object_server.weather.refuse = lambda method, path: (403, "AccessDenied")
    with pytest.raises(BucketError, match=r"s3://cohort may not be listed \(403\); ask its owner"):
        list(bucket.list("a"))
    with pytest.raises(CaseError, match="object-forbidden"):
        bucket.head("a/1.dcm")


def test_keys_of_any_letters_are_found_and_only_below_their_prefix(bucket: Bucket) -> None:
    odd = "im ages/ü+a%20b %41/lung=1 & c"
    keys = [f"{odd}/1.dcm", "lung/1.dcm", "lung1/1.dcm", "lung 1/1.dcm"]
    for number, key in enumerate(keys):
        bucket.put(key, bytes([number]))
    for number, key in enumerate(keys):
        [found] = bucket.list(parse_address(f"s3://cohort/{key.rpartition('/')[0]}/").key)
        assert (found.key, bucket.get(found.key)) == (key, bytes([number]))


def test_an_object_that_changed_meanwhile_is_refused(bucket: Bucket) -> None:
    stat = bucket.head("a/1.dcm")
    bucket.put("a/1.dcm", DATA[::-1])
    for ask in (bucket.get, lambda key, expected: bucket.get_range(key, 0, 10, expected=expected)):
        with pytest.raises(CaseError) as error:
            ask("a/1.dcm", expected=stat)
        assert error.value.problem.code is Code.OBJECT_CHANGED
    with pytest.raises(CaseError, match=r"102,400 bytes, expected 5"):
        bucket.get("a/1.dcm", expected=ObjectStat("a/1.dcm", 5))


def test_a_store_that_does_not_answer_is_given_up_within_a_minute(
    object_server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("prognosis_dask.objects.address.RETRIES", 1)
    with pytest.raises(BucketError, match=r"no answer from s3://nowhere .*check the network.*127.0.0.1:9"):
        Bucket("s3", "nowhere").get("x")


def test_a_bucket_travels_as_a_name(bucket: Bucket) -> None:
    bucket.get("a/1.dcm")
    packed = pickle.dumps(bucket)
    assert len(packed) < 200
    assert b"secret" not in packed
    assert pickle.loads(packed) == bucket


def test_a_public_bucket_is_read_unsigned(object_server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("open", "closed"):
        object_server.make_bucket(name, public=name == "open")
        object_server.send("PUT", f"/{name}/x", b"data")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    assert Bucket("s3", "open").get("x") == b"data"
    assert Bucket("gs", "open").get("x") == b"data"
    assert [one.key for one in Bucket("gs", "open").list()] == ["x"]


def test_a_profile_gives_the_keys_also_where_they_are_renewed(
    object_server: ObjectServer, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    object_server.make_bucket("mine")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    (tmp_path / "credentials").write_text("[study]\naws_access_key_id = one%key\naws_secret_access_key = two\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "study")
    Bucket("s3", "mine").put("x", b"data")
    assert Bucket("s3", "mine").get("x") == b"data"
    object_server.weather.expired = "one%key"
    with pytest.raises(BucketError, match="credentials for s3://mine have expired; renew them"):
        Bucket("s3", "mine").get("x")
    (tmp_path / "credentials").write_text("[study]\naws_access_key_id = three\naws_secret_access_key = four\n")
    assert Bucket("s3", "mine").get("x") == b"data"
    object_server.weather.expired = "three"
    (tmp_path / "credentials").write_text("[study]\naws_access_key_id = five\naws_secret_access_key = six\n")
    assert [one.key for one in Bucket("s3", "mine").list()] == ["x"]
    monkeypatch.setenv("AWS_PROFILE", "other")
    with pytest.raises(JobError, match=r"AWS_PROFILE is 'other', but .*credentials has no keys for it"):
        Bucket("s3", "another").get("x")


@pytest.mark.parametrize("text", ["https://bucket/x", "s3:/bucket", "s3://", "bucket/x"])
def test_other_addresses_are_refused(text: str) -> None:
    with pytest.raises(JobError, match="expected s3://BUCKET/PREFIX"):
        parse_address(text)


def test_an_endpoint_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:9000")
    with pytest.raises(JobError, match="AWS_ENDPOINT_URL is 'localhost:9000', expected the address of a server"):
        Bucket("s3", "unheard-of").get("x")


def test_a_cache_gives_what_it_holds_and_forgets_what_was_not_read_for_longest(
    bucket: Bucket, object_server: ObjectServer, tmp_path: Path
) -> None:
    stats = [bucket.put(f"b/{number}", bytes([number]) * 300_000) for number in range(4)]
    use_cache(str(tmp_path), 0.001)
    try:
        for number in (0, 1, 2, 0):
            bucket.get(f"b/{number}", expected=stats[number])
        assert bucket.get_range("b/2", 10, 5, expected=stats[2]) == bytes([2]) * 5
        bucket.get("b/3", expected=stats[3])  # beyond a megabyte: 1 goes
        object_server.traffic.clear()
        assert [bucket.get(f"b/{n}", expected=stats[n])[0] for n in (3, 2, 0)] == [3, 2, 0]
        assert object_server.traffic.requests == 0
        bucket.get("b/1", expected=stats[1])
        assert object_server.traffic.requests == 1
        changed = bucket.put("b/0", b"x" * 300_000)
        assert bucket.get("b/0", expected=changed) == b"x" * 300_000
        for entry in tmp_path.rglob("*.object"):
            entry.write_bytes(b"cut")
        assert bucket.get("b/3", expected=stats[3]) == bytes([3]) * 300_000
        assert sum(entry.stat().st_size for entry in tmp_path.rglob("*.object")) < 1_100_000
    finally:
        use_cache("", 0)


def test_the_server_of_the_benchmarks_answers_as_moto_does(
    object_server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "filled&.dcm").write_bytes(bytes(range(256)) * 4000)
    object_server.make_bucket("bench")
    object_server.fill("bench", "", tmp_path)
    expected = _answers(Bucket("s3", "bench"))
    command = [sys.executable, "-m", "benchmarks.bucket_server", "--fill", f"bench={tmp_path}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]) as server:
        try:
            assert server.stdout is not None
            monkeypatch.setenv(*server.stdout.readline().strip().split("=", 1))
            _forget_stores()
            assert _answers(Bucket("s3", "bench")) == expected
            with pytest.raises(BucketError, match="there is no bucket 'missing'"):
                Bucket("s3", "missing").get("key")
        finally:
            server.terminate()
            _forget_stores()


def _answers(bucket: Bucket) -> list[object]:
    """What a bucket says to all that is asked of one, in turn."""
    filled = "a/filled&.dcm"
    head = bucket.head(filled)
    first, second = bucket.put_new("runs/é/1", b"one"), bucket.put("runs/2", b"two")

    def refused(ask: Callable[[], object]) -> str:
        with pytest.raises((CaseError, WriteConflictError)) as caught:
            ask()
        error = caught.value
        return error.problem.code if isinstance(error, CaseError) else type(error).__name__

    answers: list[object] = [
        (head.bytes, head.etag),
        hash(bucket.get(filled, expected=head)),
        bucket.get_range(filled, 1000, 30, expected=head),
        bucket.get_range(filled, head.bytes - 3, 30),
        bucket.get_first(filled, 10)[0],
        refused(lambda: bucket.put_new("runs/2", b"three")),
        refused(lambda: bucket.put_over("runs/2", b"three", first)),
        bucket.put_over("runs/2", b"three", second).etag,
        refused(lambda: bucket.get("runs/2", etag=second.etag)),
        refused(lambda: bucket.get("runs/3")),
        bucket.find("runs/3"),
        [(stat.key, stat.bytes, stat.etag) for stat in bucket.list("runs")],
    ]
    bucket.delete("runs/2")
    bucket.delete("runs/2")
    bucket.put("runs/empty", b"")
    answers.append(bucket.get_first("runs/empty", 10)[0])
    return [*answers, sorted(stat.key for stat in bucket.list())]
