"""Which keys of a job hold paths, and what these are as seen from a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

#: The keys that hold paths ...
PATHS = (
    "cohort.sources",
    "cohort.cases",
    "cohort.clinical",
    "radiomics.params",
    "deep.network",
    "deep.weights",
    "run.out",
)
#: ... these where they begin with ``file:``.
_FILES = ("deep.network", "deep.weights")
_FILE = "file:"


def resolved(key: str, value: Any, folder: Path) -> Any:
    """A path, or several in a list or a table, as seen from the folder; what is no path is left to be judged later."""
    if isinstance(value, dict):
        return {name: _path(key, item, folder) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_path(key, item, folder) for item in value)
    return _path(key, value, folder)


def _path(key: str, value: Any, folder: Path) -> Any:
    """The path as seen from the folder; what is no path is left as it is, to be judged later."""
    is_file = isinstance(value, str) and value.startswith(_FILE)
    if not isinstance(value, str) or not value or (key in _FILES and not is_file):
        return value
    prefix = _FILE if is_file else ""
    return f"{prefix}{(folder / Path(value.removeprefix(prefix)).expanduser()).resolve()}"
