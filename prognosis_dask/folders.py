"""Can a folder be written? Asked before the work whose result it is to take."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryFile

from prognosis_dask.errors import StoreError


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
    if folder is None:
        return
    nearest = Path(folder).absolute()
    try:
        while not nearest.exists():
            nearest = nearest.parent
        TemporaryFile(dir=nearest).close()
    except OSError as error:
        raise cannot_write(folder, error, how) from error


def cannot_write(folder: Path | str, error: OSError, how: str = "with --out") -> StoreError:
    """What to raise where a folder cannot be written.

    >>> str(cannot_write("/cdrom/run", OSError(30, "Read-only file system")))
    'cannot write in /cdrom/run (Read-only file system); choose another folder with --out'
    """
    return StoreError(f"cannot write in {folder} ({error.strerror or error}); choose another folder {how}".rstrip())
