"""How many cases one task takes: enough that sending it about costs little, not so many that a worker ends up alone."""

from __future__ import annotations

from collections.abc import Sequence

from prognosis_dask.store.outcome import Outcome

#: A task aims at this long: some 50 times what it costs the scheduler, and the longest that a worker waits at the end.
TASK_SECONDS = 0.2
#: The most cases in a task, however quick they are: what a worker's death makes suspect, each to be run alone.
MOST_CASES = 256
#: Weight of the newest task in the mean.
_NEWEST = 0.2


class TaskSize:
    """The cases per task of one stage, from the seconds that its cases took; begins with one, at most doubles a time.

    >>> size = TaskSize()
    >>> for seconds in (0.05, 0.05, 0.05):
    ...     size.learn([Outcome("case", "stage", "digest", seconds={"total": seconds})] * size.cases)
    >>> size.cases
    4
    """

    def __init__(self) -> None:
        self.cases = 1
        self._seconds: float | None = None

    def learn(self, outcomes: Sequence[Outcome]) -> None:
        """Take note of a finished task. Cases that failed count for nothing, since they may fail at once."""
        seconds = [outcome.seconds.get("total", 0.0) for outcome in outcomes if outcome.problem is None]
        if not seconds:
            return
        mean = sum(seconds) / len(seconds)
        self._seconds = mean if self._seconds is None else self._seconds + _NEWEST * (mean - self._seconds)
        fitting = int(TASK_SECONDS / max(self._seconds, TASK_SECONDS / MOST_CASES))
        self.cases = max(1, min(fitting, 2 * len(outcomes)))
