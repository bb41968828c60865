"""The server's pages, from templates. Nothing here computes: uploads go to the queue, results lie in folders."""

from __future__ import annotations

import asyncio
import functools
import io
import time
import zipfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response

from prognosis_dask.errors import StatisticsError, count
from prognosis_dask.prediction.clinical_inputs import ClinicalInput, read_clinical
from prognosis_dask.prediction.model import ScanModel
from prognosis_dask.prediction.page import (
    PICTURES,
    VIEWER,
    VOLUMES,
    environment,
    one_file,
    pictures_in,
    shown,
    static_text,
    vendored,
    volume_file,
)
from prognosis_dask.prediction.result import VERSION, csv_text, json_text
from prognosis_dask.prediction.slices import slice_png
from prognosis_dask.web.scan_queue import ScanQueue
from prognosis_dask.web.scans import OPEN, Scan, Scans
from prognosis_dask.web.settings import Access, RefusedError, Settings
from prognosis_dask.web.upload import MASK, ReceivedFile, drain, receive, small_form

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


_NOT_YOURS = "Only the browser that sent a scan can change it."
_NO_IMAGES_LEFT = "A mask is added to a scan whose files are still here, when the work on it has ended."
_LABEL_LETTERS = 60
_SESSION_SECONDS = 30 * 24 * 3600

Endpoint = Callable[["Site", Request, str], Awaitable[Response]]


