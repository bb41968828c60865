"""Loaded by the nannies that are started here: Ctrl-C is for the driver, which then ends their workers.

On a terminal the signal reaches every process of the run, and workers would answer it with a traceback each.
"""

import signal
from multiprocessing import resource_tracker

from distributed import Nanny


def dask_setup(nanny: Nanny) -> None:
    """Called by Dask on the thread that starts the workers; they inherit what it blocks, from their first moment on."""
    resource_tracker.ensure_running()  # its start, which comes with that of the first process, would unblock the signal
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
