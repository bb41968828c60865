"""Where the jobs, cluster files and documents are that come with the program."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def shipped(folder: str) -> Path:
    """The folder ``jobs``, ``cluster`` or ``docs`` that came with the program.

    An installed package holds copies in ``share/`` (see ``pyproject.toml``); in a checkout they lie beside the package.
    """
    installed = _PACKAGE / "share" / folder
    return installed if installed.is_dir() else _PACKAGE.parent / folder
