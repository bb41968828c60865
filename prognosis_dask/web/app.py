"""The server's application: which address is which page, who may ask, and what is answered to mistakes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from prognosis_dask.web.access import HEADERS, SafeHeaders, is_loopback
from prognosis_dask.web.errors import RefusedError
from prognosis_dask.web.pages import render, static
from prognosis_dask.web.scan_queue import ScanQueue
from prognosis_dask.web.scans import Scans
from prognosis_dask.web.settings import Settings
from prognosis_dask.web.website import Site


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
        middleware=[Middleware(SafeHeaders), Middleware(TrustedHostMiddleware, allowed_hosts=hosts)],
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
