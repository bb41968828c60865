"""A run's progress on the terminal: a line per stage with count, failures, rate and time left."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

from tqdm import tqdm

from prognosis_dask.execution.progress import Progress, duration

#: Seconds between two updates on a terminal, and between two lines elsewhere (a log file, a batch system).
REDRAW_EVERY = 0.2
LOG_EVERY = 10.0

_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}"


class TerminalView:
    """Shows a progress. On a terminal its lines are redrawn in place, elsewhere printed now and then."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._bars: dict[str, tqdm[Any]] = {}
        self._shown = time.monotonic()

    def show(self, progress: Progress, now: float) -> None:
        """Show the progress, unless it was shown a moment ago; ``now`` by its history's clock."""
        if time.monotonic() - self._shown >= (REDRAW_EVERY if self._live else LOG_EVERY):
            self._show(progress, now)

    def end(self, progress: Progress, now: float) -> None:
        """Show the progress for the last time."""
        self._show(progress, now)
        for bar in self._bars.values():
            bar.close()

    def _show(self, progress: Progress, now: float) -> None:
        self._shown = time.monotonic()
        if self._live:
            for row, stage in enumerate(progress.stages):
                self._draw(row, stage, progress, now)
        elif lines := [_line(stage, progress, now) for stage, counts in progress.stages.items() if counts.total]:
            print("  ".join(lines), file=self._stream, flush=True)

    def _draw(self, row: int, stage: str, progress: Progress, now: float) -> None:
        if stage not in self._bars:
            self._bars[stage] = tqdm(
                total=progress.stages[stage].total,
                desc=f"{stage:>10}",
                position=row,
                file=self._stream,
                dynamic_ncols=True,
                bar_format=_BAR,
            )
        bar, counts = self._bars[stage], progress.stages[stage]
        failed = [f"{counts.failed} failed"] if counts.failed else []
        bar.n, bar.total = counts.done + counts.failed, counts.total
        bar.set_postfix_str(", ".join([*failed, *_speed(stage, progress, now)]))


def _line(stage: str, progress: Progress, now: float) -> str:
    counts = progress.stages[stage]
    failed = f" ({counts.failed} failed)" if counts.failed else ""
    count = f"{stage} {counts.done + counts.failed}/{counts.total}{failed}"
    return " ".join([count, ", ".join(_speed(stage, progress, now))]).rstrip()


def _speed(stage: str, progress: Progress, now: float) -> list[str]:
    """The rate and, where cases wait, the time left; nothing while they cannot be told."""
    rate, left = progress.rate(stage, now), progress.seconds_left(stage, now)
    waiting = progress.stages[stage].waiting
    return [
        *([f"{rate:.1f}/s"] if rate else []),
        *([f"{duration(left)} left"] if waiting and left is not None else []),
    ]
