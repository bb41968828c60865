"""Walk the sources and read every header, in batches that any ``map`` can hand out."""

from __future__ import annotations

import os
from collections import defaultdict
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
    paths = _named_in_utf8(sorted(_files(sources, leave_out, unreadable)), unreadable)
    hidden: list[Header] = [OtherFile(path) for path in paths if _is_hidden(path)]
    visible = [path for path in paths if not _is_hidden(path)]
    batches = [visible[start : start + BATCH] for start in range(0, len(visible), BATCH)]
    return [*unreadable, *hidden, *(header for batch in map(read_headers, batches) for header in batch)]


def _named_in_utf8(paths: list[str], unreadable: list[Header]) -> list[str]:
    """The paths that tables and reports can hold; the others (an old share's Latin-1) are a problem for each folder."""
    named: list[str] = []
    others: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        try:
            path.encode()
            named.append(path)
        except UnicodeEncodeError:
            others[os.path.dirname(path)].append(path)  # noqa: PTH120 - of millions of texts
    for group in others.values():
        more = f" (and {len(group) - 1} more in this folder)" if len(group) > 1 else ""
        reason = f"its name is not UTF-8{more}: rename it, for instance with convmv"
        shown = os.fsencode(group[0]).decode(errors="backslashreplace")
        unreadable.append(Problem(Code.UNREADABLE_FILE, reason, where=shown))
    return named


def _is_hidden(path: str) -> bool:
    return os.path.basename(path).startswith(".")  # noqa: PTH119 - of millions of texts


def _files(sources: Sequence[Path], leave_out: Path | None, unreadable: list[Header]) -> Iterator[str]:
    """Every file once, although sources may overlap and links may lead in circles."""
    entered: set[tuple[int, int] | None] = set()
    if leave_out is not None and leave_out.is_dir() and leave_out.absolute() not in {s.absolute() for s in sources}:
        entered.add(_identity(str(leave_out)))

    def refuse(error: OSError) -> None:
        where = os.fsencode(str(error.filename)).decode(errors="backslashreplace")
        unreadable.append(Problem(Code.UNREADABLE_FILE, f"folder: {error.strerror}", where=where))

    for source in sources:
        if source.is_file():
            yield os.path.abspath(source)  # noqa: PTH100 - keeps links, as the other paths do
            continue
        if not source.is_dir():
            raise JobError(f"no folder or file at {source}")
        for folder, below, names in os.walk(source.absolute(), followlinks=True, onerror=refuse):
            identity = _identity(folder)
            if identity is None or identity in entered:
                below.clear()
                continue
            entered.add(identity)
            yield from (os.path.join(folder, name) for name in names)  # noqa: PTH118


def _identity(folder: str) -> tuple[int, int] | None:
    """What tells a folder from every other, whatever way leads there; None: it is gone."""
    try:
        state = os.stat(folder)  # noqa: PTH116
    except OSError:
        return None
    return state.st_dev, state.st_ino
