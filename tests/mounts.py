"""Disks that fill up or turn read only, made by mounting; skipped where the right to mount is missing."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(*arguments: str, at: Path) -> Iterator[None]:
    try:
        subprocess.run(["mount", *arguments, str(at)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs the right to mount: {error}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=False)
