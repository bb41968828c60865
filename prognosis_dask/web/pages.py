"""The web's pages from templates, and the style sheet and scripts that they load."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from jinja2 import Environment
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from prognosis_dask.prediction.page import VIEWER, environment, static_text, vendored

#: The package beside whose templates each file lies, and its type.
_STATIC = {
    "page.css": ("prognosis_dask.prediction", "text/css"),
    "viewer.js": ("prognosis_dask.prediction", "text/javascript"),
    "volume.js": ("prognosis_dask.prediction", "text/javascript"),
    "serve.js": ("prognosis_dask.web", "text/javascript"),
}
_STATES = {
    "waiting": "waiting",
    "running": "in progress",
    "choose": "needs your choice",
    "done": "done",
    "failed": "could not be used",
    "cancelled": "cancelled",
}


@lru_cache(maxsize=1)
def _environment() -> Environment:
    made = environment("prognosis_dask.web")
    made.globals["states"] = _STATES
    return made


def render(template: str, status: int = 200, **content: Any) -> HTMLResponse:
    """A page as an answer."""
    return HTMLResponse(_environment().get_template(template).render(**content), status)


async def static(request: Request) -> Response:
    """The style sheet and the scripts."""
    name = request.path_params["name"]
    if name == VIEWER:  # large, and the same until the program is another
        return Response(
            vendored(name), media_type="text/javascript", headers={"Cache-Control": "private, max-age=86400"}
        )
    if name not in _STATIC:
        raise HTTPException(404)
    package, kind = _STATIC[name]
    return Response(static_text(name, package), media_type=kind, headers={"Cache-Control": "no-cache"})
