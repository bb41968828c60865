"""A real server on a real cluster, and a browser without a screen: cookies, forms, uploads."""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
import uuid
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

import uvicorn
from distributed import Client

from prognosis_dask.prediction.model import load_models
from prognosis_dask.web.scan_queue import ScanQueue
from prognosis_dask.web.scans import Scans
from prognosis_dask.web.settings import Settings
from prognosis_dask.web.start import make_app
from tests.dask_processes import PATIENCE

ENDED = ("done", "failed", "cancelled", "choose")


@dataclass
class Running:
    """A server that runs in this process."""

    port: int
    queue: ScanQueue
    scans: Scans


@contextmanager
def running(client: Client, models: Sequence[Path], settings: Settings) -> Iterator[Running]:
    scans = Scans(settings.folder / "scans")
    queue = ScanQueue(client, scans, settings.limits, load_models(models))
    config = uvicorn.Config(make_app(queue, scans, settings), log_level="warning", access_log=False)
    sockets = [uvicorn.Config(config.app, host="127.0.0.1", port=0, log_level="critical").bind_socket()]
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": sockets})
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.02)
        yield Running(sockets[0].getsockname()[1], queue, scans)
    finally:
        server.should_exit = True
        thread.join()
        sockets[0].close()


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def message(self) -> str:
        """The sentence that the page tells."""
        found = re.search(r'id="message">(.*?)</p>', self.text, re.DOTALL)
        return found[1].replace("&#39;", "'") if found else ""


@dataclass
class Browser:
    """Keeps its cookie, and knows the value that forms carry."""

    port: int
    cookie: str = ""
    host: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, body: bytes = b"", kind: str = "", follow: bool = True) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        headers = {"Host": self.host or f"127.0.0.1:{self.port}", **self.headers}
        if self.cookie:
            headers["Cookie"] = self.cookie
        if kind:
            headers["Content-Type"] = kind
        try:
            connection.request(method, path, body or None, headers)
            reply = connection.getresponse()
            answer = Answer(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read())
        finally:
            connection.close()
        if "set-cookie" in answer.headers:
            self.cookie = answer.headers["set-cookie"].split(";")[0]
        if follow and answer.status == 303:
            return self.ask("GET", answer.headers["location"])
        return answer

    def get(self, path: str, *, follow: bool = True) -> Answer:
        return self.ask("GET", path, follow=follow)

    def form(self) -> str:
        found = re.search(r'name="form" value="([0-9a-f]+)"', self.get("/").text)
        assert found
        return found[1]

    def post(self, path: str, fields: Mapping[str, str] | None = None, *, follow: bool = True) -> Answer:
        body = urlencode(fields if fields is not None else {"form": self.form()})
        return self.ask("POST", path, body.encode(), "application/x-www-form-urlencoded", follow)

    def send(
        self,
        model: str,
        files: Sequence[tuple[str, str, bytes]],
        form: str | None = None,
        path: str = "/scans",
        **fields: str,
    ) -> Answer:
        """Upload files (field, name, content); the answer is not followed."""
        all_fields = {"form": self.form() if form is None else form, "model": model, **fields}
        body, kind = multipart(all_fields, files)
        return self.ask("POST", path, body, kind, follow=False)

    def upload(self, model: str, files: Sequence[tuple[str, str, bytes]], **fields: str) -> str:
        """Upload files that are accepted; the scan's address."""
        answer = self.send(model, files, **fields)
        assert answer.status == 303, answer.message or answer.text
        return answer.headers["location"]

    def state(self, scan: str) -> dict:
        return json.loads(self.get(f"{scan}/state").body)

    def wait(self, scan: str, seconds: float = PATIENCE, states: Sequence[str] = ENDED) -> str:
        """The state in which it ends."""
        deadline = time.monotonic() + seconds
        while (now := self.state(scan))["state"] not in states:
            assert time.monotonic() < deadline, now
            time.sleep(0.05)
        return now["state"]


def multipart(fields: Mapping[str, str], files: Sequence[tuple[str, str, bytes]]) -> tuple[bytes, str]:
    """A form's body and its content type."""
    boundary = uuid.uuid4().hex
    parts = [f'Content-Disposition: form-data; name="{name}"\r\n\r\n{text}'.encode() for name, text in fields.items()]
    for name, file_name, content in files:
        head = f'Content-Disposition: form-data; name="{name}"; filename="{file_name}"\r\n'
        parts.append(f"{head}Content-Type: application/octet-stream\r\n\r\n".encode() + content)
    body = b"".join(b"--" + boundary.encode() + b"\r\n" + part + b"\r\n" for part in parts)
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def zipped(folder: Path, target: Path) -> Path:
    """All DICOM files under a folder in one archive."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*.dcm")):
            archive.write(path, str(path.relative_to(folder)))
    return target
