"""One writer per run's folder: the lock file beside the ledger, and who holds it."""

from __future__ import annotations

import fcntl
import os
import re
import socket
from pathlib import Path
from typing import TextIO

from prognosis_dask.config.folders import cannot_write
from prognosis_dask.errors import StoreError


def claim(path: Path) -> TextIO:
    """The lock file, locked. It stays when the lock ends: removing it would let two processes lock two files."""
    name = path.with_name(f"{path.name}.lock")
    try:
        name.parent.mkdir(parents=True, exist_ok=True)
        lock = name.open("a+", encoding="utf-8")
    except OSError as error:
        raise cannot_write(path.parent, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.seek(0)
        holder = lock.read().strip() or "another process"
        lock.close()
        raise StoreError(
            f"{path.parent} is in use by {holder}; wait until it ends or stop it, or choose another folder with --out"
        ) from error
    except OSError as error:
        lock.close()
        raise StoreError(f"cannot lock {name} ({error}); the run's folder must be on a disk with file locks") from error
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
    try:
        os.kill(int(holder[1]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it lives, as somebody else's
    return False
