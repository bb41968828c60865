"""The one place that imports MXNet and GluonCV."""

from __future__ import annotations

import importlib
import platform
import warnings
from types import ModuleType

import numpy as np

from prognosis_dask.errors import MissingExtraError


def import_gluon() -> ModuleType:
    """Import ``gluoncv`` (and with it ``mxnet``), which takes seconds the first time.

    Raises
    ------
    MissingExtraError
        Where they cannot be imported.
    """
    try:
        return _import()
    except (ImportError, OSError) as error:  # OSError: a shared library that MXNet needs is missing
        raise MissingExtraError(
            "the Gluon engine needs mxnet and gluoncv, whose wheels exist for Linux x86_64 and Python < 3.13 only; "
            f"this is {platform.system()} {platform.machine()} with Python {platform.python_version()}, and the import "
            f"says: {error}. Use such a machine, or set deep.enabled = false"
        ) from error


def _import() -> ModuleType:
    # MXNet 1.9 looks up numpy.bool, which NumPy 1.24 to 1.26 lack, and only while it is imported.
    lacks_bool = "bool" not in vars(np)  # hasattr would warn
    if lacks_bool:
        np.bool = bool  # type: ignore[attr-defined]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"In accordance with NEP 32", DeprecationWarning)
            warnings.filterwarnings("ignore", r"distutils Version classes are deprecated", DeprecationWarning)
            warnings.filterwarnings("ignore", r"Both `mxnet==.*` and `torch==.*` are installed", UserWarning)
            importlib.import_module("mxnet")
            return importlib.import_module("gluoncv")
    finally:
        if lacks_bool:
            del np.bool  # type: ignore[attr-defined]
