"""A ``map`` whose calls are tasks: what everything below calls like the built-in one, spread over a cluster."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from distributed import CancelledError, Client, Future, KilledWorker, as_completed
from tqdm import tqdm

from prognosis_dask.arrays import Map
from prognosis_dask.errors import ClusterError
from prognosis_dask.execution.monitor import LOG_EVERY
from prognosis_dask.execution.progress import duration

#: Seconds before a map that is not done shows a bar on a terminal.
_SHOWN_AFTER = 2.0


def map_on(client: Client, *, gpu: bool = False) -> Map:
    """A ``map`` whose calls run as tasks on the client's cluster; results come in order. ``gpu``: on GPU workers.

    What a partial function holds, a table of features say, is sent once; a worker that lacks it gets it from another.
    """
    resources = {"GPU": 1} if gpu else None

    def cluster_map(function: Callable[..., Any], *items: Iterable[Any]) -> Iterable[Any]:
        listed = [list(item) for item in items]
        with warnings.catch_warnings():  # what is large is sent once, knowingly: an item is one task's alone
            warnings.filterwarnings("ignore", message="Sending large graph", category=UserWarning)
            if isinstance(function, partial):
                shared = client.submit(_same, function, pure=False)  # computed again where its worker is lost
                futures = client.map(_call, *listed, function=shared, pure=False, resources=resources)
            else:
                futures = client.map(function, *listed, pure=False, resources=resources)
        try:
            _wait(futures)
            return client.gather(futures)  # type: ignore[no-any-return]
        except (CancelledError, KilledWorker) as error:
            raise ClusterError(
                f"the cluster was lost ({error}). Start or mend it and run the same command again"
            ) from error

    return cluster_map


def _wait(futures: Sequence[Future[Any]]) -> None:
    """Wait for all, or raise the first failure. Ctrl-C in ``gather``'s own waiting prints a traceback per task."""
    done = as_completed(futures)
    shown = tqdm(done, "tasks", len(futures), leave=False, delay=_SHOWN_AFTER, disable=None, dynamic_ncols=True)
    begun = told = time.monotonic()
    for number, future in enumerate(shown, 1):
        if future.status != "finished":
            future.result()
        waiting = len(futures) - number
        if shown.disable and waiting and time.monotonic() - told > LOG_EVERY:  # no terminal: a log, a batch system
            told = time.monotonic()
            left = duration((told - begun) / number * waiting)
            print(f"{number} of {len(futures)} tasks done, about {left} left", file=sys.stderr, flush=True)


def _same(value: Any) -> Any:
    return value


def _call(*items: Any, function: Callable[..., Any]) -> Any:
    return function(*items)
