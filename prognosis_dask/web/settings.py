"""What the server keeps to: where it writes, how much it takes and for how long; and who may use it.

A session is a random number in a cookie that no script reads and no other site sends. Forms carry its signature, so
that no other page can send them. A session that has shown the token is signed as such. The key lies in the server's
folder, so that sessions outlive a restart.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prognosis_dask.errors import Code, JobError, PrognosisError
from prognosis_dask.prediction.result import without_identifiers


@dataclass(frozen=True)
class Limits:
    """What one upload, one browser and the queue may take.

    Attributes
    ----------
    upload_bytes
        Of one upload, as it is sent.
    unpacked_bytes
        Of its archives together, unpacked.
    files
        Of one upload, those in archives among them.
    ratio
        An archive's member that grows by more than this is no image: a bomb.
    voxels
        Of an image file.
    scans_per_browser, queue
        Scans that wait or run.
    case_seconds
        That a step may take.
    keep_upload_seconds
        After which an upload's files are removed.
    """

    upload_bytes: int = 2_000_000_000
    unpacked_bytes: int = 4_000_000_000
    files: int = 5_000
    ratio: int = 200
    voxels: int = 400_000_000
    scans_per_browser: int = 5
    queue: int = 100
    case_seconds: float = 900.0
    keep_upload_seconds: float = 3600.0


@dataclass(frozen=True)
class Settings:
    """Where the server listens and writes. ``token`` is empty only on this machine's own address."""

    folder: Path
    host: str = "127.0.0.1"
    port: int = 8080
    token: str = ""
    limits: Limits = field(default_factory=Limits)


class RefusedError(PrognosisError):
    """The upload cannot be used; ``status`` is that of HTTP's answer where it is refused at once."""

    def __init__(self, sentence: str, status: int = 400) -> None:
        super().__init__(sentence)
        self.status = status


#: Sentences for some problems; the others are shown in their own words.
_SENTENCES = {
    Code.TIME_LIMIT: "The work on this scan took too long and was stopped",
    Code.MEMORY_LIMIT: "This scan needs more memory than a worker has",
    Code.WORKER_LOST: "The program ended while it worked on this scan; the files may be damaged",
    Code.UNEXPECTED: "Unexpected error in these files",
    Code.PATIENT_WITHOUT_MASK: "No outline of a tumour came with the images",
}


def sentence(code: Code, reason: str, secrets: Sequence[str] = ()) -> str:
    """A problem as a sentence without identifiers: no path, no UID, and none of the ``secrets``.

    >>> sentence(Code.SLICE_GAP, "2 slices of 1.2.840.113619.2.5.17 are missing, in /srv/up/Doe", ("Doe",))
    'Slice gap: 2 slices of … are missing, in …'
    """
    if code in _SENTENCES:
        return f"{_SENTENCES[code]} ({code})."
    return f"{code.value.replace('-', ' ').capitalize()}: {without_identifiers(reason, secrets)}"


COOKIE = "prognosis"
#: The name of the form's field that holds the signature.
FORM_FIELD = "form"
#: Tokens that people choose are at least so long.
_TOKEN_LETTERS = 16
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine only.

    >>> [is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "10.1.2.3", "pc7")]
    [True, True, True, False, False, False]
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def token_for(host: str, token: str) -> str:
    """The token to ask for: none on this machine's own address unless one is given, elsewhere a new one.

    Raises
    ------
    JobError
        When the given one is too short to keep anybody out.
    """
    if token and len(token) < _TOKEN_LETTERS:
        raise JobError(
            f"--token has {len(token)} characters, expected at least {_TOKEN_LETTERS}; without it one is made"
        )
    return token or ("" if is_loopback(host) else secrets.token_urlsafe(24))


class Access:
    """Signs sessions and forms, and looks whether a request may pass."""

    def __init__(self, folder: Path, token: str) -> None:
        self._key = _key(folder / "key")
        self._token = token

    def session(self, request: Request) -> str:
        """The request's session; empty where it has none that is ours."""
        value = request.cookies.get(COOKIE, "")
        session, _, signature = value.partition(".")
        return session if session and self._same(signature, self._signature("session", session)) else ""

    def owner(self, session: str) -> str:
        """What stands on disk for a session: nobody can make the cookie of it."""
        return hashlib.sha256(session.encode()).hexdigest()[:32]

    def form_value(self, session: str) -> str:
        """What a form of this session holds."""
        return self._signature("form", session)

    def expect_form(self, request: Request, fields: Mapping[str, str]) -> str:
        """The session that sent a form of ours.

        Raises
        ------
        RefusedError
            When the form comes from another page, or its session is over.
        """
        session = self.session(request)
        origin = request.headers.get("origin", "")
        foreign = origin != "" and urlsplit(origin).netloc != request.headers.get("host", "")
        if not session or foreign or not self._same(fields.get(FORM_FIELD, ""), self.form_value(session)):
            raise RefusedError("The page was open for too long, or the form is not this page's: reload it.", 403)
        return session

    def knows(self, token: str) -> bool:
        """Whether it is the token; always where none is asked for."""
        return not self._token or self._same(token, self._token)

    def welcome(self, response: Response, *, secure: bool, seconds: int) -> None:
        """Give a browser a new session."""
        session = secrets.token_urlsafe(24)
        value = f"{session}.{self._signature('session', session)}"
        response.set_cookie(COOKIE, value, httponly=True, samesite="strict", secure=secure, path="/", max_age=seconds)

    def _signature(self, purpose: str, text: str) -> str:
        # the token is part of what is signed: whoever changes it ends the sessions that the old one opened
        message = "\0".join((purpose, self._token, text)).encode()
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()

    @staticmethod
    def _same(one: str, other: str) -> bool:
        return hmac.compare_digest(one.encode(), other.encode())


def _key(path: Path) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(secrets.token_bytes(32))
    except FileExistsError:
        pass
    key = path.read_bytes()
    if len(key) != 32:
        raise JobError(f"{path} is not the key that a server wrote; remove it")
    return key


class SafeHeaders:
    """ASGI middleware: every answer carries :data:`HEADERS`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the application does, with the headers added."""

        async def send_safe(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_safe if scope["type"] == "http" else send)


class EndsQuietly:
    """ASGI middleware: a request that is cut off when the server stops leaves no traceback in its log."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the application does; where it is cancelled before that, say that the server stops."""
        started = False

        async def send_noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, send_noted)
        except asyncio.CancelledError:
            if not started and scope["type"] == "http":
                await PlainTextResponse("The server stops; load the page again.", 503)(scope, receive, send)
