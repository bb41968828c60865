"""Write results whole: check first that a folder can take them, write aside, then publish by renaming."""

from __future__ import annotations

import errno
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile

from prognosis_dask.errors import StoreError, system_reason
from prognosis_dask.objects.address import is_address

#: What tells a folder of runs or models, and what in it is replaced as a whole.
_OWN = ("ledger.sqlite", "run.json", "models/summary.json")
_REPLACED = ("models", "figures")


def expect_writable(folder: Path | str | None, how: str = "with --out") -> None:
    """Refuse a folder in which nothing could be written; nothing is made, also where the folder is still to be made.

    Parameters
    ----------
    folder
        Where a result is to go; None: nowhere.
    how
        The user chooses another one; empty where the message needs no word on it.

    Raises
    ------
    StoreError
        When it is read only, something else has its name, or it could not be made.
    """
    if folder is None or is_address(folder):  # a bucket is asked when it is claimed
        return
    nearest = Path(folder).absolute()
    try:
        while not nearest.exists():
            nearest = nearest.parent
        TemporaryFile(dir=nearest).close()
    except OSError as error:
        raise cannot_write(folder, error, how) from error


def expect_no_loss(folder: Path | str | None) -> None:
    """Refuse a folder with ``models/`` or ``figures/`` of somebody else's, in which a run or models would replace them.

    Raises
    ------
    StoreError
        Naming what would be lost.
    """
    if folder is None or is_address(folder) or any((Path(folder) / mark).is_file() for mark in _OWN):
        return
    for name in _REPLACED:
        held = Path(folder) / name
        if held.is_dir() and any(held.iterdir()):
            raise StoreError(f"{held} holds something else, which would be lost; choose another folder with --out")


def cannot_write(folder: Path | str, error: OSError, how: str = "with --out") -> StoreError:
    """What to raise where a folder cannot be written.

    >>> str(cannot_write("/cdrom/run", OSError(30, "Read-only file system")))
    'cannot write in /cdrom/run (Read-only file system); choose another folder with --out'
    """
    return StoreError(
        f"cannot write in {folder} ({error.strerror or system_reason(error)}); choose another folder {how}".rstrip()
    )


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
