"""The steps' seconds in Dask's own account of its tasks: spans, and the dashboard's Fine Performance Metrics."""

from __future__ import annotations

from distributed.metrics import context_meter

from prognosis_dask.store.outcome import Outcome


def metered(outcomes: list[Outcome]) -> list[Outcome]:
    """Book the outcomes' seconds by step under the task that runs now; called on a worker, else without effect."""
    for outcome in outcomes:
        for step, seconds in outcome.seconds.items():
            if step != "total":
                context_meter.digest_metric(step, seconds, "seconds")
    return outcomes
