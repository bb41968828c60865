"""Where ``prognosis serve`` listens, what it says of an address that cannot be, and how it stops."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from prognosis_dask.errors import JobError
from prognosis_dask.web.settings import EndsQuietly
from prognosis_dask.web.start import listen
from tests.dask_processes import PATIENCE


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_an_address_of_this_machine_is_listened_on(host: str) -> None:
    with listen(host, 0) as listening, socket.create_connection(("127.0.0.1", listening.getsockname()[1]), timeout=5):
        pass


@pytest.mark.parametrize("host", ["300.1.1.1", "", "a..b"])
def test_what_is_no_address_is_called_so(host: str) -> None:
    with pytest.raises(JobError, match=rf"--host '{host}': no address, and no known name of a machine; give one of"):
        listen(host, 0)


def test_an_address_of_another_machine_is_called_so() -> None:
    with pytest.raises(JobError, match=r"--host '192\.0\.2\.1': no address of this machine; give one of"):
        listen("192.0.2.1", 0)  # kept for documentation: no machine has it


def test_a_taken_port_is_called_so() -> None:
    with listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(JobError, match=rf"port {port} on 127\.0\.0\.1 is taken; choose another with --port"):
            listen("127.0.0.1", port)


def test_a_request_that_is_cut_off_when_the_server_stops_leaves_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    begun = threading.Event()

    async def slow(request: Request) -> Response:
        begun.set()
        await asyncio.sleep(600)
        raise AssertionError

    app = Starlette(routes=[Route("/", slow)], middleware=[Middleware(EndsQuietly)])
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", timeout_graceful_shutdown=1))
    # uvicorn's own settings keep its messages from the root logger, whoever set them in this process
    logging.getLogger("uvicorn.error").addHandler(caplog.handler)
    with listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()) as visitor:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        visitor.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        assert begun.wait(PATIENCE)
        server.should_exit = True
        answer = visitor.makefile("rb").read()
        thread.join()
    logging.getLogger("uvicorn.error").removeHandler(caplog.handler)
    assert b"503" in answer
    assert b"The server stops" in answer
    assert "timeout graceful shutdown exceeded" in caplog.text
    assert not [record for record in caplog.records if record.exc_info]
