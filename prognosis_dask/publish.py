"""Write aside, then publish by renaming: what has its final name is whole."""

from __future__ import annotations

import errno
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prognosis_dask.errors import StoreError

#: Folders left behind by killed processes are removed once they are older than any task can be.
_ABANDONED_SECONDS = 24 * 3600.0
#: How often a rename is tried again when another writer publishes the same folder in between.
_TRIES = 50


@contextmanager
def replacing(final: Path) -> Iterator[Path]:
    """A path beside ``final`` to write a file to, which replaces ``final`` at the end, and not where the block raises.

    Its name is unique: of two writers at once the last one wins.
    """
    aside = final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}")
    try:
        yield aside
        aside.replace(final)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def staging(final: Path | str) -> Iterator[Path]:
    """A new folder to prepare ``final`` in, on the same file system; removed at the end with what is left in it.

    Of an address in a bucket, it is a temporary one. Else it lies in ``.partial`` beside ``final`` and its name is
    unique: a process that is killed leaves it behind, nobody reads it, and no later writer uses its name again.
    """
    if isinstance(final, str):
        with tempfile.TemporaryDirectory() as name:
            yield Path(name)
        return
    folder = final.parent / ".partial" / f"{final.name}-{uuid.uuid4().hex}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned(final: Path) -> None:
    """Remove the staging folders beside ``final`` that killed processes left behind more than a day ago."""
    for folder in (final.parent / ".partial").glob("*"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(folder)


def publish_folder(staged: Path, final: Path) -> None:
    """Give ``staged``, a folder in a :func:`staging` folder, its final name, replacing what has that name.

    A folder cannot be renamed onto a full one: the old one is moved into the staging folder first. Killed between the
    two renames there is no folder of that name, but never half of one. Of two writers at once the last one wins.

    Raises
    ------
    StoreError
        When other writers publish the same folder again and again.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(_TRIES):
        with suppress(FileNotFoundError):
            final.rename(staged.with_name(f"replaced-{attempt}"))
        try:
            staged.rename(final)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    raise StoreError(f"other processes keep replacing {final}; let one run at a time use the folder")
