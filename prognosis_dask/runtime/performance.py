"""Dask's own performance report of the stages: ``prognosis run --performance-report FILE``."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distributed import Client, performance_report

from prognosis_dask.errors import JobError
from prognosis_dask.folders import expect_writable
from prognosis_dask.runtime.journal import journal


def check_report(path: Path | None) -> None:
    """Refuse a report that could not be written at the end of a long run.

    Raises
    ------
    JobError, StoreError
        When its folder is not there, or cannot be written.
    """
    if path and not path.absolute().parent.is_dir():
        raise JobError(f"--performance-report {path}: no folder {path.absolute().parent}; make it, or name another")
    if path:
        expect_writable(path.absolute().parent, "with --performance-report")


@contextmanager
def report_to(path: Path | None, client: Client) -> Iterator[None]:
    """Write the performance report of what runs inside to ``path``; a report that fails never stops a run."""
    if path is None:
        yield
        return
    with client.as_current():
        report = performance_report(filename=str(path.absolute()))
        report.__enter__()
        try:
            yield
        finally:
            try:
                report.__exit__(None, None, None)
            except Exception as error:  # the scheduler may be gone, the disk full
                journal("performance-report-failed", level=logging.WARNING, error=type(error).__name__)
