"""From what a TOML file says to frozen dataclasses, with every mistake named by its key."""

from __future__ import annotations

import difflib
import math
from dataclasses import MISSING, fields, is_dataclass
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from prognosis_dask.errors import JobError

#: Up to here whole numbers and their floats are the same; infinity is beyond.
_LARGEST = 2**53
_PLAIN = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def build_section(kind: type, data: dict[str, Any], where: str, prefix: str = "") -> Any:
    """A dataclass from what a TOML file says, its sections with it.

    Raises
    ------
    JobError
        When a key is unknown, naming the nearest one, or missing, or a value is of another type or not finite.
    """
    hints = get_type_hints(kind)
    names = [f.name for f in fields(kind)]
    for key in data:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            hint = f"; did you mean {prefix}{near[0]}?" if near else f"; known here: {', '.join(names)}"
            raise JobError(f"{where}: unknown key {prefix}{key}{hint}")
    for one in fields(kind):
        if one.name not in data and one.default is MISSING and one.default_factory is MISSING:
            raise JobError(f"{where}: {prefix}{one.name} is missing; {prefix.rstrip('.') or 'the file'} needs it")
    return kind(**{key: _value(hints[key], value, where, prefix + key) for key, value in data.items()})


def _value(hint: Any, value: Any, where: str, key: str) -> Any:
    if is_dataclass(hint):
        if not isinstance(value, dict):
            raise JobError(f"{where}: {key} is {value!r}, expected a section [{key}]")
        return build_section(hint, value, where, key + ".")  # type: ignore[arg-type]
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise JobError(f"{where}: {key} is {value!r}, expected one of {', '.join(map(repr, get_args(hint)))}")
        return value
    if get_origin(hint) is UnionType:  # text, or a table of it
        hint = next(kind for kind in get_args(hint) if (get_origin(kind) is dict) == isinstance(value, dict))
    if get_origin(hint) in (tuple, dict):
        return _several(hint, value, where, key)
    return _single(hint, value, where, key)


def _several(hint: Any, value: Any, where: str, key: str) -> Any:
    if get_origin(hint) is dict:
        if not isinstance(value, dict):
            raise JobError(f"{where}: {key} is {value!r}, expected sections [{key}.NAME]")
        return {name: _value(get_args(hint)[1], item, where, f"{key}.{name}") for name, item in value.items()}
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list):
        raise JobError(f"{where}: {key} is {value!r}, expected a list")
    return tuple(_value(get_args(hint)[0], item, where, key) for item in items)


def _single(hint: Any, value: Any, where: str, key: str) -> Any:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and (abs(value) >= _LARGEST or math.isnan(value)):
        raise JobError(f"{where}: {key} is {value!r}, expected a number between -2^53 and 2^53")
    if hint is float and number:
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise JobError(f"{where}: {key} is {value!r}, expected {_PLAIN[hint]}")
    return value
