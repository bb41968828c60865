"""What ``prognosis status`` prints: per stage how far the run is and how fast, and why cases failed.

Read from the run's folder alone, so it works on any machine that sees it, with a cluster or after one.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO

from prognosis_dask.cohort.case import read_cases, short_hash
from prognosis_dask.errors import StoreError, count
from prognosis_dask.execution.progress import PHASES, Progress, duration, read_progress
from prognosis_dask.features.registry import stages_in
from prognosis_dask.features.stage import all_needs
from prognosis_dask.storage.ledger import Ledger, TaskResult, driver_is_gone
from prognosis_dask.storage.place import local_copy

#: Failed cases that are named; the others are counted.
NAMED = 20
#: Seconds between two looks.
LOOK_EVERY = 2.0
#: The phases that come when all cases are through the stages.
_AFTER = ("features", "model")

_CLEAR = "\x1b[2J\x1b[H"  # ECMA-48: erase the screen, cursor to the upper left


def status(place: Path | str) -> str:
    """The state of a run in a folder or a bucket, also while it goes on.

    Raises
    ------
    StoreError
        When ``place`` holds no run.
    """
    folder = local_copy(place, state_only=True)
    return _text(folder, _read_state(folder), place)


def watch(place: Path | str, stream: TextIO | None = None, every: float = LOOK_EVERY) -> None:
    """Print the state again and again until the run has ended, or Ctrl-C.

    On a terminal it is redrawn in place, elsewhere printed anew whenever it has changed.

    Raises
    ------
    StoreError
        When ``place`` holds no run.
    """
    stream = stream or sys.stdout
    before = ""
    with suppress(KeyboardInterrupt):
        while True:
            folder = local_copy(place, state_only=True)
            state = _read_state(folder)
            text = _text(folder, state, place)
            if stream.isatty():
                print(f"{_CLEAR}{text}", file=stream, flush=True)
            elif text != before:
                print(text, file=stream, flush=True)
            if state.ended:
                return
            before = text
            time.sleep(every)


@dataclass(frozen=True)
class _State:
    cases: int
    automatic: int
    run: Mapping[str, Any]
    progress: Progress
    failures: Sequence[TaskResult]
    stopped: bool
    phase: str
    now: float

    @property
    def ended(self) -> bool:
        return bool(self.run.get("finished")) or self.stopped


def _read_state(folder: Path) -> _State:
    if not (folder / "ledger.sqlite").is_file():
        raise StoreError(f"no run in {folder}: it has no ledger.sqlite; name a folder that `prognosis run` wrote")
    run = _run(folder)
    now = time.time()
    cases, automatic = _cases(folder)
    with Ledger.read(folder / "ledger.sqlite") as ledger:
        progress = read_progress(ledger, cases, _needs(run, ledger), _started(run))
        failures = ledger.failures()
    events = _latest_events(folder)
    stopped = events[-1:] == [("run-stopped", "")] or driver_is_gone(folder / "ledger.sqlite")
    phase = next((name for event, name in reversed(events) if event == "phase"), "")
    return _State(cases, automatic, run, progress, failures, stopped, phase, now)


def _cases(folder: Path) -> tuple[int, int]:
    """How many cases there are, and how many of them came without a mask."""
    with suppress(FileNotFoundError):
        return _count_cases(folder / "cases.csv", (folder / "cases.csv").stat().st_mtime_ns)
    return 0, 0


@lru_cache(maxsize=1)
def _count_cases(table: Path, changed: int) -> tuple[int, int]:
    """Read once while the table stays as it is: with many patients this is most of a look's work."""
    cases = read_cases(table)
    return len(cases), sum(not case.mask for case in cases)


def _run(folder: Path) -> dict[str, Any]:
    """``run.json``, empty where there is none yet; its driver replaces it whole, so it is never half."""
    with suppress(FileNotFoundError, json.JSONDecodeError):
        run: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        return run
    return {}


def _started(run: Mapping[str, Any]) -> float:
    with suppress(KeyError, ValueError, TypeError):
        return datetime.fromisoformat(run["started"]).timestamp()
    return 0.0


def _latest_events(folder: Path) -> list[tuple[str, str]]:
    """The last that the driver wrote to its journal, in order: the event, and the name where it has one."""
    events = []
    with suppress(OSError), (folder / "log.jsonl").open("rb") as stream:
        stream.seek(max(0, (folder / "log.jsonl").stat().st_size - 4096))
        for line in stream.read().splitlines():
            with suppress(json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):  # the first may be cut
                event = json.loads(line)
                events.append((str(event["event"]), str(event.get("name", ""))))
    return events


def _text(folder: Path, state: _State, place: Path | str) -> str:
    lines = [f"{place}: {count(state.cases, 'case')}, {_progress(state)}"]
    lines += [f"{count(state.automatic, 'case')} without a mask: their region is automatic"] if state.automatic else []
    lines.append(f"{'stage':<12}{'done':>8}{'failed':>8}{'waiting':>9}{'per min':>9}{'time left':>12}")
    lines += [_line(stage, state) for stage in state.progress.stages]
    for result in state.failures[:NAMED]:
        if result.problem:
            hashed = short_hash(result.case_id)
            problem = f"{result.problem.code}: {result.problem.reason}"
            lines.append(f"  {result.case_id} ({result.stage}, {hashed}): {problem}")
    if len(state.failures) > NAMED:
        lines.append(f"  and {len(state.failures) - NAMED} more in problems.csv")
    return "\n".join([*lines, *_of_model(folder, state)])


def _of_model(folder: Path, state: _State) -> list[str]:
    """What became of the model, once the run has finished: why there is none, or what it was learnt from instead."""
    if not state.run.get("finished"):
        return []
    if not (state.run.get("job", {}).get("model") or {}).get("enabled", True):
        return ["no model: the job has it switched off (model.enabled)"]
    with suppress(OSError, json.JSONDecodeError):
        summary = json.loads((folder / "models" / "summary.json").read_text(encoding="utf-8"))
        if "not_fitted" in summary:
            return [f"no model: {summary['not_fitted']}"]
        return [str(note) for note in summary.get("label", ())]
    return []


def _progress(state: _State) -> str:
    if state.run.get("finished"):
        return f"finished in {duration(state.run.get('seconds') or 0.0)}"
    if state.stopped:
        return "stopped; run the same command again to resume"
    if not state.run:
        return "starting"
    if state.phase in _AFTER:
        return f"{PHASES[state.phase]}, begun {duration(max(0.0, state.now - _started(state.run)))} ago"
    last = state.progress.history.last
    heard = f", last result {duration(max(0.0, state.now - last))} ago" if last else ""
    return f"not finished, begun {duration(max(0.0, state.now - _started(state.run)))} ago{heard}"


def _needs(run: Mapping[str, Any], ledger: Ledger) -> dict[str, tuple[str, ...]]:
    """The stages of the run, and those that the ledger holds besides, with all that they need."""
    needs = {stage.name: stage.needs for stage in stages_in(run)} if run.get("job") else {}
    return all_needs({**needs, **{stage: () for stage in ledger.counts() if stage not in needs}})


def _line(stage: str, state: _State) -> str:
    counts = state.progress.stages[stage]
    rate = None if state.ended else state.progress.rate(stage, state.now)
    left = None if state.ended else state.progress.seconds_left(stage, state.now)
    speed = f"{60 * rate:.3g}" if rate and counts.waiting else "-"
    ready = "done" if not counts.waiting else "-" if left is None else duration(left)
    return f"{stage:<12}{counts.done:>8}{counts.failed:>8}{counts.waiting:>9}{speed:>9}{ready:>12}"
