"""The queue of scans: in order of arrival, as many at once as the cluster has threads, each taken to its result."""

from __future__ import annotations

import json
import logging
import pickle
import shutil
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from distributed import Client

from prognosis_dask.cohort.case import Case, read_cases, short_hash
from prognosis_dask.cohort.series import SUFFIX
from prognosis_dask.errors import CaseError, ClusterError, PrognosisError, count
from prognosis_dask.execution.task import run_task, stop_case
from prognosis_dask.features.registry import stages_of
from prognosis_dask.prediction.compose import warm_drawings
from prognosis_dask.prediction.dicom import FILES
from prognosis_dask.prediction.model import ScanModel
from prognosis_dask.prediction.resolve import ScanFiles
from prognosis_dask.prediction.result import without_identifiers
from prognosis_dask.prediction.steps import (
    ChoiceNeeded,
    ScanContext,
    dicom_files,
    finished_steps,
    predict_files,
    steps,
    warm_up,
)
from prognosis_dask.web.scans import OPEN, Scan, Scans
from prognosis_dask.web.settings import Limits, RefusedError, sentence
from prognosis_dask.web.upload import ReceivedFile, Unpacked, unpack

_log = logging.getLogger("prognosis_dask.web")
#: Seconds between two rounds that remove what is too old.
_ROUND_SECONDS = 30.0
#: The folder of a mask that was sent later, as it came.
ADDED = "added"
_CANNOT = "The model cannot be used on this scan: "


def case_name(scan_id: str) -> str:
    """The case's identifier, which stands where a patient's would."""
    return f"scan-{scan_id}"


@dataclass
class _Running:
    step: str = "read"
    began: float = field(default_factory=time.monotonic)
    cancelled: bool = False


