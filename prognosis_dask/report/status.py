"""What ``prognosis status`` prints: per stage how far the run is and how fast, and why cases failed.

Read from the run's folder alone, so it works on any machine that sees it, with a cluster or after one.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO

from prognosis_dask.cohort.case import read_cases, short_hash
from prognosis_dask.errors import StoreError, count
from prognosis_dask.execution.tally import duration
from prognosis_dask.storage.ledger import Ledger, Pace, StageCounts
from prognosis_dask.storage.lock import driver_is_gone
from prognosis_dask.storage.outcome import Outcome

#: Failed cases that are named; the others are counted.
NAMED = 20
#: Seconds over which the rate is taken, and between two looks.
WINDOW = 120.0
LOOK_EVERY = 2.0
#: The stages in the order in which a case passes them, and the section of the job that turns them on.
STAGES = {"brain": "brain", "roi": None, "radiomics": "radiomics", "deep": "deep"}

#: What comes when all cases are through them, as the driver calls it in its journal.
_AFTER = {"features": "collecting the features", "model": "fitting and validating the model"}

_CLEAR = "\x1b[2J\x1b[H"  # ECMA-48: erase the screen, cursor to the upper left


def status(folder: Path) -> str:
    """The state of a run, also while it goes on.

    Raises
    ------
    StoreError
        When ``folder`` holds no run.
    """
    return _text(folder, _look(folder))


def watch(folder: Path, stream: TextIO | None = None, every: float = LOOK_EVERY) -> None:
    """Print the state again and again until the run has ended, or Ctrl-C.

    On a terminal it is redrawn in place, elsewhere printed anew whenever it has changed.

    Raises
    ------
    StoreError
        When ``folder`` holds no run.
    """
    stream = stream or sys.stdout
    before = ""
    with suppress(KeyboardInterrupt):
        while True:
            state = _look(folder)
            text = _text(folder, state)
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
    run: Mapping[str, Any]
    counts: Mapping[str, StageCounts]
    failures: list[Outcome]
    pace: Mapping[str, Pace]
    stopped: bool
    phase: str
    now: float

    @property
    def ended(self) -> bool:
        return bool(self.run.get("finished")) or self.stopped

    def waiting(self, stage: str) -> int:
        """Cases that the stage has still to take, those left out that failed before it."""
        count = self.counts.get(stage, _NOTHING)
        before = {"brain": (), "roi": ("brain",)}.get(stage, ("brain", "roi"))
        failed_before = sum(self.counts.get(name, _NOTHING).failed for name in before)
        return max(0, self.cases - failed_before - count.done - count.failed)

    def per_second(self, stage: str) -> float | None:
        """The rate since the first outcome in the window; None where that says nothing."""
        pace = self.pace.get(stage)
        if self.ended or pace is None or pace.count < 2 or self.now - pace.first < 1.0:
            return None
        return (pace.count - 1) / (self.now - pace.first)

    def seconds_left(self, stage: str) -> float | None:
        """At the present rate, but not before the stages that come first are through."""
        left = []
        for name in {"roi", stage, *({"brain"} & self.counts.keys())}:
            waiting, rate = self.waiting(name), self.per_second(name)
            if waiting and not rate:
                return None
            left.append(waiting / rate if rate else 0.0)
        return max(left)


_NOTHING = StageCounts(0, 0, {})


def _look(folder: Path) -> _State:
    if not (folder / "ledger.sqlite").is_file():
        raise StoreError(f"no run in {folder}: it has no ledger.sqlite; name a folder that `prognosis run` wrote")
    run = _run(folder)
    now = time.time()
    since = max(now - WINDOW, _started(run))
    with Ledger.read(folder / "ledger.sqlite") as ledger:
        counts, failures, pace = ledger.counts(), ledger.failures(), ledger.pace(since)
    events = _latest_events(folder)
    stopped = events[-1:] == [("run-stopped", "")] or driver_is_gone(folder / "ledger.sqlite")
    phase = next((name for event, name in reversed(events) if event == "phase"), "")
    return _State(_cases(folder), run, counts, failures, pace, stopped, phase, now)


def _cases(folder: Path) -> int:
    with suppress(FileNotFoundError):
        return _count_cases(folder / "cases.csv", (folder / "cases.csv").stat().st_mtime_ns)
    return 0


@lru_cache(maxsize=1)
def _count_cases(table: Path, changed: int) -> int:
    """Read once while the table stays as it is: with many patients this is most of a look's work."""
    return len(read_cases(table))


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


def _text(folder: Path, state: _State) -> str:
    lines = [f"{folder}: {count(state.cases, 'case')}, {_progress(state)}"]
    lines.append(f"{'stage':<12}{'done':>8}{'failed':>8}{'waiting':>9}{'per min':>9}{'time left':>12}")
    lines += [_line(stage, state) for stage in _stages(state)]
    for outcome in state.failures[:NAMED]:
        if outcome.problem:
            hashed = short_hash(outcome.case_id)
            problem = f"{outcome.problem.code}: {outcome.problem.reason}"
            lines.append(f"  {outcome.case_id} ({outcome.stage}, {hashed}): {problem}")
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
        return "stopped; the same command goes on from there"
    if not state.run:
        return "starting"
    if state.phase in _AFTER:
        return f"{_AFTER[state.phase]}, begun {duration(max(0.0, state.now - _started(state.run)))} ago"
    last = max((pace.last for pace in state.pace.values()), default=None)
    heard = f", last result {duration(max(0.0, state.now - last))} ago" if last else ""
    return f"not finished, begun {duration(max(0.0, state.now - _started(state.run)))} ago{heard}"


def _stages(state: _State) -> list[str]:
    """The stages of the job, and those that the ledger holds besides."""
    job = state.run.get("job", {})
    wanted = [stage for stage, section in STAGES.items() if section is None or job.get(section, {}).get("enabled")]
    return wanted + [stage for stage in state.counts if stage not in wanted]


def _line(stage: str, state: _State) -> str:
    counts, waiting, rate = state.counts.get(stage, _NOTHING), state.waiting(stage), state.per_second(stage)
    left = state.seconds_left(stage)
    speed = f"{60 * rate:.3g}" if rate and waiting else "-"
    ready = "done" if not waiting else "-" if left is None or state.ended else duration(left)
    return f"{stage:<12}{counts.done:>8}{counts.failed:>8}{waiting:>9}{speed:>9}{ready:>12}"
