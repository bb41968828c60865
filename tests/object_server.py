"""An S3 server that a test starts, behind a proxy that makes the weather: latency, throttling, cut bodies, refusals.

The server is moto, in a process of its own; what it holds is gone with it. ``tests/conftest.py`` has the fixture::

    from tests.object_server import ObjectServer

    def test_something(object_server: ObjectServer) -> None:
        object_server.make_bucket("results")                      # public=True: may be read unsigned
        object_server.fill("results", "cohort/", folder)          # every file under the folder, by relative path
        object_server.weather.latency = 0.03                      # seconds before each answer
        object_server.weather.throttled = 0.05                    # share of requests answered by 503 SlowDown
        object_server.weather.cut = 0.01                          # share of bodies whose connection is closed half-way
        object_server.weather.refuse = lambda method, path: (403, "AccessDenied") if "secret" in path else None
        ...
        assert object_server.traffic.bytes < 1_000_000            # of bodies sent; .requests, .lines ("GET /b/key")

The fixture is the session's one server; it sets ``AWS_ENDPOINT_URL`` and a test's credentials in the environment of
the test (and of what that starts), begins each test with fine weather and traffic at zero, and removes all buckets
after it.
Several servers, or one for a benchmark: ``with ObjectServer.start() as server, server.environment(): ...``. By hand::

    python -m tests.object_server --fill idc-open-data-cr=/data/idc/idc-open-data-cr --latency 0.03

``gs://`` addresses lead to the same server: what the XML interface of Google's store has other than S3's, generations
and conditions on them, the proxy translates. Google's own answers it has not seen.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

#: With a test's credentials; moto looks at the name only.
_SIGNED = "AWS4-HMAC-SHA256 Credential=a-test/20200101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
Refusal = Callable[[str, str], "tuple[int, str] | None"]


@dataclass
class Weather:
    """What the proxy does to requests; ``short``: the share of bodies that lack their last bytes though all seems well.

    ``always_short``: keys whose bodies always do. ``expired``: an access key that is none any more.
    Creating buckets and filling them goes past the proxy.
    """

    latency: float = 0.0
    throttled: float = 0.0
    cut: float = 0.0
    short: float = 0.0
    always_short: tuple[str, ...] = ()
    expired: str = ""
    refuse: Refusal | None = None
    random: random.Random = field(default_factory=lambda: random.Random(0))

    def fine(self) -> None:
        """No faults any more."""
        self.__init__()  # type: ignore[misc]


@dataclass
class Traffic:
    """What has passed since the start or the last :meth:`clear`."""

    requests: int = 0
    bytes: int = 0
    faults: int = 0
    lines: list[str] = field(default_factory=list)

    def clear(self) -> None:
        """Begin to count anew."""
        self.__init__()  # type: ignore[misc]


class ObjectServer:
    """A running server: ``url`` leads through the proxy, ``direct`` past it."""

    def __init__(self, port: int, moto_port: int) -> None:
        self.url, self.direct = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{moto_port}"
        self.weather, self.traffic = Weather(), Traffic()

    @classmethod
    @contextmanager
    def start(cls, port: int = 0) -> Iterator[ObjectServer]:
        """Start a server; it ends with the block."""
        moto_port = _free_port()
        moto = subprocess.Popen(
            [sys.executable, "-c", _MOTO, str(moto_port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        proxy = _Proxy(("127.0.0.1", port), _Handler)
        server = cls(proxy.server_port, moto_port)
        proxy.served = server
        threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True).start()
        try:
            _until_it_listens(moto_port, moto)
            yield server
        finally:
            proxy.shutdown()
            proxy.server_close()
            moto.kill()
            moto.wait()

    @contextmanager
    def environment(self) -> Iterator[None]:
        """The environment in which ``s3://`` and ``gs://`` lead here, with a test's credentials."""
        ours = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "a-test",
            "AWS_SECRET_ACCESS_KEY": "its-secret",
            "AWS_REGION": "us-east-1",
            "GOOGLE_BASE_URL": self.url,
            "GOOGLE_SERVICE_ACCOUNT_KEY": _google_key(self.url),
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        before = {name: os.environ.get(name) for name in ours}
        os.environ.update(ours)
        _forget_stores()
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value
            _forget_stores()

    def make_bucket(self, name: str, *, public: bool = False) -> None:
        """A new, empty bucket; ``public``: everybody may list and read it unsigned."""
        self.send("PUT", f"/{name}")
        if public:
            # to look at an object's head needs GetObject of AWS, and a right of its own of moto
            policy = (
                '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", '
                f'"Action": ["s3:GetObject", "s3:HeadObject", "s3:ListBucket"], "Resource": ["arn:aws:s3:::{name}", '
                f'"arn:aws:s3:::{name}/*"]}}]}}'
            )
            self.send("PUT", f"/{name}?policy", policy.encode())

    def fill(self, bucket: str, prefix: str, folder: Path) -> int:
        """Put every file under a folder into a bucket, under its relative path; returns how many."""
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        for path in files:
            self.send("PUT", f"/{bucket}/{prefix}{path.relative_to(folder).as_posix()}", path.read_bytes())
        return len(files)

    def reset(self) -> None:
        """Remove everything, fine weather, traffic at zero."""
        self.send("POST", "/moto-api/reset")
        self.weather.fine()
        self.traffic.clear()

    def send(self, method: str, path: str, body: bytes = b"") -> bytes:
        """One request past the proxy, with a test's credentials."""
        connection = http.client.HTTPConnection(self.direct.removeprefix("http://"), timeout=60)
        connection.request(method, path, body, {"Authorization": _SIGNED})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {content[:300]!r}")
        return content


