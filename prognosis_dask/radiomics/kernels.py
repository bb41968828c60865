"""Compiled inner loops, where there was a compiler when the package was installed; the rest does without, more slowly.

``kernels.c`` is compiled by ``hatch_build.py``. What it does, pyradiomics, ITK and
NumPy do as well and to the same bits.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from prognosis_dask.arrays import AnyArray

#: Of what the functions take and give; ``kernels.c`` has the same number.
VERSION = 1


@cache
def kernels() -> ctypes.CDLL | None:
    """The compiled loops; None where there are none, or those of another version."""
    try:
        library = ctypes.CDLL(str(Path(__file__).with_name("_kernels.so")))
    except OSError:
        return None
    return library if library.kernels_version() == VERSION else None


def call(name: str, *arguments: AnyArray | int | float) -> int:
    """Call a loop with arrays, whole numbers (int64) and real ones (double), as it declares them."""
    library = kernels()
    assert library is not None
    function = library[name]
    function.restype = ctypes.c_int64
    return int(function(*(_c(argument) for argument in arguments)))


def _c(argument: AnyArray | int | float) -> Any:
    if isinstance(argument, np.ndarray):
        assert argument.flags.c_contiguous
        return ctypes.c_void_p(argument.ctypes.data)
    return ctypes.c_double(argument) if isinstance(argument, float) else ctypes.c_int64(argument)
