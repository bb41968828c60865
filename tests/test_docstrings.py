"""What a docstring shows is what the code does."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType

import prognosis_dask


def modules() -> Iterator[ModuleType]:
    """All modules but those that import what is not installed here, such as torch."""
    yield prognosis_dask
    for found in pkgutil.walk_packages(prognosis_dask.__path__, "prognosis_dask."):
        # a library of C functions; what tests/test_pipeline.py and tests/test_predict_cohort.py try, on a run
        if found.name.endswith(("__main__", "_kernels", "workflows.run", "prediction.scan", "features.dataset")):
            continue
        try:
            yield importlib.import_module(found.name)
        except ModuleNotFoundError as error:
            if str(error.name).startswith("prognosis_dask"):
                raise


def test_every_name_of_the_package_has_an_example() -> None:
    names = [name for name in prognosis_dask.__all__ if name != "__version__"]
    assert [name for name in names if ">>> " not in (getattr(prognosis_dask, name).__doc__ or "")] == []


def test_every_example_in_a_docstring_gives_what_it_shows() -> None:
    failures: list[str] = []
    runner, finder = doctest.DocTestRunner(verbose=False), doctest.DocTestFinder(exclude_empty=True)
    for module in modules():
        names = {name: getattr(module, name) for name in getattr(module, "__all__", ())}  # the package loads them late
        for example in finder.find(module, extraglobs=names):
            runner.run(example, out=failures.append)
    tried = runner.summarize(verbose=False)
    assert tried.attempted > 100, "the examples were not found"
    assert not failures, "\n".join(failures)
