"""Compiled inner loops, if there was a compiler at installation; otherwise slower code gives the same results.

The C files beside this one are compiled by ``hatch_build.py``. pyradiomics, ITK and NumPy compute the same to the last
bit.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from prognosis_dask.arrays import AnyArray

#: Version of the functions' interface; ``matrices.c`` has the same number.
VERSION = 2


@cache
def kernels() -> ctypes.CDLL | None:
    """The compiled loops; None if absent or of another version."""
    try:
        library = ctypes.CDLL(str(Path(__file__).with_name("_kernels.so")))
    except OSError:
        return None
    return library if library.kernels_version() == VERSION else None


def call(name: str, *arguments: AnyArray | int | float) -> int:
    """Call a loop with arrays, integers (int64) and reals (double), as it declares them.

    Raises
    ------
    MemoryError
        When it gives a negative number.
    """
    library = kernels()
    assert library is not None
    function = library[name]
    function.restype = ctypes.c_int64
    found = int(function(*map(_c, arguments)))
    if found < 0:
        raise MemoryError(f"not enough memory for {name}")
    return found


def _c(argument: AnyArray | int | float) -> Any:
    if isinstance(argument, np.ndarray):
        assert argument.flags.c_contiguous
        return ctypes.c_void_p(argument.ctypes.data)
    return ctypes.c_double(argument) if isinstance(argument, float) else ctypes.c_int64(argument)
