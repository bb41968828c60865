"""What ``prognosis status`` prints: per stage how far the run is, and why cases failed."""

from __future__ import annotations

from pathlib import Path

from prognosis_dask.cohort.case import read_cases
from prognosis_dask.errors import StoreError
from prognosis_dask.store.ledger import Ledger

#: Failed cases that are named; the others are counted.
NAMED = 20


def status(folder: Path) -> str:
    """The state of a run, also while it goes on.

    Raises
    ------
    StoreError
        When ``folder`` holds no run.
    """
    if not (folder / "ledger.sqlite").is_file():
        raise StoreError(f"no run in {folder}: it has no ledger.sqlite; name a folder that `prognosis run` wrote")
    cases = len(read_cases(folder / "cases.csv")) if (folder / "cases.csv").is_file() else 0
    with Ledger.read(folder / "ledger.sqlite") as ledger:
        counts, failures = ledger.counts(), ledger.failures()
    failed_first = counts["roi"].failed if "roi" in counts else 0
    lines = [f"{folder}: {cases} cases", f"{'stage':<12}{'done':>8}{'failed':>8}{'waiting':>9}"]
    for stage, count in counts.items():
        expected = cases if stage == "roi" else cases - failed_first
        waiting = max(0, expected - count.done - count.failed)
        lines.append(f"{stage:<12}{count.done:>8}{count.failed:>8}{waiting:>9}")
    for outcome in failures[:NAMED]:
        if outcome.problem:
            lines.append(f"  {outcome.case_id} ({outcome.stage}): {outcome.problem.code}: {outcome.problem.reason}")
    if len(failures) > NAMED:
        lines.append(f"  and {len(failures) - NAMED} more in problems.csv")
    return "\n".join(lines)
