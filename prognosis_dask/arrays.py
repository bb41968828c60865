"""The types of arrays, by what they hold, and of what is called like the built-in ``map`` and may compute elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]
Float32Array: TypeAlias = NDArray[np.float32]
IntArray: TypeAlias = NDArray[np.int64]
ByteArray: TypeAlias = NDArray[np.uint8]
BoolArray: TypeAlias = NDArray[np.bool_]
#: Numbers of the type in which a file stores them.
NumberArray: TypeAlias = NDArray[np.generic]
AnyArray: TypeAlias = NDArray[Any]
#: A function and its arguments in, results out, in the order of the arguments. Both may travel to other processes.
Map: TypeAlias = Callable[..., Iterable[Any]]