def _google_key(url: str) -> str:
    """A key of Google's as programs take it for a server that asks for none."""
    none = dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
    return json.dumps({"gcs_base_url": url, "disable_oauth": True, **none})


def _forget_stores() -> None:
    """A process keeps its stores, with the endpoint and the credentials that it found when it opened them."""
    from prognosis_dask.objects import bucket
    from prognosis_dask.storage import rois

    bucket._STORES.clear()
    rois._OPENED.clear()


@pytest.fixture(scope="session")
def running_object_server() -> Iterator[ObjectServer]:
    with ObjectServer.start() as server:
        yield server


@pytest.fixture
def object_server(running_object_server: ObjectServer) -> Iterator[ObjectServer]:
    running_object_server.reset()
    with running_object_server.environment():
        yield running_object_server
    running_object_server.reset()


_MOTO = """
import logging, sys
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server
logging.getLogger("werkzeug").setLevel(logging.ERROR)
WSGIRequestHandler.protocol_version = "HTTP/1.1"
application = DomainDispatcherApplication(create_backend_app)
make_server("127.0.0.1", int(sys.argv[1]), application, threaded=True).serve_forever()
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _until_it_listens(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the S3 server ended with status {process.returncode}; is moto[server] installed?")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("the S3 server did not start within two minutes")


class _Proxy(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    served: ObjectServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is gone is no fault of the server's."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Proxy
    _upstream: http.client.HTTPConnection | None = None

    def _serve(self) -> None:
        served = self.server.served
        weather, traffic = served.weather, served.traffic
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        traffic.requests += 1
        traffic.lines.append(f"{self.command} {self.path}")
        if weather.latency:
            time.sleep(weather.latency)
        refused = weather.refuse(self.command, self.path) if weather.refuse else None
        if refused is None and weather.random.random() < weather.throttled:
            refused = 503, "SlowDown"
        if weather.expired and f"Credential={weather.expired}/" in self.headers.get("Authorization", ""):
            refused = 400, "ExpiredToken"
        if refused is not None:
            traffic.faults += 1
            self._send(refused[0], {"Content-Type": "application/xml"}, _xml(refused[1]))
            return
        status, headers, content = self.ask(body)
        lacking = self._lacking(content, status)
        self._send(status, headers, content, lacking)

    def _lacking(self, content: bytes, status: int) -> tuple[str, int]:
        weather = self.server.served.weather
        if self.command == "GET" and status in (200, 206) and len(content) > 1:
            if self.path.endswith(weather.always_short or ("nothing ends so",)):
                return "short", 1
            chance = weather.random.random()
            if chance < weather.cut:
                self.server.served.traffic.faults += 1
                return "cut", len(content) // 2
            if chance < weather.cut + weather.short:
                self.server.served.traffic.faults += 1
                return "short", 1
        return "", 0

    def ask(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """The answer of moto."""
        if self._upstream is None:
            self._upstream = http.client.HTTPConnection(self.server.served.direct.removeprefix("http://"), timeout=120)
        # with a key that asks for no signature, its client signs what it writes only, and writes slashes of keys so
        unsigned = "Authorization" not in self.headers and "%2F" in self.path.partition("?")[0]
        is_google = unsigned or self.headers.get("Authorization", "").startswith("Bearer")
        sent = {name: value for name, value in self.headers.items() if name.lower() != "authorization" or not is_google}
        if is_google:
            sent |= {"Authorization": _SIGNED, **_condition(self.headers.get("x-goog-if-generation-match"))}
        self._upstream.request(self.command, self.path, body, sent)
        answer = self._upstream.getresponse()
        content = answer.read()
        dropped = ("connection", "transfer-encoding", "date", "server")
        headers = {name: value for name, value in answer.getheaders() if name.lower() not in dropped}
        if is_google and answer.getheader("ETag"):
            headers["x-goog-generation"] = str(int(answer.getheader("ETag", "").strip('"').partition("-")[0], 16))
        return answer.status, headers, content

    def _send(self, status: int, headers: dict[str, str], content: bytes, lacking: tuple[str, int] = ("", 0)) -> None:
        kind, missing = lacking
        self.send_response(status)
        length = headers.get("Content-Length") if self.command == "HEAD" else None
        for name, value in headers.items():
            if name.lower() != "content-length":
                self.send_header(name, value)
        sent = content[: len(content) - missing]
        self.send_header("Content-Length", length or str(len(content) if kind == "cut" else len(sent)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(sent)
            self.server.served.traffic.bytes += len(sent)
        if kind == "cut":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _serve  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def _condition(generation: str | None) -> dict[str, str]:
    """A condition on a generation, of which 0 is none, as S3 has it."""
    if generation is None:
        return {}
    return {"If-None-Match": "*"} if generation == "0" else {"If-Match": f'"{int(generation):032x}"'}


def _xml(code: str) -> bytes:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>weather</Message></Error>'.encode()
    )


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="an S3 server for trying things by hand")
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--fill", action="append", default=[], metavar="BUCKET=FOLDER")
    arguments = parser.parse_args()
    with ObjectServer.start(arguments.port) as server:
        server.weather.latency = arguments.latency
        for bucket, _, folder in (text.partition("=") for text in arguments.fill):
            server.make_bucket(bucket, public=True)
            server.fill(bucket, "", Path(folder))
        print(f"export AWS_ENDPOINT_URL={server.url} AWS_ACCESS_KEY_ID=a-test AWS_SECRET_ACCESS_KEY=its-secret")
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # else moto stays behind
        with suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
