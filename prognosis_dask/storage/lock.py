"""One writer per run's folder: the lock file beside the ledger, and who holds it."""

from __future__ import annotations

import os
import re
import socket
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import psutil
from filelock import lock_descriptor

from prognosis_dask.errors import StoreError, system_reason
from prognosis_dask.publish import cannot_write


def claim(path: Path) -> TextIO:
    """The lock file, locked. It stays when the lock ends: removing it would let two processes lock two files."""
    name = path.with_name(f"{path.name}.lock")
    try:
        name.parent.mkdir(parents=True, exist_ok=True)
        lock = name.open("a+", encoding="utf-8")
    except OSError as error:
        raise cannot_write(path.parent, error) from error
    try:
        locked = lock_descriptor(lock.fileno(), blocking=False)
    except OSError as error:
        lock.close()
        reason = system_reason(error)
        raise StoreError(
            f"cannot lock {name} ({reason}); the run's folder must be on a disk with file locks"
        ) from error
    if not locked:
        holder = ""
        with lock, suppress(OSError):  # where locks are mandatory (Windows), the holder's name cannot be read
            lock.seek(0)
            holder = lock.read().strip()
        raise StoreError(
            f"{path.parent} is in use by {holder or 'another process'}; wait until it ends or stop it, or choose "
            "another folder with --out"
        )
    lock.truncate(0)
    lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    lock.flush()
    return lock


def driver_is_gone(path: Path) -> bool:
    """Whether the ledger's last writer was a process of this machine that is no more; what others know is not seen."""
    try:
        text = path.with_name(f"{path.name}.lock").read_text(encoding="utf-8")
    except OSError:
        return False
    holder = re.fullmatch(r"process (\d+) on (\S+)\n", text)
    if not holder or holder[2] != socket.gethostname():
        return False
    return not psutil.pid_exists(int(holder[1]))
