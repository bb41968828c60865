"""What stands at a field of the settings: its constraints, its unit, whether it is a path, and its meaning.

    margin_mm: Annotated[float, AtLeast(0), Unit("mm"), "Margin around the region of interest."] = 20.0

A text is the meaning; constraints inside ``tuple[...]`` hold for each item. The reader of files, the check of objects
that are made in Python and the documentation all go by these marks.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import MISSING, Field, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol, get_args, get_origin, get_type_hints, runtime_checkable

from prognosis_dask.errors import PrognosisError

_GIVEN = "_given"
_WORDS = {0: "zero", 1: "one", 2: "two", 10: "ten"}


def _word(number: float) -> str:
    return _WORDS.get(int(number), f"{number:g}") if number == int(number) else f"{number:g}"


@runtime_checkable
class Constraint(Protocol):
    """What a value has to be besides of its type."""

    @property
    def expected(self) -> str:
        """In words, as they follow "expected"."""
        ...

    def holds(self, value: Any) -> bool:
        """Whether the value, which is of the field's type, meets it."""
        ...


class Window:
    """Two numbers, or none."""

    expected = "two numbers, the lower one first, or none"

    def holds(self, value: tuple[float, ...]) -> bool:
        """Whether the first is the lower one."""
        return not value or (len(value) == 2 and value[0] < value[1])


@dataclass(frozen=True)
class AtLeast:
    """A finite number from here on; zero as well where it stands for "none"."""

    least: float
    or_zero: bool = False

    @property
    def expected(self) -> str:
        """In words.

        >>> AtLeast(10, or_zero=True).expected
        'zero, or ten or more'
        """
        return f"{'zero, or ' if self.or_zero else ''}{_word(self.least)} or more"

    def holds(self, value: float) -> bool:
        """Whether the number is that large."""
        return math.isfinite(value) and (value >= self.least or (self.or_zero and value == 0))


@dataclass(frozen=True)
class Above:
    """A finite number above this one."""

    limit: float

    @property
    def expected(self) -> str:
        """In words."""
        return f"above {_word(self.limit)}"

    def holds(self, value: float) -> bool:
        """Whether the number is larger."""
        return self.limit < value < math.inf


@dataclass(frozen=True)
class AtMost:
    """A number up to this one."""

    most: float

    @property
    def expected(self) -> str:
        """In words."""
        return f"at most {_word(self.most)}"

    def holds(self, value: float) -> bool:
        """Whether the number is not larger."""
        return value <= self.most


@dataclass(frozen=True)
class Below:
    """A number below this one."""

    limit: float

    @property
    def expected(self) -> str:
        """In words."""
        return f"below {_word(self.limit)}"

    def holds(self, value: float) -> bool:
        """Whether the number is smaller."""
        return value < self.limit


class OneOf:
    """One of these names, where they stand in a table of functions; others are a ``Literal``."""

    def __init__(self, *names: str) -> None:
        self.names = names

    @property
    def expected(self) -> str:
        """In words."""
        return f"one of {', '.join(map(repr, self.names))}"

    def holds(self, value: str) -> bool:
        """Whether it is one of the names."""
        return value in self.names


class NotEmpty:
    """A list of one value or more."""

    expected = "one value or more"

    def holds(self, value: tuple[object, ...]) -> bool:
        """Whether there is a value."""
        return bool(value)


class FolderName:
    """A name that a folder can have."""

    expected = "a name that a folder can have, without slashes"

    def holds(self, value: str) -> bool:
        """Whether it is the last part of a path, and no dots."""
        return Path(value).name == value and value not in ("", "..")


class EventCode:
    """What a value of the event column means."""

    expected = "1 (observed), 0 (censored) or 2 (a competing event)"

    def holds(self, value: int) -> bool:
        """Whether it is one of the three."""
        return value in (0, 1, 2)


@dataclass(frozen=True)
class File:
    """The path of a file, relative to the folder of the file that names it, or to the current one in ``--set``.

    Attributes
    ----------
    after
        The value is a path only where it begins with this, such as ``file:``.
    keep_links
        Symbolic links are not followed: other hosts may read the path too, and have links of their own.
    """

    after: str = ""
    keep_links: bool = False
    kind: ClassVar[str] = "file"

    def resolve_path(self, folder: Path, value: str) -> str:
        """The absolute path, with what it begins with; what is no path stays as it is."""
        if not value.removeprefix(self.after) or not value.startswith(self.after):
            return value
        path = folder / Path(value.removeprefix(self.after)).expanduser()
        return f"{self.after}{path.absolute() if self.keep_links else path.resolve()}"