class ScanQueue:
    """Takes scans, keeps their order, has them worked on, and says how far they are."""

    def __init__(self, client: Client, scans: Scans, limits: Limits, models: dict[str, ScanModel]) -> None:
        self.models = models
        self._client, self._scans, self._limits = client, scans, limits
        self._queue: list[str] = []
        self._running: dict[str, _Running] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._making = threading.Lock()
        self._threads: list[threading.Thread] = []

    def open(self) -> None:
        """Begin to work; scans that a former server did not finish come first."""
        self._resume()
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        slots = max(1, sum(int(worker["nthreads"]) for worker in workers))
        jobs = [self._warm_up, *[self._serve] * slots, self._clean]
        self._threads = [threading.Thread(target=job, daemon=True, name=f"scans-{n}") for n, job in enumerate(jobs)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Take no more scans. Those in progress stay ``running`` on disk: the next server goes on with them."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def join(self) -> None:
        """After :meth:`close`: wait until the scans in progress have ended."""
        for thread in self._threads:
            thread.join()

    def submit(self, scan: Scan) -> None:
        """Put a scan at the end of the queue."""
        with self._changed:
            self._queue.append(scan.id)
            self._changed.notify_all()

    def choose(self, scan_id: str, chosen: int) -> bool:
        """The reader has chosen a structure: the scan goes to the front, since its turn had come."""
        scan = self._scans.get(scan_id)
        if scan is None or not 0 <= chosen < len(scan.choices):
            return False
        with self._changed:
            if self._scans.change(scan_id, only=("choose",), state="waiting", chosen=chosen) is None:
                return False
            self._queue.insert(0, scan_id)
            self._changed.notify_all()
        return True

    def add_mask(self, scan_id: str, added: tuple[tuple[str, str, str], ...], received: Path) -> bool:
        """Put a scan back into the queue with a mask that came in the folder ``received``; whether that can be."""
        with self._changed:
            if not self.takes_mask(self._scans.get(scan_id)):
                return False
            # what a server that ends here leaves behind: no result that is said to be there
            self._scans.change(scan_id, state="failed", message="The mask did not come in whole; send it again.")
            self._scans.forget_result(scan_id)
            target = self._scans.upload(scan_id) / ADDED
            shutil.rmtree(target, ignore_errors=True)
            received.rename(target)
            self._scans.change(
                scan_id, state="waiting", added=added, choices=(), chosen=None, message="", finished=None, restarts=0
            )
            self._queue.append(scan_id)
            self._changed.notify_all()
        return True

    def takes_mask(self, scan: Scan | None) -> bool:
        """Whether a mask can be added to a scan: its images are still here, and nothing works on them."""
        if scan is None or scan.state not in ("done", "failed", "choose") or scan.model not in self.models:
            return False
        return (self._scans.upload(scan.id) / "unpacked.json").is_file()

    def cancel(self, scan_id: str) -> None:
        """End the work on a scan, whether it waits or runs, and remove its upload."""
        with self._changed:
            if scan_id in self._queue:
                self._queue.remove(scan_id)
            running = self._running.get(scan_id)
            if running is not None:
                running.cancelled = True
            self._scans.change(
                scan_id,
                only=("waiting", "running", "choose"),
                state="cancelled",
                finished=time.time(),
                message="Cancelled.",
            )
        if running is not None:
            with suppress(OSError, ValueError):
                self._client.run(stop_case, short_hash(case_name(scan_id)), on_error="ignore")
        else:
            self._scans.remove_upload(scan_id)

    def place(self, scan_id: str) -> int | None:
        """The scan's place in the queue, 1 for the next; None where it does not wait."""
        with self._changed:
            return self._queue.index(scan_id) + 1 if scan_id in self._queue else None

    def is_dicom(self, scan: Scan) -> bool:
        """Whether a scan's image is a DICOM series that is still here."""
        case = self._scans.upload(scan.id) / "run" / "case.csv"
        return case.is_file() and any(one.image.endswith(SUFFIX) for one in read_cases(case))

    def dicom(self, scan: Scan) -> list[Path]:
        """The DICOM objects of a scan that is done, made when they are first asked for; they go with its upload.

        Raises
        ------
        RefusedError
            When the upload is gone, or was not DICOM, or the scan was changed meanwhile.
        """
        upload, model = self._scans.upload(scan.id), self.models.get(scan.model)
        made = [upload / "dicom" / name for name in FILES]
        with self._making:  # of two requests at once the second one gets the first one's objects
            if all(path.is_file() for path in made):
                return made
            if model is None or not self.is_dicom(scan):
                raise RefusedError(
                    "DICOM objects are made of an upload that is DICOM, as long as it is not removed.", 410
                )
            try:
                dicom_files(model, self._scans.result(scan.id), self._context(scan), upload / "dicom")
            except CaseError as error:
                reason = sentence(error.problem.code, error.problem.reason, getattr(error, "secrets", ()))
                raise RefusedError(f"No DICOM objects of this scan. {reason}", 409) from error
            with self._changed:
                now = self._scans.change(scan.id)  # once all that removes something of it is through
                if now is not None and not now.upload_removed and now.finished == scan.finished:
                    return made
                shutil.rmtree(upload / "dicom", ignore_errors=True)
        if now is None:
            self._scans.remove(scan.id)
        elif now.upload_removed:
            self._scans.remove_upload(scan.id)
        raise RefusedError("The scan was changed meanwhile; ask again once it is done.", 409)

    def is_full(self) -> bool:
        """Whether the queue takes no more."""
        with self._changed:
            return len(self._queue) >= self._limits.queue

    def progress(self, scan: Scan) -> list[dict[str, str]]:
        """The steps of a scan: ``name``, ``label`` and ``state`` (``waiting``, ``running``, ``done``)."""
        model = self.models.get(scan.model)
        if model is None:
            return []
        named = steps(model)
        running = self._running.get(scan.id)
        done = self._done(scan, running, list(named))
        states = {name: "done" if name in done else "waiting" for name in named}
        if running is not None and scan.state == "running":
            open_steps = [name for name in named if name not in done]
            # a stage runs as soon as those that it needs are done, beside others
            needs = {stage.name: stage.needs for stage in stages_of(model.job)}
            ready = [name for name in open_steps if name in needs and not {*needs[name]} & {*open_steps}]
            now = ready if open_steps and open_steps[0] in needs else open_steps[:1]
            states |= dict.fromkeys(now, "running")
        return [{"name": name, "label": label, "state": states[name]} for name, label in named.items()]

    def _done(self, scan: Scan, running: _Running | None, named: list[str]) -> set[str]:
        if scan.state == "done":
            return set(named)
        if running is None or running.step == "read":
            return set()
        done = {"read"} | finished_steps(self._scans.upload(scan.id))
        return done | set(named[:-1]) if running.step == "predict" else done

    def _resume(self) -> None:
        for scan in self._scans.all():
            if scan.state not in OPEN:
                continue
            upload = self._scans.upload(scan.id)
            if scan.model not in self.models or not upload.is_dir():
                why = "its model is not served any more" if upload.is_dir() else "its files are gone"
                self._scans.change(
                    scan.id, state="failed", message=f"The server was restarted, and {why}; upload again."
                )
                continue
            self._scans.change(scan.id, state="waiting", restarts=scan.restarts + 1)
            self._queue.append(scan.id)

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closing)
                if self._closing:
                    return
                scan = self._scans.change(self._queue.pop(0), only=("waiting",), state="running")
                if scan is None:
                    continue
                running = self._running[scan.id] = _Running()
            try:
                self._work(scan, running)
            finally:
                with self._changed:
                    self._running.pop(scan.id, None)
                if running.cancelled:
                    # files that were removed while it ran may have been written anew
                    tidy = self._scans.remove_upload if self._scans.get(scan.id) else self._scans.remove
                    tidy(scan.id)

    def _work(self, scan: Scan, running: _Running) -> None:
        def tell(step: str) -> None:
            running.step = step

        ended: dict[str, object]
        try:
            self._predict(scan, tell)
            ended = {"state": "done"}
        except ChoiceNeeded as needed:
            self._scans.change(scan.id, only=("running",), state="choose", choices=needed.choices)
            return
        except RefusedError as error:
            ended = {"state": "failed", "message": str(error)}
        except CaseError as error:
            message = sentence(error.problem.code, error.problem.reason, getattr(error, "secrets", ()))
            ended = {"state": "failed", "message": message}
        except ClusterError:
            ended = {"state": "failed", "message": "The cluster cannot be reached; upload again once it is back."}
        except PrognosisError as error:
            _log.error("scan %s: %s", short_hash(scan.id), type(error).__name__)
            ended = {"state": "failed", "message": _CANNOT + without_identifiers(str(error))}
        except Exception as error:  # whatever it is, its reader gets a sentence, and the log a place without contents
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}:{place.lineno}"
            _log.error("scan %s: %s in %s", short_hash(scan.id), type(error).__name__, where)
            ended = {"state": "failed", "message": f"Unexpected error ({type(error).__name__}, {where})."}
        if self._closing and ended["state"] == "failed":
            return  # the cluster went with the server: the next one goes on
        self._scans.change(scan.id, only=("running",), finished=time.time(), **ended)

    def _predict(self, scan: Scan, tell: Callable[[str], None]) -> None:
        """Take a scan to its result, which is written; what is finished of it already is not done again."""
        model, upload = self.models[scan.model], self._scans.upload(scan.id)
        tell("read")
        unpacked = self._unpacked(scan.files, upload / "received", upload / "files", upload / "unpacked.json")
        ignored = unpacked.ignored
        sources: tuple[str, ...] = (str(upload / "files"),)
        mask = str(upload / "files" / unpacked.mask) if unpacked.mask else ""
        if scan.added:
            if mask:
                Path(mask).unlink(missing_ok=True)  # it is replaced
            later = self._unpacked(scan.added, upload / ADDED, upload / "mask", upload / "mask.json")
            sources, mask = (*sources, str(upload / "mask")), str(upload / "mask" / later.mask) if later.mask else ""
        files = ScanFiles(
            sources,
            mask,
            scan.roi,
            scan.chosen,
            scan.clinical,
            notes=(f"{count(ignored, 'file')} of the upload: no image, left out.",) if ignored else (),
        )
        found = predict_files(model, files, replace(self._context(scan), tell=tell))
        nameless = replace(found, scan=replace(found.scan, name=None, files=None))
        self._scans.put_result(scan.id, nameless.plain())

    def _context(self, scan: Scan) -> ScanContext:
        upload, seconds = self._scans.upload(scan.id), self._limits.case_seconds
        return ScanContext(self._client, case_name(scan.id), upload, self._scans.path(scan.id), seconds)

    def _unpacked(self, files: tuple[tuple[str, str, str], ...], received: Path, folder: Path, note: Path) -> Unpacked:
        """The images of what was received, in the folder; a server that ended in the middle of it begins anew."""
        if not note.is_file():
            parts = [ReceivedFile(received / name, part, sequence) for name, part, sequence in files]
            shutil.rmtree(folder, ignore_errors=True)
            unpacked = unpack(parts, folder, self._limits)
            note.write_text(json.dumps(asdict(unpacked)), encoding="utf-8")
            shutil.rmtree(received)
        return Unpacked(**json.loads(note.read_text(encoding="utf-8")))

    def _warm_up(self) -> None:
        """Have every worker load what it will need, so that the first upload does not wait for it."""
        client = self._client
        case = Case("warm", "warm", "", "", "", "")
        with suppress(Exception):
            for model in self.models.values():
                warm_drawings(model)
                work = pickle.dumps((warm_up, model.job))
                workers = list(client.scheduler_info(n_workers=-1)["workers"])
                futures = [
                    client.submit(run_task, "warm", work, (case,), ("",), 120.0, workers=[worker], pure=False)
                    for worker in workers
                ]
                client.gather(futures)

    def _clean(self) -> None:
        while True:
            with suppress(OSError):
                self._scans.remove_old(self._limits.keep_upload_seconds)
            with self._changed:
                if self._changed.wait_for(lambda: self._closing, timeout=_ROUND_SECONDS):
                    return
