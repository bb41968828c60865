"""The type of what is called like the built-in ``map``, and may compute elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

#: A function and its arguments in, results out, in the order of the arguments. Both may travel to other processes.
Map: TypeAlias = Callable[..., Iterable[Any]]
