"""How a run shows itself on the terminal: a bar per stage with count, failures, rate and time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

#: Seconds between two lines where the output is not a terminal (a log file, a batch system).
LOG_EVERY = 10.0


class Progress:
    """One line per stage. On a terminal they are redrawn in place, elsewhere printed now and then."""

    def __init__(self, totals: Mapping[str, int], stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._totals = dict(totals)
        self._done = dict.fromkeys(totals, 0)
        self._failed = dict.fromkeys(totals, 0)
        self._first: dict[str, float] = {}
        self._logged = time.monotonic()
        self._bars = {
            stage: tqdm(
                total=total, desc=f"{stage:>10}", unit="case", position=row, file=self._stream, dynamic_ncols=True
            )
            for row, (stage, total) in enumerate(totals.items())
            if self._live
        }

    def update(self, stage: str, done: int, failed: int = 0) -> None:
        """Count finished cases, ``failed`` of them without a result."""
        self._first.setdefault(stage, time.monotonic())
        self._done[stage] += done
        self._failed[stage] += failed
        if self._live:
            if self._failed[stage]:
                self._bars[stage].set_postfix(failed=self._failed[stage], refresh=False)
            self._bars[stage].update(done)
        elif time.monotonic() - self._logged > LOG_EVERY:
            self._log()

    def shrink(self, stage: str, by: int) -> None:
        """Fewer cases than planned will reach the stage, since an earlier one failed."""
        self._totals[stage] -= by
        if self._live:
            self._bars[stage].total = self._totals[stage]
            self._bars[stage].refresh()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for bar in self._bars.values():
            bar.close()
        if not self._live:
            self._log()

    def _log(self) -> None:
        self._logged = time.monotonic()
        lines = [self._line(stage) for stage, total in self._totals.items() if total]
        if lines:
            print("  ".join(lines), file=self._stream, flush=True)

    def _line(self, stage: str) -> str:
        """Count, failures, and the rate since the stage's first outcome, since a stage may begin late."""
        done, total, failed = self._done[stage], self._totals[stage], self._failed[stage]
        line = f"{stage} {done}/{total}" + (f" ({failed} failed)" if failed else "")
        elapsed = self._logged - self._first.get(stage, self._logged)
        if done < 2 or elapsed <= 0:
            return line
        rate = (done - 1) / elapsed
        return f"{line} {rate:.1f}/s" + (f", {(total - done) / rate:.0f} s left" if done < total else "")
