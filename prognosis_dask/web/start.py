"""``prognosis serve``: read the models, start or join the cluster, answer browsers until Ctrl-C."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from prognosis_dask.errors import JobError
from prognosis_dask.execution.cluster import Workers, check_run, joined
from prognosis_dask.execution.plan import memory_of, wants_gpu
from prognosis_dask.prediction.model import load_models
from prognosis_dask.storage.ledger import claim
from prognosis_dask.storage.place import local_copy
from prognosis_dask.web.scan_queue import ScanQueue
from prognosis_dask.web.scans import Scans
from prognosis_dask.web.settings import (
    HEADERS,
    EndsQuietly,
    RefusedError,
    SafeHeaders,
    Settings,
    is_loopback,
    token_for,
)
from prognosis_dask.web.website import Site, render, static


def serve(
    models: Sequence[Path | str], client: Workers, settings: Settings, *, say: Callable[[str], None] = print
) -> None:
    """Serve the models until the process is interrupted.

    Parameters
    ----------
    models
        Folders of runs or of their models, or addresses of such in buckets.
    client
        A Dask client whose workers see ``settings.folder`` under the same path, or what gives one in a ``with``
        statement that is entered once models, folder and port are there.
    settings
        Where to listen and write. Beyond this machine a token is asked for, and made where none is given.
    say
        Takes the lines that tell where it is.

    Raises
    ------
    PrognosisError
        When a model cannot be served, another server uses the folder, the port is taken, or the address is not this
        machine's.
    """
    settings = replace(settings, folder=settings.folder.absolute(), token=token_for(settings.host, settings.token))
    served = load_models([local_copy(model) for model in models])
    with claim(settings.folder / "serve"), listen(settings.host, settings.port) as listening, joined(client) as cluster:
        scans = Scans(settings.folder / "scans")
        jobs = [model.job for model in served.values()]
        check_run(cluster, scans.folder, gpu=any(map(wants_gpu, jobs)), memory=max(map(memory_of, jobs)))
        queue = ScanQueue(cluster, scans, settings.limits, served)
        dashboard = cluster.dashboard_link if is_loopback(settings.host) else ""
        app = make_app(queue, scans, settings, dashboard or "")
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,  # addresses are secrets
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=2,
        )
        for key, model in served.items():
            say(f"{key}: {model.title}, {model.facts['learnt from']}")
        query = f"?token={settings.token}" if settings.token else ""
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        say(f"http://{host}:{listening.getsockname()[1]}/{query}")
        uvicorn.Server(config).run(sockets=[listening])


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 takes one that is free.

    Raises
    ------
    JobError
        Saying what is wrong with the address, or that the port is taken.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        (*_, address), *_ = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
        return socket.create_server(address, family=family)
    except (OSError, UnicodeError) as error:
        raise JobError(_cannot_listen(host, port, error)) from error


def _cannot_listen(host: str, port: int, error: Exception) -> str:
    advice = "give one of this machine, or 0.0.0.0 for all that it has"
    if not isinstance(error, OSError) or isinstance(error, socket.gaierror):
        return f"--host {host!r}: no address, and no known name of a machine; {advice}"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"--host {host!r}: no address of this machine; {advice}"
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is taken; choose another with --port"
    return f"cannot listen on port {port} of {host} ({os.strerror(error.errno or 0)}); choose another with --port"


def make_app(queue: ScanQueue, scans: Scans, settings: Settings, dashboard: str = "") -> Starlette:
    """The application; the queue is worked on while it runs.

    Parameters
    ----------
    dashboard
        Address of the Dask cluster's page; empty where it is not shown.
    """
    site = Site(queue, scans, settings, dashboard)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        queue.open()
        yield
        queue.close()

    # "[" is what Starlette takes of an IPv6 address
    hosts = ["127.0.0.1", "localhost", "["] if is_loopback(settings.host) else ["*"]
    return Starlette(
        routes=[
            Route("/", site.page(Site.home)),
            Route("/login", site.login, methods=["POST"]),
            Route("/scans", site.upload, methods=["POST"]),
            Route("/scans/{id}", site.page(Site.scan)),
            Route("/scans/{id}/state", site.page(Site.state)),
            Route("/scans/{id}/slice.png", site.page(Site.slice)),
            Route("/scans/{id}/volume/{name}", site.page(Site.volume)),
            Route("/scans/{id}/result.json", site.page(Site.as_json)),
            Route("/scans/{id}/result.csv", site.page(Site.as_csv)),
            Route("/scans/{id}/result.html", site.page(Site.as_html)),
            Route("/scans/{id}/dicom.zip", site.page(Site.as_dicom)),
            Route("/scans/{id}/{picture}", site.page(Site.picture), methods=["GET"]),
            Route("/scans/{id}/mask", site.add_mask, methods=["POST"]),
            Route("/scans/{id}/{action}", site.act, methods=["POST"]),
            Route("/static/{name}", static),
        ],
        # another name than ours in the Host header is a page that took our address for its own (DNS rebinding)
        middleware=[
            Middleware(SafeHeaders),
            Middleware(EndsQuietly),
            Middleware(TrustedHostMiddleware, allowed_hosts=hosts),
        ],
        exception_handlers={RefusedError: _refused, HTTPException: _not_there, Exception: _unexpected},
        lifespan=lifespan,
    )


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return render("message.html.j2", error.status, heading="Not accepted", message=str(error))


async def _not_there(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return render("message.html.j2", 404, heading="Not here", message="There is no such page, or it was removed.")
    return render("message.html.j2", error.status_code, heading="Not accepted", message=error.detail)


async def _unexpected(request: Request, error: Exception) -> Response:
    message = "Unexpected error; nothing of yours is lost. Load the page again."
    answer = render("message.html.j2", 500, heading="Unexpected error", message=message)
    answer.headers.update(HEADERS)  # this answer is made outside of the middleware
    return answer
