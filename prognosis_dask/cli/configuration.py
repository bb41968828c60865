"""The page ``docs/configuration.md``, made from the fields of jobs, model specifications and cluster files."""

from __future__ import annotations

import json
from dataclasses import MISSING, is_dataclass
from types import UnionType
from typing import Any, Literal, get_args, get_origin

from prognosis_dask.config.fields import Key, expected_of, keys_of, path_mark, split
from prognosis_dask.config.job import Job
from prognosis_dask.execution.clusters import SPECS, Encryption
from prognosis_dask.modelling.spec import ModelSpec

_PAGE = """# Configuration

<!-- made from the fields of config/job.py, modelling/spec.py and execution/clusters/__init__.py in prognosis_dask/:
python -m prognosis_dask.cli.configuration > docs/configuration.md -->

Jobs, model specifications and cluster files are TOML. `--set section.key=value` overrides a key of a job or of a
specification; the value is in TOML's notation, or plain text. A relative path is taken from the folder of the file that
names it, in `--set` from the current folder. A mistake ends the command with one line: the key, what was seen, what was
expected, and the nearest key for a typo. A key of a job that has no effect with the other keys, such as
`deep.batch_size` on a CPU, is named in a warning when the run starts.
"""
_HEAD = "| key | type | unit | default | allowed | meaning |\n|---|---|---|---|---|---|"
_TYPES = {str: "text", int: "whole number", float: "number", bool: "true or false"}


def documentation() -> str:
    """The page as a whole."""
    parts = [
        _PAGE,
        "## Job\n\n`prognosis run JOB.toml`; examples are in `jobs/`.\n",
        _key_tables(Job, "Keys without a section"),
        "## Model specification\n\n`prognosis fit TABLE --spec FILE.toml`; examples are in `jobs/models/`; what a "
        "procedure does is explained in [procedures](procedures.md).\n",
        _key_tables(ModelSpec, "Keys without a section"),
        "## Cluster file\n\n`--cluster FILE.toml`; examples are in `cluster/`. `kind` decides which keys there are.\n",
        *(_key_tables(spec, f'`kind = "{kind}"`', without="tls") for kind, spec in SPECS.items()),
        _key_tables(Encryption, "`[tls]`, of every kind but kubernetes"),
    ]
    return "\n".join(parts)


def _key_tables(kind: type, heading: str, without: str = "") -> str:
    """The tables of a dataclass and of the sections in it, except the one that is described elsewhere."""
    tables = [_table(kind, heading)]
    for key in keys_of(kind).values():
        section = _section(key)
        if section and key.name != without:
            tables.append(_table(section[0], f"`{section[1].format(key.name)}`", key.default))
    return "\n".join(tables)


def _table(kind: Any, heading: str, defaults: object = None) -> str:
    """The keys of a dataclass; ``defaults``: an instance of it whose values are the defaults here."""
    defaults = defaults if isinstance(defaults, kind) else None
    rows = [_row(key, defaults) for key in keys_of(kind).values() if _section(key) is None]
    return "\n".join([f"### {heading}\n\n{kind.__doc__.partition(chr(10))[0]}\n", _HEAD, *rows, ""])


def _section(key: Key) -> tuple[Any, str] | None:
    """The dataclass that a key holds, once or several times, and how its sections are written."""
    if is_dataclass(key.kind):
        return key.kind, "[{}]"
    of = get_args(key.kind)
    if get_origin(key.kind) is tuple and is_dataclass(of[0]):
        return of[0], "[[{}]]"
    if get_origin(key.kind) is dict and is_dataclass(of[1]):
        return of[1], "[{}.NAME]"
    return None


def _row(key: Key, defaults: Any) -> str:
    default = key.default if defaults is None else getattr(defaults, key.name)
    cells = (
        f"`{key.name}`",
        type_of(key.hint),
        key.unit,
        "none" if default is MISSING else f"`{_toml(default)}`",
        expected_of(key.hint),
        key.meaning,
    )
    return f"| {' | '.join(cells)} |"


def type_of(hint: Any) -> str:
    """A field's type in words.

    >>> type_of(tuple[int, ...])
    'list of whole numbers'
    """
    kind, marks = split(hint)
    if get_origin(kind) is Literal:
        return "text"
    if get_origin(kind) is UnionType:
        return " or ".join(_of(one, marks) for one in get_args(kind))
    return _of(kind, marks)


def _of(kind: Any, marks: tuple[Any, ...]) -> str:
    if get_origin(kind) is tuple:
        return f"list of {_several(get_args(kind)[0], marks)}"
    if get_origin(kind) is dict:
        return f"table of {_several(get_args(kind)[1], marks)}"
    path = path_mark(marks)
    if path is None:
        return _TYPES[kind]
    return f"text, or `{path.after}` and a {path.kind}" if path.after else path.kind


def _several(hint: Any, marks: tuple[Any, ...]) -> str:
    kind = split(hint)[0]
    if get_origin(kind) is UnionType:
        return " or ".join(_several(one, marks) for one in get_args(kind))
    if get_origin(kind) is tuple:
        return f"lists of {_several(get_args(kind)[0], marks)}"
    one = _of(kind, marks)
    return one if one == "text" else f"{one}s"


def _toml(value: object) -> str:
    """A value in TOML's notation."""
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    print(documentation(), end="")
