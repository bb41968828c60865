"""Builds the wheel, installs it by plain pip into fresh environments, and uses it there, away from the checkout.

    python tools/try_install.py                                   # this Python
    python tools/try_install.py python3.11 python3.12 python3.13  # these
    .venv/bin/python tools/try_install.py --no-deps               # the wheel alone, beside what is installed

Prints a line for each Python: what pip chose, processor seconds of each step, the environment's size. Ends with 1 where
a step fails.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
#: From here on there are no MXNet wheels, and a network runs on the extra ``torch``.
FIRST_WITHOUT_MXNET = (3, 13)

_CHOSEN = """
import json, sys
from importlib.metadata import PackageNotFoundError, version
def of(name):
    try: return version(name)
    except PackageNotFoundError: return "none"
print(json.dumps({"python": sys.version.split()[0], **{name: of(name) for name in ("numpy", "mxnet", "torch")}}))
"""
_SHIPPED = "from prognosis_dask.config.reading import shipped; print(shipped('jobs'))"


def main() -> None:
    """Try every Python that is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pythons", nargs="*", default=[sys.executable], metavar="PYTHON")
    parser.add_argument("--patients", type=int, default=24, help="of the synthetic cohort (default: 24)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the job; repeatable")
    parser.add_argument("--no-deps", action="store_true", help="packages come from this Python's environment")
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        wheel = build(arguments.pythons[0], Path(folder))
        print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB", flush=True)
        for number, python in enumerate(arguments.pythons):
            place = Path(folder) / f"elsewhere {number}"
            place.mkdir()
            print(tried(python, wheel, place, arguments), flush=True)


def build(python: str, folder: Path) -> Path:
    """The wheel, built by pip in an environment of its own."""
    called([python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)], ROOT)
    return next(folder.glob("*.whl"))


def tried(python: str, wheel: Path, place: Path, arguments: argparse.Namespace) -> str:
    """Install ``wheel`` and run a cohort in ``place``; the line of that Python."""
    seconds: dict[str, float] = {}
    patients, alone = str(arguments.patients), arguments.no_deps

    def step(name: str, *command: str | Path) -> str:
        begun = processor_seconds()
        said = called(command, place)
        seconds[name] = processor_seconds() - begun
        return said

    binaries = place / "venv" / "bin"
    called([python, "-m", "venv", "venv"], place)
    newest = json.loads(called([python, "-c", "import sys, json; print(json.dumps(sys.version_info[:2]))"], place))
    extra = "[torch]" if tuple(newest) >= FIRST_WITHOUT_MXNET else ""
    if alone:
        site = next((place / "venv" / "lib").glob("python*/site-packages"))
        (site / "beside.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    step("install", binaries / "pip", "install", "--quiet", *(["--no-deps", wheel] if alone else [f"{wheel}{extra}"]))
    prognosis = binaries / "prognosis"
    step("--version", prognosis, "--version")
    step("synth", prognosis, "synth", "cohort", "--patients", patients)
    job = Path(called([binaries / "python", "-c", _SHIPPED], place).strip()) / "demo.toml"
    settings = [part for key in (f"synth.patients={patients}", *arguments.set) for part in ("--set", key)]
    step("run", prognosis, "run", job, *settings, "--out", "made")
    step("report", prognosis, "report", "made")
    expect_whole(place / "made", job)
    chosen = json.loads(called([binaries / "python", "-c", _CHOSEN], place))
    size = sum(file.stat().st_size for file in binaries.parent.rglob("*") if file.is_file() and not file.is_symlink())
    versions = " ".join(f"{name} {found}" for name, found in chosen.items())
    return (
        f"{versions}: " + ", ".join(f"{name} {took:.0f} s" for name, took in seconds.items()) + f", {size / 1e9:.1f} GB"
    )


def expect_whole(run: Path, job: Path) -> None:
    """Stop where the run lacks a part, or the installed program came from the checkout."""
    missing = [name for name in ("report.html", "features.csv", "models/summary.json") if not (run / name).is_file()]
    if missing or ROOT in job.parents:
        sys.exit(f"{run}: {', '.join(missing) or 'the jobs come from the checkout, not from the wheel'}")


def processor_seconds() -> float:
    """Of all commands called so far and what they started."""
    spent = os.times()
    return spent.children_user + spent.children_system


def called(command: Sequence[str | Path], place: Path) -> str:
    """What ``command`` printed; its errors are shown, and end this program."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(list(map(str, command)), cwd=place, env=clean, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
