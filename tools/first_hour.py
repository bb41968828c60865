"""The ten tasks of a first hour, done as a reader would do them, away from the checkout; writes docs/first_hour.md.

    python -m tools.first_hour                       # an environment of its own, filled by plain pip
    .venv/bin/python -m tools.first_hour --no-deps   # the wheel alone, beside what is installed

The page is written when all are done. Ends with 1 where a task fails, and the page stays as it was.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tools.try_install import ROOT, build, called, processor_seconds

#: Last lines of a task's output that the page shows.
TAIL = 8
#: A port for the scheduler of the last task.
SCHEDULER = "tcp://127.0.0.1:8799"
PATIENT = "cohort/manifest-made/MADE-CHEST/MADE-0001"
JOB = """\
[cohort]
cases = "cases/cases.csv"
collection = "generic"

[deep]
enabled = false

[model]
features = "radiomics"
max_features = 5
repeats = 1
"""
ROSSI = "from lifelines.datasets import load_rossi; load_rossi().to_csv('rossi.csv', index=False)"


@dataclass(frozen=True)
class Task:
    """One of the ten: what it is, and the commands."""

    title: str
    commands: tuple[str, ...]


TASKS = (
    Task(
        "Features of one case",
        ("prognosis synth cohort --patients 40", f"prognosis features {PATIENT} --roi GTV-1 -o one.csv"),
    ),
    Task(
        "Index",
        ("prognosis index cohort/manifest-made/MADE-CHEST -o cases --clinical cohort/clinical.csv --roi GTV-1",),
    ),
    Task("Run", ("prognosis run my.toml --out runs/my",)),
    Task("Status", ("prognosis status runs/my",)),
    Task("Fit on a table", (f'python -c "{ROSSI}"', "prognosis fit rossi.csv -o rossi --set validation.halves=0")),
    Task("Predict", (f"prognosis predict runs/my {PATIENT} --roi GTV-1 -o predicted",)),
    Task("Serve", ("prognosis serve --model runs/my --port 8798",)),
    Task("Notebook", ("jupyter execute --inplace somebodys_table.ipynb",)),
    Task("Cluster", (f"prognosis run my.toml --cluster {SCHEDULER} --out runs/cluster",)),
)


INTRO = """\
# The first hour

<!-- made by: python -m tools.first_hour -->

Ten tasks on synthetic patients: the commands as typed, the last lines that they printed, and their processor time,
over all processes. {system}. The tasks in words: [the tutorial](tutorial.md).

`my.toml`, of the runs:

```toml
{job}```
"""


def main() -> None:
    """Do them in order and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-deps", action="store_true", help="packages come from this Python's environment")
    parser.add_argument(
        "--keep", metavar="FOLDER", help="where it is done, and stays (default: a folder that is removed)"
    )
    page = ROOT / "docs" / "first_hour.md"
    parser.add_argument("-o", "--out", metavar="FILE", type=Path, default=page, help="the page (default: %(default)s)")
    arguments = parser.parse_args()
    alone = arguments.no_deps
    with nullcontext(arguments.keep) if arguments.keep else TemporaryDirectory() as folder:
        wheel, place = build(sys.executable, Path(folder)), Path(folder).absolute() / "elsewhere"
        place.mkdir()
        (place / "my.toml").write_text(JOB, encoding="utf-8")
        shutil.copy(ROOT / "docs" / "notebooks" / "somebodys_table.ipynb", place)
        system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, {os.cpu_count()} cores"
        parts = [INTRO.format(system=system, job=JOB), installed(wheel, place, alone=alone)]
        for number, task in enumerate(TASKS, 2):
            print(f"{number}. {task.title}", flush=True)
            parts.append(done(number, task, place))
    arguments.out.write_text("\n".join(parts), encoding="utf-8")
    print(arguments.out)


def installed(wheel: Path, place: Path, *, alone: bool) -> str:
    """The first task: an environment with the package, of plain pip."""
    begun = processor_seconds()
    called([sys.executable, "-m", "venv", "venv"], place)
    if alone:
        site = next((place / "venv" / "lib").glob("python*/site-packages"))
        (site / "beside.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    more = ["--no-deps"] if alone else ["nbclient", "ipykernel"]
    said = called([place / "venv" / "bin" / "pip", "install", "--quiet", *more, wheel], place)
    how = f"pip install {'--no-deps ' if alone else ''}prognosis_dask-*.whl{'' if alone else ' nbclient ipykernel'}"
    return section(1, "Install", ("python -m venv venv", how), said, processor_seconds() - begun, place)


def done(number: int, task: Task, place: Path) -> str:
    """Do a task; its part of the page."""
    begun, said = processor_seconds(), ""
    for command in task.commands:
        if task.title == "Serve":
            said += served(command, place)
        elif task.title == "Cluster":
            with cluster(place):
                said += shell(command, place)
        else:
            said += shell(command, place)
    return section(number, task.title, task.commands, said, processor_seconds() - begun, place)


def section(number: int, title: str, commands: Sequence[str], said: str, seconds: float, place: Path) -> str:
    """A task's part of the page."""
    lines = said.replace(f"{place}/", "").replace(str(place), ".").strip().splitlines()
    shown = "\n".join(line[:160] for line in lines[-TAIL:]) or "(nothing)"
    took = f"{seconds:.0f} s of processor time"
    return f"## {number}. {title}\n\n```sh\n" + "\n".join(commands) + f"\n```\n\n{took}.\n\n```text\n{shown}\n```\n"


def environment(place: Path) -> dict[str, str]:
    """With the new environment's programs first, as after its activation."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    ours = [str(place / "venv" / "bin"), sysconfig.get_path("scripts")]
    return {**clean, "PATH": os.pathsep.join([*ours, clean["PATH"]])}


def shell(command: str, place: Path) -> str:
    """What a command printed; its errors are shown, and end this program."""
    ran = subprocess.run(
        command, shell=True, cwd=place, env=environment(place), capture_output=True, text=True, check=False
    )
    if ran.returncode:
        sys.exit(f"{command}\n{ran.stdout[-2000:]}\n{ran.stderr[-4000:]}")
    return ran.stdout


@contextmanager
def running(command: str, place: Path) -> Iterator[subprocess.Popen[str]]:
    """A program that runs meanwhile, and is ended and waited for."""
    program = subprocess.Popen(
        command.split(), cwd=place, env=environment(place), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield program
    finally:
        program.terminate()
        program.wait()


def served(command: str, place: Path) -> str:
    """Start the page, ask for it once it is there, and end it."""
    with running(command, place) as program:
        said = ""
        for line in program.stdout or ():
            said += line
            if found := re.search(r"http://\S+", line):
                visitor = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
                with visitor.open(found[0], timeout=600) as answer:
                    return said + f"{answer.status} {answer.headers['Content-Type']}, {len(answer.read())} bytes\n"
    sys.exit(f"{command} gave no address:\n{said}")


@contextmanager
def cluster(place: Path) -> Iterator[None]:
    """A scheduler and a worker, as another machine's would be."""
    scheduler = f"python -m dask scheduler --host {SCHEDULER} --no-dashboard"
    worker = f"python -m dask worker {SCHEDULER} --nthreads 1 --nworkers 2 --no-dashboard"
    with running(scheduler, place), running(worker, place):
        yield


if __name__ == "__main__":
    main()
