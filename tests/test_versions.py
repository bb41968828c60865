"""The versions that a run records and its workers must share follow from what the package requires."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import pytest

from prognosis_dask.execution.cluster import _skew
from prognosis_dask.execution.versions import WITHOUT_VALUES, package_versions

ROOT = Path(__file__).parents[1]


def required() -> set[str]:
    return {re.match(r"[A-Za-z0-9._-]+", line)[0].lower() for line in requires("prognosis-dask")}


@pytest.mark.parametrize("package", ["numpy", "scipy", "scikit-learn", "simpleitk", "xgboost-cpu", "torch", "mxnet"])
def test_what_computes_values_is_listed_where_it_is_installed(package: str) -> None:
    try:
        installed = version(package)
    except PackageNotFoundError:
        pytest.skip(f"{package} is not installed")
    assert package_versions()[package] == installed


def test_a_requirement_is_listed_unless_it_is_known_to_change_no_value() -> None:
    assert required() >= WITHOUT_VALUES, "an exception for what nobody requires"
    for package in required() - WITHOUT_VALUES:
        try:
            installed = version(package)
        except PackageNotFoundError:
            assert package not in package_versions()
        else:
            assert package_versions()[package] == installed
    assert not WITHOUT_VALUES & set(package_versions())


def test_a_package_of_an_extra_is_listed_from_its_installation_on(tmp_path: Path) -> None:
    (tmp_path / "torch-2.99.dist-info").mkdir()
    (tmp_path / "torch-2.99.dist-info" / "METADATA").write_text("Name: torch\nVersion: 2.99\n")
    code = "import json; from prognosis_dask.execution.versions import package_versions as p; print(json.dumps(p()))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["torch"] == "2.99"


def test_a_worker_may_lack_an_extra_but_not_have_another_version_of_it() -> None:
    own = {"numpy": "1", "torch": "2"}

    def lines(**there: str) -> list[str]:
        return _skew("tcp://w", {"host": "h", "versions": there}, own)

    assert lines(numpy="1", torch="2") == lines(numpy="1") == []
    (other,) = lines(numpy="1", torch="3")
    assert "has torch 3 (here 2)" in other
    (missing,) = lines(torch="2")
    assert "lacks numpy;" in missing
