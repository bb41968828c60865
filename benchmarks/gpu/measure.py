"""Everything that is to be measured on a GPU, in eight minutes, as one JSON file.

    python -m benchmarks.gpu.measure OUT.json [--seconds 480] [--dry-run]

The engine by precision, mode and batch (clips/s, share of the measured matrix rate, error of each precision), the
whole job from DICOM to features, and the same with radiomics beside it. Each part is a command of its own, which the
file names, and ends when the time is up; what it has printed until then counts. ``--dry-run``: the same on a CPU, as
small as it goes, so that nothing is tried for the first time where time is short. The status is 1 where a part failed
or, of a dry run, did not come to its end.
"""

from __future__ import annotations

import argparse
import json
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

PARTS = {
    "engine": "throughput --modes channels_last compile engine --batches 8 32 64 --seconds 1",
    "whole job": "whole_job --patients 2000 --precision bfloat16 --batch 32",
    "whole job with radiomics": "whole_job --patients 400 --precision bfloat16 --batch 32 --radiomics",
}
#: Share of the time that each part may take, of what is left then.
SHARES = {"engine": 0.5, "whole job": 0.5, "whole job with radiomics": 1.0}
_SMALL = "whole_job --patients 2 --distinct 2 --cluster local --device cpu"
DRY = {
    "engine": "throughput --device cpu --frames 6 --modes engine --batches 1 --precisions float32 --seconds 0.1 "
    "--matrix 256",
    "whole job": _SMALL,
    "whole job with radiomics": f"{_SMALL} --radiomics",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT.json")
    parser.add_argument("--seconds", type=float, default=480.0)
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args()
    ends = time.monotonic() + options.seconds
    found: dict[str, object] = {"machine": platform.platform(), "dry_run": options.dry_run}
    for name, command in (DRY if options.dry_run else PARTS).items():
        found[name] = part(command, (ends - time.monotonic()) * SHARES[name])
        options.out.write_text(json.dumps(found, indent=1))  # what is measured is kept, whatever comes next
        print(f"{name}: {found[name]['ended']} after {found[name]['seconds']:.0f} s", flush=True)  # type: ignore[index]
    sys.exit(status([str(found[name]["ended"]) for name in SHARES], dry=options.dry_run))  # type: ignore[index]


def status(ended: list[str], *, dry: bool) -> int:
    """0 where every part ended well; on a GPU that the time is up is foreseen, and what it gave till then counts."""
    well = ("done",) if dry else ("done", "time was up")
    return 0 if all(one in well for one in ended) else 1


def part(command: str, seconds: float) -> dict[str, object]:
    """Run one command of this folder, at most so long; its tables as rows by their headings, and its other lines."""
    arguments = [sys.executable, "-m", *f"benchmarks.gpu.{command}".split()]
    started, ended = time.monotonic(), "done"
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        try:
            said, errors = run.communicate(timeout=max(seconds, 1.0))
        except subprocess.TimeoutExpired:
            said, errors = _stopped(run)
            ended = "time was up"
    if run.returncode and ended == "done":
        ended = f"failed: {errors.strip().splitlines()[-1][:300] if errors.strip() else run.returncode}"
    lines = said.splitlines()
    return {
        "command": " ".join(["python", *arguments[1:]]),
        "ended": ended,
        "seconds": time.monotonic() - started,
        "tables": tables(lines),
        "lines": [line for line in lines if line.strip() and not line.startswith("|")],
    }


def _stopped(run: subprocess.Popen[str]) -> tuple[str, str]:
    """As by Ctrl-C, so that workers are stopped too; what does not obey is killed."""
    run.send_signal(signal.SIGINT)
    try:
        return run.communicate(timeout=15)
    except subprocess.TimeoutExpired:
        run.kill()
        return run.communicate()


def tables(lines: list[str]) -> list[list[dict[str, str]]]:
    """The Markdown tables among the lines."""
    found: list[list[dict[str, str]]] = []
    heads: list[str] = []
    for line, following in zip(lines, [*lines[1:], ""], strict=False):
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            heads = []
        elif following.startswith("|--"):
            heads = cells
            found.append([])
        elif heads and not line.startswith("|--"):
            found[-1].append(dict(zip(heads, cells, strict=False)))
    return found


if __name__ == "__main__":
    main()
