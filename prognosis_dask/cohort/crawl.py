"""Walk the sources and read every header, in batches that any ``map`` can hand out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from prognosis_dask.cohort.headers import Header, OtherFile
from prognosis_dask.cohort.reading import read_headers
from prognosis_dask.errors import Code, JobError, Problem

#: Paths in one unit of work: about a tenth of a second of reading.
BATCH = 200

Map = Callable[[Callable[[Sequence[str]], list[Header]], Iterable[Sequence[str]]], Iterable[list[Header]]]


def crawl(sources: Sequence[Path], map: Map, *, leave_out: Path | None = None) -> list[Header]:
    """Read the headers of every file under the sources, in the order of their paths.

    Parameters
    ----------
    sources
        Folders, or single files.
    map
        The built-in ``map``, or one that spreads the batches over a cluster.
    leave_out
        A folder that is not entered: the index's own output.

    Raises
    ------
    JobError
        When a source does not exist.
    """
    unreadable: list[Header] = []
    paths = sorted(_files(sources, leave_out, unreadable))
    hidden: list[Header] = [OtherFile(path) for path in paths if _is_hidden(path)]
    visible = [path for path in paths if not _is_hidden(path)]
    batches = [visible[start : start + BATCH] for start in range(0, len(visible), BATCH)]
    return [*unreadable, *hidden, *(header for batch in map(read_headers, batches) for header in batch)]


def _is_hidden(path: str) -> bool:
    return os.path.basename(path).startswith(".")  # noqa: PTH119 - of millions of texts


def _files(sources: Sequence[Path], leave_out: Path | None, unreadable: list[Header]) -> Iterator[str]:
    """Every file once, although sources may overlap and links may lead in circles."""
    entered: set[tuple[int, int]] = set()
    if leave_out is not None and leave_out.is_dir() and leave_out.absolute() not in {s.absolute() for s in sources}:
        entered.add(_identity(str(leave_out)))

    def refuse(error: OSError) -> None:
        unreadable.append(Problem(Code.UNREADABLE_FILE, f"folder: {error.strerror}", where=str(error.filename)))

    for source in sources:
        if source.is_file():
            yield os.path.abspath(source)  # noqa: PTH100 - keeps links, as the other paths do
            continue
        if not source.is_dir():
            raise JobError(f"no folder or file at {source}")
        for folder, below, names in os.walk(source.absolute(), followlinks=True, onerror=refuse):
            if _identity(folder) in entered:
                below.clear()
                continue
            entered.add(_identity(folder))
            yield from (os.path.join(folder, name) for name in names)  # noqa: PTH118


def _identity(folder: str) -> tuple[int, int]:
    state = os.stat(folder)  # noqa: PTH116
    return state.st_dev, state.st_ino
