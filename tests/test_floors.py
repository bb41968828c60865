"""The layers hold: imports go down only, Dask is confined to the upper layers, starting up is quick."""

from __future__ import annotations

import ast
import re
import resource
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "prognosis_dask"
#: From the top down; a part imports from those below it (and from itself).
FLOORS = (
    "__main__",
    "cli",
    "web",
    "prediction",
    "workflows",
    "report",
    "modelling",
    "execution",
    # what is computed lies below what runs it, fits models to it and shows it: these go through its list of stages
    "features",
    "storage",
    "synthetic",
    "brain",
    "networks",
    "radiomics",
    "imaging",
    "cohort",
    "tables",
    "volumes",
    "config",
    "publish",
    "objects",
    "arrays",
    "errors",
)
KNOW_DASK = {"cli", "workflows", "execution", "prediction", "web"}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def floor_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@cache
def imported_modules(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the floor"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_imports_go_down_only() -> None:
    upward = []
    for path in FILES:
        floor = FLOORS.index(floor_of(path))
        for name in sorted(imported_modules(path)):
            package, _, rest = name.partition(".")
            part = rest.split(".")[0]
            if package == "prognosis_dask" and part in FLOORS and FLOORS.index(part) < floor:
                upward.append(f"{path.relative_to(PACKAGE)} imports {name}, which is above it")
    assert not upward, "\n".join(upward)


def test_tests_import_nothing_from_the_benchmarks() -> None:
    """Benchmarks may import from tests, not the other way round."""
    tests = sorted((PACKAGE.parent / "tests").rglob("*.py"))
    found = {path.name for path in tests if any(n.startswith("benchmarks.") for n in imported_modules(path))}
    assert not found


def test_no_modules_import_each_other_in_a_circle() -> None:
    def module(path: Path) -> str:
        return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")

    modules = set(map(module, FILES))
    needs = {
        module(path): {name if name in modules else name.rpartition(".")[0] for name in imported_modules(path)}
        for path in FILES
    }
    try:
        TopologicalSorter({name: (found & modules) - {name} for name, found in needs.items()}).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_only_the_upper_floors_know_dask() -> None:
    dask = {
        str(path.relative_to(PACKAGE))
        for path in FILES
        if {name.partition(".")[0] for name in imported_modules(path)} & {"dask", "distributed", "dask_cuda"}
    }
    assert not sorted(name for name in dask if floor_of(PACKAGE / name) not in KNOW_DASK)


def test_no_module_needs_a_unix_to_be_imported() -> None:
    """What only Unix has is imported where it is used, so that other systems get as far as they can."""
    unix = {"fcntl", "grp", "pty", "pwd", "resource", "termios"}
    for path in FILES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not unix.intersection(names), f"{path.relative_to(PACKAGE)} imports {names}"


def test_no_two_public_classes_have_one_name() -> None:
    names: dict[str, list[str]] = {}
    for path in FILES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                names.setdefault(node.name, []).append(str(path.relative_to(PACKAGE)))
    assert not {name: places for name, places in names.items() if len(places) > 1}


def test_files_stay_readable() -> None:
    lines = {str(path.relative_to(PACKAGE)): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert not {name: count for name, count in lines.items() if count > 500}


def test_the_tests_that_the_makefile_lists_are_there() -> None:
    text = (PACKAGE.parent / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    listed = [name for words in re.findall(r"^(?:DIFFERS|ENGINES) := (.*)$", text, re.M) for name in words.split()]
    there = {path.stem.removeprefix("test_") for path in (PACKAGE.parent / "tests").glob("test_*.py")}
    assert len(listed) > 40
    assert not set(listed) - there
    runs = re.search(r"^WHOLE_RUNS := \$\(addprefix tests/(\w+\.py)::(\w+), (.*)\)$", text, re.M)
    assert runs
    written = (PACKAGE.parent / "tests" / runs[1]).read_text(encoding="utf-8")
    assert not [name for name in runs[3].split() if f"def {runs[2]}{name}(" not in written]


@pytest.mark.parametrize("arguments", [["-c", "import prognosis_dask"], ["-m", "prognosis_dask", "--help"]])
def test_starting_up_takes_less_than_half_a_second(arguments: list[str]) -> None:
    def seconds() -> float:
        """Of the processor: the limit is about what is imported, not about what else the machine does."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(5)) < 0.5
