"""The scans that were uploaded, each in a folder of its own: what it is, how far it is, what was found.

One folder per scan, named by a secret of 128 bits, which is also its address::

    scan.json      its state, see :class:`Scan`; without it the upload never came to its end
    result.json    what was found, once it is done
    *.svg, *.png   drawings and pictures; slices.zarr: the slices
    upload/        the files as they came, unpacked, and the run's folder on them: removed after an hour

Nothing but ``upload/`` holds an identifier of the patient.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from prognosis_dask.publish import replacing

#: ``choose``: it holds several structures, and waits for its reader to say which one is meant.
State = Literal["waiting", "running", "choose", "done", "failed", "cancelled"]
#: The states in which the program still has work to do on a scan.
OPEN: Final = ("waiting", "running")
_ID = re.compile(r"[A-Za-z0-9_-]{22}")
_FOLDER = 0o700
#: What of an upload's folder was made of the files.
_MADE: Final = ("index", "run", "dicom", "mask", "mask.json")


@dataclass(frozen=True)
class Scan:
    """One upload.

    Attributes
    ----------
    id
        Its address; whoever has it sees the scan.
    owner
        The digest of the browser's session that sent it.
    model
        Key of the model that was chosen.
    state
        See :data:`State`.
    created, finished
        Seconds since 1970.
    roi
        The ROI's name that was asked for; empty where none was.
    clinical
        The values that were given of the model's clinical columns.
    files
        What was received: name on disk, field of the form, MR sequence.
    added
        The same of a mask that was sent later.
    label
        What its reader calls it.
    choices, chosen
        Structures to choose from, and the place of the one that was.
    message
        Why it failed, or what its reader should know.
    restarts
        How often the server was started anew while it was not done.
    upload_removed
        Whether the files are gone.
    """

    id: str
    owner: str
    model: str
    state: State = "waiting"
    created: float = 0.0
    finished: float | None = None
    roi: str = ""
    clinical: dict[str, str] = field(default_factory=dict)
    files: tuple[tuple[str, str, str], ...] = ()
    added: tuple[tuple[str, str, str], ...] = ()
    label: str = ""
    choices: tuple[str, ...] = ()
    chosen: int | None = None
    message: str = ""
    restarts: int = 0
    upload_removed: bool = False
    seconds: dict[str, float] = field(default_factory=dict)


class Scans:
    """The scans on disk. Every change is whole or not at all; used from any thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.RLock()
        folder.mkdir(parents=True, exist_ok=True, mode=_FOLDER)
        self._known: dict[str, Scan] = {scan.id: scan for scan in self._read()}

    def new_folder(self) -> tuple[str, Path]:
        """A new address, and the folder that its upload is received into."""
        scan_id = secrets.token_urlsafe(16)
        self.path(scan_id).mkdir(mode=_FOLDER)
        self.upload(scan_id).mkdir(mode=_FOLDER)
        return scan_id, self.upload(scan_id)

    def path(self, scan_id: str) -> Path:
        """The scan's folder."""
        if not _ID.fullmatch(scan_id):
            raise KeyError(scan_id)
        return self.folder / scan_id

    def upload(self, scan_id: str) -> Path:
        """Where its files are, and all that is made on the way."""
        return self.path(scan_id) / "upload"

    def get(self, scan_id: str) -> Scan | None:
        """The scan, or None where there is none."""
        return self._known.get(scan_id)

    def all(self) -> list[Scan]:
        """All scans, the oldest first."""
        with self._lock:
            return sorted(self._known.values(), key=lambda scan: (scan.created, scan.id))

    def put(self, scan: Scan) -> Scan:
        """Write a new scan."""
        with self._lock:
            _write_json(self.path(scan.id) / "scan.json", asdict(scan))
            self._known[scan.id] = scan
            return scan

    def change(self, scan_id: str, *, only: tuple[State, ...] = (), **changes: Any) -> Scan | None:
        """Change a scan, where it is (still) there and in one of the states ``only``; None where it is not."""
        with self._lock:
            scan = self._known.get(scan_id)
            if scan is None or (only and scan.state not in only):
                return None
            return self.put(replace(scan, **changes))

    def result(self, scan_id: str) -> dict[str, Any]:
        """What was found."""
        found: dict[str, Any] = json.loads((self.path(scan_id) / "result.json").read_text(encoding="utf-8"))
        return found

    def put_result(self, scan_id: str, result: dict[str, Any]) -> None:
        """Write what was found."""
        _write_json(self.path(scan_id) / "result.json", result)

    def forget_result(self, scan_id: str) -> None:
        """Remove what was found, and what was made on the way to it; the files that were sent stay."""
        with self._lock:
            for path in (*self.path(scan_id).iterdir(), *(self.upload(scan_id) / name for name in _MADE)):
                if path.name in ("scan.json", "upload"):
                    continue
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def remove_upload(self, scan_id: str) -> None:
        """Remove the files that were sent, and what was made on the way to the result."""
        with self._lock:
            if self.upload(scan_id).exists():
                shutil.rmtree(self.upload(scan_id), ignore_errors=True)
            self.change(scan_id, upload_removed=True)

    def remove(self, scan_id: str) -> None:
        """Remove the scan with all that belongs to it."""
        with self._lock:
            self._known.pop(scan_id, None)
            shutil.rmtree(self.path(scan_id), ignore_errors=True)

    def remove_old(self, seconds: float) -> None:
        """Remove the uploads that are older; those in progress are left until they are done."""
        now = time.time()
        for scan in self.all():
            if scan.upload_removed or scan.state in OPEN or now - scan.created < seconds:
                continue
            self.remove_upload(scan.id)
            self.change(
                scan.id, only=("choose",), state="failed", message="Nobody said which structure is meant; upload again."
            )
        for path in self.folder.iterdir():
            # received by half, or removed by half
            if _ID.fullmatch(path.name) and path.name not in self._known:
                with suppress(OSError):
                    if now - path.stat().st_mtime > seconds:
                        shutil.rmtree(path, ignore_errors=True)

    def _read(self) -> Iterator[Scan]:
        for path in self.folder.glob("*/scan.json"):
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
                for name in ("files", "added"):
                    content[name] = tuple(tuple(file) for file in content.get(name, ()))
                content["choices"] = tuple(content["choices"])
                yield Scan(**content)
            except (OSError, ValueError, TypeError, KeyError):
                continue  # of another version: not ours to touch


def _write_json(path: Path, content: Any) -> None:
    with replacing(path) as aside, aside.open("w", encoding="utf-8") as stream:
        json.dump(content, stream, indent=1, allow_nan=False)
        stream.flush()
        os.fsync(stream.fileno())