class Folder(File):
    """The path of a folder."""

    kind: ClassVar[str] = "folder"


class Location(Folder):
    """The path of a folder, or an address (``s3://``), or a name with another prefix (``idc:``), as it is."""

    _elsewhere = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")

    def resolve_path(self, folder: Path, value: str) -> str:
        """The absolute path; what is elsewhere stays as it is."""
        return value if self._elsewhere.match(value) else super().resolve_path(folder, value)


@dataclass(frozen=True)
class Unit:
    """The unit of a number."""

    name: str


@dataclass(frozen=True)
class Key:
    """One field, taken apart.

    Attributes
    ----------
    name
        Its name, the key in a file.
    hint
        Its annotation with all marks.
    default
        Its default; :data:`dataclasses.MISSING` where it has none.
    """

    name: str
    hint: Any
    default: object

    @property
    def kind(self) -> Any:
        """Its type without marks."""
        return split(self.hint)[0]

    @property
    def unit(self) -> str:
        """Its unit; empty for none."""
        return next((mark.name for mark in split(self.hint)[1] if isinstance(mark, Unit)), "")

    @property
    def path(self) -> File | None:
        """How it is a path, where it is one."""
        return path_mark(split(self.hint)[1])

    @property
    def meaning(self) -> str:
        """What it is; the last text, so that a field may say more than the shared type that it is of."""
        return next((mark for mark in reversed(split(self.hint)[1]) if isinstance(mark, str)), "")


def split(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """A type and the marks on it."""
    if get_origin(hint) is Annotated:
        kind, *marks = get_args(hint)
        return kind, tuple(marks)
    return hint, ()


def path_mark(marks: tuple[Any, ...]) -> File | None:
    """The mark of a path among these."""
    return next((mark for mark in marks if isinstance(mark, File)), None)


def keys_of(kind: Any) -> dict[str, Key]:
    """The fields of a dataclass by name, in order."""
    return _keys(kind)


@cache
def _keys(kind: Any) -> dict[str, Key]:
    hints = get_type_hints(kind, include_extras=True)
    return {one.name: Key(one.name, hints[one.name], _default(one)) for one in fields(kind)}


def _default(one: Field[Any]) -> object:
    return one.default_factory() if one.default_factory is not MISSING else one.default


def expected_of(hint: Any) -> str:
    """What a value of this type has to be, in words; empty where the type says it all."""
    kind, marks = split(hint)
    if get_origin(kind) is Literal:
        return OneOf(*get_args(kind)).expected
    found = " and ".join(mark.expected for mark in marks if isinstance(mark, Constraint))
    item = {tuple: 0, dict: 1}.get(get_origin(kind))
    each = expected_of(get_args(kind)[item]) if item is not None else ""
    return ", ".join(filter(None, (found, each and f"each {each}")))


def fault(hint: Any, value: Any) -> tuple[object, str] | None:
    """The value, or the item of it, that breaks a constraint, and what was expected; None where all hold."""
    kind, marks = split(hint)
    constraints = [mark for mark in marks if isinstance(mark, Constraint)]
    if get_origin(kind) is Literal:
        constraints = [OneOf(*get_args(kind))]
    if not all(constraint.holds(value) for constraint in constraints):
        return value, " and ".join(constraint.expected for constraint in constraints)
    if get_origin(kind) is not tuple:
        return None
    return next((found for item in value if (found := fault(get_args(kind)[0], item))), None)


def expect_fields(settings: Any, error: type[PrognosisError], prefix: str = "") -> None:
    """Refuse an object made in Python of which a field breaks its constraints; ``prefix`` stands before the key.

    Raises
    ------
    PrognosisError
        Of the type given: field, value and what was expected.
    """
    for name, key in keys_of(type(settings)).items():
        if found := fault(key.hint, getattr(settings, name)):
            raise error(f"{prefix}{name} is {found[0]!r}, expected {found[1]}")


def note_given(settings: Any, names: Iterable[str]) -> None:
    """Note on settings which keys a file or ``--set`` gives; it is no field, so that no value or digest knows of it."""
    object.__setattr__(settings, _GIVEN, frozenset(names))


def given_keys(settings: Any) -> frozenset[str]:
    """The keys that were given; of settings that are made in Python those that differ from their default."""
    given: frozenset[str] | None = getattr(settings, _GIVEN, None)
    if given is not None:
        return given
    keys = keys_of(type(settings))
    return frozenset(name for name, key in keys.items() if getattr(settings, name) != key.default)
