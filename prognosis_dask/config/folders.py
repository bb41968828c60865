"""Can a folder take a result, and would nothing else be lost? Asked before the work."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryFile

from prognosis_dask.errors import StoreError
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
    return StoreError(f"cannot write in {folder} ({error.strerror or error}); choose another folder {how}".rstrip())
