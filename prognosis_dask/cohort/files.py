"""The identity of files on disk, by which a changed input is noticed."""

from __future__ import annotations

import errno
import hashlib
import re
import stat
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class FileStamp:
    """Identity of a file on disk; ``sha256`` is taken of masks only, images are too large."""

    path: str
    bytes: int
    modified_ns: int
    sha256: str = ""


def stamp(path: str, *, checksum: bool = False) -> FileStamp:
    """Size and modification time of a file, and its SHA-256 when asked. Raises OSError when it cannot be read.

    A detached header (``.mhd``, ``.nhdr``) is stamped together with the data files of the same stem.
    """
    file = Path(path)
    parts = [file]
    if file.suffix.lower() in (".mhd", ".nhdr"):
        beside = (p for p in file.parent.glob(f"{file.stem}.*") if p != file and re.search(r"\.z?raw", p.name.lower()))
        parts += sorted(part for part in beside if part.is_file())
    states = [part.stat() for part in parts]
    if not stat.S_ISREG(states[0].st_mode):
        raise OSError(errno.EINVAL, "no regular file", path)  # a pipe would keep the reader waiting for ever
    sha256 = hashlib.sha256()
    for part in parts if checksum else ():
        with part.open("rb") as stream:
            while block := stream.read(1 << 20):
                sha256.update(block)
    return FileStamp(
        path,
        sum(state.st_size for state in states),
        max(state.st_mtime_ns for state in states),
        sha256.hexdigest() if checksum else "",
    )
