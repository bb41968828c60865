"""From a TOML file and ``--set`` to frozen dataclasses: the one reader of jobs, model specifications and cluster files.

Every mistake is named in one line: the key, what was seen, what was expected, and the nearest key for a typo.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import tomllib
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin

from prognosis_dask.config.fields import File, fault, keys_of, note_given, path_mark, split
from prognosis_dask.errors import JobError, expect_kind

_PACKAGE = Path(__file__).parents[1]


def shipped(folder: str) -> Path:
    """The folder ``jobs``, ``cluster`` or ``docs`` that came with the program.

    An installed package holds copies in ``share/`` (see ``pyproject.toml``); in a checkout they lie beside the package.
    """
    installed = _PACKAGE / "share" / folder
    return installed if installed.is_dir() else _PACKAGE.parent / folder


Settings = TypeVar("Settings")

#: Up to here whole numbers and their floats are the same; infinity is beyond.
_LARGEST = 2**53
_PLAIN = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
#: The most characters of a value that a message repeats.
_SHOWN = 200
#: A part of a dotted key, in quotation marks where it holds dots itself.
_PART = re.compile(r'"[^"]*"|[^.]+')


def read_toml(path: Path, absent: str) -> dict[str, Any]:
    """The content of a file.

    Raises
    ------
    JobError
        With ``absent`` where there is no such file; when it is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        why = "" if isinstance(error, FileNotFoundError) else f" ({error.strerror or error})"
        raise JobError(f"{absent}{why}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise JobError(f"{path} is not TOML: {error}") from error


def build(kind: type[Settings], data: dict[str, Any], where: str, *, prefix: str = "") -> Settings:
    """A dataclass of what a TOML file says, its sections with it.

    Parameters
    ----------
    kind
        The dataclass; its fields are the keys, with the marks of :mod:`prognosis_dask.config.fields`.
    data
        The file's content.
    where
        What messages begin with.
    prefix
        The section that the data are of, with a dot behind it.

    Raises
    ------
    JobError
        When a key is unknown, naming the nearest one, or missing, or a value is of another type, not finite, or
        breaks a constraint of its field.
    """
    return _Reader(where, kind).section(kind, data, prefix)


def override(kind: type, data: dict[str, Any], overrides: Sequence[str]) -> None:
    """Write what each ``section.key=value`` says into a file's content; paths are taken from the current folder.

    Values are in TOML's notation; what is not TOML is text.

    Raises
    ------
    JobError
        When one is not of that form.
    """
    expect_kind(overrides, list | tuple, "overrides", "a list such as ['section.key=value']")
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise JobError(f"--set {text!r}: expected section.key=value")
        try:
            nested = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            nested = value
        *sections, name = (part.strip('"') for part in _PART.findall(key.strip()) or [""])
        for part in (name, *reversed(sections)):
            nested = {part: nested}
        nested = resolve_paths(kind, nested, Path.cwd())
        inner = data
        for section in sections:
            nested, inner = nested[section], inner.setdefault(section, {})
            if not isinstance(inner, dict):
                raise JobError(f"--set {text!r}: {section!r} is not a section, but holds a value in the file")
        inner[name] = nested[name]


def resolve_paths(hint: Any, value: Any, folder: Path, mark: File | None = None) -> Any:
    """A file's content with its paths absolute, as seen from a folder; what is of another type is judged later."""
    kind, marks = split(hint)
    mark = path_mark(marks) or mark
    if isinstance(value, dict):
        if is_dataclass(kind):
            hints = {name: key.hint for name, key in keys_of(kind).items()}
        else:
            hints = dict.fromkeys(value, get_args(kind)[-1] if get_origin(kind) is dict else None)
        return {name: resolve_paths(hints.get(name), item, folder, mark) for name, item in value.items()}
    if isinstance(value, list):
        inner = get_args(kind)[0] if get_origin(kind) is tuple else None
        return [resolve_paths(inner, item, folder, mark) for item in value]
    return mark.resolve_path(folder, value) if mark and isinstance(value, str) else value


def expect(condition: bool, where: str, key: str, value: object, expected: str) -> None:
    """Refuse settings of which a condition between fields does not hold.

    Raises
    ------
    JobError
        Naming the key, its value and what was expected.
    """
    if not condition:
        raise JobError(f"{where}: {key} is {_shown(value)}, expected {expected}")


@dataclass(frozen=True)
class _Reader:
    where: str
    root: Any

    def section(self, kind: type[Settings], data: dict[str, Any], prefix: str) -> Settings:
        keys = keys_of(kind)
        for name in data:
            if name not in keys:
                raise JobError(
                    f"{self.where}: unknown key {_dotted(prefix, name)}{self.hint(prefix, name, list(keys))}"
                )
        for name, key in keys.items():
            if name not in data and key.default is MISSING:
                section = prefix.rstrip(".") or "the file"
                raise JobError(f"{self.where}: {prefix}{name} is missing; {section} needs it")
        made = kind(**{name: self.value(keys[name].hint, value, prefix + name) for name, value in data.items()})
        note_given(made, data)
        return made

    def hint(self, prefix: str, name: str, known: list[str]) -> str:
        """The nearest key of the section; else those of this name in other sections; else all that are known here."""
        if near := difflib.get_close_matches(name, known, n=1):
            return f"; did you mean {prefix}{near[0]}?"
        sections = [one for one, key in keys_of(self.root).items() if is_dataclass(key.kind)]
        own = [f"{one}.{name}" for one in sections if name in keys_of(keys_of(self.root)[one].kind)]
        return f"; did you mean {' or '.join(own)}?" if own else f"; known here: {', '.join(known)}"

    def value(self, hint: Any, value: Any, key: str) -> Any:
        kind, _ = split(hint)
        if get_origin(kind) is UnionType:  # text, a list or a table of it
            form = dict if isinstance(value, dict) else tuple if isinstance(value, list) else None
            kind = next((one for one in get_args(kind) if get_origin(one) is form), str)
        made = self._converted(kind, value, key)
        if found := fault(hint, made):
            expect(False, self.where, key, *found)
        return made

    def _converted(self, kind: Any, value: Any, key: str) -> Any:
        """The value as the type, whose constraints are still to be seen."""
        if is_dataclass(kind):
            expect(isinstance(value, dict), self.where, key, value, f"a section [{key}]")
            return self.section(kind, value, f"{key}.")  # type: ignore[arg-type]
        if get_origin(kind) is dict:
            expect(isinstance(value, dict), self.where, key, value, f"sections [{key}.NAME]")
            return {name: self.value(get_args(kind)[1], item, _dotted(f"{key}.", name)) for name, item in value.items()}
        if get_origin(kind) is tuple:
            items = [value] if isinstance(value, str) else value
            expect(isinstance(items, list), self.where, key, value, "a list")
            return tuple(self.value(get_args(kind)[0], item, key) for item in items)
        if get_origin(kind) is Literal:
            return value
        return self._single(kind, value, key)

    def _single(self, kind: type, value: Any, key: str) -> Any:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if number and (abs(value) >= _LARGEST or math.isnan(value)):
            expect(False, self.where, key, value, "a number between -2^53 and 2^53")
        if kind is float and number:
            return float(value)
        fits = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
        expect(fits, self.where, key, value, _PLAIN[kind])
        return value


def _dotted(prefix: str, name: str) -> str:
    """The key of a name in a section, in quotation marks where TOML wants them."""
    return prefix + (name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _shown(name, json.dumps(name)))


def _shown(value: object, text: str = "") -> str:
    text = text or repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."
