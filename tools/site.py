"""Builds the documentation's site: ``python tools/site.py FOLDER``; ends with 1 where a page or link is wrong.

The pages are laid out as in the checkout, so that their links between folders hold on the site too.
"""

from __future__ import annotations

import logging
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

import prognosis_dask

ROOT = Path(__file__).parents[1]
PARTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "benchmarks/README.md", "docs", "cluster", "jobs")


def main() -> None:
    """Build into the folder that is named."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    with TemporaryDirectory() as folder:
        lay_out(Path(folder))
        config = load_config(str(ROOT / "mkdocs.yml"), docs_dir=folder, site_dir=sys.argv[1], strict=True)
        try:
            build(config)
        except Abort as error:
            sys.exit(str(error))


def lay_out(folder: Path) -> None:
    """Copy the pages and what they link to, and write the reference of what a notebook calls."""
    for part in PARTS:
        target = folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / part).is_dir() else shutil.copy)(ROOT / part, target)
    (folder / "docs" / "api.md").write_text(reference(), encoding="utf-8")


def reference() -> str:
    """The page of the package's functions, from their docstrings."""
    parts = ["# In Python\n\nWhat `import prognosis_dask` offers.\n"]
    for name in prognosis_dask.__all__:
        home = getattr(getattr(prognosis_dask, name), "__module__", None)
        if home is not None:
            parts.append(f"::: {home}.{name}\n    options:\n      heading_level: 2\n")
    return "\n".join(parts)


if __name__ == "__main__":
    main()