class Site:
    """The pages, and what they show."""

    def __init__(self, queue: ScanQueue, scans: Scans, settings: Settings, dashboard: str) -> None:
        self._queue, self._scans, self._settings = queue, scans, settings
        self._dashboard = dashboard
        self._access = Access(settings.folder, settings.token)

    def page(self, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
        """A page for browsers with a session. Who knows the token, or needs none, gets one."""

        @functools.wraps(endpoint)
        async def guarded(request: Request) -> Response:
            session = self._access.session(request)
            if session:
                return await endpoint(self, request, session)
            if not self._access.knows(request.query_params.get("token", "")):
                return render("login.html.j2", 401, wrong=False)
            return self._welcome(request, request.url.path)

        return guarded

    async def login(self, request: Request) -> Response:
        """Takes the token of the page that asks for it."""
        fields = await small_form(request.stream())
        if not self._access.knows(fields.get("token", "")):
            await asyncio.sleep(1.0)  # nobody tries many
            return render("login.html.j2", 401, wrong=True)
        return self._welcome(request, "/")

    async def home(self, request: Request, session: str) -> Response:
        """The form, and the scans of this browser."""
        owner = self._access.owner(session)
        own = [scan for scan in self._scans.all() if scan.owner == owner]
        return render(
            "home.html.j2",
            models=self._queue.models,
            clinical={key: _form_fields(model) for key, model in self._queue.models.items()},
            form=self._access.form_value(session),
            limits=self._settings.limits,
            scans=[self._listed(scan) for scan in reversed(own)],
        )

    async def upload(self, request: Request) -> Response:
        """Receives a scan, and puts it into the queue."""
        session = ""

        def check(fields: dict[str, str]) -> None:
            nonlocal session
            session = self._access.expect_form(request, fields)
            self._expect_room(self._access.owner(session))
            if fields.get("model") not in self._queue.models:
                raise RefusedError("Choose one of the models.")
            _read_fields(self._queue.models[fields["model"]], fields)

        scan_id, folder = self._scans.new_folder()
        (folder / "received").mkdir()
        try:
            fields, files = await self._received(request, folder / "received", check)
        except RefusedError:
            await run_in_threadpool(self._scans.remove, scan_id)
            raise
        scan = Scan(
            id=scan_id,
            owner=self._access.owner(session),
            model=fields["model"],
            created=time.time(),
            roi=fields.get("roi", ""),
            clinical=_read_fields(self._queue.models[fields["model"]], fields),
            files=_as_sent(files),
            label=_label(fields),
        )
        self._queue.submit(self._scans.put(scan))
        return RedirectResponse(f"/scans/{scan_id}", 303)

    async def add_mask(self, request: Request) -> Response:
        """Receives a mask of a scan whose images are here, and has the scan worked on with it."""
        scan = self._find(request)

        def check(fields: dict[str, str]) -> None:
            session = self._access.expect_form(request, fields)
            if scan.owner != self._access.owner(session):
                raise RefusedError(_NOT_YOURS, 403)
            self._expect_room(scan.owner)
            if not self._queue.takes_mask(scan):
                raise RefusedError(_NO_IMAGES_LEFT, 409)

        # as a scan's folder: what a server that is killed leaves of it is removed like an upload
        place, folder = self._scans.new_folder()
        try:
            received = folder / "received"
            received.mkdir()
            _, files = await self._received(request, received, check)
            sent = tuple((name, MASK, sequence) for name, _, sequence in _as_sent(files))
            if not await run_in_threadpool(self._queue.add_mask, scan.id, sent, received):
                raise RefusedError(_NO_IMAGES_LEFT, 409)
        finally:
            await run_in_threadpool(self._scans.remove, place)
        return RedirectResponse(f"/scans/{scan.id}", 303)

    async def _received(
        self, request: Request, folder: Path, check: Callable[[dict[str, str]], None]
    ) -> tuple[dict[str, str], list[ReceivedFile]]:
        """The fields and files of an upload; one that is refused is read to its end, so that its sender is told."""
        limits, stream = self._settings.limits, request.stream()
        try:
            content_type = request.headers.get("content-type", "")
            async with asyncio.timeout(limits.keep_upload_seconds):
                return await receive(content_type, stream, folder, limits, check)
        except (RefusedError, ClientDisconnect, OSError) as error:  # TimeoutError is an OSError
            await drain(stream)
            if isinstance(error, RefusedError):
                raise
            raise RefusedError("The upload broke off, or the server has no room for it; send it again.", 507) from error

    async def scan(self, request: Request, session: str) -> Response:
        """A scan's page: how far it is, what it needs to know, or what was found."""
        scan = self._find(request)
        shared: dict[str, Any] = {
            "scan": scan,
            "form": self._access.form_value(session),
            "own": scan.owner == self._access.owner(session),
            "minutes": self._minutes_left(scan),
            "takes_mask": self._queue.takes_mask(scan),
        }
        if scan.state == "done":
            result = self._result(scan)
            view = _view(request, result["view"])
            folder = self._scans.path(scan.id)
            volumes = shown(folder / "slices.zarr")
            shared["dicom"] = shared["own"] and self._queue.is_dicom(scan)
            pictures = pictures_in(folder)
            return render("result.html.j2", result=result, view=view, pictures=pictures, volumes=volumes, **shared)
        return render("scan.html.j2", now=self._now(scan), dashboard=self._dashboard, **shared)

    async def state(self, request: Request, session: str) -> Response:
        """How far a scan is, for the page's script."""
        return JSONResponse(self._now(self._find(request)))

    async def slice(self, request: Request, session: str) -> Response:
        """One slice in the window that is asked for."""
        scan = self._find(request, done=True)
        view = _view(request, self._result(scan)["view"])
        path = self._scans.path(scan.id) / "slices.zarr"
        draw = functools.partial(slice_png, path, view["slice"], view["centre"], view["width"], outline=view["outline"])
        return Response(await run_in_threadpool(draw), media_type="image/png")

    async def volume(self, request: Request, session: str) -> Response:
        """The image or the mask for the viewer's three planes."""
        scan, name = self._find(request, done=True), request.path_params["name"]
        slices = self._scans.path(scan.id) / "slices.zarr"
        if name not in VOLUMES or shown(slices) is None:
            raise HTTPException(404)
        return FileResponse(await run_in_threadpool(volume_file, slices, name), media_type="application/gzip")

    async def picture(self, request: Request, session: str) -> Response:
        """A drawing or a picture of the result."""
        scan, name = self._find(request, done=True), request.path_params["picture"]
        if name not in pictures_in(self._scans.path(scan.id)):
            raise HTTPException(404)
        return FileResponse(self._scans.path(scan.id) / name, media_type=PICTURES[name])

    async def as_json(self, request: Request, session: str) -> Response:
        """The result as a file for programs."""
        text = json_text(self._named(self._find(request, done=True)))
        return Response(text, media_type="application/json", headers=_as_file("scan.json"))

    async def as_csv(self, request: Request, session: str) -> Response:
        """The result as a table, a row for each value of the JSON."""
        text = csv_text(self._named(self._find(request, done=True)))
        return Response(text, media_type="text/csv; charset=utf-8", headers=_as_file("scan.csv"))

    async def as_html(self, request: Request, session: str) -> Response:
        """The result as one file that needs no other."""
        scan = self._find(request, done=True)
        text = await run_in_threadpool(one_file, self._result(scan), self._scans.path(scan.id))
        return Response(text, media_type="text/html; charset=utf-8", headers=_as_file("scan.html"))

    async def as_dicom(self, request: Request, session: str) -> Response:
        """The mask as SEG and the measurements as SR, which name the patient: for the browser that sent the scan."""
        scan = self._find(request, done=True)
        if scan.owner != self._access.owner(session):
            raise RefusedError("DICOM objects name the patient: only the browser that sent the scan gets them.", 403)
        files = await run_in_threadpool(self._queue.dicom, scan)
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in files:
                archive.write(path, path.name)
        return Response(content.getvalue(), media_type="application/zip", headers=_as_file("scan.dicom.zip"))

    async def act(self, request: Request) -> Response:
        """Cancel, choose a structure, remove the upload or the scan: by the browser that sent it."""
        fields = await small_form(request.stream())
        session = self._access.expect_form(request, fields)
        scan = self._find(request)
        if scan.owner != self._access.owner(session):
            raise RefusedError(_NOT_YOURS, 403)
        home = RedirectResponse("/", 303)
        match request.path_params["action"]:
            case "cancel":
                await run_in_threadpool(self._queue.cancel, scan.id)
            case "choose":
                if not self._queue.choose(scan.id, _number(fields.get("chosen", ""), int, -1)):
                    raise RefusedError("Choose one of the structures.")
            case "label":
                await run_in_threadpool(self._scans.change, scan.id, label=_label(fields))
            case "remove-upload":
                if scan.state in (*OPEN, "choose"):
                    raise RefusedError("The scan is not done yet: cancel it first.", 409)
                await run_in_threadpool(self._scans.remove_upload, scan.id)
            case "remove":
                await run_in_threadpool(self._queue.cancel, scan.id)
                await run_in_threadpool(self._scans.remove, scan.id)
                return home
            case _:
                raise HTTPException(404)
        return RedirectResponse(f"/scans/{scan.id}", 303)

    def _welcome(self, request: Request, path: str) -> Response:
        response = RedirectResponse(path, 303)
        self._access.welcome(response, secure=request.url.scheme == "https", seconds=_SESSION_SECONDS)
        return response

    def _find(self, request: Request, *, done: bool = False) -> Scan:
        scan = self._scans.get(request.path_params["id"])
        if scan is None or (done and scan.state != "done"):
            raise HTTPException(404)
        return scan

    def _expect_room(self, owner: str) -> None:
        limits = self._settings.limits
        own = sum(scan.owner == owner and scan.state in (*OPEN, "choose") for scan in self._scans.all())
        if own >= limits.scans_per_browser:
            raise RefusedError(f"You have {count(own, 'scan')} in progress here: wait for one, or cancel one.", 429)
        if self._queue.is_full():
            raise RefusedError("The queue is full; try again in some minutes.", 503)

    def _now(self, scan: Scan) -> dict[str, Any]:
        return {
            "state": scan.state,
            "place": self._queue.place(scan.id),
            "steps": self._queue.progress(scan),
            "message": scan.message,
            "restarts": scan.restarts,
        }

    def _listed(self, scan: Scan) -> dict[str, Any]:
        model = self._queue.models.get(scan.model)
        return {
            "id": scan.id,
            "state": scan.state,
            "label": scan.label,
            "model": model.title if model else "a model that is not served any more",
            "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(scan.created)),
            "place": self._queue.place(scan.id),
        }

    def _result(self, scan: Scan) -> dict[str, Any]:
        """What was found of a scan.

        Raises
        ------
        RefusedError
            When another version of the program wrote it, whose content these pages do not know.
        """
        result = self._named(scan)
        if result.get("version") != VERSION:
            raise RefusedError(
                "Another version of this program made this result: its JSON can be downloaded (/result.json after this "
                "address); for the page, upload the scan again.",
                410,
            )
        return result

    def _named(self, scan: Scan) -> dict[str, Any]:
        """What was found of a scan, under the label that its reader gave it."""
        result = self._scans.result(scan.id)
        if scan.label and isinstance(result.get("scan"), dict):
            result["scan"]["name"] = scan.label
        return result

    def _minutes_left(self, scan: Scan) -> int:
        """Until the upload is removed."""
        seconds = scan.created + self._settings.limits.keep_upload_seconds - time.time()
        return max(0, round(seconds / 60))


def _as_sent(files: Sequence[ReceivedFile]) -> tuple[tuple[str, str, str], ...]:
    return tuple((file.path.name, file.field, file.sequence) for file in files)


def _label(fields: Mapping[str, str]) -> str:
    return " ".join(fields.get("label", "").split())[:_LABEL_LETTERS]


def _form_fields(model: ScanModel) -> dict[str, ClinicalInput]:
    """The clinical inputs of a model by the names of their fields in the form."""
    return {f"{model.key}.{place}": column for place, column in enumerate(model.clinical_inputs)}


def _read_fields(model: ScanModel, fields: dict[str, str]) -> dict[str, str]:
    """The model's clinical values by column; empty fields, and those of other models, are left out.

    Raises
    ------
    RefusedError
        When the column cannot have such a value: one sentence.
    """
    try:
        given = {column.column: fields.get(name, "") for name, column in _form_fields(model).items()}
        return read_clinical(model.frozen, given)
    except StatisticsError as error:
        raise RefusedError(f"{error}."[:300]) from error


def _view(request: Request, begins: dict[str, Any]) -> dict[str, Any]:
    """The slice and the window that the address asks for, else those that a viewer begins with."""
    asked = request.query_params
    index = min(max(_number(asked.get("slice", ""), int, begins["slice"]), 0), begins["slices"] - 1)
    return {
        "slice": index,
        "centre": _number(asked.get("centre", ""), float, begins["centre"]),
        "width": max(_number(asked.get("width", ""), float, begins["width"]), 1e-6),
        # a box that is not ticked is not sent: with anything sent it is off
        "outline": "outline" in asked or "slice" not in asked,
    }


def _number(text: str, kind: type[int] | type[float], otherwise: Any) -> Any:
    """The number that a text holds; what it should otherwise be where it holds none, or one beyond all sense."""
    with suppress(ValueError, OverflowError):
        value = kind(text)
        if abs(value) < 1e9:
            return value
    return otherwise


def _as_file(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"'}
