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

from prognosis_dask.arrays import AnyArray, FloatArray

#: Version of the functions' interface; ``matrices.c`` has the same number.
VERSION = 6


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
    found = int(_function(name)(*map(_c, arguments)))
    if found < 0:
        raise MemoryError(f"not enough memory for {name}")
    return found


@cache
def _function(name: str) -> Any:
    library = kernels()
    assert library is not None
    function = library[name]
    function.restype = ctypes.c_int64
    return function


def _c(argument: AnyArray | int | float) -> Any:
    if isinstance(argument, np.ndarray):
        assert argument.flags.c_contiguous
        return ctypes.c_void_p(argument.__array_interface__["data"][0])
    return ctypes.c_double(argument) if isinstance(argument, float) else ctypes.c_int64(argument)


#: As many terms as NumPy 1 adds pairwise before it starts anew, and more than there are anywhere.
_CHUNKS = (8192, 1 << 62)


@cache
def chunk() -> int | None:
    """How many terms this NumPy adds pairwise at once; None without compiled loops, or if it adds in another order."""
    if kernels() is None:
        return None
    rng = np.random.default_rng(0)
    terms, several = rng.normal(0, 1, 20_000), rng.normal(0, 1, (1, 40, 30, 13))
    if not np.array_equal(np.add.reduce(several, (1, 2))[0], np.cumsum(several.reshape(-1, 13), axis=0)[-1]):
        return None
    # one sum in five has the same bits in another order
    parts = [terms[:count] for count in (9, 100, 1000, *range(5000, 20_001, 500))]
    return next((found for found in _CHUNKS if all(_sum(part, found) == np.add.reduce(part) for part in parts)), None)


def _sum(terms: FloatArray, chunk: int) -> float:
    total = np.empty(1)
    call("sum_of", terms, len(terms), chunk, total)
    return float(total[0])
