"""The process that a worker keeps for its cases: ``python -m prognosis_dask.execution.child SOCKET PARENT``.

It reads a task from the socket, says that it has loaded it, runs it, and sends back what came of it. What the task
writes to a bucket may still be on its way then: the child says so, takes the next task, and sends the result once all
of it is there. It holds what is heavy (SimpleITK, the network), so the worker beside it stays light. It ends with its
worker, however that ends.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from prognosis_dask.objects.files import written_behind

#: What the child answers when the task's code is there and its first case begins; when all is computed, but not yet
#: written; and instead of results, when something could not be written. Before each answer stands the task's number.
STARTED, COMPUTED, UNWRITTEN = b"started", b"computed", b"unwritten"
#: Bytes of that number.
NUMBER_BYTES = 8
#: Seconds between two looks at whether the worker still lives, where the system does not tell.
_LOOK_EVERY = 1.0
_PR_SET_PDEATHSIG = 1


def serve(connection: Connection) -> None:
    """Run tasks until the worker closes the connection; what was begun to be written is then finished."""
    one_at_a_time = threading.Lock()

    def say(number: int, said: bytes) -> None:
        with one_at_a_time:
            connection.send_bytes(number.to_bytes(NUMBER_BYTES, "big") + said)

    while True:
        try:
            number, *task = pickle.loads(connection.recv_bytes())
        except EOFError:
            return
        answer, writes = _run(partial(say, number), *task)
        if writes:
            say(number, COMPUTED)
            threading.Thread(target=_say_when_written, args=(partial(say, number), answer, writes)).start()
        else:
            say(number, answer)


def _run(
    say: Callable[[bytes], None], work: bytes, cases: Any, digests: Any, following: Any, behind: bool
) -> tuple[bytes, list[Future[Any]]]:
    """What came of a task, and what it still writes."""
    with written_behind(on=behind) as writes:
        try:
            function, context = pickle.loads(work)
            more = {"follows": _begin(*following)} if following else {}
            say(STARTED)
            return pickle.dumps((function(cases, digests, context, **more), None)), writes
        except Exception as error:  # whatever it is, the runner judges it
            return pickle.dumps((None, _portable(error))), writes


def _say_when_written(say: Callable[[bytes], None], answer: bytes, writes: Sequence[Future[Any]]) -> None:
    wait(writes)
    failed = any(write.exception() is not None for write in writes)
    with suppress(OSError):  # the worker is gone
        say(UNWRITTEN if failed else answer)


def _begin(work: bytes, case: Any, digest: str) -> Callable[[], None]:
    """What begins to read for the task after this one."""
    begin, context = pickle.loads(work)
    return partial(begin, case, digest, context)


def _portable(error: Exception) -> Exception:
    """The error itself when it survives the way through a pickle, else its text."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _end_with(parent: int) -> None:
    """Let this process be killed when its worker is gone, also in the middle of a native call (Linux: prctl(2))."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_EVERY)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _be_the_first_to_go() -> None:
    """Let Linux, short of memory, kill this process rather than a worker, a scheduler or a stranger."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's
    _end_with(int(sys.argv[2]))
    _be_the_first_to_go()
    serve(Connection(int(sys.argv[1])))
