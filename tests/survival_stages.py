"""The product's stages, with a fault for chosen cases: what a case, a library or an operator can do to a process."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from prognosis_dask.cohort.case import Case
from prognosis_dask.features.guard import guarded
from prognosis_dask.features.registry import RADIOMICS, ROI
from prognosis_dask.features.stage import StageContext
from prognosis_dask.storage.ledger import TaskResult
from prognosis_dask.storage.rois import RoiStore


@dataclass(frozen=True)
class Faults:
    """``planted``: (stage, case_id, name of a fault below). ``marks``: a folder with a letter per visit."""

    context: StageContext
    marks: str
    planted: tuple[tuple[str, str, str], ...] = ()


def run_roi(cases: tuple[Case, ...], digests: tuple[str, ...], faults: Faults) -> list[TaskResult]:
    return _run("roi", ROI.load().run, cases, digests, faults)


def run_radiomics(cases: tuple[Case, ...], digests: tuple[str, ...], faults: Faults) -> list[TaskResult]:
    return _run("radiomics", RADIOMICS.load().run, cases, digests, faults)


def _run(stage: str, function: Callable, cases: tuple[Case, ...], digests: tuple[str, ...], faults: Faults):
    outcomes = []
    for case, digest in zip(cases, digests, strict=True):
        first = not visits(faults, stage, case)
        with (Path(faults.marks) / f"{stage}-{case.case_id}").open("a") as stream:
            stream.write("x")
        for where, case_id, fault in faults.planted:
            if (where, case_id) == (stage, case.case_id) and (first or not fault.endswith("once")):
                outcomes += FAULTS[fault](stage, case, digest, faults) or []
        outcomes += function((case,), (digest,), faults.context) if len(outcomes) <= cases.index(case) else []
    return outcomes


def visits(faults: Faults, stage: str, case: Case) -> int:
    path = Path(faults.marks) / f"{stage}-{case.case_id}"
    return len(path.read_text()) if path.exists() else 0


def _hang(*_: object) -> NoReturn:
    """Without end, and without the interpreter: nothing in the process can stop it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    os.kill(os.getpid(), signal.SIGSTOP)
    raise AssertionError("stopped processes go no further")


def _segfault(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _exit(*_: object) -> NoReturn:
    os._exit(3)


def _eat(*_: object) -> NoReturn:
    held = bytearray(b"x") * 1_500_000_000
    time.sleep(60)
    raise AssertionError(len(held))


def _ask_too_much(*_: object) -> None:
    bytearray(1 << 60)


def _raise(stage: str, case: Case, digest: str, _: Faults) -> list[TaskResult]:
    return [guarded(stage, case, digest, lambda watch: {"never": {}["a bug in a library"]})]


def _kill_worker(*_: object) -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(30)


def _wait(*_: object) -> None:
    time.sleep(1.0)


def _damage(_stage: str, case: Case, _digest: str, faults: Faults) -> None:
    damage(Path(faults.context.rois), case.case_id)


def damage(store: Path, case_id: str) -> None:
    """Flip some bytes in the middle of every file of the case's stored image."""
    chunks = Path(RoiStore.open(store)._crop(case_id)) / "image" / "c"
    for path in filter(Path.is_file, chunks.rglob("*")):
        content = bytearray(path.read_bytes())
        middle = len(content) // 2
        content[middle : middle + 16] = bytes(255 - byte for byte in content[middle : middle + 16])
        path.write_bytes(content)


def _overwrite(_stage: str, case: Case, _digest: str, faults: Faults) -> None:
    """As a worker does that another run, with other settings, has left at work."""
    store = RoiStore.open(faults.context.rois)
    roi, frames = store.read_roi(case.case_id), store.read_frames(case.case_id)
    store.write(case.case_id, replace(roi, mask=1 - roi.mask), 255 - frames, {}, "another run's")


FAULTS: dict[str, Callable] = {
    "overwrite once": _overwrite,
    "hang": _hang,
    "segfault": _segfault,
    "exit": _exit,
    "eat": _eat,
    "ask": _ask_too_much,
    "raise": _raise,
    "segfault once": _segfault,
    "kill worker once": _kill_worker,
    "damage once": _damage,
    "wait": _wait,
}
