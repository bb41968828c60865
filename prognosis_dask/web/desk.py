"""The queue: scans are taken in the order in which they came, as many at once as the cluster has threads."""

from __future__ import annotations

import logging
import pickle
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from prognosis_dask.cohort.case import Case, short_hash
from prognosis_dask.errors import CaseError, ClusterError, PrognosisError
from prognosis_dask.execution.task import run_task, stop_case
from prognosis_dask.web.errors import RefusedError, sentence, without_identifiers
from prognosis_dask.web.model import ServedModel
from prognosis_dask.web.result import warm_here
from prognosis_dask.web.scans import OPEN, Scan
from prognosis_dask.web.warm import Warm, run_warm
from prognosis_dask.web.work import (
    Bench,
    ChoiceNeeded,
    ScanFailed,
    case_name,
    finished_steps,
    steps,
    work_on,
)

_log = logging.getLogger("prognosis_dask.web")
#: Seconds between two rounds that remove what is too old.
_ROUND_SECONDS = 30.0
_CANNOT = "The model cannot be used on this scan: "


@dataclass
class _Running:
    step: str = "read"
    began: float = field(default_factory=time.monotonic)
    cancelled: bool = False


class Desk:
    """Takes scans, keeps their order, has them worked on, and says how far they are."""

    def __init__(self, bench: Bench, models: dict[str, ServedModel]) -> None:
        self.bench, self.models = bench, models
        self._scans = bench.scans
        self._queue: list[str] = []
        self._running: dict[str, _Running] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._threads: list[threading.Thread] = []

    def open(self) -> None:
        """Begin to work; scans that a former server did not finish come first."""
        self._resume()
        workers = self.bench.client.scheduler_info(n_workers=-1)["workers"].values()
        slots = max(1, sum(int(worker["nthreads"]) for worker in workers))
        jobs = [self._warm_up, *[self._serve] * slots, self._clean]
        self._threads = [threading.Thread(target=job, daemon=True, name=f"desk-{n}") for n, job in enumerate(jobs)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Take no more scans. Those at work stay ``running`` on disk: the next server goes on with them."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def join(self) -> None:
        """After :meth:`close`: wait until the scans at work have ended."""
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
                self.bench.client.run(stop_case, short_hash(case_name(scan_id)), on_error="ignore")
        else:
            self._scans.remove_upload(scan_id)

    def place(self, scan_id: str) -> int | None:
        """The scan's place in the queue, 1 for the next; None where it does not wait."""
        with self._changed:
            return self._queue.index(scan_id) + 1 if scan_id in self._queue else None

    def is_full(self) -> bool:
        """Whether the queue takes no more."""
        with self._changed:
            return len(self._queue) >= self.bench.limits.queue

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
            # region first; then radiomics and network run side by side
            side = [name for name in open_steps if name in ("radiomics", "deep")]
            now = side if open_steps and open_steps[0] in ("radiomics", "deep") else open_steps[:1]
            states |= dict.fromkeys(now, "running")
        return [{"name": name, "label": label, "state": states[name]} for name, label in named.items()]

    def _done(self, scan: Scan, running: _Running | None, named: list[str]) -> set[str]:
        if scan.state == "done":
            return set(named)
        if running is None or running.step == "read":
            return set()
        done = {"read"} | finished_steps(self.bench, scan.id)
        return done | set(named[:-1]) if running.step == "predict" else done

    def _resume(self) -> None:
        for scan in self._scans.all():
            if scan.state not in OPEN:
                continue
            upload = self._scans.upload(scan.id)
            if scan.model not in self.models or not upload.is_dir():
                why = "its model is not served any more" if upload.is_dir() else "its files are gone"
                self._scans.change(
                    scan.id, state="failed", message=f"The server was started anew, and {why}; upload again."
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
                    # what was removed while it was at work may have been written anew
                    tidy = self._scans.remove_upload if self._scans.get(scan.id) else self._scans.remove
                    tidy(scan.id)

    def _work(self, scan: Scan, running: _Running) -> None:
        def tell(step: str) -> None:
            running.step = step

        ended: dict[str, object]
        try:
            work_on(scan, self.models[scan.model], self.bench, tell)
            ended = {"state": "done"}
        except ChoiceNeeded as needed:
            self._scans.change(scan.id, only=("running",), state="choose", choices=needed.choices)
            return
        except RefusedError as error:
            ended = {"state": "failed", "message": str(error)}
        except (ScanFailed, CaseError) as error:
            secrets = error.secrets if isinstance(error, ScanFailed) else ()
            message = sentence(error.problem.code, error.problem.reason, secrets)
            ended = {"state": "failed", "message": message}
        except ClusterError:
            ended = {"state": "failed", "message": "The cluster is not to be reached; upload again once it is back."}
        except PrognosisError as error:
            _log.error("scan %s: %s", short_hash(scan.id), type(error).__name__)
            ended = {"state": "failed", "message": _CANNOT + without_identifiers(str(error))}
        except Exception as error:  # whatever it is, its reader gets a sentence, and the log a place without contents
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}:{place.lineno}"
            _log.error("scan %s: %s in %s", short_hash(scan.id), type(error).__name__, where)
            ended = {"state": "failed", "message": f"Something was not foreseen ({type(error).__name__}, {where})."}
        if self._closing and ended["state"] == "failed":
            return  # the cluster went with the server: the next one goes on
        self._scans.change(scan.id, only=("running",), finished=time.time(), **ended)

    def _warm_up(self) -> None:
        """Have every worker load what it will need, so that the first upload does not wait for it."""
        client = self.bench.client
        case = Case("warm", "warm", "", "", "", "")
        with suppress(Exception):
            for model in self.models.values():
                warm_here(model)
                work = pickle.dumps((run_warm, Warm(model.job)))
                workers = list(client.scheduler_info(n_workers=-1)["workers"])
                futures = [
                    client.submit(run_task, "warm", work, (case,), ("",), 120.0, workers=[worker], pure=False)
                    for worker in workers
                ]
                client.gather(futures)

    def _clean(self) -> None:
        while True:
            with suppress(OSError):
                self._scans.remove_old(self.bench.limits.keep_upload_seconds)
            with self._changed:
                if self._changed.wait_for(lambda: self._closing, timeout=_ROUND_SECONDS):
                    return
