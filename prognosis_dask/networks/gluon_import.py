"""Import MXNet and GluonCV: the only module that does, with the workarounds they need."""

from __future__ import annotations

import importlib.abc
import importlib.metadata
import importlib.util
import os
import platform
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType

import numpy as np

from prognosis_dask.errors import MissingExtraError


def import_gluon() -> ModuleType:
    """Import ``gluoncv`` (and with it ``mxnet``), which takes seconds the first time.

    Raises
    ------
    MissingExtraError
        If they cannot be imported.
    """
    try:
        return _import()
    except (ImportError, OSError) as error:  # OSError: a shared library that MXNet needs is missing
        raise MissingExtraError(
            "the Gluon engine needs mxnet and gluoncv, whose wheels exist for Linux x86_64 and Python < 3.13 only; "
            f"this is {platform.system()} {platform.machine()} with Python {platform.python_version()}, and the import "
            f"says: {error}. Use such a machine, or switch the network off"
        ) from error


def gluon_version() -> str:
    """The version of MXNet, without importing it, which takes seconds.

    Raises
    ------
    MissingExtraError
        If MXNet or GluonCV is not installed.
    """
    if not all(importlib.util.find_spec(name) for name in ("mxnet", "gluoncv")):
        import_gluon()
    return importlib.metadata.version("mxnet")


def _import() -> ModuleType:
    with _numpy_bool(), _one_thread(), _without_torch(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"In accordance with NEP 32", DeprecationWarning)
        warnings.filterwarnings("ignore", r"distutils Version classes are deprecated", DeprecationWarning)
        importlib.import_module("mxnet")
        return importlib.import_module("gluoncv")


@contextmanager
def _numpy_bool() -> Iterator[None]:
    """Provide ``numpy.bool``, which MXNet 1.9 uses during import and NumPy 1.24 to 1.26 lack."""
    if "bool" in vars(np):
        yield
        return
    np.bool = bool  # type: ignore[attr-defined]
    try:
        yield
    finally:
        del np.bool  # type: ignore[attr-defined]


@contextmanager
def _without_torch() -> Iterator[None]:
    """Hide torch while GluonCV is imported, which fails with version 2.

    By a finder that finds nothing, since SciPy fails with None in ``sys.modules``.
    """
    loaded = sys.modules.pop("torch", None)
    sys.meta_path.insert(0, _NO_TORCH)
    try:
        yield
    finally:
        sys.meta_path.remove(_NO_TORCH)
        if loaded is not None:
            sys.modules["torch"] = loaded


class _NoTorch(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name == "torch":
            raise ModuleNotFoundError("torch is hidden from GluonCV", name=name)


_NO_TORCH = _NoTorch()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Make MXNet compute in one thread: convolutions are split, and so rounded, by the number of threads.

    MXNet reads the number when it is loaded: its own variable only if OMP_NUM_THREADS is not set. An OpenMP library
    that another package loaded before reads neither.
    """
    wanted = {"OMP_NUM_THREADS": None, "MXNET_OMP_MAX_THREADS": "1"}
    before = {name: os.environ.get(name) for name in wanted}
    _set_environment(wanted)
    try:
        yield
    finally:
        _set_environment(before)


def _set_environment(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
