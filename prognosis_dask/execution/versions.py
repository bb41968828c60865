"""The versions of everything that can change a value: of what this package requires and what is installed of it."""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version

OWN = "prognosis-dask"
#: Requirements that no value depends on: pages and pictures, progress, processes, how workers are reached,
#: and lifelines, which results are compared with.
WITHOUT_VALUES = frozenset(
    (
        *("bokeh", "jinja2", "lifelines", "matplotlib", "prometheus-client", "psutil", "python-multipart"),
        *("starlette", "tqdm", "uvicorn"),
        *("asyncssh", "cryptography", "dask-cuda", "dask-jobqueue", "dask-kubernetes"),
        "setuptools",  # holds distutils, for MXNet's import
    )
)


@cache
def package_versions() -> dict[str, str]:
    """The versions of prognosis_dask and of its installed requirements, those of extras too, by name.

    Raises
    ------
    importlib.metadata.PackageNotFoundError
        When prognosis_dask itself is not installed.
    """
    found = {OWN: version(OWN)}
    for name in sorted(_requirements()):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # of an extra, or of another platform
            continue
    return found


def is_optional(package: str) -> bool:
    """Whether only an extra asks for it: a worker without it cannot give another value, only none."""
    return not _requirements().get(package, True)


@cache
def _requirements() -> dict[str, bool]:
    """The requirements that values can depend on; whether they are required, or only by an extra."""
    found: dict[str, bool] = {}
    for line in requires(OWN) or ():
        requirement, _, marker = line.partition(";")
        name = re.split(r"[^A-Za-z0-9._-]", requirement.strip(), maxsplit=1)[0].lower()
        if name not in WITHOUT_VALUES:
            found[name] = found.get(name, False) or "extra ==" not in marker
    return found
