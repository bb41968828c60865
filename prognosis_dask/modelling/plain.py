"""Frozen dataclasses to what JSON holds plus arrays, and back: the written form of models, without pickle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, get_args, get_type_hints

import numpy as np

from prognosis_dask.arrays import AnyArray

Kind = TypeVar("Kind")


def to_plain(value: Any, prefix: str = "") -> tuple[dict[str, Any], dict[str, AnyArray]]:
    """Take a dataclass apart: its arrays by dotted name, and the rest as JSON can hold it."""
    plain: dict[str, Any] = {}
    arrays: dict[str, AnyArray] = {}
    for field in fields(value):
        part = getattr(value, field.name)
        if isinstance(part, np.ndarray):
            arrays[prefix + field.name] = part
        elif is_dataclass(part):
            plain[field.name], below = to_plain(part, f"{prefix}{field.name}.")
            arrays |= below
        else:
            plain[field.name] = dict(part) if isinstance(part, Mapping) else part
    return plain, arrays


def from_plain(
    kind: type[Kind],
    plain: Mapping[str, Any],
    arrays: Mapping[str, AnyArray],
    prefix: str = "",
    kinds: Mapping[str, type] | None = None,
) -> Kind:
    """Put a dataclass together again; ``kinds`` names the dataclass of fields whose annotation does not."""
    hints = get_type_hints(kind)
    parts: dict[str, Any] = {}
    for field in fields(kind):  # type: ignore[arg-type]
        name = field.name
        inner = (kinds or {}).get(name) or next(
            (t for t in (hints[name], *get_args(hints[name])) if is_dataclass(t)), None
        )
        if prefix + name in arrays:
            parts[name] = arrays[prefix + name]
        elif inner is not None and plain.get(name) is not None:
            parts[name] = from_plain(inner, plain[name], arrays, f"{prefix}{name}.")  # type: ignore[arg-type]
        elif name not in plain and field.default is not MISSING:
            parts[name] = field.default  # of a file that was written before there was such a field
        else:
            parts[name] = tuple(plain[name]) if isinstance(plain[name], list) else plain[name]
    return kind(**parts)
