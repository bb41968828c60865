"""What every test shares: where the real data lie, and the libraries that one environment lacks."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import hypothesis
import pytest
from filelock import FileLock

from prognosis_dask.cli import main as cli
from prognosis_dask.networks.gluon_import import import_gluon
from tests.object_server import object_server, running_object_server  # noqa: F401 - fixtures

# the same examples in every run, so that a failure is of the change it is seen with
hypothesis.settings.register_profile(
    "tests",
    derandomize=True,
    max_examples=50,
    deadline=None,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("tests")
#: The files that take longest, in the order in which they begin, so that none is left over for one process at the end.
LONGEST = (
    *("pipeline", "bucket_runs", "brain_preprocess", "brain_stage", "kills", "survival", "site", "survival_commands"),
    *("serve_browser", "scan", "brain_candidate", "robustness", "install", "slurm", "ibsi"),
    *("cube_networks", "torch_engine", "weights_check", "report", "nested", "grade", "status", "dashboard"),
    *("brain_deepbet", "radiomics", "radiomics_loops", "radiomics_maps", "acquisition", "synthetic_brain", "cluster"),
)
# a shell that starts its tests in the background lets them, and what they start, ignore Ctrl-C
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; with ``--dist loadfile`` files are given out in this order."""
    place = {f"test_{name}": n for n, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data: ``PROGNOSIS_TEST_DATA``, else ``../shared/data`` beside the checkout.

    Without it the test is skipped, or fails where ``PROGNOSIS_REQUIRE_DATA`` is set, as in CI.
    """
    named = os.environ.get("PROGNOSIS_TEST_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        reason = f"real data not found at {folder}: set PROGNOSIS_TEST_DATA to its folder"
        if os.environ.get("PROGNOSIS_REQUIRE_DATA"):
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Make a folder once in a session, whichever test, file or process asks first; it is to be read only."""
    own = tmp_path_factory.getbasetemp()
    shared = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "once"
    shared.mkdir(exist_ok=True)

    def folder(name: str, make: Callable[[Path], object]) -> Path:
        place, made = shared / name, shared / f"{name}.made"
        with FileLock(shared / f"{name}.lock"):
            if not made.exists():
                shutil.rmtree(place, ignore_errors=True)
                make(place)
                made.touch()
        return place

    return folder


@pytest.fixture(scope="module")
def workers() -> Iterator[str]:
    """The address of two workers for all runs of a file that leave them as they were."""
    from prognosis_dask.execution.cluster import LocalSpec, connect  # Dask, which most files do without

    with connect(LocalSpec(workers=2, dashboard="127.0.0.1:0")) as client:
        yield client.scheduler.address


@pytest.fixture(scope="session")
def gluon() -> ModuleType:
    """GluonCV; without MXNet, as where ``make test-torch`` runs, the test is skipped."""
    missing = [name for name in ("mxnet", "gluoncv") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"the Gluon engine is not installed here: no {' and no '.join(missing)}")
    return import_gluon()


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Call a command, in this process, that has to be refused: with status 2 and a line or two, which it returns."""
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # the command line has one of its own

    def call(*arguments: object) -> str:
        with pytest.raises(SystemExit) as stopped:
            cli.main([str(argument) for argument in arguments])
        said = capsys.readouterr().err
        assert stopped.value.code == cli.EXIT_ERROR
        assert "Traceback" not in said
        assert len([line for line in said.splitlines() if not line.startswith(("usage: ", " "))]) <= 3
        return said

    return call
