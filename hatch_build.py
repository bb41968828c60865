"""Compiles the inner loops of radiomics when the package is built, where there is a C compiler.

Without one the package is built all the same: the loops have slower substitutes that give the same bits.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

#: Products and sums are not joined, since pyradiomics' and ITK's are not.
FLAGS = ("-O3", "-ffp-contract=off", "-shared", "-fPIC")


class KernelsHook(BuildHookInterface[Any]):
    """Puts ``_kernels.so`` beside the C files of radiomics."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and mark the wheel as one for this platform if that went well."""
        if self.target_name != "wheel":
            return
        folder = Path(self.root) / "prognosis_dask" / "radiomics"
        library = folder / "_kernels.so"
        if not compiled(sorted(folder.glob("*.c")), library):
            return
        build_data["artifacts"].append(f"/{library.relative_to(self.root).as_posix()}")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"


def compiled(sources: list[Path], library: Path) -> bool:
    """Compile ``sources`` together; whether that went well. An older library is replaced whole, or does not stay."""
    fresh = library.with_suffix(".new")
    compiler = next(filter(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang")), None)
    if compiler is None or sys.platform == "win32":
        library.unlink(missing_ok=True)
        return False
    command = [compiler, *FLAGS, "-o", str(fresh), *map(str, sources), "-lm"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        library.unlink(missing_ok=True)
        return False
    if done.returncode:
        print(f"radiomics goes without compiled loops: {' '.join(done.stderr.split())[:500]}", file=sys.stderr)
        fresh.unlink(missing_ok=True)
        library.unlink(missing_ok=True)
    else:
        fresh.replace(library)
    return done.returncode == 0
