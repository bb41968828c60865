"""Loaded by the workers that are started here: Ctrl-C is for the driver, which then ends them.

On a terminal the signal reaches every process of the run, and workers would answer it with a traceback each.
"""

import signal

from distributed import Worker


def dask_setup(worker: Worker) -> None:
    """Called by Dask in the worker's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
